"""Reinforcement learning: every term by hand, gradients against their exact values, the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import problems, tiny_llama
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from implicitprm.arithmetic import (
    ARITHMETIC_FORMAT,
    Problem,
    check_solution,
    checkpoint_path,
    sample_problem,
)
from implicitprm.arithmetic.collect import FULL
from implicitprm.logprobs import score_logps
from implicitprm.reinforce import loop
from implicitprm.reinforce.loop import (
    Batch,
    ImplicitReward,
    ReinforceConfig,
    StepReward,
    add_gradient,
    advantages,
    gather_logps,
    make_batch,
    process_advantages,
    read_response,
    reinforce,
    score_grid,
)
from implicitprm.reinforce.terms import (
    by_step,
    discounted_returns,
    informative,
    kl_loss,
    leave_one_out,
    min_form,
    policy_loss,
    subtract_process_baseline,
    unit_scale,
    whiten,
)
from implicitprm.rollouts import Rollout, sample_rollouts
from implicitprm.steps import EncodedSolution, Prompt, Solution

Tokenizer = Any
PROMPTS = [problem.prompt for problem in problems(6, seed=4)]


def tensor(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# ---- Terms by hand ---------------------------------------------------------------------------


def test_leave_one_out_by_hand() -> None:
    """Groups of 3: (1, 0, 0) and (1, 1, 0). The others of the first response average 0."""
    found = leave_one_out(tensor(1, 0, 0, 1, 1, 0), 3)
    assert found.tolist() == [1, -0.5, -0.5, 0.5, 0.5, -1]


def test_the_baseline_of_process_rewards_by_hand() -> None:
    """Means per unit are 2, 1 (of two units) and 6; the others of the first average 3.5."""
    rewards = tensor([1, 2, 3], [2, 0, 9], [6, 9, 9])  # the 9s are padding
    mask = torch.tensor([[True] * 3, [True, True, False], [True, False, False]])
    found = subtract_process_baseline(rewards, mask, 3)
    assert found.tolist() == [[-2.5, -1.5, -0.5], [-2, -4, 0], [4.5, 0, 0]]


def test_a_group_of_one_has_no_baseline() -> None:
    with pytest.raises(ValueError, match="needs 2 or more, not 1"):
        leave_one_out(tensor(1, 0), 1)


def test_returns_by_hand() -> None:
    rewards = tensor([1, 2, 4], [8, 0, 0])
    assert discounted_returns(rewards, 0.5).tolist() == [[3, 4, 4], [8, 0, 0]]
    assert discounted_returns(rewards, 1.0).tolist() == [[7, 6, 4], [8, 0, 0]]
    assert discounted_returns(rewards, 0.0).tolist() == rewards.tolist()


def test_min_form_by_hand() -> None:
    """T = 1/log 2: rewards 0 and −1 have odds 1 : 2; the padding none."""
    mask = torch.tensor([[True, True, False]])
    found = min_form(tensor([0, -1, -9]), mask, 1 / float(torch.log(tensor(2))[0]))
    assert found.tolist() == [pytest.approx([0, -2 / 3, 0])]
    # As T → 0 the sum becomes the minimum.
    sharp = min_form(tensor([0.3, -0.4, 0.2]), torch.ones(1, 3, dtype=torch.bool), 1e-3)
    assert sharp.sum().item() == pytest.approx(-0.4)


def test_the_scale_is_the_largest_return() -> None:
    """Returns: −5, −4, −2 and 2, 0, 0."""
    rewards = tensor([-1, -2, -2], [2, 0, 0])
    expected = tensor([-0.2, -0.4, -0.4], [0.4, 0, 0])
    assert (unit_scale(rewards) - expected).abs().max() < 1e-6
    assert unit_scale(0 * rewards).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_tokens_add_up_to_steps() -> None:
    step_of = torch.tensor([[0, 0, 1, 1], [0, 1, 2, 0]])
    found = by_step(tensor([1, 2, 3, 4], [5, 6, 7, 0]), step_of, 3)
    assert found.tolist() == [[3, 7, 0], [5, 6, 7]]


def test_whitening_by_hand() -> None:
    """Over the tokens 1, 3, 1, 3: mean 2, deviation 1; the padding does not count."""
    mask = torch.tensor([[True, True, False], [True, True, False]])
    found = whiten(tensor([1, 3, 100], [1, 3, -100]), mask)
    assert found.tolist() == [pytest.approx([-1, 1, 0], abs=1e-6)] * 2
    assert whiten(tensor([2, 2, 9], [2, 2, 9]), mask).abs().max() == 0


def test_prompts_between_the_bounds_are_kept() -> None:
    outcomes = tensor(0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1, 1, 1, 1, 1, 1)
    assert informative(outcomes, 4, (0.2, 0.8)).tolist() == [False, True, True, False]
    # Strictly: an accuracy on a bound is outside.
    assert informative(outcomes, 4, (0.25, 0.75)).tolist() == [False] * 4


def test_the_clipped_loss_by_hand() -> None:
    """Ratios 1, 2 (clipped for a good token), ½ (clipped for a bad one), 2 (bad: not clipped)."""
    logps = tensor([1, 2, 0.5, 2, 7]).log().requires_grad_()
    credit = tensor([3, 1, -1, -1, 5])
    mask = torch.tensor([[True] * 4 + [False]])
    loss = policy_loss(logps, torch.zeros_like(logps), credit, mask, clip=0.2)
    assert loss.item() == pytest.approx(-(3 + 1.2 - 0.8 - 2))
    loss.backward()
    assert logps.grad is not None
    # −A ρ where nothing is clipped, 0 where it is.
    assert logps.grad.tolist() == [pytest.approx([-3, 0, 0, 2, 0])]


def test_kl_by_hand() -> None:
    """d = log 2: 2 − log 2 − 1. On average over the policy it is the KL."""
    found = kl_loss(tensor([0, 0]), tensor([1, 0]) * torch.log(tensor(2)), torch.ones(1, 2))
    assert found.item() == pytest.approx(1 - 0.693147, abs=1e-5)
    policy, reference = tensor(0.2, 0.8), tensor(0.5, 0.5)
    each = [kl_loss(p.log().view(1, 1), r.log().view(1, 1), torch.ones(1, 1)) for p, r in
            zip(policy, reference, strict=True)]  # fmt: skip
    expected = (policy * (policy / reference).log()).sum()
    assert (policy * torch.stack(each)).sum().item() == pytest.approx(expected.item())


# ---- Gradients -------------------------------------------------------------------------------


def expected_gradient(
    logits: Tensor, group_size: int, credit: Callable[[Sequence[int]], Tensor]
) -> Tensor:
    """The mean of the loss's gradient over all groups of actions, each with its probability."""
    probabilities = logits.detach().softmax(-1)
    total = torch.zeros_like(logits)
    for actions in product(range(len(logits)), repeat=group_size):
        weight = probabilities[list(actions)].prod()
        logps = logits.log_softmax(-1)[list(actions), None]  # (K, 1)
        mask = torch.ones_like(logps, dtype=torch.bool)
        loss = policy_loss(logps, logps.detach(), credit(actions), mask, 0.2) / group_size
        total += weight * torch.autograd.grad(loss, logits)[0]
    return total


