"""Remake the shipped rollouts: ``python -m implicitprm.wordproblems.collect``.

One row per distinct response to a problem, with the number of times it was drawn. About a quarter
of an hour on one CPU core; an interrupted run goes on where it was.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import typer
from datasets import Dataset
from pyarrow import parquet
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from implicitprm.data import extract_answer, is_correct
from implicitprm.experiments.grid import Cell, forget_cells, run_cells
from implicitprm.experiments.store import file_hash
from implicitprm.rollouts import Rollout, Sampling, sample_rollouts
from implicitprm.wordproblems.pretrain import load_policy, weights_path
from implicitprm.wordproblems.problems import (
    HELD_OUT_TEMPLATES,
    TRAINING_TEMPLATES,
    WORD_FORMAT,
    WordProblem,
    distinct_problems,
)

#: Longer than any true solution, with its end-of-turn token, by a third; min-p as in the miniature.
SAMPLING = Sampling(max_new_tokens=60, min_p=0.05)
#: min_p = 1 leaves the most probable token alone.
GREEDY = Sampling(max_new_tokens=60, min_p=1.0)
PROBLEM_SEED = 1
#: Problems of each split, and rollouts of each: other problems of the training templates, or
#: problems of the held-out templates. Chapter 13 trains on ``train`` while one waits; what is added
#: to it and to ``validation`` for the stored experiment is drawn last, so that the others stay.
SPLITS = {
    "train": (80, 8),
    "validation": (40, 8),
    "held_out": (200, 8),
    "test": (200, 8),
    "more_train": (120, 8),
    "more_validation": (40, 8),
}
#: Files of the test problems decoded greedily: by the policy, and by the model it was made from.
GREEDY_SPLITS = {"greedy": True, "untouched": False}
#: Problems that are sampled, and then kept, together.
CHUNK = 40


def rollouts_path(split: str) -> Path:
    """The shipped file of one split."""
    known = (*SPLITS, *GREEDY_SPLITS)
    if split not in known:
        raise ValueError(f"no split {split!r}; there are {', '.join(known)}")
    return Path(str(files("implicitprm.wordproblems"))) / "data" / f"{split}.parquet"


def load_solutions(split: str = "train") -> Dataset:
    """Load shipped rollouts, one row per distinct response to a problem.

    Columns: ``prompt, completion, label`` (is the answer right), ``weight`` (how often it was
    drawn), ``finished``, ``answer`` (that the response states; None if none) and ``operations`` (of
    the problem).
    """
    return Dataset(parquet.read_table(rollouts_path(split)))


def problems_of(split: str) -> list[WordProblem]:
    """The problems of a split; none is in two of them."""
    rng = np.random.default_rng(PROBLEM_SEED)
    known = distinct_problems(rng, TRAINING_TEMPLATES)
    held_out = distinct_problems(rng, HELD_OUT_TEMPLATES)
    drawn = {
        name: list(islice(held_out if name == "held_out" else known, size))
        for name, (size, _) in SPLITS.items()
    }
    return drawn[split]


def rows_of(problem: WordProblem, rollouts: list[Rollout]) -> list[dict[str, Any]]:
    """The distinct responses to a problem, with counts and labels, in the order first drawn."""
    return [
        {
            "prompt": problem.prompt,
            "completion": rollout.completion,
            "label": is_correct(rollout.completion, str(problem.answer)),
            "weight": count,
            "finished": rollout.finished,
            "answer": extract_answer(rollout.completion),
            "operations": problem.operations,
        }
        for rollout, count in Counter(rollouts).items()
    ]


def chunks() -> list[dict[str, Any]]:
    """The parts in which everything is sampled."""
    cells = [
        {"split": split, "start": start, "n": n, "adapter": True}
        for split, (problems, n) in SPLITS.items()
        for start in range(0, problems, CHUNK)
    ]
    return cells + [
        {"split": split, "start": start, "n": 1, "adapter": adapter}
        for split, adapter in GREEDY_SPLITS.items()
        for start in range(0, SPLITS["test"][0], CHUNK)
    ]


@cache
def _policy(adapter: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    return load_policy(adapter)


def measure(cell: Cell) -> dict[str, Any]:
    """Sample the rollouts of one chunk."""
    model, tokenizer = _policy(cell["adapter"])
    greedy = cell["split"] in GREEDY_SPLITS
    # Prompts of one length are sampled together: so those of like length come into one chunk.
    problems = sorted(
        problems_of("test" if greedy else cell["split"]),
        key=lambda problem: len(tokenizer(problem.prompt).input_ids),
    )[cell["start"] : cell["start"] + CHUNK]
    sampled = sample_rollouts(
        model,
        tokenizer,
        [problem.prompt for problem in problems],
        n=cell["n"],
        sampling=GREEDY if greedy else SAMPLING,
        format=WORD_FORMAT,
        seed=cell["start"],
        batch_size=128,
    )
    pairs = zip(problems, sampled, strict=True)
    return {"rows": [row for problem, drawn in pairs for row in rows_of(problem, drawn)]}


def main(workers: int = 2) -> None:
    """Sample the shipped rollouts anew from the shipped policy."""
    config = {
        "splits": SPLITS,
        "chunk": CHUNK,
        "problem_seed": PROBLEM_SEED,
        "sampling": asdict(SAMPLING),
        "greedy": asdict(GREEDY),
        "policy": file_hash(weights_path()),
    }
    cells = run_cells("wordproblems", config, chunks(), measure, workers)
    for split in (*SPLITS, *GREEDY_SPLITS):
        rows = [row for cell in cells if cell["split"] == split for row in cell["rows"]]
        path = rollouts_path(split)
        path.parent.mkdir(exist_ok=True)
        parquet.write_table(Dataset.from_list(rows).data.table, path, compression="zstd")
        drawn = sum(row["weight"] for row in rows)
        right = sum(row["weight"] * row["label"] for row in rows)
        typer.echo(f"{split}: {len(rows)} rows, {drawn} responses, {right / drawn:.1%} right")
    forget_cells("wordproblems", config)


if __name__ == "__main__":
    typer.run(main)
