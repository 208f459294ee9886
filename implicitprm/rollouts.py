"""Sample responses from a causal language model, from prompts or from prefixes of solutions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import torch
from torch import LongTensor, Tensor
from tqdm import tqdm
from transformers import (
    DynamicCache,
    LogitsProcessorList,
    MinPLogitsWarper,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from implicitprm.steps import Prompt, SolutionFormat, render_prompt
from implicitprm.trunk import logits_where


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn.

    Logits are divided by ``temperature``; then tokens outside the smallest set of probability
    ``top_p``, and tokens less probable than ``min_p`` times the most probable one, are dropped.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    min_p: float = 0.0

    def warpers(self) -> LogitsProcessorList:
        """transformers' own logits warpers, in the order of its ``generate``."""
        warpers = LogitsProcessorList()
        if self.temperature != 1.0:
            warpers.append(TemperatureLogitsWarper(self.temperature))
        if self.top_p < 1.0:
            warpers.append(TopPLogitsWarper(self.top_p))
        if self.min_p > 0.0:
            warpers.append(MinPLogitsWarper(self.min_p))
        return warpers


@dataclass(frozen=True)
class Rollout:
    """One sampled response; ``finished`` is False where it met the limit of new tokens.

    ``tokens`` is the number of tokens that were sampled, the end-of-text token among them, and
    ``token_ids`` are these; equal texts are equal rollouts, whatever tokens they are made of.
    """

    completion: str
    finished: bool
    tokens: int = field(default=0, compare=False)
    token_ids: tuple[int, ...] = field(default=(), compare=False)


@torch.inference_mode()
def sample_rollouts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    *,
    n: int,
    sampling: Sampling,
    format: SolutionFormat,
    seed: int,
    prefixes: Sequence[str] | None = None,
    stop: str | None = None,
    batch_size: int = 512,
) -> list[list[Rollout]]:
    """Sample ``n`` responses to each prompt; returns one list of ``n`` rollouts per prompt.

    ``prefixes`` gives the beginning of each response, separator included where the next step is to
    follow; a rollout's ``completion`` does not repeat it. With ``stop``, such as the separator, a
    rollout also ends, unfinished, with the token that completes this text.

    Prompts of one token length are sampled together, so that nothing is padded, each is read once,
    and finished rows leave the cache.

    One ``seed``, model and ``batch_size`` give the same rollouts again on the same machine.
    Raises ValueError where prompt and new tokens together exceed the model's context.
    """
    if not prompts:
        return []
    texts = [render_prompt(tokenizer, prompt, format) for prompt in prompts]
    if prefixes is not None:
        texts = [text + prefix for text, prefix in zip(texts, prefixes, strict=True)]
    inputs = tokenizer(texts, add_special_tokens=False).input_ids
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, ids in enumerate(inputs):
        by_length[len(ids)].append(index)
    _check_context(model, max(by_length), sampling)

    generator = torch.Generator(model.device).manual_seed(seed)
    prompts_per_batch = max(1, batch_size // n)
    rollouts: list[list[Rollout]] = [[] for _ in prompts]
    with tqdm(total=len(texts), desc="sampling", unit="prompt", leave=False) as progress:
        for indices in by_length.values():
            for start in range(0, len(indices), prompts_per_batch):
                rows = indices[start : start + prompts_per_batch]
                read = torch.tensor([inputs[row] for row in rows], device=model.device)
                stops = None if stop is None else partial(_contains, tokenizer, stop)
                tokens, finished = _sample_batch(model, read, n, sampling, generator, stops)
                completions = tokenizer.batch_decode(tokens, skip_special_tokens=True)
                for position, completion in enumerate(completions):
                    ids = tuple(tokens[position])
                    rollout = Rollout(completion, finished[position], len(ids), ids)
                    rollouts[rows[position // n]].append(rollout)
                progress.update(len(rows))
    return rollouts


def _contains(tokenizer: PreTrainedTokenizerBase, text: str, tokens: list[int]) -> bool:
    return text in str(tokenizer.decode(tokens))


def _check_context(model: PreTrainedModel, longest: int, sampling: Sampling) -> None:
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and longest + sampling.max_new_tokens > limit:
        raise ValueError(
            f"a prompt of {longest} tokens and max_new_tokens={sampling.max_new_tokens} exceed the "
            f"model's context of {limit}"
        )


def _sample_batch(
    model: PreTrainedModel,
    input_ids: Tensor,
    n: int,
    sampling: Sampling,
    generator: torch.Generator,
    stops: Callable[[list[int]], bool] | None = None,
) -> tuple[list[list[int]], list[bool]]:
    """Sample n continuations of each row of ``input_ids`` (B, T); returns B·n token lists.

    A row ends with an end-of-text token, finished, or, unfinished, when ``stops`` says so.
    """
    warpers = sampling.warpers()
    # The warpers look at the scores only, so the tokens so far need not be passed on to them.
    ids = cast(LongTensor, input_ids)
    end_tokens = _end_token_ids(model)
    cache = DynamicCache(config=model.config)
    last = torch.zeros_like(input_ids, dtype=torch.bool)
    last[:, -1] = True
    logits = logits_where(  # (B, V)
        model, last, input_ids=input_ids, past_key_values=cache, use_cache=True
    )
    cache.batch_repeat_interleave(n)
    logits = logits.repeat_interleave(n, dim=0)  # (B·n, V)
    alive = list(range(len(logits)))
    tokens: list[list[int]] = [[] for _ in range(len(logits))]
    finished = [False] * len(logits)
    for _ in range(sampling.max_new_tokens):
        probabilities = warpers(ids, logits.float()).softmax(-1)
        drawn = torch.multinomial(probabilities, 1, generator=generator)  # (alive, 1)
        # The one thing that waits for the device: everything else is decided from these numbers.
        for row, token in zip(alive, drawn[:, 0].tolist(), strict=True):
            tokens[row].append(token)
            finished[row] = token in end_tokens
        ended = [finished[row] or (stops is not None and stops(tokens[row])) for row in alive]
        if all(ended):
            break
        if any(ended):
            open_rows = [place for place, done in enumerate(ended) if not done]
            alive = [alive[place] for place in open_rows]
            kept = torch.tensor(open_rows, device=drawn.device)
            cache.batch_select_indices(kept)
            drawn = drawn[kept]
        logits = model(drawn, past_key_values=cache, use_cache=True).logits[:, -1]
    return tokens, finished


def _end_token_ids(model: PreTrainedModel) -> list[int]:
    end = model.generation_config.eos_token_id
    if end is None:
        raise ValueError(f"{model.name_or_path} names no end-of-text token to stop at")
    return [end] if isinstance(end, int) else list(end)
