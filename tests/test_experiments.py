"""Result files: their provenance, and that nothing in them was chosen on the test problems."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cells import square
from datasets import Dataset

from implicitprm.arithmetic import load_rollouts
from implicitprm.arithmetic.measure import candidate_grid
from implicitprm.evaluation import best_of_n_accuracy, pass_at_n, vote_accuracy
from implicitprm.experiments import best_of_n, grid, objectives, paper, start_here, store


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


# --- grids --------------------------------------------------------------------------------------


def test_a_grid_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finished cells are kept through a failure; the rest is measured by the next call."""
    monkeypatch.setattr(grid, "SCRATCH", tmp_path)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    config = {"a": 1}
    with pytest.raises(ValueError, match="negative"):
        grid.run_cells("g", config, [{"x": 2}, {"x": -1}, {"x": 3}], square, workers=1)
    assert (tmp_path / "calls").read_text().split()[:2] == ["2", "-1"]
    cells = [{"x": 3}, {"x": 2}, {"x": 4}]
    results = grid.run_cells("g", config, cells, square, workers=2)
    assert [result["seconds"] >= 0 for result in results] == [True] * 3
    assert [{k: v for k, v in result.items() if k != "seconds"} for result in results] == [
        {"x": x, "square": x * x, "pair": [1.5, x]} for x in (3, 2, 4)
    ]
    calls = (tmp_path / "calls").read_text().split()
    assert calls.count("2") == 1  # not measured again
    # Nothing is left to do, and no worker is needed for it.
    assert grid.run_cells("g", config, cells, square, workers=1) == results
    assert (tmp_path / "calls").read_text().split() == calls
    # A grid whose result is written is forgotten: a remake measures.
    grid.forget_cells("g", config)
    assert grid.run_cells("g", config, [{"x": 4}], square, workers=1)
    assert (tmp_path / "calls").read_text().split().count("4") == 2
    # Another configuration starts anew.
    assert grid.run_cells("g", {"a": 2}, [{"x": 2}], square, workers=1)
    assert (tmp_path / "calls").read_text().split().count("2") == 2


# --- chapter 06 -----------------------------------------------------------------------------------


def test_the_best_on_validation_is_chosen() -> None:
    cells = [
        {"variant": variant, "beta": beta, "learning_rate": 1e-3, "accuracy": {objectives.RULE: a}}
        for variant in objectives.SWEEP
        for beta, a in ((0.5, 60.0), (1.0, 70.0), (2.0, 65.0))
    ]
    chosen = objectives.choose(cells)
    assert chosen == {
        name: {"beta": 1.0, "learning_rate": 1e-3} for name in ("ce", "dpo", "nca", "kto")
    }


def test_every_variant_has_its_rows() -> None:
    rollouts = Dataset.from_dict(
        {
            "prompt": ["p", "p", "p", "q"],
            "completion": ["a", "b", "c", "d"],
            "label": [True, False, False, True],
            "weight": [2, 1, 3, 5],
        }
    )
    rows = {name: objectives.training_rows(name, rollouts) for name in objectives.VARIANTS}
    assert {name: len(data) for name, data in rows.items()} == {
        "CE": 4,
        "KTO": 4,
        "DPO": 2,
        "NCA": 2,
        "CE, balanced": 4,
        "CE, balanced by prompt": 3,
        "DPO, matched pairs": len(rows["DPO, matched pairs"]),
    }
    assert sum(rows["DPO, matched pairs"]["weight"]) == 2
    assert sum(rows["DPO"]["weight"]) == 8
    assert sum(rows["CE, balanced"]["weight"]) == pytest.approx(11)


def made_up_runs() -> list[dict]:
    """Two seeds of every variant on three problems; CE gets 60% and 80% of them right."""

    def answers(shift: float) -> dict:
        by_rule = {rule: [50.0 + shift, 60.0 + shift, 70.0 + shift] for rule in objectives.MEASURED}
        return by_rule | {"majority vote": [40.0, 50.0, 60.0]}

    return [
        {
            "variant": variant,
            "seed": seed,
            "generators": {
                generator: {"answers": {split: answers(10.0 * place + 2.0 * seed) for split in
                                        objectives.SPLITS}}
                for generator in objectives.GENERATORS
            },
        }
        for place, variant in enumerate(objectives.VARIANTS)
        for seed in (0, 1)
    ]  # fmt: skip


