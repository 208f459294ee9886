"""A training step of each objective beside TRL's trainers, on one thread.

Both sides run the Trainer's own ``training_step`` (forward passes, loss, backward pass) on the same
rows and weights, with the reference's log-probabilities computed before. TRL has no unpaired CE
without a shift; its ``bco_pair`` is twice the mean CE of a pair's two responses. What
bounds our step is shown by two smaller ones on the same batch, forward and backward: the *layers*
alone, and with them the *logits* of the response tokens, from the mean of either. The rest is the
log-softmax, the loss and the Trainer.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import trl
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import pad
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.rounds import alternate, median_and_range, ratio
from implicitprm.arithmetic import ARITHMETIC_FORMAT
from implicitprm.arithmetic.tokenizer import build_tokenizer
from implicitprm.training import ImplicitPRMConfig, ImplicitPRMTrainer
from implicitprm.trunk import logits_where

#: Objective → TRL's trainer, its loss, and how many times ours it is.
THEIRS = {
    "ce": ("DPO", "bco_pair", 2),
    "dpo": ("DPO", "sigmoid", 1),
    "nca": ("DPO", "nca_pair", 1),
    "kto": ("KTO", None, 1),
}


def model(seed: int, vocabulary: int, hidden: int) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=1024,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config)


def pairs(count: int, tokens: int) -> Dataset:
    """Responses from half to all of ``tokens`` long."""
    return Dataset.from_list(
        [
            {
                "prompt": f"{number}+5\n",
                "chosen": "+".join(["7"] * (tokens // 2 - number)),
                "rejected": "-".join(["8"] * (tokens // 3 + number)),
            }
            for number in range(count)
        ]
    )


def unpaired(rows: Dataset, rotated: bool) -> Dataset:
    """Both responses of each pair; ``rotated`` adds TRL's mismatched ones, those one row before."""
    found = [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in rows
        for side in ("chosen", "rejected")
    ]
    if not rotated:
        return Dataset.from_list(found)
    others = [found[number - 1]["completion"] for number in range(len(found))]
    return Dataset.from_list(
        [row | {"KL_completion": other} for row, other in zip(found, others, strict=True)]
    )


def steps(
    objective: str, rows: Dataset, folder: Path, vocabulary: int, hidden: int
) -> dict[str, Callable[[], float]]:
    """Our step, TRL's, and parts of ours; the two steps return their losses, in TRL's scale."""
    kind, loss_type, scale = THEIRS[objective]
    of_pairs = objective in ("dpo", "nca")
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "beta": 0.3,
        "per_device_train_batch_size": len(rows) if kind == "DPO" else 2 * len(rows),
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "gradient_checkpointing": False,
    }
    data = rows if of_pairs else unpaired(rows, rotated=objective == "kto")
    ours = ImplicitPRMTrainer(
        model(0, vocabulary, hidden),
        model(1, vocabulary, hidden),
        ImplicitPRMConfig(objective=objective, **settings),
        data,
        build_tokenizer(),
        ARITHMETIC_FORMAT,
    )
    more = {"loss_type": [loss_type]} if loss_type else {}
    theirs = getattr(trl, f"{kind}Trainer")(
        model=model(0, vocabulary, hidden),
        ref_model=model(1, vocabulary, hidden),
        args=getattr(trl, f"{kind}Config")(precompute_ref_log_probs=True, **more, **settings),
        train_dataset=rows if kind == "DPO" else unpaired(rows, rotated=False),
        processing_class=build_tokenizer(),
    )
    our_step, their_step = (_step(trainer) for trainer in (ours, theirs))
    batch: Any = ours.data_collator(list(ours.train_dataset))  # type: ignore[arg-type]

    predicted = pad(batch["response_mask"][:, 1:], (0, 1))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    policy: Any = ours.model

    def layers(rows: slice) -> Tensor:
        return policy.model(**{name: value[rows] for name, value in inputs.items()})[0]

    def logits(rows: slice) -> Tensor:
        return logits_where(
            policy, predicted[rows], **{name: value[rows] for name, value in inputs.items()}
        )

    def part(passes: Callable[[slice], Tensor]) -> float:
        """KTO's second half, the mismatched responses, has no gradient."""
        policy.zero_grad()
        half = len(predicted) // 2 if objective == "kto" else len(predicted)
        with torch.no_grad():
            if objective == "kto":
                passes(slice(half, None))
        passes(slice(half)).mean().backward()
        return 0.0

    return {
        "ours": lambda: scale * our_step(),
        "TRL": their_step,
        "layers": lambda: part(layers),
        "logits": lambda: part(logits),
    }


def _step(trainer: Any) -> Callable[[], float]:
    trainer.current_gradient_accumulation_steps = 1  # train() would set it
    rows = trainer.train_dataset
    batch = trainer.data_collator([rows[row] for row in range(len(rows))])

    def step() -> float:
        trainer.model.zero_grad()
        return float(trainer.training_step(trainer.model, dict(batch)))

    return step


def table(rounds: int, count: int = 8, tokens: int = 96, vocabulary: int = 8_000) -> Table:
    hidden = 128 if count > 4 else 32
    title = f"a training step on {count} pairs, up to {tokens} tokens, vocabulary {vocabulary:,}"
    made = Table(
        "",
        "ours s",
        "TRL s",
        "TRL / ours",
        "layers / ours",
        "layers and logits / ours",
        title=title,
    )
    rows = pairs(count, tokens)
    for objective in THEIRS:
        with tempfile.TemporaryDirectory() as folder:
            contenders = steps(objective, rows, Path(folder), vocabulary, hidden)
            one, other = contenders["ours"](), contenders["TRL"]()
            if abs(one - other) > 1e-4 * abs(other):
                raise AssertionError(f"{objective}: the losses are {one} and {other}")
            seconds = alternate(contenders, rounds)
        made.add_row(
            objective,
            median_and_range(seconds["ours"]),
            median_and_range(seconds["TRL"]),
            ratio(seconds["TRL"], seconds["ours"]),
            ratio(seconds["layers"], seconds["ours"]),
            ratio(seconds["logits"], seconds["ours"]),
        )
    return made


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    torch.set_num_threads(1)
    Console().print(table(arguments.parse_args().rounds))


if __name__ == "__main__":
    main()
