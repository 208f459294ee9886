"""AutoPSV's step labels: where an outcome verifier loses its confidence (arXiv 2405.16802).

A verifier is trained on the outcome at every step, so that f(S^{1:t}) estimates the chance that the
solution will come out right. The relative change of its confidence from one step to the next,
Δ^t = (f^t − f^{t−1}) / f^{t−1}, says what the step did; where it falls below a threshold, the step
is labelled wrong, and so is all that follows. The authors use −0.5.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: The relative change of confidence below which a step is labelled wrong: more than half is lost.
THRESHOLD = -0.5


def relative_changes(confidence: npt.ArrayLike, prior: float) -> npt.NDArray[np.float64]:
    """Δ^t of each step: (S) confidences in (0, 1] → (S).

    The paper has no change before the first step; ``prior``, the share of right solutions, stands
    for the confidence there, so that a first step can be found wrong too.
    """
    after = np.asarray(confidence, dtype=float)
    if after.ndim != 1 or after.size == 0:
        raise ValueError(f"confidence must be (S,) with S >= 1, got shape {after.shape}")
    before = np.concatenate([[prior], after[:-1]])
    if not ((before > 0) & (before <= 1)).all() or not ((after >= 0) & (after <= 1)).all():
        raise ValueError("confidences and prior must be probabilities, and not 0 before a step")
    return (after - before) / before


def autopsv_labels(
    confidence: npt.ArrayLike, prior: float, threshold: float = THRESHOLD
) -> npt.NDArray[np.bool_]:
    """True up to the first step whose confidence changes by less than ``threshold``: (S) → (S)."""
    if not -1 < threshold < 0:
        raise ValueError(f"threshold {threshold} must lie between -1 and 0: it is a relative loss")
    fallen = relative_changes(confidence, prior) < threshold
    return ~np.logical_or.accumulate(fallen)
