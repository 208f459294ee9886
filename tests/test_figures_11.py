"""The figures of chapter 11 show what they were given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer

from implicitprm.experiments import where_is_the_error as where
from implicitprm.figures import JUDGE_STYLE, STYLE, claimed_f1, judge_points, token_places


def data(line: Any) -> tuple[list[float], list[float]]:
    return np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist()


def bars(axes: Any) -> list[ErrorbarContainer]:
    return [c for c in axes.containers if isinstance(c, ErrorbarContainer)]


def ends(container: ErrorbarContainer, column: int) -> list[list[float]]:
    """Both ends of every bar; column 0 is x, 1 is y."""
    (collection,) = container.lines[2]
    segments = np.asarray(collection.get_segments())[:, :, column]
    return [[float(x) for x in segment] for segment in segments]


def test_every_judge_has_a_style_of_its_own() -> None:
    assert set(JUDGE_STYLE) == set(where.METHODS)
    assert len({style["marker"] for style in JUDGE_STYLE.values()}) == len(JUDGE_STYLE)
    assert JUDGE_STYLE["log π_ref"] == STYLE["reference"]


def test_judge_points() -> None:
    panels = {
        "left": {
            "first row": {"CE": (0.9, 0.8, 0.95), "ORM": (0.5, 0.4, 0.6)},
            "second row": {"CE": (0.7, 0.6, 0.8), "ORM": (0.3, 0.2, 0.4)},
        },
        "right": {
            "first row": {"CE": (1.0, 1.0, 1.0), "ORM": (1.0, 1.0, 1.0)},
            "second row": {"CE": (1.0, 1.0, 1.0), "ORM": (1.0, 1.0, 1.0)},
        },
    }
    figure = judge_points(panels, "AUROC", "a title")
    left, right = figure.axes
    drawn = bars(left)
    assert len(drawn) == len(bars(right)) == 4
    markers = [container.lines[0] for container in drawn]
    assert all(marker is not None for marker in markers)
    assert [data(marker)[0][0] for marker in markers] == [0.9, 0.5, 0.7, 0.3]
    heights = [data(marker)[1][0] for marker in markers]
    assert heights == sorted(heights)
    assert [round(height) for height in heights] == [0, 0, 1, 1]  # two rows, two judges each
    assert ends(drawn[0], 0) == [pytest.approx([0.8, 0.95])]
    assert [text.get_text() for text in left.get_yticklabels()] == ["first row", "second row"]
    assert left.yaxis_inverted()
    assert left.get_xlabel() == "AUROC"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["CE", "ORM"]
    assert figure.get_suptitle() == "a title"


def test_token_places() -> None:
    points = [(-1.0, -2.0, 0.0), (3.0, 2.5, 3.5)]
    figure = token_places({"wrong steps": {"CE": points}}, ["operator", "result"], "a title")
    (axes,) = figure.axes
    (container,) = bars(axes)
    assert container.lines[0] is not None
    x, y = data(container.lines[0])
    assert (x, y) == ([0.0, 1.0], [-1.0, 3.0])
    assert ends(container, 1) == [[-2.0, 0.0], [2.5, 3.5]]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["operator", "result"]
    assert axes.get_title() == "wrong steps"
    assert "nats" in axes.get_ylabel()
    assert figure.get_suptitle() == "a title"


def test_claimed_f1() -> None:
    figure = claimed_f1(
        [5, 10], [(99.0, 98.0, 100.0)] * 2, [(95.0, 94.0, 96.0)] * 2, 96.5, "a title"
    )
    (axes,) = figure.axes
    claimed, elsewhere = bars(axes)
    assert claimed.get_label() == "on the problems tuned on"
    assert claimed.lines[0] is not None
    assert elsewhere.lines[0] is not None
    assert data(claimed.lines[0])[1] == [99.0, 99.0]
    assert data(elsewhere.lines[0]) == ([5, 10], [95.0, 95.0])
    assert ends(elsewhere, 1) == [[94.0, 96.0]] * 2
    lines = {line.get_label(): data(line)[1] for line in axes.lines}
    assert lines["threshold from validation"] == [96.5, 96.5]
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["5", "10"]
    assert figure.get_suptitle() == "a title"
