"""Chapter 13, real data: ``python -m implicitprm.experiments.real_solutions FILE``.

FILE is example_model_solutions.jsonl of github.com/openai/grade-school-math: for each of 1,319
questions one solution by each of four language models, with its outcome. SmolLM2-135M-Instruct is
trained with CE on some questions, β and learning rate are chosen on others by the mean of the AUROC
within each of the four models, and on the rest the reward is compared with what is free: length,
either model's log-probability, and always taking the solution of the model that was best in
training. About two hours of one CPU core and 4 GB of memory a worker; an interrupted run
goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any

import numpy as np
import torch
import typer
from datasets import Dataset
from safetensors.torch import load_file, save_file

from implicitprm.arithmetic.measure import answer_scores
from implicitprm.data import convert_gsm8k_model_solutions, extract_answer, read_rows
from implicitprm.evaluation import (
    auroc,
    auroc_interval,
    best_of_n_accuracy,
    bootstrap_over_problems,
    mean_interval,
    paired_difference,
    vote_accuracy,
)
from implicitprm.experiments.grid import SCRATCH, Cell, forget_cells, run_cells
from implicitprm.experiments.runs import be_quiet
from implicitprm.experiments.smollm2 import Bench
from implicitprm.experiments.store import config_hash, rounded, save_result
from implicitprm.rewards import ScoredSolution

BETAS = (0.3, 1.0)
LEARNING_RATES = (1e-4, 3e-4)
SEEDS = (0, 1, 2)
EPOCHS = 1
BATCH_SIZE = 8
LAYERS = 4
#: Of the layers that are not trained; bfloat16 halves their time.
PRECISION = "bfloat16"
#: Questions of each part, in an order drawn with QUESTION_SEED; the test ones come last, and more
#: of them change nothing about the others.
PARTS = {"train": 240, "validation": 100, "test": 300}
QUESTION_SEED = 0
#: Test questions that are scored at a time, so that an interrupted run loses little.
BLOCK = 50
SWEEP = {
    "betas": BETAS,
    "learning_rates": LEARNING_RATES,
    "seeds": SEEDS,
    "epochs": EPOCHS,
    "batch_size": BATCH_SIZE,
    "layers": LAYERS,
    "precision": PRECISION,
    "parts": {part: PARTS[part] for part in ("train", "validation")},
}
MODELS = 4
RESAMPLES = 500
#: What a training depends on, beside SWEEP.
TRAINING = ("file", "beta", "learning_rate", "seed", "attention")
REWARD = "reward, sum over steps"
BEST = "always the best model"
MAJORITY = "majority vote"


@cache
def solutions_of(file: str, part: str) -> Dataset:
    """The solutions of one part of the questions, four a question in the order of the models."""
    rows = convert_gsm8k_model_solutions(read_rows(file))
    questions = np.random.default_rng(QUESTION_SEED).permutation(len(rows) // MODELS)
    start = 0
    for name, size in PARTS.items():
        if name == part:
            chosen = questions[start : start + size]
            kept = [MODELS * question + model for question in chosen for model in range(MODELS)]
            return rows.select(kept)
        start += size
    raise ValueError(f"no part {part!r}; there are {', '.join(PARTS)}")


def bench_of(rows_of: Callable[[str], Dataset]) -> Bench:
    """SmolLM2 as it comes, and the rows that it is trained and tested on."""
    be_quiet()
    precision = getattr(torch, PRECISION)
    return Bench(rows_of, adapter=False, layers=LAYERS, precision=precision)


@cache
def bench(file: str) -> Bench:
    """The model with the solutions; a block of test questions is called by its first, "120"."""
    return bench_of(
        lambda part: block_of(file, int(part)) if part.isdecimal() else solutions_of(file, part)
    )


def block_of(file: str, first: int) -> Dataset:
    """The solutions of BLOCK test questions, or of what is left of them."""
    rows = solutions_of(file, "test")
    return rows.select(range(MODELS * first, min(MODELS * (first + BLOCK), len(rows))))


def trained(model: Bench, cell: Cell) -> Bench:
    """``model`` trained as a cell says, now or before: the weights are kept beside the cells."""
    settings = SWEEP | {name: cell[name] for name in TRAINING if name in cell}
    path = SCRATCH / f"real-solutions-{config_hash(settings)}.safetensors"
    if path.exists():
        model.reset(cell.get("attention", "sdpa"), load_file(path))
        return model
    model.train(cell, EPOCHS, BATCH_SIZE)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(model.weights(), path)
    return model


def scores_of(scored: Sequence[ScoredSolution | None]) -> dict[str, np.ndarray]:
    """One score per solution (N) by the reward, and by what is free."""
    per_token = [-np.inf if s is None else s.ref_logps.mean() for s in scored]
    return answer_scores(scored) | {"log π_ref per token": np.array(per_token)}


def validate(cell: Cell) -> dict[str, Any]:
    """Mean AUROC within the four models on the validation questions."""
    rows = solutions_of(cell["file"], "validation")
    scores = scores_of(trained(bench(cell["file"]), cell).score("validation", cell["beta"]))
    labels = np.array(rows["label"])
    return {
        name: round(float(np.mean([auroc(s[m], labels[m]) for m in masks_of(rows)])), 4)
        for name, s in scores.items()
    }


def masks_of(rows: Dataset) -> list[np.ndarray]:
    """Which rows (N) are of each of the four models."""
    models = np.array(rows["model"])
    return [models == model for model in dict.fromkeys(rows["model"])]


def measure(cell: Cell) -> dict[str, Any]:
    """Every score of the solutions of a block of test questions."""
    scored = trained(bench(cell["file"]), cell).score(str(cell["first"]), cell["beta"])
    return {"scores": {name: values.tolist() for name, values in scores_of(scored).items()}}


def joined(blocks: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The scores (N) of several blocks."""
    names = blocks[0]["scores"]
    return {name: np.concatenate([block["scores"][name] for block in blocks]) for name in names}


