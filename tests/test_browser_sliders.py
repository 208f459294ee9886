"""The figures with sliders on the book's pages: moved by mouse, touch and keys.

What a page then shows is compared with what Python computes anew, number by number.
"""

from __future__ import annotations

import io
import json
import re
from html import unescape
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from book_build import ROOT
from browsing import DESKTOP, explorers
from PIL import Image
from playwright.sync_api import Browser, Page
from screenshots import PICTURES, take
from transformers import AutoModelForCausalLM, AutoTokenizer

from implicitprm.arithmetic import checkpoint_path, load_rollouts
from implicitprm.arithmetic.measure import candidate_grid
from implicitprm.arithmetic.values import exact_value
from implicitprm.comparisons.compute import costs_of_even_steps
from implicitprm.comparisons.math_shepherd import hard_labels, soft_labels
from implicitprm.experiments.best_of_n import NS, given_answers
from implicitprm.experiments.paper import COMPUTE_RATIOS
from implicitprm.experiments.store import load_result
from implicitprm.qvalues import completions, implicit_q, random_language, soft_implicit_hard
from implicitprm.selection import majority_vote

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def page(browser: Browser) -> Page:
    """One page for all tests of this file: each opens its own chapter on it."""
    return browser.new_page(has_touch=True)


@pytest.fixture(scope="module")
def scriptless(browser: Browser) -> Page:
    """A page on which no script runs."""
    return browser.new_page(java_script_enabled=False)


def shown(page: Page, figure: str) -> tuple[str, str, str]:
    """What a reader sees: drawing, reading, and the words beside the last slider."""
    root = page.locator(f"#{figure}")
    drawing = root.locator("[data-drawing]").evaluate("part => part.textContent")
    return drawing, root.locator("[data-reading]").inner_text(), root.locator(
        "label span"
    ).last.inner_text()  # fmt: skip


def test_the_beta_slider_shows_the_values_that_python_computed(page: Page, site: Path) -> None:
    """The language of chapter 03, computed anew, against what the page of the chapter shows."""
    rng = np.random.default_rng(0)
    reference = random_language(rng, vocabulary_size=4, max_length=4)
    policy = random_language(rng, vocabulary_size=4, max_length=4)
    found, logps = completions(reference, ())
    rewards = [implicit_q(policy, reference, y, 1.0)[-1] for y in found]

    def expect(position: int) -> None:
        beta = 10 ** (position / 10 - 2)
        value = soft_implicit_hard(rewards, beta, logps).implicit
        drawing, reading, label = shown(page, "beta-explorer")
        assert label == f"{beta:.3g}"
        assert drawing == f"{value:+z.3f}"
        assert reading.startswith(f"At β = {beta:.3g} the implicit value is {value:+z.3f}:")

    page.goto((site / "notebooks" / "03_soft_hard_implicit.html").as_uri())
    slider = page.locator("#beta-explorer input")
    expect(20)
    slider.press("ArrowRight")
    expect(21)
    slider.press("Home")
    expect(0)
    slider.press("ArrowLeft")
    expect(0)
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    position = int(slider.input_value())
    assert 28 <= position <= 32
    expect(position)


def test_the_step_sliders_show_another_solution_and_the_truth(page: Page, site: Path) -> None:
    page.goto((site / "notebooks" / "00_start_here.html").as_uri())
    solution, truth = page.locator("#step-reward-explorer input").all()
    before = shown(page, "step-reward-explorer")
    assert before[1].startswith("Solution 1: outcome reward -")
    assert not set("✓✗") & set(before[0])
    truth.press("ArrowRight")
    drawing, reading, label = shown(page, "step-reward-explorer")
    assert label == "shown"
    assert "✗" in drawing
    assert "First wrong step: 0." in reading
    solution.tap(position={"x": solution.evaluate("slider => slider.clientWidth") - 8, "y": 12})
    assert solution.input_value() == solution.get_attribute("max")
    assert shown(page, "step-reward-explorer")[1].startswith("Solution 5: ")