def test_differences_are_paired_with_majority_and_with_the_rivals() -> None:
    summaries = objectives.summarise(made_up_runs())
    rows = {
        s["variant"]: s["rows"][objectives.RULE] for s in summaries if s["generator"] == "early"
    }
    places = {variant: 10.0 * place for place, variant in enumerate(objectives.VARIANTS)}
    for variant, row in rows.items():
        assert row["accuracy"][0] == pytest.approx(61 + places[variant])
        # The same for every problem, so the interval of the difference is a point.
        assert row["minus majority"] == pytest.approx([11 + places[variant]] * 3)
        for rival in ("CE", "DPO"):
            difference = places[variant] - places[rival]
            assert row[f"minus {rival}"] == pytest.approx([difference] * 3)


def test_the_tolerance_is_twice_the_largest_difference() -> None:
    runs = made_up_runs()
    again = [run for run in made_up_runs() if run["seed"] == 0 and run["variant"] in ("CE", "DPO")]
    again[1]["generators"]["strong"]["answers"]["test"][objectives.RULE][1] += 6.0  # 2 on average
    assert objectives.tolerances(runs, again) == {"ce": objectives.MIN_TOLERANCE, "dpo": 4.0}


@pytest.fixture(scope="module")
def four() -> dict:
    return store.load_result("objectives")


def test_hyper_parameters_of_each_objective_are_the_best_on_validation(four: dict) -> None:
    sweep = [cell for cell in four["cells"] if cell["part"] == "validation"]
    grids = {name: len(betas) * len(rates) for name, (betas, rates) in objectives.SWEEP.items()}
    assert {name: sum(c["variant"] == name for c in sweep) for name in grids} == grids
    assert four["config"]["chosen"] == objectives.choose(sweep)


def test_every_variant_and_seed_is_there(four: dict) -> None:
    runs = [cell for cell in four["cells"] if cell["part"] == "run"]
    assert {(run["variant"], run["seed"]) for run in runs} == {
        (variant, seed) for variant in objectives.VARIANTS for seed in objectives.SEEDS
    }
    for run in runs:
        objective = objectives.VARIANTS[run["variant"]][0]
        assert {"beta": run["beta"], "learning_rate": run["learning_rate"]} == (
            four["config"]["chosen"][objective]
        )
        assert set(run["generators"]) == set(objectives.GENERATORS)
    assert set(four["tolerance"]) == {"ce", "dpo", "nca", "kto"}
    assert all(objectives.MIN_TOLERANCE <= value < 5 for value in four["tolerance"].values())


def test_the_order_of_objectives_holds_by_more_than_three_tolerances(four: dict) -> None:
    """CE above NCA above DPO on the reasoner's rollouts, by the minimum over steps.

    KTO's own tolerance is larger than its lead: that it comes first is no claim that is checked.
    """
    means = {}
    for name in ("CE", "NCA", "DPO", "KTO"):
        means[name] = np.mean(
            [
                run["generators"]["reasoner"]["answers"]["test"][objectives.RULE]
                for run in four["cells"]
                if run["part"] == "run" and run["variant"] == name
            ]
        )
    tolerance = four["tolerance"]
    assert means["CE"] - means["NCA"] > 3 * max(tolerance["ce"], tolerance["nca"])
    assert means["NCA"] - means["DPO"] > 3 * max(tolerance["nca"], tolerance["dpo"])
    assert means["KTO"] > means["CE"]


