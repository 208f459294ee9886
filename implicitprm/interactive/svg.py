"""The two SVG elements that every explorer draws with."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def text(x: float, y: float, content: str, anchor: str = "start") -> str:
    where = "" if anchor == "start" else f" text-anchor='{anchor}'"
    return f"<text x='{x:.0f}' y='{y:.0f}'{where}>{escape(content)}</text>"


def line(points: Sequence[tuple[float, float]], color: str, width: float, dash: str = "") -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashes = f" stroke-dasharray='{dash}'" if dash else ""
    return (
        f"<polyline points='{path}' fill='none' stroke='{color}' stroke-width='{width}'{dashes}/>"
    )
