"""The experiment on real solutions: its parts, its tables by hand, one cell on a tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from test_wordproblems import tiny_model

from implicitprm.experiments import real_solutions, smollm2
from implicitprm.experiments.store import load_result

MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


def write_solutions(path: Path) -> str:
    """72 questions; the model of number m is right on those that (m + 2) divides."""
    lines = []
    for number in range(72):
        solutions = {
            name: {
                "solution": f"It is <<1+1=2>>{number}.\nA: {number if not number % (m + 2) else m}",
                "is_correct": not number % (m + 2),
            }
            for m, name in enumerate(MODELS)
        }
        question = {"question": f"What is {number}?", "ground_truth": f"#### {number}"}
        lines.append(json.dumps(question | solutions))
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)  # cells and weights are kept below
    monkeypatch.setattr(real_solutions, "PARTS", {"train": 12, "validation": 20, "test": 40})
    monkeypatch.setattr(real_solutions, "BLOCK", 15)
    monkeypatch.setattr(real_solutions, "RESAMPLES", 20)
    monkeypatch.setattr(smollm2, "load_policy", lambda adapter: tiny_model())
    real_solutions.bench.cache_clear()
    real_solutions.solutions_of.cache_clear()
    return write_solutions(tmp_path / "solutions.jsonl")


def run_here(
    name: str,
    config: dict[str, Any],
    cells: list[dict[str, Any]],
    measure: Callable[[Any], dict[str, Any]],
    workers: int,
) -> list[dict[str, Any]]:
    """Stands for run_cells, whose workers would load SmolLM2."""
    return [cell | measure(cell) | {"seconds": 1.0} for cell in cells]


def test_no_question_is_in_two_parts(file: str) -> None:
    parts = {part: real_solutions.solutions_of(file, part) for part in real_solutions.PARTS}
    questions = {part: set(rows["prompt"]) for part, rows in parts.items()}
    assert [len(q) for q in questions.values()] == [12, 20, 40]
    assert len(set.union(*questions.values())) == 72
    for rows in parts.values():
        for start in range(0, len(rows), 4):
            assert tuple(rows["model"][start : start + 4]) == MODELS
            assert len(set(rows["prompt"][start : start + 4])) == 1
    with pytest.raises(ValueError, match="no part 'rest'"):
        real_solutions.solutions_of(file, "rest")


def hand_rows(labels: list[list[bool]], answers: list[list[str]]) -> Dataset:
    return Dataset.from_list(
        [
            {"prompt": str(q), "completion": f"A: {answer}", "label": label, "model": model}
            for q, (row, texts) in enumerate(zip(labels, answers, strict=True))
            for label, answer, model in zip(row, texts, MODELS, strict=True)
        ]
    )


def test_choices_by_hand() -> None:
    """Three questions: the best model, the vote and the reward are each right on other ones."""
    rows = hand_rows(
        [[0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]],  # type: ignore[list-item]
        [["3", "5", "5", "6"], ["1", "2", "2", "4"], ["8", "8", "9", "7"]],
    )
    scores = np.array([0, 1, 2, 3, 9, 1, 2, 3, 0, 1, 2, 3], dtype=float)
    found = real_solutions.choices(rows, {real_solutions.REWARD: scores}, best=3)
    assert found[f"best of 4: {real_solutions.REWARD}"].tolist() == [0, 1, 1]
    assert found["majority vote"].tolist() == [1, 0, 0]
    assert found["always the best model"].tolist() == [0, 0, 1]
    assert found["chance"].tolist() == [0.5, 0.25, 0.25]
    assert found["oracle"].tolist() == [1, 1, 1]
    # σ(9) + nothing against σ(1) + σ(2): the vote of question 1 stays with two solutions.
    assert found["vote weighted by reward"].tolist() == [1, 0, 0]
    table = real_solutions.table(found)
    assert table["majority vote"]["minus always the best model"][0] == 0
    assert table["oracle"]["minus always the best model"][0] == pytest.approx(66.67, abs=0.01)


def test_the_best_model_is_the_one_with_most_right() -> None:
    rows = hand_rows([[0, 1, 1, 0], [0, 0, 1, 1]], [["1"] * 4] * 2)  # type: ignore[list-item]
    assert real_solutions.best_model(rows) == 2
    assert [mask.tolist().index(True) for mask in real_solutions.masks_of(rows)] == [0, 1, 2, 3]


def test_a_score_that_only_tells_models_apart_is_chance_within_them(file: str) -> None:
    rows = real_solutions.solutions_of(file, "test")
    which = np.array([MODELS.index(model) for model in rows["model"]], dtype=float)
    found = real_solutions.aurocs(rows, {"which": which, "label": np.array(rows["label"], float)})
    assert found["which"]["mean"] == [0.5, 0.5, 0.5]
    assert found["label"]["mean"] == [1, 1, 1]
    assert set(found["which"]) == {*MODELS, "mean"}


def test_gains_in_auroc_are_paired(monkeypatch: pytest.MonkeyPatch) -> None:
    """A score with less noise gains; one of equal order gains nothing, exactly."""
    monkeypatch.setattr(real_solutions, "RESAMPLES", 50)
    rng = np.random.default_rng(0)
    labels = rng.random((40, 4)) < 0.5
    rows = hand_rows(labels.tolist(), [["1"] * 4] * 40)
    better, worse = (labels + rng.normal(0, noise, (40, 4)) for noise in (0.5, 2.0))
    scores = {real_solutions.REWARD: better.ravel(), "same": 2 * better.ravel() + 1}
    gains = real_solutions.auroc_gains(rows, scores | {"worse": worse.ravel()})
    assert gains["same"] == [0, 0, 0]
    found = real_solutions.aurocs(rows, {"a": better.ravel(), "b": worse.ravel()})
    assert gains["worse"][0] == pytest.approx(
        found["a"]["mean"][0] - found["b"]["mean"][0], abs=0.002
    )
    assert 0 < gains["worse"][1] < gains["worse"][0] < gains["worse"][2]


def test_blocks_are_the_test_questions_in_order(file: str) -> None:
    blocks = [real_solutions.block_of(file, first) for first in range(0, 40, 15)]
    assert [len(block) for block in blocks] == [60, 60, 40]
    test = real_solutions.solutions_of(file, "test")
    assert [row for block in blocks for row in block] == list(test)
    runs = [{"scores": {"a": [1.0, 2.0], "b": [3.0, 4.0]}}, {"scores": {"a": [5.0], "b": [6.0]}}]
    joined = real_solutions.joined(runs)
    assert {name: values.tolist() for name, values in joined.items()} == {
        "a": [1, 2, 5], "b": [3, 4, 6],
    }  # fmt: skip


def test_the_tolerance_is_twice_the_largest_difference_of_auroc() -> None:
    rows = hand_rows([[0, 0, 0, 0], [1, 1, 1, 1]], [["1"] * 4] * 2)  # type: ignore[list-item]
    right, one_wrong = [0.0] * 4 + [1.0] * 4, [0.0] * 4 + [-1.0, 1.0, 1.0, 1.0]
    run, again = ({"scores": {"a": right, "b": b}} for b in (right, one_wrong))
    assert real_solutions.tolerance(rows, run, again) == 2 * 0.25
    assert real_solutions.tolerance(rows, run, run) == 0


def test_a_cell_is_trained_once(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = {"file": file, "beta": 0.5, "learning_rate": 3e-3, "seed": 0}
    assert 0 <= real_solutions.validate(cell)[real_solutions.REWARD] <= 1
    before = real_solutions.measure(cell | {"first": 30})
    assert {len(values) for values in before["scores"].values()} == {40}
    real_solutions.bench.cache_clear()  # as another process, which finds the weights

    def never(*arguments: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(smollm2.Bench, "train", never)
    after = real_solutions.measure(cell | {"first": 30})
    for name, values in before["scores"].items():
        np.testing.assert_allclose(values, after["scores"][name], atol=1e-4, err_msg=name)
    assert np.ptp(before["scores"][real_solutions.REWARD]) > 0.01  # trained weights, not the start
    for changed in ({"seed": 1}, {"learning_rate": 1e-3}, {"beta": 0.1}, {"attention": "eager"}):
        with pytest.raises(AssertionError, match="trained again"):
            real_solutions.measure(cell | {"first": 30} | changed)


def test_the_whole_experiment(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Any] = []
    monkeypatch.setattr(real_solutions, "run_cells", run_here)
    monkeypatch.setattr(real_solutions, "save_result", lambda *arguments: saved.extend(arguments))
    real_solutions.main(file)
    name, _, config, cells, tolerance, seconds = saved
    assert (name, seconds) == ("real_solutions", 4 + 3 * 3 + 1)
    assert 0 <= tolerance < 0.1
    assert "solutions.jsonl" not in json.dumps([config, cells])  # no path of a machine
    validation = [cell for cell in cells if cell["part"] == "validation"]
    best = max(validation, key=lambda cell: cell[real_solutions.REWARD])
    assert config["chosen"] == {name: best[name] for name in ("beta", "learning_rate")}
    runs = [cell for cell in cells if cell["part"] == "run"]
    summary = cells[-1]
    assert [run["seed"] for run in runs] == [0, 1, 2]
    labels = np.array(real_solutions.solutions_of(file, "test")["label"])
    for cell in (*runs, summary):
        assert cell["rows"]["chance"]["accuracy"][0] == pytest.approx(100 * labels.mean(), abs=0.01)
        assert set(cell["AUROC"][real_solutions.REWARD]) == {*MODELS, "mean"}
    assert set(summary["AUROC of the reward minus"]) >= {"log π_ref alone", "shortest"}
    name = f"best of 4: {real_solutions.REWARD}"
    assert summary["rows"][name]["accuracy"][0] == pytest.approx(
        np.mean([run["rows"][name]["accuracy"][0] for run in runs]), abs=0.02
    )


def test_stored_rows_without_a_model_are_recomputed(data_dir: Path) -> None:
    """Chance, oracle, vote and the best model need no reward: they follow from the data."""
    file = str(data_dir / "gsm8k_model_solutions.jsonl")
    stored = load_result("real_solutions")
    assert stored["config"]["parts"] == real_solutions.PARTS
    rows, summary = real_solutions.solutions_of(file, "test"), stored["cells"][-1]
    best = real_solutions.best_model(real_solutions.solutions_of(file, "train"))
    free = real_solutions.choices(rows, {real_solutions.REWARD: np.zeros(len(rows))}, best)
    for name in ("chance", "oracle", real_solutions.MAJORITY, real_solutions.BEST):
        assert summary["rows"][name] == real_solutions.table(free)[name], name
