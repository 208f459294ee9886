"""The most bytes that tensors held at once while something ran."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from live_memory import LiveMemory

Result = TypeVar("Result")


def peak_bytes(run: Callable[[], Result]) -> tuple[int, Result]:
    """How many bytes more than before tensors held at once while ``run`` ran, and its result.

    Counted where PyTorch makes and frees tensors, so it is exact and the same on every machine. The
    process's resident memory is not: on a machine short of memory the system takes pages of its
    libraries away meanwhile, and a peak looks smaller than the tensors in it.
    """
    with LiveMemory() as live:
        result = run()
    return live.peak, result
