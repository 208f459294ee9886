"""Chapter 08: ``python -m implicitprm.experiments.baselines`` (about two hours of one core).

The implicit PRM under four objectives beside what it is compared with: an outcome reward model, and
process reward models trained on Math-Shepherd's, AutoPSV's and true step labels. Each source of
labels trains two parameterisations by one schedule: a discriminative head, and the log-ratio
itself, which keeps the quality of labels apart from the architecture. First the architectures are
tried on true labels, and learning rates are chosen on the validation split; then every method is
trained with several seeds and measured on the rollouts of three generators.

Math-Shepherd's labels come from ``implicitprm.arithmetic.values``, AutoPSV's from
``implicitprm.experiments.verifier``. Cells are kept, so that the command goes on after an
interruption. To measure how far another machine may be off, the first seed of some methods is
trained again with another implementation of attention.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, cast

import numpy as np
import typer
from datasets import Dataset

from implicitprm.arithmetic import Problem, check_solution, load_rollouts, unseen_facts
from implicitprm.arithmetic.measure import candidate_grid, score_rows
from implicitprm.arithmetic.tutor import Tutor
from implicitprm.arithmetic.values import VALUE_SETS, load_values, outcomes
from implicitprm.comparisons.autopsv import autopsv_labels
from implicitprm.comparisons.compute import (
    Cost,
    autopsv_cost,
    implicit_cost,
    math_shepherd_cost,
)
from implicitprm.comparisons.heads import LogRatio
from implicitprm.comparisons.math_shepherd import hard_labels, soft_labels
from implicitprm.evaluation import (
    auroc,
    auroc_interval,
    best_of_n_accuracy,
    bootstrap_over_problems,
    choose_threshold,
    first_error,
    mean_interval,
    paired_difference,
    pass_at_n,
    rank_correlation,
    steps_up_to_first_error,
    vote_accuracy,
)
from implicitprm.experiments import objectives
from implicitprm.experiments.grid import forget_cells, run_cells
from implicitprm.experiments.runs import (
    EPOCHS,
    STEP_BETA,
    be_quiet,
    reference_scorer,
    score_rows_by_steps,
    train_prm,
    train_steps,
)
from implicitprm.experiments.store import load_result, rounded, save_result
from implicitprm.experiments.verifier import load_confidence
from implicitprm.rewards import ImplicitPRM, sum_by_step

SEEDS = (0, 1, 2, 3)
N = (4, 16, 64)
COMPLETIONS = 8  # of each prefix, as Math-Shepherd and the paper have it
RESAMPLES = 200
MIN_TOLERANCE = 0.25
GENERATORS = objectives.GENERATORS
SPLITS = objectives.SPLITS
RULE = "best of 16: min"
#: Tried on validation for every step method; a log-ratio on step labels keeps the β of CE.
LEARNING_RATES = (5e-4, 1e-3, 2e-3)
#: Where the labels of the steps come from.
SOURCES = (
    "outcome at every step",
    "Math-Shepherd, soft",
    "Math-Shepherd, hard",
    "AutoPSV",
    "true labels",
)
#: Method → architecture and source of its step labels. The first one is the outcome reward model.
STEP_METHODS: dict[str, tuple[str, str]] = {
    ("ORM" if source == SOURCES[0] else f"head, {source}"): ("confidence head", source)
    for source in SOURCES
} | {f"log-ratio, {source}": ("log-ratio", source) for source in SOURCES}
#: The four objectives on outcomes, with the hyper-parameters of chapter 06.
IMPLICIT = ("CE", "KTO", "NCA", "DPO")
#: Without a reference: the policy that CE leaves behind.
POLICY = "log π_θ (CE)"
METHODS = (*IMPLICIT, *STEP_METHODS, POLICY)
#: Need no training.
UNTRAINED = ("log π_ref", "shortest")
#: Tried on true labels for competence: architecture, learning rate, epochs.
COMPETENCE = [
    (architecture, rate, epochs)
    for architecture in ("linear head", "next-token head")
    for rate, epochs in ((5e-4, EPOCHS), (1e-3, EPOCHS), (2e-3, EPOCHS), (1e-3, 5 * EPOCHS))
]
COMPETENT = 0.9
#: Trained again with another attention.
AGAIN = ("CE", "ORM", "head, Math-Shepherd, soft", "log-ratio, Math-Shepherd, soft")


@dataclass(frozen=True)
class Judged:
    """What a method says about each of N rows: its scores per step and per solution.

    None or −∞ where the text lies outside this world. ``values`` estimate the value of each prefix.
    """

    steps: list[np.ndarray | None]
    values: list[np.ndarray | None]
    by_min: np.ndarray
    by_sum: np.ndarray
    vote: np.ndarray


Scorer = Callable[[Dataset], Judged]


def step_labels(source: str, rows: Dataset) -> list[list[float]]:
    """Labels of every step of the reasoner's training rollouts, by one of SOURCES.

    A true label says whether the solution is free of errors up to the end of the step.
    """
    if source == "outcome at every step":
        return [
            [float(label)] * len(steps)
            for label, steps in zip(rows["label"], rows["steps"], strict=True)
        ]
    if source == "true labels":
        return [np.logical_and.accumulate(valid).astype(float).tolist() for valid in rows["valid"]]
    if source == "AutoPSV":
        prior = float(np.average(rows["label"], weights=rows["weight"]))
        return [
            autopsv_labels(values, prior).astype(float).tolist() for values in load_confidence()
        ]
    of_completions = {"Math-Shepherd, soft": soft_labels, "Math-Shepherd, hard": hard_labels}[
        source
    ]
    return [
        of_completions(outcomes(right, COMPLETIONS)).astype(float).tolist()
        for right in load_values("reasoner-train")["right"]
    ]


def train(cell: Mapping[str, Any]) -> Scorer:
    """Train the method of a cell; returns what judges rows."""
    be_quiet()
    method = cell["method"]
    attention = cell.get("attention", "sdpa")
    if method in IMPLICIT or method == POLICY:
        variant = "CE" if method == POLICY else method
        objective = objectives.VARIANTS[variant][0]
        prm = train_prm(
            objectives.prepared(variant),
            objective=objective,
            seed=cell["seed"],
            attention=attention,
            **load_result("objectives")["config"]["chosen"][objective],
        )
        return lambda rows: by_log_ratio(prm, rows, with_reference=method != POLICY)
    architecture, source = STEP_METHODS[method]
    rows = load_rollouts("reasoner", "train")
    scorer = train_steps(
        rows,
        step_labels(source, rows),
        architecture,
        cell["learning_rate"],
        cell["seed"],
        attention=attention,
    )
    if architecture == "log-ratio":
        reference = reference_scorer()
        prm = ImplicitPRM(
            cast(LogRatio, scorer).policy, None, reference.tokenizer, STEP_BETA, reference.format
        )
        return lambda rows: by_log_ratio(prm, rows)
    by_head = by_last_step if method == "ORM" else by_every_step
    return lambda rows: by_head(score_rows_by_steps(scorer, rows))


def by_log_ratio(prm: ImplicitPRM, rows: Dataset, with_reference: bool = True) -> Judged:
    """Step rewards; their running sum is the value, their sum weights votes.

    Without the reference log π_θ takes their place.
    """
    policy_only = ImplicitPRM(prm.policy, None, prm.tokenizer, 1.0, prm.format)
    steps: list[np.ndarray | None] = []
    for solution, of_ref in zip(score_rows(policy_only, rows), ref_step_logps(rows), strict=True):
        if solution is None or of_ref is None:
            steps.append(None)
            continue
        of_policy = sum_by_step(solution.policy_logps, solution.step_ends)
        steps.append(prm.beta * (of_policy - of_ref) if with_reference else of_policy)
    return by_additive_steps(steps)


def by_additive_steps(steps: list[np.ndarray | None]) -> Judged:
    """Scores that add up: the running sum is the value, the sum weights votes."""
    values = [None if s is None else s.cumsum() for s in steps]
    return Judged(steps, values, _by(np.min, steps), _by(np.sum, steps), _by(np.sum, steps))


def by_every_step(logits: Sequence[np.ndarray | None]) -> Judged:
    """A process reward model's logits: min, product of probabilities; votes weighted by the min."""
    probabilities = [None if z is None else -np.logaddexp(0, -z) for z in logits]
    lowest = _by(np.min, logits)
    return Judged(list(logits), list(logits), lowest, _by(np.sum, probabilities), lowest)


