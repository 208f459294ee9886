"""The figure of chapter 10 shows what it was given."""

from __future__ import annotations

import numpy as np

from implicitprm.figures import reading_maps


def test_reading_maps() -> None:
    figure = reading_maps(
        {"best of 16": [[90.0, 95.5], [70.0, np.nan]], "agreement": [[60.0, 50.0], [40.0, 45.0]]},
        ["reasoner", "none"],
        ["reasoner", "early"],
        "a title",
    )
    left, right = figure.axes
    shown = np.asarray(left.images[0].get_array())
    assert shown[0].tolist() == [90.0, 95.5]
    # An empty cell has no number; each panel has a scale of its own.
    assert [text.get_text() for text in left.texts] == ["90.0", "95.5", "70.0"]
    assert [text.get_text() for text in right.texts] == ["60.0", "50.0", "40.0", "45.0"]
    assert left.images[0].get_clim() == (70.0, 95.5)
    assert right.images[0].get_clim() == (40.0, 60.0)
    # Numbers stand out from their ground, also in grey: white on the dark half of the scale.
    assert [text.get_color() for text in left.texts] == ["white", "white", "black"]
    assert [text.get_text() for text in left.get_yticklabels()] == ["reasoner", "none"]
    assert [text.get_text() for text in left.get_xticklabels()] == ["reasoner", "early"]
    assert figure.get_suptitle() == "a title"
