"""The figures that chapter 04 is the first to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from implicitprm.figures.style import STYLE

#: Facts on which the tutor has a misconception, and the others.
FACT_STYLE: dict[str, dict[str, Any]] = {
    "misconceptions": STYLE["wrong"],
    "other facts": {"color": "0.45", "marker": "o", "linestyle": "-"},
}


def error_rates(
    panels: Mapping[
        str, Mapping[str, tuple[Sequence[float], Sequence[float], tuple[float, float, float]]]
    ],
    title: str,
) -> Figure:
    """The reasoner's error rate on each fact against the tutor's, one panel a sampler.

    Each panel maps a name of ``FACT_STYLE`` to the tutor's rates (F), the reasoner's rates (F), and
    the mean of the latter as (value, low, high), drawn with its interval. Rates are in 0..1.
    """
    figure = Figure(figsize=(9.0, 4.4), layout="constrained")
    figure.suptitle(title)
    columns = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (name, groups) in zip(columns, panels.items(), strict=True):
        (diagonal,) = axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, zorder=0)
        for kind, (tutor, reasoner, (value, low, high)) in groups.items():
            style = FACT_STYLE[kind] | {"linestyle": "none"}
            axes.plot(tutor, reasoner, **style, markersize=4, alpha=0.25, label=f"{kind}, one each")
            axes.errorbar(
                float(np.mean(tutor)),
                value,
                yerr=[[value - low], [high - value]],
                **style,
                markersize=5,
                markeredgecolor="black",
                markerfacecolor="white",
                ecolor="black",
                capsize=6,
                label=f"{kind}, mean and interval",
            )
        axes.set(title=name, xlabel="error rate of the tutor", xlim=(-0.02, 1), ylim=(-0.03, 1.03))
        axes.spines[["right", "top"]].set_visible(False)
    columns[0].set_ylabel("error rate of the reasoner")
    diagonal.set_label("as often as the tutor")
    handles, labels = columns[-1].get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: labels[i].partition(",")[0])
    figure.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="outside lower center",
        ncols=3,
        frameon=False,
    )
    return figure


def token_map(
    text: str,
    step_starts: Sequence[int],
    tokenizations: Mapping[str, tuple[Sequence[tuple[int, int]], Sequence[int]]],
    title: str,
) -> Figure:
    """One text cut into tokens by several tokenizers, and which step each token belongs to.

    ``step_starts`` (S) are characters of ``text``; each tokenization is (spans (T, 2) in
    characters, exclusive step ends (S) in tokens).
    """
    figure = Figure(figsize=(0.165 * len(text) + 1.2, 0.8 * len(tokenizations) + 1.8))
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    for row, (spans, step_ends) in enumerate(tokenizations.values()):
        owners = np.repeat(np.arange(len(step_ends)), np.diff([0, *step_ends]))
        for (start, end), owner in zip(spans, owners, strict=True):
            crosses = any(start < step_start < end for step_start in step_starts)
            axes.add_patch(
                Rectangle(
                    (start + 0.06, row - 0.33),
                    end - start - 0.12,
                    0.66,
                    facecolor=("white", "0.84")[owner % 2],
                    edgecolor=STYLE["wrong"]["color"] if crosses else "0.3",
                    linewidth=2.2 if crosses else 0.8,
                    label="token that crosses a boundary"
                    if crosses
                    else ("token of a step of even number", "token of a step of odd number")[
                        owner % 2
                    ],
                )
            )
        for position, character in enumerate(text):
            shown = {"\n": "↵", " ": "·"}.get(character, character)
            axes.text(
                position + 0.5, row, shown, ha="center", va="center", family="monospace", fontsize=9
            )
    for number, start in enumerate(step_starts):
        axes.axvline(start, color="black", linestyle="--", linewidth=1, zorder=0)
        axes.text(start + 0.2, -0.62, f"step {number} starts", va="bottom", fontsize=9)
    axes.set(xlim=(-0.3, len(text) + 0.3), ylim=(len(tokenizations) - 0.5, -0.85), title=title)
    axes.set_yticks(range(len(tokenizations)), list(tokenizations))
    axes.set(xticks=step_starts, xlabel="characters of the response (· space, ↵ line end)")
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.tick_params(left=False)
    keys = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(keys.values(), keys.keys(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def boundary_shifts(
    shifts: Sequence[int],
    auroc: Sequence[tuple[float, float, float]],
    lowest: Mapping[str, Sequence[tuple[float, float, float]]],
    chance: tuple[float, float],
    title: str,
) -> Figure:
    """What step rewards are worth when all step ends are moved by so many tokens.

    ``auroc`` and each entry of ``lowest`` are (value, low, high) at each shift; ``lowest`` maps the
    names "first wrong step" and "step after it" to shares of wrong solutions; ``chance`` is the
    chance level of either panel.
    """
    figure = Figure(figsize=(9.0, 4.3), layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    curves = {"step reward": (left, auroc, STYLE["policy"])}
    styles = (STYLE["policy"], {"color": "0.35", "marker": "v", "linestyle": "--"})
    curves |= {
        name: (right, points, style)
        for (name, points), style in zip(lowest.items(), styles, strict=True)
    }
    for name, (axes, points, style) in curves.items():
        value, low, high = np.array(points).T
        axes.errorbar(shifts, value, yerr=(value - low, high - value), **style, label=name)
    for axes, level in zip((left, right), chance, strict=True):
        axes.axhline(level, color="0.5", linestyle=":", linewidth=1, label="chance")
        axes.axvline(0, color="0.6", linewidth=1, zorder=0, label="right boundary")
        axes.set(xticks=shifts, xlabel="all step ends moved by … tokens")
        axes.spines[["right", "top"]].set_visible(False)
    left.set(ylabel="AUROC, valid against wrong steps", ylim=(0.45, 1.02))
    right.set(ylabel="share of solutions with a wrong step", ylim=(-0.03, 1.02))
    right.set_title("place of the lowest step reward")
    left.set_title("AUROC of the step reward")
    for axes in (left, right):  # below, where the legend covers no line
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, frameon=False)
    return figure
