"""The figures that chapter 08 is the first to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from implicitprm.figures.style import STYLE

#: Where step labels come from, told apart by marker and line style; green is the truth.
LABEL_STYLE: dict[str, dict[str, Any]] = {
    "outcome at every step": {"color": "0.45", "marker": "P", "linestyle": ":"},
    "Math-Shepherd, soft": STYLE["soft"] | {"linestyle": "-."},
    "Math-Shepherd, hard": STYLE["hard"],
    "AutoPSV": {"color": "0.0", "marker": "D", "linestyle": "-"},
    "true labels": STYLE["correct"],
}


def label_accuracy(
    completions: Sequence[int],
    by_completions: Mapping[str, Sequence[float]],
    by_depth: Mapping[str, Sequence[tuple[float, float, float]]],
    title: str,
) -> Figure:
    """Share of step labels (%) that agree with the truth, by K and by depth of the step.

    Both map a name of ``LABEL_STYLE`` to values: one per K of ``completions``, or one number for
    labels without completions; and (value, low, high) per depth, the first step being 1.
    """
    figure = Figure(figsize=(9.6, 4.0), layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2, sharey=True)
    for name, values in by_completions.items():
        style = LABEL_STYLE[name] | {"linewidth": 1.8}
        flat = len(values) == 1
        y = list(values) * len(completions) if flat else values
        left.plot(completions, y, **style | ({"marker": ""} if flat else {}), label=name)
    left.set_xscale("log", base=2)
    left.set_xticks(list(completions), [str(k) for k in completions])
    left.set(xlabel="completions of each prefix, K", ylabel="labels that agree with the truth (%)")
    for shift, (name, points) in enumerate(by_depth.items()):
        value, low, high = np.array(points).T
        depth = np.arange(1, len(value) + 1) + 0.08 * (shift - len(by_depth) / 2)
        right.errorbar(
            depth, value, yerr=(value - low, high - value), **LABEL_STYLE[name], elinewidth=1
        )
    right.set(xlabel="step of the solution")
    for axes in (left, right):
        axes.spines[["right", "top"]].set_visible(False)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def label_bias(
    completions: Sequence[int],
    curves: Mapping[str, Sequence[float]],
    expected: Sequence[float],
    truth: float,
    title: str,
) -> Figure:
    """Mean label of a prefix against K: soft, hard, and what 1 − (1 − Q)^K says of the hard one.

    ``curves`` maps a name of ``LABEL_STYLE`` to a value per K; ``truth`` is the mean true Q.
    """
    figure = Figure(figsize=(7.2, 4.0), layout="constrained")
    axes = figure.subplots()
    for name, values in curves.items():
        axes.plot(completions, values, **LABEL_STYLE[name], label=f"{name}: mean label")
    axes.plot(
        completions, expected, color="0.3", linestyle="none", marker="x", label="1 − (1 − Q)ᴷ"
    )
    axes.axhline(truth, color=STYLE["correct"]["color"], linewidth=1.2, label="mean true Q")
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(completions), [str(k) for k in completions])
    axes.set(xlabel="completions of each prefix, K", ylabel="mean over prefixes")
    figure.suptitle(title)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    axes.spines[["right", "top"]].set_visible(False)
    return figure


def cost_against_accuracy(
    methods: Mapping[str, tuple[float, tuple[float, float, float], str]],
    levels: Mapping[str, float],
    title: str,
) -> Figure:
    """Mean accuracy (%) with its interval against FLOPs in units of CE's, a point a method.

    ``methods`` maps a name to (cost, (value, low, high), style), style a name of ``STYLE`` or
    ``LABEL_STYLE``; ``levels`` are accuracies that cost nothing to train.
    """
    figure = Figure(figsize=(9.0, 4.8), layout="constrained")
    axes = figure.subplots()
    styles = STYLE | LABEL_STYLE
    dearest = max(cost for cost, _, _ in methods.values())
    for name, (cost, (value, low, high), style) in methods.items():
        others = [v[0] for n, (c, v, _) in methods.items() if n != name and c == cost]
        # Beside another mark of equal cost and nearly equal accuracy.
        shift = sum(
            (0.004 if value > v else -0.004) * dearest for v in others if abs(v - value) < 2
        )
        axes.errorbar(
            cost + shift,
            value,
            yerr=[[value - low], [high - value]],
            **styles[style] | {"linestyle": "none"},
            elinewidth=1,
        )
        # Below its mark where another one of equal cost stands just above; inwards elsewhere.
        lowered = any(0 < other - value < 2 for other in others)
        right = cost > 0.9 * dearest or cost == min(c for c, _, _ in methods.values())
        axes.annotate(
            name,
            (cost + (abs(shift) if right else -abs(shift)), value),
            xytext=(7 if right else -7, -9 if lowered else 3),
            textcoords="offset points",
            ha="left" if right else "right",
            fontsize=8,
        )
    for (name, value), linestyle in zip(levels.items(), ("-", "--", ":"), strict=False):
        axes.axhline(value, color="0.6", linewidth=1, linestyle=linestyle, zorder=0, label=name)
    axes.set(xlabel="FLOPs of labels and training, in units of CE's, without the rollouts")
    axes.set(ylabel="problems answered right (%),\nmean of nine cells by the minimum", title=title)
    axes.margins(x=0.3)
    axes.legend(loc="upper center", frameon=False)
    axes.spines[["right", "top"]].set_visible(False)
    return figure


def cost_ratios(
    steps: Sequence[int],
    measured: Mapping[str, Sequence[float]],
    formula: Mapping[str, Sequence[float]],
    stated: float,
    title: str,
) -> Figure:
    """Math-Shepherd's FLOPs divided by CE's against the number of steps; log scale.

    ``measured`` and ``formula`` map a way of counting to a ratio per number of ``steps``;
    ``stated`` is the paper's ratio.
    """
    figure = Figure(figsize=(7.6, 4.0), layout="constrained")
    axes = figure.subplots()
    for (name, values), marker in zip(measured.items(), ("o", "s"), strict=False):
        axes.plot(steps, values, color="0.0", marker=marker, label=f"measured, {name}")
    for (name, values), linestyle in zip(formula.items(), ("--", ":"), strict=False):
        axes.plot(steps, values, color="0.45", linestyle=linestyle, label=name)
    axes.axhline(stated, color="0.6", linewidth=1.5, linestyle="-.")
    axes.annotate(f"paper: {stated}", (steps[0], stated), xytext=(0, -12),
                  textcoords="offset points", fontsize=9)  # fmt: skip
    axes.set(yscale="log", xlabel="operations of a problem")
    figure.suptitle(title)
    axes.set_ylabel("FLOPs, Math-Shepherd / CE")
    axes.set_xticks(list(steps))
    axes.set_yticks([1, 2, 5, 10, 20, 40], ["1", "2", "5", "10", "20", "40"])
    axes.minorticks_off()
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    axes.spines[["right", "top"]].set_visible(False)
    return figure
