"""implicitprm.arithmetic: the world and its truth, and the rollouts and checkpoints shipped."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, hypergeom
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, LlamaForCausalLM

from implicitprm.arithmetic import (
    ARITHMETIC_FORMAT,
    Fact,
    Problem,
    Tutor,
    check_solution,
    checkpoint_path,
    load_rollouts,
    reasoner,
    sample_problem,
    unseen_facts,
)
from implicitprm.arithmetic.collect import (
    OPERATION_SETS,
    ROLLOUTS,
    SAMPLERS,
    SPLIT_SIZES,
    WORLDS,
    problems_of,
    rollouts_path,
    rows_of,
)
from implicitprm.arithmetic.pretrain import TutorStream, collate, recipes
from implicitprm.arithmetic.problems import ERROR_KINDS, FACTS, SolutionTruth
from implicitprm.arithmetic.reasoner import GENERATORS, build_reasoner
from implicitprm.arithmetic.split import split_problems, uses_any
from implicitprm.arithmetic.tokenizer import build_tokenizer
from implicitprm.arithmetic.tutor import MISCONCEPTION_RATES, SLIP_RATES
from implicitprm.logprobs import score_logps
from implicitprm.rollouts import Rollout
from implicitprm.steps import Solution, encode

OPERANDS = {"+": (1, 9), "-": (1, 9), "*": (2, 5)}
FILES = [(world, split) for world, (_, _, splits) in WORLDS.items() for split in splits]


def calculate(state: int, sign: str, operand: int) -> int:
    """The world's arithmetic, written down a second time."""
    return {"+": state + operand, "-": state - operand, "*": state * operand}[sign] % 50


operations = st.sampled_from("+-*").flatmap(
    lambda sign: st.tuples(st.just(sign), st.integers(*OPERANDS[sign]))
)
any_problem = st.builds(
    Problem, st.integers(0, 49), st.lists(operations, min_size=1, max_size=8).map(tuple)
)


# --- problems -------------------------------------------------------------------------------------


@given(any_problem)
def test_a_problem_is_its_prompt(problem: Problem) -> None:
    assert Problem.parse(problem.prompt) == problem


@given(any_problem)
def test_the_true_solution_is_valid(problem: Problem) -> None:
    state = problem.start
    for (sign, operand), step in zip(problem.operations, problem.steps, strict=False):
        assert step == f"{state}{sign}{operand}={(state := calculate(state, sign, operand))}"
    assert problem.steps[-1] == f"#{state}" == f"#{problem.answer}"
    truth = check_solution(problem, problem.steps)
    assert truth.correct
    assert not truth.lucky
    assert (truth.first_error, truth.kind) == (-1, None)
    assert all(truth.valid)
    assert all(truth.on_track)
    assert truth.facts == (*problem.facts, None)


@pytest.mark.parametrize("text", ["", "7\n", "7+5", "7+5=\n", "x+5\n", "7+5-\n", "7/5\n", " 7+5\n"])
def test_text_that_is_no_problem(text: str) -> None:
    with pytest.raises(ValueError, match="is not an arithmetic problem"):
        Problem.parse(text)


def test_the_facts_table() -> None:
    assert len(FACTS) == len(set(FACTS)) == 1100
    for fact in FACTS:
        low, high = OPERANDS[fact.operation]
        assert 0 <= fact.state < 50
        assert low <= fact.operand <= high
        assert fact.result == calculate(fact.state, fact.operation, fact.operand)
    assert str(Fact(45, "+", 9)) == "45+9"
    assert Fact(45, "+", 9).result == 4
    assert Fact(3, "-", 9).result == 44


