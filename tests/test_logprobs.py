"""implicitprm.logprobs: the shift, the mask, the precision, the errors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from architectures import ARCHITECTURES, VOCABULARY, tiny_model
from benchmarks.memory import peak_bytes
from tiny import CountedHead, problems, tiny_llama
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from implicitprm import logprobs, trunk
from implicitprm.arithmetic import ARITHMETIC_FORMAT
from implicitprm.arithmetic.tokenizer import build_tokenizer
from implicitprm.logprobs import check_length, collate, response_logps, score_logps, token_logps
from implicitprm.steps import EncodedSolution, Solution, encode


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return tiny_llama(0)


@pytest.fixture(scope="module")
def solutions() -> list[EncodedSolution]:
    tokenizer = build_tokenizer()
    return [
        encode(tokenizer, Solution(problem.prompt, tuple(problem.steps)), ARITHMETIC_FORMAT)
        for problem in problems(7)
    ]


def random_batch(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(3, 6, 11, generator=generator, dtype=torch.float64)
    input_ids = torch.randint(11, (3, 6), generator=generator)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 0, 0], [0, 1, 0, 1, 1, 0]]).bool()
    return logits.to(dtype), input_ids, mask


def by_loops(logits: Tensor, input_ids: Tensor, mask: Tensor) -> Tensor:
    """The definition, one token at a time, with plain Python numbers."""
    expected = torch.zeros(input_ids.shape, dtype=torch.float64)
    for row in range(len(input_ids)):
        for position in range(input_ids.shape[1]):
            if mask[row, position]:
                scores = logits[row, position - 1].tolist()
                total = math.log(sum(math.exp(score) for score in scores))
                expected[row, position] = scores[input_ids[row, position]] - total
    return expected


def test_hand_values() -> None:
    # Three tokens; the second is predicted with probability 1/4, the third with 1/2.
    logits = torch.tensor([[[0.0, math.log(2), 0.0], [math.log(2), 0.0, 0.0], [9.0, 9.0, 9.0]]])
    logps = token_logps(logits, torch.tensor([[1, 2, 0]]), torch.tensor([[False, True, True]]))
    torch.testing.assert_close(logps, torch.tensor([[0.0, math.log(1 / 4), math.log(1 / 2)]]))


def test_agrees_with_log_softmax_and_with_loops_in_float64() -> None:
    logits, input_ids, mask = random_batch()
    logps = token_logps(logits, input_ids, mask)
    assert logps.dtype == torch.float64
    shifted = logits[:, :-1].log_softmax(-1).gather(-1, input_ids[:, 1:, None]).squeeze(-1)
    trusted = torch.nn.functional.pad(shifted, (1, 0)).masked_fill(~mask, 0.0)
    torch.testing.assert_close(logps, trusted, rtol=0, atol=1e-12)
    torch.testing.assert_close(logps, by_loops(logits, input_ids, mask), rtol=0, atol=1e-12)


def test_many_logits_are_reduced_in_parts_that_are_put_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a CPU some rows at a time; the last part is smaller, and a row may be larger than one."""
    logits = torch.randn(1, 8, 11, dtype=torch.float64, requires_grad=True)
    ids, mask = torch.randint(0, 11, (1, 8)), torch.arange(8)[None] > 0
    expected = logits.log_softmax(-1)[0, :-1].gather(-1, ids[0, 1:, None])[:, 0]
    (gradient,) = torch.autograd.grad(expected.square().sum(), logits)
    for at_a_time, parts in ((33, 3), (5, 7), (1000, 1)):
        monkeypatch.setattr(logprobs, "LOGITS_IN_CACHE", at_a_time)
        reduced: list[int] = []
        monkeypatch.setattr(
            Tensor, "logsumexp",
            lambda some, dim, into=reduced: into.append(len(some)) or torch.logsumexp(some, dim),
        )  # fmt: skip
        found = token_logps(logits, ids, mask)[0, 1:]
        monkeypatch.undo()
        assert len(reduced) == parts
        assert sum(reduced) == 7
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(torch.autograd.grad(found.square().sum(), logits)[0], gradient)


def test_logits_predict_the_next_token_and_nothing_else() -> None:
    logits, input_ids, mask = random_batch()
    logits.requires_grad_(True)
    logps = token_logps(logits, input_ids, mask)
    for row, position in mask.nonzero().tolist():
        (gradient,) = torch.autograd.grad(logps[row, position], logits, retain_graph=True)
        used = gradient.abs().sum(-1).nonzero().tolist()  # the (row, position) that matter
        assert used == [[row, position - 1]]


