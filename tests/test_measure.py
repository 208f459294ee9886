"""The tables of the arithmetic world on rows small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset

from implicitprm import ScoredSolution
from implicitprm.arithmetic import Problem, Tutor, check_solution, unseen_facts
from implicitprm.arithmetic.measure import (
    answer_accuracy,
    answer_table,
    candidate_grid,
    step_auroc,
    step_frame,
    step_table,
)
from implicitprm.evaluation import auroc

PROMPTS = ("7+5-3\n", "10-1*2\n")
SOLUTIONS = {
    PROMPTS[0]: [(["7+5=12", "12-3=9", "#9"], 1), (["7+5=13", "13-3=10", "#10"], 3)],
    PROMPTS[1]: [(["10-1=9", "9*2=18", "#18"], 3), (["10-1=9", "9*2=11", "#11"], 1)],
}


def rows() -> Dataset:
    lines = []
    for prompt, solutions in SOLUTIONS.items():
        for steps, weight in solutions:
            truth = check_solution(Problem.parse(prompt), steps)
            lines.append(
                {
                    "prompt": prompt,
                    "steps": steps,
                    "weight": weight,
                    "finished": True,
                    "label": truth.correct,
                    "first_error": truth.first_error,
                }
            )
    return Dataset.from_list(lines)


def scored(step_rewards: list[float], policy: float, reference: float) -> ScoredSolution:
    """A solution of three steps with two tokens each."""
    by_step = np.array(step_rewards)
    return ScoredSolution(
        steps=("a", "b", "c"),
        tokens=("t",) * 6,
        step_ends=(2, 4, 6),
        token_rewards=np.repeat(by_step / 2, 2),
        step_rewards=by_step,
        q_values=by_step.cumsum(),
        outcome=float(by_step.sum()),
        policy_logps=np.full(6, policy),
        ref_logps=np.full(6, reference),
    )


SCORED = [
    scored([1, 1, 0], -1, -3),  # right
    scored([-2, 5, 0], -2, -1),  # wrong, but its sum is the larger one
    scored([1, 0.5, 0], -1, -1),  # right
    scored([1, -1, 0], -2, -2),  # wrong
]


def test_a_row_is_a_candidate_as_often_as_it_was_drawn() -> None:
    assert candidate_grid(rows()).tolist() == [[0, 1, 1, 1], [2, 2, 2, 3]]
    with pytest.raises(ValueError, match="same number"):
        candidate_grid(rows().select([0, 1, 2]))


def test_choices_by_hand() -> None:
    """All four candidates: each rule's choice can be read off the table above."""
    accuracy = answer_accuracy(rows(), SCORED, 4)
    expected = {
        "best of 4: reward, min over steps": [1, 1],
        "best of 4: reward, sum over steps": [0, 1],
        "best of 4: log π_θ alone": [1, 1],
        "best of 4: log π_ref alone": [0, 1],
        "best of 4: shortest": [0.25, 0.75],  # all are equally long: chance
        "majority vote": [0, 1],
        "vote weighted by reward": [0, 1],
        "chance (pass@1)": [0.25, 0.75],
        "oracle (pass@4)": [1, 1],
    }
    assert accuracy.keys() == expected.keys()
    for name, values in expected.items():
        assert accuracy[name].tolist() == pytest.approx(values), name


def test_the_answer_table_is_paired_with_majority() -> None:
    table = answer_table(answer_accuracy(rows(), SCORED, 4))
    assert table.loc["best of 4: reward, min over steps", "accuracy (%)"].startswith("100.0 ")
    assert table.loc["best of 4: reward, min over steps", "minus majority (points)"].startswith(
        "+50.0 "
    )
    assert table.loc["majority vote", "minus majority (points)"] == ""


def test_steps_up_to_the_first_error_that_are_operations() -> None:
    frame = step_frame(rows(), SCORED)
    # Two steps, one (wrong at once), two, two; the answers #9, #18 are no operations.
    assert frame["valid"].tolist() == [True, True, False, True, True, True, False]
    assert frame["weight"].tolist() == [1, 1, 3, 3, 3, 1, 1]
    assert frame["problem"].tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert frame["step reward"].tolist() == [1, 1, -2, 1, 0.5, 1, -1]
    assert frame["log π_ref alone"].tolist() == [-6, -6, -2, -2, -2, -4, -4]
    misconceptions, unseen = Tutor().misconceptions, unseen_facts(Tutor())
    facts = Problem.parse(PROMPTS[0]).facts
    assert frame["misconception"].tolist()[:2] == [fact in misconceptions for fact in facts]
    assert frame["unseen"].tolist()[:2] == [fact in unseen for fact in facts]


def test_the_step_table_splits_by_fact() -> None:
    rng = np.random.default_rng(0)
    frame = step_frame(rows(), SCORED).sample(400, replace=True, random_state=0)
    frame["problem"] = np.arange(400)
    frame["valid"] = rng.random(400) < 0.7
    frame["unseen"] = rng.random(400) < 0.5
    frame["misconception"] = rng.random(400) < 0.5
    frame["step reward"] = frame["valid"] + rng.normal(size=400)
    table = step_table(frame)
    assert table["steps"].sum() == frame["weight"].sum()
    part = frame[frame["unseen"] & ~frame["misconception"]]
    expected = auroc(part["step reward"], part["valid"], part["weight"])
    assert step_auroc(part, "step reward").value == pytest.approx(expected)
    assert table.loc["unseen facts, slips", "step reward"].startswith(f"{expected:.3f}")
