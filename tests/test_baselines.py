"""Chapter 08's experiment: its labels, scores, costs and summaries by hand, and its result file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from implicitprm import ImplicitPRM
from implicitprm.arithmetic import ARITHMETIC_FORMAT, checkpoint_path, load_rollouts
from implicitprm.arithmetic.measure import score_rows
from implicitprm.arithmetic.values import load_values
from implicitprm.evaluation import first_error_scores
from implicitprm.experiments import baselines, paper, runs, store, verifier
from implicitprm.experiments.baselines import (
    GENERATORS,
    IMPLICIT,
    METHODS,
    SPLITS,
    STEP_METHODS,
    UNTRAINED,
)
from implicitprm.rewards import sum_by_step

# ---- Labels ---------------------------------------------------------------------------------


@pytest.mark.parametrize("source", baselines.SOURCES)
def test_every_source_labels_every_step(source: str) -> None:
    rows = load_rollouts("reasoner", "train")
    labels = baselines.step_labels(source, rows)
    assert [len(row) for row in labels] == [len(steps) for steps in rows["steps"]]
    assert {0.0, 1.0} <= {label for row in labels for label in row}
    assert all(0 <= label <= 1 for row in labels for label in row)


def test_a_true_label_is_true_up_to_the_first_error() -> None:
    rows = load_rollouts("reasoner", "train")
    for first, labels in zip(
        rows["first_error"], baselines.step_labels("true labels", rows), strict=True
    ):
        assert labels == [
            1.0 if first == -1 or step < first else 0.0 for step in range(len(labels))
        ]


def test_the_verifier_has_a_confidence_for_every_step() -> None:
    rows, confidence = load_rollouts("reasoner", "train"), verifier.load_confidence()
    assert [len(row) for row in confidence] == [len(steps) for steps in rows["steps"]]
    last = [float(row[-1]) for row in confidence]
    right = np.array(rows["label"])
    assert np.mean(np.array(last)[right]) > 0.8
    assert np.mean(np.array(last)[~right]) < 0.2


def test_architectures_are_checked() -> None:
    with pytest.raises(ValueError, match="no architecture 'x'"):
        runs.build_scorer("x", 0)


# ---- Scores ---------------------------------------------------------------------------------


def test_scores_of_a_process_reward_model() -> None:
    """min of the logits; log of the product of σ; None outside the world."""
    judged = baselines.by_every_step([np.array([0.0, 2.0]), None])
    product = 0.5 / (1 + np.exp(-2.0))
    assert judged.by_min.tolist() == [0.0, -np.inf]
    assert judged.by_sum[0] == pytest.approx(np.log(product))
    assert judged.by_sum[1] == -np.inf
    assert judged.vote.tolist() == [0.0, -np.inf]


def test_scores_of_an_outcome_reward_model() -> None:
    judged = baselines.by_last_step([np.array([-3.0, 2.0])])
    assert [s.tolist() for s in (judged.by_min, judged.by_sum, judged.vote)] == [[2.0]] * 3


def test_scores_that_add_up() -> None:
    judged = baselines.by_additive_steps([np.array([1.0, -2.0, 0.5]), None])
    assert judged.values[0] is not None
    assert judged.values[0].tolist() == [1.0, -1.0, -0.5]
    assert judged.values[1] is None
    assert judged.by_min.tolist() == [-2.0, -np.inf]
    assert judged.by_sum.tolist() == judged.vote.tolist() == [-0.5, -np.inf]


def test_a_log_ratio_is_scored_as_its_step_rewards() -> None:
    """With the reference the PRM's own step rewards; without it log π_θ of the steps."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_path())
    policy = AutoModelForCausalLM.from_pretrained(checkpoint_path("strong")).eval()
    reference = AutoModelForCausalLM.from_pretrained(checkpoint_path()).eval()
    prm = ImplicitPRM(policy, reference, tokenizer, 0.5, ARITHMETIC_FORMAT)
    rows = load_rollouts("reasoner", "test").select(range(5))
    judged, alone = (baselines.by_log_ratio(prm, rows, with_reference=w) for w in (True, False))
    for number, scored in enumerate(score_rows(prm, rows)):
        steps, logps = judged.steps[number], alone.steps[number]
        assert scored is not None
        assert steps is not None
        assert logps is not None
        np.testing.assert_allclose(steps, scored.step_rewards, atol=1e-5)
        assert judged.by_min[number] == pytest.approx(scored.step_rewards.min(), abs=1e-5)
        assert judged.vote[number] == pytest.approx(scored.outcome, abs=1e-4)
        np.testing.assert_allclose(
            logps, sum_by_step(scored.policy_logps, scored.step_ends), atol=1e-4
        )