@pytest.mark.parametrize("group_size", [2, 3])
def test_the_gradient_of_a_bandit_is_exact(group_size: int) -> None:
    """Over all groups the leave-one-out gradient is −∇ E[R] = −p_a (R_a − E[R])."""
    logits = tensor(0.3, -0.5, 1.0).requires_grad_()
    values = tensor(1.0, 0.0, 0.25)
    probabilities = logits.detach().softmax(-1)
    exact = -probabilities * (values - (probabilities * values).sum())

    def outcome(actions: Sequence[int]) -> Tensor:
        return leave_one_out(values[list(actions)], group_size)[:, None]

    def process(actions: Sequence[int]) -> Tensor:
        rewards = values[list(actions)][:, None]
        return subtract_process_baseline(rewards, torch.ones_like(rewards).bool(), group_size)

    assert expected_gradient(logits, group_size, outcome).tolist() == pytest.approx(exact.tolist())
    assert expected_gradient(logits, group_size, process).tolist() == pytest.approx(exact.tolist())


def test_the_gradient_of_two_steps_is_exact_where_all_are_as_long() -> None:
    """Process rewards r_1(a), r_2(a, b): summed returns have the gradient of E[r_1 + r_2].

    With lengths that differ it is another one: the baseline of a token is that of a mean unit,
    times the units that are left, and how many are left was decided by the policy.
    """
    logits = tensor(
        [0.2, -0.4], [0.7, 0.1], [-0.3, 0.5]
    ).requires_grad_()  # first, after 0, after 1
    first, second = tensor(1.0, -2.0), tensor([0.5, 3.0], [-1.0, 0.25])

    def gap(short: bool) -> float:
        """Largest difference to the exact gradient; a ``short`` 0 ends the response."""
        paths = [(0, 0), (1, 0), (1, 1)] if short else list(product(range(2), repeat=2))
        lengths = [1 if short and a == 0 else 2 for a, _ in paths]
        rewards = torch.stack([
            torch.stack([first[a], second[a, b] * (n > 1)])
            for (a, b), n in zip(paths, lengths, strict=True)
        ])  # fmt: skip
        mask = torch.arange(2) < torch.tensor(lengths)[:, None]
        logps = logits.log_softmax(-1)
        of_path = torch.stack([torch.stack([logps[0, a], logps[1 + a, b]]) for a, b in paths])
        of_path = of_path * mask
        chance = of_path.sum(-1).exp()
        exact = torch.autograd.grad(-(chance * rewards.sum(-1)).sum(), logits, retain_graph=True)
        total = torch.zeros_like(logits)
        for pair in product(range(len(paths)), repeat=2):
            rows = list(pair)
            credit = discounted_returns(
                subtract_process_baseline(rewards[rows], mask[rows], 2), 1.0
            )
            loss = policy_loss(of_path[rows], of_path[rows].detach(), credit, mask[rows], 0.2) / 2
            gradient = torch.autograd.grad(loss, logits, retain_graph=True)[0]
            total += chance.detach()[rows].prod() * gradient
        return float((total - exact[0]).abs().max())

    assert gap(short=False) < 1e-12
    assert gap(short=True) > 0.01


