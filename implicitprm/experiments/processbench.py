"""Chapter 14: ``python -m implicitprm.experiments.processbench SOLUTIONS``.

Where is the first error of a solution? ProcessBench's human labels against the step rewards of the
models of :mod:`implicitprm.experiments.real_solutions`, which were trained on outcomes of SOLUTIONS
alone (example_model_solutions.jsonl of github.com/openai/grade-school-math). Both are about the
test questions of GSM8K: problems whose question a model was trained on or chosen with are left out.
The thresholds that GSM8K chooses are carried to MATH, as the published figures do. GSM8K and MATH
may be files in ProcessBench's layout. A quarter of an hour of one CPU core after real_solutions,
whose weights it finds where they were kept; otherwise it trains them again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any

import numpy as np
import torch
import typer
from datasets import Dataset

from implicitprm.data import convert_processbench, read_rows
from implicitprm.experiments.grid import Cell, forget_cells, run_cells
from implicitprm.experiments.real_solutions import SWEEP, bench_of, solutions_of, trained
from implicitprm.experiments.smollm2 import Bench
from implicitprm.experiments.store import load_result, rounded, save_result
from implicitprm.reports import (
    PROCESSBENCH_F1,
    PROCESSBENCH_SPLITS,
    f1_difference,
    f1_intervals,
    first_error_hits,
)
from implicitprm.rewards import sum_by_step

HUB_ID = "Qwen/ProcessBench"
#: Problems of each split, after shuffling: the files are sorted by whether there is an error.
PROBLEMS = {"gsm8k": 100, "math": 100}
#: Of the shuffle, the halves and the resamples.
SEED = 0
REWARD = "step reward"
COLUMNS = ("F1", "accuracy with error", "accuracy without", f"F1 of {REWARD} minus this one's")


def problems_of(source: str, split: str, solutions: str) -> Dataset:
    """Shuffled problems of a split whose questions were neither trained on nor chosen with."""
    seen = {q for part in ("train", "validation") for q in solutions_of(solutions, part)["prompt"]}
    rows = convert_processbench(read_rows(source, split))
    unseen = rows.select([i for i, prompt in enumerate(rows["prompt"]) if prompt not in seen])
    if len(unseen) < PROBLEMS[split]:
        raise ValueError(f"{source} has {len(unseen)} unseen problems, not {PROBLEMS[split]}")
    return unseen.shuffle(seed=SEED).select(range(PROBLEMS[split]))


@cache
def bench(solutions: str, source: str, split: str) -> Bench:
    parts = {
        "train": solutions_of(solutions, "train"),
        split: problems_of(source, split, solutions),
    }
    return bench_of(parts.__getitem__)


def measure(cell: Cell) -> dict[str, Any]:
    """What the tables read of every problem: its label, and each step by every score."""
    model = trained(bench(cell["file"], cell["source"], cell["split"]), cell)
    scored = [s for s in model.score(cell["split"], cell["beta"]) if s is not None]
    return {
        "first_error": list(model.rows_of(cell["split"])["first_error"]),
        "step_rewards": [s.step_rewards.tolist() for s in scored],
        "q_values": [s.q_values.tolist() for s in scored],
        "policy_step_logps": [sum_by_step(s.policy_logps, s.step_ends).tolist() for s in scored],
        "ref_step_logps": [sum_by_step(s.ref_logps, s.step_ends).tolist() for s in scored],
        "step_ends": [list(s.step_ends) for s in scored],
    }


def tables_of(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, np.ndarray]]:
    """Which predictions are right (P), by every score, of one model.

    ``runs`` has what :func:`measure` gives of each split. The second table of gsm8k is the one by
    the published protocol, where the threshold was chosen on the very problems.
    """
    rows = {
        split: Dataset.from_dict({k: v for k, v in run.items() if isinstance(v, list)})
        for split, run in runs.items()
    }
    tables = {"gsm8k, threshold of the other half": first_error_hits(rows["gsm8k"], SEED)}
    return tables | {
        f"{split}, threshold of gsm8k": first_error_hits(of_split, SEED, chosen_on=rows["gsm8k"])
        for split, of_split in rows.items()
    }


def f1_table(hits: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, dict[str, Any]]:
    """F1 and its two accuracies, and what the reward's F1 has over each score's; in points."""
    table = {}
    for name, right in hits.items():
        intervals = f1_intervals(right, labels, SEED)
        intervals.append(f1_difference(hits[REWARD], right, labels, SEED))
        table[name] = {
            column: [round(100 * bound, 2) for bound in rounded(interval, 4)]
            for column, interval in zip(COLUMNS, intervals, strict=True)
        }
    return table


def mean_hits(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The share of the seeds that are right, problem by problem, in each table."""
    return {
        table: {name: np.mean([run[table][name] for run in runs], axis=0) for name in by_score}
        for table, by_score in runs[0].items()
    }


