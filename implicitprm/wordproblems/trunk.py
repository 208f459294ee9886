"""Train the last layers of a model on a CPU: the frozen layers below them are run once per text.

Without gradients below it, the lower part of a model is a function of the text alone. Its output is
kept, so that every further epoch, seed, β and reference pass costs only the layers above it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from implicitprm.rewards import token_rewards
from implicitprm.training import ImplicitPRMTrainer, train_last_layers
from implicitprm.trunk import trunk_pass


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

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **kwargs: Any) -> Any:
        """The decoder's output for texts padded on the right, (B, T)."""
        lengths = attention_mask.sum(1).tolist()
        texts = [
            tuple(row[:length]) for row, length in zip(input_ids.tolist(), lengths, strict=True)
        ]
        # A scorer leaves out the last token of the longest text, a trainer does not: of a batch
        # some texts may be known.
        new = [row for row, text in enumerate(texts) if text not in self._states]
        if new:
            self._remember([texts[row] for row in new], input_ids[new], attention_mask[new])
        states = pad_sequence([self._states[text] for text in texts], batch_first=True)  # (B, T, h)
        kwargs = kwargs | {"inputs_embeds": states, "use_cache": False}
        return self.top(attention_mask=attention_mask[:, : states.shape[1]], **kwargs)

    @torch.no_grad()
    def _remember(
        self, texts: list[tuple[int, ...]], input_ids: Tensor, attention_mask: Tensor
    ) -> None:
        below = self._precision != torch.float32
        with torch.autocast(input_ids.device.type, self._precision, enabled=below):
            states = self._trunk[0](
                input_ids=input_ids, attention_mask=attention_mask, use_cache=False
            ).last_hidden_state
        for text, row in zip(texts, states, strict=True):
            self._states[text] = row[: len(text)].clone()


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


class ResponseLogitsTrainer(ImplicitPRMTrainer):
    """Computes logits where a response token is predicted, and nowhere else; for one process.

    Of a small model with a large vocabulary they are most of the work above a memoised trunk.
    """

    def _rewards(self, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        ids, attention = inputs["input_ids"], inputs["attention_mask"]
        states = trunk_pass(model, input_ids=ids, attention_mask=attention, use_cache=False)
        if states is None:
            return super()._rewards(model, inputs)
        predicted = inputs["response_mask"][:, 1:]  # (B, T-1)
        logits = states.logits(states.hidden[:, :-1][predicted])  # (M, V)
        logps = torch.zeros(predicted.shape, device=ids.device).masked_scatter(
            predicted, -cross_entropy(logits.float(), ids[:, 1:][predicted], reduction="none")
        )
        return token_rewards(logps.sum(-1), inputs["ref_logps"], self._beta)
