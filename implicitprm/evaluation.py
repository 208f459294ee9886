"""Measure selection and step scores, each number with its interval over problems.

P problems, M candidates a problem, S steps a solution. Selection at n < M is the exact expectation
over the subsets of n candidates drawn without replacement, so that a curve over n uses all M
candidates at every point. Step metrics use the steps up to and including the first error
(:func:`steps_up_to_first_error`): after it there is no agreed truth of a step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from scipy.stats import bootstrap, rankdata
from sklearn.metrics import roc_auc_score

from implicitprm.selection import answer_codes, leading

FloatArray = npt.NDArray[np.float64]


# --- intervals --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """A measured value with the bounds of its confidence interval.

    ``str`` prints three decimals, ``0.782 [0.751, 0.810]``; a format is applied to each number, and
    a percent format says percent once: ``f"{interval:.1%}"`` is ``78.2% [75.1, 81.0]``.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return format(self, ".3f")

    def __format__(self, spec: str) -> str:
        value, low, high = (
            format(number, spec or ".3f") for number in (self.value, self.low, self.high)
        )
        return f"{value} [{low.removesuffix('%')}, {high.removesuffix('%')}]"


def bootstrap_over_problems(
    statistic: Callable[[npt.NDArray[np.int64]], float],
    n_problems: int,
    *,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Percentile bootstrap of ``statistic(indices)`` with whole problems as the unit.

    All candidates, steps and models of a problem stay together, since they are not independent.
    ``statistic`` gets problem indices, some of them more than once, (P,); its value on 0..P−1 is
    the interval's value. For a plain mean use :func:`mean_interval`, which is vectorised.

    Raises ValueError for fewer than two problems or a statistic that is NaN on a resample; what
    ``statistic`` itself raises (a resample without one of the classes) is passed on.
    """
    if n_problems < 2:
        raise ValueError(f"an interval over problems needs at least 2 problems, got {n_problems}")
    problems = np.arange(n_problems)

    def measure(indices: np.ndarray) -> float:
        value = float(statistic(np.asarray(indices, dtype=np.int64)))
        if np.isnan(value):
            raise ValueError("the statistic is NaN on these problems or on a resample of them")
        return value

    drawn = bootstrap(
        (problems,),
        measure,
        n_resamples=resamples,
        vectorized=False,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return Interval(measure(problems), *map(float, drawn.confidence_interval))


def mean_interval(
    values: npt.ArrayLike, *, resamples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """Mean of one value a problem (P,) with its percentile bootstrap interval over problems.

    Raises ValueError for fewer than two problems or a NaN.
    """
    checked = _no_nan(values, "values")
    if checked.ndim != 1 or checked.size < 2:
        raise ValueError(f"values must be (P,) with P >= 2 problems, got shape {checked.shape}")
    drawn = bootstrap(
        (checked,),
        np.mean,
        n_resamples=resamples,
        vectorized=True,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return Interval(float(checked.mean()), *map(float, drawn.confidence_interval))


def paired_difference(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Mean of a − b over the same problems (P,), resampled in pairs: each problem keeps both.

    Raises ValueError for shapes that differ, fewer than two problems, or a NaN.
    """
    first, second = _no_nan(a, "a"), _no_nan(b, "b")
    if first.shape != second.shape:
        raise ValueError(f"a {first.shape} and b {second.shape} are not paired: shapes differ")
    return mean_interval(first - second, resamples=resamples, seed=seed, confidence=confidence)


# --- selection from n of M candidates ---------------------------------------------------------


def best_of_n_accuracy(scores: npt.ArrayLike, correct: npt.ArrayLike, n: int) -> FloatArray:
    """Expected accuracy of best-of-n for each problem, exact over all subsets: (P, M) → (P,).

    The candidate of rank k (counted from the lowest score) wins a subset of n with probability
    (C(k, n) − C(k−1, n)) / C(M, n); tied candidates share theirs evenly.

    Raises ValueError for shapes that differ, a NaN score, ``correct`` other than 0/1, or n not in
    1..M.
    """
    ranked = _no_nan(scores, "scores")
    truth = _correct(correct)  # (P, M)
    if ranked.shape != truth.shape:
        raise ValueError(f"scores {ranked.shape} and correct {truth.shape} must be (P, M) alike")
    inside = _chance_inside(truth.shape[1], n)  # (M+1,)
    at_most = rankdata(ranked, method="max", axis=1).astype(int)  # candidates scored <= this one
    below = rankdata(ranked, method="min", axis=1).astype(int) - 1  # (P, M)
    wins = (inside[at_most] - inside[below]) / (at_most - below)
    return (wins * truth).sum(axis=1)


def pass_at_n(correct: npt.ArrayLike, n: int) -> FloatArray:
    """Probability that n of the M candidates contain a correct one: (P, M) → (P,).

    1 − C(M−c, n)/C(M, n) with c correct candidates: what an oracle that chooses would score.
    Raises ValueError for ``correct`` other than 0/1 or n not in 1..M.
    """
    truth = _correct(correct)  # (P, M)
    wrong = (truth == 0).sum(axis=1)
    return 1 - _chance_inside(truth.shape[1], n)[wrong]


def vote_accuracy(
    answers: Sequence[Sequence[str | None]],
    correct: npt.ArrayLike,
    n: int,
    scores: npt.ArrayLike | None = None,
    draws: int = 100,
    seed: int = 0,
) -> FloatArray:
    """Expected accuracy of a vote among n of the M candidates for each problem: (P, M) → (P,).

    Majority vote, or with ``scores`` the vote weighted by σ(score). Exact where there are no more
    than max(draws, M) subsets (n = 1, M−1 and M always), else the mean over ``draws`` random
    subsets; one seed draws the same subsets whatever the scores are, and nested ones for different
    n, so differences are paired. Tied answers share the vote evenly, and a missing answer never
    wins (see :func:`~implicitprm.selection.majority_vote`). Equal answers of which some are marked
    correct and some not count as their mean.

    Raises ValueError for shapes that differ, a NaN score, ``correct`` other than 0/1, n not in 1..M
    or draws < 1.
    """
    truth = _correct(correct)  # (P, M)
    votes = np.ones_like(truth) if scores is None else expit(_no_nan(scores, "scores"))
    if votes.shape != truth.shape:
        raise ValueError(f"scores {votes.shape} and correct {truth.shape} must be (P, M) alike")
    n_problems, n_candidates = truth.shape
    if len(answers) != n_problems or any(len(row) != n_candidates for row in answers):
        raise ValueError(f"answers must be {n_problems} rows of {n_candidates} like correct")
    _check_n(n, n_candidates)
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    rng = np.random.default_rng(seed)
    every = None
    if comb(n_candidates, n) <= max(draws, n_candidates):
        every = _as_masks(np.array(list(combinations(range(n_candidates), n))), n_candidates)
    accuracy = np.empty(n_problems)
    for problem in range(n_problems):
        subsets = every  # (D, M)
        if subsets is None:
            shuffled = rng.random((draws, n_candidates)).argsort(axis=1)
            subsets = _as_masks(shuffled[:, :n], n_candidates)
        codes = answer_codes(answers[problem])
        accuracy[problem] = _vote_results(codes, truth[problem], votes[problem], subsets).mean()
    return accuracy


def _vote_results(
    codes: np.ndarray, correct: np.ndarray, votes: np.ndarray, subsets: np.ndarray
) -> FloatArray:
    """Correctness of the vote in each of D subsets; codes, correct, votes (M,) → (D,)."""
    member = codes[:, None] == np.arange(codes.max() + 1)  # (M, C); a missing answer is in none
    if member.shape[1] == 0:
        return np.zeros(len(subsets))
    answer_correct = correct @ member / member.sum(axis=0)  # (C,)
    totals = subsets @ (member * votes[:, None])  # (D, C)
    winners = leading(totals) & (subsets @ member > 0)  # an answer nobody gave wins no 0 : 0
    return winners @ answer_correct / np.maximum(winners.sum(axis=1), 1)


def _as_masks(chosen: np.ndarray, n_candidates: int) -> FloatArray:
    """Candidate indices (D, n) → 0/1 masks (D, M)."""
    masks = np.zeros((len(chosen), n_candidates))
    np.put_along_axis(masks, chosen, 1.0, axis=1)
    return masks


def _chance_inside(n_candidates: int, n: int) -> FloatArray:
    """C(k, n) / C(M, n) for k = 0..M: chance that all n drawn lie among k given ones. (M+1,)

    A running product of C(k−1, n)/C(k, n) = (k−n)/k down from k = M, which cannot overflow.
    """
    _check_n(n, n_candidates)
    k = np.arange(n_candidates, 0, -1)  # M..1
    downwards = np.cumprod(np.maximum(k - n, 0) / k)  # k−1 = M−1..0
    return np.concatenate([[1.0], downwards])[::-1]


def _check_n(n: int, n_candidates: int) -> None:
    if not 1 <= n <= n_candidates:
        raise ValueError(f"n={n} of M={n_candidates} candidates: n must lie in 1..M")


# --- steps ------------------------------------------------------------------------------------


def steps_up_to_first_error(first_error: int, n_steps: int) -> range:
    """The steps that step metrics use: all, or those up to and including the first error.

    ``first_error`` is a 0-based step, −1 for none. Raises ValueError where it is not a step.
    """
    if not -1 <= first_error < n_steps:
        raise ValueError(f"first_error={first_error} is no step of {n_steps} (−1 for none)")
    return range(n_steps if first_error == -1 else first_error + 1)


def auroc(
    scores: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> float:
    """Chance that a random item labelled True scores above a random one labelled False; ties half.

    ``weights`` count how often each item occurs. Raises ValueError for shapes that differ, a NaN,
    labels other than 0/1, or a missing class.
    """
    checked, truth = _no_nan(scores, "scores"), _correct(labels, "labels", ndim=1)
    if checked.shape != truth.shape:
        raise ValueError(f"scores {checked.shape} and labels {truth.shape} must be (N,) alike")
    if truth.all() or not truth.any():
        only = bool(truth[0])
        raise ValueError(f"AUROC needs both classes, but all {len(truth)} labels are {only}")
    # sklearn only ranks, and refuses infinite scores: hand it the ranks
    return float(roc_auc_score(truth, rankdata(checked), sample_weight=_weights(weights, truth)))


def auroc_interval(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    problems: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    parts: Sequence[np.ndarray] | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """AUROC of items (N) with its percentile bootstrap interval over whole problems.

    ``problems`` (N) names the problem of each item. With ``parts``, masks over the items (N), it is
    the mean of the AUROC within each part, so that a score gains nothing from telling parts apart.
    Equal to :func:`bootstrap_over_problems` with :func:`auroc`, but for all resamples at once.

    Raises ValueError as :func:`auroc` does, and where a resample lacks one of the classes.
    """
    ranked, truth = _no_nan(scores, "scores"), _correct(labels, "labels", ndim=1)
    counted = _weights(weights, truth)
    masks = [np.ones(len(truth), dtype=bool)] if parts is None else list(parts)
    value = float(np.mean([auroc(ranked[m], truth[m], counted[m]) for m in masks]))
    names, numbers = np.unique(np.asarray(problems), return_inverse=True)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    resampled = np.mean(
        [
            _auroc_of_resamples(ranked[m], truth[m], counted[m] * drawn[:, numbers[m]])
            for m in masks
        ],
        axis=0,
    )  # (R,)
    if np.isnan(resampled).any():
        raise ValueError("a resample of the problems has right or wrong items only: too few items")
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, (tail, 1 - tail))
    return Interval(value, float(low), float(high))


def _auroc_of_resamples(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> FloatArray:
    """Weighted AUROC for each of R rows of weights: (N,), (N,), (R, N) → (R,)."""
    order = scores.argsort()
    _, starts = np.unique(scores[order], return_index=True)  # where each group of ties begins
    right = np.add.reduceat(weights[:, order] * labels[order], starts, axis=1)  # (R, G)
    wrong = np.add.reduceat(weights[:, order] * (1 - labels[order]), starts, axis=1)
    below = wrong.cumsum(axis=1) - wrong / 2
    pairs = right.sum(axis=1) * wrong.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return (right * below).sum(axis=1) / pairs


def first_error(step_scores: npt.ArrayLike, threshold: float) -> int:
    """Index of the first step that scores below the threshold, −1 if none does.

    Raises ValueError for no steps or a score that is not finite.
    """
    below = np.flatnonzero(_steps(step_scores) < threshold)
    return int(below[0]) if below.size else -1


@dataclass(frozen=True)
class FirstErrorScores:
    """ProcessBench's scores: shares of exact matches, and F1, their harmonic mean (all 0..1)."""

    error_accuracy: float  # on solutions with an error
    correct_accuracy: float  # on solutions without one
    f1: float


def first_error_scores(
    predictions: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> FirstErrorScores:
    """Score predicted first errors as ProcessBench does (arXiv 2412.06559): F1 = 2ab/(a+b).

    a is the share of exact matches on solutions with label ≠ −1, b on those with label = −1; F1 is
    0 where both are 0. ``weights`` count how often each solution occurs.

    Raises ValueError for shapes that differ or where a or b has no solution.
    """
    predicted, truth = np.asarray(predictions), np.asarray(labels)  # (P,)
    if predicted.shape != truth.shape or truth.ndim != 1:
        raise ValueError(f"predictions {predicted.shape} and labels {truth.shape} must be (P,)")
    _check_first_errors(truth)
    counted = _weights(weights, truth)
    hit, has_error = (predicted == truth) * counted, truth != -1
    a = hit[has_error].sum() / counted[has_error].sum()
    b = hit[~has_error].sum() / counted[~has_error].sum()
    return FirstErrorScores(float(a), float(b), float(_harmonic(a, b)))


def choose_threshold(
    step_scores: Sequence[Sequence[float] | np.ndarray],
    labels: Sequence[int] | np.ndarray,
    weights: npt.ArrayLike | None = None,
) -> float:
    """The threshold whose first-error predictions have the highest F1, exact over all thresholds.

    A solution is matched by an interval of thresholds: with label L ≠ −1 by
    score_L < t ≤ min(score_0..score_{L−1}), with −1 by t ≤ min(all). F1 changes only at the
    ends of these intervals. Of equally good stretches the lowest is taken, and its midpoint, which
    carries over to other data better than an end. Choose on data that is not scored afterwards.

    Raises ValueError for shapes that differ, no steps, a score that is not finite, a label that is
    no step, or where all or none of the labels are −1.
    """
    truth = np.asarray(labels)
    if truth.shape != (len(step_scores),):
        raise ValueError(f"{len(step_scores)} solutions but labels of shape {truth.shape}")
    _check_first_errors(truth)
    matched = np.array(list(map(_matching_thresholds, step_scores, truth)))  # (P, 2)
    lows, highs = matched.T  # matched where low < threshold <= high
    ends = np.unique(matched[np.isfinite(matched)])
    middles = (ends[:-1] + ends[1:]) / 2
    # between neighbouring floats there is no midpoint: the upper end belongs to the stretch
    thresholds = np.concatenate([ends[:1], np.where(middles > ends[:-1], middles, ends[1:])])
    counted = np.where(lows < highs, _weights(weights, truth), 0.0)
    total = _weights(weights, truth)
    shares = []
    for group in (truth != -1, truth == -1):
        opened = _weight_below(lows[group], counted[group], thresholds)
        closed = _weight_below(highs[group], counted[group], thresholds)
        shares.append((opened - closed) / total[group].sum())  # (K,)
    return float(thresholds[_harmonic(*shares).argmax()])


def rank_correlation(
    a: npt.ArrayLike, b: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> float:
    """Spearman's rank correlation; with counts as ``weights``, that of the repeated items.

    Raises ValueError for shapes that differ, fewer than two items, a NaN, or a constant side.
    """
    first, second = _no_nan(a, "a"), _no_nan(b, "b")
    if first.shape != second.shape or first.ndim != 1 or first.size < 2:
        raise ValueError(f"a {first.shape} and b {second.shape} must be (N,) alike with N >= 2")
    counted = _weights(weights, first)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        raise ValueError("rank correlation is undefined: all values of one side are equal")
    ranks = np.stack([_weighted_ranks(side, counted) for side in (first, second)])  # (2, N)
    covariance = np.cov(ranks, aweights=counted)
    return float(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]))


def _matching_thresholds(step_scores: npt.ArrayLike, label: int) -> tuple[float, float]:
    """(low, high) such that the prediction equals the label where low < threshold ≤ high."""
    scores = _steps(step_scores)
    steps_up_to_first_error(label, len(scores))  # raises where the label is no step
    if label == -1:
        return -np.inf, float(scores.min())
    return float(scores[label]), float(scores[:label].min(initial=np.inf))


def _weight_below(values: np.ndarray, weights: np.ndarray, thresholds: np.ndarray) -> FloatArray:
    """Total weight of the values below each threshold: (P,), (P,), (K,) → (K,)."""
    order = values.argsort()
    running = np.concatenate([[0.0], weights[order].cumsum()])
    return running[np.searchsorted(values[order], thresholds, side="left")]


def _weighted_ranks(values: np.ndarray, weights: np.ndarray) -> FloatArray:
    """Mean rank of each value among the repeated items, less ½; ties share theirs: (N,) → (N,)."""
    _, place = np.unique(values, return_inverse=True)
    totals = np.bincount(place, weights=weights)
    return (totals.cumsum() - totals / 2)[place]


def _harmonic(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """2ab/(a+b), 0 where both are 0."""
    return 2 * a * b / np.where(a + b == 0, 1.0, a + b)


# --- checks -----------------------------------------------------------------------------------


def _no_nan(values: npt.ArrayLike, name: str) -> FloatArray:
    checked = np.asarray(values, dtype=float)
    if np.isnan(checked).any():
        where = tuple(int(i) for i in np.argwhere(np.isnan(checked))[0])
        raise ValueError(f"{name}{list(where)} is NaN")
    return checked


def _correct(values: npt.ArrayLike, name: str = "correct", ndim: int = 2) -> FloatArray:
    checked = np.asarray(values, dtype=float)
    if checked.ndim != ndim or checked.size == 0:
        raise ValueError(f"{name} must have {ndim} dimension(s) and items: got {checked.shape}")
    if not np.isin(checked, (0, 1)).all():
        raise ValueError(f"{name} must be bool or 0/1, got {checked[~np.isin(checked, (0, 1))][0]}")
    return checked


def _steps(step_scores: npt.ArrayLike) -> FloatArray:
    scores = np.asarray(step_scores, dtype=float)
    if scores.ndim != 1 or scores.size == 0:
        raise ValueError(f"step_scores must be (S,) with S >= 1, got shape {scores.shape}")
    if not np.isfinite(scores).all():
        where = int(np.isfinite(scores).argmin())
        raise ValueError(f"step_scores[{where}] is {scores[where]}")
    return scores


def _weights(weights: npt.ArrayLike | None, like: np.ndarray) -> FloatArray:
    if weights is None:
        return np.ones(like.shape)
    checked = _no_nan(weights, "weights")
    if checked.shape != like.shape or (checked <= 0).any():
        raise ValueError(f"weights {checked.shape} must be positive, one for each of {like.shape}")
    return checked


def _check_first_errors(labels: np.ndarray) -> None:
    if (labels < -1).any():
        raise ValueError(f"label {labels[labels < -1][0]} is no step (−1 for no error)")
    n_errors = int((labels != -1).sum())
    if n_errors in (0, len(labels)):
        raise ValueError(
            f"first-error F1 needs solutions with and without an error; {n_errors} of "
            f"{len(labels)} have one"
        )
