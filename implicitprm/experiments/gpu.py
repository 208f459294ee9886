"""What a GPU does with the same code: ``python -m implicitprm.experiments.gpu`` (minutes, CUDA).

Each preset that is meant for one device is trained there for a few updates, on a model of its
architecture with random weights and on rows as long as it allows: neither time nor memory depends
on what the weights say, and no hub is needed. The peaks are set beside what
:func:`implicitprm.memory.expected_memory` says of them. And the shipped models of the arithmetic
world score the same solutions on the device and on a CPU.

``device`` is an argument everywhere, so that the tests can run all of it on a CPU.
"""

from __future__ import annotations

import platform
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch
import typer
from datasets import Dataset
from tqdm import tqdm
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    TrainerCallback,
)

from implicitprm.arithmetic import ARITHMETIC_FORMAT, checkpoint_path, load_rollouts
from implicitprm.arithmetic.measure import score_rows
from implicitprm.arithmetic.tokenizer import build_tokenizer
from implicitprm.devices import device_memory, processes
from implicitprm.experiments.runs import be_quiet
from implicitprm.experiments.store import load_result, result_path, save_result
from implicitprm.logprobs import score_logps
from implicitprm.memory import GIB, Load, check_memory, expected_memory, totals
from implicitprm.presets import PRESETS, Preset
from implicitprm.rewards import ImplicitPRM, ScoredSolution
from implicitprm.steps import Solution, encode
from implicitprm.training import (
    ImplicitPRMConfig,
    ImplicitPRMTrainer,
    train_last_layers,
    with_lora,
)

Result = TypeVar("Result")
#: Updates that are timed, after one that is not.
UPDATES = 5
#: Solutions of the arithmetic world that are scored twice.
SOLUTIONS = 500


def require_cuda() -> None:
    """End the program, saying what is needed, where torch finds no CUDA device."""
    if not torch.cuda.is_available():
        sys.exit(
            f"This needs a CUDA device, and torch {torch.__version__} finds none; nothing was run. "
            "On a machine with an NVIDIA GPU, install torch's CUDA build (PyPI's, on Linux)."
        )


def gpu_line() -> str:
    """What was run on a GPU, where and when, from the result file; or that nothing was yet."""
    if not result_path("gpu").is_file():
        return "Not yet run on a GPU; `make gpu` does it on a machine that has one."
    result = load_result("gpu")
    parts: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for cell in result["cells"]:
        parts[cell["part"]].append(cell)
    peaks = [peak for cell in parts["preset"] for peak in cell["peaks"].values()]
    ratios = [peak["measured GiB"] / peak["expected GiB"] for peak in peaks]
    largest = [f"{cell['largest']:.1g} ({cell['precision']})" for cell in parts["agreement"]]
    return (
        f"Run on a GPU: {result['device']}, {parts['machine'][0]['date']}, torch "
        f"{result['versions']['torch']}. Presets: "
        f"{', '.join(cell['preset'] for cell in parts['preset'])}. Peaks of memory are "
        f"{min(ratios):.2f} to {max(ratios):.2f} of the expected ones; log-probabilities of tokens "
        f"differ from a CPU's by at most {' and '.join(largest)}."
    )


# ---- Agreement --------------------------------------------------------------------------------


def agreement(device: torch.device, solutions: int = SOLUTIONS) -> list[dict[str, Any]]:
    """Scores on ``device`` in two precisions beside those in float32 on a CPU.

    Differences are of log-probabilities of tokens, in nats; *same lowest step* is the share of
    solutions, in percent, in which the smallest step reward belongs to the same step.
    """
    rows = load_rollouts("reasoner", "validation").select(range(solutions))
    on_cpu = _scored(torch.device("cpu"), rows, bf16=False)
    cells = []
    for precision, bf16 in (("fp32", False), ("bf16 autocast", True)):
        pairs = list(zip(on_cpu, _scored(device, rows, bf16), strict=True))
        differences = np.abs(np.concatenate([_logps(b) - _logps(a) for a, b in pairs]))
        same = [a.step_rewards.argmin() == b.step_rewards.argmin() for a, b in pairs]
        cells.append(
            {
                "part": "agreement",
                "precision": precision,
                "tokens": len(differences),
                "largest": float(differences.max()),
                "mean": float(differences.mean()),
                "same lowest step": round(100 * float(np.mean(same)), 1),
            }
        )
    return cells


