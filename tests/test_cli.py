"""The command line from files to files, on a tiny model, and what it says to bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import problems, tiny_llama
from typer.testing import CliRunner

from implicitprm import ImplicitPRM
from implicitprm.arithmetic.problems import ARITHMETIC_FORMAT
from implicitprm.arithmetic.tokenizer import build_tokenizer
from implicitprm.cli import app
from implicitprm.data import append_jsonl, read_rows

runner = CliRunner()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tiny_llama(seed=0).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve problems, each with its true solution and one whose answer is off by one."""
    path = tmp_path / "rows.jsonl"
    rows = []
    for problem in problems(12):
        wrong = [*problem.steps[:-1], f"#{(problem.answer + 1) % 50}"]
        for steps, label in ((problem.steps, True), (wrong, False)):
            completion = "\n".join(steps)
            source = "a" if label else "b"
            rows.append(
                {"prompt": problem.prompt, "completion": completion, "label": label, "by": source}
            )
    append_jsonl(path, rows)
    return path


def run(*arguments: str | Path, fails: bool = False) -> str:
    result = runner.invoke(app, [str(argument) for argument in arguments])
    assert (result.exit_code != 0) == fails, f"{result.output}\n{result.exception!r}"
    return result.output + (repr(result.exception) if fails else "")


def train_arguments(data: Path, model: str, output: Path) -> list[str]:
    return [
        "train", "--data", str(data), "--policy", model, "--output", str(output),
        "--beta", "1", "--learning-rate", "1e-3", "--batch-size", "8", "--micro-batch-size", "4",
        "--held-out", "0.25", "--separator", "\\n",
    ]  # fmt: skip


def test_train_score_evaluate(data: Path, model: str, tmp_path: Path) -> None:
    trained, scored = tmp_path / "trained", tmp_path / "scored.jsonl"
    run(*train_arguments(data, model, trained))
    held_out = read_rows(trained / "held_out.jsonl")
    rows = read_rows(data)
    assert len(held_out) == 6  # three of twelve prompts, two rows each
    assert all(rows["prompt"].count(prompt) == 2 for prompt in held_out["prompt"])
    before = load_file(Path(model) / "model.safetensors")
    after = load_file(trained / "model.safetensors")
    assert not torch.equal(before["model.norm.weight"], after["model.norm.weight"])

    run(
        "score", "--data", trained / "held_out.jsonl", "--policy", trained, "--reference", model,
        "--beta", "1", "--separator", "\\n", "--output", scored,
    )  # fmt: skip
    lines = [json.loads(line) for line in scored.read_text().splitlines()]
    prm = ImplicitPRM.from_pretrained(str(trained), model, beta=1.0, format=ARITHMETIC_FORMAT)
    for line in lines:
        expected = prm.score(line["prompt"], line["completion"].split("\n"))
        assert np.allclose(line["step_rewards"], expected.step_rewards, atol=1e-5)
        assert line["outcome"] == pytest.approx(sum(line["step_rewards"]), abs=1e-4)
        assert line["q_values"][-1] == pytest.approx(line["outcome"], abs=1e-4)
        assert sum(line["ref_step_logps"]) == pytest.approx(
            float(expected.ref_logps.sum()), abs=1e-4
        )

    report = run("evaluate", scored)
    for predictor in ("outcome reward (sum)", "log π_ref", "shorter"):
        assert predictor in report


def test_loss_is_log_2_at_first(data: Path, model: str, tmp_path: Path) -> None:
    """The default reference is the policy as it starts: all rewards are 0."""
    run(*train_arguments(data, model, tmp_path / "trained"))
    log = json.loads((tmp_path / "trained" / "log.json").read_text())
    assert log[0]["loss"] == pytest.approx(np.log(2), abs=1e-5)