def test_first_error_f1_of_known_predictions() -> None:
    """1 where every first error is found, 0 where none is, and between by the weighted shares."""
    rows = load_rollouts("strong", "test")
    perfect: list[np.ndarray | None] = [
        np.array([0.0 if step == row["first_error"] else 1.0 for step in range(len(row["steps"]))])
        for row in rows
    ]
    assert baselines.f1_interval(rows, baselines.by_every_step(perfect), 0.5) == [1.0] * 3
    assert baselines.f1_interval(rows, baselines.by_every_step(perfect), -1.0) == [0.0] * 3
    blind = [None if s is None else np.ones(len(s)) if i % 2 else s for i, s in enumerate(perfect)]
    labels, weights = np.array(rows["first_error"]), np.array(rows["weight"])
    predicted = np.where(np.arange(len(rows)) % 2, -1, labels)
    expected = first_error_scores(predicted, labels, weights).f1
    value, low, high = baselines.f1_interval(rows, baselines.by_every_step(blind), 0.5)
    assert value == pytest.approx(expected, abs=1e-4)
    assert low < value < high


def test_agreement_is_perfect_for_the_true_values_themselves() -> None:
    row, step, q, _ = baselines.true_values("reasoner")
    values: list[np.ndarray | None] = [
        np.zeros(len(steps)) for steps in load_rollouts("reasoner", "test")["steps"]
    ]
    for r, s, value in zip(row, step, q, strict=True):
        of_row = values[r]
        assert of_row is not None
        of_row[s] = 2 * value - 1
    judged = baselines.Judged(values, values, *(np.zeros(1),) * 3)
    assert baselines.agreement("reasoner", judged) == pytest.approx([1.0, 1.0, 1.0])
    for of_row in values:
        assert of_row is not None
        of_row *= -1
    assert baselines.agreement("reasoner", judged)[0] == pytest.approx(-1.0)


# ---- Costs ----------------------------------------------------------------------------------


