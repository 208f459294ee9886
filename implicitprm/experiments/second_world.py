"""Chapter 15: ``python -m implicitprm.experiments.second_world`` (15 minutes of one core).

Do the findings of the arithmetic world carry over to programs of a stack machine? The main table
only: each objective's β and learning rate are chosen on the validation split; then it is trained
with several seeds and measured on the test rollouts, with chance, majority, an oracle, the
log-probabilities of either model alone and length in the same table. A vote is taken over what
programs do on the tests. Cells are kept, so that the command goes on after an interruption. To
measure how far another machine may be off, the first seed of each objective is trained again with
another implementation of attention.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from implicitprm.arithmetic.measure import (
    PREDICTORS,
    answer_scores,
    candidate_grid,
    first_error_thresholds,
    score_rows,
    step_scores,
)
from implicitprm.data import pair_responses
from implicitprm.evaluation import (
    Interval,
    auroc,
    best_of_n_accuracy,
    first_error,
    mean_interval,
    paired_difference,
    pass_at_n,
    steps_up_to_first_error,
    vote_accuracy,
)
from implicitprm.experiments.grid import forget_cells, run_cells
from implicitprm.experiments.runs import EPOCHS, be_quiet, train_prm
from implicitprm.experiments.store import rounded, save_result
from implicitprm.rewards import ImplicitPRM, ScoredSolution
from implicitprm.stackmachine import PROGRAM_FORMAT, load_programs, reasoner_path
from implicitprm.stackmachine.collect import SPLITS
from implicitprm.training import OBJECTIVES, add_reference_logps

#: Tried on the validation split, by objective: β, learning rates. A small sweep around what the
#: arithmetic world chose.
SWEEP: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "ce": ((1.0, 2.0), (1e-3, 2e-3)),
    "dpo": ((1.0, 2.0), (2.5e-4, 5e-4)),
    "kto": ((1.0, 2.0), (5e-4, 1e-3)),
}
SEEDS = (0, 1, 2)
NS = (4, 16, 64)
PAIRING_SEED = 0
RESAMPLES = 300
MIN_TOLERANCE = 0.25
RIVAL = "dpo"
#: The rule by which hyper-parameters are chosen, the paper's.
RULE = "best of 16: reward, min over steps"
MEASURED = (RULE, "best of 16: reward, sum over steps", "weighted vote of 16")


@cache
def prepared(objective: str) -> Dataset:
    """The training rows of an objective with reference log-probabilities, once per process."""
    be_quiet()
    rows = load_programs("train")
    if OBJECTIVES[objective].format == "preference":
        rows = pair_responses(rows, "all", PAIRING_SEED)
    return add_reference_logps(
        rows,
        AutoModelForCausalLM.from_pretrained(reasoner_path()),
        AutoTokenizer.from_pretrained(reasoner_path()),
        PROGRAM_FORMAT,
        objective,
        batch_size=128,
    )


def train(cell: Mapping[str, Any]) -> ImplicitPRM:
    """Train the PRM of a cell."""
    return train_prm(
        prepared(cell["objective"]),
        reasoner_path(),
        format=PROGRAM_FORMAT,
        objective=cell["objective"],
        beta=cell["beta"],
        learning_rate=cell["learning_rate"],
        seed=cell["seed"],
        max_steps=cell.get("max_steps", -1),
        attention=cell.get("attention", "sdpa"),
    )


def answer_accuracy(
    rows: Dataset, scored: Sequence[ScoredSolution | None], ns: Sequence[int] = NS
) -> dict[str, np.ndarray]:
    """Expected accuracy (0..1) with n candidates, per task (P), of every way to choose a program.

    Votes are taken over the column ``answer``: programs that do the same on the tests agree.
    """
    grid = candidate_grid(rows)  # (P, M)
    correct = np.array(rows["label"])[grid]
    given = np.array(rows["answer"], dtype=object)[grid].tolist()
    scores = answer_scores(scored)
    outcome = scores["reward, sum over steps"][grid]
    found = {"chance (pass@1)": correct.mean(1)}
    for n in ns:
        for name, values in scores.items():
            found[f"best of {n}: {name}"] = best_of_n_accuracy(values[grid], correct, n)
        found[f"weighted vote of {n}"] = vote_accuracy(given, correct, n, outcome)
        found[f"majority of {n}"] = vote_accuracy(given, correct, n)
        found[f"oracle of {n}"] = pass_at_n(correct, n)
    return found


def step_frame(rows: Dataset, scored: Sequence[ScoredSolution | None]) -> pd.DataFrame:
    """One line per instruction up to and including the first error of its program.

    Columns: ``problem`` (number), ``weight``, ``valid``, ``kind`` (of the error; None if right),
    and a score by each of PREDICTORS, higher for steps that look right.
    """
    numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(rows["prompt"]))}
    lines = []
    for row, solution in zip(rows, scored, strict=True):
        if solution is None:
            continue
        by_step = step_scores(solution)
        for step in steps_up_to_first_error(row["first_error"], len(row["steps"])):
            valid = step != row["first_error"]
            lines.append(
                {
                    "problem": numbers[row["prompt"]],
                    "weight": row["weight"],
                    "valid": valid,
                    "kind": None if valid else row["kind"],
                }
                | {name: values[step] for name, values in by_step.items()}
            )
    return pd.DataFrame(lines)


def resampled(statistic: Callable[[np.ndarray], float], problems: int) -> np.ndarray:
    """A statistic of how often each problem counts: of all of them, then of RESAMPLES resamples.

    The resamples are the same for every statistic, so that means and differences can be taken.
    """
    drawn = np.random.default_rng(0).multinomial(
        problems, np.full(problems, 1 / problems), size=RESAMPLES
    )
    return np.array([statistic(counts) for counts in (np.ones(problems, int), *drawn)])


def interval_of(values: np.ndarray, digits: int) -> list[float]:
    """Value and 95% interval of what :func:`resampled` gives."""
    low, high = np.quantile(values[1:], (0.025, 0.975))
    return rounded(Interval(values[0], low, high), digits)


def step_aurocs(frame: pd.DataFrame, problems: int) -> dict[str, np.ndarray]:
    """AUROC of right against wrong steps by each of PREDICTORS, resampled (R+1)."""
    right, wrong = frame[frame["valid"]], frame[~frame["valid"]]
    totals = [
        np.bincount(part["problem"], weights=part["weight"], minlength=problems)
        for part in (right, wrong)
    ]

    def of(wins: np.ndarray, counts: np.ndarray) -> float:
        return float(counts @ wins @ counts / np.prod([counts @ total for total in totals]))

    return {
        name: resampled(partial(of, pairs_won(right, wrong, name, problems)), problems)
        for name in PREDICTORS
    }


def pairs_won(right: pd.DataFrame, wrong: pd.DataFrame, score: str, problems: int) -> np.ndarray:
    """How many pairs of a right and a wrong step the right one wins by a score, ties half.

    By problem of the right step (rows) and of the wrong one (columns): the AUROC of any resample of
    problems is a weighted share of these.
    """
    wins = np.zeros((problems, problems))
    for problem, part in wrong.sort_values(score).groupby("problem"):
        below = np.concatenate([[0.0], part["weight"].cumsum()])
        ends = (np.searchsorted(part[score], right[score], side) for side in ("left", "right"))
        beaten = np.mean([below[end] for end in ends], axis=0) * right["weight"]
        wins[:, problem] = np.bincount(right["problem"], weights=beaten, minlength=problems)
    return wins


def aurocs_by_kind(frame: pd.DataFrame) -> dict[str, dict[str, float]]:
    """AUROC of right steps against the wrong ones of one kind, and how many of these there are."""
    found = {}
    for kind in frame["kind"].dropna().unique():
        part = frame[frame["valid"] | (frame["kind"] == kind)]
        found[str(kind)] = {"steps": float(part["weight"][~part["valid"]].sum())} | {
            name: round(auroc(part[name], part["valid"], part["weight"]), 4) for name in PREDICTORS
        }
    return found


def first_error_f1s(
    rows: Dataset, scored: Sequence[ScoredSolution | None], thresholds: Mapping[str, float]
) -> dict[str, np.ndarray]:
    """First-error F1 (0..1) by each of PREDICTORS at thresholds chosen elsewhere, resampled."""
    numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(rows["prompt"]))}
    found = {}
    for name, threshold in thresholds.items():
        sums = np.zeros((len(numbers), 4))  # hits and weights, with and without an error
        for row, solution in zip(rows, scored, strict=True):
            if solution is not None:
                hit = first_error(step_scores(solution)[name], threshold) == row["first_error"]
                side = 0 if row["first_error"] >= 0 else 2
                weight = row["weight"]
                sums[numbers[row["prompt"]], side : side + 2] += (weight * hit, weight)
        found[name] = resampled(partial(_f1, sums), len(numbers))
    return found


def _f1(sums: np.ndarray, counts: np.ndarray) -> float:
    found, errors, passed, rest = counts @ sums
    a, b = found / errors, passed / rest
    return 2 * a * b / (a + b) if a + b else 0.0


def validate(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Accuracy on the validation split, in percent, by each of MEASURED."""
    rows = load_programs("validation")
    accuracy = answer_accuracy(rows, score_rows(train(cell), rows), (16,))
    return {"accuracy": {rule: round(100 * float(accuracy[rule].mean()), 3) for rule in MEASURED}}


