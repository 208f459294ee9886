"""Two processes train as one does with twice the batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from worker import SHARED, trainer_into

from implicitprm.training import OBJECTIVES

pytestmark = pytest.mark.slow
STEPS = 20


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, float]]]:
    """The log of each objective on two ranks; each rank asserts that there are two."""
    folder = tmp_path_factory.mktemp("ranks")
    # Not `accelerate launch --cpu`, which starts one process.
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    result = subprocess.run(
        [*torchrun, "--nproc_per_node", "2", str(Path(__file__).parent / "worker.py"), str(folder)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,  # ranks that wait for each other would do so for ever
    )
    assert result.returncode == 0, result.stderr[-3000:]
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
