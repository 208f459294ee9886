"""The fallible tutor, who writes the programs that the reasoner learns from.

How the tutor handles an operator depends on its *context*: the sign, and what stands on its two
sides, each a variable or the sign of a compound side; 279 contexts. In most contexts the tutor only
slips now and then; in some there is a *misconception*, wrong more often than right and nearly
always in the same way: the sides of a minus taken in the wrong order, precedence ignored, another
operator. This makes majority voting fail in this world, too, and it was put in so
that there is something for a reward model to add. ``misconception_share=0`` takes it out again.

Where the right side is compound, the tutor sometimes computes it first, which is right (a minus
then needs a ``swap``): more than one program is right, and confidence depends on style.
"""

from __future__ import annotations

from bisect import bisect
from dataclasses import dataclass
from itertools import product

import numpy as np

from implicitprm.stackmachine.machine import INSTRUCTION_OF, VARIABLES
from implicitprm.stackmachine.problems import Expression, Operation, Task, form_of

SLIP_RATES = (0.02, 0.06)
MISCONCEPTION_RATES = (0.5, 0.8)
#: Share of a context's errors that are its one favourite error.
FAVOURITE_SHARE = 0.85
#: Errors of structure: the favourite is one of them where they make a difference.
STRUCTURAL = frozenset({"order", "left first", "right first"})
#: How often a compound right side is computed first.
RIGHT_FIRST = 0.2

#: Sign, left side, right side; a side is a variable or the sign of an operation.
Context = tuple[str, str, str]
SIGNS = tuple(INSTRUCTION_OF)
HEADS = (*VARIABLES, *SIGNS)
CONTEXTS: tuple[Context, ...] = tuple(
    (sign, left, right)
    for sign, left, right in product(SIGNS, HEADS, HEADS)
    if left != right or left in SIGNS  # no variable occurs twice
)


def head(expression: Expression) -> str:
    """A variable itself, or the sign of an operation."""
    return expression if isinstance(expression, str) else expression.sign


def context_of(operation: Operation) -> Context:
    """What the tutor's errors on this operation depend on."""
    return operation.sign, head(operation.left), head(operation.right)


def readings(operation: Operation) -> dict[str, Operation]:
    """What the tutor may take an operation for, by kind of error.

    ``order``: the sides exchanged. ``left first`` and ``right first``: precedence or parentheses
    ignored, as in ``x-(y-z)`` taken for ``(x-y)-z``. A sign: that operator instead. Some make no
    difference, such as ``order`` in ``x+y``.
    """
    sign, left, right = operation.sign, operation.left, operation.right
    found = {"order": Operation(sign, right, left)}
    found |= {other: Operation(other, left, right) for other in SIGNS}
    if isinstance(left, Operation):
        found["right first"] = Operation(left.sign, left.left, Operation(sign, left.right, right))
    if isinstance(right, Operation):
        found["left first"] = Operation(right.sign, Operation(sign, left, right.left), right.right)
    return found


@dataclass(frozen=True)
class Habit:
    """How the tutor reads one context: ``right`` first, then the kinds of error, and their odds."""

    readings: tuple[str, ...]
    #: cumulative probabilities of all readings but the last
    cumulative: tuple[float, ...]

    @property
    def error_rate(self) -> float:
        """How often the reading is not the right one."""
        return 1.0 - self.cumulative[0]


class Tutor:
    """Writes programs with errors that depend on the context of each operator.

    Parameters: ``seed`` fixes which contexts are misconceptions and every context's favourite
    error; ``misconception_share`` is the share of contexts that are misconceptions;
    ``error_scale`` multiplies all error rates.
    """

    def __init__(self, seed: int = 0, misconception_share: float = 0.14, error_scale: float = 1.0):
        rng = np.random.default_rng(seed)
        # Every random number is drawn whatever the share, so that two tutors of one seed differ
        # in nothing but the rates of their misconceptions.
        is_misconception = rng.permutation(len(CONTEXTS)) < misconception_share * len(CONTEXTS)
        slip_rates = rng.uniform(*SLIP_RATES, size=len(CONTEXTS))
        misconception_rates = rng.uniform(*MISCONCEPTION_RATES, size=len(CONTEXTS))
        rates = error_scale * np.where(is_misconception, misconception_rates, slip_rates)
        self.misconceptions = frozenset(
            context for context, wrong in zip(CONTEXTS, is_misconception, strict=True) if wrong
        )
        self.habits = {
            context: _habit(context, float(rate), rng)
            for context, rate in zip(CONTEXTS, rates, strict=True)
        }

    def solve(self, task: Task, rng: np.random.Generator) -> list[str]:
        """Write one program, instruction by instruction, as this tutor would."""
        return [*self._write(task.expression, rng), "end"]

    def _write(self, expression: Expression, rng: np.random.Generator) -> list[str]:
        if isinstance(expression, str):
            return [f"push {expression}"]
        habit = self.habits[context_of(expression)]
        reading = habit.readings[bisect(habit.cumulative, rng.random())]
        if reading != "right":
            expression = readings(expression)[reading]
        right_first = isinstance(expression.right, Operation) and rng.random() < RIGHT_FIRST
        instruction = INSTRUCTION_OF[expression.sign]
        left, right = (self._write(side, rng) for side in (expression.left, expression.right))
        if not right_first:
            return [*left, *right, instruction]
        return [*right, *left, *(["swap"] if instruction == "sub" else []), instruction]


def _habit(context: Context, rate: float, rng: np.random.Generator) -> Habit:
    errors = wrong_readings(context)
    favourite = errors.index(str(rng.choice([e for e in errors if e in STRUCTURAL] or errors)))
    odds = np.full(len(errors), (1 - FAVOURITE_SHARE) / (len(errors) - 1))
    odds[favourite] = FAVOURITE_SHARE
    probabilities = [1 - rate, *(rate * odds)]
    return Habit(("right", *errors), tuple(np.cumsum(probabilities)[:-1].tolist()))


def wrong_readings(context: Context) -> list[str]:
    """The kinds of error that change the result in a context, whatever its compound sides hold."""
    sign, left, right = context
    sides = (
        side if side in VARIABLES else Operation(side, f"{place} 1", f"{place} 2")
        for side, place in ((left, "left"), (right, "right"))
    )
    example = Operation(sign, *sides)
    form = form_of(example)
    return sorted(name for name, other in readings(example).items() if form_of(other) != form)
