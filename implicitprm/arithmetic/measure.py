"""The two tables of this world: which answers a score chooses, and which steps it finds wrong.

Each table has the trained reward and its baselines side by side: chance, majority, oracle, length,
and the log-probabilities of either model alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from datasets import Dataset

from implicitprm.arithmetic.problems import Problem, check_solution
from implicitprm.arithmetic.split import unseen_facts
from implicitprm.arithmetic.tutor import Tutor
from implicitprm.evaluation import (
    Interval,
    auroc_interval,
    best_of_n_accuracy,
    mean_interval,
    paired_difference,
    pass_at_n,
    steps_up_to_first_error,
    vote_accuracy,
)
from implicitprm.rewards import ScoredSolution, sum_by_step
from implicitprm.selection import aggregate

RESAMPLES = 300


def candidate_grid(rows: Dataset) -> np.ndarray:
    """Row indices of the candidates of each problem, each row as often as it was drawn: (P, M)."""
    grid: dict[str, list[int]] = {}
    for index, (prompt, weight) in enumerate(zip(rows["prompt"], rows["weight"], strict=True)):
        grid.setdefault(prompt, []).extend([index] * weight)
    if len({len(indices) for indices in grid.values()}) != 1:
        raise ValueError("every problem needs the same number of candidates")
    return np.array(list(grid.values()))


def answer_scores(scored: Sequence[ScoredSolution]) -> dict[str, np.ndarray]:
    """One score per row (N) by each rule that best-of-N may choose with."""
    return {
        "reward, min over steps": np.array([aggregate(s.step_rewards, "min") for s in scored]),
        "reward, sum over steps": np.array([aggregate(s.step_rewards, "sum") for s in scored]),
        "log π_θ alone": np.array([s.policy_logps.sum() for s in scored]),
        "log π_ref alone": np.array([s.ref_logps.sum() for s in scored]),
        "shortest": -np.array([len(s.tokens) for s in scored], dtype=float),
    }


def answer_accuracy(
    rows: Dataset, scored: Sequence[ScoredSolution], n: int
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
    """Accuracy of each way to choose, and its paired difference to majority, in points with 95%
    intervals over problems."""
    majority = accuracy["majority vote"]
    return pd.DataFrame(
        {
            "accuracy": {
                name: f"{mean_interval(100 * values):.1f}" for name, values in accuracy.items()
            },
            "minus majority": {
                name: ""
                if values is majority
                else f"{paired_difference(100 * values, 100 * majority):+.1f}"
                for name, values in accuracy.items()
            },
        }
    )


def step_frame(rows: Dataset, scored: Sequence[ScoredSolution]) -> pd.DataFrame:
    """One line per operation step up to and including the first error of its solution.

    Columns: ``problem`` (number), ``weight``, ``valid``, ``unseen`` and ``misconception`` (of the
    fact that the step uses), and a score by each predictor, higher for steps that look right.
    """
    tutor = Tutor()
    unseen = unseen_facts(tutor)
    problems = {prompt: number for number, prompt in enumerate(dict.fromkeys(rows["prompt"]))}
    lines = []
    for row, solution in zip(rows, scored, strict=True):
        truth = check_solution(Problem.parse(row["prompt"]), row["steps"], row["finished"])
        by_step = {
            "step reward": solution.step_rewards,
            "log π_θ alone": sum_by_step(solution.policy_logps, solution.step_ends),
            "log π_ref alone": sum_by_step(solution.ref_logps, solution.step_ends),
        }
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
                score: str(step_auroc(part, score))
                for score in ("step reward", "log π_θ alone", "log π_ref alone")
            }
    return pd.DataFrame(table).T


def step_auroc(steps: pd.DataFrame, score: str) -> Interval:
    """AUROC of one predictor on a part of a :func:`step_frame`, with its interval over problems."""
    return auroc_interval(
        steps[score], steps["valid"], steps["problem"], steps["weight"], resamples=RESAMPLES
    )
