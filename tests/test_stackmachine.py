from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from implicitprm.evaluation import vote_accuracy
from implicitprm.rollouts import Rollout
from implicitprm.stackmachine import (
    PROGRAM_FORMAT,
    ProgramTruth,
    Task,
    Tutor,
    behaviour,
    check_program,
    load_programs,
    reasoner_path,
    run,
    sample_task,
)
from implicitprm.stackmachine.collect import SAMPLING, SPLITS, rollouts_path, rows_of, tasks_of
from implicitprm.stackmachine.machine import (
    MODULUS,
    TESTS,
    VARIABLES,
    ProgramError,
    is_instruction,
    pushed,
)
from implicitprm.stackmachine.normal import Form, combine, push_form
from implicitprm.stackmachine.pretrain import ProgramStream
from implicitprm.stackmachine.problems import SIZES, distinct_tasks, form_of, parse, write
from implicitprm.stackmachine.tokenizer import INSTRUCTIONS, build_tokenizer
from implicitprm.stackmachine.truth import Target, target_of
from implicitprm.stackmachine.tutor import (
    CONTEXTS,
    STRUCTURAL,
    context_of,
    readings,
    wrong_readings,
)

seeds = st.integers(0, 10_000)
VALUES = dict(zip(VARIABLES, (2, 3, 5, 7, 11, 13, 17), strict=True))  # t u v w x y z


def drawn_task(seed: int, sizes: tuple[int, int] = SIZES) -> Task:
    return sample_task(np.random.default_rng(seed), sizes)


def steps(text: str) -> list[str]:
    """``"x y sub"`` → push x, push y, sub."""
    return [f"push {word}" if word in VARIABLES else word for word in text.split()]


# ---- The machine ----------------------------------------------------------------------------


def test_a_program_runs_as_by_hand() -> None:
    # 11 − (13 − 17)·2 = 19
    assert run(steps("x y z sub t mul sub end"), VALUES) == 19
    assert run(steps("x y sub end"), VALUES) == MODULUS - 2
    assert run(steps("x y swap sub end"), VALUES) == 2


@pytest.mark.parametrize(
    ("program", "step", "reason"),
    [
        ("x sub end", 1, "needs two values, found 1"),
        ("swap end", 0, "needs two values, found 0"),
        ("x y end", 2, "2 values left"),
        ("end", 0, "0 values left"),
        ("x end y", 2, "after the end"),
        ("x y add", 3, "no end"),
        ("x pop end", 1, "'pop' is no instruction"),
    ],
)
def test_a_program_that_fails_says_where_and_why(program: str, step: int, reason: str) -> None:
    with pytest.raises(ProgramError, match=reason) as error:
        run(steps(program), VALUES)
    assert error.value.step == step
    assert behaviour(steps(program)) is None


def test_behaviour_is_the_results_on_all_tests() -> None:
    assert len(TESTS) == 8
    expected = ";".join(str((test["x"] - test["y"]) % MODULUS) for test in TESTS)
    assert behaviour(steps("x y sub end")) == expected
    assert behaviour(steps("y x swap sub end")) == expected


# ---- Tasks ----------------------------------------------------------------------------------


@given(seeds)
def test_an_expression_is_read_as_it_was_written(seed: int) -> None:
    expression = drawn_task(seed).expression
    assert parse(write(expression)) == expression


@given(seeds)
def test_the_plain_program_computes_the_expression(seed: int) -> None:
    task = drawn_task(seed)
    assert run(task.steps, VALUES) == eval(write(task.expression), {}, VALUES) % MODULUS
    assert check_program(task, task.steps) == ProgramTruth(
        (True,) * len(task.steps), -1, None, True
    )


def test_parentheses_stand_where_they_are_needed() -> None:
    for text in ("x-(y-z)", "x-y-z", "(x+y)*z", "x+y*z", "x*(y*z)"):
        assert write(parse(text)) == text
    assert write(parse("((x*y))+(z)")) == "x*y+z"


