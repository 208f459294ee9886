"""Tiny random models of several architectures, whose code differs around trunk, head and cache."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

VOCABULARY = 97
_SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
#: What each configuration says beside its vocabulary and its special tokens.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": _SHAPE,
    "qwen2": _SHAPE,
    "mixtral": _SHAPE,  # its trunk returns the routing as well
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},  # learned positions; another prefix
    "opt": {  # the trunk is a part of the base model
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
    # Windows shorter than the prompts of the tests; logits that are soft-capped.
    "gemma2": _SHAPE | {"head_dim": 8, "sliding_window": 6, "final_logit_softcapping": 2.0},
    "mistral": _SHAPE | {"sliding_window": 6},
    "cohere": _SHAPE | {"logit_scale": 0.25},
    "granite": _SHAPE | {"logits_scaling": 8.0, "embedding_multiplier": 12.0},
    # No keys and values to share.
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
}


def tiny_model(architecture: str, seed: int = 0) -> PreTrainedModel:
    """A random model with larger weights than at initialisation, see :func:`tiny.tiny_llama`."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        architecture,
        vocab_size=VOCABULARY,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        **ARCHITECTURES[architecture],
    )
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model.eval()
