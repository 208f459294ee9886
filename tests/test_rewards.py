"""implicitprm.rewards: step rewards against bare transformers calls, contracts, errors."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from html import unescape
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from tiny import problems, tiny_llama
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from implicitprm import ImplicitPRM, ScoredSolution, Solution, SolutionFormat
from implicitprm.arithmetic import ARITHMETIC_FORMAT
from implicitprm.arithmetic.tokenizer import build_tokenizer
from implicitprm.rewards import (
    SCORE_COLUMNS,
    check_same_tokenizer,
    q_values,
    step_rewards,
    token_rewards,
)

BETA = 0.7


@pytest.fixture(scope="module")
def prm() -> ImplicitPRM:
    return ImplicitPRM(tiny_llama(0), tiny_llama(1), build_tokenizer(), BETA, ARITHMETIC_FORMAT)


@pytest.fixture(scope="module")
def solutions() -> list[Solution]:
    return [Solution(problem.prompt, tuple(problem.steps)) for problem in problems(9)]


@pytest.fixture(scope="module")
def scored(prm: ImplicitPRM, solutions: list[Solution]) -> list[ScoredSolution]:
    return prm.score_solutions(solutions)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder with a policy and its tokenizer."""
    return save(tmp_path / "policy", tiny_llama(0), build_tokenizer())


def save(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# --- independent re-computation: tokenizer, logits, log_softmax and loops; nothing of ours ------


def bare_logps(model: PreTrainedModel, ids: list[int], start: int) -> list[float]:
    """log p of each token from ``start`` on."""
    with torch.no_grad():
        table = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), dim=-1)
    return [float(table[position - 1, ids[position]]) for position in range(start, len(ids))]


def bare_rewards(
    policy: PreTrainedModel,
    reference: PreTrainedModel,
    beta: float,
    ids: list[int],
    start: int,
    owners: list[int],
) -> tuple[list[float], list[float]]:
    """Token rewards, and their sums by the step that owns each token."""
    tokens = [
        beta * (logp - ref)
        for logp, ref in zip(
            bare_logps(policy, ids, start), bare_logps(reference, ids, start), strict=True
        )
    ]
    steps = [0.0] * (max(owners) + 1)
    for owner, reward in zip(owners, tokens, strict=True):
        steps[owner] += reward
    return tokens, steps


def test_agrees_with_bare_transformers_in_the_miniature(
    prm: ImplicitPRM, solutions: list[Solution], scored: list[ScoredSolution]
) -> None:
    tokenizer = build_tokenizer()
    assert prm.reference is not None
    for solution, ours in zip(solutions, scored, strict=True):
        assert isinstance(solution.prompt, str)
        prompt_ids = tokenizer(solution.prompt).input_ids
        ids, owners = list(prompt_ids), []
        for number, step in enumerate(solution.steps):
            last = number == len(solution.steps) - 1
            step_ids = tokenizer(step + ("<eos>" if last else "\n")).input_ids
            ids += step_ids
            owners += [number] * len(step_ids)
        tokens, steps = bare_rewards(prm.policy, prm.reference, BETA, ids, len(prompt_ids), owners)
        assert max(map(abs, tokens)) > 0.1  # the two models differ: there is something to compare
        np.testing.assert_allclose(ours.token_rewards, tokens, rtol=0, atol=1e-5)
        np.testing.assert_allclose(ours.step_rewards, steps, rtol=0, atol=1e-5 * len(tokens))
        np.testing.assert_allclose(ours.q_values, np.cumsum(steps), rtol=0, atol=1e-5 * len(tokens))


