"""The tables of ``implicitprm evaluate``: their numbers against direct computation."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset
from rich.table import Table

from implicitprm.evaluation import auroc
from implicitprm.reports import (
    _cross_fitted,
    _f1_intervals,
    _group_rates,
    _outcome_predictors,
    first_error_report,
    outcome_report,
)


def scored_rows(count: int = 40, seed: int = 0) -> Dataset:
    """Two solutions of each of ``count`` problems, by two sources, with a reward that knows."""
    rng = np.random.default_rng(seed)
    rows = []
    for problem in range(count):
        for source in ("a", "b"):
            label = bool(rng.random() < (0.7 if source == "a" else 0.3))
            steps = rng.normal(1.0 if label else -1.0, 1.0, size=3)
            rows.append(
                {
                    "prompt": f"problem {problem}",
                    "by": source,
                    "label": label,
                    "step_rewards": steps.tolist(),
                    "outcome": float(steps.sum()),
                    "policy_step_logps": rng.normal(-3, 1, size=3).tolist(),
                    "ref_step_logps": rng.normal(-3, 1, size=3).tolist(),
                    "step_ends": [3, 6, int(rng.integers(7, 12))],
                }
            )
    return Dataset.from_list(rows)


def cells(table: Table) -> dict[str, list[str]]:
    columns = [list(column.cells) for column in table.columns]
    return {row[0]: list(row[1:]) for row in zip(*columns, strict=True)}


def test_outcome_report_holds_the_aurocs() -> None:
    rows = scored_rows()
    table = outcome_report(rows, "by", seed=0)
    assert [column.header for column in table.columns][1:] == ["all", "a", "b", "mean within"]
    labels, by = np.array(rows["label"]), np.array(rows["by"])
    reward = np.array(rows["outcome"])
    pooled, in_a, in_b, within = (
        float(cell.split()[0]) for cell in cells(table)["outcome reward (sum)"]
    )
    assert pooled == pytest.approx(auroc(reward, labels), abs=5e-4)
    assert in_a == pytest.approx(auroc(reward[by == "a"], labels[by == "a"]), abs=5e-4)
    assert within == pytest.approx((in_a + in_b) / 2, abs=1e-3)
    # The source alone ranks solutions of different sources, and none of the same.
    source = [float(cell.split()[0]) for cell in cells(table)["by alone"]]
    assert source[0] > 0.6
    assert 0.3 < source[3] < 0.7


def test_predictors_have_their_signs() -> None:
    rows = scored_rows()
    predictors = _outcome_predictors(rows)
    lengths = np.array([ends[-1] for ends in rows["step_ends"]])
    assert np.array_equal(predictors["shorter"], -lengths)
    assert np.allclose(
        predictors["log π_ref per token"] * lengths, [sum(row) for row in rows["ref_step_logps"]]
    )


def test_group_rates_come_from_other_problems() -> None:
    """Flipping the labels of one half changes the rates of the other half only."""
    groups = np.array(["a", "b"] * 20)
    problems = np.repeat(np.arange(20), 2)
    labels = np.random.default_rng(1).random(40) < 0.5
    before = _group_rates(groups, labels, problems, seed=3)
    half = np.unique(before[groups == "a"])
    assert len(half) <= 2
    own = problems == problems[0]
    flipped = labels.copy()
    flipped[own] = ~flipped[own]
    after = _group_rates(groups, flipped, problems, seed=3)
    assert np.array_equal(before[own], after[own])


def test_thresholds_come_from_the_other_half() -> None:
    """A label that is changed in one half leaves the predictions of its own half as they are."""
    rng = np.random.default_rng(0)
    scores = [rng.normal(size=4) for _ in range(30)]
    labels = np.array([int(np.argmin(s)) if i % 2 else -1 for i, s in enumerate(scores)])
    predictions = _cross_fitted(scores, labels, seed=0)
    changed = labels.copy()
    changed[1] = (labels[1] + 1) % 4
    assert _cross_fitted(scores, changed, seed=0)[1] == predictions[1]


def test_f1_is_the_harmonic_mean_with_an_interval() -> None:
    labels = np.array([0] * 40 + [-1] * 60)
    hits = np.array([1] * 10 + [0] * 30 + [1] * 45 + [0] * 15)
    f1, a, b = _f1_intervals(hits, labels, seed=0)
    assert (a.value, b.value) == (0.25, 0.75)
    assert f1.value == pytest.approx(2 * 0.25 * 0.75 / 1.0)
    assert f1.low < f1.value < f1.high
    assert 0.1 <= a.low < 0.25 < a.high <= 0.4


def test_first_error_report_finds_marked_errors() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for number in range(60):
        error = int(rng.integers(4)) if number % 2 else -1
        rewards = rng.normal(1, 0.1, size=4)
        if error >= 0:
            rewards[error] = -3
        rows.append(
            {
                "prompt": str(number),
                "first_error": error,
                "step_rewards": rewards.tolist(),
                "q_values": rewards.cumsum().tolist(),
                "policy_step_logps": rng.normal(size=4).tolist(),
                "ref_step_logps": rng.normal(size=4).tolist(),
            }
        )
    table = cells(first_error_report(Dataset.from_list(rows), seed=0))
    assert float(table["step reward"][0].split()[0]) == 1.0
    assert float(table["log π_ref of the step"][0].split()[0]) < 0.7
    assert float(table["chance"][0].split()[0]) == pytest.approx(0.2)