def aurocs(rows: Dataset, scores: Mapping[str, np.ndarray]) -> dict[str, dict[str, list[float]]]:
    """AUROC of each score within each of the four models, and their mean, over questions."""
    labels, questions, masks = np.array(rows["label"]), rows["prompt"], masks_of(rows)
    parts = {
        str(model): [mask] for model, mask in zip(dict.fromkeys(rows["model"]), masks, strict=True)
    } | {"mean": masks}
    return {
        name: {
            part: rounded(auroc_interval(values, labels, questions, parts=column), 3)
            for part, column in parts.items()
        }
        for name, values in scores.items()
    }


def auroc_gains(rows: Dataset, scores: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """The mean AUROC within models of the reward minus that of every other score."""
    labels = np.array(rows["label"]).reshape(-1, MODELS)  # (P, 4)

    def mean_auroc(name: str, questions: np.ndarray) -> float:
        values, truth = scores[name].reshape(-1, MODELS)[questions], labels[questions]
        return float(np.mean([auroc(values[:, m], truth[:, m]) for m in range(MODELS)]))

    return {
        rival: rounded(
            bootstrap_over_problems(
                lambda questions, rival=rival: (  # type: ignore[misc]
                    mean_auroc(REWARD, questions) - mean_auroc(rival, questions)
                ),
                len(labels),
                resamples=RESAMPLES,
            ),
            3,
        )
        for rival in scores
        if rival != REWARD
    }


def best_model(rows: Dataset) -> int:
    """The number of the model with the most right solutions."""
    labels = np.array(rows["label"])
    return int(np.argmax([labels[mask].mean() for mask in masks_of(rows)]))


def choices(rows: Dataset, scores: Mapping[str, np.ndarray], best: int) -> dict[str, np.ndarray]:
    """Accuracy of every way to choose among the four solutions of a question (P)."""
    correct = np.array(rows["label"]).reshape(-1, MODELS)
    answers = [
        [extract_answer(text) for text in rows["completion"][start : start + MODELS]]
        for start in range(0, len(rows), MODELS)
    ]
    chosen = {
        f"best of {MODELS}: {name}": best_of_n_accuracy(values.reshape(-1, MODELS), correct, MODELS)
        for name, values in scores.items()
    }
    return chosen | {
        "vote weighted by reward": vote_accuracy(
            answers, correct, MODELS, scores[REWARD].reshape(-1, MODELS)
        ),
        MAJORITY: vote_accuracy(answers, correct, MODELS),
        BEST: correct[:, best].astype(float),
        "chance": correct.mean(1),
        "oracle": correct.any(1).astype(float),
    }


def table(accuracy: Mapping[str, np.ndarray]) -> dict[str, dict[str, list[float]]]:
    """Accuracy, and its paired difference to the best model, in points, over questions."""
    best = 100 * np.asarray(accuracy[BEST])
    return {
        name: {
            "accuracy": rounded(mean_interval(100 * np.asarray(values))),
            f"minus {BEST}": rounded(paired_difference(100 * np.asarray(values), best)),
        }
        for name, values in accuracy.items()
    }


def mean_scores(scores: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The mean over seeds of each score (N)."""
    return {name: np.mean([of_seed[name] for of_seed in scores], axis=0) for name in scores[0]}


def summarise(file: str, scores: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """AUROC of the scores' mean over seeds, and accuracies as means over seeds by question."""
    rows, best = solutions_of(file, "test"), best_model(solutions_of(file, "train"))
    chosen = [choices(rows, one, best) for one in scores]
    accuracy = {name: np.mean([one[name] for one in chosen], axis=0) for name in chosen[0]}
    return {"AUROC": aurocs(rows, mean_scores(scores)), "rows": table(accuracy)}


def tolerance(rows: Dataset, run: Mapping[str, Any], again: Mapping[str, Any]) -> float:
    """Twice the largest difference of a mean AUROC between two runs of one cell."""
    first, second = (
        {
            name: np.mean([auroc(values[m], np.array(rows["label"])[m]) for m in masks_of(rows)])
            for name, values in joined([cell]).items()
        }
        for cell in (run, again)
    )
    return round(float(2 * max(abs(first[name] - second[name]) for name in first)), 4)


def main(
    file: Annotated[str, typer.Argument(help="example_model_solutions.jsonl")], workers: int = 1
) -> None:
    """Run the whole experiment and write its result file."""
    torch.set_num_threads(1)
    tried = [
        {"file": file, "beta": beta, "learning_rate": rate, "seed": SEEDS[0]}
        for beta in BETAS
        for rate in LEARNING_RATES
    ]
    validation = run_cells("real-solutions-validation", SWEEP, tried, validate, workers)
    best = max(validation, key=lambda cell: cell[REWARD])
    chosen = {"beta": best["beta"], "learning_rate": best["learning_rate"]}
    config = SWEEP | {"chosen": chosen, "block": BLOCK}
    grid = [
        {"file": file} | chosen | {"seed": seed, "first": first}
        for first in range(0, PARTS["test"], BLOCK)
        for seed in SEEDS
    ]
    # By another implementation of attention, as another machine might.
    elsewhere = grid[0] | {"attention": "eager"}
    *runs, again = run_cells("real-solutions", config, [*grid, elsewhere], measure, workers)
    scores = [joined([run for run in runs if run["seed"] == seed]) for seed in SEEDS]
    cells = [
        {"part": "validation"} | {name: v for name, v in cell.items() if name != "file"}
        for cell in validation
    ]
    cells += [
        {"part": "run", "seed": seed} | summarise(file, [one])
        for seed, one in zip(SEEDS, scores, strict=True)
    ]
    gains = auroc_gains(solutions_of(file, "test"), mean_scores(scores))
    cells += [{"part": "summary"} | summarise(file, scores) | {"AUROC of the reward minus": gains}]
    save_result(
        "real_solutions",
        "python -m implicitprm.experiments.real_solutions example_model_solutions.jsonl",
        config | {"parts": PARTS},
        cells,
        tolerance(block_of(file, 0), runs[0], again),
        sum(cell["seconds"] for cell in (*validation, *runs, again)),
    )
    forget_cells("real-solutions-validation", SWEEP)
    forget_cells("real-solutions", config)


if __name__ == "__main__":
    typer.run(main)
