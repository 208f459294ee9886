"""Soft, hard and implicit Q values: exact on languages small enough to enumerate, and sampled.

For r_θ(y) = β log π_θ(y)/π_ref(y), the running sum q^t of β log-ratios over the first t response
tokens equals β log E exp(r_θ(y)/β), where y runs over the completions of y_≤t under π_ref
(arXiv 2412.01981, Proposition 3.1), and lies between their mean and their maximum (3.2). The three
are the *implicit*, *soft* and *hard* value of the prefix y_≤t. They are values of r_θ, trained or
not, and say nothing about whether an answer is right.

Everything here is float64, in nats; rewards and values are nats times β.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import log_softmax, logsumexp, xlogy
from transformers import PreTrainedModel

Tokens = tuple[int, ...]
FloatArray = npt.NDArray[np.float64]

#: How far the probabilities of an enumeration may be from 1 in all (float32 models are at 1e-6).
NORMALISATION_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Language:
    """A distribution over token sequences that stop after ``end`` or at ``max_length`` tokens.

    ``next_logps`` gives the log-probabilities (V) of the next token after a prefix, in nats; −inf
    is a token that never comes.
    """

    next_logps: Callable[[Tokens], FloatArray]
    end: int
    max_length: int

    def is_complete(self, tokens: Tokens) -> bool:
        """Whether no token follows these."""
        return len(tokens) >= self.max_length or (len(tokens) > 0 and tokens[-1] == self.end)


@dataclass(frozen=True)
class QValues:
    """Mean, log-mean-exp and maximum of the rewards of one prefix's completions."""

    soft: float
    implicit: float
    hard: float


@dataclass(frozen=True)
class Estimate:
    """A sample mean and its standard error."""

    mean: float
    standard_error: float


def random_language(
    rng: np.random.Generator,
    vocabulary_size: int,
    max_length: int,
    *,
    concentration: float = 1.0,
    zero_share: float = 0.0,
    within: Language | None = None,
) -> Language:
    """A language with one independent Dirichlet row per prefix; the last token id is the end.

    ``zero_share`` is the chance that a token is impossible after a prefix; one always stays
    possible. With ``within``, tokens that are impossible there are impossible here too, so that
    the log-ratio of the new language to ``within`` is defined on all it can say.
    """
    end = vocabulary_size - 1
    table: dict[Tokens, FloatArray] = {}
    level: list[Tokens] = [()]
    for _ in range(max_length):
        for prefix in level:
            allowed = np.ones(vocabulary_size, dtype=bool)
            if within is not None:
                allowed = np.isfinite(within.next_logps(prefix))
            kept = allowed & (rng.random(vocabulary_size) >= zero_share)
            if not kept.any():
                kept = np.arange(vocabulary_size) == rng.choice(np.flatnonzero(allowed))
            row = np.full(vocabulary_size, -np.inf)
            row[kept] = np.log(rng.dirichlet(np.full(kept.sum(), concentration)))
            table[prefix] = row
        level = [(*prefix, token) for prefix in level for token in range(end)]
    return Language(table.__getitem__, end, max_length)


def language_of(
    model: PreTrainedModel, prompt_ids: Sequence[int], end: int, max_length: int
) -> Language:
    """The responses of a causal language model to one prompt, of at most ``max_length`` tokens.

    The model runs in its own dtype, its log-probabilities are normalised in float64. Every prefix
    costs one forward pass, which is kept: only for models with a tiny vocabulary.
    """
    if len(prompt_ids) == 0:
        raise ValueError("prompt_ids is empty: a causal model needs a token before the first one")

    @cache
    def next_logps(prefix: Tokens) -> FloatArray:
        input_ids = torch.tensor([[*prompt_ids, *prefix]], device=model.device)  # (1, T)
        with torch.no_grad():
            logits = model(input_ids=input_ids, use_cache=False).logits[0, -1]  # (V)
        return log_softmax(logits.double().cpu().numpy())

    return Language(next_logps, end, max_length)


