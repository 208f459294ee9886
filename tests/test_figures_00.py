"""The figures of chapter 00 show the numbers that they were given."""

from __future__ import annotations

import numpy as np
from matplotlib.patches import Rectangle

from implicitprm.figures import SELECTION_STYLE, STYLE, selection_curves, step_reward_bars


def test_bars_are_the_rewards_and_wrong_steps_are_hatched() -> None:
    rewards = np.array([0.5, -2.0, 0.1])
    figure = step_reward_bars({"one": (["a", "b", "c"], rewards, [True, False, True])}, "found")
    (axes,) = figure.axes
    bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert [bar.get_width() for bar in bars] == rewards.tolist()
    assert [bool(bar.get_hatch()) for bar in bars] == [False, True, False]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    assert axes.yaxis_inverted()  # the first step stands on top
    assert "nats" in axes.get_xlabel()


def test_curves_are_the_values_with_their_intervals() -> None:
    points = {name: [(50.0 + i, 40.0, 60.0 + i)] * 2 for i, name in enumerate(SELECTION_STYLE)}
    figure = selection_curves(points, (1, 4), "found")
    (axes,) = figure.axes
    assert len(axes.containers) == len(points)
    for container, values in zip(axes.containers, points.values(), strict=True):
        line, _, (interval,) = container
        value, low, high = values[0]
        assert line.get_ydata().tolist() == [value, value]
        assert interval.get_segments()[0][:, 1].tolist() == [low, high]
        assert np.abs(line.get_xdata() - np.log2([1, 4])).max() < 0.2
    assert "%" in axes.get_ylabel()


def test_the_reward_has_the_colour_of_the_policy() -> None:
    assert SELECTION_STYLE["reward, min over steps"]["color"] == STYLE["policy"]["color"]
    assert SELECTION_STYLE["log π_ref alone"]["color"] == STYLE["reference"]["color"]
