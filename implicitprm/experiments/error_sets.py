"""Chapter 11: the solutions whose steps are judged, and what is true of these steps.

Rollouts as they were drawn, and two changes that leave every step as right or wrong as it was.
"""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import pandas as pd
from datasets import Dataset

from implicitprm.arithmetic import (
    Problem,
    check_solution,
    load_rollouts,
    unseen_facts,
)
from implicitprm.arithmetic.problems import Fact
from implicitprm.arithmetic.tutor import Tutor
from implicitprm.arithmetic.values import VALUE_SETS, load_values, outcomes
from implicitprm.evaluation import (
    steps_up_to_first_error,
)

#: Problems of the early generator that are scored: those whose prefixes have true values.
EARLY_PROBLEMS = 100
#: Name → generator, split and what is done to the solutions.
SETS: dict[str, tuple[str, str, str]] = {
    "validation": ("reasoner", "validation", "as drawn"),
    "test": ("reasoner", "test", "as drawn"),
    "unseen": ("reasoner", "test_unseen", "as drawn"),
    "strong": ("strong", "test", "as drawn"),
    "early": ("early", "test", "as drawn"),
    "commuted": ("reasoner", "test", "commuted"),
    "repeated": ("reasoner", "test", "repeated"),
}
#: What q may follow at a prefix: Q itself, what it gained since the start, and that in log-odds.
TARGETS = ("Q", "Q - Q0", "logit")


def commute(step: str) -> str:
    """``5+7=12`` as ``7+5=12``, and ``*`` alike; any other step stays as it is."""
    for sign in "+*":
        left, found, rest = step.partition(sign)
        right, equals, result = rest.partition("=")
        if found and equals:
            return f"{right}{sign}{left}={result}"
    return step


def repeated_step(first_wrong: int, n_steps: int) -> int:
    """The step that is written twice: the middle one of the right operations, −1 if there is none.

    ``first_wrong`` is −1 for a solution without an error, whose last step is the answer.
    """
    right = first_wrong if first_wrong >= 0 else n_steps - 1
    return (right - 1) // 2 if right > 0 else -1


@cache
def set_rows(name: str) -> Dataset:
    """The rows of one of SETS. Added columns: ``origin``, the row of the file that it was made of,
    and ``altered``, which steps were commuted or inserted.

    A solution without a step to change is not in a changed set. ``first_error`` counts in the
    changed solution, whose steps are as right or wrong as the ones they were made of.
    """
    generator, split, how = SETS[name]
    rows = load_rollouts(generator, split)
    if name == "early":
        kept = set(list(dict.fromkeys(rows["prompt"]))[:EARLY_PROBLEMS])
        rows = rows.select([i for i, prompt in enumerate(rows["prompt"]) if prompt in kept])
    changed = []
    for number, row in enumerate(rows):
        steps, altered = list(row["steps"]), [False] * len(row["steps"])
        if how == "commuted":
            steps = [commute(step) for step in steps]
            altered = [new != old for new, old in zip(steps, row["steps"], strict=True)]
        elif how == "repeated":
            twice = repeated_step(row["first_error"], len(steps))
            if twice >= 0:
                steps.insert(twice + 1, steps[twice])
                altered.insert(twice + 1, True)
        if how != "as drawn" and not any(altered):
            continue
        before = how == "repeated" and row["first_error"] >= 0
        changed.append(
            {key: row[key] for key in ("prompt", "label", "weight", "finished")}
            | {
                "completion": "\n".join(steps),
                "steps": steps,
                "first_error": row["first_error"] + before,
                "origin": number,
                "altered": altered,
            }
        )
    return Dataset.from_list(changed)


def favourite(tutor: Tutor, fact: Fact) -> int:
    """The wrong answer that the tutor gives most often to a fact."""
    habit = tutor.habits[fact]
    odds = np.diff([*habit.cumulative, 1.0])  # of the wrong answers, after the true one
    return habit.answers[1 + int(odds.argmax())]


@cache
def _originals(name: str) -> Dataset:
    """The rows that a set was made of."""
    generator, split, how = SETS[name]
    if how == "as drawn":
        return set_rows(name)
    return load_rollouts(generator, split)


@cache
def problem_numbers(name: str) -> tuple[np.ndarray, int]:
    """The problem of each row of a set, and how many problems there are; changed sets count the
    problems of the set that they were made of."""
    numbers = {prompt: n for n, prompt in enumerate(dict.fromkeys(_originals(name)["prompt"]))}
    return np.array([numbers[prompt] for prompt in set_rows(name)["prompt"]]), len(numbers)


