"""Selection curves against enumeration, intervals against simulation, step metrics by hand."""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import spearmanr
from sklearn.metrics import f1_score

from implicitprm.evaluation import (
    Interval,
    _auroc_of_resamples,
    auroc,
    auroc_interval,
    best_of_n_accuracy,
    bootstrap_over_problems,
    choose_threshold,
    first_error,
    first_error_scores,
    mean_interval,
    paired_difference,
    pass_at_n,
    rank_correlation,
    steps_up_to_first_error,
    vote_accuracy,
)
from implicitprm.selection import best_of_n, majority_vote

unhurried = settings(deadline=None, max_examples=50)  # the machine may be busy

N_CANDIDATES = 6
# Few distinct values, so that ties are common.
some_scores = arrays(float, (2, N_CANDIDATES), elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0]))
some_correct = arrays(bool, (2, N_CANDIDATES))
some_answers = st.lists(
    st.lists(st.sampled_from(["1", "2", "3", None]), min_size=N_CANDIDATES, max_size=N_CANDIDATES),
    min_size=2,
    max_size=2,
)
some_n = st.integers(1, N_CANDIDATES)


def expected_over_draws(n: int, measure: Callable[[list[int]], float]) -> float:
    """The mean of a measure over every ordered draw of n candidates: ties fall to all alike."""
    return float(
        np.mean([measure(list(draw)) for draw in itertools.permutations(range(N_CANDIDATES), n)])
    )


def is_right(answers: Sequence[str | None], truth: str = "1") -> np.ndarray:
    return np.array([answer == truth for answer in answers])


# --- selection --------------------------------------------------------------------------------


@unhurried
@given(some_scores, some_correct, some_n)
def test_best_of_n_accuracy_is_the_mean_over_all_draws(
    scores: np.ndarray, correct: np.ndarray, n: int
) -> None:
    def chosen(problem: int, draw: list[int]) -> bool:
        return bool(correct[problem, draw][best_of_n(scores[problem, draw])])

    expected = [expected_over_draws(n, partial(chosen, p)) for p in range(2)]
    np.testing.assert_allclose(best_of_n_accuracy(scores, correct, n), expected, atol=1e-12)


