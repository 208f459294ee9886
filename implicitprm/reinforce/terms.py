"""The terms of the policy update, each a pure function.

B = G·K responses, the K responses to one prompt next to each other; a *unit* of a response is a
token or a step, and a response of fewer than U units is padded on the right. R is the number of
tokens of the longest response. No function has a gradient except the losses.
"""

from __future__ import annotations

import torch
from torch import Tensor


def leave_one_out(outcomes: Tensor, group_size: int) -> Tensor:
    """A_i = R_i − 1/(K−1) Σ_{j≠i} R_j over the K responses of each prompt; (B) → (B).

    RLOO (arXiv 2402.14740, §3.2): the baseline of a response does not depend on the response
    itself, so the policy gradient stays unbiased.
    """
    return outcomes - _mean_of_others(outcomes, group_size)


def subtract_process_baseline(rewards: Tensor, mask: Tensor, group_size: int) -> Tensor:
    """r_t − 1/(K−1) Σ_{j≠i} r̄(y^j), with r̄ a response's mean reward per unit; (B, U) → (B, U).

    The leave-one-out baseline of process rewards (PRIME, arXiv 2502.01456, Eq. 5). The published
    code differs: it adds (r_t − r̄(y^i)) / (K − 1). ``mask`` (B, U) says which units there are;
    the rest of the result is 0.
    """
    means = (rewards * mask).sum(-1) / mask.sum(-1)  # (B)
    return (rewards - _mean_of_others(means, group_size)[:, None]) * mask


def _mean_of_others(values: Tensor, group_size: int) -> Tensor:
    if group_size < 2:
        raise ValueError(f"a baseline of the other responses needs 2 or more, not {group_size}")
    groups = values.reshape(-1, group_size)  # (G, K)
    return ((groups.sum(-1, keepdim=True) - groups) / (group_size - 1)).flatten()


def discounted_returns(rewards: Tensor, discount: float) -> Tensor:
    """G_t = Σ_{s≥t} γ^{s−t} r_s; (B, U) → (B, U). Padding must be 0.

    γ = 1 gives every unit all that follows it (PRIME's setting), γ = 0 its own reward only.
    """
    returns = torch.zeros_like(rewards)
    later = torch.zeros_like(rewards[:, 0])
    for unit in reversed(range(rewards.shape[1])):
        later = rewards[:, unit] + discount * later
        returns[:, unit] = later
    return returns


def min_form(rewards: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """r*_t = softmax(−r/T)_t · r_t over the units of a response; (B, U) → (B, U).

    PURE's min-form credit (arXiv 2504.15275, Eq. 7): as T → 0 their sum becomes the smallest
    reward, and all credit goes to the worst unit.
    """
    scaled = (-rewards / temperature).masked_fill(~mask, -torch.inf)
    return scaled.softmax(-1) * rewards * mask


def unit_scale(rewards: Tensor) -> Tensor:
    """Rewards over the largest absolute return in the batch; (B, U) → (B, U). Padding must be 0.

    So a coefficient of 1 weighs the process term like an outcome of 0 or 1, whatever β is. The
    published code of PRIME calls it batch_norm. Rewards that are all 0 stay so.
    """
    return rewards / (discounted_returns(rewards, 1.0).abs().max() + 1e-6)


def by_step(values: Tensor, step_of: Tensor, steps: int) -> Tensor:
    """Sum a value per token (B, R) over each step's tokens; (B, S). Padding must be 0."""
    sums = torch.zeros(len(values), steps, dtype=values.dtype, device=values.device)
    return sums.scatter_add(1, step_of, values)


def whiten(advantages: Tensor, mask: Tensor) -> Tensor:
    """Advantages with mean 0 and variance 1 over all response tokens of the batch; (B, R).

    What PRIME's published code does before its loss. Where all are equal they become 0.
    """
    chosen = advantages[mask]
    centred = advantages - chosen.mean()
    return centred / (chosen.std(correction=0) + 1e-8) * mask


def informative(outcomes: Tensor, group_size: int, bounds: tuple[float, float]) -> Tensor:
    """Which prompts have an accuracy strictly within the bounds; (B) → (G) bool.

    PRIME's online prompt filter with (0.2, 0.8): of K = 4 responses one, two or three are right.
    """
    accuracy = outcomes.reshape(-1, group_size).mean(-1)
    return (accuracy > bounds[0]) & (accuracy < bounds[1])


def policy_loss(
    logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor, clip: float
) -> Tensor:
    """−Σ_t min(ρ_t A_t, clip(ρ_t, 1−ε, 1+ε) A_t), ρ_t = π_θ/π_old, summed over responses; ().

    PPO's clipped objective (arXiv 1707.06347, Eq. 7); all arguments (B, R). A sum, so that the
    micro-batches of a batch add up; divided by B it has, at π_θ = π_old, the gradient
    −1/B Σ A_t ∇ log π_θ. No response counts less for being long.
    """
    ratio = (logps - old_logps).exp()
    unclipped, clipped = ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages
    return -(torch.minimum(unclipped, clipped) * mask).sum()


def kl_loss(logps: Tensor, ref_logps: Tensor, mask: Tensor) -> Tensor:
    """Σ_t e^{d_t} − d_t − 1 with d = log π_ref − log π_θ, summed over responses; ().

    An estimate of KL(π_θ‖π_ref) from samples of π_θ that is never negative (GRPO, arXiv
    2402.03300, Eq. 4); all arguments (B, R).
    """
    difference = ref_logps - logps
    return ((difference.exp() - difference - 1) * mask).sum()
