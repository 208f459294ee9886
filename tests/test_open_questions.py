"""Chapter 15's labs: which instructions a rule chooses, what trains on them, what is stored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from implicitprm.arithmetic import Problem, load_rollouts
from implicitprm.experiments import objectives
from implicitprm.experiments import open_questions as labs
from implicitprm.experiments.open_questions import Instruction
from implicitprm.experiments.store import load_result
from implicitprm.training import OBJECTIVES

POOL = [
    Instruction(Problem.parse("7+5-3\n"), (0, 1), 0.5),
    Instruction(Problem.parse("7+5-3+1+1\n"), (2,), 1.0),
    Instruction(Problem.parse("1*2*2*2*2*2\n"), (3, 4, 5), 0.0),
    Instruction(Problem.parse("9+1+1+1\n"), (6,), 0.125),
]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("rule", "budget", "chosen"),
    [
        (labs.shortest, 2, {0, 3}),
        (labs.longest, 2, {1, 2}),
        (labs.half_right, 1, {0}),
        (labs.half_right, 2, {0, 3}),
        (labs.mostly_wrong, 1, {3}),
        (labs.mostly_wrong, 3, {3, 0, 1}),
        (labs.most_responses, 2, {2, 0}),
    ],
)
def test_a_rule_by_hand(rule: labs.Selection, budget: int, chosen: set[int]) -> None:
    assert set(rule(POOL, budget, rng())) == chosen


def test_most_facts_takes_new_ones_first() -> None:
    # 7+5-3 is the beginning of 7+5-3+1+1: once that is covered it adds nothing.
    chosen = labs.most_facts(POOL[:2] + POOL[3:], 2, rng())
    assert set(chosen) == {1, 2}
    assert chosen[0] == 1  # four facts before three


@given(seed=st.integers(0, 50), budget=st.integers(1, len(POOL)))
@settings(max_examples=25, deadline=None)
def test_every_rule_chooses_a_budget_of_different_instructions(seed: int, budget: int) -> None:
    for rule in labs.SELECTIONS.values():
        chosen = rule(POOL, budget, np.random.default_rng(seed))
        assert len(chosen) == len(set(chosen)) == budget
        assert set(chosen) <= set(range(len(POOL)))
        assert chosen == rule(POOL, budget, np.random.default_rng(seed))


def test_ties_are_broken_at_random_and_by_the_seed() -> None:
    pool = POOL[:1] * 50
    first, second = (labs.shortest(pool, 5, np.random.default_rng(seed)) for seed in (0, 1))
    assert first != second


def test_instructions_are_the_training_rollouts() -> None:
    rollouts = load_rollouts("reasoner", "train")
    found = labs.instructions()
    assert sorted(row for one in found for row in one.rows) == list(range(len(rollouts)))
    one = found[3]
    rows = rollouts.select(one.rows)
    assert set(rows["prompt"]) == {one.problem.prompt}
    right = sum(w for w, label in zip(rows["weight"], rows["label"], strict=True) if label)
    assert one.pass_rate == pytest.approx(right / sum(rows["weight"]))


def test_kinds_split_the_problems_in_two() -> None:
    for one in labs.instructions()[:200]:
        assert labs.KINDS["short"](one.problem) != labs.KINDS["long"](one.problem)
        assert labs.KINDS["with *"](one.problem) != labs.KINDS["without *"](one.problem)
    assert labs.KINDS["short"](Problem.parse("1+1+1+1+1+1\n"))
    assert labs.KINDS["long"](Problem.parse("1+1+1+1+1+1+1\n"))
    for kind, belongs in labs.KINDS.items():
        chosen = labs.of_kind(kind, 0)
        assert len(set(chosen)) == labs.KIND_SIZE
        assert all(belongs(labs.instructions()[index].problem) for index in chosen)
        assert chosen != labs.of_kind(kind, 1)


def test_rows_are_those_of_the_chosen_instructions() -> None:
    chosen = [5, 2]
    rows = labs.rows_of(chosen)
    prompts = [labs.instructions()[index].problem.prompt for index in chosen]
    assert list(dict.fromkeys(rows["prompt"])) == prompts
    assert OBJECTIVES["ce"].responses[0].ref_logps in rows.column_names


def test_bad_selections_are_errors() -> None:
    with pytest.raises(ValueError, match="chosen more than once"):
        labs.rows_of([1, 1])

    def too_few(pool: Sequence[Instruction], budget: int, rng: np.random.Generator) -> list[int]:
        return [0]

    with pytest.raises(ValueError, match="chose 1 instructions; the budget is 150"):
        labs.choose_instructions(too_few, 0)


def test_another_reference_changes_its_log_probabilities_and_nothing_else() -> None:
    small = objectives.prepared("CE").select(range(40))
    calls = {}

    def forty(variant: str) -> object:
        calls[variant] = True
        return small

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objectives, "prepared", forty)
        same = labs.rows_referred_to(labs.load_checkpoint("reasoner"))
        other = labs.rows_referred_to(labs.load_checkpoint("early"))
    assert calls == {"CE": True}
    assert np.allclose(same["ref_logps"], small["ref_logps"], atol=1e-3)
    assert np.mean(other["ref_logps"]) < np.mean(same["ref_logps"])
    assert (
        other.remove_columns("ref_logps").to_list() == small.remove_columns("ref_logps").to_list()
    )


@pytest.mark.parametrize("name", ["step 300", "step 600"])
def test_checkpoints_of_pretraining_lie_in_the_scratch_folder(name: str) -> None:
    assert labs.checkpoint_folder(name).parts[-2:] == ("checkpoints", name.replace(" ", "-"))
    assert labs.checkpoint_folder("early").name == "early"


def test_a_summary_by_hand() -> None:
    problems = labs.tested_problems()
    short = np.array([labs.is_short(problem) for problem in problems])

    def run(kind: str, seed: int, on_short: float, on_long: float) -> dict:
        values = np.where(short, on_short, on_long).tolist()
        answers = dict.fromkeys(labs.RULES, values)
        return {"lab": "kind", "kind": kind, "seed": seed, "answers": answers, "auroc": 0.9}

    runs = [run("short", 0, 80, 40), run("short", 1, 60, 20), run("mixed", 0, 50, 50)]
    other = [
        {"lab": lab, "seed": 0, "answers": runs[2]["answers"], "auroc": 0.5} | arm
        for lab, arm in (
            ("selection", {"rule": "at random"}),
            ("reference", {"checkpoint": "reasoner", "role": labs.ROLES[1]}),
        )
    ]
    found = {(c["lab"], c["arm"], c["tested"]): c for c in labs.summarise([*runs, *other])}
    assert found["kind", "short", "short"]["rows"]["min"]["accuracy"] == [70, 70, 70]
    assert found["kind", "short", "long"]["rows"]["min"]["minus control"] == [-20, -20, -20]
    assert found["kind", "short", "all"]["auroc"] == [0.9, 0.9]
    assert found["selection", "at random", "all"]["rows"]["vote"]["minus control"] == [0, 0, 0]
    majority = labs.levels()["majority"]
    value = found["kind", "mixed", "all"]["rows"]["sum"]["minus majority"][0]
    assert value == pytest.approx(50 - majority.mean(), abs=0.01)


def test_tolerances_are_twice_the_largest_difference() -> None:
    def run(lab: str, value: float) -> dict:
        answers = {rule: [value, value] for rule in labs.RULES}
        return {"lab": lab, "rule": "at random", "kind": "mixed", "seed": 0, "answers": answers}

    runs = [run("selection", 50.0), run("kind", 60.0)]
    again = [run("selection", 51.0), run("kind", 60.01)]
    assert labs.tolerances(runs, again) == {"selection": 2.0, "kind": labs.MIN_TOLERANCE}


# ---- The result file ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored() -> dict:
    return load_result("open_questions")


def test_every_arm_has_three_seeds(stored: dict) -> None:
    seeds: dict[tuple[str, str], list[int]] = {}
    for cell in stored["cells"]:
        if cell["part"] == "run":
            seeds.setdefault((cell["lab"], labs.arm(cell)), []).append(cell["seed"])
    expected = {(cell["lab"], labs.arm(cell)) for cell in labs.grid_cells([0])}
    assert set(seeds) == expected
    assert all(found == list(labs.SEEDS) for found in seeds.values())
    assert stored["config"]["checkpoints"] == list(labs.CHECKPOINTS)


def test_stored_cells_are_recomputed(stored: dict) -> None:
    cells = stored["cells"]
    assert [c for c in cells if c["part"] == "selection"] == labs.selection_cells()
    levels = next(c for c in cells if c["part"] == "levels")
    for name, values in labs.levels().items():
        assert levels[name][0] == pytest.approx(values.mean(), abs=0.01)


def test_a_summary_is_the_mean_of_its_runs(stored: dict) -> None:
    runs = [c for c in stored["cells"] if c["part"] == "run" and c.get("rule") == "longest"]
    summary = next(c for c in stored["cells"] if c["part"] == "summary" and c["arm"] == "longest")
    for rule in labs.RULES:
        mean = np.mean([run["answers"][rule] for run in runs])
        assert summary["rows"][rule]["accuracy"][0] == pytest.approx(mean, abs=0.02)