@unhurried
@given(some_correct, some_n)
def test_pass_at_n_is_the_mean_over_all_draws(correct: np.ndarray, n: int) -> None:
    def passed(problem: int, draw: list[int]) -> bool:
        return bool(correct[problem, draw].any())

    expected = [expected_over_draws(n, partial(passed, p)) for p in range(2)]
    np.testing.assert_allclose(pass_at_n(correct, n), expected, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(some_answers, some_n)
def test_majority_accuracy_is_the_mean_over_all_draws(
    answers: list[list[str | None]], n: int
) -> None:
    def won(problem: int, draw: list[int]) -> bool:
        return majority_vote([answers[problem][i] for i in draw]) == "1"

    correct = np.array([is_right(row) for row in answers])
    expected = [expected_over_draws(n, partial(won, p)) for p in range(2)]
    got = vote_accuracy(answers, correct, n, draws=20)  # C(6, 3) = 20: every subset
    np.testing.assert_allclose(got, expected, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(some_answers, some_scores, some_n)
def test_weighted_vote_accuracy_is_the_mean_over_all_draws(
    answers: list[list[str | None]], scores: np.ndarray, n: int
) -> None:
    def share(problem: int, draw: list[int]) -> float:
        """By definition: a tie (1 vote against ½ + ½, say) is shared, not won by who came first."""
        totals: dict[str, float] = {}
        for i in draw:
            answer = answers[problem][i]
            if answer is not None:
                vote = 1 / (1 + math.exp(-scores[problem, i]))
                totals[answer] = totals.get(answer, 0.0) + vote
        best = [a for a, total in totals.items() if total > max(totals.values()) - 1e-9]
        return ("1" in best) / max(len(best), 1)

    correct = np.array([is_right(row) for row in answers])
    expected = [expected_over_draws(n, partial(share, p)) for p in range(2)]
    got = vote_accuracy(answers, correct, n, scores, draws=20)
    np.testing.assert_allclose(got, expected, atol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_drawn_vote_accuracy_approaches_the_exact_one(weighted: bool) -> None:
    rng = np.random.default_rng(0)
    answers = [[str(a) for a in rng.integers(0, 4, size=10)] for _ in range(40)]
    correct = np.array([is_right(row) for row in answers])
    scores = rng.normal(size=correct.shape) + correct if weighted else None
    exact = vote_accuracy(answers, correct, 5, scores, draws=math.comb(10, 5))
    drawn = vote_accuracy(answers, correct, 5, scores, draws=math.comb(10, 5) - 1, seed=1)
    assert not np.array_equal(exact, drawn)
    np.testing.assert_allclose(drawn, exact, atol=4 * 0.5 / math.sqrt(251))  # 4 standard errors
    assert drawn.mean() == pytest.approx(exact.mean(), abs=0.02)


@unhurried
@given(some_answers, some_scores, some_correct, some_n)
def test_selection_is_bounded_by_nothing_and_the_oracle(
    answers: list[list[str | None]], scores: np.ndarray, correct: np.ndarray, n: int
) -> None:
    right = np.array([is_right(row) for row in answers])
    for accuracy, oracle in [
        (best_of_n_accuracy(scores, correct, n), pass_at_n(correct, n)),
        (vote_accuracy(answers, right, n), pass_at_n(right, n)),
        (vote_accuracy(answers, right, n, scores), pass_at_n(right, n)),
    ]:
        assert accuracy.shape == (2,)
        assert (accuracy >= 0).all()
        assert (accuracy <= oracle + 1e-12).all()


@unhurried
@given(some_scores, some_correct, some_answers)
def test_one_candidate_is_the_mean_and_all_candidates_are_the_argmax(
    scores: np.ndarray, correct: np.ndarray, answers: list[list[str | None]]
) -> None:
    right = np.array([is_right(row) for row in answers])
    np.testing.assert_allclose(best_of_n_accuracy(scores, correct, 1), correct.mean(axis=1))
    np.testing.assert_allclose(pass_at_n(correct, 1), correct.mean(axis=1))
    np.testing.assert_allclose(vote_accuracy(answers, right, 1, scores), right.mean(axis=1))
    best = scores == scores.max(axis=1, keepdims=True)
    all_of_them = best_of_n_accuracy(scores, correct, N_CANDIDATES)
    np.testing.assert_allclose(all_of_them, (correct * best).sum(axis=1) / best.sum(axis=1))
    np.testing.assert_allclose(pass_at_n(correct, N_CANDIDATES), correct.any(axis=1))


@unhurried
@given(some_correct, some_n)
def test_a_perfect_score_reaches_the_oracle_and_its_opposite_does_not(
    correct: np.ndarray, n: int
) -> None:
    truth = correct.astype(float)
    np.testing.assert_allclose(best_of_n_accuracy(truth, correct, n), pass_at_n(correct, n))
    never = 1 - pass_at_n(~correct, n)  # the worst candidate is right only if all are
    np.testing.assert_allclose(best_of_n_accuracy(-truth, correct, n), never, atol=1e-12)


@unhurried
@given(some_scores, some_correct, some_answers, some_n, st.permutations(range(N_CANDIDATES)))
def test_the_order_of_candidates_does_not_matter(
    scores: np.ndarray,
    correct: np.ndarray,
    answers: list[list[str | None]],
    n: int,
    order: list[int],
) -> None:
    shuffled = [[row[i] for i in order] for row in answers]
    right = np.array([is_right(row) for row in answers])
    same = [
        (best_of_n_accuracy, (scores, correct, n), (scores[:, order], correct[:, order], n)),
        (pass_at_n, (correct, n), (correct[:, order], n)),
        (vote_accuracy, (answers, right, n), (shuffled, right[:, order], n)),
    ]
    for measure, plain, permuted in same:
        np.testing.assert_allclose(measure(*plain), measure(*permuted), atol=1e-12)  # type: ignore[operator]


@unhurried
@given(some_answers, some_n, st.floats(-3, 3))
def test_a_vote_weighted_by_one_constant_is_the_majority_vote(
    answers: list[list[str | None]], n: int, score: float
) -> None:
    right = np.array([is_right(row) for row in answers])
    majority = vote_accuracy(answers, right, n)
    constant = vote_accuracy(answers, right, n, np.full(right.shape, score))
    np.testing.assert_allclose(constant, majority, atol=1e-12)


def test_equal_answers_written_differently_vote_together() -> None:
    answers = [["1,000", "7", "1000.0", "7", "$1000"]]
    correct = [[True, False, True, False, True]]
    assert vote_accuracy(answers, correct, 5).tolist() == [1.0]


def test_ties_and_missing_answers_by_hand() -> None:
    assert vote_accuracy([["1", "2"]], [[True, False]], 2).tolist() == [0.5]
    assert vote_accuracy([["1", None, None]], [[True, False, False]], 3).tolist() == [1.0]
    assert vote_accuracy([[None, None]], [[False, False]], 2).tolist() == [0.0]
    # pairs: {1, None}, {1, None}, {None, None}
    assert vote_accuracy([["1", None, None]], [[1, 0, 0]], 2).tolist() == [pytest.approx(2 / 3)]
    # two candidates with one answer, graded differently: their mean
    assert vote_accuracy([["1", "1", "2"]], [[1, 0, 0]], 3).tolist() == [0.5]
    # σ(−800) is 0: an answer that was given still beats none at all
    assert vote_accuracy([["1", "2"]], [[1, 0]], 1, [[-800.0, -800.0]]).tolist() == [0.5]


def test_one_seed_gives_one_result_and_another_seed_another() -> None:
    rng = np.random.default_rng(0)
    answers = [[str(a) for a in rng.integers(0, 5, size=16)] for _ in range(20)]
    correct = np.array([is_right(row) for row in answers])
    runs = [vote_accuracy(answers, correct, 8, seed=seed) for seed in (3, 3, 4)]
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_majority_gains_with_n_where_the_right_answer_is_the_most_frequent() -> None:
    answers = [["1"] * 20 + ["2"] * 14 + ["3"] * 10]
    correct = np.array([is_right(answers[0])])
    curve = [vote_accuracy(answers, correct, n, draws=400)[0] for n in (1, 5, 15, 44)]
    assert curve[0] == pytest.approx(20 / 44)
    assert curve == sorted(curve)
    assert curve[-1] == 1.0


def test_many_candidates_do_not_overflow() -> None:
    correct = np.zeros((1, 3000), dtype=bool)
    correct[0, :3] = True
    wins = best_of_n_accuracy(np.arange(3000.0)[None], correct, 1500)
    assert wins[0] == 0.0
    # 1 − (1500·1499·1498)/(3000·2999·2998)
    by_hand = 1 - (1500 / 3000) * (1499 / 2999) * (1498 / 2998)
    assert pass_at_n(correct, 1500)[0] == pytest.approx(by_hand, abs=1e-10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pass_at_n([[1, 0]], 0), r"n must lie in 1\.\.M"),
        (lambda: pass_at_n([[1, 0]], 3), r"n=3 of M=2"),
        (lambda: pass_at_n([[2, 0]], 1), "bool or 0/1, got 2"),
        (lambda: pass_at_n([1, 0], 1), "2 dimension"),
        (lambda: best_of_n_accuracy([[1.0, math.nan]], [[1, 0]], 1), r"scores\[0, 1\] is NaN"),
        (lambda: best_of_n_accuracy([[1.0]], [[1, 0]], 1), "alike"),
        (lambda: vote_accuracy([["1"]], [[1, 0]], 1), "1 rows of 2"),
        (lambda: vote_accuracy([["1", "2"]], [[1, 0]], 3), r"n must lie in 1\.\.M"),
        (lambda: vote_accuracy([["1", "2"]], [[1, 0]], 1, [[0.0]]), "alike"),
        (lambda: vote_accuracy([["1", "2"]], [[1, 0]], 1, draws=0), "draws"),
    ],
)
def test_selection_refuses(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# --- intervals --------------------------------------------------------------------------------


def test_interval_reads_well() -> None:
    interval = Interval(0.7823, 0.751, 0.81)
    assert str(interval) == "0.782 [0.751, 0.810]"
    assert f"{interval}" == "0.782 [0.751, 0.810]"
    assert f"{interval:.1%}" == "78.2% [75.1, 81.0]"
    assert f"{Interval(0.1, -0.05, 0.2):+.2f}" == "+0.10 [-0.05, +0.20]"


def test_a_95_percent_interval_covers_about_95_percent() -> None:
    rng = np.random.default_rng(0)
    truth, worlds, problems = 0.3, 300, 60
    covered = 0
    for world in range(worlds):
        interval = mean_interval(rng.random(problems) < truth, resamples=400, seed=world)
        covered += interval.low <= truth <= interval.high
    # three standard errors of a share of .95 of 300 are .038; the percentile method falls a little
    # short with few problems
    assert 0.90 <= covered / worlds <= 0.985


def test_mean_interval_agrees_with_the_normal_approximation() -> None:
    values = np.random.default_rng(1).normal(2.0, 3.0, size=400)
    interval = mean_interval(values, resamples=4000)
    error = values.std(ddof=1) / math.sqrt(400)
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_both_bootstraps_agree_and_a_seed_repeats_them() -> None:
    values = np.random.default_rng(2).random(50)
    fast = mean_interval(values)
    slow = bootstrap_over_problems(lambda indices: float(values[indices].mean()), 50)
    assert fast.value == pytest.approx(slow.value)
    assert fast.low == pytest.approx(slow.low, abs=0.02)
    assert fast.high == pytest.approx(slow.high, abs=0.02)
    assert mean_interval(values) == fast
    assert mean_interval(values, seed=1) != fast
    narrow = mean_interval(values, confidence=0.5)
    assert fast.low < narrow.low < narrow.high < fast.high


def test_the_bootstrap_draws_whole_problems() -> None:
    seen: list[np.ndarray] = []

    def statistic(indices: np.ndarray) -> float:
        seen.append(indices)
        return float(indices.mean())

    interval = bootstrap_over_problems(statistic, 5, resamples=200)
    assert interval.value == 2.0
    assert all(indices.dtype == np.int64 and len(indices) == 5 for indices in seen)
    assert set(np.concatenate(seen).tolist()) == set(range(5))
    assert any(len(set(indices.tolist())) < 5 for indices in seen)  # with replacement


def test_a_paired_difference_is_narrower_than_two_intervals() -> None:
    rng = np.random.default_rng(3)
    easy = rng.random(200)  # how easy a problem is moves both
    a, b = easy + 0.05 + rng.normal(0, 0.01, 200), easy
    difference = paired_difference(a, b)
    assert difference.low > 0
    assert difference.high - difference.low < 0.1 * (mean_interval(a).high - mean_interval(a).low)
    assert difference.value == pytest.approx(-paired_difference(b, a).value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([1.0]), "P >= 2"),
        (lambda: mean_interval([1.0, math.nan]), r"values\[1\] is NaN"),
        (lambda: paired_difference([1.0, 2.0], [1.0]), "not paired"),
        (lambda: bootstrap_over_problems(lambda i: 0.0, 1), "at least 2 problems"),
        (lambda: bootstrap_over_problems(lambda i: math.nan, 3), "statistic is NaN"),
    ],
)
def test_intervals_refuse(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# --- steps ------------------------------------------------------------------------------------


def test_auroc_by_hand() -> None:
    assert auroc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == 0.75
    assert auroc([1.0, 1.0], [True, False]) == 0.5  # a tie counts half
    assert auroc([-np.inf, 0.0], [False, True]) == 1.0
    assert auroc([3.0, 1.0, 2.0], [1, 0, 1], weights=[5, 1, 1]) == 1.0


@unhurried
@given(st.data())
def test_auroc_is_the_share_of_ordered_pairs_and_weights_are_counts(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 10))
    scores = data.draw(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=size, max_size=size))
    labels = [
        True,
        False,
        *data.draw(st.lists(st.booleans(), min_size=size - 2, max_size=size - 2)),
    ]
    counts = data.draw(st.lists(st.integers(1, 4), min_size=size, max_size=size))
    pairs = weight = 0.0
    for i, j in itertools.product(range(size), repeat=2):
        if labels[i] and not labels[j]:
            pairs += (
                counts[i] * counts[j] * ((scores[i] > scores[j]) + (scores[i] == scores[j]) / 2)
            )
            weight += counts[i] * counts[j]
    assert auroc(scores, labels, counts) == pytest.approx(pairs / weight)
    repeated = auroc(np.repeat(scores, counts), np.repeat(labels, counts))
    assert auroc(scores, labels, counts) == pytest.approx(repeated)


