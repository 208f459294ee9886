"""The figures that chapter 09 is the first to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from implicitprm.figures.style import STYLE

#: By responses per instruction: the more, the darker.
RESPONSE_STYLE: dict[int, dict[str, Any]] = {
    1: {"color": "0.7", "marker": "o", "linestyle": ":"},
    2: {"color": "0.5", "marker": "v", "linestyle": "-."},
    4: {"color": "0.3", "marker": "s", "linestyle": "--"},
    8: {"color": "0.0", "marker": "D", "linestyle": "-"},
}


def scaling_curves(
    panels: Mapping[
        str, Mapping[int, Sequence[tuple[float, Sequence[float], tuple[float, float, float]]]]
    ],
    levels: Mapping[str, float],
    amount: str,
    title: str,
) -> Figure:
    """Accuracy (%) against an amount of data, a line per number of responses, in panels.

    ``panels[name][responses]`` is a list of (amount, one accuracy a seed, (value, low, high));
    ``levels`` are accuracies that need no training, drawn as horizontal lines.
    """
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(9.6, 3.4 * rows + 0.6), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False)
    for axes, (name, lines) in zip(grid.flat, panels.items(), strict=False):
        for (level, value), linestyle in zip(levels.items(), ("--", ":", "-."), strict=False):
            axes.axhline(value, color="0.55", linestyle=linestyle, linewidth=1, label=level)
        for responses, points in sorted(lines.items()):
            style = RESPONSE_STYLE[responses]
            for x, seeds, _ in points:
                axes.plot([x] * len(seeds), seeds, ".", color=style["color"], markersize=3)
            value, low, high = np.array([triple for _, _, triple in points]).T
            axes.errorbar(
                [x for x, _, _ in points],
                value,
                yerr=(value - low, high - value),
                **style,
                markersize=5,
                linewidth=1.4,
                elinewidth=0.8,
                label=f"{responses} per instruction",
            )
        axes.set_xscale("log", base=2)
        axes.set(title=name)
        axes.spines[["right", "top"]].set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel(amount)
        axes.xaxis.set_major_formatter("{x:.0f}")
    for axes in grid[:, 0]:
        axes.set_ylabel("problems answered right (%)")
    found: dict[str, Any] = {}
    for axes in grid.flat:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def difference_points(
    panels: Mapping[str, Mapping[str, tuple[float, float, float]]], title: str
) -> Figure:
    """Differences in points with their intervals around a line at 0, in panels one over another."""
    heights = [len(rows) for rows in panels.values()]
    figure = Figure(figsize=(8.4, 0.36 * sum(heights) + 0.7 * len(panels) + 0.8))
    figure.set_layout_engine("constrained")
    figure.suptitle(title)
    column = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)
    for axes, (name, rows) in zip(column[:, 0], panels.items(), strict=True):
        axes.axvline(0, color="0.55", linewidth=1)
        for y, (value, low, high) in enumerate(rows.values()):
            axes.errorbar(
                value,
                y,
                xerr=[[value - low], [high - value]],
                **STYLE["policy"] | {"linestyle": "none"},
                elinewidth=1.2,
            )
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_title(name, loc="left", fontsize=10)
        axes.spines[["right", "top"]].set_visible(False)
    column[-1, 0].set_xlabel("difference (points)")
    return figure


def pair_chance(
    pass_rates: Sequence[float],
    curves: Mapping[int, Sequence[float]],
    measured: Mapping[int, float],
    title: str,
) -> Figure:
    """Chance (%) that so many responses hold a right and a wrong one, against the pass rate.

    ``curves[responses]`` has a value per pass rate; ``measured[responses]`` is the share of
    instructions with a pair, in the second panel.
    """
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
    for responses, values in curves.items():
        style = RESPONSE_STYLE[responses] | {"marker": ""}
        left.plot(pass_rates, values, **style, label=f"{responses} responses")
    left.set(xlabel="pass rate of the instruction, p", ylabel="instructions with a pair (%)")
    left.legend(frameon=False)
    right.bar(
        [str(responses) for responses in measured],
        list(measured.values()),
        color=[RESPONSE_STYLE[responses]["color"] for responses in measured],
    )
    right.set(xlabel="responses per instruction, as drawn")
    for axes in (left, right):
        axes.spines[["right", "top"]].set_visible(False)
    return figure
