"""Every preset trains a tiny model of its architecture and chat template, through its own options.

What cannot be had here is replaced: the model's size, its tokenizer's merges, and the data, which
are made in the layout that the preset's converter reads.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import typer
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)
from typer.testing import CliRunner

from implicitprm.arithmetic import checkpoint_path
from implicitprm.cli import app
from implicitprm.data import append_jsonl
from implicitprm.presets import PRESETS, find_preset, model_config

CHATML = """\
{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system
SYSTEM<|im_end|>
{% endif %}<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
LLAMA3 = """\
{{- bos_token }}<|start_header_id|>system<|end_header_id|>

Cutting Knowledge Date: December 2023
Today Date: 26 Jul 2024

<|eot_id|>{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>

{{ message['content'] | trim }}<|eot_id|>{% endfor %}\
{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""
#: Per preset: the template, and the tokens of its model by their role.
CHATS: dict[str, tuple[str, dict[str, str]]] = {
    "smollm2-135m": (
        CHATML.replace("SYSTEM", "You are a helpful AI assistant named SmolLM, trained by "),
        {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "extra": "<|im_start|>"},
    ),
    "qwen2.5-0.5b": (
        CHATML.replace("SYSTEM", "You are Qwen, created by Alibaba Cloud."),
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "extra": "<|im_start|>"},
    ),
    "llama-3.1-8b": (
        LLAMA3,
        {
            "bos_token": "<|begin_of_text|>",
            "eos_token": "<|eot_id|>",
            "extra": "<|start_header_id|> <|end_header_id|>",
        },
    ),
}
CHATS["qwen2.5-1.5b"] = CHATS["qwen2.5-0.5b"]


def tokenizer_of(preset: str) -> PreTrainedTokenizerFast:
    """Bytes as tokens, with the special tokens and the chat template of the preset's model."""
    template, special = CHATS[preset]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({byte: i for i, byte in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    named = {role: token for role, token in special.items() if role != "extra"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)
    fast.add_tokens([AddedToken(t, special=True) for t in special["extra"].split()], True)
    fast.chat_template = template
    return fast


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Folder of a tiny model for a preset: eight narrow layers of its architecture."""

    def build(preset: str) -> str:
        if preset == "miniature":
            return str(checkpoint_path("reasoner"))
        tokenizer = tokenizer_of(preset)
        small = {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 8,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": len(tokenizer),
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
        }
        torch.manual_seed(0)
        config = AutoConfig.for_model(**(dict(PRESETS[preset].architecture) | small))
        folder = tmp_path_factory.mktemp(preset)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return str(folder)

    return build


def write_data(preset: str, path: Path, questions: int) -> None:
    """Four solutions of each question, two of them right, in the layout of the preset's data."""
    converter = PRESETS[preset].options.get("converter")
    rows: list[dict[str, Any]] = []
    for number in range(questions):
        question = f"{number} + 1 = ?"
        texts = [f"It is {number + 1 + k % 2}.\n#### {number + 1 + k % 2}" for k in range(4)]
        if converter == "gsm8k-model-solutions":
            names = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
            solutions = {
                name: {"solution": text, "is_correct": k % 2 == 0}
                for k, (name, text) in enumerate(zip(names, texts, strict=True))
            }
            rows.append({"question": question, "ground_truth": f"#### {number + 1}"} | solutions)
        elif converter == "ultrainteract-rollouts":
            labels = [k % 2 == 0 for k in range(4)]
            rows.append({"prompt": question, "completions": texts, "correctness": labels})
        else:
            rows += [
                {"prompt": question, "completion": text, "label": k % 2 == 0}
                for k, text in enumerate(texts)
            ]
    append_jsonl(path, rows)


@pytest.fixture
def forward_passes() -> Iterator[dict[str, int]]:
    """Counts how often tokens were read, with and without gradient, by their embedding.

    Not the calls of the model: the reference pass calls its head once more for the logits of some
    positions. Nor those of a layer: gradient checkpointing runs it twice.
    """
    passes = {"reference": 0, "training": 0}

    def count(module: torch.nn.Module, *_: Any) -> None:
        if isinstance(module, torch.nn.Embedding):
            passes["training" if torch.is_grad_enabled() else "reference"] += 1

    handle = torch.nn.modules.module.register_module_forward_hook(count)
    yield passes
    handle.remove()


def run(*arguments: str | Path, fails: bool = False) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert (result.exit_code != 0) == fails, f"{result.output}\n{result.exception!r}"
    output = result.output + (repr(result.exception) if fails else "")
    return " ".join(output.replace("│", " ").split())


ALL, ADAPTER = ("--lora-rank", "0", "--last-layers", "0"), ("--last-layers", "0")


@pytest.mark.parametrize("how", ["preset", "full", "LoRA"])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_trains(
    preset: str, how: str, tiny: Any, forward_passes: dict[str, int], tmp_path: Path
) -> None:
    data, trained, policy = tmp_path / "rows.jsonl", tmp_path / "trained", tiny(preset)
    options = dict(PRESETS[preset].options)
    arguments: list[str | Path] = ["train", "--preset", preset, "--policy", policy]
    arguments += ["--output", trained, "--gradient-checkpointing"]
    rows = 4 * 20
    if preset == "miniature":  # all of it is at hand
        arguments += ["--limit", str(rows)]
    else:
        write_data(preset, data, rows // 4)
        arguments += ["--data", data]
    changed = {"full": ALL, "LoRA": ("--lora-rank", "4", *ADAPTER), "preset": ()}[how]
    run(*arguments, *map(str, changed))

    settings = json.loads((trained / "settings.json").read_text())
    replaced = {"data", "policy", "gradient_checkpointing"}
    if how != "preset":
        replaced |= {"lora_rank", "last_layers"}
    for name, value in options.items():
        if name not in replaced:
            assert settings[name] == str(value), name
    micro, epochs = options["micro_batch_size"], options.get("epochs", 1)
    batches = math.ceil(rows / micro)
    # The reference is run once, before the first update; a training pass never runs it again.
    assert forward_passes == {"reference": batches, "training": epochs * batches}
    with (trained / "log.csv").open() as file:
        log = list(csv.DictReader(file))
    assert len(log) == epochs * math.ceil(rows / options["batch_size"])
    # Rewards before the first update, under the preset's own precision.
    assert float(log[0]["reward_right"]) == pytest.approx(0, abs=1e-4)
    assert float(log[0]["reward_wrong"]) == pytest.approx(0, abs=1e-4)
    if how == "LoRA" or (how == "preset" and "lora_rank" in options):
        weights = load_file(trained / "adapter_model.safetensors")
        assert any(weight.any() for name, weight in weights.items() if "lora_B" in name)
    else:
        before = load_file(Path(policy) / "model.safetensors")
        after = load_file(trained / "model.safetensors")
        moved = {name for name in after if not torch.equal(before[name], after[name])}
        frozen = options.get("last_layers") if how == "preset" else None
        assert moved
        assert any(".layers.0." in name for name in moved) == (frozen is None)
    AutoTokenizer.from_pretrained(trained)


def test_an_explicit_option_wins(tiny: Any, tmp_path: Path) -> None:
    data, trained = tmp_path / "rows.jsonl", tmp_path / "trained"
    write_data("qwen2.5-0.5b", data, 8)
    run(
        "train", "--beta", "0.7", "--preset", "qwen2.5-0.5b", "--policy", tiny("qwen2.5-0.5b"),
        "--data", data, "--output", trained, "--batch-size", "16",
    )  # fmt: skip
    settings = json.loads((trained / "settings.json").read_text())
    assert (settings["beta"], settings["batch_size"]) == ("0.7", "16")
    assert settings["learning_rate"] == str(PRESETS["qwen2.5-0.5b"].options["learning_rate"])


def test_long_rows_are_left_out_and_counted(tiny: Any, tmp_path: Path) -> None:
    data, trained = tmp_path / "rows.jsonl", tmp_path / "trained"
    write_data("qwen2.5-0.5b", data, 8)
    append_jsonl(data, [{"prompt": "7 " * 400, "completion": "x " * 200, "label": True}])
    arguments = [
        "train", "--preset", "qwen2.5-0.5b", "--policy", tiny("qwen2.5-0.5b"),
        "--data", data, "--batch-size", "8",
    ]  # fmt: skip
    said = run(*arguments, "--output", trained)
    assert "1 rows of more than 1024 tokens left out" in said
    assert "trained on 32 rows" in said
    refused = run(*arguments, "--output", tmp_path / "none", "--max-length", "9", fails=True)
    assert "every row is longer than 9 tokens" in refused
    assert not (tmp_path / "none").exists()


def test_a_run_that_does_not_fit_is_refused_before_anything_loads(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "rows.jsonl"
    write_data("qwen2.5-0.5b", data, 8)
    monkeypatch.setattr("implicitprm.cli.device_memory", lambda: 1_000_000)
    monkeypatch.setattr("implicitprm.cli.load_causal_lm", lambda *_: pytest.fail("loaded"))
    said = run(
        "train", "--preset", "qwen2.5-0.5b", "--policy", tiny("qwen2.5-0.5b"), "--data", data,
        "--output", tmp_path / "none", fails=True,
    )  # fmt: skip
    assert "0.0 GiB are free; nothing was loaded" in said
    assert "--micro-batch-size 1" in said
    assert not (tmp_path / "none").exists()


def test_an_unknown_preset_is_named() -> None:
    assert "there are miniature, smollm2-135m" in run("memory", "--preset", "gpt-5", fails=True)
    with pytest.raises(ValueError, match="no preset 'gpt-5'"):
        find_preset("gpt-5")


@pytest.mark.parametrize("preset", PRESETS)
def test_the_memory_of_a_preset_needs_no_network(preset: str) -> None:
    said = run("memory", "--preset", preset)
    assert f"each of {PRESETS[preset].processes} device(s)" in said
    assert "logits" in said


def test_another_reference_needs_memory_of_its_own() -> None:
    said = run("memory", "--preset", "qwen2.5-0.5b", "--reference", "another")
    weights = next(line for line in said.splitlines() if "weights" in line)
    # 494,032,768 parameters of 4 bytes, beside as many of the policy during the reference pass.
    assert re.findall(r"\d\.\d\d", weights)[:2] == ["1.84", "3.68"]


#: Of the models' public cards; SmolLM2's and the miniature's are counted on their weights below.
PARAMETERS = {
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "llama-3.1-8b": 8_030_261_248,
    "smollm2-135m": 134_515_008,
    "miniature": 200_832,
}


@pytest.mark.parametrize("preset", PRESETS)
def test_the_architecture_has_the_public_number_of_parameters(preset: str) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(model_config(PRESETS[preset].options["policy"]))
    assert sum(weight.numel() for weight in model.parameters()) == PARAMETERS[preset]


def test_the_miniature_is_the_shipped_reasoner() -> None:
    shipped = AutoConfig.from_pretrained(checkpoint_path("reasoner")).to_dict()
    for name, value in PRESETS["miniature"].architecture.items():
        assert shipped[name] == value
    assert model_config(str(checkpoint_path("early"))).hidden_size == 64


def test_presets_are_options_of_train() -> None:
    command = cast(Any, typer.main.get_command(app)).commands["train"]
    options = {parameter.name for parameter in command.params}
    for name, preset in PRESETS.items():
        assert set(preset.options) <= options, name
