"""Token log-probabilities of a response under a causal language model.

The only shift and the only mask of the package: the logits at position t are the prediction of
token t + 1, and prompt and padding do not count.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from implicitprm.steps import EncodedSolution


def token_logps(logits: Tensor, input_ids: Tensor, response_mask: Tensor) -> Tensor:
    """Log-probability, in nats, of every response token given the tokens before it.

    Shapes: ``logits`` (B, T, V), ``input_ids`` (B, T), ``response_mask`` (B, T) bool; returns
    (B, T), where entry t is log p(input_ids[t] | input_ids[:t]), and 0 where the mask is False.
    Half-precision logits are taken to float32 first; float64 stays float64.

    Raises ValueError if a mask selects position 0, which nothing predicts, and if a log-probability
    is NaN or infinite.
    """
    if response_mask[:, 0].any():
        raise ValueError("position 0 has no token before it and so no log-probability")
    mask = response_mask[:, 1:]  # (B, T-1): the tokens that are predicted
    predictions = logits[:, :-1][mask]  # (M, V), the M response tokens of the batch
    if predictions.dtype != torch.float64:
        predictions = predictions.float()
    targets = input_ids[:, 1:][mask]  # (M)
    chosen = predictions.gather(-1, targets[:, None]).squeeze(-1) - predictions.logsumexp(-1)
    if not torch.isfinite(chosen).all():
        row = int(mask.nonzero()[~torch.isfinite(chosen)][0, 0])
        raise ValueError(
            f"row {row} of the batch has a log-probability that is NaN or infinite: the model's "
            "logits overflow (float16 does; use bfloat16 or float32) or its weights are broken"
        )
    logps = torch.zeros(input_ids.shape, dtype=chosen.dtype, device=chosen.device)
    return logps.masked_scatter(response_mask, chosen)  # (B, T)


def response_logps(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, response_mask: Tensor
) -> Tensor:
    """:func:`token_logps` of one forward pass of ``model``; (B, T)."""
    logits = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits
    return token_logps(logits, input_ids, response_mask)


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
    not fit into memory fails at once. ``description`` labels the progress bar.
    """
    order = sorted(range(len(solutions)), key=lambda index: -len(solutions[index].input_ids))
    logps = [torch.empty(0)] * len(solutions)
    with tqdm(total=len(order), desc=description, leave=False) as progress:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = collate(
                [solutions[row].input_ids for row in rows],
                [solutions[row].response_start for row in rows],
                pad_token_id,
            )
            batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
            batch_logps = response_logps(model, **batch).cpu()  # (B, T)
            for row, values, mask in zip(
                rows, batch_logps, batch["response_mask"].cpu(), strict=True
            ):
                logps[row] = values[mask]
            progress.update(len(rows))
    return logps


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
