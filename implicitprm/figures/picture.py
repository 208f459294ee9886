"""A figure in a notebook: one HTML image with its alt text; and whether somebody sits before it."""

from __future__ import annotations

import base64
import io
import sys
from dataclasses import dataclass
from html import escape

from matplotlib.figure import Figure
from PIL import Image

DOTS_PER_INCH = 144


@dataclass(frozen=True)
class Picture:
    """A figure with its alt text; the last line of a notebook cell shows it."""

    figure: Figure
    alt: str

    def png(self) -> bytes:
        """The figure as a PNG of 256 colours."""
        drawn, stored = io.BytesIO(), io.BytesIO()
        self.figure.savefig(drawn, dpi=DOTS_PER_INCH)
        # 256 colours are a third of the bytes, and none of the difference can be seen.
        image = Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        image.save(stored, "PNG", optimize=True)
        return stored.getvalue()

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.png()).decode()
        width = round(self.figure.get_figwidth() * 100)
        return (
            f'<img src="data:image/png;base64,{data}" alt="{escape(self.alt)}" '
            f'width="{width}" style="max-width: 100%; height: auto">'
        )

    def __repr__(self) -> str:
        return self.alt


def show(figure: Figure, alt: str) -> Picture:
    """Show ``figure`` in a notebook; ``alt`` says in words what one sees in it.

    Raises ValueError without an alt text.
    """
    if not alt.strip():
        raise ValueError("a figure needs an alt text: say in words what it shows")
    return Picture(figure, alt)


def has_live_front_end() -> bool:
    """Whether someone sits before the notebook whose cell is running.

    JupyterLab and other front-ends say with every cell that they can ask for input (``allow_stdin``
    of the Jupyter protocol); nbconvert and nbval, which run a notebook unattended, say that they
    cannot. A cell that shows a widget asks this first, because a stored widget brings random ids
    into the notebook and is dead on a page.
    """
    if "IPython" not in sys.modules:
        return False
    kernel = getattr(sys.modules["IPython"].get_ipython(), "kernel", None)
    return kernel is not None and bool(kernel.get_parent()["content"].get("allow_stdin"))
