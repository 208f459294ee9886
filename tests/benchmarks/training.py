"""A training step of each objective beside TRL's trainers, on one thread.

Both sides run the Trainer's own ``training_step`` (forward passes, loss, backward pass) on the same
rows and weights, with the reference's log-probabilities computed before. TRL has no unpaired CE
without a shift; its ``bco_pair`` is twice the mean CE of a pair's two responses. *Bare passes* are
the model's forward and backward pass on our batch, from the mean of its logits: what is above them
is the loss and what surrounds it.
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
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.rounds import alternate, median_and_range, ratio
from implicitprm.arithmetic import ARITHMETIC_FORMAT
from implicitprm.arithmetic.tokenizer import build_tokenizer
from implicitprm.training import ImplicitPRMConfig, ImplicitPRMTrainer

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
) -> tuple[Callable[[], float], Callable[[], float], Callable[[], None]]:
    """Our step, TRL's and the bare passes; the steps return their losses, ours in TRL's scale."""
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

    def bare() -> None:
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        ours.model.zero_grad()  # type: ignore[union-attr]
        if objective != "kto":
            ours.model(**inputs, use_cache=False).logits.mean().backward()  # type: ignore[misc]
            return
        own, other = ({n: v.chunk(2)[side] for n, v in inputs.items()} for side in (0, 1))
        with torch.no_grad():
            ours.model(**other, use_cache=False)  # type: ignore[misc]
        ours.model(**own, use_cache=False).logits.mean().backward()  # type: ignore[misc]

    return lambda: scale * our_step(), their_step, bare


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
    made = Table("", "ours s", "TRL s", "TRL / ours", "ours / bare passes", title=title)
    rows = pairs(count, tokens)
    for objective in THEIRS:
        with tempfile.TemporaryDirectory() as folder:
            ours, theirs, bare = steps(objective, rows, Path(folder), vocabulary, hidden)
            one, other = ours(), theirs()
            if abs(one - other) > 1e-4 * abs(other):
                raise AssertionError(f"{objective}: the losses are {one} and {other}")
            seconds = alternate({"ours": ours, "TRL": theirs, "bare": bare}, rounds)
        made.add_row(
            objective,
            median_and_range(seconds["ours"]),
            median_and_range(seconds["TRL"]),
            ratio(seconds["TRL"], seconds["ours"]),
            ratio(seconds["ours"], seconds["bare"]),
        )
    return made


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    torch.set_num_threads(1)
    Console().print(table(arguments.parse_args().rounds))


if __name__ == "__main__":
    main()
