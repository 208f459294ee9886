"""The figure of chapter 12 shows what it was given."""

from __future__ import annotations

import numpy as np

from implicitprm.experiments.reinforcement import ARMS, MAIN
from implicitprm.figures import ARM_STYLE, learning_curves


def test_every_main_arm_has_a_style_of_its_own() -> None:
    assert set(MAIN) <= set(ARM_STYLE) <= set(ARMS)
    seen = {(s["color"], s["marker"]) for s in ARM_STYLE.values()}
    assert len(seen) == len(ARM_STYLE)


def test_learning_curves() -> None:
    frozen = np.array([[1.0, 4.0], [3.0, 8.0]])
    panels = {
        "accuracy (%)": {"frozen": frozen, "outcome": frozen / 2},
        "AUROC": {"frozen": frozen / 10},
    }
    figure = learning_curves(panels, [2.5, 7.5], "a title")
    left, right = figure.axes
    assert left.get_ylabel() == "accuracy (%)"
    assert right.get_ylabel() == "AUROC"
    assert right.get_xlabel() == "updates"
    first, second = left.lines
    assert np.asarray(first.get_xdata()).tolist() == [2.5, 7.5]
    assert np.asarray(first.get_ydata()).tolist() == [2.0, 6.0]
    assert np.asarray(second.get_ydata()).tolist() == [1.0, 3.0]
    band = left.collections[0].get_paths()[0].vertices
    assert {(x, y) for x, y in np.asarray(band).tolist()} == {
        (2.5, 1.0), (7.5, 4.0), (2.5, 3.0), (7.5, 8.0)
    }  # fmt: skip
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["frozen", "outcome"]
    assert figure.get_suptitle() == "a title"
