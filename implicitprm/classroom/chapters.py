"""The exercise at the end of each chapter: a reference, random inputs, and known mistakes."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from scipy.special import comb, logsumexp
from torch import Tensor
from torch.nn import functional as F

from implicitprm.classroom.exercise import Exercise, in_either_precision
from implicitprm.evaluation import best_of_n_accuracy, first_error, first_error_scores, pass_at_n
from implicitprm.logprobs import token_logps
from implicitprm.losses import ce_loss, kto_loss, kto_reference_point
from implicitprm.qvalues import soft_implicit_hard
from implicitprm.rewards import q_values, token_rewards
from implicitprm.selection import aggregate, majority_vote, weighted_vote

# Chapter 00: the weighted vote over answers, each scored by its worst step.


def _vote_inputs(rng: np.random.Generator) -> tuple[list[str], list[np.ndarray]]:
    """2N+1 candidates with two different answers, so that no vote ends in a tie; N from 0."""
    count = 2 * int(rng.integers(0, 5)) + 1
    answers = [str(answer) for answer in rng.choice(["12", "37"], size=count)]
    rewards = [rng.normal(0, 3, size=rng.integers(1, 6)) for _ in answers]
    return answers, [in_either_precision(rng, of_steps) for of_steps in rewards]


def _vote(answers: Sequence[str], step_rewards: Sequence[np.ndarray], how: str) -> str | None:
    return weighted_vote(answers, [aggregate(rewards, how) for rewards in step_rewards])


def _vote_without_sigmoid(answers: Sequence[str], step_rewards: Sequence[np.ndarray]) -> str:
    totals = dict.fromkeys(answers, 0.0)
    for answer, rewards in zip(answers, step_rewards, strict=True):
        totals[answer] += float(rewards.min())
    return max(totals, key=totals.__getitem__)


WEIGHTED_VOTE = Exercise(
    reference=lambda answers, rewards: _vote(answers, rewards, "min"),
    inputs=_vote_inputs,
    trials=200,  # the output is one of two answers: each trial says little
    mistakes={
        "the steps are summed, but the score of a response is its minimum step reward": (
            lambda answers, rewards: _vote(answers, rewards, "sum")
        ),
        "the steps are averaged, but the score of a response is its minimum step reward": (
            lambda answers, rewards: _vote(answers, rewards, "mean")
        ),
        "only the last step counts, but the score of a response is its minimum step reward": (
            lambda answers, rewards: _vote(answers, rewards, "last")
        ),
        "the sigmoid is missing: a vote must weigh more than 0, and scores can be negative": (
            _vote_without_sigmoid
        ),
        "every candidate has the same weight; the scores are not used": (
            lambda answers, rewards: majority_vote(answers)
        ),
        "this is the answer of the best candidate; a vote adds up the weights of equal answers": (
            lambda answers, rewards: answers[int(np.argmax([r.min() for r in rewards]))]
        ),
    },
)

# Chapter 01: token log-probabilities by hand.


def _logits_inputs(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (B, T, V), input_ids (B, T) and a mask of prompt, response and padding (B, T)."""
    batch, length, vocabulary = rng.integers(1, 4), rng.integers(6, 10), rng.integers(3, 8)
    positions = np.arange(length)
    starts = rng.integers(2, 4, size=(batch, 1))
    ends = rng.integers(5, length, size=(batch, 1))  # so that padding follows in every row
    logits = rng.normal(0, 2, size=(batch, length, vocabulary))
    return (
        torch.tensor(in_either_precision(rng, logits)),
        torch.tensor(rng.integers(0, vocabulary, size=(batch, length))),
        torch.tensor((positions >= starts) & (positions < ends)),
    )


def _all_but_first(mask: Tensor) -> Tensor:
    return (torch.arange(mask.shape[1]) > 0).expand(mask.shape)


def _unshifted(logits: Tensor, input_ids: Tensor, response_mask: Tensor) -> Tensor:
    logps = logits.log_softmax(-1).gather(-1, input_ids[..., None]).squeeze(-1)
    return logps * response_mask


def _shifted_the_wrong_way(logits: Tensor, input_ids: Tensor, response_mask: Tensor) -> Tensor:
    return _unshifted(logits.roll(-1, dims=1), input_ids, response_mask)


def _one_left(logits: Tensor, input_ids: Tensor, response_mask: Tensor) -> Tensor:
    return token_logps(logits, input_ids, response_mask).roll(-1, dims=1)


def _raw_logits(logits: Tensor, input_ids: Tensor, response_mask: Tensor) -> Tensor:
    chosen = logits.roll(1, dims=1).gather(-1, input_ids[..., None]).squeeze(-1)
    return chosen * response_mask


def _mean_over_response(logits: Tensor, input_ids: Tensor, response_mask: Tensor) -> Tensor:
    return token_logps(logits, input_ids, response_mask) / response_mask.sum(-1, keepdim=True)