@pytest.mark.parametrize("labels", [[1, 1], [0, 0]])
def test_auroc_refuses_a_missing_class(labels: list[int]) -> None:
    with pytest.raises(ValueError, match="needs both classes, but all 2 labels are"):
        auroc([0.1, 0.2], labels)


def test_first_error_by_hand() -> None:
    assert first_error([0.5, -0.1, -2.0], 0.0) == 1
    assert first_error([0.5, -0.1, -2.0], -0.1) == 2  # below, not at, the threshold
    assert first_error([0.5, -0.1], -1.0) == -1


def test_steps_up_to_first_error() -> None:
    assert list(steps_up_to_first_error(-1, 4)) == [0, 1, 2, 3]
    assert list(steps_up_to_first_error(0, 4)) == [0]
    assert list(steps_up_to_first_error(2, 4)) == [0, 1, 2]
    for wrong in (4, -2, -100):
        with pytest.raises(ValueError, match="is no step of 4"):
            steps_up_to_first_error(wrong, 4)


def test_first_error_scores_by_hand() -> None:
    # errors at 0, 2, 1: found, missed by one step, missed; of the two correct ones one is accepted
    scores = first_error_scores([0, 1, -1, -1, 3], [0, 2, 1, -1, -1])
    assert scores.error_accuracy == pytest.approx(1 / 3)
    assert scores.correct_accuracy == pytest.approx(1 / 2)
    assert scores.f1 == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))  # 0.4
    nothing = first_error_scores([1, 1], [0, -1])
    assert (nothing.error_accuracy, nothing.correct_accuracy, nothing.f1) == (0.0, 0.0, 0.0)
    # one accuracy of 0 makes F1 0: accepting everything is worth nothing
    assert first_error_scores([-1, -1], [0, -1]).f1 == 0.0


