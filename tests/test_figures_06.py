"""The figures of chapter 06 show what they were given."""

from __future__ import annotations

import numpy as np
from matplotlib.container import ErrorbarContainer
from matplotlib.patches import Rectangle

from implicitprm.figures import (
    OBJECTIVE_STYLE,
    SELECTION_STYLE,
    objective_points,
    pulls,
    sweep_maps,
    vote_by_beta,
)


def test_pulls() -> None:
    curves = {name: [1.0 + i, 2.0, -1.0] for i, name in enumerate(OBJECTIVE_STYLE)}
    figure = pulls([-1.0, 0.0, 1.0], {"right": curves, "wrong": curves}, "a title")
    assert [axes.get_title() for axes in figure.axes] == ["right", "wrong"]
    for axes in figure.axes:
        lines = {line.get_label(): line for line in axes.lines}
        for name, values in curves.items():
            assert np.asarray(lines[name].get_ydata()).tolist() == values
    assert len({style["linestyle"] for style in OBJECTIVE_STYLE.values()}) == 4
    assert figure.get_suptitle() == "a title"


def test_sweep_maps_frame_the_best() -> None:
    values = np.array([[50.0, 60.0, 70.0], [80.0, 91.4, 55.0]])
    figure = sweep_maps({"CE": ([0.5, 1.0], [5e-4, 1e-3, 2e-3], values)}, "a title")
    (axes,) = figure.axes
    (frame,) = (patch for patch in axes.patches if isinstance(patch, Rectangle))
    assert (round(frame.get_x() + 0.46), round(frame.get_y() + 0.46)) == (1, 1)
    assert [text.get_text() for text in axes.texts] == ["50", "60", "70", "80", "91", "55"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["5", "10", "20"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0.5", "1"]
    # The lowest row of numbers is the smallest β.
    assert axes.texts[0].get_position() == (0, 0)
    assert not axes.yaxis_inverted()


def test_objective_points() -> None:
    rules = {
        "reward, min over steps": ([70.0, 72.0], (71.0, 68.0, 74.0)),
        "vote weighted by reward": ([80.0, 81.0], (80.5, 79.0, 83.0)),
    }
    panels = {"early": {"CE": rules, "DPO": rules}, "strong": {"CE": rules, "DPO": rules}}
    levels = {"early": {"majority vote": 60.0}, "strong": {"majority vote": 65.0}}
    figure = objective_points(panels, levels, "a title")
    assert [axes.get_title() for axes in figure.axes] == ["early", "strong"]
    for axes, level in zip(figure.axes, (60.0, 65.0), strict=True):
        bars = [c for c in axes.containers if isinstance(c, ErrorbarContainer)]
        assert len(bars) == 4
        marker, _, ranges = bars[0].lines
        assert marker is not None
        assert np.asarray(marker.get_xdata()).tolist() == [71.0]
        (segment,) = ranges[0].get_segments()
        assert np.asarray(segment)[:, 0].tolist() == [68.0, 74.0]
        assert marker.get_marker() == SELECTION_STYLE["reward, min over steps"]["marker"]
        assert level in [float(np.asarray(line.get_xdata())[0]) for line in axes.lines]
        points = [np.asarray(line.get_xdata()).tolist() for line in axes.lines]
        assert points.count([70.0, 72.0]) == 2
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["CE", "DPO"]
    assert figure.axes[0].yaxis_inverted()  # the first training stands on top


def test_vote_by_beta() -> None:
    points = [(60.0, 58.0, 62.0), (70.0, 69.0, 71.0), (90.0, 88.0, 91.0)]
    figure = vote_by_beta(
        [0.01, 0.1, 1.0], {"vote weighted by reward": points}, {"trained": 1.0}, "a title"
    )
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    line = lines["vote weighted by reward"]
    assert np.asarray(line.get_ydata()).tolist() == [60.0, 70.0, 90.0]
    band = axes.collections[0].get_paths()[0].vertices
    assert (np.asarray(band)[:, 1].min(), np.asarray(band)[:, 1].max()) == (58.0, 91.0)
    assert [text.get_text().strip() for text in axes.texts] == ["trained"]
    assert axes.get_xscale() == "log"
