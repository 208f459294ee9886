"""Chapter 10's experiments: references, resamples, strata, stages, style, and the result files."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from implicitprm.arithmetic import Problem, Tutor, check_solution, load_rollouts, sample_problem
from implicitprm.arithmetic.measure import score_rows
from implicitprm.evaluation import auroc, rank_correlation
from implicitprm.experiments import ablations, baselines, objectives, store, style
from implicitprm.experiments.runs import STEP_BETA, reference_scorer
from implicitprm.rewards import sum_by_step
from implicitprm.training import ImplicitPRMTrainer

TUTOR = Tutor()

# ---- References ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def some_rows() -> Dataset:
    return load_rollouts("reasoner", "test").select(range(40))


@pytest.fixture
def few_rows(monkeypatch: pytest.MonkeyPatch, some_rows: Dataset) -> Dataset:
    """Some test rows stand for every place, with caches of their own."""
    for name in ("reference_steps", "lengths"):
        monkeypatch.setattr(ablations, name, getattr(ablations, name).__wrapped__)
    monkeypatch.setattr(ablations, "rows_of", lambda place: some_rows)
    return some_rows


def test_a_factor_on_the_norm_is_a_temperature(some_rows: Dataset) -> None:
    """log softmax of logits / τ, by hand on the plain reasoner's logits."""
    plain = ablations.reference_model("reasoner")
    prompt = ablations._tokenizer()(some_rows[0]["prompt"], return_tensors="pt").input_ids
    with torch.no_grad():
        logits = plain(prompt).logits
        for name, temperature in (("reasoner, τ = 0.5", 0.5), ("reasoner, τ = 2", 2.0)):
            tempered = ablations.reference_model(name)(prompt).logits
            torch.testing.assert_close(tempered, logits / temperature, rtol=1e-4, atol=1e-4)
        assert ablations.reference_model("uniform")(prompt).logits.abs().max() == 0
    with pytest.raises(ValueError, match="no model stands behind"):
        ablations.reference_model("none")


def test_a_uniform_reference_counts_tokens(few_rows: Dataset) -> None:
    """−tokens · log V of every step, and nothing without a reference."""
    words = len(ablations._tokenizer())
    scored = score_rows(reference_scorer(), few_rows)
    found = ablations.reference_steps("uniform", "reasoner")
    for solution, steps, none in zip(
        scored, found, ablations.reference_steps("none", "reasoner"), strict=True
    ):
        assert solution is not None
        assert steps is not None
        assert none is not None
        tokens = np.diff((0, *solution.step_ends))
        np.testing.assert_allclose(steps, -tokens * np.log(words), rtol=1e-5)
        assert none.tolist() == [0.0] * len(tokens)
    lengths = [len(s.tokens) for s in scored if s is not None]
    assert ablations.lengths("reasoner").tolist() == lengths


def test_a_policy_is_read_with_each_reference(few_rows: Dataset) -> None:
    policy = ablations.reference_steps("early", "reasoner")
    ref = ablations.reference_steps("reasoner", "reasoner")
    judged = ablations.read(policy, "reasoner", "reasoner", 2.0)
    per_token = ablations.read(policy, "reasoner", "reasoner", 2.0, per_token=True)
    for row, (a, b) in enumerate(zip(policy, ref, strict=True)):
        assert a is not None
        assert b is not None
        steps, means = judged.steps[row], per_token.steps[row]
        assert steps is not None
        assert means is not None
        np.testing.assert_allclose(steps, 2 * (a - b))
        np.testing.assert_allclose(means * ablations.lengths("reasoner")[row], 2 * (a - b))
        assert judged.by_min[row] == pytest.approx((2 * (a - b)).min())
        assert judged.by_sum[row] == pytest.approx(2 * (a - b).sum())


def test_with_equal_tokens_a_uniform_reference_changes_no_order(few_rows: Dataset) -> None:
    policy = ablations.reference_steps("reasoner", "reasoner")
    by_sum = [ablations.read(policy, r, "reasoner", 1.0).by_sum for r in ("none", "uniform")]
    lengths = ablations.lengths("reasoner")
    for length in np.unique(lengths):
        alike = lengths == length
        shift = by_sum[1][alike] - by_sum[0][alike]
        np.testing.assert_allclose(shift, length * np.log(len(ablations._tokenizer())), rtol=1e-5)


