"""The miniature: a reasoning world small enough for two CPU cores, with known step truth."""

from implicitprm.arithmetic.collect import load_rollouts
from implicitprm.arithmetic.problems import (
    ARITHMETIC_FORMAT,
    Fact,
    Problem,
    SolutionTruth,
    check_solution,
    sample_problem,
)
from implicitprm.arithmetic.reasoner import checkpoint_path
from implicitprm.arithmetic.split import unseen_facts
from implicitprm.arithmetic.tutor import Tutor

__all__ = [
    "ARITHMETIC_FORMAT",
    "Fact",
    "Problem",
    "SolutionTruth",
    "Tutor",
    "check_solution",
    "checkpoint_path",
    "load_rollouts",
    "sample_problem",
    "unseen_facts",
]
