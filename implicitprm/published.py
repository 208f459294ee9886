"""Implicit PRMs that others published: how each reads a solution, as data.

A published model scores rightly only in the format that it was trained with. Each entry says where
its facts come from; to add a model, add an entry. The published scripts find step ends by
tokenising prefixes again; here they are read from offsets, as everywhere in this package
(tests/test_published.py measures the difference).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from implicitprm.rewards import ImplicitPRM
from implicitprm.selection import aggregate
from implicitprm.steps import SolutionFormat

#: Solutions as all of them were trained on: "Step 1: …", a blank line, "Step 2: …".
NUMBERED_STEPS = SolutionFormat(separator="\n\n", chat=True, step_prefix="Step {k}: ")


@dataclass(frozen=True)
class PublishedPRM:
    """A published implicit PRM.

    ``policy`` and ``reference`` are hub ids. ``beta`` is the coefficient of the published scoring
    script, which is not the β of training. ``best_of_n`` is the way its authors make one score of
    the step rewards, one of
    :data:`~implicitprm.selection.AGGREGATIONS`. ``sources`` says where each fact stands.
    """

    policy: str
    reference: str
    beta: float
    best_of_n: str
    sources: tuple[str, ...]
    format: SolutionFormat = NUMBERED_STEPS

    def response_score(self, step_rewards: Sequence[float] | np.ndarray) -> float:
        """The authors' score of a whole response from its step rewards (S)."""
        return aggregate(step_rewards, self.best_of_n)


_EURUS_CARD = (
    "model card: steps numbered and joined by a blank line, coef 0.001, reference; "
    "for ProcessBench eval/process_eval.sh of PRIME-RL/ImplicitPRM has coef 0.005 and "
    "Qwen2.5-7B-Instruct"
)
_IMPLICIT_SCRIPTS = (
    "PRIME-RL/ImplicitPRM, eval/bon_eval.py: steps, separator, coefficient 0.001, min over steps",
    "eval/bon_eval.sh: reference",
    "arXiv 2412.01981 §4: min over steps",
)
#: Name → entry; the name is the last part of the policy's hub id.
PUBLISHED: dict[str, PublishedPRM] = {
    "EurusPRM-Stage1": PublishedPRM(
        policy="PRIME-RL/EurusPRM-Stage1",
        reference="Qwen/Qwen2.5-Math-7B-Instruct",
        beta=0.001,
        best_of_n="min",
        sources=(_EURUS_CARD, 'model card: "the minimum reward across all steps"'),
    ),
    "EurusPRM-Stage2": PublishedPRM(
        policy="PRIME-RL/EurusPRM-Stage2",
        reference="Qwen/Qwen2.5-Math-7B-Instruct",
        beta=0.001,
        # Accumulated up to the last step, the step rewards are their sum.
        best_of_n="sum",
        sources=(_EURUS_CARD, 'model card: "the accumulative rewards"'),
    ),
    "ImplicitPRM_DPO": PublishedPRM(
        policy="Windy0822/ImplicitPRM_DPO",
        reference="meta-llama/Llama-3.1-8B-Instruct",
        beta=0.001,
        best_of_n="min",
        sources=_IMPLICIT_SCRIPTS,
    ),
    "ImplicitPRM_CE": PublishedPRM(
        policy="Windy0822/ImplicitPRM_CE",
        reference="meta-llama/Llama-3.1-8B-Instruct",
        beta=0.001,
        best_of_n="min",
        sources=_IMPLICIT_SCRIPTS,
    ),
}


def published_prm(name: str) -> PublishedPRM:
    """An entry of PUBLISHED. Raises ValueError, naming those there are, for an unknown name."""
    if name not in PUBLISHED:
        raise ValueError(f"no published PRM {name!r}; there are {', '.join(PUBLISHED)}")
    return PUBLISHED[name]


def load_published(
    name: str,
    *,
    policy: str | None = None,
    reference: str | None = None,
    dtype: str | torch.dtype | None = None,
) -> ImplicitPRM:
    """Load a published PRM by name, to score in its own format.

    ``policy`` and ``reference`` are folders or hub ids to load the two models from in place of the
    entry's, such as a local copy. ``dtype`` as in
    :func:`implicitprm.rewards.load_causal_lm`.

    Raises ValueError for an unknown name and where ``ImplicitPRM.from_pretrained`` does.
    """
    entry = published_prm(name)
    return ImplicitPRM.from_pretrained(
        policy or entry.policy,
        reference or entry.reference,
        beta=entry.beta,
        format=entry.format,
        dtype=dtype,
    )