@pytest.mark.parametrize("text", ["x/y", "x+", "", "a+x", "x y", "-x", "x**y", "3+x", "x\n+y"])
def test_other_texts_are_no_expressions(text: str) -> None:
    with pytest.raises(ValueError, match="no expression"):
        parse(text)


def test_a_prompt_ends_in_a_line_end() -> None:
    assert Task.parse("x+y\n").prompt == "x+y\n"
    with pytest.raises(ValueError, match="line end"):
        Task.parse("x+y")


@given(seeds)
def test_no_variable_occurs_twice(seed: int) -> None:
    prompt = drawn_task(seed).prompt
    assert max(Counter(c for c in prompt if c in VARIABLES).values()) == 1
    assert SIZES[0] <= sum(sign in "+-*" for sign in prompt) <= SIZES[1]


# ---- Normal forms ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("x-(y-z)", "x+z-y", True),
        ("x-(y-z)", "z-(y-x)", True),
        ("x*(y*z)", "z*y*x", True),
        ("t+(x-y)*(z-w)", "(y-x)*(w-z)+t", True),
        ("t-(x-y)*z", "t+(y-x)*z", True),
        ("x-y", "y-x", False),
        ("x-y-z", "x-(y-z)", False),
        ("x+y*z", "(x+y)*z", False),
    ],
)
def test_equal_expressions_have_one_form(one: str, other: str, equal: bool) -> None:
    assert (form_of(parse(one)) == form_of(parse(other))) is equal


# ---- The truth of a step --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "program", "first_error", "kind"),
    [
        ("x-(y-z)", "x y z sub sub end", -1, None),
        ("x-(y-z)", "y z sub x swap sub end", -1, None),  # the right side first
        ("x-(y-z)", "x y sub z add end", -1, None),  # another grouping of the same sum
        ("x-(y-z)", "z y sub x add end", -1, None),  # a difference the other way round
        ("x-(y-z)", "x y sub z sub end", 4, "operator"),
        ("x-(y-z)", "y z sub x sub end", 4, "order"),
        ("x+y*z", "x y add z mul end", 2, "grouping"),  # precedence ignored
        ("(x-y)*(z-t)", "y x sub t z sub mul end", -1, None),  # two signs exchanged
        ("(x-y)*z", "y x sub z mul end", 2, "order"),  # nothing is left to set the sign right
        ("(x-y)*z", "x y mul", 2, "operator"),
        ("x-y", "x x sub y", 1, "push"),
        ("x*(y+z)", "y x z", 2, "push"),  # y and z must be joined, but x stands between them
        ("x-y", "x sub", 1, "underflow"),
        ("x-y", "x y end", 2, "end"),
        ("x-y", "x y sub", 2, "end"),
        ("x-y", "x y sub end end", 4, "end"),
        ("x-y", "x pop y sub end", 1, "no program"),
    ],
)
def test_the_first_error_of_a_program(
    task: str, program: str, first_error: int, kind: str | None
) -> None:
    truth = check_program(Task.parse(task + "\n"), steps(program))
    assert (truth.first_error, truth.kind) == (first_error, kind)
    n_right = len(steps(program)) if first_error < 0 else first_error
    assert truth.right == tuple(i < n_right for i in range(len(steps(program))))
    assert truth.correct == (first_error < 0)


def test_a_repaired_program_is_lucky() -> None:
    # x·0 + (x − y): a value too many, made harmless in the end
    truth = check_program(Task.parse("x-y\n"), steps("x x x sub mul x y sub add end"))
    assert truth.lucky
    assert (truth.first_error, truth.kind) == (1, "push")


def test_an_unfinished_program_is_wrong_at_its_last_step() -> None:
    truth = check_program(Task.parse("x-y\n"), steps("x y sub end"), finished=False)
    assert (truth.first_error, truth.kind, truth.correct) == (3, "end", False)
    with pytest.raises(ValueError, match="at least one step"):
        check_program(Task.parse("x-y\n"), [])


Polynomial = frozenset[tuple[tuple[str, ...], int]]


