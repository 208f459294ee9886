"""The figures of the chapters: one function a figure, each returns a matplotlib Figure.

Titles state the finding and come from the caller, who has seen it. `show` puts a figure into a
notebook as one HTML image with its alt text, the only output format whose alt text JupyterLab,
nbconvert and Jupyter Book all keep. No pyplot, so no state between cells.
"""

from __future__ import annotations

import base64
import io
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from scipy.special import expit

from implicitprm.qvalues import FloatArray, Tokens, soft_implicit_hard
from implicitprm.rewards import ScoredSolution

#: What a colour means, in every figure of the book. The colours are those of Okabe and Ito, which
#: readers with colour-blindness can tell apart; marker and line style tell them apart in greyscale.
STYLE: dict[str, dict[str, Any]] = {
    "policy": {"color": "#0072B2", "marker": "s", "linestyle": "-"},
    "reference": {"color": "#000000", "marker": "P", "linestyle": "--"},
    "correct": {"color": "#009E73", "marker": "o", "linestyle": "-"},
    "wrong": {"color": "#D55E00", "marker": "X", "linestyle": "--"},
    "soft": {"color": "#56B4E9", "marker": "v", "linestyle": ":"},
    "implicit": {"color": "#CC79A7", "marker": "D", "linestyle": "-"},
    "hard": {"color": "#E69F00", "marker": "^", "linestyle": "--"},
}
DOTS_PER_INCH = 144


@dataclass(frozen=True)
class Picture:
    """A figure with its alt text; the last line of a notebook cell shows it."""

    figure: Figure
    alt: str

    def png(self) -> bytes:
        drawn, stored = io.BytesIO(), io.BytesIO()
        self.figure.savefig(drawn, dpi=DOTS_PER_INCH)
        # 256 colours are a third of the bytes, and none of the difference can be seen.
        image = Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        image.save(stored, "PNG", optimize=True)
        return stored.getvalue()

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.png()).decode()
        width = round(self.figure.get_figwidth() * 100)
        return (
            f'<img src="data:image/png;base64,{data}" alt="{escape(self.alt)}" '
            f'width="{width}" style="max-width: 100%; height: auto">'
        )

    def __repr__(self) -> str:
        return self.alt


def show(figure: Figure, alt: str) -> Picture:
    """Show ``figure`` in a notebook; ``alt`` says in words what one sees in it.

    Raises ValueError without an alt text.
    """
    if not alt.strip():
        raise ValueError("a figure needs an alt text: say in words what it shows")
    return Picture(figure, alt)


def has_live_front_end() -> bool:
    """Whether someone sits before the notebook whose cell is running.

    JupyterLab and other front-ends say with every cell that they can ask for input (`allow_stdin`
    of the Jupyter protocol); nbconvert and nbval, which run a notebook unattended, say that they
    cannot. A cell that shows a widget asks this first, because a stored widget brings random ids
    into the notebook and is dead on a page.
    """
    if "IPython" not in sys.modules:
        return False
    kernel = getattr(sys.modules["IPython"].get_ipython(), "kernel", None)
    return kernel is not None and bool(kernel.get_parent()["content"].get("allow_stdin"))


def q_tree(
    q: Mapping[Tokens, float], correct: Mapping[Tokens, bool], names: Sequence[str], title: str
) -> Figure:
    """The tree of a language's prefixes, with q (nats) in each node and the outcome at each leaf.

    ``q`` holds every prefix, the root () included; ``correct`` the complete ones; ``names`` are
    the tokens as text.
    """
    leaves = sorted(correct)
    depth = max(map(len, q))
    heights = {
        prefix: float(
            np.mean([-i for i, leaf in enumerate(leaves) if leaf[: len(prefix)] == prefix])
        )
        for prefix in q
    }
    figure = Figure(figsize=(2.0 * depth + 1.6, 0.36 * len(leaves) + 1.0), layout="constrained")
    axes = figure.subplots()
    for prefix, height in heights.items():
        if prefix:
            x, above = len(prefix), heights[prefix[:-1]]
            axes.plot([x - 1, x], [above, height], color="0.6", linewidth=1, zorder=1)
            axes.text(
                x - 0.42,
                above + 0.58 * (height - above),
                names[prefix[-1]],
                ha="center",
                va="center",
                fontsize=9,
                bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none"},
            )
        axes.text(
            len(prefix),
            height,
            f"{q[prefix]:+z.2f}",
            ha="center",
            va="center",
            fontsize=9,
            zorder=3,
            bbox={"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": "black"},
        )
    for outcome in ("correct", "wrong"):
        ends = [leaf for leaf in leaves if correct[leaf] == (outcome == "correct")]
        axes.plot(
            [len(leaf) + 0.38 for leaf in ends],
            [heights[leaf] for leaf in ends],
            **STYLE[outcome] | {"linestyle": "none"},
            markersize=8,
            label=outcome,
        )
    axes.legend(loc="lower left", frameon=False)
    axes.set(
        xlim=(-0.4, depth + 0.6), xlabel="response tokens seen, t (in the boxes: q in nats × β)"
    )
    axes.set_title(title)
    axes.set_xticks(range(depth + 1))
    axes.set_yticks([])
    axes.spines[["left", "right", "top"]].set_visible(False)
    return figure


def q_against_truth(
    panels: Mapping[str, tuple[Sequence[float], Sequence[float], Sequence[str]]], title: str
) -> Figure:
    """exp(q^t/β) of prefixes against Q^t/Q^0, their true Q over that of their prompt.

    Each panel is (Q^t/Q^0, exp(q^t/β), kind), all of N prefixes; a kind is ``policy`` for an
    unfinished prefix, ``correct`` or ``wrong`` for a complete response. Both ratios are numbers
    without a unit, 1 at every prompt; the diagonal is where they are equal.
    """
    labels = {"policy": "unfinished", "correct": "complete, correct", "wrong": "complete, wrong"}
    figure = Figure(figsize=(4.2 * len(panels), 4.2), layout="constrained")
    figure.suptitle(title)
    top = 1.08 * max(max(*truth, *ratio) for truth, ratio, _ in panels.values())
    columns = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (name, (truth, ratio, kinds)) in zip(columns, panels.items(), strict=True):
        axes.plot([0, top], [0, top], color="0.7", linewidth=1, zorder=0)
        for kind, label in labels.items():
            chosen = np.array(kinds) == kind
            axes.plot(
                np.asarray(truth)[chosen],
                np.asarray(ratio)[chosen],
                **STYLE[kind] | {"linestyle": "none"},
                alpha=0.8,
                label=label,
            )
        axes.set(title=name, xlabel="true Q of prefix / true Q of prompt", ylabel="exp(q / β)")
    columns[0].legend()
    return figure


def beta_curve(
    rewards: Sequence[float] | FloatArray,
    logps: Sequence[float] | FloatArray,
    beta: float,
    title: str = "Implicit value between soft and hard, rewards held fixed",
) -> Figure:
    """The three values of one prefix against β on a log axis, with a mark at ``beta``.

    ``rewards`` (N) and ``logps`` (N) as in :func:`implicitprm.qvalues.soft_implicit_hard`.
    """
    here = soft_implicit_hard(rewards, beta, logps)
    betas = np.geomspace(1e-2, 1e2, 81)
    implicit = [soft_implicit_hard(rewards, b, logps).implicit for b in betas]
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.subplots()
    for name, level in (("hard", here.hard), ("soft", here.soft)):
        axes.plot(betas, np.full_like(betas, level), **_line(name), label=f"{name} {level:+z.3f}")
    axes.plot(betas, implicit, **_line("implicit"), linewidth=2)
    axes.axvline(beta, color="0.5", linewidth=1, zorder=0)
    axes.plot(
        beta,
        here.implicit,
        **STYLE["implicit"] | {"linestyle": "none"},
        markersize=9,
        label=f"implicit {here.implicit:+z.3f} at β = {beta:.3g}",
    )
    axes.set(xscale="log", xlabel="β", ylabel="value of the prefix (nats × β)", title=title)
    _plain_ticks(axes.xaxis, [0.01, 0.1, 1, 10, 100])
    axes.legend(loc="center right")
    return figure