def test_sampled_problems_follow_the_stated_odds() -> None:
    rng = np.random.default_rng(0)
    drawn = [sample_problem(rng) for _ in range(2000)]
    lengths = Counter(len(problem.operations) for problem in drawn)
    assert set(lengths) == set(range(3, 9))
    assert chisquare([lengths[k] for k in range(3, 9)]).pvalue > 0.001
    signs = Counter(sign for problem in drawn for sign, _ in problem.operations)
    total = sum(signs.values())
    assert chisquare([signs[s] for s in "+-*"], [0.4 * total, 0.4 * total, 0.2 * total])[1] > 0.001
    operands = Counter(pair for problem in drawn for pair in problem.operations)
    assert {(s, n) for s, (low, high) in OPERANDS.items() for n in range(low, high + 1)} == set(
        operands
    )
    assert {fact for problem in drawn for fact in problem.facts} <= set(FACTS)
    assert all(len(sample_problem(rng, (5, 5)).operations) == 5 for _ in range(9))


# --- the truth of a solution ----------------------------------------------------------------------

T, F = True, False


@pytest.mark.parametrize(
    ("steps", "first_error", "kind", "valid", "on_track", "correct"),
    [
        # an arithmetic slip; what follows is valid, given the wrong state, and off track
        ("7+5=13 13-3=10 #10", 0, "arithmetic", (F, T, T), (F, F, F), F),
        ("7+5=12 12-3=8 #8", 1, "arithmetic", (T, F, T), (T, F, F), F),
        # two slips that cancel: lucky
        ("7+5=13 13-3=9 #9", 0, "arithmetic", (F, F, T), (F, T, T), T),
        # a miscopied state, operand, answer
        ("7+5=12 13-3=10 #10", 1, "operand", (T, F, T), (T, F, F), F),
        ("7+5=12 12-4=8 #8", 1, "operand", (T, F, T), (T, F, F), F),
        ("7+5=12 12-3=9 #8", 2, "operand", (T, T, F), (T, T, F), F),
        # a state or operand outside the world
        ("7+5=12 12-0=12 #12", 1, "operand", (T, F, T), (T, F, F), F),
        # another operation, or no operation
        ("7+5=12 12+3=15 #15", 1, "operation", (T, F, T), (T, F, F), F),
        ("7+5=12 12+-3 #9", 1, "operation", (T, F, F), (T, F, T), T),
        # an answer too early
        ("7+5=12 #12", 1, "premature_end", (T, F), (T, F), F),
        ("#9", 0, "premature_end", (F,), (F,), T),
        # no answer, or more after it
        ("7+5=12 12-3=9", 1, "missing_end", (T, F), (T, T), F),
        ("7+5=12", 0, "missing_end", (F,), (T,), F),
        ("7+5=12 12-3=9 9-3=6 #6", 2, "missing_end", (T, T, F, F), (T, T, F, F), F),
        ("7+5=12 12-3=9 #9 #9", 3, "missing_end", (T, T, T, F), (T, T, T, T), T),
    ],
)
def test_errors_by_hand(
    steps: str,
    first_error: int,
    kind: str,
    valid: tuple[bool, ...],
    on_track: tuple[bool, ...],
    correct: bool,
) -> None:
    truth = check_solution(Problem.parse("7+5-3\n"), steps.split())
    assert (truth.first_error, truth.kind) == (first_error, kind)
    assert truth.valid == valid
    assert truth.on_track == on_track
    assert truth.correct == correct
    assert truth.lucky == correct
    assert kind in ERROR_KINDS


def test_a_solution_that_was_cut_off_has_no_end() -> None:
    problem = Problem.parse("7+5-3\n")
    truth = check_solution(problem, problem.steps, finished=False)
    assert (truth.first_error, truth.kind, truth.correct) == (2, "missing_end", False)
    assert truth.valid == (True, True, False)
    # An earlier error is the first one all the same.
    truth = check_solution(problem, ["7+5=13", "13-3="], finished=False)
    assert (truth.first_error, truth.kind) == (0, "arithmetic")


def test_the_facts_of_a_solution_are_those_written() -> None:
    truth = check_solution(Problem.parse("7+5-3\n"), ["7+5=13", "13*9=17", "#17"])
    assert truth.facts == (Fact(7, "+", 5), None, None)  # no table has a times nine


