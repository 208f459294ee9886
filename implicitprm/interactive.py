"""Figures that a reader moves: sliders over drawings that Python computed beforehand.

They are HTML with inline SVG and a script that computes nothing: each state of the sliders is a
frame, a drawing and its reading in words, and the script shows the frame that the sliders point at.
So they work in JupyterLab, on a static page and from a file, show their first frame where no script
runs, and are the same bytes every time. Mouse, touch and arrow keys move a slider.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import prod

import numpy as np

from implicitprm.figures import STYLE
from implicitprm.qvalues import FloatArray, soft_implicit_hard
from implicitprm.rewards import ScoredSolution

#: On paper in the light scheme, on black in the dark one, of the book and of JupyterLab.
_CSS = """
.implicitprm-figure { --paper: #fff; --ink: #1a1a1a; --faint: #767676;
  background: var(--paper); color: var(--ink); max-width: 660px; padding: 8px;
  font: 15px/1.4 sans-serif; }
html[data-theme="dark"] .implicitprm-figure,
body[data-jp-theme-light="false"] .implicitprm-figure {
  --paper: #121212; --ink: #e8e8e8; --faint: #9a9a9a; }
.implicitprm-figure svg { display: block; width: 100%; height: auto; }
.implicitprm-figure svg text { fill: var(--ink); font: 13px sans-serif; }
.implicitprm-figure label { display: flex; gap: 8px; align-items: center; min-height: 32px; }
.implicitprm-figure input { flex: 1; min-width: 0; height: 24px; }
.implicitprm-figure [data-controls]:not([data-ready]) { display: none; }
"""

_SCRIPT = """
for (const root of document.querySelectorAll('#%s')) {
  const {controls, frames} = JSON.parse(root.querySelector('[data-frames]').textContent);
  const sliders = [...root.querySelectorAll('input')];
  const show = () => {
    let index = 0;
    sliders.forEach((slider, i) => {
      const value = controls[i][slider.valueAsNumber];
      index = index * controls[i].length + slider.valueAsNumber;
      slider.setAttribute('aria-valuetext', value);
      slider.nextElementSibling.textContent = value;
    });
    root.querySelector('[data-drawing]').innerHTML = frames[index][0];
    root.querySelector('[data-reading]').textContent = frames[index][1];
  };
  for (const slider of sliders) slider.addEventListener('input', show);
  root.querySelector('[data-controls]').dataset.ready = '';
  show();
}
"""


@dataclass(frozen=True)
class Control:
    """A slider: its label, what its positions stand for, and the position it starts at."""

    label: str
    values: Sequence[str]
    start: int = 0


@dataclass(frozen=True)
class Frame:
    """One state of a figure: SVG elements, and in words what they show."""

    drawing: str
    reading: str


@dataclass(frozen=True)
class Interactive:
    """An interactive figure; the last line of a notebook cell shows it."""

    name: str
    controls: Sequence[Control]
    frames: Sequence[Frame]
    #: SVG elements that stay, in a field of ``size`` units.
    background: str
    size: tuple[int, int]
    alt: str

    def __post_init__(self) -> None:
        states = prod(len(control.values) for control in self.controls)
        if states != len(self.frames):
            raise ValueError(f"{states} states of the controls and {len(self.frames)} frames")
        if not self.alt.strip():
            raise ValueError("a figure needs an alt text: say in words what it shows")

    def frame(self, *positions: int) -> Frame:
        """The frame at these positions of the controls; the last control varies fastest."""
        index = 0
        for control, position in zip(self.controls, positions, strict=True):
            index = index * len(control.values) + position
        return self.frames[index]

    def _repr_html_(self) -> str:
        data = {
            "controls": [list(control.values) for control in self.controls],
            "frames": [[frame.drawing, frame.reading] for frame in self.frames],
        }
        # "</" would end the element that holds the data.
        frames = json.dumps(data, ensure_ascii=False).replace("</", "<\\/")
        first = self.frame(*(control.start for control in self.controls))
        sliders = "".join(
            f'<label>{escape(control.label)} <input type="range" min="0" '
            f'max="{len(control.values) - 1}" value="{control.start}" autocomplete="off">'
            f"<span>{escape(control.values[control.start])}</span></label>"
            for control in self.controls
        )
        width, height = self.size
        return (
            f'<div class="implicitprm-figure" id="{self.name}"><style>{_CSS}</style>'
            f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(self.alt)}">'
            f"{self.background}<g data-drawing>{first.drawing}</g></svg>"
            f"<div data-controls>{sliders}</div>"
            f'<div data-reading role="status">{escape(first.reading)}</div>'
            f'<script type="application/json" data-frames>{frames}</script>'
            f"<script>{_SCRIPT % self.name}</script></div>"
        )

    def __repr__(self) -> str:
        return self.alt


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(points: Sequence[tuple[float, float]], color: str, width: float, dash: str = "") -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{width}"{dashes}/>'
    )


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
        _line(level["hard"], STYLE["hard"]["color"], 2, "8 4")
        + _line(level["soft"], STYLE["soft"]["color"], 2, "2 3")
        + _line(curve, STYLE["implicit"]["color"], 2.5)
        + _text(left, top - 8, f"hard, the best completion: {hard:+z.3f}")
        + _text(left, bottom + 17, f"soft, the mean: {soft:+z.3f}")
        + "".join(
            _line([(x, bottom + 24), (x, bottom + 30)], "var(--faint)", 1)
            + _text(x, bottom + 44, f"{beta:g}", "middle")
            for beta in (0.01, 0.1, 1.0, 10.0, 100.0)
            for x, _ in [place(beta, soft)]
        )
        + _text((left + right) / 2, bottom + 62, "β", "middle")
    )
    frames = []
    for beta, value, (x, y) in zip(betas, values, curve, strict=True):
        drawing = (
            _line([(x, top), (x, bottom)], "var(--faint)", 1)
            + f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{STYLE["implicit"]["color"]}" '
            'stroke="var(--ink)"/>' + _text(x + 10, y - 8, f"{value.implicit:+z.3f}")
        )
        height = (value.implicit - soft) / (hard - soft)
        reading = (
            f"At β = {beta:.3g} the implicit value is {value.implicit:+z.3f}: {height:.0%} of the "
            f"way from soft ({soft:+z.3f}) to hard ({hard:+z.3f})."
        )
        frames.append(Frame(drawing, reading))
    control = Control("β", [f"{beta:.3g}" for beta in betas], start=20)
    return Interactive("beta-explorer", [control], frames, background, (460, 290), alt)


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
    row, top, zero, middle, reach = 28, 44, 215, 385, 62
    bottom = top + row * longest
    background = (
        _text(4, 18, "step, its tokens")
        + _text(zero, 18, "step reward", "middle")
        + _text(middle, 18, "q after the step", "middle")
        + _line([(zero, top - 16), (zero, bottom - 16)], "var(--faint)", 1)
        + _line([(middle, top - 16), (middle, bottom - 16)], "var(--faint)", 1, "2 3")
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
                drawing.append(_text(zero + reach + 6, y, f"{reward:+z.2f}"))
                if shown:
                    drawing.append(_text(118, y, "✓" if right else "✗"))
            curve = [(middle + q / bound * reach, top + row * step - 4)
                     for step, q in enumerate(scored.q_values)]  # fmt: skip
            drawing.append(_line(curve, STYLE["implicit"]["color"], 2))
            drawing += [
                f'<circle cx="{x:.1f}" cy="{y}" r="4" fill="{STYLE["implicit"]["color"]}"/>'
                for x, y in curve
            ]
            frames.append(Frame("".join(drawing), reading + truth * shown))
    controls = [
        Control("solution", [f"{n} of {len(solutions)}" for n in range(1, len(solutions) + 1)]),
        Control("truth", ["hidden", "shown"]),
    ]
    return Interactive("step-reward-explorer", controls, frames, background, (460, bottom), alt)


def _tokens(scored: ScoredSolution, start: int, end: int, y: int, unit: float) -> str:
    """The tokens of a step in fixed width, each underlined by as much as its reward weighs."""
    x, parts = 4.0, []
    for token, reward in zip(
        scored.tokens[start:end], scored.token_rewards[start:end], strict=True
    ):
        shown = token.replace("\n", "").replace("<eos>", "")
        kind = "policy" if reward > 0 else "wrong"
        parts.append(
            f'<text x="{x:.1f}" y="{y}" style="font-family:monospace">{escape(shown)}</text>'
            f'<rect x="{x:.1f}" y="{y + 3}" width="{8 * len(shown)}" height="5" '
            f'fill="{STYLE[kind]["color"]}" opacity="{min(abs(float(reward)) / unit, 1):.2f}"/>'
        )
        x += 8 * len(shown)
    return "".join(parts)
