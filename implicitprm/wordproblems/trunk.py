"""Train the last layers of a model on a CPU: the frozen layers below them are run once per text.

Without gradients below it, the lower part of a model is a function of the text alone. Its output is
kept, so that every further epoch, seed, β and reference pass costs only the layers above it.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel

from implicitprm.steps import EncodedSolution
from implicitprm.training import train_last_layers


class MemoisedTrunk(nn.Module):
    """A decoder of the Llama family that remembers the states (T, h) below its last ``layers``.

    The parameters are those of the layers above, and of the last norm. States are float32 or the
    model's own precision, on the model's device: 4·h bytes a token. The layers below run under
    autocast to ``precision``.
    """

    def __init__(self, decoder: Any, layers: int, precision: torch.dtype):
        super().__init__()
        self._precision = precision
        self.top = _part(decoder, decoder.layers[-layers:], decoder.norm)
        # In a list, so that no module: an optimiser, a copy or a save does not see it.
        self._trunk = [_part(decoder, decoder.layers[:-layers], nn.Identity())]
        self._states: dict[tuple[int, ...], Tensor] = {}

    def get_decoder(self) -> MemoisedTrunk:
        """Itself: by this a model hands over its hidden states without their logits."""
        return self

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> Any:
        """The decoder's output for texts padded on the right, (B, T)."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        lengths = attention_mask.sum(1).tolist()
        texts = [
            tuple(row[:length]) for row, length in zip(input_ids.tolist(), lengths, strict=True)
        ]
        if any(text not in self._states for text in texts):
            self._remember(texts, input_ids, attention_mask)
        known = pad_sequence([self._states[text] for text in texts], batch_first=True)
        # A part of a batch may have more padding than its longest text needs.
        states = pad(known, (0, 0, 0, input_ids.shape[1] - known.shape[1]))  # (B, T, h)
        kwargs = kwargs | {"inputs_embeds": states, "use_cache": False, "past_key_values": None}
        return self.top(attention_mask=attention_mask, **kwargs)

    @torch.no_grad()
    def _remember(
        self, texts: list[tuple[int, ...]], input_ids: Tensor, attention_mask: Tensor
    ) -> None:
        states = self._below(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        for text, row in zip(texts, states, strict=True):
            self._states[text] = row[: len(text)].clone()

    def _below(self, **inputs: Any) -> Tensor:
        """The states (B, T, h) after the frozen layers."""
        device = inputs["input_ids"].device.type
        half = self._precision != torch.float32
        with torch.autocast(device, self._precision, enabled=half):
            return self._trunk[0](**inputs).last_hidden_state

    @torch.no_grad()
    def remember(self, solutions: Iterable[EncodedSolution], device: torch.device) -> None:
        """Run the frozen layers over solutions that are not known yet; a prompt is read once."""
        by_prompt: dict[tuple[int, ...], list[tuple[int, ...]]] = defaultdict(list)
        for solution in solutions:
            if solution.input_ids not in self._states:
                ids, start = solution.input_ids, solution.response_start
                by_prompt[ids[:start]].append(ids[start:])
        for prompt, responses in by_prompt.items():
            padded = pad_sequence([torch.tensor(r) for r in responses], batch_first=True)
            cache = DynamicCache()
            read = torch.tensor([prompt], device=device)
            before = self._below(input_ids=read, past_key_values=cache)[0]  # (P, h)
            cache.batch_repeat_interleave(len(responses))
            # Padding stands on the right, where no token of the text sees it.
            after = self._below(input_ids=padded.to(device), past_key_values=cache)  # (B, R, h)
            for response, row in zip(responses, after, strict=True):
                states = torch.cat([before, row[: len(response)]])
                self._states[prompt + response] = states
                # A text is scored without its last token, which predicts nothing.
                self._states[prompt + response[:-1]] = states[:-1]


def _part(decoder: Any, layers: nn.ModuleList, norm: nn.Module) -> Any:
    """A decoder of some of the layers of another one, sharing their weights."""
    part = copy.copy(decoder)
    part._modules = dict(decoder._modules)
    part.layers, part.norm = layers, norm
    return part


def memoise_trunk(
    model: PreTrainedModel, layers: int, precision: torch.dtype = torch.float32
) -> None:
    """Freeze all but the last ``layers`` decoder layers, and run what is below once per text.

    The model can then be trained and scored as before, but not saved, and it cannot sample: there
    is no key-value cache. ``precision`` torch.bfloat16 halves the time of the layers below on a CPU
    that has it, for policy and reference alike. Raises ValueError for an impossible number of
    layers.
    """
    train_last_layers(model, layers)
    decoder: Any = model.base_model
    setattr(model, model.base_model_prefix, MemoisedTrunk(decoder, layers, precision))
