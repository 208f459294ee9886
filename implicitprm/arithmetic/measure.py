"""The two tables of this world: which answers a score chooses, and which steps it finds wrong.

Each table has the trained reward and its baselines side by side: chance, majority, oracle, length,
and the log-probabilities of either model alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from implicitprm.arithmetic.problems import Problem, check_solution
from implicitprm.arithmetic.split import unseen_facts
from implicitprm.arithmetic.tutor import Tutor
from implicitprm.evaluation import (
    Interval,
    auroc_interval,
    best_of_n_accuracy,
    choose_threshold,
    first_error,
    first_error_scores,
    mean_interval,
    paired_difference,
    pass_at_n,
    steps_up_to_first_error,
    vote_accuracy,
)
from implicitprm.rewards import ImplicitPRM, ScoredSolution, sum_by_step
from implicitprm.selection import aggregate
from implicitprm.steps import Solution

RESAMPLES = 300
#: What may judge a step: the columns of :func:`step_frame` with scores.
PREDICTORS = ("step reward", "log π_θ alone", "log π_ref alone")


def candidate_grid(rows: Dataset) -> np.ndarray:
    """Row indices of the candidates of each problem, each row as often as it was drawn: (P, M)."""
    grid: dict[str, list[int]] = {}
    for index, (prompt, weight) in enumerate(zip(rows["prompt"], rows["weight"], strict=True)):
        grid.setdefault(prompt, []).extend([index] * weight)
    if len({len(indices) for indices in grid.values()}) != 1:
        raise ValueError("every problem needs the same number of candidates")
    return np.array(list(grid.values()))


def inside_world(tokenizer: PreTrainedTokenizerBase, rows: Dataset) -> list[bool]:
    """Which rows can be read again: each number of the completion is a word of the vocabulary."""
    words = tokenizer.get_vocab()
    return [all(word in words for word in re.findall(r"\d+", text)) for text in rows["completion"]]


def score_rows(prm: ImplicitPRM, rows: Dataset) -> list[ScoredSolution | None]:
    """Score shipped rollouts, whose steps stand in the column ``steps``.

    None for a text outside this world, such as the number 5544 out of two adjacent tokens; a
    generator writes one in some thousand.
    """
    known = inside_world(prm.tokenizer, rows)
    scored = iter(
        prm.score_solutions(
            [
                Solution(row["prompt"], tuple(row["steps"]), row["finished"])
                for row, inside in zip(rows, known, strict=True)
                if inside
            ],
            batch_size=128,
        )
    )
    return [next(scored) if inside else None for inside in known]


def answer_scores(scored: Sequence[ScoredSolution | None]) -> dict[str, np.ndarray]:
    """One score per row (N) by each rule that best-of-N may choose with; −∞ where there is none."""
    rules: dict[str, Callable[[ScoredSolution], float]] = {
        "reward, min over steps": lambda s: aggregate(s.step_rewards, "min"),
        "reward, sum over steps": lambda s: aggregate(s.step_rewards, "sum"),
        "log π_θ alone": lambda s: s.policy_logps.sum(),
        "log π_ref alone": lambda s: s.ref_logps.sum(),
        "shortest": lambda s: -len(s.tokens),
    }
    return {
        name: np.array([-np.inf if s is None else rule(s) for s in scored], dtype=float)
        for name, rule in rules.items()
    }


def answer_accuracy(
    rows: Dataset, scored: Sequence[ScoredSolution | None], n: int
) -> dict[str, np.ndarray]:
    """Expected accuracy with n candidates, per problem (P), of every way to choose an answer."""
    grid = candidate_grid(rows)  # (P, M)
    correct = np.array(rows["label"])[grid]
    answers = np.array([steps[-1] for steps in rows["steps"]], dtype=object)[grid].tolist()
    scores = answer_scores(scored)
    chosen = {
        f"best of {n}: {name}": best_of_n_accuracy(values[grid], correct, n)
        for name, values in scores.items()
    }
    outcome = scores["reward, sum over steps"][grid]
    return chosen | {
        "vote weighted by reward": vote_accuracy(answers, correct, n, outcome),
        "majority vote": vote_accuracy(answers, correct, n),
        "chance (pass@1)": correct.mean(1),
        f"oracle (pass@{n})": pass_at_n(correct, n),
    }


def answer_table(accuracy: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Accuracy (%) of each way to choose, and its paired difference to majority (points).

    Both with 95% intervals over problems in brackets.
    """
    majority = accuracy["majority vote"]
    return pd.DataFrame(
        {
            "accuracy (%)": {
                name: f"{mean_interval(100 * values):.1f}" for name, values in accuracy.items()
            },
            "minus majority (points)": {
                name: ""
                if values is majority
                else f"{paired_difference(100 * values, 100 * majority):+.1f}"
                for name, values in accuracy.items()
            },
        }
    )


