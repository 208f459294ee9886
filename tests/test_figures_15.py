"""The figure and the table of chapter 15 show what they were given."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer

from implicitprm.figures import claims_table, reference_sweep


def test_reference_sweep() -> None:
    roles = {
        "reference": {"late": (90.0, 88.0, 92.0), "step 300": (60.0, 55.0, 65.0)},
        "both": {"late": (91.0, 89.0, 93.0), "step 300": (40.0, 35.0, 45.0)},
    }
    figure = reference_sweep(roles, {"late": 2.0, "step 300": 30.04}, {"oracle": 97.0}, "a title")
    (axes,) = figure.axes
    assert axes.get_title() == "a title"
    # Better references on the right.
    assert [label.get_text() for label in axes.get_xticklabels()] == ["step 300\n30.0", "late\n2.0"]
    bars = {str(c.get_label()): c for c in axes.containers if isinstance(c, ErrorbarContainer)}
    for name, points in roles.items():
        line = bars[name].lines[0]
        assert line is not None
        assert np.round(np.asarray(line.get_xdata(), dtype=float)).tolist() == [0, 1]
        assert np.asarray(line.get_ydata()).tolist() == [points["step 300"][0], points["late"][0]]
    (_, _, segments) = bars["both"].lines
    ends = np.array([segment[:, 1] for segment in segments[0].get_segments()])
    assert ends.tolist() == [[35.0, 45.0], [89.0, 93.0]]
    fills = [bars[name].lines[0].get_fillstyle() for name in roles]
    assert fills == ["full", "none"]
    assert "oracle" in [text.get_text() for text in axes.texts]


def test_claims_table() -> None:
    groups = {
        "holds": [
            ("07", "a < b", ["✓ here: 1 & 2 [0, 4]", "✗ there: 3"]),
            ("08", "c", ["✓ all: 4"]),
        ],
        "contradicted": [],
        "not testable here": [("14", "log π_ref given y_<t", ["needs a GPU"])],
    }
    table = claims_table(groups, "marks: ✓ holds")
    page = ElementTree.fromstring(table._repr_html_().replace("<br>", "<br/>"))
    assert page.findtext("caption") == repr(table) == "marks: ✓ holds"
    headings = [th.text for th in page.iter("th") if th.get("scope") == "rowgroup"]
    assert headings == ["holds (2)", "not testable here (1)"]  # an empty group is left out
    rows = [["|".join(td.itertext()) for td in tr.iter("td")] for tr in page.iter("tr")]
    assert [row for row in rows if row] == [
        ["07", "a < b", "✓ here: 1 & 2 [0,\u00a04]|✗ there: 3"],
        ["08", "c", "✓ all: 4"],
        ["14", "log π|ref| given y|<t", "needs a GPU"],
    ]
    assert [sub.text for sub in page.iter("sub")] == ["ref", "<t"]


def test_claims_table_without_a_caption_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs a caption"):
        claims_table({"holds": []}, " ")