def monte_carlo_error(
    sizes: Sequence[int],
    estimates: Mapping[str, FloatArray],
    exact: Mapping[str, float],
    title: str,
) -> Figure:
    """Bias and root mean square error of the three sampled values against the sample size K.

    ``estimates[name]`` has shape (len(sizes), R) for R repetitions; values in nats times β. The
    bias has a band of two standard errors.
    """
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    for name, values in estimates.items():
        error = values - exact[name]  # (K, R)
        bias, noise = error.mean(-1), error.std(-1, ddof=1) / np.sqrt(values.shape[-1])
        left.plot(sizes, bias, **STYLE[name], label=name)
        left.fill_between(
            sizes, bias - 2 * noise, bias + 2 * noise, color=STYLE[name]["color"], alpha=0.25
        )
        right.plot(sizes, np.sqrt((error**2).mean(-1)), **STYLE[name], label=name)
    left.axhline(0, color="0.7", linewidth=1, zorder=0)
    left.set(ylabel="bias (nats × β)", title="mean error")
    right.set(yscale="log", ylabel="root mean square error (nats × β)", title="typical error")
    for axes in (left, right):
        axes.set(xscale="log", xlabel="sampled completions, K")
        _plain_ticks(axes.xaxis, sizes)
    low, high = np.log2(right.get_ylim())
    _plain_ticks(right.yaxis, [2.0**power for power in range(ceil(low), floor(high) + 1)])
    left.legend(loc="lower right")
    return figure


def _line(name: str) -> dict[str, Any]:
    return STYLE[name] | {"marker": ""}


def _plain_ticks(axis: Axis, values: Sequence[float]) -> None:
    """Plain numbers at ``values`` in place of powers of ten."""
    axis.set_ticks(values, [f"{value:g}" for value in values])
    axis.set_ticks([], minor=True)


def step_reward_bars(
    solutions: Mapping[str, tuple[Sequence[str], FloatArray, Sequence[bool]]], title: str
) -> Figure:
    """Step rewards (nats times β) as bars, one panel a solution.

    Each panel is (steps, step rewards (S), whether each step is valid).
    """
    longest = max(len(steps) for steps, _, _ in solutions.values())
    figure = Figure(figsize=(8.0, 0.42 * longest + 1.5), layout="constrained")
    panels = figure.subplots(1, len(solutions), sharex=True, squeeze=False)[0]
    for axes, (name, (steps, rewards, valid)) in zip(panels, solutions.items(), strict=True):
        for row, (reward, right) in enumerate(zip(rewards, valid, strict=True)):
            axes.barh(
                row,
                reward,
                color=STYLE["correct" if right else "wrong"]["color"],
                hatch="" if right else "//",
                edgecolor="black",
                linewidth=0.6,
                label="valid step" if right else "wrong step",
            )
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(steps)), steps, family="monospace")
        axes.invert_yaxis()
        axes.set(title=name, xlabel="step reward (β · nats)")
        axes.spines[["right", "top"]].set_visible(False)
    keys = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(keys.values(), keys.keys(), loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(title)
    return figure


#: How the ways to choose an answer are drawn: the trained reward in the policy's colour.
SELECTION_STYLE: dict[str, dict[str, Any]] = {
    "oracle": {"color": "0.6", "linestyle": ":", "marker": ""},
    "vote weighted by reward": STYLE["implicit"],
    "reward, min over steps": STYLE["policy"],
    "reward, sum over steps": STYLE["policy"] | {"linestyle": "--", "marker": "P"},
    "majority vote": STYLE["hard"],
    "log π_ref alone": STYLE["reference"],
    "log π_θ alone": STYLE["soft"] | {"linestyle": "-.", "marker": "x"},
}


def selection_curves(
    curves: Mapping[str, Sequence[tuple[float, float, float]]], ns: Sequence[int], title: str
) -> Figure:
    """Accuracy (%) against the number of candidates N, with 95% intervals as bars.

    ``curves`` maps a name of ``SELECTION_STYLE`` to (value, low, high) at each N.
    """
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.subplots()
    for position, (name, points) in enumerate(curves.items()):
        value, low, high = np.array(points).T
        # Shifted a little, so that intervals of neighbouring curves do not cover each other.
        x = np.log2(ns) + 0.05 * (position - (len(curves) - 1) / 2)
        axes.errorbar(
            x,
            value,
            yerr=(value - low, high - value),
            **SELECTION_STYLE[name],
            markersize=5,
            linewidth=1.4,
            elinewidth=0.8,
            label=name,
        )
    axes.set_xticks(np.log2(ns), [str(n) for n in ns])
    axes.set(xlabel="candidates N", ylabel="problems answered right (%)", title=title)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    axes.spines[["right", "top"]].set_visible(False)
    return figure


# ---- Chapter 01 -------------------------------------------------------------------------------


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
        axes.ecdf(np.asarray(values), label=f"{outcome} responses", **_line(outcome))
    for beta, level in needed.items():
        (line,) = axes.plot([level, level], [0, 1.02], color="0.4", linewidth=1)
        axes.text(level, 1.03, f"β = {beta:g}", ha="center", va="bottom")
    line.set_label("needed at this β")
    axes.set(xscale="log", xlabel="nats in the response, −log π_ref(y)", title=title)
    axes.set(ylabel="share of responses", ylim=(0, 1.12), yticks=np.linspace(0, 1, 6))
    _plain_ticks(axes.xaxis, [0.1, 0.3, 1, 3, 10, 30, 100])
    axes.legend(loc="upper left")
    axes.spines[["right", "top"]].set_visible(False)
    return figure


# ---- Chapter 04 -------------------------------------------------------------------------------

#: Facts on which the tutor has a misconception, and the others.
FACT_STYLE: dict[str, dict[str, Any]] = {
    "misconceptions": STYLE["wrong"],
    "other facts": {"color": "0.45", "marker": "o", "linestyle": "-"},
}


def error_rates(
    panels: Mapping[
        str, Mapping[str, tuple[Sequence[float], Sequence[float], tuple[float, float, float]]]
    ],
    title: str,
) -> Figure:
    """The reasoner's error rate on each fact against the tutor's, one panel a sampler.

    Each panel maps a name of ``FACT_STYLE`` to the tutor's rates (F), the reasoner's rates (F), and
    the mean of the latter as (value, low, high), drawn with its interval. Rates are in 0..1.
    """
    figure = Figure(figsize=(9.0, 4.4), layout="constrained")
    figure.suptitle(title)
    columns = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (name, groups) in zip(columns, panels.items(), strict=True):
        (diagonal,) = axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, zorder=0)
        for kind, (tutor, reasoner, (value, low, high)) in groups.items():
            style = FACT_STYLE[kind] | {"linestyle": "none"}
            axes.plot(tutor, reasoner, **style, markersize=4, alpha=0.25, label=f"{kind}, one each")
            axes.errorbar(
                float(np.mean(tutor)),
                value,
                yerr=[[value - low], [high - value]],
                **style,
                markersize=5,
                markeredgecolor="black",
                markerfacecolor="white",
                ecolor="black",
                capsize=6,
                label=f"{kind}, mean and interval",
            )
        axes.set(title=name, xlabel="error rate of the tutor", xlim=(-0.02, 1), ylim=(-0.03, 1.03))
        axes.spines[["right", "top"]].set_visible(False)
    columns[0].set_ylabel("error rate of the reasoner")
    diagonal.set_label("as often as the tutor")
    handles, labels = columns[-1].get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: labels[i].partition(",")[0])
    figure.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="outside lower center",
        ncols=3,
        frameon=False,
    )
    return figure


