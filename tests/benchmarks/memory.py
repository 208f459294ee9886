"""Peak memory of a piece of code in this process, as Linux counts it."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")
STATUS = Path("/proc/self/status")


def peak_bytes(run: Callable[[], Result]) -> tuple[int, Result]:
    """How many bytes more than before were resident at once while ``run`` ran, and its result.

    Not ``resource.getrusage``: its maximum is never reset, and a child begins with its parent's.
    """
    ctypes.CDLL(None).malloc_trim(0)  # or memory that was freed before would be used again unseen
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak so far
    result = run()
    return _resident("VmHWM") - before, result


def _resident(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text(encoding="ascii"))
    assert found is not None
    return 1024 * int(found[1])
