"""The experiment on ProcessBench: no leaked question, labels, thresholds and F1 by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_real_solutions import run_here, write_solutions
from test_wordproblems import tiny_model

from implicitprm.data import read_rows
from implicitprm.experiments import processbench, real_solutions, smollm2
from implicitprm.experiments.store import load_result

COLUMNS = ("step_rewards", "q_values", "policy_step_logps", "ref_step_logps")


def write_split(path: Path, problems: list[str]) -> str:
    """Problems in the official layout. Errors are in the last step but one."""
    rows = [
        {
            "id": f"gsm8k-{number}",
            "generator": "someone",
            "problem": problem,
            "steps": [f"Step {step}." for step in range(2 + number % 3)],
            "final_answer_correct": number % 2 == 0,
            "label": number % 3 if number % 2 else -1,
        }
        for number, problem in enumerate(problems)
    ]
    path.write_text(json.dumps(rows))
    return str(path)


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """All 72 questions of the solutions, 32 of which are trained on or chosen with; 20 others."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(real_solutions, "PARTS", {"train": 12, "validation": 20, "test": 40})
    monkeypatch.setattr(processbench, "PROBLEMS", {"gsm8k": 40, "math": 15})
    monkeypatch.setattr(smollm2, "load_policy", lambda adapter: tiny_model())
    real_solutions.solutions_of.cache_clear()
    processbench.bench.cache_clear()
    return {
        "solutions": write_solutions(tmp_path / "solutions.jsonl"),
        "gsm8k": write_split(tmp_path / "gsm8k.json", [f"What is {n}?" for n in range(72)]),
        "math": write_split(tmp_path / "math.json", [f"Prove {n}." for n in range(20)]),
    }


def test_no_question_that_was_trained_on_or_chosen_with(sources: dict[str, str]) -> None:
    file = sources["solutions"]
    rows = processbench.problems_of(sources["gsm8k"], "gsm8k", file)
    known = {
        question
        for part in ("train", "validation")
        for question in real_solutions.solutions_of(file, part)["prompt"]
    }
    assert len(known) == 32
    assert len(set(rows["prompt"])) == 40
    assert not known & set(rows["prompt"])
    numbers = [int(value.removeprefix("gsm8k-")) for value in rows["id"]]
    assert numbers != sorted(numbers)  # the official files are sorted by label
    assert len(processbench.problems_of(sources["math"], "math", file)) == 15


def test_too_few_unseen_problems(sources: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processbench, "PROBLEMS", {"gsm8k": 41})
    with pytest.raises(ValueError, match="40 unseen problems, not 41"):
        processbench.problems_of(sources["gsm8k"], "gsm8k", sources["solutions"])


def by_hand(first_error: list[int], scores: list[list[float]]) -> dict[str, Any]:
    ends = [list(range(3, 3 * len(s) + 1, 3)) for s in scores]
    return {"first_error": first_error, "step_ends": ends, "seed": 0} | dict.fromkeys(
        COLUMNS, scores
    )


def test_f1_by_hand() -> None:
    """gsm8k chooses a threshold of 0; on math it finds 1 of 2 errors, clears 2 of 3 others: 4/7."""
    gsm8k = by_hand([1, -1] * 4, [[1.0, -1.0], [1.0, 1.0]] * 4)
    math = by_hand(
        [0, 1, -1, -1, -1], [[-0.5, -2.0], [-0.5, -2.0], [0.5, 3.0], [0.5, 0.5], [0.5, -0.5]]
    )
    tables = processbench.tables_of({"gsm8k": gsm8k, "math": math})
    assert list(tables) == [
        "gsm8k, threshold of the other half",
        "gsm8k, threshold of gsm8k",
        "math, threshold of gsm8k",
    ]
    found = {
        name: processbench.f1_table(hits, np.array(labels))["step reward"]
        for (name, hits), labels in zip(
            tables.items(), [gsm8k["first_error"]] * 2 + [math["first_error"]], strict=True
        )
    }
    assert found["gsm8k, threshold of gsm8k"]["F1"] == [100, 100, 100]
    assert found["gsm8k, threshold of the other half"]["F1"] == [100, 100, 100]
    carried = found["math, threshold of gsm8k"]
    assert carried["F1"][0] == pytest.approx(400 / 7, abs=0.01)
    assert carried["accuracy with error"][0] == 50
    assert carried["accuracy without"][0] == pytest.approx(200 / 3, abs=0.01)
    chance = processbench.f1_table(
        tables["math, threshold of gsm8k"], np.array(math["first_error"])
    )["chance"]
    assert chance["F1"][0] == pytest.approx(100 / 3, abs=0.01)
    gain = chance["F1 of step reward minus this one's"]
    assert gain[0] == pytest.approx(400 / 7 - 100 / 3, abs=0.02)
    assert gain[1] < gain[0] < gain[2]


