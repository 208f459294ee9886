"""The stack machine: its instructions, how a program runs, and what a run against tests says.

A program is a list of instructions, one a step: ``push x`` puts the value of a variable on the
stack, ``add``, ``sub`` and ``mul`` replace the two topmost values by one (``sub`` takes the topmost
from the one below it), ``swap`` exchanges the two topmost values, and ``end`` gives the result, for
which exactly one value must be left. Values are numbers modulo 50.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence

import numpy as np

from implicitprm.steps import SolutionFormat

MODULUS = 50
VARIABLES = ("t", "u", "v", "w", "x", "y", "z")
#: Instruction → what it computes, and the sign that means the same in a task.
OPERATIONS = {"add": operator.add, "sub": operator.sub, "mul": operator.mul}
INSTRUCTION_OF = {"+": "add", "-": "sub", "*": "mul"}
SIGN_OF = {instruction: sign for sign, instruction in INSTRUCTION_OF.items()}
SEPARATOR = "\n"
#: How tasks and programs are laid out: plain text, one instruction a line.
PROGRAM_FORMAT = SolutionFormat(separator=SEPARATOR)

_PUSH = re.compile(f"push ([{''.join(VARIABLES)}])")

Assignment = Mapping[str, int]
#: What every program is tried on: eight assignments of the variables, the same for all tasks.
TESTS: tuple[Assignment, ...] = tuple(
    dict(zip(VARIABLES, map(int, values), strict=True))
    for values in np.random.default_rng(0).integers(MODULUS, size=(8, len(VARIABLES)))
)


class ProgramError(ValueError):
    """A program that gives no result, and at which of its steps it failed."""

    def __init__(self, step: int, reason: str):
        super().__init__(f"step {step}: {reason}")
        self.step = step


def pushed(instruction: str) -> str | None:
    """The variable that an instruction pushes; None for any other text."""
    match = _PUSH.fullmatch(instruction)
    return match[1] if match else None


def is_instruction(text: str) -> bool:
    """Whether the machine knows this instruction."""
    return pushed(text) is not None or text in OPERATIONS or text in ("swap", "end")


def run(program: Sequence[str], variables: Assignment) -> int:
    """The result of a program, 0..49.

    Raises ProgramError for a text that is no instruction, an instruction that finds too few values,
    an ``end`` with another number of values than one, and a program whose only ``end`` is not its
    last step.
    """
    stack: list[int] = []
    for step, instruction in enumerate(program):
        if instruction == "end":
            if len(stack) != 1:
                raise ProgramError(step, f"{len(stack)} values left, not one")
            if step != len(program) - 1:
                raise ProgramError(step + 1, "instructions after the end")
            return stack[0]
        variable = pushed(instruction)
        if variable is not None:
            stack.append(variables[variable] % MODULUS)
            continue
        if not is_instruction(instruction):
            raise ProgramError(step, f"{instruction!r} is no instruction")
        if len(stack) < 2:
            raise ProgramError(step, f"{instruction} needs two values, found {len(stack)}")
        top, below = stack.pop(), stack.pop()
        if instruction == "swap":
            stack += [top, below]
        else:
            stack.append(OPERATIONS[instruction](below, top) % MODULUS)
    raise ProgramError(len(program), "no end")


def behaviour(program: Sequence[str]) -> str | None:
    """The results on all TESTS, such as ``12;3;...``; None for a program that fails on them.

    Two programs agree if they behave alike: this is the *answer* on which a vote over programs is
    taken, as votes over code are. A program that gives no result gives no answer.
    """
    try:
        return ";".join(str(run(program, variables)) for variables in TESTS)
    except ProgramError:
        return None