def after(language: Language, prompt: Tokens) -> Language:
    """The language of what follows ``prompt`` in ``language``: its prefixes start after it."""
    if language.is_complete(prompt):
        raise ValueError(f"nothing follows {prompt}: it is complete")
    return Language(
        lambda prefix: language.next_logps(prompt + prefix),
        language.end,
        language.max_length - len(prompt),
    )


def with_min_p(language: Language, min_p: float) -> Language:
    """What a min-p sampler draws from: tokens below ``min_p`` times the likeliest one are dropped.

    The rest is renormalised. This is another distribution than ``language``, with less support.
    """
    if not 0 < min_p <= 1:
        raise ValueError(f"min_p must be in (0, 1], not {min_p}")

    def next_logps(prefix: Tokens) -> FloatArray:
        logps = language.next_logps(prefix)
        kept = logps >= logps.max() + np.log(min_p)
        return log_softmax(np.where(kept, logps, -np.inf))

    return Language(next_logps, language.end, language.max_length)


def tilted(reference: Language, reward: Callable[[Tokens], float], beta: float) -> Language:
    """The policy whose r_θ is ``reward`` up to a constant: π_θ(y) ∝ π_ref(y) exp(reward(y)/β).

    This is where training towards ``reward`` would end if it could reach every policy. The constant
    is −β log E_ref exp(reward/β), because a policy is normalised. ``reward`` is finite and takes a
    complete sequence.
    """

    @cache
    def value(prefix: Tokens) -> float:
        sequences, logps = completions(reference, prefix)
        return soft_implicit_hard([reward(y) for y in sequences], beta, logps).implicit

    @cache
    def next_logps(prefix: Tokens) -> FloatArray:
        logps = reference.next_logps(prefix).copy()
        for token in np.flatnonzero(np.isfinite(logps)):
            logps[token] += (value((*prefix, int(token))) - value(prefix)) / beta
        return logps

    return Language(next_logps, reference.end, reference.max_length)


def prefixes(language: Language, root: Tokens = ()) -> list[Tokens]:
    """``root`` and all that it can grow into, complete sequences included, in dictionary order."""
    return [tokens for tokens, _ in _grow(language, root)]


def completions(language: Language, prefix: Tokens) -> tuple[list[Tokens], FloatArray]:
    """All complete sequences that start with ``prefix``, and log π(sequence | prefix): (N)."""
    found = [
        (tokens, logp) for tokens, logp in _grow(language, prefix) if language.is_complete(tokens)
    ]
    return [tokens for tokens, _ in found], np.array([logp for _, logp in found])


def _grow(language: Language, prefix: Tokens, logp: float = 0.0) -> Iterator[tuple[Tokens, float]]:
    yield prefix, logp
    if language.is_complete(prefix):
        return
    row = language.next_logps(prefix)
    for token in np.flatnonzero(np.isfinite(row)):
        yield from _grow(language, (*prefix, int(token)), logp + row[token])


def implicit_q(policy: Language, reference: Language, tokens: Tokens, beta: float) -> FloatArray:
    """q^0 … q^T of a response of T tokens: the running sum of β log π_θ/π_ref, shape (T+1).

    q^0 is the empty sum. The last entry of a complete response is its reward r_θ(y).

    Raises ValueError if π_ref cannot produce ``tokens`` or if they go on after the end.
    """
    _check_beta(beta)
    ratios = [0.0]
    for t, token in enumerate(tokens):
        before = tokens[:t]
        if reference.is_complete(before):
            raise ValueError(f"{tokens} goes on after its end: {before} is complete")
        ref_logp = reference.next_logps(before)[token]
        if not np.isfinite(ref_logp):
            raise ValueError(f"token {token} after {before} has probability 0 under the reference")
        ratios.append(policy.next_logps(before)[token] - ref_logp)
    return beta * np.cumsum(ratios)


