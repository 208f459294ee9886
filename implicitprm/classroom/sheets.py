"""The code exercises of the sheets: a reference, random inputs, and known mistakes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby, product

import numpy as np
import torch
from scipy.special import comb, expit, log_expit, logsumexp

from implicitprm.classroom.exercise import Exercise, in_either_precision
from implicitprm.comparisons.math_shepherd import hard_labels, soft_labels
from implicitprm.evaluation import auroc, pass_at_n
from implicitprm.reinforce.terms import discounted_returns, subtract_process_baseline
from implicitprm.rewards import sum_by_step

# Sheet 00: the answer of the best candidate.


def _candidates(rng: np.random.Generator) -> tuple[list[str], list[np.ndarray]]:
    """N candidates, N from 1, with different answers, and the rewards of 1 to 6 steps of each."""
    count = int(rng.integers(1, 9))
    answers = [str(answer) for answer in rng.choice(50, size=count, replace=False)]
    rewards = [rng.normal(0, 3, size=rng.integers(1, 7)) for _ in answers]
    return answers, [in_either_precision(rng, of_steps) for of_steps in rewards]


def _best_by(score: Callable[[np.ndarray], float]) -> Callable[..., str]:
    return lambda answers, rewards: answers[int(np.argmax([score(r) for r in rewards]))]


BEST_ANSWER = Exercise(
    reference=_best_by(np.min),
    inputs=_candidates,
    trials=40,
    mistakes={
        "the steps are summed, but the score of a solution is its lowest step reward": (
            _best_by(np.sum)
        ),
        "the steps are averaged, but the score of a solution is its lowest step reward": (
            _best_by(np.mean)
        ),
        "only the last step counts, but the score of a solution is its lowest step reward": (
            _best_by(lambda rewards: rewards[-1])
        ),
        "this looks at the highest step of each solution: one good step would hide a wrong one": (
            _best_by(np.max)
        ),
        "this is the worst candidate: a high score is a good one": _best_by(lambda r: -r.min()),
    },
)

# Sheet 01: step rewards from log-probabilities.

StepInputs = tuple[np.ndarray, np.ndarray, list[int], float]


def _step_inputs(rng: np.random.Generator) -> StepInputs:
    """Log-probs of T response tokens under both models (T), step ends (S), and β."""
    tokens_per_step = rng.integers(1, 5, size=int(rng.integers(1, 6)))
    ends = np.cumsum(tokens_per_step).tolist()
    policy, reference = in_either_precision(rng, -rng.exponential(1, size=(2, ends[-1])))
    return policy, reference, ends, float(rng.uniform(0.05, 0.8))


def _rewards_of_steps(
    policy: np.ndarray, reference: np.ndarray, ends: Sequence[int], beta: float
) -> np.ndarray:
    return sum_by_step(beta * (policy - reference), ends)


def _without_last_tokens(
    policy: np.ndarray, reference: np.ndarray, ends: Sequence[int], beta: float
) -> np.ndarray:
    ratio = beta * (policy - reference)
    ratio[np.array(ends) - 1] = 0
    return sum_by_step(ratio, ends)


STEP_REWARDS = Exercise(
    reference=_rewards_of_steps,
    inputs=_step_inputs,
    mistakes={
        "β is forgotten": lambda p, r, ends, beta: _rewards_of_steps(p, r, ends, 1.0),
        "the tokens of a step are averaged; its reward is their sum": (
            lambda p, r, ends, beta: _rewards_of_steps(p, r, ends, beta) / np.diff([0, *ends])
        ),
        "these are sums from the start, q after each step; a step counts its own tokens": (
            lambda p, r, ends, beta: _rewards_of_steps(p, r, ends, beta).cumsum()
        ),
        "the last token of each step is missing: an end is exclusive": _without_last_tokens,
        "the log-ratio is upside down: which of the two models was trained?": (
            lambda p, r, ends, beta: _rewards_of_steps(r, p, ends, beta)
        ),
        "the reference is missing: a reward is a log-ratio of two models": (
            lambda p, r, ends, beta: _rewards_of_steps(p, 0 * r, ends, beta)
        ),
    },
)

# Sheet 02: q as an expectation over completions.


def _completion_inputs(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """Rewards of all K completions (K), their probabilities under π_ref (K), and β."""
    count = int(rng.integers(1, 8))
    rewards = in_either_precision(rng, rng.normal(0, 1, count))
    return rewards, rng.dirichlet(np.ones(count)), float(rng.uniform(0.2, 2))


def _q_by_expectation(rewards: np.ndarray, ref_probs: np.ndarray, beta: float) -> float:
    return float(beta * logsumexp(rewards / beta, b=ref_probs))


Q_BY_EXPECTATION = Exercise(
    reference=_q_by_expectation,
    inputs=_completion_inputs,
    mistakes={
        "this is the expected reward, the soft value: where is the exponential?": (
            lambda rewards, probs, beta: float(probs @ rewards)
        ),
        "every completion counts 1/K; an expectation weighs them by their probability": (
            lambda rewards, probs, beta: _q_by_expectation(
                rewards, np.full_like(probs, 1 / len(probs)), beta
            )
        ),
        "the probabilities are not used: this is a sum over completions": (
            lambda rewards, probs, beta: float(beta * logsumexp(rewards / beta))
        ),
        "β is forgotten: it divides the rewards inside and multiplies the logarithm outside": (
            lambda rewards, probs, beta: _q_by_expectation(rewards, probs, 1.0)
        ),
        "the β outside the logarithm is missing": (
            lambda rewards, probs, beta: _q_by_expectation(rewards, probs, beta) / beta
        ),
        "the rewards are not divided by β inside the exponential": (
            lambda rewards, probs, beta: float(beta * logsumexp(rewards, b=probs))
        ),
    },
)

# Sheet 03: the expected maximum of a sample.


def _sample_inputs(rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Rewards of M equally likely completions (M), and the size k of a sample of them."""
    count = int(rng.integers(3, 9))
    return in_either_precision(rng, rng.normal(0, 2, count)), int(rng.integers(1, count))


