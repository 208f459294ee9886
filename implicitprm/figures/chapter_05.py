"""The figures that chapter 05 is the first to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from implicitprm.figures.style import STYLE, unmarked
from implicitprm.qvalues import FloatArray


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
    rings = {"color": "0.0", "marker": "o", "fillstyle": "none", "linestyle": ""}
    for (name, values), style in zip(losses.items(), (unmarked("policy"), rings), strict=True):
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
    styles = (
        {"color": "0.75", "marker": "o", "linestyle": "-"},
        {"color": "0.45", "marker": "^", "linestyle": "--"},
        {"color": "0.0", "marker": "X", "linestyle": ":"},
    )
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
