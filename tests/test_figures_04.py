"""The figures of chapter 04 show what they were given."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer
from matplotlib.patches import Rectangle

from implicitprm.figures import FACT_STYLE, STYLE, boundary_shifts, error_rates, token_map

Bounds = tuple[float, float, float]


def error_bars(axes: Axes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By label: the points (N, 2), and the ends (N, 2) of their vertical bars."""
    drawn = {}
    for container in axes.containers:
        assert isinstance(container, ErrorbarContainer)
        line, _, (bars,) = container.lines
        segments = np.array(bars.get_segments())  # (N, 2, 2)
        points = np.array(line.get_data(), dtype=float).T
        drawn[str(container.get_label())] = (points, segments[:, :, 1])
    return drawn


def test_error_rates_puts_each_fact_and_each_mean_into_its_panel() -> None:
    groups: dict[str, tuple[list[float], list[float], Bounds]] = {
        "other facts": ([0.05, 0.1], [0.0, 0.2], (0.1, 0.05, 0.15)),
        "misconceptions": ([0.6, 0.7, 0.8], [0.5, 0.7, 0.6], (0.6, 0.5, 0.7)),
    }
    other = {name: (taught, taught, mean) for name, (taught, _, mean) in groups.items()}
    figure = error_rates({"one sampler": groups, "another": other}, "a title")
    assert figure.get_suptitle() == "a title"
    assert [axes.get_title() for axes in figure.axes] == ["one sampler", "another"]
    for axes, drawn in zip(figure.axes, (groups, other), strict=True):
        lines = {line.get_label(): line for line in axes.lines}
        means = error_bars(axes)
        for kind, (taught, own, (value, low, high)) in drawn.items():
            points = lines[f"{kind}, one each"]
            assert np.asarray(points.get_xdata()).tolist() == taught
            assert np.asarray(points.get_ydata()).tolist() == own
            assert points.get_color() == FACT_STYLE[kind]["color"]
            mean, bar = means[f"{kind}, mean and interval"]
            np.testing.assert_allclose(mean, [[float(np.mean(taught)), value]])
            np.testing.assert_allclose(bar, [[low, high]])
    assert FACT_STYLE["misconceptions"]["marker"] != FACT_STYLE["other facts"]["marker"]


TEXT = "7+5=12\n#12"
WORDS = ([(0, 1), (1, 2), (2, 3), (3, 4), (4, 6), (6, 7), (7, 8), (8, 10)], [6, 8])
CROSSING = ([(0, 4), (4, 8), (8, 10)], [2, 3])


def test_token_map_shades_each_token_by_its_step_and_marks_those_that_cross() -> None:
    axes = token_map(TEXT, [0, 7], {"words": WORDS, "crossing": CROSSING}, "a title").axes[0]
    boxes = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    spans = [(round(box.get_x()), round(box.get_x() + box.get_width())) for box in boxes]
    assert spans == WORDS[0] + CROSSING[0]
    assert [round(box.get_y() + 0.5) for box in boxes] == [0] * 8 + [1] * 3
    shades = [to_hex(box.get_facecolor()) for box in boxes]
    white, grey = shades[0], shades[7]
    assert white != grey
    assert shades == [white] * 6 + [grey] * 2 + [white] * 2 + [grey]
    crossing = [box for box in boxes if box.get_label() == "token that crosses a boundary"]
    assert crossing == [boxes[9]]
    assert to_hex(crossing[0].get_edgecolor()).upper() == STYLE["wrong"]["color"]
    assert crossing[0].get_linewidth() > 2 * boxes[0].get_linewidth()  # seen without colour
    assert [label.get_text() for label in axes.get_yticklabels()] == ["words", "crossing"]
    assert axes.get_title() == "a title"


def test_token_map_writes_the_text_once_a_row() -> None:
    axes = token_map(TEXT + " .", [0, 7], {"words": WORDS, "crossing": CROSSING}, "").axes[0]
    characters = [text.get_text() for text in axes.texts if len(text.get_text()) == 1]
    assert "".join(characters) == "7+5=12↵#12·." * 2
    starts = [text.get_text() for text in axes.texts if len(text.get_text()) > 1]
    assert starts == ["step 0 starts", "step 1 starts"]


@pytest.mark.parametrize("shifts", [[-1, 0, 1], [0, 1, 2]])
def test_boundary_shifts_draws_values_with_intervals_and_chance(shifts: list[int]) -> None:
    auroc: list[Bounds] = [(0.5, 0.4, 0.6), (0.9, 0.8, 0.95), (0.8, 0.7, 0.9)]
    lowest: dict[str, list[Bounds]] = {
        "first wrong step": [(0.1, 0.0, 0.2), (0.8, 0.7, 0.9), (0.7, 0.6, 0.8)],
        "step after it": [(0.6, 0.5, 0.7), (0.1, 0.05, 0.2), (0.2, 0.1, 0.3)],
    }
    figure = boundary_shifts(shifts, auroc, lowest, (0.5, 0.17), "a title")
    assert figure.get_suptitle() == "a title"
    left, right = figure.axes
    for axes, curves in ((left, {"step reward": auroc}), (right, lowest)):
        bars = error_bars(axes)
        assert set(bars) == set(curves)
        for name, points in curves.items():
            value, low, high = np.array(points).T
            np.testing.assert_allclose(bars[name][0], np.stack([shifts, value], 1))
            np.testing.assert_allclose(bars[name][1], np.stack([low, high], 1))
    levels = []
    for axes in (left, right):
        lines = {line.get_label(): line for line in axes.lines}
        levels.append(np.asarray(lines["chance"].get_ydata())[0])
        assert np.asarray(lines["right boundary"].get_xdata()).tolist() == [0, 0]
    assert levels == [0.5, 0.17]
    long = [line for line in right.lines if np.size(line.get_xdata()) == len(shifts)]
    assert len({line.get_linestyle() for line in long}) == 2  # told apart without colour
