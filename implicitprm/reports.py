"""Tables for scored data sets: what ``implicitprm evaluate`` prints.

Each table puts the trained reward beside what is free: the length, the log-probabilities of either
model alone, the source of the solution, and chance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from datasets import Dataset
from rich.table import Table
from scipy.stats import bootstrap

from implicitprm.evaluation import (
    Interval,
    auroc_interval,
    choose_threshold,
    first_error,
)

RESAMPLES = 1000


def _outcome_predictors(rows: Dataset) -> dict[str, np.ndarray]:
    """One score per scored solution (N) by each predictor of its outcome; higher means right."""
    return {
        "outcome reward (sum)": np.array(rows["outcome"]),
        "outcome reward (min step)": np.array([min(steps) for steps in rows["step_rewards"]]),
        "log π_θ": np.array([sum(steps) for steps in rows["policy_step_logps"]]),
        "log π_ref": np.array([sum(steps) for steps in rows["ref_step_logps"]]),
        "log π_ref per token": np.array(
            [
                sum(steps) / ends[-1]
                for steps, ends in zip(rows["ref_step_logps"], rows["step_ends"], strict=True)
            ]
        ),
        "shorter": -np.array([ends[-1] for ends in rows["step_ends"]]),
    }


def outcome_report(rows: Dataset, group: str | None, seed: int) -> Table:
    """AUROC of each predictor of the outcome, with 95% intervals over prompts.

    With ``group``, a column name, also within each of its values and their mean, and the group
    itself as a predictor: the share of right answers of the group in the other half of the prompts.
    """
    labels = np.array(rows["label"], dtype=bool)
    problems = _numbered(rows["prompt"])
    predictors = _outcome_predictors(rows)
    parts = {"all": np.ones(len(rows), dtype=bool)}
    if group is not None:
        groups = np.array(rows[group])
        predictors[f"{group} alone"] = _group_rates(groups, labels, problems, seed)
        parts |= {str(value): groups == value for value in dict.fromkeys(rows[group])}

    table = Table(
        title=f"AUROC on {len(rows)} solutions of {problems.max() + 1} prompts, "
        f"{labels.mean():.1%} right, 95% intervals over prompts"
    )
    table.add_column("predictor")
    for name in parts if group is None else [*parts, "mean within"]:
        table.add_column(name)
    for predictor, scores in predictors.items():
        columns = [[part] for part in parts.values()]
        if group is not None:
            columns.append(list(parts.values())[1:])
        table.add_row(
            predictor,
            *(
                str(auroc_interval(scores, labels, problems, parts=column, seed=seed))
                for column in columns
            ),
        )
    return table


def first_error_report(rows: Dataset, seed: int) -> Table:
    """First-error F1 as ProcessBench defines it, with 95% intervals over problems.

    The threshold of each score is chosen on one half of the problems and used on the other, both
    ways. ``chance`` guesses evenly among the steps and "no error".
    """
    labels = np.array(rows["first_error"])
    step_scores = {
        "step reward": rows["step_rewards"],
        "q (running sum)": rows["q_values"],
        "log π_θ of the step": rows["policy_step_logps"],
        "log π_ref of the step": rows["ref_step_logps"],
    }
    table = Table(
        title=f"first error in {len(rows)} solutions, {(labels >= 0).mean():.1%} of them with one, "
        "95% intervals over problems"
    )
    for name in ("step score", "F1", "accuracy with error", "accuracy without"):
        table.add_column(name)
    for name, scores in step_scores.items():
        hits = _cross_fitted(list(scores), labels, seed) == labels
        table.add_row(name, *map(str, _f1_intervals(hits, labels, seed)))
    guesses = np.array([1 / (len(steps) + 1) for steps in rows["step_rewards"]])
    table.add_row("chance", *map(str, _f1_intervals(guesses, labels, seed)))
    return table


def _numbered(prompts: Sequence) -> np.ndarray:
    """The index of each row's prompt among the distinct prompts (N)."""
    indices: dict[str, int] = {}
    return np.array([indices.setdefault(str(prompt), len(indices)) for prompt in prompts])


def _group_rates(
    groups: np.ndarray, labels: np.ndarray, problems: np.ndarray, seed: int
) -> np.ndarray:
    """Share of right answers of each row's group, counted on the half without the row's prompt."""
    half = _halves(problems.max() + 1, seed)[problems]
    rates = np.empty(len(labels))
    for side in (False, True):
        for value in np.unique(groups):
            rates[(half == side) & (groups == value)] = labels[
                (half != side) & (groups == value)
            ].mean()
    return rates


def _halves(n_problems: int, seed: int) -> np.ndarray:
    """A random half of the problems as a mask (P)."""
    return np.random.default_rng(seed).permutation(n_problems) < n_problems // 2


def _cross_fitted(step_scores: list, labels: np.ndarray, seed: int) -> np.ndarray:
    """Predicted first errors (P), each under the threshold chosen on the other half."""
    half = _halves(len(labels), seed)
    predictions = np.empty(len(labels), dtype=int)
    for side in (False, True):
        other = np.flatnonzero(half != side)
        threshold = choose_threshold([step_scores[row] for row in other], labels[other])
        for row in np.flatnonzero(half == side):
            predictions[row] = first_error(step_scores[row], threshold)
    return predictions


def _f1_intervals(hits: np.ndarray, labels: np.ndarray, seed: int) -> list[Interval]:
    """F1 and its two accuracies from the chance (0..1) that each prediction is right (P).

    Problems with and without an error are resampled apart: F1 conditions on either kind.
    """
    samples = (hits[labels >= 0].astype(float), hits[labels < 0].astype(float))
    statistics = (_harmonic_mean, lambda a, b, axis: a.mean(axis), lambda a, b, axis: b.mean(axis))
    intervals = []
    for statistic in statistics:
        drawn = bootstrap(
            samples,
            statistic,
            n_resamples=RESAMPLES,
            vectorized=True,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
        low, high = drawn.confidence_interval
        intervals.append(Interval(float(statistic(*samples, axis=-1)), float(low), float(high)))
    return intervals


def _harmonic_mean(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
    """2ab/(a+b) of two means, 0 where both are 0."""
    first, second = a.mean(axis), b.mean(axis)
    total = np.where(first + second > 0, first + second, 1.0)
    return 2 * first * second / total
