"""The figures of chapter 07 show what they were given."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.container import ErrorbarContainer

from implicitprm.figures import (
    CURVE_STYLE,
    DROP_STYLE,
    SELECTION_STYLE,
    alone_and_in_vote,
    curve_panels,
    drop_curves,
    headroom,
    noise_by_chance,
)


def errorbars(axes: Axes) -> dict[str, ErrorbarContainer]:
    return {str(c.get_label()): c for c in axes.containers if isinstance(c, ErrorbarContainer)}


def values_of(bars: ErrorbarContainer) -> list[float]:
    marker = bars.lines[0]
    assert marker is not None
    return np.asarray(marker.get_ydata()).tolist()


def test_curve_panels() -> None:
    curves = {
        name: [(50.0 + i, 48.0 + i, 52.0 + i), (60.0 + i, 57.0 + i, 63.0 + i)]
        for i, name in enumerate(CURVE_STYLE)
    }
    figure = curve_panels({"early": curves, "strong": curves}, [1, 64], "a title")
    assert figure.get_suptitle() == "a title"
    assert [axes.get_title() for axes in figure.axes] == ["early", "strong"]
    for axes in figure.axes:
        lines = {line.get_label(): line for line in axes.lines}
        bands = [np.asarray(band.get_paths()[0].vertices)[:, 1] for band in axes.collections]
        for (name, points), band in zip(curves.items(), bands, strict=True):
            assert np.asarray(lines[name].get_ydata()).tolist() == [v for v, _, _ in points]
            assert (band.min(), band.max()) == (points[0][1], points[1][2])
        assert [t.get_text() for t in axes.get_xticklabels()] == ["1", "64"]


def test_curves_can_be_told_apart_without_colour() -> None:
    looks = {(style["linestyle"], style["marker"]) for style in CURVE_STYLE.values()}
    assert len(looks) == len(CURVE_STYLE)
    colours = {name: style["color"] for name, style in SELECTION_STYLE.items()}
    assert colours.items() <= {n: style["color"] for n, style in CURVE_STYLE.items()}.items()


def test_headroom_draws_the_ceiling_and_each_outcome_apart() -> None:
    logps, rewards = np.array([-1.0, -2.0, -4.0]), np.array([0.5, -1.0, 3.0])
    right, weights = np.array([True, True, False]), np.array([5, 1, 2])
    figure = headroom(logps, rewards, right, weights, "a title", beta=2.0)
    marks = [np.asarray(axes.collections[0].get_offsets()).tolist() for axes in figure.axes]
    assert marks == [[[1.0, 0.5], [2.0, -1.0]], [[4.0, 3.0]]]
    scatter = figure.axes[0].collections[0]
    assert isinstance(scatter, PathCollection)
    large, small = scatter.get_sizes()
    assert large == 5 * small
    for axes in figure.axes:
        (ceiling,) = (line for line in axes.lines if line.get_label() == "ceiling")
        assert np.asarray(ceiling.get_xdata()).tolist() == [0.0, 4.0]
        assert np.asarray(ceiling.get_ydata()).tolist() == [0.0, 8.0]
    assert [axes.get_title() for axes in figure.axes] == ["correct solutions", "wrong solutions"]


def test_noise_by_chance() -> None:
    bins = {"correct": [(0.1, 1.0)], "wrong": [(0.0, 0.001), (0.1, 1.0)]}
    means = {"correct": [(1.0, 0.9, 1.1)], "wrong": [(-2.0, -3.0, -1.0), (-4.0, -5.0, -3.0)]}
    spreads = {
        name: {"between seeds": points, "shared": [(v + 9, lo + 9, hi + 9) for v, lo, hi in points]}
        for name, points in means.items()
    }
    figure = noise_by_chance(bins, means, spreads, "a title")
    left, right = figure.axes
    assert {name: values_of(bars) for name, bars in errorbars(left).items()} == {
        "valid steps": [1.0],
        "wrong steps": [-2.0, -4.0],
    }
    spread = errorbars(right)
    assert values_of(spread["wrong steps, between seeds"]) == [-2.0, -4.0]
    assert values_of(spread["wrong steps, shared"]) == [7.0, 5.0]
    (segment, _) = errorbars(left)["wrong steps"].lines[2][0].get_segments()
    assert np.asarray(segment)[:, 1].tolist() == [-3.0, -1.0]
    (ceiling,) = (line for line in left.lines if line.get_label() == "ceiling, β = 1")
    assert np.allclose(ceiling.get_ydata(), -np.log(np.asarray(ceiling.get_xdata())))


def test_drop_curves() -> None:
    curves = {name: [(50.0 + i, 49.0, 60.0), (70.0, 69.0, 71.0)] for i, name in
              enumerate(DROP_STYLE)}  # fmt: skip
    panels = {"sum": curves, "min": curves}
    figure = drop_curves([0.01, 0.1], panels, {"sum": {"N = 64": 40.0}, "min": {}}, "a title")
    assert [axes.get_title() for axes in figure.axes] == ["sum", "min"]
    for axes in figure.axes:
        bars = errorbars(axes)
        for name, points in curves.items():
            assert values_of(bars[f"dropped: {name}"]) == [value for value, _, _ in points]
        assert [t.get_text() for t in axes.get_xticklabels()] == ["0.01", "0.1"]
    levels = {line.get_label(): np.asarray(line.get_ydata()) for line in figure.axes[0].lines}
    assert levels["N = 64"].tolist() == [40.0, 40.0]


def test_alone_and_in_vote() -> None:
    theirs = {"KTO": (45.7, 50.4), "CE": (48.4, 51.9)}
    ours = {"KTO": (80.0, 78.0), "CE": (79.0, 81.0)}
    figure = alone_and_in_vote({"theirs": (theirs, 49.1), "ours": (ours, 62.0)}, "a title")
    for axes, pairs, majority in zip(figure.axes, (theirs, ours), (49.1, 62.0), strict=True):
        points = [
            (float(np.asarray(line.get_xdata())[0]), float(np.asarray(line.get_ydata())[0]))
            for line in axes.lines
            if len(np.asarray(line.get_xdata())) == 1
        ]
        assert points == [(value, row) for row, pair in enumerate(pairs.values()) for value in pair]
        assert np.asarray(axes.lines[0].get_xdata()).tolist() == [majority, majority]
        assert [t.get_text() for t in axes.get_yticklabels()] == ["KTO", "CE"]
        assert axes.yaxis_inverted()
