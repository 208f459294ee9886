"""implicitprm.rollouts: the sampler draws from the model, drops no row and mixes up none."""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from scipy.stats import chisquare
from tiny import CountedHead, problems, tiny_llama
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
)

from implicitprm.arithmetic import ARITHMETIC_FORMAT, checkpoint_path
from implicitprm.rollouts import Rollout, Sampling, sample_rollouts

GREEDY = Sampling(max_new_tokens=60, temperature=1e-3)
PROMPTS = [problem.prompt for problem in problems(12)]


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return AutoModelForCausalLM.from_pretrained(checkpoint_path()).eval()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(checkpoint_path())


@pytest.fixture(scope="module")
def greedy_texts(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The greedy response to each prompt, by transformers' own generate, one prompt at a time."""
    texts, generate = [], cast(Any, model).generate
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        out = generate(ids, do_sample=False, max_new_tokens=60)
        texts.append(text_of(tokenizer, out[0, ids.shape[1] :].tolist()))
    return texts


def text_of(tokenizer: PreTrainedTokenizerBase, tokens: list[int]) -> str:
    return str(tokenizer.decode(tokens, skip_special_tokens=True))


def sample(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    sampling: Sampling,
    n: int = 4,
    seed: int = 0,
    prompts: list[str] = PROMPTS,
    prefixes: list[str] | None = None,
    batch_size: int = 512,
) -> list[list[Rollout]]:
    return sample_rollouts(
        model,
        tokenizer,
        prompts,
        n=n,
        sampling=sampling,
        format=ARITHMETIC_FORMAT,
        seed=seed,
        prefixes=prefixes,
        batch_size=batch_size,
    )


def test_a_seed_repeats_and_another_does_not(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    sampling = Sampling(max_new_tokens=60)
    first = sample(model, tokenizer, sampling, seed=3)
    torch.manual_seed(99)  # the global generator plays no part
    assert sample(model, tokenizer, sampling, seed=3) == first
    assert sample(model, tokenizer, sampling, seed=4) != first
    assert [len(rollouts) for rollouts in first] == [4] * len(PROMPTS)
    assert len(set(map(tuple, first))) == len(PROMPTS)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(max_new_tokens=60, top_p=1e-6)])
@pytest.mark.parametrize("batch_size", [2, 512])
def test_the_greedy_limit_is_generate(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    greedy_texts: list[str],
    sampling: Sampling,
    batch_size: int,
) -> None:
    assert len({len(tokenizer(prompt).input_ids) for prompt in PROMPTS}) > 2
    assert len({len(text) for text in greedy_texts}) > 2
    rollouts = sample(model, tokenizer, sampling, n=2, batch_size=batch_size)
    assert [[one.completion for one in two] for two in rollouts] == [
        [text, text] for text in greedy_texts
    ]
    assert all(one.finished for two in rollouts for one in two)


def test_prefixes_go_on_where_they_end(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, greedy_texts: list[str]
) -> None:
    prefixes = [text[: text.index("\n") + 1] for text in greedy_texts]
    rollouts = sample(model, tokenizer, GREEDY, n=1, prefixes=prefixes)
    for prefix, text, (rollout,) in zip(prefixes, greedy_texts, rollouts, strict=True):
        assert prefix + rollout.completion == text
    with pytest.raises(ValueError, match="shorter"):
        sample(model, tokenizer, GREEDY, prefixes=prefixes[:-1])


def test_unfinished_responses_are_marked(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, greedy_texts: list[str]
) -> None:
    needed = len(tokenizer(greedy_texts[0]).input_ids) + 1  # with the end token
    for limit, finished in [(needed - 1, False), (needed, True)]:
        sampling = Sampling(max_new_tokens=limit, temperature=1e-3)
        ((rollout,),) = sample(model, tokenizer, sampling, n=1, prompts=PROMPTS[:1])
        assert rollout == Rollout(greedy_texts[0], finished)
    cut = Sampling(max_new_tokens=3, temperature=1e-3)
    for (rollout,), text in zip(sample(model, tokenizer, cut, n=1), greedy_texts, strict=True):
        assert not rollout.finished
        assert text.startswith(rollout.completion)
        assert len(tokenizer(rollout.completion).input_ids) == 3