def exact_q_values(policy: Language, reference: Language, prefix: Tokens, beta: float) -> QValues:
    """Soft, implicit and hard value of ``prefix`` by enumerating its completions under π_ref.

    The implicit one is β log Σ_y π_ref(y | prefix) exp(r_θ(y)/β), an expectation over responses:
    it is computed without the running sum, which Proposition 3.1 says it equals.

    Raises ValueError where π_θ gives probability to what π_ref cannot produce: an expectation
    under π_ref does not see that part, and the proposition does not hold.
    """
    for tokens in prefixes(reference, prefix):
        if not reference.is_complete(tokens):
            impossible = ~np.isfinite(reference.next_logps(tokens))
            stray = float(np.exp(policy.next_logps(tokens)[impossible]).sum())
            if stray > 0:
                raise ValueError(
                    f"after {tokens} the policy gives probability {stray:.3g} to tokens that are "
                    "impossible under the reference"
                )
    sequences, logps = completions(reference, prefix)
    rewards = [implicit_q(policy, reference, y, beta)[-1] for y in sequences]
    return soft_implicit_hard(rewards, beta, logps)


def soft_implicit_hard(
    rewards: Sequence[float] | FloatArray,
    beta: float,
    logps: Sequence[float] | FloatArray | None = None,
) -> QValues:
    """E r, β log E exp(r/β) and max r over N rewards (N), taken as they are, whatever β made them.

    ``logps`` (N) are the log-probabilities of the completions that the rewards belong to, and must
    sum to 1 in all; those at −inf are outside the support and do not count. Without them the
    rewards are a sample and count 1/N each.

    With r fixed, the implicit value tends to the soft one as β → ∞ and to the hard one as β → 0
    (arXiv 2412.01981, Proposition 3.2).

    Raises ValueError for no rewards, a NaN or +inf among them, β ≤ 0, or weights that are no
    distribution. A reward of −inf (a completion that π_θ excludes) is allowed.
    """
    _check_beta(beta)
    r = np.asarray(rewards, dtype=np.float64)  # (N)
    if r.ndim != 1 or r.size == 0:
        raise ValueError(f"rewards must have shape (N) with N >= 1, not {r.shape}")
    if np.isnan(r).any() or np.isposinf(r).any():
        raise ValueError(f"reward {int((np.isnan(r) | np.isposinf(r)).argmax())} is NaN or +inf")
    if logps is None:
        weights = np.full(r.shape, 1 / r.size)
    else:
        weights = np.exp(np.asarray(logps, dtype=np.float64))  # (N)
        if weights.shape != r.shape:
            raise ValueError(f"{r.size} rewards but log-probabilities of shape {weights.shape}")
        if not abs(weights.sum() - 1) <= NORMALISATION_TOLERANCE:
            raise ValueError(
                f"the probabilities sum to {weights.sum():.6g}, not 1: give log π(completion | "
                "prefix) of all completions of the prefix"
            )
    r, weights = r[weights > 0], weights[weights > 0]
    return QValues(
        soft=float(weights @ r),
        implicit=float(beta * logsumexp(r / beta, b=weights)),
        hard=float(r.max()),
    )


def kl_divergence(first: Language, second: Language) -> float:
    """KL(first ‖ second) in nats, added up row by row.

    E_ref r_θ = −β KL(π_ref ‖ π_θ); this sum does not enumerate log-ratios of whole responses.
    """
    total = 0.0
    for tokens, logp in _grow(first, ()):
        if not first.is_complete(tokens):
            p = np.exp(first.next_logps(tokens))
            q = np.exp(second.next_logps(tokens))
            total += np.exp(logp) * float((xlogy(p, p) - xlogy(p, q)).sum())
    return total


def monte_carlo_value(correct: Iterable[bool]) -> Estimate:
    """True Q of a prefix, P(correct | prefix), from K sampled completions, with standard error.

    The standard error is √(p(1−p)/(K−1)); it is 0 when all K agree, which is not certainty.

    Raises ValueError for fewer than two completions or labels that are not bool or 0/1.
    """
    labels = np.asarray(list(correct))
    if labels.size < 2:
        raise ValueError(f"a standard error needs two completions or more, not {labels.size}")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"labels must be bool or 0/1, got {np.unique(labels)[:5]}")
    mean = float(labels.mean())
    return Estimate(mean, float(np.sqrt(mean * (1 - mean) / (labels.size - 1))))


def _check_beta(beta: float) -> None:
    if not (beta > 0 and np.isfinite(beta)):
        raise ValueError(f"beta must be positive and finite, not {beta}")
