"""The GPU's experiment on a CPU; and, where there is a CUDA device, the package on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_memory import FACTOR
from tiny import problems, tiny_llama
from transformers import AutoConfig
from typer.testing import CliRunner
from worker import rows as worker_rows

from implicitprm import ImplicitPRM, Solution
from implicitprm.arithmetic import ARITHMETIC_FORMAT, checkpoint_path
from implicitprm.arithmetic.tokenizer import build_tokenizer
from implicitprm.beam_search import beam_search, step_guide
from implicitprm.cli import app
from implicitprm.comparisons.math_shepherd import complete_prefixes
from implicitprm.data import append_jsonl
from implicitprm.devices import device_memory
from implicitprm.experiments import gpu, scorecard, store
from implicitprm.memory import expected_memory, totals
from implicitprm.presets import PRESETS, Preset
from implicitprm.rewards import load_causal_lm
from implicitprm.rollouts import Sampling, sample_rollouts
from implicitprm.training import row_lengths

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
TINY = {
    "model_type": "qwen2",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 500,
    "max_position_embeddings": 64,
}


def small(preset: str, **changes: Any) -> Preset:
    """A preset with a tiny model and short rows."""
    options = PRESETS[preset].options | {"micro_batch_size": 2, "max_length": 40}
    return Preset(options | changes, TINY, 1)


# --- the experiment ------------------------------------------------------------------------------


def test_rows_are_as_long_as_they_are_said_to_be() -> None:
    rows = gpu.long_rows(40, 5)
    assert row_lengths(rows, build_tokenizer(), ARITHMETIC_FORMAT) == [40] * 5
    assert rows["label"] == [True, False, True, False, True]


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("qwen2.5-0.5b", {}),
        ("qwen2.5-1.5b", {"lora_rank": 2}),
        ("smollm2-135m", {"last_layers": 1}),
    ],
)
def test_a_preset_is_measured(preset: str, changes: Any) -> None:
    cell = gpu.measure_preset(preset, small(preset, **changes), CPU, updates=3)
    assert (cell["rows of an update"], cell["tokens of a row"]) == (2, 40)
    assert cell["training tokens/s"] > 0
    assert cell["scoring tokens/s"] > cell["training tokens/s"] / 2
    for peak in cell["peaks"].values():
        assert peak["measured GiB"] is None  # a CPU does not count it
        assert peak["expected GiB"] == pytest.approx(0, abs=0.01)


def test_a_load_is_that_of_the_preset() -> None:
    load = gpu.load_of(PRESETS["qwen2.5-1.5b"])
    assert (load.sequences, load.tokens, load.lora_rank) == (4, 1024, 16)
    assert (load.gradient_checkpointing, load.bf16, load.processes) == (True, True, 1)
    assert gpu.load_of(PRESETS["smollm2-135m"]).last_layers == 6


def test_a_cpu_agrees_with_itself_and_bf16_nearly() -> None:
    full, half = gpu.agreement(CPU, solutions=40)
    assert full["largest"] == 0
    assert full["same lowest step"] == 100
    assert 1e-3 < half["mean"] < half["largest"] < 2
    assert 50 < half["same lowest step"] <= 100
    assert full["tokens"] == half["tokens"] > 40 * 2 * 10


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of the result files."""
    for module in (store, gpu):
        monkeypatch.setattr(module, "result_path", lambda name: tmp_path / "r" / f"{name}.json")
    return tmp_path / "r"


def test_the_line_is_made_from_the_file(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu.gpu_line().startswith("Not yet run on a GPU")

    def measured(*arguments: Any, **named: Any) -> tuple[int, Any]:
        return 3 * 2**20, arguments[1]()

    monkeypatch.setattr(gpu, "require_cuda", lambda: None)
    monkeypatch.setattr(gpu, "_with_peak", measured)
    one = small("qwen2.5-0.5b")
    monkeypatch.setattr(gpu, "PRESETS", {"a": one, "b": replace(one, processes=8)})
    gpu.main()
    said = capsys.readouterr().out
    stored = store.load_result("gpu")
    assert said.splitlines()[-1] == gpu.gpu_line()
    assert "Presets: a. " in said
    assert stored["cells"][0]["date"] in said
    assert stored["versions"]["torch"] in said
    assert stored["device"] in said
    parts = [cell["part"] for cell in stored["cells"]]
    assert parts == ["machine", "agreement", "agreement", "preset"]


def test_a_preset_that_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "device_memory", lambda: 1000)
    *_, cell = gpu.measure(CPU, {"a": small("qwen2.5-0.5b")}, solutions=20)
    assert (cell["part"], cell["preset"]) == ("left out", "a")
    assert "nothing was loaded" in cell["why"]


def test_without_cuda_nothing_is_run(monkeypatch: pytest.MonkeyPatch, results: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpu, "measure", lambda *_: pytest.fail("it was run"))
    with pytest.raises(SystemExit, match="needs a CUDA device") as raised:
        gpu.main()
    assert raised.value.code != 0
    assert not results.exists()


