"""The pages of the book in a browser, opened as files: what a reader meets on them.

Each page is visited once, in both colour schemes and at two widths; the tests ask the visit.
"""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import unescape
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit
from urllib.request import url2pathname

import nbformat
import numpy as np
import pytest
import yaml
from axe_playwright_python.base import AXE_SCRIPT
from book_build import ROOT, build_repository
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image
from playwright.sync_api import Browser, Error, Page, TimeoutError, sync_playwright
from screenshots import ARGUMENTS, DESKTOP, PHONE, PICTURES, find_browser, show_scheme, take
from test_book import listed_files
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


def names_of_pages() -> list[str]:
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8"))
    return [f"{name}.html" for name in (toc["root"], *listed_files(toc))]


# ---- What is measured on a page -------------------------------------------------------------

#: Text whose contrast with its background is below what WCAG AA asks of it: 4.5, or 3 where large.
#: Elements of the same colours and size are one entry. Backgrounds are flattened over ancestors;
#: text on an image is left out.
CONTRAST = """() => {
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = 1;
  const context = canvas.getContext('2d', {willReadFrequently: true});
  const cache = new Map();
  const rgba = text => {
    if (!cache.has(text)) {
      context.clearRect(0, 0, 1, 1);
      context.fillStyle = text;
      context.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
      cache.set(text, [r, g, b, a / 255]);
    }
    return cache.get(text);
  };
  const over = (top, bottom) =>
    [0, 1, 2].map(i => top[i] * top[3] + bottom[i] * (1 - top[3])).concat(1);
  const luminance = color => [0.2126, 0.7152, 0.0722].reduce((sum, weight, i) => {
    const c = color[i] / 255;
    return sum + weight * (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  }, 0);
  const backgrounds = new Map();
  const background = element => {
    if (!element) return [255, 255, 255, 1];
    if (!backgrounds.has(element)) {
      const style = getComputedStyle(element);
      const behind = background(element.parentElement);
      backgrounds.set(element, behind && style.backgroundImage === 'none'
        ? over(rgba(style.backgroundColor), behind) : null);
    }
    return backgrounds.get(element);
  };
  const found = new Map();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), element = walker.currentNode.parentElement;
    if (!text || element.closest('script, style, noscript, mjx-assistive-mml, :disabled')) continue;
    const box = element.getBoundingClientRect();
    if (box.width < 2 || box.height < 2) continue;
    if (!element.checkVisibility({visibilityProperty: true, opacityProperty: true})) continue;
    const style = getComputedStyle(element), behind = background(element);
    if (!behind) continue;
    let opacity = 1;
    for (let e = element; e; e = e.parentElement) opacity *= Number(getComputedStyle(e).opacity);
    const colour = [...rgba(element.closest('svg') ? style.fill : style.color)];
    colour[3] *= opacity;
    const shades = [luminance(over(colour, behind)), luminance(behind)].sort((a, b) => b - a);
    const ratio = (shades[0] + 0.05) / (shades[1] + 0.05);
    const size = parseFloat(style.fontSize), bold = Number(style.fontWeight) >= 700;
    const needed = size >= 24 || (bold && size >= 18.66) ? 3 : 4.5;
    if (ratio < needed - 0.005) {
      const key = [colour, behind, size].join(' ');
      const place = element.tagName.toLowerCase() + '.' + element.className;
      if (!found.has(key)) found.set(key, `${ratio.toFixed(2)} ${place}: ${text.slice(0, 40)}`);
    }
  }
  return [...found.values()];
}"""

#: Elements that reach beyond the right edge and that no scrolling box contains.
OVERFLOW = """() => {
  const width = document.documentElement.clientWidth;
  const contained = element => {
    for (let e = element.parentElement; e && e !== document.body; e = e.parentElement)
      if (getComputedStyle(e).overflowX !== 'visible') return true;
    return false;
  };
  const wide = [...document.querySelectorAll('article *')].filter(element => {
    const box = element.getBoundingClientRect();
    return box.width > 1 && box.right > width + 1 && !contained(element);
  }).map(element => {
    const end = element.getBoundingClientRect().right;
    return `${element.tagName.toLowerCase()}.${element.className} ends at ${end}`;
  });
  return document.documentElement.scrollWidth > width ? ['the page scrolls', ...wide] : wide;
}"""