def test_summaries_are_the_means_of_the_runs(four: dict) -> None:
    runs = [cell for cell in four["cells"] if cell["part"] == "run"]
    for cell in four["cells"]:
        if cell["part"] == "summary":
            own = [
                run["generators"][cell["generator"]]["answers"][cell["split"]]
                for run in runs
                if run["variant"] == cell["variant"]
            ]
            for rule, row in cell["rows"].items():
                mean = sum(answers[rule] for answers in own) / len(own)
                value, low, high = row["accuracy"]
                assert value == pytest.approx(mean, abs=0.02)
                assert low <= value <= high


def test_stored_baselines_are_recomputed_from_the_rollouts(four: dict) -> None:
    (ce, *_) = (cell for cell in four["cells"] if cell["part"] == "run")
    for generator in objectives.GENERATORS:
        rows = load_rollouts(generator, "test")
        right = sum(w * bool(r) for w, r in zip(rows["weight"], rows["label"], strict=True))
        stored = ce["generators"][generator]["answers"]["test"]["chance (pass@1)"]
        assert stored == pytest.approx(100 * right / sum(rows["weight"]), abs=0.02)


def test_the_papers_table_has_the_papers_averages() -> None:
    """Typed numbers against the averages that the paper prints beside them."""
    printed = {
        "EurusRM-7B": 46.9, "SkyworkRM-Llama3.1-8B": 46.8, "ArmoRM-Llama3-8B": 46.6,
        "Math-Shepherd-7B": 45.6, "RLHFlow-8B-Mistral-Data": 49.1, "RLHFlow-8B-DS-Data": 49.1,
        "Math-Shepherd (re-implemented)": 47.8, "AutoPSV (re-implemented)": 45.7,
        "DPO": 50.4, "KTO": 45.7, "NCA": 49.4, "CE": 48.4,
        "CE, balanced": 47.8, "CE, balanced by prompt": 49.0,
    }  # fmt: skip
    means = {
        name: np.mean(list(by_generator.values())) for name, by_generator in paper.TABLE_1.items()
    }
    assert means == pytest.approx(printed, abs=0.06)


# --- chapter 07 -----------------------------------------------------------------------------------


def test_a_candidate_with_a_rare_step_is_dropped() -> None:
    steps = [np.log([0.5, 0.2]), np.log([0.9, 0.04]), np.log([0.05, 0.9]), None]
    assert best_of_n.likely(steps, 0.05).tolist() == [True, False, True, False]


def test_of_dropped_candidates_only_none_is_preferred() -> None:
    scores, correct = np.array([[3.0, 2.0, 1.0, -np.inf]]), np.array([[False, True, True, False]])
    keep = np.array([[False, True, True, False]])
    accuracy = [
        best_of_n_accuracy(best_of_n.without(scores, mask), correct, 4)[0]
        for mask in (np.ones_like(keep), keep, np.zeros_like(keep))
    ]
    assert accuracy == [0.0, 1.0, 0.5]  # the last problem has no candidate left: all of them tie


def test_controls_drop_as_many() -> None:
    keep = best_of_n.keep_highest(np.array([[3.0, 1.0, 1.0], [1.0, 2.0, 3.0]]), np.array([1, 2]))
    assert keep.sum(1).tolist() == [2, 1]
    assert keep[0, 0]
    assert keep[1, 2]
    rng = np.random.default_rng(0)
    correct, kept = rng.random((5, 64)) < 0.4, rng.random((5, 64)) < 0.7
    for alike in (np.ones_like(kept), correct):
        shuffled = best_of_n.keep_at_random(kept, alike, rng)
        assert (shuffled != kept).any()
        for value in (False, True):
            group = alike == value
            assert ((shuffled & group).sum(1) == (kept & group).sum(1)).all()


def test_small_helpers_of_chapter_07_by_hand() -> None:
    assert best_of_n.only_losses(np.array([1.0, -2.0, 0.5, -0.5])) == -2.5
    by_n = {16: np.array([60.0, 80.0]), 64: np.array([50.0, 60.0])}
    assert best_of_n.fall(by_n) == [-15.0, -20.0, -10.0]
    one, other = [np.array([1.0, 2.0]), None], [np.array([3.0, 0.0]), None]
    mean, missing = best_of_n.average([one, other])
    assert mean is not None
    assert mean.tolist() == [2.0, 1.0]
    assert missing is None
    rows = Dataset.from_dict({"steps": [["1+1=2", "#2"], ["1+1=2"], ["36"]]})
    assert best_of_n.given_answers(rows) == ["#2", None, None]


