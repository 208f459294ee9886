"""Settings for a model, as plain data: ``implicitprm train --preset NAME``.

Any option that is given on the command line wins over the preset. ``miniature`` was tuned here,
``llama-3.1-8b`` is the paper's; the others are where to start, not what is best. All have the same
schedule: AdamW, a cosine after a warm-up of 3% of the updates, clipped at norm 1
(:class:`implicitprm.training.ImplicitPRMConfig`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from transformers import AutoConfig, PretrainedConfig

_WORLD = files("implicitprm") / "arithmetic"


@dataclass(frozen=True)
class Preset:
    """A training run.

    ``options`` are those of ``implicitprm train``, ``architecture`` the numbers of the model's
    public ``config.json`` that decide its size, and ``processes`` the number of GPUs it is meant
    for, which share weights, gradients and optimiser states (FSDP).
    """

    options: Mapping[str, Any]
    architecture: Mapping[str, Any]
    processes: int = 1


#: What the presets for language models have in common. Their data are rollouts on GSM8K that
#: ``implicitprm rollouts`` has sampled from the policy and graded.
_CHAT = {"data": "rollouts.jsonl", "objective": "ce", "chat": True, "gradient_checkpointing": True}

PRESETS: dict[str, Preset] = {
    # The arithmetic world; β and rate as chosen on its validation problems (start_here.json).
    "miniature": Preset(
        {
            "data": str(_WORLD / "data" / "reasoner-train.parquet"),
            "policy": str(_WORLD / "checkpoints" / "reasoner"),
            "objective": "ce",
            "chat": False,
            "beta": 1.0,
            "learning_rate": 1e-3,
            "epochs": 3.0,
            "batch_size": 64,
            "micro_batch_size": 64,
            "max_length": 128,
            "precision": "fp32",
        },
        {
            "model_type": "llama",
            "hidden_size": 64,
            "intermediate_size": 256,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "vocab_size": 59,
            "max_position_embeddings": 128,
            "tie_word_embeddings": True,
        },
    ),
    # Two CPU cores suffice: below the last six layers nothing is differentiated.
    "smollm2-135m": Preset(
        {
            "data": "example_model_solutions.jsonl",
            "converter": "gsm8k-model-solutions",
            "policy": "HuggingFaceTB/SmolLM2-135M-Instruct",
            "objective": "ce",
            "chat": True,
            "beta": 0.5,
            "learning_rate": 1e-4,
            "batch_size": 16,
            "micro_batch_size": 4,
            "max_length": 1024,
            "last_layers": 6,
            "precision": "fp32",
        },
        {
            "model_type": "llama",
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "vocab_size": 49152,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
        },
    ),
    "qwen2.5-0.5b": Preset(
        _CHAT
        | {
            "policy": "Qwen/Qwen2.5-0.5B-Instruct",
            "beta": 0.05,
            "learning_rate": 5e-6,
            "batch_size": 64,
            "micro_batch_size": 8,
            "max_length": 1024,
            "precision": "bf16",
        },
        {
            "model_type": "qwen2",
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "vocab_size": 151936,
            "max_position_embeddings": 32768,
            "tie_word_embeddings": True,
        },
    ),
    # An adapter, so that the optimiser's states fit beside the weights on a GPU of 24 GB.
    "qwen2.5-1.5b": Preset(
        _CHAT
        | {
            "policy": "Qwen/Qwen2.5-1.5B-Instruct",
            "beta": 0.05,
            "learning_rate": 5e-5,
            "batch_size": 64,
            "micro_batch_size": 4,
            "max_length": 1024,
            "lora_rank": 16,
            "precision": "bf16",
        },
        {
            "model_type": "qwen2",
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "vocab_size": 151936,
            "max_position_embeddings": 32768,
            "tie_word_embeddings": True,
        },
    ),
    # The paper's own setting (arXiv 2412.01981 §4.1).
    "llama-3.1-8b": Preset(
        _CHAT
        | {
            "data": "Windy0822/ultrainteract_math_rollout",
            "converter": "ultrainteract-rollouts",
            "policy": "meta-llama/Llama-3.1-8B-Instruct",
            "beta": 0.05,
            "learning_rate": 5e-7,
            "batch_size": 64,
            "micro_batch_size": 1,
            "max_length": 8192,
            "precision": "bf16",
        },
        {
            "model_type": "llama",
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 128256,
            "max_position_embeddings": 131072,
            "tie_word_embeddings": False,
        },
        processes=8,
    ),
}


def find_preset(name: str) -> Preset:
    """The preset of a name. Raises ValueError, which names those there are, for another."""
    if name not in PRESETS:
        raise ValueError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def model_config(policy: str) -> PretrainedConfig:
    """The configuration of a model: a preset's own data, so without a network; else loaded."""
    for preset in PRESETS.values():
        if preset.options["policy"] == policy:
            return AutoConfig.for_model(**preset.architecture)
    return AutoConfig.from_pretrained(policy)
