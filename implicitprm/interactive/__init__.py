"""Figures that a reader moves: sliders over drawings that Python computed beforehand.

They are HTML with inline SVG and a script that computes nothing: each state of the sliders is a
frame, a drawing and its reading in words, and the script shows the frame that the sliders point at.
So they work in JupyterLab, on a static page and from a file, show their first frame where no script
runs, and are the same bytes every time. Mouse, touch and arrow keys move a slider.
"""

from implicitprm.interactive.best_of_n import (
    CHOSEN_BY,
    TRUNCATED,
    Candidate,
    best_of_n_explorer,
)
from implicitprm.interactive.beta import beta_explorer
from implicitprm.interactive.compute import compute_explorer
from implicitprm.interactive.figure import Control, Frame, Interactive
from implicitprm.interactive.monte_carlo import SampledSteps, monte_carlo_explorer
from implicitprm.interactive.step_rewards import step_reward_explorer

__all__ = [
    "CHOSEN_BY",
    "TRUNCATED",
    "Candidate",
    "Control",
    "Frame",
    "Interactive",
    "SampledSteps",
    "best_of_n_explorer",
    "beta_explorer",
    "compute_explorer",
    "monte_carlo_explorer",
    "step_reward_explorer",
]