FORMULAS_ARE_DONE = """() => document.querySelectorAll('mjx-container').length
  >= document.querySelectorAll('span.math, div.math').length"""

#: axe-core asks the browser what lies under each piece of text, a minute for a page with much code;
#: CONTRAST measures the same from computed styles. `region` takes a quarter of the rest, and finds
#: nothing that counts as serious.
AXE = """rules => axe.run(document, {
  preload: false,  // of style sheets, for rules that are not among the serious ones
  resultTypes: ['violations'],
  rules: {'color-contrast': {enabled: false}, region: {enabled: false}},
  ...(rules ? {runOnly: rules} : {}),
}).then(result => result.violations
  .filter(violation => ['serious', 'critical'].includes(violation.impact))
  .map(violation => `${violation.id}: ${violation.nodes.map(node => node.target).join('; ')}`))"""
#: The rules of axe-core that depend on the width.
OF_WIDTH = ["scrollable-region-focusable", "target-size"]


@dataclass
class Visit:
    """What one page did: each list holds problems, in words."""

    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    formulas: list[str] = field(default_factory=list)
    overflow: list[str] = field(default_factory=list)
    contrast: list[str] = field(default_factory=list)
    axe: list[str] = field(default_factory=list)
    titles: int = 0
    schemes: list[str] = field(default_factory=list)
    #: Addresses of links, and the names that links to this page may end with.
    links: set[str] = field(default_factory=set)
    anchors: set[str] = field(default_factory=set)


def names_on(page: Page) -> set[str]:
    return set(page.eval_on_selector_all("[id]", "elements => elements.map(e => e.id)"))


def visit(browser: Browser, path: Path, patience: int = 60_000) -> Visit:
    """Measure a page in both schemes, at both widths; formulas have ``patience`` milliseconds."""
    found = Visit()
    context = browser.new_context(viewport=DESKTOP, reduced_motion="reduce")  # type: ignore[arg-type]
    context.route("http*://**", lambda route: route.abort())
    page = context.new_page()
    page.on("request", lambda r: _note_request(found, r.url))
    page.on("console", lambda m: found.errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: found.errors.append(str(error)))
    page.goto(path.as_uri(), wait_until="load")
    try:
        page.wait_for_function(FORMULAS_ARE_DONE, timeout=patience)
    except TimeoutError as error:
        found.formulas.append(f"not all rendered: {error}")
    found.formulas += page.locator("mjx-merror").all_text_contents()
    found.titles = page.locator("article h1").count()
    found.links = set(page.eval_on_selector_all("a[href]", "links => links.map(link => link.href)"))
    found.anchors = names_on(page)
    page.evaluate(AXE_SCRIPT)
    found.axe += page.evaluate(AXE)
    for size in (DESKTOP, PHONE):
        if page.viewport_size != size:
            page.set_viewport_size(size)  # type: ignore[arg-type]
            # The theme and the book react to a resize with a delay.
            page.wait_for_timeout(400)
        found.overflow += [f"{size['width']}: {text}" for text in page.evaluate(OVERFLOW)]
        for scheme in ("light", "dark"):
            show_scheme(page, scheme)
            text = page.evaluate(CONTRAST)
            found.contrast += [f"{size['width']}, {scheme}: {line}" for line in text]
            body = "getComputedStyle(document.body).backgroundColor"
            found.schemes.append(page.evaluate(body))
    found.axe += page.evaluate(AXE, OF_WIDTH)
    context.close()
    return found


def _note_request(found: Visit, address: str) -> None:
    if not address.startswith(("file:", "data:", "blob:")):
        found.requests.append(address)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = find_browser()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Path:
    return build_repository(tmp_path_factory.mktemp("book"))