def by_last_step(logits: Sequence[np.ndarray | None]) -> Judged:
    """An outcome reward model's logits: the last one scores the solution, whatever the rule."""
    last = _by(lambda z: z[-1], logits)
    return Judged(list(logits), list(logits), last, last, last)


def by_ref(rows: Dataset) -> Judged:
    """log π_ref of steps and solutions: confidence alone."""
    return by_additive_steps(ref_step_logps(rows))


def by_length(rows: Dataset) -> Judged:
    """Fewer characters are better; says the same of every step of a solution."""
    lengths = -np.array([len(text) for text in rows["completion"]], dtype=float)
    steps = [
        np.full(len(of_row), length) for of_row, length in zip(rows["steps"], lengths, strict=True)
    ]
    return Judged(list(steps), list(steps), lengths, lengths, lengths)


def _by(rule: Callable[[np.ndarray], float], scores: Sequence[np.ndarray | None]) -> np.ndarray:
    return np.array([-np.inf if s is None else float(rule(s)) for s in scores])


_REF: dict[str, list[np.ndarray | None]] = {}


def ref_step_logps(rows: Dataset) -> list[np.ndarray | None]:
    """log π_ref of each step of rows, computed once per process and data set."""
    key = f"{len(rows)} {rows[0]['completion']} {rows[-1]['completion']}"
    if key not in _REF:
        _REF[key] = [
            None if s is None else sum_by_step(s.policy_logps, s.step_ends)
            for s in score_rows(reference_scorer(), rows)
        ]
    return _REF[key]