def token_map(
    text: str,
    step_starts: Sequence[int],
    tokenizations: Mapping[str, tuple[Sequence[tuple[int, int]], Sequence[int]]],
    title: str,
) -> Figure:
    """One text cut into tokens by several tokenizers, and which step each token belongs to.

    ``step_starts`` (S) are characters of ``text``; each tokenization is (spans (T, 2) in
    characters, exclusive step ends (S) in tokens).
    """
    figure = Figure(figsize=(0.165 * len(text) + 1.2, 0.8 * len(tokenizations) + 1.8))
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    for row, (spans, step_ends) in enumerate(tokenizations.values()):
        owners = np.repeat(np.arange(len(step_ends)), np.diff([0, *step_ends]))
        for (start, end), owner in zip(spans, owners, strict=True):
            crosses = any(start < step_start < end for step_start in step_starts)
            axes.add_patch(
                Rectangle(
                    (start + 0.06, row - 0.33),
                    end - start - 0.12,
                    0.66,
                    facecolor=("white", "0.84")[owner % 2],
                    edgecolor=STYLE["wrong"]["color"] if crosses else "0.3",
                    linewidth=2.2 if crosses else 0.8,
                    label="token that crosses a boundary"
                    if crosses
                    else ("token of a step of even number", "token of a step of odd number")[
                        owner % 2
                    ],
                )
            )
        for position, character in enumerate(text):
            shown = {"\n": "↵", " ": "·"}.get(character, character)
            axes.text(
                position + 0.5, row, shown, ha="center", va="center", family="monospace", fontsize=9
            )
    for number, start in enumerate(step_starts):
        axes.axvline(start, color="black", linestyle="--", linewidth=1, zorder=0)
        axes.text(start + 0.2, -0.62, f"step {number} starts", va="bottom", fontsize=9)
    axes.set(xlim=(-0.3, len(text) + 0.3), ylim=(len(tokenizations) - 0.5, -0.85), title=title)
    axes.set_yticks(range(len(tokenizations)), list(tokenizations))
    axes.set(xticks=step_starts, xlabel="characters of the response (· space, ↵ line end)")
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.tick_params(left=False)
    keys = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(keys.values(), keys.keys(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def boundary_shifts(
    shifts: Sequence[int],
    auroc: Sequence[tuple[float, float, float]],
    lowest: Mapping[str, Sequence[tuple[float, float, float]]],
    chance: tuple[float, float],
    title: str,
) -> Figure:
    """What step rewards are worth when all step ends are moved by so many tokens.

    ``auroc`` and each entry of ``lowest`` are (value, low, high) at each shift; ``lowest`` maps the
    names "first wrong step" and "step after it" to shares of wrong solutions; ``chance`` is the
    chance level of either panel.
    """
    figure = Figure(figsize=(9.0, 3.9), layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    curves = {"step reward": (left, auroc, STYLE["policy"])}
    styles = (STYLE["policy"], {"color": "0.35", "marker": "v", "linestyle": "--"})
    curves |= {
        name: (right, points, style)
        for (name, points), style in zip(lowest.items(), styles, strict=True)
    }
    for name, (axes, points, style) in curves.items():
        value, low, high = np.array(points).T
        axes.errorbar(shifts, value, yerr=(value - low, high - value), **style, label=name)
    for axes, level in zip((left, right), chance, strict=True):
        axes.axhline(level, color="0.5", linestyle=":", linewidth=1, label="chance")
        axes.axvline(0, color="0.6", linewidth=1, zorder=0, label="right boundary")
        axes.set(xticks=shifts, xlabel="all step ends moved by … tokens")
        axes.spines[["right", "top"]].set_visible(False)
    left.set(ylabel="AUROC, valid against wrong steps", ylim=(0.45, 1.02))
    right.set(ylabel="share of solutions with a wrong step", ylim=(-0.03, 1.02))
    right.set_title("where the lowest step reward stands")
    left.set_title("does the step reward find wrong steps?")
    left.legend(loc="center", bbox_to_anchor=(0.53, 0.45))
    right.legend(loc="center", bbox_to_anchor=(0.5, 0.42))
    return figure


# ---- Chapter 05 -------------------------------------------------------------------------------


def training_log(
    losses: Mapping[str, Sequence[float]], rewards: Mapping[str, Sequence[float]], title: str
) -> Figure:
    """The loss of every update by two programs, and the mean reward of either kind of response.

    ``losses`` maps the name of a program to its losses (U): the first is drawn as a line, the
    second as rings on it. ``rewards`` has the keys ``correct`` and ``wrong``, (U) each, in nats
    times β.
    """
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    rings = {"color": STYLE["hard"]["color"], "marker": "o", "fillstyle": "none", "linestyle": ""}
    for (name, values), style in zip(losses.items(), (_line("policy"), rings), strict=True):
        left.plot(range(1, len(values) + 1), values, **style, label=name)
    left.axhline(np.log(2), color="0.5", linestyle=":", linewidth=1.2, label="log 2: all rewards 0")
    left.set(ylabel="loss of the batch", title="loss", ylim=(0, None))
    for outcome, values in rewards.items():
        updates = range(1, len(values) + 1)
        right.plot(updates, values, **STYLE[outcome], markersize=3, label=f"{outcome} responses")
    right.axhline(0, color="0.5", linestyle=":", linewidth=1.2)
    right.set(ylabel="mean reward in the batch (β · nats)", title="rewards")
    for axes in (left, right):
        axes.set_xlabel("update")
        axes.spines[["right", "top"]].set_visible(False)
        axes.legend(loc="lower left")
    return figure


def steps_over_updates(
    updates: Sequence[int], rewards: FloatArray, steps: Sequence[str], wrong_step: int, title: str
) -> Figure:
    """The step rewards of one solution over training, (U, S) in nats times β.

    Steps before ``wrong_step`` are drawn as correct; those after it, which build on it, in grey.
    """
    figure = Figure(figsize=(8.0, 4.0), layout="constrained")
    axes = figure.subplots()
    for step, text in enumerate(steps):
        kind, style = "valid step before it", STYLE["correct"] | {"linewidth": 1.2, "zorder": 2}
        if step == wrong_step:
            kind, style = f"first wrong step, {text}", STYLE["wrong"] | {"linewidth": 2.2}
        elif step > wrong_step:
            kind, style = "step after it", {"color": "0.6", "linestyle": ":", "zorder": 1}
        axes.plot(updates, rewards[:, step], **style, markersize=6, label=kind)
    axes.axhline(0, color="0.3", linewidth=0.8, zorder=0)
    axes.set(xlabel="updates", ylabel="step reward (β · nats)", title=title, xticks=updates)
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes.legend(unique.values(), unique.keys(), loc="lower left")
    axes.spines[["right", "top"]].set_visible(False)
    return figure


def emergence(
    updates: Sequence[int],
    rewards: Mapping[tuple[str, str], Sequence[tuple[float, float, float]]],
    auroc: Mapping[str, Sequence[tuple[float, float, float]]],
    confidence: Mapping[str, float],
    title: str,
) -> Figure:
    """Mean step rewards of valid and wrong steps over training, and how well they tell them apart.

    ``rewards`` maps ("correct" or "wrong", kind of fact) to (value, low, high) after each number of
    ``updates``, in nats times β; ``auroc`` maps a kind of fact to the same for the step AUROC, and
    ``confidence`` to the AUROC of log π_ref alone, which is drawn as a level. There are two kinds
    of fact: the first is drawn full, the second hollow.
    """
    figure = Figure(figsize=(9.6, 4.6), layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    fill = dict(zip(auroc, ("full", "none"), strict=True))

    def curve(axes: Axes, points: Sequence[tuple[float, float, float]], **style: Any) -> None:
        value, low, high = np.array(points).T
        axes.errorbar(updates, value, yerr=(value - low, high - value), elinewidth=0.8, **style)

    for (outcome, kind), points in rewards.items():
        name = f"{'valid' if outcome == 'correct' else 'first wrong'} step, {kind}"
        curve(left, points, **STYLE[outcome], fillstyle=fill[kind], label=name)
    left.axhline(0, color="0.3", linewidth=0.8, zorder=0)
    left.set(ylabel="mean step reward (β · nats)", title="mean step reward")
    for kind, points in auroc.items():
        name = f"step reward, {kind}"
        curve(right, points, **STYLE["policy"], fillstyle=fill[kind], label=name)
    for (kind, level), linestyle in zip(confidence.items(), ("--", "-."), strict=True):
        style = {"color": STYLE["reference"]["color"], "linestyle": linestyle}
        right.plot(updates, [level] * len(updates), **style, label=f"log π_ref alone, {kind}")
    right.axhline(0.5, color="0.5", linestyle=":", linewidth=1, label="chance")
    right.set(ylabel="AUROC, valid against wrong steps", ylim=(0, 1.03), title="step AUROC")
    for axes in (left, right):
        handles, labels = axes.get_legend_handles_labels()
        first = sorted(range(len(labels)), key=lambda i: not hasattr(handles[i], "has_yerr"))
        axes.legend(
            [handles[i] for i in first],
            [labels[i] for i in first],
            loc="upper center",
            bbox_to_anchor=(0.5, -0.16),
            frameon=False,
        )
        axes.set_xlabel("updates")
        axes.spines[["right", "top"]].set_visible(False)
    return figure


def loss_and_gradient(
    rewards: Sequence[float],
    versions: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str,
) -> Figure:
    """Loss of a wrong response and its derivative by the reward, by several ways to compute them.

    ``versions`` maps a name to (losses, derivatives) at each of ``rewards``; a line ends where its
    values are infinite or NaN, with a mark on its last finite value.
    """
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(1, 2)
    styles = (STYLE["correct"], STYLE["hard"], STYLE["wrong"])
    x = np.asarray(rewards)
    for (name, both), style, width in zip(versions.items(), styles, (4.5, 2.4, 1.6), strict=True):
        for axes, values in zip(panels, both, strict=True):
            finite = np.isfinite(values)
            y = np.where(finite, values, np.nan)
            axes.plot(x, y, **style | {"marker": ""}, linewidth=width, label=name)
            if not finite.all():
                last = np.flatnonzero(finite)[-1]
                axes.plot(x[last], y[last], **style, markersize=10)
    panels[0].set(ylabel="loss", title="loss")
    panels[1].set(ylabel="derivative of the loss by r", title="gradient")
    for axes in panels:
        axes.set_xlabel("reward r of a wrong response")
        axes.spines[["right", "top"]].set_visible(False)
    panels[0].legend(loc="upper left")
    return figure


# ---- Chapter 06 -------------------------------------------------------------------------------

#: The four objectives, told apart without colour, which means something else here.
OBJECTIVE_STYLE: dict[str, dict[str, Any]] = {
    "CE": {"color": "0.0", "linestyle": "-"},
    "DPO": {"color": "0.35", "linestyle": "--"},
    "NCA": {"color": "0.5", "linestyle": "-."},
    "KTO": {"color": "0.2", "linestyle": ":"},
}


def pulls(
    rewards: Sequence[float],
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    title: str,
) -> Figure:
    """How hard each objective pulls on the reward of one response: −∂loss/∂r, above 0 is upwards.

    Each panel maps a name of ``OBJECTIVE_STYLE`` to the pull at each of ``rewards``.
    """
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    figure.suptitle(title)
    columns = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (name, curves) in zip(columns, panels.items(), strict=True):
        axes.axhline(0, color="0.6", linewidth=0.8, zorder=0)
        for objective, values in curves.items():
            axes.plot(rewards, values, **OBJECTIVE_STYLE[objective], linewidth=2, label=objective)
        axes.set(title=name, xlabel="reward r of the response (β · nats)")
        axes.spines[["right", "top"]].set_visible(False)
    columns[0].set_ylabel("pull on r, −∂loss/∂r")
    columns[0].legend()
    return figure


def sweep_maps(
    panels: Mapping[str, tuple[Sequence[float], Sequence[float], FloatArray]], title: str
) -> Figure:
    """Validation accuracy (%) by β and learning rate, one panel an objective; the best are framed.

    Each panel is (betas (B), learning rates (L), accuracy (B, L)), both ascending.
    """
    figure = Figure(figsize=(10.4, 3.9), layout="constrained")
    figure.suptitle(title)
    low = min(float(np.nanmin(values)) for _, _, values in panels.values())
    high = max(float(np.nanmax(values)) for _, _, values in panels.values())
    columns = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (name, (betas, rates, values)) in zip(columns, panels.items(), strict=True):
        axes.imshow(values, cmap="Greys_r", vmin=low, vmax=high, aspect="auto", origin="lower")
        for (row, column), value in np.ndenumerate(values):
            shade = "white" if (value - low) / (high - low) < 0.6 else "black"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=shade)
        frame = {"edgecolor": STYLE["correct"]["color"], "facecolor": "none", "linewidth": 3}
        for row, column in np.argwhere(values == np.nanmax(values)):
            axes.add_patch(Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, **frame))
        axes.set_xticks(range(len(rates)), [f"{1e4 * rate:g}" for rate in rates])
        axes.set_yticks(range(len(betas)), [f"{beta:g}" for beta in betas])
        axes.set(title=name, xlabel="learning rate × 10⁴")
    columns[0].set_ylabel("β")
    return figure


def objective_points(
    panels: Mapping[str, Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]],
    levels: Mapping[str, Mapping[str, float]],
    title: str,
) -> Figure:
    """Accuracy (%) of every training by every rule, one panel a generator.

    ``panels[generator][training][rule]`` is (one accuracy a seed, (value, low, high)); a rule is a
    name of ``SELECTION_STYLE``. ``levels[generator]`` are accuracies that need no training, by
    name: drawn as vertical lines.
    """
    names = list(next(iter(panels.values())))
    figure = Figure(figsize=(10.4, 0.52 * len(names) + 2.0), layout="constrained")
    figure.suptitle(title)
    columns = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    lines = ("-", "--", ":", "-.")
    for axes, (generator, trainings) in zip(columns, panels.items(), strict=True):
        for (level, value), linestyle in zip(levels[generator].items(), lines, strict=False):
            axes.axvline(value, color="0.55", linestyle=linestyle, linewidth=1.2, label=level)
        for row, rules in enumerate(trainings.values()):
            for place, (rule, (seeds, (value, low, high))) in enumerate(rules.items()):
                y = row + 0.24 * (place - (len(rules) - 1) / 2)
                style = SELECTION_STYLE[rule] | {"linestyle": "none"}
                axes.plot(seeds, [y] * len(seeds), ".", color="0.5", markersize=3, zorder=1)
                axes.errorbar(
                    value,
                    y,
                    xerr=[[value - low], [high - value]],
                    **style,
                    markersize=5,
                    elinewidth=1,
                    label=rule,
                )
        axes.set(title=generator, xlabel="problems answered right (%)")
        axes.spines[["right", "top"]].set_visible(False)
    columns[0].set_yticks(range(len(names)), names)
    columns[0].invert_yaxis()
    handles, labels = columns[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(
        unique.values(), unique.keys(), loc="outside lower center", ncols=4, frameon=False
    )
    return figure


def vote_by_beta(
    betas: Sequence[float],
    curves: Mapping[str, Sequence[tuple[float, float, float]]],
    marks: Mapping[str, float],
    title: str,
) -> Figure:
    """Accuracy (%) against the β with which rewards are *read*, with 95% intervals as bands.

    ``curves`` maps a name of ``SELECTION_STYLE`` to (value, low, high) at each β; ``marks`` names
    some values of β.
    """
    figure = Figure(figsize=(7.6, 4.0), layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        value, low, high = np.array(points).T
        style = SELECTION_STYLE[name] | {"markersize": 4}
        axes.plot(betas, value, **style, label=name)
        axes.fill_between(betas, low, high, color=style["color"], alpha=0.15, linewidth=0)
    for name, beta in marks.items():
        axes.axvline(beta, color="0.5", linewidth=1, zorder=0)
        axes.text(beta, axes.get_ylim()[1], f" {name}", ha="center", va="bottom", fontsize=9)
    axes.set(xscale="log", xlabel="β with which the same log-ratios are read")
    axes.set_ylabel("problems answered right (%)")
    axes.set_title(title, pad=20)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    axes.spines[["right", "top"]].set_visible(False)
    return figure


# ---- Chapter 07 -------------------------------------------------------------------------------

#: How the ways to choose are drawn in chapter 07: in the colours of ``SELECTION_STYLE``, and more.
CURVE_STYLE: dict[str, dict[str, Any]] = SELECTION_STYLE | {
    # another marker than that of log π_ref, which may stand beside it
    "reward, sum over steps": STYLE["policy"] | {"linestyle": "--", "marker": "v"},
    "chance": {"color": "0.6", "linestyle": "-.", "marker": ""},
}


def curve_panels(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float, float]]]],
    ns: Sequence[int],
    title: str,
) -> Figure:
    """Accuracy (%) against the number of candidates N, one panel a world, 95% intervals as bands.

    ``panels[world]`` maps a name of ``CURVE_STYLE`` to (value, low, high) at each N.
    """
    figure = Figure(figsize=(min(9.6, 4.0 * len(panels)), 3.9), layout="constrained")
    figure.suptitle(title)
    columns = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (world, curves) in zip(columns, panels.items(), strict=True):
        for name, points in curves.items():
            value, low, high = np.array(points).T
            style = CURVE_STYLE[name]
            axes.plot(ns, value, **style, markersize=4.5, linewidth=1.4, label=name)
            axes.fill_between(ns, low, high, color=style["color"], alpha=0.13, linewidth=0)
        axes.set(xscale="log", title=world, xlabel="candidates N")
        _plain_ticks(axes.xaxis, ns)
        axes.spines[["right", "top"]].set_visible(False)
    columns[0].set_ylabel("problems answered right (%)")
    handles, labels = columns[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def headroom(
    ref_logps: FloatArray,
    rewards: FloatArray,
    right: FloatArray,
    weights: FloatArray,
    title: str,
    beta: float = 1.0,
) -> Figure:
    """The reward of each solution (β · nats) against −log π_ref (nats), one panel an outcome.

    The area of a mark is the ``weight``, how often the solution was drawn. The line is the ceiling:
    log π_θ cannot be above 0, so r ≤ −β log π_ref. The farthest hundredth of the solutions lies
    outside the frame. All are (N).
    """
    figure = Figure(figsize=(7.4, 3.5), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    nats = -np.asarray(ref_logps)
    for axes, outcome in zip(panels, ("correct", "wrong"), strict=True):
        own = np.asarray(right, dtype=bool) == (outcome == "correct")
        style = {"color": STYLE[outcome]["color"], "marker": STYLE[outcome]["marker"]}
        axes.scatter(nats[own], rewards[own], s=2 * weights[own], **style, linewidths=0)
        ends = np.array([0.0, float(nats.max())])
        axes.plot(ends, beta * ends, **_line("reference"), linewidth=1.4, label="ceiling")
        axes.axhline(0, color="0.6", linewidth=0.8, zorder=0)
        axes.set(title=f"{outcome} solutions", xlabel="−log π_ref of the solution (nats)")
        axes.spines[["right", "top"]].set_visible(False)
    right_end, low = float(np.quantile(nats, 0.99)), float(np.quantile(rewards, 0.01))
    panels[0].set(xlim=(-0.3, right_end), ylim=(low, 1.15 * float(rewards.max())))
    panels[0].set_ylabel("reward, sum over steps (β · nats)")
    panels[0].legend(loc="lower right", frameon=False)
    return figure


def noise_by_chance(
    bins: Mapping[str, Sequence[tuple[float, float]]],
    left: Mapping[str, Sequence[tuple[float, float, float]]],
    right: Mapping[str, Mapping[str, Sequence[tuple[float, float, float]]]],
    title: str,
) -> Figure:
    """Step rewards by the chance π_ref that the reference gave the step, with 95% intervals.

    ``bins`` are (low, high) of π_ref for valid ("correct") and "wrong" steps. Left: their mean
    reward (β · nats), (value, low, high) a bin. Right: standard deviations by kind of spread, drawn
    filled or hollow in the order given.
    """
    figure = Figure(figsize=(9.0, 3.7), layout="constrained")
    figure.suptitle(title)
    one, two = figure.subplots(1, 2, sharex=True)
    names = {"correct": "valid steps", "wrong": "wrong steps"}
    for outcome, edges in bins.items():
        x = [np.sqrt(max(low, 3e-4) * high) for low, high in edges]
        _bars(one, x, left[outcome], STYLE[outcome], names[outcome])
        for spread, fill in zip(right[outcome], ("full", "none"), strict=True):
            style = STYLE[outcome] | {"fillstyle": fill}
            _bars(two, x, right[outcome][spread], style, f"{names[outcome]}, {spread}")
    chances = np.geomspace(3e-4, 1, 50)
    one.plot(chances, -np.log(chances), **_line("reference"), linewidth=1.2, label="ceiling, β = 1")
    one.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    one.set_ylabel("mean step reward (β · nats)")
    two.set(ylabel="standard deviation (β · nats)", ylim=(0, None))
    for axes in (one, two):
        axes.set(xscale="log", xlabel="π_ref of the step")
        _plain_ticks(axes.xaxis, (0.001, 0.01, 0.1, 1))
        axes.legend(frameon=False, fontsize=8.5)
        axes.spines[["right", "top"]].set_visible(False)
    return figure


def _bars(
    axes: Axes,
    x: Sequence[float],
    points: Sequence[tuple[float, float, float]],
    style: Mapping[str, Any],
    label: str,
) -> None:
    value, low, high = np.array(points).T
    axes.errorbar(x, value, yerr=(value - low, high - value), **style, markersize=5, linewidth=1.2,
                  elinewidth=0.9, label=label)  # fmt: skip


#: Which candidates are dropped: the rule, and what drops as many.
DROP_STYLE: dict[str, dict[str, Any]] = {
    "a rare step": STYLE["policy"],
    "as many rare solutions": STYLE["reference"],
    "as many right and wrong at random": STYLE["hard"],
    "as many at random": {"color": "0.6", "marker": "v", "linestyle": ":"},
}


def drop_curves(
    epsilons: Sequence[float],
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float, float]]]],
    levels: Mapping[str, Mapping[str, float]],
    title: str,
) -> Figure:
    """Accuracy (%) at one N by the threshold ε below which a step is rare, one panel a rule.

    ``panels[rule]`` maps a name of ``DROP_STYLE`` to (value, low, high) at each ε;
    ``levels[rule]`` are accuracies with nothing dropped, by name: horizontal lines.
    """
    figure = Figure(figsize=(8.4, 4.0), layout="constrained")
    figure.suptitle(title)
    columns = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (rule, curves) in zip(columns, panels.items(), strict=True):
        for linestyle, (name, level) in zip(("-", "--", ":"), levels[rule].items(), strict=False):
            axes.axhline(level, color="0.75", linestyle=linestyle, label=name, zorder=0)
        for name, points in curves.items():
            _bars(axes, epsilons, points, DROP_STYLE[name], f"dropped: {name}")
        axes.set(xscale="log", title=rule, xlabel="ε, smallest π_ref that a step may have")
        _plain_ticks(axes.xaxis, epsilons)
        axes.spines[["right", "top"]].set_visible(False)
    columns[0].set_ylabel("problems answered right (%)")
    handles, labels = columns[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure


def alone_and_in_vote(
    panels: Mapping[str, tuple[Mapping[str, tuple[float, float]], float]], title: str
) -> Figure:
    """Accuracy (%) of each objective's reward alone and in a weighted vote, one panel a source.

    Each panel is ({objective: (alone, in the vote)}, accuracy of the majority vote).
    """
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    figure.suptitle(title)
    columns = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (source, (pairs, majority)) in zip(columns, panels.items(), strict=True):
        axes.axvline(majority, color="0.55", linestyle="--", linewidth=1.2, label="majority vote")
        for row, (alone, voted) in enumerate(pairs.values()):
            axes.annotate("", (voted, row), (alone, row), arrowprops={"arrowstyle": "->"})
            for value, name in (
                (alone, "reward, min over steps"),
                (voted, "vote weighted by reward"),
            ):
                axes.plot(value, row, SELECTION_STYLE[name]["marker"],
                          color=SELECTION_STYLE[name]["color"],
                          label=name if row == 0 else None)  # fmt: skip
        axes.set_yticks(range(len(pairs)), list(pairs))
        axes.invert_yaxis()
        axes.set(title=source, xlabel="problems answered right (%)")
        axes.margins(0.1, 0.15)
        axes.spines[["right", "top"]].set_visible(False)
    handles, labels = columns[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


# ---- Chapter 08 -------------------------------------------------------------------------------

#: Where step labels come from, told apart by marker and line style; green is the truth.
LABEL_STYLE: dict[str, dict[str, Any]] = {
    "outcome at every step": {"color": "0.45", "marker": "P", "linestyle": ":"},
    "Math-Shepherd, soft": {"color": "#56B4E9", "marker": "v", "linestyle": "-."},
    "Math-Shepherd, hard": {"color": "#E69F00", "marker": "^", "linestyle": "--"},
    "AutoPSV": {"color": "0.0", "marker": "D", "linestyle": "-"},
    "true labels": {"color": "#009E73", "marker": "o", "linestyle": "-"},
}


def label_accuracy(
    completions: Sequence[int],
    by_completions: Mapping[str, Sequence[float]],
    by_depth: Mapping[str, Sequence[tuple[float, float, float]]],
    title: str,
) -> Figure:
    """Share of step labels (%) that agree with the truth, by K and by depth of the step.

    Both map a name of ``LABEL_STYLE`` to values: one per K of ``completions``, or one number for
    labels without completions; and (value, low, high) per depth, the first step being 1.
    """
    figure = Figure(figsize=(9.6, 4.0), layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2, sharey=True)
    for name, values in by_completions.items():
        style = LABEL_STYLE[name] | {"linewidth": 1.8}
        flat = len(values) == 1
        y = list(values) * len(completions) if flat else values
        left.plot(completions, y, **style | ({"marker": ""} if flat else {}), label=name)
    left.set_xscale("log", base=2)
    left.set_xticks(list(completions), [str(k) for k in completions])
    left.set(xlabel="completions of each prefix, K", ylabel="labels that agree with the truth (%)")
    for shift, (name, points) in enumerate(by_depth.items()):
        value, low, high = np.array(points).T
        depth = np.arange(1, len(value) + 1) + 0.08 * (shift - len(by_depth) / 2)
        right.errorbar(
            depth, value, yerr=(value - low, high - value), **LABEL_STYLE[name], elinewidth=1
        )
    right.set(xlabel="step of the solution")
    for axes in (left, right):
        axes.spines[["right", "top"]].set_visible(False)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def label_bias(
    completions: Sequence[int],
    curves: Mapping[str, Sequence[float]],
    expected: Sequence[float],
    truth: float,
    title: str,
) -> Figure:
    """Mean label of a prefix against K: soft, hard, and what 1 − (1 − Q)^K says of the hard one.

    ``curves`` maps a name of ``LABEL_STYLE`` to a value per K; ``truth`` is the mean true Q.
    """
    figure = Figure(figsize=(7.2, 4.0), layout="constrained")
    axes = figure.subplots()
    for name, values in curves.items():
        axes.plot(completions, values, **LABEL_STYLE[name], label=f"{name}: mean label")
    axes.plot(
        completions, expected, color="0.3", linestyle="none", marker="x", label="1 − (1 − Q)ᴷ"
    )
    axes.axhline(truth, color=STYLE["correct"]["color"], linewidth=1.2, label="mean true Q")
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(completions), [str(k) for k in completions])
    axes.set(xlabel="completions of each prefix, K", ylabel="mean over prefixes")
    figure.suptitle(title)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    axes.spines[["right", "top"]].set_visible(False)
    return figure


def cost_against_accuracy(
    methods: Mapping[str, tuple[float, tuple[float, float, float], str]],
    levels: Mapping[str, float],
    title: str,
) -> Figure:
    """Accuracy (%) with its interval against FLOPs in units of CE's, a point a method.

    ``methods`` maps a name to (cost, (value, low, high), style), style a name of ``STYLE`` or
    ``LABEL_STYLE``; ``levels`` are accuracies that cost nothing to train.
    """
    figure = Figure(figsize=(9.0, 4.8), layout="constrained")
    axes = figure.subplots()
    styles = STYLE | LABEL_STYLE
    dearest = max(cost for cost, _, _ in methods.values())
    for name, (cost, (value, low, high), style) in methods.items():
        axes.errorbar(
            cost,
            value,
            yerr=[[value - low], [high - value]],
            **styles[style] | {"linestyle": "none"},
            elinewidth=1,
        )
        # Below its mark where another one of equal cost stands just above; inwards elsewhere.
        others = [v[0] for n, (c, v, _) in methods.items() if n != name and c == cost]
        lowered = any(0 < other - value < 2 for other in others)
        right = cost in (dearest, min(c for c, _, _ in methods.values()))
        axes.annotate(
            name,
            (cost, value),
            xytext=(7 if right else -7, -9 if lowered else 3),
            textcoords="offset points",
            ha="left" if right else "right",
            fontsize=8,
        )
    for (name, value), linestyle in zip(levels.items(), ("-", "--", ":"), strict=False):
        axes.axhline(value, color="0.6", linewidth=1, linestyle=linestyle, zorder=0, label=name)
    axes.set(xlabel="FLOPs of labels and training, in units of CE's, without the rollouts")
    axes.set(ylabel="problems answered right (%)", title=title)
    axes.margins(x=0.3)
    axes.legend(loc="lower left", frameon=False)
    axes.spines[["right", "top"]].set_visible(False)
    return figure


def cost_ratios(
    steps: Sequence[int],
    measured: Mapping[str, Sequence[float]],
    formula: Mapping[str, Sequence[float]],
    stated: float,
    title: str,
) -> Figure:
    """Math-Shepherd's FLOPs divided by CE's against the number of steps; log scale.

    ``measured`` and ``formula`` map a way of counting to a ratio per number of ``steps``;
    ``stated`` is the paper's ratio.
    """
    figure = Figure(figsize=(7.6, 4.0), layout="constrained")
    axes = figure.subplots()
    for (name, values), marker in zip(measured.items(), ("o", "s"), strict=False):
        axes.plot(steps, values, color="0.0", marker=marker, label=f"measured, {name}")
    for (name, values), linestyle in zip(formula.items(), ("--", ":"), strict=False):
        axes.plot(steps, values, color="0.45", linestyle=linestyle, label=name)
    axes.axhline(stated, color=STYLE["wrong"]["color"], linewidth=1.5, linestyle="-.")
    axes.annotate(f"paper: {stated}", (steps[0], stated), xytext=(0, -12),
                  textcoords="offset points", fontsize=9)  # fmt: skip
    axes.set(yscale="log", xlabel="operations of a problem")
    figure.suptitle(title)
    axes.set_ylabel("FLOPs, Math-Shepherd / CE")
    axes.set_xticks(list(steps))
    axes.set_yticks([1, 2, 5, 10, 20, 40], ["1", "2", "5", "10", "20", "40"])
    axes.minorticks_off()
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    axes.spines[["right", "top"]].set_visible(False)
    return figure


# ---- Chapter 09 -------------------------------------------------------------------------------

#: By responses per instruction.
RESPONSE_STYLE: dict[int, dict[str, Any]] = {
    1: {"color": "#56B4E9", "marker": "o", "linestyle": ":"},
    2: {"color": "#009E73", "marker": "v", "linestyle": "-."},
    4: {"color": "#E69F00", "marker": "s", "linestyle": "--"},
    8: {"color": "0.0", "marker": "D", "linestyle": "-"},
}


def scaling_curves(
    panels: Mapping[
        str, Mapping[int, Sequence[tuple[float, Sequence[float], tuple[float, float, float]]]]
    ],
    levels: Mapping[str, float],
    amount: str,
    title: str,
) -> Figure:
    """Accuracy (%) against an amount of data, a line per number of responses, in panels.

    ``panels[name][responses]`` is a list of (amount, one accuracy a seed, (value, low, high));
    ``levels`` are accuracies that need no training, drawn as horizontal lines.
    """
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(9.6, 3.4 * rows + 0.6), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False)
    for axes, (name, lines) in zip(grid.flat, panels.items(), strict=False):
        for (level, value), linestyle in zip(levels.items(), ("--", ":", "-."), strict=False):
            axes.axhline(value, color="0.55", linestyle=linestyle, linewidth=1, label=level)
        for responses, points in sorted(lines.items()):
            style = RESPONSE_STYLE[responses]
            for x, seeds, _ in points:
                axes.plot([x] * len(seeds), seeds, ".", color=style["color"], markersize=3)
            value, low, high = np.array([triple for _, _, triple in points]).T
            axes.errorbar(
                [x for x, _, _ in points],
                value,
                yerr=(value - low, high - value),
                **style,
                markersize=5,
                linewidth=1.4,
                elinewidth=0.8,
                label=f"{responses} per instruction",
            )
        axes.set_xscale("log", base=2)
        axes.set(title=name)
        axes.spines[["right", "top"]].set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel(amount)
        axes.xaxis.set_major_formatter("{x:.0f}")
    for axes in grid[:, 0]:
        axes.set_ylabel("problems answered right (%)")
    found: dict[str, Any] = {}
    for axes in grid.flat:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=4, frameon=False)
    return figure


