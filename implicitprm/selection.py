"""Choose one of N candidate solutions: best-of-N, majority vote, weighted vote.

A candidate is scored by one number made from its step rewards (:func:`aggregate`). Best-of-N takes
the candidate with the highest score; a vote takes the answer that most candidates give, each
candidate counting one (majority) or σ(score) (weighted vote, arXiv 2412.01981 §4 and the authors'
code).
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import expit

#: The ways to make one score of step rewards.
AGGREGATIONS = ("sum", "min", "mean", "last")

# A shared largest total can differ in its last digits when it was added up in another order.
TIE_TOLERANCE = 1e-12

_NUMBER = r"[+-]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)"
_QUOTIENT = re.compile(rf"({_NUMBER})(?:/({_NUMBER}))?")
_LATEX_FRACTION = re.compile(r"([+-]?)\\[dt]?frac\{(\d+)\}\{(\d+)\}")
_DECORATION = re.compile(r"\\?[$%]|[€£]|\\[,!]\s*")
_IDLE_SPACE = re.compile(r"(?<!\d)\s+|\s+(?!\d)")  # all but the space of "2 1/2", which is not 21/2


def aggregate(step_rewards: Sequence[float] | np.ndarray, how: str) -> float:
    """One score for a solution from its step rewards (S), in nats times β.

    ``sum`` is the outcome reward (all steps add up to it); ``min`` is the paper's response score
    (§4); ``mean`` does not grow with the number of steps; ``last`` is the last step's reward alone.

    Raises ValueError for an unknown ``how``, no steps, or a NaN.
    """
    rewards = np.asarray(step_rewards, dtype=float)  # (S,)
    if how not in AGGREGATIONS:
        raise ValueError(f"how={how!r} is not an aggregation; choose one of {AGGREGATIONS}")
    if rewards.ndim != 1 or rewards.size == 0:
        raise ValueError(f"step_rewards must be (S,) with S >= 1, got shape {rewards.shape}")
    if np.isnan(rewards).any():
        raise ValueError(f"step_rewards[{int(np.isnan(rewards).argmax())}] is NaN")
    if how == "sum":
        return float(rewards.sum())
    if how == "min":
        return float(rewards.min())
    if how == "mean":
        return float(rewards.mean())
    return float(rewards[-1])


def best_of_n(scores: Sequence[float] | np.ndarray) -> int:
    """Index of the candidate with the highest score; of equal scores, the first.

    Raises ValueError for no candidates or a NaN (argmax would choose the NaN).
    """
    return int(np.argmax(_checked_scores(scores)))


def majority_vote(answers: Sequence[str | None]) -> str | None:
    """The answer that most of the N candidates give; of tied answers, the one that came first.

    ``None`` or a blank string is a missing answer: it never wins against a given one, and None is
    returned only where every answer is missing. Answers are compared as :func:`answer_key` writes
    them and returned as the first candidate wrote them. Raises ValueError for no candidates.
    """
    return _vote(answers, np.ones(len(answers)))


def weighted_vote(
    answers: Sequence[str | None], scores: Sequence[float] | np.ndarray
) -> str | None:
    """argmax over answers a of Σ_{i: a_i = a} σ(score_i) (arXiv 2412.01981 §4; authors' code).

    The sigmoid makes every vote positive, and makes the result depend on β: where all scores are
    near 0, all votes are near ½ and this is nearly a majority vote. Ties and missing answers as in
    :func:`majority_vote`. Raises ValueError for no candidates, a NaN, or different lengths.
    """
    checked = _checked_scores(scores)
    if len(checked) != len(answers):
        raise ValueError(f"{len(answers)} answers but {len(checked)} scores")
    return _vote(answers, expit(checked))


@lru_cache(maxsize=100_000)
def answer_key(answer: str) -> str:
    """One spelling for equal answers: numbers exactly, any other text without its white space.

    1,000 = 1000; 18.00 = $18 = 18; 1/2 = 0.5 = ``\\frac{1}{2}``; 50% = 50. Two different LaTeX
    expressions of one value keep different keys: votes must be cheap, and grading, which has to
    see through that, is done by math-verify (:func:`~implicitprm.data.is_correct`).
    """
    text = _IDLE_SPACE.sub("", _DECORATION.sub("", answer)).rstrip(".")
    if latex := _LATEX_FRACTION.fullmatch(text):
        text = "{}{}/{}".format(*latex.groups())
    match = _QUOTIENT.fullmatch(text)
    if match is None:
        return text
    try:
        top, bottom = (Fraction((part or "1").replace(",", "")) for part in match.groups())
        return str(top / bottom)
    except (ValueError, ZeroDivisionError):  # more digits than Python converts; x/0
        return text


def answer_codes(answers: Sequence[str | None]) -> npt.NDArray[np.int64]:
    """Number the different answers in order of appearance; −1 where the answer is missing: (N,)."""
    seen: dict[str, int] = {}
    codes = [
        seen.setdefault(answer_key(answer), len(seen)) if answer and answer.strip() else -1
        for answer in answers
    ]
    return np.asarray(codes, dtype=np.int64)


def leading(totals: np.ndarray) -> npt.NDArray[np.bool_]:
    """Which totals share the largest value of their row (last axis): (..., C) → (..., C)."""
    return totals >= totals.max(axis=-1, keepdims=True) * (1 - TIE_TOLERANCE)


def _vote(answers: Sequence[str | None], weights: np.ndarray) -> str | None:
    if len(answers) == 0:
        raise ValueError("a vote needs at least one candidate")
    codes = answer_codes(answers)  # (N,)
    given = codes >= 0
    if not given.any():
        return None
    totals = np.bincount(codes[given], weights=weights[given])  # (C,) in order of appearance
    winner = int(leading(totals).argmax())
    return answers[int((codes == winner).argmax())]


def _checked_scores(scores: Sequence[float] | np.ndarray) -> npt.NDArray[np.float64]:
    checked = np.asarray(scores, dtype=float)  # (N,)
    if checked.ndim != 1 or checked.size == 0:
        raise ValueError(f"scores must be (N,) with N >= 1, got shape {checked.shape}")
    if np.isnan(checked).any():
        raise ValueError(f"scores[{int(np.isnan(checked).argmax())}] is NaN")
    return checked
