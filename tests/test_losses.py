"""implicitprm.losses: hand values, gradients, signs, weights, and safety at large rewards."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from implicitprm.losses import (
    ce_loss,
    dpo_loss,
    kto_loss,
    kto_reference_point,
    nca_loss,
    step_label_loss,
)

LOG3 = math.log(3)  # σ(log 3) = 3/4, σ(−log 3) = 1/4


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def random_rewards(*shape: int) -> Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


RIGHT = torch.tensor([True, False, False, True, True])
POINT = tensor(0.3).squeeze()
#: Each loss as a function of five rewards r and five others, so that all share the same tests.
LOSSES: dict[str, Callable[..., Tensor]] = {
    "ce": lambda r, other, weights=None: ce_loss(r, RIGHT[: len(r)], weights),
    "dpo": dpo_loss,
    "nca": nca_loss,
    "kto": lambda r, other, weights=None: kto_loss(r, RIGHT[: len(r)], POINT, weights),
}


def test_ce_by_hand() -> None:
    loss = ce_loss(tensor(LOG3, LOG3), torch.tensor([True, False]))
    assert float(loss) == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)
    assert float(ce_loss(tensor(0.0, 0.0), torch.tensor([1, 0]))) == pytest.approx(math.log(2))


def test_ce_agrees_with_torch() -> None:
    rewards = random_rewards(5)
    trusted = torch.nn.functional.binary_cross_entropy_with_logits(rewards, RIGHT.double())
    assert float(ce_loss(rewards, RIGHT)) == pytest.approx(float(trusted), abs=1e-12)
    for labels in (RIGHT.int(), RIGHT.double()):  # bool, 0/1 and floats mean the same
        assert float(ce_loss(rewards, labels)) == float(ce_loss(rewards, RIGHT))


def test_dpo_by_hand() -> None:
    assert float(dpo_loss(tensor(LOG3 + 5), tensor(5.0))) == pytest.approx(math.log(4 / 3))
    assert float(dpo_loss(tensor(5.0), tensor(LOG3 + 5))) == pytest.approx(math.log(4))


def test_nca_by_hand() -> None:
    # −log ¾ − ½ log ¼ − ½ log ¾
    expected = -math.log(3 / 4) - 0.5 * math.log(1 / 4) - 0.5 * math.log(3 / 4)
    assert float(nca_loss(tensor(LOG3), tensor(-LOG3))) == pytest.approx(expected)
    # Not a function of the difference alone: DPO is.
    assert float(nca_loss(tensor(LOG3 + 1), tensor(1 - LOG3))) != pytest.approx(expected)


def test_kto_by_hand() -> None:
    labels = torch.tensor([True, False])
    rewards = tensor(LOG3 + 0.5, 0.5 - LOG3)
    # z = mean(0, 1) = ½: both lie log 3 away from it, on their right sides.
    point = kto_reference_point(tensor(0.0, 1.0))
    assert float(point) == 0.5
    assert float(kto_loss(rewards, labels, point)) == pytest.approx(1 / 4)
    # On the other sides: 1 − σ(−log 3) = ¾.
    assert float(kto_loss(rewards.flip(0), labels, point)) == pytest.approx(3 / 4)
    # λ_D = 2 and λ_U = 5 of the paper, as weights.
    weighted = kto_loss(tensor(LOG3 + 0.5, 0.5), labels, point, tensor(2.0, 5.0))
    assert float(weighted) == pytest.approx((2 / 4 + 5 / 2) / 7)


def test_kto_reference_point_is_clamped_weighted_and_has_no_gradient() -> None:
    assert float(kto_reference_point(tensor(-3.0, 1.0))) == 0
    assert float(kto_reference_point(tensor(-3.0, 1.0), tensor(1.0, 7.0))) == 0.5
    leaf = random_rewards(5).requires_grad_(True)
    mismatched = tensor(3.0, -1.0).requires_grad_(True)
    loss = kto_loss(leaf, RIGHT, kto_reference_point(mismatched))
    gradient, of_mismatched = torch.autograd.grad(loss, (leaf, mismatched), allow_unused=True)
    assert of_mismatched is None
    assert (gradient != 0).all()


def test_step_labels_by_hand() -> None:
    rewards = tensor(LOG3, -LOG3, 7.0, -LOG3, 9.0, 9.0).reshape(2, 3)
    labels = torch.tensor([[True, True, False], [False, True, True]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    first = (math.log(4 / 3) + math.log(4)) / 2  # mean over two steps, then over two responses
    expected = (first + math.log(4 / 3)) / 2
    assert float(step_label_loss(rewards, labels, mask)) == pytest.approx(expected)


def test_steps_outside_the_mask_do_not_count() -> None:
    rewards, labels = random_rewards(2, 4), torch.tensor([[1, 0, 1, 0], [0, 1, 1, 1]])
    mask = torch.tensor([[True, True, False, False], [True, True, True, False]])
    loss = step_label_loss(rewards, labels, mask)
    junk = torch.where(mask, rewards, 1e4), torch.where(mask, labels, 1 - labels)
    assert float(step_label_loss(*junk, mask)) == float(loss)
    leaf = rewards.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(step_label_loss(leaf, labels, mask), leaf)
    assert ((gradient != 0) == mask).all()


def test_a_response_without_steps_is_an_error() -> None:
    mask = torch.tensor([[True, False], [False, False]])
    with pytest.raises(ValueError, match="no step"):
        step_label_loss(torch.zeros(2, 2), torch.ones(2, 2), mask)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_against_finite_differences(name: str) -> None:
    rewards = random_rewards(2, 5).requires_grad_(True)
    weights = tensor(1.0, 4.0, 2.0, 1.0, 3.0)
    for arguments in ((), (weights,)):
        assert torch.autograd.gradcheck(
            lambda r, arguments=arguments: LOSSES[name](r[0], r[1], *arguments), (rewards,)
        )


def test_step_label_gradient_against_finite_differences() -> None:
    labels = torch.tensor([[1, 0, 1], [0, 1, 1]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    rewards = random_rewards(2, 3).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda r: step_label_loss(r, labels, mask), (rewards,))


@pytest.mark.parametrize("name", ["ce", "kto"])
def test_unpaired_losses_push_right_up_and_wrong_down(name: str) -> None:
    rewards = random_rewards(5).requires_grad_(True)
    (gradient,) = torch.autograd.grad(LOSSES[name](rewards, None), rewards)
    assert ((gradient < 0) == RIGHT).all()  # the loss falls where a right response's reward rises
    assert ((gradient > 0) == ~RIGHT).all()


@pytest.mark.parametrize("name", ["dpo", "nca"])
def test_paired_losses_push_rejected_down(name: str) -> None:
    chosen, rejected = tensor(-1.0, 0.0, 0.5), tensor(1.0, 0.0, -2.0)
    leaves = chosen.requires_grad_(True), rejected.requires_grad_(True)
    up, down = torch.autograd.grad(LOSSES[name](*leaves), leaves)
    assert (up < 0).all()
    assert (down > 0).all()


def test_nca_holds_a_large_chosen_reward_back() -> None:
    # Its middle term: past r = log 2 the loss rises with the chosen reward, which DPO's never does.
    chosen = tensor(5.0).requires_grad_(True)
    (gradient,) = torch.autograd.grad(nca_loss(chosen, tensor(-5.0)), chosen)
    assert float(gradient) > 0


@pytest.mark.parametrize("name", LOSSES)
def test_weights_are_repeated_rows(name: str) -> None:
    rewards, other = random_rewards(2, 5)
    counts = torch.tensor([3, 1, 2, 0, 1])
    rows = torch.arange(5).repeat_interleave(counts)
    if name in ("ce", "kto"):
        loss = ce_loss if name == "ce" else lambda r, labels: kto_loss(r, labels, POINT)
        repeated = loss(rewards[rows], RIGHT[rows])
    else:
        repeated = LOSSES[name](rewards[rows], other[rows])
    weighted = LOSSES[name](rewards, other, counts.double())
    assert float(weighted) == pytest.approx(float(repeated), abs=1e-12)
    assert float(weighted) != pytest.approx(float(LOSSES[name](rewards, other)), abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_large_rewards_stay_finite(name: str, dtype: torch.dtype) -> None:
    for size in (1e4, -1e4):
        rewards = torch.full((2, 5), size, dtype=dtype)
        rewards[1] = -size
        rewards.requires_grad_(True)
        loss = LOSSES[name](rewards[0], rewards[1])
        (gradient,) = torch.autograd.grad(loss, rewards)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()


def test_large_rewards_have_the_right_loss() -> None:
    # σ(−1e4) is 0 in floating point, its logarithm −1e4.
    assert float(ce_loss(tensor(1e4, -1e4), torch.tensor([0, 1]))) == pytest.approx(1e4)
    assert float(ce_loss(tensor(1e4, -1e4), torch.tensor([1, 0]))) == pytest.approx(0.0, abs=1e-12)
    assert float(dpo_loss(tensor(-1e4), tensor(1e4))) == pytest.approx(2e4)
    mask = torch.ones(1, 2, dtype=torch.bool)
    assert float(step_label_loss(tensor(1e4, -1e4)[None], mask, mask)) == pytest.approx(5e3)
