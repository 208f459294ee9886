"""The tables of ``implicitprm evaluate``: their numbers against direct computation."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, pairwise

import numpy as np
import pytest
from datasets import Dataset
from rich.table import Table

from implicitprm.evaluation import auroc, choose_threshold
from implicitprm.reports import (
    PROCESSBENCH_F1,
    PROCESSBENCH_SPLITS,
    _candidate_grids,
    _cross_fitted,
    _group_rates,
    _outcome_predictors,
    best_of_n_reports,
    f1_difference,
    f1_intervals,
    first_error_report,
    outcome_report,
)
from implicitprm.selection import best_of_n, majority_vote, weighted_vote


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
    ones = np.ones(40, dtype=int)
    before = _group_rates(groups, labels, problems, ones, seed=3)
    half = np.unique(before[groups == "a"])
    assert len(half) <= 2
    own = problems == problems[0]
    flipped = labels.copy()
    flipped[own] = ~flipped[own]
    after = _group_rates(groups, flipped, problems, ones, seed=3)
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
    f1, a, b = f1_intervals(hits, labels, seed=0)
    assert (a.value, b.value) == (0.25, 0.75)
    assert f1.value == pytest.approx(2 * 0.25 * 0.75 / 1.0)
    assert f1.low < f1.value < f1.high
    assert 0.1 <= a.low < 0.25 < a.high <= 0.4


def test_a_difference_of_f1_is_paired() -> None:
    labels = np.array([0] * 40 + [-1] * 60)
    rng = np.random.default_rng(0)
    rival = (rng.random(100) < 0.4).astype(float)
    better = rival.copy()
    better[np.flatnonzero(rival == 0)[:8]] = 1
    gain = f1_difference(better, rival, labels, seed=0)
    f1 = [f1_intervals(hits, labels, seed=0)[0] for hits in (better, rival)]
    assert gain.value == pytest.approx(f1[0].value - f1[1].value)
    assert 0 < gain.low < gain.value < gain.high
    # Each interval by itself overlaps the other: what both share cancels in the pair.
    assert f1[0].low < f1[1].value
    same = f1_difference(rival, rival, labels, seed=0)
    assert (same.value, same.low, same.high) == (0, 0, 0)


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
                "step_ends": rng.integers(3, 9, size=4).cumsum().tolist(),
            }
        )
    table = cells(first_error_report(Dataset.from_list(rows), seed=0))
    assert float(table["step reward"][0].split()[0]) == 1.0
    assert float(table["log π_ref of the step"][0].split()[0]) < 0.7
    assert float(table["chance"][0].split()[0]) == pytest.approx(0.2)


# ---- ProcessBench ------------------------------------------------------------------------------


def processbench_rows(split: str, count: int, seed: int, noise: float = 0.6) -> Dataset:
    """Scored solutions of 2 to 6 steps, every other one with a first error that scores low."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        steps = int(rng.integers(2, 7))
        error = int(rng.integers(steps)) if number % 2 else -1
        rewards = rng.normal(1, noise, size=steps)
        if error >= 0:
            rewards[error] -= 1.5
        rows.append(
            {
                "id": f"{split}-{number}",
                "prompt": str(number),
                "first_error": error,
                "step_rewards": rewards.tolist(),
                "q_values": rewards.cumsum().tolist(),
                "policy_step_logps": rng.normal(size=steps).tolist(),
                "ref_step_logps": rng.normal(size=steps).tolist(),
                "step_ends": rng.integers(3, 9, size=steps).cumsum().tolist(),
            }
        )
    return Dataset.from_list(rows)


def official_scores(predictions: list[int], labels: list[int]) -> tuple[float, float, float]:
    """F1 and the two accuracies (%), as the evaluation script of ProcessBench computes them."""
    matches = [prediction == label for prediction, label in zip(predictions, labels, strict=True)]
    of_errors = [m for m, label in zip(matches, labels, strict=True) if label != -1]
    of_correct = [m for m, label in zip(matches, labels, strict=True) if label == -1]
    a, b = (100 * sum(group) / len(group) for group in (of_errors, of_correct))
    return 2 * a * b / (a + b) if a + b else 0.0, a, b


