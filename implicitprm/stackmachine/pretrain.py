"""Remake the shipped reasoner: ``python -m implicitprm.stackmachine.pretrain``.

The model of the arithmetic world with another vocabulary, trained by the same code on an endless
stream of fresh tasks with the programs of one fallible tutor. About twelve minutes on one CPU core.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from itertools import count
from pathlib import Path

import numpy as np
import torch
import typer
from torch.utils.data import IterableDataset
from transformers import PreTrainedTokenizerFast, set_seed

from implicitprm.arithmetic.pretrain import BATCH_SIZE, fit, save, training_row
from implicitprm.arithmetic.reasoner import build_reasoner
from implicitprm.stackmachine.machine import SEPARATOR
from implicitprm.stackmachine.problems import SIZES, sample_task
from implicitprm.stackmachine.tokenizer import build_tokenizer
from implicitprm.stackmachine.tutor import Tutor

TUTOR_SEED = 0
#: Steps and peak learning rate: with short tasks first, then with tasks as they are sampled.
STAGES = ((2400, 3e-3), (1000, 2e-3))
#: Short tasks first: at most two operators, and one more after every so many batches.
BATCHES_PER_SIZE = 150


def reasoner_path() -> Path:
    """Folder of the shipped reasoner, to be given to ``from_pretrained``."""
    return Path(str(files("implicitprm.stackmachine"))) / "checkpoints" / "reasoner"


class ProgramStream(IterableDataset):
    """An endless stream of tokenised tasks with programs; the loss is on the program only.

    The tasks of one batch have one number of operators, so that little is padded. With
    ``short_first`` they begin with one or two: without these a model of this size hardly learns
    precedence and parentheses.
    """

    def __init__(
        self, tutor: Tutor, tokenizer: PreTrainedTokenizerFast, seed: int, short_first: bool
    ):
        self.tutor, self.tokenizer, self.seed = tutor, tokenizer, seed
        self.short_first = short_first

    def sizes(self, batch: int) -> tuple[int, int]:
        """Fewest and most operators in a batch."""
        if not self.short_first:
            return SIZES
        return 1, min(SIZES[1], 2 + batch // BATCHES_PER_SIZE)

    def __iter__(self) -> Iterator[dict[str, list[int]]]:
        rng = np.random.default_rng(self.seed)
        for batch in count():
            low, high = self.sizes(batch)
            size = int(rng.integers(low, high + 1))
            for _ in range(BATCH_SIZE):
                task = sample_task(rng, (size, size))
                program = SEPARATOR.join(self.tutor.solve(task, rng))
                yield training_row(self.tokenizer, task.prompt, program)


def main(seed: int = 0) -> None:
    """Train the shipped reasoner anew."""
    torch.set_num_threads(1)  # faster than several for a model of this size, and repeatable
    set_seed(seed)
    tokenizer = build_tokenizer()
    model = build_reasoner(tokenizer)
    for stage, (steps, rate) in enumerate(STAGES):
        set_seed(seed + stage)
        stream = ProgramStream(Tutor(TUTOR_SEED), tokenizer, seed + stage, short_first=stage == 0)
        fit(model, tokenizer, stream, steps, rate, 1, seed + stage, callbacks=[])
    save(model, tokenizer, reasoner_path())


if __name__ == "__main__":
    typer.run(main)
