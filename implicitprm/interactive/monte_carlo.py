"""Soft and hard labels from K completions of each step, beside the exact value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from implicitprm.figures import STYLE
from implicitprm.interactive.figure import Control, Frame, Interactive
from implicitprm.interactive.svg import line, text
from implicitprm.qvalues import FloatArray

#: The axis of values from 0 to 1, the middles of the two columns beside it, and the rows.
_VALUE, _HARD, _TRUTH, _FIRST, _ROW = (112, 300), 350, 420, 56, 28


@dataclass(frozen=True)
class SampledSteps:
    """The open steps of a solution (S): all but the answer, which needs no completion.

    ``values`` (S) are exact, P(right | steps so far); ``free`` (S) says whether all steps so far
    are right; ``right`` (D, S, K) are the outcomes of K completions of each step, drawn D times.
    """

    steps: Sequence[str]
    values: FloatArray
    free: npt.NDArray[np.bool_]
    right: npt.NDArray[np.bool_]

    def soft(self, draw: int, k: int) -> FloatArray:
        """The share of right ones among the first ``k`` completions, (S)."""
        return self.right[draw, :, :k].mean(axis=1)

    def hard(self, draw: int, k: int) -> npt.NDArray[np.bool_]:
        """Is there a right one among the first ``k`` completions, (S)."""
        return np.asarray(self.right[draw, :, :k].any(axis=1))

    def expected_error(self, k: int) -> float:
        """Mean distance of a soft label from the value, expected over all draws of ``k``."""
        found = np.arange(k + 1)[:, None]
        chances = binom.pmf(found, k, self.values)  # (K+1, S)
        return float((chances * abs(found / k - self.values)).sum(axis=0).mean())

    def expected_wrong(self, k: int) -> float:
        """How many hard labels differ from ``free``, expected over all draws."""
        none = (1 - self.values) ** k
        return float(np.where(self.free, none, 1 - none).sum())


def monte_carlo_explorer(
    solutions: Sequence[SampledSteps], ks: Sequence[int], alt: str
) -> Interactive:
    """Soft and hard labels from K completions a step, beside the exact value and the truth.

    The grey line holds 90% of all soft labels of a step (binomial quantiles from 5% to 95%).
    """
    frames = []
    for number, of in enumerate(solutions, start=1):
        rows = _value_rows(of)
        for k, draw in product(ks, range(len(of.right))):
            soft, hard = of.soft(draw, k), of.hard(draw, k)
            error = float(abs(soft - of.values).mean())
            wrong = int((hard != of.free).sum())
            reading = (
                f"Solution {number}, {k} completion{'s' * (k > 1)} of each step: the soft labels "
                f"are off by {error:.3f} on average (over all draws {of.expected_error(k):.3f}); "
                f"{wrong} of {len(hard)} hard labels {'is' if wrong == 1 else 'are'} wrong "
                f"(over all draws {of.expected_wrong(k):.2f})."
            )
            drawings = [rows, _value_ranges(of, k), _labels(soft, hard, of.free)]
            frames.append(Frame(drawings, [reading]))
    draws = len(solutions[0].right)
    controls = [
        Control("solution", [f"{n} of {len(solutions)}" for n in range(1, len(solutions) + 1)]),
        Control("K", [str(k) for k in ks], start=len(ks) // 2),
        Control("draw", [f"{n} of {draws}" for n in range(1, draws + 1)]),
    ]
    longest = max(len(of.steps) for of in solutions)
    size = (460, _FIRST + _ROW * longest + 24)
    return Interactive("monte-carlo-explorer", controls, frames, _value_axis(longest), size, alt)


def _value_place(value: float) -> float:
    left, right = _VALUE
    return left + value * (right - left)


def _value_axis(rows: int) -> str:
    bottom = _FIRST + _ROW * (rows - 1) + 14
    return (
        text(4, 16, "step")
        + text(_VALUE[0], 16, "exact value |, soft label ●")
        + text(_HARD, 16, "hard", "middle")
        + text(_TRUTH, 16, "truth", "middle")
        + "".join(
            line([(_value_place(at), 32), (_value_place(at), bottom)], "var(--faint)", 0.5)
            + text(_value_place(at), bottom + 16, f"{at:g}", "middle")
            for at in (0.0, 0.5, 1.0)
        )
    )


def _value_rows(of: SampledSteps) -> str:
    parts = []
    for row, (step, value, right) in enumerate(zip(of.steps, of.values, of.free, strict=True)):
        x, y = _value_place(float(value)), _FIRST + _ROW * row
        parts.append(
            text(4, y, step)
            + f"<path d='M{x:.1f} {y - 13}v16'/>"
            + text(_TRUTH, y, _verdict(bool(right)), "middle")
        )
    return "".join(parts)


def _value_ranges(of: SampledSteps, k: int) -> str:
    low, high = (binom.ppf(level, k, of.values) / k for level in (0.05, 0.95))
    return "".join(
        f"<path class='dropped' d='M{_value_place(a):.1f} {_FIRST + _ROW * row - 5}"
        f"H{_value_place(b):.1f}'/>"
        for row, (a, b) in enumerate(zip(low, high, strict=True))
    )


def _labels(soft: FloatArray, hard: npt.NDArray[np.bool_], free: npt.NDArray[np.bool_]) -> str:
    """A dot per soft label, a word per hard one, and a frame around a word that is not true."""
    parts = []
    for row, (share, label, right) in enumerate(zip(soft, hard, free, strict=True)):
        y = _FIRST + _ROW * row
        parts.append(
            f"<circle cx='{_value_place(share):.1f}' cy='{y - 5}' r='5' "
            f"fill='{STYLE['policy']['color']}'/>" + text(_HARD, y, _verdict(bool(label)), "middle")
        )
        if label != right:
            parts.append(f"<path class='wrong' d='M{_HARD - 26} {y - 15}h52v20h-52z'/>")
    return "".join(parts)


def _verdict(right: bool) -> str:
    return "right" if right else "wrong"
