"""Objectives: pure functions of rewards.

Every loss takes implicit rewards r = β × summed log-ratio, in which β is already contained, and
returns a scalar. ``weights`` (B) count an instance several times: the loss of a data set with
weights is the loss of the data set in which each row is repeated as often.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def ce_loss(rewards: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy on outcomes, −[l log σ(r) + (1 − l) log σ(−r)] (arXiv 2412.01981, Eq. 5).

    ``rewards`` (B), ``labels`` (B) bool or 0/1. The paper prints the equation without its minus.
    """
    signs = labels.to(rewards.dtype) * 2 - 1
    return _mean(-F.logsigmoid(signs * rewards), weights)


def dpo_loss(
    chosen_rewards: Tensor, rejected_rewards: Tensor, weights: Tensor | None = None
) -> Tensor:
    """−log σ(r_w − r_l) over pairs (B) (DPO, arXiv 2305.18290)."""
    return _mean(-F.logsigmoid(chosen_rewards - rejected_rewards), weights)


def nca_loss(
    chosen_rewards: Tensor, rejected_rewards: Tensor, weights: Tensor | None = None
) -> Tensor:
    """−log σ(r_w) − ½ log σ(−r_w) − ½ log σ(−r_l) over pairs (B) (NCA, arXiv 2402.05369)."""
    per_pair = (
        -F.logsigmoid(chosen_rewards)
        - 0.5 * F.logsigmoid(-chosen_rewards)
        - 0.5 * F.logsigmoid(-rejected_rewards)
    )
    return _mean(per_pair, weights)


def kto_loss(
    rewards: Tensor, labels: Tensor, reference_point: Tensor, weights: Tensor | None = None
) -> Tensor:
    """1 − σ(r − z) for right and 1 − σ(z − r) for wrong responses (B) (KTO, arXiv 2402.01306).

    ``reference_point`` z () comes from :func:`kto_reference_point`. The paper's λ_D and λ_U, which
    count right and wrong responses differently, are ``weights`` here as everywhere.
    """
    signs = labels.to(rewards.dtype) * 2 - 1
    return _mean(1 - (signs * (rewards - reference_point)).sigmoid(), weights)


def kto_reference_point(mismatched_rewards: Tensor, weights: Tensor | None = None) -> Tensor:
    """z = max(0, mean reward), without gradient: β times an estimate of KL(π_θ‖π_ref); ().

    ``mismatched_rewards`` (M) are those of responses under prompts that they do not belong to;
    under several processes those of all of them.
    """
    return _mean(mismatched_rewards, weights).clamp(min=0).detach()


def step_label_loss(
    step_rewards: Tensor, step_labels: Tensor, step_mask: Tensor, weights: Tensor | None = None
) -> Tensor:
    """−(1/n) Σ_t [l_t log σ(r_t) + (1 − l_t) log σ(−r_t)] over the n steps of each response.

    The paper's stage 2 (arXiv 2412.01981, §5.3) for labels 0 and 1; a soft label is a probability.
    ``step_rewards``, ``step_labels`` (0 to 1) and ``step_mask`` (bool) are (B, S); a row needs at
    least one step. The mean is over steps first and over responses second.
    """
    mask = step_mask.to(step_rewards.dtype)
    if (mask.sum(-1) == 0).any():
        raise ValueError("a response in the batch has no step")
    labels = step_labels.to(step_rewards.dtype)
    per_step = -(labels * F.logsigmoid(step_rewards) + (1 - labels) * F.logsigmoid(-step_rewards))
    return _mean((per_step * mask).sum(-1) / mask.sum(-1), weights)


def _mean(losses: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return losses.mean()
    return (weights * losses).sum() / weights.sum()