def test_only_masked_positions_count() -> None:
    logits, input_ids, mask = random_batch()
    logps = token_logps(logits, input_ids, mask)
    assert (logps[~mask] == 0).all()
    assert (logps[mask] < 0).all()
    other = logits.clone()
    unused = ~torch.nn.functional.pad(mask[:, 1:], (0, 1))  # positions that predict no response
    other[unused] = torch.nan
    torch.testing.assert_close(token_logps(other, input_ids, mask), logps, rtol=0, atol=0)


def test_a_mask_over_the_prompt_only_gives_zeros() -> None:
    logits, input_ids, mask = random_batch()
    assert (token_logps(logits, input_ids, torch.zeros_like(mask)) == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_accumulated_in_float32(dtype: torch.dtype) -> None:
    logits, input_ids, mask = random_batch(dtype)
    logps = token_logps(logits, input_ids, mask)
    assert logps.dtype == torch.float32
    # What the rounded logits stand for, to float32; a half-precision sum would miss by 1e-3.
    exact = by_loops(logits.double(), input_ids, mask)
    torch.testing.assert_close(logps.double(), exact, rtol=0, atol=1e-5)


def test_float32_stays_float32() -> None:
    logits, input_ids, mask = random_batch(torch.float32)
    assert token_logps(logits, input_ids, mask).dtype == torch.float32


def test_gradient_against_finite_differences() -> None:
    logits, input_ids, mask = random_batch()
    logits.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: token_logps(x, input_ids, mask), (logits,))
    assert not token_logps(logits.detach(), input_ids, mask).requires_grad


@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
def test_broken_logits_name_the_row(broken: float) -> None:
    logits, input_ids, mask = random_batch(torch.float32)
    row, position = 2, 4
    logits[row, position - 1, input_ids[row, position]] = broken
    with pytest.raises(ValueError, match=r"row 2 of the batch .* NaN or infinite"):
        token_logps(logits, input_ids, mask)


def test_an_excluded_token_that_does_not_occur_is_no_error() -> None:
    logits, input_ids, mask = random_batch(torch.float32)
    logits[1, 1, (input_ids[1, 2] + 1) % 11] = -torch.inf
    assert torch.isfinite(token_logps(logits, input_ids, mask)).all()


def test_position_0_is_an_error() -> None:
    logits, input_ids, mask = random_batch()
    mask[2, 0] = True
    with pytest.raises(ValueError, match="position 0 has no token before it"):
        token_logps(logits, input_ids, mask)


def test_collate() -> None:
    batch = collate([[5, 6, 7], [8, 9]], [1, 1], pad_token_id=3)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["response_mask"].tolist() == [[False, True, True], [False, True, False]]
    assert collate([[5, 6], [8]], [1, 1], pad_token_id=None)["input_ids"].tolist() == [
        [5, 6],
        [8, 0],
    ]


def logps_of(
    model: LlamaForCausalLM, solutions: list[EncodedSolution], pad: int, columns: int = 0
) -> list[Tensor]:
    """Scores of one batch, with so many columns of padding more than it needs."""
    longest = max(len(solution.input_ids) for solution in solutions)
    batch = collate(
        [solution.input_ids for solution in solutions] + [(pad,) * (longest + columns)],
        [solution.response_start for solution in solutions] + [1],
        pad,
    )
    with torch.inference_mode():
        logps = response_logps(model, **batch)
    return [row[mask] for row, mask in zip(logps, batch["response_mask"], strict=True)][:-1]


