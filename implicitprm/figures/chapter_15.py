"""The figures that chapter 15 is the first to show."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from matplotlib.figure import Figure

from implicitprm.figures.style import STYLE, bars


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
        bars(axes, x, [points[checkpoint] for checkpoint in ordered], style, name)
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
