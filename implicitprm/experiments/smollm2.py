"""Chapter 13: ``python -m implicitprm.experiments.smollm2`` (about 20 minutes of one CPU core).

SmolLM2-135M on word problems: an implicit PRM is trained with CE on outcomes of the policy's own
rollouts, which is its reference, and chooses among eight answers to other problems of the same
templates. β and the learning rate are chosen on validation problems, by best-of-8 with the sum. On
held-out templates the policy has next to nothing right, and nothing is left to choose: their
accuracy is stored, and no reward. An interrupted run goes on where it was.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
import typer
from datasets import Dataset, concatenate_datasets

from implicitprm.arithmetic.measure import answer_scores, candidate_grid
from implicitprm.evaluation import (
    auroc,
    auroc_interval,
    best_of_n_accuracy,
    mean_interval,
    paired_difference,
    pass_at_n,
    vote_accuracy,
)
from implicitprm.experiments.grid import Cell, forget_cells, run_cells
from implicitprm.experiments.runs import be_quiet
from implicitprm.experiments.store import file_hash, rounded, save_result
from implicitprm.rewards import ImplicitPRM, ScoredSolution, sum_by_step
from implicitprm.steps import Solution, encode
from implicitprm.training import ImplicitPRMConfig, ImplicitPRMTrainer
from implicitprm.wordproblems import WORD_FORMAT, load_policy, load_solutions, right_arithmetic
from implicitprm.wordproblems.collect import GREEDY_SPLITS, SPLITS, rollouts_path
from implicitprm.wordproblems.trunk import memoise_trunk

BETAS = (0.3, 1.0)
LEARNING_RATES = (2e-5, 5e-5, 2e-4)
SEEDS = (0, 1, 2)
EPOCHS = 1
BATCH_SIZE = 8
LAYERS = 4
N = 8
SCORING_BATCH = 16
#: What β and the learning rate are chosen by, on the validation problems.
RULE = "best of 8: reward, sum over steps"
MAJORITY = "majority vote"

Values = Mapping[str, np.ndarray]


class Bench:
    """The policy of this process, with what its frozen layers have computed so far.

    ``rows_of`` gives the solutions of a split by its name; ``adapter`` says which model is policy
    and reference: the one with the shipped adapter, or SmolLM2 as it comes. The last ``layers``
    are trained, those below run in ``precision``.
    """

    def __init__(
        self,
        rows_of: Callable[[str], Dataset],
        adapter: bool = True,
        layers: int = LAYERS,
        precision: torch.dtype = torch.float32,
    ) -> None:
        self.rows_of = rows_of
        self.model, self.tokenizer = load_policy(adapter)
        memoise_trunk(self.model, layers, precision)
        self._start = self.weights()
        self._references: dict[str, list[ScoredSolution | None]] = {}

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of the weights that are trained."""
        return {
            name: weight.detach().clone()
            for name, weight in self.model.named_parameters()
            if weight.requires_grad
        }

    def reset(
        self, attention: str = "sdpa", weights: Mapping[str, torch.Tensor] | None = None
    ) -> None:
        """Back to the policy as it was loaded, or to ``weights``."""
        self.model.load_state_dict(self._start if weights is None else weights, strict=False)
        self.model.config._attn_implementation = attention
        self.model.eval()

    def train(self, cell: Cell, epochs: int, batch_size: int = BATCH_SIZE) -> None:
        """Train the last layers, from where they were loaded, on the split ``train``."""
        rows = self.rows_of("train")
        ref_logps = [float(s.policy_logps.sum()) for s in self._reference("train") if s is not None]
        self.reset(cell.get("attention", "sdpa"))
        with tempfile.TemporaryDirectory() as scratch:
            ImplicitPRMTrainer(
                model=self.model,
                reference=None,
                args=ImplicitPRMConfig(
                    output_dir=scratch,
                    beta=cell["beta"],
                    learning_rate=cell["learning_rate"],
                    num_train_epochs=epochs,
                    per_device_train_batch_size=batch_size,
                    save_strategy="no",
                    disable_tqdm=True,
                    seed=cell["seed"],
                ),
                train_dataset=rows.add_column("ref_logps", ref_logps),
                processing_class=self.tokenizer,
                format=WORD_FORMAT,
            ).train()
        self.model.eval()

    def score(self, split: str, beta: float) -> list[ScoredSolution | None]:
        """The rewards of a split under the model as it is now; None for an empty response."""
        policy = self._log_probabilities(split)
        weights = self.weights()
        reference = self._reference(split)
        self.model.load_state_dict(weights, strict=False)
        return [
            None if p is None or r is None else _with_reference(p, r, beta)
            for p, r in zip(policy, reference, strict=True)
        ]

    def _reference(self, split: str) -> list[ScoredSolution | None]:
        """log π_ref of a split; once per process."""
        if split not in self._references:
            self.reset()
            self._references[split] = self._log_probabilities(split)
        return self._references[split]

    def _log_probabilities(self, split: str) -> list[ScoredSolution | None]:
        rows = self.rows_of(split)
        steps = [_steps(row) for row in rows]
        scorer = ImplicitPRM(self.model, None, self.tokenizer, 1.0, WORD_FORMAT)
        solutions = [
            Solution(row["prompt"], of_row, row.get("finished") is not False)
            for row, of_row in zip(rows, steps, strict=True)
            if of_row
        ]
        encoded = [encode(self.tokenizer, solution, WORD_FORMAT) for solution in solutions]
        decoder: Any = self.model.base_model
        decoder.remember(encoded, self.model.device)
        scored = iter(scorer.score_solutions(solutions, SCORING_BATCH))
        return [next(scored) if of_row else None for of_row in steps]