def test_training_rows_lose_only_what_the_tokenizer_cannot_read() -> None:
    for world in best_of_n.WORLDS:
        lost = len(load_rollouts(world, "train")) - len(best_of_n.training_rows(world))
        assert 0 <= lost < 10, world


#: Two problems of 64 candidates: 32 right ones, and wrong ones with a rare and with a likely step.
KINDS = [("#1", True, 0.9, 0.0, 32), ("#2", False, 0.01, 3.0, 16), ("#3", False, 0.5, -3.0, 16)]


def made_up_candidates() -> tuple[Dataset, list[np.ndarray], list[np.ndarray]]:
    """Rows, log π_ref of their steps, and their step rewards; in the second problem all are rarer,
    none of its steps has π_ref of 0.3."""
    rows: list[dict] = []
    logps, rewards = [], []
    for prompt, factor in (("p", 1.0), ("q", 0.3)):
        for answer, right, chance, reward, weight in KINDS:
            rows.append({"prompt": prompt, "steps": ["1+1=2", answer], "label": right,
                         "weight": weight, "first_error": -1 if right else 0,
                         "valid": [right, True]})  # fmt: skip
            logps.append(np.log([chance * factor, 1.0]))
            rewards.append(np.array([reward, 0.0]))
    return Dataset.from_list(rows), logps, rewards


def test_interventions_by_hand() -> None:
    rows, logps, rewards = made_up_candidates()
    cells = best_of_n.interventions(rows, logps, [rewards, rewards], {"1+1=2", "#1", "#3"})
    found = {(c["rule"], c["drop"], c["epsilon"]): c for c in cells}
    at_64 = {key: cell["accuracy"][-1][0] for key, cell in found.items()}
    rule = best_of_n.SUM
    assert at_64[rule, "none", None] == 0.0
    assert at_64[rule, "a rare step", 0.03] == 100.0
    assert at_64[rule, "a step not in training", None] == 100.0
    # As many wrong ones at random leave some with the high reward.
    assert at_64[rule, "as many right and wrong at random", 0.03] == 0.0
    # The rare candidates are the least likely as a whole, too.
    assert at_64[rule, "as many rare solutions", 0.03] == 100.0
    # Cut off at 0 the rare ones tie with the right ones: 32 of 48.
    assert at_64[rule, "none, only rewards below 0 counted", None] == pytest.approx(66.67)
    assert at_64[rule, "none, rewards averaged over seeds", None] == 0.0
    dropped = found[rule, "a rare step", 0.03]
    assert (dropped["dropped"], dropped["right dropped"], dropped["emptied"]) == (25.0, 0.0, 0)
    assert dropped["gain at 64"] == [100.0, 100.0, 100.0]
    # All steps of the second problem are rarer than 0.3: its candidates tie, half of them right.
    emptied = found[rule, "a rare step", 0.3]
    assert (emptied["emptied"], emptied["accuracy"][-1][0]) == (1, 75.0)


def test_noise_by_hand() -> None:
    """Wrong steps with rewards 1 and 3 by two seeds in one problem, −1 and 1 in the other."""
    rows = Dataset.from_dict(
        {
            "prompt": ["p", "q"],
            "steps": [["1+1=3", "#3"], ["1+1=3", "#3"]],
            "weight": [60, 60],
            "first_error": [0, 0],
            "valid": [[False, True], [False, True]],
        }
    )
    logps = [np.log([0.05, 1.0])] * 2
    seeds = [[np.array([1.0, 0.0]), np.array([-1.0, 0.0])],
             [np.array([3.0, 0.0]), np.array([1.0, 0.0])]]  # fmt: skip
    (cell,) = best_of_n.noise(rows, logps, seeds)
    assert (cell["valid"], cell["low"], cell["high"], cell["steps"]) == (False, 0.03, 0.1, 120)
    assert cell["mean"] == [1.0, 0.0, 2.0]
    assert cell["seed sd"] == pytest.approx([2**0.5] * 3, abs=1e-3)
    # Variance of the means 1, less what the seeds' variance of 2 makes of it in a mean of two.
    assert cell["shared sd"][0] == 0.0
    assert cell["above 0"][0] == 75.0