TOKEN_LOGPS = Exercise(
    reference=token_logps,
    inputs=_logits_inputs,
    mistakes={
        "the shift is missing: which token do the logits at position t predict?": _unshifted,
        "the shift goes the wrong way: logits predict a later token, not an earlier one": (
            _shifted_the_wrong_way
        ),
        "the values are right but one position to the left: entry t belongs to token t": _one_left,
        "the prompt is not masked: only response tokens count": (
            lambda logits, ids, mask: token_logps(logits, ids, _all_but_first(mask))
        ),
        "these are logits; a log-probability needs the normalisation over the vocabulary": (
            _raw_logits
        ),
        "the values are divided by the length: a mean in place of a sum": _mean_over_response,
    },
)

# Chapter 02: q^t as a running sum.


def _logps_inputs(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, float]:
    """Log-probs of both models (B, T), prompt included, the response mask (B, T), and β."""
    _, _, mask = _logits_inputs(rng)
    logps = in_either_precision(rng, -rng.exponential(1, size=(2, *mask.shape)))
    policy, reference = torch.tensor(logps)
    return policy, reference, mask, float(rng.uniform(0.05, 0.8))


def _running_q(policy_logps: Tensor, ref_logps: Tensor, mask: Tensor, beta: float) -> Tensor:
    return q_values(token_rewards(policy_logps, ref_logps, beta) * mask)


Q_VALUES = Exercise(
    reference=_running_q,
    inputs=_logps_inputs,
    mistakes={
        "β is forgotten": lambda policy, ref, mask, beta: _running_q(policy, ref, mask, 1.0),
        "the prompt is not masked: q starts from 0 where the response starts": (
            lambda policy, ref, mask, beta: _running_q(policy, ref, torch.ones_like(mask), beta)
        ),
        "the mask comes after the running sum, which has counted the prompt by then": (
            lambda policy, ref, mask, beta: q_values(token_rewards(policy, ref, beta)) * mask
        ),
        "these are the rewards of single tokens: q^t is what they have added up to": (
            lambda policy, ref, mask, beta: token_rewards(policy, ref, beta) * mask
        ),
        "the log-ratio is upside down: which of the two models was trained?": (
            lambda policy, ref, mask, beta: _running_q(ref, policy, mask, beta)
        ),
        "the running sum is divided by the length: a mean in place of a sum": (
            lambda policy, ref, mask, beta: (
                _running_q(policy, ref, mask, beta) / mask.cumsum(-1).clamp(min=1)
            )
        ),
        "the reference is missing: a reward is a log-ratio of two models": (
            lambda policy, ref, mask, beta: _running_q(policy, torch.zeros_like(ref), mask, beta)
        ),
    },
)

# Chapter 03: the implicit value of a sample.


