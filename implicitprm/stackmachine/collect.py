"""Remake the shipped rollouts: ``python -m implicitprm.stackmachine.collect`` (a few minutes).

One row per distinct program for a task, with the number of times it was drawn and what is true of
its steps.
"""

from __future__ import annotations

from collections import Counter
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from datasets import Dataset
from pyarrow import parquet
from transformers import AutoModelForCausalLM, AutoTokenizer

from implicitprm.rollouts import Rollout, Sampling, sample_rollouts
from implicitprm.stackmachine.machine import PROGRAM_FORMAT, behaviour
from implicitprm.stackmachine.pretrain import reasoner_path
from implicitprm.stackmachine.problems import Task, distinct_tasks
from implicitprm.stackmachine.truth import check_program

SAMPLING = Sampling(max_new_tokens=64, min_p=0.05)
TASK_SEED = 1
#: Tasks of each split, and rollouts of each task.
SPLITS = {"train": (800, 8), "validation": (150, 16), "test": (200, 64)}


def rollouts_path(split: str) -> Path:
    """The shipped file of one split."""
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    return Path(str(files("implicitprm.stackmachine"))) / "data" / f"{split}.parquet"


def load_programs(split: str = "train") -> Dataset:
    """Load shipped rollouts, one row per distinct program for a task.

    Columns: ``prompt, completion, label`` (does the program pass the tests), ``weight`` (how often
    it was drawn), ``finished``, ``steps``, ``answer`` (its behaviour on the tests, by which
    programs vote; None where it fails to run), and the truth, which no PRM is trained on:
    ``first_error`` (−1 if none) and ``kind`` of that error.
    """
    return Dataset(parquet.read_table(rollouts_path(split)))


def tasks_of(split: str) -> list[Task]:
    """The tasks of a split; no task is in two of them."""
    stream = distinct_tasks(np.random.default_rng(TASK_SEED))
    drawn = {name: list(islice(stream, size)) for name, (size, _) in SPLITS.items()}
    return drawn[split]


def rows_of(task: Task, rollouts: list[Rollout]) -> list[dict[str, Any]]:
    """The distinct rollouts of a task, with counts and truth, in the order first drawn."""
    rows = []
    for rollout, count in Counter(rollouts).items():
        steps = PROGRAM_FORMAT.split(rollout.completion)
        truth = check_program(task, steps, rollout.finished)
        rows.append(
            {
                "prompt": task.prompt,
                "completion": rollout.completion,
                "label": truth.correct,
                "weight": count,
                "finished": rollout.finished,
                "steps": list(steps),
                "answer": behaviour(steps) if rollout.finished else None,
                "first_error": truth.first_error,
                "kind": truth.kind,
            }
        )
    return rows


def collect(split: str, seed: int) -> Dataset:
    """Sample the rollouts of one split."""
    tasks = tasks_of(split)
    rollouts = sample_rollouts(
        AutoModelForCausalLM.from_pretrained(reasoner_path()).eval(),
        AutoTokenizer.from_pretrained(reasoner_path()),
        [task.prompt for task in tasks],
        n=SPLITS[split][1],
        sampling=SAMPLING,
        format=PROGRAM_FORMAT,
        seed=seed,
    )
    pairs = zip(tasks, rollouts, strict=True)
    return Dataset.from_list([row for task, drawn in pairs for row in rows_of(task, drawn)])


def main(seed: int = 0) -> None:
    """Sample the shipped rollouts anew from the shipped reasoner."""
    torch.set_num_threads(1)
    for split in SPLITS:
        path = rollouts_path(split)
        path.parent.mkdir(exist_ok=True)
        dataset = collect(split, seed)
        parquet.write_table(dataset.data.table, path, compression="zstd")
        typer.echo(f"{path.name}: {len(dataset)} rows")


if __name__ == "__main__":
    typer.run(main)