@pytest.mark.slow
def test_agrees_with_bare_transformers_on_smollm2() -> None:
    smollm2 = pytest.importorskip("implicitprm.smollm2")
    try:
        folder = str(smollm2.smollm2_path())
    except Exception as error:
        pytest.skip(f"SmolLM2 is not at hand: {error}")
    prm = ImplicitPRM.from_pretrained(folder, folder, beta=BETA)
    assert prm.reference is not None
    with torch.no_grad():  # another reference, at no cost of training
        next(prm.reference.parameters()).mul_(1.1)
    question, steps = (
        "What is 17 + 25?",
        ("17 + 25 = 42.", "So it is\n\u4e2d 42.", "The answer is 42."),
    )
    ours = prm.score(question, steps)

    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": "\n\n".join(steps)},
    ]
    text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    encoding = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    response_start = text.index(steps[0])
    second, third = text.index(steps[1]), text.index(steps[2])
    ids, owners, start = [], [], 0
    for token, (first, _) in zip(encoding["input_ids"], encoding["offset_mapping"], strict=True):
        ids.append(token)
        if first < response_start:
            start += 1
        else:
            owners.append(0 if first < second else 1 if first < third else 2)
            if token == tokenizer.eos_token_id:
                break
    assert ids[-1] == tokenizer.eos_token_id
    tokens, by_step = bare_rewards(prm.policy, prm.reference, BETA, ids, start, owners)
    assert max(map(abs, tokens)) > 0.1
    np.testing.assert_allclose(ours.token_rewards, tokens, rtol=0, atol=1e-5)
    np.testing.assert_allclose(ours.step_rewards, by_step, rtol=0, atol=1e-5 * len(tokens))


# --- contracts ----------------------------------------------------------------------------------


def test_equal_models_give_exactly_0(solutions: list[Solution]) -> None:
    prm = ImplicitPRM(tiny_llama(0), tiny_llama(0), build_tokenizer(), BETA, ARITHMETIC_FORMAT)
    for solution in prm.score_solutions(solutions, batch_size=4):
        assert (solution.token_rewards == 0).all()
        assert solution.outcome == 0
        assert (solution.policy_logps < 0).all()  # 0 is a difference, not a lack of scores


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_batch_size_and_neighbours_do_not_matter(
    prm: ImplicitPRM, solutions: list[Solution], scored: list[ScoredSolution], batch_size: int
) -> None:
    assert len({len(solution.tokens) for solution in scored}) > 3
    for one, other in zip(scored, prm.score_solutions(solutions, batch_size), strict=True):
        assert one.tokens == other.tokens
        np.testing.assert_allclose(one.policy_logps, other.policy_logps, rtol=0, atol=1e-5)
        np.testing.assert_allclose(one.token_rewards, other.token_rewards, rtol=0, atol=1e-5)


def test_order_is_kept(
    prm: ImplicitPRM, solutions: list[Solution], scored: list[ScoredSolution]
) -> None:
    backwards = prm.score_solutions(solutions[::-1])[::-1]
    assert [solution.steps for solution in scored] == [solution.steps for solution in solutions]
    for one, other in zip(scored, backwards, strict=True):
        assert one.outcome == pytest.approx(other.outcome, abs=1e-4)


def test_a_cache_gives_the_same_scores(
    prm: ImplicitPRM, solutions: list[Solution], scored: list[ScoredSolution]
) -> None:
    """Token by token with past_key_values, as a beam search or a sampler would score."""
    tokenizer = build_tokenizer()
    for solution, ours in zip(solutions[:3], scored, strict=False):
        ids = tokenizer(f"{solution.prompt}" + "\n".join(solution.steps) + "<eos>").input_ids
        start = len(ids) - len(ours.tokens)
        cache, logps = DynamicCache(config=prm.policy.config), []
        with torch.no_grad():
            for position, token in enumerate(ids[:-1]):
                output = prm.policy(torch.tensor([[token]]), past_key_values=cache, use_cache=True)
                if position + 1 >= start:
                    row = output.logits[0, -1].log_softmax(-1)
                    logps.append(float(row[ids[position + 1]]))
        np.testing.assert_allclose(ours.policy_logps, logps, rtol=0, atol=1e-5)


def test_step_rewards_sum_to_the_outcome_and_q_runs(scored: list[ScoredSolution]) -> None:
    for solution in scored:
        tokens = len(solution.tokens)
        assert solution.token_rewards.shape == solution.policy_logps.shape == (tokens,)
        assert solution.step_rewards.shape == solution.q_values.shape == (len(solution.steps),)
        assert solution.step_ends[-1] == tokens
        assert solution.outcome == pytest.approx(float(solution.step_rewards.sum()), abs=1e-5)
        assert solution.outcome == pytest.approx(float(solution.token_rewards.sum()), abs=1e-4)
        np.testing.assert_allclose(solution.q_values, np.cumsum(solution.step_rewards), atol=1e-5)
        assert solution.outcome == solution.q_values[-1]
        for start, end in pairwise((0, *solution.step_ends)):
            assert end > start


