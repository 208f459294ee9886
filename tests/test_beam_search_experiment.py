"""Chapter 14's experiment on beam search: its accounting of tokens, and its result file."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import AutoTokenizer

from implicitprm.arithmetic import checkpoint_path, load_rollouts
from implicitprm.arithmetic.measure import candidate_grid, inside_world
from implicitprm.evaluation import pass_at_n, vote_accuracy
from implicitprm.experiments import beam_search as experiment
from implicitprm.experiments.beam_search import CHANCE, GUIDES, MAJORITY, ORACLE, SHAPES
from implicitprm.experiments.runs import reference_scorer
from implicitprm.experiments.store import load_result
from implicitprm.rewards import ImplicitPRM
from implicitprm.steps import Solution


def test_tokens_are_those_that_were_sampled() -> None:
    """By the tokenizer, for every shipped text that it can read; a long number by hand."""
    rows = load_rollouts("reasoner", "test")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_path())
    known = inside_world(tokenizer, rows)
    assert np.mean(known) > 0.99
    for row, inside in zip(rows, known, strict=True):
        if inside:
            expected = len(tokenizer(row["completion"]).input_ids) + row["finished"]
            assert experiment.tokens_of(row["completion"], row["finished"]) == expected
    assert experiment.tokens_of("7+5=5544\n", False) == 7


def test_accuracy_at_a_broken_n_lies_between_its_neighbours() -> None:
    def accuracy(n: int) -> np.ndarray:
        return np.array([n, 10.0 * n])

    assert experiment.at(accuracy, 3.0).tolist() == [3, 30]
    assert experiment.at(accuracy, 3.25).tolist() == pytest.approx([3.25, 32.5])


def test_n_whole_solutions_cost_n_times_their_tokens() -> None:
    rows = load_rollouts("reasoner", "test")
    counts = [experiment.tokens_of(r["completion"], r["finished"]) for r in rows]
    weights = np.array(rows["weight"])
    n_problems = len(set(rows["prompt"]))
    each = weights.sum() / n_problems
    whole = (weights * counts).sum() / each  # tokens of one candidate of every problem
    assert experiment.equal_n(np.full(n_problems, 7 * whole / n_problems)) == pytest.approx(7)


def test_an_unreadable_text_is_the_worst() -> None:
    reference = reference_scorer()
    prm = ImplicitPRM(
        reference.policy, reference.policy, reference.tokenizer, 1.0, reference.format
    )
    for name, guide in experiment.guides(prm, 0).items():
        good, bad = guide(
            [Solution("7+5\n", ("7+5=12\n",), False), Solution("7+5\n", ("7+5=5544",))]
        )
        assert bad == -np.inf < good, name


def test_a_shape_is_chosen_on_validation_and_chance_has_that_of_the_reward() -> None:
    searches = [
        {"guide": guide, "budget": budget, "shape": list(shape), "accuracy": place}
        for guide in GUIDES
        if guide != CHANCE
        for budget, shapes in SHAPES.items()
        for place, shape in enumerate(shapes if guide == GUIDES[0] else shapes[::-1])
    ]
    chosen = {(c["guide"], c["budget"]): tuple(c["shape"]) for c in experiment.choose(searches)}
    for budget, shapes in SHAPES.items():
        assert chosen[GUIDES[0], budget] == chosen[CHANCE, budget] == shapes[-1]
        assert chosen[GUIDES[1], budget] == shapes[0]


# ---- The result file ---------------------------------------------------------------------------


def test_the_result_file_agrees_with_the_shipped_rollouts() -> None:
    """N follows from the tokens, and what needs no PRM is computed again from the rollouts."""
    rows = load_rollouts("reasoner", "test")
    grid = candidate_grid(rows)
    correct = np.array(rows["label"])[grid]
    texts = [steps[-1] if steps[-1].startswith("#") else None for steps in rows["steps"]]
    answers = np.array(texts, dtype=object)[grid].tolist()
    summaries = [c for c in load_result("beam_search")["cells"] if c["part"] == "summary"]
    assert {(c["guide"], c["budget"]) for c in summaries} == {
        (g, b) for g in GUIDES for b in SHAPES
    }
    for cell in summaries:
        n = cell["n"]
        assert experiment.equal_n(np.full(len(grid), cell["tokens"])) == pytest.approx(n, abs=0.02)
        oracle = 100 * experiment.at(lambda k: pass_at_n(correct, k), n).mean()
        assert cell["rivals"][ORACLE] == pytest.approx(oracle, abs=0.2)
        majority = 100 * experiment.at(lambda k: vote_accuracy(answers, correct, k), n).mean()
        # Votes of sets of candidates are a mean over draws, which differ by problem order.
        assert cell["rivals"][MAJORITY] == pytest.approx(majority, abs=1.0)
        for name, (difference, low, high) in cell["minus"].items():
            expected = cell["accuracy"][0] - cell["rivals"][name]
            assert difference == pytest.approx(expected, abs=0.02)
            assert low <= difference <= high


def test_seeds_agree_with_their_summary() -> None:
    result = load_result("beam_search")
    runs = [c for c in result["cells"] if c["part"] == "run"]
    assert len(runs) == len(result["config"]["seeds"]) >= 3
    for cell in result["cells"]:
        if cell["part"] == "summary":
            own = [
                search
                for run in runs
                for search in run["searches"]
                if (search["guide"], search["budget"]) == (cell["guide"], cell["budget"])
            ]
            assert np.mean([s["accuracy"] for s in own]) == pytest.approx(
                cell["accuracy"][0], abs=0.02
            )
            assert np.mean([s["tokens"] for s in own]) == pytest.approx(cell["tokens"], abs=0.1)