def test_sampled_gradients_agree_with_the_exact_one() -> None:
    """20,000 groups of 4 actions, within four standard errors in every coordinate."""
    logits = tensor(0.3, -0.5, 1.0).requires_grad_()
    values, probabilities = tensor(1.0, 0.0, 0.25), logits.detach().softmax(-1)
    generator = torch.Generator().manual_seed(0)
    actions = torch.multinomial(probabilities.expand(20_000, 3), 4, True, generator=generator)
    credit = leave_one_out(values[actions.flatten()], 4)  # (B)
    scores = torch.nn.functional.one_hot(actions.flatten(), 3) - probabilities  # ∇ log π
    per_group = -(credit[:, None] * scores).view(-1, 4, 3).mean(1)  # (G, 3)
    exact = -probabilities * (values - (probabilities * values).sum())
    error = per_group.std(0) / len(per_group) ** 0.5
    assert ((per_group.mean(0) - exact).abs() < 4 * error).all()
    # The baseline is what makes them so exact: without it the variance is larger.
    without = -(values[actions.flatten()][:, None] * scores).view(-1, 4, 3).mean(1)
    assert without.var(0).sum() > 1.5 * per_group.var(0).sum()


# ---- Responses -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return AutoTokenizer.from_pretrained(checkpoint_path("early"))


@pytest.fixture
def policy() -> LlamaForCausalLM:
    return AutoModelForCausalLM.from_pretrained(checkpoint_path("early")).eval()


def grade(prompt: Prompt, steps: Sequence[str], finished: bool) -> bool:
    return check_solution(Problem.parse(str(prompt)), steps, finished).correct


def even(prompt: Prompt, steps: Sequence[str], finished: bool) -> bool:
    return finished and steps[-1][-1] in "02468"


def true_rewards(prompt: Prompt, steps: Sequence[str], finished: bool) -> list[float]:
    first = check_solution(Problem.parse(str(prompt)), steps, finished).first_error
    return [-1.0 if step == first else 0.0 for step in range(len(steps))]


