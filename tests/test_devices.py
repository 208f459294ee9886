"""Several GPUs, notebooks, half precision: what can be tested of them on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from tiny import problems, tiny_llama
from torch import Tensor
from worker import SHARED, trainer_into

from implicitprm import ImplicitPRM, Solution, cli
from implicitprm.arithmetic import ARITHMETIC_FORMAT
from implicitprm.arithmetic.tokenizer import build_tokenizer
from implicitprm.logprobs import token_logps
from implicitprm.rewards import load_causal_lm

ROOT = Path(__file__).resolve().parents[1]


# --- several GPUs --------------------------------------------------------------------------------


def test_the_fsdp_configuration_is_read_by_accelerate() -> None:
    config = load_config_from_file(str(ROOT / "configs" / "fsdp.yaml"))
    assert config.distributed_type.value == "FSDP"
    assert config.mixed_precision == "bf16"
    assert not config.use_cpu
    options = config.fsdp_config
    assert options["fsdp_version"] == 2
    assert options["fsdp_reshard_after_forward"] is True
    # One file that from_pretrained reads; the whole model on every process for the reference pass.
    assert options["fsdp_state_dict_type"] == "FULL_STATE_DICT"
    assert options["fsdp_cpu_ram_efficient_loading"] is False
    assert "configs/fsdp.yaml" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_weights_are_shared_under_fsdp_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class State:
        num_processes = 4

    monkeypatch.setattr(cli, "processes", State)
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    assert cli._shards() == 1  # torchrun alone: each process holds everything
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert cli._shards() == 4


# --- notebooks -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_notebook_launcher_trains_on_two_processes(tmp_path: Path) -> None:
    folder = tmp_path / "two"
    folder.mkdir()
    result = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "notebook_worker.py"), str(folder)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    alone = trainer_into(tmp_path / "one", "ce", per_device_train_batch_size=4, **SHARED)  # type: ignore[arg-type]
    alone.train()

    def losses(history: list[dict[str, float]]) -> list[float]:
        return [line["loss"] for line in history if "loss" in line]

    together = losses(json.loads((folder / "log.json").read_text()))
    assert together == pytest.approx(losses(alone.state.log_history), abs=1e-4)
    assert max(together) - min(together) > 0.05


# --- a device that is not there ------------------------------------------------------------------


@pytest.mark.slow
def test_scores_and_rollouts_are_the_cpu_s_on_a_device_that_is_not_there() -> None:
    """Tensors that say they are elsewhere, and may be neither mixed with the CPU's nor read."""
    result = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "pretend_worker.py")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    waits = json.loads(result.stdout.splitlines()[-1])
    # Three groups of prompts of one length, 48 tokens each: every token waits once.
    assert waits["rollouts"] <= 3 * 48
    assert waits["scores"] < 40  # by batch, not by token
    assert waits["gradients"] <= 3 * 4  # by objective


# --- half precision ------------------------------------------------------------------------------


def solutions(count: int) -> list[Solution]:
    return [Solution(problem.prompt, tuple(problem.steps)) for problem in problems(count)]


def test_equal_models_give_rewards_of_exactly_0_under_autocast() -> None:
    prm = ImplicitPRM(tiny_llama(0), tiny_llama(0), build_tokenizer(), 1.0, ARITHMETIC_FORMAT)
    with torch.autocast("cpu", torch.bfloat16):
        half = prm.score_solutions(solutions(20), batch_size=6)
    assert all((scored.token_rewards == 0).all() for scored in half)
    # It was bf16 that computed them.
    full = prm.score_solutions(solutions(20), batch_size=6)
    difference = max(
        float(abs(a.policy_logps - b.policy_logps).max()) for a, b in zip(half, full, strict=True)
    )
    assert 1e-3 < difference < 1


def test_another_model_gives_other_rewards_under_autocast() -> None:
    prm = ImplicitPRM(tiny_llama(0), tiny_llama(1), build_tokenizer(), 1.0, ARITHMETIC_FORMAT)
    with torch.autocast("cpu", torch.bfloat16):
        half = [scored.outcome for scored in prm.score_solutions(solutions(8))]
    full = [scored.outcome for scored in prm.score_solutions(solutions(8))]
    assert half == pytest.approx(full, rel=0.02, abs=0.5)


def test_training_starts_at_rewards_of_0_under_autocast(tmp_path: Path) -> None:
    settings = {"per_device_train_batch_size": 24, "per_device_eval_batch_size": 24}
    trainer = trainer_into(tmp_path, "ce", seeds=(0, 0), bf16=True, max_steps=1, **settings)  # type: ignore[arg-type]
    trainer.train()
    first = trainer.state.log_history[0]
    # Each token's is exactly 0; the sums were added up with and without padding.
    assert abs(first["reward_right"]) < 1e-6
    assert abs(first["reward_wrong"]) < 1e-6


@pytest.mark.parametrize("tokens", [10, 3000])
def test_log_probabilities_accumulate_in_float32(tokens: int) -> None:
    """A sum of thousands in bf16 would be off by whole nats."""
    torch.manual_seed(0)
    logits = (4 * torch.randn(1, tokens, 50)).bfloat16()
    ids = torch.randint(50, (1, tokens))
    mask = torch.ones(1, tokens, dtype=torch.bool)
    mask[:, 0] = False
    with torch.autocast("cpu", torch.bfloat16):
        logps = token_logps(logits, ids, mask)
        total: Tensor = logps.sum(-1)
    exact = token_logps(logits.double(), ids, mask).sum(-1)
    assert logps.dtype == total.dtype == torch.float32
    assert abs(float(total - exact)) < 1e-5 * tokens
    if tokens > 1000:
        assert abs(float(logps.bfloat16().sum(-1) - exact)) > 1


def test_a_cpu_computes_in_float32_whatever_the_checkpoint(tmp_path: Path) -> None:
    tiny_llama(0).to(torch.bfloat16).save_pretrained(tmp_path)  # type: ignore[arg-type]
    assert load_causal_lm(str(tmp_path)).dtype == (
        torch.bfloat16 if torch.cuda.is_available() else torch.float32
    )
    assert cli._precision(None) == ("bf16" if torch.cuda.is_available() else "fp32")


@pytest.mark.gpu
def test_training_starts_at_rewards_of_0_on_a_gpu(tmp_path: Path) -> None:
    settings = {"per_device_train_batch_size": 24, "per_device_eval_batch_size": 24}
    trainer = trainer_into(
        tmp_path,
        "ce",
        seeds=(0, 0),
        bf16=True,
        use_cpu=False,
        max_steps=1,
        **settings,  # type: ignore[arg-type]
    )
    trainer.train()
    first = trainer.state.log_history[0]
    assert abs(first["reward_right"]) < 1e-3
    assert abs(first["reward_wrong"]) < 1e-3
