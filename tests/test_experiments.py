"""Result files: their provenance, and that nothing in them was chosen on the test problems."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from implicitprm.arithmetic import load_rollouts
from implicitprm.experiments import start_here, store


def test_a_result_carries_its_provenance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "result_path", lambda name: tmp_path / "results" / f"{name}.json")
    store.save_result("x", "python -m x", {"beta": 1.0}, [{"seed": 0}], 0.5, 12.3)
    result = store.load_result("x")
    assert result["cells"] == [{"seed": 0}]
    for field in ("command", "config_hash", "versions", "python", "device", "threads", "seconds"):
        assert result[field]
    changed = json.loads((tmp_path / "results" / "x.json").read_text())
    changed["config"]["beta"] = 2.0
    (tmp_path / "results" / "x.json").write_text(json.dumps(changed))
    with pytest.raises(ValueError, match="hash"):
        store.load_result("x")


def test_the_hash_sees_every_value() -> None:
    assert store.config_hash({"a": 1, "b": 2}) == store.config_hash({"b": 2, "a": 1})
    assert store.config_hash({"a": 1}) != store.config_hash({"a": 2})


@pytest.fixture(scope="module")
def stored() -> dict:
    return store.load_result("start_here")


def test_hyper_parameters_are_the_best_on_validation(stored: dict) -> None:
    sweep = [cell for cell in stored["cells"] if cell["part"] == "validation"]
    assert len(sweep) == len(start_here.BETAS) * len(start_here.LEARNING_RATES)
    best = max(sweep, key=lambda cell: cell["accuracy"])
    config = stored["config"]
    assert (config["beta"], config["learning_rate"]) == (best["beta"], best["learning_rate"])


def test_every_world_split_and_seed_is_there(stored: dict) -> None:
    cells = {
        (cell["world"], cell["split"], cell["seed"])
        for cell in stored["cells"]
        if cell["part"] == "test"
    }
    assert cells == {
        (world, split, seed)
        for world, splits in start_here.TESTS.items()
        for split in splits
        for seed in start_here.SEEDS
    }


def test_the_claim_holds_by_more_than_three_tolerances(stored: dict) -> None:
    """CE, min over steps, best of 16, on problems of seen facts: 10 points above majority."""
    assert 0 < stored["tolerance"] < 2
    for cell in stored["cells"]:
        if cell["part"] == "test" and (cell["world"], cell["split"]) == ("reasoner", "test"):
            value, low, _ = cell["rows"][start_here.RULE]["minus majority"]
            assert value - 10 > 3 * stored["tolerance"]
            assert low > 3 * stored["tolerance"]


def test_rows_that_need_no_training_are_recomputed(stored: dict) -> None:
    """Chance in every cell, from the shipped rollouts; chapter 00 recomputes a whole cell."""
    for cell in stored["cells"]:
        if cell["part"] == "test":
            rows = load_rollouts(cell["world"], cell["split"])
            right = sum(w * bool(r) for w, r in zip(rows["weight"], rows["label"], strict=True))
            chance = cell["rows"]["chance (pass@1)"]["accuracy"][0]
            assert chance == pytest.approx(100 * right / sum(rows["weight"]), abs=1e-3)


def test_largest_difference() -> None:
    a = {"x": {"accuracy": [50.0, 0, 0]}, "y": {"accuracy": [60.0, 0, 0]}}
    b = {"x": {"accuracy": [50.5, 0, 0]}, "y": {"accuracy": [58.0, 0, 0]}}
    assert start_here.largest_difference(a, b) == 2.0
