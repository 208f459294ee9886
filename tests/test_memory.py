"""implicitprm.memory: parameters counted exactly, peaks within a stated factor, the refusal."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from live_memory import LiveMemory
from rich.console import Console
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from implicitprm import devices
from implicitprm.devices import device_memory
from implicitprm.logprobs import response_logps
from implicitprm.memory import (
    GIB,
    Load,
    check_memory,
    expected_memory,
    memory_table,
    totals,
)
from implicitprm.presets import PRESETS
from implicitprm.training import train_last_layers, with_lora

ARCHITECTURE: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "tie_word_embeddings": True,
}
#: How far an estimated peak may be from a measured one, either way.
FACTOR = 2.0


def config_of(**changes: Any) -> PretrainedConfig:
    return AutoConfig.for_model(**(ARCHITECTURE | changes))


def model_of(config: PretrainedConfig, load: Load) -> Any:
    """A model that is ready to be trained as ``load`` says."""
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    if load.last_layers:
        train_last_layers(model, load.last_layers)
    if load.lora_rank:
        model = with_lora(model, load.lora_rank)
        model.enable_input_require_grads()  # as the Trainer does, for checkpointing
    if load.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    return model.train()


def measured_peak(config: PretrainedConfig, load: Load) -> int:
    """Bytes beyond weights, gradients and optimiser at the peak of a forward and backward pass."""
    model = model_of(config, load)
    ids = torch.randint(config.vocab_size, (load.sequences, load.tokens))
    mask = torch.ones_like(ids)
    response = mask.bool()
    response[:, 0] = False
    for weight in model.parameters():
        if weight.requires_grad:
            weight.grad = torch.zeros_like(weight)
    with LiveMemory() as live:
        with torch.autocast("cpu", torch.bfloat16, enabled=load.bf16):
            rewards = response_logps(model, ids, mask, response).sum()
        rewards.backward()
    return live.peak


@pytest.mark.parametrize(
    "how",
    [{}, {"last_layers": 2}, {"lora_rank": 4}],
    ids=["full", "last layers", "LoRA"],
)
@pytest.mark.parametrize("tied", [True, False])
def test_weights_gradients_and_optimiser_are_counted_exactly(how: Any, tied: bool) -> None:
    config, load = config_of(tie_word_embeddings=tied), Load(2, 16, **how)
    model = model_of(config, load)
    optimiser = torch.optim.AdamW(w for w in model.parameters() if w.requires_grad)
    model(torch.zeros(1, 3, dtype=torch.long)).logits.sum().backward()
    optimiser.step()

    def held(tensors: Any) -> int:
        return sum(t.untyped_storage().nbytes() for t in tensors)

    moments = [
        value
        for state in optimiser.state.values()
        for name, value in state.items()
        if name != "step"  # one number
    ]
    parts = expected_memory(config, load)["training"]
    assert parts["weights"] == held(model.parameters())
    assert parts["gradients"] == held(w.grad for w in model.parameters() if w.grad is not None)
    assert parts["optimiser"] == held(moments)


def kept_for_backward(config: PretrainedConfig, load: Load) -> int:
    """Bytes that a forward pass saves for the backward one, weights and their copies left out."""
    model = model_of(config, load)
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    shapes = {weight.T.shape for weight in model.parameters() if weight.ndim == 2}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights and tensor.shape not in shapes:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.zeros(load.sequences, load.tokens, dtype=torch.long)
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=load.bf16),
    ):
        model(ids, use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("keys", [1, 2, 4])
def test_what_a_layer_keeps_is_counted_exactly(keys: int, bf16: bool) -> None:
    load = Load(3, 50, bf16=bf16)  # 50: the shape of no weight
    few, many = (
        config_of(hidden_size=96, num_key_value_heads=keys, num_hidden_layers=layers)
        for layers in (2, 5)
    )
    three = kept_for_backward(many, load) - kept_for_backward(few, load)
    expected = [expected_memory(config, load)["training"]["activations"] for config in (few, many)]
    assert three == expected[1] - expected[0]


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("how", [{}, {"last_layers": 2}, {"lora_rank": 4}])
@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "qwen2", "intermediate_size": 512, "num_hidden_layers": 4},
        {"num_hidden_layers": 2, "vocab_size": 5000},
        {"hidden_size": 128, "num_key_value_heads": 4},
    ],
    ids=["wide", "large vocabulary", "deep"],
)
def test_the_peak_of_a_training_step(
    changes: Any, how: Any, checkpointing: bool, bf16: bool
) -> None:
    config = config_of(**changes)
    load = Load(4, 96, gradient_checkpointing=checkpointing, bf16=bf16, **how)
    parts = expected_memory(config, load)["training"]
    expected = parts["activations"] + parts["logits"] + parts["weights in computation"]
    measured = measured_peak(config, load)
    assert measured / FACTOR <= expected <= FACTOR * measured


@pytest.mark.parametrize("bf16", [False, True])
def test_the_reference_pass(bf16: bool) -> None:
    config, load = config_of(vocab_size=3000), Load(4, 96, bf16=bf16)
    model = model_of(config, load)
    ids = torch.randint(config.vocab_size, (load.sequences, load.tokens))
    mask = torch.ones_like(ids)
    response = mask.bool()
    response[:, 0] = False
    with LiveMemory() as live, torch.no_grad(), torch.autocast("cpu", enabled=bf16):
        response_logps(model, ids, mask, response)
    parts = expected_memory(config, load)["reference pass"]
    expected = sum(parts.values()) - parts["weights"]
    assert live.peak / FACTOR <= expected <= FACTOR * live.peak


def test_the_reference_pass_holds_some_logits_at_a_time() -> None:
    def logits(sequences: int) -> int:
        load = Load(sequences, 1000)
        return expected_memory(config_of(), load)["reference pass"]["logits"]

    vocabulary = config_of().vocab_size
    assert logits(1) == 1000 * vocabulary * 8
    assert logits(10**6) == 2**25 * 8


def test_the_cache_is_what_a_rollout_holds() -> None:
    config, load = config_of(), Load(1, 20, rollouts=3)
    model = model_of(config, load)
    cache = model(torch.zeros(3, 20, dtype=torch.long), use_cache=True).past_key_values
    held = sum(t.nbytes for layer in cache.layers for t in (layer.keys, layer.values))
    assert expected_memory(config, load)["rollouts"]["key-value cache"] == held


# By hand: 8,030,261,248 parameters. A layer has 218,112,000 of them: q and o 4096², k and v
# 4096·1024, gate, up and down 4096·14336, two norms 4096. Outside: 2·128256·4096 + 4096.
def test_the_paper_s_model_by_hand() -> None:
    config = AutoConfig.for_model(**PRESETS["llama-3.1-8b"].architecture)
    load = Load(1, 8192, gradient_checkpointing=True, bf16=True, processes=8)
    parts = expected_memory(config, load)["training"]
    assert parts["weights"] == parts["gradients"] == 4 * 8_030_261_248 // 8
    assert parts["optimiser"] == 8_030_261_248
    layer, outside = 218_112_000, 2 * 128256 * 4096 + 4096
    assert 32 * layer + outside == 8_030_261_248
    assert parts["weights in computation"] == 2 * (2 * layer + outside)
    assert parts["logits"] == 8192 * 128256 * 16
    per_token = 16 * 4096 + 5 * 2 * 4096 + 2 * (2 * 4096 + 2 * 1024) + 4 * 2 * 14336 + 8 + 4 * 32
    assert parts["activations"] == 8192 * (2 * per_token + 32 * 4 * 4096)
    cache = expected_memory(config, load)["rollouts"]["key-value cache"]
    assert cache == 64 * 8192 * 32 * 2 * 1024 * 2


@settings(max_examples=25, deadline=None)
@given(
    sequences=st.integers(1, 8),
    tokens=st.integers(1, 500),
    bf16=st.booleans(),
    processes=st.integers(1, 8),
)
def test_what_saves_memory_and_what_costs_it(
    sequences: int, tokens: int, bf16: bool, processes: int
) -> None:
    config = config_of(num_hidden_layers=3)
    load = Load(sequences, tokens, bf16=bf16, processes=processes)

    def needs(**changes: Any) -> int:
        return totals(expected_memory(config, replace(load, **changes)))["training"]

    assert needs(tokens=tokens + 1) > needs()
    assert needs(sequences=sequences + 1) > needs()
    assert needs(last_layers=1) < needs()
    assert needs(lora_rank=1) < needs()
    assert needs(gradient_checkpointing=True) < needs()


def test_a_run_that_does_not_fit_is_refused_with_advice() -> None:
    config, load = config_of(), Load(8, 512)
    needed = max(totals(expected_memory(config, load))[p] for p in ("training", "reference pass"))
    check_memory(config, load, needed)
    with pytest.raises(ValueError, match="nothing was loaded") as raised:
        check_memory(config, load, needed - 1)
    message = str(raised.value)
    for advice in ("--micro-batch-size 1", "--gradient-checkpointing", "--lora-rank 16", "fsdp"):
        assert advice in message
    assert f"need {needed / GIB:.1f} GiB" in message
    with pytest.raises(ValueError, match="nothing was loaded") as raised:
        check_memory(config, Load(1, 512, gradient_checkpointing=True, last_layers=1), 1)
    for advice in ("--micro-batch-size", "--gradient-checkpointing", "--lora-rank"):
        assert advice not in str(raised.value)


def test_the_reference_pass_can_be_what_does_not_fit() -> None:
    """Under FSDP it holds the whole model, where training holds a share of it."""
    config = AutoConfig.for_model(**PRESETS["llama-3.1-8b"].architecture)
    load = Load(1, 512, gradient_checkpointing=True, bf16=True, processes=8)
    phases = totals(expected_memory(config, load))
    assert phases["training"] < phases["reference pass"]
    with pytest.raises(ValueError, match="nothing was loaded"):
        check_memory(config, load, phases["reference pass"] - 1)


def test_another_model_as_the_reference_lies_beside_the_policy() -> None:
    own, other = (expected_memory(config_of(), Load(1, 8, reference=r)) for r in (False, True))
    weights = own["reference pass"]["weights"]
    assert other["reference pass"] == {**own["reference pass"], "weights": 2 * weights}
    assert other["training"] == own["training"]


def test_processes_on_a_cpu_share_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    class State:
        device = torch.device("cpu")
        num_processes = 2

    free = type("Memory", (), {"available": 1000})
    monkeypatch.setattr("psutil.virtual_memory", lambda: free)
    monkeypatch.setattr(devices, "PartialState", lambda cpu: State())
    assert device_memory() == 500


def test_the_table_shows_every_part_and_its_sum() -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    config = AutoConfig.for_model(**PRESETS["qwen2.5-0.5b"].architecture)
    console.print(memory_table(config, Load(8, 1024, gradient_checkpointing=True, bf16=True)))
    text = console.export_text()
    # 494,032,768 parameters of 4 bytes; 8·1024·151936 logits of 16 bytes
    assert "1.84" in text
    assert f"{8 * 1024 * 151936 * 16 / GIB:.2f}" in text
    for part in ("gradients", "optimiser", "activations", "key-value cache", "sum"):
        assert part in text
