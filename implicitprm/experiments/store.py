"""Result files: what was measured, with everything needed to measure it again."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from implicitprm.evaluation import Interval

PACKAGES = ("torch", "transformers", "numpy", "scikit-learn")


def result_path(name: str) -> Path:
    return Path(str(files("implicitprm.experiments"))) / "results" / f"{name}.json"


def config_hash(config: Mapping[str, Any]) -> str:
    """Twelve hex digits that change with any value of a configuration."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]


def file_hash(path: Path) -> str:
    """Twelve hex digits that change with the content of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def save_result(
    name: str,
    command: str,
    config: Mapping[str, Any],
    cells: list[dict[str, Any]],
    tolerance: float | Mapping[str, float],
    seconds: float,
) -> None:
    """Write a result file with its provenance.

    ``tolerance`` is how far a cell may be from its recomputation on another machine, in the units
    of the cells, one for all or by name; measure it, for example with another number of threads.
    """
    result = {
        "command": command,
        "config": config,
        "config_hash": config_hash(config),
        "versions": {package: version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "seconds": round(seconds),
        "tolerance": tolerance,
        "cells": cells,
    }
    path = result_path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(_as_text(result), encoding="utf-8")


def _as_text(result: dict[str, Any]) -> str:
    """JSON with one cell a line, so that a change of a cell is a change of a line."""
    head = json.dumps({k: v for k, v in result.items() if k != "cells"}, indent=1)
    cells = ",\n".join(json.dumps(cell, ensure_ascii=False) for cell in result["cells"])
    return f'{head.removesuffix(chr(10) + "}")},\n "cells": [\n{cells}\n ]\n}}\n'


def load_result(name: str) -> dict[str, Any]:
    """Read a result file. Raises ValueError where its configuration was changed by hand."""
    result = json.loads(result_path(name).read_text(encoding="utf-8"))
    if config_hash(result["config"]) != result["config_hash"]:
        raise ValueError(f"the configuration in {name}.json does not fit its hash; remake the file")
    return result


def rounded(interval: Interval, digits: int = 2) -> list[float]:
    """Value, low and high end of an interval, as result files keep it."""
    return [round(float(x), digits) for x in (interval.value, interval.low, interval.high)]