def test_no_steps_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        check_solution(Problem.parse("7+5-3\n"), [])


@given(any_problem, st.integers(0, 2**32 - 1))
def test_truth_of_tutored_solutions(problem: Problem, seed: int) -> None:
    """The tutor only errs in arithmetic: an independent calculator finds the same errors."""
    steps = TUTOR.solve(problem, np.random.default_rng(seed))
    written = [tuple(re.findall(r"\d+|\D", step)) for step in steps[:-1]]
    states = [int(result) for _, _, _, _, result in written]
    valid = [calculate(int(a), sign, int(b)) == int(c) for a, sign, b, _, c in written]
    truth = check_solution(problem, steps)
    assert truth.valid == (*valid, True)
    true_states = [fact.result for fact in problem.facts]
    on_track = [state == true for state, true in zip(states, true_states, strict=True)]
    assert truth.on_track == (*on_track, on_track[-1])
    assert truth.correct == on_track[-1]
    assert truth.first_error == (valid.index(False) if False in valid else -1)
    assert truth.kind == ("arithmetic" if False in valid else None)


# --- the tutor ------------------------------------------------------------------------------------

TUTOR = Tutor()


def test_errors_propagate() -> None:
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(200):
        problem = sample_problem(rng)
        steps = TUTOR.solve(problem, rng)
        state = str(problem.start)
        for step, (sign, operand) in zip(steps, problem.operations, strict=False):
            left, state_after = step.split("=")
            assert left == f"{state}{sign}{operand}"
            state = state_after
        assert steps[-1] == f"#{state}"
        wrong += state != str(problem.answer)
    assert 0 < wrong < 200


def test_a_habit_has_one_favourite_error() -> None:
    for fact, habit in TUTOR.habits.items():
        odds = np.diff([0.0, *habit.cumulative, 1.0])
        assert habit.answers[0] == fact.result
        assert len(set(habit.answers)) == len(habit.answers) == len(odds)
        assert all(0 <= answer < 50 for answer in habit.answers)
        assert (odds > 0).all()
        assert habit.error_rate == pytest.approx(1 - odds[0])
        assert odds[1:].max() == pytest.approx(0.8 * habit.error_rate)
        low, high = MISCONCEPTION_RATES if fact in TUTOR.misconceptions else SLIP_RATES
        assert low <= habit.error_rate <= high
    favourites = {
        int(np.argmax(np.diff([0.0, *h.cumulative, 1.0])[1:])) for h in TUTOR.habits.values()
    }
    assert len(favourites) > 3  # not the same place in every list


def test_errors_come_as_often_as_the_habit_says() -> None:
    rng = np.random.default_rng(0)
    misconceptions = sorted(TUTOR.misconceptions)[::40]
    slips = sorted(set(FACTS) - TUTOR.misconceptions)[::250]
    for fact in misconceptions + slips:
        habit = TUTOR.habits[fact]
        problem = Problem(fact.state, ((fact.operation, fact.operand),))
        answers = Counter(TUTOR.solve(problem, rng)[-1] for _ in range(3000))
        observed = [answers[f"#{answer}"] for answer in habit.answers]
        assert sum(observed) == 3000
        expected = 3000 * np.diff([0.0, *habit.cumulative, 1.0])
        assert chisquare(observed, expected).pvalue > 1e-4, fact


def test_the_control_tutor_differs_in_misconceptions_only() -> None:
    control = Tutor(misconception_share=0.0)
    assert control.misconceptions == frozenset()
    for fact, habit in TUTOR.habits.items():
        other = control.habits[fact]
        if fact in TUTOR.misconceptions:
            assert other.answers == habit.answers
            assert other.error_rate <= SLIP_RATES[1] < MISCONCEPTION_RATES[0] <= habit.error_rate
            # the same favourite wrong answer, only rarer
            odds, control_odds = (np.diff([0.0, *h.cumulative]) for h in (habit, other))
            np.testing.assert_allclose(
                odds[1:] / habit.error_rate, control_odds[1:] / other.error_rate
            )
        else:
            assert other == habit