def polynomial(stack: tuple[Polynomial, ...], instruction: str) -> tuple[Polynomial, ...]:
    """The stack of integer polynomials after an instruction: another route to the truth."""
    if (variable := pushed(instruction)) is not None:
        return (*stack, frozenset({((variable,), 1)}))
    *rest, below, top = stack
    if instruction == "swap":
        return (*rest, top, below)
    total: Counter[tuple[str, ...]] = Counter()
    if instruction == "mul":
        for one, a in below:
            for other, b in top:
                total[tuple(sorted(one + other))] += a * b
    else:
        for sign, part in ((1, below), (-1 if instruction == "sub" else 1, top)):
            for monomial, factor in part:
                total[monomial] += sign * factor
    return (*rest, frozenset((m, n) for m, n in total.items() if n))


State = tuple[tuple[Polynomial, ...], tuple[Form, ...], tuple[str, ...]]


def successors(state: State) -> list[State]:
    """All ways to go on that push every variable of the task once at most."""
    polynomials, forms, left = state
    found = []
    for variable in left:
        rest = tuple(other for other in left if other != variable)
        push = f"push {variable}"
        found.append((polynomial(polynomials, push), push_form(forms, push) or (), rest))
    if len(forms) >= 2:
        for instruction in ("add", "sub", "mul", "swap"):
            after = push_form(forms, instruction)
            assert after is not None
            found.append((polynomial(polynomials, instruction), after, left))
    return found


def explore(task: Task) -> tuple[set[State], set[State]]:
    """All states that programs reach, and those from which the task's polynomial is reached."""
    variables = tuple(sorted(name for step in task.steps if (name := pushed(step))))
    start: State = ((), (), variables)
    reached, before = {start}, defaultdict(set)
    todo = [start]
    while todo:
        state = todo.pop()
        for after in successors(state):
            before[after].add(state)
            if after not in reached:
                reached.add(after)
                todo.append(after)
    goal: tuple[Polynomial, ...] = ()
    for step in task.steps[:-1]:
        goal = polynomial(goal, step)
    todo = [state for state in reached if state[0] == goal and not state[2]]
    alive = set(todo)
    while todo:
        for state in before[todo.pop()] - alive:
            alive.add(state)
            todo.append(state)
    return reached, alive


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_truth_of_a_step_is_that_of_trying_every_program(size: int) -> None:
    tasks = list(islice((drawn_task(seed, (size, size)) for seed in range(20)), 20))
    for task in tasks:
        reached, alive = explore(task)
        target = Target(task)
        wrong = [s for s in reached if target.can_complete(s[1]) != (s in alive)]
        assert not wrong, (task.prompt, wrong[0])
        assert 0 < len(alive) < len(reached)


def test_one_larger_task_is_tried_out_too() -> None:
    task = Task.parse("x-(y-z)*(t-u)\n")
    reached, alive = explore(task)
    target = Target(task)
    assert all(target.can_complete(state[1]) == (state in alive) for state in reached)
    assert len(reached) > 10_000


@settings(max_examples=50)
@given(seeds)
def test_a_program_without_a_wrong_step_passes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    task = sample_task(rng)
    program = Tutor().solve(task, rng)
    truth = check_program(task, program)
    assert truth.correct or truth.first_error >= 0
    assert truth.correct == (behaviour(program) == task.answer)


# ---- The tutor ------------------------------------------------------------------------------


def test_a_tutor_without_errors_writes_right_programs_in_two_styles() -> None:
    tutor, rng = Tutor(error_scale=0), np.random.default_rng(0)
    tasks = [sample_task(rng) for _ in range(200)]
    programs = [tutor.solve(task, rng) for task in tasks]
    assert all(check_program(t, p).first_error < 0 for t, p in zip(tasks, programs, strict=True))
    plain = [p == t.steps for t, p in zip(tasks, programs, strict=True)]
    assert 0.5 < np.mean(plain) < 0.9
    assert any("swap" in program for program in programs)


