"""A causal language model in two parts: the hidden states of a text, and the logits of some.

The logits of a text are its largest tensor by far: those of 4,096 tokens at a vocabulary of 150,000
take 2.5 GB in float32, and a log-softmax as much again. To score a text they are needed only where
a response token is predicted, and of a few positions at a time.

What stands between hidden states and logits is the model's own code, whatever it is (an output
embedding, soft-capping, scaling): it is run on the hidden states that are handed to it, in the
place of those that the trunk would compute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.utils.generic import ModelOutput


@dataclass(frozen=True)
class TrunkPass:
    """What the trunk of ``model`` made of a batch."""

    model: PreTrainedModel
    trunk: nn.Module
    output: ModelOutput

    @property
    def hidden(self) -> Tensor:
        """The hidden states from which the logits are computed; (B, T, H)."""
        return self.output["last_hidden_state"]

    def logits(self, hidden: Tensor) -> Tensor:
        """The model's logits (M, V) of some of the hidden states (M, H)."""
        # Any token will do: the trunk is not run.
        anything = torch.zeros(1, 1, dtype=torch.long, device=hidden.device)
        with _answering(self.trunk, _with_hidden(self.output, hidden[None])):
            return self.model(input_ids=anything, use_cache=False).logits[0]


def trunk_pass(model: PreTrainedModel, **inputs: Any) -> TrunkPass | None:
    """Run the trunk of ``model``; ``inputs`` are those of the model's forward pass.

    None where the model's code does not hand the hidden states of a trunk to what makes the logits:
    such a model has to be used as a whole.
    """
    trunk = _trunk(model)
    if trunk is None:
        return None
    # No logits but those of the last token.
    with _changing(trunk, lambda hidden: hidden[:, -1:]) as outputs:
        model(**inputs)
    return TrunkPass(model, trunk, outputs[0]) if outputs else None


def logits_where(model: Any, positions: Tensor, **inputs: Any) -> Tensor:
    """The model's logits (M, V) at ``positions`` (B, T), bool, of a batch, with gradients.

    One forward pass, whatever wraps the model for training; the other logits are not computed,
    unless the model's code hands no hidden states to what makes them.
    """
    # DataParallel runs copies of the trunk, each on a part of the batch.
    trunk = None if isinstance(model, nn.DataParallel) else _trunk(model)
    if trunk is None:
        return model(**inputs).logits[positions]
    with _changing(trunk, lambda hidden: hidden[positions][None]) as outputs:  # (1, M, H)
        logits = model(**inputs).logits
    return logits[0] if outputs else logits[positions]


def read_prefix(model: PreTrainedModel, input_ids: Sequence[int]) -> DynamicCache | None:
    """Keys and values of a text with which several others begin; one row.

    None where a model keeps something else (a state-space model does) or ignores the cache.
    """
    cache = DynamicCache(config=model.config)
    if not {type(layer) for layer in cache.layers} <= {DynamicLayer, DynamicSlidingWindowLayer}:
        return None
    ids = torch.tensor([input_ids], device=model.device)
    states = trunk_pass(model, input_ids=ids, past_key_values=cache, use_cache=True)
    return cache if states and cache.get_seq_length() == len(input_ids) else None


def follow_prefix(
    model: PreTrainedModel, prefix: DynamicCache, input_ids: Tensor, attention_mask: Tensor
) -> TrunkPass | None:
    """:func:`trunk_pass` of texts (B, T) that all go on after ``prefix``, which stays as it is."""
    cache = deepcopy(prefix)
    cache.batch_repeat_interleave(len(input_ids))
    before = attention_mask.new_ones(len(input_ids), prefix.get_seq_length())
    return trunk_pass(
        model,
        input_ids=input_ids,
        attention_mask=torch.cat([before, attention_mask], dim=1),
        past_key_values=cache,
        use_cache=True,
    )


def _trunk(model: PreTrainedModel) -> nn.Module | None:
    # An adapter of peft wraps a causal language model, whose layers it has changed in place.
    wrapper: Any = extract_model_from_parallel(model)
    inner = wrapper.get_base_model() if hasattr(wrapper, "get_base_model") else wrapper
    trunk = inner.get_decoder()
    return None if trunk is inner else trunk


def _with_hidden(output: ModelOutput, hidden: Tensor) -> ModelOutput:
    return type(output)(**{**output, "last_hidden_state": hidden})


@contextmanager
def _changing(trunk: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[list[ModelOutput]]:
    """The hidden states that ``trunk`` hands on are changed; the list gets its own outputs."""
    outputs: list[ModelOutput] = []

    def changed(module: nn.Module, arguments: Any, output: ModelOutput) -> ModelOutput:
        outputs.append(output)
        return _with_hidden(output, change(output["last_hidden_state"]))

    hook = trunk.register_forward_hook(changed)
    try:
        yield outputs
    finally:
        hook.remove()


@contextmanager
def _answering(trunk: nn.Module, output: ModelOutput) -> Iterator[None]:
    """``trunk`` answers every call with ``output``."""
    before = trunk.__dict__.get("forward")  # there if a library has put its own in place
    trunk.forward = lambda *arguments, **named: output
    try:
        yield
    finally:
        del trunk.forward
        if before is not None:
            trunk.forward = before
