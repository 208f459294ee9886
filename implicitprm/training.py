"""Train an implicit PRM from outcome labels: a transformers Trainer whose loss is on rewards.

The policy is trained so that r = β (log π_θ(y|x) − log π_ref(y|x)), summed over the response, tells
right responses from wrong ones. The reference never changes, so its log-probabilities are computed
once, before the first update, and kept as columns.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch import Tensor
from tqdm import tqdm
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import TrainOutput

from implicitprm.data import Format, add_mismatched, check_format
from implicitprm.devices import processes
from implicitprm.logprobs import check_length, collate, response_logps, score_logps
from implicitprm.losses import ce_loss, dpo_loss, kto_loss, kto_reference_point, nca_loss
from implicitprm.rewards import token_rewards
from implicitprm.steps import EncodedSolution, Solution, SolutionFormat, encode, response_text


@dataclass(frozen=True)
class Response:
    """The names of the columns that hold one of a row's responses.

    ``text``: the response; ``finished``: whether it is finished; ``ref_logps``: its log-probability
    under the reference. The names are TRL's.
    """

    text: str
    finished: str
    ref_logps: str


COMPLETION = Response("completion", "finished", "ref_logps")
MISMATCHED = Response("KL_completion", "KL_finished", "ref_KL_logps")
CHOSEN = Response("chosen", "chosen_finished", "ref_chosen_logps")
REJECTED = Response("rejected", "rejected_finished", "ref_rejected_logps")


@dataclass(frozen=True)
class Objective:
    """What an objective reads: the format of its data set, and the responses of a row."""

    format: Format
    responses: tuple[Response, ...]


#: The objectives: ``ce``, ``kto``, ``dpo`` and ``nca``.
OBJECTIVES: dict[str, Objective] = {
    "ce": Objective("unpaired", (COMPLETION,)),
    "kto": Objective("unpaired", (COMPLETION, MISMATCHED)),
    "dpo": Objective("preference", (CHOSEN, REJECTED)),
    "nca": Objective("preference", (CHOSEN, REJECTED)),
}


@dataclass
class ImplicitPRMConfig(TrainingArguments):
    """TrainingArguments plus ``objective``, one of :data:`OBJECTIVES`, and β.

    The defaults are the paper's for an 8B model (§4.1), except that the learning rate falls to 0
    and not to the paper's floor. Raises ValueError for another objective or a β that is not
    positive.

    β multiplies a log-ratio in nats per *response*: small models and short responses need a larger
    one, see chapter 06.
    """

    objective: str = field(default="ce", metadata={"help": f"one of {', '.join(OBJECTIVES)}"})
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
        _check_objective(self.objective)
        if not self.beta > 0:
            raise ValueError(f"beta must be positive, not {self.beta}")
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns must stay False")


class ImplicitPRMTrainer(Trainer):
    """Trains ``model`` with one of :data:`OBJECTIVES` on outcome data.

    ``reference`` is the model behind the reference log-probabilities; give ``model`` itself to
    refer to its weights before training, or None to train without one. CE and KTO read rows of
    ``prompt, completion, label``, DPO and NCA rows of ``prompt, chosen, rejected``
    (:func:`implicitprm.data.pair_responses` makes them); ``weight``, optional, says how often a row
    counts. Columns with reference log-probabilities (:func:`add_reference_logps`) are used where
    they are there.

    KTO's reference point is estimated on the rows of one forward pass, over all processes: the
    smaller ``per_device_train_batch_size``, the noisier and, being clamped at 0, the higher it is.

    A LoRA policy is ``peft.get_peft_model(model, LoraConfig(...))``. ``log.csv`` in the output
    folder has a line per logged step; ``reward_right`` and ``reward_wrong`` are mean rewards, each
    row counted once.

    Raises ValueError where a row cannot be tokenised or is longer than the model's context, or a
    weight is not positive.
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
            callbacks=[_CSVLog(), *(callbacks or [])],
        )
        # It prints every log line where there is no progress bar; the lines stay in the log.
        self.remove_callback(PrinterCallback)
        # The loss is already a mean over the batch: without this the Trainer would divide it by
        # a number of tokens.
        self.model_accepts_loss_kwargs = False
        self._policy, self._tokenizer = model, processing_class
        self._objective, self._beta = args.objective, args.beta
        # Right and wrong responses since the last log line: sum of rewards, count.
        self._reward_sums = torch.zeros(2, 2, device=args.device)
        self.train_dataset = self._prepare(train_dataset, reference, format)
        if eval_dataset is not None:
            self.eval_dataset = self._prepare(eval_dataset, reference, format)

    def train(
        self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any
    ) -> TrainOutput:
        """Train; ``resume_from_checkpoint`` True goes on from the last *complete* checkpoint.

        The stock Trainer takes the one with the highest number, even if its writing was cut short.
        Where there is none, training starts from the beginning.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_complete_checkpoint(self.args.output_dir)  # type: ignore[arg-type]
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The objective on the implicit rewards of a batch.

        The outputs are ``rewards``: (B), or (B, 2) for chosen and rejected.
        """
        labels, weights = inputs["labels"], inputs["weights"]  # (B)
        if self._objective == "kto":
            rewards, mismatched = self._kto_rewards(model, inputs)  # (B) each
            # Over all processes, and per forward pass: with gradient accumulation an update has
            # several estimates of z, each of fewer responses.
            gathered = self.accelerator.gather(torch.stack([mismatched, weights], dim=1))
            point = kto_reference_point(*gathered.unbind(dim=1))
            loss = kto_loss(rewards, labels, point, weights)
        elif self._objective == "ce":
            rewards = self._rewards(model, inputs)
            loss = ce_loss(rewards, labels, weights)
        else:
            paired = {"dpo": dpo_loss, "nca": nca_loss}[self._objective]
            rewards = self._rewards(model, inputs).unflatten(0, (2, -1)).T  # (B, 2)
            loss = paired(rewards[:, 0], rewards[:, 1], weights)
        if model.training:
            self._count_rewards(rewards.detach(), labels)
        # Weights have mean 1 over the data set. Multiplying by the batch's own mean undoes the
        # division by it, so that the steps of an epoch add up to the gradient of repeated rows.
        loss = loss * weights.mean()
        return (loss, {"rewards": rewards}) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean rewards of right and wrong responses since the last line to the log."""
        if "loss" in logs:
            sums = self.accelerator.gather(self._reward_sums[None]).sum(0)  # (2, 2)
            for name, (total, count) in zip(
                ("reward_right", "reward_wrong"), sums.tolist(), strict=True
            ):
                if count:
                    logs[name] = total / count
            self._reward_sums.zero_()
        super().log(logs, start_time)

    def _rewards(self, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        """The reward of every response in a batch (k·B): all first ones, then all second ones."""
        logps = response_logps(
            model, inputs["input_ids"], inputs["attention_mask"], inputs["response_mask"]
        )
        return token_rewards(logps.sum(-1), inputs["ref_logps"], self._beta)

    def _kto_rewards(self, model: Any, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Rewards of the responses, and, without gradient, of the mismatched ones; (B) each."""
        halves = {
            name: inputs[name].chunk(2)
            for name in ("input_ids", "attention_mask", "response_mask", "ref_logps")
        }
        own, other = ({name: half[side] for name, half in halves.items()} for side in (0, 1))
        with torch.no_grad():
            mismatched = self._rewards(model, other)
        return self._rewards(model, own), mismatched

    def _count_rewards(self, rewards: Tensor, labels: Tensor) -> None:
        right = labels.bool()
        sides = rewards.unbind(1) if rewards.ndim == 2 else (rewards[right], rewards[~right])
        for row, side in enumerate(sides):
            self._reward_sums[row, 0] += side.sum()
            self._reward_sums[row, 1] += len(side)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        # Every process writes its own file. The one that writes trainer_state.json afterwards, by
        # which a checkpoint is known to be complete, waits for the others.
        self.accelerator.wait_for_everyone()

    def _prepare(
        self, dataset: Dataset, reference: PreTrainedModel | None, format: SolutionFormat
    ) -> Dataset:
        dataset = _with_responses(dataset, self._objective, self.args.seed)
        encoded = _encode_rows(dataset, self._objective, self._tokenizer, format, self._policy)
        missing = {r: rows for r, rows in encoded.items() if r.ref_logps not in dataset.features}
        # In the precision of training, so that rewards are 0 before the first update.
        with self.accelerator.autocast():
            computed = _reference_logps(
                missing,
                reference,
                self._tokenizer.pad_token_id,
                self.args.per_device_eval_batch_size,
            )
        ref_logps = {r: computed.get(r) or list(dataset[r.ref_logps]) for r in encoded}
        # A pair is right the way round: its first response is the right one.
        labels = dataset["label"] if "label" in dataset.features else [True] * len(dataset)
        return Dataset.from_dict(
            {
                "input_ids": _by_row([[s.input_ids for s in rows] for rows in encoded.values()]),
                "response_start": _by_row(
                    [[s.response_start for s in rows] for rows in encoded.values()]
                ),
                "ref_logps": _by_row(list(ref_logps.values())),
                "labels": [float(label) for label in labels],
                "weights": _relative_weights(dataset),
            }
        )