@pytest.fixture(scope="module")
def visits(browser: Browser, site: Path) -> dict[str, Visit]:
    return {name: visit(browser, site / name) for name in names_of_pages()}


# ---- Every page -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", names_of_pages())
def test_a_page_fetches_nothing_and_reports_no_error(visits: dict[str, Visit], name: str) -> None:
    assert visits[name].requests == []
    assert visits[name].errors == []


@pytest.mark.parametrize("name", names_of_pages())
def test_every_formula_is_rendered(visits: dict[str, Visit], name: str) -> None:
    assert visits[name].formulas == []


@pytest.mark.parametrize("name", names_of_pages())
def test_a_page_has_one_title(visits: dict[str, Visit], name: str) -> None:
    assert visits[name].titles == 1


@pytest.mark.parametrize("name", names_of_pages())
def test_nothing_reaches_beyond_the_edge(visits: dict[str, Visit], name: str) -> None:
    assert visits[name].overflow == []


@pytest.mark.parametrize("name", names_of_pages())
def test_text_stands_out_from_its_background(visits: dict[str, Visit], name: str) -> None:
    light, dark = visits[name].schemes[:2]
    assert light != dark
    assert visits[name].contrast == []


@pytest.mark.parametrize("name", names_of_pages())
def test_axe_core_finds_nothing_serious(visits: dict[str, Visit], name: str) -> None:
    assert visits[name].axe == []


# ---- Interactive figures --------------------------------------------------------------------


def shown(page: Page, figure: str) -> tuple[str, str, str]:
    """What a reader sees: drawing, reading, and the words beside the last slider."""
    root = page.locator(f"#{figure}")
    drawing = root.locator("[data-drawing]").evaluate("part => part.textContent")
    return drawing, root.locator("[data-reading]").inner_text(), root.locator(
        "label span"
    ).last.inner_text()  # fmt: skip


def test_the_beta_slider_shows_the_values_that_python_computed(
    browser: Browser, site: Path
) -> None:
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

    page = browser.new_page()
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
    page.close()


def test_the_step_sliders_show_another_solution_and_the_truth(browser: Browser, site: Path) -> None:
    page = browser.new_page(has_touch=True)
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
    page.close()


def test_the_best_of_n_sliders_show_what_python_computed(browser: Browser, site: Path) -> None:
    """Votes are counted anew from the shipped rollouts; accuracies by the reward are those of the
    stored runs, within their tolerance; the score is that of the rewards that are shown."""
    rows, stored = load_rollouts("reasoner_full", "test"), load_result("best_of_n")
    draws = np.random.default_rng(0).permuted(candidate_grid(rows), axis=1)
    answers = np.array([answer and answer[1:] for answer in given_answers(rows)], dtype=object)
    problems = {rows["prompt"][draw[0]].strip(): answers[draw].tolist() for draw in draws}
    (run,) = (c for c in stored["cells"] if (c["part"], c.get("trained"), c.get("seed")) ==
              ("run", "reasoner_full", 0))  # fmt: skip
    trained = run["tested"]["reasoner_full"]

    page = browser.new_page()
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
    page.close()


def test_the_monte_carlo_sliders_show_what_python_computed(browser: Browser, site: Path) -> None:
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

    page = browser.new_page(has_touch=True)
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
    page.close()


def test_the_compute_sliders_show_what_python_computed(browser: Browser, site: Path) -> None:
    page = browser.new_page()
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
    page.close()


@pytest.mark.parametrize("script", [True, False])
def test_a_solution_opens_by_key_and_pointer_and_is_there_without_a_script(
    browser: Browser, site: Path, script: bool
) -> None:
    context = browser.new_context(java_script_enabled=script)
    page = context.new_page()
    page.goto((site / "notebooks" / "05_train_by_hand.html").as_uri())
    code = page.locator("#solution-exercise-05 .cell_input")
    if script:
        page.wait_for_selector("#solution-exercise-05 .toggle-button")
        assert not code.is_visible()
        page.locator("#solution-exercise-05 .toggle-button").press("Enter")
        assert code.is_visible()
        page.locator("#solution-exercise-05 .admonition-title").click()
    assert code.is_visible() != script
    context.close()


