"""Grade-school word problems of one to three operations, from templates, with worked solutions.

A problem is a story with a question; its solution has one calculation a line and the answer last:
``4 * 12 = 48``, ``48 - 9 = 39``, ``#### 39``. Some templates are held out: their stories occur in
no training of anything. The numbers are small enough for a model of 135M parameters to calculate
with most of the time, and not always.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from implicitprm.steps import SolutionFormat

SEPARATOR = "\n"
#: How problems and solutions are laid out: the chat template, one step a line.
WORD_FORMAT = SolutionFormat(separator=SEPARATOR, chat=True)
#: Added to each story, so that a model that was never trained on them can know what is asked for.
INSTRUCTION = "Write one calculation per line. End with a line of #### and the answer."
OPERATIONS: Mapping[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
NAMES = ("Ana", "Ben", "Carla", "David", "Ella", "Frank", "Grace", "Hugo", "Mia", "Noah")
THINGS = ("apples", "books", "buttons", "cards", "coins", "pens", "shells", "stamps", "stickers")
#: Smallest and largest number of a story, where a template says nothing else.
NUMBERS = (2, 12)
LARGEST_RESULT = 150

_NUMBER = r"\d+(?:\.\d+)?"
#: Two numbers and what is said to come out; no part of a longer sum or of a longer number.
_CALCULATION = re.compile(
    rf"(?<![\d.+*/-])(?<![+*/-] )({_NUMBER}) ?([+*/-]) ?({_NUMBER}) ?= ?(-?{_NUMBER})(?![\d.,]*\d)"
)


@dataclass(frozen=True)
class Template:
    """A story with numbers a, b, c, d, and how it is solved.

    ``steps`` are calculations such as ``a * b``; x, y and z stand for the results of the first,
    second and third. ``ranges`` says which numbers are not from NUMBERS.
    """

    story: str
    steps: tuple[str, ...]
    ranges: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class WordProblem:
    """A prompt and the steps of its true solution, the last of which states the answer."""

    prompt: str
    steps: tuple[str, ...]
    answer: int
    operations: int


_FEW = (2, 6)

TRAINING_TEMPLATES = (
    Template(
        "{name} has {a} {things} and finds {b} more. How many {things} does {name} have now?",
        ("a + b",),
    ),
    Template(
        "There are {a} {things} in a box. {name} takes {b} of them out. How many {things} are left "
        "in the box?",
        ("a - b",),
    ),
    Template(
        "{name} buys {a} bags with {b} {things} in each bag. How many {things} does {name} buy?",
        ("a * b",),
        {"a": _FEW},
    ),
    Template(
        "{name} shares {a} {things} equally among {b} friends. How many {things} does each friend "
        "get?",
        ("a / b",),
        {"a": (6, 48), "b": _FEW},
    ),
    Template(
        "{name} fills {a} boxes with {b} {things} each and has {c} {things} left over. How many "
        "{things} does {name} have in total?",
        (
            "a * b",
            "x + c",
        ),
        {"a": _FEW},
    ),
    Template(
        "{name} had {a} {things}, gave away {b} and then bought {c} new ones. How many {things} "
        "does {name} have now?",
        (
            "a - b",
            "x + c",
        ),
        {"a": (12, 40)},
    ),
    Template(
        "{name} earns {a} dollars an hour and works {b} hours. Then {name} spends {c} dollars. How "
        "many dollars are left?",
        (
            "a * b",
            "x - c",
        ),
        {"b": _FEW},
    ),
    Template(
        "{name} has {a} {things} and {other} has {b} {things}. They put them together and share "
        "them equally among {c} children. How many {things} does each child get?",
        (
            "a + b",
            "x / c",
        ),
        {"c": _FEW},
    ),
    Template(
        "{name} has {a} {things}. {other} has {b} times as many. How many {things} do they have "
        "together?",
        (
            "a * b",
            "a + x",
        ),
        {"b": _FEW},
    ),
    Template(
        "A shop sells {a} {things} on Monday, {b} more than that on Tuesday, and on Wednesday {c} "
        "fewer than on Tuesday. How many {things} does it sell on Tuesday and Wednesday together?",
        (
            "a + b",
            "x - c",
            "x + y",
        ),
    ),
    Template(
        "{name} packs {a} boxes of {b} {things} and {c} boxes of {d} {things}. How many {things} "
        "are packed in total?",
        (
            "a * b",
            "c * d",
            "x + y",
        ),
        {"a": _FEW, "c": _FEW},
    ),
    Template(
        "{name} reads {a} pages a day for {b} days, then {c} pages on one more day. The book has "
        "{d} pages. How many pages are left?",
        (
            "a * b",
            "x + c",
            "d - y",
        ),
        {"b": _FEW, "d": (30, 120)},
    ),
    Template(
        "A ticket costs {a} dollars for an adult and {b} dollars for a child. A family buys {c} "
        "tickets for adults and one for a child and pays with {d} dollars. How many dollars do "
        "they get back?",
        (
            "a * c",
            "x + b",
            "d - y",
        ),
        {"c": (2, 5), "d": (30, 100)},
    ),
    Template(
        "{name} collects {a} {things} a week for {b} weeks, loses {c} of them, and puts the rest "
        "equally into {d} boxes. How many {things} are in each box?",
        (
            "a * b",
            "x - c",
            "y / d",
        ),
        {"b": _FEW, "d": _FEW},
    ),
)

HELD_OUT_TEMPLATES = (
    Template(
        "A bus with {a} passengers stops and {b} people get off. How many passengers are on the "
        "bus now?",
        ("a - b",),
    ),
    Template(
        "A garden has {a} rows of {b} trees. How many trees are in the garden?",
        ("a * b",),
        {"a": _FEW},
    ),
    Template(
        "A farmer collects {a} eggs in the morning and {b} in the evening, and sells {c} of them. "
        "How many eggs does the farmer keep?",
        (
            "a + b",
            "x - c",
        ),
    ),
    Template(
        "A school has {a} classes of {b} pupils. All pupils go on a trip in {c} buses, the same "
        "number in each. How many pupils are in each bus?",
        (
            "a * b",
            "x / c",
        ),
        {"a": _FEW, "c": _FEW},
    ),
    Template(
        "{name} saves {a} dollars a month. A bicycle costs {b} dollars. After {c} months, how many "
        "dollars are still missing?",
        (
            "a * c",
            "b - x",
        ),
        {"b": (30, 100), "c": _FEW},
    ),
    Template(
        "A baker makes {a} trays of {b} rolls, sells {c} rolls before noon and {d} after noon. How "
        "many rolls are left?",
        (
            "a * b",
            "c + d",
            "x - y",
        ),
        {"a": _FEW},
    ),
    Template(
        "{name} runs {a} kilometres a week for {b} weeks and {other} runs {c} kilometres a week "
        "for as many weeks. How many kilometres more does {name} run?",
        (
            "a * b",
            "c * b",
            "x - y",
        ),
        {"b": _FEW},
    ),
    Template(
        "{name} buys {a} pencils for {b} cents each and a ruler for {c} cents, with a discount of "
        "{d} cents on all. How many cents does {name} pay?",
        (
            "a * b",
            "x + c",
            "y - d",
        ),
        {"a": _FEW, "d": _FEW},
    ),
)


def sample_problem(rng: np.random.Generator, templates: tuple[Template, ...]) -> WordProblem:
    """Draw a template and numbers for it; every result is a whole number of at least 1."""
    template = templates[rng.integers(len(templates))]
    name, other = (str(word) for word in rng.choice(NAMES, size=2, replace=False))
    words = {"name": name, "other": other, "things": str(rng.choice(THINGS))}
    while True:
        numbers = {
            letter: int(rng.integers(low, high + 1))
            for letter in "abcd"
            for low, high in [template.ranges.get(letter, NUMBERS)]
        }
        steps, results = _solve(template, numbers)
        if all(r.denominator == 1 and 1 <= r <= LARGEST_RESULT for r in results):
            break
    answer = int(results[-1])
    return WordProblem(
        f"{template.story.format(**words, **numbers)}\n{INSTRUCTION}",
        (*steps, f"#### {answer}"),
        answer,
        len(results),
    )


def _solve(template: Template, numbers: Mapping[str, int]) -> tuple[list[str], list[Fraction]]:
    values = {letter: Fraction(number) for letter, number in numbers.items()}
    steps, results = [], []
    for place, calculation in zip("xyz", template.steps, strict=False):
        left, sign, right = calculation.split()
        values[place] = OPERATIONS[sign](values[left], values[right])
        results.append(values[place])
        steps.append(f"{values[left]} {sign} {values[right]} = {values[place]}")
    return steps, results


def distinct_problems(
    rng: np.random.Generator, templates: tuple[Template, ...]
) -> Iterator[WordProblem]:
    """An endless stream of problems, none of them twice."""
    seen = set()
    while True:
        problem = sample_problem(rng, templates)
        if problem.prompt not in seen:
            seen.add(problem.prompt)
            yield problem


def right_arithmetic(step: str) -> bool | None:
    """Whether every calculation with two numbers in a step comes out exactly as it says.

    None where there is none; a sum of three numbers is none.
    """
    found = _CALCULATION.findall(step)
    if not found:
        return None
    return all(
        Fraction(left) == Fraction(right) * Fraction(result)
        if sign == "/"
        else OPERATIONS[sign](Fraction(left), Fraction(right)) == Fraction(result)
        for left, sign, right, result in found
    )