def test_responses_are_the_tokens_that_were_sampled(
    policy: LlamaForCausalLM, tokenizer: Tokenizer
) -> None:
    drawn = sample_rollouts(
        policy, tokenizer, PROMPTS, n=4, sampling=FULL, format=ARITHMETIC_FORMAT, seed=0
    )
    batch = make_batch(tokenizer, PROMPTS, drawn, grade, ARITHMETIC_FORMAT, policy.device)
    flat = [rollout for group in drawn for rollout in group]
    for row, (rollout, tokens) in enumerate(zip(flat, batch.encoded, strict=True)):
        assert tokens.input_ids[tokens.response_start :] == rollout.token_ids
        assert len(rollout.token_ids) == rollout.tokens == batch.mask[row].sum()
        ends = (*tokens.step_ends, rollout.tokens)
        for position in range(rollout.tokens):
            step = int(batch.step_of[row, position])
            assert (0, *ends)[step] <= position < ends[step]
    assert 0 < batch.outcomes.mean() < 1


def test_a_response_that_cannot_be_read_again_is_one_wrong_step(tokenizer: Tokenizer) -> None:
    vocabulary = tokenizer.get_vocab()
    end = tokenizer.eos_token_id
    fine = [vocabulary[word] for word in ("7", "+", "5", "=", "12", "\n", "#", "12")] + [end]
    two = [vocabulary["#"], vocabulary["1"], vocabulary["2"], end]  # spells 12 with two tokens
    unknown = [vocabulary["#"], vocabulary["45"], vocabulary["44"], end]  # 4544 is no word
    rollouts = [
        Rollout(tokenizer.decode(ids, skip_special_tokens=True), True, len(ids), tuple(ids))
        for ids in (fine, two, unknown, [end])
    ]
    prompt_ids = tokenizer("7+5\n").input_ids
    read = [read_response(tokenizer, "7+5\n", prompt_ids, r, ARITHMETIC_FORMAT) for r in rollouts]
    assert [solution is not None for solution, _ in read] == [True, False, False, False]
    assert [tokens.step_ends for _, tokens in read] == [(6, 9), (4,), (4,), (1,)]
    batch = make_batch(
        tokenizer, ["7+5-3\n"], [rollouts], lambda *_: True, ARITHMETIC_FORMAT, torch.device("cpu")
    )
    assert batch.outcomes.tolist() == [1, 0, 0, 0]
    assert batch.readable == (True, False, False, False)
    rewards, _ = StepReward(true_rewards).rewards(batch)
    assert rewards.sum(-1).tolist() == [-1, -1, -1, -1]


def test_log_probabilities_start_in_the_first_column(tokenizer: Tokenizer) -> None:
    model = tiny_llama(0)
    batch = sampled(tokenizer)
    expected = score_logps(model, batch.encoded, tokenizer.pad_token_id, 4, "scoring")
    for found in (
        gather_logps(model, batch.encoded, tokenizer.pad_token_id).detach(),
        score_grid(model, batch.encoded, tokenizer.pad_token_id),
    ):
        assert found.shape == batch.mask.shape
        assert found[~batch.mask].abs().max() == 0
        for row, logps in enumerate(expected):
            assert found[row, : len(logps)].tolist() == pytest.approx(logps.tolist(), abs=1e-5)


# ---- Credit ----------------------------------------------------------------------------------


def sampled(tokenizer: Tokenizer) -> Batch:
    """24 responses by ``early`` to the six prompts, of which some are right."""
    sampler = AutoModelForCausalLM.from_pretrained(checkpoint_path("early")).eval()
    drawn = sample_rollouts(
        sampler, tokenizer, PROMPTS, n=4, sampling=FULL, format=ARITHMETIC_FORMAT, seed=0
    )
    return make_batch(tokenizer, PROMPTS, drawn, grade, ARITHMETIC_FORMAT, sampler.device)


def by_hand() -> tuple[Tensor, Batch]:
    """Two responses to one prompt: two steps of 2 and 1 tokens, one step of 2; and rewards."""
    encoded = tuple(EncodedSolution((0,) * (1 + ends[-1]), 1, ends, ()) for ends in ((2, 3), (2,)))
    return torch.tensor([[1.0, 1.0, 4.0], [2.0, -4.0, 0.0]]), Batch(
        (Solution("p", ("a",)),) * 2,
        (True, True),
        encoded,
        torch.tensor([1.0, 0.0]),
        torch.tensor([[True, True, True], [True, True, False]]),
        torch.tensor([[0, 0, 1], [0, 0, 0]]),
    )


