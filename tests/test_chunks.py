"""Scoring and rollouts that are killed go on, and two processes write the file of one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chunk_worker import COMPLETE, KILLS
from hypothesis import given
from hypothesis import strategies as st
from tiny import problems, tiny_llama
from typer.testing import CliRunner

from implicitprm import chunks
from implicitprm.arithmetic import checkpoint_path
from implicitprm.arithmetic.tokenizer import build_tokenizer
from implicitprm.chunks import digest, parts_folder, write_chunks
from implicitprm.cli import app
from implicitprm.data import append_jsonl

WORKER = Path(__file__).parent / "chunk_worker.py"
#: Five chunks of 64 rows, two prompts by turns, and five of four prompts.
ROWS, PROMPTS = 300, 18


def numbers_of(rows: range) -> Iterator[dict[str, Any]]:
    """A row of each odd number, so that chunks have unequal lengths."""
    yield from ({"number": number} for number in rows if number % 2)


# --- the mechanism -------------------------------------------------------------------------------


@given(count=st.integers(0, 40), chunk=st.integers(1, 12))
def test_every_row_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, count: int, chunk: int
) -> None:
    output = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    write_chunks(output, count, chunk, numbers_of, "test")
    written = [json.loads(line)["number"] for line in output.read_text().splitlines()]
    assert written == list(range(1, count, 2))
    assert not parts_folder(output).exists()


def test_complete_chunks_are_not_made_again(tmp_path: Path) -> None:
    output, asked = tmp_path / "rows.jsonl", []

    def failing(rows: range) -> Iterator[dict[str, Any]]:
        asked.append(rows.start)
        if rows.start == 20 and asked.count(20) == 1:
            yield {"number": -1}
            raise ValueError("row 3 is odd")
        yield from numbers_of(rows)

    with pytest.raises(ValueError, match="in rows 20 to 29: row 3 is odd"):
        write_chunks(output, 45, 10, failing, "test")
    assert not output.exists()
    write_chunks(output, 45, 10, failing, "test")
    assert asked == [0, 10, 20, 20, 30, 40]
    written = [json.loads(line)["number"] for line in output.read_text().splitlines()]
    assert written == list(range(1, 45, 2))


def test_more_chunks_than_ten_keep_their_order(tmp_path: Path) -> None:
    write_chunks(tmp_path / "x.jsonl", 250, 2, numbers_of, "test")
    lines = (tmp_path / "x.jsonl").read_text().splitlines()
    assert [json.loads(line)["number"] for line in lines] == list(range(1, 250, 2))


def test_digest_sees_values_order_and_number() -> None:
    rows: list[dict[str, Any]] = [{"a": 1, "b": ["x"]}, {"a": 2, "b": None}]
    same: list[dict[str, Any]] = [{"b": ["x"], "a": 1}, {"b": None, "a": 2}]
    others = [rows[::-1], rows[:1], [*rows, rows[1]], [rows[0], {"a": 2, "b": ""}], []]
    assert digest(rows) == digest(same)
    assert len({digest(rows), *map(digest, others)}) == 6


# --- the commands, killed and shared out ---------------------------------------------------------


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Each command but for its output."""
    folder = tmp_path_factory.mktemp("inputs")
    for name, seed in (("policy", 0), ("reference", 1)):
        tiny_llama(seed).save_pretrained(folder / name)
        build_tokenizer().save_pretrained(folder / name)
    known = problems(ROWS // 2)
    append_jsonl(
        folder / "rows.jsonl",
        (
            {"prompt": problem.prompt, "completion": "\n".join([*problem.steps[:-1], f"#{last}"])}
            for problem in known
            for last in (1, 2)
        ),
    )
    append_jsonl(
        folder / "questions.jsonl",
        ({"prompt": p.prompt, "answer": str(p.answer)} for p in known[:PROMPTS]),
    )
    return {
        "score": [
            "score", "--data", str(folder / "rows.jsonl"), "--policy", str(folder / "policy"),
            "--reference", str(folder / "reference"), "--separator", "\\n", "--batch-size", "2",
        ],
        "rollouts": [
            "rollouts", "--data", str(folder / "questions.jsonl"), "--policy",
            str(checkpoint_path("strong")), "--n", "4", "--max-new-tokens", "48",
            "--batch-size", "4",
        ],
    }  # fmt: skip


@pytest.fixture(scope="module")
def whole(commands: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of what each command writes when nobody disturbs it."""
    folder = tmp_path_factory.mktemp("whole")
    for name, command in commands.items():
        run([*command, "--output", str(folder / name)])
    assert len((folder / "score").read_text().splitlines()) == ROWS
    drawn = [json.loads(line) for line in (folder / "rollouts").read_text().splitlines()]
    assert len({row["prompt"] for row in drawn}) == PROMPTS
    return folder


def run(command: list[str], fails: bool = False) -> str:
    result = CliRunner().invoke(app, command)
    assert (result.exit_code != 0) == fails, f"{result.output}\n{result.exception!r}"
    return " ".join(result.output.replace("│", " ").split())


def started(kill: str, commands: list[list[str]], ranks: int) -> subprocess.CompletedProcess[str]:
    # Not `accelerate launch --cpu`, which starts one process.
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
    return subprocess.run(
        [sys.executable, *(torchrun if ranks > 1 else ()), str(WORKER), kill, json.dumps(commands)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.mark.slow
@pytest.mark.parametrize("kill", KILLS)
@pytest.mark.parametrize("name", ["score", "rollouts"])
def test_a_killed_run_ends_in_the_same_file(
    name: str, kill: str, commands: dict[str, list[str]], whole: Path, tmp_path: Path
) -> None:
    output = tmp_path / "rows.jsonl"
    command = [*commands[name], "--output", str(output)]
    killed = started(kill, [command], ranks=1)
    assert killed.returncode == -9, killed.stderr[-2000:]
    assert not output.exists()
    complete = COMPLETE if kill in KILLS[:2] else 5
    assert len(list(parts_folder(output).glob("*.jsonl"))) == complete
    run([*command, "--resume"])
    assert output.read_bytes() == (whole / name).read_bytes()
    assert os.listdir(tmp_path) == ["rows.jsonl"]


@pytest.mark.slow
def test_two_processes_write_the_file_of_one(
    commands: dict[str, list[str]], whole: Path, tmp_path: Path
) -> None:
    """Each rank asserts that there are two."""
    both = [[*command, "--output", str(tmp_path / name)] for name, command in commands.items()]
    result = started("never", both, ranks=2)
    assert result.returncode == 0, result.stderr[-3000:]
    for name in commands:
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()
    assert sorted(os.listdir(tmp_path)) == sorted(commands)
    assert result.stdout.count(f"scored {ROWS} solutions") == 1


@pytest.mark.slow
def test_a_run_of_two_processes_goes_on_in_one(
    commands: dict[str, list[str]], whole: Path, tmp_path: Path
) -> None:
    output = tmp_path / "rows.jsonl"
    command = [*commands["score"], "--output", str(output)]
    killed = started("in a line", [command], ranks=2)
    assert killed.returncode != 0
    assert "SIGKILL" in killed.stderr
    done = len(list(parts_folder(output).glob("*.jsonl")))
    assert 1 <= done < 5
    run([*command, "--resume"])
    assert output.read_bytes() == (whole / "score").read_bytes()


# --- what a run that goes on refuses -------------------------------------------------------------


@pytest.fixture
def interrupted(
    commands: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """A scoring command that has failed in its third chunk."""

    def failing(path: Path, rows: Any) -> None:
        if len(list(path.parent.glob("*.jsonl"))) == COMPLETE:
            raise OSError("disk full")
        write(path, rows)

    write = chunks._write_whole
    data = tmp_path / "rows.jsonl"
    shutil.copy(commands["score"][2], data)
    command = ["score", "--data", str(data), *commands["score"][3:]]
    command += ["--output", str(tmp_path / "scored.jsonl")]
    with monkeypatch.context() as patch:
        patch.setattr(chunks, "_write_whole", failing)
        run(command, fails=True)
    return command


def test_other_settings_or_other_rows_are_refused(
    interrupted: list[str], whole: Path, tmp_path: Path
) -> None:
    refused = run([*interrupted, "--resume", "--beta", "2"], fails=True)
    assert "a resumed run keeps its settings; changed: beta: 0.05 → 2.0" in refused
    data = tmp_path / "rows.jsonl"
    lines = data.read_text()
    data.write_text(lines.replace("#2", "#3", 1))
    assert "changed: rows:" in run([*interrupted, "--resume"], fails=True)
    data.write_text(lines)
    assert "--resume its run" in run(interrupted, fails=True)
    run([*interrupted, "--resume"])
    assert (tmp_path / "scored.jsonl").read_bytes() == (whole / "score").read_bytes()
    assert "exists" in run([*interrupted, "--resume"], fails=True)


def test_there_must_be_a_run_to_go_on_with(commands: dict[str, list[str]], tmp_path: Path) -> None:
    for command in commands.values():
        said = run([*command, "--output", str(tmp_path / "x.jsonl"), "--resume"], fails=True)
        assert "no run to resume" in said


def test_a_missing_model_leaves_nothing_behind(
    commands: dict[str, list[str]], tmp_path: Path
) -> None:
    for command in commands.values():
        absent = [*command, "--policy", str(tmp_path / "absent"), "--output", str(tmp_path / "x")]
        run(absent, fails=True)
    assert not os.listdir(tmp_path)
