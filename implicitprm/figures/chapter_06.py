"""The figures that chapter 06 is the first to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from implicitprm.figures.style import SELECTION_STYLE, STYLE
from implicitprm.qvalues import FloatArray

#: The four objectives, told apart without colour, which means something else here.
OBJECTIVE_STYLE: dict[str, dict[str, Any]] = {
    "CE": {"color": "0.0", "linestyle": "-"},
    "DPO": {"color": "0.35", "linestyle": "--"},
    "NCA": {"color": "0.5", "linestyle": "-."},
    "KTO": {"color": "0.2", "linestyle": ":"},
}


def pulls(
    rewards: Sequence[float],
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    title: str,
) -> Figure:
    """How hard each objective pulls on the reward of one response: −∂loss/∂r, above 0 is upwards.

    Each panel maps a name of ``OBJECTIVE_STYLE`` to the pull at each of ``rewards``.
    """
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    figure.suptitle(title)
    columns = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (name, curves) in zip(columns, panels.items(), strict=True):
        axes.axhline(0, color="0.6", linewidth=0.8, zorder=0)
        for objective, values in curves.items():
            axes.plot(rewards, values, **OBJECTIVE_STYLE[objective], linewidth=2, label=objective)
        axes.set(title=name, xlabel="reward r of the response (β · nats)")
        axes.spines[["right", "top"]].set_visible(False)
    columns[0].set_ylabel("pull on r, −∂loss/∂r")
    columns[0].legend()
    return figure


def sweep_maps(
    panels: Mapping[str, tuple[Sequence[float], Sequence[float], FloatArray]], title: str
) -> Figure:
    """Validation accuracy (%) by β and learning rate, one panel an objective; the best are framed.

    Each panel is (betas (B), learning rates (L), accuracy (B, L)), both ascending.
    """
    figure = Figure(figsize=(10.4, 3.9), layout="constrained")
    figure.suptitle(title)
    low = min(float(np.nanmin(values)) for _, _, values in panels.values())
    high = max(float(np.nanmax(values)) for _, _, values in panels.values())
    columns = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (name, (betas, rates, values)) in zip(columns, panels.items(), strict=True):
        axes.imshow(values, cmap="Greys_r", vmin=low, vmax=high, aspect="auto", origin="lower")
        for (row, column), value in np.ndenumerate(values):
            shade = "white" if (value - low) / (high - low) < 0.6 else "black"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=shade)
        frame = {"edgecolor": STYLE["correct"]["color"], "facecolor": "none", "linewidth": 3}
        for row, column in np.argwhere(values == np.nanmax(values)):
            axes.add_patch(Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, **frame))
        axes.set_xticks(range(len(rates)), [f"{1e4 * rate:g}" for rate in rates])
        axes.set_yticks(range(len(betas)), [f"{beta:g}" for beta in betas])
        axes.set(title=name, xlabel="learning rate × 10⁴")
    columns[0].set_ylabel("β")
    figure.supxlabel(
        "best of 16 by the minimum, % of validation problems right; framed: the best", fontsize=10
    )
    return figure


def objective_points(
    panels: Mapping[str, Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]],
    levels: Mapping[str, Mapping[str, float]],
    title: str,
) -> Figure:
    """Accuracy (%) of every training by every rule, one panel a generator.

    ``panels[generator][training][rule]`` is (one accuracy a seed, (value, low, high)); a rule is a
    name of ``SELECTION_STYLE``. ``levels[generator]`` are accuracies that need no training, by
    name: drawn as vertical lines.
    """
    names = list(next(iter(panels.values())))
    figure = Figure(figsize=(10.4, 0.52 * len(names) + 2.0), layout="constrained")
    figure.suptitle(title)
    columns = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    lines = ("-", "--", ":", "-.")
    for axes, (generator, trainings) in zip(columns, panels.items(), strict=True):
        for (level, value), linestyle in zip(levels[generator].items(), lines, strict=False):
            axes.axvline(value, color="0.55", linestyle=linestyle, linewidth=1.2, label=level)
        for row, rules in enumerate(trainings.values()):
            for place, (rule, (seeds, (value, low, high))) in enumerate(rules.items()):
                y = row + 0.24 * (place - (len(rules) - 1) / 2)
                style = SELECTION_STYLE[rule] | {"linestyle": "none"}
                axes.plot(
                    seeds,
                    [y] * len(seeds),
                    ".",
                    color="0.5",
                    markersize=3,
                    zorder=1,
                    label="one seed",
                )
                axes.errorbar(
                    value,
                    y,
                    xerr=[[value - low], [high - value]],
                    **style,
                    markersize=5,
                    elinewidth=1,
                    label=rule,
                )
        axes.set(title=generator, xlabel="problems answered right (%)")
        axes.spines[["right", "top"]].set_visible(False)
    columns[0].set_yticks(range(len(names)), names)
    columns[0].invert_yaxis()
    handles, labels = columns[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(
        unique.values(), unique.keys(), loc="outside lower center", ncols=4, frameon=False
    )
    return figure


def vote_by_beta(
    betas: Sequence[float],
    curves: Mapping[str, Sequence[tuple[float, float, float]]],
    marks: Mapping[str, float],
    title: str,
) -> Figure:
    """Accuracy (%) against the β with which rewards are *read*, with 95% intervals as bands.

    ``curves`` maps a name of ``SELECTION_STYLE`` to (value, low, high) at each β; ``marks`` names
    some values of β.
    """
    figure = Figure(figsize=(7.6, 4.0), layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        value, low, high = np.array(points).T
        style = SELECTION_STYLE[name] | {"markersize": 4}
        axes.plot(betas, value, **style, label=name)
        axes.fill_between(betas, low, high, color=style["color"], alpha=0.15, linewidth=0)
    for name, beta in marks.items():
        axes.axvline(beta, color="0.5", linewidth=1, zorder=0)
        axes.text(beta, axes.get_ylim()[1], f" {name}", ha="center", va="bottom", fontsize=9)
    axes.set(xscale="log", xlabel="β with which the same log-ratios are read")
    axes.set_ylabel("problems answered right (%)")
    axes.set_title(title, pad=20)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    axes.spines[["right", "top"]].set_visible(False)
    return figure
