"""Remake the shipped policy: ``python -m implicitprm.wordproblems.pretrain``.

A LoRA adapter on the upper layers of SmolLM2-135M-Instruct, trained in float32 on an endless stream
of fresh problems with their true solutions: enough to learn the form, too little to calculate
without errors. About a quarter of an hour on one CPU core; an interrupted run goes on from its
last checkpoint.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy, pad
from torch.utils.data import IterableDataset
from transformers import (
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    set_seed,
)

from implicitprm.arithmetic.pretrain import collate
from implicitprm.experiments.grid import SCRATCH
from implicitprm.rewards import load_causal_lm
from implicitprm.smollm2 import HUB_ID, smollm2_path
from implicitprm.steps import Solution, encode
from implicitprm.training import last_complete_checkpoint
from implicitprm.trunk import logits_where
from implicitprm.wordproblems.problems import TRAINING_TEMPLATES, WORD_FORMAT, sample_problem

RANK = 8
LAYERS = 8
STEPS = 180
BATCH_SIZE = 8
LEARNING_RATE = 1e-3
#: Every linear map of a layer; peft's "all-linear" cannot be limited to some layers.
_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_WEIGHTS = "adapter_model.safetensors"


def adapter_path() -> Path:
    """Folder of the shipped adapter."""
    return Path(str(files("implicitprm.wordproblems"))) / "checkpoints" / "policy"


def weights_path() -> Path:
    """The weights of the shipped adapter."""
    return adapter_path() / _WEIGHTS


def load_policy(adapter: bool = True) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """SmolLM2-135M-Instruct in float32 with the shipped adapter merged into it, or without it.

    Raises ModuleNotFoundError, which says what to install, where the model is not to be had.
    """
    folder = smollm2_path()
    model = load_causal_lm(folder, torch.float32)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter_path()).merge_and_unload()
    return model.eval(), AutoTokenizer.from_pretrained(folder)


class SolutionStream(IterableDataset):
    """An endless stream of tokenised problems with true solutions; the loss is on the solution."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, seed: int):
        self.tokenizer, self.seed = tokenizer, seed

    def __iter__(self) -> Iterator[dict[str, list[int]]]:
        rng = np.random.default_rng(self.seed)
        while True:
            problem = sample_problem(rng, TRAINING_TEMPLATES)
            encoded = encode(self.tokenizer, Solution(problem.prompt, problem.steps), WORD_FORMAT)
            ids, start = list(encoded.input_ids), encoded.response_start
            yield {"input_ids": ids, "labels": [-100] * start + ids[start:]}


class SolutionTrainer(Trainer):
    """Cross-entropy on the labelled tokens.

    Only their logits are computed: at a vocabulary of 49,152 the logits of the prompts would cost
    as much as the layers that are trained.
    """

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The mean cross-entropy of the labelled tokens of a batch."""
        labels = inputs.pop("labels")[:, 1:]  # (B, T-1)
        told = labels != -100
        logits = logits_where(model, pad(told, (0, 1)), **inputs, use_cache=False)
        return cross_entropy(logits, labels[told])


def fine_tune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    steps: int,
    layers: int,
    seed: int,
    scratch: Path,
) -> PeftModel:
    """Train an adapter on the last ``layers`` decoder layers of ``model``.

    Goes on from the last checkpoint in ``scratch``, where there is one.
    """
    set_seed(seed)
    first = model.config.num_hidden_layers - layers
    policy = get_peft_model(
        model,
        LoraConfig(
            r=RANK,
            lora_alpha=2 * RANK,
            target_modules=_LINEAR,
            layers_to_transform=list(range(first, first + layers)),
            task_type="CAUSAL_LM",
        ),
    )
    SolutionTrainer(
        model=policy,
        args=TrainingArguments(
            output_dir=str(scratch),
            max_steps=steps,
            per_device_train_batch_size=BATCH_SIZE,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="cosine",
            warmup_steps=steps // 20,
            logging_steps=5,
            save_steps=20,
            save_total_limit=1,
            report_to="none",
            seed=seed,
        ),
        train_dataset=SolutionStream(tokenizer, seed),
        data_collator=collate,
        processing_class=tokenizer,
    ).train(resume_from_checkpoint=last_complete_checkpoint(scratch))
    return policy


def save_adapter(policy: PeftModel, folder: Path) -> None:
    """Write an adapter with weights in float16, and the model's hub id in place of its folder."""
    policy.peft_config["default"].base_model_name_or_path = HUB_ID
    policy.save_pretrained(str(folder))
    half = {name: weight.half() for name, weight in load_file(folder / _WEIGHTS).items()}
    save_file(half, folder / _WEIGHTS, metadata={"format": "pt"})
    (folder / "README.md").unlink(missing_ok=True)  # an empty model card


def main(seed: int = 0, steps: int = STEPS) -> None:
    """Train the shipped adapter anew."""
    torch.set_num_threads(1)
    folder, scratch = smollm2_path(), SCRATCH / f"wordproblems-policy-{seed}-{steps}"
    policy = fine_tune(
        load_causal_lm(folder, torch.float32),
        AutoTokenizer.from_pretrained(folder),
        steps,
        LAYERS,
        seed,
        scratch,
    )
    save_adapter(policy, adapter_path())
    shutil.rmtree(scratch)


if __name__ == "__main__":
    typer.run(main)