@dataclass(frozen=True)
class StepTruth:
    """The operation steps of some rows up to and including the first error of each: L of them."""

    row: np.ndarray
    step: np.ndarray
    valid: np.ndarray
    unseen: np.ndarray
    misconception: np.ndarray
    problem: np.ndarray
    weight: np.ndarray


@cache
def step_truth(generator: str, split: str) -> StepTruth:
    """What is true of the steps of one file of rollouts."""
    tutor = Tutor()
    unseen = unseen_facts(tutor)
    rows = load_rollouts(generator, split)
    problems = {prompt: number for number, prompt in enumerate(dict.fromkeys(rows["prompt"]))}
    lines = []
    for number, row in enumerate(rows):
        truth = check_solution(Problem.parse(row["prompt"]), row["steps"], row["finished"])
        for step in steps_up_to_first_error(truth.first_error, len(row["steps"])):
            fact = truth.facts[step]
            if fact is not None:
                lines.append(
                    (
                        number,
                        step,
                        truth.valid[step],
                        fact in unseen,
                        fact in tutor.misconceptions,
                        problems[row["prompt"]],
                        row["weight"],
                    )
                )
    return StepTruth(*(np.array(column) for column in zip(*lines, strict=True)))


def _candidates(rows: Dataset) -> tuple[np.ndarray, np.ndarray, list[list[str]]]:
    """Row numbers of the M candidates of each problem (P, M), which are right, their last lines."""
    grid = candidate_grid(rows)
    given: list[list[str]] = np.array([s[-1] for s in rows["steps"]], dtype=object)[grid].tolist()
    return grid, np.array(rows["label"])[grid], given


