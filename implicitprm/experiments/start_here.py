"""Chapter 00: ``python -m implicitprm.experiments.start_here`` (about 15 minutes on one core).

Chooses β and the learning rate on the validation split, then trains three seeds in the world with
misconceptions and in the control world, and measures the choice of answers on the test splits.

Another machine adds up floats in another order, and training amplifies the difference. To measure
how much, the first seed is trained again with two threads, and again with another implementation
of attention; the largest difference, doubled, is the tolerance of the file.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import typer
from tqdm import tqdm
from transformers.utils import logging

from implicitprm.arithmetic import load_rollouts
from implicitprm.arithmetic.measure import answer_accuracy, score_rows
from implicitprm.evaluation import Interval, mean_interval, paired_difference
from implicitprm.experiments.runs import EPOCHS, train_prm
from implicitprm.experiments.store import save_result
from implicitprm.rewards import ImplicitPRM

BETAS = (0.5, 1.0, 2.0)
LEARNING_RATES = (5e-4, 1e-3, 2e-3)
SEEDS = (0, 1, 2)
N = 16
#: Worlds, and the splits on which their PRMs are measured.
TESTS = {"reasoner": ("test", "test_unseen"), "control": ("test",)}
RULE = f"best of {N}: reward, min over steps"


def _train(
    world: str, seed: int, beta: float, learning_rate: float, attention: str = "sdpa"
) -> ImplicitPRM:
    return train_prm(
        load_rollouts(world, "train"),
        world,
        beta=beta,
        learning_rate=learning_rate,
        seed=seed,
        attention=attention,
    )


def measure(prm: ImplicitPRM, world: str, split: str) -> dict[str, dict[str, Any]]:
    """Accuracy of every way to choose an answer, and its difference to majority, in points."""
    rows = load_rollouts(world, split)
    accuracy = answer_accuracy(rows, score_rows(prm, rows), N)
    majority = accuracy["majority vote"]
    return {
        name: {
            "accuracy": _points(mean_interval(100 * values)),
            "minus majority": _points(paired_difference(100 * values, 100 * majority)),
        }
        for name, values in accuracy.items()
    }


def _points(interval: Interval) -> list[float]:
    return [round(float(x), 3) for x in (interval.value, interval.low, interval.high)]


def validate() -> list[dict[str, Any]]:
    """Best-of-16 accuracy on the validation split for every β and learning rate."""
    cells = []
    for beta in BETAS:
        for learning_rate in LEARNING_RATES:
            prm = _train("reasoner", 0, beta, learning_rate)
            accuracy = _validation_accuracy(prm)
            cells.append(
                {
                    "part": "validation",
                    "beta": beta,
                    "learning_rate": learning_rate,
                    "accuracy": round(100 * accuracy, 3),
                }
            )
            tqdm.write(str(cells[-1]))
    return cells


def _validation_accuracy(prm: ImplicitPRM) -> float:
    rows = load_rollouts("reasoner", "validation")
    return float(np.mean(answer_accuracy(rows, score_rows(prm, rows), N)[RULE]))


def largest_difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    """The largest difference between the accuracies of two measurements, in points."""
    return max(abs(a[name]["accuracy"][0] - b[name]["accuracy"][0]) for name in a)


def measure_elsewhere(beta: float, learning_rate: float) -> Iterator[dict[str, Any]]:
    """Train and measure the first seed as two other machines might."""
    torch.set_num_threads(2)
    yield measure(_train("reasoner", SEEDS[0], beta, learning_rate), "reasoner", "test")
    torch.set_num_threads(1)
    prm = _train("reasoner", SEEDS[0], beta, learning_rate, attention="eager")
    yield measure(prm, "reasoner", "test")


def main() -> None:
    """Run the whole experiment and write its result file."""
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    start = time.perf_counter()
    cells = validate()
    best = max(cells, key=lambda cell: cell["accuracy"])
    chosen = {"beta": best["beta"], "learning_rate": best["learning_rate"]}
    for world, splits in TESTS.items():
        for seed in SEEDS:
            prm = _train(world, seed, **chosen)
            for split in splits:
                cell = {"part": "test", "world": world, "split": split, "seed": seed}
                cells.append(cell | {"rows": measure(prm, world, split)})
                tqdm.write(f"{cell} {cells[-1]['rows'][RULE]}")
    first = next(cell for cell in cells if cell["part"] == "test")
    tolerance = 2 * max(
        largest_difference(first["rows"], again) for again in measure_elsewhere(**chosen)
    )
    config = chosen | {
        "betas": BETAS,
        "learning_rates": LEARNING_RATES,
        "seeds": SEEDS,
        "epochs": EPOCHS,
        "n": N,
    }
    save_result(
        "start_here",
        "python -m implicitprm.experiments.start_here",
        config,
        cells,
        round(tolerance, 3),
        time.perf_counter() - start,
    )


if __name__ == "__main__":
    typer.run(main)
