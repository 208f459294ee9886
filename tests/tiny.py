"""What several test files build: a random Llama for the arithmetic tokenizer, and problems."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from implicitprm.arithmetic import Problem, sample_problem
from implicitprm.arithmetic.reasoner import build_reasoner


def tiny_llama(seed: int, scale: float = 4.0) -> LlamaForCausalLM:
    """An untrained reasoner whose weights are ``scale`` times as large as at initialisation.

    At their usual size every next-token distribution is close to uniform, and a test that
    confuses two tokens or two rows would hardly see it.
    """
    torch.manual_seed(seed)
    model = build_reasoner()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.mul_(scale)
    return model.eval()


def problems(count: int, seed: int = 0) -> list[Problem]:
    rng = np.random.default_rng(seed)
    return [sample_problem(rng) for _ in range(count)]


class CountedHead(nn.Module):
    """An output embedding that counts the rows whose logits it makes."""

    def __init__(self, head: nn.Module):
        super().__init__()
        self.head, self.rows = head, 0

    def forward(self, hidden: Tensor) -> Tensor:
        self.rows += hidden[..., 0].numel()
        made: Tensor = self.head(hidden)
        return made
