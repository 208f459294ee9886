"""The fallible tutor, who writes the solutions that the reasoner learns from.

Each fact has an error rate of its own. Most facts are only slipped on now and then; on a few the
tutor has a *misconception* and is wrong more often than right. A wrong answer is nearly always the
same one, so that errors are systematic: this is what makes majority voting fail in this world, and
it was put in so that there is something for a reward model to add. ``misconception_share=0`` takes
it out again.
"""

from __future__ import annotations

from bisect import bisect
from dataclasses import dataclass

import numpy as np

from implicitprm.arithmetic.problems import APPLY, FACTS, MODULUS, Fact, Problem

SLIP_RATES = (0.04, 0.14)
MISCONCEPTION_RATES = (0.5, 0.8)
#: Share of a fact's wrong answers that are its one favourite wrong answer.
FAVOURITE_SHARE = 0.8


@dataclass(frozen=True)
class Habit:
    """How the tutor answers one fact: the possible answers, the true one first, and their odds."""

    answers: tuple[int, ...]
    #: cumulative probabilities of all answers but the last
    cumulative: tuple[float, ...]

    @property
    def error_rate(self) -> float:
        """How often the answer is not the true one."""
        return 1.0 - self.cumulative[0]


class Tutor:
    """Writes solutions with errors that depend on the fact and propagate to the answer.

    Parameters: ``seed`` fixes which facts are misconceptions and every fact's favourite wrong
    answer; ``misconception_share`` is the share of facts that are misconceptions; ``error_scale``
    multiplies all error rates.
    """

    def __init__(self, seed: int = 0, misconception_share: float = 0.14, error_scale: float = 1.0):
        rng = np.random.default_rng(seed)
        # Every random number is drawn whatever the share, so that two tutors of one seed differ
        # in nothing but the rates of their misconceptions.
        is_misconception = rng.permutation(len(FACTS)) < misconception_share * len(FACTS)
        slip_rates = rng.uniform(*SLIP_RATES, size=len(FACTS))
        misconception_rates = rng.uniform(*MISCONCEPTION_RATES, size=len(FACTS))
        rates = error_scale * np.where(is_misconception, misconception_rates, slip_rates)
        self.misconceptions = frozenset(
            fact for fact, wrong in zip(FACTS, is_misconception, strict=True) if wrong
        )
        self.habits = {
            fact: _habit(fact, float(rate), rng) for fact, rate in zip(FACTS, rates, strict=True)
        }

    def solve(self, problem: Problem, rng: np.random.Generator) -> list[str]:
        """Write one solution, step by step, as this tutor would."""
        steps, state = [], problem.start
        for operation, operand in problem.operations:
            fact = Fact(state, operation, operand)
            habit = self.habits[fact]
            state = habit.answers[bisect(habit.cumulative, rng.random())]
            steps.append(f"{fact}={state}")
        return [*steps, f"#{state}"]


def _habit(fact: Fact, rate: float, rng: np.random.Generator) -> Habit:
    near_misses = [fact.result + offset for offset in (-10, -1, 1, 10)]
    other_operations = [
        apply(fact.state, fact.operand) for sign, apply in APPLY.items() if sign != fact.operation
    ]
    wrong = sorted({answer % MODULUS for answer in near_misses + other_operations} - {fact.result})
    favourite = int(rng.integers(len(wrong)))
    odds = np.full(len(wrong), (1 - FAVOURITE_SHARE) / (len(wrong) - 1))
    odds[favourite] = FAVOURITE_SHARE
    probabilities = [1 - rate, *(rate * odds)]
    return Habit((fact.result, *wrong), tuple(np.cumsum(probabilities)[:-1].tolist()))
