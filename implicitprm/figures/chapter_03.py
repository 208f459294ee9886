"""The figures that chapter 03 is the first to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, floor

import numpy as np
from matplotlib.figure import Figure

from implicitprm.figures.style import STYLE, plain_ticks, unmarked
from implicitprm.qvalues import FloatArray, soft_implicit_hard


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
        axes.plot(
            betas, np.full_like(betas, level), **unmarked(name), label=f"{name} {level:+z.3f}"
        )
    axes.plot(betas, implicit, **unmarked("implicit"), linewidth=2)
    axes.axvline(beta, color="0.5", linewidth=1, zorder=0)
    axes.plot(
        beta,
        here.implicit,
        **STYLE["implicit"] | {"linestyle": "none"},
        markersize=9,
        label=f"implicit {here.implicit:+z.3f} at β = {beta:.3g}",
    )
    axes.set(xscale="log", xlabel="β", ylabel="value of the prefix (nats × β)", title=title)
    plain_ticks(axes.xaxis, [0.01, 0.1, 1, 10, 100])
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
        plain_ticks(axes.xaxis, sizes)
    low, high = np.log2(right.get_ylim())
    plain_ticks(right.yaxis, [2.0**power for power in range(ceil(low), floor(high) + 1)])
    left.legend(loc="lower right")
    return figure
