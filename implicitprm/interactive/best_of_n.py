"""Which of N candidates is chosen, by which rule and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from scipy.special import expit

from implicitprm.evaluation import best_of_n_accuracy, vote_accuracy
from implicitprm.interactive.figure import Control, Frame, Interactive
from implicitprm.interactive.svg import line, text
from implicitprm.qvalues import FloatArray
from implicitprm.rewards import ScoredSolution, sum_by_step
from implicitprm.selection import aggregate, answer_codes, best_of_n, weighted_vote

CHOSEN_BY = ("sum", "min", "mean", "last", "log π_θ", "majority vote", "weighted vote")
TRUNCATED = ("nothing", "rewards above 0", "rare steps")
#: A step that the reference gives less than this is rare.
_RARE = 0.1
#: Scores further below the highest one are drawn at the lower edge, rarer candidates at the right.
_DEPTH, _NATS = 8.0, 12.0
#: How many answers of a vote are drawn.
_ANSWERS = 4


@dataclass(frozen=True)
class Candidate:
    """One of the M candidates of a problem; ``scored`` is None where it has no rewards.

    ``valid`` (S) says which of its steps are right, ``correct`` whether its answer is.
    """

    scored: ScoredSolution | None
    valid: Sequence[bool]
    answer: str | None
    correct: bool

    def score(self, rule: str, truncated: str) -> float:
        """What a rule of CHOSEN_BY goes by, −∞ for a candidate that may not be chosen.

        For a vote it is the score whose σ is its weight: ∞ for all in a majority vote.
        """
        scored = self.scored
        if truncated == "rare steps" and (scored is None or self.step_chances.min() < _RARE):
            return -np.inf
        if rule == "majority vote":
            return np.inf
        if scored is None:
            return -np.inf
        if rule == "log π_θ":
            return float(scored.policy_logps.sum())
        rewards = scored.step_rewards
        if truncated == "rewards above 0":
            rewards = np.minimum(rewards, 0)
        return aggregate(rewards, "sum" if rule == "weighted vote" else rule)

    @property
    def step_chances(self) -> FloatArray:
        """π_ref of each step, (S)."""
        assert self.scored is not None
        return np.exp(sum_by_step(self.scored.ref_logps, self.scored.step_ends))


def best_of_n_explorer(
    problems: Mapping[str, Sequence[Candidate]], shown: Sequence[str], ns: Sequence[int], alt: str
) -> Interactive:
    """Which of the first N candidates wins and why, by CHOSEN_BY and TRUNCATED.

    ``problems`` holds M candidates of each, in the order in which they count as drawn; those that
    are equal are the same object. Some of the problems are ``shown``. The accuracy is over all of
    them and over all draws of N of the M (of votes: 100 draws), in percent.
    """
    accuracies = {
        (rule, truncated): _accuracies(list(problems.values()), rule, truncated, ns)
        for rule, truncated in product(CHOSEN_BY, TRUNCATED)
    }
    frames = []
    for name, n, rule, truncated in product(shown, ns, CHOSEN_BY, TRUNCATED):
        candidates = problems[name]
        curve = accuracies[rule, truncated]
        if "vote" in rule:
            drawn = candidates[:n]
            winner, drawings, why = _vote(drawn, _scores(drawn, rule, truncated))
        else:
            winner, drawings, why = _best(candidates, rule, truncated, n, ns)
        share = f" Over {len(problems)} problems {curve[ns.index(n)]:.1f}% are right at this N."
        drawings += [_winner(candidates[winner]), *_accuracy_curve(curve, n, ns)]
        frames.append(Frame(drawings, [why, share]))
    controls = [
        Control("problem", list(shown)),
        Control("N", [str(n) for n in ns], start=len(ns) // 2),
        Control("chosen by", CHOSEN_BY),
        Control("cut off", TRUNCATED),
    ]
    longest = max(
        len(c.scored.steps) for name in shown for c in problems[name] if c.scored is not None
    )
    size = (460, 266 + 24 * longest)
    return Interactive("best-of-n-explorer", controls, frames, _best_of_n_axes(ns), size, alt)


#: The two charts of the explorer: left and right end, and their common top and bottom.
_SCORES, _ACCURACY, _TOP, _BOTTOM = (40, 210), (292, 440), 40, 176


def _scores(candidates: Sequence[Candidate], rule: str, truncated: str) -> FloatArray:
    """The score of each candidate, (M); of equal ones it is computed once."""
    values = {id(candidate): candidate for candidate in candidates}
    once = {key: candidate.score(rule, truncated) for key, candidate in values.items()}
    return np.array([once[id(candidate)] for candidate in candidates])


def _accuracies(
    problems: Sequence[Sequence[Candidate]], rule: str, truncated: str, ns: Sequence[int]
) -> list[float]:
    scores = np.array([_scores(candidates, rule, truncated) for candidates in problems])  # (P, M)
    correct = np.array([[c.correct for c in candidates] for candidates in problems])
    if "vote" not in rule:
        return [float(100 * best_of_n_accuracy(scores, correct, n).mean()) for n in ns]
    answers = [[c.answer for c in candidates] for candidates in problems]
    return [float(100 * vote_accuracy(answers, correct, n, scores).mean()) for n in ns]


def _best(
    candidates: Sequence[Candidate], rule: str, truncated: str, n: int, ns: Sequence[int]
) -> tuple[int, list[str], str]:
    """The winner by the highest score, a chart of the scores, and the score in words."""
    plain, scores = (_scores(candidates, rule, kept) for kept in ("nothing", truncated))
    winner = best_of_n(scores[:n])
    high = float(plain.max())
    low = max(float(plain[np.isfinite(plain)].min()), high - _DEPTH)
    left, right = _SCORES

    def place(index: int) -> tuple[int, int]:
        scored = candidates[index].scored
        nats = _NATS if scored is None else min(-float(scored.ref_logps.sum()), _NATS)
        score = plain[index] if np.isneginf(scores[index]) else scores[index]
        up = (max(score, low) - low) / (high - low) if high > low else 1.0
        return round(left + nats / _NATS * (right - left)), round(_BOTTOM - up * (_BOTTOM - _TOP))

    drawings = [
        text(0, 16, f"{rule}, against −log π_ref")
        + text(left - 6, _TOP + 4, f"{high:+z.1f}", "end")
        + text(left - 6, _BOTTOM + 4, f"{low:+z.1f}", "end")
        + _SCORE_AXES
    ]
    drawn: set[int] = set()
    for start, end in pairwise((0, *ns[: ns.index(n) + 1])):
        new = {id(candidates[i]): i for i in range(start, end) if id(candidates[i]) not in drawn}
        drawn |= set(new)
        drawings.append(_marks([(candidates[i], scores[i], *place(i)) for i in new.values()]))
    x, y = place(winner)
    drawings.append(f"<circle cx='{x}' cy='{y}' r='9' fill='none' stroke='var(--ink)'/>")
    chosen = candidates[winner]
    rivals = [
        s for c, s in zip(candidates[:n], scores, strict=False) if c.correct != chosen.correct
    ]
    other = "wrong" if chosen.correct else "right"
    if not rivals:
        rest = f"there is no {other} one."
    elif max(rivals) == -np.inf:
        rest = f"no {other} one is left."
    else:
        rest = f"the best {other} one has {max(rivals):+z.2f}."
    return winner, drawings, f"{_answer(chosen)}, with a score of {scores[winner]:+z.2f}; {rest}"


def _marks(candidates: Sequence[tuple[Candidate, float, int, int]]) -> str:
    """Dots for right candidates, crosses for wrong ones; thin and grey where none may be chosen."""
    paths: dict[str, str] = {}
    for candidate, score, x, y in candidates:
        dot = candidate.correct and np.isfinite(score)
        kind = "dots correct" if dot else "dropped" if np.isneginf(score) else "wrong"
        path = f"M{x} {y}h0" if dot else f"M{x - 4} {y - 4}l8 8m0-8l-8 8"
        paths[kind] = paths.get(kind, "") + path
    return "".join(f"<path class='{kind}' d='{path}'/>" for kind, path in paths.items())


def _answer(candidate: Candidate) -> str:
    verdict = "right" if candidate.correct else "wrong"
    return f"Chosen: {candidate.answer or 'no answer'}, {verdict}"


def _vote(candidates: Sequence[Candidate], scores: FloatArray) -> tuple[int, list[str], str]:
    """The first of the highest candidates with the winning answer, a chart of the votes, words."""
    answers, weights = [candidate.answer for candidate in candidates], expit(scores)
    codes = answer_codes(answers)
    chosen = weighted_vote(answers, scores)
    code = codes[answers.index(chosen)]
    winner = int(max(np.flatnonzero(codes == code), key=lambda i: (scores[i], -i)))
    totals = {int(c): float(weights[codes == c].sum()) for c in np.unique(codes[codes >= 0])}
    total = sum(totals.values())
    left, right = _SCORES
    drawings = [text(0, 16, "votes for an answer")]
    for row, c in enumerate(sorted(totals, key=lambda c: (-totals[c], c))[:_ANSWERS]):
        first = candidates[int((codes == c).argmax())]
        kind, y = "correct" if first.correct else "wrong", _TOP + 20 + 30 * row
        length = round((right - left - 40) * totals[c] / total) if total else 0
        drawings.append(
            text(left - 6, y + 5, str(first.answer), "end")
            + f"<path class='bar {kind}' d='M{left} {y}h{length}'/>"
            + text(left + length + 6, y + 5, f"{totals[c]:.1f} {'✓' if first.correct else '✗'}")
        )
    why = f"{_answer(candidates[winner])}, with {totals.get(code, 0):.1f} of {total:.1f} votes."
    return winner, drawings, why


def _winner(candidate: Candidate) -> str:
    """The steps of the winner: which are right, their rewards as bars, their π_ref."""
    scored = candidate.scored
    if scored is None:
        return text(4, 266, "a text outside this world, without rewards")
    parts = []
    for step, (written, reward, chance, right) in enumerate(
        zip(scored.steps, scored.step_rewards, candidate.step_chances, candidate.valid, strict=True)
    ):
        y = 266 + 24 * step
        width = round(float(np.clip(reward * 25, -60, 60)))
        parts.append(
            text(4, y, f"{'✓' if right else '✗'} {written.strip()}")
            + f"<path class='bar {'correct' if right else 'wrong'}' d='M215 {y - 5}h{width}'/>"
            + text(285, y, f"{reward:+z.2f}")
            + text(350, y, f"{chance:.3f}" if chance >= 0.001 else "under 0.001")
        )
    return "".join(parts)


def _accuracy_place(accuracy: float, n: int, ns: Sequence[int]) -> tuple[int, int]:
    left, right = _ACCURACY
    across = ns.index(n) / (len(ns) - 1)
    return round(left + across * (right - left)), round(_BOTTOM - accuracy / 100 * (_BOTTOM - _TOP))


def _accuracy_curve(curve: Sequence[float], n: int, ns: Sequence[int]) -> list[str]:
    places = [_accuracy_place(value, at, ns) for value, at in zip(curve, ns, strict=True)]
    x, y = _accuracy_place(curve[ns.index(n)], n, ns)
    path = "L".join(f"{x} {y}" for x, y in places)
    return [
        f"<path class='policy' d='M{path}'/>",
        f"<path class='dots policy' d='M{x} {y}h0'/>"
        + text(x, y + 22, f"{curve[ns.index(n)]:.1f}", "middle"),
    ]


_SCORE_AXES = (
    line([(_SCORES[0], _TOP), (_SCORES[0], _BOTTOM), (_SCORES[1], _BOTTOM)], "var(--faint)", 1)
    + "".join(
        text(
            _SCORES[0] + nats / _NATS * (_SCORES[1] - _SCORES[0]), _BOTTOM + 20, f"{nats}", "middle"
        )
        for nats in (0, 4, 8)
    )
    + text(_SCORES[1] + 8, _BOTTOM + 20, f"{_NATS:.0f} nats", "middle")
)


def _best_of_n_axes(ns: Sequence[int]) -> str:
    (left, right), bottom = _ACCURACY, _BOTTOM
    return (
        text(left - 30, 16, "accuracy at N, %")
        + line([(left, _TOP), (left, bottom), (right, bottom)], "var(--faint)", 1)
        + "".join(
            text(left - 6, _accuracy_place(tick, ns[0], ns)[1] + 4, f"{tick}", "end")
            for tick in (0, 50, 100)
        )
        + "".join(
            text(_accuracy_place(0, n, ns)[0], bottom + 20, f"{n}", "middle") for n in ns[::2]
        )
        + text(4, 214, "● right · ✗ wrong · ring: chosen · grey: cut off")
        + text(4, 240, "steps of the winner")
        + text(215, 240, "reward", "middle")
        + text(350, 240, "π_ref of the step")
    )
