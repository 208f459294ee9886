"""Chapter 06: ``python -m implicitprm.experiments.objectives`` (one to three hours of one core).

The four objectives on the same rollouts. First β and the learning rate of each are chosen on the
validation split; then every variant is trained with five seeds and measured on the rollouts of
three generators. Cells are measured on several cores and kept, so that the command goes on after an
interruption.

To measure how far another machine may be off, the first seed of each objective is trained again
with another implementation of attention; the largest difference of an objective, doubled, is its
tolerance.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from implicitprm.arithmetic import ARITHMETIC_FORMAT, checkpoint_path, load_rollouts
from implicitprm.arithmetic.measure import (
    PREDICTORS,
    answer_accuracy,
    first_error_f1,
    first_error_thresholds,
    score_rows,
    step_frame,
)
from implicitprm.data import balance_labels, pair_responses
from implicitprm.evaluation import auroc, mean_interval, paired_difference
from implicitprm.experiments.grid import forget_cells, run_cells
from implicitprm.experiments.runs import EPOCHS, be_quiet, train_prm
from implicitprm.experiments.store import rounded, save_result
from implicitprm.rewards import ImplicitPRM
from implicitprm.training import OBJECTIVES, add_reference_logps

#: Tried on the validation split, by variant: β, learning rates. The first four of each are common
#: to all; where the best stood at their edge, the sweep went on past it. CE was also tried at the
#: paper's β.
SWEEP: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "CE": ((0.5, 1.0, 2.0, 4.0, 0.05), (2.5e-4, 5e-4, 1e-3, 2e-3)),
    "DPO": ((0.5, 1.0, 2.0, 4.0), (2.5e-4, 5e-4, 1e-3, 2e-3, 1.25e-4)),
    "NCA": ((0.5, 1.0, 2.0, 4.0, 0.25), (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3)),
    "KTO": ((0.5, 1.0, 2.0, 4.0), (2.5e-4, 5e-4, 1e-3, 2e-3)),
}
SEEDS = (0, 1, 2, 3, 4)
N = 16
PAIRING_SEED = 0
MIN_TOLERANCE = 0.25
#: Variant → objective, and how its rows are made from unpaired ones.
VARIANTS: dict[str, tuple[str, str]] = {
    "CE": ("ce", "as drawn"),
    "DPO": ("dpo", "all pairs"),
    "NCA": ("nca", "all pairs"),
    "KTO": ("kto", "as drawn"),
    "CE, balanced": ("ce", "balanced in the data set"),
    "CE, balanced by prompt": ("ce", "balanced by prompt"),
    "DPO, matched pairs": ("dpo", "matched pairs"),
}
#: Every variant is compared with these.
RIVALS = ("CE", "DPO")
#: Whose rollouts are ranked: a worse generator, the PRM's own, and a better one.
GENERATORS = ("early", "reasoner", "strong")
SPLITS = ("test", "test_unseen")
#: The rule by which hyper-parameters are chosen, the paper's.
RULE = f"best of {N}: reward, min over steps"
MEASURED = (RULE, f"best of {N}: reward, sum over steps", "vote weighted by reward")


def training_rows(variant: str, rollouts: Dataset) -> Dataset:
    """The data set of a variant, made from unpaired rollouts; matched pairs are drawn once."""
    _, how = VARIANTS[variant]
    if how == "all pairs":
        return pair_responses(rollouts, "all", PAIRING_SEED)
    if how == "matched pairs":
        return pair_responses(rollouts, "matched", PAIRING_SEED)
    if how == "balanced in the data set":
        return balance_labels(rollouts, "dataset")
    if how == "balanced by prompt":
        return balance_labels(rollouts, "prompt")
    return rollouts


@cache
def prepared(variant: str) -> Dataset:
    """The rows of a variant with their reference log-probabilities, once per process."""
    be_quiet()
    folder = checkpoint_path("reasoner")
    return add_reference_logps(
        training_rows(variant, load_rollouts("reasoner", "train")),
        AutoModelForCausalLM.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
        ARITHMETIC_FORMAT,
        VARIANTS[variant][0],
        batch_size=128,
    )


def train(cell: Mapping[str, Any]) -> ImplicitPRM:
    """Train the PRM of a cell."""
    return train_prm(
        prepared(cell["variant"]),
        objective=VARIANTS[cell["variant"]][0],
        beta=cell["beta"],
        learning_rate=cell["learning_rate"],
        seed=cell["seed"],
        attention=cell.get("attention", "sdpa"),
    )


def validate(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Accuracy on the validation split, in percent, by each of MEASURED."""
    rows = load_rollouts("reasoner", "validation")
    accuracy = answer_accuracy(rows, score_rows(train(cell), rows), N)
    return {"accuracy": {rule: round(100 * float(accuracy[rule].mean()), 3) for rule in MEASURED}}


