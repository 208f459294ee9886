"""Contenders that take turns, and how their times are printed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence


def alternate(
    contenders: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, list[float]]:
    """Seconds of each contender, by rounds in which each has one turn, after one to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, contender in contenders.items():
            began = time.perf_counter()
            contender()
            if number:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def median_and_range(values: Sequence[float], form: str = ".2f") -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def ratio(over: Sequence[float], under: Sequence[float]) -> str:
    """Round by round: what disturbs a round disturbs both of its turns."""
    return median_and_range([a / b for a, b in zip(over, under, strict=True)])