def measure(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Everything about one trained PRM on the test rollouts: programs chosen and steps judged."""
    prm = train(cell)
    validation, test = load_programs("validation"), load_programs("test")
    thresholds = first_error_thresholds(validation, score_rows(prm, validation))
    scored = score_rows(prm, test)
    frame = step_frame(test, scored)
    problems = len(set(test["prompt"]))
    accuracy = answer_accuracy(test, scored)
    return {
        "answers": {name: [round(100 * float(x), 2) for x in v] for name, v in accuracy.items()},
        "auroc": {
            name: np.round(values, 5).tolist()
            for name, values in step_aurocs(frame, problems).items()
        },
        "auroc by kind": aurocs_by_kind(frame),
        "f1": {
            name: np.round(values, 5).tolist()
            for name, values in first_error_f1s(test, scored, thresholds).items()
        },
    }


def choose(cells: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The β and learning rate of each objective with the highest validation accuracy by RULE."""
    chosen = {}
    for objective in SWEEP:
        own = [cell for cell in cells if cell["objective"] == objective]
        best = max(own, key=lambda cell: cell["accuracy"][RULE])
        chosen[objective] = {name: best[name] for name in ("beta", "learning_rate")}
    return chosen


def mean_over_seeds(
    runs: Sequence[Mapping[str, Any]], objective: str, part: str
) -> dict[str, np.ndarray]:
    """Each entry of a part of the runs of one objective, averaged over its seeds."""
    own = [run[part] for run in runs if run["objective"] == objective]
    return {name: np.mean([seed[name] for seed in own], axis=0) for name in own[0]}


def _candidates(rule: str) -> str:
    """How many candidates a rule chooses from: the number after ``of``."""
    return rule.split("of ")[1].split(":")[0]


def answer_rows(
    accuracy: Mapping[str, np.ndarray], rival: Mapping[str, np.ndarray]
) -> dict[str, dict[str, list[float]]]:
    """Percent and differences in points, by rule, from accuracies per task (P) in percent.

    Differences are paired by task: to the majority of as many candidates, to the rival objective by
    the same rule, and from 16 to 64 candidates.
    """
    rows = {}
    for rule, values in accuracy.items():
        rows[rule] = {"accuracy": rounded(mean_interval(values))}
        if "of " not in rule:
            continue
        majority = accuracy[f"majority of {_candidates(rule)}"]
        rows[rule]["minus majority"] = rounded(paired_difference(values, majority))
        rows[rule][f"minus {RIVAL}"] = rounded(paired_difference(values, rival[rule]))
        if _candidates(rule) == "64":
            fewer = accuracy[rule.replace("of 64", "of 16")]
            rows[rule]["minus 16"] = rounded(paired_difference(values, fewer))
    return rows


def summarise(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By objective, with seeds averaged first: programs chosen, steps judged, first errors found.

    Intervals are over tasks. Of the step metrics also the difference between the reward and each
    log-probability alone, in the units of the metric.
    """
    rival = mean_over_seeds(runs, RIVAL, "answers")
    summaries = []
    for objective in SWEEP:
        cell: dict[str, Any] = {
            "part": "summary",
            "objective": objective,
            "rows": answer_rows(mean_over_seeds(runs, objective, "answers"), rival),
        }
        for part in ("auroc", "f1"):
            values = mean_over_seeds(runs, objective, part)
            reward = values["step reward"]
            cell[part] = {name: interval_of(v, 4) for name, v in values.items()} | {
                f"step reward minus {name}": interval_of(reward - values[name], 4)
                for name in PREDICTORS[1:]
            }
        cell["auroc by kind"] = _mean_by_kind(runs, objective)
        summaries.append(cell)
    return summaries


def _mean_by_kind(runs: Sequence[Mapping[str, Any]], objective: str) -> dict[str, dict[str, float]]:
    own = [run["auroc by kind"] for run in runs if run["objective"] == objective]
    return {
        kind: {name: round(float(np.mean([s[kind][name] for s in own])), 4) for name in values}
        for kind, values in own[0].items()
    }


def data_cells() -> list[dict[str, Any]]:
    """What the shipped rollouts hold, by split: counts, and shares of drawn programs in percent."""
    cells = []
    for split in SPLITS:
        rows = load_programs(split)
        weight, right = np.array(rows["weight"]), np.array(rows["label"])
        wrong_step = np.array(rows["first_error"]) >= 0
        kinds = pd.Series(weight).groupby(np.array(rows["kind"], dtype=object)).sum()
        shares = {
            "pass": right,
            "lucky": right & wrong_step,
            "fails without a wrong step": ~right & ~wrong_step,
            "gives no result": np.array([answer is None for answer in rows["answer"]]),
        }
        cells.append(
            {
                "part": "data",
                "split": split,
                "tasks": len(set(rows["prompt"])),
                "rollouts": int(weight.sum()),
                "distinct": len(rows),
                "first errors": {str(kind): int(n) for kind, n in kinds.items()},
            }
            | {
                name: round(100 * float(weight[which].sum() / weight.sum()), 3)
                for name, which in shares.items()
            }
        )
    return cells


def without_tasks(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run as the result file keeps it: averaged over tasks, without resamples."""
    answers = {rule: round(float(np.mean(v)), 2) for rule, v in run["answers"].items()}
    metrics = {part: {name: v[0] for name, v in run[part].items()} for part in ("auroc", "f1")}
    return {k: v for k, v in run.items() if k != "auroc by kind"} | {"answers": answers} | metrics


def tolerances(
    runs: Sequence[Mapping[str, Any]], again: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Twice the largest difference, in points, that another attention made, by objective.

    At least MIN_TOLERANCE: attention is only one of the ways in which machines differ.
    """
    found = {}
    for other in again:
        objective = other["objective"]
        (first,) = (r for r in runs if (r["objective"], r["seed"]) == (objective, other["seed"]))
        largest = max(
            abs(np.mean(first["answers"][rule]) - np.mean(other["answers"][rule]))
            for rule in MEASURED
        )
        found[objective] = max(MIN_TOLERANCE, round(2 * float(largest), 2))
    return found


def main(
    workers: Annotated[int, typer.Option(help="processes, one core each", min=1)] = 2,
) -> None:
    """Run the whole experiment and write its result file."""
    config: dict[str, Any] = {"sweep": SWEEP, "epochs": EPOCHS, "ns": NS, "resamples": RESAMPLES}
    sweep = [
        {"objective": objective, "beta": beta, "learning_rate": rate, "seed": 0}
        for objective, (betas, rates) in SWEEP.items()
        for beta in betas
        for rate in rates
    ]
    validation = run_cells("second_world-validation", config, sweep, validate, workers)
    chosen = choose(validation)
    swept, config = config, config | {"chosen": chosen}
    grid = [
        {"objective": objective, "seed": seed} | chosen[objective]
        for seed in SEEDS
        for objective in SWEEP
    ]
    elsewhere = [cell | {"attention": "eager"} for cell in grid if cell["seed"] == SEEDS[0]]
    measured = run_cells("second_world", config, [*grid, *elsewhere], measure, workers)
    runs, again = measured[: len(grid)], measured[len(grid) :]
    cells = [*data_cells(), *({"part": "validation"} | cell for cell in validation)]
    cells += [{"part": "run"} | without_tasks(run) for run in runs]
    cells += summarise(runs)
    save_result(
        "second_world",
        "python -m implicitprm.experiments.second_world",
        config | {"seeds": SEEDS},
        cells,
        tolerances(runs, again),
        sum(cell["seconds"] for cell in (*validation, *measured)),
    )
    forget_cells("second_world-validation", swept)
    forget_cells("second_world", config)


if __name__ == "__main__":
    typer.run(main)
