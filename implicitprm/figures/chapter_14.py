"""The figures that chapter 14 is the first to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from implicitprm.figures.style import plain_ticks

#: How scoring makes log-probabilities: of the whole text at once, or of some tokens at a time.
SCORING_STYLE: dict[str, dict[str, Any]] = {
    "log-softmax of the whole text": {"color": "0.5", "marker": "X", "linestyle": "--"},
    "some tokens at a time": {"color": "0.0", "marker": "s", "linestyle": "-"},
}


def scoring_memory(
    computed: Mapping[str, Sequence[tuple[int, float]]],
    measured: Mapping[str, Sequence[tuple[int, float]]],
    title: str,
) -> Figure:
    """Memory (MB) of scoring one text against its tokens: computed as lines, measured as points.

    Both map a name of ``SCORING_STYLE`` to (tokens, MB).
    """
    figure = Figure(figsize=(6.8, 3.9), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    for name, points in computed.items():
        style = SCORING_STYLE[name] | {"marker": ""}
        axes.plot(*zip(*points, strict=True), **style, label=f"{name}, computed")
    for name, points in measured.items():
        style = SCORING_STYLE[name] | {"linestyle": "none"}
        axes.plot(*zip(*points, strict=True), **style, label=f"{name}, measured")
    axes.set(xscale="log", yscale="log", xlabel="tokens of the text", ylabel="memory (MB)")
    plain_ticks(axes.xaxis, sorted({n for points in computed.values() for n, _ in points}))
    plain_ticks(axes.yaxis, (100, 1_000, 10_000))
    axes.legend(frameon=False, fontsize=9)
    axes.spines[["right", "top"]].set_visible(False)
    return figure


#: Splits of ProcessBench, from easy to hard: from dark to light.
SPLIT_STYLE: dict[str, dict[str, Any]] = {
    "gsm8k": {"color": "0.0", "marker": "o"},
    "math": {"color": "0.35", "marker": "s"},
    "olympiadbench": {"color": "0.55", "marker": "^"},
    "omnimath": {"color": "0.72", "marker": "X"},
}


def split_f1(scorers: Mapping[str, Mapping[str, tuple[float, float, float]]], title: str) -> Figure:
    """First-error F1 (%) of step scorers, a line each, on the splits of ProcessBench.

    ``scorers[name]`` maps a name of ``SPLIT_STYLE`` to (value, low, high), all three equal where
    there is no interval. The splits of a line stand one below the
    other, or their intervals would overlap.
    """
    splits = [split for split in SPLIT_STYLE if any(split in f1 for f1 in scorers.values())]
    figure = Figure(figsize=(8.4, 0.38 * len(scorers) + 1.6), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    for row, by_split in enumerate(scorers.values()):
        axes.axhline(row, color="0.92", linewidth=0.8, zorder=0)
        for split, (value, low, high) in by_split.items():
            axes.errorbar(
                value,
                row + 0.15 * (splits.index(split) - (len(splits) - 1) / 2),
                xerr=[[value - low], [high - value]],
                **SPLIT_STYLE[split],
                linestyle="none",
                elinewidth=1.2,
                label=split,
            )
    axes.set_yticks(range(len(scorers)), list(scorers))
    axes.set(ylim=(len(scorers) - 0.5, -0.5), xlim=(0, 100), xlabel="first-error F1 (%)")
    keys = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(keys.values(), keys.keys(), loc="outside lower center", ncols=4, frameon=False)
    axes.spines[["right", "top"]].set_visible(False)
    return figure
