"""AutoPSV's outcome verifier: ``python -m implicitprm.experiments.verifier`` (about a minute).

Trains a confidence head on the outcome at every step of the training rollouts and stores its
confidence after each of their steps, from which AutoPSV's labels follow.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
import typer
from datasets import Dataset
from pyarrow import parquet
from scipy.special import expit
from transformers.utils import logging

from implicitprm.arithmetic import load_rollouts
from implicitprm.experiments.runs import score_rows_by_steps, train_steps

#: The middle one of those tried in experiments/baselines.py; its labels are checked in chapter 08.
LEARNING_RATE = 1e-3
SEED = 0


def confidence_path() -> Path:
    return Path(str(files("implicitprm.experiments"))) / "results" / "verifier.parquet"


def load_confidence() -> list[np.ndarray]:
    """The verifier's confidence (S) after each step of ``load_rollouts("reasoner", "train")``."""
    column = parquet.read_table(confidence_path())["confidence"]
    return [np.array(values) for values in column.to_pylist()]


def main() -> None:
    """Train the verifier and write its confidences."""
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    rows = load_rollouts("reasoner", "train")
    labels = [
        [bool(label)] * len(steps)
        for label, steps in zip(rows["label"], rows["steps"], strict=True)
    ]
    verifier = train_steps(rows, labels, "confidence head", LEARNING_RATE, SEED)
    scores = score_rows_by_steps(verifier, rows)
    if None in scores:
        raise ValueError(f"training row {scores.index(None)} holds a text outside this world")
    confidence = [expit(s).clip(1e-6, 1).round(6).tolist() for s in scores if s is not None]
    table = Dataset.from_dict({"confidence": confidence}).data.table
    parquet.write_table(table, confidence_path(), compression="zstd")


if __name__ == "__main__":
    typer.run(main)