# --- what is drawn, and from what -----------------------------------------------------------------


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    """What the sampler draws from and what it draws, one entry a call."""
    seen: list[tuple[Tensor, Tensor]] = []
    multinomial = torch.multinomial

    def spy(probabilities: Tensor, count: int, *, generator: torch.Generator) -> Tensor:
        drawn = multinomial(probabilities, count, generator=generator)
        seen.append((probabilities.clone(), drawn[:, 0].clone()))
        return drawn

    monkeypatch.setattr(torch, "multinomial", spy)
    return seen


def at_the_limit(logits: Tensor, sampling: Sampling) -> bool:
    """Whether a token is so near min-p's limit that float32 may keep what float64 drops."""
    probabilities = (logits.double() / sampling.temperature).softmax(-1)
    near = (probabilities / probabilities.max() - sampling.min_p).abs() < 1e-6
    return bool(sampling.min_p and near.any())


def by_hand(logits: Tensor, sampling: Sampling) -> Tensor:
    """The distribution (V) that the docstring of Sampling describes, one token at a time."""
    probabilities = (logits.double() / sampling.temperature).softmax(-1)
    order = probabilities.argsort(descending=True).tolist()
    kept, mass = [], 0.0
    for token in order:
        if mass >= sampling.top_p:
            break
        kept.append(token)
        mass += float(probabilities[token])
    total = sum(float(probabilities[token]) for token in kept)
    largest = float(probabilities[order[0]]) / total
    result = torch.zeros_like(probabilities)
    for token in kept:
        if float(probabilities[token]) / total >= sampling.min_p * largest:
            result[token] = probabilities[token]
    return result / result.sum()


