"""Chapter 09's experiment: its subsets, counts, effects and fits by hand, and its result file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from implicitprm.arithmetic import load_rollouts
from implicitprm.experiments import scaling, store
from implicitprm.experiments.scaling import (
    ALL,
    MATCHED_UPDATES,
    RESPONSES,
    RULES,
    SCHEDULES,
    SHARES,
)

# ---- Data -----------------------------------------------------------------------------------


def made_up_rows() -> Dataset:
    """Four prompts: mixed, all right, all wrong, and one response only."""
    rows = [
        ("a", "1", True, 3), ("a", "2", False, 2), ("a", "3", False, 1),
        ("b", "1", True, 6),
        ("c", "2", False, 4), ("c", "3", False, 2),
        ("d", "1", True, 1),
    ]  # fmt: skip
    prompts, texts, labels, weights = zip(*rows, strict=True)
    return Dataset.from_dict(
        {
            "prompt": prompts,
            "completion": texts,
            "label": labels,
            "weight": weights,
            "finished": [True] * len(rows),
            "ref_logps": [-float(i) for i in range(len(rows))],
        }
    )


def drawn(rows: Dataset) -> dict[tuple[str, str], int]:
    keys = zip(rows["prompt"], rows["completion"], strict=True)
    return dict(zip(keys, rows["weight"], strict=True))


def test_everything_is_the_whole() -> None:
    rows = made_up_rows()
    assert drawn(scaling.nested_subset(rows, 1.0, 6, seed=0)) == drawn(rows)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.25, 0.5, 0.75]), st.integers(1, 5))
def test_subsets_are_nested_and_of_the_right_size(seed: int, share: float, responses: int) -> None:
    rows = made_up_rows()
    small = drawn(scaling.nested_subset(rows, share, responses, seed))
    prompts = {prompt for prompt, _ in small}
    assert len(prompts) == 4 * share
    for prompt in prompts:
        total = sum(count for (p, _), count in small.items() if p == prompt)
        assert total == min(responses, 1 if prompt == "d" else 6)
    for larger in (
        drawn(scaling.nested_subset(rows, 1.0, responses, seed)),
        drawn(scaling.nested_subset(rows, share, responses + 1, seed)),
    ):
        assert all(larger[key] >= count for key, count in small.items())


def test_draws_are_without_bias() -> None:
    """One response is the right one of prompt a in half of the draws: it stands for 3 of 6."""
    texts = [
        next(text for prompt, text in drawn(scaling.nested_subset(made_up_rows(), 1.0, 1, seed))
             if prompt == "a")
        for seed in range(200)
    ]  # fmt: skip
    assert texts.count("1") / 200 == pytest.approx(1 / 2, abs=0.1)
    assert texts.count("3") / 200 == pytest.approx(1 / 6, abs=0.08)


@pytest.mark.parametrize(("share", "responses"), [(0.0, 1), (1.5, 1), (0.5, 0)])
def test_subsets_that_cannot_be_are_refused(share: float, responses: int) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        scaling.nested_subset(made_up_rows(), share, responses, 0)


def test_a_share_that_holds_no_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="of 4 prompts holds none"):
        scaling.nested_subset(made_up_rows(), 0.1, 1, 0)


def test_counts_by_hand() -> None:
    assert scaling.counts(made_up_rows()) == {
        "instructions": 4,
        "rollouts": 19,
        "unique": 7,
        "pairs": 2,
        "without pair": 75.0,
    }
    assert scaling.counts(made_up_rows().remove_columns("weight"))["rollouts"] == 7


def test_pairs_keep_the_reference_log_probabilities() -> None:
    pairs = scaling.paired(made_up_rows())
    assert pairs["chosen"] == ["1", "1"]
    assert pairs["weight"] == [6, 3]
    assert pairs["ref_chosen_logps"] == [0.0, 0.0]
    assert pairs["ref_rejected_logps"] == [-1.0, -2.0]


def test_merging_adds_up_the_draws_of_a_completion() -> None:
    rows = made_up_rows()
    merged = scaling._merged([rows, rows.select([0, 3])])
    assert drawn(merged) == drawn(rows) | {("a", "1"): 6, ("b", "1"): 12}


def test_updates_by_hand() -> None:
    found = {"unique": 129, "pairs": 64}
    cell = {"schedule": "3 epochs"}
    assert scaling.updates(cell | {"objective": "CE"}, found) == 9
    assert scaling.updates(cell | {"objective": "KTO"}, found) == 9
    assert scaling.updates(cell | {"objective": "DPO"}, found) == 3
    assert scaling.updates({"objective": "CE", "schedule": "matched"}, found) == MATCHED_UPDATES


def test_kinds_of_data_hold_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "all_rows", load_rollouts)  # no reference: nothing is trained

    def of(source: str) -> dict[tuple[str, str], int]:
        rows = scaling.training_rows({"source": source, "seed": 0})
        return dict.fromkeys(zip(rows["prompt"], rows["completion"], strict=True), 1)

    first, both, mixed, minus = map(of, scaling.OPERATIONS)
    assert first.keys() < both.keys()
    assert mixed.keys() == first.keys() | minus.keys()
    assert {p for p, _ in both} == set(load_rollouts("reasoner", "plus_times")["prompt"])
    assert len({p for p, _ in first}) == len({p for p, _ in both}) // 2
    half = scaling.training_rows({"source": "half early", "seed": 0})
    weights: dict[str, int] = {}
    for prompt, weight in zip(half["prompt"], half["weight"], strict=True):
        weights[prompt] = weights.get(prompt, 0) + weight
    assert max(weights.values()) == ALL
    assert "weight" not in scaling.training_rows({"source": "once each", "seed": 0}).column_names


# ---- Fits and effects -----------------------------------------------------------------------


def test_slopes_of_a_plane() -> None:
    shares, responses = [0.25, 0.25, 1.0, 1.0], [2, 8, 2, 8]
    plane = [50 + 3 * np.log2(s) + 2 * np.log2(r) for s, r in zip(shares, responses, strict=True)]
    slopes = scaling.slope_weights(shares, responses) @ np.array(plane)
    np.testing.assert_allclose(slopes, [3.0, 2.0], atol=1e-9)


def test_what_is_combined_has_the_same_seeds() -> None:
    """Arm a has seeds 0 and 1, arm b seed 1 only: seed 0 plays no part."""

    def run(level: float) -> dict[str, Any]:
        return {"tested": {"reasoner": {rule: [level, level + 2] for rule in RULES}}}

    found: scaling.ByArm = {("a",): {0: run(10.0), 1: run(50.0)}, ("b",): {1: run(44.0)}}
    assert scaling.shared_seeds(found, [("a",), ("b",)]) == [1]
    difference = scaling.combined(found, {("a",): 1.0, ("b",): -1.0})
    assert difference == {"seeds": 1, "rows": {"reasoner": {rule: [6.0] * 3 for rule in RULES}}}
    alone = scaling.combined(found, {("a",): 1.0})
    assert alone["seeds"] == 2
    assert alone["rows"]["reasoner"]["min"][0] == 31.0


def test_rank_correlations_by_hand() -> None:
    accuracy = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    amounts = {
        "rollouts": np.array([1.0, 3.0, 2.0]),
        "unique": np.array([1.0, 5.0, 9.0]),
        "updates": np.array([4.0, 4.0, 4.0]),
    }
    found = scaling._correlations(accuracy, amounts)
    assert found.keys() == {"rollouts", "unique"}  # what does not vary has no rank
    assert found["rollouts"]["correlation"] == [0.5] * 3
    assert found["unique"] == {"correlation": [1.0] * 3, "over rollouts": [0.5] * 3}


def accuracy_of(cell: scaling.Cell) -> float:
    """What the made-up runs score: 5 points a doubling of instructions, 2 of responses."""
    level = 60 + 5 * np.log2(cell["share"]) + 2 * np.log2(cell["responses"])
    level += {"CE": 0, "DPO": -4, "NCA": -2, "KTO": 1}[cell["objective"]]
    level += {"half early": 6, "A1+A2": 3, "A1+irrelevant": -1}.get(cell["source"], 0)
    # DPO's full data are the same in both schedules
    return float(level + (cell["schedule"] == "matched" and cell["objective"] != "DPO"))


def made_up_runs() -> list[dict[str, Any]]:
    """Two seeds of every cell, half a point above and below; every problem alike."""
    runs = []
    for cell in scaling.grid_cells((0, 1)):
        size = {"plus_times": 150, "reasoner": 300, "strong": 300}
        level = accuracy_of(cell) + (0.5 if cell["seed"] else -0.5)
        found = {"rollouts": 8 * cell["share"] * cell["responses"], "instructions": cell["share"]}
        found |= {"unique": cell["share"] * (1 + np.log2(cell["responses"]))}
        found |= {"pairs": found["rollouts"], "without pair": 0.0, "updates": MATCHED_UPDATES}
        runs.append(
            dict(cell)
            | {
                "counts": found,
                "tested": {
                    name: {rule: [level] * size[name] for rule in RULES} | {"auroc": 0.9}
                    for name in scaling.tested(cell)
                },
            }
        )
    return scaling.with_full_dpo(runs)


@pytest.fixture(scope="module")
def effects() -> list[dict[str, Any]]:
    found = scaling.by_arm(made_up_runs())
    return [*scaling._equal_budgets(found), *scaling._contrasts(found)]


def effect(effects: list[dict[str, Any]], name: str, **wanted: Any) -> list[dict[str, Any]]:
    return [
        e for e in effects if e["effect"] == name and all(e.get(k) == v for k, v in wanted.items())
    ]


def test_equal_rollouts_are_compared_and_nothing_else(effects: list[dict[str, Any]]) -> None:
    found = effect(effects, "equal rollouts")
    assert {(e["a"][0], e["a"][4], e["a"][2], e["b"][2]) for e in found} >= {
        ("CE", "3 epochs", 1.0, 0.125),
        ("DPO", "matched", 1.0, 0.25),
    }
    for e in found:
        a, b = e["a"], e["b"]
        assert a[:2] + a[4:] == b[:2] + b[4:]
        assert a[2] * a[3] == b[2] * b[3]
        assert a[2] > b[2]
        # 5 points a doubling of instructions, less 2 of responses
        assert e["rows"]["strong"]["min"] == pytest.approx([3 * np.log2(a[2] / b[2])] * 3)
    for e in effect(effects, "equal rollouts, mean per halving"):
        assert e["rows"]["reasoner"]["sum"] == pytest.approx([3.0] * 3)


def test_contrasts_are_the_differences_they_are_called(effects: list[dict[str, Any]]) -> None:
    def value(name: str, world: str = "reasoner") -> list[float]:
        return [e["rows"][world]["min"][0] for e in effect(effects, name)]

    assert value("8 responses minus 2") == pytest.approx([4.0] * 4)
    assert value("all instructions minus 25.0%") == pytest.approx([10.0] * 4)
    assert value("all instructions minus 12.5%") == pytest.approx([15.0] * 2)
    assert value("half early minus base") == pytest.approx([6.0])
    assert value("A1+A2 minus A1", "plus_times") == pytest.approx([3.0] * 2)
    assert value("A1+irrelevant minus A1", "plus_times") == pytest.approx([-1.0] * 2)
    assert value("NCA minus CE") == pytest.approx([-2.0])
    assert value("KTO minus CE") == pytest.approx([1.0])
    assert sorted(value("DPO minus CE")) == pytest.approx([-5.0, -4.0])
    assert value("matched minus 3 epochs") == pytest.approx([1.0] * 7 + [0.0] * 4)
    assert value("8 responses minus 2: DPO's gain minus CE's") == pytest.approx([0.0, 0.0])


def test_dpos_full_data_count_as_matched_only_where_they_are() -> None:
    runs = made_up_runs()
    full = [r for r in runs if scaling.arm(r) == scaling._base("DPO", 1.0, ALL, "matched")]
    assert len(full) == 2
    full = [r for r in runs if scaling.arm(r) == scaling._base("DPO", 1.0, ALL, "3 epochs")]
    full[0]["counts"] = full[0]["counts"] | {"updates": 7}
    with pytest.raises(ValueError, match="make 7 updates"):
        scaling.with_full_dpo(runs)


def test_the_tolerance_is_twice_the_largest_difference() -> None:
    runs = made_up_runs()
    again = [
        {**run, "tested": {"reasoner": dict(run["tested"]["reasoner"])}, "attention": "eager"}
        for run in runs
        if scaling.arm(run) == scaling._base("CE", 1.0, 1, "3 epochs") and run["seed"] == 0
    ]
    chapter_6 = store.load_result("objectives")["tolerance"]
    known = {name: chapter_6[name.lower()] for name in ("CE", "DPO", "NCA", "KTO")}
    assert scaling.tolerances(runs, again) == known
    shifted = np.array(again[0]["tested"]["reasoner"]["sum"]) - 0.7
    again[0]["tested"]["reasoner"]["sum"] = shifted.tolist()
    assert scaling.tolerances(runs, again) == known | {"CE": 1.4}


def test_a_small_cell_is_trained_and_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "MATCHED_UPDATES", 1)
    cell = {**scaling._cell("DPO", "A1", 1.0, ALL, "matched"), "seed": 0}
    found = scaling.measure(cell)
    assert found["counts"]["updates"] == 1
    assert found["counts"]["pairs"] > 0
    assert set(found["tested"]) == {"plus_times"}
    assert len(found["tested"]["plus_times"]["vote"]) == 150


# ---- The result file ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    return store.load_result("scaling")


def part(stored: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [cell for cell in stored["cells"] if cell["part"] == name]


def test_every_cell_and_seed_is_there(stored: dict[str, Any]) -> None:
    seeds = stored["config"]["seeds"]
    assert len(seeds) >= 3
    found = {(*scaling.arm(run), run["seed"]) for run in part(stored, "run")}
    expected = {(*scaling.arm(cell), cell["seed"]) for cell in scaling.grid_cells(seeds)}
    expected |= {(*scaling._base("DPO", 1.0, ALL, "matched"), seed) for seed in seeds}
    assert found == expected


def test_settings_are_those_of_chapter_06(stored: dict[str, Any]) -> None:
    assert stored["config"]["settings"] == store.load_result("objectives")["config"]["chosen"]
    assert stored["config"]["matched_updates"] == MATCHED_UPDATES
    assert set(stored["tolerance"]) == {"CE", "DPO", "NCA", "KTO"}


def test_updates_are_matched_where_it_says_so(stored: dict[str, Any]) -> None:
    for run in part(stored, "run"):
        if run["schedule"] == "matched":
            assert run["counts"]["updates"] == MATCHED_UPDATES
        else:
            assert run["counts"]["updates"] == scaling.updates(run, run["counts"])


def test_counts_of_the_data_are_recomputed(stored: dict[str, Any]) -> None:
    rows = load_rollouts("reasoner", "train")
    found = {(c["share"], c["responses"], c["seed"]): c for c in part(stored, "data")}
    seeds = stored["config"]["seeds"]
    assert len(found) == len(SHARES) * len(RESPONSES["CE"]) * len(seeds)
    for share, responses, seed in ((0.125, 1, 0), (0.5, 4, 1), (1.0, 2, 2), (1.0, 8, 0)):
        again = scaling.counts(scaling.nested_subset(rows, share, responses, seed))
        assert found[share, responses, seed].items() >= again.items()
    for run in part(stored, "run"):
        if run["source"] == "base":
            data = found[run["share"], run["responses"], run["seed"]]
            assert data.items() >= (run["counts"].items() - {("updates", run["counts"]["updates"])})


def test_what_needs_no_training_is_recomputed(stored: dict[str, Any]) -> None:
    for ours, theirs in zip(part(stored, "levels"), scaling.level_cells(), strict=True):
        assert ours["tested"] == theirs["tested"]
        assert ours["rows"].keys() == theirs["rows"].keys()
        for name, interval in ours["rows"].items():
            assert interval == pytest.approx(theirs["rows"][name], abs=0.3)
        assert ours["auroc of log π_ref"] == pytest.approx(theirs["auroc of log π_ref"], abs=1e-3)


def test_summaries_are_the_means_of_the_runs(stored: dict[str, Any]) -> None:
    levels = {c["tested"]: c["rows"] for c in part(stored, "levels")}
    summaries = part(stored, "summary")
    assert len(summaries) == len({scaling.arm(run) for run in part(stored, "run")})
    for cell in summaries:
        own = [r["tested"] for r in part(stored, "run") if scaling.arm(r) == scaling.arm(cell)]
        for world, rules in cell["rows"].items():
            for rule in RULES:
                value, low, high = rules[rule]["accuracy"]
                assert value == pytest.approx(np.mean([t[world][rule] for t in own]), abs=0.02)
                assert low <= value <= high
                less = rules[rule]["minus majority"][0]
                assert less == pytest.approx(value - levels[world]["majority"][0], abs=0.02)


def test_effects_are_differences_of_runs(stored: dict[str, Any]) -> None:
    """Of the runs with the seeds that both arms have."""
    tested: dict[Any, dict[int, Any]] = {}
    for run in part(stored, "run"):
        tested.setdefault(scaling.arm(run), {})[run["seed"]] = run["tested"]
    checked = 0
    for cell in part(stored, "effect"):
        if "a" not in cell:
            continue
        a, b = (tested[tuple(cell[side])] for side in "ab")
        seeds = sorted(a.keys() & b.keys())
        assert cell["seeds"] == len(seeds)
        for world, rules in cell["rows"].items():
            for rule, (value, low, high) in rules.items():
                difference = np.mean([a[k][world][rule] - b[k][world][rule] for k in seeds])
                assert value == pytest.approx(difference, abs=0.03)
                assert low <= value <= high
                checked += 1
    assert checked > 100


def test_every_question_has_an_answer_for_both_schedules(stored: dict[str, Any]) -> None:
    for name in ("slope", "order"):
        found = {(c["objective"], c["schedule"]) for c in part(stored, name)}
        assert found == {(o, s) for o in RESPONSES for s in SCHEDULES}
    slopes = {(c["objective"], c["schedule"], c["slope"]): c["rows"] for c in part(stored, "slope")}
    for (objective, schedule, name), rows in slopes.items():
        if name == "difference":
            both = [slopes[objective, schedule, n] for n in ("instructions", "responses")]
            first, second = (each["strong"]["min"][0] for each in both)
            assert rows["strong"]["min"][0] == pytest.approx(first - second, abs=0.02)
    for cell in part(stored, "order"):
        amounts = cell["rows"]["reasoner"]["min"]
        assert ("updates" in amounts) == (cell["schedule"] == "3 epochs")