def test_summaries_and_tolerances_of_made_up_runs() -> None:
    def run(world: str, seed: int, shift: float) -> dict:
        by_n = {str(n): [50.0 + shift, 70.0 + shift] for n in best_of_n.NS}
        rules = {rule for pair in best_of_n.PAIRS for rule in pair} | {best_of_n.VOTE_BY_MIN}
        tested = {w: dict.fromkeys(rules, by_n) for w in best_of_n.WORLDS[world][1]}
        return {"trained": world, "seed": seed, "tested": tested}

    runs = [run(world, seed, 2.0 * seed) for world in best_of_n.WORLDS for seed in (0, 1)]
    for cell in best_of_n.summarise(runs):
        row = cell["rules"][best_of_n.SUM]
        assert row["accuracy"][0] == [61.0, 51.0, 71.0]
        assert row["fall"] == [0.0, 0.0, 0.0]
        assert all(d["difference"][0] == [0.0, 0.0, 0.0] for d in cell["differences"])
    again = [run("reasoner", 0, 0.1), run("control", 0, 3.0)]
    assert best_of_n.tolerances(runs, again) == {
        "reasoner, best of N": best_of_n.MIN_TOLERANCE,
        "reasoner, vote": best_of_n.MIN_TOLERANCE,
        "control, best of N": 6.0,
        "control, vote": 6.0,
    }


@pytest.fixture(scope="module")
def chosen() -> dict:
    return store.load_result("best_of_n")


def test_every_world_and_seed_of_chapter_07_is_there(chosen: dict, four: dict) -> None:
    assert chosen["config"]["setting"] == four["config"]["chosen"]["ce"]
    runs = [cell for cell in chosen["cells"] if cell["part"] == "run"]
    assert {(run["trained"], run["seed"], *run["tested"]) for run in runs} == {
        (world, seed, *tested)
        for world, (_, tested) in best_of_n.WORLDS.items()
        for seed in best_of_n.SEEDS
    }
    others = [cell for cell in chosen["cells"] if cell["part"] == "other setting"]
    setting = chosen["config"]["setting"]
    assert [{k: other[k] for k in setting} for other in others] == [
        setting | other for other in best_of_n.OTHER_SETTINGS
    ]
    assert set(chosen["tolerance"]) == {
        f"{world}, {kind}" for world in best_of_n.WORLDS for kind in best_of_n.TRAINED
    }
    assert all(best_of_n.MIN_TOLERANCE <= value < 10 for value in chosen["tolerance"].values())
    drops = [cell for cell in chosen["cells"] if cell["part"] == "intervention"]
    assert len(drops) == 2 * (3 + 4 * len(best_of_n.EPSILONS)) + 1


def test_curves_of_chapter_07_are_the_means_of_the_runs(chosen: dict) -> None:
    runs = [cell for cell in chosen["cells"] if cell["part"] == "run"]
    for cell in chosen["cells"]:
        if cell["part"] == "summary":
            own = [r["tested"][cell["tested"]] for r in runs if r["trained"] == cell["trained"]]
            for rule, row in cell["rules"].items():
                mean = np.mean([run[rule] for run in own], axis=0)
                assert [value for value, _, _ in row["accuracy"]] == pytest.approx(mean, abs=0.02)
                n = [best_of_n.NS.index(n) for n in best_of_n.FALL]
                assert row["fall"][0] == pytest.approx(mean[n[1]] - mean[n[0]], abs=0.03)
                assert all(low <= value <= high for value, low, high in row["accuracy"])