def explorers() -> dict[str, tuple[str, str]]:
    """The figures with sliders: name → the chapter that holds it, and its HTML there."""
    found = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", ()):
                html = output.get("data", {}).get("text/html", "")
                if match := re.search(r'class="implicitprm-figure" id="([\w-]+)"', html):
                    found[match[1]] = (path.stem, html)
    return found


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
def test_every_state_of_the_sliders_shows_its_frame(
    browser: Browser, site: Path, name: str
) -> None:
    chapter, html = explorers()[name]
    page = browser.new_page()
    page.goto((site / "notebooks" / f"{chapter}.html").as_uri())
    assert wrong_states(page, name, html) == []
    page.close()


@pytest.mark.parametrize("name", explorers())
@pytest.mark.parametrize(
    ("part", "broken"),
    [
        ("slider.valueAsNumber;\n", "0;\n"),
        ("frames[index][1]", "frames[0][1]"),
        ("numbers.map", "numbers.slice(1).map"),
        ("textContent = value", "title = value"),
    ],
)
def test_a_broken_script_is_found(
    browser: Browser, site: Path, tmp_path: Path, name: str, part: str, broken: str
) -> None:
    """The figure alone on a page; whole, and then with its script broken."""
    _, html = explorers()[name]
    path = tmp_path / "figure.html"
    page = browser.new_page()
    for script, right in ((html, True), (html.replace(part, broken), False)):
        path.write_text(f"<!doctype html><meta charset=utf-8>{script}", encoding="utf-8")
        page.goto(path.as_uri())
        assert (wrong_states(page, name, html) == []) == right
    page.close()


@pytest.mark.parametrize("name", explorers())
def test_a_figure_is_readable_without_its_script(browser: Browser, site: Path, name: str) -> None:
    chapter, html = explorers()[name]
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((site / "notebooks" / f"{chapter}.html").as_uri())
    figure = page.locator(f"#{name}")
    (reading,) = re.findall(r'role="status">([^<]*)<', html)
    assert unescape(reading) in figure.inner_text()
    assert figure.locator("circle").first.is_visible()
    assert not figure.locator("input").first.is_visible()
    context.close()


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


# ---- JupyterLab -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[str]:
    """The address of a JupyterLab, with settings of its own, on a notebook of the figures."""
    folder = tmp_path_factory.mktemp("lab")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    homes = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    environment = os.environ | {home: str(folder / home) for home in homes}
    outputs = [
        new_output("display_data", data={"text/html": html}) for _, html in explorers().values()
    ]
    notebook = new_notebook(cells=[new_code_cell("figures", outputs=outputs, execution_count=1)])
    # Or JupyterLab asks for a kernel first.
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, folder / "figures.ipynb")
    jupyter = [sys.executable, "-m", "jupyter"]
    subprocess.run([*jupyter, "trust", "figures.ipynb"], cwd=folder, env=environment, check=True)
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    options += ["--IdentityProvider.token=figures", "--LabApp.expose_app_in_browser=True"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [*jupyter, "lab", *options], cwd=folder, env=environment, stdout=log, stderr=log
        )
        try:
            yield f"http://127.0.0.1:{port}/lab/tree/figures.ipynb?token=figures"
        finally:
            server.kill()  # asked to stop, it can wait for a page that a failed test left open
            server.wait()


def open_lab(browser: Browser, address: str, patience: float = 120) -> Page:
    """A page with the notebook in JupyterLab, once the server answers."""
    page = browser.new_page(viewport=DESKTOP, reduced_motion="reduce")  # type: ignore[arg-type]
    page.set_default_timeout(60_000)
    deadline = time.monotonic() + patience
    while True:
        try:
            page.goto(address)
            break
        except Error:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
    page.wait_for_selector(".implicitprm-figure [data-ready]")
    return page


