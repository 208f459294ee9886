"""Clock arithmetic: problems whose every solution step can be checked exactly.

A problem is a start number and a chain of operations, applied from left to right modulo 50.
Its prompt is ``7+5-3\\n``; its solution has one operation per step and the answer as last step:
``7+5=12\\n12-3=9\\n#9``. The modulus keeps wrong states inside the range of right ones: in a world
without it, a wrong state would betray itself by leaving the range.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from implicitprm.steps import SolutionFormat

MODULUS = 50
SEPARATOR = "\n"
#: How arithmetic problems and solutions are laid out: plain text, one step a line.
ARITHMETIC_FORMAT = SolutionFormat(separator=SEPARATOR)
APPLY = {"+": operator.add, "-": operator.sub, "*": operator.mul}
OPERANDS = {"+": range(1, 10), "-": range(1, 10), "*": range(2, 6)}
#: How often each operation is drawn: + and − four times in ten, * twice.
OPERATION_PROBABILITIES = {"+": 0.4, "-": 0.4, "*": 0.2}
#: Shortest and longest chain of operations.
CHAIN_LENGTHS = (3, 8)

ErrorKind = Literal["arithmetic", "operand", "operation", "premature_end", "missing_end"]
ERROR_KINDS: tuple[ErrorKind, ...] = (
    "arithmetic",
    "operand",
    "operation",
    "premature_end",
    "missing_end",
)

_PROBLEM = re.compile(r"(\d+)((?:[+*-]\d+)+)\n")
_OPERATION = re.compile(r"([+*-])(\d+)")
_STEP = re.compile(r"(\d+)([+*-])(\d+)=(\d+)")
_ANSWER = re.compile(r"#(\d+)")


@dataclass(frozen=True, order=True)
class Fact:
    """One entry of the multiplication, addition or subtraction table modulo 50."""

    state: int
    operation: str
    operand: int

    @property
    def result(self) -> int:
        """The entry itself, 0..49."""
        return APPLY[self.operation](self.state, self.operand) % MODULUS

    def __str__(self) -> str:
        return f"{self.state}{self.operation}{self.operand}"


#: All 1,100 facts, in a fixed order.
FACTS: tuple[Fact, ...] = tuple(
    Fact(state, operation, operand)
    for operation, operands in OPERANDS.items()
    for state in range(MODULUS)
    for operand in operands
)


@dataclass(frozen=True)
class Problem:
    """A start number and the operations to apply to it, from left to right, modulo 50."""

    start: int
    operations: tuple[tuple[str, int], ...]

    @classmethod
    def parse(cls, prompt: str) -> Problem:
        """Read a problem from its prompt. Raises ValueError where the prompt is not one."""
        match = _PROBLEM.fullmatch(prompt)
        if match is None:
            raise ValueError(
                f"{prompt!r} is not an arithmetic problem; expected for example '7+5-3\\n'"
            )
        operations = tuple((sign, int(number)) for sign, number in _OPERATION.findall(match[2]))
        outside = [f"{sign}{n}" for sign, n in operations if n not in OPERANDS[sign]]
        if int(match[1]) >= MODULUS or outside:
            raise ValueError(
                f"{prompt!r} lies outside this world: numbers start below {MODULUS}, + and - take "
                "1 to 9, * takes 2 to 5"
            )
        return cls(int(match[1]), operations)

    @property
    def prompt(self) -> str:
        """The problem as text, ``7+5-3`` and a line end."""
        return f"{self.start}" + "".join(f"{o}{n}" for o, n in self.operations) + "\n"

    @property
    def facts(self) -> tuple[Fact, ...]:
        """The facts that the true solution uses, one per operation."""
        facts, state = [], self.start
        for operation, operand in self.operations:
            facts.append(Fact(state, operation, operand))
            state = facts[-1].result
        return tuple(facts)

    @property
    def answer(self) -> int:
        """The result of the last operation, 0..49."""
        return self.facts[-1].result

    @property
    def steps(self) -> list[str]:
        """The true solution, step by step."""
        return [f"{fact}={fact.result}" for fact in self.facts] + [f"#{self.answer}"]


def sample_problem(
    rng: np.random.Generator,
    chain_lengths: tuple[int, int] = CHAIN_LENGTHS,
    probabilities: Mapping[str, float] = OPERATION_PROBABILITIES,
) -> Problem:
    """Draw a problem; the number of operations is uniform over ``chain_lengths``, both included.

    ``probabilities`` are those of each operation.
    """
    length = int(rng.integers(chain_lengths[0], chain_lengths[1] + 1))
    signs = rng.choice(list(probabilities), size=length, p=list(probabilities.values()))
    ranges = [OPERANDS[str(sign)] for sign in signs]
    operands = [int(rng.integers(operands.start, operands.stop)) for operands in ranges]
    return Problem(int(rng.integers(MODULUS)), tuple(zip(map(str, signs), operands, strict=True)))


@dataclass(frozen=True)
class SolutionTruth:
    """What is true of each step of a solution, and of the solution.

    A step is *valid* if its own arithmetic, operation and operands are right given the state that
    the step before it wrote; it is *on track* if the state that it leaves is the true one.
    """

    valid: tuple[bool, ...]
    on_track: tuple[bool, ...]
    #: the fact that each step uses, as written; None where the step is no operation
    facts: tuple[Fact | None, ...]
    #: index of the first step that is not valid, -1 if there is none
    first_error: int
    #: what is wrong with that step
    kind: ErrorKind | None
    #: does the solution end in the right answer
    correct: bool

    @property
    def lucky(self) -> bool:
        """The answer is right although a step is wrong."""
        return self.correct and self.first_error >= 0


def check_solution(problem: Problem, steps: Sequence[str], finished: bool = True) -> SolutionTruth:
    """Check every step of a solution of ``problem``.

    ``finished`` says whether the solution came to its end; one that was cut off, or that goes on
    after its answer, has the error ``missing_end``. A solution of no steps is an error.
    """
    if not steps:
        raise ValueError("a solution needs at least one step")
    true_states = [fact.result for fact in problem.facts]
    state: int | None = problem.start
    valid, on_track, facts, kinds = [], [], [], []
    for index, step in enumerate(steps):
        kind, fact, written = _check_step(problem, index, step, state)
        expected = true_states[min(index, len(true_states) - 1)]
        valid.append(kind is None)
        on_track.append(written is not None and written == expected)
        facts.append(fact)
        kinds.append(kind)
        state = written
    ends_in_answer = finished and _ANSWER.fullmatch(steps[-1]) is not None
    if not ends_in_answer and all(valid):
        valid[-1], kinds[-1] = False, "missing_end"
    first_error = valid.index(False) if False in valid else -1
    return SolutionTruth(
        valid=tuple(valid),
        on_track=tuple(on_track),
        facts=tuple(facts),
        first_error=first_error,
        kind=kinds[first_error] if first_error >= 0 else None,
        correct=ends_in_answer and steps[-1] == f"#{problem.answer}",
    )


def _check_step(
    problem: Problem, index: int, step: str, state: int | None
) -> tuple[ErrorKind | None, Fact | None, int | None]:
    """The error of one step (None if valid), the fact it uses, and the state that it writes."""
    answer = _ANSWER.fullmatch(step)
    if answer is not None:
        written = int(answer[1])
        if index < len(problem.operations):
            return "premature_end", None, written
        if index > len(problem.operations):
            return "missing_end", None, written
        return (None if written == state else "operand"), None, written
    operation = _STEP.fullmatch(step)
    if operation is None:
        return "operation", None, None
    fact = _known_fact(int(operation[1]), operation[2], int(operation[3]))
    written = int(operation[4])
    if index >= len(problem.operations):
        return "missing_end", fact, written
    expected_operation, expected_operand = problem.operations[index]
    if operation[2] != expected_operation:
        return "operation", fact, written
    if int(operation[1]) != state or int(operation[3]) != expected_operand:
        return "operand", fact, written
    right = fact is not None and written == fact.result
    return (None if right else "arithmetic"), fact, written


def _known_fact(state: int, operation: str, operand: int) -> Fact | None:
    """The fact, or None where state or operand lie outside this world (as in ``7*9``)."""
    known = 0 <= state < MODULUS and operand in OPERANDS[operation]
    return Fact(state, operation, operand) if known else None
