"""What step labels from completions cost beside outcome labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np

from implicitprm.figures import STYLE
from implicitprm.interactive.figure import Control, Frame, Interactive
from implicitprm.interactive.svg import line, text

#: The chart of the ratio: left and right end, top and bottom, and its log axis.
_CHART, _RATIOS = ((52, 330), (40, 190)), (0.5, 500)
#: The bars: where they start, how long the longest is, and the first one's middle.
_BARS = (112, 330, 262)
#: How dark a use is in the bars; without colour they can still be told apart.
_DARKNESS = {"training": 1.0, "reading": 0.55, "writing": 0.2}
_INK = "fill='var(--ink)' stroke='var(--ink)' stroke-width='.5'"


def compute_explorer(
    flops: Callable[[int, int, int], tuple[Mapping[str, float], Mapping[str, float]]],
    steps: Sequence[int],
    completions: Sequence[int],
    tokens: Sequence[int],
    published: float,
    alt: str,
) -> Interactive:
    """Math-Shepherd's FLOPs against CE's, by steps, completions of each and tokens of a solution.

    ``flops`` takes the three and gives those of CE and of Math-Shepherd for one solution, by the
    uses of _DARKNESS. ``published`` is the paper's ratio.
    """
    found = {state: flops(*state) for state in product(steps, completions, tokens)}
    ratios = {
        state: sum(dear.values()) / sum(cheap.values()) for state, (cheap, dear) in found.items()
    }
    frames = []
    for state in found:
        step, k, length = state
        cheap, dear = found[state]
        curve = [ratios[at, k, length] for at in steps]
        written = dear["writing"] / sum(dear.values())
        readings = [
            f"{step} steps, {k} completion{'s' * (k > 1)} of each, {length} tokens: ",
            f"Math-Shepherd spends {ratios[state]:.2f} times the FLOPs of CE, {written:.0%} of "
            "them on completions.",
            f" Published: {published}.",
        ]
        drawings = [
            _ratio_curve(curve, steps),
            _ratio_mark(ratios[state], step, steps),
            _flops_bars({"CE": cheap, "Math-Shepherd": dear}),
        ]
        frames.append(Frame(drawings, readings))
    controls = [
        Control("steps", [str(n) for n in steps], start=len(steps) // 2),
        Control("completions of a step", [str(n) for n in completions], len(completions) // 2),
        Control("tokens of a solution", [str(n) for n in tokens], start=len(tokens) // 2),
    ]
    background = _ratio_axes(steps, published)
    return Interactive("compute-explorer", controls, frames, background, (460, 354), alt)


def _ratio_place(ratio: float, step: int, steps: Sequence[int]) -> tuple[float, float]:
    (left, right), (top, bottom) = _CHART
    low, high = _RATIOS
    up = np.log(ratio / low) / np.log(high / low)
    across = (step - steps[0]) / (steps[-1] - steps[0])
    return left + across * (right - left), bottom - up * (bottom - top)


def _ratio_curve(curve: Sequence[float], steps: Sequence[int]) -> str:
    places = [_ratio_place(ratio, step, steps) for ratio, step in zip(curve, steps, strict=True)]
    return line(places, "var(--ink)", 2)


def _ratio_mark(ratio: float, step: int, steps: Sequence[int]) -> str:
    x, y = _ratio_place(ratio, step, steps)
    return (
        f"<circle cx='{x:.1f}' cy='{y:.1f}' r='6' fill='{STYLE['implicit']['color']}' "
        "stroke='var(--ink)'/>" + text(x, y - 12, f"{ratio:.2f}", "middle")
    )


def _flops_bars(spent: Mapping[str, Mapping[str, float]]) -> str:
    left, reach, first = _BARS
    longest = max(sum(uses.values()) for uses in spent.values())
    rectangles, words = [], []
    for row, (name, uses) in enumerate(spent.items()):
        x, y = float(left), first + 36 * row
        for use, darkness in _DARKNESS.items():
            width = uses[use] / longest * reach
            rectangles.append(_shaded(x, y - 9, width, darkness))
            x += width
        words.append(text(4, y - 2, name) + text(4, y + 12, _scientific(sum(uses.values()))))
    return f"<g {_INK}>{''.join(rectangles)}</g>{''.join(words)}"


def _shaded(x: float, y: float, width: float, darkness: float) -> str:
    shade = "" if darkness == 1 else f" fill-opacity='{darkness}'"
    return f"<rect x='{x:.1f}' y='{y:.0f}' width='{width:.1f}' height='18'{shade}/>"


def _scientific(flops: float) -> str:
    """Such as 3.2·10¹³."""
    mantissa, exponent = f"{flops:.1e}".split("e")
    return f"{mantissa}·10" + str(int(exponent)).translate(
        str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
    )


def _ratio_axes(steps: Sequence[int], published: float) -> str:
    (left, right), (top, bottom) = _CHART
    level = [_ratio_place(published, step, steps) for step in (steps[0], steps[-1])]
    legend, parts = float(_BARS[0]), []
    for use, darkness in _DARKNESS.items():
        parts.append(f"<g {_INK}>{_shaded(legend, 326, 18, darkness)}</g>")
        parts.append(text(legend + 24, 340, use))
        legend += 100
    return (
        text(4, 16, "FLOPs, Math-Shepherd / CE (log axis)")
        + line([(left, top), (left, bottom), (right, bottom)], "var(--faint)", 1)
        + "".join(
            text(left - 6, _ratio_place(tick, steps[0], steps)[1] + 4, f"{tick}", "end")
            for tick in (1, 10, 100)
        )
        + "".join(
            text(_ratio_place(1, step, steps)[0], bottom + 18, f"{step}", "middle")
            for step in steps
        )
        + text(right + 16, bottom + 18, "steps")
        + line(level, "var(--faint)", 2, "8 4")
        + text(right + 8, level[1][1] + 4, f"published: {published}")
        + text(4, 236, "FLOPs of one solution")
        + "".join(parts)
    )