def test_baselines_of_chapter_07_are_recomputed_from_the_rollouts(chosen: dict) -> None:
    (first, *_) = (cell for cell in chosen["cells"] if cell["part"] == "run")
    tested = {w: t for c in chosen["cells"] if c["part"] == "run" for w, t in c["tested"].items()}
    assert set(tested) == {"reasoner", "reasoner_full", "early", "strong", "control",
                           "control_full"}  # fmt: skip
    for world, rules in tested.items():
        rows = load_rollouts(world, "test")
        correct = np.array(rows["label"])[candidate_grid(rows)]
        answers = np.array(best_of_n.given_answers(rows), dtype=object)[candidate_grid(rows)]
        for place, n in enumerate(best_of_n.NS):
            assert rules["chance"][place] == pytest.approx(100 * correct.mean(), abs=0.02)
            oracle = 100 * pass_at_n(correct, n).mean()
            assert rules["oracle"][place] == pytest.approx(oracle, abs=0.02)
        majority = 100 * vote_accuracy(answers.tolist(), correct, 64).mean()
        assert rules["majority vote"][-1] == pytest.approx(majority, abs=0.02)
    assert first["tested"]["reasoner"]["chance"] == [first["tested"]["reasoner"]["chance"][0]] * 7


def test_the_claims_of_chapter_07_hold_by_more_than_three_tolerances(chosen: dict) -> None:
    rules = {
        (c["trained"], c["tested"]): c["rules"] for c in chosen["cells"] if c["part"] == "summary"
    }
    of = {world: rules[world, world] for world in best_of_n.WORLDS}
    worst = {w: 3 * chosen["tolerance"][f"{w}, best of N"] for w in best_of_n.WORLDS}
    vote = {w: 3 * chosen["tolerance"][f"{w}, vote"] for w in best_of_n.WORLDS}
    last = {(w, r): row["accuracy"][-1][0] for w, by in of.items() for r, row in by.items()}
    # Best-of-N falls where nothing is truncated, with misconceptions and without.
    for world in ("reasoner_full", "control_full"):
        for rule in (best_of_n.SUM, best_of_n.MIN):
            assert -of[world][rule]["fall"][0] > worst[world]
        assert last[world, best_of_n.VOTE] - last[world, best_of_n.MIN] > worst[world]
    # Votes do better than the majority where there are misconceptions, and cannot where not.
    for world in ("reasoner", "reasoner_full"):
        assert last[world, best_of_n.VOTE] - last[world, best_of_n.MAJORITY] > vote[world]
    assert last["control_full", best_of_n.MAJORITY] > 99
    # Sampling with min-p takes most of the fall away, training with it does not.
    deep = of["reasoner_full"][best_of_n.SUM]["fall"][0]
    sampled = rules["reasoner_full", "reasoner"][best_of_n.SUM]["fall"][0]
    trained = rules["reasoner", "reasoner_full"][best_of_n.SUM]["fall"][0]
    assert sampled - deep > worst["reasoner_full"]
    assert sampled - trained > worst["reasoner_full"]
    # Dropping rare steps ends the fall; five seeds together do not.
    drops = {
        (c["drop"], c["epsilon"]): c
        for c in chosen["cells"]
        if c["part"] == "intervention" and c["rule"] == best_of_n.SUM
    }
    assert drops["a rare step", 0.1]["fall"][1] > 0
    assert drops["a rare step", 0.1]["gain at 64"][0] > worst["reasoner_full"]
    assert -drops["none, rewards averaged over seeds", None]["fall"][0] > worst["reasoner_full"]


def test_figure_3_fits_table_1_where_both_tell_the_same() -> None:
    """The reward alone is Table 1's average; votes are above it."""
    for name, (alone, voted) in paper.FIGURE_3.items():
        assert alone == pytest.approx(np.mean(list(paper.TABLE_1[name].values())), abs=0.06)
        assert voted > max(alone, paper.FIGURE_3_MAJORITY)
