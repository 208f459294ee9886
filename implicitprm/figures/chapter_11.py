"""The figures that chapter 11 is the first to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from implicitprm.figures.style import STYLE, bars, plain_ticks, unmarked

#: Who judges steps in chapter 11: three objectives, two heads (grey), either model's confidence.
JUDGE_STYLE: dict[str, dict[str, Any]] = {
    "CE": STYLE["policy"],
    "KTO": STYLE["policy"] | {"marker": "D", "fillstyle": "none"},
    "DPO": STYLE["policy"] | {"marker": "^", "fillstyle": "none"},
    "ORM": {"color": "0.45", "marker": "h", "linestyle": ":"},
    "head, Math-Shepherd, soft": {"color": "0.45", "marker": "v", "linestyle": ":"},
    "log π_θ (CE)": {"color": STYLE["policy"]["color"], "marker": "x", "linestyle": "-."},
    "log π_ref": STYLE["reference"],
}


def judge_points(
    panels: Mapping[str, Mapping[str, Mapping[str, tuple[float, float, float]]]],
    xlabel: str,
    title: str,
) -> Figure:
    """One measure of several judges with 95% intervals, a line for each row, side by side.

    ``panels[panel][row]`` maps a name of ``JUDGE_STYLE`` to (value, low, high); every panel has
    the same rows and an axis of its own.
    """
    rows = list(next(iter(panels.values())))
    judges = len(next(iter(next(iter(panels.values())).values())))
    height = len(rows) * (0.13 * judges + 0.2) + 1.7
    width = 4.0 * len(panels) + 3.6
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title)
    columns = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (panel, of_rows) in zip(columns, panels.items(), strict=True):
        for row, points in enumerate(of_rows.values()):
            for place, (judge, (value, low, high)) in enumerate(points.items()):
                y = row + 0.78 * ((place + 0.5) / len(points) - 0.5)
                style = JUDGE_STYLE[judge] | {"linestyle": "none"}
                axes.errorbar(value, y, xerr=[[value - low], [high - value]], **style,
                              markersize=5, elinewidth=1, label=judge)  # fmt: skip
            if row:
                axes.axhline(row - 0.5, color="0.88", linewidth=0.8, zorder=0)
        axes.set(title=panel, xlabel=xlabel)
        axes.spines[["right", "top"]].set_visible(False)
    columns[0].set_yticks(range(len(rows)), rows)
    columns[0].set_ylim(len(rows) - 0.45, -0.55)
    handles, labels = columns[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(
        unique.values(), unique.keys(), loc="outside lower center", ncols=4, frameon=False
    )
    return figure


def token_places(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float, float]]]],
    places: Sequence[str],
    title: str,
) -> Figure:
    """Mean score (β · nats; of log π_ref nats) of each token of a step with 95% intervals.

    ``panels[kind of step]`` maps a name of ``JUDGE_STYLE`` to (value, low, high) of every place.
    """
    figure = Figure(figsize=(8.4, 2.0 * len(panels) + 0.9), layout="constrained")
    figure.suptitle(title)
    columns = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (kind, judges) in zip(columns, panels.items(), strict=True):
        axes.axhline(0, color="0.6", linewidth=0.8, zorder=0)
        for place, (judge, points) in enumerate(judges.items()):
            x = [n + 0.6 * ((place + 0.5) / len(judges) - 0.5) for n in range(len(places))]
            bars(axes, x, points, JUDGE_STYLE[judge] | {"linestyle": "none"}, judge)
        axes.set_xticks(range(len(places)), places)
        axes.set_title(kind, fontsize=10)
        axes.set_ylabel("mean (β · nats)")
        axes.spines[["right", "top"]].set_visible(False)
    handles, labels = columns[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def claimed_f1(
    problems: Sequence[int],
    claimed: Sequence[tuple[float, float, float]],
    elsewhere: Sequence[tuple[float, float, float]],
    carried: float,
    title: str,
) -> Figure:
    """First-error F1 (%) of a threshold tuned on few problems: on these, and on all others.

    (mean, low, high) of the draws at each number of problems, low and high being the ends of their
    middle 80%; ``carried`` is the F1 of the
    threshold from the validation split.
    """
    figure = Figure(figsize=(6.8, 3.7), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots()
    tuned = {"color": "0.5", "marker": "X", "linestyle": "--"}
    bars(axes, [1.04 * n for n in problems], claimed, tuned, "on the problems tuned on")
    bars(axes, problems, elsewhere, STYLE["policy"], "on all other problems")
    axes.axhline(carried, **unmarked("reference"), linewidth=1.2, label="threshold from validation")
    axes.set(xscale="log", xlabel="problems that the threshold was tuned on")
    axes.set_ylabel("first-error F1 (%),\nbars: middle 80% of draws")
    plain_ticks(axes.xaxis, problems)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    axes.spines[["right", "top"]].set_visible(False)
    return figure
