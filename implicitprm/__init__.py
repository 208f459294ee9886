"""Implicit process reward models: step rewards from outcome labels (arXiv 2412.01981)."""

from implicitprm.rewards import ImplicitPRM, ScoredSolution
from implicitprm.steps import Solution, SolutionFormat
from implicitprm.training import ImplicitPRMConfig, ImplicitPRMTrainer

__all__ = [
    "ImplicitPRM",
    "ImplicitPRMConfig",
    "ImplicitPRMTrainer",
    "ScoredSolution",
    "Solution",
    "SolutionFormat",
]
