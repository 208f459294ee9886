"""The README's pictures of the book: ``make screenshots``."""

from __future__ import annotations

import io
from pathlib import Path

from book_build import ROOT
from browsing import desktop_page, open_browser, show_scheme
from PIL import Image
from playwright.sync_api import Browser

STATIC = ROOT / "book" / "_static"
#: File → the page, the figure in its middle, how its sliders are moved, and the colour scheme.
PICTURES = {
    "book_steps.png": ("00_start_here", "step-reward-explorer", ("", "ArrowRight"), "light"),
    "book_best_of_n.png": ("07_best_of_n", "best-of-n-explorer", ("ArrowRight", "End"), "dark"),
}


def take(browser: Browser, site: Path, name: str) -> bytes:
    """One of PICTURES as PNG with 256 colours."""
    chapter, figure, keys, scheme = PICTURES[name]
    page = desktop_page(browser)
    page.goto((site / "notebooks" / f"{chapter}.html").as_uri())
    show_scheme(page, scheme)
    for slider, key in zip(page.locator(f"#{figure} input").all(), keys, strict=False):
        if key:
            slider.press(key)
    page.evaluate("name => document.getElementById(name).scrollIntoView({block: 'center'})", figure)
    page.evaluate("document.activeElement.blur()")  # the ring of the keyboard's focus
    drawn = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    page.close()
    stored = io.BytesIO()
    drawn.quantize(256, dither=Image.Dither.NONE).save(stored, "PNG", optimize=True)
    return stored.getvalue()


def main() -> None:
    with open_browser() as browser:
        for name in PICTURES:
            (STATIC / name).write_bytes(take(browser, ROOT / "book" / "_build" / "html", name))


if __name__ == "__main__":
    main()