def _expected_max(rewards: np.ndarray, k: int) -> float:
    at_most = np.arange(len(rewards) + 1) / len(rewards)
    return float(np.sort(rewards) @ np.diff(at_most**k))


def _without_replacement(rewards: np.ndarray, k: int) -> float:
    at_most = comb(np.arange(len(rewards) + 1), k) / comb(len(rewards), k)
    return float(np.sort(rewards) @ np.diff(at_most))


EXPECTED_MAX = Exercise(
    reference=_expected_max,
    inputs=_sample_inputs,
    trials=40,
    mistakes={
        "this draws without replacement; each of the k draws can give any of the M": (
            _without_replacement
        ),
        "this is the maximum over all completions; a sample need not contain it": (
            lambda rewards, k: float(rewards.max())
        ),
        "this is the mean, what a single draw gives: k plays no part": (
            lambda rewards, k: float(rewards.mean())
        ),
        "the first k completions are one sample; the mean over all samples is asked": (
            lambda rewards, k: float(rewards[:k].max())
        ),
        "this is the expected minimum of a sample": lambda rewards, k: -_expected_max(-rewards, k),
    },
)

# Sheet 04: equal completions are one row with a count.


def _completions(rng: np.random.Generator) -> tuple[list[str]]:
    """6 to 14 completions, some equal and seldom next to each other; the first is not the least."""
    count = int(rng.integers(6, 15))
    return (["b", "a", "b", *rng.choice(["d", "b", "c", "a"], size=count).tolist()],)