ARM_STYLE: dict[str, dict[str, Any]] = {
    "outcome": STYLE["reference"],
    "true steps alone, all prompts": STYLE["correct"],
    "implicit": STYLE["implicit"],
    "frozen": STYLE["policy"],
    "outcome, rate of frozen": STYLE["hard"],
    "frozen alone, all prompts": STYLE["wrong"],
}


def learning_curves(
    panels: Mapping[str, Mapping[str, FloatArray]], updates: Sequence[float], title: str
) -> Figure:
    """Quantities against updates: a line is a mean over seeds, its band their range.

    ``panels`` maps the label of an axis to the curves (seeds, points) of names of ``ARM_STYLE``,
    whose points are at ``updates``.
    """
    figure = Figure(figsize=(min(9.6, 4.4 * len(panels)), 3.9), layout="constrained")
    figure.suptitle(title)
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    named = {}
    for axes, (label, curves) in zip(row, panels.items(), strict=True):
        for name, values in curves.items():
            style = ARM_STYLE[name]
            (named[name],) = axes.plot(updates, values.mean(0), **style, markersize=4.5)
            axes.fill_between(
                updates, values.min(0), values.max(0), color=style["color"], alpha=0.13, linewidth=0
            )
        axes.set(xlabel="updates", ylabel=label)
        axes.spines[["right", "top"]].set_visible(False)
    figure.legend(named.values(), named, loc="outside lower center", ncols=4, frameon=False)
    return figure


