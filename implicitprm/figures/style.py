"""What a colour means in every figure of the book, and marks that several figures share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis

#: What a colour means, in every figure of the book; a reward has the colour of its policy, and what
#: has none of these roles is grey. The colours are those of Okabe and Ito, which readers with
#: colour-blindness can tell apart; marker and line style tell them apart in greyscale.
STYLE: dict[str, dict[str, Any]] = {
    "policy": {"color": "#0072B2", "marker": "s", "linestyle": "-"},
    "reference": {"color": "#000000", "marker": "P", "linestyle": "--"},
    "correct": {"color": "#009E73", "marker": "o", "linestyle": "-"},
    "wrong": {"color": "#D55E00", "marker": "X", "linestyle": "--"},
    "soft": {"color": "#56B4E9", "marker": "v", "linestyle": ":"},
    "implicit": {"color": "#CC79A7", "marker": "D", "linestyle": "-"},
    "hard": {"color": "#E69F00", "marker": "^", "linestyle": "--"},
}


def unmarked(name: str) -> dict[str, Any]:
    """The style of a role of ``STYLE``, as a line without its marker."""
    return STYLE[name] | {"marker": ""}


def plain_ticks(axis: Axis, values: Sequence[float]) -> None:
    """Plain numbers at ``values`` in place of powers of ten."""
    axis.set_ticks(values, [f"{value:g}" for value in values])
    axis.set_ticks([], minor=True)


#: How the ways to choose an answer are drawn; violet is the vote that a reward has a part in.
SELECTION_STYLE: dict[str, dict[str, Any]] = {
    "oracle": {"color": "0.6", "linestyle": ":", "marker": ""},
    "vote weighted by reward": {"color": "#6A3D9A", "marker": "D", "linestyle": ":"},
    "reward, min over steps": STYLE["policy"],
    "reward, sum over steps": STYLE["policy"] | {"linestyle": "--", "marker": "P"},
    "majority vote": {"color": "0.45", "marker": "^", "linestyle": "--"},
    "log π_ref alone": STYLE["reference"],
    "log π_θ alone": STYLE["policy"] | {"linestyle": "-.", "marker": "x"},
}


def bars(
    axes: Axes,
    x: Sequence[float],
    points: Sequence[tuple[float, float, float]],
    style: Mapping[str, Any],
    label: str,
) -> None:
    """Points with their intervals, (value, low, high) at each ``x``, joined as ``style`` says."""
    value, low, high = np.array(points).T
    axes.errorbar(x, value, yerr=(value - low, high - value), **style, markersize=5, linewidth=1.2,
                  elinewidth=0.9, label=label)  # fmt: skip