PLAIN = ReinforceConfig(1e-4, 1, group_size=2, normalise=False)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # Means per token are 2 and −1: rewards become (2, 2, 5) and (0, −6).
        ({}, [[9, 7, 5], [-6, -6, 0]]),
        ({"discount": 0.5}, [[4.25, 4.5, 5], [-3, -6, 0]]),
        # Steps are (2, 4) and (−2): means 3 and −2; (4, 6) and (−5).
        ({"granularity": "step"}, [[10, 10, 6], [-5, -5, 0]]),
        ({"granularity": "step", "discount": 0.5}, [[7, 7, 6], [-5, -5, 0]]),
        # In min-form, all but all of it, the smallest step: (2, 0) and (−2), means 1 and −2.
        ({"granularity": "step", "min_temperature": 0.05}, [[6, 6, 2], [-3, -3, 0]]),
        # The largest |return| is 6: every reward a sixth.
        ({"normalise": True}, [[1.5, 7 / 6, 5 / 6], [-1, -1, 0]]),
    ],
)
def test_advantages_of_process_rewards_by_hand(
    changes: dict[str, Any], expected: list[list[float]]
) -> None:
    rewards, batch = by_hand()
    found = process_advantages(rewards, batch, replace(PLAIN, **changes))
    for row, values in zip(found.tolist(), expected, strict=True):
        assert row == pytest.approx(values, abs=1e-5)


def test_both_sources_add_up() -> None:
    rewards, batch = by_hand()
    outcome = [[1, 1, 1], [-1, -1, 0]]
    assert advantages(None, batch, PLAIN).tolist() == outcome
    assert advantages(rewards, batch, PLAIN).tolist() == outcome  # its weight is 0
    both = replace(PLAIN, outcome_weight=2, process_weight=0.5)
    assert advantages(rewards, batch, both).tolist() == [[6.5, 5.5, 4.5], [-5, -5, 0]]
    alone = replace(PLAIN, outcome_weight=0, process_weight=1)
    assert advantages(rewards, batch, alone).tolist() == [[9, 7, 5], [-6, -6, 0]]
    white = advantages(rewards, batch, replace(both, normalise=True))
    assert white[batch.mask].mean().item() == pytest.approx(0, abs=1e-6)
    assert white[batch.mask].std(correction=0).item() == pytest.approx(1, abs=1e-5)


def test_credit_does_not_depend_on_padding() -> None:
    rewards, batch = by_hand()
    wide = Batch(
        batch.solutions,
        batch.readable,
        batch.encoded,
        batch.outcomes,
        torch.nn.functional.pad(batch.mask, (0, 3)),
        torch.nn.functional.pad(batch.step_of, (0, 3)),
    )
    for changes in (
        {},
        {"granularity": "step"},
        {"discount": 0.3, "normalise": True},
        {"granularity": "step", "min_temperature": 0.5, "normalise": True},
    ):
        config = replace(PLAIN, process_weight=0.7, **changes)
        narrow = advantages(rewards, batch, config)
        found = advantages(torch.nn.functional.pad(rewards, (0, 3)), wide, config)
        assert found[:, :3].tolist() == narrow.tolist()
        assert found[:, 3:].abs().max() == 0


def test_true_step_rewards_stand_at_the_end_of_the_first_wrong_step(tokenizer: Tokenizer) -> None:
    batch = sampled(tokenizer)
    rewards, _ = StepReward(true_rewards).rewards(batch)
    for row, (solution, tokens) in enumerate(zip(batch.solutions, batch.encoded, strict=True)):
        first = true_rewards(solution.prompt, solution.steps, solution.finished)
        where = rewards[row].nonzero()[:, 0].tolist()
        assert where == ([tokens.step_ends[first.index(-1.0)] - 1] if -1.0 in first else [])
        assert bool(where) or batch.outcomes[row] == 1