def test_in_jupyterlab_the_keys_move_the_sliders_and_both_themes_suit(
    browser: Browser, lab: str
) -> None:
    page = open_lab(browser, lab)
    for name in explorers():
        figure = page.locator(f"#{name}")
        slider = figure.locator("input").first
        before = slider.input_value()
        reading = figure.locator("[data-reading]").inner_text()
        slider.press("ArrowRight")
        assert slider.input_value() == str(int(before) + 1)
        assert figure.locator("[data-reading]").inner_text() != reading
    papers = set()
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        change = "name => jupyterapp.commands.execute('apputils:change-theme', {theme: name})"
        page.evaluate(change, theme)
        light = str(theme == "JupyterLab Light").lower()
        page.wait_for_selector(f'body[data-jp-theme-light="{light}"]', state="attached")
        for name in explorers():
            root = f"document.getElementById('{name}')"
            papers.add(page.evaluate(f"getComputedStyle({root}).backgroundColor"))
            walk = CONTRAST.replace("createTreeWalker(document.body", f"createTreeWalker({root}")
            assert page.evaluate(walk) == []
    assert len(papers) == 2
    page.close()


# ---- Links ----------------------------------------------------------------------------------


def dead_links(page: Page, links: set[str], anchors: dict[str, set[str]]) -> list[str]:
    """Links to files that do not exist, or to anchors that their page lacks."""
    dead = []
    for link in sorted(links):
        address, anchor = urldefrag(link)
        parts = urlsplit(address)
        if parts.scheme != "file":
            continue
        path = Path(url2pathname(parts.path))
        if not path.is_file():
            dead.append(link)
        elif anchor:
            if address not in anchors:
                page.goto(address)
                anchors[address] = names_on(page)
            if unquote(anchor) not in anchors[address]:
                dead.append(link)
    return dead


def test_links_and_their_anchors_lead_somewhere(
    visits: dict[str, Visit], browser: Browser, site: Path
) -> None:
    page = browser.new_page()
    anchors = {(site / name).as_uri(): found.anchors for name, found in visits.items()}
    dead = {name: dead_links(page, found.links, anchors) for name, found in visits.items()}
    page.close()
    assert {name: links for name, links in dead.items() if links} == {}
    assert sum(len(found.links) for found in visits.values()) > 100


# ---- The checks themselves ------------------------------------------------------------------

BROKEN = """<!doctype html><html><head><title>Broken</title></head><body><main><article>
<h1>One</h1><h1>Two</h1>
<img src="https://example.org/picture.png"><script>undefined.nothing</script>
<p style="color: #999; background: #fff">pale</p>
<div style="width: 900px; height: 9px; background: #000"></div>
<span class="math">left as it was</span>
<a id="here" href="#here">here</a> <a href="#nowhere">nowhere</a> <a href="missing.html">no</a>
</article></main></body></html>"""


def test_a_broken_page_is_found(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "broken.html"
    path.write_text(BROKEN, encoding="utf-8")
    found = visit(browser, path, patience=100)
    assert found.requests == ["https://example.org/picture.png"]
    assert any("undefined" in error for error in found.errors)
    assert len(found.formulas) == 1
    assert found.titles == 2
    assert [line.partition(":")[2] for line in found.overflow] == [" the page scrolls",
                                                                  " div. ends at 908"]  # fmt: skip
    assert {line.partition(": ")[2] for line in found.contrast} == {"2.85 p.: pale"}
    assert {line.partition(":")[0] for line in found.axe} >= {"image-alt", "html-has-lang"}
    page = browser.new_page()
    assert [link.rpartition("/")[2] for link in dead_links(page, found.links, {})] == [
        "broken.html#nowhere",
        "missing.html",
    ]
    page.close()


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail), (None, pytest.skip)])
def test_without_a_browser_the_tests_skip_and_in_ci_they_fail(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ci: str | None, outcome: Any
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    if ci:
        monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome.Exception, match="no browser is installed"):
        find_browser()
