"""What an exercise is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Exercise:
    """A function to write: what it must equal, on which inputs, and what usually goes wrong.

    ``mistakes`` maps the message for a learner to a function that makes that mistake.
    """

    reference: Callable[..., Any]
    inputs: Callable[[np.random.Generator], tuple[Any, ...]]
    mistakes: Mapping[str, Callable[..., Any]]
    trials: int = 20


def in_either_precision(rng: np.random.Generator, values: np.ndarray) -> np.ndarray:
    """``values`` in float32 or float64, so that a submission works with both."""
    return values.astype(np.float32 if rng.random() < 0.5 else np.float64)
