"""The figures that chapter 10 is the first to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure


def reading_maps(
    panels: Mapping[str, Sequence[Sequence[float]]],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
) -> Figure:
    """One number per training reference (rows) and reading reference (columns), panel by panel.

    Each panel has a scale of its own, darker where the number is higher. NaN stays empty.
    """
    lines = -(-len(panels) // 2)
    figure = Figure(figsize=(8.4, lines * (0.36 * len(rows) + 1.5) + 0.4), layout="constrained")
    figure.suptitle(title)
    grid_of_axes = figure.subplots(lines, 2, sharex=True, sharey=True, squeeze=False)
    for axes, (name, values) in zip(grid_of_axes.flat, panels.items(), strict=False):
        grid = np.array(values, dtype=float)  # (trainings, readings)
        axes.imshow(grid, cmap="Blues", aspect="auto")
        middle = (np.nanmin(grid) + np.nanmax(grid)) / 2
        for (row, column), value in np.ndenumerate(grid):
            if not np.isnan(value):
                colour = "white" if value > middle else "black"
                axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=colour)
        axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
        axes.set_yticks(range(len(rows)), rows)
        axes.set_title(name, fontsize=10)
    for axes in grid_of_axes[-1]:
        axes.set_xlabel("read with the reference")
    for axes in grid_of_axes[:, 0]:
        axes.set_ylabel("trained with")
    return figure
