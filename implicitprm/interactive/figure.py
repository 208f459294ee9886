"""An interactive figure: its sliders, its frames, and the HTML that shows one of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import prod

from implicitprm.figures import STYLE

#: On paper in the light scheme, on black in the dark one, of the book and of JupyterLab.
_LAYOUT = """
.implicitprm-figure { --paper: #fff; --ink: #1a1a1a; --faint: #767676;
  background: var(--paper); color: var(--ink); max-width: 660px; padding: 8px;
  font: 15px/1.4 sans-serif; }
html[data-theme="dark"] .implicitprm-figure,
body[data-jp-theme-light="false"] .implicitprm-figure {
  --paper: #121212; --ink: #e8e8e8; --faint: #9a9a9a; }
.implicitprm-figure svg { display: block; width: 100%; height: auto; }
.implicitprm-figure svg text { fill: var(--ink); font: 13px sans-serif; }
.implicitprm-figure svg path { fill: none; stroke: var(--ink); stroke-width: 2; }
.implicitprm-figure svg .bar { stroke-width: 14; }
.implicitprm-figure svg .dots { stroke-width: 8; stroke-linecap: round; }
.implicitprm-figure svg .dropped { stroke: var(--faint); stroke-width: 1; }
.implicitprm-figure [data-controls] { display: grid; grid-template-columns: auto 1fr auto;
  grid-auto-rows: 32px; gap: 0 8px; align-items: center; }
.implicitprm-figure label { display: contents; }
.implicitprm-figure input { min-width: 0; height: 24px; margin: 0; }
.implicitprm-figure [data-controls]:not([data-ready]) { display: none; }
"""

_CSS = _LAYOUT + "".join(
    f".implicitprm-figure svg .{kind} {{ stroke: {STYLE[kind]['color']}; }}\n"
    for kind in ("correct", "wrong", "policy")
)

_SCRIPT = """
for (const root of document.querySelectorAll('#%s')) {
  const {controls, parts, frames} = JSON.parse(root.querySelector('[data-frames]').textContent);
  const whole = numbers => numbers.map(number => parts[number]).join('');
  const sliders = [...root.querySelectorAll('input')];
  const show = () => {
    let index = 0;
    sliders.forEach((slider, i) => {
      const value = controls[i][slider.valueAsNumber];
      index = index * controls[i].length + slider.valueAsNumber;
      slider.setAttribute('aria-valuetext', value);
      slider.nextElementSibling.textContent = value;
    });
    root.querySelector('[data-drawing]').innerHTML = whole(frames[index][0]);
    root.querySelector('[data-reading]').textContent = whole(frames[index][1]);
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
    """One state of a figure: SVG elements, and in words what they show.

    Both are pieces that are joined. A page holds a piece that many frames share once.
    """

    drawings: Sequence[str]
    sentences: Sequence[str]

    @property
    def drawing(self) -> str:
        return "".join(self.drawings)

    @property
    def reading(self) -> str:
        return "".join(self.sentences)


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
        numbers: dict[str, int] = {}
        frames = [
            [[numbers.setdefault(part, len(numbers)) for part in parts]
             for parts in (frame.drawings, frame.sentences)]
            for frame in self.frames
        ]  # fmt: skip
        data = {
            "controls": [list(control.values) for control in self.controls],
            "parts": list(numbers),
            "frames": frames,
        }
        # "</" would end the element that holds the data.
        stored = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
        first = self.frame(*(control.start for control in self.controls))
        # Without the last attribute JupyterLab takes the arrow keys for its cells.
        sliders = "".join(
            f'<label>{escape(control.label)} <input type="range" min="0" '
            f'max="{len(control.values) - 1}" value="{control.start}" autocomplete="off" '
            'data-lm-suppress-shortcuts="true">'
            f'<span style="min-width:{max(map(len, control.values))}ch">'
            f"{escape(control.values[control.start])}</span></label>"
            for control in self.controls
        )
        width, height = self.size
        return (
            f'<div class="implicitprm-figure" id="{self.name}"><style>{_CSS}</style>'
            f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(self.alt)}">'
            f"{self.background}<g data-drawing>{first.drawing}</g></svg>"
            f"<div data-controls>{sliders}</div>"
            f'<div data-reading role="status">{escape(first.reading)}</div>'
            f'<script type="application/json" data-frames>{stored}</script>'
            f"<script>{_SCRIPT % self.name}</script></div>"
        )

    def __repr__(self) -> str:
        return self.alt
