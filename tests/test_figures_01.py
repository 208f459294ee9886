"""The figures of chapter 01 show what they were given."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from implicitprm.figures import STYLE, nats_per_response, sigmoid_by_beta, token_reward_bars
from implicitprm.rewards import ScoredSolution

SCORED = ScoredSolution(
    steps=("7+5=13", "#13"),
    tokens=("7", "+", "5", "=", "13", "\n", "#", "13"),
    step_ends=(6, 8),
    token_rewards=np.array([0.0, 0.1, 0.0, -0.2, -1.5, 0.0, 0.3, -0.1]),
    step_rewards=np.array([-1.6, 0.2]),
    q_values=np.array([-1.6, -1.4]),
    outcome=-1.4,
    policy_logps=np.zeros(8),
    ref_logps=np.zeros(8),
)


def test_token_rewards_and_q() -> None:
    axes = token_reward_bars(SCORED, 0, "a title").axes[0]
    bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)][:8]
    assert [bar.get_height() for bar in bars] == SCORED.token_rewards.tolist()
    assert {to_hex(bar.get_facecolor()).upper() for bar in bars} == {STYLE["policy"]["color"]}
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "7",
        "+",
        "5",
        "=",
        "13",
        "↵",
        "#",
        "13",
    ]
    (q,) = (line for line in axes.lines if line.get_label() == "q after the step")
    assert np.asarray(q.get_xdata()).tolist() == [5, 7]
    assert np.asarray(q.get_ydata()).tolist() == SCORED.q_values.tolist()
    assert axes.get_title() == "a title"
    assert axes.get_ylabel() == "nats × β"


@pytest.mark.parametrize(("wrong_step", "span"), [(0, (-0.5, 5.5)), (1, (5.5, 7.5)), (-1, None)])
def test_the_wrong_step_is_marked(wrong_step: int, span: tuple[float, float] | None) -> None:
    axes = token_reward_bars(SCORED, wrong_step, "").axes[0]
    marked = [patch for patch in axes.patches if patch.get_label() == "wrong step"]
    assert [patch.get_extents().width > 0 for patch in marked] == [True] * (span is not None)
    for patch in marked:
        assert isinstance(patch, Rectangle)
        assert (patch.get_x(), patch.get_x() + patch.get_width()) == span


def test_sigmoid_by_beta() -> None:
    axes = sigmoid_by_beta([2.0, -1.0, 0.0], (0.05, 1.0, 3.0), "a title").axes[0]
    for beta, line in zip((0.05, 1.0, 3.0), axes.lines, strict=False):
        assert line.get_label() == f"β = {beta:g}"
        assert np.asarray(line.get_xdata()).tolist() == [-1.0, 0.0, 2.0]
        expected = 1 / (1 + np.exp(-beta * np.array([-1.0, 0.0, 2.0])))
        np.testing.assert_allclose(np.asarray(line.get_ydata()), expected)
    assert len({line.get_linestyle() for line in axes.lines[:3]}) == 3  # told apart without colour


def test_nats_per_response() -> None:
    nats = {"correct": [0.5, 1.0], "wrong": [2.0, 4.0, 8.0]}
    axes = nats_per_response(nats, {1.0: 3.0, 0.05: 59.0}, "a title").axes[0]
    curves = {line.get_label(): line for line in axes.lines}
    for outcome, values in nats.items():
        x, y = (np.asarray(d) for d in curves[f"{outcome} responses"].get_data())
        for value in values:  # the share of values at most this large
            assert y[x <= value].max() == pytest.approx(np.mean(np.array(values) <= value))
        assert curves[f"{outcome} responses"].get_color() == STYLE[outcome]["color"]
    marks = {text.get_text(): text.get_position()[0] for text in axes.texts}
    assert marks == {"β = 1": 3.0, "β = 0.05": 59.0}
    assert axes.get_xscale() == "log"