# ---- Updates ---------------------------------------------------------------------------------


def gradient(model: LlamaForCausalLM) -> Tensor:
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return found


@pytest.mark.parametrize("kl_weight", [0.0, 0.5])
def test_the_gradient_does_not_depend_on_the_split(tokenizer: Tokenizer, kl_weight: float) -> None:
    model, other = tiny_llama(0, 2.0), tiny_llama(1, 2.0)
    batch = sampled(tokenizer)
    pad = tokenizer.pad_token_id
    config = ReinforceConfig(1e-4, 1, kl_weight=kl_weight, normalise=False)
    credit = advantages(None, batch, config)
    old = score_grid(model, batch.encoded, pad) + 0.05
    ref = score_grid(other, batch.encoded, pad) if kl_weight else None
    losses, gradients = [], []
    for size in (64, 5, 1):
        split = replace(config, micro_batch_size=size)
        losses.append(add_gradient(model, batch, credit, old, ref, pad, split))
        gradients.append(gradient(model))
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-4, abs=1e-6)
    for found in gradients[1:]:
        assert (found - gradients[0]).norm() < 1e-4 * gradients[0].norm()
    # By hand: Σ A ∇ log π over all responses, and the KL's, divided by their number.
    logps = gather_logps(model, batch.encoded, pad)
    terms = -(logps - old).exp() * credit
    if ref is not None:
        terms = terms + kl_weight * ((ref - logps).exp() - (ref - logps) - 1)
    ((terms * batch.mask).sum() / len(batch.encoded)).backward()
    assert (gradient(model) - gradients[0]).norm() < 1e-4 * gradients[0].norm()


def test_the_gradient_without_old_log_probabilities_is_that_of_the_policy_itself(
    tokenizer: Tokenizer,
) -> None:
    model = tiny_llama(0, 2.0)
    batch, pad = sampled(tokenizer), tokenizer.pad_token_id
    config = ReinforceConfig(1e-4, 1)
    credit = advantages(None, batch, config)
    add_gradient(model, batch, credit, None, None, pad, config)
    without = gradient(model)
    add_gradient(model, batch, credit, score_grid(model, batch.encoded, pad), None, pad, config)
    assert (gradient(model) - without).norm() < 1e-4 * without.norm()


def implicit(beta: float = 2.0, **options: Any) -> ImplicitReward:
    model, reference = (
        AutoModelForCausalLM.from_pretrained(checkpoint_path(name)).eval()
        for name in ("early", "reasoner")
    )
    return ImplicitReward(model, reference, 0, beta, **options)


