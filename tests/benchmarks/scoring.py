"""``make bench``: scoring beside a loop in the style of published scripts, and how its cost grows.

A random Llama as policy and another as reference, one thread. No time decides anything:
contenders take turns within one run, their results are asserted to be equal, and ratios are printed
as the median and the range over rounds.

- *published style*: two solutions per forward pass, prompt and response read in full by policy and
  reference, log-softmax of all logits;
- *bare passes*: the forward passes alone, each token read once, in the batches that scoring uses;
  the logits are made of every response token and thrown away.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from benchmarks.memory import peak_bytes
from benchmarks.rounds import alternate, median_and_range, ratio
from implicitprm.logprobs import collate, score_logps
from implicitprm.steps import EncodedSolution

#: A contender scores the solutions under both models, a tensor (T) of log-ratios each.
Contender = Callable[[], Sequence[Tensor]]
#: Differences per token that float32 allows between batches; log-softmax sums less exactly.
TOLERANCE = 1e-4
BATCH = 16


@dataclass(frozen=True)
class Setting:
    """Candidates of one prompt, half to all of ``response`` tokens long."""

    prompt: int = 128
    response: int = 64
    candidates: int = 64
    vocabulary: int = 32_000
    hidden: int = 256
    layers: int = 4

    def models(self) -> list[PreTrainedModel]:
        """Policy and reference."""
        config = LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=2 * self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=4,
            max_position_embeddings=4096,
        )
        models: list[PreTrainedModel] = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            models.append(LlamaForCausalLM(config).eval())
        return models

    def solutions(self) -> list[EncodedSolution]:
        generator = torch.Generator().manual_seed(0)

        def tokens(count: int) -> tuple[int, ...]:
            drawn = torch.randint(3, self.vocabulary, (count,), generator=generator)
            return tuple(drawn.tolist())

        prompt, found = tokens(self.prompt), []
        for number in range(self.candidates):
            length = self.response - number * (self.response // 2) // self.candidates
            ends, texts = (length,), ("x",) * length
            found.append(EncodedSolution(prompt + tokens(length), self.prompt, ends, texts))
        return found


def ours(models: Sequence[PreTrainedModel], solutions: Sequence[EncodedSolution]) -> list[Tensor]:
    policy, reference = (score_logps(model, solutions, 0, BATCH, "bench") for model in models)
    return [one - other for one, other in zip(policy, reference, strict=True)]


@torch.inference_mode()
def published_style(
    models: Sequence[PreTrainedModel], solutions: Sequence[EncodedSolution]
) -> list[Tensor]:
    ratios = []
    for first in range(0, len(solutions), 2):
        pair = solutions[first : first + 2]
        starts = [solution.response_start for solution in pair]
        batch = collate([solution.input_ids for solution in pair], starts, 0)
        ids, mask = batch["input_ids"], batch["attention_mask"]
        policy, reference = (
            model(input_ids=ids, attention_mask=mask)
            .logits[:, :-1]
            .log_softmax(-1)
            .gather(-1, ids[:, 1:, None])[..., 0]
            for model in models
        )
        ratio = policy - reference
        ratios += [
            row[kept] for row, kept in zip(ratio, batch["response_mask"][:, 1:], strict=True)
        ]
    return ratios


@torch.inference_mode()
def bare_passes(models: Sequence[PreTrainedModel], solutions: Sequence[EncodedSolution]) -> None:
    start = solutions[0].response_start
    by_length = sorted(solutions, key=lambda solution: -len(solution.input_ids))
    for model in models:
        for first in range(0, len(by_length), BATCH):
            if first == 0:
                cache = DynamicCache(config=model.config)
                ids = torch.tensor([solutions[0].input_ids[: start - 1]])
                model(input_ids=ids, past_key_values=cache, logits_to_keep=1)
                read = copy.deepcopy(cache)
            else:
                cache = copy.deepcopy(read)
            rows = by_length[first : first + BATCH]
            cache.batch_repeat_interleave(len(rows))
            batch = collate([row.input_ids[start - 1 : -1] for row in rows], [1] * len(rows), 0)
            model(input_ids=batch["input_ids"], past_key_values=cache)


def check_equal(ones: Sequence[Tensor], others: Sequence[Tensor]) -> None:
    for one, other in zip(ones, others, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=TOLERANCE)


def ratios(setting: Setting, rounds: int) -> Table:
    """Scoring against both contenders."""
    models, solutions = setting.models(), setting.solutions()
    check_equal(ours(models, solutions), published_style(models, solutions))
    seconds = alternate(
        {
            "scoring": lambda: ours(models, solutions),
            "published style": lambda: published_style(models, solutions),
            "bare passes": lambda: bare_passes(models, solutions),
        },
        rounds,
    )
    title = (
        f"{setting.candidates} candidates of one prompt of {setting.prompt} tokens, up to "
        f"{setting.response} tokens each, vocabulary {setting.vocabulary:,}; {rounds} rounds"
    )
    table = Table("", "seconds", "ratio", "aim", title=title)
    table.add_row("scoring", median_and_range(seconds["scoring"]), "", "")
    for name, over, under, aim in (
        ("published style", "published style", "scoring", "≥ 3 × scoring"),
        ("bare passes", "scoring", "bare passes", "scoring ≤ 1.25 ×"),
    ):
        by_round = ratio(seconds[over], seconds[under])
        table.add_row(name, median_and_range(seconds[name]), by_round, aim)
    return table


def growth(name: str, settings: dict[int, Setting], rounds: int) -> Table:
    """Time and peak memory of scoring and of the published style, over one quantity."""
    table = Table(
        name,
        "scoring s",
        "MB",
        "published style s",
        "MB ",
        "ratio of time",
        title=f"growth: {name}",
    )
    for value, setting in settings.items():
        models, solutions = setting.models(), setting.solutions()
        our_peak, our_ratios = peak_bytes(lambda: ours(models, solutions))  # noqa: B023
        peak, their_ratios = peak_bytes(lambda: published_style(models, solutions))  # noqa: B023
        check_equal(our_ratios, their_ratios)
        seconds = alternate(
            {
                "scoring": lambda: ours(models, solutions),  # noqa: B023
                "published style": lambda: published_style(models, solutions),  # noqa: B023
            },
            rounds,
        )
        own, other = seconds["scoring"], seconds["published style"]
        table.add_row(
            f"{value:,}",
            f"{statistics.median(own):.2f}",
            f"{our_peak / 2**20:.0f}",
            f"{statistics.median(other):.2f}",
            f"{peak / 2**20:.0f}",
            ratio(other, own),
        )
    return table


def tables(rounds: int, size: float = 1.0) -> list[Table]:
    """All tables; ``size`` below 1 makes everything smaller, for a test."""

    def scaled(number: int) -> int:
        return max(2, int(size * number))

    def setting(prompt: int, response: int, candidates: int, vocabulary: int) -> Setting:
        hidden = 4 * scaled(64)
        return Setting(
            scaled(prompt), scaled(response), scaled(candidates), scaled(vocabulary), hidden=hidden
        )

    return [
        ratios(setting(128, 64, 64, 32_000), rounds),
        growth(
            "response tokens",
            {scaled(n): setting(128, n, 8, 32_000) for n in (32, 128, 512)},
            rounds=1,
        ),
        growth(
            "candidates", {scaled(n): setting(128, 32, n, 32_000) for n in (4, 16, 64)}, rounds=1
        ),
        growth(
            "vocabulary",
            {scaled(n): setting(128, 64, 8, n) for n in (8_000, 32_000, 128_000)},
            rounds=1,
        ),
    ]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=3)
    rounds = arguments.parse_args().rounds
    torch.set_num_threads(1)
    for table in tables(rounds):
        Console().print(table)


if __name__ == "__main__":
    main()