def official_predictions(step_scores: list[list[float]], threshold: float) -> list[int]:
    found = []
    for scores in step_scores:
        prediction = -1
        for step, score in enumerate(scores):
            if score < threshold:
                prediction = step
                break
        found.append(prediction)
    return found


def official_best(step_scores: list[list[float]], labels: list[int]) -> float:
    """The highest F1 of all thresholds, by trying one between every two neighbouring scores."""
    values = sorted({score for scores in step_scores for score in scores})
    middles = [(a + b) / 2 for a, b in pairwise(values)]
    return max(
        official_scores(official_predictions(step_scores, threshold), labels)[0]
        for threshold in [values[0], *middles, values[-1] + 1]
    )


def numbers_of(cells_of_row: list[str]) -> list[float]:
    return [float(cell.split()[0]) for cell in cells_of_row]


def test_the_threshold_is_carried_from_the_first_file() -> None:
    """As the official protocol does, implemented again; on the first file it chooses its own."""
    chosen_on = processbench_rows("gsm8k", 40, seed=1)
    # Another level of scores: a threshold chosen here would be another one.
    carried_to = processbench_rows("math", 60, seed=2, noise=0.9)
    for rows in (chosen_on, carried_to):
        table = cells(first_error_report(rows, seed=0, chosen_on=chosen_on))
        for name, column in (
            ("step reward", "step_rewards"),
            ("q (running sum)", "q_values"),
            ("log π_θ of the step", "policy_step_logps"),
            ("log π_ref of the step", "ref_step_logps"),
        ):
            threshold = choose_threshold(list(chosen_on[column]), chosen_on["first_error"])
            predictions = official_predictions(rows[column], threshold)
            expected = official_scores(predictions, rows["first_error"])
            assert 100 * np.array(numbers_of(table[name])) == pytest.approx(expected, abs=0.06)
            if rows is chosen_on:
                assert expected[0] == pytest.approx(
                    official_best(rows[column], rows["first_error"])
                )


def test_first_error_f1_by_hand() -> None:
    """A threshold of 0 from the first file finds 1 of 2 errors and clears 2 of 3 others: 4/7."""
    first = processbench_rows("gsm8k", 2, seed=0)
    columns = ("step_rewards", "q_values", "policy_step_logps", "ref_step_logps")

    def with_scores(first_error: list[int], scores: list[list[float]]) -> Dataset:
        rows = [
            {"id": f"math-{i}", "prompt": str(i), "first_error": label, "step_ends": [4, 7]}
            | dict.fromkeys(columns, s)
            for i, (label, s) in enumerate(zip(first_error, scores, strict=True))
        ]
        return Dataset.from_list(rows)

    first = with_scores([1, -1], [[1.0, -1.0], [1.0, 1.0]])
    rows = with_scores(
        [0, 1, -1, -1, -1], [[-0.5, -2.0], [-0.5, -2.0], [0.5, 3.0], [0.5, 0.5], [0.5, -0.5]]
    )
    table = cells(first_error_report(rows, seed=0, chosen_on=first))
    assert numbers_of(table["step reward"]) == pytest.approx([4 / 7, 1 / 2, 2 / 3], abs=5e-4)
    # Each guess among two steps and "none" is right once in three.
    assert numbers_of(table["chance"]) == pytest.approx([1 / 3, 1 / 3, 1 / 3], abs=5e-4)


def test_published_figures_stand_below_the_rows_of_a_split() -> None:
    for split, place in (("gsm8k", 0), ("omnimath", 3)):
        table = first_error_report(processbench_rows(split, 60, seed=0), seed=0)
        assert split in str(table.title)
        published = cells(table)["published: EurusPRM-Stage2"]
        assert float(published[0]) == PROCESSBENCH_F1["EurusPRM-Stage2"][place] / 100
    other = first_error_report(processbench_rows("mine", 60, seed=0), seed=0)
    assert not any(name.startswith("published") for name in cells(other))
    assert {len(row) for row in PROCESSBENCH_F1.values()} == {len(PROCESSBENCH_SPLITS)}