@cache
def bench() -> Bench:
    """What the cells of one process share."""
    be_quiet()
    return Bench(rollouts_of)


def rollouts_of(split: str) -> Dataset:
    """A split of the shipped rollouts, all that is drawn for it.

    Without empty responses where it is trained on.
    """
    rows = load_solutions(split)
    if f"more_{split}" in SPLITS:
        rows = concatenate_datasets([rows, load_solutions(f"more_{split}")])
    if split != "train":
        return rows
    return rows.select([i for i, text in enumerate(rows["completion"]) if text.strip()])


def _steps(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The steps of a row of either format; none for an empty response."""
    if "completions" in row:
        return tuple(row["completions"])
    return WORD_FORMAT.split(row["completion"]) if row["completion"].strip() else ()


def _with_reference(policy: ScoredSolution, ref: ScoredSolution, beta: float) -> ScoredSolution:
    rewards = beta * (policy.policy_logps - ref.policy_logps)
    by_step = sum_by_step(rewards, policy.step_ends)
    return replace(
        policy,
        token_rewards=rewards,
        step_rewards=by_step,
        q_values=by_step.cumsum(),
        outcome=float(by_step.sum()),
        ref_logps=ref.policy_logps,
    )


def choices(rows: Dataset, scored: Sequence[ScoredSolution | None]) -> dict[str, np.ndarray]:
    """Accuracy of every way to choose among eight answers, for each problem (P)."""
    grid = candidate_grid(rows)  # (P, 8)
    correct = np.array(rows["label"])[grid]
    answers = np.array(rows["answer"], dtype=object)[grid].tolist()
    scores = answer_scores(scored) | {
        "log π_θ per token": np.array(
            [-np.inf if s is None else s.policy_logps.mean() for s in scored]
        )
    }
    outcome = scores["reward, sum over steps"][grid]
    chosen = {
        f"best of {N}: {name}": best_of_n_accuracy(values[grid], correct, N)
        for name, values in scores.items()
    }
    weighted = {"vote weighted by reward": vote_accuracy(answers, correct, N, outcome)}
    return chosen | weighted | without_reward(rows)


def without_reward(rows: Dataset) -> dict[str, np.ndarray]:
    """Accuracy of what needs no model, for each problem (P)."""
    grid = candidate_grid(rows)  # (P, 8)
    correct = np.array(rows["label"])[grid]
    answers = np.array(rows["answer"], dtype=object)[grid].tolist()
    return {
        MAJORITY: vote_accuracy(answers, correct, N),
        "chance (pass@1)": correct.mean(1),
        f"oracle (pass@{N})": pass_at_n(correct, N),
    }


def decoded(rows: Dataset) -> dict[str, np.ndarray]:
    """Correctness of greedy decoding on the problems of ``rows`` (P): policy, untouched model."""
    prompts = list(dict.fromkeys(rows["prompt"]))
    found = {}
    for split, adapter in GREEDY_SPLITS.items():
        answers = load_solutions(split)
        labels = dict(zip(answers["prompt"], answers["label"], strict=True))
        name = "greedy decoding" if adapter else "greedy decoding, untouched model"
        found[name] = np.array([float(labels[prompt]) for prompt in prompts])
    return found


def within_problem_auroc(
    rows: Dataset, scored: Sequence[ScoredSolution | None]
) -> dict[str, np.ndarray]:
    """AUROC of right against wrong responses within each problem that has both (P')."""
    scores, labels, weights = answer_scores(scored), np.array(rows["label"]), rows["weight"]
    problems: dict[str, list[int]] = {}
    for row, prompt in enumerate(rows["prompt"]):
        problems.setdefault(prompt, []).append(row)
    mixed = [members for members in problems.values() if len(set(labels[members])) == 2]
    return {
        name: np.array([auroc(values[m], labels[m], np.array(weights)[m]) for m in mixed])
        for name, values in scores.items()
    }


def arithmetic_auroc(
    rows: Dataset, scored: Sequence[ScoredSolution | None]
) -> dict[str, list[float]]:
    """AUROC of steps whose calculation comes out right against others, over problems."""
    lines: list[tuple[str, bool, float, float, float]] = []
    weights: list[int] = []
    for row, solution in zip(rows, scored, strict=True):
        if solution is None:
            continue
        by_step = [
            solution.step_rewards,
            sum_by_step(solution.policy_logps, solution.step_ends),
            sum_by_step(solution.ref_logps, solution.step_ends),
        ]
        for step, text in enumerate(solution.steps):
            right = right_arithmetic(text)
            if right is not None:
                lines.append((row["prompt"], right, *(float(v[step]) for v in by_step)))
                weights.append(row["weight"])
    problems, labels, *columns = (np.array(column) for column in zip(*lines, strict=True))
    names = ("step reward", "log π_θ alone", "log π_ref alone")
    return {
        name: rounded(auroc_interval(values, labels, problems, weights, resamples=300), 3)
        for name, values in zip(names, columns, strict=True)
    }


def validate(cell: Cell) -> dict[str, Any]:
    """Accuracy of RULE on the validation problems, in points."""
    bench().train(cell, EPOCHS)
    scored = bench().score("validation", cell["beta"])
    accuracy = choices(rollouts_of("validation"), scored)
    return {name: round(100 * float(values.mean()), 2) for name, values in accuracy.items()}


def measure(cell: Cell) -> dict[str, Any]:
    """Everything on the test problems; ``values`` are kept for the summary over seeds."""
    bench().train(cell, EPOCHS)
    rows = rollouts_of("test")
    scored = bench().score("test", cell["beta"])
    accuracy = choices(rows, scored) | decoded(rows)
    auc = within_problem_auroc(rows, scored)
    return {
        "rows": table(accuracy),
        "within-problem AUROC": {name: rounded(mean_interval(v), 3) for name, v in auc.items()},
        "right calculation AUROC": arithmetic_auroc(rows, scored),
        "values": {name: values.tolist() for name, values in accuracy.items()},
        "auc values": {name: values.tolist() for name, values in auc.items()},
        "log π_ref": [None if s is None else round(float(s.ref_logps.sum()), 4) for s in scored],
    }


def table(accuracy: Values) -> dict[str, dict[str, list[float]]]:
    """Accuracy, and its paired difference to majority, in points with intervals over problems."""
    majority = 100 * accuracy[MAJORITY]
    return {
        name: {
            "accuracy": rounded(mean_interval(100 * values)),
            "minus majority": rounded(paired_difference(100 * values, majority)),
        }
        for name, values in accuracy.items()
    }


def summarise(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The tables of the mean over seeds, problem by problem."""

    def mean(column: str) -> dict[str, np.ndarray]:
        return {name: np.mean([r[column][name] for r in runs], axis=0) for name in runs[0][column]}

    auc = mean("auc values")
    return {
        "rows": table(mean("values")),
        "within-problem AUROC": {name: rounded(mean_interval(v), 3) for name, v in auc.items()},
        "reward minus log π_ref alone, AUROC": rounded(
            paired_difference(auc["reward, sum over steps"], auc["log π_ref alone"]), 3
        ),
    }


def tolerance(run: Mapping[str, Any], again: Mapping[str, Any]) -> float:
    """Twice the largest difference of an accuracy, in points, between two runs of one cell."""
    rows = run["rows"]
    return 2 * max(
        abs(rows[name]["accuracy"][0] - again["rows"][name]["accuracy"][0]) for name in rows
    )


def _stored(run: Mapping[str, Any]) -> dict[str, Any]:
    dropped = ("values", "auc values", "log π_ref")
    return {name: value for name, value in run.items() if name not in dropped}


def main(workers: int = 2) -> None:
    """Run the whole experiment and write its result file."""
    torch.set_num_threads(1)
    sweep = {
        "betas": BETAS,
        "learning_rates": LEARNING_RATES,
        "seeds": SEEDS,
        "epochs": EPOCHS,
        "batch_size": BATCH_SIZE,
        "layers": LAYERS,
        "n": N,
        "rollouts": {split: file_hash(rollouts_path(split)) for split in (*SPLITS, *GREEDY_SPLITS)},
    }
    tried = [
        {"beta": beta, "learning_rate": rate, "seed": SEEDS[0]}
        for beta in BETAS
        for rate in LEARNING_RATES
    ]
    validation = run_cells("smollm2-validation", sweep, tried, validate, workers)
    best = max(validation, key=lambda cell: cell[RULE])
    chosen = {"beta": best["beta"], "learning_rate": best["learning_rate"]}
    config = sweep | {"chosen": chosen}
    grid = [chosen | {"seed": seed} for seed in SEEDS]
    # By another implementation of attention, as another machine might.
    elsewhere = grid[0] | {"attention": "eager"}
    *runs, again = run_cells("smollm2", config, [*grid, elsewhere], measure, workers)
    cells = [{"part": "validation"} | cell for cell in validation]
    cells += [{"part": "run"} | _stored(run) for run in runs]
    cells += [{"part": "summary"} | summarise(runs)]
    cells += [
        {"part": "held-out templates", "rows": table(without_reward(rollouts_of("held_out")))}
    ]
    # Per row of the test rollouts: by these a check finds rollouts of another policy.
    cells += [{"part": "reference", "log π_ref": runs[0]["log π_ref"]}]
    save_result(
        "smollm2",
        "python -m implicitprm.experiments.smollm2",
        config,
        cells,
        round(tolerance(runs[0], again), 3),
        sum(cell["seconds"] for cell in (*validation, *runs, again)),
    )
    forget_cells("smollm2-validation", sweep)
    forget_cells("smollm2", config)


if __name__ == "__main__":
    typer.run(main)
