"""The pages of the book in a browser, opened as files: what a reader meets on them.

Each page is visited once, in both colour schemes and at two widths; the tests ask the visit.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit
from urllib.request import url2pathname

import pytest
import yaml
from axe_playwright_python.base import AXE_SCRIPT
from book_build import ROOT
from browsing import (
    CONTRAST,
    DESKTOP,
    PHONE,
    desktop_page,
    find_browser,
    open_browser,
    show_scheme,
)
from playwright.sync_api import Browser, Page, TimeoutError
from test_book import listed_files

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def names_of_pages() -> list[str]:
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8"))
    return [f"{name}.html" for name in (toc["root"], *listed_files(toc))]


# ---- What is measured on a page -------------------------------------------------------------

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

#: Code, outputs and formulas that a reader of a wide page has to scroll sideways.
CUT = """() => [...document.querySelectorAll(
  '.cell pre, div.highlight pre, .cell_output .text_html, div.math')]
  .filter(box => box.scrollWidth > box.clientWidth + 1)
  .map(box => `${box.scrollWidth} of ${box.clientWidth}: ${box.textContent.trim().slice(0, 60)}`)
"""

FORMULAS_ARE_DONE = """() => document.querySelectorAll('mjx-container').length
  >= document.querySelectorAll('span.math, div.math').length"""

#: Code as plain text: axe-core looks at each coloured word of it, two thirds of a page's elements.
PLAIN_CODE = """() => {
  for (const code of document.querySelectorAll('.highlight pre')) code.textContent = code.innerText;
}"""

#: axe-core asks the browser what lies under each piece of text, a minute for a page with much code;
#: CONTRAST measures the same from computed styles. `region` takes a quarter of the rest, and finds
#: nothing that counts as serious.
AXE = """() => axe.run(document, {
  preload: false,  // of style sheets, for rules that are not among the serious ones
  resultTypes: ['violations'],
  rules: {
    'color-contrast': {enabled: false}, region: {enabled: false}, 'target-size': {enabled: true},
  },
}).then(result => result.violations
  .filter(violation => ['serious', 'critical'].includes(violation.impact))
  .map(violation => `${violation.id}: ${violation.nodes.map(node => node.target).join('; ')}`))"""
#: Every page is shown to axe-core as on a phone, where it has least room. What the theme shows on a
#: wide one only, the contents at both sides, is alike on all: these pages stand for them.
AXE_WIDE = ("intro.html", "00_start_here.html", "rewards.html")


@dataclass
class Visit:
    """What one page did: each list holds problems, in words."""

    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    formulas: list[str] = field(default_factory=list)
    overflow: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    contrast: list[str] = field(default_factory=list)
    axe: list[str] = field(default_factory=list)
    titles: int = 0
    schemes: list[str] = field(default_factory=list)
    #: Addresses of links, and the names that links to this page may end with.
    links: set[str] = field(default_factory=set)
    anchors: set[str] = field(default_factory=set)

    def listen(self, page: Page) -> dict[str, Any]:
        """Note what ``page`` requests and reports; the listeners, to be removed in the end."""

        def note_request(request: Any) -> None:
            if not request.url.startswith(("file:", "data:", "blob:")):
                self.requests.append(request.url)

        def note_message(message: Any) -> None:
            if message.type == "error":
                self.errors.append(message.text)

        def note_error(error: Any) -> None:
            self.errors.append(str(error))

        listeners = {"request": note_request, "console": note_message, "pageerror": note_error}
        for event, listener in listeners.items():
            page.on(event, listener)  # type: ignore[call-overload]
        return listeners


def names_on(page: Page) -> set[str]:
    return set(page.eval_on_selector_all("[id]", "elements => elements.map(e => e.id)"))


def resize(page: Page, size: dict[str, int]) -> None:
    if page.viewport_size != size:
        page.set_viewport_size(size)  # type: ignore[arg-type]
        page.wait_for_timeout(400)  # the theme and the book react with a delay


def visit(page: Page, path: Path, patience: int = 60_000) -> Visit:
    """Measure a page in both schemes, at both widths; formulas have ``patience`` milliseconds."""
    found = Visit()
    page.goto("about:blank")  # or the page before would be laid out anew
    page.set_viewport_size(DESKTOP)  # type: ignore[arg-type]
    listeners = found.listen(page)
    page.goto(path.as_uri(), wait_until="load")
    try:
        page.wait_for_function(FORMULAS_ARE_DONE, timeout=patience)
    except TimeoutError as error:
        found.formulas.append(f"not all rendered: {error}")
    found.formulas += page.locator("mjx-merror").all_text_contents()
    found.titles = page.locator("article h1").count()
    found.links = set(page.eval_on_selector_all("a[href]", "links => links.map(link => link.href)"))
    found.anchors = names_on(page)
    found.cut = page.evaluate(CUT)
    for size in (DESKTOP, PHONE):
        resize(page, size)
        found.overflow += [f"{size['width']}: {text}" for text in page.evaluate(OVERFLOW)]
        for scheme in ("light", "dark"):
            show_scheme(page, scheme)
            text = page.evaluate(CONTRAST)
            found.contrast += [f"{size['width']}, {scheme}: {line}" for line in text]
            body = "getComputedStyle(document.body).backgroundColor"
            found.schemes.append(page.evaluate(body))
    page.evaluate(PLAIN_CODE)
    page.evaluate(AXE_SCRIPT)
    found.axe += page.evaluate(AXE)
    if path.name in AXE_WIDE:
        resize(page, DESKTOP)
        found.axe += page.evaluate(AXE)
    for event, listener in listeners.items():
        page.remove_listener(event, listener)
    return found


def visit_all(site: Path, names: Sequence[str]) -> dict[str, Visit]:
    """The pages one after the other on one page of a new browser, which reaches no host."""
    with open_browser() as browser:
        page = desktop_page(browser)
        page.route("http*://**", lambda route: route.abort())
        return {name: visit(page, site / name) for name in names}


@pytest.fixture(scope="module")
def visits(site: Path) -> dict[str, Visit]:
    """Every page, by three browsers side by side: a part of a visit is waiting."""
    names = names_of_pages()
    with ThreadPoolExecutor(3) as pool:
        parts = pool.map(partial(visit_all, site), (names[i::3] for i in range(3)))
        return {name: found for part in parts for name, found in part.items()}


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
def test_a_wide_page_shows_code_and_outputs_whole(visits: dict[str, Visit], name: str) -> None:
    assert visits[name].cut == []


@pytest.mark.parametrize("name", names_of_pages())
def test_text_stands_out_from_its_background(visits: dict[str, Visit], name: str) -> None:
    light, dark = visits[name].schemes[:2]
    assert light != dark
    assert visits[name].contrast == []


@pytest.mark.parametrize("name", names_of_pages())
def test_axe_core_finds_nothing_serious(visits: dict[str, Visit], name: str) -> None:
    assert visits[name].axe == []


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


def test_the_pages_that_axe_core_sees_wide_exist() -> None:
    assert set(AXE_WIDE) <= {Path(name).name for name in names_of_pages()}


BROKEN = """<!doctype html><html><head><title>Broken</title></head><body><main><article>
<h1>One</h1><h1>Two</h1>
<img src="https://example.org/picture.png"><script>undefined.nothing</script>
<p style="color: #999; background: #fff">pale</p>
<div style="width: 900px; height: 9px; background: #000"></div>
<div class="highlight"><pre style="width: 9em; overflow: auto">a_name_that_is_too_long
<span class="k">dark</span><span class="n" style="color: #999; background: #fff">pale</span>
</pre></div>
<span class="math">left as it was</span>
<a id="here" href="#here">here</a> <a href="#nowhere">nowhere</a> <a href="missing.html">no</a>
</article></main></body></html>"""


def test_a_broken_page_is_found(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "broken.html"
    path.write_text(BROKEN, encoding="utf-8")
    page = desktop_page(browser)
    page.route("http*://**", lambda route: route.abort())
    found = visit(page, path, patience=100)
    assert found.requests == ["https://example.org/picture.png"]
    assert any("undefined" in error for error in found.errors)
    assert len(found.formulas) == 1
    assert found.titles == 2
    assert [line.partition(":")[2] for line in found.overflow] == [" the page scrolls",
                                                                  " div. ends at 908"]  # fmt: skip
    assert [line.partition(": ")[2] for line in found.cut] == ["a_name_that_is_too_long\ndarkpale"]
    pale = {line.partition(": ")[2] for line in found.contrast}
    assert pale == {"2.85 p.: pale", "2.85 span.n: pale"}
    assert {line.partition(":")[0] for line in found.axe} >= {"image-alt", "html-has-lang"}
    assert [link.rpartition("/")[2] for link in dead_links(page, found.links, {})] == [
        "broken.html#nowhere",
        "missing.html",
    ]
    # The next visit on the same page is not blamed for it.
    path.write_text("<!doctype html><html lang=en><title>Whole</title><h1>One</h1></html>")
    whole = visit(page, path)
    page.close()
    assert (whole.requests, whole.errors, whole.axe) == ([], [], [])


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
