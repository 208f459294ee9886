"""Train an implicit PRM from outcome labels: a transformers Trainer whose loss is on rewards.

The policy is trained so that r = β (log π_θ(y|x) − log π_ref(y|x)), summed over the response, tells
right responses from wrong ones. The reference never changes, so its log-probabilities are computed
once, before the first update, and kept as the column ``ref_logps``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from tqdm import tqdm
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from implicitprm.data import check_format
from implicitprm.logprobs import check_length, collate, response_logps, score_logps
from implicitprm.losses import ce_loss
from implicitprm.rewards import token_rewards
from implicitprm.steps import EncodedSolution, Solution, SolutionFormat, encode, response_text


@dataclass
class ImplicitPRMConfig(TrainingArguments):
    """TrainingArguments plus β. The defaults are the paper's for an 8B model (§4.1).

    β multiplies a log-ratio in nats per *response*: small models and short responses need a larger
    one, see chapter 00.
    """

    beta: float = field(default=0.05, metadata={"help": "β of r = β log π_θ/π_ref"})
    learning_rate: float = field(default=5e-7, metadata={"help": "peak learning rate"})
    num_train_epochs: float = field(default=1.0, metadata={"help": "passes over the data"})
    per_device_train_batch_size: int = field(default=64, metadata={"help": "rows per step"})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "learning rate schedule"})
    warmup_steps: float = field(default=0.03, metadata={"help": "steps, or a share if below 1"})
    adam_beta2: float = field(default=0.95, metadata={"help": "second moment decay of Adam"})
    dataloader_pin_memory: bool = field(
        default=torch.cuda.is_available(), metadata={"help": "of no use without an accelerator"}
    )
    # Rows hold lists of token ids that the Trainer would drop as unknown to the model's forward.
    remove_unused_columns: bool = field(default=False, metadata={"help": "must stay False"})
    report_to: Any = field(default="none", metadata={"help": "no experiment tracker"})

    def __post_init__(self) -> None:
        super().__post_init__()
        # The Trainer has its own progress bar; it obeys the switch that turns tqdm off.
        self.disable_tqdm = self.disable_tqdm or "TQDM_DISABLE" in os.environ
        if not self.beta > 0:
            raise ValueError(f"beta must be positive, not {self.beta}")
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns must stay False")


class ImplicitPRMTrainer(Trainer):
    """Trains ``model`` with the CE objective on unpaired outcome data.

    ``reference`` is the model behind ``ref_logps``; give ``model`` itself to refer to its weights
    before training, or None for a uniform reference. ``train_dataset`` has the columns ``prompt,
    completion, label`` and optionally ``weight``, how often a row counts.

    Raises ValueError where a row cannot be tokenised or is longer than the model's context.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        reference: PreTrainedModel | None,
        args: ImplicitPRMConfig,
        train_dataset: Dataset,
        processing_class: PreTrainedTokenizerBase,
        format: SolutionFormat | None = None,
        eval_dataset: Dataset | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ):
        format = format or SolutionFormat(chat=processing_class.chat_template is not None)
        super().__init__(
            model=model,
            args=args,
            data_collator=_Collator(processing_class.pad_token_id),
            processing_class=processing_class,
            callbacks=callbacks,
        )
        # It prints every log line where there is no progress bar; the lines stay in the history.
        self.remove_callback(PrinterCallback)
        # The loss is already a mean over the batch: without this the Trainer would divide it by
        # a number of tokens.
        self.model_accepts_loss_kwargs = False
        self._policy, self._tokenizer, self._beta = model, processing_class, args.beta
        self.train_dataset = self._prepare(train_dataset, reference, format)
        if eval_dataset is not None:
            self.eval_dataset = self._prepare(eval_dataset, reference, format)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """CE on the implicit rewards of a batch; the outputs are ``rewards`` (B)."""
        logps = response_logps(
            model, inputs["input_ids"], inputs["attention_mask"], inputs["response_mask"]
        )
        rewards = token_rewards(logps.sum(-1), inputs["ref_logps"], self._beta)  # (B)
        weights = inputs["weights"]
        # Weights have mean 1 over the data set. Multiplying by the batch's own mean undoes the
        # division by it, so that the steps of an epoch add up to the gradient of repeated rows.
        loss = ce_loss(rewards, inputs["labels"], weights) * weights.mean()
        return (loss, {"rewards": rewards}) if return_outputs else loss

    def _prepare(
        self, dataset: Dataset, reference: PreTrainedModel | None, format: SolutionFormat
    ) -> Dataset:
        dataset = check_format(dataset, "unpaired")
        encoded = [
            _encode(self._tokenizer, self._policy, index, row, format)
            for index, row in enumerate(tqdm(dataset, desc="tokenising", leave=False))
        ]
        if "ref_logps" in dataset.column_names:
            ref_logps = list(dataset["ref_logps"])
        elif reference is None:
            ref_logps = [0.0] * len(dataset)
        else:
            # In the precision of training, so that rewards are 0 before the first update.
            reference.to(self.args.device)  # type: ignore[arg-type]
            reference.eval()
            with self.accelerator.autocast():
                logps = score_logps(
                    reference,
                    encoded,
                    self._tokenizer.pad_token_id,
                    self.args.per_device_eval_batch_size,
                    "reference",
                )
            ref_logps = [float(values.sum()) for values in logps]
        weights = (
            list(dataset["weight"]) if "weight" in dataset.column_names else [1] * len(dataset)
        )
        mean_weight = sum(weights) / len(weights)
        return Dataset.from_dict(
            {
                "input_ids": [solution.input_ids for solution in encoded],
                "response_start": [solution.response_start for solution in encoded],
                "labels": [float(label) for label in dataset["label"]],
                "weights": [weight / mean_weight for weight in weights],
                "ref_logps": ref_logps,
            }
        )


def _encode(
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    index: int,
    row: dict[str, Any],
    format: SolutionFormat,
) -> EncodedSolution:
    """Tokenise one row; its steps do not matter for a loss on outcomes."""
    try:
        finished = row.get("finished") is not False
        solution = Solution(row["prompt"], (response_text(row["completion"]),), finished)
        encoded = encode(tokenizer, solution, format)
    except ValueError as error:
        raise ValueError(f"row {index}: {error}") from error
    check_length(encoded, model, f"row {index}")
    return encoded


class _Collator:
    def __init__(self, pad_token_id: int | None):
        self.pad_token_id = pad_token_id

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = collate(
            [row["input_ids"] for row in rows],
            [row["response_start"] for row in rows],
            self.pad_token_id,
        )
        for name in ("labels", "weights", "ref_logps"):
            batch[name] = torch.tensor([row[name] for row in rows])
        return batch


def train_last_layers(model: PreTrainedModel, layers: int) -> None:
    """Freeze everything but the last ``layers`` decoder layers and the norm after them.

    On a CPU this is what makes a model of 100M parameters and more trainable in minutes: nothing
    below the first trained layer is differentiated. Raises ValueError for an impossible number.
    """
    decoder: Any = model.base_model
    count = len(decoder.layers)
    if not 0 < layers <= count:
        raise ValueError(f"the model has {count} layers; {layers} of them cannot be trained")
    model.requires_grad_(False)
    for module in (*decoder.layers[-layers:], decoder.norm):
        module.requires_grad_(True)
