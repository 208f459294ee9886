"""The experiment on real solutions: its parts, its tables by hand, one cell on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from test_wordproblems import tiny_model

from implicitprm.experiments import real_solutions, smollm2

MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
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
    path = tmp_path / "solutions.jsonl"
    path.write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(real_solutions, "PARTS", {"train": 12, "validation": 20, "test": 40})
    monkeypatch.setattr(smollm2, "load_policy", lambda adapter: tiny_model())
    real_solutions.bench.cache_clear()
    real_solutions.solutions_of.cache_clear()
    return str(path)


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


def test_a_cell(file: str) -> None:
    cell = {"file": file, "beta": 0.5, "learning_rate": 3e-3, "seed": 0}
    assert 0 <= real_solutions.validate(cell)[real_solutions.REWARD] <= 1
    run = real_solutions.measure(cell)
    rows = real_solutions.solutions_of(file, "test")
    assert run["rows"]["chance"]["accuracy"][0] == pytest.approx(
        100 * np.mean(rows["label"]), abs=0.01
    )
    summary = real_solutions.summarise(rows, [run, run])
    assert summary["rows"] == run["rows"]
    assert summary["AUROC"] == run["AUROC"]
    kept = real_solutions._stored(cell | run)
    assert not {"file", "scores", "values"} & set(kept)  # no path of a machine in a result file
