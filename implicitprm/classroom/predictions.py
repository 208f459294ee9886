"""Predictions: an answer recorded before a result is shown, and the result beside it.

Answers are forgotten with the kernel, unless the environment variable IMPLICITPRM_ANSWERS names a
file: then each one is also appended to it as a line of JSON. The file stays where its owner put it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

Answer = float | str | tuple[str, ...]
SIGNS = ("negative", "zero", "positive")


@dataclass(frozen=True)
class Prediction:
    """A recorded answer to one question, in a form that a result can be compared with."""

    question: str
    answer: Answer
    within: float | None

    def agrees_with(self, observed: Answer) -> bool:
        if self.within is not None:
            return abs(_number(observed) - _number(self.answer)) <= self.within
        return self.answer == observed


_predictions: dict[str, Prediction] = {}
_revealed: set[str] = set()  # keys whose result has been shown


def predict(
    key: str,
    question: str,
    answer: float | str | Sequence[str],
    *,
    among: Sequence[str] | None = None,
    within: float | None = None,
) -> None:
    """Record what you expect, before the cell that shows it runs. A later answer replaces it.

    Forms of an answer: a number, which counts as right ``within`` that distance; one of the
    choices ``among`` (``among=SIGNS`` for a sign); or an ordering of all of ``among``, smallest
    first, as a list.

    Raises ValueError where the answer has none of these forms.
    """
    recorded: Answer
    if isinstance(answer, str) and among is not None:
        if answer not in among:
            raise ValueError(f"{key}: {answer!r} is not a choice; choose one of {tuple(among)}")
        recorded = answer
    elif isinstance(answer, (list, tuple)) and among is not None:
        if sorted(answer) != sorted(among):
            raise ValueError(f"{key}: order all of {tuple(among)}, each once; got {tuple(answer)}")
        recorded = tuple(answer)
    elif isinstance(answer, (float, int, np.number)) and within is not None:
        recorded = _number(answer)
    else:
        raise ValueError(
            f"{key}: {answer!r} is no answer yet: give a number (with within=…), a choice or an "
            "ordering (with among=…)"
        )
    _predictions[key] = Prediction(question, recorded, within)
    late = " (after the result was shown)" if key in _revealed else ""
    _keep({"predict": key, "question": question, "answer": recorded, "late": bool(late)})
    print(f"{question}\nYou predict: {_shown(recorded)}{late}")


def compare(key: str, observed: float | str | Sequence[str]) -> None:
    """Print the result beside the prediction recorded under ``key``.

    Raises ValueError if none was recorded.
    """
    if key not in _predictions:
        raise ValueError(
            f"no prediction under {key!r}: run the cell with predict({key!r}, …) first"
        )
    prediction = _predictions[key]
    _revealed.add(key)
    result: Answer = (
        observed if isinstance(observed, (str, float, int, np.number)) else tuple(observed)
    )
    agrees = prediction.agrees_with(result)
    verdict = "as predicted" if agrees else "not as predicted"
    shown = result if isinstance(result, (str, tuple)) else _number(result)
    _keep({"compare": key, "observed": shown, "agrees": agrees})
    print(f"You predicted: {_shown(prediction.answer)}\nObserved: {_shown(result)} ({verdict})")


def _keep(entry: dict[str, Any]) -> None:
    """Append ``entry`` with the time to the learner's file, if there is to be one."""
    if path := os.environ.get("IMPLICITPRM_ANSWERS"):
        time = datetime.now(UTC).isoformat(timespec="seconds")
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": time} | entry, ensure_ascii=False) + "\n")


def sign(value: float, tolerance: float = 1e-9) -> str:
    """``value`` as one of SIGNS; within ``tolerance`` of 0 it is zero."""
    return SIGNS[1 + int(value > tolerance) - int(value < -tolerance)]


def _number(value: Answer) -> float:
    if isinstance(value, (str, tuple)) or not np.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)


def _shown(answer: Answer) -> str:
    if isinstance(answer, str):
        return answer
    return " < ".join(answer) if isinstance(answer, tuple) else f"{answer:.3g}"