def test_training_rows_get_another_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Dataset.from_dict(
        {"prompt": ["1+1\n"], "completion": ["1+1=2\n#2"], "label": [True], "ref_logps": [-3.0]}
    )
    monkeypatch.setattr(objectives, "prepared", lambda variant: rows)
    with_reference = {
        name: ablations.prepared.__wrapped__("CE", name)["ref_logps"][0]
        for name in ("reasoner", "none", "uniform")
    }
    assert with_reference["reasoner"] == -3.0
    assert with_reference["none"] == 0.0
    words = len(ablations._tokenizer())
    assert with_reference["uniform"] == pytest.approx(-9 * np.log(words), rel=1e-5)


# ---- Training --------------------------------------------------------------------------------


def test_the_reward_per_token_is_the_reward_over_the_length() -> None:
    trainers = []
    for kind in (ablations.PerTokenTrainer, ImplicitPRMTrainer):
        trainer = object.__new__(kind)
        trainer._beta = 3.0
        trainers.append(trainer)
    mask = torch.tensor([[False, True, True, True], [False, False, True, False]])
    batch = {
        "input_ids": torch.tensor([[5, 6, 7, 8], [5, 6, 7, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
        "response_mask": mask,
        "ref_logps": torch.tensor([-2.0, -1.0]),
    }
    model = ablations.reference_model("reasoner")
    with torch.no_grad():
        per_token, whole = (trainer._rewards(model, batch) for trainer in trainers)
    torch.testing.assert_close(per_token, whole / torch.tensor([3.0, 1.0]))


def test_a_second_stage_leaves_the_first_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every arm starts from a copy, shuffles by another seed, and takes the labels it names."""
    calls: list[dict[str, Any]] = []

    def ce(rows: Any, **settings: Any) -> SimpleNamespace:
        calls.append(settings)
        return SimpleNamespace(policy=settings["policy"])

    def steps(scorer: Any, rows: Any, labels: Any, rate: float, seed: int, epochs: int) -> None:
        calls.append({"policy": scorer.policy, "labels": labels, "seed": seed, "epochs": epochs})
        assert (rate, scorer.beta) == (5e-4, STEP_BETA)

    monkeypatch.setattr(objectives, "prepared", lambda variant: variant)
    monkeypatch.setattr(ablations, "train_prm", ce)
    monkeypatch.setattr(ablations, "train_scorer", steps)
    monkeypatch.setattr(ablations, "step_labels", lambda source, rows: source)
    monkeypatch.setattr(ablations, "load_rollouts", lambda *a: None)
    policy = cast(PreTrainedModel, torch.nn.Linear(1, 1))
    later = [ablations.second_stage(policy, s, 5e-4, seed=2) for s in ablations.STAGES]
    assert [c["policy"] for c in calls] == later
    assert policy not in later
    assert {c["seed"] for c in calls} == {102}
    assert {c["epochs"] for c in calls} == {1}
    assert [c.get("labels") for c in calls] == [None, *ablations.STAGES[1:]]


# ---- Resampled quantities --------------------------------------------------------------------


def test_the_first_row_of_the_resamples_is_the_sample() -> None:
    draws = ablations.resampled_problems(7)
    assert draws.shape == (ablations.RESAMPLES + 1, 7)
    assert draws[0].tolist() == [1.0] * 7
    assert set(draws.sum(axis=1)) == {7.0}
    assert np.array_equal(draws, ablations.resampled_problems.__wrapped__(7))


@st.composite
def judged_steps(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores with ties, labels, counts and strata of some steps; each stratum has both kinds."""
    count = draw(st.integers(4, 12))
    values = st.lists(st.integers(0, 4), min_size=count, max_size=count)
    scores, weights = (np.array(draw(values), dtype=float) for _ in range(2))
    labels, strata = np.arange(count) % 2 == 0, (np.arange(count) // 2) % 2
    return scores, labels, weights + 1, strata


@given(judged_steps())
def test_auroc_is_that_of_the_repeated_steps(
    made: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    scores, labels, weights, strata = made
    one = np.zeros(len(scores))
    (found,) = ablations.auroc_within(scores, labels, weights[None], one)
    assert found == pytest.approx(auroc(scores, labels, weights))
    won = pairs = 0.0
    for i in np.flatnonzero(labels):
        for j in np.flatnonzero(~labels & (strata == strata[i])):
            pairs += weights[i] * weights[j]
            won += (
                weights[i] * weights[j] * ((scores[i] > scores[j]) + (scores[i] == scores[j]) / 2)
            )
    (within,) = ablations.auroc_within(scores, labels, weights[None], strata)
    assert within == pytest.approx(won / pairs)


def test_telling_strata_apart_earns_nothing_within_them() -> None:
    """A score that only knows the stratum, in which one kind is more frequent."""
    labels = np.array([True, True, True, False, True, False, False, False])
    strata = np.array([1, 1, 1, 1, 0, 0, 0, 0])
    weights = np.ones((1, 8))
    one = np.zeros(8)
    assert ablations.auroc_within(strata.astype(float), labels, weights, one)[0] == 0.75
    assert ablations.auroc_within(strata.astype(float), labels, weights, strata)[0] == 0.5


def test_rank_correlations_of_the_sample_and_of_a_resample() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.permutation(9.0 * np.arange(30)), rng.normal(size=30)
    weights = np.vstack([np.ones(30), rng.integers(1, 4, size=30)])
    found = ablations._rank_correlations(a, b, weights)
    assert found[0] == pytest.approx(rank_correlation(a, b))
    # With weights the ranks are those of the whole sample: near the exact one, and not the same.
    assert found[1] == pytest.approx(rank_correlation(a, b, weights[1]), abs=0.03)


def test_agreement_within_problems_by_hand() -> None:
    """Three prefixes in order, three in reverse order, and a problem that says nothing."""
    values = np.array([1.0, 2, 3, 30, 20, 10, 5, 6])
    q = np.array([0.1, 0.5, 0.9, 0.1, 0.5, 0.9, 0.4, 0.4])
    problem = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    found = ablations.within_problems(values, q, problem)
    assert found == pytest.approx({0: 1.0, 1: -1.0})
    shifted = q - np.array([0.3, 0.3, 0.3, 0.6, 0.6, 0.6, 0.4, 0.4])
    assert ablations.within_problems(values, shifted, problem) == pytest.approx(found)


@pytest.fixture(scope="module")
def confidence() -> baselines.Judged:
    """log π_ref of the reasoner's test rollouts."""
    steps = ablations.step_logps(
        ablations.reference_model("reasoner"), ablations.rows_of("reasoner")
    )
    return baselines.by_additive_steps(steps)


def test_the_sample_itself_agrees_with_chapter_08(confidence: baselines.Judged) -> None:
    """AUROC, F1 and agreement of log π_ref by this module and by baselines.py."""
    truth = baselines.step_truth("reasoner", "test")
    scores = baselines.scores_at(confidence.steps, truth.row, truth.step)
    found = ablations._steps_told_apart(confidence)
    for name, part in (
        ("AUROC", ~truth.unseen),
        ("AUROC, slips", ~truth.unseen & ~truth.misconception),
        ("AUROC, misconceptions", ~truth.unseen & truth.misconception),
    ):
        expected = auroc(scores[part], truth.valid[part], truth.weight[part])
        assert found[name][0] == pytest.approx(expected)
    assert found["AUROC within position and operation"][0] != found["AUROC"][0]
    rows = ablations.rows_of("reasoner")
    expected = baselines.f1_interval(rows, confidence, -1.0)[0]
    assert ablations._first_errors(confidence, -1.0)[0] == pytest.approx(expected, abs=1e-4)
    expected = baselines.agreement("reasoner", confidence)[0]
    agreement = ablations._agreement(confidence)
    assert agreement["agreement with Q"][0] == pytest.approx(expected, abs=1e-4)


def test_strata_name_position_and_operation() -> None:
    truth, texts = baselines.step_truth("reasoner", "test"), ablations.rows_of("reasoner")["steps"]
    names = ablations._strata("reasoner")
    for row, step, name in list(zip(truth.row, truth.step, names, strict=True))[:200]:
        assert name == f"{step}{texts[row][step].lstrip('0123456789')[0]}"


# ---- Choice and summaries --------------------------------------------------------------------


def made_up_validation() -> list[dict[str, Any]]:
    stages, *others = ablations.sweep_cells()
    rates = {str(rate): 80.0 + place for place, rate in enumerate(ablations.STAGE_RATES)}
    accuracy = dict.fromkeys(ablations.STAGES, rates)
    return [
        stages | {"accuracy": accuracy},
        *(cell | {"accuracy": cell["beta"]} for cell in others),
    ]


def test_the_best_setting_of_each_arm_is_chosen() -> None:
    chosen = ablations.choose(made_up_validation())
    assert set(chosen["stages"].values()) == {ablations.STAGE_RATES[-1]}
    for (objective, reference), (betas, _) in ablations.SWEEP.items():
        assert chosen["settings"][objective][reference]["beta"] == max(betas)
    assert chosen["settings"]["NCA"]["reasoner"] == ablations.chapter_6("NCA")
    grid = ablations.grid_cells(chosen, (0, 1))
    assert len({(c["objective"], c["reference"], c["seed"]) for c in grid}) == len(grid)
    arms = [(c["objective"], c["reference"]) for c in grid]
    assert set(arms) == {name for tier in ablations.TIERS for name in tier}
    # A grid that is cut short has all seeds of its first tier.
    first = len(ablations.TIERS[0])
    assert arms[: 2 * first] == [*ablations.TIERS[0]] * 2


def made_up_reading(level: float) -> dict[str, Any]:
    return {
        "answers": {"reasoner, min": [level, level + 2.0]},
        "resampled": {"AUROC": [level + 1.0] * (ablations.RESAMPLES + 1)},
    }


def made_up_runs() -> list[dict[str, Any]]:
    """Two seeds, one point apart: CE with and without its reference, a second stage, an idler."""
    policy = {"pass@1": [50.0, 60.0], "finished": [100.0, 100.0], "tokens": [30.0, 40.0]}
    runs = []
    for seed in (0, 1):
        runs += [
            ablations.arm("CE", "reasoner", seed)
            | {
                "policy": policy | {"pass@1": [40.0, 30.0]},
                "readings": {
                    ablations.STAGE_1: {
                        "reasoner": made_up_reading(80.0 + seed),
                        "none": made_up_reading(90.0 + seed),
                    },
                    ablations.MORE_CE: {"reasoner": made_up_reading(82.0 + seed)},
                    "true labels": {"reasoner": made_up_reading(85.0 + seed)},
                },
            },
            ablations.arm(ablations.UNTRAINED, "none", seed) | {"policy": policy},
        ]
    return runs


def test_summaries_are_paired_and_average_seeds() -> None:
    cells = ablations.summarise(made_up_runs())
    by_key = {(c["stage"], c["read with"]): c["rows"] for c in cells if c["part"] == "summary"}
    row = by_key["true labels", "reasoner"]["reasoner, min"]
    assert row["value"] == [86.5, 85.5, 87.5]
    assert row[f"minus {ablations.STAGE_1}"] == [5.0] * 3
    assert row[f"minus {ablations.MORE_CE}"] == [3.0] * 3
    row = by_key[ablations.STAGE_1, "none"]["AUROC"]
    assert (row["value"], row["minus the reasoner"]) == ([91.5] * 3, [10.0] * 3)
    assert "minus CE" not in by_key[ablations.STAGE_1, "reasoner"]["AUROC"]
    (policy,) = (c for c in cells if c["part"] == "policy" and c["objective"] == "CE")
    assert policy["rows"]["pass@1"]["minus the reasoner"] == [-20.0, -30.0, -10.0]


def test_the_tolerance_is_twice_the_largest_difference() -> None:
    first, again = made_up_runs()[0], made_up_runs()[0]
    again["readings"][ablations.STAGE_1]["none"]["answers"]["reasoner, min"] = [91.0, 93.0]
    assert ablations.tolerance(first, again) == 2.0
    assert ablations.tolerance(first, first) == ablations.MIN_TOLERANCE


# ---- Style -----------------------------------------------------------------------------------


@given(st.integers(0, 10**6))
def test_a_restyled_solution_can_be_put_back(seed: int) -> None:
    """Also a wrong one, with the same truth in both styles."""
    rng = np.random.default_rng(seed)
    problem = sample_problem(rng)
    solution = TUTOR.solve(problem, rng)
    restyled = style.restyle(solution, 0.7, rng)
    assert style.plain(restyled) == style.plain(solution) == solution
    assert style.restyle(solution, 0.0, rng) == solution
    assert not any("=" in step for step in style.restyle(solution, 1.0, rng))
    assert all(a in (b, b.replace("=", "#")) for a, b in zip(restyled, solution, strict=True))


def test_the_style_by_hand() -> None:
    problem = Problem.parse("7+5-3*2\n")
    steps = ["7+5#12", "12-3=9", "9*2#18", "#18"]
    assert style.plain(steps) == ["7+5=12", "12-3=9", "9*2=18", "#18"]
    # What is no step in either style stays as it is.
    assert style.plain(["7+5##12", "+5#12", "7+5#", "#12"]) == ["7+5##12", "+5#12", "7+5#", "#12"]
    assert check_solution(problem, style.plain(steps)).first_error == -1
    assert not check_solution(problem, steps).valid[0]


def restyled_rows() -> Dataset:
    """Two problems: a right solution with a restyled step, and one whose first step is wrong."""
    return Dataset.from_dict(
        {
            "prompt": ["7+5\n", "2*3+1\n"],
            "completion": ["7+5#12\n#12", "2*3=5\n5+1=6\n#6"],
            "label": [True, False],
            "weight": [2, 1],
            "finished": [True, True],
            "steps": [["7+5#12", "#12"], ["2*3=5", "5+1=6", "#6"]],
            "first_error": [-1, 0],
            "valid": [[True, True], [False, True, True]],
        }
    )


def test_steps_know_their_style_and_its_price(monkeypatch: pytest.MonkeyPatch) -> None:
    # The sample alone: a resample of two problems lacks one kind of step.
    monkeypatch.setattr(style, "resampled_problems", lambda count: np.ones((1, count)))
    rows = restyled_rows()
    steps = style.steps_of(rows)
    assert steps.restyled.tolist() == [True, False]
    assert steps.valid.tolist() == [True, False]
    assert steps.weight.tolist() == [2, 1]
    assert steps.problem.tolist() == [0, 1]
    put_back = style.written(rows, "plain")
    assert put_back["steps"][0] == ["7+5=12", "#12"]
    assert put_back["completion"][0] == "7+5=12\n#12"
    assert style.written(rows, "as sampled") is rows
    apart = style.told_apart(np.array([-3.0, -5.0]), steps)
    assert apart["AUROC"][0] == apart["AUROC, restyled valid"][0] == 100.0
    assert "plain over restyled" not in apart  # no plain valid step among them
    price = style.penalty(np.array([-3.0, -5.0]), np.array([-1.0, -5.0]), steps)
    assert price[0] == -2.0


# ---- The result files ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    return store.load_result("ablations")


def part(result: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [cell for cell in result["cells"] if cell["part"] == name]


def test_every_arm_and_seed_is_there(stored: dict[str, Any]) -> None:
    seeds = stored["config"]["seeds"]
    assert len(seeds) >= 3
    wanted = ablations.grid_cells(stored["config"]["chosen"], seeds)
    found = [{k: v for k, v in run.items() if k in wanted[0]} for run in part(stored, "run")]
    assert found == [dict(cell.items()) for cell in wanted]
    for run in part(stored, "run"):
        if run["objective"] == "CE" and run["reference"] == "reasoner":
            assert set(run["readings"]) == {ablations.STAGE_1, *ablations.STAGES}
    assert store.result_path("ablations").stat().st_size < 250_000


def test_settings_are_the_best_on_validation(stored: dict[str, Any]) -> None:
    assert stored["config"]["chosen"] == ablations.choose(part(stored, "validation"))


def test_summaries_are_the_means_of_the_runs(stored: dict[str, Any]) -> None:
    for cell in part(stored, "summary"):
        own = [
            run["readings"][cell["stage"]][cell["read with"]]
            for run in part(stored, "run")
            if (run["objective"], run["reference"]) == (cell["objective"], cell["trained with"])
        ]
        for name, row in cell["rows"].items():
            value, low, high = row["value"]
            assert value == pytest.approx(np.mean([reading[name] for reading in own]), abs=0.02)
            assert low <= value <= high


def test_what_needs_no_training_is_recomputed(
    stored: dict[str, Any], confidence: baselines.Judged
) -> None:
    run = next(r for r in part(stored, "run") if r["objective"] == ablations.UNTRAINED)
    kept = run["readings"][ablations.UNTRAINED]["none"]
    for rule, accuracy in ablations.best_of_n(confidence, "reasoner").items():
        assert float(accuracy.mean()) == pytest.approx(kept[f"reasoner, {rule}"], abs=0.05)
    again = ablations._steps_told_apart(confidence) | ablations._agreement(confidence)
    for name, values in again.items():
        assert 100 * values[0] == pytest.approx(kept[name], abs=0.05)


def test_the_reasoner_read_by_itself_is_chapter_08s(stored: dict[str, Any]) -> None:
    run = next(r for r in part(stored, "run") if r["objective"] == ablations.UNTRAINED)
    (theirs,) = (
        c["rows"]
        for c in store.load_result("baselines")["cells"]
        if c["part"] == "summary"
        and (c["method"], c["generator"], c["split"]) == ("log π_ref", "reasoner", "test")
    )
    kept = run["readings"][ablations.UNTRAINED]["none"]
    for rule in ("min", "sum"):
        accuracy = theirs[f"best of 16: {rule}"]["accuracy"][0]
        assert kept[f"reasoner, {rule}"] == pytest.approx(accuracy, abs=0.05)


def test_the_styles_tolerance_is_twice_the_largest_difference() -> None:
    def run(value: float) -> dict[str, Any]:
        answers = {"answers": {"min": [80.0, 90.0], "sum": [value, 70.0]}}
        return {"readings": {name: {"plain": answers} for name in style.READ_WITH}}

    assert style.tolerance(run(60.0), run(63.0)) == 3.0  # the means differ by 1.5
    assert style.tolerance(run(60.0), run(60.0)) == ablations.MIN_TOLERANCE


def test_the_styles_result_file() -> None:
    result = store.load_result("style")
    runs = part(result, "run")
    assert [run["seed"] for run in runs] == result["config"]["seeds"]
    assert len(runs) >= 3
    assert result["config"]["setting"] == ablations.chapter_6("CE")
    for cell in part(result, "summary"):
        own = [run["readings"][cell["read with"]][cell["written"]] for run in runs]
        for name, row in cell["rows"].items():
            value, low, high = row["value"]
            assert value == pytest.approx(np.mean([reading[name] for reading in own]), abs=0.02)
            assert low <= value <= high
    assert result["tolerance"] >= ablations.MIN_TOLERANCE
    (share,) = {run["world"]["steps restyled"] for run in runs}
    assert share == pytest.approx(100 * style.RATE, abs=4)


def test_scores_of_a_step_are_sums_over_its_tokens(some_rows: Dataset) -> None:
    model = ablations.reference_model("reasoner")
    steps = ablations.step_logps(model, some_rows)
    for found, scored in zip(steps, score_rows(reference_scorer(), some_rows), strict=True):
        assert found is not None
        assert scored is not None
        np.testing.assert_allclose(found, sum_by_step(scored.policy_logps, scored.step_ends))
