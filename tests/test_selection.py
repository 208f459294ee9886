"""Aggregation, best-of-N and votes: hand values, ties, missing answers, and their invariances."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from implicitprm.selection import (
    AGGREGATIONS,
    aggregate,
    answer_codes,
    answer_key,
    best_of_n,
    majority_vote,
    weighted_vote,
)

unhurried = settings(deadline=None, max_examples=50)  # the machine may be busy
scores_lists = st.lists(st.floats(-20, 20), min_size=1, max_size=12)
answer_lists = st.lists(st.sampled_from(["1", "2", "3", None]), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("how", "expected"), [("sum", 2.0), ("min", -3.0), ("mean", 0.5), ("last", 4.0)]
)
def test_aggregate_by_hand(how: str, expected: float) -> None:
    assert aggregate([1.0, -3.0, 0.0, 4.0], how) == expected


@unhurried
@given(scores_lists)
def test_aggregations_are_ordered_and_of_one_step_agree(rewards: list[float]) -> None:
    assert aggregate(rewards, "min") <= aggregate(rewards, "mean") + 1e-9
    assert aggregate(rewards, "sum") == pytest.approx(len(rewards) * aggregate(rewards, "mean"))
    assert {aggregate(rewards[:1], how) for how in AGGREGATIONS} == {rewards[0]}


@pytest.mark.parametrize(
    ("rewards", "how", "message"),
    [
        ([], "sum", "S >= 1"),
        ([1.0, math.nan], "min", r"step_rewards\[1\] is NaN"),
        ([[1.0]], "sum", "shape"),
        ([1.0], "max", "choose one of"),
    ],
)
def test_aggregate_refuses(rewards: list[float], how: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        aggregate(rewards, how)


def test_best_of_n_takes_the_first_of_equal_scores() -> None:
    assert best_of_n([0.0, 2.0, 2.0, 1.0]) == 1
    assert best_of_n(np.array([-np.inf, -5.0])) == 1


@unhurried
@given(scores_lists, st.floats(0.01, 100))
def test_best_of_n_does_not_depend_on_the_scale_of_beta(scores: list[float], beta: float) -> None:
    scaled = [beta * score for score in scores]
    assert scaled[best_of_n(scaled)] == max(scaled)
    assert beta * scores[best_of_n(scores)] == max(scaled)


@pytest.mark.parametrize(
    ("scores", "message"), [([], "N >= 1"), ([1.0, math.nan], r"scores\[1\] is NaN")]
)
def test_best_of_n_refuses(scores: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        best_of_n(scores)


@pytest.mark.parametrize(
    ("answers", "winner"),
    [
        (["7", "9", "9"], "9"),
        (["7", "9", "9", "7"], "7"),  # a tie: the answer that came first
        (["9", "7", "7", "9"], "9"),
        ([None, None, None, "4"], "4"),  # missing answers are no majority
        (["", "  ", "4"], "4"),
        ([None, None], None),
        (["1,000", "7", "1000", "7", "$1000.00"], "1,000"),  # one answer in three spellings
        (["0.5", "3", "1/2", "3", r"\frac{1}{2}"], "0.5"),
    ],
)
def test_majority_vote_by_hand(answers: list[str | None], winner: str | None) -> None:
    assert majority_vote(answers) == winner


def test_weighted_vote_by_hand() -> None:
    # σ(0) + σ(0) = 1 against σ(2) = .881: two weak votes win, although the best score is the "9"
    assert weighted_vote(["9", "7", "7"], [2.0, 0.0, 0.0]) == "7"
    # σ(−2) + σ(−2) = .238: now they do not
    assert weighted_vote(["9", "7", "7"], [2.0, -2.0, -2.0]) == "9"
    # without the sigmoid a negative score would count against its own answer
    assert weighted_vote(["9", "7", "7"], [-0.5, -0.4, -0.4]) == "7"
    assert weighted_vote(["1,000", "7", "1000"], [0.0, 1.0, 0.0]) == "1,000"


def test_weighted_vote_never_elects_a_missing_answer() -> None:
    assert weighted_vote([None, "7"], [50.0, -50.0]) == "7"
    assert weighted_vote([None, None], [1.0, 2.0]) is None


def test_weighted_vote_tie_goes_to_the_first_answer_whatever_the_order_of_addition() -> None:
    # the same three votes, added up from the other end: the sums differ in the last digit
    scores = [0.7, 0.3, 0.1, 0.1, 0.3, 0.7]
    for votes in (scores, scores[::-1]):
        assert weighted_vote(["a", "a", "a", "b", "b", "b"], votes) == "a"


@unhurried
@given(answer_lists, st.floats(-5, 5))
def test_weighted_vote_with_equal_scores_is_the_majority_vote(
    answers: list[str | None], score: float
) -> None:
    assert weighted_vote(answers, [score] * len(answers)) == majority_vote(answers)


@unhurried
@given(st.permutations(["1"] * 4 + ["2"] * 3 + ["3"] * 2 + [None] * 5))
def test_a_majority_does_not_depend_on_the_order(answers: list[str | None]) -> None:
    assert majority_vote(answers) == "1"


@unhurried
@given(answer_lists, st.data())
def test_weighted_vote_against_its_definition(
    answers: list[str | None], data: st.DataObject
) -> None:
    n = len(answers)
    scores = data.draw(st.lists(st.floats(-5, 5), min_size=n, max_size=n))
    totals: dict[str, float] = {}
    for answer, score in zip(answers, scores, strict=True):
        if answer is not None:
            totals[answer] = totals.get(answer, 0.0) + 1 / (1 + math.exp(-score))
    chosen = weighted_vote(answers, scores)
    if chosen is None:
        assert not totals
    else:
        assert totals[chosen] == pytest.approx(max(totals.values()), rel=1e-9)


def test_votes_refuse_bad_input() -> None:
    with pytest.raises(ValueError, match="at least one candidate"):
        majority_vote([])
    with pytest.raises(ValueError, match="2 answers but 1 scores"):
        weighted_vote(["1", "2"], [0.0])
    with pytest.raises(ValueError, match="NaN"):
        weighted_vote(["1"], [math.nan])


@pytest.mark.parametrize(
    "spellings",
    [
        ("18", "18.00", "$18", r"\$18", "18.", " 18 ", "018", "18%", r"18\%"),
        ("1000", "1,000", "1,000.0", r"1\,000", "€1000"),
        ("0.5", ".5", "1/2", "2/4", r"\frac{1}{2}", r"\dfrac{1}{2}", r"\frac{ 1 }{ 2 }"),
        ("-5", "-5.0", "-$5", r"-\frac{10}{2}"),
        ("x+1", "x + 1", "x +1"),
    ],
)
def test_equal_answers_share_a_key(spellings: tuple[str, ...]) -> None:
    assert len({answer_key(spelling) for spelling in spellings}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2 1/2", "21/2"),  # a mixed number is no 21/2
        (r"2\frac{1}{2}", "21/2"),
        (r"2\frac{1}{2}", "1/2"),
        ("1,00", "100"),  # no thousands separator
        ("1/0", "0"),
        ("5", "-5"),
        ("x", "X"),
        ("12", "1 2"),
        ("/2", "1/2"),
    ],
)
def test_different_answers_have_different_keys(one: str, other: str) -> None:
    assert answer_key(one) != answer_key(other)


@unhurried
@given(st.fractions())
def test_every_fraction_has_one_key(value: object) -> None:
    assert answer_key(str(value)) == str(value)


@unhurried
@given(st.text(max_size=30))
def test_answer_key_takes_any_text(text: str) -> None:
    assert isinstance(answer_key(text), str)


def test_a_number_too_long_to_convert_is_compared_as_text() -> None:
    assert answer_key("9" * 5000) == "9" * 5000


def test_answer_codes_number_answers_in_order_of_appearance() -> None:
    assert answer_codes(["7", None, "9", "7.0", ""]).tolist() == [0, -1, 1, 0, -1]
