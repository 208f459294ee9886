"""The memory that a training run needs on each device, computed before anything is loaded.

Parameters are counted exactly, on a model without memory (torch's meta device). The rest follows
from the shapes, for decoders of the Llama family: S sequences of T tokens; hidden size h;
intermediate size f; queries q and keys k, each heads × head size; vocabulary V; c bytes a number in
the precision of computation, 2 under bf16 autocast and 4 otherwise.

========================  ==========================================================================
weights                   4 bytes a parameter: they are float32 whatever the autocast
gradients                 4 bytes a trained parameter
optimiser                 8 bytes a trained parameter: AdamW's two moments (arXiv 1910.02054, §3.1)
weights in computation    bf16 copies that autocast keeps; under FSDP two gathered layers, and the
                          embeddings
activations               a layer keeps S·T·(16h + (2 or 5)·c·h + c·(2q + 2k) + 4·c·f + 8 + 4·heads)
                          bytes for its backward pass: arXiv 2205.05198 (§4.1), counted for RMSNorm
                          in float32, grouped-query attention that stores no T × T matrix, and a
                          gated MLP; as much again for the gradients in one layer; with
                          checkpointing one layer in full, and the inputs, 4·S·T·h, of each
logits                    S·T·V·16: float32 logits and three gradients of their size; the peak of a
                          small model with a large vocabulary. Of response tokens only: T is all
                          of them here, at worst. Scoring makes at most LOGITS_AT_A_TIME, of 8 bytes
                          with their exponentials, and of 2 more under bf16
key-value cache           2·k·c bytes a layer and token (rollouts)
========================  ==========================================================================

Weights, gradients and optimiser states are divided by the number of processes that share them
(ZeRO stage 3, FSDP). The reference pass comes before FSDP has sharded the model; where
another model is the reference it lies beside the policy meanwhile. What is left out:
the CUDA context (about 0.5 GB), fragmentation, and the attention's own working space. What a
layer keeps is exact; peaks measured on small models are within a factor of 2 of the estimate,
either way (tests/test_memory.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from rich.table import Table
from transformers import AutoModelForCausalLM, PretrainedConfig

from implicitprm.logprobs import LOGITS_AT_A_TIME
from implicitprm.training import train_last_layers, with_lora

FLOAT32 = 4
GIB = 2**30
#: Phase of a run → what it needs → bytes on each device.
Memory = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Load:
    """What is put on a device: ``sequences`` of ``tokens`` in one forward pass, and how."""

    sequences: int
    tokens: int
    last_layers: int | None = None
    lora_rank: int | None = None
    gradient_checkpointing: bool = False
    bf16: bool = False
    processes: int = 1
    #: another model than the policy is the reference
    reference: bool = False
    #: sampled together, by ``implicitprm rollouts``
    rollouts: int = 64


@dataclass(frozen=True)
class _Parameters:
    every: int
    trained: int
    layer: int
    #: outside the layers: embeddings, last norm, output
    others: int


def expected_memory(config: PretrainedConfig, load: Load) -> Memory:
    """Bytes on each device in training, in the reference pass before it, and for rollouts.

    Raises ValueError where ``load`` trains an impossible number of layers.
    """
    count = _count(config, load)
    sharded = load.processes
    number = 2 if load.bf16 else FLOAT32  # bytes, in the precision of computation
    tokens = load.sequences * load.tokens
    logits = tokens * config.vocab_size
    layer = tokens * _bytes_per_token(config, number)
    weights = FLOAT32 * count.every
    copies = number * count.every if load.bf16 else 0
    return {
        "training": {
            "weights": weights // sharded,
            "gradients": FLOAT32 * count.trained // sharded,
            "optimiser": 2 * FLOAT32 * count.trained // sharded,
            "weights in computation": (
                copies if sharded == 1 else number * (2 * count.layer + count.others)
            ),
            "activations": _activations(config, load, layer),
            "logits": 4 * FLOAT32 * logits,
        },
        "reference pass": {
            "weights": weights * (2 if load.reference else 1),
            "weights in computation": copies,
            "activations": layer,
            # Scoring makes some at a time, of one token at least.
            "logits": max(config.vocab_size, min(logits, LOGITS_AT_A_TIME))
            * (2 * FLOAT32 + (number if load.bf16 else 0)),
        },
        "rollouts": {
            "weights": number * count.every,
            "key-value cache": load.rollouts * load.tokens * _cache_per_token(config, number),
            "logits": load.rollouts * config.vocab_size * (number + 8),
        },
    }


def totals(memory: Memory) -> dict[str, int]:
    """Bytes of each phase."""
    return {phase: sum(parts.values()) for phase, parts in memory.items()}


def check_memory(config: PretrainedConfig, load: Load, available: int) -> None:
    """Raise ValueError, with advice, where training needs more than ``available`` bytes."""
    phases = totals(expected_memory(config, load))
    needed = max(phases["training"], phases["reference pass"])
    if needed <= available:
        return
    parts = expected_memory(config, load)["training"]
    largest = max(parts, key=lambda part: parts[part])
    advice = [f"{text}: {_peak(config, other)}" for text, other in _smaller(load)]
    raise ValueError(
        f"training is expected to need {needed / GIB:.1f} GiB on each device "
        f"({largest} {parts[largest] / GIB:.1f}), and {available / GIB:.1f} GiB are free; "
        f"nothing was loaded. Expected instead with {'; '.join(advice)}. "
        "`implicitprm memory` shows the parts"
    )


def memory_table(config: PretrainedConfig, load: Load) -> Table:
    """The parts of each phase and their sums, in GiB on each device."""
    memory = expected_memory(config, load)
    table = Table(title=f"GiB expected on each of {load.processes} device(s)")
    table.add_column("")
    for phase in memory:
        table.add_column(phase, justify="right")
    for part in dict.fromkeys(part for parts in memory.values() for part in parts):
        cells = [f"{p[part] / GIB:.2f}" if part in p else "" for p in memory.values()]
        table.add_row(part, *cells)
    table.add_section()
    table.add_row("sum", *(f"{total / GIB:.2f}" for total in totals(memory).values()))
    return table


def _smaller(load: Load) -> Iterable[tuple[str, Load]]:
    if load.sequences > 2:
        yield "--micro-batch-size 1", replace(load, sequences=1)
    if not load.gradient_checkpointing:
        yield "--gradient-checkpointing", replace(load, gradient_checkpointing=True)
    if load.lora_rank is None and load.last_layers is None:
        yield "--lora-rank 16", replace(load, lora_rank=16)
    more = 8 * load.processes
    yield f"{more} processes (configs/fsdp.yaml)", replace(load, processes=more)


def _peak(config: PretrainedConfig, load: Load) -> str:
    phases = totals(expected_memory(config, load))
    return f"{max(phases['training'], phases['reference pass']) / GIB:.1f} GiB"


def _count(config: PretrainedConfig, load: Load) -> _Parameters:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        layers = model.base_model.layers
        layer, inside = _size(layers[0].parameters()), _size(layers.parameters())
        others = _size(model.parameters()) - inside
        if load.last_layers is not None:
            train_last_layers(model, load.last_layers)
        if load.lora_rank is not None:
            model = with_lora(model, load.lora_rank)
        trained = _size(weight for weight in model.parameters() if weight.requires_grad)
    return _Parameters(_size(model.parameters()), trained, layer, others)


def _size(weights: Iterable[torch.Tensor]) -> int:
    return sum(weight.numel() for weight in weights)


def _bytes_per_token(config: PretrainedConfig, number: int) -> int:
    """What one layer keeps of a token for its backward pass."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
    # Each RMSNorm keeps its input, its scale and its result in float32. The five linear maps that
    # read the results share one tensor, but for autocast, which makes a copy for each.
    norms = 4 * FLOAT32 * config.hidden_size + 2 * FLOAT32
    inputs = (2 if number == FLOAT32 else 5) * number * config.hidden_size
    # Queries, keys, values and the result; one normaliser a head.
    attention = number * (2 * queries + 2 * keys) + FLOAT32 * config.num_attention_heads
    return norms + inputs + attention + 4 * number * config.intermediate_size


def _activations(config: PretrainedConfig, load: Load, layer: int) -> int:
    layers = config.num_hidden_layers if load.last_layers is None else load.last_layers
    if not load.gradient_checkpointing:
        return (layers + 1) * layer
    return 2 * layer + layers * FLOAT32 * config.hidden_size * load.sequences * load.tokens


def _cache_per_token(config: PretrainedConfig, number: int) -> int:
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * number * config.num_hidden_layers * config.num_key_value_heads * head
