"""The command line from files to files, on a tiny model, and what it says to bad input."""

from __future__ import annotations

import csv
import json
import math
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from safetensors.torch import load_file
from tiny import problems, tiny_llama
from typer.testing import CliRunner

from implicitprm import ImplicitPRM, cli
from implicitprm.arithmetic import Problem, check_solution, checkpoint_path
from implicitprm.arithmetic.problems import ARITHMETIC_FORMAT
from implicitprm.arithmetic.tokenizer import build_tokenizer
from implicitprm.chunks import parts_folder
from implicitprm.cli import app
from implicitprm.data import append_jsonl, pair_responses, read_rows
from implicitprm.reference_cache import DATABASE
from implicitprm.rollouts import Rollout
from implicitprm.training import last_complete_checkpoint

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
    output = result.output + (repr(result.exception) if fails else "")
    return " ".join(output.replace("│", " ").split())  # whatever the width of the terminal


def train_arguments(data: Path, model: str, output: Path) -> list[str]:
    return [
        "train", "--data", str(data), "--policy", model, "--output", str(output),
        "--beta", "1", "--learning-rate", "1e-3", "--batch-size", "8", "--micro-batch-size", "4",
        "--held-out", "0.25",
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
    for predictor in ("outcome reward (sum)", "log π_ref", "shorter", "one of 2 candidates"):
        assert predictor in report


def losses(trained: Path) -> list[float]:
    with (trained / "log.csv").open() as file:
        return [float(line["loss"]) for line in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("options", "start"),
    [
        (["--objective", "ce"], math.log(2)),
        (["--objective", "ce", "--balance", "prompt"], math.log(2)),
        (["--objective", "kto"], 0.5),
        (["--objective", "dpo"], math.log(2)),
        (["--objective", "nca", "--pairing", "matched"], 2 * math.log(2)),
    ],
)
def test_every_objective_starts_at_rewards_of_0(
    options: list[str], start: float, data: Path, model: str, tmp_path: Path
) -> None:
    """The default reference is the policy as it starts; pairs are made from unpaired rows."""
    output = run(*train_arguments(data, model, tmp_path / "trained"), *options)
    assert "9 prompts: 9 with right and wrong responses" in output
    paired = options[1] in ("dpo", "nca")
    assert f"trained on {9 if paired else 18} rows" in output
    assert losses(tmp_path / "trained")[0] == pytest.approx(start, abs=1e-5)
    assert not list((tmp_path / "trained").glob("checkpoint-*"))


def test_preference_rows_are_taken_as_they_are(data: Path, model: str, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    append_jsonl(pairs, pair_responses(read_rows(data), "all", 0))
    arguments = train_arguments(pairs, model, tmp_path / "trained")
    output = run(*arguments, "--objective", "dpo", "--held-out", "0")
    assert "trained on 12 rows" in output
    assert losses(tmp_path / "trained")[0] == pytest.approx(math.log(2), abs=1e-5)


def test_lora_writes_an_adapter_that_scores(data: Path, model: str, tmp_path: Path) -> None:
    trained, scored = tmp_path / "trained", tmp_path / "scored.jsonl"
    run(*train_arguments(data, model, trained), "--lora-rank", "2", "--gradient-checkpointing")
    assert (trained / "adapter_model.safetensors").is_file()
    assert not (trained / "model.safetensors").exists()
    run(
        "score", "--data", trained / "held_out.jsonl", "--policy", trained, "--reference", model,
        "--beta", "1", "--separator", "\\n", "--output", scored,
    )  # fmt: skip
    assert max(abs(reward) for reward in read_rows(scored)["outcome"]) > 1e-3


# --- resuming ------------------------------------------------------------------------------------


#: The command line in a process that dies once it has written its second checkpoint.
DYING = """
import os, signal
from transformers import TrainerState
save = TrainerState.save_to_json
def dying(self, path):
    save(self, path)
    if "checkpoint-20" in path:
        os.kill(os.getpid(), signal.SIGKILL)
TrainerState.save_to_json = dying
from implicitprm.chunks import parts_folder
from implicitprm.cli import app
app()
"""


def test_a_killed_run_is_resumed(data: Path, model: str, tmp_path: Path) -> None:
    def arguments(output: Path) -> list[str]:
        return [
            *train_arguments(data, model, output), "--objective", "kto",
            "--epochs", "12", "--save-every", "10",
        ]  # fmt: skip

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(*arguments(whole))
    killed = subprocess.run(
        [sys.executable, "-c", DYING, *arguments(cut)], capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert last_complete_checkpoint(cut) == str(cut / "checkpoint-20")
    assert not (cut / "model.safetensors").exists()

    changed = run(*arguments(cut), "--resume", "--beta", "2", fails=True)
    assert "changed: beta: 1.0 → 2.0" in changed
    assert "exists" in run(*arguments(cut), fails=True)
    said = run(*arguments(cut), "--resume").replace(" ", "")  # lines are broken anywhere
    assert re.search(r"goingonfrom\S+checkpoint-\d+0", said)
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, cut))
    assert all(torch.equal(weight, other[name]) for name, weight in one.items())
    log = (cut / "log.csv").read_text()
    assert "has finished" in run(*arguments(cut), "--resume", fails=True)
    assert (cut / "log.csv").read_text() == log
    assert losses(whole) == pytest.approx(losses(cut), abs=1e-6)
    assert read_rows(whole / "held_out.jsonl").to_list() == (
        read_rows(cut / "held_out.jsonl").to_list()
    )


def test_there_must_be_a_run_to_resume(data: Path, model: str, tmp_path: Path) -> None:
    output = run(*train_arguments(data, model, tmp_path / "none"), "--resume", fails=True)
    assert "no run to resume" in output


# --- rollouts ------------------------------------------------------------------------------------


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    rows = [{"prompt": problem.prompt, "answer": str(problem.answer)} for problem in problems(10)]
    append_jsonl(path, rows)
    return path


def sample(questions: Path, output: Path, *options: str) -> str:
    return run(
        "rollouts", "--data", questions, "--policy", str(checkpoint_path("strong")),
        "--output", output, "--n", "4", "--max-new-tokens", "64", "--min-p", "0.05",
        "--batch-size", "12", *options,
    )  # fmt: skip


def test_rollouts_are_graded_and_can_be_trained_on(questions: Path, tmp_path: Path) -> None:
    said = sample(questions, tmp_path / "rollouts.jsonl")
    rows = read_rows(tmp_path / "rollouts.jsonl")
    assert sum(rows["weight"]) == 40
    assert len({(row["prompt"], row["completion"]) for row in rows}) == len(rows)
    for row in rows:
        truth = check_solution(
            Problem.parse(row["prompt"]), row["completion"].split("\n"), row["finished"]
        )
        assert row["label"] == truth.correct
    right = sum(row["weight"] * row["label"] for row in rows) / 40
    assert 0.3 < right < 1
    assert f"40 responses to 10 prompts, {right:.1%} right" in said
    run(
        *train_arguments(
            tmp_path / "rollouts.jsonl", str(checkpoint_path("reasoner")), tmp_path / "t"
        )
    )


def test_rollouts_repeat_with_their_seed(questions: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.jsonl" for name in "abc"]
    for file, seed in zip(files, ("0", "0", "1"), strict=True):
        sample(questions, file, "--seed", seed)
    first, again, other = (file.read_bytes() for file in files)
    assert first == again
    assert first != other


def test_rollouts_need_an_answer_to_grade_by(data: Path, tmp_path: Path) -> None:
    output = run(
        "rollouts", "--data", data, "--policy", str(checkpoint_path("strong")),
        "--output", tmp_path / "x.jsonl", fails=True,
    )  # fmt: skip
    assert "has no column answer" in output


def test_empty_responses_are_counted_and_left_out(
    questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sampled(model: object, tokenizer: object, prompts: list[str], **_: object) -> object:
        return [[Rollout("", True)] + 3 * [Rollout("#1", True)] for _ in prompts]

    monkeypatch.setattr(cli, "sample_rollouts", sampled)
    said = sample(questions, tmp_path / "x.jsonl")
    assert "(10 empty ones left out)" in said
    rows = read_rows(tmp_path / "x.jsonl")
    assert set(rows["completion"]) == {"#1"}
    assert set(rows["weight"]) == {3}


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
                "id": f"gsm8k-{number}",
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
    assert report.count("chance") == 1
    assert "threshold chosen on the other half" in report
    # The first file chooses the threshold for itself and for the others.
    report = run("evaluate", scored, scored)
    assert report.count("chance") == 3
    assert report.count("threshold chosen on gsm8k") == 2


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


def test_reference_scores_are_kept_between_runs(data: Path, model: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    score = ["score", "--data", str(data), "--policy", model, "--separator", "\\n"]
    reference = ["--reference", str(checkpoint_path("reasoner"))]
    for name in ("fresh", "first", "second"):
        cached = [] if name == "fresh" else ["--reference-cache", str(cache)]
        run(*score, *reference, *cached, "--output", tmp_path / f"{name}.jsonl")
    first, second = ((tmp_path / f"{name}.jsonl").read_bytes() for name in ("first", "second"))
    assert first == second
    fresh = read_rows(tmp_path / "fresh.jsonl")["outcome"]
    assert read_rows(tmp_path / "first.jsonl")["outcome"] == pytest.approx(list(fresh), abs=1e-4)
    assert [path.name for path in cache.iterdir()] == [DATABASE]
    refused = run(*score, "--reference-cache", cache, "--output", tmp_path / "x", fails=True)
    assert "--reference-cache needs a --reference" in refused


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
    assert "rows with labels go in one" in run("evaluate", data, data, fails=True)
    assert "neither" in run("evaluate", _without_labels(data, tmp_path), fails=True)
    for options, message in (
        (["--objective", "ppo"], "objective 'ppo' is unknown; choose one of ce, kto, dpo, nca"),
        (["--pairing", "some"], "pairing 'some' is unknown; choose one of all, matched"),
        (["--balance", "row"], "balance 'row' is unknown; choose one of dataset, prompt"),
        (["--objective", "dpo", "--balance", "dataset"], "--balance is for ce and kto"),
        (["--pairing", "matched"], "--pairing is for dpo and nca"),
        (["--lora-rank", "4", "--last-layers", "1"], "choose one of"),
    ):
        said = run(*train_arguments(data, model, tmp_path / "t"), *options, fails=True)
        assert message in said
    assert "line 25" in run(*train_arguments(broken, model, tmp_path / "t"), fails=True)
    assert not (tmp_path / "t").exists()


def test_an_update_sees_as_many_rows_whatever_the_number_of_processes() -> None:
    assert cli._accumulation(64, 8, 1) == 8
    assert cli._accumulation(64, 8, 2) == 4
    with pytest.raises(typer.BadParameter, match="64 is no multiple of micro batch size 16 × 3"):
        cli._accumulation(64, 16, 3)


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
    assert "in rows 32 to 47: solution 8 has" in output
    assert not scored.exists()
    (complete,) = parts_folder(scored).glob("*.jsonl")
    assert len(read_rows(complete)) == 32