def test_costs_against_a_plain_count() -> None:
    """Three-operation problems, counted as the paper does: token by token, nothing shared."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_path())
    rows = load_rollouts("reasoner", "train")
    values = load_values("reasoner-train")
    read = generated = prefixes = responses = 0.0
    for row, value in zip(rows, values, strict=True):
        if sum(row["prompt"].count(sign) for sign in "+-*") != 3:
            continue
        prompt = len(tokenizer.tokenize(row["prompt"]))
        response = len(tokenizer.tokenize(row["completion"])) + row["finished"]
        read += row["weight"] * (prompt + response)
        responses += row["weight"] * response
        generated += row["weight"] * sum(value["generated_tokens"]) * 8 / 32
        for end, tokens in enumerate(value["generated_tokens"], 1):
            if tokens:
                text = "\n".join(row["steps"][:end]) + "\n"
                prefixes += row["weight"] * (prompt + len(tokenizer.tokenize(text)))
    costs = baselines.token_costs(3, shared=False)
    assert costs["rollouts"].generated == responses
    assert (costs["CE"].read, costs["CE"].trained) == (read, read)
    assert costs["Math-Shepherd"].generated == pytest.approx(generated)
    assert costs["Math-Shepherd"].read == prefixes
    assert costs["AutoPSV"].trained == 2 * read


def test_sharing_saves_completions() -> None:
    alone, shared = (baselines.token_costs(None, shared=s)["Math-Shepherd"] for s in (False, True))
    assert shared.generated < alone.generated / 3


def test_the_papers_ratios_fit_together() -> None:
    """Stated ratios against each other, and the all-pairs count: no p gives more than ¼."""
    stated = paper.COMPUTE_RATIOS
    for ce, dpo, between in zip(
        stated["Math-Shepherd / CE"],
        stated["Math-Shepherd / DPO"],
        stated["DPO / CE"],
        strict=True,
    ):
        assert ce / dpo == pytest.approx(between, abs=0.06)


# ---- Choice, summaries, tolerance -----------------------------------------------------------


def test_the_best_rate_of_each_method_is_chosen() -> None:
    cells = [
        {"method": method, "learning_rate": rate, "accuracy": accuracy}
        for method in STEP_METHODS
        for rate, accuracy in ((5e-4, 60.0), (1e-3, 70.0), (2e-3, 65.0 + 10 * (method == "ORM")))
    ]
    assert baselines.choose(cells) == dict.fromkeys(STEP_METHODS, 1e-3) | {"ORM": 2e-3}


def made_up_runs() -> list[dict[str, Any]]:
    """Two seeds of three methods on the test problems; each is 1 point above the one before."""
    rules = [f"best of {n}: {how}" for n in baselines.N for how in ("min", "sum")]
    rules += [f"vote of {n}" for n in baselines.N]

    def answers(generator: str, split: str, level: float) -> dict[str, list[float]]:
        count = len(set(load_rollouts(generator, split)["prompt"]))
        return {rule: [50.0 + level] * count for rule in rules}

    return [
        {
            "method": method,
            "seed": seed,
            "generators": {
                g: {"answers": {s: answers(g, s, place + 0.5 * seed) for s in SPLITS}}
                for g in GENERATORS
            },
        }
        for place, method in enumerate((*IMPLICIT, "ORM"))
        for seed in (0, 1)
    ]


def test_summaries_are_paired_and_average_seeds() -> None:
    summaries = baselines.summarise(made_up_runs())
    (orm,) = (
        c
        for c in summaries
        if c["part"] == "summary"
        and (c["method"], c["generator"], c["split"]) == ("ORM", "strong", "test")
    )
    row = orm["rows"]["best of 16: min"]
    assert row["accuracy"] == [54.25] * 3
    for place, name in enumerate(IMPLICIT):
        assert row[f"minus {name}"] == pytest.approx([4.0 - place] * 3)
    (overall,) = (c for c in summaries if c["part"] == "overall" and c["method"] == "ORM")
    assert overall["rows"]["vote"]["accuracy"] == [54.25] * 3
    assert overall["rows"]["vote"]["minus CE"] == [4.0] * 3


def test_the_tolerance_is_twice_the_largest_difference() -> None:
    made = made_up_runs()
    again = [run for run in made_up_runs() if run["seed"] == 0 and run["method"] == "ORM"]
    again[0]["generators"]["early"]["answers"]["test"]["vote of 16"][0] += 300.0  # 1 on average
    assert baselines.tolerances(made, again) == {"ORM": 2.0}


# ---- The result file ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    return store.load_result("baselines")


def part(stored: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [cell for cell in stored["cells"] if cell["part"] == name]


def test_every_method_and_seed_is_there(stored: dict[str, Any]) -> None:
    found = {(run["method"], run["seed"]) for run in part(stored, "run")}
    seeds = stored["config"]["seeds"]
    assert len(seeds) >= 3
    assert found == {(m, s) for m in METHODS for s in seeds} | {(m, 0) for m in UNTRAINED}
    for run in part(stored, "run"):
        assert set(run["generators"]) == set(GENERATORS)


def test_rates_are_the_best_on_validation(stored: dict[str, Any]) -> None:
    assert stored["config"]["chosen"] == baselines.choose(part(stored, "validation"))


def test_only_competent_architectures_are_compared(stored: dict[str, Any]) -> None:
    """On true labels: what is in the table reaches .9 on validation steps, the refused do not."""
    refused = [cell["auroc"] for cell in part(stored, "competence")]
    assert max(refused) < baselines.COMPETENT
    chosen = stored["config"]["chosen"]
    for method in ("head, true labels", "log-ratio, true labels"):
        (cell,) = (
            cell
            for cell in part(stored, "validation")
            if (cell["method"], cell["learning_rate"]) == (method, chosen[method])
        )
        assert cell["auroc"] > baselines.COMPETENT
    for run in part(stored, "run"):
        if run["method"] in ("head, true labels", "log-ratio, true labels"):
            assert run["generators"]["reasoner"]["auroc"]["seen"][0] > baselines.COMPETENT


def test_levels_and_costs_are_recomputed(stored: dict[str, Any]) -> None:
    for ours, theirs in zip(part(stored, "levels"), baselines.level_cells(), strict=True):
        assert ours["rows"].keys() == theirs["rows"].keys()
        for name, interval in ours["rows"].items():
            assert interval == pytest.approx(theirs["rows"][name], abs=0.3)
            assert interval[0] == pytest.approx(theirs["rows"][name][0], abs=0.011)
    for ours, theirs in zip(part(stored, "cost"), baselines.cost_cells(), strict=True):
        assert {k: v for k, v in ours.items() if k != "flops"} == {
            k: v for k, v in theirs.items() if k != "flops"
        }
        assert ours["flops"] == pytest.approx(theirs["flops"])


def test_what_needs_no_training_is_recomputed(stored: dict[str, Any]) -> None:
    (shortest,) = (run for run in part(stored, "run") if run["method"] == "shortest")
    rows = load_rollouts("strong", "test")
    again = baselines.answers(rows, baselines.by_length(rows))
    for rule, value in shortest["generators"]["strong"]["answers"]["test"].items():
        assert 100 * again[rule].mean() == pytest.approx(value, abs=0.02)


def test_summaries_are_the_means_of_the_runs(stored: dict[str, Any]) -> None:
    for cell in part(stored, "summary"):
        own = [
            run["generators"][cell["generator"]]["answers"][cell["split"]]
            for run in part(stored, "run")
            if run["method"] == cell["method"]
        ]
        for rule, row in cell["rows"].items():
            value, low, high = row["accuracy"]
            assert value == pytest.approx(np.mean([a[rule] for a in own]), abs=0.02)
            assert low <= value <= high