def difference_points(
    panels: Mapping[str, Mapping[str, tuple[float, float, float]]], title: str
) -> Figure:
    """Differences in points with their intervals around a line at 0, in panels one over another."""
    heights = [len(rows) for rows in panels.values()]
    figure = Figure(figsize=(8.4, 0.36 * sum(heights) + 0.7 * len(panels) + 0.8))
    figure.set_layout_engine("constrained")
    figure.suptitle(title)
    column = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)
    for axes, (name, rows) in zip(column[:, 0], panels.items(), strict=True):
        axes.axvline(0, color="0.55", linewidth=1)
        for y, (value, low, high) in enumerate(rows.values()):
            axes.errorbar(
                value,
                y,
                xerr=[[value - low], [high - value]],
                **STYLE["policy"] | {"linestyle": "none"},
                elinewidth=1.2,
            )
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_title(name, loc="left", fontsize=10)
        axes.spines[["right", "top"]].set_visible(False)
    column[-1, 0].set_xlabel("difference (points)")
    return figure


def pair_chance(
    pass_rates: Sequence[float],
    curves: Mapping[int, Sequence[float]],
    measured: Mapping[int, float],
    title: str,
) -> Figure:
    """Chance (%) that so many responses hold a right and a wrong one, against the pass rate.

    ``curves[responses]`` has a value per pass rate; ``measured[responses]`` is the share of
    instructions with a pair, in the second panel.
    """
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
    for responses, values in curves.items():
        style = RESPONSE_STYLE[responses] | {"marker": ""}
        left.plot(pass_rates, values, **style, label=f"{responses} responses")
    left.set(xlabel="pass rate of the instruction, p", ylabel="instructions with a pair (%)")
    left.legend(frameon=False)
    right.bar(
        [str(responses) for responses in measured],
        list(measured.values()),
        color=[RESPONSE_STYLE[responses]["color"] for responses in measured],
    )
    right.set(xlabel="responses per instruction, as drawn")
    for axes in (left, right):
        axes.spines[["right", "top"]].set_visible(False)
    return figure