def test_wrong_readings_change_the_result_and_the_others_do_not() -> None:
    assert wrong_readings(("+", "x", "y")) == ["*", "-"]
    assert wrong_readings(("-", "x", "y")) == ["*", "+", "order"]
    assert "right first" not in wrong_readings(("+", "+", "x"))  # (t+u)+x = t+(u+x)
    assert "left first" in wrong_readings(("-", "x", "-"))
    taken = readings(parse("x-(y-z)"))  # type: ignore[arg-type]
    assert write(taken["left first"]) == "x-y-z"
    assert write(taken["order"]) == "y-z-x"
    assert write(readings(parse("(x+y)*z"))["right first"]) == "x+y*z"  # type: ignore[arg-type]


def test_every_context_has_a_habit_and_misconceptions_are_wrong_more_often_than_right() -> None:
    tutor = Tutor()
    assert set(tutor.habits) == set(CONTEXTS)
    assert len(CONTEXTS) == 279
    assert len(tutor.misconceptions) == 40
    for context, habit in tutor.habits.items():
        assert (habit.error_rate >= 0.5) == (context in tutor.misconceptions)
        shares = np.diff([*habit.cumulative, 1.0]) / habit.error_rate
        assert max(shares) == pytest.approx(0.85)
        favourite = habit.readings[1 + int(shares.argmax())]
        assert favourite in STRUCTURAL or STRUCTURAL.isdisjoint(habit.readings)
    assert not Tutor(misconception_share=0).misconceptions


def test_tutors_of_one_seed_differ_in_misconceptions_only() -> None:
    one, other = Tutor(), Tutor(misconception_share=0)
    for context in set(CONTEXTS) - one.misconceptions:
        assert one.habits[context] == other.habits[context]


def test_the_errors_of_a_context_come_at_its_rate() -> None:
    tutor, rng = Tutor(), np.random.default_rng(0)
    task = Task.parse("x-y\n")
    context = context_of(task.expression)  # type: ignore[arg-type]
    wrong = np.mean([tutor.solve(task, rng) != task.steps for _ in range(2000)])
    assert wrong == pytest.approx(tutor.habits[context].error_rate, abs=0.04)


def test_misconceptions_make_the_tutors_majority_fail() -> None:
    def gap(tutor: Tutor) -> tuple[float, float]:
        rng = np.random.default_rng(0)
        tasks = [sample_task(rng) for _ in range(80)]
        given = [[behaviour(tutor.solve(task, rng)) for _ in range(32)] for task in tasks]
        right = np.array(
            [[a == t.answer for a in row] for t, row in zip(tasks, given, strict=True)]
        )
        return float(right.mean()), float(vote_accuracy(given, right, 32).mean())

    chance, majority = gap(Tutor())
    assert majority - chance < 0.15
    chance, majority = gap(Tutor(misconception_share=0))
    assert majority > 0.95 > chance


# ---- Tokenizer and stream -------------------------------------------------------------------


@given(st.lists(st.sampled_from([*INSTRUCTIONS, "\n", *VARIABLES, "+", "-", "*", "(", ")"])))
def test_what_is_written_is_read_again_as_the_same_tokens(words: list[str]) -> None:
    tokenizer = build_tokenizer()
    ids = tokenizer.convert_tokens_to_ids(words)
    assert tokenizer("".join(words)).input_ids == ids
    assert tokenizer.decode(ids) == "".join(words)


def test_an_instruction_is_one_token() -> None:
    tokenizer = build_tokenizer()
    assert all(len(tokenizer(instruction).input_ids) == 1 for instruction in INSTRUCTIONS)
    assert all(map(is_instruction, INSTRUCTIONS))


