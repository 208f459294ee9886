"""The two propositions, checked by enumeration, and the wrong versions that the check catches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import cache, partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from implicitprm.logprobs import token_logps
from implicitprm.qvalues import (
    Language,
    QValues,
    Tokens,
    after,
    completions,
    exact_q_values,
    implicit_q,
    kl_divergence,
    language_of,
    monte_carlo_value,
    prefixes,
    random_language,
    soft_implicit_hard,
    tilted,
    with_min_p,
)
from implicitprm.rewards import token_rewards

BETA = 0.7
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
PROMPTS: tuple[Tokens, ...] = ((1,), (0, 2), (2, 1, 1))
END, RESPONSE_LENGTH = 3, 4


def random_pair(seed: int, vocabulary_size: int, max_length: int) -> tuple[Language, Language]:
    """A policy and its reference, neither trained, with impossible tokens in both."""
    rng = np.random.default_rng(seed)
    reference = random_language(rng, vocabulary_size, max_length, zero_share=0.2)
    return random_language(rng, vocabulary_size, max_length, within=reference), reference


def is_correct(tokens: Tokens) -> bool:
    return sum(tokens) % 2 == 0


def trained_pair(seed: int, vocabulary_size: int, max_length: int) -> tuple[Language, Language]:
    """A table started at its reference and trained with CE on the outcome labels."""
    rng = np.random.default_rng(seed)
    reference = random_language(rng, vocabulary_size, max_length)
    unfinished = [p for p in prefixes(reference) if not reference.is_complete(p)]
    rows = {prefix: i for i, prefix in enumerate(unfinished)}
    start = torch.tensor(np.array([reference.next_logps(p) for p in unfinished]))  # (P, V)
    sequences, logps = completions(reference, ())
    labels = torch.tensor([is_correct(y) for y in sequences], dtype=torch.float64)  # (N)
    visited = [[rows[y[:t]] for t in range(len(y))] for y in sequences]
    logits = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(60):
        ratio = logits.log_softmax(-1) - start  # (P, V)
        r = BETA * torch.stack([ratio[v, y].sum() for v, y in zip(visited, sequences, strict=True)])
        loss = binary_cross_entropy_with_logits(r, labels, weight=torch.tensor(logps).exp())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    table = logits.detach().log_softmax(-1).numpy()
    return Language(lambda p: table[rows[p]], reference.end, max_length), reference


@pytest.mark.parametrize("pair", [random_pair, trained_pair])
@pytest.mark.parametrize(("vocabulary_size", "max_length"), [(2, 6), (3, 4), (5, 3)])
@pytest.mark.parametrize("beta", [0.05, BETA, 20.0])
def test_proposition_3_1_on_toy_languages(
    pair: Callable[[int, int, int], tuple[Language, Language]],
    vocabulary_size: int,
    max_length: int,
    beta: float,
) -> None:
    policy, reference = pair(vocabulary_size, vocabulary_size, max_length)
    largest = 0.0
    for prefix in prefixes(reference):
        q = implicit_q(policy, reference, prefix, beta)[-1]
        assert abs(q - exact_q_values(policy, reference, prefix, beta).implicit) <= 1e-10
        largest = max(largest, abs(q))
    assert largest > 0.1 * beta  # the pair is not two equal models, for which all would be 0


def test_trained_pair_learned_its_labels() -> None:
    policy, reference = trained_pair(0, 3, 4)
    sequences, logps = completions(reference, ())
    correct = np.array([is_correct(y) for y in sequences])
    rewards = np.array([implicit_q(policy, reference, y, BETA)[-1] for y in sequences])
    means = [np.average(rewards[c], weights=np.exp(logps[c])) for c in (correct, ~correct)]
    assert means[0] > 0 > means[1]


# The same theorem through the package's own path, for a real causal language model.


def tiny_llama(seed: int, dtype: torch.dtype) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=END + 1,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        initializer_range=0.5,  # large, so that the two models are far apart
    )
    model = LlamaForCausalLM(config).eval()
    return model.double() if dtype == torch.float64 else model


def response_mask(input_ids: Tensor, prompt: Tokens) -> Tensor:
    return (torch.arange(input_ids.shape[1]) >= len(prompt)).expand(input_ids.shape)


def train_on_outcomes(policy: LlamaForCausalLM, reference: LlamaForCausalLM) -> None:
    """CE towards the label "is correct", on all responses of four tokens."""
    responses = torch.tensor(list(itertools.product(range(END), repeat=RESPONSE_LENGTH)))
    labels = torch.tensor([is_correct(tuple(y)) for y in responses.tolist()]).double()
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    for step in range(15):
        prompt = PROMPTS[step % len(PROMPTS)]
        ids = torch.cat([torch.tensor([prompt]).expand(len(responses), -1), responses], dim=1)
        mask = response_mask(ids, prompt)
        with torch.no_grad():
            ref_logps = token_logps(reference(ids).logits, ids, mask)
        r = BETA * (token_logps(policy(ids).logits, ids, mask) - ref_logps).sum(-1)
        optimizer.zero_grad()
        binary_cross_entropy_with_logits(r.double(), labels).backward()
        optimizer.step()


def correct_logps(logits: Tensor, ids: Tensor, prompt: Tokens) -> Tensor:
    return token_logps(logits, ids, response_mask(ids, prompt))


def shifted_logps(logits: Tensor, ids: Tensor, prompt: Tokens) -> Tensor:
    """The usual slip: the logits after a token are read as the prediction of that token."""
    logps = logits.log_softmax(-1).gather(-1, ids[..., None]).squeeze(-1)
    return logps * response_mask(ids, prompt)


def unmasked_logps(logits: Tensor, ids: Tensor, prompt: Tokens) -> Tensor:
    """The other usual slip: prompt tokens count as if they were response."""
    return token_logps(logits, ids, response_mask(ids, prompt[:1]))


#: One enumeration per model and prompt, shared by the tests.
kept_language_of = cache(language_of)


def largest_gap(
    logps_of: Callable[[Tensor, Tensor, Tokens], Tensor],
    pair: tuple[PreTrainedModel, PreTrainedModel],
    prompt: Tokens,
) -> float:
    """max |q − enumeration| over all prefixes, with q from one forward pass per model."""
    policy_language, ref_language = (
        kept_language_of(model, prompt, END, RESPONSE_LENGTH) for model in pair
    )
    gaps = []
    for prefix in prefixes(ref_language)[1:]:
        ids = torch.tensor([[*prompt, *prefix]])
        with torch.no_grad():
            logps = [logps_of(model(ids).logits, ids, prompt) for model in pair]
        q = token_rewards(logps[0], logps[1], BETA).sum()
        enumerated = exact_q_values(policy_language, ref_language, prefix, BETA).implicit
        gaps.append(abs(float(q) - enumerated))
    return max(gaps)


@pytest.fixture(scope="module", params=[torch.float64, torch.float32], ids=["float64", "float32"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture(scope="module", params=["random", "trained"])
def llama_pair(
    request: pytest.FixtureRequest, dtype: torch.dtype
) -> tuple[LlamaForCausalLM, LlamaForCausalLM]:
    reference = tiny_llama(0, dtype)
    policy = tiny_llama(1 if request.param == "random" else 0, dtype)
    if request.param == "trained":
        train_on_outcomes(policy, reference)
    return policy, reference


@pytest.mark.parametrize("prompt", PROMPTS)
def test_proposition_3_1_on_a_causal_language_model(
    llama_pair: tuple[LlamaForCausalLM, LlamaForCausalLM], dtype: torch.dtype, prompt: Tokens
) -> None:
    assert largest_gap(correct_logps, llama_pair, prompt) <= TOLERANCE[dtype]


@pytest.mark.parametrize(
    ("wrong_logps", "prompt"),
    [(shifted_logps, p) for p in PROMPTS]
    # One token is unmasked at most up to the first, which nothing predicts: longer prompts show it.
    + [(unmasked_logps, p) for p in PROMPTS if len(p) > 1],
)
def test_wrong_log_probs_violate_proposition_3_1(
    llama_pair: tuple[LlamaForCausalLM, LlamaForCausalLM],
    dtype: torch.dtype,
    wrong_logps: Callable[[Tensor, Tensor, Tokens], Tensor],
    prompt: Tokens,
) -> None:
    assert largest_gap(wrong_logps, llama_pair, prompt) > 100 * TOLERANCE[dtype]


def test_language_of_equals_the_product_of_forward_passes() -> None:
    model = tiny_llama(2, torch.float64)
    sequences, logps = completions(language_of(model, PROMPTS[1], END, RESPONSE_LENGTH), ())
    strings = [
        y
        for length in range(1, RESPONSE_LENGTH + 1)
        for y in itertools.product(range(END + 1), repeat=length)
        if END not in y[:-1] and (length == RESPONSE_LENGTH or y[-1] == END)
    ]
    assert sorted(sequences) == sorted(strings)
    for tokens, logp in zip(sequences, logps, strict=True):
        ids = torch.tensor([[*PROMPTS[1], *tokens]])
        labels = torch.where(response_mask(ids, PROMPTS[1]), ids, -100)
        with torch.no_grad():
            loss = model(ids, labels=labels).loss  # transformers' own mean over response tokens
        assert logp == pytest.approx(-float(loss) * len(tokens), abs=1e-5)  # in float32
    assert np.exp(logps).sum() == pytest.approx(1, abs=1e-12)


# Normalisation: q^0 = 0 and E_ref r = −β KL.


@pytest.mark.parametrize("pair", [random_pair, trained_pair])
def test_q0_is_zero_after_every_prompt(
    pair: Callable[[int, int, int], tuple[Language, Language]],
) -> None:
    policy, reference = pair(7, 4, 4)
    prompts = [p for p in prefixes(reference) if not reference.is_complete(p)]
    assert len(prompts) > 10
    for prompt in prompts:
        both = after(policy, prompt), after(reference, prompt)
        values = exact_q_values(*both, (), BETA)
        assert values.implicit == pytest.approx(0, abs=1e-12)
        assert values.soft == pytest.approx(-BETA * kl_divergence(both[1], both[0]), abs=1e-12)
        assert values.soft <= 0


def test_kl_by_hand() -> None:
    fair = Language(lambda prefix: np.log([0.5, 0.5]), 1, 1)
    bent = Language(lambda prefix: np.log([0.9, 0.1]), 1, 1)
    by_hand = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert kl_divergence(fair, bent) == pytest.approx(by_hand, abs=1e-15)
    assert kl_divergence(fair, fair) == 0


# Proposition 3.2.


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    vocabulary_size=st.integers(2, 4),
    max_length=st.integers(1, 4),
    zero_share=st.sampled_from([0.0, 0.3, 0.6]),
    concentration=st.sampled_from([0.2, 1.0, 5.0]),
    log10_beta=st.floats(-2, 2),
)
def test_soft_implicit_hard_are_ordered(
    seed: int,
    vocabulary_size: int,
    max_length: int,
    zero_share: float,
    concentration: float,
    log10_beta: float,
) -> None:
    rng, beta = np.random.default_rng(seed), 10**log10_beta
    draw = partial(
        random_language,
        rng,
        vocabulary_size,
        max_length,
        concentration=concentration,
        zero_share=zero_share,
    )
    reference = draw()
    policy = draw(within=reference)
    for prefix in prefixes(reference):
        q = float(implicit_q(policy, reference, prefix, beta)[-1])
        values = exact_q_values(policy, reference, prefix, beta)
        slack = 1e-9 * max(1.0, beta)
        if math.isfinite(q):
            assert values.soft - slack <= q <= values.hard + slack
        else:  # the policy excludes the prefix, and with it every completion
            assert values == QValues(-math.inf, -math.inf, -math.inf)


def count_violations(policy: Language, reference: Language, dropped: int) -> tuple[int, int]:
    """How often E r_θ over the completions of y_≤(t−dropped) exceeds q^t, and of how many."""
    checked = [p for p in prefixes(reference) if p]
    too_high = [
        exact_q_values(policy, reference, p[: len(p) - dropped], BETA).soft
        > implicit_q(policy, reference, p, BETA)[-1] + 1e-9
        for p in checked
    ]
    return sum(too_high), len(too_high)


def test_misprinted_lower_bound_is_false() -> None:
    """Printed with y_<t under the expectation, the bound fails; with y_≤t it holds everywhere."""
    policy, reference = random_pair(3, 4, 4)
    right, checked = count_violations(policy, reference, dropped=0)
    misprinted, _ = count_violations(policy, reference, dropped=1)
    assert right == 0
    assert 0 < misprinted < checked


def test_limits_of_the_operator_with_rewards_held_fixed() -> None:
    rng = np.random.default_rng(0)
    rewards, logps = rng.normal(size=20), np.log(rng.dirichlet(np.ones(20)))
    curve = [soft_implicit_hard(rewards, beta, logps) for beta in np.geomspace(1e-4, 1e5, 40)]
    assert curve[0].implicit == pytest.approx(rewards.max(), abs=1e-2)
    assert curve[-1].implicit == pytest.approx(curve[-1].soft, abs=1e-4)
    assert np.all(np.diff([point.implicit for point in curve]) < 0)
    assert {(point.soft, point.hard) for point in curve} == {(curve[0].soft, rewards.max())}


def test_limits_are_not_about_other_betas_for_the_same_models() -> None:
    """With the two models fixed, r contains β: all three values scale, and no bound is reached."""
    policy, reference = random_pair(3, 4, 4)
    first, second = (exact_q_values(policy, reference, (1,), beta) for beta in (1.0, 100.0))
    for name in ("soft", "implicit", "hard"):
        assert getattr(second, name) == pytest.approx(100 * getattr(first, name), abs=1e-9)


def test_operators_by_hand() -> None:
    values = soft_implicit_hard([0.0, math.log(3)], 1.0)
    assert values.soft == pytest.approx(math.log(3) / 2, abs=1e-15)
    assert values.implicit == pytest.approx(math.log(2), abs=1e-15)
    assert values.hard == math.log(3)
    weighted = soft_implicit_hard([0.0, 2.0, 9.0], 2.0, [math.log(0.25), math.log(0.75), -math.inf])
    assert weighted.soft == pytest.approx(1.5, abs=1e-15)
    assert weighted.implicit == pytest.approx(2 * math.log(0.25 + 0.75 * math.e), abs=1e-15)
    assert weighted.hard == 2.0  # 9 is outside the support


def test_operators_survive_a_small_beta() -> None:
    assert soft_implicit_hard([-3.0, 5.0], 1e-3).implicit == pytest.approx(5.0, abs=1e-3)
    assert soft_implicit_hard([-math.inf, 1.0], 1.0).implicit == pytest.approx(1 - math.log(2))


def test_repeated_rewards_equal_weights() -> None:
    sample = soft_implicit_hard([1.0, 1.0, 1.0, -2.0], 0.5)
    weighted = soft_implicit_hard([1.0, -2.0], 0.5, np.log([0.75, 0.25]))
    for name in ("soft", "implicit", "hard"):
        assert getattr(sample, name) == pytest.approx(getattr(weighted, name), abs=1e-12)


def test_averages_over_a_truncated_sampler_need_not_obey_the_bounds() -> None:
    """Both bounds fail when the completions are drawn with min-p instead of from π_ref."""
    below = above = 0
    for seed in range(5):
        policy, reference = random_pair(seed, 4, 4)
        sampler = with_min_p(reference, 0.3)
        for prefix in prefixes(sampler):
            sequences, logps = completions(sampler, prefix)
            rewards = [implicit_q(policy, reference, y, BETA)[-1] for y in sequences]
            truncated = soft_implicit_hard(rewards, BETA, logps)
            q = implicit_q(policy, reference, prefix, BETA)[-1]
            below += q < truncated.soft - 1e-9
            above += q > truncated.hard + 1e-9
    assert below > 0
    assert above > 0


def test_min_p_by_hand() -> None:
    language = Language(lambda prefix: np.log([0.6, 0.3, 0.1]), 2, 3)
    assert np.exp(with_min_p(language, 0.4).next_logps(())) == pytest.approx([2 / 3, 1 / 3, 0])
    assert np.exp(with_min_p(language, 0.1).next_logps(())) == pytest.approx([0.6, 0.3, 0.1])


def test_tilted_policy_has_the_reward_up_to_a_constant() -> None:
    _, reference = random_pair(5, 3, 4)
    sequences, logps = completions(reference, ())
    wanted = np.random.default_rng(0).normal(size=len(sequences))
    policy = tilted(reference, dict(zip(sequences, wanted, strict=True)).__getitem__, BETA)
    rewards = [implicit_q(policy, reference, y, BETA)[-1] for y in sequences]
    constant = BETA * math.log(np.exp(logps) @ np.exp(wanted / BETA))
    assert rewards == pytest.approx(wanted - constant, abs=1e-12)
    for prefix in prefixes(reference):
        if not reference.is_complete(prefix):
            assert np.exp(policy.next_logps(prefix)).sum() == pytest.approx(1, abs=1e-12)


def test_monte_carlo_value_covers_the_truth() -> None:
    rng, truth = np.random.default_rng(0), 0.3
    estimates = [monte_carlo_value(rng.random(64) < truth) for _ in range(2000)]
    spread = np.std([e.mean for e in estimates])
    assert np.mean([e.standard_error for e in estimates]) == pytest.approx(spread, rel=0.05)
    assert monte_carlo_value([True, True, False, False]).standard_error == pytest.approx(
        np.std([1, 1, 0, 0], ddof=1) / 2
    )


def test_random_language_respects_the_support_of_another() -> None:
    policy, reference = random_pair(0, 4, 4)
    impossible = 0
    for prefix in prefixes(reference):
        if not reference.is_complete(prefix):
            closed = ~np.isfinite(reference.next_logps(prefix))
            impossible += closed.sum()
            assert not np.isfinite(policy.next_logps(prefix)[closed]).any()
    assert impossible > 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: soft_implicit_hard([], 1.0), "N >= 1"),
        (lambda: soft_implicit_hard([1.0, math.nan], 1.0), "reward 1 is NaN"),
        (lambda: soft_implicit_hard([math.inf], 1.0), "reward 0 is NaN or"),
        (lambda: soft_implicit_hard([1.0], 0.0), "beta must be positive"),
        (lambda: soft_implicit_hard([1.0], math.nan), "beta must be positive"),
        (lambda: soft_implicit_hard([1.0, 2.0], 1.0, [0.0]), "2 rewards but"),
        (lambda: soft_implicit_hard([1.0, 2.0], 1.0, [-3.0, -3.0]), "sum to 0.0995741, not 1"),
        (lambda: soft_implicit_hard([1.0, 2.0], 1.0, [0.0, math.nan]), "sum to nan"),
        (lambda: monte_carlo_value([True]), "two completions or more, not 1"),
        (lambda: monte_carlo_value([0, 2]), "bool or 0/1"),  # type: ignore[list-item]
        (lambda: with_min_p(random_pair(0, 3, 2)[0], 0.0), "min_p must be in"),
        (lambda: language_of(tiny_llama(0, torch.float32), (), END, 2), "prompt_ids is empty"),
        (lambda: after(random_pair(0, 3, 2)[0], (2,)), "nothing follows"),
        (lambda: implicit_q(*trained_pair(0, 3, 4), (2, 0), 1.0), "goes on after its end"),
        (lambda: implicit_q(*trained_pair(0, 3, 4), (0,), -1.0), "beta must be positive"),
    ],
)
def test_bad_input_says_what_is_wrong(wrong: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrong()


def test_a_policy_outside_the_support_of_the_reference_is_an_error() -> None:
    reference = Language(lambda prefix: np.array([0.0, -np.inf]), 1, 3)
    policy = Language(lambda prefix: np.log([0.75, 0.25]), 1, 3)
    with pytest.raises(ValueError, match="0\\.25 to tokens"):
        exact_q_values(policy, reference, (0,), 1.0)
    with pytest.raises(ValueError, match="probability 0 under the reference"):
        implicit_q(policy, reference, (1,), 1.0)
