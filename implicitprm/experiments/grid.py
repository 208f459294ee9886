"""Run the cells of an experiment on several cores; an interrupted run goes on where it was."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from implicitprm.data import append_jsonl, read_rows
from implicitprm.experiments.store import config_hash

#: Finished cells of unfinished runs, relative to the folder in which a command is run.
SCRATCH = Path("build") / "experiments"

Cell = Mapping[str, Any]


def run_cells(
    name: str,
    config: Mapping[str, Any],
    cells: Sequence[Cell],
    measure: Callable[[Cell], dict[str, Any]],
    workers: int,
) -> list[dict[str, Any]]:
    """``measure`` every cell; return cells with results and ``seconds``, in the order of ``cells``.

    Each result is written to SCRATCH when it is there, under a name that contains the hash of
    ``config``: the same command goes on after an interruption, and starts anew where anything in
    the configuration has changed. Code is no part of it: after a change of code delete the file.
    :func:`forget_cells` does so once the result is written. Each worker is a process of its own
    that computes on one thread, so results do not depend on their number. ``measure`` must be a
    function of a module.
    """
    path = _scratch(name, config)
    path.parent.mkdir(parents=True, exist_ok=True)
    done = {}
    if path.exists():
        done = {_key(row["cell"]): json.loads(row["result"]) for row in read_rows(path)}
    todo = [cell for cell in cells if _key(json.dumps(cell)) not in done]
    os.environ["TQDM_DISABLE"] = "1"  # read by the workers: one bar is enough
    # A forked child of a process that has used torch can hang: start fresh interpreters.
    with (
        ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool,
        tqdm(total=len(cells), initial=len(cells) - len(todo), desc=name, unit="cell") as progress,
    ):
        running = {pool.submit(_timed, measure, cell): cell for cell in todo}
        try:
            for future in as_completed(running):
                cell, result = running[future], future.result()
                append_jsonl(path, [{"cell": json.dumps(cell), "result": json.dumps(result)}])
                done[_key(json.dumps(cell))] = result
                progress.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)  # or the rest would be measured, and lost
            raise
    return [dict(cell) | done[_key(json.dumps(cell))] for cell in cells]


def forget_cells(name: str, config: Mapping[str, Any]) -> None:
    """Delete the cells of a grid whose result is written, so that a remake measures them anew."""
    _scratch(name, config).unlink(missing_ok=True)


def _scratch(name: str, config: Mapping[str, Any]) -> Path:
    return SCRATCH / f"{name}-{config_hash(config)}.jsonl"


def _timed(measure: Callable[[Cell], dict[str, Any]], cell: Cell) -> dict[str, Any]:
    start = time.perf_counter()
    result = measure(cell)
    return result | {"seconds": round(time.perf_counter() - start, 1)}


def _key(cell: str) -> str:
    return json.dumps(json.loads(cell), sort_keys=True)
