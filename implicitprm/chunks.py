"""Write a JSONL file chunk by chunk, on one process or several, so that a killed run can go on.

A chunk is a fixed range of input rows; what becomes of it is one file in a folder beside the
output, renamed to its final name when it is complete. So the chunks that are done are the files
that are there, whenever a run was killed; processes share out those that are not; and the output,
the chunks in their order, is the same whatever the number of processes and of interruptions.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from implicitprm.data import append_jsonl
from implicitprm.devices import processes


def parts_folder(output: Path) -> Path:
    """Where the chunks of an unfinished ``output`` are."""
    return output.with_name(f"{output.name}.parts")


def digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """A hash of the content of rows, by which a run that goes on knows its data again."""
    content = hashlib.sha256()
    for row in rows:
        content.update(json.dumps(row, sort_keys=True, default=str).encode() + b"\n")
    return content.hexdigest()


def write_chunks(
    output: Path,
    count: int,
    chunk: int,
    rows_of: Callable[[range], Iterable[Mapping[str, Any]]],
    description: str,
) -> None:
    """Write to ``output`` what ``rows_of`` makes of the rows 0 to ``count``, ``chunk`` at a time.

    Chunks that a run before has completed are kept. ``rows_of`` must depend on nothing but the
    rows it is given. Every process calls this function, and the output is complete when it
    returns; until then the chunks are in :func:`parts_folder`.

    Raises ValueError, naming the rows, where ``rows_of`` does.
    """
    state, parts = processes(), parts_folder(output)
    parts.mkdir(parents=True, exist_ok=True)
    done = {path.name for path in parts.glob("*.jsonl")}
    state.wait_for_everyone()  # all have looked before one adds a chunk
    todo = [start for start in range(0, count, chunk) if _name(start) not in done]
    for start in tqdm(todo[state.process_index :: state.num_processes], desc=description):
        rows = range(start, min(start + chunk, count))
        try:
            _write_whole(parts / _name(start), rows_of(rows))
        except ValueError as error:
            raise ValueError(f"in rows {rows.start} to {rows.stop - 1}: {error}") from error
    state.wait_for_everyone()
    if state.is_main_process:
        _merge(parts, output)
    state.wait_for_everyone()


def _name(start: int) -> str:
    return f"{start:012d}.jsonl"


def _write_whole(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    scratch = path.with_suffix(".new")
    scratch.unlink(missing_ok=True)  # half of it, of a run that was killed
    append_jsonl(scratch, rows)
    scratch.replace(path)


def _merge(parts: Path, output: Path) -> None:
    whole = parts / "whole.new"
    with whole.open("wb") as file:
        for part in sorted(parts.glob("*.jsonl")):
            file.write(part.read_bytes())
    whole.replace(output)
    shutil.rmtree(parts)
