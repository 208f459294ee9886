"""implicitprm.trunk: logits of chosen positions are the model's own; the model is left alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, VOCABULARY, tiny_model
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from implicitprm.trunk import follow_prefix, read_prefix, trunk_pass


@pytest.fixture(params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return tiny_model(request.param)


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(3, VOCABULARY, (2, 20), generator=torch.Generator().manual_seed(0))


def adapted(model: PreTrainedModel) -> Any:
    """A LoRA adapter that changes trunk and output embedding."""
    settings = LoraConfig(r=2, target_modules=["q_proj", "lm_head"], init_lora_weights=False)
    return get_peft_model(model, settings).eval()


def check_logits(model: Any, ids: Tensor) -> None:
    with torch.inference_mode():
        full = model(input_ids=ids).logits
        states = trunk_pass(model, input_ids=ids, use_cache=False)
        assert states is not None
        assert states.hidden.shape[:2] == ids.shape
        for rows in (slice(3, 9), slice(4, 5)):
            some = states.logits(states.hidden[1, rows])
            torch.testing.assert_close(some, full[1, rows], rtol=0, atol=1e-5)
        assert full.abs().max() > 0.1


def test_logits_of_some_positions_are_the_models_own(model: PreTrainedModel, ids: Tensor) -> None:
    check_logits(model, ids)


def test_an_adapter_of_peft_counts(ids: Tensor) -> None:
    plain = tiny_model("llama")(input_ids=ids).logits
    policy = adapted(tiny_model("llama"))
    assert (policy(input_ids=ids).logits - plain).abs().max() > 0.1
    check_logits(policy, ids)


def test_the_model_is_as_before(ids: Tensor) -> None:
    model = tiny_model("llama")
    trunk = model.get_decoder()
    expected = model(input_ids=ids).logits
    states = trunk_pass(model, input_ids=ids)
    assert states is not None
    states.logits(states.hidden[0])
    with pytest.raises(RuntimeError):
        states.logits(states.hidden[0, :, :3])  # too short
    with pytest.raises(IndexError):
        trunk_pass(model, input_ids=ids + VOCABULARY)
    assert "forward" not in trunk.__dict__
    assert not trunk._forward_hooks
    torch.testing.assert_close(model(input_ids=ids).logits, expected, rtol=0, atol=0)


def test_a_forward_that_a_library_has_put_in_place_stays(ids: Tensor) -> None:
    model = tiny_model("llama")
    trunk = model.get_decoder()
    before = trunk.forward
    trunk.forward = replaced = lambda *arguments, **named: before(*arguments, **named)
    check_logits(model, ids)
    assert trunk.forward is replaced


class Whole(nn.Module):
    """A causal language model without a trunk of its own, or with one that it does not call."""

    def __init__(self, inner: PreTrainedModel, has_trunk: bool):
        super().__init__()
        self.inner, self.config, self.device = inner, inner.config, inner.device
        self.idle = nn.Identity() if has_trunk else self

    def get_decoder(self) -> nn.Module:
        return self.idle

    def forward(self, **inputs: Any) -> Any:
        return self.inner(**inputs)


@pytest.mark.parametrize("has_trunk", [False, True])
def test_a_model_without_a_trunk_is_said_to_have_none(ids: Tensor, has_trunk: bool) -> None:
    model: Any = Whole(tiny_model("llama"), has_trunk)
    assert trunk_pass(model, input_ids=ids) is None
    assert read_prefix(model, ids[0].tolist()) is None


def test_texts_go_on_after_a_prefix(model: PreTrainedModel, ids: Tensor) -> None:
    """Three texts of unequal lengths that begin with the same 12 tokens."""
    prefix, lengths = ids[0, :12], (8, 3, 5)
    texts = torch.cat(
        [prefix.expand(3, -1), torch.stack([ids[0, 12:], ids[1, 12:], ids[1, :8]])], 1
    )
    attended = (torch.arange(8) < torch.tensor(lengths)[:, None]).long()
    with torch.inference_mode():
        cache = read_prefix(model, prefix.tolist())
        if model.config.model_type == "mamba":
            assert cache is None
            return
        assert isinstance(cache, DynamicCache)
        # Twice: the prefix is left as it is.
        for rows in (slice(0, 3), slice(1, 3)):
            states = follow_prefix(model, cache, texts[rows, 12:], attended[rows])
            assert states is not None
            for number, row in enumerate(range(3)[rows]):
                end = 12 + lengths[row]
                alone = trunk_pass(model, input_ids=texts[row : row + 1, :end], use_cache=False)
                assert alone is not None
                torch.testing.assert_close(
                    states.hidden[number, : lengths[row]], alone.hidden[0, 12:], rtol=0, atol=1e-4
                )
        assert cache.get_seq_length() == 12
