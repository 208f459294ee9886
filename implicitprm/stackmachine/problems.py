"""Tasks for the stack machine: an expression to compute, such as ``x+y*(z-t)``."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from implicitprm.stackmachine.machine import (
    INSTRUCTION_OF,
    SEPARATOR,
    VARIABLES,
    behaviour,
)
from implicitprm.stackmachine.normal import Form, combine

SIGN_PROBABILITIES = {"+": 0.35, "-": 0.35, "*": 0.3}
#: Fewest and most operators of a task.
SIZES = (3, 5)
_SIGNS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*"}
_PRECEDENCE = {"+": 1, "-": 1, "*": 2}


@dataclass(frozen=True)
class Operation:
    """One operator of an expression with what stands on its two sides."""

    sign: str
    left: Expression
    right: Expression


#: A variable, or an operation.
Expression = str | Operation


def parse(text: str) -> Expression:
    """Read an expression with the usual precedence. Raises ValueError for any other text."""
    allowed = {*VARIABLES, *INSTRUCTION_OF, "(", ")"}
    try:
        if not set(text) <= allowed:
            raise SyntaxError
        return _read(ast.parse(text, mode="eval").body)
    except SyntaxError:
        raise ValueError(
            f"{text!r} is no expression of {', '.join(VARIABLES)} with + - * and parentheses"
        ) from None


def _read(node: ast.expr) -> Expression:
    if isinstance(node, ast.Name) and node.id in VARIABLES:
        return node.id
    if isinstance(node, ast.BinOp) and type(node.op) in _SIGNS:
        return Operation(_SIGNS[type(node.op)], _read(node.left), _read(node.right))
    raise SyntaxError


def write(expression: Expression) -> str:
    """The text of an expression, with the parentheses that :func:`parse` needs and no other."""
    if isinstance(expression, str):
        return expression
    level = _PRECEDENCE[expression.sign]
    left, right = (
        f"({write(part)})" if _level(part) < needed else write(part)
        for part, needed in ((expression.left, level), (expression.right, level + 1))
    )
    return f"{left}{expression.sign}{right}"


def _level(expression: Expression) -> int:
    return 3 if isinstance(expression, str) else _PRECEDENCE[expression.sign]


def compile_expression(expression: Expression) -> list[str]:
    """The plain program: left side, right side, operator (without ``end``)."""
    if isinstance(expression, str):
        return [f"push {expression}"]
    sides = [*compile_expression(expression.left), *compile_expression(expression.right)]
    return [*sides, INSTRUCTION_OF[expression.sign]]


def form_of(expression: Expression) -> Form:
    """The one form of all expressions that are equal to this one."""
    if isinstance(expression, str):
        return 1, expression
    left, right = form_of(expression.left), form_of(expression.right)
    return combine(INSTRUCTION_OF[expression.sign], left, right)


@dataclass(frozen=True)
class Task:
    """An expression for which a program is to be written."""

    expression: Expression

    @classmethod
    def parse(cls, prompt: str) -> Task:
        """Read a task from its prompt. Raises ValueError where the prompt is not one."""
        if not prompt.endswith(SEPARATOR):
            raise ValueError(f"{prompt!r} is no task: it does not end in a line end")
        return cls(parse(prompt.removesuffix(SEPARATOR)))

    @property
    def prompt(self) -> str:
        """The expression as text, and a line end."""
        return write(self.expression) + SEPARATOR

    @property
    def steps(self) -> list[str]:
        """One right program; others compute the sides in another order."""
        return [*compile_expression(self.expression), "end"]

    @cached_property
    def answer(self) -> str:
        """What a right program gives on the tests."""
        found = behaviour(self.steps)
        assert found is not None
        return found


def sample_task(rng: np.random.Generator, sizes: tuple[int, int] = SIZES) -> Task:
    """Draw a task; the number of operators is uniform over ``sizes``, both included.

    Every variable occurs once at most, and any split of the operators between two sides is as
    likely as any other.
    """
    size = int(rng.integers(sizes[0], sizes[1] + 1))
    variables = iter(rng.permutation(VARIABLES).tolist())
    return Task(_sample(rng, size, variables))


def _sample(rng: np.random.Generator, size: int, variables: Iterator[str]) -> Expression:
    if size == 0:
        return next(variables)
    sign = str(rng.choice(list(SIGN_PROBABILITIES), p=list(SIGN_PROBABILITIES.values())))
    left = int(rng.integers(size))
    sides = (_sample(rng, part, variables) for part in (left, size - 1 - left))
    return Operation(sign, *sides)


def distinct_tasks(rng: np.random.Generator) -> Iterator[Task]:
    """Tasks of which no two have the same right programs."""
    drawn = set()
    while True:
        task = sample_task(rng)
        form = form_of(task.expression)
        if form not in drawn:
            drawn.add(form)
            yield task
