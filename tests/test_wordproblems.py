"""The word problems, the memoised trunk, and chapter 13's experiment on a tiny model."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from test_presets import tokenizer_of
from transformers import AutoConfig, AutoModelForCausalLM

from implicitprm.arithmetic.measure import answer_scores, candidate_grid
from implicitprm.arithmetic.pretrain import collate as pad_rows
from implicitprm.data import extract_answer, is_correct
from implicitprm.evaluation import auroc, best_of_n_accuracy, vote_accuracy
from implicitprm.experiments import scorecard, smollm2
from implicitprm.experiments.store import file_hash, load_result
from implicitprm.logprobs import collate, response_logps
from implicitprm.rewards import ImplicitPRM
from implicitprm.rollouts import Rollout
from implicitprm.smollm2 import HUB_ID
from implicitprm.steps import Solution, encode
from implicitprm.wordproblems import (
    WORD_FORMAT,
    collect,
    load_policy,
    load_solutions,
    pretrain,
    right_arithmetic,
)
from implicitprm.wordproblems.problems import (
    HELD_OUT_TEMPLATES,
    INSTRUCTION,
    LARGEST_RESULT,
    NAMES,
    THINGS,
    TRAINING_TEMPLATES,
    Template,
    WordProblem,
    distinct_problems,
    sample_problem,
)
from implicitprm.wordproblems.trunk import memoise_trunk

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
        used = {name for calculation in template.steps for name in calculation.split()[::2]}
        assert told == used & set("abcd"), template.story


def test_held_out_stories_are_other_stories() -> None:
    def words(template: Template) -> tuple[str, ...]:
        return tuple(re.findall(r"[a-z]+", template.story))

    stories = [words(template) for template in TEMPLATES]
    assert len(set(stories)) == len(stories)
    assert {len(t.steps) for t in TRAINING_TEMPLATES} == {1, 2, 3}
    assert {len(t.steps) for t in HELD_OUT_TEMPLATES} == {1, 2, 3}


def stories_of(prompt: str) -> set[str]:
    """The templates' stories that a prompt may be, read back word by word."""
    blanks = {"name": NAMES, "other": NAMES, "things": THINGS}

    def pattern(story: str) -> str:
        return re.sub(
            r"\\{(\w+)\\}",
            lambda blank: f"(?:{'|'.join(blanks.get(blank[1], [r'[0-9]+']))})",
            re.escape(story),
        )

    story = prompt.removesuffix(f"\n{INSTRUCTION}")
    return {t.story for t in TEMPLATES if re.fullmatch(pattern(t.story), story)}


@pytest.mark.parametrize("split", [*collect.SPLITS, *collect.GREEDY_SPLITS])
def test_stories_of_held_out_templates_are_in_no_other_split(split: str) -> None:
    own = HELD_OUT_TEMPLATES if split == "held_out" else TRAINING_TEMPLATES
    for prompt in set(load_solutions(split)["prompt"]):
        found = stories_of(prompt)
        assert len(found) == 1, prompt
        assert found <= {template.story for template in own}, prompt


def test_the_policy_is_trained_on_training_templates_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def noting(rng: np.random.Generator, templates: tuple[Template, ...]) -> WordProblem:
        seen.append(sample_problem(rng, templates))
        return seen[-1]

    monkeypatch.setattr(pretrain, "sample_problem", noting)
    for _ in zip(range(100), pretrain.SolutionStream(tiny_model()[1], 0), strict=False):
        pass
    used = set.union(*(stories_of(problem.prompt) for problem in seen))
    assert used == {template.story for template in TRAINING_TEMPLATES}


def test_no_problem_is_in_two_splits_or_twice() -> None:
    prompts = [p.prompt for split in collect.SPLITS for p in collect.problems_of(split)]
    assert len(set(prompts)) == len(prompts) == sum(n for n, _ in collect.SPLITS.values())
    few = distinct_problems(
        np.random.default_rng(0), (Template("{a}", ("a + a",), {"a": (3, 60)}),)
    )
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
        ("3 + 4 = 7, and 7 + 1 = 8", True),
        ("4 / 5 = 0.8", True),
        ("4 / 5 = 0.7", False),
        ("0.5 * 12 = 6.0", True),
        ("10 / 3 = 3.33", False),
        ("5 - 8 = -3", True),
        ("5 - 8 = 3", False),
        ("9 - 5 - 3 = 1", None),
        ("9-5-3=1", None),
        ("2 * 600 = 1,200", None),
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