def test_the_best_of_n_sliders_show_what_python_computed(page: Page, site: Path) -> None:
    """Votes are counted anew from the shipped rollouts; accuracies by the reward are those of the
    stored runs, within their tolerance; the score is that of the rewards that are shown."""
    rows, stored = load_rollouts("reasoner_full", "test"), load_result("best_of_n")
    draws = np.random.default_rng(0).permuted(candidate_grid(rows), axis=1)
    answers = np.array([answer and answer[1:] for answer in given_answers(rows)], dtype=object)
    problems = {rows["prompt"][draw[0]].strip(): answers[draw].tolist() for draw in draws}
    (run,) = (c for c in stored["cells"] if (c["part"], c.get("trained"), c.get("seed")) ==
              ("run", "reasoner_full", 0))  # fmt: skip
    trained = run["tested"]["reasoner_full"]

    page.goto((site / "notebooks" / "07_best_of_n.html").as_uri())
    figure = page.locator("#best-of-n-explorer")
    problem, n, rule, _ = figure.locator("input").all()
    drawn = figure.locator("[data-drawing]")
    for _ in range(2):
        n.press("Home")
        for at, size in enumerate(NS):
            name, shown_n, chosen_by, cut = figure.locator("label span").all_inner_texts()
            assert (shown_n, chosen_by, cut) == (str(size), "sum", "nothing")
            reading = figure.locator("[data-reading]").inner_text()
            (accuracy,) = re.findall(r"([\d.]+)% are right", reading)
            off = abs(float(accuracy) - trained["reward, sum over steps"][at])
            assert off <= stored["tolerance"]["reasoner_full, best of N"] + 0.05
            steps = re.findall(r">([+-]\d+\.\d\d)</text>", drawn.inner_html())
            (score,) = re.findall(r"with a score of ([+-][\d.]+);", reading)
            assert abs(sum(map(float, steps)) - float(score)) < 0.005 * (len(steps) + 1)
            rule.press("ArrowRight")
            (score,) = re.findall(
                r"with a score of ([+-][\d.]+);", figure.locator("[data-reading]").inner_text()
            )
            steps = re.findall(r">([+-]\d+\.\d\d)</text>", drawn.inner_html())
            assert float(score) == min(map(float, steps))
            rule.press("End")
            rule.press("ArrowLeft")
            reading = figure.locator("[data-reading]").inner_text()
            winner = majority_vote(problems[name][:size])
            votes = sum(answer == winner for answer in problems[name][:size])
            assert reading.startswith(f"Chosen: {winner}, ")
            assert f"with {votes}.0 of " in reading
            rule.press("Home")
            n.press("ArrowRight")
        problem.press("End")


def test_the_monte_carlo_sliders_show_what_python_computed(page: Page, site: Path) -> None:
    """The values of chapter 08's first solution, enumerated anew, and labels counted from outcomes
    that are drawn anew."""
    train = load_rollouts("reasoner", "train")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_path())
    model = AutoModelForCausalLM.from_pretrained(checkpoint_path()).eval()
    steps = train[0]["steps"][:-1]
    exact = np.array([exact_value(model, tokenizer, train[0]["prompt"], steps[: t + 1])
                      for t in range(len(steps))])  # fmt: skip
    right = np.random.default_rng(0).random((8, len(steps), 64)) < exact[:, None]  # (D, S, K)
    assert train[0]["first_error"] == -1

    page.goto((site / "notebooks" / "08_baselines.html").as_uri())
    figure = page.locator("#monte-carlo-explorer")
    solution, rollouts, draw = figure.locator("input").all()

    def expect(k: int, drawn: int) -> None:
        soft, hard = soft_labels(right[drawn, :, :k]), hard_labels(right[drawn, :, :k])
        assert figure.locator("label span").all_inner_texts()[1:] == [str(k), f"{drawn + 1} of 8"]
        reading = figure.locator("[data-reading]").inner_text()
        assert f"off by {np.abs(soft - exact).mean():.3f} on average" in reading
        assert f"; {(~hard).sum()} of {len(hard)} hard labels" in reading
        dots = figure.locator("[data-drawing] circle").evaluate_all(
            "dots => dots.map(dot => dot.cx.baseVal.value)"
        )
        assert dots == pytest.approx((112 + 188 * soft).tolist(), abs=0.06)
        frames = figure.locator("[data-drawing] path.wrong")
        assert frames.count() == (~hard).sum()

    for drawn in (0, 1):
        rollouts.press("Home")
        for k in (1, 2, 4, 8, 16, 32, 64):
            expect(k, drawn)
            rollouts.press("ArrowRight")
        draw.press("ArrowRight")
    draw.tap(position={"x": draw.evaluate("slider => slider.clientWidth") - 8, "y": 12})
    expect(64, 7)
    solution.press("End")
    assert figure.locator("[data-reading]").inner_text().startswith("Solution 3, 64 completions")


def test_the_compute_sliders_show_what_python_computed(page: Page, site: Path) -> None:
    page.goto((site / "notebooks" / "08_baselines.html").as_uri())
    figure = page.locator("#compute-explorer")
    sliders = figure.locator("input").all()

    def expect() -> None:
        steps, k, tokens = map(int, figure.locator("label span").all_inner_texts())
        ce, dear = costs_of_even_steps(steps, k, tokens, prompt=100)
        reading = figure.locator("[data-reading]").inner_text()
        assert f"spends {dear.flops(1) / ce.flops(1):.2f} times the FLOPs of CE" in reading
        assert reading.endswith(f"Published: {COMPUTE_RATIOS['Math-Shepherd / CE'][0]}.")
        bars = figure.locator("[data-drawing] rect").evaluate_all(
            "bars => bars.map(bar => bar.width.baseVal.value)"
        )
        parts = [cost.flops_by_use(1)[use] for cost in (ce, dear)
                 for use in ("training", "reading", "writing")]  # fmt: skip
        assert bars == pytest.approx([330 * part / dear.flops(1) for part in parts], abs=0.06)

    for slider in sliders:
        slider.press("Home")
    expect()
    for slider in sliders:
        for _ in range(int(str(slider.get_attribute("max")))):
            slider.press("ArrowRight")
            expect()
    slider = sliders[0]
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert 2 <= int(slider.input_value()) <= 5
    expect()


