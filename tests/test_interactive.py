"""Interactive figures: each frame shows what Python computed, and the page holds every frame."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape
from itertools import product
from typing import Any

import nbformat
import numpy as np
import pytest
from book_build import ROOT

from implicitprm.comparisons.compute import costs_of_even_steps
from implicitprm.comparisons.math_shepherd import hard_labels, soft_labels
from implicitprm.evaluation import best_of_n_accuracy, vote_accuracy
from implicitprm.interactive import (
    CHOSEN_BY,
    Candidate,
    Control,
    Frame,
    Interactive,
    SampledSteps,
    best_of_n_explorer,
    beta_explorer,
    compute_explorer,
    monte_carlo_explorer,
    step_reward_explorer,
)
from implicitprm.interactive.figure import _CSS, _SCRIPT
from implicitprm.qvalues import soft_implicit_hard
from implicitprm.rewards import ScoredSolution
from implicitprm.selection import aggregate, best_of_n, majority_vote, weighted_vote

REWARDS, LOGPS = [-2.0, 0.5, 3.0], np.log([0.5, 0.3, 0.2])


def stored(figure: Interactive) -> dict[str, Any]:
    """What the script of the figure reads."""
    (data,) = re.findall(r"data-frames>(.*?)</script>", figure._repr_html_(), flags=re.DOTALL)
    loaded: dict[str, Any] = json.loads(data)
    parts = loaded.pop("parts")
    assert len(set(parts)) == len(parts)
    loaded["frames"] = [
        ["".join(parts[number] for number in numbers) for numbers in frame]
        for frame in loaded["frames"]
    ]
    return loaded


def scored(step_rewards: list[list[float]], steps: tuple[str, ...]) -> ScoredSolution:
    """A solution whose steps are single characters as tokens, with these token rewards."""
    tokens = np.array([reward for step in step_rewards for reward in step])
    ends = tuple(np.cumsum([len(step) for step in step_rewards]).tolist())
    sums = np.array([sum(step) for step in step_rewards])
    text = tuple(character for step in steps for character in step)
    outcome = float(sums.sum())
    return ScoredSolution(steps, text, ends, tokens, sums, sums.cumsum(), outcome, tokens, tokens)


SOLUTIONS = [
    (scored([[0.0, -3.0], [0.5, 0.25]], ("ab", "cd")), [False, True]),
    (scored([[0.5, 0.5], [0.0, 0.125]], ("ef", "gh")), [True, True]),
]


# ---- Any of them ----------------------------------------------------------------------------


def small() -> Interactive:
    controls = [Control("row", ["a", "b"], start=1), Control("column", ["x", "y", "z"])]
    frames = [Frame([f"<g>{i}</g>", "<i/>"], ["frame ", f"{i} </script>"]) for i in range(6)]
    return Interactive("small", controls, frames, "<rect/>", (10, 10), 'a "figure"')


def test_the_last_control_varies_fastest() -> None:
    figure = small()
    assert [figure.frame(*at).reading[6] for at in ((0, 0), (0, 2), (1, 0), (1, 2))] == list("0235")


def test_a_page_holds_every_frame_and_shows_the_first_without_its_script() -> None:
    figure = small()
    html = figure._repr_html_()
    assert stored(figure) == {
        "controls": [["a", "b"], ["x", "y", "z"]],
        "frames": [[frame.drawing, frame.reading] for frame in figure.frames],
    }
    without = re.sub(r"<script\b.*?</script>", "", html, flags=re.DOTALL)
    assert "<g data-drawing><g>3</g><i/></g>" in without
    assert "frame 3" in without
    assert "frame 0" not in without
    assert without.count('type="range"') == 2
    (alt,) = re.findall(r'aria-label="([^"]*)"', without)
    assert unescape(alt) == figure.alt == repr(figure)
    assert html == small()._repr_html_()


def test_frames_must_fit_the_controls_and_an_alt_text_is_asked_for() -> None:
    frame = Frame([], [])
    with pytest.raises(ValueError, match="2 states of the controls and 1 frames"):
        Interactive("x", [Control("a", ["0", "1"])], [frame], "", (1, 1), "alt")
    with pytest.raises(ValueError, match="needs an alt text"):
        Interactive("x", [], [frame], "", (1, 1), " ")


def test_the_chapters_hold_style_and_script_as_they_are_now() -> None:
    """The browser tests move what is stored in the chapters."""
    names = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", ()):
                html = output.get("data", {}).get("text/html", "")
                if 'class="implicitprm-figure"' in html:
                    (name,) = re.findall(r'<div class="implicitprm-figure" id="([\w-]+)"', html)
                    names.append(name)
                    assert _SCRIPT % name in html, path
                    assert _CSS in html, path
    assert set(names) == {
        "beta-explorer",
        "step-reward-explorer",
        "best-of-n-explorer",
        "monte-carlo-explorer",
        "compute-explorer",
    }
    assert len(names) == len(set(names))


# ---- β --------------------------------------------------------------------------------------


def test_every_frame_of_the_beta_explorer_shows_the_implicit_value() -> None:
    figure = beta_explorer(REWARDS, LOGPS, "alt")
    (control,) = figure.controls
    assert control.values[control.start] == "1"
    places = []
    for position, beta in enumerate(np.geomspace(0.01, 100, 41)):
        values = soft_implicit_hard(REWARDS, beta, LOGPS)
        frame = figure.frame(position)
        assert control.values[position] == f"{beta:.3g}"
        assert frame.reading.startswith(
            f"At β = {beta:.3g} the implicit value is {values.implicit:+z.3f}"
        )
        assert f">{values.implicit:+z.3f}</text>" in frame.drawing
        (place,) = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', frame.drawing)
        places.append([float(coordinate) for coordinate in place])

    # Across from 50 to 405 on the log axis, up from 220 for the soft value to 24 for the hard one.
    def implicit(beta: float) -> float:
        return soft_implicit_hard(REWARDS, beta, LOGPS).implicit

    expected = [
        [50 + 355 * position / 40, 220 - 196 * (implicit(beta) + 0.25) / 3.25]
        for position, beta in enumerate(np.geomspace(0.01, 100, 41))
    ]
    assert np.array(places) == pytest.approx(np.array(expected), abs=0.06)


# ---- Steps ----------------------------------------------------------------------------------


def test_every_frame_of_the_step_explorer_shows_the_rewards_of_its_solution() -> None:
    figure = step_reward_explorer(SOLUTIONS, "alt")
    assert [len(control.values) for control in figure.controls] == [2, 2]
    first, second = figure.frame(0, 0), figure.frame(1, 0)
    assert first.reading == (
        "Solution 1: outcome reward -2.250. The lowest step reward, -3.000, stands at step 0, ab."
    )
    assert second.reading == (
        "Solution 2: outcome reward +1.125. The lowest step reward, +0.125, stands at step 1, gh."
    )
    assert re.findall(r">([+-][\d.]+)</text>", first.drawing) == ["-3.000", "+0.750"]
    # Widths of the bars on one scale: 62 units are the largest reward of all, 3.
    bars = re.findall(r'width="([\d.]+)" height="16"', first.drawing + second.drawing)
    assert [float(width) for width in bars] == pytest.approx([62, 15.5, 62 / 3, 62 / 24], abs=0.06)
    # q after the steps, −3 and −2.25, left of the line at 388 where it is 0.
    curve = re.findall(r'<circle cx="([\d.]+)"', first.drawing)
    assert [float(x) for x in curve] == pytest.approx([388 - 62, 388 - 62 * 0.75], abs=0.06)


def test_the_truth_stands_in_a_frame_only_when_it_is_asked_for() -> None:
    figure = step_reward_explorer(SOLUTIONS, "alt")
    for solution, marks, text in ((0, ["✗", "✓"], "First wrong step: 0."),
                                  (1, ["✓", "✓"], "Every step is right.")):  # fmt: skip
        hidden, shown = figure.frame(solution, 0), figure.frame(solution, 1)
        assert re.findall("[✓✗]", hidden.drawing) == []
        assert re.findall("[✓✗]", shown.drawing) == marks
        assert shown.reading == f"{hidden.reading} {text}"


def test_tokens_are_underlined_by_the_weight_of_their_rewards() -> None:
    drawing = step_reward_explorer(SOLUTIONS, "alt").frame(0, 0).drawing
    bars = re.findall(
        r'height="5" fill="(none|#\w+)"(?: stroke="#\w+")? opacity="([\d.]+)"', drawing
    )
    assert [float(opacity) for _, opacity in bars] == [0, 1, 0.17, 0.08]
    # Hollow where the reward is not positive.
    assert [fill == "none" for fill, _ in bars] == [True, True, False, False]


# ---- Best of N ------------------------------------------------------------------------------

NS = (1, 2, 4, 8, 16)


def candidate(
    step_rewards: list[float], ref_logps: list[float], answer: str | None, correct: bool
) -> Candidate:
    """A candidate with one token a step, the last step its answer."""
    steps = tuple(f"{step}={step}" for step in range(len(step_rewards)))
    plain = scored([[reward] for reward in step_rewards], tuple("s" * len(steps)))
    ref = np.array(ref_logps)
    logps = {"ref_logps": ref, "policy_logps": plain.step_rewards + ref}
    return Candidate(replace(plain, steps=steps, **logps), [correct] * len(steps), answer, correct)


def drawn(seed: int) -> list[Candidate]:
    """16 candidates to a problem with the answer 7: eight that differ, each drawn twice."""
    rng = np.random.default_rng(seed)
    answers = ["7", "8", "7.0", None, "9", "8", "7", "9"]
    found = [
        candidate(
            rng.normal(0, 2, 3).tolist(),
            np.log(rng.uniform(0.05, 1, 3)).tolist(),
            answer,
            answer in ("7", "7.0"),
        )
        for answer in answers
    ]
    return [found[i] for i in rng.permutation(np.repeat(np.arange(8), 2))]


PROBLEMS = {f"problem {seed}": drawn(seed) for seed in range(3)}
SHOWN = ["problem 2", "problem 0"]
NOTHING, NO_GAIN, NO_RARE = range(3)


@pytest.fixture(scope="module")
def explorer() -> Interactive:
    return best_of_n_explorer(PROBLEMS, SHOWN, NS, "alt")


def rewards_of(one: Candidate) -> np.ndarray:
    assert one.scored is not None
    return one.scored.step_rewards


def is_rare(one: Candidate) -> bool:
    assert one.scored is not None
    return bool(np.exp(one.scored.ref_logps).min() < 0.1)


def chosen(one: Candidate, figure: Interactive, at: tuple[int, int, int, int]) -> None:
    """The frame shows ``one`` as the winner: its answer, and the rewards of its steps."""
    frame = figure.frame(*at)
    verdict = "right" if one.correct else "wrong"
    assert frame.reading.startswith(f"Chosen: {one.answer or 'no answer'}, {verdict}, with "), at
    shown = re.findall(r">([+-]\d+\.\d\d)</text>", frame.drawing)
    assert shown == [f"{reward:+z.2f}" for reward in rewards_of(one)], at
    assert frame.drawing.count(f">{'✓' if one.correct else '✗'} ") == 3


@pytest.mark.parametrize("how", ["sum", "min", "mean", "last"])
@pytest.mark.parametrize("cut", [NOTHING, NO_GAIN, NO_RARE])
def test_the_explorer_shows_the_best_of_n(explorer: Interactive, how: str, cut: int) -> None:
    rule = CHOSEN_BY.index(how)
    for p, name in enumerate(SHOWN):
        for at, n in enumerate(NS):
            scores = [
                -np.inf
                if cut == NO_RARE and is_rare(one)
                else aggregate(
                    np.minimum(rewards_of(one), 0) if cut == NO_GAIN else rewards_of(one), how
                )
                for one in PROBLEMS[name][:n]
            ]
            winner = best_of_n(scores)
            chosen(PROBLEMS[name][winner], explorer, (p, at, rule, cut))
            reading = explorer.frame(p, at, rule, cut).reading
            assert f"with a score of {scores[winner]:+z.2f}; " in reading
            won = PROBLEMS[name][winner].correct
            rivals = [s for s, one in zip(scores, PROBLEMS[name], strict=False)
                      if one.correct != won]  # fmt: skip
            if rivals and max(rivals) > -np.inf:
                other = "wrong" if won else "right"
                assert f"the best {other} one has {max(rivals):+z.2f}. " in reading
            else:
                assert "; there is no " in reading or "; no " in reading


def test_the_explorer_shows_the_choice_of_the_policy_alone(explorer: Interactive) -> None:
    rule = CHOSEN_BY.index("log π_θ")
    for at, n in enumerate(NS):
        scores = [float(one.scored.policy_logps.sum()) for one in PROBLEMS[SHOWN[0]][:n]
                  if one.scored]  # fmt: skip
        for cut in (NOTHING, NO_GAIN):  # it goes by no reward, and none is cut off
            chosen(PROBLEMS[SHOWN[0]][best_of_n(scores)], explorer, (0, at, rule, cut))


def test_the_explorer_holds_the_votes(explorer: Interactive) -> None:
    for p, name in enumerate(SHOWN):
        for at, n in enumerate(NS):
            own = PROBLEMS[name][:n]
            answers = [one.answer for one in own]
            sums = np.array([rewards_of(one).sum() for one in own])
            winners = {
                ("majority vote", NOTHING): majority_vote(answers),
                ("majority vote", NO_GAIN): majority_vote(answers),
                ("weighted vote", NOTHING): weighted_vote(answers, sums),
                ("majority vote", NO_RARE): majority_vote(
                    [None if is_rare(one) else one.answer for one in own]
                ),
            }
            for (rule, cut), answer in winners.items():
                reading = explorer.frame(p, at, CHOSEN_BY.index(rule), cut).reading
                if answer is not None:
                    found = reading.removeprefix("Chosen: ").partition(",")[0]
                    assert found.removesuffix(".0") == answer.removesuffix(".0"), (p, at, rule)
            given = sum(answer is not None for answer in answers)
            reading = explorer.frame(p, at, CHOSEN_BY.index("majority vote"), NOTHING).reading
            assert f" of {given}.0 votes." in reading


def test_the_explorer_states_the_accuracy_over_all_problems(explorer: Interactive) -> None:
    sums = np.array([[rewards_of(one).sum() for one in own] for own in PROBLEMS.values()])
    rare = np.array([[is_rare(one) for one in own] for own in PROBLEMS.values()])
    correct = np.array([[one.correct for one in own] for own in PROBLEMS.values()])
    answers = [[one.answer for one in own] for own in PROBLEMS.values()]
    for at, n in enumerate(NS):
        expected = {
            ("sum", NOTHING): best_of_n_accuracy(sums, correct, n),
            ("sum", NO_RARE): best_of_n_accuracy(np.where(rare, -np.inf, sums), correct, n),
            ("majority vote", NOTHING): vote_accuracy(answers, correct, n),
            ("weighted vote", NOTHING): vote_accuracy(answers, correct, n, sums),
        }
        for (rule, cut), values in expected.items():
            frame = explorer.frame(1, at, CHOSEN_BY.index(rule), cut)
            share = f"{100 * values.mean():.1f}"
            assert frame.reading.endswith(f" Over 3 problems {share}% are right at this N.")
            assert frame.drawing.endswith(f" text-anchor='middle'>{share}</text>")


def test_each_candidate_is_drawn_once_and_none_before_it_is_drawn(explorer: Interactive) -> None:
    marks = r"M\d+ \d+h0(?=[M'])|M\d+ \d+l8 8m0-8l-8 8"
    for at, n in enumerate(NS):
        for cut in (NOTHING, NO_RARE):
            own = list({id(one): one for one in PROBLEMS[SHOWN[0]][:n]}.values())
            drawing = explorer.frame(0, at, 0, cut).drawing.partition("<circle")[0]
            assert len(re.findall(marks, drawing)) == len(own)
            out = [one for one in own if cut == NO_RARE and is_rare(one)]
            (grey,) = re.findall("<path class='dropped' d='([^']*)'", drawing)[:1] or [""]
            if out:
                assert grey
            else:
                assert not grey


def test_a_candidate_without_rewards_is_never_the_best_and_has_a_vote() -> None:
    mute = Candidate(None, (), "8", False)
    own = [mute, candidate([-9.0], [-0.1], "7", True), mute]
    figure = best_of_n_explorer({"p": own}, ["p"], (1, 3), "alt")
    assert figure.frame(0, 1, 0, 0).reading.startswith("Chosen: 7, right, with a score of -9.00;")
    majority = figure.frame(0, 1, CHOSEN_BY.index("majority vote"), 0)
    assert majority.reading.startswith("Chosen: 8, wrong, with 2.0 of 3.0 votes.")
    assert "without rewards" in majority.drawing


# ---- Monte Carlo labels ---------------------------------------------------------------------

KS = (1, 2, 4, 8)


def sampled(values: list[float], free: list[bool], seed: int) -> SampledSteps:
    rng = np.random.default_rng(seed)
    right = rng.random((3, len(values), 8)) < np.array(values)[:, None]
    steps = [f"{step}+1={step + 1}" for step in range(len(values))]
    return SampledSteps(steps, np.array(values), np.array(free), right)


SAMPLED = [
    sampled([0.25, 0.5, 1.0], [True, True, True], 0),
    sampled([0.5, 0.3, 0.0, 0.0], [True, False, False, False], 1),
]


def of_all_outcomes(of: SampledSteps, k: int) -> tuple[float, float]:
    """Mean error of the soft labels and number of wrong hard ones, by listing every outcome."""
    error = wrong = 0.0
    for value, free in zip(of.values, of.free, strict=True):
        for outcome in product((0, 1), repeat=k):
            chance = np.prod([value if right else 1 - value for right in outcome])
            error += chance * abs(np.mean(outcome) - value) / len(of.values)
            wrong += chance * (bool(max(outcome)) != free)
    return error, wrong


@pytest.mark.parametrize("of", SAMPLED)
@pytest.mark.parametrize("k", [1, 2, 3, 8])
def test_expected_errors_are_those_of_all_outcomes(of: SampledSteps, k: int) -> None:
    error, wrong = of_all_outcomes(of, k)
    assert of.expected_error(k) == pytest.approx(error)
    assert of.expected_wrong(k) == pytest.approx(wrong)


def test_every_frame_of_the_monte_carlo_explorer_shows_its_labels() -> None:
    figure = monte_carlo_explorer(SAMPLED, KS, "alt")
    for (n, of), (at, k), draw in product(enumerate(SAMPLED), enumerate(KS), range(3)):
        frame = figure.frame(n, at, draw)
        drawn = of.right[draw, :, :k]
        soft, hard = soft_labels(drawn), hard_labels(drawn)
        expected_error, expected_wrong = of_all_outcomes(of, k)
        wrong = int((hard != of.free).sum())
        assert frame.reading == (
            f"Solution {n + 1}, {k} completion{'s' if k > 1 else ''} of each step: the soft labels "
            f"are off by {np.abs(soft - of.values).mean():.3f} on average "
            f"(over all draws {expected_error:.3f}); {wrong} of {len(hard)} hard labels "
            f"{'is' if wrong == 1 else 'are'} wrong (over all draws {expected_wrong:.2f})."
        )
        # The axis of values runs from 112 to 300.
        dots = [float(x) for x in re.findall(r"<circle cx='([\d.]+)'", frame.drawing)]
        assert dots == pytest.approx((112 + 188 * soft).tolist(), abs=0.06)
        ticks = [float(x) for x in re.findall(r"d='M([\d.]+) \d+v16'", frame.drawing)]
        assert ticks == pytest.approx((112 + 188 * of.values).tolist(), abs=0.06)
        words = re.findall(r"x='(350|420)'[^>]*>(right|wrong)<", frame.drawing)
        by_column = {x: [word == "right" for at, word in words if at == x] for x in ("350", "420")}
        assert by_column == {"350": hard.tolist(), "420": of.free.tolist()}
        assert frame.drawing.count("class='wrong'") == wrong


def test_the_grey_line_holds_nine_tenths_of_the_soft_labels() -> None:
    drawing = monte_carlo_explorer(SAMPLED[:1], (8,), "alt").frame(0, 0, 0).drawing
    ends = re.findall(r"class='dropped' d='M([\d.]+) \d+H([\d.]+)'", drawing)
    rng = np.random.default_rng(0)
    for (low, high), value in zip(ends, SAMPLED[0].values, strict=True):
        places = 112 + 188 * rng.binomial(8, value, 20_000) / 8
        inside = (places >= float(low) - 0.06) & (places <= float(high) + 0.06)
        within = (places > float(low) + 0.06) & (places < float(high) - 0.06)
        assert inside.mean() >= 0.89
        assert within.mean() <= 0.91


# ---- Compute --------------------------------------------------------------------------------

STEPS, ROLLOUTS, LENGTHS = (2, 5, 10), (1, 8), (50, 400)


PROMPT = 30


def spent(steps: int, completions: int, tokens: int) -> tuple[dict[str, float], dict[str, float]]:
    ce, dear = costs_of_even_steps(steps, completions, tokens, PROMPT)
    return ce.flops_by_use(10**9), dear.flops_by_use(10**9)


def counted(steps: int, completions: int, tokens: int) -> tuple[float, float, float]:
    """FLOPs of CE, of Math-Shepherd, and of its completions, in 10⁹, counted step by step."""
    dear = 6.0 * (PROMPT + tokens)
    written = 0.0
    for step in range(1, steps):
        prefix = tokens / steps * step
        dear += 2 * (PROMPT + prefix)
        written += 2 * completions * (tokens - prefix)
    return 8.0 * (PROMPT + tokens), dear + written, written


def ratio_place(ratio: float, steps: int) -> list[float]:
    """Across from 52 to 330 by steps, up from 190 for 0.5 to 40 for 500 on a log axis."""
    return [52 + 278 * (steps - 2) / 8, 190 - 150 * np.log(ratio / 0.5) / np.log(1000)]


def test_every_frame_of_the_compute_explorer_shows_the_ratio_of_the_costs() -> None:
    figure = compute_explorer(spent, STEPS, ROLLOUTS, LENGTHS, 38.8, "alt")
    assert [control.values for control in figure.controls] == [
        [str(value) for value in values] for values in (STEPS, ROLLOUTS, LENGTHS)
    ]
    for (i, steps), (j, k), (at, tokens) in product(*map(enumerate, (STEPS, ROLLOUTS, LENGTHS))):
        frame = figure.frame(i, j, at)
        ce, dear, written = counted(steps, k, tokens)
        ratio, written = dear / ce, written / dear
        assert frame.reading == (
            f"{steps} steps, {k} completion{'s' if k > 1 else ''} of each, {tokens} tokens: "
            f"Math-Shepherd spends {ratio:.2f} times the FLOPs of CE, {written:.0%} of them on "
            "completions. Published: 38.8."
        )
        assert f">{ratio:.2f}</text>" in frame.drawing
        (place,) = re.findall(r"<circle cx='([\d.]+)' cy='([\d.]+)'", frame.drawing)
        assert [float(at) for at in place] == pytest.approx(ratio_place(ratio, steps), abs=0.06)
        (curve,) = re.findall(r"<polyline points='([^']*)'", frame.drawing)
        expected = [counted(other, k, tokens) for other in STEPS]
        points = [ratio_place(d / c, at) for (c, d, _), at in zip(expected, STEPS, strict=True)]
        found = [[float(at) for at in point.split(",")] for point in curve.split()]
        assert np.array(found) == pytest.approx(np.array(points), abs=0.06)
        widths = [float(w) for w in re.findall(r" width='([\d.]+)'", frame.drawing.split("<g ")[1])]
        assert sum(widths[:3]) == pytest.approx(330 / ratio, abs=0.2)  # CE's bar
        assert sum(widths[3:]) == pytest.approx(330, abs=0.2)
        assert widths[5] / 330 == pytest.approx(written, abs=0.001)
        in_words = {50: "6.4·10¹¹", 400: "3.4·10¹²"}[tokens]  # 8 FLOPs a token and parameter
        assert f">{in_words}<" in frame.drawing


def test_the_published_ratio_is_marked_as_published() -> None:
    figure = compute_explorer(spent, STEPS, ROLLOUTS, LENGTHS, 38.8, "alt")
    assert ">published: 38.8</text>" in figure.background
    line = re.findall(r"<polyline points='([\d.]+),([\d.]+) ([\d.]+),([\d.]+)'[^>]*8 4",
                      figure.background)  # fmt: skip
    ends = [*ratio_place(38.8, 2), *ratio_place(38.8, 10)]
    assert [float(at) for at in line[0]] == pytest.approx(ends, abs=0.06)
