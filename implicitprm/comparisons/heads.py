"""Discriminative step scorers, each a small change to a causal language model.

A scorer reads a batch of solutions and gives every step one logit: after its last token, is the
solution right so far? Trained on labels of steps it is a process reward model; trained on the
outcome at every step it is an outcome reward model (arXiv 2110.14168) and AutoPSV's verifier.
:class:`LogRatio` is the implicit reward in the same form, so that labels can be exchanged and
nothing else.

Shapes: ``input_ids``, ``attention_mask`` and ``response_mask`` are (B, T); ``step_last`` (B, S) is
the position of each step's last token, repeated after the last step. ``forward`` of each returns
the logits of the steps (B, S); what a scorer does not read it is given all the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForTokenClassification, PreTrainedModel

from implicitprm.logprobs import response_logps, token_logps


def at_step_ends(values: Tensor, step_last: Tensor) -> Tensor:
    """The value of each step's last token: (B, T) → (B, S)."""
    return values.gather(1, step_last)


def step_sums(values: Tensor, step_last: Tensor) -> Tensor:
    """Sum of a value per token, 0 outside the response, over each step: (B, T) → (B, S)."""
    running = at_step_ends(values.cumsum(1), step_last)
    return running.diff(dim=1, prepend=torch.zeros_like(running[:, :1]))


class LinearHead(nn.Module):
    """transformers' token classification with one label: a linear map of the last hidden state.

    ``name`` is a hub id or a folder.
    """

    def __init__(self, name: str):
        super().__init__()
        self.model = AutoModelForTokenClassification.from_pretrained(name, num_labels=1)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, step_last: Tensor, **unused: Any
    ) -> Tensor:
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask).logits  # (B, T, 1)
        return at_step_ends(logits[..., 0], step_last)


class NextTokenHead(nn.Module):
    """log π(``+``) − log π(``−``) of the next token after a step, as Math-Shepherd's models say it.

    ``plus`` and ``minus`` are the ids of these two tokens.
    """

    def __init__(self, model: PreTrainedModel, plus: int, minus: int):
        super().__init__()
        self.model, self.plus, self.minus = model, plus, minus

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, step_last: Tensor, **unused: Any
    ) -> Tensor:
        logits = self.model(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False
        ).logits  # (B, T, V)
        return at_step_ends(logits[..., self.plus] - logits[..., self.minus], step_last)


class ConfidenceHead(nn.Module):
    """A linear map of the hidden state and of the trunk's own log-probabilities.

    After a step it sees log π(step), log π(all steps so far) and the last hidden state. How
    probable its own last token was is what the hidden state need not hold: the state that predicted
    the token is one position to the left. The head starts as a judge by confidence alone, with
    logit 1 + log π(all steps so far). From random weights one trial ended far below (step AUROC
    .74 against 1.00, same labels and schedule).
    """

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model
        self.head = nn.Linear(model.config.hidden_size + 2, 1)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.weight[0, -1] = 1.0
            self.head.bias.fill_(1.0)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        response_mask: Tensor,
        step_last: Tensor,
        **unused: Any,
    ) -> Tensor:
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            use_cache=False,
            output_hidden_states=True,
        )
        logps = token_logps(output.logits, input_ids, response_mask)  # (B, T)
        of_step = step_sums(logps, step_last)  # (B, S)
        index = step_last[..., None].expand(-1, -1, output.hidden_states[-1].shape[-1])
        states = output.hidden_states[-1].gather(1, index)  # (B, S, H)
        features = torch.cat([states, of_step[..., None], of_step.cumsum(1)[..., None]], dim=-1)
        return self.head(features)[..., 0]


class LogRatio(nn.Module):
    """The implicit step reward β Σ (log π_θ − log π_ref) (arXiv 2412.01981), on step labels.

    ``ref_step_logps`` (B, S) are the reference's log-probabilities of the steps, in nats.
    """

    def __init__(self, policy: PreTrainedModel, beta: float):
        super().__init__()
        self.policy, self.beta = policy, beta

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        response_mask: Tensor,
        step_last: Tensor,
        ref_step_logps: Tensor,
    ) -> Tensor:
        logps = response_logps(self.policy, input_ids, attention_mask, response_mask)  # (B, T)
        return self.beta * (step_sums(logps, step_last) - ref_step_logps)
