"""What the experiments share: training reward models in the arithmetic world."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from datasets.utils.logging import disable_progress_bar
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from implicitprm.arithmetic import ARITHMETIC_FORMAT, checkpoint_path, load_rollouts
from implicitprm.arithmetic.measure import inside_world, score_rows
from implicitprm.comparisons.heads import ConfidenceHead, LinearHead, LogRatio, NextTokenHead
from implicitprm.comparisons.step_labels import StepLabelTrainer, score_steps
from implicitprm.rewards import ImplicitPRM, sum_by_step
from implicitprm.steps import Solution, SolutionFormat
from implicitprm.training import ImplicitPRMConfig, ImplicitPRMTrainer

EPOCHS = 3
#: The β of a log-ratio that is trained on step labels: CE's, from its sweep in objectives.py.
STEP_BETA = 1.0
ARCHITECTURES = ("linear head", "next-token head", "confidence head", "log-ratio")


def train_prm(
    dataset: Dataset,
    generator: str | Path = "reasoner",
    *,
    format: SolutionFormat = ARITHMETIC_FORMAT,
    objective: str = "ce",
    beta: float,
    learning_rate: float,
    seed: int,
    policy: PreTrainedModel | None = None,
    epochs: float = EPOCHS,
    max_steps: int = -1,
    attention: str = "sdpa",
    trainer: type[ImplicitPRMTrainer] = ImplicitPRMTrainer,
) -> ImplicitPRM:
    """Train on outcome labels of rollouts, with a generator as reference.

    A ``generator`` is one of the arithmetic world, by name, or the folder of any model.
    The policy starts as the generator, or goes on from ``policy``, which is changed in place. A
    positive ``max_steps`` is a number of updates that replaces ``epochs``. ``trainer`` may be a
    subclass with another reward.
    """
    folder = generator if isinstance(generator, Path) else checkpoint_path(generator)
    if policy is None:
        policy = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention)
    reference = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with tempfile.TemporaryDirectory() as scratch:
        trainer(
            model=policy,
            reference=reference,
            args=ImplicitPRMConfig(
                objective=objective,
                beta=beta,
                **_schedule(scratch, learning_rate, seed, epochs, max_steps),
            ),
            train_dataset=dataset,
            processing_class=tokenizer,
            format=format,
        ).train()
    return ImplicitPRM(policy.eval(), reference.eval(), tokenizer, beta, format)


def _schedule(
    scratch: str, learning_rate: float, seed: int, epochs: float, max_steps: int = -1
) -> dict[str, Any]:
    """What every training run of the experiments has in common."""
    return {
        "output_dir": scratch,
        "learning_rate": learning_rate,
        "num_train_epochs": epochs,
        "max_steps": max_steps,
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": seed,
    }


def be_quiet() -> None:
    """No progress bars of transformers and datasets: a grid has its own."""
    logging.disable_progress_bar()
    disable_progress_bar()


def build_scorer(architecture: str, seed: int, attention: str = "sdpa") -> nn.Module:
    """One of ARCHITECTURES, its trunk the reasoner, its new weights drawn with ``seed``."""
    if architecture not in ARCHITECTURES:
        raise ValueError(f"no architecture {architecture!r}; choose one of {ARCHITECTURES}")
    torch.manual_seed(seed)
    folder = checkpoint_path("reasoner")
    if architecture == "linear head":
        return LinearHead(str(folder))
    trunk = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention)
    if architecture == "next-token head":
        words = AutoTokenizer.from_pretrained(folder).get_vocab()
        return NextTokenHead(trunk, words["+"], words["-"])
    if architecture == "confidence head":
        return ConfidenceHead(trunk)
    return LogRatio(trunk, STEP_BETA)


def train_steps(
    rows: Dataset,
    labels: Sequence[Sequence[float]],
    architecture: str,
    learning_rate: float,
    seed: int,
    epochs: float = EPOCHS,
    attention: str = "sdpa",
) -> nn.Module:
    """Train one of ARCHITECTURES on step labels (S) of training rollouts, one list per row.

    The schedule is that of :func:`train_prm`.
    """
    scorer = build_scorer(architecture, seed, attention)
    return train_scorer(scorer, rows, labels, learning_rate, seed, epochs)


def train_scorer(
    scorer: nn.Module,
    rows: Dataset,
    labels: Sequence[Sequence[float]],
    learning_rate: float,
    seed: int,
    epochs: float,
) -> nn.Module:
    """Go on with a scorer on step labels (S) of training rollouts; it is changed in place.

    The rows of a :class:`LogRatio` are all of the reasoner's training rollouts, whose reference
    log-probabilities are computed once.
    """
    stepwise = {
        "prompt": rows["prompt"],
        "completions": rows["steps"],
        "finished": rows["finished"],
        "weight": rows["weight"],
        "labels": [[float(label) for label in of_row] for of_row in labels],
    }
    if isinstance(scorer, LogRatio):
        stepwise["ref_step_logps"] = [values.tolist() for values in train_ref_step_logps()]
    with tempfile.TemporaryDirectory() as scratch:
        StepLabelTrainer(
            model=scorer,
            args=ImplicitPRMConfig(**_schedule(scratch, learning_rate, seed, epochs)),
            train_dataset=Dataset.from_dict({name: list(c) for name, c in stepwise.items()}),
            processing_class=AutoTokenizer.from_pretrained(checkpoint_path("reasoner")),
            format=ARITHMETIC_FORMAT,
        ).train()
    return scorer.eval()


@cache
def train_ref_step_logps() -> list[np.ndarray]:
    """log π_ref of every step (S) of the reasoner's training rollouts, once per process."""
    scored = score_rows(reference_scorer(), load_rollouts("reasoner", "train"))
    if None in scored:
        raise ValueError(f"training row {scored.index(None)} holds a text outside this world")
    return [sum_by_step(s.policy_logps, s.step_ends) for s in scored if s is not None]


def reference_scorer() -> ImplicitPRM:
    """The reasoner by itself: its ``policy_logps`` are log π_ref."""
    folder = checkpoint_path("reasoner")
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return ImplicitPRM(model, None, tokenizer, 1.0, ARITHMETIC_FORMAT)


def score_rows_by_steps(scorer: nn.Module, rows: Dataset) -> list[np.ndarray | None]:
    """The logit of every step (S) of each row by a head; None for a text outside this world."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_path("reasoner"))
    inside = inside_world(tokenizer, rows)
    solutions = [
        Solution(row["prompt"], tuple(row["steps"]), row["finished"])
        for row, known in zip(rows, inside, strict=True)
        if known
    ]
    scores = iter(score_steps(scorer, solutions, tokenizer, ARITHMETIC_FORMAT))
    return [next(scores) if known else None for known in inside]