# --- what is shipped ----------------------------------------------------------------------------


@pytest.mark.parametrize("split", [*collect.SPLITS, *collect.GREEDY_SPLITS])
def test_shipped_rollouts_are_of_these_problems_and_graded_so(split: str) -> None:
    greedy = split in collect.GREEDY_SPLITS
    problems = {p.prompt: p for p in collect.problems_of("test" if greedy else split)}
    rows = load_solutions(split)
    drawn = dict.fromkeys(problems, 0)
    for row in rows:
        problem = problems[row["prompt"]]
        drawn[row["prompt"]] += row["weight"]
        assert row["operations"] == problem.operations
        assert row["answer"] == extract_answer(row["completion"])
        assert row["label"] == is_correct(row["completion"], str(problem.answer)), row
    assert set(drawn.values()) == {1 if greedy else collect.SPLITS[split][1]}
    assert len(rows) == len({(row["prompt"], row["completion"], row["finished"]) for row in rows})


def test_the_policy_calculates_most_of_the_time_and_not_always() -> None:
    """The world of chapter 13: neither voting nor a reward has anything to do elsewhere."""
    right = {}
    for split in collect.SPLITS:
        rows = load_solutions(split)
        right[split] = np.average(rows["label"], weights=rows["weight"])
    assert right.pop("held_out") < 0.1  # stories of another kind are beyond it
    assert all(0.25 < share < 0.7 for share in right.values()), right


