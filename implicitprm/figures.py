"""The figures of the chapters: one function a figure, each returns a matplotlib Figure.

Titles state the finding and come from the caller, who has seen it. `show` puts a figure into a
notebook as one HTML image with its alt text, the only output format whose alt text JupyterLab,
nbconvert and Jupyter Book all keep. No pyplot, so no state between cells.
"""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor
from typing import Any

import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from implicitprm.qvalues import FloatArray, Tokens, soft_implicit_hard

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
        buffer = io.BytesIO()
        # Without the version of matplotlib, which would change the file and nothing in it.
        self.figure.savefig(buffer, dpi=DOTS_PER_INCH, metadata={"Software": None})
        return buffer.getvalue()

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

    ``rewards`` (N) and ``logps`` (N) as in :func:`implicitprm.qvalues.soft_implicit_hard`. Pure:
    the live slider of chapter 03 calls it with another β, and nothing else.
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
