"""The figures of chapter 09 show what they were given."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer

from implicitprm.figures import RESPONSE_STYLE, difference_points, pair_chance, scaling_curves


def bars(axes: Axes) -> dict[str, ErrorbarContainer]:
    return {str(c.get_label()): c for c in axes.containers if isinstance(c, ErrorbarContainer)}


def points(bar: ErrorbarContainer) -> list[tuple[float, float]]:
    marker = bar.lines[0]
    assert marker is not None
    return list(
        zip(
            np.asarray(marker.get_xdata(), dtype=float).tolist(),
            np.asarray(marker.get_ydata(), dtype=float).tolist(),
            strict=True,
        )
    )


def ends(bar: ErrorbarContainer, axis: int) -> list[list[float]]:
    return [np.asarray(s)[:, axis].tolist() for s in bar.lines[2][0].get_segments()]


PANELS = {
    "CE": {
        1: [(100.0, [60.0, 62.0], (61.0, 58.0, 64.0)), (200.0, [70.0, 72.0], (71.0, 69.0, 73.0))],
        8: [(800.0, [80.0], (80.0, 78.0, 82.0))],
    },
    "DPO": {8: [(800.0, [75.0], (75.0, 72.0, 78.0))]},
    "CE, matched": {1: [(100.0, [65.0], (65.0, 64.0, 66.0))]},
}


def test_scaling_curves() -> None:
    figure = scaling_curves(PANELS, {"majority vote": 63.0}, "rollouts", "a title")
    first, second, third, spare = figure.axes
    drawn = bars(first)
    assert points(drawn["1 per instruction"]) == [(100.0, 61.0), (200.0, 71.0)]
    assert ends(drawn["1 per instruction"], 1) == [[58.0, 64.0], [69.0, 73.0]]
    assert points(drawn["8 per instruction"]) == [(800.0, 80.0)]
    seeds = [line for line in first.lines if line.get_marker() == "."]
    assert [np.asarray(line.get_ydata()).tolist() for line in seeds][:2] == [[60, 62], [70, 72]]
    assert 63.0 in [np.asarray(line.get_ydata())[0] for line in first.lines]
    assert [axes.get_title() for axes in (first, second, third)] == list(PANELS)
    assert not bars(spare)
    assert first.get_xscale() == "log"
    assert third.get_xlabel() == "rollouts"
    assert figure.get_suptitle() == "a title"
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["majority vote", "1 per instruction", "8 per instruction"]


def test_response_styles_differ_without_colour() -> None:
    styles = {(s["marker"], s["linestyle"]) for s in RESPONSE_STYLE.values()}
    assert len(styles) == len(RESPONSE_STYLE)


def test_difference_points() -> None:
    figure = difference_points(
        {"diversity": {"a": (1.0, -1.0, 3.0), "b": (-2.0, -3.0, -1.0)}, "rest": {"c": (0, 0, 0)}},
        "a title",
    )
    above, below = figure.axes
    found = [c for c in above.containers if isinstance(c, ErrorbarContainer)]
    assert [points(bar) for bar in found] == [[(1.0, 0.0)], [(-2.0, 1.0)]]
    assert [ends(bar, 0) for bar in found] == [[[-1.0, 3.0]], [[-3.0, -1.0]]]
    assert [text.get_text() for text in above.get_yticklabels()] == ["a", "b"]
    low, high = above.get_ylim()
    assert low > high  # the first row on top
    assert 0.0 in [np.asarray(line.get_xdata())[0] for line in above.lines]
    assert below.get_xlabel() == "difference (points)"
    assert figure.get_suptitle() == "a title"


def test_pair_chance() -> None:
    figure = pair_chance([0.0, 0.5, 1.0], {2: [0.0, 50.0, 0.0]}, {2: 30.0, 8: 70.0}, "a title")
    left, right = figure.axes
    (line,) = left.lines
    assert np.asarray(line.get_xdata()).tolist() == [0.0, 0.5, 1.0]
    assert np.asarray(line.get_ydata()).tolist() == [0.0, 50.0, 0.0]
    assert line.get_label() == "2 responses"
    heights = [float(patch.get_height()) for patch in right.patches]  # type: ignore[attr-defined]
    assert heights == [30.0, 70.0]
    assert [text.get_text() for text in right.get_xticklabels()] == ["2", "8"]
    assert figure.get_suptitle() == "a title"