def _scored(device: torch.device, rows: Dataset, bf16: bool) -> list[ScoredSolution]:
    """The solutions of this world among rows, ``strong`` against ``reasoner``."""
    models: list[Any] = [
        AutoModelForCausalLM.from_pretrained(checkpoint_path(name))
        for name in ("strong", "reasoner")
    ]
    policy, reference = (model.to(device).eval() for model in models)
    prm = ImplicitPRM(policy, reference, build_tokenizer(), 1.0, ARITHMETIC_FORMAT)
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        return [solution for solution in score_rows(prm, rows) if solution is not None]


def _logps(solution: ScoredSolution) -> np.ndarray:
    """Of every token (T) under both models; (2·T)."""
    return np.concatenate([solution.policy_logps, solution.ref_logps])


# ---- Presets ----------------------------------------------------------------------------------


def load_of(preset: Preset) -> Load:
    """What ``implicitprm train --preset`` puts on a device if all rows are as long as allowed."""
    options = preset.options
    return Load(
        sequences=options["micro_batch_size"],
        tokens=options["max_length"],
        last_layers=options.get("last_layers"),
        lora_rank=options.get("lora_rank"),
        gradient_checkpointing=options.get("gradient_checkpointing", False),
        bf16=options["precision"] == "bf16",
    )


def measure_preset(
    name: str, preset: Preset, device: torch.device, updates: int = UPDATES
) -> dict[str, Any]:
    """Tokens a second in training and scoring on ``device``; peaks of memory beside the expected.

    An update is one forward and backward pass of the preset's micro-batch and one step of AdamW,
    without accumulation; scoring is of one model, in its weights' half precision where the preset
    computes in it. Peaks are None where the device does not count them.
    """
    load, config = load_of(preset), AutoConfig.for_model(**preset.architecture)
    rows = long_rows(load.tokens, load.sequences * (updates + 1))
    model = _model(config, load, device)
    with tempfile.TemporaryDirectory() as scratch:
        clock = _Clock(device)
        reference, trainer = _with_peak(
            device, lambda: _trainer(model, rows, preset, device, scratch, clock)
        )
        training, _ = _with_peak(device, trainer.train)
    expected = totals(expected_memory(config, load))
    peaks = {"reference pass": reference, "training": training}
    return {
        "part": "preset",
        "preset": name,
        "rows of an update": load.sequences,
        "tokens of a row": load.tokens,
        "training tokens/s": round(load.sequences * load.tokens / clock.seconds_of_an_update()),
        "scoring tokens/s": round(len(rows) * load.tokens / _scoring(model, rows, load, device)),
        "peaks": {
            phase: {"measured GiB": _gib(peak), "expected GiB": _gib(expected[phase])}
            for phase, peak in peaks.items()
        },
    }


def long_rows(tokens: int, count: int) -> Dataset:
    """Rows of exactly ``tokens`` tokens of the arithmetic world, right and wrong in turn."""
    prompt_and_end = 2 + 1
    row = {"prompt": "7\n", "completion": "+" * (tokens - prompt_and_end)}
    return Dataset.from_list([row | {"label": number % 2 == 0} for number in range(count)])


def _model(config: PretrainedConfig, load: Load, device: torch.device) -> Any:
    torch.manual_seed(0)
    with device:
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    if load.last_layers:
        train_last_layers(model, load.last_layers)
    return with_lora(model, load.lora_rank) if load.lora_rank else model


