"""Two processes train as one does with twice the batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import tiny_llama
from typer.testing import CliRunner
from worker import SHARED, rows, trainer_into

from implicitprm.arithmetic.tokenizer import build_tokenizer
from implicitprm.cli import app
from implicitprm.data import append_jsonl
from implicitprm.training import OBJECTIVES

pytestmark = pytest.mark.slow
STEPS = 20


def on_two_ranks(worker: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a worker, which asserts on each rank that there are two; they must end well."""
    # Not `accelerate launch --cpu`, which starts one process.
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    result = subprocess.run(
        [*torchrun, "--nproc_per_node", "2", str(Path(__file__).parent / worker), *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,  # ranks that wait for each other would do so for ever
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, float]]]:
    """The log of each objective on two ranks; each rank asserts that there are two."""
    folder = tmp_path_factory.mktemp("ranks")
    on_two_ranks("worker.py", str(folder))
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in OBJECTIVES}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_two_ranks_are_one_process_with_twice_the_batch(
    objective: str, logs: dict[str, list[dict[str, float]]], tmp_path: Path
) -> None:
    trainer = trainer_into(tmp_path, objective, per_device_train_batch_size=4, **SHARED)  # type: ignore[arg-type]
    trainer.train()
    alone = [line for line in trainer.state.log_history if "loss" in line][:STEPS]
    shared = [line for line in logs[objective] if "loss" in line][:STEPS]
    assert len(alone) == len(shared) == STEPS
    for one, two in zip(alone, shared, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-4), one["step"]
        for name in ("reward_right", "reward_wrong"):
            assert two.get(name) == pytest.approx(one.get(name), abs=1e-2), (name, one["step"])
    # The losses move: the ranks agree on more than a constant.
    assert max(line["loss"] for line in alone) - min(line["loss"] for line in alone) > 0.05


# --- implicitprm train -------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["ce", "kto"])
def test_train_on_two_ranks_is_one_with_twice_the_micro_batch(
    objective: str, tmp_path: Path
) -> None:
    model, data = tmp_path / "model", tmp_path / "rows.jsonl"
    tiny_llama(seed=0).save_pretrained(model)
    build_tokenizer().save_pretrained(model)
    append_jsonl(data, rows(64))

    def arguments(output: str, micro_batch_size: int) -> list[str]:
        return [
            "train", "--data", str(data), "--policy", str(model), "--objective", objective,
            "--beta", "1", "--learning-rate", "1e-3", "--batch-size", "8", "--held-out", "0.25",
            "--micro-batch-size", str(micro_batch_size), "--output", str(tmp_path / output),
        ]  # fmt: skip

    two = on_two_ranks("chunk_worker.py", "never", json.dumps([arguments("two", 2)]))
    one = CliRunner().invoke(app, arguments("one", 4))
    assert one.exit_code == 0, one.output
    weights = {name: load_file(tmp_path / name / "model.safetensors") for name in ("one", "two")}
    before = load_file(model / "model.safetensors")
    for name, weight in weights["one"].items():
        torch.testing.assert_close(weights["two"][name], weight, rtol=0, atol=1e-4)
    moved = max(float((weights["one"][name] - before[name]).abs().max()) for name in before)
    assert moved > 1e-3  # or anything would be equal
    # Both ranks have looked for the folder, and one has written it, once.
    for output in ("one", "two"):
        assert len((tmp_path / output / "log.csv").read_text().splitlines()) == 1 + 48 // 8
        assert len((tmp_path / output / "held_out.jsonl").read_text().splitlines()) == 16
        assert not list((tmp_path / output).glob("*.new"))
    assert sorted(os.listdir(tmp_path / "two")) == sorted(os.listdir(tmp_path / "one"))
    settings = json.loads((tmp_path / "two" / "settings.json").read_text())
    assert (settings["processes"], settings["finished"]) == ("2", "yes")
    assert two.stdout.count("trained on 48 rows") == 1