def test_first_error_f1_is_not_the_f1_of_a_classifier() -> None:
    predictions, labels = np.array([0, 1, -1, -1, 3]), np.array([0, 2, 1, -1, -1])
    found = f1_score(labels != -1, predictions != -1)
    assert first_error_scores(predictions, labels).f1 != pytest.approx(found)


def test_weights_are_counts_in_first_error_scores() -> None:
    predictions, labels, counts = [0, 1, -1, 0], [0, 0, -1, -1], [3, 1, 2, 5]
    weighted = first_error_scores(predictions, labels, counts)
    assert weighted == first_error_scores(np.repeat(predictions, counts), np.repeat(labels, counts))
    assert weighted.error_accuracy == 0.75


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_choose_threshold_is_as_good_as_every_threshold(data: st.DataObject) -> None:
    problems = data.draw(st.integers(2, 8))
    values = st.sampled_from([-2.0, -1.0, -0.5, 0.0, np.nextafter(0.0, 1.0), 1.0])
    step_scores = [data.draw(st.lists(values, min_size=1, max_size=4)) for _ in range(problems)]
    labels = [data.draw(st.integers(-1, len(scores) - 1)) for scores in step_scores]
    labels[0], labels[1] = 0, -1  # both classes
    counts = data.draw(st.lists(st.integers(1, 3), min_size=problems, max_size=problems))

    def f1(threshold: float) -> float:
        predictions = [first_error(scores, threshold) for scores in step_scores]
        return first_error_scores(predictions, labels, counts).f1

    chosen = choose_threshold(step_scores, labels, counts)
    every = sorted({score for scores in step_scores for score in scores})
    every += [np.nextafter(score, np.inf) for score in every] + [-3.0, 3.0]
    assert f1(chosen) == pytest.approx(max(map(f1, every)), abs=1e-12)