def answers(rows: Dataset, judged: Judged, ns: Sequence[int] = N) -> dict[str, np.ndarray]:
    """Accuracy (0..1) per problem of best-of-n by min and sum, and of the weighted vote."""
    grid, correct, given = _candidates(rows)
    accuracy = {}
    for n in ns:
        accuracy[f"best of {n}: min"] = best_of_n_accuracy(judged.by_min[grid], correct, n)
        accuracy[f"best of {n}: sum"] = best_of_n_accuracy(judged.by_sum[grid], correct, n)
        accuracy[f"vote of {n}"] = vote_accuracy(given, correct, n, judged.vote[grid])
    return accuracy


def levels(rows: Dataset, ns: Sequence[int] = N) -> dict[str, np.ndarray]:
    """Accuracy (0..1) per problem of chance, the majority vote and an oracle."""
    _, correct, given = _candidates(rows)
    found = {"chance": correct.mean(1)}
    for n in ns:
        found[f"majority of {n}"] = vote_accuracy(given, correct, n)
        found[f"oracle of {n}"] = pass_at_n(correct, n)
    return found


def step_aurocs(generator: str, judged: Mapping[str, Judged]) -> dict[str, list[float]]:
    """AUROC of valid against wrong steps with its interval, by kind of fact, over all splits."""
    parts = [(split, step_truth(generator, split)) for split in judged]
    scores: list[np.ndarray] = []
    columns: list[tuple[np.ndarray, ...]] = []
    offset = 0
    for split, truth in parts:
        of_row = judged[split].steps
        scores.append(scores_at(of_row, truth.row, truth.step))
        kinds_of = (truth.valid, truth.unseen, truth.misconception)
        columns.append((*kinds_of, truth.weight, truth.problem + offset))
        offset += int(truth.problem.max()) + 1
    score = np.concatenate(scores)
    valid, unseen, misconception, weight, problem = map(np.concatenate, zip(*columns, strict=True))
    known = ~np.isnan(score)
    kinds = {
        "seen": ~unseen,
        "unseen": unseen,
        "seen, slips": ~unseen & ~misconception,
        "seen, misconceptions": ~unseen & misconception,
    }
    found = {}
    for name, kind in kinds.items():
        part = known & kind
        if name in ("seen", "unseen"):
            interval = auroc_interval(
                score[part], valid[part], problem[part], weight[part], resamples=RESAMPLES
            )
            found[name] = rounded(interval, 4)
        else:
            found[name] = [round(auroc(score[part], valid[part], weight[part]), 4)]
    return found


def scores_at(
    of_rows: Sequence[np.ndarray | None], rows: np.ndarray, steps: np.ndarray
) -> np.ndarray:
    """One score per (row, step), NaN where a row has none: (L)."""
    return np.array(
        [
            np.nan if (scores := of_rows[row]) is None else scores[step]
            for row, step in zip(rows, steps, strict=True)
        ]
    )


def threshold_on_validation(scorer: Scorer) -> float:
    """The step-score threshold with the highest first-error F1 on the validation split."""
    rows = load_rollouts("reasoner", "validation")
    steps = scorer(rows).steps
    known = [s is not None for s in steps]
    return choose_threshold(
        [s for s in steps if s is not None],
        np.array(rows["first_error"])[known],
        np.array(rows["weight"])[known],
    )


def first_error_hits(rows: Dataset, judged: Judged, threshold: float) -> np.ndarray:
    """Of each problem: hits and weight with an error, hits and weight without: (P, 4)."""
    numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(rows["prompt"]))}
    sums = np.zeros((len(numbers), 4))  # hits and weights, with and without an error
    for prompt, label, weight, steps in zip(
        rows["prompt"], rows["first_error"], rows["weight"], judged.steps, strict=True
    ):
        if steps is not None:
            hit = first_error(steps, threshold) == label
            side = 0 if label >= 0 else 2
            sums[numbers[prompt], side : side + 2] += (weight * hit, weight)
    return sums


