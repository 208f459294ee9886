"""Rollouts beside ``generate`` at equal batch, and Math-Shepherd's labels beside naive completion.

The shipped reasoner, one thread, the same numbers of prompts and responses on both sides.

- *generate*: transformers' own loop on the same batches, with the same sampler; each prompt is
  repeated for each of its responses, and finished rows stay until the last one has ended.
- *naive labels*: the same code on one solution, or on one prefix, at a time: a prefix which several
  solutions share is completed anew for each of them.

Two samplers draw other random numbers, so equal results are asserted of greedy decoding, and of the
number of prefixes that have labels.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM

from benchmarks.rounds import alternate, median_and_range, ratio
from implicitprm.arithmetic import ARITHMETIC_FORMAT, checkpoint_path, load_rollouts
from implicitprm.arithmetic.tokenizer import build_tokenizer
from implicitprm.comparisons.math_shepherd import Completions, complete_prefixes
from implicitprm.rollouts import Rollout, Sampling, sample_rollouts
from implicitprm.steps import Solution

TOKENIZER = build_tokenizer()
LONGEST = 48
#: Of completions.
SAMPLING = Sampling(LONGEST, min_p=0.1)


def reasoner() -> Any:
    return AutoModelForCausalLM.from_pretrained(checkpoint_path("reasoner")).eval()


def prompts_of_one_length(count: int) -> list[str]:
    """The first prompts of the validation problems that have as many tokens as the first one."""
    prompts = list(dict.fromkeys(load_rollouts("reasoner", "validation")["prompt"]))
    lengths = [len(ids) for ids in TOKENIZER(prompts, add_special_tokens=False).input_ids]
    return [p for p, n in zip(prompts, lengths, strict=True) if n == lengths[0]][:count]


def ours(model: Any, prompts: list[str], n: int, temperature: float = 1.0) -> list[str]:
    drawn = sample_rollouts(
        model, TOKENIZER, prompts, n=n, sampling=Sampling(LONGEST, temperature),
        format=ARITHMETIC_FORMAT, seed=0,
    )  # fmt: skip
    return [rollout.completion for of_prompt in drawn for rollout in of_prompt]


@torch.inference_mode()
def generate(model: Any, prompts: list[str], n: int, sample: bool = True) -> list[str]:
    inputs = TOKENIZER(prompts, add_special_tokens=False, return_tensors="pt").input_ids
    how: dict[str, Any] = {"do_sample": True, "top_k": 0} if sample else {"do_sample": False}
    out = model.generate(
        inputs,
        attention_mask=torch.ones_like(inputs),
        num_return_sequences=n,
        max_new_tokens=LONGEST,
        pad_token_id=TOKENIZER.pad_token_id,
        **how,
    )
    return TOKENIZER.batch_decode(out[:, inputs.shape[1] :], skip_special_tokens=True)


def against_generate(rounds: int, count: int = 16, n: int = 8) -> Table:
    model, prompts = reasoner(), prompts_of_one_length(count)
    if ours(model, prompts, 1, temperature=1e-4) != generate(model, prompts, 1, sample=False):
        raise AssertionError("greedy texts differ")
    seconds = alternate(
        {"ours": lambda: ours(model, prompts, n), "generate": lambda: generate(model, prompts, n)},
        rounds,
    )
    title = f"{n} responses to each of {len(prompts)} prompts, at most {LONGEST} tokens"
    table = Table("", "seconds", "ratio to ours", title=title)
    table.add_row("sample_rollouts", median_and_range(seconds["ours"]), "")
    table.add_row(
        "generate",
        median_and_range(seconds["generate"]),
        ratio(seconds["generate"], seconds["ours"]),
    )
    return table


def solutions(count: int) -> list[Solution]:
    """Solutions to a few problems, which share beginnings, as rollouts of one prompt do."""
    rows = load_rollouts("reasoner", "validation").select(range(count))
    return [Solution(row["prompt"], tuple(row["steps"]), row["finished"]) for row in rows]


def labels(model: Any, of: list[Solution], n: int) -> list[Completions]:
    return complete_prefixes(
        model, TOKENIZER, of, lambda *_: True, n=n, sampling=SAMPLING,
        format=ARITHMETIC_FORMAT, seed=0,
    )  # fmt: skip


def by_solution(model: Any, of: list[Solution], n: int) -> list[Completions]:
    """A solution at a time: nothing is shared between two of them."""
    return [labels(model, [solution], n)[0] for solution in of]


def prefixes_of(of: list[Solution]) -> list[tuple[str, tuple[str, ...]]]:
    """Every prefix that is completed, as often as it occurs."""
    return [
        (str(s.prompt), s.steps[:end])
        for s in of
        for end in range(1, len(s.steps) + (not s.finished))
    ]


def by_prefix(model: Any, of: list[Solution], n: int) -> list[list[Rollout]]:
    """A prefix at a time: a batch is the completions of one."""
    return [
        sample_rollouts(
            model, TOKENIZER, [prompt], n=n, sampling=SAMPLING, format=ARITHMETIC_FORMAT, seed=0,
            prefixes=[ARITHMETIC_FORMAT.separator.join((*steps, ""))],
        )[0]
        for prompt, steps in prefixes_of(of)
    ]  # fmt: skip


def against_naive(rounds: int, count: int = 24, n: int = 4) -> Table:
    model, of = reasoner(), solutions(count)
    prefixes = prefixes_of(of)
    pairs = zip(labels(model, of, n), by_solution(model, of, n), strict=True)
    if any(one.right.shape != other.right.shape for one, other in pairs):
        raise AssertionError("other prefixes have labels")
    if [len(drawn) for drawn in by_prefix(model, of, n)] != [n] * len(prefixes):
        raise AssertionError("other prefixes were completed")
    seconds = alternate(
        {
            "shared prefixes, together": lambda: labels(model, of, n),
            "a solution at a time": lambda: by_solution(model, of, n),
            "a prefix at a time": lambda: by_prefix(model, of, n),
        },
        rounds,
    )
    title = f"{n} completions of {len(prefixes)} prefixes, {len(set(prefixes))} of them distinct"
    table = Table("", "seconds", "ratio to the first", title=title)
    shared, *_ = seconds.values()
    for name, values in seconds.items():
        table.add_row(name, median_and_range(values), ratio(values, shared))
    return table


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    rounds = arguments.parse_args().rounds
    torch.set_num_threads(1)
    for table in (against_generate(rounds), against_naive(rounds)):
        Console().print(table)


if __name__ == "__main__":
    main()
