"""The second world's experiment: its tables by hand and by another route, and its result file."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from implicitprm import ImplicitPRM
from implicitprm.arithmetic.measure import PREDICTORS, first_error_f1, score_rows, step_scores
from implicitprm.evaluation import auroc, bootstrap_over_problems
from implicitprm.experiments import second_world, store
from implicitprm.rewards import ScoredSolution
from implicitprm.stackmachine import PROGRAM_FORMAT, load_programs, reasoner_path
from implicitprm.stackmachine.collect import SPLITS

REF_ALONE = "log π_ref alone"


@cache
def scored_test() -> list[ScoredSolution | None]:
    """The test rollouts under an untrained PRM: rewards of 0, log π_θ = log π_ref."""
    model = AutoModelForCausalLM.from_pretrained(reasoner_path()).eval()
    tokenizer = AutoTokenizer.from_pretrained(reasoner_path())
    return score_rows(
        ImplicitPRM(model, model, tokenizer, 1.0, PROGRAM_FORMAT), load_programs("test")
    )


# ---- Tables ---------------------------------------------------------------------------------


def test_votes_are_taken_over_behaviour() -> None:
    """Three texts that do the same outvote one drawn twice; a failing program never wins."""
    rows = Dataset.from_dict(
        {
            "prompt": ["x+y\n"] * 5,
            "label": [True, True, True, False, False],
            "weight": [1, 1, 1, 2, 4],
            "answer": ["1;2", "1;2", "1;2", "3;4", None],
        }
    )
    accuracy = second_world.answer_accuracy(rows, scored_test()[:5], (9,))
    assert accuracy["majority of 9"] == pytest.approx([1.0])
    assert accuracy["chance (pass@1)"] == pytest.approx([3 / 9])


def test_an_untrained_reward_chooses_at_random_and_votes_like_the_majority() -> None:
    accuracy = second_world.answer_accuracy(load_programs("test"), scored_test())
    chance = accuracy["chance (pass@1)"]
    for n in second_world.NS:
        for how in ("sum", "min"):
            chosen = accuracy[f"best of {n}: reward, {how} over steps"]
            assert chosen == pytest.approx(chance, abs=1e-6)
        assert accuracy[f"weighted vote of {n}"] == pytest.approx(accuracy[f"majority of {n}"])
        assert accuracy[f"oracle of {n}"].mean() > accuracy[f"majority of {n}"].mean()
        assert accuracy[f"best of {n}: log π_θ alone"] == pytest.approx(
            accuracy[f"best of {n}: {REF_ALONE}"], abs=1e-6
        )


def test_a_step_frame_has_the_steps_up_to_the_first_error() -> None:
    rows = load_programs("test").select(range(60))
    frame = second_world.step_frame(rows, scored_test()[:60])
    expected = [
        (row["weight"], step != row["first_error"])
        for row in rows
        for step in range(len(row["steps"]))
        if row["first_error"] < 0 or step <= row["first_error"]
    ]
    assert list(zip(frame["weight"], frame["valid"], strict=True)) == expected
    assert (frame["kind"].isna() == frame["valid"]).all()
    first = scored_test()[0]
    assert first is not None
    assert frame[REF_ALONE][0] == pytest.approx(step_scores(first)[REF_ALONE][0])


def test_resampled_areas_agree_with_the_package_bootstrap() -> None:
    rows = load_programs("test")
    frame = second_world.step_frame(rows, scored_test())
    problems = len(set(rows["prompt"]))
    drawn = second_world.step_aurocs(frame, problems)[REF_ALONE]
    parts = [part for _, part in frame.groupby("problem")]

    def area(chosen: np.ndarray) -> float:
        together = pd.concat([parts[number] for number in chosen])
        return auroc(together[REF_ALONE], together["valid"], together["weight"])

    again = bootstrap_over_problems(area, problems, resamples=40)
    value, low, high = second_world.interval_of(drawn, 4)
    assert value == pytest.approx(again.value, abs=1e-4)
    assert (low, high) == pytest.approx((again.low, again.high), abs=0.02)


def test_areas_by_kind_are_those_of_the_parts() -> None:
    frame = pd.DataFrame(
        {
            "valid": [True, True, False, False],
            "kind": [None, None, "order", "operator"],
            "weight": [1, 3, 2, 1],
        }
        | {key: [0.0, 2.0, 1.0, 3.0] for key in PREDICTORS}
    )
    found = second_world.aurocs_by_kind(frame)
    assert found["order"] == {"steps": 2.0} | dict.fromkeys(PREDICTORS, 0.75)
    assert found["operator"] == {"steps": 1.0} | dict.fromkeys(PREDICTORS, 0.0)


def test_first_error_f1_agrees_with_the_other_world() -> None:
    rows = load_programs("test")
    thresholds = {REF_ALONE: -1.0}
    found = second_world.first_error_f1s(rows, scored_test(), thresholds)[REF_ALONE]
    expected = first_error_f1(rows, scored_test(), thresholds)[REF_ALONE]
    assert found[0] == pytest.approx(expected)
    assert found[1:].min() < expected < found[1:].max()


# ---- Choice, summaries, tolerance -----------------------------------------------------------


def made_up_runs() -> list[dict[str, Any]]:
    """Two seeds of each objective; the second objective is 1 point above the first, and so on."""
    rules = ["chance (pass@1)"] + [
        f"{rule} of {n}{end}"
        for n in (16, 64)
        for rule, end in (("best", ": reward, min over steps"), ("majority", ""))
    ]
    return [
        {
            "objective": objective,
            "seed": seed,
            "answers": {
                rule: [50.0] * 3
                if "majority" in rule
                else [60.0 + place + seed + 2 * ("64" in rule)] * 3
                for rule in rules
            },
            "auroc": {name: [0.5 + 0.1 * p + 0.02 * seed] * 4 for p, name in enumerate(PREDICTORS)},
            "f1": {name: [0.5, 0.4, 0.5, 0.6] for name in PREDICTORS},
            "auroc by kind": {"order": {"steps": 2.0} | dict.fromkeys(PREDICTORS, 0.5 + seed / 10)},
        }
        for place, objective in enumerate(second_world.SWEEP)
        for seed in (0, 1)
    ]


def test_summaries_are_paired_and_average_seeds() -> None:
    summaries = {cell["objective"]: cell for cell in second_world.summarise(made_up_runs())}
    row = summaries["ce"]["rows"]["best of 64: reward, min over steps"]
    assert row["accuracy"] == [62.5] * 3
    assert row["minus majority"] == [12.5] * 3
    assert row["minus 16"] == [2.0] * 3
    place = list(second_world.SWEEP).index(second_world.RIVAL)
    assert row["minus dpo"] == [-float(place)] * 3
    assert "minus majority" not in summaries["ce"]["rows"]["chance (pass@1)"]
    assert summaries["ce"]["auroc"]["step reward"] == [0.51] * 3
    assert summaries["ce"]["auroc"]["step reward minus log π_θ alone"] == [-0.1] * 3
    assert summaries["ce"]["auroc by kind"]["order"]["step reward"] == 0.55


def test_the_best_setting_by_the_rule_is_chosen() -> None:
    cells = [
        {
            "objective": o,
            "beta": beta,
            "learning_rate": 1e-3,
            "accuracy": {second_world.RULE: value},
        }
        for o in second_world.SWEEP
        for beta, value in ((1.0, 60.0), (2.0, 70.0))
    ]
    chosen = second_world.choose(cells)
    assert chosen == {key: {"beta": 2.0, "learning_rate": 0.001} for key in second_world.SWEEP}


def test_the_tolerance_is_twice_the_largest_difference() -> None:
    def run(objective: str, seed: int, value: float) -> dict[str, Any]:
        answers = {key: [50.0, 60.0] for key in second_world.MEASURED}
        return {
            "objective": objective,
            "seed": seed,
            "answers": answers | {second_world.MEASURED[2]: [value, 60.0]},
        }

    runs = [run("ce", 0, 50.0), run("ce", 1, 90.0), run("kto", 0, 50.0)]
    again = [run("ce", 0, 54.0), run("kto", 0, 50.0)]
    assert second_world.tolerances(runs, again) == {"ce": 4.0, "kto": second_world.MIN_TOLERANCE}


# ---- The result file ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    return store.load_result("second_world")


def part(stored: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [cell for cell in stored["cells"] if cell["part"] == name]


def test_every_objective_and_seed_is_there(stored: dict[str, Any]) -> None:
    seeds = stored["config"]["seeds"]
    assert len(seeds) >= 3
    found = {(run["objective"], run["seed"]) for run in part(stored, "run")}
    assert found == {(o, s) for o in second_world.SWEEP for s in seeds}
    assert {cell["objective"] for cell in part(stored, "summary")} == set(second_world.SWEEP)
    assert set(stored["tolerance"]) == set(second_world.SWEEP)


def test_settings_are_the_best_on_validation(stored: dict[str, Any]) -> None:
    assert stored["config"]["chosen"] == second_world.choose(part(stored, "validation"))


def test_what_is_said_of_the_rollouts_is_recomputed(stored: dict[str, Any]) -> None:
    assert part(stored, "data") == second_world.data_cells()
    assert [cell["split"] for cell in part(stored, "data")] == list(SPLITS)


def test_what_needs_no_training_is_recomputed(stored: dict[str, Any]) -> None:
    """Chance, majority, oracle, log π_ref alone and shortest are the same in every run."""
    again = second_world.answer_accuracy(load_programs("test"), scored_test())
    for run in part(stored, "run"):
        for rule, values in again.items():
            if "reward" in rule or "weighted" in rule or "log π_θ" in rule:
                continue
            assert run["answers"][rule] == pytest.approx(100 * values.mean(), abs=0.1)


def test_summaries_are_the_means_of_the_runs(stored: dict[str, Any]) -> None:
    for cell in part(stored, "summary"):
        own = [run for run in part(stored, "run") if run["objective"] == cell["objective"]]
        for rule, row in cell["rows"].items():
            value, low, high = row["accuracy"]
            assert value == pytest.approx(np.mean([r["answers"][rule] for r in own]), abs=0.02)
            assert low <= value <= high
        for metric in ("auroc", "f1"):
            for name in PREDICTORS:
                value, low, high = cell[metric][name]
                assert value == pytest.approx(np.mean([r[metric][name] for r in own]), abs=1e-4)
                assert low <= value <= high