def _trainer(
    model: Any,
    rows: Dataset,
    preset: Preset,
    device: torch.device,
    folder: str,
    clock: TrainerCallback,
) -> ImplicitPRMTrainer:
    load = load_of(preset)
    return ImplicitPRMTrainer(
        model=model,
        reference=model,
        args=ImplicitPRMConfig(
            output_dir=folder,
            beta=preset.options["beta"],
            learning_rate=preset.options["learning_rate"],
            per_device_train_batch_size=load.sequences,
            per_device_eval_batch_size=load.sequences,
            gradient_checkpointing=load.gradient_checkpointing,
            bf16=load.bf16,
            use_cpu=device.type == "cpu",
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=rows,
        processing_class=build_tokenizer(),
        format=ARITHMETIC_FORMAT,
        callbacks=[clock],
    )


def _scoring(model: Any, rows: Dataset, load: Load, device: torch.device) -> float:
    """Seconds in which ``model`` scores the rows, the second time."""
    if load.bf16:
        model = model.to(torch.bfloat16)
    tokenizer = build_tokenizer()
    solutions = [
        encode(tokenizer, Solution(row["prompt"], (row["completion"],)), ARITHMETIC_FORMAT)
        for row in rows
    ]
    began = 0.0
    for _ in range(2):
        _wait(device)
        began = time.perf_counter()
        score_logps(model.eval(), solutions, tokenizer.pad_token_id, load.sequences, "scoring")
    return time.perf_counter() - began  # the scores have come back, so the device has ended


class _Clock(TrainerCallback):
    """Notes when each update has ended on the device."""

    def __init__(self, device: torch.device):
        self.device, self.ends = device, list[float]()

    def on_step_end(self, *arguments: Any, **named: Any) -> None:
        _wait(self.device)
        self.ends.append(time.perf_counter())

    def seconds_of_an_update(self) -> float:
        """The median over the updates after the first one."""
        return statistics.median(b - a for a, b in pairwise(self.ends))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _with_peak(device: torch.device, run: Callable[[], Result]) -> tuple[int | None, Result]:
    """The most bytes that tensors held on ``device`` while ``run`` ran, and its result."""
    if device.type != "cuda":
        return None, run()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    result = run()
    return torch.cuda.max_memory_allocated(device), result


def _gib(size: int | None) -> float | None:
    return None if size is None else round(size / GIB, 4)


# ---- All of it --------------------------------------------------------------------------------


def measure(
    device: torch.device, presets: Mapping[str, Preset], solutions: int = SOLUTIONS
) -> list[dict[str, Any]]:
    """The cells of the result file; presets that do not fit on ``device`` are named with why."""
    today = datetime.now(UTC).date().isoformat()
    cells: list[dict[str, Any]] = [
        {"part": "machine", "date": today, "cuda": torch.version.cuda, "system": platform.system()}
    ]
    cells += agreement(device, solutions)
    for name, preset in presets.items():
        try:
            config = AutoConfig.for_model(**preset.architecture)
            check_memory(config, load_of(preset), device_memory())
        except ValueError as error:
            cells.append({"part": "left out", "preset": name, "why": str(error)})
        else:
            cells.append(measure_preset(name, preset, device))
        tqdm.write(str(cells[-1]))
    return cells


def main() -> None:
    """Measure everything on the CUDA device and write the result file."""
    require_cuda()
    be_quiet()
    start = time.perf_counter()
    presets = {name: preset for name, preset in PRESETS.items() if preset.processes == 1}
    cells = measure(processes().device, presets)
    config = {"presets": list(presets), "updates": UPDATES, "solutions": SOLUTIONS}
    # Times and peaks are this machine's own: no other one is expected to repeat them.
    save_result(
        "gpu",
        "python -m implicitprm.experiments.gpu",
        config,
        cells,
        0.0,
        time.perf_counter() - start,
    )
    print(gpu_line())


if __name__ == "__main__":
    typer.run(main)
