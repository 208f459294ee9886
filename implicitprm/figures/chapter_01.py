"""The figures that chapter 01 is the first to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from scipy.special import expit

from implicitprm.figures.style import STYLE, plain_ticks, unmarked
from implicitprm.rewards import ScoredSolution


def token_reward_bars(scored: ScoredSolution, wrong_step: int, title: str) -> Figure:
    """Token rewards as bars, q after each step as a line; ``wrong_step`` is shaded.

    Both in nats times β. ``wrong_step`` −1 shades none.
    """
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    axes = figure.subplots()
    positions = np.arange(len(scored.tokens))
    axes.bar(positions, scored.token_rewards, color=STYLE["policy"]["color"], label="token reward")
    starts = (0, *scored.step_ends)
    if wrong_step >= 0:
        axes.axvspan(
            starts[wrong_step] - 0.5,
            starts[wrong_step + 1] - 0.5,
            facecolor="none",
            edgecolor=STYLE["wrong"]["color"],
            alpha=0.4,
            hatch="//",
            zorder=0,
            label="wrong step",
        )
    for end in scored.step_ends[:-1]:
        axes.axvline(end - 0.5, color="0.7", linewidth=1, zorder=0)
    ends = np.array(scored.step_ends) - 1
    axes.plot(ends, scored.q_values, **STYLE["implicit"], label="q after the step")
    axes.axhline(0, color="0.3", linewidth=0.8)
    tokens = [token.replace("\n", "↵") for token in scored.tokens]
    axes.set_xticks(positions, tokens, rotation=60 if max(map(len, tokens)) > 2 else 0)
    axes.set(xlabel="response tokens", ylabel="nats × β", title=title)
    axes.legend(loc="lower left")
    axes.spines[["right", "top"]].set_visible(False)
    return figure


def sigmoid_by_beta(log_ratios: Sequence[float], betas: Sequence[float], title: str) -> Figure:
    """σ(β × log-ratio) of responses, one line per β; ``log_ratios`` (N) in nats."""
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.subplots()
    x = np.sort(np.asarray(log_ratios, dtype=np.float64))
    for beta, linestyle in zip(betas, ("-", "--", ":", "-."), strict=False):
        axes.plot(x, expit(beta * x), color="black", linestyle=linestyle, label=f"β = {beta:g}")
    axes.plot(x, np.full_like(x, -0.06), "|", color="0.4", label="one response each")
    axes.axhline(0.5, color="0.7", linewidth=1, zorder=0)
    axes.set(
        xlabel="log-ratio of the response (nats)",
        ylabel="σ(r), probability of “right”",
        ylim=(-0.1, 1.02),
        title=title,
    )
    axes.legend(loc="upper left")
    axes.spines[["right", "top"]].set_visible(False)
    return figure


def nats_per_response(
    nats: Mapping[str, Sequence[float]], needed: Mapping[float, float], title: str
) -> Figure:
    """Share of responses with at most so many nats, −log π_ref(y); a mark at ``needed`` nats by β.

    ``nats`` has the keys ``correct`` and ``wrong``.
    """
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.subplots()
    for outcome, values in nats.items():
        axes.ecdf(np.asarray(values), label=f"{outcome} responses", **unmarked(outcome))
    for beta, level in needed.items():
        (line,) = axes.plot([level, level], [0, 1.02], color="0.4", linewidth=1)
        axes.text(level, 1.03, f"β = {beta:g}", ha="center", va="bottom")
    line.set_label("needed at this β")
    axes.set(xscale="log", xlabel="nats in the response, −log π_ref(y)", title=title)
    axes.set(ylabel="share of responses", ylim=(0, 1.12), yticks=np.linspace(0, 1, 6))
    plain_ticks(axes.xaxis, [0.1, 0.3, 1, 3, 10, 30, 100])
    axes.legend(loc="upper left")
    axes.spines[["right", "top"]].set_visible(False)
    return figure