def test_the_scorecard_ends_with_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    scorecard.main()
    assert capsys.readouterr().out.splitlines()[-1] == gpu.gpu_line()


# --- on a CUDA device ----------------------------------------------------------------------------


def solutions(count: int) -> list[Solution]:
    return [Solution(problem.prompt, tuple(problem.steps)) for problem in problems(count)]


def tiny_prm(**how: Any) -> Any:
    models = tiny_llama(0), tiny_llama(1)
    return ImplicitPRM(*models, build_tokenizer(), 1.0, ARITHMETIC_FORMAT, **how)


@pytest.mark.gpu
def test_weights_go_to_the_device_and_scores_come_back() -> None:
    loaded = load_causal_lm(str(checkpoint_path("reasoner")))
    assert {weight.device.type for weight in loaded.parameters()} == {"cuda"}
    prm = tiny_prm()
    expected = prm.score_solutions(solutions(40))
    for model in (prm.policy, prm.reference):
        model.to("cuda")
    for one, other in zip(prm.score_solutions(solutions(40)), expected, strict=True):
        assert isinstance(one.token_rewards, np.ndarray)
        np.testing.assert_allclose(one.token_rewards, other.token_rewards, atol=1e-3)


@pytest.mark.gpu
def test_scores_are_kept_on_disk_from_a_gpu(tmp_path: Path) -> None:
    prm = tiny_prm(reference_cache=tmp_path)
    for model in (prm.policy, prm.reference):
        model.to("cuda")
    first, second = (prm.score_solutions(solutions(8)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.ref_logps, other.ref_logps)


@pytest.mark.gpu
def test_half_precision_is_near_float32() -> None:
    full, half = gpu.agreement(CUDA)
    assert full["largest"] < 1e-3
    assert full["mean"] < 1e-5
    assert full["same lowest step"] > 99
    assert full["largest"] < half["largest"]
    assert 1e-4 < half["mean"] < 0.1
    assert half["same lowest step"] > 80


@pytest.mark.gpu
def test_sampling_searching_and_completing_run_there_and_repeat() -> None:
    model = load_causal_lm(str(checkpoint_path("reasoner")))
    tokenizer, sampling = build_tokenizer(), Sampling(48)
    prompts = [problem.prompt for problem in problems(6)]
    how: dict[str, Any] = {"sampling": sampling, "format": ARITHMETIC_FORMAT, "seed": 3}
    first, again = (sample_rollouts(model, tokenizer, prompts, n=8, **how) for _ in range(2))
    assert first == again
    assert len({rollout.completion for rollouts in first for rollout in rollouts}) > 6
    guide = step_guide(ImplicitPRM(model, None, tokenizer, 1.0, ARITHMETIC_FORMAT), "sum")
    found = beam_search(
        model, tokenizer, prompts, guide, width=2, expansions=2, max_steps=10, **how
    )
    assert all(search.best.finished for search in found)
    completed = complete_prefixes(model, tokenizer, solutions(3), lambda *_: True, n=4, **how)
    assert all(one.right.all() for one in completed)


@pytest.mark.gpu
@pytest.mark.parametrize("objective", ["ce", "dpo", "nca", "kto"])
def test_train_runs_on_a_gpu(objective: str, tmp_path: Path) -> None:
    model, data, trained = (tmp_path / name for name in ("model", "rows.jsonl", "trained"))
    tiny_llama(seed=0).save_pretrained(model)
    build_tokenizer().save_pretrained(model)
    append_jsonl(data, worker_rows(48))
    result = CliRunner().invoke(app, [
        "train", "--data", str(data), "--policy", str(model), "--output", str(trained),
        "--objective", objective, "--beta", "1", "--learning-rate", "1e-3", "--batch-size", "8",
        "--gradient-checkpointing",
    ])  # fmt: skip
    assert result.exit_code == 0, result.output
    lines = (trained / "log.csv").read_text().splitlines()
    losses = [float(line.split(",")[2]) for line in lines[1:]]
    assert np.isfinite(losses).all()
    assert max(losses) - min(losses) > 1e-3


@pytest.mark.gpu
@pytest.mark.parametrize("preset", ["smollm2-135m", "qwen2.5-0.5b"])
def test_peaks_on_a_gpu_are_within_a_factor_of_the_expected(preset: str) -> None:
    if max(totals(expected_memory_of(preset)).values()) > 0.8 * device_memory():
        pytest.skip(f"too little is free on the device for {preset}")
    cell = gpu.measure_preset(preset, PRESETS[preset], CUDA, updates=2)
    for phase, peak in cell["peaks"].items():
        assert 1 / FACTOR <= peak["measured GiB"] / peak["expected GiB"] <= FACTOR, phase


def expected_memory_of(preset: str) -> Any:
    config = AutoConfig.for_model(**PRESETS[preset].architecture)
    return expected_memory(config, gpu.load_of(PRESETS[preset]))
