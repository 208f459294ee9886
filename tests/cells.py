"""A cell that a test of the grid runs in processes of their own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def square(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Counts its calls in a file; fails on a negative number."""
    with Path(os.environ["CALLS"]).open("a") as file:
        file.write(f"{cell['x']}\n")
    if cell["x"] < 0:
        raise ValueError("negative")
    return {"square": cell["x"] ** 2, "pair": [1.5, cell["x"]]}
