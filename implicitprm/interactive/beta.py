"""Soft, implicit and hard value as β moves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from implicitprm.figures import STYLE
from implicitprm.interactive.figure import Control, Frame, Interactive
from implicitprm.interactive.svg import line, text
from implicitprm.qvalues import FloatArray, soft_implicit_hard


def beta_explorer(
    rewards: Sequence[float] | FloatArray, logps: Sequence[float] | FloatArray, alt: str
) -> Interactive:
    """The soft, implicit and hard value of one prefix, with a slider for β from 0.01 to 100.

    ``rewards`` (N) and ``logps`` (N) as in :func:`implicitprm.qvalues.soft_implicit_hard`; values
    are in nats times β.
    """
    betas = np.geomspace(1e-2, 1e2, 41)
    values = [soft_implicit_hard(rewards, beta, logps) for beta in betas]
    soft, hard = values[0].soft, values[0].hard
    left, right, top, bottom = 50, 405, 24, 220

    def place(beta: float, value: float) -> tuple[float, float]:
        across = (np.log10(beta) + 2) / 4
        return left + across * (right - left), bottom - (value - soft) / (hard - soft) * (
            bottom - top
        )

    curve = [place(beta, value.implicit) for beta, value in zip(betas, values, strict=True)]
    level = {name: [place(0.01, value), place(100, value)] for name, value in
             (("hard", hard), ("soft", soft))}  # fmt: skip
    background = (
        line(level["hard"], STYLE["hard"]["color"], 2, "8 4")
        + line(level["soft"], STYLE["soft"]["color"], 2, "2 3")
        + line(curve, STYLE["implicit"]["color"], 2.5)
        + text(left, top - 8, f"hard, the best completion: {hard:+z.3f}")
        + text(left, bottom + 17, f"soft, the mean: {soft:+z.3f}")
        + "".join(
            line([(x, bottom + 24), (x, bottom + 30)], "var(--faint)", 1)
            + text(x, bottom + 44, f"{beta:g}", "middle")
            for beta in (0.01, 0.1, 1.0, 10.0, 100.0)
            for x, _ in [place(beta, soft)]
        )
        + text((left + right) / 2, bottom + 62, "β", "middle")
    )
    frames = []
    for beta, value, (x, y) in zip(betas, values, curve, strict=True):
        drawing = (
            line([(x, top), (x, bottom)], "var(--faint)", 1)
            + f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{STYLE["implicit"]["color"]}" '
            'stroke="var(--ink)"/>' + text(x + 10, y - 8, f"{value.implicit:+z.3f}")
        )
        height = (value.implicit - soft) / (hard - soft)
        reading = (
            f"At β = {beta:.3g} the implicit value is {value.implicit:+z.3f}: {height:.0%} of the "
            f"way from soft ({soft:+z.3f}) to hard ({hard:+z.3f})."
        )
        frames.append(Frame([drawing], [reading]))
    control = Control("β", [f"{beta:.3g}" for beta in betas], start=20)
    return Interactive("beta-explorer", [control], frames, background, (460, 290), alt)