def f1_interval(rows: Dataset, judged: Judged, threshold: float) -> list[float]:
    """First-error F1 (0..1) with its interval over problems."""
    sums = first_error_hits(rows, judged, threshold)

    def f1(problems: np.ndarray) -> float:
        with_error, total, without, rest = sums[problems].sum(axis=0)
        a, b = with_error / total, without / rest
        return 2 * a * b / (a + b) if a + b else 0.0

    return rounded(bootstrap_over_problems(f1, len(sums), resamples=RESAMPLES), 4)


@cache
def true_values(generator: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Row, step, true Q and problem of the open prefixes of one generator's value set."""
    name = f"{generator}-test"
    rows = load_rollouts(generator, "test")
    numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(rows["prompt"]))}
    found = []
    for value in load_values(name):
        q = outcomes(value["right"], VALUE_SETS[name].completions).mean(axis=1)
        prompt = rows[value["row"]]["prompt"]
        found += [(value["row"], step, q[step], numbers[prompt]) for step in range(len(q) - 1)]
    row, step, q, problem = (np.array(column) for column in zip(*found, strict=True))
    return row, step, q, problem


def agreement(generator: str, judged: Judged) -> list[float]:
    """Rank correlation of values with the true Q, pooled over prefixes, with its interval."""
    row, step, q, problem = true_values(generator)
    value = scores_at(judged.values, row, step)
    known = ~np.isnan(value)
    value, q, problem = value[known], q[known], problem[known]
    members = [np.flatnonzero(problem == number) for number in np.unique(problem)]

    def correlation(problems: np.ndarray) -> float:
        chosen = np.concatenate([members[number] for number in problems])
        return rank_correlation(value[chosen], q[chosen])

    if np.ptp(value) == 0:
        return [0.0, 0.0, 0.0]
    interval = bootstrap_over_problems(correlation, len(members), resamples=RESAMPLES)
    return rounded(interval, 4)


def measure_scorer(scorer: Scorer) -> dict[str, Any]:
    """Everything about one scorer, by generator."""
    threshold = threshold_on_validation(scorer)
    found = {}
    for generator in GENERATORS:
        rows = {split: load_rollouts(generator, split) for split in SPLITS}
        judged = {split: scorer(rows[split]) for split in SPLITS}
        found[generator] = {
            "answers": {
                split: {
                    name: [round(100 * float(value), 2) for value in values]
                    for name, values in answers(rows[split], judged[split]).items()
                }
                for split in SPLITS
            },
            "auroc": step_aurocs(generator, judged),
            "f1": f1_interval(rows["test"], judged["test"], threshold),
            "agreement": agreement(generator, judged["test"]),
        }
    return {"generators": found}