def _check_objective(objective: str) -> None:
    """Raise ValueError for a name that is not in OBJECTIVES."""
    if objective not in OBJECTIVES:
        raise ValueError(
            f"objective {objective!r} is unknown; choose one of {', '.join(OBJECTIVES)}"
        )


def add_reference_logps(
    dataset: Dataset,
    reference: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    format: SolutionFormat,
    objective: str = "ce",
    seed: int = 0,
    batch_size: int = 64,
) -> Dataset:
    """Add the reference's log-probabilities, in nats per response, so that runs can share them.

    Columns by the names of TRL: ``ref_logps`` (and ``ref_KL_logps``), or ``ref_chosen_logps`` and
    ``ref_rejected_logps``. KTO's mismatched responses are drawn with ``seed`` where there are none.
    Under several processes each scores its share.

    Raises ValueError where a row cannot be tokenised or is longer than the reference's context.
    """
    _check_objective(objective)
    dataset = _with_responses(dataset, objective, seed)
    encoded = _encode_rows(dataset, objective, tokenizer, format, reference)
    columns = _reference_logps(encoded, reference, tokenizer.pad_token_id, batch_size)
    for response, logps in columns.items():
        dataset = dataset.add_column(response.ref_logps, logps)
    return dataset


def _with_responses(dataset: Dataset, objective: str, seed: int) -> Dataset:
    """The data set, checked, with KTO's mismatched responses if it needs them."""
    dataset = check_format(dataset, OBJECTIVES[objective].format)
    if objective == "kto" and MISMATCHED.text not in dataset.column_names:
        dataset = add_mismatched(dataset, seed)
    return dataset


