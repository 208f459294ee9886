"""Chapter 11's experiment: its changed solutions, truths and measures by hand, its result file."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from implicitprm.arithmetic import Problem, check_solution, load_rollouts
from implicitprm.arithmetic.problems import FACTS
from implicitprm.arithmetic.tutor import Tutor
from implicitprm.evaluation import auroc, first_error_scores, rank_correlation
from implicitprm.experiments import baselines, error_draws, error_sets, store
from implicitprm.experiments import where_is_the_error as where
from implicitprm.experiments.error_draws import Judged
from implicitprm.experiments.error_sets import SETS, set_rows, step_truths

# ---- The sets -------------------------------------------------------------------------------


def test_what_is_commuted() -> None:
    assert error_sets.commute("5+7=12") == "7+5=12"
    assert error_sets.commute("12*4=48") == "4*12=48"
    for unchanged in ("12-3=9", "#9", "", "5+7", "nonsense"):
        assert error_sets.commute(unchanged) == unchanged


@given(st.sampled_from(FACTS), st.integers(0, 49))
def test_commuting_keeps_truth_and_is_undone_by_itself(fact: Any, result: int) -> None:
    step = f"{fact}={result}"
    other = error_sets.commute(step)
    assert error_sets.commute(other) == step
    left, _, written = other.partition("=")
    assert int(written) == result
    assert eval(left) % 50 == fact.result


@pytest.mark.parametrize(
    ("first_wrong", "n_steps", "twice"),
    [(-1, 4, 1), (-1, 5, 1), (0, 5, -1), (1, 5, 0), (2, 5, 0), (3, 5, 1)],
)
def test_the_middle_right_operation_is_repeated(first_wrong: int, n_steps: int, twice: int) -> None:
    """Of a clean solution with 4 steps (3 operations) the second; none where the first is wrong."""
    assert error_sets.repeated_step(first_wrong, n_steps) == twice


def test_a_commuted_solution_has_the_same_steps_otherwise() -> None:
    rows, originals = set_rows("commuted"), load_rollouts("reasoner", "test")
    for row in list(rows)[::100]:
        origin = originals[row["origin"]]
        assert any(row["altered"])
        assert row["first_error"] == origin["first_error"]
        for new, old, altered in zip(row["steps"], origin["steps"], row["altered"], strict=True):
            assert altered == (new != old)
            assert sorted(new) == sorted(old)
        assert row["completion"] == "\n".join(row["steps"])


def test_a_repeated_step_is_right_and_comes_before_the_error() -> None:
    rows, originals = set_rows("repeated"), load_rollouts("reasoner", "test")
    for row in list(rows)[::100]:
        origin = originals[row["origin"]]
        (twice,) = np.flatnonzero(row["altered"])
        assert row["steps"][twice] == row["steps"][twice - 1]
        assert row["steps"][:twice] + row["steps"][twice + 1 :] == origin["steps"]
        if origin["first_error"] >= 0:
            assert twice <= origin["first_error"] < row["first_error"]
            assert row["steps"][row["first_error"]] == origin["steps"][origin["first_error"]]
        else:
            assert row["first_error"] == -1


def test_early_is_its_first_problems() -> None:
    rows = set_rows("early")
    assert len(set(rows["prompt"])) == error_sets.EARLY_PROBLEMS
    assert (
        list(dict.fromkeys(rows["prompt"]))
        == list(dict.fromkeys(load_rollouts("early", "test")["prompt"]))[
            : error_sets.EARLY_PROBLEMS
        ]
    )


# ---- What is true of a step -----------------------------------------------------------------


def test_the_favourite_is_the_likeliest_wrong_answer() -> None:
    tutor = Tutor()
    for fact in FACTS[::50]:
        habit = tutor.habits[fact]
        odds = np.diff([0.0, *habit.cumulative, 1.0])
        favourite = error_sets.favourite(tutor, fact)
        assert favourite != fact.result
        assert odds[habit.answers.index(favourite)] == max(odds[1:])
        assert odds[habit.answers.index(favourite)] == pytest.approx(0.8 * habit.error_rate)


def test_the_operations_are_those_of_chapter_08() -> None:
    frame = error_sets.operations(step_truths("strong"))
    theirs = baselines.step_truth("strong", "test")
    for column in ("row", "step", "valid", "unseen", "misconception", "problem", "weight"):
        assert frame[column].tolist() == getattr(theirs, column).tolist()


def test_columns_of_a_known_solution() -> None:
    rows = set_rows("test")
    number = next(
        i
        for i, r in enumerate(rows)
        if r["label"] and r["first_error"] == 0 and len(r["steps"]) > 4
    )
    row, (line,) = rows[number], step_truths("test").query(f"row == {number}").to_dict("records")
    truth = check_solution(Problem.parse(row["prompt"]), row["steps"], row["finished"])
    assert truth.lucky
    assert (line["step"], line["valid"], line["correct"]) == (0, False, True)
    assert line["left"] == len(row["steps"]) - 2  # all operations but this one
    assert line["operation"] == row["steps"][0].lstrip("0123456789")[0]
    assert line["again"] == (sum(not v for v in truth.valid) > 1)


def test_the_answer_has_no_fact() -> None:
    frame = step_truths("test")
    answers = frame[frame["operation"] == "#"]
    rows = set_rows("test")
    assert all(rows[r]["steps"][s].startswith("#") for r, s in
               list(zip(answers["row"], answers["step"], strict=True))[::200])  # fmt: skip
    assert not answers["misconception"].any()
    assert (answers["left"] == -1).all()


def test_a_step_is_met_where_it_is_wrong() -> None:
    """Counted by rollout, and only where the same text is a wrong step in training."""
    frame, steps = step_truths("early"), set_rows("early")["steps"]
    met = error_sets.met_in_training("early")
    assert len(met) == len(frame)
    train = load_rollouts("reasoner", "train")
    wrong = frame[~frame["valid"]]
    for line in wrong.iloc[::400].to_dict("records"):
        number = frame.index[(frame["row"] == line["row"]) & (frame["step"] == line["step"])][0]
        text = steps[line["row"]][line["step"]]
        holds = [
            any(t == text and not v for t, v in zip(texts, valid, strict=True))
            for texts, valid in zip(train["steps"], train["valid"], strict=True)
        ]
        assert met[number] == sum(holds)
    operand = (frame["kind"] == "operand").to_numpy()
    arithmetic = (frame["kind"] == "arithmetic").to_numpy()
    assert (met[operand] > 0).mean() < (met[arithmetic] > 0).mean()


# ---- Statistics over resamples --------------------------------------------------------------


def items(n: int = 200) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(3)
    return (
        rng.integers(0, 30, n) / 10,  # with ties
        rng.random(n) < 0.6,
        rng.integers(1, 5, n),
        np.arange(n) % 20,
    )


def test_every_resample_is_the_plain_measure_of_its_problems() -> None:
    scores, right, weight, problem = items()
    drawn = error_draws.resamples(20)
    assert drawn[0].tolist() == [1] * 20
    assert (drawn.sum(axis=1) == 20).all()
    areas = error_draws.auroc_draws(scores, right, weight, problem, drawn)
    correlations = error_draws.correlation_draws(scores, weight, weight, problem, drawn)
    shares = error_draws.share(weight * right, weight, problem, drawn)
    for number in (0, 1, 7):
        counts = weight * drawn[number][problem]
        kept = counts > 0
        assert areas[number] == pytest.approx(auroc(scores[kept], right[kept], counts[kept]))
        assert correlations[number] == pytest.approx(
            rank_correlation(scores[kept], weight[kept], counts[kept])
        )
        assert shares[number] == pytest.approx(np.average(right, weights=counts))


def test_a_missing_class_is_not_a_number() -> None:
    scores, _, weight, problem = items()
    drawn = error_draws.resamples(20)
    one_class = np.ones(len(scores), dtype=bool)
    assert np.isnan(error_draws.auroc_draws(scores, one_class, weight, problem, drawn)).all()
    nothing = np.zeros(len(scores))
    assert np.isnan(error_draws.share(nothing, nothing, problem, drawn)).all()
    empty = np.array([])
    assert np.isnan(
        error_draws.auroc_draws(empty, empty.astype(bool), empty, empty.astype(int), drawn)
    ).all()


def test_a_triple_leaves_the_value_out_of_its_interval() -> None:
    draws = np.concatenate([[100.0], np.arange(101.0)])
    assert error_draws.triple(draws) == [100.0, 2.5, 97.5]


def test_deviations_inside_problems() -> None:
    """Two problems on different levels: inside each, b falls as a rises."""
    a, b = np.array([0.0, 1.0, 10.0, 11.0]), np.array([1.0, 0.0, 11.0, 10.0])
    drawn = error_draws.resamples(2)[:1]
    one = np.ones(4)
    found = error_draws._inside_problems(a, b, one, np.array([0, 0, 1, 1]), drawn)
    assert found.tolist() == [-1.0]


# ---- The analyses ---------------------------------------------------------------------------


def perfect(names: tuple[str, ...] = tuple(SETS), additive: bool = True) -> Judged:
    """+1 for every step before the first error of its solution, −1 for that one and all later."""
    steps: dict[str, list[np.ndarray | None]] = {}
    for name in (*names, "validation"):
        rows = set_rows(name)
        steps[name] = [
            np.where((first < 0) | (np.arange(len(s)) < first), 1.0, -1.0)
            for first, s in zip(rows["first_error"], rows["steps"], strict=True)
        ]
    return Judged(steps, additive)


@pytest.fixture(scope="module")
def judged() -> Judged:
    return perfect()


def test_a_perfect_judge_finds_every_first_error(judged: Judged) -> None:
    assert -1.0 < judged.threshold <= 1.0
    for key, draws in error_draws.first_error_draws(judged).items():
        expected = 0.0 if "minus" in key else 1.0
        np.testing.assert_allclose(draws, expected)


def test_f1_is_that_of_the_protocol() -> None:
    rng = np.random.default_rng(0)
    rows = set_rows("strong")
    steps = [rng.normal(size=len(s)) for s in rows["steps"]]
    steps_or_none: list[np.ndarray | None] = [*steps[:-1], None]  # the last is outside the world
    noisy = Judged({**perfect(()).steps, **{"strong": steps_or_none}}, additive=True)
    found = error_draws.f1_draws(noisy, "strong", -0.5)
    predictions = [next((i for i, x in enumerate(s) if x < -0.5), -1) for s in steps[:-1]]
    expected = first_error_scores(predictions, rows["first_error"][:-1], rows["weight"][:-1])
    assert found["F1"][0] == pytest.approx(expected.f1)
    assert found["error accuracy"][0] == pytest.approx(expected.error_accuracy)
    assert found["correct accuracy"][0] == pytest.approx(expected.correct_accuracy)


def test_categories_partition_the_errors(judged: Judged) -> None:
    found = error_draws.taxonomy_draws(judged, "test")
    for key, draws in found.items():
        expected = 0.0 if "alarms" in key or "minus" in key else 1.0
        np.testing.assert_allclose(draws[~np.isnan(draws)], expected)
    frame = error_sets.operations(step_truths("test"))
    wrong = frame[~frame["valid"]]
    masks = {name: mask for name, (mask, _) in error_draws.categories(frame).items()}
    for parts in (("slip", "misconception"), ("+", "-", "*"), ("favourite answer", "other answer")):
        assert sum(masks[p][wrong.index].sum() for p in parts) == len(wrong)
    assert "operand: recall" not in found  # of three problems only


def test_groups_of_met_errors_are_all_errors(judged: Judged) -> None:
    for key, draws in error_draws.met_draws(judged).items():
        np.testing.assert_allclose(draws, 0.0 if "minus" in key else 1.0)
    bounds = list(error_draws.MET.values())
    assert bounds[0][0] == 0
    assert all(high == low for (_, high), (low, _) in pairwise(bounds))


def test_lucky_wrong_steps_are_either_absorbed_or_cancelled(judged: Judged) -> None:
    for key, draws in error_draws.lucky_draws(judged).items():
        expected = 1.0
        if "minus" in key:
            expected = 0.0
        elif key == "lucky scores above unlucky":
            expected = 0.5
        elif "outcome" in key:
            continue
        np.testing.assert_allclose(draws, expected)
    rows = set_rows("test")
    frame = step_truths("test")
    wrong = frame[~frame["valid"] & frame["correct"]]
    for line in wrong.to_dict("records")[::10]:
        row = rows[line["row"]]
        truth = check_solution(Problem.parse(row["prompt"]), row["steps"], row["finished"])
        assert truth.lucky
        assert line["again"] == (not all(truth.valid[line["step"] + 1 :]))


def test_the_last_value_is_the_outcome() -> None:
    """Additive scores are summed, logits are not: 1 + 1 − 1 is above 0, the last −1 is not."""
    steps: dict[str, list[np.ndarray | None]] = {
        "test": [np.array([1.0, 1.0, -1.0]) for _ in set_rows("test")]
    }
    for additive, expected in ((True, 1.0), (False, 0.0)):
        made = Judged({**perfect(()).steps, **steps}, additive)
        found = error_draws._lucky_outcomes(made)
        assert {key: draws[0] for key, draws in found.items()} == {
            f"{name}: outcome above 0": expected for name in ("clean", "lucky", "wrong")
        }


def test_the_reward_of_a_place() -> None:
    """Right steps with 5 at the result, wrong ones with −2 at the operator; others are 0."""
    tokens: dict[str, Any] = {}
    for name in where.TOKEN_SETS:
        rows = set_rows(name)
        tokens[name] = [
            [
                [0, 0, 0, 0, 5, 0] if step != first else [0, -2, 0, 0, 0, 0]
                for step in range(len(steps))
            ]
            for first, steps in zip(rows["first_error"], rows["steps"], strict=True)
        ]
    made = perfect(where.TOKEN_SETS)
    found = error_draws.token_draws(Judged(made.steps, True, tokens))
    values = {key: draws[0] for key, draws in found.items() if "AUROC" not in key}
    for kind, place, value in (("right", "result", 5), ("wrong", "operator", -2),
                               ("operand error", "operator", -2)):  # fmt: skip
        for other in error_draws.PLACES:
            assert values[f"{kind}: {other}"] == (value if other == place else 0)
    assert found["AUROC: result only"][0] == found["AUROC: all but the result"][0] == 1.0


def test_true_prefixes_are_those_of_chapter_08() -> None:
    frame = error_sets.true_prefixes()
    row, step, q, problem = baselines.true_values("reasoner")
    assert frame["row"].tolist() == row.tolist()
    assert frame["step"].tolist() == step.tolist()
    assert frame["problem"].tolist() == problem.tolist()
    np.testing.assert_allclose(frame["Q"], q)
    for target in ("Q", "Q - Q0", "dQ"):
        halves = (frame[f"{target} a"] + frame[f"{target} b"]) / 2
        np.testing.assert_allclose(frame[target], halves, atol=1e-12)
    for _, part in frame.groupby("row"):
        np.testing.assert_allclose(part["dQ"].cumsum(), part["Q - Q0"], atol=1e-12)
        assert part["Q0"].nunique() == 1
    rows = load_rollouts("reasoner", "test")
    own = [r for r in rows if r["prompt"] == rows[int(row[0])]["prompt"]]
    chance = sum(r["weight"] for r in own if r["label"]) / sum(r["weight"] for r in own)
    assert frame["Q0"][0] == pytest.approx(chance)
    n, count = 64, round(64 * float(q[0]))
    start = round(64 * chance)
    assert frame["logit"][0] == pytest.approx(
        np.log((count + 0.5) / (n - count + 0.5)) - np.log((start + 0.5) / (n - start + 0.5))
    )


def test_the_truth_itself_agrees_with_the_truth() -> None:
    """Values that are Q: all correlations with Q are 1, and those of its steps."""
    frame = error_sets.true_prefixes()
    values: list[np.ndarray | None] = [np.zeros(len(s)) for s in set_rows("test")["steps"]]
    for number, part in frame.groupby("row"):
        of_row = values[int(number)]
        assert of_row is not None
        of_row[: len(part)] = part["Q"]
    found = error_draws.truth_draws(
        Judged({**perfect(()).steps, **{"test": values}}, additive=False)
    )
    for key in ("pooled: Q", "within: Q", "across: Q", "steps: dQ"):
        np.testing.assert_allclose(found[key], 1.0)
    assert found["pooled: Q - Q0"][0] < 0.9
    difference = found["pooled: Q - Q0"] - found["pooled: Q"]
    np.testing.assert_allclose(found["pooled: Q - Q0 minus Q"], difference)


def test_the_ceiling_follows_from_the_halves() -> None:
    ceiling = error_draws.ceiling_draws()
    frame = error_sets.true_prefixes()
    rho = rank_correlation(frame["Q a"], frame["Q b"])
    assert ceiling["pooled: Q"][0] == pytest.approx(np.sqrt(2 * rho / (1 + rho)))
    assert 0.8 < ceiling["steps: dQ"][0] < ceiling["pooled: Q"][0] < 1


def test_where_the_lowest_step_is() -> None:
    """Scores that fall from step to step are lowest at the answer; their minimum is the answer."""
    falling: list[np.ndarray | None] = [
        -np.arange(len(s), dtype=float) for s in set_rows("test")["steps"]
    ]
    found = error_draws.minimum_draws(Judged({**perfect(()).steps, **{"test": falling}}, True))
    for group in ("all", "clean", "wrong"):
        assert found[f"{group}: answer"][0] == 1.0
        assert found[f"{group}: last operation"][0] == found[f"{group}: first step"][0] == 0.0
    rows = set_rows("test")
    uniform = np.average([1 / len(s) for s in rows["steps"]], weights=rows["weight"])
    assert found["all: uniform"][0] == pytest.approx(uniform)
    assert found["best of 16: min"][0] == pytest.approx(found["best of 16: answer alone"][0])


def test_a_perfect_minimum_is_at_the_first_error(judged: Judged) -> None:
    found = error_draws.minimum_draws(judged)
    assert found["wrong: at the first error"][0] == 1.0
    assert found["wrong: after the first error"][0] == 0.0


def test_rules() -> None:
    scores = np.array([4.0, 1.0, 3.0, 2.0])
    assert {name: float(rule(scores)) for name, rule in error_draws.RULES.items()} == {
        "min": 1.0,
        "min without the answer": 1.0,
        "min without the last operation": 1.0,
        "min without both": 1.0,
        "answer alone": 2.0,
        "last operation alone": 3.0,
    }
    ends = np.array([9.0, 8.0, 1.0, 2.0])
    assert error_draws.RULES["min without the last operation"](ends) == 2.0
    assert error_draws.RULES["min without both"](ends) == 8.0


def test_padding_raises_a_sum_of_positive_steps(judged: Judged) -> None:
    found = error_draws._padding_draws(judged)
    assert found["repeated, clean: sum rises"][0] == 1.0
    assert found["repeated, clean: min rises"][0] == 0.5  # 1 before and after: a tie


def test_a_changed_step_is_compared_with_itself(judged: Judged) -> None:
    for name in ("commuted", "repeated"):
        frame, _ = error_draws.changed_frame(judged, name)
        kept = ~frame["inserted"]
        assert (frame["score"][kept] == frame["before"][kept]).all()
        assert frame["before"][~kept].isna().all()
        assert (~kept).any() == (name == "repeated")
    found = error_draws.surface_draws(judged)
    for name in ("commuted", "repeated"):
        assert found[f"{name}: AUROC lost"][0] == 0.0
        assert found[f"{name}, altered: false alarms"][0] == 0.0
        assert found[f"{name}, altered: score"][0] == 1.0


def test_facts_never_seen(judged: Judged) -> None:
    for key, draws in error_draws.unseen_draws(judged).items():
        expected = 0.0 if "drop" in key or "alarms" in key else 1.0
        np.testing.assert_allclose(draws, expected)


def test_steps_of_tokens_are_kept_up_to_the_first_error(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = set_rows("test").select(range(50))
    monkeypatch.setattr(where, "SETS", {"test": SETS["test"]})
    monkeypatch.setattr(where, "set_rows", lambda name: rows)
    scored = [
        (np.arange(6.0 * len(steps)), tuple(range(6, 6 * len(steps) + 1, 6)))
        for steps in rows["steps"]
    ]
    kept = where._kept({"test": [*scored[:-1], None]})
    for number, (first, steps) in enumerate(zip(rows["first_error"], rows["steps"], strict=True)):
        of_steps, of_tokens = kept["steps"]["test"][number], kept["tokens"]["test"][number]
        if number == 49:
            assert of_steps is of_tokens is None
            continue
        assert of_steps == [sum(range(6 * s, 6 * s + 6)) for s in range(len(steps))]
        assert len(of_tokens) == (len(steps) if first < 0 else first + 1)
        assert of_tokens[0] == [0, 1, 2, 3, 4, 5]


def test_the_policy_alone_is_reward_plus_reference() -> None:
    steps: dict[str, Any] = {
        name: [[2.0] * len(s) for s in set_rows(name)["steps"]] for name in ("validation", "test")
    }
    reference = {"steps": {name: [[-3.0] * len(s) for s in steps[name]] for name in steps}}
    steps["test"][0] = None
    steps["validation"][0][0] = -2.0
    found = error_draws.without_reference({"steps": steps}, reference, beta=2.0)
    assert found.steps["test"][0] is None
    assert found.steps["test"][1].tolist() == [-2.0] * len(steps["test"][1])  # type: ignore[union-attr]


# ---- The grid and its result ----------------------------------------------------------------


def test_a_grid_that_is_cut_short_has_every_method() -> None:
    cells = where.grid_cells()
    assert len(cells) == 1 + sum(where.SEEDS.values())
    assert {cell["method"] for cell in cells[: 1 + len(where.SEEDS)]} == {
        *where.SEEDS,
        where.REFERENCE,
    }


def test_the_tolerance_is_twice_the_largest_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(where, "headline", lambda judged: judged)
    runs: Any = [("CE", 0, {"a": 1.0, "b": 5.0}), ("ORM", 0, {"a": 1.0, "b": 5.0})]
    again: Any = [("CE", 0, {"a": 1.5, "b": 3.0}), ("ORM", 0, {"a": 1.0, "b": 5.01})]
    assert where.tolerances(runs, again) == {"CE": 4.0, "ORM": where.MIN_TOLERANCE}


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    return store.load_result("where_is_the_error")


def part(stored: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [cell for cell in stored["cells"] if cell["part"] == name]


def test_every_method_seed_and_section_is_there(stored: dict[str, Any]) -> None:
    found = {(run["method"], run["seed"]) for run in part(stored, "run")}
    seeds = stored["config"]["seeds"]
    assert seeds == where.SEEDS
    assert min(seeds.values()) >= 3
    expected = {(m, s) for m, n in seeds.items() for s in range(n)}
    expected |= {(where.POLICY, s) for s in range(seeds["CE"])} | {(where.REFERENCE, 0)}
    assert found == expected
    sections = {(c["section"], c["method"]) for c in part(stored, "summary")}
    for section in where.SECTIONS:
        if section != "tokens":
            assert {m for s, m in sections if s == section} >= set(where.METHODS)
    assert store.result_path("where_is_the_error").stat().st_size < 250_000


def test_hyperparameters_are_those_of_the_chapters_before(stored: dict[str, Any]) -> None:
    chosen = stored["config"]["chosen"]
    assert chosen["objectives"] == store.load_result("objectives")["config"]["chosen"]
    before = store.load_result("baselines")["config"]["chosen"]
    assert chosen["baselines"] == {method: before[method] for method in where.HEADS}


def test_intervals_hold_their_values(stored: dict[str, Any]) -> None:
    for cell in (*part(stored, "summary"), *part(stored, "difference")):
        for key, (value, low, high) in cell["rows"].items():
            assert low - 1e-4 <= value <= high + 1e-4, (cell["section"], cell["method"], key)


def test_differences_are_those_of_the_summaries(stored: dict[str, Any]) -> None:
    rows = {(c["section"], c["method"]): c["rows"] for c in part(stored, "summary")}
    for cell in part(stored, "difference"):
        ours, theirs = (rows[cell["section"], m] for m in (cell["method"], cell["minus"]))
        assert cell["rows"]
        for key, (value, *_) in cell["rows"].items():
            assert value == pytest.approx(ours[key][0] - theirs[key][0], abs=2e-4)


def test_headlines_average_to_the_summaries(stored: dict[str, Any]) -> None:
    for cell in part(stored, "summary"):
        if cell["section"] != "first error":
            continue
        own = [r for r in part(stored, "run") if r["method"] == cell["method"]]
        for name in ("test", "strong", "early"):
            carried = np.mean([run["carried"][name] for run in own])
            tuned = np.mean([run["headline"][f"{name}: F1, own threshold"] for run in own])
            rows = cell["rows"]
            assert 100 * rows[f"{name}: F1"][0] == pytest.approx(carried, abs=0.02)
            assert 100 * rows[f"{name}: F1, own threshold"][0] == pytest.approx(tuned, abs=0.02)


def test_counts_are_recomputed(stored: dict[str, Any]) -> None:
    assert part(stored, "counts") == where.count_cells()


def test_the_reference_is_recomputed(stored: dict[str, Any]) -> None:
    """log π_ref needs no training: its threshold and its F1 on the better generator."""
    steps: dict[str, Any] = {
        name: [
            None if row is None else [float(x) for x in _by_step(row)]
            for row in where.reference_logps(name)
        ]
        for name in ("validation", "strong")
    }
    again = Judged.of_run({"steps": steps, "tokens": {}})
    (run,) = (r for r in part(stored, "run") if r["method"] == where.REFERENCE)
    assert again.threshold == pytest.approx(run["thresholds"]["validation"], abs=0.005)
    f1 = 100 * error_draws.f1_draws(again, "strong", again.threshold)["F1"][0]
    assert f1 == pytest.approx(run["carried"]["strong"], abs=0.25)


def _by_step(row: Any) -> list[float]:
    return [row.policy_logps[a:b].sum() for a, b in pairwise((0, *row.step_ends))]
