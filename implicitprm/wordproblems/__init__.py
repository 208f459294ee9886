"""Word problems for SmolLM2-135M, which was taught their form and makes its own errors."""

from implicitprm.wordproblems.collect import load_solutions
from implicitprm.wordproblems.pretrain import load_policy
from implicitprm.wordproblems.problems import WORD_FORMAT, right_arithmetic

__all__ = ["WORD_FORMAT", "load_policy", "load_solutions", "right_arithmetic"]
