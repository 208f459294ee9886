"""The word problems, the memoised trunk, and chapter 13's experiment on a tiny model."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from test_presets import tokenizer_of
from transformers import AutoConfig, AutoModelForCausalLM

from implicitprm.arithmetic.measure import answer_scores
from implicitprm.data import extract_answer
from implicitprm.experiments import smollm2
from implicitprm.logprobs import collate, response_logps
from implicitprm.rollouts import Rollout
from implicitprm.training import ImplicitPRMConfig, ImplicitPRMTrainer
from implicitprm.wordproblems import collect, right_arithmetic
from implicitprm.wordproblems.problems import (
    HELD_OUT_TEMPLATES,
    LARGEST_RESULT,
    TRAINING_TEMPLATES,
    Template,
    WordProblem,
    distinct_problems,
    sample_problem,
)
from implicitprm.wordproblems.trunk import ResponseLogitsTrainer, memoise_trunk

TEMPLATES = (*TRAINING_TEMPLATES, *HELD_OUT_TEMPLATES)

# --- problems ------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 10**6), template=st.sampled_from(TEMPLATES))
def test_solutions_are_true_and_use_the_numbers_of_the_story(seed: int, template: Template) -> None:
    problem = sample_problem(np.random.default_rng(seed), (template,))
    *calculations, last = problem.steps
    assert len(calculations) == problem.operations == len(template.steps)
    assert extract_answer("\n".join(problem.steps)) == str(problem.answer)
    assert last == f"#### {problem.answer}"
    known = set(re.findall(r"\d+", problem.prompt))
    for step in calculations:
        assert right_arithmetic(step) is True
        left, right, result = re.findall(r"\d+", step)
        # An operand is of the story or a result of an earlier step.
        assert {left, right} <= known, step
        known.add(result)
        assert 1 <= int(result) <= LARGEST_RESULT
    assert str(problem.answer) == result
    assert "{" not in problem.prompt + "".join(problem.steps)


def test_every_number_of_a_story_is_needed() -> None:
    """But for the number that one template mentions to distract; none does today."""
    for template in TEMPLATES:
        told = set(re.findall(r"\{([abcd])\}", template.story))
        used = {name for _, calculation in template.steps for name in calculation.split()[::2]}
        assert told == used & set("abcd"), template.story
        for sentence, _ in template.steps:
            assert sentence.count("{}") == 1


def test_held_out_stories_are_other_stories() -> None:
    def words(template: Template) -> tuple[str, ...]:
        return tuple(re.findall(r"[a-z]+", template.story))

    stories = [words(template) for template in TEMPLATES]
    assert len(set(stories)) == len(stories)
    assert {len(t.steps) for t in TRAINING_TEMPLATES} == {1, 2, 3}
    assert {len(t.steps) for t in HELD_OUT_TEMPLATES} == {1, 2, 3}


def test_no_problem_is_in_two_splits_or_twice() -> None:
    prompts = [p.prompt for split in collect.SPLITS for p in collect.problems_of(split)]
    assert len(set(prompts)) == len(prompts) == sum(n for n, _ in collect.SPLITS.values())
    few = distinct_problems(np.random.default_rng(0), (Template("{a}", (("{}", "a + a"),)),))
    assert len({next(few).prompt for _ in range(50)}) == 50


@pytest.mark.parametrize(
    ("step", "right"),
    [
        ("Tom has 3 * 4 = 12 pens.", True),
        ("Tom has 3 * 4 = 13 pens.", False),
        ("12 - 15 = 3", False),
        ("Each gets 12 / 5 = 2 pens.", False),
        ("Each gets 12/4=3 pens.", True),
        ("Each gets 12 / 0 = 0 pens.", False),
        ("3 + 4 = 7, and 7 + 1 = 9", False),
        ("#### 12", None),
        ("Tom has 12 pens.", None),
    ],
)
def test_the_calculation_of_a_step(step: str, right: bool | None) -> None:
    assert right_arithmetic(step) is right


def test_rollouts_become_graded_rows() -> None:
    problem = WordProblem("How many?", ("2 + 3 = 5", "#### 5"), 5, 1)
    drawn = [Rollout("2 + 3 = 5\n#### 5", True), Rollout("#### 6", True), Rollout("", False)]
    rows = collect.rows_of(problem, [*drawn, drawn[0]])
    assert [row["label"] for row in rows] == [True, False, False]
    assert [row["weight"] for row in rows] == [2, 1, 1]
    assert [row["answer"] for row in rows] == ["5", "6", None]
    assert [row["finished"] for row in rows] == [True, True, False]


def test_chunks_cover_every_problem_once() -> None:
    for split, (size, _) in collect.SPLITS.items():
        starts = [c["start"] for c in collect.chunks() if c["split"] == split]
        covered = [i for start in starts for i in range(size)[start : start + collect.CHUNK]]
        assert covered == list(range(size))


# --- the trunk -----------------------------------------------------------------------------------


def tiny_model() -> Any:
    torch.manual_seed(0)
    tokenizer = tokenizer_of("smollm2-135m")
    config = AutoConfig.for_model(
        "llama", hidden_size=32, intermediate_size=64, num_hidden_layers=8, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=len(tokenizer), tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).eval(), tokenizer


def logps(model: Any, texts: Sequence[Sequence[int]]) -> torch.Tensor:
    return response_logps(model, **collate(texts, [2] * len(texts), 0))


def test_a_memoised_trunk_changes_no_value_and_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = tiny_model()
    whole = copy.deepcopy(model)
    memoise_trunk(model, 3)
    texts = [[5, 6, 7, 8, 9], [10, 11, 12], [5, 6, 7]]
    with torch.no_grad():
        assert torch.equal(logps(model, texts), logps(whole, texts))
        runs = []
        first = model.base_model._trunk[0].layers[0]
        first.register_forward_hook(lambda *_: runs.append(1))
        assert torch.equal(logps(model, texts), logps(whole, texts))
        assert not runs
        # Other neighbours and other padding: the same texts, to rounding.
        torch.testing.assert_close(
            logps(model, texts[:1]), logps(whole, texts[:1]), atol=1e-5, rtol=0
        )
        assert not runs
        logps(model, [[5, 6, 7, 8, 1]])
        assert runs == [1]


def test_the_gradients_are_those_of_the_whole_model() -> None:
    model, _ = tiny_model()
    whole = copy.deepcopy(model)
    memoise_trunk(model, 3)
    texts = [[5, 6, 7, 8, 9], [10, 11, 12]]
    for each in (model, whole):
        logps(each, texts).sum().backward()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    counterpart = [*whole.model.layers[-3:].parameters(), *whole.model.norm.parameters()]
    assert len(trained) == len(counterpart)
    for one, other in zip(trained, counterpart, strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-6, rtol=1e-4)


def test_only_new_texts_of_a_batch_are_read() -> None:
    model, _ = tiny_model()
    memoise_trunk(model, 3)
    texts = [[5, 6, 7, 8, 9], [10, 11, 12]]
    sizes = []
    model.base_model._trunk[0].layers[0].register_forward_hook(
        lambda module, arguments, output: sizes.append(len(arguments[0]))
    )
    with torch.no_grad():
        logps(model, texts)
        logps(model, [*texts, [5, 6, 7], [1, 2, 3, 4]])
    assert sizes == [2, 2]


def test_half_precision_is_below_the_trained_layers_only() -> None:
    model, _ = tiny_model()
    whole = copy.deepcopy(model)
    memoise_trunk(model, 3, torch.bfloat16)
    texts = [[5, 6, 7, 8, 9], [10, 11, 12]]
    made, exact = logps(model, texts), logps(whole, texts)
    assert made.dtype == torch.float32
    assert 1e-5 < (made - exact).abs().max() < 0.1
    made.sum().backward()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    assert {weight.dtype for weight in trained} == {torch.float32}
    counterpart = [*whole.model.layers[-3:].parameters(), *whole.model.norm.parameters()]
    exact.sum().backward()
    for one, other in zip(trained, counterpart, strict=True):
        assert (one.grad - other.grad).norm() < 0.1 * other.grad.norm()  # type: ignore[operator,union-attr]


def test_logits_of_the_response_alone_give_the_same_rewards_and_gradients() -> None:
    model, tokenizer = tiny_model()
    memoise_trunk(model, 3)
    batch = collate([[5, 6, 7, 8, 9], [10, 11, 12]], [2, 1], 0)
    batch["ref_logps"] = torch.tensor([-3.0, -4.0])
    rows = Dataset.from_list([{"prompt": "1", "completion": "2", "label": True, "ref_logps": 0.0}])
    found = []
    for trainer in (ImplicitPRMTrainer, ResponseLogitsTrainer):
        model.zero_grad()
        rewards = trainer(model, None, ImplicitPRMConfig(beta=0.5), rows, tokenizer)._rewards(
            model, batch
        )
        (rewards * torch.tensor([1.0, -2.0])).sum().backward()
        found.append(
            [rewards.detach(), *(w.grad.clone() for w in model.parameters() if w.requires_grad)]
        )
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_an_impossible_number_of_layers() -> None:
    with pytest.raises(ValueError, match="has 8 layers; 9 of them"):
        memoise_trunk(tiny_model()[0], 9)


# --- the experiment ------------------------------------------------------------------------------


def rollouts(split: str) -> Dataset:
    """Eight responses to each of twelve problems, with repeats, wrong ones and an empty one."""
    test = split in ("test", *collect.GREEDY_SPLITS)
    stream = distinct_problems(
        np.random.default_rng({"train": 0, "validation": 1}.get(split, 2)),
        HELD_OUT_TEMPLATES if test else TRAINING_TEMPLATES,
    )
    rows = []
    for number, problem in zip(range(12), stream, strict=False):
        right = "\n".join(problem.steps)
        wrong = right.replace(f"#### {problem.answer}", f"#### {problem.answer + 1}")
        worse = wrong.replace(f"= {problem.answer}", f"= {problem.answer + 1}").upper()
        drawn = [right] * (number % 4) + [wrong] * 3 + [worse] * (5 - number % 4)
        if number == 5:
            drawn[-1] = ""
        if split in collect.GREEDY_SPLITS:
            drawn = [right if split == "greedy" and number % 2 else wrong]
        rows += collect.rows_of(problem, [Rollout(text, bool(text)) for text in drawn])
    return Dataset.from_list(rows)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "load_policy", lambda adapter: tiny_model())
    monkeypatch.setattr(smollm2, "load_solutions", rollouts)
    smollm2.bench.cache_clear()


CELL = {"beta": 0.5, "learning_rate": 3e-3, "seed": 0}


def test_a_cell_of_the_experiment(small: None) -> None:
    validation = smollm2.validate(CELL)
    assert set(validation) >= {smollm2.RULE, smollm2.MAJORITY}
    # Cells share a process: one must not go on from where another ended.
    assert smollm2.validate(CELL) == validation
    run = smollm2.measure(CELL)
    rows = run["rows"]
    assert rows["greedy decoding"]["accuracy"][0] == 50
    assert rows["greedy decoding, untouched model"]["accuracy"][0] == 0
    share = 100 * np.mean([number % 4 for number in range(12)]) / 8
    assert rows["chance (pass@1)"]["accuracy"][0] == pytest.approx(share, abs=0.01)
    assert rows["oracle (pass@8)"]["accuracy"][0] == 75
    for name, cell in rows.items():
        value = cell["accuracy"][0] - rows[smollm2.MAJORITY]["accuracy"][0]
        assert cell["minus majority"][0] == pytest.approx(value, abs=0.02), name
        assert cell["accuracy"][1] <= cell["accuracy"][0] <= cell["accuracy"][2]
    assert set(run["right calculation AUROC"]) == {
        "step reward", "log π_θ alone", "log π_ref alone",
    }  # fmt: skip
    summary = smollm2.summarise([run, run])
    assert summary["rows"] == rows
    assert summary["within-problem AUROC"] == run["within-problem AUROC"]
    assert smollm2.tolerance(run, run) == 0


def test_rewards_are_0_before_training_and_not_after(small: None) -> None:
    smollm2.bench().reset()
    before = [s for s in smollm2.bench().score("test", 0.5) if s is not None]
    assert max(abs(s.outcome) for s in before) < 1e-5
    smollm2.bench().train(CELL, 2)
    after = [s for s in smollm2.bench().score("test", 0.5) if s is not None]
    assert max(abs(s.outcome) for s in after) > 1e-2
    for scored in after:
        assert scored.outcome == pytest.approx(float(scored.step_rewards.sum()), abs=1e-5)
        expected = 0.5 * float((scored.policy_logps - scored.ref_logps).sum())
        assert scored.outcome == pytest.approx(expected, abs=1e-5)
    again = smollm2.bench().score("test", 0.5)  # scoring changes nothing
    assert again.count(None) == 1  # the empty response
    assert [s.outcome for s in again if s is not None] == [s.outcome for s in after]


def test_training_tells_right_from_wrong(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tiny model can learn: responses in capital letters are wrong."""
    monkeypatch.setattr(smollm2, "BATCH_SIZE", 8)
    smollm2.bench().train(CELL | {"learning_rate": 1e-2}, epochs=6)
    rows = rollouts("train")
    outcomes = answer_scores(smollm2.bench().score("train", 0.5))["reward, sum over steps"]
    labels = np.array([r for r, t in zip(rows["label"], rows["completion"], strict=True) if t])
    assert outcomes[labels].mean() > outcomes[~labels].mean()