MERGED_COUNTS = Exercise(
    reference=lambda completions: list(Counter(completions).values()),
    inputs=_completions,
    mistakes={
        "only neighbours are merged: equal completions need not stand together": (
            lambda completions: [len(list(run)) for _, run in groupby(completions)]
        ),
        "the counts are in alphabetical order; the order first drawn is asked": (
            lambda completions: [count for _, count in sorted(Counter(completions).items())]
        ),
        "the counts are in order of size; the order first drawn is asked": (
            lambda completions: sorted(Counter(completions).values(), reverse=True)
        ),
        "each completion is counted once: how often was it drawn?": (
            lambda completions: [1] * len(set(completions))
        ),
        "there is one count per completion drawn; one per different completion is asked": (
            lambda completions: [completions.count(completion) for completion in completions]
        ),
    },
)

# Sheet 05: the gradient of the cross-entropy.


def _labelled_rewards(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rewards (B) and labels 0 or 1 (B), B from 1."""
    labels = rng.integers(0, 2, size=int(rng.integers(1, 8)))
    return in_either_precision(rng, rng.normal(0, 2, size=len(labels))), labels


def _ce_gradient(rewards: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return (expit(rewards) - labels) / len(labels)


CE_GRADIENT = Exercise(
    reference=_ce_gradient,
    inputs=_labelled_rewards,
    mistakes={
        "the sign is wrong: a step against the gradient raises the reward of a right response": (
            lambda rewards, labels: -_ce_gradient(rewards, labels)
        ),
        "the loss is a mean over the batch, so its gradient is divided by B as well": (
            lambda rewards, labels: _ce_gradient(rewards, labels) * len(labels)
        ),
        "the labels are upside down: a right response far above 0 has next to no gradient": (
            lambda rewards, labels: _ce_gradient(rewards, 1 - labels)
        ),
        "the reward itself stands where its sigmoid belongs": (
            lambda rewards, labels: (rewards - labels) / len(labels)
        ),
        "wrong responses have no gradient: their rewards must fall": (
            lambda rewards, labels: np.where(labels == 1, _ce_gradient(rewards, labels), 0)
        ),
    },
)

# Sheet 06: DPO over all pairs of an instruction.


def _pair_inputs(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rewards (N) and labels (N, bool) of one instruction: a right and a wrong one at least."""
    labels = rng.random(int(rng.integers(2, 9))) < 0.5
    labels[:2] = True, False
    rewards = in_either_precision(rng, rng.normal(0, 2, size=len(labels)))
    return rewards, rng.permutation(labels)


def _differences(rewards: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Right minus wrong, over all pairs."""
    return (rewards[labels][:, None] - rewards[~labels][None, :]).ravel()


def _zipped_pairs(rewards: np.ndarray, labels: np.ndarray) -> float:
    pairs = zip(rewards[labels], rewards[~labels], strict=False)
    return float(np.mean([-log_expit(right - wrong) for right, wrong in pairs]))


DPO_OVER_PAIRS = Exercise(
    reference=lambda rewards, labels: float(-log_expit(_differences(rewards, labels)).mean()),
    inputs=_pair_inputs,
    mistakes={
        "this is a sum over the pairs; their mean is asked": (
            lambda rewards, labels: float(-log_expit(_differences(rewards, labels)).sum())
        ),
        "the pairs are upside down: the right response's reward comes first": (
            lambda rewards, labels: float(-log_expit(-_differences(rewards, labels)).mean())
        ),
        "each right response meets one wrong one; all pairs are asked": _zipped_pairs,
        "this compares the mean rewards: take the loss of each pair, then the mean": (
            lambda rewards, labels: float(-log_expit(_differences(rewards, labels).mean()))
        ),
        "the minus is missing": (
            lambda rewards, labels: float(log_expit(_differences(rewards, labels)).mean())
        ),
        "the logarithm is missing: this is the mean chance that a pair is the wrong way round": (
            lambda rewards, labels: float(expit(-_differences(rewards, labels)).mean())
        ),
    },
)

# Sheet 07: the oracle, pass@n.


def _drawn_inputs(rng: np.random.Generator) -> tuple[int, int, int]:
    """How many of ``total`` candidates are right, ``total``, and n; n wrong ones there may be."""
    total = int(rng.integers(5, 20))
    return int(rng.integers(1, total)), total, int(rng.integers(2, total))


def _pass_at_n(right: int, total: int, n: int) -> float:
    return float(pass_at_n((np.arange(total) < right)[None], n)[0])


PASS_AT_N = Exercise(
    reference=_pass_at_n,
    inputs=_drawn_inputs,
    trials=60,
    mistakes={
        "candidates are drawn with replacement; the n are different ones": (
            lambda right, total, n: 1 - (1 - right / total) ** n
        ),
        "this is the chance that none of the n is right": (
            lambda right, total, n: 1 - _pass_at_n(right, total, n)
        ),
        "this is the chance that all n are right; one right one is enough": (
            lambda right, total, n: float(comb(right, n) / comb(total, n))
        ),
        "this is the share of right candidates: n plays no part": (
            lambda right, total, n: right / total
        ),
    },
)

# Sheet 08: labels from completions.


def _completion_outcomes(rng: np.random.Generator) -> tuple[np.ndarray]:
    """Whether each of K completions after each of S steps reached the right answer (S, K)."""
    steps, completions = int(rng.integers(3, 8)), int(rng.integers(1, 8))
    right = rng.random((steps, completions)) < rng.random((steps, 1))
    right[0, :], right[1, :] = True, False
    right[2, :] = np.arange(completions) == completions - 1
    return (right,)


def _soft_and_hard(right: np.ndarray) -> np.ndarray:
    return np.stack([soft_labels(right), hard_labels(right)])


SOFT_AND_HARD = Exercise(
    reference=_soft_and_hard,
    inputs=_completion_outcomes,
    mistakes={
        "the hard label asks for all completions to be right; one is enough": (
            lambda right: np.stack([right.mean(1), right.all(1)])
        ),
        "the hard label is the majority of the completions; one right one is enough": (
            lambda right: np.stack([right.mean(1), right.mean(1) > 0.5])
        ),
        "the first completion alone decides the hard label": (
            lambda right: np.stack([right.mean(1), right[:, 0]])
        ),
        "the two rows are exchanged: soft first": lambda right: _soft_and_hard(right)[::-1],
        "the soft label counts the right completions; their share is asked": (
            lambda right: np.stack([right.sum(1), right.any(1)])
        ),
    },
)

# Sheet 09: how many different responses to expect.


def _response_probabilities(rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Probabilities of the K possible responses (K), K from 1, and how many are drawn."""
    probs = rng.dirichlet(np.ones(int(rng.integers(1, 9))))
    return in_either_precision(rng, probs), int(rng.integers(1, 12))


EXPECTED_DISTINCT = Exercise(
    reference=lambda probs, n: float((1 - (1 - probs) ** n).sum()),
    inputs=_response_probabilities,
    mistakes={
        "this adds up the chances that all n draws are the same response": (
            lambda probs, n: float((probs**n).sum())
        ),
        "these are the responses that are expected to be missing": (
            lambda probs, n: float(((1 - probs) ** n).sum())
        ),
        "this takes all responses for equally likely": (
            lambda probs, n: float(len(probs) * (1 - (1 - 1 / len(probs)) ** n))
        ),
        "this is the largest number there could be: a likely response is drawn again and again": (
            lambda probs, n: float(min(n, len(probs)))
        ),
        "this counts draws, equal ones too": lambda probs, n: float((n * probs).sum()),
    },
)

# Sheet 10: the loss of the second stage, on step labels.


def _labelled_steps(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Step rewards (S) and labels +1 or −1 (S) of one solution, S from 1."""
    labels = rng.choice([-1, 1], size=int(rng.integers(1, 9)))
    return in_either_precision(rng, rng.normal(0, 2, size=len(labels))), labels


STEP_LABEL_LOSS = Exercise(
    reference=lambda rewards, labels: float(-log_expit(labels * rewards).mean()),
    inputs=_labelled_steps,
    mistakes={
        "this takes |r|, as the paper prints it: a wrong sign of the reward would cost nothing": (
            lambda rewards, labels: float(-log_expit(labels * abs(rewards)).mean())
        ),
        "this is a sum; the loss divides by the number of steps": (
            lambda rewards, labels: float(-log_expit(labels * rewards).sum())
        ),
        "wrong steps have no loss: their label is −1, not 0": (
            lambda rewards, labels: float(np.where(labels > 0, -log_expit(rewards), 0).mean())
        ),
        "the labels are not used: every reward is pushed up": (
            lambda rewards, labels: float(-log_expit(rewards).mean())
        ),
        "this is the loss of the whole solution: take each step's, then the mean": (
            lambda rewards, labels: float(-log_expit((labels * rewards).sum()))
        ),
        "the minus is missing": lambda rewards, labels: float(log_expit(labels * rewards).mean()),
    },
)

# Sheet 11: AUROC of steps.


def _two_samples(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rewards of right steps (R) and of wrong steps (W), on a grid, so that some are equal."""
    right = rng.integers(-1, 4, size=int(rng.integers(1, 9))) / 2
    wrong = rng.integers(-3, 2, size=int(rng.integers(1, 7))) / 2
    right[0] = wrong[0] = 0.5
    return in_either_precision(rng, right), in_either_precision(rng, wrong)


def _auroc(right: np.ndarray, wrong: np.ndarray) -> float:
    labels = np.arange(len(right) + len(wrong)) < len(right)
    return auroc(np.concatenate([right, wrong]), labels)


def _share_of_pairs(wins: Callable[[float, float], float]) -> Callable[..., float]:
    return lambda right, wrong: float(np.mean([wins(r, w) for r, w in product(right, wrong)]))


STEP_AUROC = Exercise(
    reference=_auroc,
    inputs=_two_samples,
    mistakes={
        "a tie counts as lost; it counts a half": _share_of_pairs(lambda r, w: r > w),
        "a tie counts as won; it counts a half": _share_of_pairs(lambda r, w: r >= w),
        "it is upside down: a right step should have the higher reward": (
            lambda right, wrong: 1 - _auroc(right, wrong)
        ),
        "this compares signs of rewards; compare each right step with each wrong one": (
            lambda right, wrong: float(np.mean([*(right > 0), *(wrong <= 0)]))
        ),
        "this is the difference of the means; a chance is between 0 and 1": (
            lambda right, wrong: float(right.mean() - wrong.mean())
        ),
    },
)

# Sheet 12: advantages of steps, from process rewards.


def _padded_groups(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
    """Rewards (B, S) of G·K responses, 0 beyond a response's steps (B), and K; G from 1."""
    groups, size = int(rng.integers(1, 4)), int(rng.integers(2, 5))
    steps = rng.integers(1, 6, size=groups * size)
    rewards = rng.normal(0, 1, size=(len(steps), steps.max())) * _there(steps)
    return in_either_precision(rng, rewards), steps, size


def _there(steps: np.ndarray) -> np.ndarray:
    """Which entries are steps and which are padding (B, S)."""
    return np.arange(steps.max()) < steps[:, None]


def _mean_of_others(values: np.ndarray, group_size: int) -> np.ndarray:
    """For each of B responses, the mean of the other values of its group; (B) → (B, 1)."""
    groups = values.reshape(-1, group_size)
    return (groups.sum(1, keepdims=True) - groups).reshape(-1, 1) / (group_size - 1)


def _to_the_end(rewards: np.ndarray) -> np.ndarray:
    return rewards[:, ::-1].cumsum(1)[:, ::-1]


def _returns_above(
    baseline: Callable[[np.ndarray, np.ndarray, int], np.ndarray],
) -> Callable[[np.ndarray, np.ndarray, int], np.ndarray]:
    """Returns of the rewards, each less the baseline (B, 1) of its response."""

    def returns(rewards: np.ndarray, steps: np.ndarray, group_size: int) -> np.ndarray:
        above = rewards - baseline(rewards, steps, group_size)
        return _to_the_end(above * _there(steps))

    return returns


def _prime_baseline(rewards: np.ndarray, steps: np.ndarray, group_size: int) -> np.ndarray:
    return _mean_of_others(rewards.sum(1) / steps, group_size)


def _with_itself(rewards: np.ndarray, steps: np.ndarray, group_size: int) -> np.ndarray:
    means = (rewards.sum(1) / steps).reshape(-1, group_size).mean(1)
    return means.repeat(group_size)[:, None]


def _by_length(rewards: np.ndarray, steps: np.ndarray, group_size: int) -> np.ndarray:
    totals, counts = (_mean_of_others(values, group_size) for values in (rewards.sum(1), steps))
    return totals / counts


def _process_advantages(rewards: np.ndarray, steps: np.ndarray, group_size: int) -> np.ndarray:
    mask = torch.from_numpy(_there(steps))
    above = subtract_process_baseline(torch.from_numpy(rewards), mask, group_size)
    return discounted_returns(above, 1.0).numpy()


PROCESS_ADVANTAGES = Exercise(
    reference=_process_advantages,
    inputs=_padded_groups,
    trials=30,
    mistakes={
        "the response itself is in its baseline: only the others belong there": (
            _returns_above(_with_itself)
        ),
        "padding is averaged in: a mean per step divides by the steps that a response has": (
            _returns_above(lambda rewards, steps, size: _mean_of_others(rewards.mean(1), size))
        ),
        "the others' rewards are summed; the baseline takes their mean per step, so that long "
        "responses are not worth more": (
            _returns_above(lambda rewards, steps, size: _mean_of_others(rewards.sum(1), size))
        ),
        "long responses count more in the baseline: first a mean for each response, then the mean "
        "of those": _returns_above(_by_length),
        "the baseline is one of the whole batch: other prompts are easier or harder": (
            _returns_above(lambda rewards, steps, _: _prime_baseline(rewards, steps, len(steps)))
        ),
        "padding gets a baseline as well: what is no step must stay 0": (
            lambda rewards, steps, size: _to_the_end(
                rewards - _prime_baseline(rewards, steps, size)
            )
        ),
        "the mask comes after the sums, which have counted padding by then": (
            lambda rewards, steps, size: (
                _to_the_end(rewards - _prime_baseline(rewards, steps, size)) * _there(steps)
            )
        ),
        "the baseline is taken from the sums; it belongs to each reward, before they are added": (
            lambda rewards, steps, size: (
                (_to_the_end(rewards) - _prime_baseline(rewards, steps, size)) * _there(steps)
            )
        ),
        "these are sums from the start; a step is credited with what follows it": (
            lambda rewards, steps, size: (
                ((rewards - _prime_baseline(rewards, steps, size)) * _there(steps)).cumsum(1)
                * _there(steps)
            )
        ),
        "nothing is added up: a return is the step's own reward and all that follow": (
            lambda rewards, steps, size: (
                (rewards - _prime_baseline(rewards, steps, size)) * _there(steps)
            )
        ),
        "there is no baseline: this is the return of the rewards as they are": (
            lambda rewards, steps, size: _to_the_end(rewards)
        ),
    },
)

#: Every code exercise of the sheets by the name of the function that the learner writes.
EXERCISES: dict[str, Exercise] = {
    "best_answer": BEST_ANSWER,
    "step_rewards": STEP_REWARDS,
    "q_by_expectation": Q_BY_EXPECTATION,
    "expected_max": EXPECTED_MAX,
    "merged_counts": MERGED_COUNTS,
    "ce_gradient": CE_GRADIENT,
    "dpo_over_pairs": DPO_OVER_PAIRS,
    "pass_at_n": PASS_AT_N,
    "soft_and_hard": SOFT_AND_HARD,
    "expected_distinct": EXPECTED_DISTINCT,
    "step_label_loss": STEP_LABEL_LOSS,
    "step_auroc": STEP_AUROC,
    "process_advantages": PROCESS_ADVANTAGES,
}
