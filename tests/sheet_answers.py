"""Answers to the code exercises of the sheets: correct ones written differently, and wrong ones."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch


def by_score(score: Callable[[list[float]], float]) -> Callable[..., str]:
    def answer(answers: Sequence[str], rewards: Sequence[np.ndarray]) -> str:
        pairs = zip(answers, rewards, strict=True)
        return max(pairs, key=lambda pair: score(pair[1].tolist()))[0]

    return answer


def step_sums(policy: np.ndarray, ref: np.ndarray, ends: Sequence[int], beta: float) -> list[float]:
    sums, start = [], 0
    for end in ends:
        sums.append(beta * sum(policy[start:end] - ref[start:end]))
        start = end
    return sums


def enumerated_max(rewards: np.ndarray, k: int) -> float:
    if len(rewards) ** k > 20_000:  # every sample of size k where there are few of them
        highest = np.sort(rewards)
        below = [(i / len(rewards)) ** k for i in range(len(rewards) + 1)]
        return sum(x * (b - a) for x, a, b in zip(highest, below, below[1:], strict=False))
    return float(np.mean([max(s) for s in itertools.product(rewards, repeat=k)]))


def counted(completions: list[str]) -> np.ndarray:
    names, first, counts = np.unique(completions, return_index=True, return_counts=True)
    assert len(names) == len(counts)
    return counts[first.argsort()]


def automatic_gradient(rewards: np.ndarray, labels: np.ndarray) -> torch.Tensor:
    leaf = torch.tensor(rewards, requires_grad=True)
    target = torch.tensor(labels, dtype=torch.float64)
    torch.nn.functional.binary_cross_entropy_with_logits(leaf, target).backward()
    assert leaf.grad is not None
    return leaf.grad


def pairwise(rewards: np.ndarray, labels: np.ndarray) -> list[float]:
    return [
        math.log(1 + math.exp(lost - won))
        for won, lost in itertools.product(rewards[labels].tolist(), rewards[~labels].tolist())
    ]


def all_draws(right: int, total: int, n: int) -> float:
    none = 1.0
    for drawn in range(n):
        none *= max(total - right - drawn, 0) / (total - drawn)
    return 1 - none


def sigma(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def looped_q(rewards: np.ndarray, probs: np.ndarray, beta: float) -> float:
    terms = [p * math.exp(r / beta) for r, p in zip(rewards, probs, strict=True)]
    return beta * math.log(sum(terms))


def looped_labels(right: np.ndarray) -> list[list[float]]:
    return [[sum(row) / len(row) for row in right], [float(any(row)) for row in right]]


def softplus_loss(rewards: np.ndarray, labels: np.ndarray) -> torch.Tensor:
    return torch.nn.functional.softplus(torch.tensor(-labels * rewards)).mean()


def other_process_advantages(
    rewards: np.ndarray, steps: np.ndarray, group_size: int
) -> list[list[float]]:
    return returns_above(rewards, steps, group_size, others_mean)


def own_steps(rewards: np.ndarray, steps: np.ndarray) -> list[list[float]]:
    return [row[:n] for row, n in zip(rewards.tolist(), steps.tolist(), strict=True)]


def others_mean(group: list[list[float]], i: int) -> float:
    means = [sum(steps) / len(steps) for j, steps in enumerate(group) if j != i]
    return sum(means) / len(means)


def returns_above(
    rewards: np.ndarray,
    steps: np.ndarray,
    group_size: int,
    baseline: Callable[[list[list[float]], int], float],
) -> list[list[float]]:
    """Returns where ``baseline`` gets the rewards of a group's responses, and which of them."""
    rows, out = own_steps(rewards, steps), []
    for i, row in enumerate(rows):
        first = i - i % group_size
        base = baseline(rows[first : first + group_size], i % group_size)
        returns = [sum(row[t:]) - base * (len(row) - t) for t in range(len(row))]
        out.append(returns + [0.0] * (rewards.shape[1] - len(row)))
    return out


