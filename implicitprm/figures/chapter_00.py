"""The figures that chapter 00 is the first to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from implicitprm.figures.style import SELECTION_STYLE, STYLE
from implicitprm.qvalues import FloatArray


def step_reward_bars(
    solutions: Mapping[str, tuple[Sequence[str], FloatArray, Sequence[bool]]], title: str
) -> Figure:
    """Step rewards (nats times β) as bars, one panel a solution.

    Each panel is (steps, step rewards (S), whether each step is valid).
    """
    longest = max(len(steps) for steps, _, _ in solutions.values())
    figure = Figure(figsize=(8.0, 0.42 * longest + 1.5), layout="constrained")
    panels = figure.subplots(1, len(solutions), sharex=True, squeeze=False)[0]
    for axes, (name, (steps, rewards, valid)) in zip(panels, solutions.items(), strict=True):
        for row, (reward, right) in enumerate(zip(rewards, valid, strict=True)):
            axes.barh(
                row,
                reward,
                color=STYLE["correct" if right else "wrong"]["color"],
                hatch="" if right else "//",
                edgecolor="black",
                linewidth=0.6,
                label="valid step" if right else "wrong step",
            )
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(steps)), steps, family="monospace")
        axes.invert_yaxis()
        axes.set(title=name, xlabel="step reward (β · nats)")
        axes.spines[["right", "top"]].set_visible(False)
    keys = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(keys.values(), keys.keys(), loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(title)
    return figure


def selection_curves(
    curves: Mapping[str, Sequence[tuple[float, float, float]]], ns: Sequence[int], title: str
) -> Figure:
    """Accuracy (%) against the number of candidates N, with 95% intervals as bars.

    ``curves`` maps a name of ``SELECTION_STYLE`` to (value, low, high) at each N.
    """
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.subplots()
    for position, (name, points) in enumerate(curves.items()):
        value, low, high = np.array(points).T
        # Shifted a little, so that intervals of neighbouring curves do not cover each other.
        x = np.log2(ns) + 0.05 * (position - (len(curves) - 1) / 2)
        axes.errorbar(
            x,
            value,
            yerr=(value - low, high - value),
            **SELECTION_STYLE[name],
            markersize=5,
            linewidth=1.4,
            elinewidth=0.8,
            label=name,
        )
    axes.set_xticks(np.log2(ns), [str(n) for n in ns])
    axes.set(xlabel="candidates N", ylabel="problems answered right (%)", title=title)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    axes.spines[["right", "top"]].set_visible(False)
    return figure
