"""The command line in processes of its own: to kill it while it writes, or to have two ranks.

``python chunk_worker.py KILL COMMANDS`` runs commands, a JSON list of their arguments, and dies
where KILL says; ``torchrun --nproc_per_node 2 chunk_worker.py KILL COMMANDS`` does so on two ranks.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch

from implicitprm import chunks
from implicitprm.cli import app
from implicitprm.data import append_jsonl
from implicitprm.devices import processes

#: Chunks that are complete when a run is killed in the third one.
COMPLETE = 2
#: Where a run dies.
KILLS = ("between chunks", "in a line", "before merging", "while merging")
WRITE, APPEND = chunks._write_whole, append_jsonl
#: Seconds after which ranks that wait for each other give up.
LIMIT = 300


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def is_third(path: Path) -> bool:
    return len(list(path.parent.glob("*.jsonl"))) == COMPLETE


def die_between_chunks(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    if is_third(path):
        die()
    WRITE(path, rows)


def die_in_a_line(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> int:
    path = Path(path)
    if is_third(path):
        APPEND(path, list(rows)[:3])
        path.write_bytes(path.read_bytes()[:-20])
        die()
    return APPEND(path, rows)


def die_before_merging(parts: Path, output: Path) -> None:
    die()


def die_while_merging(parts: Path, output: Path) -> None:
    (parts / "whole.new").write_bytes(sorted(parts.glob("*.jsonl"))[0].read_bytes()[:-20])
    die()


def prepare(kill: str) -> None:
    if kill == "between chunks":
        chunks._write_whole = die_between_chunks
    elif kill == "in a line":
        chunks.append_jsonl = die_in_a_line  # type: ignore[attr-defined]
    elif kill == "before merging":
        chunks._merge = die_before_merging
    elif kill == "while merging":
        chunks._merge = die_while_merging


if __name__ == "__main__":
    torch.set_num_threads(1)
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    prepare(sys.argv[1])
    for command in json.loads(sys.argv[2]):
        app(command, standalone_mode=False)
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    assert processes().num_processes == ranks
    if ranks > 1:
        assert torch.distributed.get_world_size() == ranks
        torch.distributed.barrier()
        # Taking gloo's threads down hangs now and then, see worker.py.
        os._exit(0)