def prime_base(rewards: np.ndarray, steps: np.ndarray, group_size: int) -> np.ndarray:
    means = [np.mean(row) for row in own_steps(rewards, steps)]
    groups = np.split(np.array(means), len(means) // group_size)
    return np.concatenate([(g.sum() - g) / (group_size - 1) for g in groups])[:, None]


def returns_of(rewards: np.ndarray) -> np.ndarray:
    return np.flip(np.flip(rewards, 1).cumsum(1), 1)


def steps_only(values: np.ndarray, steps: np.ndarray) -> np.ndarray:
    out = np.zeros_like(values)
    for i, n in enumerate(steps):
        out[i, :n] = values[i, :n]
    return out


CORRECT: dict[str, Callable[..., Any]] = {
    "best_answer": by_score(min),
    "step_rewards": step_sums,
    "q_by_expectation": looped_q,
    "expected_max": enumerated_max,
    "merged_counts": counted,
    "ce_gradient": automatic_gradient,
    "dpo_over_pairs": lambda r, y: sum(pairwise(r, y)) / len(pairwise(r, y)),
    "pass_at_n": all_draws,
    "soft_and_hard": looped_labels,
    "expected_distinct": lambda p, n: len(p) - sum((1 - x) ** n for x in p),
    "step_label_loss": softplus_loss,
    "process_advantages": other_process_advantages,
    "step_auroc": lambda a, b: np.mean([(x > y) + (x == y) / 2 for x in a for y in b]),
}

WRONG: list[tuple[str, Callable[..., Any], str]] = [
    ("best_answer", by_score(sum), "the steps are summed"),
    ("best_answer", by_score(lambda r: sum(r) / len(r)), "the steps are averaged"),
    ("best_answer", by_score(lambda r: r[-1]), "only the last step counts"),
    ("best_answer", by_score(max), "the highest step"),
    ("best_answer", by_score(lambda r: -min(r)), "the worst candidate"),
    ("best_answer", lambda answers, rewards: answers[0], "in no way that this check knows"),
    ("step_rewards", lambda p, r, e, b: step_sums(p, r, e, 1), "β is forgotten"),
    ("step_rewards", lambda p, r, e, b: step_sums(p, r, e, b) / np.diff([0, *e]), "are averaged"),
    ("step_rewards", lambda p, r, e, b: np.cumsum(step_sums(p, r, e, b)), "sums from the start"),
    ("step_rewards", lambda p, r, e, b: [
        b * sum(p[i:j - 1] - r[i:j - 1]) for i, j in itertools.pairwise([0, *e])
    ], "the last token of each step is missing"),
    ("step_rewards", lambda p, r, e, b: step_sums(r, p, e, b), "upside down"),
    ("step_rewards", lambda p, r, e, b: step_sums(p, 0 * p, e, b), "the reference is missing"),
    ("step_rewards", lambda p, r, e, b: b * (p - r), "returns shape"),
    ("q_by_expectation", lambda r, p, b: sum(p * r), "the expected reward"),
    ("q_by_expectation", lambda r, p, b: b * np.log(np.exp(r / b).mean()), "counts 1/K"),
    ("q_by_expectation", lambda r, p, b: b * np.log(np.exp(r / b).sum()), "are not used"),
    ("q_by_expectation", lambda r, p, b: np.log(p @ np.exp(r)), "β is forgotten"),
    ("q_by_expectation", lambda r, p, b: np.log(p @ np.exp(r / b)), "outside the logarithm"),
    ("q_by_expectation", lambda r, p, b: b * np.log(p @ np.exp(r)), "not divided by β inside"),
    ("expected_max", lambda r, k: np.mean([max(s) for s in itertools.combinations(r, k)]),
     "without replacement"),
    ("expected_max", lambda r, k: max(r), "the maximum over all"),
    ("expected_max", lambda r, k: sum(r) / len(r), "this is the mean"),
    ("expected_max", lambda r, k: max(r[:k]), "are one sample"),
    ("expected_max", lambda r, k: -enumerated_max(-r, k), "the expected minimum"),
    ("merged_counts", lambda c: [sum(1 for _ in g) for _, g in itertools.groupby(c)],
     "only neighbours"),
    ("merged_counts", lambda c: [c.count(x) for x in sorted(set(c))], "alphabetical order"),
    ("merged_counts", lambda c: sorted((c.count(x) for x in set(c)), reverse=True), "of size"),
    ("merged_counts", lambda c: [1 for _ in set(c)], "counted once"),
    ("merged_counts", lambda c: [c.count(x) for x in c], "one count per completion drawn"),
    ("ce_gradient", lambda r, y: (y - sigma(r)) / len(r), "the sign is wrong"),
    ("ce_gradient", lambda r, y: sigma(r) - y, "divided by B"),
    ("ce_gradient", lambda r, y: (sigma(r) - 1 + y) / len(r), "the labels are upside down"),
    ("ce_gradient", lambda r, y: (r - y) / len(r), "where its sigmoid belongs"),
    ("ce_gradient", lambda r, y: y * (sigma(r) - 1) / len(r), "wrong responses have no gradient"),
    ("dpo_over_pairs", lambda r, y: sum(pairwise(r, y)), "a sum over the pairs"),
    ("dpo_over_pairs", lambda r, y: np.mean(pairwise(-r, y)), "the pairs are upside down"),
    ("dpo_over_pairs", lambda r, y: np.mean(
        [math.log(1 + math.exp(b - a)) for a, b in zip(r[y], r[~y], strict=False)]
    ), "all pairs are asked"),
    ("dpo_over_pairs", lambda r, y: np.log1p(np.exp(r[~y].mean() - r[y].mean())), "mean rewards"),
    ("dpo_over_pairs", lambda r, y: -np.mean(pairwise(r, y)), "the minus is missing"),
    ("dpo_over_pairs", lambda r, y: np.mean(1 - np.exp(-np.array(pairwise(r, y)))),
     "the logarithm is missing"),
    ("pass_at_n", lambda k, m, n: 1 - ((m - k) / m) ** n, "with replacement"),
    ("pass_at_n", lambda k, m, n: 1 - all_draws(k, m, n), "none of the n is right"),
    ("pass_at_n", lambda k, m, n: math.comb(k, n) / math.comb(m, n), "all n are right"),
    ("pass_at_n", lambda k, m, n: k / m, "n plays no part"),
    ("soft_and_hard", lambda x: [x.mean(1), x.min(1)], "asks for all completions"),
    ("soft_and_hard", lambda x: [x.mean(1), x.sum(1) > x.shape[1] / 2], "the majority"),
    ("soft_and_hard", lambda x: [x.mean(1), x[:, 0]], "the first completion alone"),
    ("soft_and_hard", lambda x: [x.any(1), x.mean(1)], "soft first"),
    ("soft_and_hard", lambda x: [x.sum(1), x.any(1)], "their share is asked"),
    ("soft_and_hard", lambda x: x.mean(1), "returns shape"),
    ("expected_distinct", lambda p, n: sum(p**n), "all n draws are the same"),
    ("expected_distinct", lambda p, n: sum((1 - p) ** n), "expected to be missing"),
    ("expected_distinct", lambda p, n: len(p) * (1 - (1 - 1 / len(p)) ** n), "equally likely"),
    ("expected_distinct", lambda p, n: min(len(p), n), "the largest number there could be"),
    ("expected_distinct", lambda p, n: n, "counts draws"),
    ("step_label_loss", lambda r, y: np.mean(np.log1p(np.exp(-y * abs(r)))), "takes |r|"),
    ("step_label_loss", lambda r, y: np.sum(np.log1p(np.exp(-y * r))), "this is a sum"),
    ("step_label_loss", lambda r, y: np.mean((y > 0) * np.log1p(np.exp(-r))),
     "wrong steps have no loss"),
    ("step_label_loss", lambda r, y: -np.log(sigma(r)).mean(), "the labels are not used"),
    ("step_label_loss", lambda r, y: -np.log(sigma(sum(y * r))), "of the whole solution"),
    ("step_label_loss", lambda r, y: np.log(sigma(y * r)).mean(), "the minus is missing"),
    ("step_auroc", lambda a, b: np.mean([x > y for x in a for y in b]), "counts as lost"),
    ("step_auroc", lambda a, b: np.mean([x >= y for x in a for y in b]), "counts as won"),
    ("step_auroc", lambda a, b: np.mean([(x < y) + (x == y) / 2 for x in a for y in b]),
     "upside down"),
    ("step_auroc", lambda a, b: (sum(a > 0) + sum(b <= 0)) / (len(a) + len(b)), "signs of rewards"),
    ("step_auroc", lambda a, b: np.mean(a) - np.mean(b), "difference of the means"),
    ("process_advantages", lambda r, n, k: returns_above(
        r, n, k, lambda g, i: sum(sum(x) / len(x) for x in g) / k), "itself is in its baseline"),
    ("process_advantages", lambda r, n, k: returns_above(
        r, n, k, lambda g, i: others_mean([[sum(x) / max(n)] for x in g], i)),
     "padding is averaged in"),
    ("process_advantages", lambda r, n, k: returns_above(
        r, n, k, lambda g, i: others_mean([[sum(x)] for x in g], i)), "rewards are summed"),
    ("process_advantages", lambda r, n, k: returns_above(
        r, n, k, lambda g, i: statistics.fmean(
            [x for row in g[:i] + g[i + 1 :] for x in row])), "long responses count more"),
    ("process_advantages", lambda r, n, k: other_process_advantages(r, n, len(n)),
     "the whole batch"),
    ("process_advantages", lambda r, n, k: returns_of(r - prime_base(r, n, k)),
     "padding gets a baseline"),
    ("process_advantages", lambda r, n, k: steps_only(returns_of(r - prime_base(r, n, k)), n),
     "the mask comes after the sums"),
    ("process_advantages", lambda r, n, k: steps_only(returns_of(r) - prime_base(r, n, k), n),
     "taken from the sums"),
    ("process_advantages", lambda r, n, k: steps_only(
        (r - prime_base(r, n, k)).cumsum(1), n), "sums from the start"),
    ("process_advantages", lambda r, n, k: steps_only(r - prime_base(r, n, k), n),
     "nothing is added up"),
    ("process_advantages", lambda r, n, k: returns_of(r), "there is no baseline"),
    ("process_advantages", lambda r, n, k: -returns_of(r), "in no way that this check knows"),
]  # fmt: skip