# ---- Chapter 10 -------------------------------------------------------------------------------


def reading_maps(
    panels: Mapping[str, Sequence[Sequence[float]]],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
) -> Figure:
    """One number per training reference (rows) and reading reference (columns), panel by panel.

    Each panel has a scale of its own, darker where the number is higher. NaN stays empty.
    """
    figure = Figure(figsize=(0.4 + 3.4 * len(panels), 0.5 * len(rows) + 1.9), layout="constrained")
    figure.suptitle(title)
    for axes, (name, values) in zip(
        figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels.items(), strict=True
    ):
        grid = np.array(values, dtype=float)  # (trainings, readings)
        axes.imshow(grid, cmap="Blues", aspect="auto")
        middle = (np.nanmin(grid) + np.nanmax(grid)) / 2
        for (row, column), value in np.ndenumerate(grid):
            if not np.isnan(value):
                colour = "white" if value > middle else "black"
                axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=colour)
        axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
        axes.set_yticks(range(len(rows)), rows)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("read with the reference")
    figure.axes[0].set_ylabel("trained with the reference")
    return figure


# ---- Chapter 11 -------------------------------------------------------------------------------

#: Who judges steps in chapter 11: three objectives, two heads, and either model's confidence.
JUDGE_STYLE: dict[str, dict[str, Any]] = {
    "CE": STYLE["policy"],
    "KTO": STYLE["implicit"],
    "DPO": STYLE["hard"],
    "ORM": {"color": "0.45", "marker": "h", "linestyle": ":"},
    "head, Math-Shepherd, soft": STYLE["soft"],
    "log π_θ (CE)": {"color": STYLE["policy"]["color"], "marker": "x", "linestyle": "-."},
    "log π_ref": STYLE["reference"],
}


