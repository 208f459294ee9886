"""What is true of each instruction of a program.

An instruction is *right* if the program up to it can still become a right program in which each
variable of the task is pushed once. (Without that condition no instruction would be wrong: whatever
stands on the stack can be multiplied by ``x-x`` in the end.) Right programs are those whose result
has the same normal form as the task, so sides in another order, other groupings of a sum and
exchanged signs count as right, too.

Whether a stack can still be completed is decided without trying programs. Each value on it must be
a group of neighbours in the task: a variable, or two or more terms of one sum or factors of one
product. From the top of the stack downwards, two groups are joined by computing the smallest group
that holds both, for which everything else in that group must still be free: it can only be computed
on top of them. And the signs must come out right: a difference computed the other way round can be
set right as long as a term of the other sign is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Literal

from implicitprm.stackmachine.machine import OPERATIONS, behaviour, is_instruction, pushed
from implicitprm.stackmachine.normal import (
    Core,
    Form,
    Product,
    Sum,
    combine,
    product_core,
    push_form,
    sum_form,
)
from implicitprm.stackmachine.problems import Task, form_of

ErrorKind = Literal["push", "order", "operator", "grouping", "underflow", "end", "no program"]
ERROR_KINDS: tuple[ErrorKind, ...] = (
    "push",
    "order",
    "operator",
    "grouping",
    "underflow",
    "end",
    "no program",
)


@dataclass(frozen=True)
class Node:
    """A part of the task: a variable, or all of a sum or product.

    ``leaves`` has one bit for each variable of the task, as it occurs; ``children`` (with the signs
    of terms) are empty for a variable.
    """

    core: Core
    leaves: int
    children: tuple[tuple[int, Node], ...]

    def choose(self, chosen: Sequence[tuple[int, Node]]) -> Form:
        """The form of two or more of the children together."""
        if isinstance(self.core, Product):
            return 1, product_core(child.core for _, child in chosen)
        return sum_form((sign, child.core) for sign, child in chosen)


@dataclass(frozen=True)
class Group:
    """Where a value can belong: some children of a node, or a variable as a node of its own.

    ``sign`` is that of the group's core within the node.
    """

    node: Node
    leaves: int
    sign: int


class Target:
    """The task as a tree of sums and products, and which stacks can still be completed to it."""

    def __init__(self, task: Task):
        self.form = form_of(task.expression)
        self._next_leaf = 0
        self.root = self._tree(self.form[1])
        self.groups: dict[Core, list[Group]] = {}
        for core, group in _groups(self.root):
            self.groups.setdefault(core, []).append(group)
        self.sets = sorted(
            {group.leaves for groups in self.groups.values() for group in groups},
            key=int.bit_count,
        )

    def _tree(self, core: Core) -> Node:
        if isinstance(core, str):
            self._next_leaf += 1
            return Node(core, 1 << (self._next_leaf - 1), ())
        terms = core.terms if isinstance(core, Sum) else tuple((1, f) for f in core.factors)
        children = tuple((sign, self._tree(part)) for sign, part in terms)
        return Node(core, sum(child.leaves for _, child in children), children)

    def can_complete(self, stack: Sequence[Form]) -> bool:
        """Can some program that pushes what is left of the task go on from this stack?"""
        return any(
            self.form[0] in _signs(self.root, placed) for placed in self._placements(stack, 0, {})
        )

    def _placements(
        self, stack: Sequence[Form], covered: int, placed: Mapping[int, tuple[Group, int]]
    ) -> Iterator[Mapping[int, tuple[Group, int]]]:
        """All ways to give the values of a stack their groups, from the top downwards.

        ``covered`` are the leaves of the smallest group that holds all values above.
        """
        if not stack:
            yield placed
            return
        sign, core = stack[-1]
        for group in self.groups.get(core, ()):
            if group.leaves & covered:
                continue
            joined = next(s for s in self.sets if (group.leaves | covered) & ~s == 0)
            here = {**placed, group.leaves: (group, sign * group.sign)}
            yield from self._placements(stack[:-1], joined, here)


def _groups(node: Node) -> Iterator[tuple[Core, Group]]:
    if not node.children:
        yield node.core, Group(node, node.leaves, 1)
    for size in range(2, len(node.children) + 1):
        for chosen in combinations(node.children, size):
            sign, core = node.choose(chosen)
            yield core, Group(node, sum(child.leaves for _, child in chosen), sign)
    for _, child in node.children:
        yield from _groups(child)


def _signs(node: Node, placed: Mapping[int, tuple[Group, int]]) -> set[int]:
    """The signs with which the core of a node can be computed from the values on the stack.

    A product's sign is that of its parts together. A sum of parts of both signs comes out either
    way (``x-y`` or ``y-x``), else it has theirs: in both cases, any sign that one of them has.
    """
    if node.leaves in placed:
        return {placed[node.leaves][1]}
    if not node.children:
        return {1}
    own = [(group, sign) for group, sign in placed.values() if group.node is node]
    parts = [{sign} for _, sign in own]
    held = sum(group.leaves for group, _ in own)
    for sign, child in node.children:
        if not child.leaves & held:
            parts.append({sign * of_child for of_child in _signs(child, placed)})
    if isinstance(node.core, Sum):
        return set().union(*parts)
    signs = {1}
    for part in parts:
        signs = {a * b for a in signs for b in part}
    return signs


@dataclass(frozen=True)
class ProgramTruth:
    """What is true of each step of a program, and of the program."""

    right: tuple[bool, ...]
    #: index of the first step that is not right, −1 if there is none; no later step is right
    first_error: int
    #: what is wrong with that step
    kind: ErrorKind | None
    #: does the program pass the tests
    correct: bool

    @property
    def lucky(self) -> bool:
        """The program passes although a step is wrong."""
        return self.correct and self.first_error >= 0


@lru_cache(maxsize=4096)
def target_of(task: Task) -> Target:
    """The target of a task; the last 4,096 are kept."""
    return Target(task)


def check_program(task: Task, steps: Sequence[str], finished: bool = True) -> ProgramTruth:
    """Check every step of a program for ``task``.

    A step after ``end`` has the error ``end``, and so has the last step of a program that is right
    so far but has no ``end`` or was cut off. A program of no steps is an error.
    """
    if not steps:
        raise ValueError("a program needs at least one step")
    target = target_of(task)
    stack: tuple[Form, ...] = ()
    kind: ErrorKind | None = None
    first_error = -1
    for index, step in enumerate(steps):
        kind = "end" if "end" in steps[:index] else _error(target, stack, step)
        if kind is not None:
            first_error = index
            break
        stack = push_form(stack, step) or ()
    if kind is None and not (finished and steps[-1] == "end"):
        first_error, kind = len(steps) - 1, "end"
    n_right = len(steps) if first_error < 0 else first_error
    return ProgramTruth(
        right=tuple(index < n_right for index in range(len(steps))),
        first_error=first_error,
        kind=kind,
        correct=finished and behaviour(steps) == task.answer,
    )


def _error(target: Target, stack: Sequence[Form], step: str) -> ErrorKind | None:
    """What is wrong with a step, told by which other step would have been right; None if right."""
    if not is_instruction(step):
        return "no program"
    if step == "end":
        return None if tuple(stack) == (target.form,) else "end"
    after = push_form(stack, step)
    if after is None:
        return "underflow"
    if target.can_complete(after):
        return None
    if pushed(step) is not None:
        return "push"
    *rest, below, top = stack
    if step == "sub" and target.can_complete((*rest, combine("sub", top, below))):
        return "order"
    others = (combine(other, below, top) for other in OPERATIONS if other != step)
    if any(target.can_complete((*rest, other)) for other in others):
        return "operator"
    return "grouping"