def _encode_rows(
    dataset: Dataset,
    objective: str,
    tokenizer: PreTrainedTokenizerBase,
    format: SolutionFormat,
    model: PreTrainedModel,
) -> dict[Response, list[EncodedSolution]]:
    """Tokenise every response for ``model``; its steps do not matter for a loss on outcomes."""
    responses = OBJECTIVES[objective].responses
    encoded: dict[Response, list[EncodedSolution]] = {response: [] for response in responses}
    for index, row in enumerate(tqdm(dataset, desc="tokenising", leave=False)):
        for response in responses:
            encoded[response].append(_encode_row(index, row, response, tokenizer, format))
            check_length(encoded[response][-1], model, f"row {index} ({response.text})")
    return encoded


def _encode_row(
    index: int,
    row: Mapping[str, Any],
    response: Response,
    tokenizer: PreTrainedTokenizerBase,
    format: SolutionFormat,
) -> EncodedSolution:
    try:
        finished = row.get(response.finished) is not False
        solution = Solution(row["prompt"], (response_text(row[response.text]),), finished)
        return encode(tokenizer, solution, format)
    except ValueError as error:
        raise ValueError(f"row {index}: {error}") from error


def row_lengths(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, format: SolutionFormat
) -> list[int]:
    """Tokens of each row, of unpaired or preference rows: prompt and its longer response.

    Raises ValueError where a row cannot be tokenised.
    """
    found = [r for r in (COMPLETION, CHOSEN, REJECTED) if r.text in dataset.column_names]
    return [
        max(len(_encode_row(index, row, r, tokenizer, format).input_ids) for r in found)
        for index, row in enumerate(tqdm(dataset, desc="measuring", leave=False))
    ]