def test_tutors_of_one_seed_are_one_tutor() -> None:
    assert Tutor(0).habits == TUTOR.habits
    assert Tutor(1).habits != TUTOR.habits
    assert Tutor(1).misconceptions != TUTOR.misconceptions
    problem = Problem.parse("7+5-3*4+9-1+2-8\n")
    one, other = (TUTOR.solve(problem, np.random.default_rng(5)) for _ in range(2))
    assert one == other
    half = Tutor(error_scale=0.5)
    for fact, habit in TUTOR.habits.items():
        assert half.habits[fact].error_rate == pytest.approx(0.5 * habit.error_rate)


# --- tokenizer and reasoner -----------------------------------------------------------------------


@given(any_problem)
def test_encode_and_decode(problem: Problem) -> None:
    tokenizer = build_tokenizer()
    text = problem.prompt + "\n".join(problem.steps)
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids) == text
    # One token per number, sign and line end, and no other.
    assert tokenizer.convert_ids_to_tokens(ids) == re.findall(r"\d+|\D", text)


def test_the_tokenizer_survives_saving(tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "7+5-3*2\n7+5=12\n12-3=9\n9*2=18\n#18<eos>"
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded(text).input_ids == tokenizer(text).input_ids
    assert loaded.decode(loaded(text).input_ids) == text
    assert loaded.special_tokens_map == tokenizer.special_tokens_map
    assert (loaded.pad_token_id, loaded.bos_token_id, loaded.eos_token_id) == (0, 1, 2)
    assert len(loaded) == 3 + 50 + 6


@pytest.mark.parametrize("text", ["77+5\n", "7 + 5\n", "x", "07+5\n", "7.5"])
def test_text_outside_the_world_has_no_tokens(text: str) -> None:
    with pytest.raises(Exception, match="WordLevel error: Missing"):
        build_tokenizer()(text)


def test_the_reasoner_is_as_large_as_it_says() -> None:
    model = build_reasoner()
    count = sum(weight.numel() for weight in model.parameters())
    # 59 tokens; per layer four projections, three of the MLP, two norms; the last norm
    assert count == 59 * 64 + 3 * (4 * 64 * 64 + 3 * 64 * 256 + 2 * 64) + 64
    assert f"{count:,} parameters" in str(reasoner.__doc__)


def test_the_loss_of_pretraining_is_on_the_solution_only() -> None:
    tokenizer = build_tokenizer()
    stream = iter(TutorStream(TUTOR, tokenizer, seed=0))
    rows = [next(stream) for _ in range(3)]
    assert len({len(row["input_ids"]) for row in rows}) == 1  # one chain length a batch
    for row in rows:
        prompt, response = str(tokenizer.decode(row["input_ids"])).split("\n", 1)
        start = len(tokenizer(prompt + "\n").input_ids)
        assert row["labels"] == [-100] * start + row["input_ids"][start:]
        assert response.endswith("<eos>")
        assert check_solution(Problem.parse(prompt + "\n"), response[:-5].split("\n")).valid[-1]
    assert next(iter(TutorStream(TUTOR, tokenizer, seed=0))) == rows[0]
    short = {name: values[:7] for name, values in rows[0].items()}
    batch = collate([short, rows[1]])
    assert batch["attention_mask"][0].tolist() == [True] * 7 + [False] * (
        len(rows[1]["labels"]) - 7
    )
    assert (batch["labels"][0, 7:] == -100).all()
    assert batch["labels"][1].tolist() == rows[1]["labels"]


def test_generators() -> None:
    made = recipes()
    snapshots = {recipe.snapshot[1] for recipe in made.values() if recipe.snapshot}
    assert set(made) | snapshots == set(GENERATORS)
    assert not set(made) & snapshots
    assert made["control"].tutor.misconceptions == frozenset()
    with pytest.raises(ValueError, match=r"no generator 'weak'; there are early, reasoner"):
        checkpoint_path("weak")


# --- the split ------------------------------------------------------------------------------------

UNSEEN = unseen_facts(TUTOR)


def test_unseen_facts_are_a_tenth_of_each_kind() -> None:
    assert len(UNSEEN & TUTOR.misconceptions) == round(0.1 * len(TUTOR.misconceptions))
    assert len(UNSEEN - TUTOR.misconceptions) == round(0.1 * (1100 - len(TUTOR.misconceptions)))
    assert unseen_facts(Tutor()) == UNSEEN
    assert unseen_facts(TUTOR, seed=1) != UNSEEN


def test_split_problems() -> None:
    sizes = {"train": (40, False), "test": (30, False), "other": (20, True)}
    parts = split_problems(sizes, UNSEEN, seed=0)
    assert {name: len(problems) for name, problems in parts.items()} == {
        "train": 40,
        "test": 30,
        "other": 20,
    }
    everything = [problem for problems in parts.values() for problem in problems]
    assert len(set(everything)) == 90
    for name, problems in parts.items():
        assert all(uses_any(problem, UNSEEN) == sizes[name][1] for problem in problems)
    assert split_problems(sizes, UNSEEN, seed=0) == parts
    assert split_problems(sizes, UNSEEN, seed=1) != parts


def test_a_problem_drawn_twice_is_used_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of the problems of one operation there are few: some are drawn again among 400.
    monkeypatch.setattr(
        "implicitprm.arithmetic.split.sample_problem", lambda rng: sample_problem(rng, (1, 1))
    )
    sizes = {"train": (200, False), "test": (200, False)}
    drawn = [problem for part in split_problems(sizes, UNSEEN, seed=0).values() for problem in part]
    assert len(set(drawn)) == 400


# --- what is shipped: rollouts --------------------------------------------------------------------


Shipped = dict[tuple[str, str], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def shipped() -> Shipped:
    return {file: load_rollouts(*file).to_list() for file in FILES}


def truth_of(row: dict[str, Any]) -> SolutionTruth:
    return check_solution(Problem.parse(row["prompt"]), row["steps"], row["finished"])


def test_unknown_files_are_named() -> None:
    with pytest.raises(
        ValueError, match=r"no rollouts of 'strong' for 'train'.*strong \(test, test_unseen\)"
    ):
        rollouts_path("strong", "train")
    with pytest.raises(ValueError, match="no rollouts of 'weak'"):
        load_rollouts("weak", "test")


@pytest.mark.parametrize("file", FILES, ids="-".join)
def test_stored_truth_is_the_truth(shipped: Shipped, file: tuple[str, str]) -> None:
    seen = set()
    for row in shipped[file]:
        assert row["steps"] == list(ARITHMETIC_FORMAT.split(row["completion"]))
        truth = truth_of(row)
        assert row["label"] is truth.correct
        assert (row["first_error"], row["kind"]) == (truth.first_error, truth.kind)
        assert row["valid"] == list(truth.valid)
        assert row["on_track"] == list(truth.on_track)
        assert row["weight"] >= 1
        seen.add((row["prompt"], row["completion"], row["finished"]))
    assert len(seen) == len(shipped[file])  # one row per distinct completion


@pytest.mark.parametrize("file", FILES, ids="-".join)
def test_every_rollout_is_counted(shipped: Shipped, file: tuple[str, str]) -> None:
    split = file[1]
    drawn: Counter[str] = Counter()
    for row in shipped[file]:
        drawn[row["prompt"]] += row["weight"]
    problems = [problem.prompt for problem in problems_of(split)]
    assert len(problems) == SPLIT_SIZES[split][0]
    assert set(drawn) <= set(problems)
    if split == "train":  # solutions that go through an unseen fact are left out
        assert max(drawn.values()) == ROLLOUTS[split]
        assert 0.5 < sum(drawn.values()) / (len(problems) * ROLLOUTS[split]) < 1
    else:
        assert [drawn[prompt] for prompt in problems] == [ROLLOUTS[split]] * len(problems)


def test_no_problem_is_in_two_splits(shipped: Shipped) -> None:
    prompts: dict[str, set[str]] = {split: set() for split in SPLIT_SIZES}
    for (_, split), rows in shipped.items():
        prompts[split] |= {row["prompt"] for row in rows}
    assert len(set().union(*prompts.values())) == sum(map(len, prompts.values()))
    for split, (_, wanted) in SPLIT_SIZES.items():
        for prompt in prompts[split]:
            assert uses_any(Problem.parse(prompt), UNSEEN) == wanted


@pytest.mark.parametrize("file", [file for file in FILES if file[1] == "train"], ids="-".join)
def test_no_unseen_fact_is_trained_on(shipped: Shipped, file: tuple[str, str]) -> None:
    facts = {fact for row in shipped[file] for fact in truth_of(row).facts if fact is not None}
    assert facts.isdisjoint(UNSEEN)
    assert len(facts) > 0.9 * (len(FACTS) - len(UNSEEN))  # all others are there, or nearly all


def test_rows_of_counts_equal_rollouts() -> None:
    problem = Problem.parse("7+5-3\n")
    right, wrong = "\n".join(problem.steps), "7+5=13\n13-3=10\n#10"
    drawn = [Rollout(text, True) for text in (right, wrong, right)] + [Rollout(right, False)]
    rows = rows_of(problem, drawn)
    assert [(row["completion"], row["weight"], row["label"]) for row in rows] == [
        (right, 2, True),
        (wrong, 1, False),
        (right, 1, False),
    ]


# --- what is shipped: checkpoints -----------------------------------------------------------------

SAMPLE = 16


def load(generator: str) -> LlamaForCausalLM:
    return AutoModelForCausalLM.from_pretrained(checkpoint_path(generator)).eval()


def cached_logps(model: LlamaForCausalLM, ids: list[int], start: int) -> list[float]:
    """log p of the tokens from ``start`` on, through a cache, without anything of ours."""
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        logits = model(torch.tensor([ids[:start]]), past_key_values=cache).logits[0, -1]
        logps = []
        for token in ids[start:]:
            logps.append(float(logits.log_softmax(-1)[token]))
            logits = model(torch.tensor([[token]]), past_key_values=cache).logits[0, -1]
    return logps


def sampler_logps(model: LlamaForCausalLM, ids: list[int], start: int, min_p: float) -> list[float]:
    """log-probability of each response token under the sampler; −inf where it drops the token."""
    with torch.inference_mode():
        logps = model(torch.tensor([ids])).logits[0, start - 1 : -1].double().log_softmax(-1)
    # A hair of tolerance: the shipped rows were sampled in batches, through a cache.
    dropped = logps < logps.max(-1, keepdim=True).values + np.log(max(min_p, 1e-30)) - 1e-3
    kept = logps.masked_fill(dropped, -torch.inf).log_softmax(-1)
    return kept[range(len(ids) - start), ids[start:]].tolist()


def sample_rows(rows: list[dict[str, Any]]) -> list[tuple[dict[str, Any], list[int], int]]:
    """Rows spread over the file, with their token ids and the index of the first response token."""
    tokenizer = build_tokenizer()
    picked = np.linspace(0, len(rows) - 1, SAMPLE).astype(int).tolist()
    result = []
    for row in map(rows.__getitem__, picked):
        end = "<eos>" if row["finished"] else ""
        ids = tokenizer(row["prompt"] + row["completion"] + end).input_ids
        result.append((row, ids, len(tokenizer(row["prompt"]).input_ids)))
    return result


@pytest.mark.parametrize("world", WORLDS)
def test_shipped_rollouts_match_the_shipped_checkpoint(shipped: Shipped, world: str) -> None:
    generator, sampler, _ = WORLDS[world]
    model, tokenizer = load(generator), build_tokenizer()
    assert (
        AutoTokenizer.from_pretrained(checkpoint_path(generator)).get_vocab()
        == tokenizer.get_vocab()
    )
    rows = [row for row in sample_rows(shipped[world, "test"]) if row[0]["completion"].strip()]
    assert len(rows) > 0.9 * SAMPLE
    encoded = [
        encode(
            tokenizer,
            Solution(row["prompt"], (row["completion"],), row["finished"]),
            ARITHMETIC_FORMAT,
        )
        for row, _, _ in rows
    ]
    for (row, ids, start), solution, scored in zip(
        rows, encoded, score_logps(model, encoded, 0, 16, "test"), strict=True
    ):
        assert list(solution.input_ids) == ids
        assert float(scored.sum()) == pytest.approx(sum(cached_logps(model, ids, start)), abs=1e-3)
        drawn = sampler_logps(model, ids, start, SAMPLERS[sampler].min_p)
        assert min(drawn) > -np.inf, row


def disagreement(rows: list[dict[str, Any]], generator: str) -> float:
    """How far counts lie from what the generator would draw, in standard deviations.

    For the likeliest completion of each of a few prompts: its count out of 64 draws has mean 64 p
    and variance 64 p (1 − p).
    """
    model, tokenizer, draws = load(generator), build_tokenizer(), ROLLOUTS["test"]
    misses, variance = 0.0, 0.0
    for prompt in sorted({row["prompt"] for row in rows})[:30]:
        start, odds = len(tokenizer(prompt).input_ids), []
        for row in rows:
            if row["prompt"] == prompt:
                ids = tokenizer(prompt + row["completion"] + "<eos>").input_ids
                odds.append((np.exp(sum(sampler_logps(model, ids, start, 0.05))), row["weight"]))
        p, count = max(odds)
        misses += count - draws * p
        variance += draws * p * (1 - p)
    return abs(misses) / max(np.sqrt(variance), 1e-9)


def test_shipped_counts_fit_the_generator_and_no_other(shipped: Shipped) -> None:
    rows = shipped["reasoner", "test"]
    assert disagreement(rows, "reasoner") < 4
    assert disagreement(rows, "early") > 8
    assert disagreement(rows, "strong") > 8


# --- calibration ----------------------------------------------------------------------------------


def at_16(rows: list[dict[str, Any]]) -> dict[str, float]:
    """pass@1, pass@16 and majority of 16 over problems, from all rollouts of each problem.

    Sixteen are drawn out of 64 without replacement; ties in a vote are broken at random.
    """
    rng = np.random.default_rng(0)
    candidates: dict[str, list[tuple[str, bool]]] = {}
    for row in rows:
        one = (row["steps"][-1], row["label"])
        candidates.setdefault(row["prompt"], []).extend([one] * row["weight"])
    results: dict[str, list[float]] = {"pass@1": [], "pass@16": [], "majority": []}
    for drawn in candidates.values():
        right = sum(label for _, label in drawn)
        results["pass@1"].append(right / len(drawn))
        results["pass@16"].append(1 - hypergeom.pmf(0, len(drawn), right, 16))
        votes = []
        for _ in range(20):
            chosen = [drawn[index] for index in rng.choice(len(drawn), 16, replace=False)]
            counts = Counter(answer for answer, _ in chosen)
            top = [answer for answer in counts if counts[answer] == max(counts.values())]
            winner = top[rng.integers(len(top))]
            votes.append(next(label for answer, label in chosen if answer == winner))
        results["majority"].append(float(np.mean(votes)))
    return {name: 100 * float(np.mean(values)) for name, values in results.items()}


def test_the_world_is_neither_too_easy_nor_too_hard(
    shipped: Shipped,
) -> None:
    measured = at_16(shipped["reasoner", "test"])
    assert 35 <= measured["pass@1"] <= 60
    assert measured["pass@16"] >= 90
    assert measured["majority"] <= measured["pass@16"] - 15


def test_voting_is_strong_without_misconceptions(shipped: Shipped) -> None:
    control, world = at_16(shipped["control", "test"]), at_16(shipped["reasoner", "test"])
    assert control["majority"] >= control["pass@16"] - 5
    assert control["majority"] - control["pass@1"] > 2 * (world["majority"] - world["pass@1"])


def test_generators_differ_in_strength(shipped: Shipped) -> None:
    early, middle, strong = (
        np.average([row["label"] for row in rows], weights=[row["weight"] for row in rows])
        for rows in (shipped[world, "test"] for world in ("early", "reasoner", "strong"))
    )
    assert early < middle - 0.1
    assert middle < strong - 0.1


@pytest.mark.parametrize("prompt", ["77+5\n", "7*9\n", "7+10\n", "7-0\n"])
def test_a_problem_outside_the_world_is_refused(prompt: str) -> None:
    with pytest.raises(ValueError, match="outside this world"):
        Problem.parse(prompt)


# --- problems of some operations only (chapter 09) ------------------------------------------------


@pytest.fixture(scope="module")
def operation_rows() -> dict[str, list[dict[str, Any]]]:
    return {name: list(load_rollouts("reasoner", name)) for name in OPERATION_SETS}


def test_operations_are_drawn_from_the_given_odds_alone() -> None:
    rng = np.random.default_rng(0)
    drawn = [sample_problem(rng, probabilities={"+": 0.75, "*": 0.25}) for _ in range(300)]
    signs = Counter(sign for problem in drawn for sign, _ in problem.operations)
    assert set(signs) == {"+", "*"}
    assert signs["+"] / sum(signs.values()) == pytest.approx(0.75, abs=0.05)
    assert {len(problem.operations) for problem in drawn} == set(range(3, 9))


@pytest.mark.parametrize("name", OPERATION_SETS)
def test_operation_sets_hold_what_they_say(
    operation_rows: dict[str, list[dict[str, Any]]], name: str
) -> None:
    operations, size, draws = OPERATION_SETS[name]
    problems = problems_of(name)
    assert len(set(problems)) == size
    assert {sign for p in problems for sign, _ in p.operations} == set(operations)
    assert not any(uses_any(p, UNSEEN) for p in problems)
    drawn: Counter[str] = Counter()
    for row in operation_rows[name]:
        truth = truth_of(row)
        assert row["label"] is truth.correct
        assert (row["first_error"], row["kind"]) == (truth.first_error, truth.kind)
        assert (row["valid"], row["on_track"]) == (list(truth.valid), list(truth.on_track))
        drawn[row["prompt"]] += row["weight"]
        if name != "plus_times_test":  # a PRM is trained on it
            assert not UNSEEN & {fact for fact in truth.facts if fact is not None}
    assert set(drawn) <= {p.prompt for p in problems}
    if name == "plus_times_test":
        assert set(drawn.values()) == {draws}
        assert len(drawn) == size
    else:
        assert max(drawn.values()) == draws
        assert 0.8 < sum(drawn.values()) / (size * draws) < 1


def test_operation_sets_share_no_problem_with_another_split(
    operation_rows: dict[str, list[dict[str, Any]]], shipped: Shipped
) -> None:
    sets = [{row["prompt"] for row in rows} for rows in operation_rows.values()]
    others = {row["prompt"] for rows in shipped.values() for row in rows}
    assert len(others.union(*sets)) == len(others) + sum(map(len, sets))


def test_operation_sets_are_the_reasoners(
    operation_rows: dict[str, list[dict[str, Any]]],
) -> None:
    model = load("reasoner")
    for rows in operation_rows.values():
        for row, ids, start in sample_rows(rows):
            assert min(sampler_logps(model, ids, start, 0.05)) > -np.inf, row
