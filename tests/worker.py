"""Training runs that tests start in processes of their own: to kill them, or to have two ranks.

``python worker.py FOLDER KILL`` trains into FOLDER and dies where KILL says.
``torchrun --nproc_per_node 2 worker.py FOLDER`` trains all objectives on two ranks.
"""

from __future__ import annotations

import faulthandler
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import torch
import transformers.trainer_utils
from datasets import Dataset
from tiny import problems, tiny_llama
from transformers import Trainer, TrainerCallback, TrainerState

from implicitprm.arithmetic import ARITHMETIC_FORMAT
from implicitprm.arithmetic.tokenizer import build_tokenizer
from implicitprm.data import pair_responses
from implicitprm.training import OBJECTIVES, ImplicitPRMConfig, ImplicitPRMTrainer

ROWS = 24
#: 6 updates an epoch, 12 in all, saved after 3, 6 and 9.
RESUMABLE: dict[str, Any] = {"num_train_epochs": 2, "gradient_accumulation_steps": 2}


def rows(count: int) -> Dataset:
    """``count`` rows: two right and two wrong solutions of each problem, with weights."""
    found = []
    for number, problem in enumerate(problems(count // 4)):
        for variant in range(4):
            steps = problem.steps[-1 - variant :]
            if variant % 2:
                steps[-1] = f"#{(problem.answer + variant) % 50}"
            found.append(
                {
                    "prompt": problem.prompt,
                    "completion": "\n".join(steps),
                    "label": variant % 2 == 0,
                    "weight": 1 + (number + variant) % 3,
                }
            )
    return Dataset.from_list(found)


def trainer_into(
    folder: Path,
    objective: str = "ce",
    dropout: float = 0.0,
    count: int = ROWS,
    seeds: tuple[int, int] = (0, 1),
    callbacks: list[TrainerCallback] | None = None,
    **settings: Any,
) -> ImplicitPRMTrainer:
    """A tiny policy against a tiny reference, AdamW with warm-up and cosine, logged every step."""
    dataset = rows(count)
    if OBJECTIVES[objective].format == "preference":
        dataset = pair_responses(dataset, "all", 0)
    policy = tiny_llama(seeds[0])
    policy.config.attention_dropout = dropout
    for layer in policy.model.layers:
        layer.self_attn.attention_dropout = dropout
    arguments: dict[str, Any] = {
        "output_dir": str(folder),
        "objective": objective,
        "beta": 0.5,
        "learning_rate": 1e-3,
        "warmup_steps": 2,
        "per_device_train_batch_size": 2,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
    }
    if "WORLD_SIZE" in os.environ:
        arguments["ddp_backend"] = "gloo"
    return ImplicitPRMTrainer(
        policy,
        tiny_llama(seeds[1]),
        ImplicitPRMConfig(**(arguments | settings)),
        dataset,
        build_tokenizer(),
        ARITHMETIC_FORMAT,
        callbacks=callbacks,
    )


def resumable(folder: Path, **settings: Any) -> ImplicitPRMTrainer:
    """A run with checkpoints whose every step depends on sampler, optimiser and random numbers."""
    saving = {"save_strategy": "steps", "save_steps": 3, "save_total_limit": 1}
    return trainer_into(folder, dropout=0.2, **(RESUMABLE | saving | settings))


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


class DieAt(TrainerCallback):
    """Dies after update ``step``, or before its second half (``halfway``)."""

    def __init__(self, step: int, halfway: bool):
        self.step, self.halfway = step, halfway

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step and not self.halfway:
            die()

    def on_substep_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step and self.halfway:
            die()


def die_in_optimizer(self: Trainer, output_dir: str) -> None:
    if output_dir.endswith("-6"):
        Path(output_dir, "optimizer.pt").write_bytes(b"half")
        die()
    SAVE_OPTIMIZER(self, output_dir)


def die_in_state(self: TrainerState, json_path: str) -> None:
    SAVE_STATE(self, json_path)
    if Path(json_path).parent.name == "checkpoint-6":
        text = Path(json_path).read_text(encoding="utf-8")
        Path(json_path).write_text(text[: len(text) // 2], encoding="utf-8")
        die()


def die_in_rotation(path: Any, **kwargs: Any) -> None:
    """Half of the older checkpoint is deleted, once the newer one is complete."""
    Path(path, "optimizer.pt").unlink()
    die()


SAVE_OPTIMIZER = Trainer._save_optimizer_and_scheduler
SAVE_STATE = TrainerState.save_to_json
#: Where a run dies, and the checkpoint from which it must go on.
KILLS = {
    "between steps": 3,
    "mid-epoch": 3,
    "between epochs": 6,
    "writing the optimizer": 3,
    "writing the state": 3,
    "deleting the last checkpoint": 6,
}


def run_and_die(folder: Path, kill: str) -> None:
    callbacks: list[TrainerCallback] = []
    if kill == "between steps":
        callbacks.append(DieAt(4, halfway=False))
    elif kill == "mid-epoch":
        callbacks.append(DieAt(5, halfway=True))
    elif kill == "between epochs":
        callbacks.append(DieAt(6, halfway=True))
    elif kill == "writing the optimizer":
        Trainer._save_optimizer_and_scheduler = die_in_optimizer  # type: ignore[method-assign]
    elif kill == "writing the state":
        TrainerState.save_to_json = die_in_state  # type: ignore[method-assign]
    elif kill == "deleting the last checkpoint":
        transformers.trainer_utils.shutil = shutil_that_dies()  # type: ignore[attr-defined]
    resumable(folder, callbacks=callbacks).train()


def shutil_that_dies() -> Any:
    class Shutil:
        rmtree = staticmethod(die_in_rotation)

        def __getattr__(self, name: str) -> Any:
            return getattr(shutil, name)

    return Shutil()


#: Two ranks × 2 rows a step against one process × 4 rows; 40 rows are 10 updates an epoch.
SHARED = {"num_train_epochs": 2, "count": 40, "seeds": (1, 0)}


#: Seconds after which the two ranks give up; on two busy cores they need 20 to 60.
RANKS_LIMIT = 400


def train_on_ranks(folder: Path) -> NoReturn:
    for objective in OBJECTIVES:
        trainer = trainer_into(folder / objective, objective, **SHARED)  # type: ignore[arg-type]
        assert trainer.accelerator.num_processes == int(os.environ["WORLD_SIZE"]) == 2
        assert torch.distributed.get_world_size() == 2
        trainer.train()
        if trainer.is_world_process_zero():
            text = json.dumps(trainer.state.log_history)
            (folder / f"{objective}.json").write_text(text, encoding="utf-8")
    torch.distributed.barrier()  # rank 0 may still be writing
    # Taking gloo's threads down, or the interpreter with them, hung now and then on a busy machine,
    # after all results were written.
    os._exit(0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) == 3:
        run_and_die(Path(sys.argv[1]), sys.argv[2])
    else:
        # Ranks that wait for each other say where, and end.
        faulthandler.dump_traceback_later(RANKS_LIMIT, exit=True)
        train_on_ranks(Path(sys.argv[1]))
