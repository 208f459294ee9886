"""The browser of the book's tests, and what is asked of a page in it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import nbformat
import pytest
from book_build import ROOT
from playwright.sync_api import Browser, Page, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
#: No sandbox, since containers run as root; nothing that chromium does on its own account.
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}

#: Text whose contrast with its background is below what WCAG AA asks of it: 4.5, or 3 where large.
#: Elements of the same colours and size are one entry; of the words of code one of each kind is
#: measured. Backgrounds are flattened over ancestors; text on an image is left out.
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
  const opacities = new Map();
  const opacity = element => {
    if (!element) return 1;
    if (!opacities.has(element)) {
      const own = Number(getComputedStyle(element).opacity);
      opacities.set(element, own * opacity(element.parentElement));
    }
    return opacities.get(element);
  };
  const found = new Map(), words = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), element = walker.currentNode.parentElement;
    if (!text || element.closest('script, style, noscript, mjx-assistive-mml, :disabled')) continue;
    const word = element.matches('.highlight span') && element.className + background(element);
    if (words.has(word)) continue;
    const box = element.getBoundingClientRect();
    if (box.width < 2 || box.height < 2) continue;
    if (!element.checkVisibility({visibilityProperty: true, opacityProperty: true})) continue;
    const style = getComputedStyle(element), behind = background(element);
    if (!behind) continue;
    if (word) words.add(word);
    const colour = [...rgba(element.closest('svg') ? style.fill : style.color)];
    colour[3] *= opacity(element);
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


def find_browser() -> str:
    """The path of a browser; without one the test is skipped, or fails where CI is set."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        reason = f"no browser is installed, none of {', '.join(BROWSERS)}"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}; in CI the pages must be seen")
        pytest.skip(reason)
    return executable


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A browser, for the thread that opens it only."""
    executable = find_browser()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield browser
        browser.close()


def desktop_page(browser: Browser) -> Page:
    """A page of desktop width on which nothing glides."""
    return browser.new_page(viewport=DESKTOP, reduced_motion="reduce")  # type: ignore[arg-type]


def show_scheme(page: Page, scheme: str) -> None:
    """The page in ``light`` or ``dark``, as the theme's own switch would set it."""
    page.evaluate("scheme => { document.documentElement.dataset.theme = scheme }", scheme)


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