def _rewards_inputs(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """K rewards, K from 1, and a β that makes exp(r/β) overflow in some of the trials."""
    return rng.normal(0, 4, size=rng.integers(1, 12)), float(10 ** rng.uniform(-3, 1))


def _naive_implicit(rewards: np.ndarray, beta: float) -> float:
    return float(beta * np.log(np.mean(np.exp(rewards / beta))))


IMPLICIT_VALUE = Exercise(
    reference=lambda rewards, beta: soft_implicit_hard(rewards, beta).implicit,
    inputs=_rewards_inputs,
    trials=100,  # so that some inputs overflow in any run
    mistakes={
        "right for large β, but exp(r/β) overflows or underflows for small β: what can be taken "
        "out of the logarithm before the exponential?": _naive_implicit,
        "β is forgotten: it divides the rewards inside and multiplies the logarithm outside": (
            lambda rewards, beta: soft_implicit_hard(rewards, 1.0).implicit
        ),
        "the β outside the logarithm is missing": (
            lambda rewards, beta: soft_implicit_hard(rewards, beta).implicit / beta
        ),
        "this is a sum of exponentials; an expectation over K samples divides by K": (
            lambda rewards, beta: float(beta * logsumexp(rewards / beta))
        ),
        "this is the soft value, the mean of the rewards": (
            lambda rewards, beta: soft_implicit_hard(rewards, beta).soft
        ),
        "this is the hard value, the maximum of the rewards": (
            lambda rewards, beta: soft_implicit_hard(rewards, beta).hard
        ),
    },
)

# Chapter 04: which token ends which step.


def _spans_inputs(rng: np.random.Generator) -> tuple[list[tuple[int, int]], list[int]]:
    """Spans of T tokens that tile a text, and the starts of S >= 2 steps, each owning a token.

    Some steps start where a token starts, some within the token before.
    """
    count = int(rng.integers(8, 16))
    bounds = np.cumsum([0, *rng.integers(1, 5, size=count)]).tolist()
    spans = list(pairwise(bounds))
    firsts = 1 + np.sort(rng.choice(count - 1, size=rng.integers(1, 5), replace=False))
    inside = [int(rng.integers(0, spans[first][0] - spans[first - 1][0])) for first in firsts]
    starts = [spans[first][0] - back for first, back in zip(firsts, inside, strict=True)]
    return spans, [0, *starts]


def _ends_by_owner(owners: Iterable[int], step_starts: Sequence[int]) -> list[int]:
    owned = Counter(owners)
    return list(accumulate(owned[step] for step in range(len(step_starts))))


def _step_ends(spans: Sequence[tuple[int, int]], step_starts: Sequence[int]) -> list[int]:
    return _ends_by_owner((bisect_right(step_starts, start) - 1 for start, _ in spans), step_starts)


STEP_ENDS = Exercise(
    reference=_step_ends,
    inputs=_spans_inputs,
    mistakes={
        "these are the last tokens of the steps; an exclusive end is the token after it": (
            lambda spans, starts: [end - 1 for end in _step_ends(spans, starts)]
        ),
        "these are the first tokens of the steps: where does each step end?": (
            lambda spans, starts: [0, *_step_ends(spans, starts)[:-1]]
        ),
        "these are the numbers of tokens in each step; an end counts all tokens up to it": (
            lambda spans, starts: np.diff([0, *_step_ends(spans, starts)])
        ),
        "a token across a boundary is given to the step of its last character; its first counts": (
            lambda spans, starts: _ends_by_owner(
                (bisect_right(starts, end - 1) - 1 for _, end in spans), starts
            )
        ),
        "a token that ends where the next step starts is given to that step: the separator belongs "
        "to the step before it, and the end of a span is exclusive": (
            lambda spans, starts: _ends_by_owner(
                (bisect_right(starts, end) - 1 for _, end in spans), starts
            )
        ),
        "a token that starts exactly where a step starts is given to the step before": (
            lambda spans, starts: _ends_by_owner(
                (max(bisect_left(starts, start) - 1, 0) for start, _ in spans), starts
            )
        ),
        "these are characters; step ends are counted in tokens": (
            lambda spans, starts: [spans[end - 1][1] for end in _step_ends(spans, starts)]
        ),
        "the last step does not reach the last token: the end-of-turn token is part of it": (
            lambda spans, starts: [*_step_ends(spans, starts)[:-1], len(spans) - 1]
        ),
    },
)

# Chapter 05: cross-entropy on outcomes.


def _outcome_inputs(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards, labels (bool or 0/1) and weights (B), B from 1; some rewards are far from 0."""
    count = int(rng.integers(1, 7))
    far = rng.choice([-1, 1], size=count) * rng.uniform(120, 200, size=count)
    rewards = np.where(rng.random(count) < 0.3, far, rng.normal(0, 2, size=count))
    labels = torch.tensor(rng.integers(0, 2, size=count))
    return (
        torch.tensor(rewards, dtype=torch.float32),
        labels.bool() if rng.random() < 0.5 else labels,
        torch.tensor(rng.uniform(0.5, 4, size=count), dtype=torch.float32),
    )


def _ce_of_probabilities(rewards: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    p, right = rewards.sigmoid(), labels.float()
    losses = -(right * p.log() + (1 - right) * (1 - p).log())
    return (weights * losses).sum() / weights.sum()


def _ce_of_chosen_probabilities(rewards: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    p = rewards.sigmoid()
    losses = -torch.where(labels.bool(), p, 1 - p).log()
    return (weights * losses).sum() / weights.sum()


def _ce_clipped(rewards: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    losses = F.binary_cross_entropy(rewards.sigmoid(), labels.float(), reduction="none")
    return (weights * losses).sum() / weights.sum()


def _ce_of_right_responses(rewards: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    return (weights * labels * -F.logsigmoid(rewards)).sum() / weights.sum()


def _weights_inside(rewards: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    return ce_loss(weights * rewards, labels) * len(weights) / weights.sum()


CE_LOSS = Exercise(
    reference=ce_loss,
    inputs=_outcome_inputs,
    trials=40,  # so that some rewards are far on the wrong side in any run
    mistakes={
        "the minus is missing: whoever makes this number smaller makes the reward worse": (
            lambda r, labels, w: -ce_loss(r, labels, w)
        ),
        "the labels are upside down: a right response should have a small loss at a large reward": (
            lambda r, labels, w: ce_loss(-r, labels, w)
        ),
        "σ is applied twice: does your second function take a probability or a reward?": (
            lambda r, labels, w: ce_loss(r.sigmoid(), labels, w)
        ),
        "right for small rewards, but σ rounds to 0 or 1 for large ones, and 0 times an infinite "
        "logarithm is NaN: take σ and logarithm in one step": _ce_of_probabilities,
        "right for small rewards, but σ rounds to 0 or 1 for large ones, whose logarithm is "
        "infinite: take σ and logarithm in one step": _ce_of_chosen_probabilities,
        "no row has a loss above 100: the function that takes probabilities cuts the logarithm off "
        "there, and its gradient is 0 by then": _ce_clipped,
        "wrong responses have no loss: for them it is the probability of “wrong” that counts": (
            _ce_of_right_responses
        ),
        "the weights are not used": lambda r, labels, w: ce_loss(r, labels),
        "this is a weighted sum; a mean divides by something": (
            lambda r, labels, w: ce_loss(r, labels, w) * w.sum()
        ),
        "it divides by the number of rows; a weighted mean divides by the sum of the weights": (
            lambda r, labels, w: ce_loss(r, labels, w) * w.mean()
        ),
        "the weights stand inside the logarithm: they count losses, they do not scale rewards": (
            _weights_inside
        ),
    },
)

# Chapter 06: KTO from rewards.


def _kto_inputs(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards and labels (B), B from 1, and mismatched rewards (M) of either mean, M from 1."""
    count = int(rng.integers(1, 9))
    labels = rng.random(count) < 0.5
    mismatched = rng.normal(rng.choice([-1.0, 1.0]), 2.0, size=rng.integers(1, 9))
    rewards = in_either_precision(rng, rng.normal(0, 2, size=count))
    return (
        torch.tensor(rewards),
        torch.tensor(labels),
        torch.tensor(mismatched.astype(rewards.dtype)),
    )


def _kto(rewards: Tensor, labels: Tensor, mismatched: Tensor) -> Tensor:
    return kto_loss(rewards, labels, kto_reference_point(mismatched))


KTO_LOSS = Exercise(
    reference=_kto,
    inputs=_kto_inputs,
    mistakes={
        "the reference point z can be negative: a KL divergence cannot; clamp it at 0": (
            lambda rewards, labels, mismatched: kto_loss(rewards, labels, mismatched.mean())
        ),
        "the reference point is missing: z is the mean mismatched reward, at least 0": (
            lambda rewards, labels, mismatched: kto_loss(rewards, labels, torch.tensor(0.0))
        ),
        "z is the mean of these rewards, but it must come from the mismatched ones": (
            lambda rewards, labels, mismatched: kto_loss(
                rewards, labels, kto_reference_point(rewards)
            )
        ),
        "each mismatched reward is clamped before the mean; clamp the mean": (
            lambda rewards, labels, mismatched: kto_loss(
                rewards, labels, mismatched.clamp(min=0).mean()
            )
        ),
        "it is upside down: a right response loses less when its reward is high": (
            lambda rewards, labels, mismatched: _kto(rewards, ~labels, mismatched)
        ),
        "this is a sum over responses; the loss is their mean": (
            lambda rewards, labels, mismatched: _kto(rewards, labels, mismatched) * len(rewards)
        ),
        "this takes −log σ, as CE does; KTO takes 1 − σ": (
            lambda rewards, labels, mismatched: ce_loss(
                rewards - kto_reference_point(mismatched), labels
            )
        ),
    },
)

# Chapter 07: best-of-n over all subsets.


def _candidates_inputs(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
    """Scores, all different, of M candidates (M), which of them are right (M), and n < M."""
    count = int(rng.integers(4, 10))
    correct = rng.random(count) < 0.5
    correct[:2] = True, False
    return rng.normal(0, 2, size=count), rng.permutation(correct), int(rng.integers(2, count))


def _by_rank(
    chance: Callable[[np.ndarray, int, int], np.ndarray],
) -> Callable[[np.ndarray, np.ndarray, int], float]:
    """The sum over right candidates of ``chance(rank, n, M)``, ranks from 1 for the lowest."""

    def accuracy(scores: np.ndarray, correct: np.ndarray, n: int) -> float:
        rank = scores.argsort().argsort() + 1
        return float(chance(rank, n, len(scores))[correct].sum())

    return accuracy


def _best_of_n(scores: np.ndarray, correct: np.ndarray, n: int) -> float:
    return float(best_of_n_accuracy(scores[None], correct[None], n)[0])


BEST_OF_N = Exercise(
    reference=_best_of_n,
    inputs=_candidates_inputs,
    trials=40,
    mistakes={
        "candidates are drawn with replacement: (k/M)^n counts sets that hold one of them twice": (
            _by_rank(lambda k, n, m: (k / m) ** n - ((k - 1) / m) ** n)
        ),
        "the ranks are upside down: the highest score wins, not the lowest": (
            lambda scores, correct, n: _best_of_n(-scores, correct, n)
        ),
        "the first n candidates are one subset; this is asked over all of them": (
            lambda scores, correct, n: float(correct[scores[:n].argmax()])
        ),
        "this is the best of all candidates: n plays no part": (
            lambda scores, correct, n: float(correct[scores.argmax()])
        ),
        "this is the share of right candidates: the scores play no part": (
            lambda scores, correct, n: float(correct.mean())
        ),
        "this is the oracle, the chance that a right one is among the n; it also has to win": (
            lambda scores, correct, n: float(pass_at_n(correct[None], n)[0])
        ),
        "C(k, n)/C(M, n) is the chance that the winner is among the k lowest; the chance that it "
        "has rank k is less": _by_rank(lambda k, n, m: comb(k, n) / comb(m, n)),
        "the winner is one of the n: the n − 1 others come from the k − 1 lower ones": (
            _by_rank(lambda k, n, m: comb(k - 1, n) / comb(m, n))
        ),
    },
)

# Chapter 08: AutoPSV's labels.


def _confidence_inputs(rng: np.random.Generator) -> tuple[np.ndarray, float, float]:
    """Confidence after each step (S from 1), the share of right solutions, a threshold below 0."""
    confidence = rng.uniform(0.02, 0.98, size=int(rng.integers(1, 9)))
    return (
        in_either_precision(rng, confidence),
        float(rng.uniform(0.3, 0.9)),
        float(rng.uniform(-0.7, -0.3)),
    )


def _autopsv(change: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[..., np.ndarray]:
    """Labels where ``change(before, after)`` below the threshold makes all that follows wrong."""

    def labels(confidence: np.ndarray, prior: float, threshold: float) -> np.ndarray:
        before = np.concatenate([[prior], confidence[:-1]])
        return ~np.logical_or.accumulate(change(before, confidence) < threshold)

    return labels


_autopsv_labels = _autopsv(lambda before, after: (after - before) / before)


def _autopsv_each(confidence: np.ndarray, prior: float, threshold: float) -> np.ndarray:
    before = np.concatenate([[prior], confidence[:-1]])
    return (confidence - before) / before >= threshold


def _autopsv_first_free(confidence: np.ndarray, prior: float, threshold: float) -> np.ndarray:
    return _autopsv_labels(confidence, float(confidence[0]), threshold)


AUTOPSV_LABELS = Exercise(
    reference=_autopsv_labels,
    inputs=_confidence_inputs,
    trials=40,
    mistakes={
        "the change is absolute: divide it by the confidence before the step": (
            _autopsv(lambda before, after: after - before)
        ),
        "it is divided by the confidence after the step: relative to what it was before": (
            _autopsv(lambda before, after: (after - before) / after)
        ),
        "the steps after a wrong one count as right again: they stand on a wrong state": (
            _autopsv_each
        ),
        "the first step can never be wrong: its change is measured from the prior": (
            _autopsv_first_free
        ),
        "the labels are upside down: True is a step that is right": (
            lambda confidence, prior, threshold: ~_autopsv_labels(confidence, prior, threshold)
        ),
        "this compares the confidence itself with a level; AutoPSV looks at its change": (
            lambda confidence, prior, threshold: confidence >= 0.5
        ),
    },
)

# Chapter 09: how many instructions give a pair.


def _pass_rate_inputs(rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Pass rates of some instructions (P), some of them 0 or 1, and a number of responses."""
    rates = rng.uniform(0.05, 0.95, size=int(rng.integers(3, 9)))
    rates[0], rates[1] = 0.0, 1.0
    return rng.permutation(rates), int(rng.integers(1, 9))


def _with_pair(pass_rates: np.ndarray, responses: int) -> float:
    return float((1 - pass_rates**responses - (1 - pass_rates) ** responses).sum())


INSTRUCTIONS_WITH_PAIR = Exercise(
    reference=_with_pair,
    inputs=_pass_rate_inputs,
    trials=40,
    mistakes={
        "an instruction whose responses are all right has no pair either": (
            lambda pass_rates, responses: float((1 - (1 - pass_rates) ** responses).sum())
        ),
        "an instruction whose responses are all wrong has no pair either": (
            lambda pass_rates, responses: float((1 - pass_rates**responses).sum())
        ),
        "this is the number of pairs; an instruction with several pairs counts once": (
            lambda pass_rates, responses: float(
                (responses * (responses - 1) * pass_rates * (1 - pass_rates)).sum()
            )
        ),
        "this is the share of the instructions: how many are there?": (
            lambda pass_rates, responses: _with_pair(pass_rates, responses) / len(pass_rates)
        ),
        "the chance of an average instruction is not the average chance: add them up": (
            lambda pass_rates, responses: (
                len(pass_rates) * _with_pair(np.array([pass_rates.mean()]), responses)
            )
        ),
        "this is the chance of a pair among two responses: more of them find one more often": (
            lambda pass_rates, responses: _with_pair(pass_rates, 2)
        ),
        "these are the instructions that give none": (
            lambda pass_rates, responses: len(pass_rates) - _with_pair(pass_rates, responses)
        ),
    },
)

# Chapter 10: step rewards against a uniform reference.


def _policy_steps_inputs(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int, float]:
    """log π_θ of each step (S) in nats, its tokens (S), the size of the vocabulary, and β."""
    steps = int(rng.integers(1, 8))
    logps = in_either_precision(rng, -rng.exponential(2.0, size=steps))
    tokens = rng.permutation(np.arange(2, 2 + steps))
    return logps, tokens, int(rng.integers(20, 200)), float(rng.uniform(0.02, 0.5))


def _uniform_rewards(
    logps: np.ndarray, tokens: np.ndarray, vocabulary: int, beta: float
) -> np.ndarray:
    return beta * (logps + tokens * np.log(vocabulary))


UNIFORM_REWARDS = Exercise(
    reference=_uniform_rewards,
    inputs=_policy_steps_inputs,
    trials=40,
    mistakes={
        "each token of a step has log π_ref = −log V: count the tokens": (
            lambda logps, tokens, vocabulary, beta: beta * (logps + np.log(vocabulary))
        ),
        "log π_ref is below 0, and it is subtracted: mind the sign": (
            lambda logps, tokens, vocabulary, beta: beta * (logps - tokens * np.log(vocabulary))
        ),
        "β multiplies the whole ratio, the reference's part too": (
            lambda logps, tokens, vocabulary, beta: beta * logps + tokens * np.log(vocabulary)
        ),
        "every step got the tokens of the whole solution": (
            lambda logps, tokens, vocabulary, beta: (
                beta * (logps + tokens.sum() * np.log(vocabulary))
            )
        ),
        "this is log π_θ alone: the uniform reference has a log-probability too": (
            lambda logps, tokens, vocabulary, beta: beta * logps
        ),
        "this is the mean per token; a reward adds up its tokens": (
            lambda logps, tokens, vocabulary, beta: beta * (logps / tokens + np.log(vocabulary))
        ),
        "these are probabilities of tokens, 1/V each: take the logarithm": (
            lambda logps, tokens, vocabulary, beta: beta * (logps - tokens / vocabulary)
        ),
    },
)

# Chapter 15: what an interval says.


def _interval_inputs(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """Low and high ends of K intervals (K), in points, and the margin that counts as nothing."""
    margin, count = float(rng.uniform(0.5, 2.0)), int(rng.integers(1, 9))
    low = rng.uniform(-2.5, 1.5, size=count) * margin
    return low, low + rng.uniform(0.2, 3.0, size=count) * margin, margin


def _finding(
    effect: Callable[..., np.ndarray], nothing: Callable[..., np.ndarray]
) -> Callable[..., np.ndarray]:
    """An effect where ``effect`` says so, otherwise none where ``nothing`` says so."""

    def finding(low: np.ndarray, high: np.ndarray, margin: float) -> np.ndarray:
        rest = np.where(nothing(low, high, margin), "no effect", "undecided")
        return np.where(effect(low, high, margin), "effect", rest)

    return finding


def _beside_0(low: np.ndarray, high: np.ndarray, margin: float) -> np.ndarray:
    return (low > 0) | (high < 0)


def _within_margin(low: np.ndarray, high: np.ndarray, margin: float) -> np.ndarray:
    return (low >= -margin) & (high <= margin)


INTERVAL_FINDING = Exercise(
    reference=_finding(_beside_0, _within_margin),
    inputs=_interval_inputs,
    trials=60,
    mistakes={
        "an interval that holds 0 does not show that there is no effect: it may hold 5, too": (
            _finding(_beside_0, lambda low, high, margin: high >= low)
        ),
        "this asks only whether the middle is small; the ends must be within the margin": (
            _finding(_beside_0, lambda low, high, margin: abs(low + high) / 2 <= margin)
        ),
        "an interval above 0 and within the margin: a small effect is an effect": (
            _finding(
                lambda low, high, margin: (
                    _beside_0(low, high, margin) & ~_within_margin(low, high, margin)
                ),
                _within_margin,
            )
        ),
        "an interval below 0 shows an effect as well": (
            _finding(lambda low, high, margin: low > 0, _within_margin)
        ),
    },
)

# Chapter 11: the first-error F1, solutions without an error included.


def _f1_inputs(rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray, float]:
    """6 to 15 solutions, a third without an error (−1); some steps are exactly at the threshold."""
    count, threshold = int(rng.integers(6, 16)), -1.0
    first_errors = np.where(np.arange(count) % 3 == 0, -1, rng.integers(0, 5, size=count))
    rewards = []
    for first in first_errors:
        of_steps = rng.integers(-2, 4, size=first + int(rng.integers(3, 6))) / 2  # -1 to 1.5
        if first >= 0:
            of_steps[first] = rng.choice([-2.5, -1.5, 0.5])
        if rng.random() < 0.3:
            of_steps[rng.integers(len(of_steps))] = -2.0
        rewards.append(of_steps)
    # What tells the mistakes apart: a step at the threshold, a lower step later, a later step.
    rewards[0] = np.array([-1.0, 0.5, 1.0])
    for solution, (at, later) in ((1, (-1.5, -3.0)), (2, (-3.0, -1.5))):
        first = first_errors[solution]
        rewards[solution] = np.array([*[0.5] * first, at, later, 0.0])
    return rewards, first_errors, threshold


def _first_below(rewards: Sequence[np.ndarray], threshold: float) -> np.ndarray:
    return np.array([first_error(of_steps, threshold) for of_steps in rewards])


def _first_error_f1(
    find: Callable[[Sequence[np.ndarray], float], np.ndarray],
) -> Callable[..., float]:
    """F1 of the predictions that ``find`` makes of step rewards and a threshold."""

    def f1(rewards: Sequence[np.ndarray], first_errors: np.ndarray, threshold: float) -> float:
        return first_error_scores(find(rewards, threshold), first_errors).f1

    return f1


def _lowest_below(rewards: Sequence[np.ndarray], threshold: float) -> np.ndarray:
    return np.array([r.argmin() if r.min() < threshold else -1 for r in rewards])


def _last_below(rewards: Sequence[np.ndarray], threshold: float) -> np.ndarray:
    return np.array([max(np.flatnonzero(r < threshold), default=-1) for r in rewards])


def _not_above(rewards: Sequence[np.ndarray], threshold: float) -> np.ndarray:
    return _first_below(rewards, float(np.nextafter(threshold, np.inf)))


def _found_at_all(rewards: Any, first_errors: np.ndarray, threshold: float) -> float:
    found = np.minimum(_first_below(rewards, threshold), 0)
    return first_error_scores(found, np.minimum(first_errors, 0)).f1


def _shares(rewards: Any, first_errors: np.ndarray, threshold: float) -> np.ndarray:
    scores = first_error_scores(_first_below(rewards, threshold), first_errors)
    return np.array([scores.error_accuracy, scores.correct_accuracy])


FIRST_ERROR_F1 = Exercise(
    reference=_first_error_f1(_first_below),
    inputs=_f1_inputs,
    trials=40,
    mistakes={
        "the lowest step is not always the first one below the threshold": (
            _first_error_f1(_lowest_below)
        ),
        "this takes the last step below the threshold": _first_error_f1(_last_below),
        "a step exactly at the threshold is not below it": _first_error_f1(_not_above),
        "it asks whether an error was found; the protocol asks whether it was found in its place": (
            _found_at_all
        ),
        "the solutions without an error (-1) are left out: they are the other half of the F1": (
            lambda rewards, first, threshold: _shares(rewards, first, threshold)[0]
        ),
        "the two shares are averaged; F1 is their harmonic mean": (
            lambda rewards, first, threshold: _shares(rewards, first, threshold).mean()
        ),
        "this is the share of all solutions; each kind has a share of its own": (
            lambda rewards, first, threshold: np.mean(_first_below(rewards, threshold) == first)
        ),
    },
)

# Chapter 12: the credit that a response's outcome gives it.


def _reward_inputs(rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Rewards of G·K responses (B), each group together, and K; G from 1."""
    groups, size = int(rng.integers(1, 6)), int(rng.integers(2, 6))
    return in_either_precision(rng, rng.random(groups * size)), size


def _by_group(credit: Callable[[np.ndarray, int], np.ndarray]) -> Callable[..., np.ndarray]:
    """Credit of rewards in groups (G, K), as a row (B)."""

    def of_all(rewards: np.ndarray, group_size: int) -> np.ndarray:
        return credit(rewards.reshape(-1, group_size), group_size).ravel()

    return of_all


def _others(groups: np.ndarray) -> np.ndarray:
    return groups.sum(1, keepdims=True) - groups


def _groups_apart(rewards: np.ndarray, group_size: int) -> np.ndarray:
    columns = rewards.reshape(group_size, -1).T  # (G, K)
    return (columns - _others(columns) / (group_size - 1)).T.ravel()


RLOO_ADVANTAGES = Exercise(
    reference=_by_group(lambda groups, size: groups - _others(groups) / (size - 1)),
    inputs=_reward_inputs,
    mistakes={
        "the response itself is in its baseline: only the others belong there": (
            _by_group(lambda groups, _: groups - groups.mean(1, keepdims=True))
        ),
        "the responses to a prompt stand next to each other, not a stride apart": _groups_apart,
        "there are K - 1 others, and their sum is divided by K": (
            _by_group(lambda groups, size: groups - _others(groups) / size)
        ),
        "the sign is turned: a response better than the others gets a positive advantage": (
            _by_group(lambda groups, size: _others(groups) / (size - 1) - groups)
        ),
        "these are the rewards as they are: nothing is subtracted": (
            lambda rewards, group_size: rewards
        ),
        "the baseline is one of the whole batch: other prompts are easier or harder": (
            lambda rewards, group_size: rewards - (rewards.sum() - rewards) / (len(rewards) - 1)
        ),
        "this divides by the group's standard deviation too, as GRPO does": (
            _by_group(
                lambda groups, _: (
                    (groups - groups.mean(1, keepdims=True)) / groups.std(1, keepdims=True)
                )
            )
        ),
    },
)

# Chapter 13: what a training run keeps of the model on each device.


def _training_inputs(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
    """Sizes of some tensors of weights (M), which of them are trained (M), and processes."""
    count = int(rng.integers(3, 9))
    trained = rng.permutation(np.arange(count) < rng.integers(1, count))  # some, not all
    return 100 * rng.integers(1, 100, size=count), trained, int(rng.integers(2, 9))


def _training_bytes(
    weights: float = 4, frozen: float = 4, states: float = 12
) -> Callable[[np.ndarray, np.ndarray, int], float]:
    """Bytes on each device, of ``weights`` and ``states`` of what is trained, and of the rest."""

    def on_each_device(sizes: np.ndarray, trained: np.ndarray, processes: int) -> float:
        return float((sizes * np.where(trained, weights + states, frozen)).sum() / processes)

    return on_each_device


def _weights_whole(sizes: np.ndarray, trained: np.ndarray, processes: int) -> float:
    return float(4 * sizes.sum() + 12 * sizes[trained].sum() / processes)


def _states_whole(sizes: np.ndarray, trained: np.ndarray, processes: int) -> float:
    return float(4 * sizes.sum() / processes + 12 * sizes[trained].sum())


TRAINING_MEMORY = Exercise(
    reference=_training_bytes(),
    inputs=_training_inputs,
    mistakes={
        "AdamW is forgotten: it keeps something of every parameter that it trains": (
            _training_bytes(states=4)
        ),
        "one number is missing for each trained parameter: it has a gradient, and AdamW keeps a "
        "mean of the gradients and one of their squares": _training_bytes(states=8),
        "frozen weights have no gradients: only what is trained has": _training_bytes(frozen=8),
        "AdamW keeps nothing of frozen weights: it knows what it trains": (
            _training_bytes(frozen=12)
        ),
        "frozen weights have neither gradients nor moments": _training_bytes(frozen=16),
        "frozen weights are on the device too: every forward pass needs them": (
            _training_bytes(frozen=0)
        ),
        "these are bf16's bytes: autocast computes in it, while the weights and all that updates "
        "them stay in float32": _training_bytes(2, 2, 6),
        "the weights are in float32 too: what autocast makes in bf16 are copies of them": (
            _training_bytes(2, 2, 12)
        ),
        "nothing is divided: a process holds its share of all of it": (
            lambda sizes, trained, processes: _training_bytes()(sizes, trained, 1)
        ),
        "the weights are divided among the processes too (ZeRO stage 3)": _weights_whole,
        "gradients and moments are divided among the processes too": _states_whole,
    },
)

# Chapter 14: what it costs to score the candidates of one prompt that is read once.


def _candidate_lengths(rng: np.random.Generator) -> tuple[int, np.ndarray, int]:
    """Tokens of a prompt, of 5 to 14 responses (N), and a batch size that leaves a last batch."""
    batch_size = int(rng.integers(2, 5))
    count = batch_size * int(rng.integers(2, 4)) + int(rng.integers(1, batch_size))
    return int(rng.integers(20, 200)), rng.integers(3, 60, size=count), batch_size


def _tokens_read(
    per_batch: Callable[[list[int], Sequence[int], int], int],
    once: int = -1,
    longest_first: bool = True,
) -> Callable[[int, np.ndarray, int], int]:
    """Tokens of the prompt, all but one, and what ``per_batch`` says of each batch.

    ``per_batch`` gets the lengths of the batch, those of all responses, and the batch size.
    """

    def tokens(prompt: int, responses: np.ndarray, batch_size: int) -> int:
        lengths = [int(length) for length in responses]
        order = sorted(lengths, reverse=True) if longest_first else lengths
        batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        return prompt + once + sum(per_batch(batch, lengths, batch_size) for batch in batches)

    return tokens


def _prompt_each_time(prompt: int, responses: np.ndarray, batch_size: int) -> int:
    without = _tokens_read(lambda batch, *_: len(batch) * max(batch), once=0)
    return without(0, responses, batch_size) + len(responses) * (prompt - 1)


TOKENS_READ = Exercise(
    reference=_tokens_read(lambda batch, *_: len(batch) * max(batch)),
    inputs=_candidate_lengths,
    mistakes={
        "every candidate reads the whole prompt again; it is read once": _prompt_each_time,
        "the pass over the prompt stops before its last token, which every candidate reads": (
            _tokens_read(lambda batch, *_: len(batch) * max(batch), once=0)
        ),
        "the batches are in the order of the list; responses of like length go together": (
            _tokens_read(lambda batch, *_: len(batch) * max(batch), longest_first=False)
        ),
        "padding is read too: every row of a batch is as long as the longest": (
            _tokens_read(lambda batch, *_: sum(batch))
        ),
        "a batch is padded to its own longest response, not to the longest of all": (
            _tokens_read(lambda batch, lengths, _: len(batch) * max(lengths))
        ),
        "the last batch has fewer rows than the others": (
            _tokens_read(lambda batch, _, batch_size: batch_size * max(batch))
        ),
        "the last token of a response is not read: nothing is predicted after it": (
            _tokens_read(lambda batch, *_: len(batch) * (max(batch) + 1))
        ),
        "the last token of the prompt is missing: it predicts the first one of a response": (
            _tokens_read(lambda batch, *_: len(batch) * (max(batch) - 1))
        ),
    },
)

#: Every exercise of the chapters by the name of the function that the learner writes.
EXERCISES: dict[str, Exercise] = {
    "weighted_vote": WEIGHTED_VOTE,
    "token_logps": TOKEN_LOGPS,
    "q_values": Q_VALUES,
    "implicit_value": IMPLICIT_VALUE,
    "step_ends": STEP_ENDS,
    "ce_loss": CE_LOSS,
    "kto_loss": KTO_LOSS,
    "best_of_n": BEST_OF_N,
    "autopsv_labels": AUTOPSV_LABELS,
    "uniform_rewards": UNIFORM_REWARDS,
    "instructions_with_pair": INSTRUCTIONS_WITH_PAIR,
    "interval_finding": INTERVAL_FINDING,
    "first_error_f1": FIRST_ERROR_F1,
    "rloo_advantages": RLOO_ADVANTAGES,
    "training_memory": TRAINING_MEMORY,
    "tokens_read": TOKENS_READ,
}
