"""implicitprm.comparisons: labels against enumeration, AutoPSV and FLOPs by hand, the heads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logit
from tiny import tiny_llama
from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from torch import nn
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from implicitprm import ImplicitPRM, ImplicitPRMConfig
from implicitprm.arithmetic import ARITHMETIC_FORMAT, checkpoint_path, load_rollouts, values
from implicitprm.arithmetic.values import (
    VALUE_SETS,
    chosen_rows,
    grade,
    load_values,
    outcomes,
    values_path,
)
from implicitprm.comparisons.autopsv import autopsv_labels, relative_changes
from implicitprm.comparisons.compute import (
    Cost,
    autopsv_cost,
    autopsv_ratio,
    completion_factor,
    costs_of_even_steps,
    implicit_cost,
    math_shepherd_cost,
    math_shepherd_ratio,
    pair_ratio,
)
from implicitprm.comparisons.heads import (
    ConfidenceHead,
    LinearHead,
    LogRatio,
    NextTokenHead,
    step_sums,
)
from implicitprm.comparisons.math_shepherd import complete_prefixes, hard_labels, soft_labels
from implicitprm.comparisons.step_labels import StepLabelTrainer, score_steps
from implicitprm.losses import step_label_loss
from implicitprm.qvalues import Tokens, completions, language_of, with_min_p
from implicitprm.rewards import sum_by_step
from implicitprm.rollouts import Sampling
from implicitprm.steps import Prompt, Solution, SolutionFormat

# ---- Math-Shepherd against enumeration ------------------------------------------------------

WORDS = {"<pad>": 0, "a": 1, "b": 2, "\n": 3, "<eos>": 4}
LENGTH = 3
LINES = SolutionFormat(separator="\n")


def small_language() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """A random model of four words: what it can say in three tokens can be listed."""
    tokenizer = Tokenizer(WordLevel(WORDS, unk_token="<pad>"))
    tokenizer.pre_tokenizer = Split("", "isolated")
    tokenizer.decoder = Fuse()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        pad_token_id=0,
        bos_token_id=4,
        eos_token_id=4,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>"
    )
    return model.eval(), wrapped


def even(prompt: Prompt, steps: Sequence[str], finished: bool) -> bool:
    """Right: it came to an end, with an even number of b."""
    return finished and "".join(steps).count("b") % 2 == 0


def exact_value(model: LlamaForCausalLM, prompt_ids: list[int], prefix: str, min_p: float) -> float:
    """P(right | prefix) by listing every completion of at most LENGTH tokens."""
    language = with_min_p(language_of(model, prompt_ids, WORDS["<eos>"], LENGTH), min_p)
    names = {number: word for word, number in WORDS.items()}

    def is_right(tokens: Tokens) -> bool:
        text = "".join(names[token] for token in tokens if token not in (0, WORDS["<eos>"]))
        return tokens[-1] == WORDS["<eos>"] and (prefix + text).count("b") % 2 == 0

    sequences, logps = completions(language, ())
    return float(sum(np.exp(p) for y, p in zip(sequences, logps, strict=True) if is_right(y)))


MIN_P = 0.05


@pytest.fixture(scope="module")
def completed() -> list[tuple[float, np.ndarray]]:
    """The exact value and 3,000 completions of each prefix of two solutions."""
    model, tokenizer = small_language()
    solutions = [Solution("a\n", ("ab", "b", "a")), Solution("a\n", ("ab", "a", "ba"))]
    found = complete_prefixes(
        model,
        tokenizer,
        solutions,
        even,
        n=3000,
        sampling=Sampling(LENGTH, min_p=MIN_P),
        format=LINES,
        seed=0,
    )
    pairs = []
    for solution, completed_ in zip(solutions, found, strict=True):
        for end in (1, 2):
            prefix = "\n".join((*solution.steps[:end], ""))
            ids = tokenizer("a\n" + prefix, add_special_tokens=False).input_ids
            pairs.append((exact_value(model, ids, prefix, MIN_P), completed_.right[end - 1]))
    return pairs


def test_soft_labels_estimate_the_exact_value(completed: list[tuple[float, np.ndarray]]) -> None:
    exact = [value for value, _ in completed]
    assert max(exact) - min(exact) > 0.1  # the language tells prefixes apart
    for value, right in completed:
        (soft,) = soft_labels(right[None])
        assert abs(soft - value) < 4 * np.sqrt(value * (1 - value) / len(right)) + 1e-9


@pytest.mark.parametrize("k", [2, 4])
def test_hard_labels_estimate_one_of_k(completed: list[tuple[float, np.ndarray]], k: int) -> None:
    """E hard = 1 − (1 − Q)^K, not Q: the mean over many groups of K completions."""
    for value, right in completed:
        groups = hard_labels(right.reshape(-1, k))
        expected = 1 - (1 - value) ** k
        error = 4 * np.sqrt(expected * (1 - expected) / len(groups)) + 1e-9
        assert abs(groups.mean() - expected) < error


def test_a_shared_prefix_is_completed_once(completed: list[tuple[float, np.ndarray]]) -> None:
    (_, first), _, (_, again), _ = completed
    assert first is again or (first == again).all()


def test_the_end_of_a_solution_is_its_outcome() -> None:
    model, tokenizer = small_language()
    whole, cut = Solution("a\n", ("bb",)), Solution("a\n", ("b",), finished=False)
    finished, unfinished = complete_prefixes(
        model,
        tokenizer,
        [whole, cut],
        even,
        n=5,
        sampling=Sampling(LENGTH),
        format=LINES,
        seed=0,
    )
    assert finished.right.tolist() == [[True] * 5]
    assert finished.generated_tokens.tolist() == [0]
    assert unfinished.right.shape == (1, 5)
    assert 5 <= unfinished.generated_tokens[0] <= 5 * LENGTH


def test_labels_by_hand() -> None:
    right = [[True, False, False, True], [False] * 4, [True] * 4]
    assert soft_labels(right).tolist() == [0.5, 0.0, 1.0]
    assert hard_labels(right).tolist() == [True, False, True]


@pytest.mark.parametrize("right", [[True, False], np.zeros((3, 0)), [[0, 2]]])
def test_labels_need_completions(right: object) -> None:
    for labels in (soft_labels, hard_labels):
        with pytest.raises(ValueError, match="right must be"):
            labels(right)  # type: ignore[arg-type]


def test_no_completions_are_an_error() -> None:
    model, tokenizer = small_language()
    with pytest.raises(ValueError, match="at least one"):
        complete_prefixes(
            model, tokenizer, [], even, n=0, sampling=Sampling(1), format=LINES, seed=0
        )


# ---- The shipped values ---------------------------------------------------------------------


@pytest.mark.parametrize("name", list(VALUE_SETS))
def test_shipped_values_belong_to_the_shipped_rollouts(name: str) -> None:
    chosen = VALUE_SETS[name]
    rows, shipped = load_rollouts(chosen.world, chosen.split), load_values(name)
    assert shipped["row"] == chosen_rows(rows, chosen.problems, chosen.rows)
    for value in shipped:
        row = rows[value["row"]]
        right = outcomes(value["right"], chosen.completions)
        assert right.shape == (len(row["steps"]), chosen.completions)
        assert len(value["generated_tokens"]) == len(row["steps"])
        if row["finished"]:
            assert (right[-1] == row["label"]).all()
            assert value["generated_tokens"][-1] == 0


def test_shipped_values_can_be_drawn_again() -> None:
    """Other completions of the same prefixes give the same values, up to their noise."""
    rows = load_rollouts("reasoner", "test")
    stored = load_values("reasoner-test").select(range(8))
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_path())
    again = complete_prefixes(
        LlamaForCausalLM.from_pretrained(checkpoint_path()).eval(),
        tokenizer,
        [Solution(row["prompt"], tuple(row["steps"])) for row in rows.select(stored["row"])],
        grade,
        n=64,
        sampling=Sampling(48, min_p=0.05),
        format=ARITHMETIC_FORMAT,
        seed=7,
    )
    differences, lengths = [], []
    for value, ours in zip(stored, again, strict=True):
        theirs = outcomes(value["right"], 64)
        differences += (soft_labels(ours.right) - soft_labels(theirs)).tolist()
        lengths.append(ours.generated_tokens.sum() / sum(value["generated_tokens"]))
    assert abs(np.mean(differences)) < 0.03
    assert np.abs(differences).max() < 5 * np.sqrt(2 * 0.25 / 64)
    assert np.mean(lengths) == pytest.approx(1, abs=0.03)


def test_shipped_outcomes_are_draws_from_the_exact_values() -> None:
    rows, stored = load_rollouts("reasoner", "test"), load_values("reasoner-test").select(range(6))
    model = LlamaForCausalLM.from_pretrained(checkpoint_path()).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_path())
    found = []
    for value in stored:
        row, right = rows[value["row"]], outcomes(value["right"], 64)
        for end in range(1, len(row["steps"])):
            q = values.exact_value(model, tokenizer, row["prompt"], row["steps"][:end])
            error = 4 * np.sqrt(q * (1 - q) / 64) + 1e-9
            assert abs(right[end - 1].mean() - q) < error, (row["prompt"], row["steps"][:end])
            found.append(q)
    assert any(0.1 < q < 0.9 for q in found)


def test_outcomes_are_bits_lowest_first() -> None:
    assert outcomes([0b0110, 2**63], 4).tolist() == [[False, True, True, False], [False] * 4]
    assert outcomes([2**63], 64)[0].tolist() == [False] * 63 + [True]


def test_unknown_values_are_an_error() -> None:
    with pytest.raises(ValueError, match="no values 'x'"):
        values_path("x")


# ---- AutoPSV --------------------------------------------------------------------------------


def test_relative_changes_by_hand() -> None:
    changes = relative_changes([0.8, 0.2, 0.3], prior=0.4)
    assert changes == pytest.approx([1.0, -0.75, 0.5])


def test_autopsv_labels_by_hand() -> None:
    """0.8 → 0.2 loses three quarters: that step is wrong, and so are those after it."""
    assert autopsv_labels([0.8, 0.2, 0.9], prior=0.4).tolist() == [True, False, False]
    assert autopsv_labels([0.8, 0.41, 0.3], prior=0.4).tolist() == [True, True, True]
    assert autopsv_labels([0.1, 0.9], prior=0.4).tolist() == [False, False]
    # Exactly half is no loss of more than half.
    assert autopsv_labels([0.5, 0.25], prior=0.5).tolist() == [True, True]
    assert autopsv_labels([0.5, 0.25], prior=0.5, threshold=-0.4).tolist() == [True, False]


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=9), st.floats(0.01, 1))
def test_a_step_after_a_wrong_one_is_wrong(confidence: list[float], prior: float) -> None:
    labels = autopsv_labels(confidence, prior).tolist()
    assert labels == sorted(labels, reverse=True)


@pytest.mark.parametrize(
    ("confidence", "prior", "threshold", "message"),
    [
        ([], 0.5, -0.5, "S >= 1"),
        ([0.5, 1.2], 0.5, -0.5, "probabilities"),
        ([0.0, 0.5], 0.5, -0.5, "not 0 before"),
        ([0.5], 0.0, -0.5, "not 0 before"),
        ([0.5], 0.5, 0.5, "threshold"),
    ],
)
def test_autopsv_errors(
    confidence: list[float], prior: float, threshold: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        autopsv_labels(confidence, prior, threshold)


# ---- Compute --------------------------------------------------------------------------------


def test_flops_by_hand() -> None:
    """10 parameters: 5 written and 7 read tokens at 2·10 each, 3 trained ones at 6·10."""
    assert Cost(generated=5, read=7, trained=3).flops(10) == 12 * 20 + 3 * 60
    assert Cost(1, 2, 3) + Cost(10, 20, 30) == Cost(11, 22, 33)
    assert implicit_cost(100, 300).flops(1) == 2000
    assert math_shepherd_cost(1000, 200, 300).flops(1) == 2 * 1200 + 1800
    assert autopsv_cost(100, 300).flops(1) == 200 + 2 * 1800
    with pytest.raises(ValueError, match="negative"):
        Cost(read=-1)


def test_the_papers_ratios() -> None:
    """facts: 38.8 needs K·S·f ≈ 152; ten steps of eight rollouts give 20.75; AutoPSV 1.75."""
    assert completion_factor(38.8) == pytest.approx(152.2)
    assert math_shepherd_ratio(8, 10, 1) == 20.75
    assert math_shepherd_ratio(completion_factor(5.0), 1, 1) == pytest.approx(5.0)
    assert autopsv_ratio(1) == 1.75
    assert pair_ratio(2, 0.25) == 0.5  # one pair, two responses, of four labelled ones half mixed
    assert pair_ratio(8, 0.13) == pytest.approx(1.82)
    with pytest.raises(ValueError, match="cannot be"):
        pair_ratio(2, 0.3)


def test_flops_by_use_are_all_the_flops() -> None:
    cost = Cost(generated=3, read=5, trained=7)
    assert cost.flops_by_use(10) == {"writing": 60, "reading": 100, "training": 420}
    assert cost.flops(10) == 580


def test_costs_of_even_steps_by_hand() -> None:
    """Three steps of four tokens after a prompt of five, two completions of the first two."""
    ce, dear = costs_of_even_steps(steps=3, completions=2, tokens=12, prompt=5)
    assert ce == implicit_cost(17, 17)
    assert dear == Cost(generated=2 * (8 + 4), read=(5 + 4) + (5 + 8), trained=17)
    assert costs_of_even_steps(1, 2, 12, 5)[1] == Cost(trained=17)
    for steps, k in ((0, 1), (1, -1)):
        with pytest.raises(ValueError, match="cannot be"):
            costs_of_even_steps(steps, k, 12, 5)


def test_pair_ratio_against_enumeration() -> None:
    """Expected tokens of all pairs over those of all responses, by listing every outcome."""
    p, n = 0.3, 4
    pairs = sum(
        bin(outcome).count("1")
        * (n - bin(outcome).count("1"))
        * p ** bin(outcome).count("1")
        * (1 - p) ** (n - bin(outcome).count("1"))
        for outcome in range(2**n)
    )
    assert pair_ratio(n, p * (1 - p)) == pytest.approx(2 * pairs / n)


# ---- Heads ----------------------------------------------------------------------------------

SOLUTIONS = [
    Solution("7+5-3\n", ("7+5=12", "12-3=9", "#9")),
    Solution("7+5-3+1+2\n", ("7+5=12", "12-3=8", "8+1=9", "9+2=11", "#11"), finished=False),
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(checkpoint_path())


def step_logps(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> list[np.ndarray]:
    prm = ImplicitPRM(model, None, tokenizer, 1.0, ARITHMETIC_FORMAT)
    return [sum_by_step(s.policy_logps, s.step_ends) for s in prm.score_solutions(SOLUTIONS)]


def test_step_sums_by_hand() -> None:
    values = torch.tensor([[0.0, 1.0, 2.0, 4.0, 8.0], [0.0, 0.0, 3.0, 5.0, 0.0]])
    last = torch.tensor([[2, 3, 4], [2, 3, 3]])
    assert step_sums(values, last).tolist() == [[3.0, 4.0, 8.0], [3.0, 5.0, 0.0]]


def test_the_confidence_head_starts_as_confidence(tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny_llama(0)
    scores = score_steps(ConfidenceHead(model), SOLUTIONS, tokenizer, ARITHMETIC_FORMAT)
    for ours, logps in zip(scores, step_logps(model, tokenizer), strict=True):
        np.testing.assert_allclose(ours, 1 + logps.cumsum(), rtol=1e-4)


def test_the_confidence_head_sees_step_and_state(tokenizer: PreTrainedTokenizerFast) -> None:
    """Each feature alone: log π(step), and one unit of the last hidden state."""
    model = tiny_llama(0)
    head = ConfidenceHead(model)
    with torch.no_grad():
        head.head.weight.zero_()
        head.head.bias.zero_()
        head.head.weight[0, -2] = 1.0
    scores = score_steps(head, SOLUTIONS, tokenizer, ARITHMETIC_FORMAT)
    for ours, logps in zip(scores, step_logps(model, tokenizer), strict=True):
        np.testing.assert_allclose(ours, logps, rtol=1e-4)
    with torch.no_grad():
        head.head.weight.zero_()
        head.head.weight[0, 3] = 1.0
    scores = score_steps(head, SOLUTIONS[:1], tokenizer, ARITHMETIC_FORMAT)
    ids = tokenizer("7+5-3\n7+5=12\n", return_tensors="pt").input_ids
    with torch.no_grad():
        states = model(ids, output_hidden_states=True).hidden_states[-1]
    assert scores[0][0] == pytest.approx(float(states[0, -1, 3]), rel=1e-4)


def test_the_next_token_head_reads_two_words(tokenizer: PreTrainedTokenizerFast) -> None:
    model, words = tiny_llama(1), tokenizer.get_vocab()
    head = NextTokenHead(model, words["+"], words["-"])
    scores = score_steps(head, SOLUTIONS[:1], tokenizer, ARITHMETIC_FORMAT)
    ids = tokenizer("7+5-3\n7+5=12\n12-3=9\n", return_tensors="pt").input_ids
    with torch.no_grad():
        logps = model(ids).logits[0, -1].log_softmax(-1)
    assert scores[0][1] == pytest.approx(float(logps[words["+"]] - logps[words["-"]]), rel=1e-4)


def test_the_linear_head_is_token_classification(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = AutoModelForTokenClassification.from_pretrained(checkpoint_path(), num_labels=1)
    model.save_pretrained(tmp_path)
    scores = score_steps(LinearHead(str(tmp_path)), SOLUTIONS[:1], tokenizer, ARITHMETIC_FORMAT)
    ids = tokenizer("7+5-3\n7+5=12\n12-3=9\n", return_tensors="pt").input_ids
    with torch.no_grad():
        logits = model.eval()(ids).logits[0, :, 0]
    assert scores[0][1] == pytest.approx(float(logits[-1]), rel=1e-4)


def test_the_log_ratio_is_the_implicit_reward(tokenizer: PreTrainedTokenizerFast) -> None:
    policy, reference = tiny_llama(0), tiny_llama(1)
    prm = ImplicitPRM(policy, reference, tokenizer, 0.7, ARITHMETIC_FORMAT)
    dataset = stepwise([[1, 0, 0], [1, 0, 1, 1, 0]])
    dataset = dataset.add_column(
        "ref_step_logps", [logps.tolist() for logps in step_logps(reference, tokenizer)]
    )
    trainer = trainer_of(LogRatio(policy, 0.7), dataset, tokenizer)
    batch = trainer.data_collator(list(cast(Dataset, trainer.train_dataset)))
    mask = batch.pop("step_mask")
    for name in ("labels", "weights"):
        batch.pop(name)
    with torch.no_grad():
        scores = LogRatio(policy, 0.7)(**batch)
    for row, inside, scored in zip(scores, mask, prm.score_solutions(SOLUTIONS), strict=True):
        np.testing.assert_allclose(row[inside].numpy(), scored.step_rewards, atol=1e-4)


def test_neighbours_do_not_matter(tokenizer: PreTrainedTokenizerFast) -> None:
    head = ConfidenceHead(tiny_llama(0))
    together = score_steps(head, SOLUTIONS, tokenizer, ARITHMETIC_FORMAT, batch_size=2)
    alone = score_steps(head, SOLUTIONS, tokenizer, ARITHMETIC_FORMAT, batch_size=1)
    for ours, theirs in zip(together, alone, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


# ---- The Trainer ----------------------------------------------------------------------------


def stepwise(labels: Sequence[Sequence[float]], weights: Sequence[float] = (1, 1)) -> Dataset:
    return Dataset.from_dict(
        {
            "prompt": [s.prompt for s in SOLUTIONS],
            "completions": [list(s.steps) for s in SOLUTIONS],
            "finished": [s.finished for s in SOLUTIONS],
            "weight": list(weights),
            "labels": [[float(label) for label in row] for row in labels],
        }
    )


def trainer_of(
    scorer: nn.Module, dataset: Dataset, tokenizer: PreTrainedTokenizerFast, **options: object
) -> StepLabelTrainer:
    settings: dict = {
        "output_dir": "unused",
        "save_strategy": "no",
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-3,
        "use_cpu": True,
    }
    args = ImplicitPRMConfig(**(settings | options))
    return StepLabelTrainer(scorer, args, dataset, tokenizer, ARITHMETIC_FORMAT)


def test_the_loss_by_hand(tokenizer: PreTrainedTokenizerFast) -> None:
    """Mean over steps, then over responses by weight, soft labels included."""
    model = tiny_llama(0, scale=1.0)
    labels = [[1.0, 0.25, 0.0], [1.0, 1.0, 0.0, 0.0, 0.5]]
    trainer = trainer_of(ConfidenceHead(model), stepwise(labels, (3, 1)), tokenizer)
    batch = trainer.data_collator(list(cast(Dataset, trainer.train_dataset)))
    loss = trainer.compute_loss(trainer.model, batch).item()
    expected = 0.0
    for weight, row, logps in zip((3, 1), labels, step_logps(model, tokenizer), strict=True):
        z, label = 1 + logps.astype(float).cumsum(), np.array(row)
        per_step = label * np.logaddexp(0, -z) + (1 - label) * np.logaddexp(0, z)
        expected += weight * per_step.mean() / 4
    assert loss == pytest.approx(expected, rel=1e-4)


def test_training_separates_right_from_wrong(tokenizer: PreTrainedTokenizerFast) -> None:
    head = ConfidenceHead(tiny_llama(0, scale=1.0))
    labels = [[1, 1, 1], [1, 0, 0, 0, 0]]
    trainer = trainer_of(head, stepwise(labels), tokenizer, num_train_epochs=60, learning_rate=3e-3)
    trainer.train()
    right, wrong = score_steps(head, SOLUTIONS, tokenizer, ARITHMETIC_FORMAT)
    assert right.min() > 1
    assert wrong[1:].max() < -1


@pytest.mark.parametrize(
    ("labels", "weights", "message"),
    [
        ([[1, 0], [1, 0, 1, 1, 0]], (1, 1), "row 0: 2 labels for 3 steps"),
        ([[1, 0, 0], [1, 0, 1, 1, 1.5]], (1, 1), r"row 1: labels must lie in \[0, 1\]"),
        ([[1, 0, 0], [1, 0, 1, 1, 0]], (1, 0), "row 1: weight 0.0"),
    ],
)
def test_bad_rows_are_named(
    labels: list[list[float]],
    weights: tuple[float, float],
    message: str,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    with pytest.raises(ValueError, match=message):
        trainer_of(ConfidenceHead(tiny_llama(0)), stepwise(labels, weights), tokenizer)


def test_no_rows_and_stray_log_probabilities_are_errors(tokenizer: PreTrainedTokenizerFast) -> None:
    rows, head = stepwise([[1, 0, 0], [1, 0, 1, 1, 0]]), ConfidenceHead(tiny_llama(0))
    with pytest.raises(ValueError, match="no rows"):
        trainer_of(head, rows.select([]), tokenizer)
    short = rows.add_column("ref_step_logps", [[-1.0, -1.0], [-1.0] * 5])
    with pytest.raises(ValueError, match="row 0: 2 ref_step_logps for 3 steps"):
        trainer_of(head, short, tokenizer)


def test_a_soft_label_is_where_the_loss_is_least() -> None:
    """The minimum over a step's reward of its cross-entropy with label l lies at logit l."""
    for label in (0.1, 0.5, 0.8):
        reward = torch.tensor([[logit(label)]], requires_grad=True)
        loss = step_label_loss(reward, torch.tensor([[label]]), torch.ones(1, 1, dtype=torch.bool))
        (gradient,) = torch.autograd.grad(loss, reward)
        assert float(gradient) == pytest.approx(0, abs=1e-7)