def test_a_solution_opens_by_key_and_pointer_and_is_there_without_a_script(
    page: Page, scriptless: Page, site: Path
) -> None:
    address = (site / "notebooks" / "05_train_by_hand.html").as_uri()
    page.goto(address)
    code = page.locator("#solution-exercise-05 .cell_input")
    page.wait_for_selector("#solution-exercise-05 .toggle-button")
    assert not code.is_visible()
    page.locator("#solution-exercise-05 .toggle-button").press("Enter")
    assert code.is_visible()
    page.locator("#solution-exercise-05 .admonition-title").click()
    assert not code.is_visible()
    scriptless.goto(address)
    assert scriptless.locator("#solution-exercise-05 .cell_input").is_visible()


#: Every state of a figure's sliders, in the order of its frames: drawing, reading, words beside.
STATES = """name => {
  const root = document.getElementById(name), sliders = [...root.querySelectorAll('input')];
  const states = [];
  const move = i => {
    if (i === sliders.length) {
      sliders[0].dispatchEvent(new Event('input'));
      states.push([root.querySelector('[data-drawing]').textContent,
        root.querySelector('[data-reading]').textContent,
        ...sliders.map(slider => slider.nextElementSibling.textContent)]);
      return;
    }
    for (let at = 0; at <= Number(sliders[i].max); at++) { sliders[i].value = at; move(i + 1); }
  };
  move(0);
  return states;
}"""


def wrong_states(page: Page, figure: str, html: str) -> list[str]:
    """States of the sliders in which the page shows something else than Python stored."""
    (data,) = re.findall(r"data-frames>(.*?)</script>", html, flags=re.DOTALL)
    stored = json.loads(data)
    expected = [
        [
            unescape(re.sub(r"<[^>]*>", "", "".join(stored["parts"][i] for i in frame[0]))),
            "".join(stored["parts"][i] for i in frame[1]),
            *values,
        ]
        for frame, values in zip(stored["frames"], product(*stored["controls"]), strict=True)
    ]
    found = page.evaluate(STATES, figure)
    assert len(found) == len(expected)
    return [f"{a} instead of {b}" for a, b in zip(found, expected, strict=True) if a != b]


@pytest.mark.parametrize("name", explorers())
def test_every_state_of_the_sliders_shows_its_frame(page: Page, site: Path, name: str) -> None:
    chapter, html = explorers()[name]
    page.goto((site / "notebooks" / f"{chapter}.html").as_uri())
    assert wrong_states(page, name, html) == []


@pytest.mark.parametrize(
    ("part", "broken"),
    [
        ("slider.valueAsNumber;\n", "0;\n"),
        ("frames[index][1]", "frames[0][1]"),
        ("numbers.map", "numbers.slice(1).map"),
        ("textContent = value", "title = value"),
    ],
)
def test_a_broken_script_is_found(page: Page, tmp_path: Path, part: str, broken: str) -> None:
    """A figure alone on a page, whole and then with its script broken; all have the same script."""
    name = "monte-carlo-explorer"
    _, html = explorers()[name]
    path = tmp_path / "figure.html"
    for script, right in ((html, True), (html.replace(part, broken), False)):
        path.write_text(f"<!doctype html><meta charset=utf-8>{script}", encoding="utf-8")
        page.goto(path.as_uri())
        assert (wrong_states(page, name, html) == []) == right


@pytest.mark.parametrize("name", explorers())
def test_a_figure_is_readable_without_its_script(scriptless: Page, site: Path, name: str) -> None:
    chapter, html = explorers()[name]
    page = scriptless
    page.goto((site / "notebooks" / f"{chapter}.html").as_uri())
    figure = page.locator(f"#{name}")
    (reading,) = re.findall(r'role="status">([^<]*)<', html)
    assert unescape(reading) in figure.inner_text()
    assert figure.locator("circle").first.is_visible()
    assert not figure.locator("input").first.is_visible()


@pytest.mark.parametrize("name", PICTURES)
def test_the_readme_shows_pictures_that_a_command_takes(
    browser: Browser, site: Path, name: str
) -> None:
    stored = (ROOT / "book" / "_static" / name).read_bytes()
    assert len(stored) < 150_000
    assert f"](book/_static/{name})" in (ROOT / "README.md").read_text(encoding="utf-8")
    taken = [Image.open(io.BytesIO(data)) for data in (stored, take(browser, site, name))]
    assert [image.size for image in taken] == [(DESKTOP["width"], DESKTOP["height"])] * 2
    # The same scheme; fonts differ between machines.
    shades = [np.asarray(image.convert("L")).mean() for image in taken]
    assert abs(shades[0] - shades[1]) < 10