def judge_points(
    panels: Mapping[str, Mapping[str, Mapping[str, tuple[float, float, float]]]],
    xlabel: str,
    title: str,
) -> Figure:
    """One measure of several judges with 95% intervals, a line for each row, side by side.

    ``panels[panel][row]`` maps a name of ``JUDGE_STYLE`` to (value, low, high); every panel has
    the same rows and an axis of its own.
    """
    rows = list(next(iter(panels.values())))
    judges = len(next(iter(next(iter(panels.values())).values())))
    height = len(rows) * (0.13 * judges + 0.2) + 1.7
    width = 4.0 * len(panels) + 3.6
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title)
    columns = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (panel, of_rows) in zip(columns, panels.items(), strict=True):
        for row, points in enumerate(of_rows.values()):
            for place, (judge, (value, low, high)) in enumerate(points.items()):
                y = row + 0.78 * ((place + 0.5) / len(points) - 0.5)
                style = JUDGE_STYLE[judge] | {"linestyle": "none"}
                axes.errorbar(value, y, xerr=[[value - low], [high - value]], **style,
                              markersize=5, elinewidth=1, label=judge)  # fmt: skip
            if row:
                axes.axhline(row - 0.5, color="0.88", linewidth=0.8, zorder=0)
        axes.set(title=panel, xlabel=xlabel)
        axes.spines[["right", "top"]].set_visible(False)
    columns[0].set_yticks(range(len(rows)), rows)
    columns[0].set_ylim(len(rows) - 0.45, -0.55)
    handles, labels = columns[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(
        unique.values(), unique.keys(), loc="outside lower center", ncols=4, frameon=False
    )
    return figure


def token_places(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float, float]]]],
    places: Sequence[str],
    title: str,
) -> Figure:
    """Mean score (nats, or β · nats) of each token of a step with 95% intervals.

    ``panels[kind of step]`` maps a name of ``JUDGE_STYLE`` to (value, low, high) of every place.
    """
    figure = Figure(figsize=(3.9 * len(panels) + 0.6, 3.9), layout="constrained")
    figure.suptitle(title)
    columns = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (kind, judges) in zip(columns, panels.items(), strict=True):
        axes.axhline(0, color="0.6", linewidth=0.8, zorder=0)
        for place, (judge, points) in enumerate(judges.items()):
            x = [n + 0.6 * ((place + 0.5) / len(judges) - 0.5) for n in range(len(places))]
            _bars(axes, x, points, JUDGE_STYLE[judge] | {"linestyle": "none"}, judge)
        axes.set_xticks(range(len(places)), places, rotation=30, ha="right")
        axes.set(title=kind)
        axes.spines[["right", "top"]].set_visible(False)
    columns[0].set_ylabel("mean of the token (nats · β)")
    handles, labels = columns[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def claimed_f1(
    problems: Sequence[int],
    claimed: Sequence[tuple[float, float, float]],
    elsewhere: Sequence[tuple[float, float, float]],
    carried: float,
    title: str,
) -> Figure:
    """First-error F1 (%) of a threshold tuned on few problems: on these, and on all others.

    (middle, low, high) of the draws at each number of problems; ``carried`` is the F1 of the
    threshold from the validation split.
    """
    figure = Figure(figsize=(6.8, 3.7), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots()
    _bars(axes, [1.04 * n for n in problems], claimed, STYLE["wrong"], "on the problems tuned on")
    _bars(axes, problems, elsewhere, STYLE["correct"], "on all other problems")
    axes.axhline(carried, **_line("reference"), linewidth=1.2, label="threshold from validation")
    axes.set(xscale="log", xlabel="problems that the threshold was tuned on")
    axes.set_ylabel("first-error F1 (%)")
    _plain_ticks(axes.xaxis, problems)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    axes.spines[["right", "top"]].set_visible(False)
    return figure


# ---- Chapter 13 -------------------------------------------------------------------------------

#: What memory is needed for, in the order of the bar; hatches tell the parts apart in greyscale.
MEMORY_STYLE: dict[str, dict[str, Any]] = {
    "weights": {"color": "#0072B2"},
    "gradients": {"color": "#56B4E9", "hatch": "//"},
    "optimiser": {"color": "#009E73", "hatch": "\\\\"},
    "weights in computation": {"color": "#CC79A7", "hatch": ".."},
    "activations": {"color": "#E69F00"},
    "logits": {"color": "#F0E442", "hatch": "xx"},
}


def memory_bars(
    runs: Mapping[str, Mapping[str, float]], devices: Mapping[str, float], title: str
) -> Figure:
    """Memory on one device (GiB) as a bar of its parts for each run, with the sum at its end.

    ``runs`` maps a name to parts, names of ``MEMORY_STYLE``; ``devices`` are sizes by name, drawn
    as lines. Raises ValueError for another part, which would be missing from the bar.
    """
    for part in {part: None for parts in runs.values() for part in parts}:
        if part not in MEMORY_STYLE:
            raise ValueError(f"no part of the memory is called {part!r}: {', '.join(MEMORY_STYLE)}")
    figure = Figure(figsize=(9.6, 0.42 * len(runs) + 1.9), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    for row, parts in enumerate(runs.values()):
        end = 0.0
        for part, style in MEMORY_STYLE.items():
            size = parts.get(part, 0.0)
            axes.barh(row, size, left=end, **style, edgecolor="black", linewidth=0.6, label=part)
            end += size
        axes.annotate(f"{end:.1f}", (end, row), xytext=(4, 0), textcoords="offset points",
                      va="center", fontsize=9)  # fmt: skip
    for name, size in devices.items():
        axes.axvline(size, color="0.4", linestyle=":", linewidth=1.2)
        axes.annotate(
            name,
            (size, 1),
            xycoords=("data", "axes fraction"),
            xytext=(-3, -4),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=8,
            rotation=90,
        )
    axes.set_yticks(range(len(runs)), list(runs))
    axes.set_ylim(len(runs) - 0.5, -0.5)
    axes.set_xlabel("memory on each device (GiB)")
    axes.spines[["right", "top"]].set_visible(False)
    keys = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(keys.values(), keys.keys(), loc="outside lower center", ncols=6, frameon=False)
    return figure


# ---- Chapter 14 -------------------------------------------------------------------------------

#: How scoring makes log-probabilities: of the whole text at once, or of some tokens at a time.
SCORING_STYLE: dict[str, dict[str, Any]] = {
    "log-softmax of the whole text": STYLE["wrong"],
    "some tokens at a time": STYLE["policy"],
}


def scoring_memory(
    computed: Mapping[str, Sequence[tuple[int, float]]],
    measured: Mapping[str, Sequence[tuple[int, float]]],
    title: str,
) -> Figure:
    """Memory (MB) of scoring one text against its tokens: computed as lines, measured as points.

    Both map a name of ``SCORING_STYLE`` to (tokens, MB).
    """
    figure = Figure(figsize=(6.8, 3.9), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    for name, points in computed.items():
        style = SCORING_STYLE[name] | {"marker": ""}
        axes.plot(*zip(*points, strict=True), **style, label=f"{name}, computed")
    for name, points in measured.items():
        style = SCORING_STYLE[name] | {"linestyle": "none"}
        axes.plot(*zip(*points, strict=True), **style, label=f"{name}, measured")
    axes.set(xscale="log", yscale="log", xlabel="tokens of the text", ylabel="memory (MB)")
    _plain_ticks(axes.xaxis, sorted({n for points in computed.values() for n, _ in points}))
    _plain_ticks(axes.yaxis, (100, 1_000, 10_000))
    axes.legend(frameon=False, fontsize=9)
    axes.spines[["right", "top"]].set_visible(False)
    return figure


#: Splits of ProcessBench, from easy to hard: from dark to light.
SPLIT_STYLE: dict[str, dict[str, Any]] = {
    "gsm8k": {"color": "0.0", "marker": "o"},
    "math": {"color": "0.35", "marker": "s"},
    "olympiadbench": {"color": "0.55", "marker": "^"},
    "omnimath": {"color": "0.72", "marker": "X"},
}


def split_f1(scorers: Mapping[str, Mapping[str, tuple[float, float, float]]], title: str) -> Figure:
    """First-error F1 (%) of step scorers, a line each, on the splits of ProcessBench.

    ``scorers[name]`` maps a name of ``SPLIT_STYLE`` to (value, low, high), all three equal where
    there is no interval. The splits of a line stand one below the
    other, or their intervals would overlap.
    """
    splits = [split for split in SPLIT_STYLE if any(split in f1 for f1 in scorers.values())]
    figure = Figure(figsize=(8.4, 0.38 * len(scorers) + 1.6), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    for row, by_split in enumerate(scorers.values()):
        axes.axhline(row, color="0.92", linewidth=0.8, zorder=0)
        for split, (value, low, high) in by_split.items():
            axes.errorbar(
                value,
                row + 0.15 * (splits.index(split) - (len(splits) - 1) / 2),
                xerr=[[value - low], [high - value]],
                **SPLIT_STYLE[split],
                linestyle="none",
                elinewidth=1.2,
                label=split,
            )
    axes.set_yticks(range(len(scorers)), list(scorers))
    axes.set(ylim=(len(scorers) - 0.5, -0.5), xlim=(0, 100), xlabel="first-error F1 (%)")
    keys = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(keys.values(), keys.keys(), loc="outside lower center", ncols=4, frameon=False)
    axes.spines[["right", "top"]].set_visible(False)
    return figure


# ---- Chapter 15 -------------------------------------------------------------------------------


def reference_sweep(
    roles: Mapping[str, Mapping[str, tuple[float, float, float]]],
    checkpoints: Mapping[str, float],
    levels: Mapping[str, float],
    title: str,
) -> Figure:
    """Accuracy (%) of PRMs by their reference, the best predictor of the rollouts on the right.

    ``roles[name][checkpoint]`` is (value, low, high), roles drawn filled or hollow in the order
    given; ``checkpoints`` are nats per response; ``levels`` are accuracies that need no PRM.
    """
    figure = Figure(figsize=(8.4, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    ordered = sorted(checkpoints, key=checkpoints.__getitem__, reverse=True)
    for shift, fill, (name, points) in zip(
        (-0.04, 0.04), ("full", "none"), roles.items(), strict=True
    ):
        x = [place + shift for place in range(len(ordered))]
        style = STYLE["policy"] | {"fillstyle": fill, "linestyle": "-" if fill == "full" else "--"}
        _bars(axes, x, [points[checkpoint] for checkpoint in ordered], style, name)
    for name, level in levels.items():
        axes.axhline(level, color="0.5", linewidth=1, linestyle=":")
        axes.annotate(
            name,
            (1, level),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_xticks(range(len(ordered)), [f"{c}\n{checkpoints[c]:.1f}" for c in ordered])
    axes.set_xlabel("reference, with its nats per response on the rollouts")
    axes.set_ylabel("problems answered right (%)")
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["right", "top"]].set_visible(False)
    return figure


def _with_subscripts(text: str) -> str:
    """HTML of a text in which π_θ, π_ref or y_<t stand; an interval stays on one line."""
    text = re.sub(r"(\[[^],]+,) ", "\\1\u00a0", text)
    return re.sub(r"(?<=[πy])_(θ|ref|&lt;t)", r"<sub>\1</sub>", escape(text))


@dataclass(frozen=True)
class ClaimsTable:
    """Claims in groups; the last line of a notebook cell shows it. See :func:`claims_table`."""

    groups: Mapping[str, Sequence[tuple[str, str, Sequence[str]]]]
    caption: str

    def _repr_html_(self) -> str:
        rows = []
        for heading, claims in self.groups.items():
            rows.append(
                "<tr><th colspan='3' scope='rowgroup' style='text-align:left;border-top:2px solid'>"
                f"{escape(heading)} ({len(claims)})</th></tr>"
            )
            for chapter, claim, lines in claims:
                effects = "<br>".join(map(_with_subscripts, lines))
                rows.append(
                    f"<tr style='vertical-align:top'><td>{escape(chapter)}</td>"
                    f"<td style='text-align:left'>{_with_subscripts(claim)}</td>"
                    f"<td style='text-align:left;font-size:85%'>{effects}</td></tr>"
                )
        head = "".join(
            f"<th scope='col' style='text-align:left'>{name}</th>"
            for name in ("chapter", "claim", "effects")
        )
        caption = f"<caption>{escape(self.caption)}</caption>"
        return f"<table>{caption}<tr>{head}</tr>{''.join(rows)}</table>"

    def __repr__(self) -> str:
        return self.caption


def claims_table(
    groups: Mapping[str, Sequence[tuple[str, str, Sequence[str]]]], caption: str
) -> ClaimsTable:
    """A table of (chapter, claim, one line per effect) under the heading of each group.

    Empty groups are left out. Raises ValueError without a caption, which says what the marks mean.
    """
    if not caption.strip():
        raise ValueError("a table of claims needs a caption: say what its marks mean")
    return ClaimsTable({heading: claims for heading, claims in groups.items() if claims}, caption)