def measure(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Train the method of a cell, or take one that needs no training, and measure it."""
    be_quiet()
    if cell["method"] in UNTRAINED:
        return measure_scorer(by_ref if cell["method"] == UNTRAINED[0] else by_length)
    return measure_scorer(train(cell))


def validate(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Accuracy by RULE (percent) and step AUROC on the validation split."""
    be_quiet()
    rows = load_rollouts("reasoner", "validation")
    if "epochs" in cell:
        train_rows = load_rollouts("reasoner", "train")
        scorer = train_steps(
            train_rows,
            step_labels("true labels", train_rows),
            cell["architecture"],
            cell["learning_rate"],
            cell["seed"],
            epochs=cell["epochs"],
        )
        judged = by_every_step(score_rows_by_steps(scorer, rows))
    else:
        judged = train(cell)(rows)
    truth = step_truth("reasoner", "validation")
    score = scores_at(judged.steps, truth.row, truth.step)
    grid = candidate_grid(rows)
    accuracy = best_of_n_accuracy(judged.by_min[grid], np.array(rows["label"])[grid], 16)
    return {
        "accuracy": round(100 * float(accuracy.mean()), 3),
        "auroc": round(auroc(score, truth.valid, truth.weight), 4),
    }


def choose(cells: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The learning rate of each step method with the highest validation accuracy."""
    return {
        method: max(
            (cell for cell in cells if cell["method"] == method), key=lambda cell: cell["accuracy"]
        )["learning_rate"]
        for method in STEP_METHODS
    }


@cache
def _lengths() -> list[dict[str, Any]]:
    """Tokens of each distinct training rollout, and of what Math-Shepherd makes of it."""
    tokenizer = reference_scorer().tokenizer
    rows = load_rollouts("reasoner", "train")
    counts = []
    for row, values in zip(rows, load_values("reasoner-train"), strict=True):
        prompt = len(tokenizer(row["prompt"]).input_ids)
        response = len(tokenizer(row["completion"]).input_ids) + int(row["finished"])
        steps = row["steps"]
        texts = ["\n".join((*steps[:end], "")) for end in range(1, len(steps) + 1)]
        counts.append(
            {
                "prompt": row["prompt"],
                "operations": len(Problem.parse(row["prompt"]).operations),
                "weight": row["weight"],
                "tokens": prompt + response,
                "response": response,
                "prefixes": texts,
                "prefix tokens": [prompt + len(tokenizer(text).input_ids) for text in texts],
                "generated": [
                    tokens * COMPLETIONS / VALUE_SETS["reasoner-train"].completions
                    for tokens in values["generated_tokens"]
                ],
            }
        )
    return counts


def token_costs(operations: int | None, shared: bool) -> dict[str, Cost]:
    """The cost of each source of labels beyond the rollouts, for problems of so many operations.

    ``shared``: as run here, where a distinct rollout is read and trained on once an epoch and a
    prefix of several rollouts is completed once. Otherwise as the paper counts: every rollout and
    every step of it by itself, one epoch.
    """
    chosen = [c for c in _lengths() if operations in (None, c["operations"])]
    weights = [1 if shared else c["weight"] for c in chosen]
    read = float(sum(w * c["tokens"] for w, c in zip(weights, chosen, strict=True)))
    trained = read * (EPOCHS if shared else 1)
    seen: set[tuple[str, str]] = set()
    generated = of_prefixes = 0.0
    for weight, count in zip(weights, chosen, strict=True):
        for text, length, tokens in zip(
            count["prefixes"], count["prefix tokens"], count["generated"], strict=True
        ):
            key = (count["prompt"], text)
            if tokens and not (shared and key in seen):
                generated += weight * tokens
                of_prefixes += weight * length
            seen.add(key)
    return {
        "rollouts": Cost(generated=sum(c["weight"] * c["response"] for c in chosen)),
        "CE": implicit_cost(read, trained),
        "ORM": Cost(trained=trained),
        "Math-Shepherd": math_shepherd_cost(generated, of_prefixes, trained),
        "AutoPSV": autopsv_cost(read, trained),
        # A log-ratio on these labels needs the reference's log-probabilities besides.
        "Math-Shepherd, log-ratio": math_shepherd_cost(generated, of_prefixes + read, trained),
        "AutoPSV, log-ratio": autopsv_cost(2 * read, trained),
    }


def cost_cells() -> list[dict[str, Any]]:
    """Tokens and FLOPs of each source of labels, by number of operations and way of counting."""
    parameters = reference_scorer().policy.num_parameters()
    cells = []
    for shared in (True, False):
        for operations in (None, 3, 5, 8):
            costs = token_costs(operations, shared)
            if operations is None and shared:
                costs |= _pair_costs(costs["CE"])
            cells += [
                {
                    "part": "cost",
                    "source": name,
                    "operations": operations,
                    "counted": "as run" if shared else "as in the paper",
                    "generated": round(cost.generated),
                    "read": round(cost.read),
                    "trained": round(cost.trained),
                    "flops": cost.flops(parameters),
                }
                for name, cost in costs.items()
            ]
    return cells


def _pair_costs(ce: Cost) -> dict[str, Cost]:
    """The objectives that read pairs, and KTO, which also reads mismatched responses."""
    tokens = {
        cell["variant"]: cell["training tokens"]
        for cell in load_result("objectives")["cells"]
        if cell["part"] == "cost"
    }
    pairs = implicit_cost(tokens["DPO"] / EPOCHS, tokens["DPO"])
    mismatched = tokens["KTO"] - tokens["CE"]
    kto = ce + Cost(read=mismatched + mismatched / EPOCHS)
    return {"KTO": kto, "DPO": pairs, "NCA": pairs}


def sweep_cells() -> list[dict[str, Any]]:
    """The architectures on true labels, then the learning rates of every step method."""
    competence = [
        {"architecture": architecture, "learning_rate": rate, "epochs": epochs, "seed": 0}
        for architecture, rate, epochs in COMPETENCE
    ]
    return competence + [
        {"method": method, "learning_rate": rate, "seed": 0}
        for method in STEP_METHODS
        for rate in LEARNING_RATES
    ]


def grid_cells(chosen: Mapping[str, float], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Every method and seed; ``chosen`` are the learning rates of the step methods."""
    return [
        {"method": method, "seed": seed}
        | ({"learning_rate": chosen[method]} if method in chosen else {})
        for seed in seeds
        for method in METHODS
    ]


def summarise(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Accuracies averaged over seeds with intervals over problems, and paired differences.

    By generator and split; and ``overall``: of each test problem the mean over generators and N,
    which are the paper's nine cells. Differences are to the majority vote of as many candidates and
    to each of IMPLICIT, in points.
    """
    methods = list(dict.fromkeys(run["method"] for run in runs))
    summaries: list[dict[str, Any]] = []
    for split in SPLITS:
        majority = {g: levels(load_rollouts(g, split)) for g in GENERATORS}
        mean = {
            (method, generator): _mean_over_seeds(runs, method, generator, split)
            for method in methods
            for generator in GENERATORS
        }
        for method in methods:
            for generator in GENERATORS:
                rows = {}
                for rule, values in mean[method, generator].items():
                    n = rule.removeprefix("best of ").removeprefix("vote of ").split(":")[0]
                    rivals = {"majority": 100 * majority[generator][f"majority of {n}"]}
                    rivals |= {name: mean[name, generator][rule] for name in IMPLICIT}
                    rows[rule] = _compared(values, rivals)
                summaries.append(
                    {"part": "summary", "method": method, "generator": generator, "split": split}
                    | {"rows": rows}
                )
        if split == "test":
            summaries += _overall(methods, mean, majority)
    return summaries


def _overall(
    methods: Sequence[str],
    mean: Mapping[tuple[str, str], Mapping[str, np.ndarray]],
    majority: Mapping[str, Mapping[str, np.ndarray]],
) -> list[dict[str, Any]]:
    """The mean of nine cells (generators × N) of each test problem, by method and rule.

    The generators' files have the same problems in the same order.
    """
    orders = [list(dict.fromkeys(load_rollouts(g, "test")["prompt"])) for g in GENERATORS]
    if any(order != orders[0] for order in orders):
        raise ValueError("the generators' test problems differ: their accuracies are not paired")
    cells = [(generator, n) for generator in GENERATORS for n in N]
    voted = np.mean([100 * majority[g][f"majority of {n}"] for g, n in cells], axis=0)
    rules = {"min": "best of {}: min", "sum": "best of {}: sum", "vote": "vote of {}"}
    overall = {
        (method, name): np.mean([mean[method, g][rule.format(n)] for g, n in cells], axis=0)
        for method in methods
        for name, rule in rules.items()
    }
    return [
        {"part": "overall", "method": method}
        | {
            "rows": {
                name: _compared(
                    overall[method, name],
                    {"majority": voted} | {rival: overall[rival, name] for rival in IMPLICIT},
                )
                for name in rules
            }
        }
        for method in methods
    ]


def _compared(values: np.ndarray, rivals: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    return {"accuracy": rounded(mean_interval(values))} | {
        f"minus {name}": rounded(paired_difference(values, theirs))
        for name, theirs in rivals.items()
    }


def _mean_over_seeds(
    runs: Sequence[Mapping[str, Any]], method: str, generator: str, split: str
) -> dict[str, np.ndarray]:
    found = [
        run["generators"][generator]["answers"][split] for run in runs if run["method"] == method
    ]
    return {rule: np.mean([seed[rule] for seed in found], axis=0) for rule in found[0]}


def level_cells() -> list[dict[str, Any]]:
    """Chance, majority and oracle of each generator and split, with intervals."""
    return [
        {"part": "levels", "generator": generator, "split": split}
        | {
            "rows": {
                name: rounded(mean_interval(100 * values))
                for name, values in levels(load_rollouts(generator, split)).items()
            }
        }
        for generator in GENERATORS
        for split in SPLITS
    ]


def tolerances(
    runs: Sequence[Mapping[str, Any]], again: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Twice the largest difference, in points, that another attention made, by method.

    Over the test splits of all generators, best of 16 by both rules and the vote of 16; at least
    MIN_TOLERANCE.
    """
    found = {}
    for other in again:
        (first,) = (r for r in runs if (r["method"], r["seed"]) == (other["method"], other["seed"]))
        differences = [
            abs(
                np.mean(first["generators"][g]["answers"]["test"][rule])
                - np.mean(other["generators"][g]["answers"]["test"][rule])
            )
            for g in GENERATORS
            for rule in ("best of 16: min", "best of 16: sum", "vote of 16")
        ]
        found[other["method"]] = max(MIN_TOLERANCE, round(2 * float(max(differences)), 2))
    return found


def main(
    workers: Annotated[int, typer.Option(help="processes, one core each", min=1)] = 2,
) -> None:
    """Run the whole experiment and write its result file."""
    config: dict[str, Any] = {
        "completions": COMPLETIONS,
        "learning_rates": LEARNING_RATES,
        "step_beta": STEP_BETA,
        "epochs": EPOCHS,
        "n": N,
    }
    validation = run_cells("baselines-validation", config, sweep_cells(), validate, workers)
    swept = config
    chosen = choose([cell for cell in validation if "method" in cell])
    config = config | {"chosen": chosen}
    untrained = [{"method": method, "seed": 0} for method in UNTRAINED]
    elsewhere = [
        cell | {"attention": "eager"}
        for cell in grid_cells(chosen, SEEDS[:1])
        if cell["method"] in AGAIN
    ]
    grid = [*elsewhere, *untrained, *grid_cells(chosen, SEEDS)]
    measured = run_cells("baselines", config, grid, measure, workers)
    again, runs = measured[: len(elsewhere)], measured[len(elsewhere) :]
    cells = [
        {"part": "validation" if "method" in cell else "competence"} | cell for cell in validation
    ]
    cells += level_cells()
    cells += cost_cells()
    cells += [{"part": "run"} | objectives.without_problems(run) for run in runs]
    cells += summarise(runs)
    save_result(
        "baselines",
        "python -m implicitprm.experiments.baselines",
        config | {"seeds": SEEDS},
        cells,
        tolerances(runs, again),
        sum(cell["seconds"] for cell in (*validation, *measured)),
    )
    forget_cells("baselines-validation", swept)
    forget_cells("baselines", config)


if __name__ == "__main__":
    typer.run(main)
