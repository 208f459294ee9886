"""The figures that chapter 07 is the first to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from implicitprm.figures.style import SELECTION_STYLE, STYLE, bars, plain_ticks, unmarked
from implicitprm.qvalues import FloatArray

#: How the ways to choose are drawn in chapter 07: in the colours of ``SELECTION_STYLE``, and more.
CURVE_STYLE: dict[str, dict[str, Any]] = SELECTION_STYLE | {
    # another marker than that of log π_ref, which may stand beside it
    "reward, sum over steps": STYLE["policy"] | {"linestyle": "--", "marker": "v"},
    "chance": {"color": "0.6", "linestyle": "-.", "marker": ""},
}


def curve_panels(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float, float]]]],
    ns: Sequence[int],
    title: str,
) -> Figure:
    """Accuracy (%) against the number of candidates N, one panel a world, 95% intervals as bands.

    ``panels[world]`` maps a name of ``CURVE_STYLE`` to (value, low, high) at each N.
    """
    figure = Figure(figsize=(min(9.6, 4.0 * len(panels)), 3.9), layout="constrained")
    figure.suptitle(title)
    columns = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (world, curves) in zip(columns, panels.items(), strict=True):
        for name, points in curves.items():
            value, low, high = np.array(points).T
            style = CURVE_STYLE[name]
            axes.plot(ns, value, **style, markersize=4.5, linewidth=1.4, label=name)
            axes.fill_between(ns, low, high, color=style["color"], alpha=0.13, linewidth=0)
        axes.set(xscale="log", title=world, xlabel="candidates N")
        plain_ticks(axes.xaxis, ns)
        axes.spines[["right", "top"]].set_visible(False)
    columns[0].set_ylabel("problems answered right (%)")
    handles, labels = columns[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def headroom(
    ref_logps: FloatArray,
    rewards: FloatArray,
    right: FloatArray,
    weights: FloatArray,
    title: str,
    beta: float = 1.0,
) -> Figure:
    """The reward of each solution (β · nats) against −log π_ref (nats), one panel an outcome.

    The area of a mark is the ``weight``, how often the solution was drawn. The line is the ceiling:
    log π_θ cannot be above 0, so r ≤ −β log π_ref. The farthest hundredth of the solutions lies
    outside the frame. All are (N).
    """
    figure = Figure(figsize=(7.4, 3.5), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    nats = -np.asarray(ref_logps)
    for axes, outcome in zip(panels, ("correct", "wrong"), strict=True):
        own = np.asarray(right, dtype=bool) == (outcome == "correct")
        style = {"color": STYLE[outcome]["color"], "marker": STYLE[outcome]["marker"]}
        axes.scatter(nats[own], rewards[own], s=2 * weights[own], **style, linewidths=0)
        ends = np.array([0.0, float(nats.max())])
        axes.plot(ends, beta * ends, **unmarked("reference"), linewidth=1.4, label="ceiling")
        axes.axhline(0, color="0.6", linewidth=0.8, zorder=0)
        axes.set(title=f"{outcome} solutions", xlabel="−log π_ref of the solution (nats)")
        axes.spines[["right", "top"]].set_visible(False)
    right_end, low = float(np.quantile(nats, 0.99)), float(np.quantile(rewards, 0.01))
    panels[0].set(xlim=(-0.3, right_end), ylim=(low, 1.15 * float(rewards.max())))
    panels[0].set_ylabel("reward, sum over steps (β · nats)")
    panels[0].legend(loc="lower right", frameon=False)
    return figure


def noise_by_chance(
    bins: Mapping[str, Sequence[tuple[float, float]]],
    left: Mapping[str, Sequence[tuple[float, float, float]]],
    right: Mapping[str, Mapping[str, Sequence[tuple[float, float, float]]]],
    title: str,
) -> Figure:
    """Step rewards by the chance π_ref that the reference gave the step, with 95% intervals.

    ``bins`` are (low, high) of π_ref for valid ("correct") and "wrong" steps. Left: their mean
    reward (β · nats), (value, low, high) a bin. Right: standard deviations by kind of spread, drawn
    filled or hollow in the order given.
    """
    figure = Figure(figsize=(9.0, 3.7), layout="constrained")
    figure.suptitle(title)
    one, two = figure.subplots(1, 2, sharex=True)
    names = {"correct": "valid steps", "wrong": "wrong steps"}
    for outcome, edges in bins.items():
        x = [np.sqrt(max(low, 3e-4) * high) for low, high in edges]
        bars(one, x, left[outcome], STYLE[outcome], names[outcome])
        for spread, fill in zip(right[outcome], ("full", "none"), strict=True):
            style = STYLE[outcome] | {"fillstyle": fill}
            bars(two, x, right[outcome][spread], style, f"{names[outcome]}, {spread}")
    chances = np.geomspace(3e-4, 1, 50)
    one.plot(
        chances, -np.log(chances), **unmarked("reference"), linewidth=1.2, label="ceiling, β = 1"
    )
    one.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    one.set_ylabel("mean step reward (β · nats)")
    two.set(ylabel="standard deviation (β · nats)", ylim=(0, None))
    for axes in (one, two):
        axes.set(xscale="log", xlabel="π_ref of the step")
        plain_ticks(axes.xaxis, (0.001, 0.01, 0.1, 1))
        axes.legend(frameon=False, fontsize=8.5)
        axes.spines[["right", "top"]].set_visible(False)
    return figure


#: Which candidates are dropped: the rule, and what drops as many.
DROP_STYLE: dict[str, dict[str, Any]] = {
    "a rare step": STYLE["policy"],
    "as many rare solutions": STYLE["reference"],
    "as many right and wrong at random": {"color": "0.4", "marker": "^", "linestyle": "--"},
    "as many at random": {"color": "0.6", "marker": "v", "linestyle": ":"},
}


def drop_curves(
    epsilons: Sequence[float],
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float, float]]]],
    levels: Mapping[str, Mapping[str, float]],
    title: str,
) -> Figure:
    """Accuracy (%) at one N by the threshold ε below which a step is rare, one panel a rule.

    ``panels[rule]`` maps a name of ``DROP_STYLE`` to (value, low, high) at each ε;
    ``levels[rule]`` are accuracies with nothing dropped, by name: horizontal lines.
    """
    figure = Figure(figsize=(8.4, 4.0), layout="constrained")
    figure.suptitle(title)
    columns = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (rule, curves) in zip(columns, panels.items(), strict=True):
        for linestyle, (name, level) in zip(("-", "--", ":"), levels[rule].items(), strict=False):
            axes.axhline(level, color="0.75", linestyle=linestyle, label=name, zorder=0)
        for name, points in curves.items():
            bars(axes, epsilons, points, DROP_STYLE[name], f"dropped: {name}")
        axes.set(xscale="log", title=rule, xlabel="ε, smallest π_ref that a step may have")
        plain_ticks(axes.xaxis, epsilons)
        axes.spines[["right", "top"]].set_visible(False)
    columns[0].set_ylabel("problems answered right (%)")
    handles, labels = columns[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure


def alone_and_in_vote(
    panels: Mapping[str, tuple[Mapping[str, tuple[float, float]], float]], title: str
) -> Figure:
    """Accuracy (%) of each objective's reward alone and in a weighted vote, one panel a source.

    Each panel is ({objective: (alone, in the vote)}, accuracy of the majority vote).
    """
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    figure.suptitle(title)
    columns = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (source, (pairs, majority)) in zip(columns, panels.items(), strict=True):
        axes.axvline(majority, color="0.55", linestyle="--", linewidth=1.2, label="majority vote")
        for row, (alone, voted) in enumerate(pairs.values()):
            axes.annotate("", (voted, row), (alone, row), arrowprops={"arrowstyle": "->"})
            for value, name in (
                (alone, "reward, min over steps"),
                (voted, "vote weighted by reward"),
            ):
                axes.plot(value, row, SELECTION_STYLE[name]["marker"],
                          color=SELECTION_STYLE[name]["color"],
                          label=name if row == 0 else None)  # fmt: skip
        axes.set_yticks(range(len(pairs)), list(pairs))
        axes.invert_yaxis()
        axes.set(title=source, xlabel="problems answered right (%)")
        axes.margins(0.1, 0.15)
        axes.spines[["right", "top"]].set_visible(False)
    handles, labels = columns[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure
