"""Remake the shipped rollouts: ``python -m implicitprm.arithmetic.collect [WORLD ...]``.

Each file holds the rollouts of one generator on one set of problems: one row per distinct
completion of a prompt, with the number of times it was drawn and what is true of its steps. About
five minutes on one CPU core.
"""

from __future__ import annotations

from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from datasets import Dataset
from pyarrow import parquet
from transformers import AutoModelForCausalLM, AutoTokenizer

from implicitprm.arithmetic.problems import ARITHMETIC_FORMAT, Problem, check_solution
from implicitprm.arithmetic.reasoner import checkpoint_path
from implicitprm.arithmetic.split import split_problems, unseen_facts
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
    "early": ("early", "min_p", ("test", "test_unseen")),
    "strong": ("strong", "min_p", ("test", "test_unseen")),
    "control": ("control", "min_p", ("train", "test")),
    "control_full": ("control", "full", ("train", "test")),
}


def rollouts_path(world: str, split: str) -> Path:
    """The shipped file of one world and split."""
    folder = Path(str(files("implicitprm.arithmetic"))) / "data"
    path = folder / f"{world}-{split}.parquet"
    if world not in WORLDS or split not in WORLDS[world][2]:
        known = ", ".join(f"{name} ({', '.join(parts)})" for name, (_, _, parts) in WORLDS.items())
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
    unseen = unseen_facts(Tutor())
    return split_problems(SPLIT_SIZES, unseen, SPLIT_SEED)[split]


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

    Training loses the rows that use an unseen fact, and empty completions, which have no step to
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
        n=ROLLOUTS[split],
        sampling=SAMPLERS[sampler],
        format=ARITHMETIC_FORMAT,
        seed=seed,
    )
    rows = [
        row
        for problem, drawn in zip(problems, rollouts, strict=True)
        for row in rows_of(problem, drawn)
    ]
    if split == "train":
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
        for split in WORLDS[world][2]:
            path = rollouts_path(world, split)
            path.parent.mkdir(exist_ok=True)
            dataset = collect(world, split, seed)
            parquet.write_table(dataset.data.table, path, compression="zstd")
            typer.echo(f"{path.name}: {len(dataset)} rows")


if __name__ == "__main__":
    typer.run(main)
