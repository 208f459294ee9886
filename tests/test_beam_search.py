"""Beam search over steps: against greedy search, best-of-N, and a tree that is enumerated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from tiny import problems
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
from transformers import PreTrainedTokenizerBase as Tokenizer

from implicitprm import ImplicitPRM, Solution
from implicitprm.arithmetic import ARITHMETIC_FORMAT, checkpoint_path
from implicitprm.beam_search import Guide, Search, beam_search, step_guide
from implicitprm.rollouts import Rollout, Sampling, sample_rollouts
from implicitprm.selection import aggregate

PROMPTS = [problem.prompt for problem in problems(6)]
MIN_P = Sampling(max_new_tokens=20, min_p=0.05)
GREEDY = Sampling(max_new_tokens=20, temperature=1e-3)
GREEDY_WHOLE = Sampling(max_new_tokens=64, temperature=1e-3)


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return AutoModelForCausalLM.from_pretrained(checkpoint_path()).eval()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return AutoTokenizer.from_pretrained(checkpoint_path())


@pytest.fixture(scope="module")
def likelihood(model: LlamaForCausalLM, tokenizer: Tokenizer) -> Guide:
    return step_guide(ImplicitPRM(model, None, tokenizer, 1.0, ARITHMETIC_FORMAT), "sum")


def search(
    model: LlamaForCausalLM,
    tokenizer: Tokenizer,
    guide: Guide,
    prompts: Sequence[str] = PROMPTS,
    **options: object,
) -> list[Search]:
    chosen = {
        "width": 2,
        "expansions": 3,
        "max_steps": 12,
        "sampling": MIN_P,
        "format": ARITHMETIC_FORMAT,
        "seed": 0,
    } | options
    return beam_search(model, tokenizer, prompts, guide, **chosen)  # type: ignore[arg-type]


def by_length(solutions: Sequence[Solution]) -> list[float]:
    return [float(len("\n".join(solution.steps))) for solution in solutions]


def test_stop_ends_a_rollout_with_the_separator(
    model: LlamaForCausalLM, tokenizer: Tokenizer
) -> None:
    """Step after step, greedily, is the whole solution; tokens are counted with the last one."""
    whole = sample_rollouts(
        model, tokenizer, PROMPTS, n=1, sampling=GREEDY_WHOLE, format=ARITHMETIC_FORMAT, seed=0
    )
    texts, counts, open_ = [""] * len(PROMPTS), [0] * len(PROMPTS), set(range(len(PROMPTS)))
    while open_:
        rows = sorted(open_)
        steps = sample_rollouts(
            model,
            tokenizer,
            [PROMPTS[row] for row in rows],
            n=1,
            sampling=GREEDY,
            format=ARITHMETIC_FORMAT,
            seed=0,
            prefixes=[texts[row] for row in rows],
            stop="\n",
        )
        for row, (rollout,) in zip(rows, steps, strict=True):
            assert rollout.finished or rollout.completion.count("\n") == 1
            assert rollout.finished or rollout.completion.endswith("\n")
            texts[row] += rollout.completion
            counts[row] += rollout.tokens
            if rollout.finished:
                open_.remove(row)
    for row, (rollout,) in enumerate(whole):
        assert texts[row] == rollout.completion
        end = 1  # the end-of-text token
        assert counts[row] == rollout.tokens == len(tokenizer(texts[row]).input_ids) + end


def test_one_beam_of_a_greedy_sampler_is_greedy_search(
    model: LlamaForCausalLM, tokenizer: Tokenizer, likelihood: Guide
) -> None:
    whole = sample_rollouts(
        model, tokenizer, PROMPTS, n=1, sampling=GREEDY_WHOLE, format=ARITHMETIC_FORMAT, seed=0
    )
    found = search(model, tokenizer, likelihood, width=1, expansions=1, sampling=GREEDY)
    assert [result.best.text for result in found] == [rows[0].completion for rows in whole]
    assert [result.tokens for result in found] == [rows[0].tokens for rows in whole]


def test_scores_are_those_of_the_whole_text(
    model: LlamaForCausalLM, tokenizer: Tokenizer, likelihood: Guide
) -> None:
    prm = ImplicitPRM(model, None, tokenizer, 1.0, ARITHMETIC_FORMAT)
    for prompt, result in zip(PROMPTS, search(model, tokenizer, likelihood), strict=True):
        scores = [beam.score for beam in result.beams]
        assert scores == sorted(scores, reverse=True)
        assert len({beam.text for beam in result.beams}) == len(result.beams) <= 2
        for beam in result.beams:
            scored = prm.score(prompt, ARITHMETIC_FORMAT.split(beam.text), beam.finished)
            assert beam.score == pytest.approx(scored.policy_logps.sum(), abs=1e-4)


def test_the_separator_counts_to_an_unfinished_step(
    model: LlamaForCausalLM, tokenizer: Tokenizer
) -> None:
    seen: list[Solution] = []

    def guide(solutions: Sequence[Solution]) -> list[float]:
        seen.extend(solutions)
        return [0.0] * len(solutions)

    search(model, tokenizer, guide, max_steps=2)
    assert any(not solution.finished for solution in seen)
    for solution in seen:
        assert solution.finished or solution.steps[-1].endswith("\n")
        assert not any(step.endswith("\n") for step in solution.steps[:-1])


def tree(monkeypatch: pytest.MonkeyPatch, children: dict[str, list[tuple[str, bool]]]) -> list:
    """Replace the sampler: the children of a prefix, in turn. Returns its calls."""
    calls = []

    def sampler(*args: object, n: int, prefixes: list[str], **options: object) -> list[list]:
        calls.append((n, list(prefixes)))
        return [
            [Rollout(*children[prefix][i % len(children[prefix])], 5) for i in range(n)]
            for prefix in prefixes
        ]

    monkeypatch.setattr("implicitprm.beam_search.sample_rollouts", sampler)
    return calls


def test_by_hand(
    monkeypatch: pytest.MonkeyPatch, model: LlamaForCausalLM, tokenizer: Tokenizer
) -> None:
    """Width 2 keeps A and B of three; C, whose child would be best of all, is given up."""
    values = {"A": 3.0, "B": 2.0, "C": 1.0, "A a": 0.0, "A b": 1.0, "B a": 2.5, "B a x": 0.5}
    calls = tree(
        monkeypatch,
        {
            "": [("A\n", False), ("B\n", False), ("C\n", False)],
            "A\n": [("a", True), ("b\n", False)],
            "B\n": [("a\n", False), ("a\n", False)],
            "A\nb\n": [("c", True)],
            "B\na\n": [("x", True)],
        },
    )

    def guide(solutions: Sequence[Solution]) -> list[float]:
        return [values.get(" ".join(s.strip() for s in x.steps), 9.0) for x in solutions]

    (result,) = search(model, tokenizer, guide, prompts=["Q"], expansions=2)
    assert calls == [(4, [""]), (2, ["A\n", "B\n"]), (2, ["B\na\n", "A\nb\n"])]
    assert [(b.text, b.finished, b.score) for b in result.beams] == [
        ("A\nb\nc", True, 9.0),
        ("B\na\nx", True, 0.5),
    ]
    assert result.tokens == 5 * (4 + 4 + 4)


def test_a_finished_beam_stays_and_is_not_continued(
    monkeypatch: pytest.MonkeyPatch, model: LlamaForCausalLM, tokenizer: Tokenizer
) -> None:
    calls = tree(
        monkeypatch,
        {"": [("A", True), ("B\n", False)], "B\n": [("b\n", False)], "B\nb\n": [("b\n", False)]},
    )
    results = [
        search(model, tokenizer, by_length, prompts=["Q"], expansions=1, max_steps=rounds)[0]
        for rounds in (1, 3)
    ]
    assert [prefixes for _, prefixes in calls] == [[""], [""], ["B\n"], ["B\nb\n"]]
    # The longest is not finished when the rounds are over: the finished one is the answer.
    assert results[1].beams[0].text == "B\nb\nb\n"
    assert results[1].best.text == "A"


def test_a_candidate_without_text_is_the_last_choice(
    monkeypatch: pytest.MonkeyPatch, model: LlamaForCausalLM, tokenizer: Tokenizer
) -> None:
    tree(monkeypatch, {"": [("", True), ("A", True)]})
    (result,) = search(
        model, tokenizer, lambda s: [-5.0] * len(s), prompts=["Q"], expansions=1, max_steps=1
    )
    assert [(beam.text, beam.score) for beam in result.beams] == [("A", -5.0), ("", -np.inf)]


def test_one_seed_gives_one_search(
    model: LlamaForCausalLM, tokenizer: Tokenizer, likelihood: Guide
) -> None:
    first, again, other = (search(model, tokenizer, likelihood, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_a_better_guide_finds_likelier_solutions(
    model: LlamaForCausalLM, tokenizer: Tokenizer, likelihood: Guide
) -> None:
    def unlikely(solutions: Sequence[Solution]) -> list[float]:
        return [-score for score in likelihood(solutions)]

    def of(guide: Guide) -> float:
        found = search(model, tokenizer, guide)
        solutions = [
            Solution(prompt, ARITHMETIC_FORMAT.split(result.best.text), result.best.finished)
            for prompt, result in zip(PROMPTS, found, strict=True)
        ]
        return float(np.mean(likelihood(solutions)))

    assert of(likelihood) > of(unlikely) + 1


def test_step_guide_aggregates_step_rewards(model: LlamaForCausalLM, tokenizer: Tokenizer) -> None:
    prm = ImplicitPRM(model, None, tokenizer, 1.0, ARITHMETIC_FORMAT)
    solution = Solution("7+5-3\n", ("7+5=12", "12-3=8"), False)
    rewards = prm.score_solutions([solution])[0].step_rewards
    scores = {how: step_guide(prm, how)([solution]) for how in ("sum", "min")}
    assert scores == {how: [aggregate(rewards, how)] for how in scores}
    assert abs(scores["sum"][0] - scores["min"][0]) > 0.01  # two steps: they differ


@pytest.mark.parametrize("name", ["width", "expansions", "max_steps"])
def test_sizes_must_be_positive(
    name: str, model: LlamaForCausalLM, tokenizer: Tokenizer, likelihood: Guide
) -> None:
    sizes: dict[str, Any] = {name: 0}
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        search(model, tokenizer, likelihood, **sizes)


@pytest.mark.parametrize("guide", [lambda s: [0.0], lambda s: [float("nan")] * len(s)])
def test_a_guide_that_gives_no_scores(
    guide: Guide, model: LlamaForCausalLM, tokenizer: Tokenizer
) -> None:
    with pytest.raises(ValueError, match="the guide must give"):
        search(model, tokenizer, guide)
