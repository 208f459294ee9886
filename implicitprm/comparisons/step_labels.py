"""Train a step scorer on one label per step, by the same Trainer and schedule as the implicit PRM.

Where the labels come from is another matter: true ones, Math-Shepherd's, AutoPSV's, or the outcome
repeated at every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase, PrinterCallback, Trainer

from implicitprm.logprobs import collate
from implicitprm.losses import step_label_loss
from implicitprm.steps import EncodedSolution, Solution, SolutionFormat, encode
from implicitprm.training import ImplicitPRMConfig


class StepLabelTrainer(Trainer):
    """Trains one of :mod:`implicitprm.comparisons.heads` by cross-entropy on step labels.

    Rows are stepwise: ``prompt, completions, labels``, where ``completions`` are the steps and each
    label lies in [0, 1]; a soft label is the probability that the step is right. Optional:
    ``finished``, ``weight`` (how often a row counts), and ``ref_step_logps``, the reference's
    log-probability of each step, for a log-ratio. Of ``args`` the schedule counts, not the
    objective.

    Raises ValueError where there is no row, or a row has not one label (and log-probability) a
    step, a label outside [0, 1], or a weight that is not positive.
    """

    def __init__(
        self,
        model: nn.Module,
        args: ImplicitPRMConfig,
        train_dataset: Dataset,
        processing_class: PreTrainedTokenizerBase,
        format: SolutionFormat,
    ):
        super().__init__(
            model=model,
            args=args,
            train_dataset=_prepared(train_dataset, processing_class, format),
            data_collator=_Collator(processing_class.pad_token_id),
            processing_class=processing_class,
        )
        self.remove_callback(PrinterCallback)
        # The loss is already a mean over the batch, as in ImplicitPRMTrainer.
        self.model_accepts_loss_kwargs = False

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Mean over steps, then over responses by weight, of the cross-entropy of step labels."""
        batch = dict(inputs)
        labels, mask, weights = (batch.pop(name) for name in ("labels", "step_mask", "weights"))
        scores = model(**batch)  # (B, S)
        # Weights have mean 1 over the data set, see ImplicitPRMTrainer.compute_loss.
        loss = step_label_loss(scores, labels, mask, weights) * weights.mean()
        return (loss, {"scores": scores}) if return_outputs else loss


@torch.inference_mode()
def score_steps(
    scorer: nn.Module,
    solutions: Sequence[Solution],
    tokenizer: PreTrainedTokenizerBase,
    format: SolutionFormat,
    batch_size: int = 128,
) -> list[np.ndarray]:
    """The logit of every step of each solution, an array (S) each; the order is kept."""
    encoded = [encode(tokenizer, solution, format) for solution in solutions]
    order = sorted(range(len(encoded)), key=lambda index: -len(encoded[index].input_ids))
    device = next(scorer.parameters()).device
    scores: list[np.ndarray] = [np.empty(0)] * len(encoded)
    scorer.eval()
    for start in tqdm(range(0, len(order), batch_size), desc="scoring", leave=False):
        rows = order[start : start + batch_size]
        batch = _step_batch([encoded[row] for row in rows], tokenizer.pad_token_id)
        mask = batch.pop("step_mask")
        logits = scorer(**{name: tensor.to(device) for name, tensor in batch.items()}).cpu()
        for row, values, inside in zip(rows, logits, mask, strict=True):
            scores[row] = values[inside].double().numpy()
    return scores


def _prepared(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, format: SolutionFormat
) -> Dataset:
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(dataset):
        solution = Solution(
            row["prompt"], tuple(row["completions"]), row.get("finished") is not False
        )
        labels = [float(label) for label in row["labels"]]
        for column in {"labels", "ref_step_logps"} & row.keys():
            if len(row[column]) != len(solution.steps):
                raise ValueError(
                    f"row {number}: {len(row[column])} {column} for {len(solution.steps)} steps"
                )
        if not all(0 <= label <= 1 for label in labels):
            raise ValueError(f"row {number}: labels must lie in [0, 1], not {labels}")
        weight = float(row.get("weight", 1))
        if not 0 < weight < float("inf"):
            raise ValueError(f"row {number}: weight {weight} must be positive")
        encoded = encode(tokenizer, solution, format)
        rows.append(
            {
                "input_ids": encoded.input_ids,
                "response_start": encoded.response_start,
                "step_ends": encoded.step_ends,
                "labels": labels,
                "weights": weight,
            }
            | ({"ref_step_logps": row["ref_step_logps"]} if "ref_step_logps" in row else {})
        )
    if not rows:
        raise ValueError("the data set has no rows to train on")
    mean = sum(row["weights"] for row in rows) / len(rows)
    return Dataset.from_list([row | {"weights": row["weights"] / mean} for row in rows])


class _Collator:
    def __init__(self, pad_token_id: int | None):
        self.pad_token_id = pad_token_id

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        encoded = [
            EncodedSolution(tuple(r["input_ids"]), r["response_start"], tuple(r["step_ends"]), ())
            for r in rows
        ]
        batch = _step_batch(encoded, self.pad_token_id)
        batch["weights"] = torch.tensor([row["weights"] for row in rows])
        for name in ("labels", "ref_step_logps"):
            if name in rows[0]:
                batch[name] = _padded([row[name] for row in rows])
        return batch


def _step_batch(encoded: Sequence[EncodedSolution], pad_token_id: int | None) -> dict[str, Tensor]:
    """The tensors of :mod:`implicitprm.comparisons.heads`, and ``step_mask`` (B, S).

    The mask is True where a row has a step.
    """
    batch = collate(
        [solution.input_ids for solution in encoded],
        [solution.response_start for solution in encoded],
        pad_token_id,
    )
    most = max(len(solution.step_ends) for solution in encoded)
    last = [
        [solution.response_start + end - 1 for end in solution.step_ends] for solution in encoded
    ]
    batch["step_last"] = torch.tensor([ends + ends[-1:] * (most - len(ends)) for ends in last])
    counts = torch.tensor([len(ends) for ends in last])
    batch["step_mask"] = torch.arange(most) < counts[:, None]
    return batch


def _padded(values: Sequence[Sequence[float]]) -> Tensor:
    """Rows of numbers, padded with 0 on the right: (B, S)."""
    most = max(map(len, values))
    return torch.tensor([[*row, *[0.0] * (most - len(row))] for row in values])
