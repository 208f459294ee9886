"""Token and step rewards of solutions, q, and on request which steps are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise

import numpy as np

from implicitprm.figures import STYLE
from implicitprm.interactive.figure import Control, Frame, Interactive
from implicitprm.interactive.svg import line, text
from implicitprm.rewards import ScoredSolution


def step_reward_explorer(
    solutions: Sequence[tuple[ScoredSolution, Sequence[bool]]], alt: str
) -> Interactive:
    """Solutions to leaf through: token and step rewards, q, and on request which steps are wrong.

    Each solution comes with whether each of its steps is valid, (S). Rewards are in nats times β;
    all solutions share one scale.
    """
    unit = max(float(np.abs(scored.step_rewards).max()) for scored, _ in solutions)
    bound = max(float(np.abs(scored.q_values).max()) for scored, _ in solutions)
    longest = max(len(scored.steps) for scored, _ in solutions)
    row, top, zero, middle, reach = 28, 44, 202, 388, 62
    bottom = top + row * longest
    background = (
        text(4, 18, "step, its tokens")
        + text(zero, 18, "step reward", "middle")
        + text(middle, 18, "q after the step", "middle")
        + line([(zero, top - 16), (zero, bottom - 16)], "var(--faint)", 1)
        + line([(middle, top - 16), (middle, bottom - 16)], "var(--faint)", 1, "2 3")
    )
    frames = []
    for number, (scored, valid) in enumerate(solutions, start=1):
        lowest = int(scored.step_rewards.argmin())
        reading = (
            f"Solution {number}: outcome reward {scored.outcome:+z.3f}. The lowest step reward, "
            f"{scored.step_rewards[lowest]:+z.3f}, stands at step {lowest}, {scored.steps[lowest]}."
        )
        wrong = [step for step, right in enumerate(valid) if not right]
        truth = f" First wrong step: {wrong[0]}." if wrong else " Every step is right."
        for shown in (False, True):
            drawing = []
            for step, (start, end) in enumerate(pairwise((0, *scored.step_ends))):
                y = top + row * step
                drawing.append(_tokens(scored, start, end, y, unit))
                reward, right = float(scored.step_rewards[step]), valid[step]
                kind = ("correct" if right else "wrong") if shown else "policy"
                width = abs(reward) / unit * reach
                drawing.append(
                    f'<rect x="{zero if reward > 0 else zero - width:.1f}" y="{y - 12}" '
                    f'width="{width:.1f}" height="16" fill="{STYLE[kind]["color"]}"/>'
                )
                drawing.append(text(zero + reach + 6, y, f"{reward:+z.3f}"))
                if shown:
                    drawing.append(text(118, y, "✓" if right else "✗"))
            curve = [(middle + q / bound * reach, top + row * step - 4)
                     for step, q in enumerate(scored.q_values)]  # fmt: skip
            drawing.append(line(curve, STYLE["implicit"]["color"], 2))
            drawing += [
                f'<circle cx="{x:.1f}" cy="{y}" r="4" fill="{STYLE["implicit"]["color"]}"/>'
                for x, y in curve
            ]
            frames.append(Frame(["".join(drawing)], [reading, truth] if shown else [reading]))
    controls = [
        Control("solution", [f"{n} of {len(solutions)}" for n in range(1, len(solutions) + 1)]),
        Control("truth", ["hidden", "shown"]),
    ]
    return Interactive("step-reward-explorer", controls, frames, background, (460, bottom), alt)


def _tokens(scored: ScoredSolution, start: int, end: int, y: int, unit: float) -> str:
    """The tokens of a step in fixed width, each underlined by as much as its reward weighs.

    A bar is full where the reward is positive and hollow where it is negative.
    """
    x, parts, colour = 4.0, [], STYLE["policy"]["color"]
    for token, reward in zip(
        scored.tokens[start:end], scored.token_rewards[start:end], strict=True
    ):
        shown = token.replace("\n", "").replace("<eos>", "")
        paint = f'fill="{colour}"' if reward > 0 else f'fill="none" stroke="{colour}"'
        parts.append(
            f'<text x="{x:.1f}" y="{y}" style="font-family:monospace">{escape(shown)}</text>'
            f'<rect x="{x:.1f}" y="{y + 3}" width="{8 * len(shown)}" height="5" '
            f'{paint} opacity="{min(abs(float(reward)) / unit, 1):.2f}"/>'
        )
        x += 8 * len(shown)
    return "".join(parts)