def test_last_layers_leave_the_others(data: Path, model: str, tmp_path: Path) -> None:
    run(*train_arguments(data, model, tmp_path / "trained"), "--last-layers", "1")
    before = load_file(Path(model) / "model.safetensors")
    after = load_file(tmp_path / "trained" / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(("model.layers.2.", "model.norm")) for name in changed)


def test_first_errors_are_evaluated(model: str, tmp_path: Path) -> None:
    """Rows in ProcessBench's official layout go through their converter to an F1."""
    rows = []
    for number, problem in enumerate(problems(16)):
        steps = list(problem.steps)
        if number % 2:
            steps[1] = steps[1].split("=")[0] + "=0"
        rows.append(
            {
                "id": f"x-{number}",
                "generator": "test",
                "problem": problem.prompt,
                "steps": steps,
                "final_answer_correct": number % 2 == 0,
                "label": 1 if number % 2 else -1,
            }
        )
    data, scored = tmp_path / "bench.json", tmp_path / "scored.jsonl"
    data.write_text(json.dumps(rows))
    run(
        "score", "--data", data, "--converter", "processbench", "--policy", model,
        "--separator", "\\n", "--output", scored, "--limit", "12",
    )  # fmt: skip
    assert len(read_rows(scored)) == 12
    report = run("evaluate", scored)
    assert "F1" in report
    assert "chance" in report


def test_shuffled_rows_are_a_sample_that_the_seed_repeats(
    data: Path, model: str, tmp_path: Path
) -> None:
    def completions(name: str, *options: str) -> list[str]:
        output = tmp_path / f"{name}.jsonl"
        run(
            "score", "--policy", model, "--data", data, "--separator", "\\n", "--limit", "6",
            "--output", output, *options,
        )  # fmt: skip
        return list(read_rows(output)["completion"])

    assert completions("first") == list(read_rows(data)["completion"][:6])
    shuffled = completions("shuffled", "--shuffle")
    assert shuffled == completions("again", "--shuffle")
    assert shuffled != completions("other", "--shuffle", "--seed", "1")
    assert set(shuffled) <= set(read_rows(data)["completion"])
    assert shuffled != completions("first again")


def test_bad_input_is_named(data: Path, model: str, tmp_path: Path) -> None:
    score = ["score", "--policy", model, "--separator", "\\n", "--data"]
    assert "exists" in run(*score, data, "--output", data, fails=True)
    assert "no converter 'gsm'" in run(
        *score, data, "--converter", "gsm", "--output", tmp_path / "x.jsonl", fails=True
    )
    broken = tmp_path / "broken.jsonl"
    broken.write_text(data.read_text() + '{"prompt": "7+5\\n", "compl')
    assert "line 25" in run(*score, broken, "--output", tmp_path / "x.jsonl", fails=True)
    assert not (tmp_path / "x.jsonl").exists()
    assert "multiple" in run(
        *train_arguments(data, model, tmp_path / "t"), "--micro-batch-size", "3", fails=True
    )
    assert "neither" in run("evaluate", _without_labels(data, tmp_path), fails=True)


def _without_labels(data: Path, folder: Path) -> Path:
    path = folder / "unlabelled.jsonl"
    append_jsonl(path, read_rows(data).remove_columns("label"))
    return path


def test_rows_scored_before_a_bad_one_are_kept(data: Path, model: str, tmp_path: Path) -> None:
    """Scoring writes chunk by chunk: what is written before a row that cannot be scored stays."""
    rows = [*read_rows(data), *read_rows(data)]  # 48 rows; a chunk is 32 batches of one row here
    rows[40]["completion"] = "7+5=12\n" * 40  # longer than the context of 128 tokens
    long, scored = tmp_path / "long.jsonl", tmp_path / "scored.jsonl"
    append_jsonl(long, rows)
    output = run(
        "score", "--policy", model, "--data", long, "--separator", "\\n", "--batch-size", "1",
        "--output", scored, fails=True,
    )  # fmt: skip
    assert "tokens" in output
    assert len(read_rows(scored)) == 32
