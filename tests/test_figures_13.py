"""The figures of chapter 13 show what they were given."""

from __future__ import annotations

import numpy as np
import pytest

from implicitprm.figures import MEMORY_STYLE, memory_bars
from implicitprm.memory import Load, expected_memory
from implicitprm.presets import PRESETS, model_config


def test_every_part_of_the_memory_has_a_style_of_its_own() -> None:
    memory = expected_memory(model_config(PRESETS["miniature"].options["policy"]), Load(1, 8))
    assert set(MEMORY_STYLE) == {*memory["training"], *memory["reference pass"]}
    seen = {(style["color"], style.get("hatch")) for style in MEMORY_STYLE.values()}
    assert len(seen) == len(MEMORY_STYLE)


def test_memory_bars() -> None:
    runs = {"one": {"logits": 3.0, "weights": 1.5}, "two": {"gradients": 20.0}}
    figure = memory_bars(runs, {"24 GiB": 24.0}, "a title")
    (axes,) = figure.axes
    assert axes.get_title() == "a title"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "two"]
    assert axes.yaxis_inverted()
    bars: dict[int, list[tuple[float, float]]] = {0: [], 1: []}
    for bar in axes.patches:
        if bar.get_width():  # type: ignore[attr-defined]
            row = round(bar.get_y() + bar.get_height() / 2)  # type: ignore[attr-defined]
            bars[row].append((bar.get_x(), bar.get_width()))  # type: ignore[attr-defined]
    assert bars == {0: [(0, 1.5), (1.5, 3.0)], 1: [(0, 20.0)]}  # in the order of the styles
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["4.5", "20.0", "24 GiB"]
    (line,) = axes.lines
    assert np.asarray(line.get_xdata()).tolist() == [24.0, 24.0]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(MEMORY_STYLE)
    assert all(bar.get_hatch() for bar in axes.patches if bar.get_width() == 3.0)  # type: ignore[attr-defined]


def test_a_part_without_a_style_is_an_error() -> None:
    with pytest.raises(ValueError, match="no part of the memory is called 'heat'"):
        memory_bars({"one": {"heat": 1.0}}, {}, "a title")