# ---- Best of N ---------------------------------------------------------------------------------


def candidate_rows(sizes: list[int], seed: int = 0) -> Dataset:
    """Distinct candidates of prompts, drawn once to three times each, in mixed order.

    The answer "1" is right; some solutions state none.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for prompt, size in enumerate(sizes):
        for number in range(size):
            answer = rng.choice(["1", "2", "3", ""])
            steps = rng.normal(0.5 if answer == "1" else -0.5, 1.0, size=int(rng.integers(1, 4)))
            rows.append(
                {
                    "prompt": f"prompt {prompt}",
                    "completion": f"candidate {number}" + (f"\n#### {answer}" if answer else ""),
                    "label": bool(answer == "1"),
                    "weight": int(rng.integers(1, 4)),
                    "step_rewards": steps.tolist(),
                    "outcome": float(steps.sum()),
                    "policy_step_logps": rng.normal(-3, 1, size=len(steps)).tolist(),
                    "ref_step_logps": rng.normal(-3, 1, size=len(steps)).tolist(),
                    "step_ends": [4 * (step + 1) + number for step in range(len(steps))],
                }
            )
    order = rng.permutation(len(rows))
    return Dataset.from_list([rows[index] for index in order])


def by_enumeration(rows: Dataset, n: int) -> dict[str, float]:
    """Mean over the prompts of the mean over all sets of n, duplicates written out."""
    drawn: dict[str, list[dict]] = {}
    for row in rows:
        drawn.setdefault(row["prompt"], []).extend([row] * row["weight"])

    def answer(row: dict) -> str | None:
        return row["completion"].partition("#### ")[2] or None

    def best(score: Callable[[dict], float]) -> Callable[[list[dict]], float]:
        return lambda chosen: chosen[best_of_n([score(row) for row in chosen])]["label"]

    rules: dict[str, Callable[[list[dict]], float]] = {
        "pass@1": lambda chosen: float(np.mean([row["label"] for row in chosen])),
        "best by reward, sum": best(lambda row: sum(row["step_rewards"])),
        "best by reward, min": best(lambda row: min(row["step_rewards"])),
        "best by reward, mean": best(lambda row: float(np.mean(row["step_rewards"]))),
        "best by reward, last": best(lambda row: row["step_rewards"][-1]),
        "best by log π_θ": best(lambda row: sum(row["policy_step_logps"])),
        "best by log π_ref": best(lambda row: sum(row["ref_step_logps"])),
        "best by log π_ref per token": best(
            lambda row: sum(row["ref_step_logps"]) / row["step_ends"][-1]
        ),
        "vote weighted by σ(reward, sum)": lambda chosen: (
            weighted_vote([answer(r) for r in chosen], [r["outcome"] for r in chosen]) == "1"
        ),
        "oracle (pass@N)": lambda chosen: any(row["label"] for row in chosen),
    }
    return {
        name: float(
            np.mean(
                [
                    np.mean([rule(list(chosen)) for chosen in combinations(candidates, n)])
                    for candidates in drawn.values()
                    if len(candidates) >= n
                ]
            )
        )
        for name, rule in rules.items()
    }


def percent_of(cell: str) -> float:
    return float(cell.split("%")[0]) / 100


def test_best_of_n_by_enumeration() -> None:
    """Prompts with unequal numbers of candidates, duplicates counted, at N = 4."""
    rows = candidate_rows([3, 4, 2, 3, 4, 3])
    (table,) = best_of_n_reports(rows, seed=0)
    found, expected = cells(table), by_enumeration(rows, 4)
    for name, value in expected.items():
        assert percent_of(found[name][0]) == pytest.approx(value, abs=6e-4), name
    assert set(found) - set(expected) == {"majority vote", "best by shorter"}


def test_majority_without_ties() -> None:
    """Two of three candidates agree: N = 3, the most that all have."""
    rows = candidate_rows([3, 3, 3]).map(lambda row: row | {"weight": 1})
    answers = [["1", "1", "2"], ["2", "2", "1"], ["1", "3", "1"]]
    texts = {
        (row["prompt"], row["completion"].partition("\n")[0]): answers[int(row["prompt"][-1])][
            int(row["completion"][10])
        ]
        for row in rows
    }
    rows = rows.map(
        lambda row: {
            "completion": "So\n#### " + texts[row["prompt"], row["completion"].partition("\n")[0]]
        }
    ).map(lambda row: {"label": row["completion"].endswith("1")})
    (table,) = best_of_n_reports(rows, seed=0)
    assert "one of 3 candidates, 3 of 3 prompts" in str(table.title)
    assert [majority_vote(row) for row in answers] == ["1", "2", "1"]
    assert percent_of(cells(table)["majority vote"][0]) == pytest.approx(2 / 3, abs=6e-4)


def test_gains_are_paired_with_the_majority_vote() -> None:
    rows = candidate_rows([4] * 12)
    table = cells(best_of_n_reports(rows, seed=0)[0])
    for name, (accuracy, gain) in table.items():
        if name == "majority vote":
            assert gain == ""
            continue
        above = 100 * (percent_of(accuracy) - percent_of(table["majority vote"][0]))
        assert float(gain.split()[0]) == pytest.approx(above, abs=0.11)


def test_a_weight_is_a_row_written_as_often() -> None:
    """Every number of both reports, but for the draws of votes that are not exact."""
    weighted = candidate_rows([4, 5, 3, 5] * 5)
    written = Dataset.from_list(
        [row | {"weight": 1} for row in weighted for _ in range(row["weight"])]
    )
    plain = written.remove_columns("weight")
    reports = [cells(outcome_report(rows, None, seed=0)) for rows in (weighted, written, plain)]
    assert reports[0] == reports[1] == reports[2]
    ignored = weighted.remove_columns("weight")
    assert cells(outcome_report(ignored, None, seed=0)) != reports[0]
    best = [cells(best_of_n_reports(rows, seed=0)[0]) for rows in (weighted, written, plain)]
    names = [name for name in best[0] if "vote" not in name]
    assert len(names) == 10
    for name in names:
        assert best[0][name][0] == best[1][name][0] == best[2][name][0]


def test_every_n_that_two_prompts_have() -> None:
    rows = candidate_rows([16, 16, 4]).map(lambda row: row | {"weight": 1})
    titles = [str(table.title) for table in best_of_n_reports(rows, seed=0)]
    assert [title.partition(",")[0] for title in titles] == [
        "one of 4 candidates",
        "one of 16 candidates",
    ]
    assert ["3 of 3 prompts" in titles[0], "2 of 3 prompts" in titles[1]] == [True, True]
    assert best_of_n_reports(rows.select(range(1)), seed=0) == []


def test_candidates_of_a_prompt_stay_together() -> None:
    grids = _candidate_grids(np.array([1, 0, 1, 2, 0]), np.array([2, 1, 1, 1, 1]))
    found = {tuple(row) for grid in grids for row in grid.tolist()}
    assert found == {(0, 0, 2), (1, 4), (3,)}


@pytest.mark.parametrize("weight", [0.5, 0.0, -1.0])
def test_a_weight_that_is_no_count(weight: float) -> None:
    rows = candidate_rows([4, 4])
    weights = [1.0] * (len(rows) - 1) + [weight]
    rows = rows.remove_columns("weight").add_column("weight", weights)
    with pytest.raises(ValueError, match=f"row {len(rows) - 1}: weight {weight} is no whole"):
        best_of_n_reports(rows, seed=0)
