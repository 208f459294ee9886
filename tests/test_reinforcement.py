"""Chapter 12's experiment: its statistics by hand, its arms, and its result file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from implicitprm.arithmetic import ARITHMETIC_FORMAT, Problem
from implicitprm.arithmetic.collect import FULL
from implicitprm.arithmetic.values import grade
from implicitprm.experiments import reinforcement as experiment
from implicitprm.experiments.reinforcement import (
    ABLATIONS,
    ARMS,
    FROZEN,
    IMPLICIT,
    MAIN,
    OUTCOME,
    SWEPT,
    WINDOW,
)
from implicitprm.experiments.store import load_result
from implicitprm.reinforce.loop import ImplicitReward, StepReward, reinforce

CELL: dict[str, Any] = {
    "arm": IMPLICIT,
    "learning_rate": 3e-4,
    "weight": 0.5,
    "reward_rate": 1e-3,
    "seed": 0,
    "batches": 2,
    "why": [2],
    "tested": True,
}


# ---- Statistics by hand ----------------------------------------------------------------------


def test_noise_by_hand() -> None:
    """Gradients (3, 1) and (1, −1): inner product 2, mean square 6, so spread 4."""
    gradients = torch.tensor([[3.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    assert experiment.noise(gradients) == pytest.approx((10 + 2) / 2 / 2 - 1)
    assert experiment.noise(7 * gradients) == experiment.noise(gradients)
    assert experiment.noise(torch.tensor([[1.0], [-1.0]])) is None


def test_noise_of_known_gradients() -> None:
    """Mean (3, 4) and variance 1 of each of 1,000 coordinates: 1,000 / 25."""
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(400, 1000, generator=generator, dtype=torch.float64)
    gradients[:, 0] += 3
    gradients[:, 1] += 4
    assert experiment.noise(gradients) == pytest.approx(40, rel=0.1)


def test_batches_to_a_target_by_hand() -> None:
    """Points at 2.5, 7.5 and 12.5 batches: 10, 30, 20 on average; 30 is kept."""
    curves = np.array([[8.0, 30.0, 10.0], [12.0, 30.0, 30.0]])
    assert WINDOW == 5
    assert experiment.batches_to(curves, 20) == 5
    assert experiment.batches_to(curves, 30) == 7.5
    assert experiment.batches_to(curves, 5) == 2.5
    assert np.isnan(experiment.batches_to(curves, 31))


def test_a_curve_is_the_mean_of_windows() -> None:
    accuracy = [[0.1] * 5 + [0.3] * 5, [0.2] * 5 + [0.0, 0.0, 0.0, 0.0, 1.0]]
    assert experiment.curve(accuracy).round(6).tolist() == [[10, 30], [20, 20]]


def test_an_arm_twice_as_fast_needs_half_the_rollouts() -> None:
    slow = np.tile([10.0, 20.0, 30.0, 40.0, 50.0], (5, 1))
    fast = np.tile([10.0, 30.0, 50.0, 60.0, 60.0], (5, 1))
    found = experiment.efficiency(slow, fast)
    assert found["target"] == 50
    assert found["ratio"] == pytest.approx([22.5 / 12.5] * 3, abs=0.01)
    assert found["not reached"] == 0
    never = experiment.efficiency(slow, slow - 20)
    assert never["ratio"] == [0.9, 0.9, 0.9]  # 22.5 batches over all 25
    assert never["not reached"] == 1
    assert experiment.efficiency(slow, slow)["ratio"] == [1, 1, 1]


def test_both_seeds_and_problems_are_resampled() -> None:
    """Where only one of the two varies, the width is that of a bootstrap over it alone."""
    rng = np.random.default_rng(1)
    seeds = np.tile(rng.normal(size=(6, 1)), (1, 50))
    problems = np.tile(rng.normal(size=(1, 50)), (6, 1))
    for table, alone in ((seeds, seeds[:, 0]), (problems, problems[0])):
        found = experiment.over_seeds_and_problems(table)
        assert found.value == pytest.approx(alone.mean())
        width = 2 * 1.96 * alone.std() / len(alone) ** 0.5
        assert found.high - found.low == pytest.approx(width, rel=0.15)


def test_correlation_by_hand_and_its_error() -> None:
    a, b = np.array([1.0, 2, 3, 4]), np.array([10.0, 20, 40, 30])
    assert experiment.correlation(a, b, np.arange(4))[0] == 0.8
    assert experiment.correlation(a, np.ones(4), np.arange(4)) == [None, None]
    rng = np.random.default_rng(0)
    x = rng.normal(size=200)
    y = x + rng.normal(size=200)
    value, error = experiment.correlation(x, y, np.arange(200))
    assert value is not None
    assert error is not None
    assert error == pytest.approx((1 - value**2) / 200**0.5, rel=0.3)


def test_late_accuracy_is_that_of_the_second_half() -> None:
    assert experiment.late_accuracy({"accuracy": [0.0, 0.1, 0.2, 0.4]}) == 30


# ---- Arms and problems -----------------------------------------------------------------------


def test_no_training_problem_is_a_test_problem() -> None:
    drawn = experiment.prompts()
    assert len(set(drawn["test"]) | set(drawn["train"])) == 2300
    assert len(drawn["train"]) >= experiment.BATCHES * experiment.PROMPTS  # none is met twice
    assert {len(Problem.parse(prompt).operations) for prompt in drawn["test"]} == {8}


def test_the_first_wrong_step_is_the_one_that_costs() -> None:
    steps = ("7+5=13", "13-3=10", "#10")
    assert experiment.true_rewards("7+5-3\n", steps, True) == [-1, 0, 0]
    assert experiment.true_rewards("7+5-3\n", ("7+5=12", "12-3=9", "#9"), True) == [0, 0, 0]


def test_an_ablation_has_the_settings_of_its_main_arm() -> None:
    chosen = {
        name: {"learning_rate": place, "weight": None, "reward_rate": None}
        for place, name in enumerate(SWEPT)
    }
    cells = experiment.runs_of(chosen)
    assert len(cells) == len(MAIN) * len(experiment.SEEDS) + len(ABLATIONS) * 3
    rates = {cell["arm"]: cell["learning_rate"] for cell in cells}
    assert rates["implicit, by step"] == SWEPT.index(IMPLICIT)
    assert rates["frozen alone, all prompts"] == SWEPT.index(FROZEN)
    assert rates[OUTCOME] == 0
    assert all(arm.tuned_as in SWEPT for arm in ARMS.values() if arm.tuned_as)


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_has_a_configuration(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "trained_reward", experiment.start)
    learned = ARMS[name].source not in ("none", "truth")
    cell = CELL | {"arm": name, "weight": 0.5 if learned else None}
    config, process = experiment.configure(cell), experiment.process_reward(cell)
    assert (config.process_weight > 0) == (process is not None)
    assert config.process_weight in (0, 0.5, 1)
    assert isinstance(process, StepReward) == (ARMS[name].source == "truth")
    if isinstance(process, ImplicitReward):
        online = ARMS[name].source != "frozen"
        assert process.update_first == (name != "implicit, rewards before the update")
        assert process.learning_rate == (1e-3 if online else 0)
    assert config.outcome_weight or config.accuracy_bounds is None or name == "true steps alone"


def test_a_trial_is_tuned_in_two_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not set(experiment.VALIDATION_SEEDS) & set(experiment.SEEDS)
    monkeypatch.setattr(experiment, "VALIDATION_SEEDS", (100, 101))
    first = experiment.trials()
    assert {cell["arm"] for cell in first} == set(SWEPT)
    assert set(SWEPT) >= {name for name, arm in MAIN.items() if arm.tuned_as is None}
    assert {cell["seed"] for cell in first} == {100, 101}
    tried = [
        cell | {"accuracy": [0.0, 0.5 if cell["learning_rate"] == experiment.RATES[1] else 0.4]}
        for cell in first
    ]
    second = experiment.trials(tried)
    assert {cell["arm"] for cell in second} == {IMPLICIT, FROZEN}
    assert {cell["learning_rate"] for cell in second} == {experiment.RATES[1]}
    assert {cell["weight"] for cell in second if cell["arm"] == FROZEN} == set(
        experiment.WEIGHTS[1:]
    )
    # By the mean over the seeds: one lucky seed is not enough.
    arm, lucky = second[0]["arm"], [0.0, 0.8]
    one = [second[0] | {"accuracy": lucky}, second[1] | {"accuracy": [0.0, 0.1]}]
    assert experiment.best([*tried, *one], arm) == experiment.best(tried, arm)
    both = [second[0] | {"accuracy": lucky}, second[1] | {"accuracy": lucky}]
    assert experiment.best([*tried, *both], arm) == {k: second[0][k] for k in experiment.CHOSEN}


def test_a_run_has_its_curve_its_end_and_its_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "PROMPTS": 8,
        "WHY_PROBLEMS": 3,
        "WHY_COMPLETIONS": 4,
        "WHY_GRADIENTS": 2,
        "TEST_RESPONSES": 1,
    }.items():
        monkeypatch.setattr(experiment, name, value)
    few = {name: prompts[:12] for name, prompts in experiment.prompts().items()}
    monkeypatch.setattr(experiment, "prompts", lambda: few)
    monkeypatch.setattr(experiment, "TEST_PROBLEMS", 12)
    run = experiment.measure(CELL)
    assert len(run["accuracy"]) == 2
    assert len(run["test"]["right"]) == 12
    (why,) = run["why"]
    assert why["batch"] == 2
    assert why["steps"] > 0
    assert -1 <= why["gradient"]["cosine"] <= 1
    assert not list(tmp_path.glob("build/experiments/reinforcement-*"))  # nothing is left over


def test_the_diagnosis_leaves_the_models_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WHY_PROBLEMS": 2, "WHY_COMPLETIONS": 2, "WHY_GRADIENTS": 2}.items():
        monkeypatch.setattr(experiment, name, value)
    policy, process = experiment.start(), experiment.process_reward(CELL)
    assert isinstance(process, ImplicitReward)
    models = (policy, process.model)
    before = [{n: v.clone() for n, v in m.state_dict().items()} for m in models]
    config = replace(experiment.configure(CELL), process_weight=1.0)
    experiment.why(policy, process, config, 1)
    for model, values in zip(models, before, strict=True):
        assert all(torch.equal(values[n], v) for n, v in model.state_dict().items())
        assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_credit_is_compared_with_the_change_of_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two responses a problem: each is the other's baseline. A model equal to its reference gives
    no credit. Over a response the changes of value add up to the outcome less the first value."""
    seen: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def noting(a: np.ndarray, b: np.ndarray, groups: np.ndarray) -> list[float]:
        seen.append((a, b, groups))
        return [0.0, 0.0]

    monkeypatch.setattr(experiment, "correlation", noting)
    for name, value in {"WHY_PROBLEMS": 6, "WHY_RESPONSES": 2, "WHY_COMPLETIONS": 4}.items():
        monkeypatch.setattr(experiment, name, value)
    process = experiment.process_reward(CELL)
    assert isinstance(process, ImplicitReward)
    found = experiment.agreement(experiment.start(), process, experiment.configure(CELL), 3)
    (change, reward, groups), _, (_, outcome, _), (_, label, _), (one, other, _) = seen
    assert found["steps"] == len(change)
    assert set(groups) == set(range(6))
    assert abs(reward).max() < 1e-5
    assert set(outcome) <= {-1.0, 0.0, 1.0}
    assert set(label) == {-1.0, 0.0}
    assert change.tolist() == pytest.approx(((one + other) / 2).tolist())
    assert abs(change).max() <= 1
    # After a wrong step the value falls, on average, and after a valid one it rises.
    assert change[label == -1].mean() < 0 < change[label == 0].mean()


