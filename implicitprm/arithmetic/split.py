"""Which facts and which problems a PRM may learn from, and which are kept for tests.

Knowing that a step is wrong may be knowledge of its fact or a skill that carries over to facts
never seen. To tell these apart, the split is by problem and by fact: *unseen* facts, a tenth of
all and of the misconceptions, occur in no solution that a PRM is trained on.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from implicitprm.arithmetic.problems import FACTS, Fact, Problem, sample_problem
from implicitprm.arithmetic.tutor import Tutor

UNSEEN_SHARE = 0.1


def unseen_facts(tutor: Tutor, seed: int = 0) -> frozenset[Fact]:
    """The facts that are kept from every PRM, drawn among misconceptions and others alike."""
    rng = np.random.default_rng(seed)
    misconceptions = sorted(tutor.misconceptions)
    others = sorted(set(FACTS) - tutor.misconceptions)
    return frozenset(
        group[index]
        for group in (misconceptions, others)
        for index in rng.permutation(len(group))[: round(UNSEEN_SHARE * len(group))]
    )


def uses_any(problem: Problem, facts: frozenset[Fact]) -> bool:
    """Does the true solution of a problem use one of these facts?"""
    return not facts.isdisjoint(problem.facts)


def split_problems(
    sizes: dict[str, tuple[int, bool]], unseen: frozenset[Fact], seed: int
) -> dict[str, list[Problem]]:
    """Draw disjoint sets of problems.

    ``sizes`` maps a name to the number of problems and whether their true solutions use an unseen
    fact (True) or none (False).
    """
    problems: dict[str, list[Problem]] = {name: [] for name in sizes}
    stream = _distinct_problems(np.random.default_rng(seed))
    while any(len(problems[name]) < size for name, (size, _) in sizes.items()):
        problem = next(stream)
        kind = uses_any(problem, unseen)
        for name, (size, wanted) in sizes.items():
            if wanted == kind and len(problems[name]) < size:
                problems[name].append(problem)
                break
    return problems


def _distinct_problems(rng: np.random.Generator) -> Iterator[Problem]:
    drawn: set[Problem] = set()
    while True:
        problem = sample_problem(rng)
        if problem not in drawn:
            drawn.add(problem)
            yield problem