def test_the_tolerance_is_twice_the_largest_difference_of_f1() -> None:
    def run(f1: float) -> dict[str, Any]:
        return {"t": {"a": {"F1": [f1, 0, 1]}, "b": {"F1": [2.0, 0, 1]}}}

    assert processbench.tolerance(run(20.0), run(21.5)) == 3
    assert processbench.tolerance(run(20.0), run(20.0)) == 0


def test_seeds_are_averaged_problem_by_problem() -> None:
    runs = [{"t": {"a": np.array([1.0, 0.0])}}, {"t": {"a": np.array([1.0, 1.0])}}]
    assert processbench.mean_hits(runs)["t"]["a"].tolist() == [1, 0.5]


def test_the_whole_experiment(sources: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    cells: list[dict[str, Any]] = []
    measured: list[dict[str, Any]] = []

    def run_and_keep(*arguments: Any) -> list[dict[str, Any]]:
        measured.extend(run_here(*arguments))
        return measured[-len(arguments[2]) :]

    chosen = {"beta": 0.5, "learning_rate": 3e-3}
    monkeypatch.setattr(
        processbench, "load_result", lambda name: {"config": {"chosen": chosen, "seeds": [0, 1]}}
    )
    monkeypatch.setattr(processbench, "run_cells", run_and_keep)
    monkeypatch.setattr(processbench, "save_result", lambda *arguments: cells.extend(arguments[3]))
    processbench.main(sources["solutions"], sources["gsm8k"], sources["math"])
    # A label belongs to its own row, and counts from 0: in this data the number of steps says it.
    for run in measured:
        for label, ends in zip(run["first_error"], run["step_ends"], strict=True):
            assert label in (-1, len(ends) - 2)
    assert [(run["split"], run["seed"]) for run in measured] == [
        ("gsm8k", 0), ("gsm8k", 1), ("gsm8k", 0), ("math", 0), ("math", 1), ("math", 0),
    ]  # fmt: skip
    assert measured[0]["ref_step_logps"] == measured[1]["ref_step_logps"]
    assert measured[0]["step_rewards"] != measured[1]["step_rewards"]
    for reward, policy, ref in zip(
        *(measured[0][name][0] for name in ("step_rewards", "policy_step_logps", "ref_step_logps")),
        strict=True,
    ):
        assert reward == pytest.approx(0.5 * (policy - ref), abs=1e-4)
    assert not any(source in json.dumps(cells) for source in sources.values())
    by_part = {cell["part"]: cell for cell in cells}
    assert set(by_part) == {"problems", "run", "summary", "published"}
    assert by_part["problems"] | {"with error": 0} == {
        "part": "problems", "split": "math", "problems": 15, "with error": 0,
    }  # fmt: skip
    table = "math, threshold of gsm8k"
    values = [cell[table]["step reward"]["accuracy without"][0] for cell in cells if "seed" in cell]
    mean = by_part["summary"][table]["step reward"]["accuracy without"][0]
    assert mean == pytest.approx(np.mean(values), abs=0.02)


def test_every_problem_of_gsm8k_is_found_among_the_solutions(data_dir: Path) -> None:
    """So that none that was trained on is missed for a difference in spelling."""
    solutions = str(data_dir / "gsm8k_model_solutions.jsonl")
    gsm8k = str(data_dir / "processbench_gsm8k.json")
    questions = set(read_rows(solutions)["question"])
    assert set(read_rows(gsm8k)["problem"]) <= questions
    stored = load_result("processbench")
    assert stored["config"]["problems"] == processbench.PROBLEMS
    for cell in stored["cells"][: len(processbench.PROBLEMS)]:
        split = cell["split"]
        source = str(data_dir / f"processbench_{split}.json")
        labels = processbench.problems_of(source, split, solutions)["first_error"]
        assert (len(labels), sum(label >= 0 for label in labels)) == (
            cell["problems"], cell["with error"],
        )  # fmt: skip
