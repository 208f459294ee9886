"""The figures of chapter 08 show what they were given."""

from __future__ import annotations

import numpy as np
from matplotlib.container import ErrorbarContainer

from implicitprm.figures import (
    LABEL_STYLE,
    STYLE,
    cost_against_accuracy,
    cost_ratios,
    label_accuracy,
    label_bias,
)


def ydata(line: object) -> list[float]:
    return np.asarray(line.get_ydata()).tolist()  # type: ignore[attr-defined]


def test_label_accuracy() -> None:
    figure = label_accuracy(
        [1, 2, 4],
        {"Math-Shepherd, hard": [70.0, 80.0, 90.0], "AutoPSV": [95.0]},
        {"AutoPSV": [(95.0, 94.0, 96.0), (93.0, 91.0, 95.0)]},
        "a title",
    )
    left, right = figure.axes
    lines = {line.get_label(): line for line in left.lines}
    assert ydata(lines["Math-Shepherd, hard"]) == [70.0, 80.0, 90.0]
    assert ydata(lines["AutoPSV"]) == [95.0] * 3  # no completions: the same for every K
    (bars,) = (c for c in right.containers if isinstance(c, ErrorbarContainer))
    assert bars.lines[0] is not None
    assert ydata(bars.lines[0]) == [95.0, 93.0]
    ends = [np.asarray(segment)[:, 1].tolist() for segment in bars.lines[2][0].get_segments()]
    assert ends == [[94.0, 96.0], [91.0, 95.0]]
    assert [text.get_text() for text in left.get_xticklabels()] == ["1", "2", "4"]
    assert figure.get_suptitle() == "a title"


def test_label_styles_differ_without_colour() -> None:
    assert len({(s["marker"], s["linestyle"]) for s in LABEL_STYLE.values()}) == len(LABEL_STYLE)
    assert LABEL_STYLE["true labels"]["color"] == STYLE["correct"]["color"]


def test_label_bias() -> None:
    figure = label_bias([1, 2], {"Math-Shepherd, hard": [0.5, 0.7]}, [0.5, 0.75], 0.5, "a title")
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    assert ydata(lines["Math-Shepherd, hard: mean label"]) == [0.5, 0.7]
    assert ydata(lines["1 − (1 − Q)ᴷ"]) == [0.5, 0.75]
    assert ydata(lines["mean true Q"]) == [0.5, 0.5]
    assert figure.get_suptitle() == "a title"


def test_cost_against_accuracy() -> None:
    figure = cost_against_accuracy(
        {
            "CE": (1.0, (91.0, 89.0, 93.0), "implicit"),
            "head": (2.0, (94.0, 93.0, 95.0), "AutoPSV"),
        },
        {"majority vote": 63.0},
        "a title",
    )
    (axes,) = figure.axes
    bars = [c for c in axes.containers if isinstance(c, ErrorbarContainer)]
    points = []
    for container in bars:
        marker = container.lines[0]
        assert marker is not None
        points.append((float(np.asarray(marker.get_xdata())[0]), ydata(marker)[0]))
    assert points == [(1.0, 91.0), (2.0, 94.0)]
    assert [text.get_text() for text in axes.texts] == ["CE", "head"]
    assert 63.0 in [ydata(line)[0] for line in axes.lines]


def test_cost_ratios() -> None:
    figure = cost_ratios([3, 8], {"as run": [2.0, 3.0]}, {"formula": [3.0, 8.0]}, 38.8, "a title")
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    assert ydata(lines["measured, as run"]) == [2.0, 3.0]
    assert ydata(lines["formula"]) == [3.0, 8.0]
    assert any(ydata(line)[0] == 38.8 for line in axes.lines)
    assert [text.get_text() for text in axes.texts] == ["paper: 38.8"]
    assert axes.get_yscale() == "log"