def test_pure_functions_by_hand() -> None:
    rewards = token_rewards(torch.tensor([-1.0, -2.0, -3.0]), torch.tensor([-2.0, -2.0, -1.0]), 0.5)
    assert rewards.tolist() == [0.5, 0.0, -1.0]
    assert step_rewards(rewards, [2, 3]).tolist() == [0.5, -1.0]
    assert step_rewards(rewards, [1, 3]).tolist() == [0.5, -1.0]
    assert step_rewards(rewards, [3]).tolist() == [-0.5]
    assert q_values(torch.tensor([0.5, -1.0, 2.0])).tolist() == [0.5, -0.5, 1.5]


@pytest.mark.parametrize("step_ends", [[], [2], [2, 4]])
def test_step_ends_must_cover_every_token(step_ends: list[int]) -> None:
    with pytest.raises(ValueError, match="do not end at token 3"):
        step_rewards(torch.zeros(3), step_ends)


def test_no_reference_is_beta_times_the_log_probability(
    prm: ImplicitPRM, solutions: list[Solution], scored: list[ScoredSolution]
) -> None:
    alone = ImplicitPRM(prm.policy, None, prm.tokenizer, BETA, ARITHMETIC_FORMAT)
    for one, other in zip(alone.score_solutions(solutions), scored, strict=True):
        assert (one.ref_logps == 0).all()
        np.testing.assert_array_equal(one.policy_logps, other.policy_logps)
        np.testing.assert_allclose(one.token_rewards, BETA * other.policy_logps, rtol=1e-6)


def test_beta_scales(
    prm: ImplicitPRM, solutions: list[Solution], scored: list[ScoredSolution]
) -> None:
    thrice = ImplicitPRM(prm.policy, prm.reference, prm.tokenizer, 3 * BETA, ARITHMETIC_FORMAT)
    for one, other in zip(thrice.score_solutions(solutions), scored, strict=True):
        np.testing.assert_allclose(one.step_rewards, 3 * other.step_rewards, rtol=1e-5, atol=1e-6)
        assert one.outcome == pytest.approx(3 * other.outcome, rel=1e-5)


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan")])
def test_beta_must_be_positive(prm: ImplicitPRM, beta: float) -> None:
    with pytest.raises(ValueError, match="beta must be positive"):
        ImplicitPRM(prm.policy, prm.reference, prm.tokenizer, beta)


def test_a_solution_being_written_has_no_end_token(
    prm: ImplicitPRM, solutions: list[Solution], scored: list[ScoredSolution]
) -> None:
    solution, whole = solutions[0], scored[0]
    partial = prm.score(solution.prompt, solution.steps, finished=False)
    assert len(partial.tokens) == len(whole.tokens) - 1
    np.testing.assert_allclose(partial.token_rewards, whole.token_rewards[:-1], rtol=0, atol=1e-5)


def test_no_solutions(prm: ImplicitPRM) -> None:
    assert prm.score_solutions([]) == []


# --- loading ------------------------------------------------------------------------------------


def test_from_pretrained_loads_what_was_saved(
    checkpoint: Path, tmp_path: Path, prm: ImplicitPRM, solutions: list[Solution]
) -> None:
    reference = save(tmp_path / "reference", tiny_llama(1), build_tokenizer())
    loaded = ImplicitPRM.from_pretrained(
        str(checkpoint), str(reference), beta=BETA, format=ARITHMETIC_FORMAT
    )
    assert not loaded.policy.training
    solution = solutions[0]
    one = loaded.score(solution.prompt, solution.steps)
    np.testing.assert_allclose(
        one.step_rewards, prm.score(solution.prompt, solution.steps).step_rewards, atol=1e-4
    )