@pytest.fixture(scope="module")
def policy() -> Any:
    try:
        return load_policy()
    except ModuleNotFoundError as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_shipped_rollouts_are_those_of_the_shipped_policy(policy: Any, result: dict) -> None:
    """Sequence log-probabilities as stored, and every token passes the stated sampler."""
    model, tokenizer = policy
    (reference,) = (cell for cell in result["cells"] if cell["part"] == "reference")
    rows = load_solutions("test")
    assert len(reference["log π_ref"]) == len(rows)
    for number in range(0, len(rows), len(rows) // 6):
        row = rows[number]
        if not row["completion"].strip():
            continue
        solution = Solution(row["prompt"], WORD_FORMAT.split(row["completion"]), row["finished"])
        encoded = encode(tokenizer, solution, WORD_FORMAT)
        ids, start = torch.tensor([encoded.input_ids]), encoded.response_start
        with torch.inference_mode():
            logps = model(ids).logits[0, start - 1 : -1].log_softmax(-1)  # (T, V)
        chosen = logps.gather(1, ids[0, start:, None])[:, 0]
        assert float(chosen.sum()) == pytest.approx(reference["log π_ref"][number], abs=1e-3)
        lowest = logps.max(-1).values + np.log(collect.SAMPLING.min_p) - 1e-3
        assert (chosen >= lowest).all(), row["completion"]


@pytest.mark.slow
def test_greedy_decoding_takes_the_most_probable_token(policy: Any) -> None:
    model, tokenizer = policy
    for row in load_solutions("greedy").select(range(2)):
        solution = Solution(row["prompt"], WORD_FORMAT.split(row["completion"]), row["finished"])
        encoded = encode(tokenizer, solution, WORD_FORMAT)
        ids, start = torch.tensor([encoded.input_ids]), encoded.response_start
        with torch.inference_mode():
            logits = model(ids).logits[0, start - 1 : -1]
        gap = logits.max(-1).values - logits.gather(1, ids[0, start:, None])[:, 0]
        assert float(gap.max()) < 1e-3


def test_the_shipped_adapter_is_small_and_names_its_model() -> None:
    config = json.loads((pretrain.adapter_path() / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == HUB_ID
    assert config["r"] == pretrain.RANK
    assert len(config["layers_to_transform"]) == pretrain.LAYERS
    weights = load_file(pretrain.weights_path())
    assert {weight.dtype for weight in weights.values()} == {torch.float16}
    trained = [weight for name, weight in weights.items() if "lora_B" in name]
    assert all(weight.abs().max() > 0 for weight in trained)  # 0 before training


# --- the result ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result() -> dict:
    return load_result("smollm2")


def test_hyper_parameters_are_the_best_on_validation(result: dict) -> None:
    sweep = [cell for cell in result["cells"] if cell["part"] == "validation"]
    assert {(cell["beta"], cell["learning_rate"]) for cell in sweep} == {
        (beta, rate) for beta in smollm2.BETAS for rate in smollm2.LEARNING_RATES
    }
    best = max(sweep, key=lambda cell: cell[smollm2.RULE])
    chosen = {name: best[name] for name in ("beta", "learning_rate")}
    assert result["config"]["chosen"] == chosen
    runs = [cell for cell in result["cells"] if cell["part"] == "run"]
    assert [run["seed"] for run in runs] == list(smollm2.SEEDS)
    for run in runs:
        assert {name: run[name] for name in chosen} == chosen


def test_the_result_is_of_the_shipped_rollouts(result: dict) -> None:
    """By their hash: rollouts that were sampled again need the experiment again."""
    for split, known in result["config"]["rollouts"].items():
        assert file_hash(collect.rollouts_path(split)) == known, split


def test_what_needs_no_reward_is_recomputed_from_the_rollouts(result: dict) -> None:
    """Chance, vote, oracle, greedy, length, and log π_ref by its stored values."""
    rows = load_solutions("test")
    grid = candidate_grid(rows)
    correct = np.array(rows["label"])[grid]
    answers = np.array(rows["answer"], dtype=object)[grid].tolist()
    (reference,) = (cell for cell in result["cells"] if cell["part"] == "reference")
    logps = np.array([-np.inf if x is None else x for x in reference["log π_ref"]])
    (held_out,) = (cell for cell in result["cells"] if cell["part"] == "held-out templates")
    others = load_solutions("held_out")
    share = np.average(others["label"], weights=others["weight"])
    assert held_out["rows"]["chance (pass@1)"]["accuracy"][0] == pytest.approx(
        100 * share, abs=0.02
    )
    expected = {
        "chance (pass@1)": correct.mean(),
        "oracle (pass@8)": correct.any(1).mean(),
        "majority vote": vote_accuracy(answers, correct, 8).mean(),
        "best of 8: log π_ref alone": best_of_n_accuracy(logps[grid], correct, 8).mean(),
        "greedy decoding": np.mean(load_solutions("greedy")["label"]),
        "greedy decoding, untouched model": np.mean(load_solutions("untouched")["label"]),
    }
    for cell in result["cells"]:
        if cell["part"] in ("run", "summary"):
            for name, value in expected.items():
                found = cell["rows"][name]["accuracy"][0]
                assert found == pytest.approx(100 * value, abs=0.02), name


def test_the_summary_is_the_mean_of_the_runs(result: dict) -> None:
    runs = [cell for cell in result["cells"] if cell["part"] == "run"]
    (summary,) = (cell for cell in result["cells"] if cell["part"] == "summary")
    for name, row in summary["rows"].items():
        for column in ("accuracy", "minus majority"):
            mean = np.mean([run["rows"][name][column][0] for run in runs])
            value, low, high = row[column]
            assert value == pytest.approx(mean, abs=0.02), name
            assert low <= value <= high
    for name, interval in summary["within-problem AUROC"].items():
        mean = np.mean([run["within-problem AUROC"][name][0] for run in runs])
        assert interval[0] == pytest.approx(mean, abs=0.002), name


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
        assert (one.grad - other.grad).norm() < 0.1 * other.grad.norm()


def test_solutions_are_remembered_with_their_prompt_read_once() -> None:
    model, tokenizer = tiny_model()
    whole = copy.deepcopy(model)
    memoise_trunk(model, 3)
    texts = [("Add 1.", "1 + 1 = 2"), ("Add 1.", "1 + 1 = 3\n#### 3"), ("Add 20.", "#### 4")]
    solutions = [
        encode(tokenizer, Solution(prompt, WORD_FORMAT.split(text)), WORD_FORMAT)
        for prompt, text in texts
    ]
    lengths: list[tuple[int, ...]] = []
    trunk = model.base_model._trunk[0]
    trunk.layers[0].register_forward_hook(lambda m, given, out: lengths.append(given[0].shape[:2]))
    model.base_model.remember(solutions, model.device)
    model.base_model.remember(solutions, model.device)  # known by now
    starts = [solution.response_start for solution in solutions]
    own = [len(s.input_ids) - start for s, start in zip(solutions, starts, strict=True)]
    assert lengths == [(1, starts[0]), (2, max(own[:2])), (1, starts[2]), (1, own[2])]
    batch = collate([s.input_ids for s in solutions], starts, 0)
    with torch.no_grad():
        found, expected = response_logps(model, **batch), response_logps(whole, **batch)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    part = {name: tensor[2:] for name, tensor in batch.items()}  # KTO splits a batch in two
    assert not part["attention_mask"][:, -1].any()
    with torch.no_grad():
        torch.testing.assert_close(response_logps(model, **part), found[2:], atol=1e-5, rtol=0)
    scorers = [ImplicitPRM(m, None, tokenizer, 1.0, WORD_FORMAT) for m in (model, whole)]
    for one, other in zip(
        *(scorer.score_solutions([Solution(p, (t,)) for p, t in texts], 3) for scorer in scorers),
        strict=True,
    ):
        np.testing.assert_allclose(one.policy_logps, other.policy_logps, atol=1e-5)
    assert len(lengths) == 4  # scoring ran no frozen layer


def test_an_impossible_number_of_layers() -> None:
    with pytest.raises(ValueError, match="has 8 layers; 9 of them"):
        memoise_trunk(tiny_model()[0], 9)


# --- the experiment ------------------------------------------------------------------------------


def rollouts(split: str) -> Dataset:
    """Eight responses to each of twelve problems, with repeats, wrong ones and an empty one."""
    seeds = {"train": 0, "validation": 1, "more_train": 3, "more_validation": 4}
    seed = seeds.get(split, 2)
    stream = distinct_problems(np.random.default_rng(seed), TRAINING_TEMPLATES)
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


def test_losses_on_responses_alone_are_those_of_all_logits() -> None:
    """The policy is trained without the logits of prompts; values and gradients are the same."""
    model, tokenizer = tiny_model()
    adapter = LoraConfig(r=2, target_modules=["v_proj"], task_type="CAUSAL_LM")
    policy = get_peft_model(model, adapter)
    stream = pretrain.SolutionStream(tokenizer, 0)
    batch = pad_rows([row for _, row in zip(range(3), stream, strict=False)])
    losses = [policy(**batch).loss]
    trainer: Any = None  # the loss needs nothing of it
    losses.append(pretrain.SolutionTrainer.compute_loss(trainer, policy, dict(batch)))
    trained = [weight for weight in policy.parameters() if weight.requires_grad]
    expected, found = (torch.autograd.grad(loss, trained) for loss in losses)
    torch.testing.assert_close(losses[1], losses[0])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-4)


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
    """What the tiny model can learn: responses that begin with a word are wrong."""

    def marked(row: dict[str, Any]) -> dict[str, Any]:
        return {"completion": row["completion"] if row["label"] else f"So {row['completion']}"}

    monkeypatch.setattr(smollm2, "load_solutions", lambda split: rollouts(split).map(marked))
    smollm2.bench().train(CELL | {"learning_rate": 1e-2}, epochs=6)
    outcomes = answer_scores(smollm2.bench().score("train", 0.5))["reward, sum over steps"]
    labels = np.array(smollm2.rollouts_of("train")["label"])
    found = auroc(outcomes, labels)
    assert found > 0.8, found


def test_more_rollouts_join_those_of_their_split() -> None:
    """Training and validation of the stored experiment; no empty response is trained on."""
    for split in ("train", "validation"):
        parts = [load_solutions(name) for name in (split, f"more_{split}")]
        known = [
            row for part in parts for row in part if split != "train" or row["completion"].strip()
        ]
        assert list(smollm2.rollouts_of(split)) == known
        assert not set(parts[0]["prompt"]) & set(parts[1]["prompt"])
    assert list(smollm2.rollouts_of("test")) == list(load_solutions("test"))


def test_the_scorecard_says_how_much_was_trained_on() -> None:
    problems = len(set(smollm2.rollouts_of("train")["prompt"]))
    assert f"answers to {problems} problems" in scorecard.SMOLLM2