def tolerance(run: Mapping[str, Any], again: Mapping[str, Any]) -> float:
    """Twice the largest difference of an F1, in points, between two trainings of one cell."""
    return round(
        2
        * max(
            abs(run[table][name]["F1"][0] - again[table][name]["F1"][0])
            for table in run
            for name in run[table]
        ),
        2,
    )


def main(
    solutions: Annotated[str, typer.Argument(help="example_model_solutions.jsonl")],
    gsm8k: Annotated[str, typer.Argument(help="a file, or a hub id with this split")] = HUB_ID,
    math: Annotated[str, typer.Argument(help="a file, or a hub id with this split")] = HUB_ID,
    workers: int = 1,
) -> None:
    """Run the whole experiment and write its result file."""
    torch.set_num_threads(1)
    as_trained = load_result("real_solutions")["config"]
    config = {
        "problems": PROBLEMS,
        "seed": SEED,
        "trained": SWEEP | {"chosen": as_trained["chosen"]},
    }
    # The last one by another implementation of attention, as another machine might.
    cells_of_split = [as_trained["chosen"] | {"seed": seed} for seed in as_trained["seeds"]]
    cells_of_split.append(cells_of_split[0] | {"attention": "eager"})
    sources = {"gsm8k": gsm8k, "math": math}
    measured = {}
    for split, problems in PROBLEMS.items():
        shared = {"file": solutions, "source": sources[split], "split": split}
        grid = [shared | cell for cell in cells_of_split]
        measured[split] = run_cells(
            f"processbench-{split}", config | {"problems": problems}, grid, measure, workers
        )
    labels = {split: np.array(runs[0]["first_error"]) for split, runs in measured.items()}
    # One table of hits for each training, of all splits.
    *hits, elsewhere = [
        tables_of({split: runs[number] for split, runs in measured.items()})
        for number in range(len(cells_of_split))
    ]

    def table(of: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Any]:
        return {name: f1_table(h, labels[name.partition(",")[0]]) for name, h in of.items()}

    cells: list[dict[str, Any]] = [
        {
            "part": "problems",
            "split": split,
            "problems": len(of),
            "with error": int((of >= 0).sum()),
        }
        for split, of in labels.items()
    ]
    cells += [
        {"part": "run", "seed": seed} | table(of_seed)
        for seed, of_seed in zip(as_trained["seeds"], hits, strict=True)
    ]
    cells += [{"part": "summary"} | table(mean_hits(hits))]
    cells += [
        {"part": "published", "source": "arXiv 2501.07301", "model": model}
        | dict(zip(PROCESSBENCH_SPLITS, by_split, strict=True))
        for model, by_split in PROCESSBENCH_F1.items()
    ]
    save_result(
        "processbench",
        "python -m implicitprm.experiments.processbench example_model_solutions.jsonl",
        config,
        cells,
        tolerance(table(hits[0]), table(elsewhere)),
        sum(run["seconds"] for runs in measured.values() for run in runs),
    )
    for split, problems in PROBLEMS.items():
        forget_cells(f"processbench-{split}", config | {"problems": problems})


if __name__ == "__main__":
    typer.run(main)
