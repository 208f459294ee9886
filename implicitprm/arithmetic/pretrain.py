"""Remake the shipped generators: ``python -m implicitprm.arithmetic.pretrain [GENERATOR ...]``.

Each generator is a reasoner trained on an endless stream of fresh problems with the solutions of
one fallible tutor. About 15 minutes per generator on one CPU core.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch.utils.data import IterableDataset
from transformers import (
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from implicitprm.arithmetic.problems import CHAIN_LENGTHS, SEPARATOR, Problem, sample_problem
from implicitprm.arithmetic.reasoner import build_reasoner, checkpoint_path
from implicitprm.arithmetic.tokenizer import build_tokenizer
from implicitprm.arithmetic.tutor import Tutor

TUTOR_SEED = 0
BATCH_SIZE = 128
#: The ``early`` generator is the reasoner after this many steps.
EARLY_STEP = 900


@dataclass(frozen=True)
class Recipe:
    """How a generator is made: its tutor, its schedule, and where its weights start."""

    tutor: Tutor
    steps: int
    learning_rate: float
    restarts: int = 2
    start_from: str | None = None
    #: also save the weights after this many steps, as this generator
    snapshot: tuple[int, str] | None = None


def recipes() -> dict[str, Recipe]:
    """Generator's name → how it is made."""
    tutor = Tutor(TUTOR_SEED)
    return {
        "reasoner": Recipe(tutor, 1800, 3e-3, snapshot=(EARLY_STEP, "early")),
        "strong": Recipe(
            Tutor(TUTOR_SEED, error_scale=0.6), 600, 1.5e-3, restarts=1, start_from="reasoner"
        ),
        "control": Recipe(Tutor(TUTOR_SEED, misconception_share=0.0), 1800, 3e-3),
    }


class TutorStream(IterableDataset):
    """An endless stream of tokenised problems with solutions; the loss is on the solution only.

    The problems of one batch have one chain length, so that hardly anything is padded.
    """

    def __init__(self, tutor: Tutor, tokenizer: PreTrainedTokenizerFast, seed: int):
        self.tutor, self.tokenizer, self.seed = tutor, tokenizer, seed

    def __iter__(self) -> Iterator[dict[str, list[int]]]:
        rng = np.random.default_rng(self.seed)
        while True:
            length = int(rng.integers(CHAIN_LENGTHS[0], CHAIN_LENGTHS[1] + 1))
            for _ in range(BATCH_SIZE):
                yield self.row(sample_problem(rng, (length, length)), rng)

    def row(self, problem: Problem, rng: np.random.Generator) -> dict[str, list[int]]:
        """A problem with a solution of the tutor, tokenised as by :func:`training_row`."""
        solution = SEPARATOR.join(self.tutor.solve(problem, rng))
        return training_row(self.tokenizer, problem.prompt, solution)


def training_row(
    tokenizer: PreTrainedTokenizerFast, prompt: str, solution: str
) -> dict[str, list[int]]:
    """Tokens of a prompt and its solution, end-of-text token included; labels on the solution."""
    ids = tokenizer(prompt).input_ids
    response = tokenizer(solution + tokenizer.eos_token).input_ids
    return {"input_ids": ids + response, "labels": [-100] * len(ids) + response}


def collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Pad on the right; padded labels are ignored by the loss. The pad token has id 0."""

    def pad(column: str, value: int) -> torch.Tensor:
        sequences = [torch.tensor(row[column]) for row in rows]
        return torch.nn.utils.rnn.pad_sequence(sequences, True, value)

    mask = pad("labels", -101) != -101
    return {"input_ids": pad("input_ids", 0), "labels": pad("labels", -100), "attention_mask": mask}


class Snapshot(TrainerCallback):
    """Save the model once in the middle of a run."""

    def __init__(self, step: int, folder: Path):
        self.step, self.folder = step, folder

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Save at that step."""
        if state.global_step == self.step:
            save(kwargs["model"], kwargs["processing_class"], self.folder)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Save model and tokenizer in one folder, from which transformers loads both."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class StopAt(TrainerCallback):
    """End a run early, on the schedule of the whole."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Stop from that step on."""
        control.should_training_stop = state.global_step >= self.step


def train_generator(
    recipe: Recipe, seed: int, callbacks: list[TrainerCallback]
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Train a generator by its recipe."""
    set_seed(seed)
    torch.set_num_threads(1)  # faster than several for a model of this size, and repeatable
    tokenizer = build_tokenizer()
    if recipe.start_from:
        model = LlamaForCausalLM.from_pretrained(checkpoint_path(recipe.start_from))
    else:
        model = build_reasoner(tokenizer)
    stream = TutorStream(recipe.tutor, tokenizer, seed)
    fit(
        model,
        tokenizer,
        stream,
        recipe.steps,
        recipe.learning_rate,
        recipe.restarts,
        seed,
        callbacks,
    )
    return model, tokenizer


def fit(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    stream: IterableDataset,
    steps: int,
    learning_rate: float,
    restarts: int,
    seed: int,
    callbacks: list[TrainerCallback],
) -> None:
    """Train a generator on a stream of rows, in place."""
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            max_steps=steps,
            per_device_train_batch_size=BATCH_SIZE,
            learning_rate=learning_rate,
            lr_scheduler_type="cosine_with_restarts",
            lr_scheduler_kwargs={"num_cycles": restarts},
            warmup_steps=50,
            adam_beta2=0.95,
            max_grad_norm=1.0,
            logging_steps=50,
            save_strategy="no",
            report_to="none",
            seed=seed,
        )
        Trainer(
            model=model,
            args=arguments,
            train_dataset=stream,
            data_collator=collate,
            processing_class=tokenizer,
            callbacks=callbacks,
        ).train()


def pretrain(generator: str, seed: int = 0) -> None:
    """Train one generator and write it to its place in the package."""
    recipe = recipes()[generator]
    snapshots: list[TrainerCallback] = []
    if recipe.snapshot:
        step, name = recipe.snapshot
        snapshots.append(Snapshot(step, checkpoint_path(name)))
    model, tokenizer = train_generator(recipe, seed, snapshots)
    save(model, tokenizer, checkpoint_path(generator))


def main(
    generators: Annotated[
        list[str] | None, typer.Argument(help="all of them if none is named")
    ] = None,
    seed: int = 0,
) -> None:
    """Train the shipped generators anew."""
    for generator in generators or list(recipes()):
        pretrain(generator, seed)


if __name__ == "__main__":
    typer.run(main)
