"""What a reward model costs, from its own token counts.

A model of N parameters spends about 2N FLOPs on a token that it reads or writes, and 6N on one that
it is trained on (arXiv 2001.08361, §2.1; attention's share, which grows with the context, is left
out). So the cost of a method is three counts of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

FORWARD_FLOPS = 2
TRAINING_FLOPS = 6


@dataclass(frozen=True)
class Cost:
    """Tokens that a method writes, only reads, and is trained on (each pass counted)."""

    generated: float = 0
    read: float = 0
    trained: float = 0

    def __post_init__(self) -> None:
        if min(self.generated, self.read, self.trained) < 0:
            raise ValueError(f"token counts must not be negative: {self}")

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.generated + other.generated,
            self.read + other.read,
            self.trained + other.trained,
        )

    def flops(self, parameters: int) -> float:
        """FLOPs with a model of so many parameters."""
        return sum(self.flops_by_use(parameters).values())

    def flops_by_use(self, parameters: int) -> dict[str, float]:
        """The same, by what they are spent on."""
        return {
            "writing": parameters * FORWARD_FLOPS * self.generated,
            "reading": parameters * FORWARD_FLOPS * self.read,
            "training": parameters * TRAINING_FLOPS * self.trained,
        }


def implicit_cost(read: float, trained: float) -> Cost:
    """The reference reads every response once, the policy is trained on ``trained`` tokens."""
    return Cost(read=read, trained=trained)


def math_shepherd_cost(generated: float, read: float, trained: float) -> Cost:
    """Completions of every prefix (``read`` are the prefixes), then training on the labels."""
    return Cost(generated=generated, read=read, trained=trained)


def autopsv_cost(read: float, trained: float) -> Cost:
    """A verifier is trained and reads every response once; then the PRM is trained."""
    return Cost(read=read, trained=2 * trained)


def costs_of_even_steps(
    steps: int, completions: int, tokens: int, prompt: int
) -> tuple[Cost, Cost]:
    """CE's and Math-Shepherd's cost of one solution whose ``steps`` are equally long, one epoch.

    The solution has ``tokens`` tokens after a prompt of ``prompt``. Every step but the last, whose
    label is the outcome, is completed ``completions`` times, with what the solution itself has
    left; each such prefix is read once.
    """
    if steps < 1 or completions < 0:
        raise ValueError(f"{steps} steps and {completions} completions cannot be")
    whole = prompt + tokens
    written = [tokens * step / steps for step in range(1, steps)]
    return implicit_cost(whole, whole), math_shepherd_cost(
        generated=completions * sum(tokens - before for before in written),
        read=sum(prompt + before for before in written),
        trained=whole,
    )


def completion_factor(ratio: float) -> float:
    """K·S·f that Math-Shepherd's cost ratio to CE implies, per response token and one epoch.

    CE costs 2 (reference) + 6 (training) per token and parameter; Math-Shepherd 6 + 2·K·S·f, with K
    completions of each of S steps that are f times as long as the response on average.
    """
    ce = FORWARD_FLOPS + TRAINING_FLOPS
    return (ratio * ce - TRAINING_FLOPS) / FORWARD_FLOPS


def math_shepherd_ratio(completions: float, steps: float, length_share: float) -> float:
    """The inverse of :func:`completion_factor`, with K·S·f = completions · steps · length_share."""
    ce = FORWARD_FLOPS + TRAINING_FLOPS
    return (FORWARD_FLOPS * completions * steps * length_share + TRAINING_FLOPS) / ce


def autopsv_ratio(verifier_passes: float) -> float:
    """AutoPSV / CE per token and epoch, if labelling costs so many passes of the verifier."""
    return (2 * TRAINING_FLOPS + FORWARD_FLOPS * verifier_passes) / (FORWARD_FLOPS + TRAINING_FLOPS)


def pair_ratio(responses: int, mixed: float) -> float:
    """All-pairs DPO / CE: training tokens, if prompts are answered right with probability p.

    n responses make n(n−1)·p(1−p) pairs of two responses each on average, and ``mixed`` is the mean
    of p(1−p) over prompts: 2(n−1)·mixed. Raises ValueError for what no p can give.
    """
    if responses < 1 or not 0 <= mixed <= 0.25:
        raise ValueError(f"{responses} responses and mean p(1−p) = {mixed} cannot be")
    return 2 * (responses - 1) * mixed