def test_the_default_format_follows_the_chat_template(checkpoint: Path) -> None:
    plain = ImplicitPRM.from_pretrained(str(checkpoint), beta=1.0)
    assert plain.format == SolutionFormat(separator="\n\n", chat=False)
    tokenizer = build_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    assert ImplicitPRM(plain.policy, None, tokenizer, 1.0).format.chat


def larger_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(["77"])
    return tokenizer


def test_different_tokenizers_are_an_error_that_names_both(
    checkpoint: Path, tmp_path: Path
) -> None:
    tokenizer = larger_tokenizer()
    size = len(tokenizer)
    reference = save(tmp_path / "other", tiny_llama(1), tokenizer)
    names = f"{re.escape(str(checkpoint))}.*{size - 1} tokens.*{re.escape(str(reference))}.*{size}"
    with pytest.raises(ValueError, match=names):
        ImplicitPRM.from_pretrained(str(checkpoint), str(reference), beta=1.0)
    check_same_tokenizer(build_tokenizer(), build_tokenizer())


def test_tokenizers_that_swap_two_tokens_differ() -> None:
    other = build_tokenizer()
    state = other.backend_tokenizer.to_str().replace('"+":', '"@":')
    state = state.replace('"-":', '"+":').replace('"@":', '"-":')
    swapped = PreTrainedTokenizerFast(
        tokenizer_object=type(other.backend_tokenizer).from_str(state)
    )
    assert len(swapped) == len(other)
    with pytest.raises(ValueError, match="different tokenizers"):
        check_same_tokenizer(build_tokenizer(), swapped)


