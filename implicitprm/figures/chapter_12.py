"""The figures that chapter 12 is the first to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from implicitprm.figures.style import STYLE
from implicitprm.qvalues import FloatArray

#: The arms of chapter 12: ``outcome``; ``true steps alone, all prompts``; ``implicit``; ``frozen``;
#: ``outcome, rate of frozen``; ``frozen alone, all prompts``.
ARM_STYLE: dict[str, dict[str, Any]] = {
    "outcome": STYLE["reference"],
    "true steps alone, all prompts": STYLE["correct"],
    "implicit": STYLE["implicit"],
    "frozen": STYLE["policy"],
    "outcome, rate of frozen": {"color": "0.45", "marker": "^", "linestyle": "--"},
    "frozen alone, all prompts": STYLE["policy"] | {"marker": "X", "linestyle": ":"},
}


def learning_curves(
    panels: Mapping[str, Mapping[str, FloatArray]], updates: Sequence[float], title: str
) -> Figure:
    """Quantities against updates: a line is a mean over seeds, its band their range.

    ``panels`` maps the label of an axis to the curves (seeds, points) of names of
    :data:`ARM_STYLE`, whose points are at ``updates``.
    """
    figure = Figure(figsize=(min(9.6, 4.4 * len(panels)), 3.9), layout="constrained")
    figure.suptitle(title)
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    named = {}
    for axes, (label, curves) in zip(row, panels.items(), strict=True):
        for name, values in curves.items():
            style = ARM_STYLE[name]
            (named[name],) = axes.plot(updates, values.mean(0), **style, markersize=4.5)
            axes.fill_between(
                updates, values.min(0), values.max(0), color=style["color"], alpha=0.13, linewidth=0
            )
        axes.set(xlabel="updates", ylabel=label)
        axes.spines[["right", "top"]].set_visible(False)
    figure.legend(named.values(), named, loc="outside lower center", ncols=4, frameon=False)
    return figure