def made_up(arm: str, seed: int, gain: float) -> dict[str, Any]:
    return {
        "arm": arm,
        "seed": seed,
        "accuracy": [0.2] * 5 + [0.2 + gain] * 5,
        "batch_seconds": 1.0,
        "test": {"right": [0.5 + gain, 0.0, 0.5]},
    }


def test_arms_are_compared_in_pairs() -> None:
    runs = [made_up(OUTCOME, seed, 0.1) for seed in (1, 0)]
    runs += [made_up("true steps", seed, 0.4) for seed in (0, 1)]
    table = {line["arm"]: line for line in experiment.summarise(runs)}
    assert table[OUTCOME]["minus outcome"] == [0, 0, 0]
    found = table["true steps"]
    assert found["minus outcome"][0] == pytest.approx(10)
    assert found["minus outcome, whole curve"][0] == pytest.approx(15)
    assert found["curve"] == [20, 60]
    # 30 at 7.5 for the outcome; a quarter of the way from 2.5 to 7.5 for the other.
    assert found["rollouts"]["ratio"][0] == pytest.approx(7.5 / 3.75)


# ---- The result file -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    return load_result("reinforcement")


def part(stored: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [cell for cell in stored["cells"] if cell["part"] == name]


def test_settings_are_the_best_on_validation(stored: dict[str, Any]) -> None:
    for arm, chosen in stored["config"]["chosen"].items():
        own = [cell for cell in part(stored, "validation") if cell["arm"] == arm]
        assert {cell["learning_rate"] for cell in own} == set(experiment.RATES)
        assert {cell["seed"] for cell in own} == set(experiment.VALIDATION_SEEDS)
        means = pd.DataFrame(own).fillna(0).groupby(list(experiment.CHOSEN))["late_accuracy"].mean()
        assert tuple(value or 0 for value in chosen.values()) == means.idxmax()


def test_every_main_arm_has_every_seed(stored: dict[str, Any]) -> None:
    seeds: dict[str, set[int]] = {}
    for run in part(stored, "run"):
        seeds.setdefault(run["arm"], set()).add(run["seed"])
    for arm in MAIN:
        assert seeds[arm] == set(stored["config"]["seeds"][0])
    assert set(seeds) <= set(ARMS)
    assert {line["arm"] for line in part(stored, "summary")} == set(seeds)


def test_arms_of_a_seed_begin_with_the_same_responses(stored: dict[str, Any]) -> None:
    """Same policy, problems and seed: the first batch is the same, and can be sampled again."""
    first: dict[int, set[float]] = {}
    for run in part(stored, "run"):
        first.setdefault(run["seed"], set()).add(run["accuracy"][0])
    assert all(len(accuracies) == 1 for accuracies in first.values())
    history = reinforce(
        experiment.start(),
        experiment.tokenizer(),
        experiment.prompts()["train"],
        grade,
        replace(experiment.configure(CELL | {"arm": OUTCOME, "weight": None}), batches=1),
        sampling=FULL,
        format=ARITHMETIC_FORMAT,
    )
    assert 100 * history[1]["accuracy"] == pytest.approx(100 * first[0].pop(), abs=2)


def test_summaries_are_those_of_the_runs(stored: dict[str, Any]) -> None:
    summaries = {line["arm"]: line for line in part(stored, "summary")}
    for arm, line in summaries.items():
        own = [run for run in part(stored, "run") if run["arm"] == arm]
        assert line["seeds"] == len(own)
        end = np.mean([run["test"]["right"] for run in own])
        assert line["end"][0] == pytest.approx(end, abs=0.02)
        points = experiment.curve([run["accuracy"] for run in own])
        assert line["curve"] == pytest.approx(points.mean(0).tolist(), abs=0.02)
        value, low, high = line["end"]
        assert low < value < high
        if line["seeds"] == summaries[OUTCOME]["seeds"]:
            gap = line["end"][0] - summaries[OUTCOME]["end"][0]
            assert line["minus outcome"][0] == pytest.approx(gap, abs=0.02)
    assert summaries[OUTCOME]["minus outcome"] == [0, 0, 0]
    assert summaries[OUTCOME]["rollouts"]["ratio"] == [1, 1, 1]
