"""Remake the shipped Monte Carlo values: ``python -m implicitprm.arithmetic.values [SET ...]``.

From the end of every step, the reasoner's own completions (temperature 1, min-p), and which of them
are right. On training rollouts they are Math-Shepherd's labels; on test rollouts, with other seeds
and more completions, they estimate the true Q of a prefix. About ten minutes on one CPU core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
import typer
from datasets import Dataset
from pyarrow import parquet
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from implicitprm.arithmetic.collect import MIN_P, load_rollouts
from implicitprm.arithmetic.problems import (
    ARITHMETIC_FORMAT,
    SEPARATOR,
    Problem,
    check_solution,
)
from implicitprm.arithmetic.reasoner import checkpoint_path
from implicitprm.comparisons.math_shepherd import complete_prefixes
from implicitprm.qvalues import completions, language_of, with_min_p
from implicitprm.steps import Prompt, Solution

#: What follows a first step is 45 tokens at most where the problem is followed.
SAMPLING = replace(MIN_P, max_new_tokens=48)


@dataclass(frozen=True)
class ValueSet:
    """Whose rollouts are completed: all, or the first ``rows`` distinct ones of ``problems``.

    A choice takes finished rollouts only, because a runaway leaves no room in the context.
    ``completions``, at most 64, are sampled from every prefix.
    """

    world: str
    split: str
    problems: int | None
    rows: int | None
    completions: int
    seed: int


#: Training labels, and values of test prefixes of three generators under the reasoner's sampler.
VALUE_SETS = {
    "reasoner-train": ValueSet("reasoner", "train", None, None, 32, seed=100),
    "reasoner-test": ValueSet("reasoner", "test", 100, 4, 64, seed=101),
    "early-test": ValueSet("early", "test", 100, 4, 64, seed=102),
    "strong-test": ValueSet("strong", "test", 100, 4, 64, seed=103),
}


def values_path(name: str) -> Path:
    """The shipped file of one of VALUE_SETS."""
    if name not in VALUE_SETS:
        raise ValueError(f"no values {name!r}; there are {', '.join(VALUE_SETS)}")
    return Path(str(files("implicitprm.arithmetic"))) / "data" / f"{name}-values.parquet"


def load_values(name: str) -> Dataset:
    """Load shipped values, one row per solution.

    Columns: ``row``, the number of the solution in ``load_rollouts(world, split)``; per step
    ``right``, whose lowest K bits say which of the K completions are right (:func:`outcomes`), and
    ``generated_tokens``, the length of all of them together.
    """
    return Dataset(parquet.read_table(values_path(name)))


def outcomes(right: Sequence[int], completions: int) -> npt.NDArray[np.bool_]:
    """Bits of each step, the lowest first: (S) → (S, completions)."""
    bits = np.array(right, dtype=np.uint64)[:, None] >> np.arange(completions, dtype=np.uint64)
    return (bits & np.uint64(1)).astype(bool)


def grade(prompt: Prompt, steps: Sequence[str], finished: bool) -> bool:
    """Whether a solution ends in the right answer."""
    return check_solution(Problem.parse(str(prompt)), steps, finished).correct


def exact_value(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, steps: Sequence[str]
) -> float:
    """P(right | these steps) under SAMPLING, by enumeration: what the shipped outcomes estimate.

    ``steps`` is not empty and does not end in the answer. Min-p leaves a handful of completions in
    this world; each of their prefixes costs one forward pass.
    """
    ids = tokenizer(prompt + "".join(f"{step}{SEPARATOR}" for step in steps)).input_ids
    end = tokenizer.eos_token_id
    everything = language_of(model, ids, end, SAMPLING.max_new_tokens)
    found, logps = completions(with_min_p(everything, SAMPLING.min_p), ())
    right = 0.0
    for tokens, logp in zip(found, logps, strict=True):
        finished = tokens[-1] == end
        text = str(tokenizer.decode(list(tokens[:-1] if finished else tokens)))
        following = ARITHMETIC_FORMAT.split(text) if text else []
        right += float(np.exp(logp)) * grade(prompt, [*steps, *following], finished)
    return right


def chosen_rows(rollouts: Dataset, problems: int | None, rows: int | None) -> list[int]:
    """Numbers of the first ``rows`` distinct finished rollouts of the first ``problems`` prompts.

    All of them, unfinished ones too, where both are None.
    """
    if problems is None and rows is None:
        return list(range(len(rollouts)))
    numbers: dict[str, list[int]] = {}
    for number, row in enumerate(rollouts.select_columns(["prompt", "finished"])):
        numbers.setdefault(row["prompt"], [])
        if row["finished"]:
            numbers[row["prompt"]].append(number)
    return [number for group in list(numbers.values())[:problems] for number in group[:rows]]


def collect_values(name: str) -> Dataset:
    """Sample the values of one file."""
    chosen = VALUE_SETS[name]
    rollouts = load_rollouts(chosen.world, chosen.split)
    numbers = chosen_rows(rollouts, chosen.problems, chosen.rows)
    folder = checkpoint_path("reasoner")
    completed = complete_prefixes(
        AutoModelForCausalLM.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
        [
            Solution(row["prompt"], tuple(row["steps"]), row["finished"])
            for row in rollouts.select(numbers)
        ],
        grade,
        n=chosen.completions,
        sampling=SAMPLING,
        format=ARITHMETIC_FORMAT,
        seed=chosen.seed,
    )
    powers = np.uint64(1) << np.arange(chosen.completions, dtype=np.uint64)
    return Dataset.from_dict(
        {
            "row": numbers,
            "right": [(c.right * powers).sum(axis=1, dtype=np.uint64) for c in completed],
            "generated_tokens": [c.generated_tokens for c in completed],
        }
    )


def main(
    names: Annotated[list[str] | None, typer.Argument(help="all of them if none is named")] = None,
) -> None:
    """Complete the prefixes anew with the shipped reasoner."""
    torch.set_num_threads(1)
    for name in names or list(VALUE_SETS):
        path = values_path(name)
        dataset = collect_values(name)
        parquet.write_table(dataset.data.table, path, compression="zstd")
        typer.echo(f"{path.name}: {len(dataset)} rows")


if __name__ == "__main__":
    typer.run(main)