@cache
def step_truths(name: str) -> pd.DataFrame:
    """One line per step of a set, up to and including the first error of its solution.

    ``row, step, problem, weight, valid``; ``altered``; ``correct``, is the answer right;
    ``operation`` (``#`` for the answer, empty for what is no step); ``left``, operations that
    follow in the problem; ``misconception`` and ``unseen`` of the fact; of a wrong step its
    ``kind``, whether it gives the ``favourite`` wrong answer, and whether another error follows
    (``again``).
    """
    tutor = Tutor()
    unseen = unseen_facts(tutor)
    rows = set_rows(name)
    originals = _originals(name)
    problems, _ = problem_numbers(name)
    lines = []
    for number, row in enumerate(rows):
        origin = originals[row["origin"]]
        problem = Problem.parse(row["prompt"])
        truth = check_solution(problem, origin["steps"], row["finished"])
        inserted = len(row["steps"]) > len(origin["steps"])
        twice = row["altered"].index(True) if inserted else len(row["steps"])
        for step in steps_up_to_first_error(row["first_error"], len(row["steps"])):
            old = step - (step >= twice)
            fact, written = truth.facts[old], origin["steps"][old]
            wrong = step == row["first_error"]
            sign = "#" if written.startswith("#") else (fact.operation if fact else "")
            lines.append(
                {
                    "row": number,
                    "step": step,
                    "problem": int(problems[number]),
                    "weight": row["weight"],
                    "valid": not wrong,
                    "altered": row["altered"][step],
                    "correct": row["label"],
                    "operation": sign,
                    "left": len(problem.operations) - 1 - old,
                    "misconception": fact in tutor.misconceptions,
                    "unseen": fact in unseen,
                    "kind": truth.kind if wrong else None,
                    "favourite": bool(
                        wrong and fact and written.endswith(f"={favourite(tutor, fact)}")
                    ),
                    "again": bool(wrong and not all(truth.valid[old + 1 :])),
                }
            )
    return pd.DataFrame(lines)


@cache
def met_in_training(name: str) -> np.ndarray:
    """For each line of :func:`step_truths`: how many distinct training rollouts hold its text as a
    wrong step. Text that is right elsewhere, such as that of a wrong operand, does not count."""
    train = load_rollouts("reasoner", "train")
    counts: Counter[str] = Counter()
    for texts, valid in zip(train["steps"], train["valid"], strict=True):
        counts.update({text for text, right in zip(texts, valid, strict=True) if not right})
    steps, frame = set_rows(name)["steps"], step_truths(name)
    return np.array([counts[steps[r][s]] for r, s in zip(frame["row"], frame["step"], strict=True)])


@cache
def pooled_truths(names: tuple[str, ...]) -> tuple[pd.DataFrame, int]:
    """The steps of several sets in one frame, with a column ``set``; problems are numbered on."""
    frames, offset = [], 0
    for name in names:
        frame = step_truths(name)
        frames.append(frame.assign(set=name, problem=frame["problem"] + offset))
        offset += problem_numbers(name)[1]
    return pd.concat(frames, ignore_index=True), offset


def operations(frame: pd.DataFrame) -> pd.DataFrame:
    """The steps of a frame that are operations on known facts, as in the other chapters."""
    return frame[frame["operation"].isin(list("+-*"))]


def _logit(right: np.ndarray, completions: int) -> np.ndarray:
    """log-odds of counts, half a count added to either side so that 0 and all are finite."""
    return np.log((right + 0.5) / (completions - right + 0.5))


@cache
def true_prefixes() -> pd.DataFrame:
    """The open prefixes of the reasoner's value set, with the targets that q may follow.

    ``row, step, problem``; ``Q``; ``Q - Q0`` and ``logit``, the difference of log-odds, where Q0 is
    the share of right ones among the problem's own rollouts; ``dQ``, Q minus that of the prefix a
    step shorter. Each also from either half of the completions (``Q a``, ``Q b``, …).
    """
    name = "reasoner-test"
    completions = VALUE_SETS[name].completions
    numbers, _ = problem_numbers("test")
    starts = _start_counts()
    lines = []
    for value in load_values(name):
        problem = int(numbers[value["row"]])
        right = outcomes(value["right"], completions)[:-1]  # the last step is the answer
        counts = {
            "": (right.sum(axis=1), starts[problem].sum(), completions),
            " a": (right[:, ::2].sum(axis=1), starts[problem][0], completions // 2),
            " b": (right[:, 1::2].sum(axis=1), starts[problem][1], completions // 2),
        }
        columns: dict[str, np.ndarray] = {}
        for half, (count, start, n) in counts.items():
            columns[f"Q{half}"] = count / n
            columns[f"Q - Q0{half}"] = (count - start) / n
            columns[f"logit{half}"] = _logit(count, n) - _logit(start, n)
            columns[f"dQ{half}"] = np.diff(count, prepend=start) / n
        lines.append(
            pd.DataFrame(columns).assign(
                row=value["row"],
                step=range(len(right)),
                problem=problem,
                Q0=starts[problem].sum() / completions,
            )
        )
    return pd.concat(lines, ignore_index=True)


def _start_counts() -> np.ndarray:
    """Right ones among each problem's rollouts, divided at random into two halves: (P, 2)."""
    rows = set_rows("test")
    numbers, n_problems = problem_numbers("test")
    weight = np.array(rows["weight"])
    right = np.bincount(numbers, weight * np.array(rows["label"]), n_problems).astype(int)
    drawn = np.bincount(numbers, weight, n_problems).astype(int)
    first = np.random.default_rng(0).hypergeometric(right, drawn - right, drawn // 2)
    return np.stack([first, right - first], axis=1)