@pytest.mark.parametrize("first", [True, False])
def test_rewards_come_after_the_update_or_before_it(tokenizer: Tokenizer, first: bool) -> None:
    source = implicit(learning_rate=1e-4, update_first=first)
    batch = sampled(tokenizer)

    def score() -> Tensor:
        model, reference = (
            score_grid(m, batch.encoded, 0) for m in (source.model, source.reference)
        )
        return 2.0 * (model - reference)

    before = score()
    rewards, line = source.rewards(batch)
    after = score()
    assert (after - before).abs().max() > 1e-2
    assert (rewards - (after if first else before)).abs().max() < 1e-4
    of_response, signs = before.sum(-1), 2 * batch.outcomes - 1
    loss = -torch.nn.functional.logsigmoid(signs * of_response).mean()
    assert line["prm_loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert line["prm_reward"] == pytest.approx(of_response.mean().item(), rel=1e-4)
    _, second = source.rewards(batch)
    assert second["prm_loss"] < line["prm_loss"]


def test_the_first_rewards_of_an_equal_model_are_0(tokenizer: Tokenizer) -> None:
    source = ImplicitReward(
        tiny_llama(2), tiny_llama(2), 0, 1.0, learning_rate=1e-3, update_first=False
    )
    rewards, line = source.rewards(sampled(tokenizer))
    assert rewards.abs().max() == 0
    assert line["prm_loss"] == pytest.approx(0.693147, abs=1e-4)
    assert line["prm_auc"] == 0.5


def test_a_frozen_model_stays_as_it_is(tokenizer: Tokenizer) -> None:
    source = implicit()
    batch = sampled(tokenizer)
    before = {name: value.clone() for name, value in source.model.state_dict().items()}
    first, _ = source.rewards(batch)
    second, _ = source.rewards(batch)
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert all(torch.equal(before[n], v) for n, v in source.model.state_dict().items())


def test_the_update_of_the_reward_model_does_not_depend_on_the_split(tokenizer: Tokenizer) -> None:
    """Compared after Adam's first step, of which the sign of each gradient is most."""
    batch = sampled(tokenizer)
    weights = []
    for size in (64, 5):
        source = implicit(0.2, learning_rate=1e-3, micro_batch_size=size)
        source.rewards(batch)
        weights.append(torch.cat([p.detach().flatten() for p in source.model.parameters()]))
    start = torch.cat([p.detach().flatten() for p in implicit().model.parameters()])
    assert (weights[0] - weights[1]).norm() < 0.01 * (weights[0] - start).norm()


def test_the_area_under_the_curve_by_hand() -> None:
    assert loop._auc(tensor(3, 1), tensor(2, 1)) == pytest.approx((2 + 0 + 0.5) / 4)


# ---- The loop --------------------------------------------------------------------------------

SMALL = ReinforceConfig(1e-4, 4, prompts_per_batch=5, minibatches=2, save_every=2)


def train(
    policy: LlamaForCausalLM, tokenizer: Tokenizer, config: ReinforceConfig, **options: Any
) -> list[dict[str, Any]]:
    chosen: dict[str, Any] = {"sampling": FULL, "format": ARITHMETIC_FORMAT} | options
    rng = np.random.default_rng(1)
    prompts = [sample_problem(rng, (3, 4)).prompt for _ in range(40)]
    return reinforce(policy, tokenizer, prompts, chosen.pop("grade", even), config, **chosen)


def test_training_raises_the_reward(policy: LlamaForCausalLM, tokenizer: Tokenizer) -> None:
    """A decision of one token: the first step adds, whatever the problem says."""

    def adds(prompt: Prompt, steps: Sequence[str], finished: bool) -> bool:
        return "+" in steps[0]

    config = ReinforceConfig(1e-3, 10, prompts_per_batch=16, accuracy_bounds=None)
    history = train(policy, tokenizer, config, grade=adds)
    accuracy = [line["accuracy"] for line in history[1:]]
    assert accuracy[0] < 0.6 < 0.8 < np.mean(accuracy[-2:])
    assert [line["batch"] for line in history] == list(range(11))


class Killed(Exception):
    pass


@pytest.mark.parametrize("how", ["outcome", "implicit", "kl"])
def test_a_killed_run_goes_on_to_the_same_end(
    how: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """The third batch is lost with the kill; everything is equal, bit by bit, in the end."""
    config = replace(
        SMALL,
        process_weight=0.5 if how == "implicit" else 0.0,
        kl_weight=0.1 if how == "kl" else 0.0,
    )

    def run(folder: Path | None, evaluate: Any = None) -> tuple[list[dict[str, Any]], list[Tensor]]:
        policy, reference, model = (
            AutoModelForCausalLM.from_pretrained(checkpoint_path("early")).eval() for _ in range(3)
        )
        source = None
        if how == "implicit":
            source = ImplicitReward(model, reference, 0, 1.0, learning_rate=1e-3)
        history = train(
            policy,
            tokenizer,
            config,
            process=source,
            reference=reference if how == "kl" else None,
            evaluate=evaluate,
            folder=folder,
        )
        weights = [*policy.state_dict().values(), *model.state_dict().values()]
        return [{k: v for k, v in line.items() if k != "seconds"} for line in history], weights

    def evaluate(policy: LlamaForCausalLM, batch: int) -> Mapping[str, Any]:
        return {}

    def kill(policy: LlamaForCausalLM, batch: int) -> Mapping[str, Any]:
        if batch == 3:
            raise Killed
        return {}

    config = replace(config, evaluate_every=3)
    expected, weights = run(None, evaluate)
    with pytest.raises(Killed):
        run(tmp_path / "run", kill)
    assert not list((tmp_path / "run").glob("*.new"))
    calls: list[int] = []

    def noting(policy: LlamaForCausalLM, batch: int) -> Mapping[str, Any]:
        calls.append(batch)
        return {}

    history, found = run(tmp_path / "run", noting)
    assert calls == [3, 4]  # the first two batches were not done again
    assert history == expected
    assert all(torch.equal(a, b) for a, b in zip(weights, found, strict=True))
    # What is done is not done again; another configuration is no continuation.
    again, _ = run(tmp_path / "run", kill)
    assert again == expected
    config = replace(config, clip=0.3)
    with pytest.raises(ValueError, match="another configuration"):
        run(tmp_path / "run")


def test_without_an_informative_prompt_nothing_is_changed(
    policy: LlamaForCausalLM, tokenizer: Tokenizer
) -> None:
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    history = train(policy, tokenizer, replace(SMALL, batches=1), grade=lambda *_: False)
    assert history[1]["kept"] == 0
    assert "loss" not in history[1]
    assert all(torch.equal(before[n], v) for n, v in policy.state_dict().items())


def test_only_informative_prompts_train(
    policy: LlamaForCausalLM, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Batch] = []
    real = advantages

    def noting(rewards: Tensor | None, batch: Batch, config: ReinforceConfig) -> Tensor:
        seen.append(batch)
        return real(rewards, batch, config)

    monkeypatch.setattr(loop, "advantages", noting)
    history = train(policy, tokenizer, replace(SMALL, batches=1, prompts_per_batch=20))
    (batch,) = seen
    groups = batch.outcomes.view(-1, 4).mean(-1)
    assert 0 < history[1]["kept"] == len(groups) < 20
    assert ((groups > 0.2) & (groups < 0.8)).all()
    assert history[1]["responses"] == 80


def test_every_minibatch_is_compared_with_the_policy_that_sampled(
    policy: LlamaForCausalLM, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = AutoModelForCausalLM.from_pretrained(checkpoint_path("early")).eval()
    gaps: list[float] = []
    moved: list[float] = []
    real = add_gradient

    def noting(model: Any, batch: Batch, credit: Tensor, old: Tensor, *others: Any) -> float:
        gaps.append(float((old - score_grid(sampler, batch.encoded, 0)).abs().max()))
        moved.append(float((old - score_grid(model, batch.encoded, 0)).abs().max()))
        return real(model, batch, credit, old, *others)

    monkeypatch.setattr(loop, "add_gradient", noting)
    train(policy, tokenizer, replace(SMALL, batches=1, learning_rate=1e-3, accuracy_bounds=None))
    assert len(gaps) == 2
    assert max(gaps) < 1e-4
    assert moved[0] < 1e-4 < 1e-2 < moved[1]


def test_no_prompt_is_used_twice_in_a_pass(
    policy: LlamaForCausalLM, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[Prompt]] = []

    def sampler(*args: Any, **options: Any) -> list[list[Rollout]]:
        drawn.append(list(args[2]))
        return [[Rollout("", True, 1, (tokenizer.eos_token_id,))] * 4 for _ in args[2]]

    monkeypatch.setattr(loop, "sample_rollouts", sampler)
    train(policy, tokenizer, replace(SMALL, batches=5, prompts_per_batch=16))
    flat = [prompt for batch in drawn for prompt in batch]
    assert len(set(flat[:40])) == len(set(flat[40:])) == 40  # passes of 40 prompts
    assert flat[:40] != flat[40:]


def test_minibatches_are_whole_groups() -> None:
    parts = loop._minibatches(np.random.default_rng(0), 12, replace(SMALL, minibatches=2))
    assert sorted(len(part) for part in parts) == [4, 8]
    assert sorted(row for part in parts for row in part) == list(range(12))
    for part in parts:
        assert all(
            part[i : i + 4] == list(range(part[i], part[i] + 4)) for i in range(0, len(part), 4)
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"kl_weight": 0.1}, "needs a reference"), ({"process_weight": 1.0}, "needs process rewards")],
)
def test_what_is_missing_is_said(
    changes: dict[str, float], message: str, policy: LlamaForCausalLM, tokenizer: Tokenizer
) -> None:
    with pytest.raises(ValueError, match=message):
        train(policy, tokenizer, replace(SMALL, **changes))  # type: ignore[arg-type]
