"""The browser of the book's tests, and the pictures for the README: ``make screenshots``."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import pytest
from book_build import ROOT
from PIL import Image
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

STATIC = ROOT / "book" / "_static"
#: File → the page, the figure in its middle, how its sliders are moved, and the colour scheme.
PICTURES = {
    "book_steps.png": ("00_start_here", "step-reward-explorer", ("", "ArrowRight"), "light"),
    "book_best_of_n.png": ("07_best_of_n", "best-of-n-explorer", ("ArrowRight", "End"), "dark"),
}


def find_browser() -> str:
    """The path of a browser; without one the test is skipped, or fails where CI is set."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        reason = f"no browser is installed, none of {', '.join(BROWSERS)}"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}; in CI the pages must be seen")
        pytest.skip(reason)
    return executable


def show_scheme(page: Page, scheme: str) -> None:
    """The page in ``light`` or ``dark``, as the theme's own switch would set it."""
    page.evaluate("scheme => { document.documentElement.dataset.theme = scheme }", scheme)


def take(browser: Browser, site: Path, name: str) -> bytes:
    """One of PICTURES as PNG with 256 colours."""
    chapter, figure, keys, scheme = PICTURES[name]
    page = browser.new_page(viewport=DESKTOP, reduced_motion="reduce")  # type: ignore[arg-type]
    page.goto((site / "notebooks" / f"{chapter}.html").as_uri())
    show_scheme(page, scheme)
    for slider, key in zip(page.locator(f"#{figure} input").all(), keys, strict=False):
        if key:
            slider.press(key)
    page.evaluate("name => document.getElementById(name).scrollIntoView({block: 'center'})", figure)
    drawn = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    page.close()
    stored = io.BytesIO()
    drawn.quantize(256, dither=Image.Dither.NONE).save(stored, "PNG", optimize=True)
    return stored.getvalue()


def main() -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=ARGUMENTS)
        for name in PICTURES:
            (STATIC / name).write_bytes(take(browser, ROOT / "book" / "_build" / "html", name))
        browser.close()


if __name__ == "__main__":
    main()
