"""Figures that a reader moves: sliders over drawings that Python computed beforehand.

They are HTML with inline SVG and a script that computes nothing: each state of the sliders is a
frame, a drawing and its reading in words, and the script shows the frame that the sliders point at.
So they work in JupyterLab, on a static page and from a file, show their first frame where no script
runs, and are the same bytes every time. Mouse, touch and arrow keys move a slider.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise, product
from math import prod

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from scipy.stats import binom

from implicitprm.evaluation import best_of_n_accuracy, vote_accuracy
from implicitprm.figures import STYLE
from implicitprm.qvalues import FloatArray, soft_implicit_hard
from implicitprm.rewards import ScoredSolution, sum_by_step
from implicitprm.selection import aggregate, answer_codes, best_of_n, weighted_vote

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


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    where = "" if anchor == "start" else f" text-anchor='{anchor}'"
    return f"<text x='{x:.0f}' y='{y:.0f}'{where}>{escape(text)}</text>"


def _line(points: Sequence[tuple[float, float]], color: str, width: float, dash: str = "") -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashes = f" stroke-dasharray='{dash}'" if dash else ""
    return (
        f"<polyline points='{path}' fill='none' stroke='{color}' stroke-width='{width}'{dashes}/>"
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
        frames.append(Frame([drawing], [reading]))
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
            frames.append(Frame(["".join(drawing)], [reading, truth] if shown else [reading]))
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


# ---- Best of N ------------------------------------------------------------------------------

CHOSEN_BY = ("sum", "min", "mean", "last", "log π_θ", "majority vote", "weighted vote")
TRUNCATED = ("nothing", "rewards above 0", "rare steps")
#: A step that the reference gives less than this is rare.
RARE = 0.1
#: Scores further below the highest one are drawn at the lower edge, rarer candidates at the right.
DEPTH, NATS = 8.0, 12.0
#: How many answers of a vote are drawn.
ANSWERS = 4


@dataclass(frozen=True)
class Candidate:
    """One of the M candidates of a problem; ``scored`` is None where it has no rewards.

    ``valid`` (S) says which of its steps are right, ``correct`` whether its answer is.
    """

    scored: ScoredSolution | None
    valid: Sequence[bool]
    answer: str | None
    correct: bool

    def score(self, rule: str, truncated: str) -> float:
        """What a rule of CHOSEN_BY goes by, −∞ for a candidate that may not be chosen.

        For a vote it is the score whose σ is its weight: ∞ for all in a majority vote.
        """
        scored = self.scored
        if truncated == "rare steps" and (scored is None or self.step_chances.min() < RARE):
            return -np.inf
        if rule == "majority vote":
            return np.inf
        if scored is None:
            return -np.inf
        if rule == "log π_θ":
            return float(scored.policy_logps.sum())
        rewards = scored.step_rewards
        if truncated == "rewards above 0":
            rewards = np.minimum(rewards, 0)
        return aggregate(rewards, "sum" if rule == "weighted vote" else rule)

    @property
    def step_chances(self) -> FloatArray:
        """π_ref of each step, (S)."""
        assert self.scored is not None
        return np.exp(sum_by_step(self.scored.ref_logps, self.scored.step_ends))


def best_of_n_explorer(
    problems: Mapping[str, Sequence[Candidate]], shown: Sequence[str], ns: Sequence[int], alt: str
) -> Interactive:
    """Which of the first N candidates wins and why, by CHOSEN_BY and TRUNCATED.

    ``problems`` holds M candidates of each, in the order in which they count as drawn; those that
    are equal are the same object. Some of the problems are ``shown``. The accuracy is over all of
    them and over all draws of N of the M (of votes: 100 draws), in percent.
    """
    accuracies = {
        (rule, truncated): _accuracies(list(problems.values()), rule, truncated, ns)
        for rule, truncated in product(CHOSEN_BY, TRUNCATED)
    }
    frames = []
    for name, n, rule, truncated in product(shown, ns, CHOSEN_BY, TRUNCATED):
        candidates = problems[name]
        curve = accuracies[rule, truncated]
        if "vote" in rule:
            drawn = candidates[:n]
            winner, drawings, why = _vote(drawn, _scores(drawn, rule, truncated))
        else:
            winner, drawings, why = _best(candidates, rule, truncated, n, ns)
        share = f" Over {len(problems)} problems {curve[ns.index(n)]:.1f}% are right at this N."
        drawings += [_winner(candidates[winner]), *_accuracy_curve(curve, n, ns)]
        frames.append(Frame(drawings, [why, share]))
    controls = [
        Control("problem", list(shown)),
        Control("N", [str(n) for n in ns], start=len(ns) // 2),
        Control("chosen by", CHOSEN_BY),
        Control("cut off", TRUNCATED),
    ]
    longest = max(
        len(c.scored.steps) for name in shown for c in problems[name] if c.scored is not None
    )
    size = (460, 266 + 24 * longest)
    return Interactive("best-of-n-explorer", controls, frames, _best_of_n_axes(ns), size, alt)


#: The two charts of the explorer: left and right end, and their common top and bottom.
SCORES, ACCURACY, TOP, BOTTOM = (40, 210), (292, 440), 40, 176


def _scores(candidates: Sequence[Candidate], rule: str, truncated: str) -> FloatArray:
    """The score of each candidate, (M); of equal ones it is computed once."""
    values = {id(candidate): candidate for candidate in candidates}
    once = {key: candidate.score(rule, truncated) for key, candidate in values.items()}
    return np.array([once[id(candidate)] for candidate in candidates])


def _accuracies(
    problems: Sequence[Sequence[Candidate]], rule: str, truncated: str, ns: Sequence[int]
) -> list[float]:
    scores = np.array([_scores(candidates, rule, truncated) for candidates in problems])  # (P, M)
    correct = np.array([[c.correct for c in candidates] for candidates in problems])
    if "vote" not in rule:
        return [float(100 * best_of_n_accuracy(scores, correct, n).mean()) for n in ns]
    answers = [[c.answer for c in candidates] for candidates in problems]
    return [float(100 * vote_accuracy(answers, correct, n, scores).mean()) for n in ns]


def _best(
    candidates: Sequence[Candidate], rule: str, truncated: str, n: int, ns: Sequence[int]
) -> tuple[int, list[str], str]:
    """The winner by the highest score, a chart of the scores, and the score in words."""
    plain, scores = (_scores(candidates, rule, kept) for kept in ("nothing", truncated))
    winner = best_of_n(scores[:n])
    high = float(plain.max())
    low = max(float(plain[np.isfinite(plain)].min()), high - DEPTH)
    left, right = SCORES

    def place(index: int) -> tuple[int, int]:
        scored = candidates[index].scored
        nats = NATS if scored is None else min(-float(scored.ref_logps.sum()), NATS)
        score = plain[index] if np.isneginf(scores[index]) else scores[index]
        up = (max(score, low) - low) / (high - low) if high > low else 1.0
        return round(left + nats / NATS * (right - left)), round(BOTTOM - up * (BOTTOM - TOP))

    drawings = [
        _text(0, 16, f"{rule}, against −log π_ref")
        + _text(left - 6, TOP + 4, f"{high:+z.1f}", "end")
        + _text(left - 6, BOTTOM + 4, f"{low:+z.1f}", "end")
        + _SCORE_AXES
    ]
    drawn: set[int] = set()
    for start, end in pairwise((0, *ns[: ns.index(n) + 1])):
        new = {id(candidates[i]): i for i in range(start, end) if id(candidates[i]) not in drawn}
        drawn |= set(new)
        drawings.append(_marks([(candidates[i], scores[i], *place(i)) for i in new.values()]))
    x, y = place(winner)
    drawings.append(f"<circle cx='{x}' cy='{y}' r='9' fill='none' stroke='var(--ink)'/>")
    chosen = candidates[winner]
    rivals = [
        s for c, s in zip(candidates[:n], scores, strict=False) if c.correct != chosen.correct
    ]
    other = "wrong" if chosen.correct else "right"
    if not rivals:
        rest = f"there is no {other} one."
    elif max(rivals) == -np.inf:
        rest = f"no {other} one is left."
    else:
        rest = f"the best {other} one has {max(rivals):+z.2f}."
    return winner, drawings, f"{_answer(chosen)}, with a score of {scores[winner]:+z.2f}; {rest}"


def _marks(candidates: Sequence[tuple[Candidate, float, int, int]]) -> str:
    """Dots for right candidates, crosses for wrong ones; thin and grey where none may be chosen."""
    paths: dict[str, str] = {}
    for candidate, score, x, y in candidates:
        dot = candidate.correct and np.isfinite(score)
        kind = "dots correct" if dot else "dropped" if np.isneginf(score) else "wrong"
        path = f"M{x} {y}h0" if dot else f"M{x - 4} {y - 4}l8 8m0-8l-8 8"
        paths[kind] = paths.get(kind, "") + path
    return "".join(f"<path class='{kind}' d='{path}'/>" for kind, path in paths.items())


def _answer(candidate: Candidate) -> str:
    verdict = "right" if candidate.correct else "wrong"
    return f"Chosen: {candidate.answer or 'no answer'}, {verdict}"


def _vote(candidates: Sequence[Candidate], scores: FloatArray) -> tuple[int, list[str], str]:
    """The first of the highest candidates with the winning answer, a chart of the votes, words."""
    answers, weights = [candidate.answer for candidate in candidates], expit(scores)
    codes = answer_codes(answers)
    chosen = weighted_vote(answers, scores)
    code = codes[answers.index(chosen)]
    winner = int(max(np.flatnonzero(codes == code), key=lambda i: (scores[i], -i)))
    totals = {int(c): float(weights[codes == c].sum()) for c in np.unique(codes[codes >= 0])}
    total = sum(totals.values())
    left, right = SCORES
    drawings = [_text(0, 16, "votes for an answer")]
    for row, c in enumerate(sorted(totals, key=lambda c: (-totals[c], c))[:ANSWERS]):
        first = candidates[int((codes == c).argmax())]
        kind, y = "correct" if first.correct else "wrong", TOP + 20 + 30 * row
        length = round((right - left - 40) * totals[c] / total) if total else 0
        drawings.append(
            _text(left - 6, y + 5, str(first.answer), "end")
            + f"<path class='bar {kind}' d='M{left} {y}h{length}'/>"
            + _text(left + length + 6, y + 5, f"{totals[c]:.1f} {'✓' if first.correct else '✗'}")
        )
    why = f"{_answer(candidates[winner])}, with {totals.get(code, 0):.1f} of {total:.1f} votes."
    return winner, drawings, why


def _winner(candidate: Candidate) -> str:
    """The steps of the winner: which are right, their rewards as bars, their π_ref."""
    scored = candidate.scored
    if scored is None:
        return _text(4, 266, "a text outside this world, without rewards")
    parts = []
    for step, (text, reward, chance, right) in enumerate(
        zip(scored.steps, scored.step_rewards, candidate.step_chances, candidate.valid, strict=True)
    ):
        y = 266 + 24 * step
        width = round(float(np.clip(reward * 25, -60, 60)))
        parts.append(
            _text(4, y, f"{'✓' if right else '✗'} {text.strip()}")
            + f"<path class='bar {'correct' if right else 'wrong'}' d='M215 {y - 5}h{width}'/>"
            + _text(285, y, f"{reward:+z.2f}")
            + _text(350, y, f"{chance:.3f}" if chance >= 0.001 else "under 0.001")
        )
    return "".join(parts)


def _accuracy_place(accuracy: float, n: int, ns: Sequence[int]) -> tuple[int, int]:
    left, right = ACCURACY
    across = ns.index(n) / (len(ns) - 1)
    return round(left + across * (right - left)), round(BOTTOM - accuracy / 100 * (BOTTOM - TOP))


def _accuracy_curve(curve: Sequence[float], n: int, ns: Sequence[int]) -> list[str]:
    places = [_accuracy_place(value, at, ns) for value, at in zip(curve, ns, strict=True)]
    x, y = _accuracy_place(curve[ns.index(n)], n, ns)
    path = "L".join(f"{x} {y}" for x, y in places)
    return [
        f"<path class='policy' d='M{path}'/>",
        f"<path class='dots policy' d='M{x} {y}h0'/>"
        + _text(x, y + 22, f"{curve[ns.index(n)]:.1f}", "middle"),
    ]


_SCORE_AXES = (
    _line([(SCORES[0], TOP), (SCORES[0], BOTTOM), (SCORES[1], BOTTOM)], "var(--faint)", 1)
    + "".join(
        _text(SCORES[0] + nats / NATS * (SCORES[1] - SCORES[0]), BOTTOM + 20, f"{nats}", "middle")
        for nats in (0, 4, 8)
    )
    + _text(SCORES[1] + 8, BOTTOM + 20, f"{NATS:.0f} nats", "middle")
)


def _best_of_n_axes(ns: Sequence[int]) -> str:
    (left, right), bottom = ACCURACY, BOTTOM
    return (
        _text(left - 30, 16, "accuracy at N, %")
        + _line([(left, TOP), (left, bottom), (right, bottom)], "var(--faint)", 1)
        + "".join(
            _text(left - 6, _accuracy_place(tick, ns[0], ns)[1] + 4, f"{tick}", "end")
            for tick in (0, 50, 100)
        )
        + "".join(
            _text(_accuracy_place(0, n, ns)[0], bottom + 20, f"{n}", "middle") for n in ns[::2]
        )
        + _text(4, 214, "● right · ✗ wrong · ring: chosen · grey: cut off")
        + _text(4, 240, "steps of the winner")
        + _text(215, 240, "reward", "middle")
        + _text(350, 240, "π_ref of the step")
    )


# ---- Monte Carlo labels ---------------------------------------------------------------------

#: The axis of values from 0 to 1, the middles of the two columns beside it, and the rows.
VALUE, HARD, TRUTH, FIRST, ROW = (112, 300), 350, 420, 56, 28


@dataclass(frozen=True)
class SampledSteps:
    """The open steps of a solution (S): all but the answer, which needs no completion.

    ``values`` (S) are exact, P(right | steps so far); ``free`` (S) says whether all steps so far
    are right; ``right`` (D, S, K) are the outcomes of K completions of each step, drawn D times.
    """

    steps: Sequence[str]
    values: FloatArray
    free: npt.NDArray[np.bool_]
    right: npt.NDArray[np.bool_]

    def soft(self, draw: int, k: int) -> FloatArray:
        """The share of right ones among the first ``k`` completions, (S)."""
        return self.right[draw, :, :k].mean(axis=1)

    def hard(self, draw: int, k: int) -> npt.NDArray[np.bool_]:
        """Is there a right one among the first ``k`` completions, (S)."""
        return np.asarray(self.right[draw, :, :k].any(axis=1))

    def expected_error(self, k: int) -> float:
        """Mean distance of a soft label from the value, expected over all draws of ``k``."""
        found = np.arange(k + 1)[:, None]
        chances = binom.pmf(found, k, self.values)  # (K+1, S)
        return float((chances * abs(found / k - self.values)).sum(axis=0).mean())

    def expected_wrong(self, k: int) -> float:
        """How many hard labels differ from ``free``, expected over all draws."""
        none = (1 - self.values) ** k
        return float(np.where(self.free, none, 1 - none).sum())


def monte_carlo_explorer(
    solutions: Sequence[SampledSteps], ks: Sequence[int], alt: str
) -> Interactive:
    """Soft and hard labels from K completions a step, beside the exact value and the truth.

    The grey line holds 90% of all soft labels of a step (binomial quantiles from 5% to 95%).
    """
    frames = []
    for number, of in enumerate(solutions, start=1):
        rows = _value_rows(of)
        for k, draw in product(ks, range(len(of.right))):
            soft, hard = of.soft(draw, k), of.hard(draw, k)
            error = float(abs(soft - of.values).mean())
            wrong = int((hard != of.free).sum())
            reading = (
                f"Solution {number}, {k} completion{'s' * (k > 1)} of each step: the soft labels "
                f"are off by {error:.3f} on average (over all draws {of.expected_error(k):.3f}); "
                f"{wrong} of {len(hard)} hard labels {'is' if wrong == 1 else 'are'} wrong "
                f"(over all draws {of.expected_wrong(k):.2f})."
            )
            drawings = [rows, _value_ranges(of, k), _labels(soft, hard, of.free)]
            frames.append(Frame(drawings, [reading]))
    draws = len(solutions[0].right)
    controls = [
        Control("solution", [f"{n} of {len(solutions)}" for n in range(1, len(solutions) + 1)]),
        Control("K", [str(k) for k in ks], start=len(ks) // 2),
        Control("draw", [f"{n} of {draws}" for n in range(1, draws + 1)]),
    ]
    longest = max(len(of.steps) for of in solutions)
    size = (460, FIRST + ROW * longest + 24)
    return Interactive("monte-carlo-explorer", controls, frames, _value_axis(longest), size, alt)


def _value_place(value: float) -> float:
    left, right = VALUE
    return left + value * (right - left)


def _value_axis(rows: int) -> str:
    bottom = FIRST + ROW * (rows - 1) + 14
    return (
        _text(4, 16, "step")
        + _text(VALUE[0], 16, "exact value |, soft label ●")
        + _text(HARD, 16, "hard", "middle")
        + _text(TRUTH, 16, "truth", "middle")
        + "".join(
            _line([(_value_place(at), 32), (_value_place(at), bottom)], "var(--faint)", 0.5)
            + _text(_value_place(at), bottom + 16, f"{at:g}", "middle")
            for at in (0.0, 0.5, 1.0)
        )
    )


def _value_rows(of: SampledSteps) -> str:
    parts = []
    for row, (step, value, right) in enumerate(zip(of.steps, of.values, of.free, strict=True)):
        x, y = _value_place(float(value)), FIRST + ROW * row
        parts.append(
            _text(4, y, step)
            + f"<path d='M{x:.1f} {y - 13}v16'/>"
            + _text(TRUTH, y, _verdict(bool(right)), "middle")
        )
    return "".join(parts)


def _value_ranges(of: SampledSteps, k: int) -> str:
    low, high = (binom.ppf(level, k, of.values) / k for level in (0.05, 0.95))
    return "".join(
        f"<path class='dropped' d='M{_value_place(a):.1f} {FIRST + ROW * row - 5}"
        f"H{_value_place(b):.1f}'/>"
        for row, (a, b) in enumerate(zip(low, high, strict=True))
    )


def _labels(soft: FloatArray, hard: npt.NDArray[np.bool_], free: npt.NDArray[np.bool_]) -> str:
    """A dot per soft label, a word per hard one, and a frame around a word that is not true."""
    parts = []
    for row, (share, label, right) in enumerate(zip(soft, hard, free, strict=True)):
        y = FIRST + ROW * row
        parts.append(
            f"<circle cx='{_value_place(share):.1f}' cy='{y - 5}' r='5' "
            f"fill='{STYLE['policy']['color']}'/>" + _text(HARD, y, _verdict(bool(label)), "middle")
        )
        if label != right:
            parts.append(f"<path class='wrong' d='M{HARD - 26} {y - 15}h52v20h-52z'/>")
    return "".join(parts)


def _verdict(right: bool) -> str:
    return "right" if right else "wrong"


# ---- Compute --------------------------------------------------------------------------------

#: The chart of the ratio: left and right end, top and bottom, and its log axis.
CHART, RATIOS = ((52, 330), (40, 190)), (0.5, 500)
#: The bars: where they start, how long the longest is, and the first one's middle.
BARS = (112, 330, 262)
#: How dark a use is in the bars; without colour they can still be told apart.
DARKNESS = {"training": 1.0, "reading": 0.55, "writing": 0.2}
INK = "fill='var(--ink)' stroke='var(--ink)' stroke-width='.5'"


def compute_explorer(
    flops: Callable[[int, int, int], tuple[Mapping[str, float], Mapping[str, float]]],
    steps: Sequence[int],
    completions: Sequence[int],
    tokens: Sequence[int],
    published: float,
    alt: str,
) -> Interactive:
    """Math-Shepherd's FLOPs against CE's, by steps, completions of each and tokens of a solution.

    ``flops`` takes the three and gives those of CE and of Math-Shepherd for one solution, by the
    uses of DARKNESS. ``published`` is the paper's ratio.
    """
    found = {state: flops(*state) for state in product(steps, completions, tokens)}
    ratios = {
        state: sum(dear.values()) / sum(cheap.values()) for state, (cheap, dear) in found.items()
    }
    frames = []
    for state in found:
        step, k, length = state
        cheap, dear = found[state]
        curve = [ratios[at, k, length] for at in steps]
        written = dear["writing"] / sum(dear.values())
        readings = [
            f"{step} steps, {k} completion{'s' * (k > 1)} of each, {length} tokens: ",
            f"Math-Shepherd spends {ratios[state]:.2f} times the FLOPs of CE, {written:.0%} of "
            "them on completions.",
            f" Published: {published}.",
        ]
        drawings = [
            _ratio_curve(curve, steps),
            _ratio_mark(ratios[state], step, steps),
            _flops_bars({"CE": cheap, "Math-Shepherd": dear}),
        ]
        frames.append(Frame(drawings, readings))
    controls = [
        Control("steps", [str(n) for n in steps], start=len(steps) // 2),
        Control("completions of a step", [str(n) for n in completions], len(completions) // 2),
        Control("tokens of a solution", [str(n) for n in tokens], start=len(tokens) // 2),
    ]
    background = _ratio_axes(steps, published)
    return Interactive("compute-explorer", controls, frames, background, (460, 354), alt)


def _ratio_place(ratio: float, step: int, steps: Sequence[int]) -> tuple[float, float]:
    (left, right), (top, bottom) = CHART
    low, high = RATIOS
    up = np.log(ratio / low) / np.log(high / low)
    across = (step - steps[0]) / (steps[-1] - steps[0])
    return left + across * (right - left), bottom - up * (bottom - top)


def _ratio_curve(curve: Sequence[float], steps: Sequence[int]) -> str:
    places = [_ratio_place(ratio, step, steps) for ratio, step in zip(curve, steps, strict=True)]
    return _line(places, "var(--ink)", 2)


def _ratio_mark(ratio: float, step: int, steps: Sequence[int]) -> str:
    x, y = _ratio_place(ratio, step, steps)
    return (
        f"<circle cx='{x:.1f}' cy='{y:.1f}' r='6' fill='{STYLE['implicit']['color']}' "
        "stroke='var(--ink)'/>" + _text(x, y - 12, f"{ratio:.2f}", "middle")
    )


def _flops_bars(spent: Mapping[str, Mapping[str, float]]) -> str:
    left, reach, first = BARS
    longest = max(sum(uses.values()) for uses in spent.values())
    rectangles, words = [], []
    for row, (name, uses) in enumerate(spent.items()):
        x, y = float(left), first + 36 * row
        for use, darkness in DARKNESS.items():
            width = uses[use] / longest * reach
            rectangles.append(_shaded(x, y - 9, width, darkness))
            x += width
        words.append(_text(4, y - 2, name) + _text(4, y + 12, _scientific(sum(uses.values()))))
    return f"<g {INK}>{''.join(rectangles)}</g>{''.join(words)}"


def _shaded(x: float, y: float, width: float, darkness: float) -> str:
    shade = "" if darkness == 1 else f" fill-opacity='{darkness}'"
    return f"<rect x='{x:.1f}' y='{y:.0f}' width='{width:.1f}' height='18'{shade}/>"


def _scientific(flops: float) -> str:
    """Such as 3.2·10¹³."""
    mantissa, exponent = f"{flops:.1e}".split("e")
    return f"{mantissa}·10" + str(int(exponent)).translate(
        str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
    )


def _ratio_axes(steps: Sequence[int], published: float) -> str:
    (left, right), (top, bottom) = CHART
    line = [_ratio_place(published, step, steps) for step in (steps[0], steps[-1])]
    legend, parts = float(BARS[0]), []
    for use, darkness in DARKNESS.items():
        parts.append(f"<g {INK}>{_shaded(legend, 326, 18, darkness)}</g>")
        parts.append(_text(legend + 24, 340, use))
        legend += 100
    return (
        _text(4, 16, "FLOPs, Math-Shepherd / CE (log axis)")
        + _line([(left, top), (left, bottom), (right, bottom)], "var(--faint)", 1)
        + "".join(
            _text(left - 6, _ratio_place(tick, steps[0], steps)[1] + 4, f"{tick}", "end")
            for tick in (1, 10, 100)
        )
        + "".join(
            _text(_ratio_place(1, step, steps)[0], bottom + 18, f"{step}", "middle")
            for step in steps
        )
        + _text(right + 16, bottom + 18, "steps")
        + _line(line, STYLE["wrong"]["color"], 2, "8 4")
        + _text(right + 8, line[1][1] + 4, f"published: {published}")
        + _text(4, 236, "FLOPs of one solution")
        + "".join(parts)
    )
