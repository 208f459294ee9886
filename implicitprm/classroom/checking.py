"""A learner's function against the reference, on fresh random inputs.

Where the two differ, `check` looks for a known mistake that gives the same wrong outputs, and names
it without the solution.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from implicitprm.classroom import chapters, sheets
from implicitprm.classroom.exercise import Exercise

#: Every exercise by the name of the function that the learner writes.
EXERCISES: dict[str, Exercise] = chapters.EXERCISES | sheets.EXERCISES


@dataclass(frozen=True)
class CheckResult:
    """Whether a submission passed, and what to tell the learner; true where it passed."""

    passed: bool
    message: str

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        return self.message


def check(name: str, submission: Callable[..., Any]) -> CheckResult:
    """Run ``submission`` against the exercise ``name`` of EXERCISES on fresh random inputs.

    Raises ValueError for an unknown name.
    """
    if name not in EXERCISES:
        raise ValueError(f"no exercise {name!r}; there are {', '.join(EXERCISES)}")
    exercise = EXERCISES[name]
    rng = np.random.default_rng()
    inputs = [exercise.inputs(rng) for _ in range(exercise.trials)]
    outputs = []
    for arguments in inputs:
        try:
            # A copy, so that a submission that works in place does not spoil the comparison.
            # Without warnings: nbgrader takes a cell that writes to stderr for failed.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                output = submission(*copy.deepcopy(arguments))
        except NotImplementedError:
            return _failed(name, "it is not written yet")
        except Exception as error:
            return _failed(name, f"{type(error).__name__} on {_shapes(arguments)}: {error}")
        if output is None:
            return _failed(name, "it returns None; is there a return at its end?")
        outputs.append(output)
    expected = [exercise.reference(*arguments) for arguments in inputs]
    if _all_equal(outputs, expected):
        return CheckResult(True, f"{name}: right on {len(inputs)} random inputs")
    for message, mistake in exercise.mistakes.items():
        with np.errstate(all="ignore"):
            if _all_equal(outputs, (mistake(*arguments) for arguments in inputs)):
                return _failed(name, message)
    for arguments, output, wanted in zip(inputs, outputs, expected, strict=True):
        if isinstance(wanted, str) != isinstance(output, str):
            return _failed(
                name, f"it returns a {type(output).__name__}, not a {type(wanted).__name__}"
            )
        if np.shape(_array(output)) != np.shape(_array(wanted)):
            return _failed(
                name,
                f"on {_shapes(arguments)} it returns shape {np.shape(_array(output))}, "
                f"expected {np.shape(_array(wanted))}",
            )
    if any(
        _finite(wanted) > _finite(output) for output, wanted in zip(outputs, expected, strict=True)
    ):
        return _failed(name, "some of its results are infinite or NaN where they should not be")
    wrong = sum(not _equal(o, e) for o, e in zip(outputs, expected, strict=True))
    return _failed(
        name,
        f"wrong on {wrong} of {len(inputs)} random inputs, in no way that this check knows; try it "
        "by hand on the smallest input you can think of",
    )


def _failed(name: str, reason: str) -> CheckResult:
    return CheckResult(False, f"{name}: not yet: {reason}")


def _array(value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy()
    return np.asarray(value)


def _equal(left: Any, right: Any) -> bool:
    a, b = _array(left), _array(right)
    if a.shape != b.shape:
        return False
    if not (np.issubdtype(a.dtype, np.number) and np.issubdtype(b.dtype, np.number)):
        return bool(np.all(a == b))
    return bool(np.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True))


def _all_equal(left: Iterable[Any], right: Iterable[Any]) -> bool:
    return all(_equal(a, b) for a, b in zip(left, right, strict=True))


def _finite(value: Any) -> bool:
    array = _array(value)
    return not np.issubdtype(array.dtype, np.number) or bool(np.isfinite(array).all())


def _shapes(arguments: Sequence[Any]) -> str:
    described = [
        f"a list of {len(a)}" if isinstance(a, list) else f"shape {np.shape(_array(a))}"
        for a in arguments
    ]
    return f"inputs ({', '.join(described)})"