def test_padding_neighbours_and_batch_size_do_not_matter(
    model: LlamaForCausalLM, solutions: list[EncodedSolution]
) -> None:
    assert len({len(solution.input_ids) for solution in solutions}) > 2
    alone = [logps_of(model, [solution], 0)[0] for solution in solutions]
    for pad, columns in [(0, 0), (0, 30), (17, 5)]:
        together = logps_of(model, solutions, pad, columns)
        for one, other in zip(alone, together, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    for batch_size in (1, 2, len(solutions)):
        scored = score_logps(model, solutions, 0, batch_size, "test")
        for one, other in zip(alone, scored, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_a_batch_of_one_without_padding(
    model: LlamaForCausalLM, solutions: list[EncodedSolution]
) -> None:
    (solution,) = solutions[:1]
    ids = torch.tensor([solution.input_ids])
    with torch.inference_mode():
        expected = model(ids).logits[0].log_softmax(-1)
    by_hand = [
        float(expected[position - 1, token])
        for position, token in enumerate(solution.input_ids)
        if position >= solution.response_start
    ]
    (scored,) = score_logps(model, [solution], None, 1, "test")
    assert scored.shape == (len(solution.tokens),)
    assert scored.tolist() == pytest.approx(by_hand, abs=1e-6)


def test_no_solutions_give_no_scores(model: LlamaForCausalLM) -> None:
    assert score_logps(model, [], 0, 4, "test") == []


def test_gradients_flow_to_the_weights(
    model: LlamaForCausalLM, solutions: list[EncodedSolution]
) -> None:
    batch = collate([solutions[0].input_ids], [solutions[0].response_start], 0)
    response_logps(model, **batch).sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert float(weight.grad.abs().sum()) > 0, name
    model.zero_grad()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of this process."""
    where = f"file://{tmp_path / 'group'}"
    dist.init_process_group("gloo", init_method=where, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("wrap", [lambda model: model, DistributedDataParallel, nn.DataParallel])
def test_training_makes_logits_of_response_tokens_only(
    solutions: list[EncodedSolution], wrap: Any
) -> None:
    """Values and gradients are those of all logits, also in what wraps a model for training."""
    model = tiny_llama(0)
    batch = collate(
        [s.input_ids for s in solutions], [s.response_start for s in solutions], pad_token_id=0
    )
    read = {name: batch[name] for name in ("input_ids", "attention_mask")}
    expected = token_logps(model(**read).logits, batch["input_ids"], batch["response_mask"])
    wanted = torch.autograd.grad(expected.square().sum(), list(model.parameters()))
    model.lm_head = counted = CountedHead(model.lm_head)
    found = response_logps(wrap(model), **batch)
    found.square().sum().backward()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    for weight, gradient in zip(model.parameters(), wanted, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-4, atol=1e-4)
    # Copies of a model on several devices make them all.
    every = wrap is nn.DataParallel
    made = batch["input_ids"] if every else batch["input_ids"][batch["response_mask"]]
    assert counted.rows == made.numel()


def test_half_precision_models_give_float32(solutions: list[EncodedSolution]) -> None:
    half = tiny_llama(0).bfloat16()
    (scored,) = score_logps(half, solutions[:1], 0, 1, "test")
    assert scored.dtype == torch.float32


def test_a_solution_longer_than_the_context(model: LlamaForCausalLM) -> None:
    solution = EncodedSolution(tuple(range(129)), 40, (89,), ("x",) * 89)
    with pytest.raises(ValueError, match=r"row 7 has 129 tokens \(40 of them prompt\).* is 128"):
        check_length(solution, model, "row 7")
    check_length(EncodedSolution(tuple(range(128)), 40, (88,), ("x",) * 88), model, "row 7")


# --- scoring: some logits at a time, prompts read once -------------------------------------------


def candidates() -> list[EncodedSolution]:
    """Four candidates each of two prompts of 21 and 22 tokens, and one each of five short ones."""
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, VOCABULARY, (count,), generator=generator).tolist())

    prompts = [tokens(21), tokens(22)] * 4 + [tokens(length) for length in (3, 4, 5, 6, 7)]
    solutions = []
    for number, prompt in enumerate(prompts):
        response = tokens(1 + 3 * (number // 2) % 11)
        ends, texts = (len(response),), ("x",) * len(response)
        solutions.append(EncodedSolution(prompt + response, len(prompt), ends, texts))
    return solutions


def one_at_a_time(model: PreTrainedModel, solutions: list[EncodedSolution]) -> list[Tensor]:
    """Each solution by itself, through the log-softmax of all its logits."""
    scored = []
    for solution in solutions:
        ids = torch.tensor([solution.input_ids])
        with torch.inference_mode():
            table = model(input_ids=ids, use_cache=False).logits[0, :-1].log_softmax(-1)
        by_token = table.gather(-1, ids[0, 1:, None]).squeeze(-1)
        scored.append(by_token[solution.response_start - 1 :])
    return scored


@pytest.fixture
def prefixes_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of the prompts that were read once for several solutions."""
    lengths = []

    def counted(model: PreTrainedModel, input_ids: Any) -> Any:
        lengths.append(len(input_ids))
        return read_prefix(model, input_ids)

    read_prefix = trunk.read_prefix
    monkeypatch.setattr(logprobs, "read_prefix", counted)
    return lengths


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("worth", [1, 10**6])
@pytest.mark.parametrize("logits", [3 * VOCABULARY, 10**6])
def test_every_architecture_scores_as_by_hand(
    architecture: str,
    worth: int,
    logits: int,
    prefixes_read: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Prompts shared or not, logits in parts or not: the same to 1e-5."""
    monkeypatch.setattr(logprobs, "TOKENS_WORTH_SHARING", worth)
    monkeypatch.setattr(logprobs, "LOGITS_AT_A_TIME", logits)
    model, solutions = tiny_model(architecture), candidates()
    # Mamba itself differs by 1e-4 between a text with and without padding.
    tolerance = 1e-3 if architecture == "mamba" else 1e-5
    scored = score_logps(model, solutions, 0, 3, "test")
    expected = one_at_a_time(model, solutions)
    for one, other in zip(scored, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance)
    assert max(float(values.max() - values.min()) for values in expected) > 0.05
    assert prefixes_read == ([20, 21] if worth == 1 else [])  # each once, for two batches


def test_equal_models_score_alike_after_a_shared_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "TOKENS_WORTH_SHARING", 1)
    scored, again = (score_logps(tiny_model("qwen2"), candidates(), 0, 3, "test") for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(scored, again, strict=True))


@pytest.mark.parametrize(
    ("prompt", "count", "shared"), [(65, 9, True), (64, 9, True), (64, 8, False), (1, 600, False)]
)
def test_a_prompt_is_shared_where_that_saves_512_tokens(
    prompt: int, count: int, shared: bool, prefixes_read: list[int]
) -> None:
    solution = EncodedSolution(tuple(range(3, 4 + prompt)), prompt, (1,), ("x",))
    score_logps(tiny_model("llama"), [solution] * count, 0, 300, "test")
    assert prefixes_read == ([prompt - 1] if shared else [])


def test_a_model_without_a_trunk_is_scored_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model, solutions = tiny_model("llama"), candidates()
    expected = one_at_a_time(model, solutions)
    monkeypatch.setattr(logprobs, "TOKENS_WORTH_SHARING", 1)
    monkeypatch.setattr(LlamaForCausalLM, "get_decoder", lambda self: self)
    for one, other in zip(score_logps(model, solutions, 0, 3, "test"), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_broken_weights_name_the_row() -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.get_parameter("model.embed_tokens.weight")[7] = torch.nan
    ends, texts = (1,), ("x",)
    sound, broken = (EncodedSolution((3, token, 5), 2, ends, texts) for token in (4, 7))
    with pytest.raises(ValueError, match=r"row 1 of the batch .* NaN or infinite"):
        score_logps(model, [sound, broken], 0, 2, "test")


@pytest.mark.slow
def test_memory_of_scoring_at_a_large_vocabulary() -> None:
    """4,096 tokens, vocabulary 150,000: at least 4× below the full log-softmax, equal values."""
    torch.manual_seed(0)
    vocabulary, length, start = 150_000, 4096, 96
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=1, max_position_embeddings=length,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(50)  # so that probabilities are far from uniform
    ids = tuple(torch.randint(3, vocabulary, (length,)).tolist())
    texts = ("x",) * (length - start)
    solution = EncodedSolution(ids, start, (length - start,), texts)
    score_logps(model, [EncodedSolution(ids[:98], start, (2,), texts[:2])], 0, 1, "warm-up")
    ours, (scored,) = peak_bytes(lambda: score_logps(model, [solution], 0, 1, "test"))
    full, (expected,) = peak_bytes(lambda: one_at_a_time(model, [solution]))
    # A float32 log-softmax sums 150,000 terms less exactly than logsumexp does.
    torch.testing.assert_close(scored, expected, rtol=0, atol=1e-4)
    (exact,) = one_at_a_time(model.double(), [EncodedSolution(ids[:400], start, (304,), texts)])
    torch.testing.assert_close(scored[:304].double(), exact, rtol=0, atol=1e-5)
    assert float(expected.std()) > 1
    assert full > 4 * length * vocabulary  # the measurement sees the logits
    assert ours < full / 4, f"{ours / 2**20:.0f} MB against {full / 2**20:.0f} MB"
