"""A run that was killed goes on from its last complete checkpoint and ends in the same weights."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers.trainer_utils import get_last_checkpoint
from worker import KILLS, resumable

from implicitprm.training import ImplicitPRMTrainer, last_complete_checkpoint

WORKER = Path(__file__).parent / "worker.py"
pytestmark = pytest.mark.slow


def weights(trainer: ImplicitPRMTrainer) -> dict[str, Tensor]:
    assert trainer.model is not None
    return {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((value - other[name]).abs().max()) for name, value in one.items())


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], list[str]]:
    """The weights at the end of a run that nobody disturbed, and the lines of its log."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    trainer = resumable(folder)
    trainer.train()
    return weights(trainer), (folder / "log.csv").read_text().splitlines()


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders that killed runs have left."""
    folders = {kill: tmp_path_factory.mktemp("killed") for kill in KILLS}
    for kill, folder in folders.items():
        result = subprocess.run(
            [sys.executable, str(WORKER), str(folder), kill],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == -9, f"{kill}: {result.returncode}\n{result.stderr[-2000:]}"
    return folders


@pytest.fixture
def left(killed: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of what the run left that was killed mid-epoch."""
    return Path(shutil.copytree(killed["mid-epoch"], tmp_path / "left"))


@pytest.mark.parametrize("kill", KILLS)
def test_a_killed_run_ends_in_the_same_weights(
    kill: str,
    killed: dict[str, Path],
    uninterrupted: tuple[dict[str, Tensor], list[str]],
    tmp_path: Path,
) -> None:
    folder = Path(shutil.copytree(killed[kill], tmp_path / "left"))
    expected, log = uninterrupted
    if kill.startswith("writing"):  # where the stock rule would go on
        assert get_last_checkpoint(str(folder)) == str(folder / "checkpoint-6")
    assert last_complete_checkpoint(folder) == str(folder / f"checkpoint-{KILLS[kill]}")
    trainer = resumable(folder)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 12
    assert difference(weights(trainer), expected) == 0  # on one thread: bit-equal
    resumed = (folder / "log.csv").read_text().splitlines()
    assert [line.split(",")[:3] for line in resumed] == [line.split(",")[:3] for line in log]


def test_on_two_threads_within_1e_6(left: Path, tmp_path: Path) -> None:
    with threads(2):
        straight = resumable(tmp_path / "straight")
        straight.train()
        trainer = resumable(left)
        trainer.train(resume_from_checkpoint=True)
    assert difference(weights(trainer), weights(straight)) <= 1e-6


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# What the tests above would find, were it not restored: each makes another run of it.


@pytest.mark.parametrize("lost", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_lost_state_is_noticed(
    lost: str, left: Path, uninterrupted: tuple[dict[str, Tensor], list[str]]
) -> None:
    (left / "checkpoint-3" / lost).unlink()
    trainer = resumable(left)
    trainer.train(resume_from_checkpoint=True)
    assert difference(weights(trainer), uninterrupted[0]) > 1e-4


def test_a_sampler_that_starts_anew_is_noticed(
    left: Path, uninterrupted: tuple[dict[str, Tensor], list[str]]
) -> None:
    trainer = resumable(left, ignore_data_skip=True)
    trainer.train(resume_from_checkpoint=True)
    assert difference(weights(trainer), uninterrupted[0]) > 1e-4


# --- which checkpoint -----------------------------------------------------------------------------


def test_without_a_complete_checkpoint_training_starts_anew(
    tmp_path: Path, uninterrupted: tuple[dict[str, Tensor], list[str]]
) -> None:
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3" / "model.safetensors").write_bytes(b"half")
    assert last_complete_checkpoint(tmp_path) is None
    trainer = resumable(tmp_path)
    trainer.train(resume_from_checkpoint=True)
    assert difference(weights(trainer), uninterrupted[0]) == 0


def test_the_last_complete_checkpoint_by_number(tmp_path: Path) -> None:
    assert last_complete_checkpoint(tmp_path / "nowhere") is None
    for name, state in {
        "checkpoint-9": json.dumps({"global_step": 9}),
        "checkpoint-10": json.dumps({"global_step": 10}),
        "checkpoint-20": '{"global_step": 2',
        "checkpoint-30": None,
        "checkpoint-best": "{}",
    }.items():
        (tmp_path / name).mkdir()
        if state is not None:
            (tmp_path / name / "trainer_state.json").write_text(state)
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


def test_the_log_has_a_line_per_step(
    uninterrupted: tuple[dict[str, Tensor], list[str]],
) -> None:
    lines = list(csv.DictReader(uninterrupted[1]))
    assert [int(line["step"]) for line in lines] == list(range(1, 13))
    for line in lines:
        assert float(line["loss"]) > 0
        assert line["reward_right"]
        assert line["reward_wrong"]
        assert line["eval_loss"] == ""