def test_choose_threshold_takes_the_middle_of_the_gap() -> None:
    step_scores = [[1.0, -1.0, 0.2], [0.8, 0.6], [0.9, 0.5, -2.0]]
    labels = [1, -1, 2]
    assert choose_threshold(step_scores, labels) == pytest.approx((-1.0 + 0.5) / 2)


def test_a_step_after_the_error_does_not_move_the_threshold() -> None:
    labels = [1, -1]
    plain = choose_threshold([[1.0, -1.0, 5.0], [0.5]], labels)
    assert choose_threshold([[1.0, -1.0, -50.0], [0.5]], labels) == plain


def test_rank_correlation_agrees_with_scipy() -> None:
    rng = np.random.default_rng(4)
    a = rng.integers(0, 6, size=40).astype(float)  # ties
    b = a + rng.normal(0, 3, size=40).round()
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic)
    counts = rng.integers(1, 5, size=40)
    repeated = spearmanr(np.repeat(a, counts), np.repeat(b, counts)).statistic
    assert rank_correlation(a, b, counts) == pytest.approx(repeated)
    assert rank_correlation(a, np.exp(a)) == pytest.approx(1.0)
    assert rank_correlation(a, -a, counts) == pytest.approx(-1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: auroc([0.1, math.nan], [0, 1]), r"scores\[1\] is NaN"),
        (lambda: auroc([0.1, 0.2], [0, 0.5]), "labels must be bool or 0/1, got 0.5"),
        (lambda: auroc([0.1, 0.2], [0, 1, 1]), "alike"),
        (lambda: auroc([0.1, 0.2], [0, 1], weights=[1, 0]), "positive"),
        (lambda: first_error([], 0.0), "S >= 1"),
        (lambda: first_error([0.0, math.nan], 0.0), r"step_scores\[1\] is nan"),
        (lambda: first_error([-math.inf], 0.0), r"step_scores\[0\] is -inf"),
        (lambda: first_error_scores([0, 1], [0, 1]), "2 of 2 have one"),
        (lambda: first_error_scores([-1], [-1]), "0 of 1 have one"),
        (lambda: first_error_scores([0], [0, -1]), "must be"),
        (lambda: first_error_scores([0, 0], [-100, -1]), "label -100 is no step"),
        (lambda: choose_threshold([[0.0], [0.0]], [1, -1]), "first_error=1 is no step of 1"),
        (lambda: choose_threshold([[0.0], []], [0, -1]), "S >= 1"),
        (lambda: choose_threshold([[0.0]], [0, -1]), "1 solutions but labels"),
        (lambda: choose_threshold([[0.0], [1.0]], [0, 0]), "with and without an error"),
        (lambda: rank_correlation([1.0, 1.0], [0.0, 1.0]), "undefined"),
        (lambda: rank_correlation([1.0], [0.0]), "N >= 2"),
    ],
)
def test_step_metrics_refuse(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# --- AUROC with an interval -------------------------------------------------------------------


def test_auroc_interval_equals_the_slow_bootstrap() -> None:
    """The vectorised AUROC of every resample is sklearn's on the repeated items."""
    rng = np.random.default_rng(0)
    problems = np.repeat(np.arange(30), 4)
    labels = rng.random(120) < 0.5
    scores = (labels + rng.normal(size=120)).round(1)  # rounded: with ties
    weights = rng.integers(1, 4, size=120)
    counts = rng.multinomial(30, np.full(30, 1 / 30), size=5)[:, problems] * weights
    fast = _auroc_of_resamples(scores, labels.astype(float), counts)
    for value, count in zip(fast, counts, strict=True):
        assert value == pytest.approx(auroc(np.repeat(scores, count), np.repeat(labels, count)))
    interval = auroc_interval(scores, labels, problems, weights)
    slow = bootstrap_over_problems(
        lambda drawn: auroc(
            scores, labels, weights * (1e-9 + np.bincount(drawn, minlength=30)[problems])
        ),
        30,
    )
    assert interval.value == pytest.approx(slow.value)
    assert interval.low == pytest.approx(slow.low, abs=0.02)
    assert interval.high == pytest.approx(slow.high, abs=0.02)


def test_auroc_within_parts_gains_nothing_from_telling_them_apart() -> None:
    rng = np.random.default_rng(1)
    part = np.arange(200) % 2 == 0
    labels = rng.random(200) < np.where(part, 0.8, 0.2)
    scores = part.astype(float)
    pooled = auroc_interval(scores, labels, np.arange(200))
    within = auroc_interval(scores, labels, np.arange(200), parts=[part, ~part])
    assert pooled.low > 0.6
    assert within.value == within.low == within.high == 0.5
