"""Interactive figures: each frame shows what Python computed, and the page holds every frame."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import Any

import nbformat
import numpy as np
import pytest
from book_build import ROOT

from implicitprm.interactive import (
    _CSS,
    _SCRIPT,
    Control,
    Frame,
    Interactive,
    beta_explorer,
    step_reward_explorer,
)
from implicitprm.qvalues import soft_implicit_hard
from implicitprm.rewards import ScoredSolution

REWARDS, LOGPS = [-2.0, 0.5, 3.0], np.log([0.5, 0.3, 0.2])


def stored(figure: Interactive) -> dict[str, Any]:
    """What the script of the figure reads."""
    (data,) = re.findall(r"data-frames>(.*?)</script>", figure._repr_html_(), flags=re.DOTALL)
    loaded: dict[str, Any] = json.loads(data)
    return loaded


def scored(step_rewards: list[list[float]], steps: tuple[str, ...]) -> ScoredSolution:
    """A solution whose steps are single characters as tokens, with these token rewards."""
    tokens = np.array([reward for step in step_rewards for reward in step])
    ends = tuple(np.cumsum([len(step) for step in step_rewards]).tolist())
    sums = np.array([sum(step) for step in step_rewards])
    text = tuple(character for step in steps for character in step)
    outcome = float(sums.sum())
    return ScoredSolution(steps, text, ends, tokens, sums, sums.cumsum(), outcome, tokens, tokens)


SOLUTIONS = [
    (scored([[0.0, -3.0], [0.5, 0.25]], ("ab", "cd")), [False, True]),
    (scored([[0.5, 0.5], [0.0, 0.125]], ("ef", "gh")), [True, True]),
]


# ---- Any of them ----------------------------------------------------------------------------


def small() -> Interactive:
    controls = [Control("row", ["a", "b"], start=1), Control("column", ["x", "y", "z"])]
    frames = [Frame(f"<g>{i}</g>", f"frame {i} </script>") for i in range(6)]
    return Interactive("small", controls, frames, "<rect/>", (10, 10), 'a "figure"')


def test_the_last_control_varies_fastest() -> None:
    figure = small()
    assert [figure.frame(*at).reading[6] for at in ((0, 0), (0, 2), (1, 0), (1, 2))] == list("0235")


def test_a_page_holds_every_frame_and_shows_the_first_without_its_script() -> None:
    figure = small()
    html = figure._repr_html_()
    assert stored(figure) == {
        "controls": [["a", "b"], ["x", "y", "z"]],
        "frames": [[frame.drawing, frame.reading] for frame in figure.frames],
    }
    without = re.sub(r"<script\b.*?</script>", "", html, flags=re.DOTALL)
    assert "<g data-drawing><g>3</g></g>" in without
    assert "frame 3" in without
    assert "frame 0" not in without
    assert without.count('type="range"') == 2
    (alt,) = re.findall(r'aria-label="([^"]*)"', without)
    assert unescape(alt) == figure.alt == repr(figure)
    assert html == small()._repr_html_()


def test_frames_must_fit_the_controls_and_an_alt_text_is_asked_for() -> None:
    frame = Frame("", "")
    with pytest.raises(ValueError, match="2 states of the controls and 1 frames"):
        Interactive("x", [Control("a", ["0", "1"])], [frame], "", (1, 1), "alt")
    with pytest.raises(ValueError, match="needs an alt text"):
        Interactive("x", [], [frame], "", (1, 1), " ")


def test_the_chapters_hold_style_and_script_as_they_are_now() -> None:
    """The browser tests move what is stored in the chapters."""
    names = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", ()):
                html = output.get("data", {}).get("text/html", "")
                if 'class="implicitprm-figure"' in html:
                    (name,) = re.findall(r'<div class="implicitprm-figure" id="([\w-]+)">', html)
                    names.append(name)
                    assert _SCRIPT % name in html, path
                    assert _CSS in html, path
    assert {"beta-explorer", "step-reward-explorer"} <= set(names)
    assert len(names) == len(set(names))


# ---- β --------------------------------------------------------------------------------------


def test_every_frame_of_the_beta_explorer_shows_the_implicit_value() -> None:
    figure = beta_explorer(REWARDS, LOGPS, "alt")
    (control,) = figure.controls
    assert control.values[control.start] == "1"
    places = []
    for position, beta in enumerate(np.geomspace(0.01, 100, 41)):
        values = soft_implicit_hard(REWARDS, beta, LOGPS)
        frame = figure.frame(position)
        assert control.values[position] == f"{beta:.3g}"
        assert frame.reading.startswith(
            f"At β = {beta:.3g} the implicit value is {values.implicit:+z.3f}"
        )
        assert f">{values.implicit:+z.3f}</text>" in frame.drawing
        (place,) = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', frame.drawing)
        places.append([float(coordinate) for coordinate in place])

    # Across from 50 to 405 on the log axis, up from 220 for the soft value to 24 for the hard one.
    def implicit(beta: float) -> float:
        return soft_implicit_hard(REWARDS, beta, LOGPS).implicit

    expected = [
        [50 + 355 * position / 40, 220 - 196 * (implicit(beta) + 0.25) / 3.25]
        for position, beta in enumerate(np.geomspace(0.01, 100, 41))
    ]
    assert np.array(places) == pytest.approx(np.array(expected), abs=0.06)


# ---- Steps ----------------------------------------------------------------------------------


def test_every_frame_of_the_step_explorer_shows_the_rewards_of_its_solution() -> None:
    figure = step_reward_explorer(SOLUTIONS, "alt")
    assert [len(control.values) for control in figure.controls] == [2, 2]
    first, second = figure.frame(0, 0), figure.frame(1, 0)
    assert first.reading == (
        "Solution 1: outcome reward -2.250. The lowest step reward, -3.000, stands at step 0, ab."
    )
    assert second.reading == (
        "Solution 2: outcome reward +1.125. The lowest step reward, +0.125, stands at step 1, gh."
    )
    assert re.findall(r">([+-][\d.]+)</text>", first.drawing) == ["-3.00", "+0.75"]
    # Widths of the bars on one scale: 62 units are the largest reward of all, 3.
    bars = re.findall(r'width="([\d.]+)" height="16"', first.drawing + second.drawing)
    assert [float(width) for width in bars] == pytest.approx([62, 15.5, 62 / 3, 62 / 24], abs=0.06)
    # q after the steps, −3 and −2.25, left of the line at 385 where it is 0.
    curve = re.findall(r'<circle cx="([\d.]+)"', first.drawing)
    assert [float(x) for x in curve] == pytest.approx([385 - 62, 385 - 62 * 0.75], abs=0.06)


def test_the_truth_stands_in_a_frame_only_when_it_is_asked_for() -> None:
    figure = step_reward_explorer(SOLUTIONS, "alt")
    for solution, marks, text in ((0, ["✗", "✓"], "First wrong step: 0."),
                                  (1, ["✓", "✓"], "Every step is right.")):  # fmt: skip
        hidden, shown = figure.frame(solution, 0), figure.frame(solution, 1)
        assert re.findall("[✓✗]", hidden.drawing) == []
        assert re.findall("[✓✗]", shown.drawing) == marks
        assert shown.reading == f"{hidden.reading} {text}"


def test_tokens_are_underlined_by_the_weight_of_their_rewards() -> None:
    drawing = step_reward_explorer(SOLUTIONS, "alt").frame(0, 0).drawing
    opacities = re.findall(r'height="5" fill="#\w+" opacity="([\d.]+)"', drawing)
    assert [float(opacity) for opacity in opacities] == [0, 1, 0.17, 0.08]
