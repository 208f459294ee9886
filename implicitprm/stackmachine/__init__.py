"""A second world: programs of a small stack machine, with known truth of every instruction."""

from implicitprm.stackmachine.collect import load_programs
from implicitprm.stackmachine.machine import PROGRAM_FORMAT, behaviour, run
from implicitprm.stackmachine.pretrain import reasoner_path
from implicitprm.stackmachine.problems import Task, sample_task
from implicitprm.stackmachine.truth import ProgramTruth, check_program
from implicitprm.stackmachine.tutor import Tutor

__all__ = [
    "PROGRAM_FORMAT",
    "ProgramTruth",
    "Task",
    "Tutor",
    "behaviour",
    "check_program",
    "load_programs",
    "reasoner_path",
    "run",
    "sample_task",
]
