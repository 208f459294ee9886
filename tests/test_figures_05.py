"""The figures of chapter 05 show what they were given."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer

from implicitprm.figures import (
    STYLE,
    emergence,
    loss_and_gradient,
    steps_over_updates,
    training_log,
)


def curve(axes: Axes, label: str) -> tuple[list[float], list[float]]:
    """x and y of the line with this label."""
    (line,) = (line for line in axes.lines if line.get_label() == label)
    return np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist()


def errorbars(axes: Axes) -> dict[str, ErrorbarContainer]:
    return {
        str(container.get_label()): container
        for container in axes.containers
        if isinstance(container, ErrorbarContainer)
    }


def test_losses_of_two_programs_and_rewards_of_either_outcome() -> None:
    losses = {"by hand": [0.7, 0.9, 0.6], "the Trainer": [0.7, 0.9, 0.5]}
    rewards = {"correct": [0.0, -0.2, 0.1], "wrong": [0.0, -1.0, -2.0]}
    figure = training_log(losses, rewards, "a title")
    left, right = figure.axes
    for name, values in losses.items():
        assert curve(left, name) == ([1, 2, 3], values)
    for outcome, values in rewards.items():
        assert curve(right, f"{outcome} responses") == ([1, 2, 3], values)
        (line,) = (x for x in right.lines if x.get_label() == f"{outcome} responses")
        assert to_hex(line.get_color()).upper() == STYLE[outcome]["color"]
    level = curve(left, "log 2: all rewards 0")[1]
    assert level == pytest.approx([np.log(2)] * 2)
    lines = {line.get_label(): line for line in left.lines}
    assert lines["by hand"].get_linestyle() == "-"
    assert lines["the Trainer"].get_linestyle() == "None"  # rings, so that both are seen
    assert figure.get_suptitle() == "a title"


def test_the_wrong_step_stands_out() -> None:
    rewards = np.array([[0.0, 0.0, 0.0, 0.0], [0.1, -0.2, -1.0, 0.3], [0.2, 0.0, -3.0, -0.1]])
    axes = steps_over_updates([0, 5, 20], rewards, ["a", "b", "c", "d"], 2, "a title").axes[0]
    for step, line in enumerate(axes.lines[:4]):
        assert np.asarray(line.get_xdata()).tolist() == [0, 5, 20]
        assert np.asarray(line.get_ydata()).tolist() == rewards[:, step].tolist()
    colors = [to_hex(line.get_color()).upper() for line in axes.lines[:4]]
    assert colors[:3] == [STYLE[k]["color"] for k in ("correct", "correct", "wrong")]
    assert colors[3] not in (STYLE["correct"]["color"], STYLE["wrong"]["color"])
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "valid step before it",
        "first wrong step, c",
        "step after it",
    ]
    assert axes.get_title() == "a title"


def test_emergence() -> None:
    updates, kinds = [0, 10], ("misconceptions", "other facts")
    points = {
        (outcome, kind): [(0.0, 0.0, 0.0), (value, value - 0.2, value + 0.1)]
        for kind, shift in zip(kinds, (0.0, 0.05), strict=True)
        for outcome, value in (("correct", 0.5 + shift), ("wrong", -2.0 + shift))
    }
    auroc = {kind: [(0.5, 0.5, 0.5), (0.9, 0.8, 0.95)] for kind in kinds}
    confidence = {"misconceptions": 0.3, "other facts": 1.0}
    left, right = emergence(updates, points, auroc, confidence, "a title").axes
    drawn = errorbars(left)
    for (outcome, kind), values in points.items():
        name = f"{'valid' if outcome == 'correct' else 'first wrong'} step, {kind}"
        line, _, (bars,) = drawn[name].lines
        assert line is not None
        assert np.asarray(line.get_ydata()).tolist() == [value for value, _, _ in values]
        assert to_hex(line.get_color()).upper() == STYLE[outcome]["color"]
        assert line.get_fillstyle() == ("full" if kind == "misconceptions" else "none")
        ends = np.array(bars.get_segments())[:, :, 1]  # (U, 2): low, high
        np.testing.assert_allclose(ends, [[low, high] for _, low, high in values])
    for kind in kinds:
        line, _, _ = errorbars(right)[f"step reward, {kind}"].lines
        assert line is not None
        assert np.asarray(line.get_ydata()).tolist() == [0.5, 0.9]
        assert curve(right, f"log π_ref alone, {kind}") == (updates, [confidence[kind]] * 2)
    legend = right.get_legend()
    assert legend is not None
    assert legend.get_texts()[0].get_text() == "step reward, misconceptions"
    assert len(legend.get_texts()) == 5


def test_a_line_ends_where_its_values_are_not_finite() -> None:
    versions = {
        "safe": ([1.0, 2.0, 3.0], [1.0, 1.0, 1.0]),
        "cut off": ([1.0, 2.0, 100.0], [1.0, 1.0, 0.0]),
        "written out": ([1.0, 2.0, np.inf], [1.0, 1.0, np.nan]),
    }
    for panel, axes in enumerate(loss_and_gradient([10, 20, 30], versions, "a title").axes):
        for name, both in versions.items():
            expected = np.where(np.isfinite(both[panel]), both[panel], np.nan)
            np.testing.assert_array_equal(curve(axes, name)[1], expected)
        marks = [line for line in axes.lines if len(np.atleast_1d(line.get_xdata())) == 1]
        (mark,) = marks  # only the line that ends early has one
        assert np.asarray(mark.get_xdata()).tolist() == [20]
        assert np.asarray(mark.get_ydata()).tolist() == [versions["written out"][panel][1]]
