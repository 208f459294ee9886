"""Predictions and self-checking exercises for chapters and sheets. Nothing leaves the computer."""

from implicitprm.classroom.checking import EXERCISES, CheckResult, check
from implicitprm.classroom.exercise import Exercise
from implicitprm.classroom.hints import HINTS, hint
from implicitprm.classroom.predictions import SIGNS, compare, predict, sign

__all__ = [
    "EXERCISES",
    "HINTS",
    "SIGNS",
    "CheckResult",
    "Exercise",
    "check",
    "compare",
    "hint",
    "predict",
    "sign",
]