def test_the_stream_begins_with_short_tasks() -> None:
    tokenizer = build_tokenizer()
    stream = ProgramStream(Tutor(), tokenizer, seed=0, short_first=True)
    assert [stream.sizes(batch) for batch in (0, 149, 150, 9_999)] == [(1, 2)] * 2 + [
        (1, 3),
        (1, 5),
    ]
    assert ProgramStream(Tutor(), tokenizer, 0, short_first=False).sizes(0) == SIZES
    row = next(iter(stream))
    labels = [label for label in row["labels"] if label != -100]
    assert labels[-1] == tokenizer.eos_token_id
    prompt = str(tokenizer.decode(row["input_ids"][: -len(labels)]))
    program = str(tokenizer.decode(labels[:-1])).split("\n")
    assert sum(sign in "+-*" for sign in prompt) <= 2
    assert check_program(Task.parse(prompt), program).kind in (None, "order", "operator")
    assert program[-1] == "end"


# ---- Shipped rollouts -----------------------------------------------------------------------


def test_tasks_of_the_splits_are_disjoint() -> None:
    forms = [form_of(task.expression) for split in SPLITS for task in tasks_of(split)]
    assert len(forms) == len(set(forms)) == sum(size for size, _ in SPLITS.values())
    assert len({task.prompt for task in islice(distinct_tasks(np.random.default_rng(3)), 50)}) == 50


@pytest.mark.parametrize("split", SPLITS)
def test_shipped_rollouts_hold_what_their_columns_say(split: str) -> None:
    rows = load_programs(split)
    size, draws = SPLITS[split]
    drawn: Counter[str] = Counter()
    for prompt, weight in zip(rows["prompt"], rows["weight"], strict=True):
        drawn[prompt] += weight
    assert list(drawn) == [task.prompt for task in tasks_of(split)]
    assert set(drawn.values()) == {draws}
    assert len(drawn) == size
    for row in rows.select(range(0, len(rows), 7)):
        truth = check_program(Task.parse(row["prompt"]), row["steps"], row["finished"])
        assert (row["label"], row["first_error"], row["kind"]) == (
            truth.correct,
            truth.first_error,
            truth.kind,
        )
        assert PROGRAM_FORMAT.split(row["completion"]) == tuple(row["steps"])
        assert row["answer"] == (behaviour(row["steps"]) if row["finished"] else None)


def test_a_row_stands_for_equal_rollouts() -> None:
    task = Task.parse("x-y\n")
    right, wrong = (Rollout("\n".join(steps(p)), True) for p in ("x y sub end", "y x sub end"))
    first, second = rows_of(task, [right, wrong, right])
    assert (first["weight"], first["label"], first["first_error"]) == (2, True, -1)
    assert (second["weight"], second["label"], second["kind"]) == (1, False, "order")


def test_shipped_rollouts_can_come_from_the_shipped_reasoner() -> None:
    """Every token of some test rollouts passes the sampler's min-p under the shipped weights."""
    model = AutoModelForCausalLM.from_pretrained(reasoner_path()).eval()
    tokenizer = AutoTokenizer.from_pretrained(reasoner_path())
    for row in load_programs("test").select(range(0, 400, 10)):
        ids = tokenizer(row["prompt"] + row["completion"]).input_ids
        ids += [tokenizer.eos_token_id] if row["finished"] else []
        start = len(tokenizer(row["prompt"]).input_ids)
        with torch.inference_mode():
            chances = model(torch.tensor([ids])).logits[0].softmax(-1)
        for position in range(start, len(ids)):
            of = chances[position - 1]
            assert of[ids[position]] >= (SAMPLING.min_p - 1e-4) * of.max()


def test_an_unknown_split_is_an_error() -> None:
    with pytest.raises(ValueError, match="train, validation, test"):
        rollouts_path("dev")


def test_a_stack_of_the_wrong_order_cannot_be_completed() -> None:
    """The stack is not a set: what lies below can only be reached by way of what lies above."""
    target = target_of(Task.parse("x*(y+z)\n"))
    x, y, z = ((1, name) for name in "xyz")
    stacks: list[Sequence[Form]] = [(x, y, z), (y, z, x), (y, x, z), (combine("add", y, z), x)]
    assert [target.can_complete(stack) for stack in stacks] == [True, False, False, True]
