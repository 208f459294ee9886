"""The reasoner: a Llama of 200,832 parameters that solves arithmetic problems step by step.

It is small enough to train on one CPU thread and is a real causal language model in every other
respect: it has a tokenizer, loads with ``from_pretrained``, and is sampled and scored by the same
code as a 7B model.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from implicitprm.arithmetic.tokenizer import build_tokenizer

#: The shipped generators. ``reasoner`` is the one whose rollouts train the PRM and which the PRM
#: starts from and refers to; ``early`` is a checkpoint of the same run; ``strong`` was trained
#: further on solutions with fewer errors; ``control`` comes from a tutor without misconceptions.
GENERATORS = ("early", "reasoner", "strong", "control")


def build_reasoner(tokenizer: PreTrainedTokenizerFast | None = None) -> LlamaForCausalLM:
    """An untrained reasoner; seed torch before the call."""
    tokenizer = tokenizer or build_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)


def checkpoint_path(generator: str = "reasoner") -> Path:
    """Folder of a shipped generator, to be given to ``from_pretrained``."""
    if generator not in GENERATORS:
        raise ValueError(f"no generator {generator!r}; there are {', '.join(GENERATORS)}")
    return Path(str(files("implicitprm.arithmetic"))) / "checkpoints" / generator