SAMPLINGS = [
    Sampling(max_new_tokens=60),
    Sampling(max_new_tokens=60, temperature=1.7),
    Sampling(max_new_tokens=60, min_p=0.05),
    Sampling(max_new_tokens=60, top_p=0.9),
    Sampling(max_new_tokens=60, temperature=1.7, top_p=0.95, min_p=0.02),
]


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("prefixes", [None, ["7+5=", "12*4=48\n"]])
def test_every_draw_is_from_the_models_own_distribution(
    tokenizer: PreTrainedTokenizerBase,
    draws: list[tuple[Tensor, Tensor]],
    sampling: Sampling,
    prefixes: list[str] | None,
) -> None:
    """Teacher forcing without a cache sees what the sampler saw while rows were dropping out.

    The model is a random one, which comes to its end anywhere; the reasoner nearly always needs as
    many tokens as the problem has operations.
    """
    model, n, prompts = tiny_llama(0, scale=6), 8, ["7+5-3*2\n", "12*4+9-1\n"]
    rollouts = sample(model, tokenizer, sampling, n=n, prompts=prompts, prefixes=prefixes)
    texts = [a + b for a, b in zip(prompts, prefixes or ["", ""], strict=True)]
    ids = [tokenizer(text).input_ids for text in texts]
    groups = [[0, 1]] if prefixes is None else [[0], [1]]  # the prefixes have unequal lengths
    calls, lengths = iter(draws), []
    for group in groups:
        sequences = [list(ids[row]) for row in group for _ in range(n)]
        seen: list[list[Tensor]] = [[] for _ in sequences]
        alive = list(range(len(sequences)))
        for _ in range(sampling.max_new_tokens):
            probabilities, drawn = next(calls)
            assert len(drawn) == len(alive)  # finished rows are gone
            for row, distribution, token in zip(alive, probabilities, drawn.tolist(), strict=True):
                seen[row].append(distribution)
                sequences[row].append(token)
            alive = [row for row in alive if sequences[row][-1] != tokenizer.eos_token_id]
            if not alive:
                break
        for row, sequence in enumerate(sequences):
            start = len(sequence) - len(seen[row])
            lengths.append(len(seen[row]))
            with torch.no_grad():
                logits = model(torch.tensor([sequence])).logits[0]
            for position, distribution in enumerate(seen[row], start):
                expected = by_hand(logits[position - 1], sampling)
                if at_the_limit(logits[position - 1], sampling):
                    continue
                torch.testing.assert_close(distribution.double(), expected, rtol=0, atol=1e-5)
                assert expected[sequence[position]] > 0
            prompt, number = group[row // n], row % n
            text = text_of(tokenizer, sequence[len(ids[prompt]) :])
            assert rollouts[prompt][number] == Rollout(text, row not in alive)
    assert next(calls, None) is None
    assert len(set(lengths)) > 2  # they did finish at different times


def misfit(counts: Counter[str], expected: dict[str, float]) -> float:
    """p value of a chi-square test of counts against expected ones; rare texts are one class."""
    total = sum(counts.values())
    frequent = [text for text, count in expected.items() if count >= 5]
    observed = [counts[text] for text in frequent]
    wanted = [expected[text] for text in frequent]
    rest = total - sum(wanted)
    if rest >= 5:
        observed, wanted = [*observed, total - sum(observed)], [*wanted, rest]
    scale = sum(observed) / sum(wanted)
    return float(chisquare(observed, [scale * value for value in wanted]).pvalue)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_frequencies_are_the_models_probabilities(
    tokenizer: PreTrainedTokenizerBase, sampling: Sampling
) -> None:
    """An honest sampler has p > 0.001 under 999 of 1,000 seeds; this seed is fixed."""
    model, draws = tiny_llama(0, scale=9), 5_000
    one_token = replace(sampling, max_new_tokens=1)
    (rollouts,) = sample(model, tokenizer, one_token, n=draws, prompts=PROMPTS[:1])
    counts = Counter(rollout.completion for rollout in rollouts)
    with torch.no_grad():
        logits = model(tokenizer(PROMPTS[0], return_tensors="pt").input_ids).logits[0, -1]

    def expected(logits: Tensor) -> dict[str, float]:
        table: dict[str, float] = defaultdict(float)
        for token, probability in enumerate(by_hand(logits, sampling).tolist()):
            table[text_of(tokenizer, [token])] += draws * probability
        return table

    assert all(expected(logits)[text] > 0 for text in counts)
    assert len(counts) > 3
    assert misfit(counts, expected(logits)) > 0.001
    # The test can tell: the same draws do not fit a model that is a third surer.
    assert misfit(counts, expected(1.33 * logits)) < 0.001


def test_end_tokens_may_be_several(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, greedy_texts: list[str]
) -> None:
    other = copy.copy(model)
    other.generation_config = copy.deepcopy(model.generation_config)
    line_end = tokenizer("\n").input_ids[0]
    other.generation_config.eos_token_id = [tokenizer.eos_token_id, line_end]
    for (rollout,), text in zip(sample(other, tokenizer, GREEDY, n=1), greedy_texts, strict=True):
        assert rollout == Rollout(text[: text.index("\n") + 1], True)


def test_a_model_without_an_end_token(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    other = copy.copy(model)
    other.generation_config = copy.deepcopy(model.generation_config)
    other.generation_config.eos_token_id = None
    with pytest.raises(ValueError, match="no end-of-text token"):
        sample(other, tokenizer, GREEDY)


def test_more_tokens_than_the_context_holds(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    prompt = PROMPTS[0]
    length = len(tokenizer(prompt).input_ids)
    fits = Sampling(max_new_tokens=128 - length, temperature=1e-3)
    assert sample(model, tokenizer, fits, n=1, prompts=[prompt])[0][0].finished
    too_long = Sampling(max_new_tokens=129 - length)
    with pytest.raises(ValueError, match=f"prompt of {length} tokens and .*{129 - length}.* 128"):
        sample(model, tokenizer, too_long, prompts=[prompt])


def test_no_prompts_give_no_rollouts(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    assert (
        sample_rollouts(
            model, tokenizer, [], n=2, sampling=GREEDY, format=ARITHMETIC_FORMAT, seed=0
        )
        == []
    )


def test_of_a_prompt_only_the_last_logits_are_made(tokenizer: PreTrainedTokenizerBase) -> None:
    model = tiny_llama(0)
    model.lm_head = counted = CountedHead(model.lm_head)
    sampled = sample(model, tokenizer, Sampling(max_new_tokens=1), n=3, prompts=PROMPTS[:2])
    assert [rollout.tokens for of_prompt in sampled for rollout in of_prompt] == [1] * 6
    # A row for each prompt, and, if a response goes on, one for each: it has no successor here.
    assert counted.rows <= 2 + 6