def _by_row(columns: list[list[Any]]) -> list[list[Any]]:
    """One list per response (k, N) → one list per row (N, k)."""
    return [list(values) for values in zip(*columns, strict=True)]


def _reference_logps(
    encoded: Mapping[Response, list[EncodedSolution]],
    reference: PreTrainedModel | None,
    pad_token_id: int | None,
    batch_size: int,
) -> dict[Response, list[float]]:
    """Log-probabilities under the reference, 0 where there is none; its device is as before."""
    if reference is None:
        return {response: [0.0] * len(rows) for response, rows in encoded.items()}
    state = processes()
    home: Any = reference.device
    reference.to(state.device)
    reference.eval()
    columns = {}
    for response, rows in encoded.items():
        with state.split_between_processes(rows) as share:
            logps = score_logps(reference, share, pad_token_id, batch_size, "reference")
        columns[response] = gather_object([float(values.sum()) for values in logps])
    reference.to(home)
    return columns


def _relative_weights(dataset: Dataset) -> list[float]:
    """The weights of the rows, divided by their mean; 1 where there are none."""
    if "weight" not in dataset.column_names:
        return [1.0] * len(dataset)
    weights = list(dataset["weight"])
    for row, weight in enumerate(weights):
        if not 0 < weight < float("inf"):
            raise ValueError(f"row {row}: weight {weight} must be positive; drop the row instead")
    mean = sum(weights) / len(weights)
    return [weight / mean for weight in weights]


class _Collator:
    """Stacks the k responses of B rows: all first ones, then all second ones (k·B)."""

    def __init__(self, pad_token_id: int | None):
        self.pad_token_id = pad_token_id

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        def stacked(name: str) -> list[Any]:
            return [
                value
                for values in zip(*(row[name] for row in rows), strict=True)
                for value in values
            ]

        batch = collate(stacked("input_ids"), stacked("response_start"), self.pad_token_id)
        batch["ref_logps"] = torch.tensor(stacked("ref_logps"))
        for name in ("labels", "weights"):
            batch[name] = torch.tensor([row[name] for row in rows])
        return batch


class _CSVLog(TrainerCallback):
    """Writes what the Trainer logs to ``log.csv``, a line per logged step.

    A resumed run drops the lines after its checkpoint and goes on.
    """

    columns = (
        "step",
        "epoch",
        "loss",
        "reward_right",
        "reward_wrong",
        "learning_rate",
        "grad_norm",
        "eval_loss",
    )

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            self._write(args, "w", state.log_history)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            self._write(args, "a", state.log_history[-1:])

    def _write(self, args: TrainingArguments, mode: str, lines: list[dict[str, float]]) -> None:
        path = Path(str(args.output_dir)) / "log.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open(mode, newline="") as file:
            writer = csv.DictWriter(file, self.columns, extrasaction="ignore")
            if mode == "w":
                writer.writeheader()
            # The summary at the end of a run has neither a loss nor an evaluation.
            writer.writerows(line for line in lines if {"loss", "eval_loss"} & line.keys())


def last_complete_checkpoint(folder: str | Path) -> str | None:
    """The newest checkpoint of a Trainer that was written to its end; None if there is none.

    ``trainer_state.json`` is the last file that is written, before older checkpoints are deleted:
    a run that is killed at any moment leaves at least the last complete one. The loss of power
    while the system still holds files in memory is another matter.
    """
    numbered = {}
    for path in Path(folder).glob("checkpoint-*"):
        number = path.name.removeprefix("checkpoint-")
        if number.isdecimal() and _is_complete(path):
            numbered[int(number)] = path
    return str(numbered[max(numbered)]) if numbered else None


def _is_complete(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


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


def with_lora(model: PreTrainedModel, rank: int) -> Any:
    """A peft model with an adapter of ``rank`` on every linear map, which alone is trained.

    Raises ModuleNotFoundError, which says what to install, where peft is missing.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "a LoRA adapter needs peft: pip install 'implicitprm[lora]'"
        ) from error
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return get_peft_model(model, config)
