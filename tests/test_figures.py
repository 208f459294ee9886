"""The figures show what they were given, and reach a notebook with their alt text."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterator
from html import unescape

import numpy as np
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import start_new_kernel
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from implicitprm.figures import (
    STYLE,
    beta_curve,
    has_live_front_end,
    monte_carlo_error,
    q_against_truth,
    q_tree,
    show,
)
from implicitprm.qvalues import soft_implicit_hard

REWARDS, LOGPS = [-2.0, 0.5, 3.0], np.log([0.5, 0.3, 0.2])


def legend_texts(figure: Figure, panel: int = 0) -> list[str]:
    legend = figure.axes[panel].get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


# ---- Colours --------------------------------------------------------------------------------

OKABE_ITO = {
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
}  # fmt: skip


def test_colours_are_those_of_okabe_and_ito_and_differ() -> None:
    colours = [style["color"] for style in STYLE.values()]
    assert set(colours) <= OKABE_ITO
    assert len(set(colours)) == len(colours)
    markers = [style["marker"] for style in STYLE.values()]
    assert len(set(markers)) == len(markers)


@pytest.mark.parametrize("group", [("policy", "reference"), ("correct", "wrong"),
                                   ("soft", "implicit", "hard")])  # fmt: skip
def test_lines_of_one_figure_differ_without_colour(group: tuple[str, ...]) -> None:
    assert len({STYLE[role]["linestyle"] for role in group}) == len(group)


def test_every_colour_is_darker_than_the_paper() -> None:
    for style in STYLE.values():
        red, green, blue = to_rgb(style["color"])
        assert 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.75


# ---- show -----------------------------------------------------------------------------------


def test_a_picture_is_one_html_image_with_its_alt_text() -> None:
    alt = 'q rises from "0" & stays < 1'
    picture = show(beta_curve(REWARDS, LOGPS, 1.0), alt)
    html = picture._repr_html_()
    (written,) = re.findall(r'alt="([^"]*)"', html)
    assert unescape(written) == alt == repr(picture)
    (data,) = re.findall(r'src="data:image/png;base64,([^"]*)"', html)
    assert base64.b64decode(data).startswith(b"\x89PNG")
    assert html.count("<img") == 1


def test_a_picture_is_the_same_each_time() -> None:
    first, second = (show(beta_curve(REWARDS, LOGPS, 1.0), "alt").png() for _ in range(2))
    assert first == second
    assert b"matplotlib" not in first.lower()


@pytest.mark.parametrize("alt", ["", "  "])
def test_a_picture_without_alt_text_is_an_error(alt: str) -> None:
    with pytest.raises(ValueError, match="needs an alt text"):
        show(Figure(), alt)


# ---- The figures ----------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.01, 0.3, 1.0, 100.0])
def test_the_slider_callback_marks_the_implicit_value(beta: float) -> None:
    """The live slider of chapter 03 shows beta_curve at its β: a pure function of it."""
    figure = beta_curve(REWARDS, LOGPS, beta)
    values = soft_implicit_hard(REWARDS, beta, LOGPS)
    hard, soft, implicit, _, mark = figure.axes[0].get_lines()
    assert mark.get_xydata() == pytest.approx(np.array([[beta, values.implicit]]))
    assert np.all(np.asarray(hard.get_ydata()) == values.hard)
    assert np.all(np.asarray(soft.get_ydata()) == values.soft)
    curve = np.asarray(implicit.get_ydata())
    assert np.all(np.diff(curve) < 0)
    assert values.soft < curve.min() < curve.max() < values.hard
    assert f"implicit {values.implicit:+z.3f} at β = {beta:.3g}" in legend_texts(figure)
    assert show(figure, "x").png() == show(beta_curve(REWARDS, LOGPS, beta), "x").png()


def test_the_slider_redraws_when_it_is_moved() -> None:
    ipywidgets = pytest.importorskip("ipywidgets")
    slider = ipywidgets.FloatLogSlider(value=1.0, base=10, min=-2, max=2)
    widget = ipywidgets.interactive(lambda beta: beta_curve(REWARDS, LOGPS, beta), beta=slider)
    for beta in (1.0, 10.0):
        slider.value = beta
        widget.update()
        assert legend_texts(widget.result)[-1].endswith(f"at β = {beta:.3g}")


def test_q_tree_shows_every_prefix_and_every_outcome() -> None:
    q = {(): -1e-17, (0,): 0.25, (1,): -1.5, (0, 0): 0.75, (0, 1): -0.125}
    correct = {(1,): False, (0, 0): True, (0, 1): False}
    (axes,) = q_tree(q, correct, ["a", "."], "The good branch rises").axes
    texts = sorted(text.get_text() for text in axes.texts)
    assert texts == sorted(["+0.00", "+0.25", "-1.50", "+0.75", "-0.12", "a", ".", "a", "."])
    marks = {str(line.get_label()): line for line in axes.get_lines()[-2:]}
    assert len(np.asarray(marks["correct"].get_xdata())) == 1
    assert len(np.asarray(marks["wrong"].get_xdata())) == 2
    assert axes.get_title() == "The good branch rises"


def test_q_against_truth_puts_each_kind_into_its_panel() -> None:
    kinds = ["policy", "correct", "wrong", "wrong"]
    panel = ([1.0, 2.0, 0.0, 0.0], [1.5, 2.5, 0.5, 0.25], kinds)
    figure = q_against_truth({"before": panel, "after": panel}, "title")
    assert [axes.get_title() for axes in figure.axes] == ["before", "after"]
    for axes in figure.axes:
        _, unfinished, right, wrong = axes.get_lines()
        assert unfinished.get_xydata() == pytest.approx(np.array([[1.0, 1.5]]))
        assert right.get_xydata() == pytest.approx(np.array([[2.0, 2.5]]))
        assert wrong.get_xydata() == pytest.approx(np.array([[0.0, 0.5], [0.0, 0.25]]))


def test_monte_carlo_error_draws_bias_and_rmse() -> None:
    estimates = {"soft": np.array([[1.0, 3.0], [2.0, 2.0]]), "hard": np.array([[0.0, 0.0], [1, 1]])}
    figure = monte_carlo_error([1, 4], estimates, {"soft": 1.0, "hard": 4.0}, "title")
    bias, error = figure.axes
    soft_bias, hard_bias = bias.get_lines()[:2]
    assert list(np.asarray(soft_bias.get_ydata())) == [1.0, 1.0]
    assert list(np.asarray(hard_bias.get_ydata())) == [-4.0, -3.0]
    assert list(np.asarray(error.get_lines()[0].get_ydata())) == [math.sqrt(2), 1.0]
    assert legend_texts(figure) == ["soft", "hard"]


@pytest.mark.parametrize(
    "figure",
    [
        beta_curve(REWARDS, LOGPS, 1.0),
        q_tree({(): 0.0, (0,): 1.0}, {(0,): True}, ["a"], "title"),
        q_against_truth({"one": ([1.0], [1.0], ["policy"])}, "title"),
        monte_carlo_error([1, 4], {"soft": np.ones((2, 3))}, {"soft": 0.0}, "title"),
    ],
)
def test_every_figure_has_a_title_and_labelled_axes(figure: Figure) -> None:
    assert figure.get_suptitle() or figure.axes[0].get_title()
    for axes in figure.axes:
        assert axes.get_xlabel()
        assert axes.get_ylabel() or not axes.get_yticks().size


# ---- Is somebody there? ---------------------------------------------------------------------

QUESTION = "from implicitprm.figures import has_live_front_end; print(has_live_front_end())"


def test_there_is_no_front_end_outside_jupyter() -> None:
    assert has_live_front_end() is False


@pytest.fixture(scope="module")
def client() -> Iterator[BlockingKernelClient]:
    manager, client = start_new_kernel(kernel_name="python3")
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.slow
@pytest.mark.parametrize("answers", [True, False])
def test_a_front_end_is_live_if_it_can_answer(client: BlockingKernelClient, answers: bool) -> None:
    """JupyterLab sends allow_stdin true, nbclient (nbconvert) and nbval send false."""
    printed: list[str] = []
    reply = client.execute_interactive(
        QUESTION,
        allow_stdin=answers,
        timeout=300,
        output_hook=lambda message: printed.append(message["content"].get("text", "")),
    )
    assert reply["content"]["status"] == "ok"
    assert "".join(printed).strip() == str(answers)
