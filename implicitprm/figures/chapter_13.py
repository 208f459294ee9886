"""The figures that chapter 13 is the first to show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

#: What memory is needed for, in the order of the bar; hatches tell the parts apart in greyscale.
MEMORY_STYLE: dict[str, dict[str, Any]] = {
    "weights": {"color": "#0072B2"},
    "gradients": {"color": "#56B4E9", "hatch": "//"},
    "optimiser": {"color": "#009E73", "hatch": "\\\\"},
    "weights in computation": {"color": "#CC79A7", "hatch": ".."},
    "activations": {"color": "#E69F00"},
    "logits": {"color": "#F0E442", "hatch": "xx"},
}


def memory_bars(
    runs: Mapping[str, Mapping[str, float]], devices: Mapping[str, float], title: str
) -> Figure:
    """Memory on one device (GiB) as a bar of its parts for each run, with the sum at its end.

    ``runs`` maps a name to parts, names of ``MEMORY_STYLE``; ``devices`` are sizes by name, drawn
    as lines. Raises ValueError for another part, which would be missing from the bar.
    """
    for part in {part: None for parts in runs.values() for part in parts}:
        if part not in MEMORY_STYLE:
            raise ValueError(f"no part of the memory is called {part!r}: {', '.join(MEMORY_STYLE)}")
    figure = Figure(figsize=(9.6, 0.42 * len(runs) + 1.9), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    for row, parts in enumerate(runs.values()):
        end = 0.0
        for part, style in MEMORY_STYLE.items():
            size = parts.get(part, 0.0)
            axes.barh(row, size, left=end, **style, edgecolor="black", linewidth=0.6, label=part)
            end += size
        axes.annotate(f"{end:.1f}", (end, row), xytext=(4, 0), textcoords="offset points",
                      va="center", fontsize=9)  # fmt: skip
    for name, size in devices.items():
        axes.axvline(size, color="0.4", linestyle=":", linewidth=1.2)
        axes.annotate(
            name,
            (size, 1),
            xycoords=("data", "axes fraction"),
            xytext=(-3, -4),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=8,
            rotation=90,
        )
    axes.set_yticks(range(len(runs)), list(runs))
    axes.set_ylim(len(runs) - 0.5, -0.5)
    axes.set_xlabel("memory on each device (GiB)")
    axes.spines[["right", "top"]].set_visible(False)
    keys = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(keys.values(), keys.keys(), loc="outside lower center", ncols=6, frameon=False)
    return figure
