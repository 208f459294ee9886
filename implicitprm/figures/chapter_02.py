"""The figures that chapter 02 is the first to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from implicitprm.figures.style import STYLE
from implicitprm.qvalues import Tokens


def q_tree(
    q: Mapping[Tokens, float], correct: Mapping[Tokens, bool], names: Sequence[str], title: str
) -> Figure:
    """The tree of a language's prefixes: q (nats times β) in the nodes, outcomes at the leaves.

    ``q`` holds every prefix, the root () included; ``correct`` the complete ones; ``names`` are
    the tokens as text.
    """
    leaves = sorted(correct)
    depth = max(map(len, q))
    heights = {
        prefix: float(
            np.mean([-i for i, leaf in enumerate(leaves) if leaf[: len(prefix)] == prefix])
        )
        for prefix in q
    }
    figure = Figure(figsize=(2.0 * depth + 1.6, 0.36 * len(leaves) + 1.0), layout="constrained")
    axes = figure.subplots()
    for prefix, height in heights.items():
        if prefix:
            x, above = len(prefix), heights[prefix[:-1]]
            axes.plot([x - 1, x], [above, height], color="0.6", linewidth=1, zorder=1)
            axes.text(
                x - 0.42,
                above + 0.58 * (height - above),
                names[prefix[-1]],
                ha="center",
                va="center",
                fontsize=9,
                bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none"},
            )
        axes.text(
            len(prefix),
            height,
            f"{q[prefix]:+z.2f}",
            ha="center",
            va="center",
            fontsize=9,
            zorder=3,
            bbox={"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": "black"},
        )
    for outcome in ("correct", "wrong"):
        ends = [leaf for leaf in leaves if correct[leaf] == (outcome == "correct")]
        axes.plot(
            [len(leaf) + 0.38 for leaf in ends],
            [heights[leaf] for leaf in ends],
            **STYLE[outcome] | {"linestyle": "none"},
            markersize=8,
            label=outcome,
        )
    axes.legend(loc="lower left", frameon=False)
    axes.set(
        xlim=(-0.4, depth + 0.6), xlabel="response tokens seen, t (in the boxes: q in nats × β)"
    )
    axes.set_title(title)
    axes.set_xticks(range(depth + 1))
    axes.set_yticks([])
    axes.spines[["left", "right", "top"]].set_visible(False)
    return figure


def q_against_truth(
    panels: Mapping[str, tuple[Sequence[float], Sequence[float], Sequence[str]]], title: str
) -> Figure:
    """exp(q^t/β) of prefixes against Q^t/Q^0, their true Q over that of their prompt.

    Each panel is (Q^t/Q^0, exp(q^t/β), kind), all of N prefixes; a kind is ``policy`` for an
    unfinished prefix, ``correct`` or ``wrong`` for a complete response. Both ratios are numbers
    without a unit, 1 at every prompt; the diagonal is where they are equal.
    """
    labels = {"policy": "unfinished", "correct": "complete, correct", "wrong": "complete, wrong"}
    figure = Figure(figsize=(4.2 * len(panels), 4.2), layout="constrained")
    figure.suptitle(title)
    top = 1.08 * max(max(*truth, *ratio) for truth, ratio, _ in panels.values())
    columns = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (name, (truth, ratio, kinds)) in zip(columns, panels.items(), strict=True):
        axes.plot([0, top], [0, top], color="0.7", linewidth=1, zorder=0)
        for kind, label in labels.items():
            chosen = np.array(kinds) == kind
            axes.plot(
                np.asarray(truth)[chosen],
                np.asarray(ratio)[chosen],
                **STYLE[kind] | {"linestyle": "none"},
                alpha=0.8,
                label=label,
            )
        axes.set(title=name, xlabel="true Q of prefix / true Q of prompt", ylabel="exp(q / β)")
    columns[0].legend()
    return figure
