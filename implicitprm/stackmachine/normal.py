"""One form for equal expressions, and the stack of forms that a program builds.

Two expressions have the same form if the laws of commutativity and associativity and the rules of
signs turn one into the other: ``x-(y-z)``, ``x+z-y`` and ``z-(y-x)`` are one form. Distributivity
is not used: ``x*(y+z)`` and ``x*y+x*z`` are two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from implicitprm.stackmachine.machine import OPERATIONS, pushed


@dataclass(frozen=True)
class Sum:
    """Terms with their signs, ordered by term; the first sign is +1."""

    terms: tuple[tuple[int, Core], ...]


@dataclass(frozen=True)
class Product:
    """Factors in a fixed order."""

    factors: tuple[Core, ...]


#: A variable, or a sum or product of several parts.
Core = str | Sum | Product
#: A sign, +1 or −1, and what it stands before.
Form = tuple[int, Core]


def sum_form(terms: Iterable[Form]) -> Form:
    """The form of a sum of at least two terms, none of them a sum."""
    ordered = sorted(terms, key=lambda term: repr(term[1]))
    sign = ordered[0][0]
    return sign, Sum(tuple((sign * own, core) for own, core in ordered))


def product_core(factors: Iterable[Core]) -> Core:
    """The core of a product of at least two factors, none of them a product."""
    return Product(tuple(sorted(factors, key=repr)))


def combine(instruction: str, below: Form, top: Form) -> Form:
    """What ``add``, ``sub`` or ``mul`` makes of the two topmost values."""
    if instruction == "mul":
        return below[0] * top[0], product_core([*_factors(below[1]), *_factors(top[1])])
    subtracted = -top[0] if instruction == "sub" else top[0]
    return sum_form([*_terms(below), *_terms((subtracted, top[1]))])


def _factors(core: Core) -> tuple[Core, ...]:
    return core.factors if isinstance(core, Product) else (core,)


def _terms(form: Form) -> list[Form]:
    sign, core = form
    return [(sign * own, term) for own, term in core.terms] if isinstance(core, Sum) else [form]


def push_form(stack: Sequence[Form], instruction: str) -> tuple[Form, ...] | None:
    """The stack of forms after an instruction; None where the machine would fail."""
    variable = pushed(instruction)
    if variable is not None:
        return (*stack, (1, variable))
    if len(stack) < 2 or instruction not in (*OPERATIONS, "swap"):
        return None
    *rest, below, top = stack
    if instruction == "swap":
        return (*rest, top, below)
    return (*rest, combine(instruction, below, top))
