"""The figures of chapter 14 show what they were given."""

from __future__ import annotations

import numpy as np
from matplotlib.container import ErrorbarContainer
from matplotlib.lines import Line2D

from implicitprm.figures import SPLIT_STYLE, scoring_memory, split_f1

WHOLE, SOME = "log-softmax of the whole text", "some tokens at a time"


def drawn(line: Line2D) -> list[tuple[float, float]]:
    xs, ys = (np.asarray(values, dtype=float).tolist() for values in line.get_data())
    return list(zip(xs, ys, strict=True))


def test_scoring_memory() -> None:
    figure = scoring_memory(
        {WHOLE: [(64, 80.0), (4096, 5000.0)], SOME: [(64, 80.0), (4096, 270.0)]},
        {WHOLE: [(512, 600.0)], SOME: [(512, 200.0)]},
        "a title",
    )
    (axes,) = figure.axes
    lines = {str(line.get_label()): line for line in axes.lines}
    assert drawn(lines[f"{WHOLE}, computed"]) == [(64, 80), (4096, 5000)]
    assert drawn(lines[f"{SOME}, measured"]) == [(512, 200)]
    assert lines[f"{SOME}, measured"].get_linestyle() == "None"
    # A line for what was computed, a marker for what was measured, another one of each kind.
    styles = {lines[f"{name}, computed"].get_linestyle() for name in (WHOLE, SOME)}
    markers = {lines[f"{name}, measured"].get_marker() for name in (WHOLE, SOME)}
    assert len(styles) == len(markers) == 2
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert [text.get_text() for text in axes.get_xticklabels()] == ["64", "4096"]
    assert axes.get_title() == "a title"


def test_split_f1() -> None:
    figure = split_f1(
        {"a model": {"gsm8k": (40.0, 30.0, 55.0)}, "other": {"gsm8k": (80.0, 80.0, 80.0),
                                                            "math": (60.0, 60.0, 60.0)}},
        "a title",
    )  # fmt: skip
    (axes,) = figure.axes
    bars = [c for c in axes.containers if isinstance(c, ErrorbarContainer)]
    points = [drawn(bar.lines[0])[0] for bar in bars if bar.lines[0] is not None]
    assert points == [(40.0, -0.075), (80.0, 0.925), (60.0, 1.075)]  # a split below the other
    ends = [np.asarray(bar.lines[2][0].get_segments()[0])[:, 0].tolist() for bar in bars]
    assert ends == [[30.0, 55.0], [80.0, 80.0], [60.0, 60.0]]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a model", "other"]
    low, high = axes.get_ylim()
    assert low > high  # the first row on top
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["gsm8k", "math"]
    assert axes.get_title() == "a title"


def test_split_styles_differ_without_colour() -> None:
    styles = list(SPLIT_STYLE.values())
    assert len({style["marker"] for style in styles}) == len(styles)
    greys = [float(style["color"]) for style in styles]
    assert min(np.diff(greys)) > 0.1
