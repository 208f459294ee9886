"""Remake the shipped rollouts: ``python -m implicitprm.arithmetic.collect [WORLD ...]``.

Each file holds the rollouts of one generator on one set of problems: one row per distinct
completion of a prompt, with the number of times it was drawn and what is true of its steps. About
six minutes on one CPU core.
"""

from __future__ import annotations

from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from datasets import Dataset
from pyarrow import parquet
from transformers import AutoModelForCausalLM, AutoTokenizer

from implicitprm.arithmetic.problems import (
    ARITHMETIC_FORMAT,
    OPERATION_PROBABILITIES,
    Problem,
    check_solution,
    sample_problem,
)
from implicitprm.arithmetic.reasoner import checkpoint_path
from implicitprm.arithmetic.split import split_problems, unseen_facts, uses_any
from implicitprm.arithmetic.tutor import Tutor
from implicitprm.rollouts import Rollout, Sampling, sample_rollouts

#: Temperature 1 with min-p, as practitioners sample; ``FULL`` keeps the whole distribution.
MIN_P = Sampling(max_new_tokens=64, min_p=0.05)
FULL = Sampling(max_new_tokens=64)
SAMPLERS = {"min_p": MIN_P, "full": FULL}
SPLIT_SEED = 1
#: Problems per split, and whether their true solutions use a fact that no PRM has seen.
SPLIT_SIZES = {
    "train": (1500, False),
    "validation": (200, False),
    "test": (300, False),
    "test_unseen": (200, True),
}
ROLLOUTS = {"train": 8, "validation": 16, "test": 64, "test_unseen": 64}
#: The shipped files: generator, sampler, splits.
WORLDS = {
    "reasoner": ("reasoner", "min_p", tuple(SPLIT_SIZES)),
    "reasoner_full": ("reasoner", "full", ("train", "test")),
    "early": ("early", "min_p", ("train", "test", "test_unseen")),
    "strong": ("strong", "min_p", ("test", "test_unseen")),
    "control": ("control", "min_p", ("train", "test")),
    "control_full": ("control", "full", ("train", "test")),
}
#: More rollouts of ``reasoner``, for chapter 09: problems of some operations only. Name → the
#: operations, number of problems, rollouts of each. No problem is in any other split.
OPERATION_SETS = {
    "plus_times": ("+*", 600, 8),
    "minus": ("-", 300, 8),
    "plus_times_test": ("+*", 150, 64),
}
#: What a PRM is trained on: without unseen facts.
TRAINING = ("train", "plus_times", "minus")


def splits_of(world: str) -> tuple[str, ...]:
    """The splits of which there are rollouts of a world."""
    return WORLDS[world][2] + (tuple(OPERATION_SETS) if world == "reasoner" else ())


def rollouts_path(world: str, split: str) -> Path:
    """The shipped file of one world and split."""
    folder = Path(str(files("implicitprm.arithmetic"))) / "data"
    path = folder / f"{world}-{split}.parquet"
    if world not in WORLDS or split not in splits_of(world):
        known = ", ".join(f"{name} ({', '.join(splits_of(name))})" for name in WORLDS)
        raise ValueError(f"no rollouts of {world!r} for {split!r}; there are {known}")
    return path


def load_rollouts(world: str = "reasoner", split: str = "train") -> Dataset:
    """Load shipped rollouts, one row per distinct completion of a prompt.

    Columns: ``prompt, completion, label`` (is the answer right), ``weight`` (how often it was
    drawn), ``finished``, ``steps``, and the truth, which no PRM is trained on: ``first_error``
    (−1 if none), ``kind`` of that error, ``valid`` and ``on_track`` per step.
    """
    return Dataset(parquet.read_table(rollouts_path(world, split)))


def problems_of(split: str) -> list[Problem]:
    """The problems of a split, the same for every world."""
    if split in OPERATION_SETS:
        return _operation_problems()[split]
    unseen = unseen_facts(Tutor())
    return split_problems(SPLIT_SIZES, unseen, SPLIT_SEED)[split]


def _operation_problems() -> dict[str, list[Problem]]:
    """The problems of OPERATION_SETS: distinct, in no other split, without unseen facts."""
    unseen = unseen_facts(Tutor())
    rng = np.random.default_rng(SPLIT_SEED)
    taken = {p for part in split_problems(SPLIT_SIZES, unseen, SPLIT_SEED).values() for p in part}
    problems: dict[str, list[Problem]] = {}
    for name, (operations, size, _) in OPERATION_SETS.items():
        total = sum(OPERATION_PROBABILITIES[sign] for sign in operations)
        odds = {sign: OPERATION_PROBABILITIES[sign] / total for sign in operations}
        drawn: list[Problem] = []
        while len(drawn) < size:
            problem = sample_problem(rng, probabilities=odds)
            if problem not in taken and not uses_any(problem, unseen):
                drawn.append(problem)
                taken.add(problem)
        problems[name] = drawn
    return problems


def rows_of(problem: Problem, rollouts: list[Rollout]) -> list[dict[str, Any]]:
    """The distinct rollouts of a problem, with counts and truth, in the order first drawn."""
    rows = []
    for rollout, count in Counter(rollouts).items():
        steps = ARITHMETIC_FORMAT.split(rollout.completion)
        truth = check_solution(problem, steps, rollout.finished)
        rows.append(
            {
                "prompt": problem.prompt,
                "completion": rollout.completion,
                "label": truth.correct,
                "weight": count,
                "finished": rollout.finished,
                "steps": list(steps),
                "first_error": truth.first_error,
                "kind": truth.kind,
                "valid": list(truth.valid),
                "on_track": list(truth.on_track),
            }
        )
    return rows


def collect(world: str, split: str, seed: int) -> Dataset:
    """Sample the rollouts of one file.

    TRAINING loses the rows that use an unseen fact, and empty completions, which have no step to
    score.
    """
    generator, sampler, _ = WORLDS[world]
    model = AutoModelForCausalLM.from_pretrained(checkpoint_path(generator)).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_path(generator))
    problems = problems_of(split)
    rollouts = sample_rollouts(
        model,
        tokenizer,
        [problem.prompt for problem in problems],
        n=OPERATION_SETS[split][2] if split in OPERATION_SETS else ROLLOUTS[split],
        sampling=SAMPLERS[sampler],
        format=ARITHMETIC_FORMAT,
        seed=seed,
    )
    rows = [
        row
        for problem, drawn in zip(problems, rollouts, strict=True)
        for row in rows_of(problem, drawn)
    ]
    if split in TRAINING:
        unseen = unseen_facts(Tutor())
        rows = [row for row in rows if row["completion"] and unseen.isdisjoint(_facts(row))]
    return Dataset.from_list(rows)


def _facts(row: dict[str, Any]) -> set[Any]:
    truth = check_solution(Problem.parse(row["prompt"]), row["steps"], row["finished"])
    return set(truth.facts)


def main(
    worlds: Annotated[list[str] | None, typer.Argument(help="all of them if none is named")] = None,
    seed: int = 0,
) -> None:
    """Sample the shipped rollouts anew from the shipped checkpoints."""
    torch.set_num_threads(1)
    for world in worlds or list(WORLDS):
        for split in splits_of(world):
            path = rollouts_path(world, split)
            path.parent.mkdir(exist_ok=True)
            dataset = collect(world, split, seed)
            parquet.write_table(dataset.data.table, path, compression="zstd")
            typer.echo(f"{path.name}: {len(dataset)} rows")


if __name__ == "__main__":
    typer.run(main)
