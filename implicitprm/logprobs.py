"""Token log-probabilities of a response under a causal language model.

The only shift and the only mask of the package: the logits at position t are the prediction of
token t + 1, and prompt and padding do not count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad
from tqdm import tqdm
from transformers import DynamicCache, PreTrainedModel

from implicitprm.steps import EncodedSolution
from implicitprm.trunk import TrunkPass, follow_prefix, logits_where, read_prefix, trunk_pass

#: Logits that exist at a time while scoring, 128 MB in float32. At a vocabulary of 150,000 they
#: predict 223 tokens, enough for a matrix product that is bound by arithmetic and not by memory.
LOGITS_AT_A_TIME = 2**25
#: Candidates share the reading of their prompt where that saves so many tokens. Reading it is one
#: more forward pass, which costs as much as some dozens of tokens (a CPU) to some hundreds (a GPU).
TOKENS_WORTH_SHARING = 512
#: Logits that a CPU reduces at a time: 1 MB in float32, which stays in its cache. Measured, this
#: takes a third of the time of one reduction of them all.
LOGITS_IN_CACHE = 2**18


def token_logps(logits: Tensor, input_ids: Tensor, response_mask: Tensor) -> Tensor:
    """Log-probability, in nats, of every response token given the tokens before it.

    Shapes: ``logits`` (B, T, V), ``input_ids`` (B, T), ``response_mask`` (B, T) bool; returns
    (B, T), where entry t is log p(input_ids[t] | input_ids[:t]), and 0 where the mask is False.
    Half-precision logits are taken to float32 first; float64 stays float64.

    Raises ValueError if a mask selects position 0, which nothing predicts, and if a log-probability
    is NaN or infinite.
    """
    mask = response_mask[:, 1:]  # (B, T-1): the tokens that are predicted
    targets = input_ids[:, 1:][mask]  # (M), the M response tokens of the batch
    return _in_place(_chosen_logps(logits[:, :-1][mask], targets), response_mask)


def _chosen_logps(logits: Tensor, targets: Tensor) -> Tensor:
    """log softmax of logits (M, V) at the targets (M), without the rest of the log-softmax; (M)."""
    if logits.dtype != torch.float64:
        logits = logits.float()
    return logits.gather(-1, targets[:, None]).squeeze(-1) - _logsumexp(logits)


def _logsumexp(logits: Tensor) -> Tensor:
    """log Σ exp of each row of logits (M, V); (M)."""
    if logits.device.type != "cpu":  # where many small kernels would be slower
        return logits.logsumexp(-1)
    rows = max(1, LOGITS_IN_CACHE // logits.shape[-1])
    return torch.cat([some.logsumexp(-1) for some in logits.split(rows)])


def _in_place(chosen: Tensor, response_mask: Tensor) -> Tensor:
    """Put log-probabilities (M) where the mask is True, 0 elsewhere; (B, T)."""
    if response_mask[:, 0].any():
        raise ValueError("position 0 has no token before it and so no log-probability")
    if not torch.isfinite(chosen).all():
        row = int(response_mask.nonzero()[~torch.isfinite(chosen)][0, 0])
        raise ValueError(
            f"row {row} of the batch has a log-probability that is NaN or infinite: the model's "
            "logits overflow (float16 does; use bfloat16 or float32) or its weights are broken"
        )
    logps = torch.zeros(response_mask.shape, dtype=chosen.dtype, device=chosen.device)
    return logps.masked_scatter(response_mask, chosen)


def response_logps(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, response_mask: Tensor
) -> Tensor:
    """:func:`token_logps` of one forward pass of ``model``, in less memory; (B, T).

    Only where a response token is predicted are there logits, and gradients of them.
    """
    predicted = response_mask[:, 1:]
    logits = logits_where(
        model,
        pad(predicted, (0, 1)),  # the last token predicts nothing
        input_ids=input_ids,
        attention_mask=attention_mask,
        use_cache=False,
    )
    return _in_place(_chosen_logps(logits, input_ids[:, 1:][predicted]), response_mask)


def collate(
    input_ids: Sequence[Sequence[int]], response_starts: Sequence[int], pad_token_id: int | None
) -> dict[str, Tensor]:
    """Pad B token sequences on the right to (B, T).

    Returns ``input_ids``, ``attention_mask`` and the bool ``response_mask``, which is True from
    each row's ``response_starts`` to its end. What the padding holds does not matter.
    """
    longest = max(map(len, input_ids))
    positions = torch.arange(longest)
    lengths = torch.tensor([len(ids) for ids in input_ids])
    inside = positions < lengths[:, None]  # (B, T)
    padded = torch.full(inside.shape, pad_token_id or 0)
    padded[inside] = torch.tensor([token for ids in input_ids for token in ids])
    return {
        "input_ids": padded,
        "attention_mask": inside.long(),
        "response_mask": inside & (positions >= torch.tensor(response_starts)[:, None]),
    }


@torch.inference_mode()
def score_logps(
    model: PreTrainedModel,
    solutions: Sequence[EncodedSolution],
    pad_token_id: int | None,
    batch_size: int,
    description: str,
) -> list[Tensor]:
    """Log-probabilities of the response tokens of each solution, as one tensor (T) on the CPU each.

    Solutions of like length share a batch, the longest first: least padding, and a batch that does
    not fit into memory fails at once. A long prompt of many solutions is read once, and they follow
    it in batches of their own. Two models of one architecture get the same batches.
    ``description`` labels the progress bar.
    """
    logps = [torch.empty(0)] * len(solutions)
    with tqdm(total=len(solutions), desc=description, leave=False) as progress:
        for rows, prefix in _batches(model, solutions, batch_size):
            # After a prefix, its last token is the one before the response; it is read again.
            starts = [solutions[row].response_start - 1 if prefix else 0 for row in rows]
            batch = collate(
                [solutions[row].input_ids[start:] for row, start in zip(rows, starts, strict=True)],
                [
                    solutions[row].response_start - start
                    for row, start in zip(rows, starts, strict=True)
                ],
                pad_token_id,
            )
            batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
            batch_logps = _batch_logps(model, prefix, **batch).cpu()  # (B, T)
            for row, values, mask in zip(
                rows, batch_logps, batch["response_mask"].cpu(), strict=True
            ):
                logps[row] = values[mask]
            progress.update(len(rows))
    return logps


def _batches(
    model: PreTrainedModel, solutions: Sequence[EncodedSolution], batch_size: int
) -> Iterator[tuple[list[int], DynamicCache | None]]:
    """The rows of each batch, and what was read of their prompt if they share it."""
    by_prompt: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row, solution in enumerate(solutions):
        by_prompt[solution.input_ids[: solution.response_start]].append(row)
    alone = []
    for prompt, rows in by_prompt.items():
        worth_it = (len(rows) - 1) * len(prompt) >= TOKENS_WORTH_SHARING and len(prompt) > 1
        prefix = read_prefix(model, prompt[:-1]) if worth_it else None
        if prefix is None:
            alone += rows
        else:
            yield from ((batch, prefix) for batch in _by_length(rows, solutions, batch_size))
    yield from ((batch, None) for batch in _by_length(alone, solutions, batch_size))


def _by_length(
    rows: Sequence[int], solutions: Sequence[EncodedSolution], batch_size: int
) -> Iterator[list[int]]:
    order = sorted(rows, key=lambda row: -len(solutions[row].input_ids))
    yield from (order[start : start + batch_size] for start in range(0, len(order), batch_size))


def _batch_logps(
    model: PreTrainedModel,
    prefix: DynamicCache | None,
    input_ids: Tensor,
    attention_mask: Tensor,
    response_mask: Tensor,
) -> Tensor:
    """What :func:`response_logps` gives (B, T), in less memory and without gradients."""
    read, mask = input_ids[:, :-1], attention_mask[:, :-1]  # the last token predicts nothing
    if prefix is None:
        states = trunk_pass(model, input_ids=read, attention_mask=mask, use_cache=False)
    else:
        states = follow_prefix(model, prefix, read, mask)
    if states is None:
        return response_logps(model, input_ids, attention_mask, response_mask)
    predicted = response_mask[:, 1:]
    chosen = _logps_of(states, states.hidden[predicted], input_ids[:, 1:][predicted])
    return _in_place(chosen, response_mask)


def _logps_of(states: TrunkPass, hidden: Tensor, targets: Tensor) -> Tensor:
    """Log-probabilities of targets (M) after hidden states (M, H), some at a time; (M)."""
    at_a_time = max(1, LOGITS_AT_A_TIME // states.model.config.get_text_config().vocab_size)
    pairs = zip(hidden.split(at_a_time), targets.split(at_a_time), strict=True)
    return torch.cat([_chosen_logps(states.logits(some), chosen) for some, chosen in pairs])


def check_length(solution: EncodedSolution, model: PreTrainedModel, where: str) -> None:
    """Raise ValueError if a solution is longer than the context of the model.

    ``where`` names the solution in the message. Nothing is ever truncated.
    """
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and len(solution.input_ids) > limit:
        raise ValueError(
            f"{where} has {len(solution.input_ids)} tokens ({solution.response_start} of them "
            f"prompt), but the context of {model.name_or_path or 'the model'} is {limit}; "
            "shorten it or leave it out"
        )