def measure(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Everything about one trained PRM: answers chosen and steps judged, by generator."""
    prm = train(cell)
    rows = load_rollouts("reasoner", "validation")
    thresholds = first_error_thresholds(rows, score_rows(prm, rows))
    return {
        "generators": {name: _on_generator(prm, name, thresholds) for name in GENERATORS},
    }


def _on_generator(
    prm: ImplicitPRM, generator: str, thresholds: Mapping[str, float]
) -> dict[str, Any]:
    frames, answers, f1 = [], {}, {}
    for split in SPLITS:
        rows = load_rollouts(generator, split)
        scored = score_rows(prm, rows)
        frames.append(step_frame(rows, scored))
        answers[split] = {
            name: [round(100 * float(value), 2) for value in values]
            for name, values in answer_accuracy(rows, scored, N).items()
        }
        f1[split] = {
            name: round(value, 4)
            for name, value in first_error_f1(rows, scored, thresholds).items()
        }
    return {"answers": answers, "f1": f1, "auroc": _step_auroc(pd.concat(frames))}


def _step_auroc(steps: pd.DataFrame) -> dict[str, dict[str, float]]:
    """AUROC of valid against wrong steps by each predictor, on seen and on unseen facts."""
    parts = {
        "seen": ~steps["unseen"],
        "unseen": steps["unseen"],
        "seen, slips": ~steps["unseen"] & ~steps["misconception"],
        "seen, misconceptions": ~steps["unseen"] & steps["misconception"],
    }
    return {
        name: {
            score: round(auroc(steps[score][part], steps["valid"][part], steps["weight"][part]), 4)
            for score in PREDICTORS
        }
        for name, part in parts.items()
    }


def choose(cells: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The β and learning rate of each objective with the highest validation accuracy."""
    chosen = {}
    for variant in SWEEP:
        own = [cell for cell in cells if cell["variant"] == variant]
        best = max(own, key=lambda cell: cell["accuracy"][RULE])
        chosen[VARIANTS[variant][0]] = {name: best[name] for name in ("beta", "learning_rate")}
    return chosen


def summarise(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Accuracies averaged over seeds with intervals over problems, and differences, in points.

    A difference is paired by problem: against the majority vote, and against each of RIVALS.
    """
    summaries = []
    for generator in GENERATORS:
        for split in SPLITS:
            mean = {
                variant: _mean_over_seeds(runs, variant, generator, split) for variant in VARIANTS
            }
            for variant, accuracy in mean.items():
                rows = {}
                for name, values in accuracy.items():
                    rivals = {"majority": accuracy["majority vote"]}
                    rivals |= {rival: mean[rival][name] for rival in RIVALS}
                    rows[name] = {"accuracy": rounded(mean_interval(values))} | {
                        f"minus {rival}": rounded(paired_difference(values, theirs))
                        for rival, theirs in rivals.items()
                    }
                summaries.append(
                    {"variant": variant, "generator": generator, "split": split, "rows": rows}
                )
    return summaries


def _mean_over_seeds(
    runs: list[dict[str, Any]], variant: str, generator: str, split: str
) -> dict[str, np.ndarray]:
    answers = [
        run["generators"][generator]["answers"][split] for run in runs if run["variant"] == variant
    ]
    return {name: np.mean([seed[name] for seed in answers], axis=0) for name in answers[0]}


def without_problems(run: dict[str, Any]) -> dict[str, Any]:
    """A run with its accuracies averaged over problems: what the result file keeps."""
    generators = {
        name: parts
        | {
            "answers": {
                split: {rule: round(float(np.mean(values)), 2) for rule, values in answers.items()}
                for split, answers in parts["answers"].items()
            }
        }
        for name, parts in run["generators"].items()
    }
    return run | {"generators": generators}


def training_cost(variant: str) -> dict[str, int]:
    """Rows of a variant, and the tokens that the policy reads per run, prompts included."""
    dataset = prepared(variant)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_path("reasoner"))
    tokens = 0
    for response in OBJECTIVES[VARIANTS[variant][0]].responses:
        texts = zip(dataset["prompt"], dataset[response.text], strict=True)
        # One more for the end-of-turn token.
        tokens += sum(len(tokenizer(prompt + text).input_ids) + 1 for prompt, text in texts)
    return {"rows": len(dataset), "training tokens": EPOCHS * tokens}


def tolerances(runs: list[dict[str, Any]], again: list[dict[str, Any]]) -> dict[str, float]:
    """Twice the largest difference, in points, that another attention made, by objective.

    At least MIN_TOLERANCE: attention is only one of the ways in which machines differ.
    """
    found = {}
    for run in again:
        (first,) = (r for r in runs if (r["variant"], r["seed"]) == (run["variant"], run["seed"]))
        differences = []
        for generator in GENERATORS:
            ours, theirs = (r["generators"][generator]["answers"]["test"] for r in (first, run))
            differences += [abs(np.mean(ours[rule]) - np.mean(theirs[rule])) for rule in MEASURED]
        objective = VARIANTS[run["variant"]][0]
        found[objective] = max(MIN_TOLERANCE, round(2 * float(max(differences)), 2))
    return found


def main(
    workers: Annotated[int, typer.Option(help="processes, one core each", min=1)] = 2,
) -> None:
    """Run the whole experiment and write its result file."""
    config: dict[str, Any] = {
        "variants": VARIANTS,
        "sweep": SWEEP,
        "seeds": SEEDS,
        "epochs": EPOCHS,
        "n": N,
    }
    sweep = [
        {"variant": variant, "beta": beta, "learning_rate": rate, "seed": 0}
        for variant, (betas, rates) in SWEEP.items()
        for beta in betas
        for rate in rates
    ]
    validation = run_cells("objectives-validation", config, sweep, validate, workers)
    chosen = choose(validation)
    swept, config = config, config | {"chosen": chosen}
    grid = [
        {"variant": variant, "seed": seed} | chosen[VARIANTS[variant][0]]
        for seed in SEEDS
        for variant in VARIANTS
    ]
    # By another implementation of attention, as another machine might.
    elsewhere = [
        cell | {"attention": "eager"}
        for cell in grid
        if cell["seed"] == SEEDS[0] and cell["variant"] in SWEEP
    ]
    measured = run_cells("objectives", config, [*grid, *elsewhere], measure, workers)
    runs, again = measured[: len(grid)], measured[len(grid) :]
    cells = [{"part": "validation"} | cell for cell in validation]
    cells += [{"part": "cost", "variant": variant} | training_cost(variant) for variant in VARIANTS]
    cells += [{"part": "run"} | without_problems(run) for run in runs]
    cells += [{"part": "summary"} | cell for cell in summarise(runs)]
    save_result(
        "objectives",
        "python -m implicitprm.experiments.objectives",
        config,
        cells,
        tolerances(runs, again),
        sum(cell["seconds"] for cell in (*validation, *measured)),
    )
    forget_cells("objectives-validation", swept)
    forget_cells("objectives", config)


if __name__ == "__main__":
    typer.run(main)
