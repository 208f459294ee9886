"""The figure of chapter 15 shows what it was given."""

from __future__ import annotations

import numpy as np
from matplotlib.container import ErrorbarContainer

from implicitprm.figures import reference_sweep


def test_reference_sweep() -> None:
    roles = {
        "reference": [(2.0, (90.0, 88.0, 92.0)), (30.0, (60.0, 55.0, 65.0))],
        "both": [(2.0, (91.0, 89.0, 93.0)), (30.0, (40.0, 35.0, 45.0))],
    }
    figure = reference_sweep(roles, {"late": 2.0, "step 300": 30.0}, {"oracle": 97.0}, "a title")
    (axes,) = figure.axes
    assert axes.get_title() == "a title"
    bars = {str(c.get_label()): c for c in axes.containers if isinstance(c, ErrorbarContainer)}
    for name, points in roles.items():
        line = bars[name].lines[0]
        assert line is not None
        assert np.asarray(line.get_xdata()).tolist() == [x for x, _ in points]
        assert np.asarray(line.get_ydata()).tolist() == [value for _, (value, _, _) in points]
    (_, _, segments) = bars["both"].lines
    ends = np.array([segment[:, 1] for segment in segments[0].get_segments()])
    assert ends.tolist() == [[89.0, 93.0], [35.0, 45.0]]
    left, right = axes.get_xlim()
    assert left > right  # better references on the right
    assert [label.get_text() for label in axes.get_xticklabels()] == ["late", "step 300"]
    assert "oracle" in [text.get_text() for text in axes.texts]
