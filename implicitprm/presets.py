"""Settings for a model, as plain data in ``presets.toml``: ``implicitprm train --preset NAME``."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from transformers import AutoConfig, PretrainedConfig

_PACKAGE = files("implicitprm")


@dataclass(frozen=True)
class Preset:
    """A training run; ``presets.toml`` says what its parts are."""

    options: dict[str, Any]
    architecture: dict[str, Any]
    processes: int


def _read() -> dict[str, Preset]:
    presets = tomllib.loads((_PACKAGE / "presets.toml").read_text(encoding="utf-8"))
    for preset in presets.values():
        for name, value in preset["options"].items():
            if isinstance(value, str) and value.startswith("package:"):
                preset["options"][name] = str(_PACKAGE / value.removeprefix("package:"))
    return {name: Preset(**preset) for name, preset in presets.items()}


PRESETS = _read()


def find_preset(name: str) -> Preset:
    """The preset of a name. Raises ValueError, which names those there are, for another."""
    if name not in PRESETS:
        raise ValueError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def model_config(policy: str) -> PretrainedConfig:
    """The configuration of a model: a preset's own data, so without a network; else loaded."""
    for preset in PRESETS.values():
        if preset.options["policy"] == policy:
            return AutoConfig.for_model(**preset.architecture)
    return AutoConfig.from_pretrained(policy)