def step_scores(solution: ScoredSolution) -> dict[str, np.ndarray]:
    """One score per step (S) by each predictor, higher for steps that look right."""
    return {
        "step reward": solution.step_rewards,
        "log π_θ alone": sum_by_step(solution.policy_logps, solution.step_ends),
        "log π_ref alone": sum_by_step(solution.ref_logps, solution.step_ends),
    }


def step_frame(rows: Dataset, scored: Sequence[ScoredSolution | None]) -> pd.DataFrame:
    """One line per operation step up to and including the first error of its solution.

    Columns: ``problem`` (number), ``weight``, ``valid``, ``unseen`` and ``misconception`` (of the
    fact that the step uses), and a score by each predictor, higher for steps that look right.
    """
    tutor = Tutor()
    unseen = unseen_facts(tutor)
    problems = {prompt: number for number, prompt in enumerate(dict.fromkeys(rows["prompt"]))}
    lines = []
    for row, solution in zip(rows, scored, strict=True):
        if solution is None:
            continue
        truth = check_solution(Problem.parse(row["prompt"]), row["steps"], row["finished"])
        by_step = step_scores(solution)
        for step in steps_up_to_first_error(truth.first_error, len(row["steps"])):
            fact = truth.facts[step]
            if fact is not None:
                lines.append(
                    {
                        "problem": problems[row["prompt"]],
                        "weight": row["weight"],
                        "valid": truth.valid[step],
                        "unseen": fact in unseen,
                        "misconception": fact in tutor.misconceptions,
                    }
                    | {name: values[step] for name, values in by_step.items()}
                )
    return pd.DataFrame(lines)


def step_table(steps: pd.DataFrame) -> pd.DataFrame:
    """AUROC of valid against wrong steps by each predictor, with 95% intervals over problems.

    Apart for facts that occur in PRM training and facts that do not, and for steps on the tutor's
    misconceptions and on other facts (slips).
    """
    table = {}
    for unseen in (False, True):
        for misconception in (False, True):
            part = steps[(steps["unseen"] == unseen) & (steps["misconception"] == misconception)]
            name = (
                f"{'unseen' if unseen else 'seen'} facts, "
                f"{'misconceptions' if misconception else 'slips'}"
            )
            table[name] = {"steps": int(part["weight"].sum())} | {
                score: str(step_auroc(part, score)) for score in PREDICTORS
            }
    return pd.DataFrame(table).T


def step_auroc(steps: pd.DataFrame, score: str) -> Interval:
    """AUROC of one predictor on a part of a :func:`step_frame`, with its interval over problems."""
    return auroc_interval(
        steps[score], steps["valid"], steps["problem"], steps["weight"], resamples=RESAMPLES
    )


def first_error_thresholds(
    rows: Dataset, scored: Sequence[ScoredSolution | None]
) -> dict[str, float]:
    """For each predictor the threshold with the highest first-error F1 on these rows."""
    return {
        name: choose_threshold(
            [step_scores(s)[name] for s in scored if s is not None], *_first_errors(rows, scored)
        )
        for name in PREDICTORS
    }


def first_error_f1(
    rows: Dataset, scored: Sequence[ScoredSolution | None], thresholds: Mapping[str, float]
) -> dict[str, float]:
    """First-error F1 (0..1) of each predictor under a threshold that was chosen elsewhere."""
    labels, weights = _first_errors(rows, scored)
    return {
        name: first_error_scores(
            [first_error(step_scores(s)[name], threshold) for s in scored if s is not None],
            labels,
            weights,
        ).f1
        for name, threshold in thresholds.items()
    }


def _first_errors(
    rows: Dataset, scored: Sequence[ScoredSolution | None]
) -> tuple[np.ndarray, np.ndarray]:
    """First error and weight of each row that has scores."""
    kept = np.array([solution is not None for solution in scored])
    return np.array(rows["first_error"])[kept], np.array(rows["weight"])[kept]
