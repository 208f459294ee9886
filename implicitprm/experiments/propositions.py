"""Chapters 02 and 03: ``python -m implicitprm.experiments.propositions`` (seconds).

Propositions 3.1 and 3.2 on random toy languages, by enumeration: how far the running sum is from
the log-mean-exp of the rewards of all completions, and in how many prefixes each bound is broken.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import typer

from implicitprm.experiments.store import save_result
from implicitprm.qvalues import (
    Language,
    exact_q_values,
    implicit_q,
    prefixes,
    random_language,
)

LANGUAGES = 20
VOCABULARY = 4
MAX_LENGTH = 4
BETAS = (0.1, 1.0, 10.0)
#: Rewards are sums of a few logarithms: what double precision leaves of an equality.
EQUAL = 1e-9


def check_language(policy: Language, reference: Language, beta: float) -> dict[str, float]:
    """Every prefix of one pair of languages, the complete ones too.

    ``gap`` is the largest distance between q^t and β log E exp(r/β), divided by β; the other
    entries count prefixes: below the soft value, above the hard one, and below the soft value as
    the paper prints it, with the expectation given y_<t in place of y_≤t.
    """
    found: dict[str, float] = dict.fromkeys(("prefixes", "gap", "below", "above", "as printed"), 0)
    slack = EQUAL * beta
    for prefix in prefixes(reference):
        q = float(implicit_q(policy, reference, prefix, beta)[-1])
        values = exact_q_values(policy, reference, prefix, beta)
        found["prefixes"] += 1
        found["gap"] = max(found["gap"], abs(q - values.implicit) / beta)
        found["below"] += q < values.soft - slack
        found["above"] += q > values.hard + slack
        if prefix:
            before = exact_q_values(policy, reference, prefix[:-1], beta)
            found["as printed"] += q < before.soft - slack
    return found


def check(seed: int, beta: float) -> dict[str, Any]:
    """One pair of random languages; a fifth of the tokens are impossible."""
    rng = np.random.default_rng(seed)
    reference = random_language(rng, VOCABULARY, MAX_LENGTH, zero_share=0.2)
    policy = random_language(rng, VOCABULARY, MAX_LENGTH, within=reference)
    found = check_language(policy, reference, beta)
    return {"seed": seed, "beta": beta} | {
        name: value if name == "gap" else int(value) for name, value in found.items()
    }


def main() -> None:
    """Check both propositions and write the result file."""
    start = time.perf_counter()
    config = {
        "languages": LANGUAGES,
        "vocabulary": VOCABULARY,
        "max_length": MAX_LENGTH,
        "betas": BETAS,
    }
    cells = [check(seed, beta) for seed in range(LANGUAGES) for beta in BETAS]
    save_result(
        "propositions",
        "python -m implicitprm.experiments.propositions",
        config,
        cells,
        EQUAL,
        time.perf_counter() - start,
    )


if __name__ == "__main__":
    typer.run(main)