def test_pickled_weights_are_refused(checkpoint: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    torch.save(model.state_dict(), checkpoint / "pytorch_model.bin")
    os.remove(checkpoint / "model.safetensors")
    with pytest.raises(ValueError, match=r"no safetensors weights.*save_pretrained") as caught:
        ImplicitPRM.from_pretrained(str(checkpoint), beta=1.0)
    assert str(checkpoint) in str(caught.value)


def test_a_missing_folder_is_not_called_pickled(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="absent"):
        ImplicitPRM.from_pretrained(str(tmp_path / "absent"), beta=1.0)


# --- bad input ----------------------------------------------------------------------------------


def test_nan_weights_are_an_error(solutions: list[Solution]) -> None:
    broken = tiny_llama(0)
    with torch.no_grad():
        broken.model.layers[0].mlp.down_proj.weight[0, 0] = torch.nan
    prm = ImplicitPRM(broken, None, build_tokenizer(), BETA, ARITHMETIC_FORMAT)
    with pytest.raises(ValueError, match="NaN or infinite"):
        prm.score_solutions(solutions)


def test_a_solution_longer_than_the_context_is_an_error(
    prm: ImplicitPRM, solutions: list[Solution]
) -> None:
    long = Solution("7+5\n", ("7+5=12",) * 30)
    with pytest.raises(
        ValueError, match=r"solution 1 has 184 tokens \(4 of them prompt\).* is 128"
    ):
        prm.score_solutions([solutions[0], long])


def test_an_unreadable_solution_is_named(prm: ImplicitPRM, solutions: list[Solution]) -> None:
    with pytest.raises(ValueError, match="solution 1: the first response token has nothing before"):
        prm.score_solutions([solutions[0], Solution("", ("7+5=12",))])


# --- data sets ----------------------------------------------------------------------------------


def dataset_of(solutions: list[Solution], stepwise: bool) -> datasets.Dataset:
    rows: list[dict[str, Any]] = []
    for solution in solutions:
        body: dict[str, Any] = {"completion": "\n".join(solution.steps)}
        if stepwise:
            body = {"completions": list(solution.steps)}
        rows.append({"prompt": solution.prompt, **body, "kept": len(solution.steps)})
    return datasets.Dataset.from_list(rows)


@pytest.mark.parametrize("stepwise", [False, True])
def test_score_dataset(
    prm: ImplicitPRM,
    solutions: list[Solution],
    scored: list[ScoredSolution],
    stepwise: bool,
) -> None:
    dataset = dataset_of(solutions, stepwise)
    result = prm.score_dataset(dataset)
    assert result.column_names == [*dataset.column_names, *SCORE_COLUMNS]
    for row, solution in zip(result, scored, strict=True):
        assert row["kept"] == len(solution.steps)
        assert row["step_ends"] == list(solution.step_ends)
        np.testing.assert_allclose(row["step_rewards"], solution.step_rewards, atol=1e-6)
        np.testing.assert_allclose(row["q_values"], solution.q_values, atol=1e-6)
        assert row["outcome"] == pytest.approx(solution.outcome, abs=1e-6)
        ratio = np.subtract(row["policy_step_logps"], row["ref_step_logps"])
        np.testing.assert_allclose(BETA * ratio, solution.step_rewards, atol=1e-4)
        assert sum(row["ref_step_logps"]) == pytest.approx(
            float(solution.ref_logps.sum()), abs=1e-4
        )


def test_score_dataset_knows_unfinished_rows(prm: ImplicitPRM, solutions: list[Solution]) -> None:
    finished = [True, False]
    dataset = dataset_of(solutions[:1] * 2, stepwise=False).add_column("finished", finished)
    whole, partial = prm.score_dataset(dataset)["step_ends"]
    assert whole[-1] == partial[-1] + 1


def test_missing_columns_are_named(prm: ImplicitPRM, solutions: list[Solution]) -> None:
    dataset = dataset_of(solutions, stepwise=False).rename_column("completion", "response")
    with pytest.raises(
        ValueError, match=r"needs the columns 'prompt' and 'completion'.*'response'"
    ):
        prm.score_dataset(dataset)


def test_a_bad_row_is_named(prm: ImplicitPRM, solutions: list[Solution]) -> None:
    rows = dataset_of(solutions, stepwise=True).to_list()
    rows[3]["completions"][1] = "  "
    with pytest.raises(ValueError, match=r"row 3: step 1 of .* is empty"):
        prm.score_dataset(datasets.Dataset.from_list(rows))
    with pytest.raises(ValueError, match="row 0: a solution needs at least one step"):
        prm.score_dataset(datasets.Dataset.from_list([{"prompt": "7+5\n", "completions": []}]))


# --- the view -----------------------------------------------------------------------------------


def test_html_shows_every_step_and_escapes(scored: list[ScoredSolution]) -> None:
    solution = scored[0]
    html = solution._repr_html_()
    assert html.count("<tr>") == 1 + len(solution.steps)
    for number, step in enumerate(solution.steps):
        row = html.split("<tr>")[2 + number]
        assert row.startswith(f"<td>{number}</td>")
        text = re.sub(r"<[^>]*>", "", row.split("</code>")[0])
        end = "↵" if number + 1 < len(solution.steps) else "<eos>"
        assert unescape(text) == f"{number}{step}{end}"
        assert f"{solution.step_rewards[number]:+.3f}" in row
        assert f"{solution.q_values[number]:+.3f}" in row

    hostile = ("<script>alert(1)</script>", *solution.tokens[1:])
    html = replace(solution, tokens=hostile)._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_html_colours_follow_the_sign(scored: list[ScoredSolution]) -> None:
    solution = replace(
        scored[0],
        tokens=("a", "b"),
        token_rewards=np.array([0.5, -1.0], dtype=np.float32),
        step_ends=(2,),
        step_rewards=np.array([-0.5]),
        q_values=np.array([-0.5]),
    )
    html = solution._repr_html_()
    assert "rgba(0,114,178,0.50)" in html  # half as strong as the largest
    assert "rgba(213,94,0,1.00)" in html
    assert replace(solution, token_rewards=np.zeros(2))._repr_html_().count(",0.00)") == 2


def test_a_conversational_completion_scores_as_its_text(prm: ImplicitPRM) -> None:
    text = "7+5=12\n12-3=9\n#9"
    message = [{"role": "assistant", "content": text}]
    plain = prm.score_dataset(
        datasets.Dataset.from_list([{"prompt": "7+5-3\n", "completion": text}])
    )
    chat = prm.score_dataset(
        datasets.Dataset.from_list([{"prompt": "7+5-3\n", "completion": message}])
    )
    assert plain[0]["step_rewards"] == chat[0]["step_rewards"]
