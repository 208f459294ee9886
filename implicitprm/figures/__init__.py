"""The figures of the chapters: one function a figure, each returns a matplotlib Figure.

Titles state the finding and come from the caller, who has seen it. ``show`` puts a figure into a
notebook as one HTML image with its alt text, the only output format whose alt text JupyterLab,
nbconvert and Jupyter Book all keep. No pyplot, so no state between cells.
"""

from implicitprm.figures.chapter_00 import selection_curves, step_reward_bars
from implicitprm.figures.chapter_01 import nats_per_response, sigmoid_by_beta, token_reward_bars
from implicitprm.figures.chapter_02 import q_against_truth, q_tree
from implicitprm.figures.chapter_03 import beta_curve, monte_carlo_error
from implicitprm.figures.chapter_04 import FACT_STYLE, boundary_shifts, error_rates, token_map
from implicitprm.figures.chapter_05 import (
    emergence,
    loss_and_gradient,
    steps_over_updates,
    training_log,
)
from implicitprm.figures.chapter_06 import (
    OBJECTIVE_STYLE,
    objective_points,
    pulls,
    sweep_maps,
    vote_by_beta,
)
from implicitprm.figures.chapter_07 import (
    CURVE_STYLE,
    DROP_STYLE,
    alone_and_in_vote,
    curve_panels,
    drop_curves,
    headroom,
    noise_by_chance,
)
from implicitprm.figures.chapter_08 import (
    LABEL_STYLE,
    cost_against_accuracy,
    cost_ratios,
    label_accuracy,
    label_bias,
)
from implicitprm.figures.chapter_09 import (
    RESPONSE_STYLE,
    difference_points,
    pair_chance,
    scaling_curves,
)
from implicitprm.figures.chapter_10 import reading_maps
from implicitprm.figures.chapter_11 import JUDGE_STYLE, claimed_f1, judge_points, token_places
from implicitprm.figures.chapter_12 import ARM_STYLE, learning_curves
from implicitprm.figures.chapter_13 import MEMORY_STYLE, memory_bars
from implicitprm.figures.chapter_14 import SCORING_STYLE, SPLIT_STYLE, scoring_memory, split_f1
from implicitprm.figures.chapter_15 import ClaimsTable, claims_table, reference_sweep
from implicitprm.figures.picture import DOTS_PER_INCH, Picture, has_live_front_end, show
from implicitprm.figures.style import SELECTION_STYLE, STYLE

__all__ = [
    "ARM_STYLE",
    "CURVE_STYLE",
    "DOTS_PER_INCH",
    "DROP_STYLE",
    "FACT_STYLE",
    "JUDGE_STYLE",
    "LABEL_STYLE",
    "MEMORY_STYLE",
    "OBJECTIVE_STYLE",
    "RESPONSE_STYLE",
    "SCORING_STYLE",
    "SELECTION_STYLE",
    "SPLIT_STYLE",
    "STYLE",
    "ClaimsTable",
    "Picture",
    "alone_and_in_vote",
    "beta_curve",
    "boundary_shifts",
    "claimed_f1",
    "claims_table",
    "cost_against_accuracy",
    "cost_ratios",
    "curve_panels",
    "difference_points",
    "drop_curves",
    "emergence",
    "error_rates",
    "has_live_front_end",
    "headroom",
    "judge_points",
    "label_accuracy",
    "label_bias",
    "learning_curves",
    "loss_and_gradient",
    "memory_bars",
    "monte_carlo_error",
    "nats_per_response",
    "noise_by_chance",
    "objective_points",
    "pair_chance",
    "pulls",
    "q_against_truth",
    "q_tree",
    "reading_maps",
    "reference_sweep",
    "scaling_curves",
    "scoring_memory",
    "selection_curves",
    "show",
    "sigmoid_by_beta",
    "split_f1",
    "step_reward_bars",
    "steps_over_updates",
    "sweep_maps",
    "token_map",
    "token_places",
    "token_reward_bars",
    "training_log",
    "vote_by_beta",
]
