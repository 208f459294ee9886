"""Chapter 10: ``python -m implicitprm.experiments.ablations`` (about 50 minutes of one core).

What the implicit PRM is made of, taken out or exchanged one piece at a time, each arm beside its
control and with hyper-parameters of its own:

- *stages*: step labels in a second stage of one epoch, against one more epoch of CE;
- *references*: CE and DPO trained with one reference and read with another. The reference enters
  training only as a column of log-probabilities, and reading only as one number per step, so a
  trained policy is scored once and read with all of them;
- *per token*: the log-ratio divided by the length of the response;
- *policies*: what each objective leaves behind, used to write solutions.

Differences are paired by problem, over the means of all seeds. Quantities that are no mean over
problems, such as AUROC, are computed on one set of resamples of the problems that all arms and
seeds share, so that their differences are paired, too.

Cells are kept, so that the command goes on after an interruption. To measure how far another
machine may be off, the first seed of one arm is trained again with another implementation of
attention.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from datasets import Dataset
from scipy.stats import rankdata
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from implicitprm.arithmetic import ARITHMETIC_FORMAT, checkpoint_path, load_rollouts
from implicitprm.arithmetic.collect import MIN_P
from implicitprm.arithmetic.measure import candidate_grid, score_rows
from implicitprm.arithmetic.values import grade
from implicitprm.comparisons.heads import LogRatio
from implicitprm.evaluation import (
    best_of_n_accuracy,
    choose_threshold,
    mean_interval,
    paired_difference,
    rank_correlation,
)
from implicitprm.experiments import objectives
from implicitprm.experiments.baselines import (
    Judged,
    by_additive_steps,
    first_error_hits,
    scores_at,
    step_labels,
    step_truth,
    true_values,
)
from implicitprm.experiments.grid import forget_cells, run_cells
from implicitprm.experiments.runs import EPOCHS, STEP_BETA, be_quiet, train_prm, train_scorer
from implicitprm.experiments.store import load_result, rounded, save_result
from implicitprm.rewards import ImplicitPRM, sum_by_step
from implicitprm.rollouts import sample_rollouts
from implicitprm.training import OBJECTIVES, ImplicitPRMTrainer, add_reference_logps

Array = npt.NDArray[np.float64]
#: log-probability of every step (S) of each row; None for a text outside this world
StepLogps = list[Array | None]

SEEDS = (0, 1, 2)
N = 16
RESAMPLES = 200
MIN_TOLERANCE = 0.25
#: Reference → checkpoint, and the factor on its logits (1/temperature). A factor of 0 makes every
#: token equally probable. None is no reference: log π_θ alone.
REFERENCES: dict[str, tuple[str, float] | None] = {
    "reasoner": ("reasoner", 1.0),
    "none": None,
    "early": ("early", 1.0),
    "uniform": ("reasoner", 0.0),
    "reasoner, τ = 0.5": ("reasoner", 2.0),
    "reasoner, τ = 2": ("reasoner", 0.5),
}
#: What every trained policy is read with, besides the reference that it was trained with.
READ_WITH = ("reasoner", "none", "early", "uniform")
UNTRAINED = "untrained"
#: By arm, the β and learning rates tried on validation. The reasoner's own come from chapter 06.
SWEEP: dict[tuple[str, str], tuple[tuple[float, ...], tuple[float, ...]]] = {
    ("CE", "none"): ((0.5, 1.0, 2.0), (1e-3,)),
    ("CE", "uniform"): ((0.01, 0.03, 0.1), (1e-3,)),
    ("DPO", "none"): ((1.0, 2.0), (2.5e-4,)),
    # β per nat of the *mean* token; a response has 20 to 50 tokens
    ("CE, per token", "reasoner"): ((10.0, 30.0), (1e-3,)),
}
#: These arms take the setting of another: their log-ratios are of its size.
SAME_SETTING: dict[tuple[str, str], tuple[str, str]] = {
    ("CE", "early"): ("CE", "reasoner"),
    ("CE", "reasoner, τ = 0.5"): ("CE", "reasoner"),
    ("CE", "reasoner, τ = 2"): ("CE", "reasoner"),
    ("DPO", "reasoner"): ("DPO", "reasoner"),
    ("KTO", "reasoner"): ("KTO", "reasoner"),
    ("NCA", "reasoner"): ("NCA", "reasoner"),
}
#: In which order arms are measured: all seeds of one tier before the next. The first arm goes on to
#: the second stages.
TIERS: tuple[tuple[tuple[str, str], ...], ...] = (
    (("CE", "reasoner"), ("CE", "none"), ("DPO", "none"), ("CE", "uniform"), (UNTRAINED, "none")),
    (
        ("CE", "early"),
        ("CE, per token", "reasoner"),
        ("CE", "reasoner, τ = 0.5"),
        ("CE", "reasoner, τ = 2"),
    ),
    (("DPO", "reasoner"), ("KTO", "reasoner"), ("NCA", "reasoner")),
)
#: Second stages: the control, then sources of labels for the steps of the same rollouts.
MORE_CE = "one more epoch of CE"
STAGES = (
    MORE_CE,
    "outcome at every step",
    "Math-Shepherd, soft",
    "Math-Shepherd, hard",
    "true labels",
)
STAGE_RATES = (2.5e-4, 1e-3)
STAGE_1 = "stage 1"
#: A second stage shuffles the rows by another seed than the first.
STAGE_SEED = 100
#: Only their policies are measured; those of all other arms, too.
WRITERS = ("KTO", "NCA")
#: Solutions per problem of a policy.
SAMPLES = 8
#: Arms also measured on these many problems of the early generator.
EARLY_PROBLEMS = 100
ON_EARLY = {("CE", "reasoner"), ("CE", "none"), ("DPO", "reasoner"), ("DPO", "none")}
#: Trained again with another attention.
AGAIN = ("CE", "none")


# ---- References ------------------------------------------------------------------------------


def reference_model(name: str) -> PreTrainedModel:
    """The model behind one of REFERENCES; its logits are multiplied by the reference's factor.

    The head is linear in what the last norm returns, and the norm in its weights.
    """
    chosen = REFERENCES[name]
    if chosen is None:
        raise ValueError(f"no model stands behind the reference {name!r}")
    checkpoint, factor = chosen
    model = AutoModelForCausalLM.from_pretrained(checkpoint_path(checkpoint)).eval()
    with torch.no_grad():
        model.model.norm.weight.mul_(factor)
    return model


@cache
def prepared(objective: str, reference: str) -> Dataset:
    """The training rows of an objective (``CE``, ``DPO``, …) with a reference's log-probabilities.

    No reference is a column of zeros.
    """
    rows = objectives.prepared(objective)
    if reference == "reasoner":
        return rows
    name = objectives.VARIANTS[objective][0]
    columns = [response.ref_logps for response in OBJECTIVES[name].responses]
    rows = rows.remove_columns(columns)
    if REFERENCES[reference] is None:
        for column in columns:
            rows = rows.add_column(column, [0.0] * len(rows))
        return rows
    return add_reference_logps(
        rows, reference_model(reference), _tokenizer(), ARITHMETIC_FORMAT, name, batch_size=128
    )


@cache
def _tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(checkpoint_path("reasoner"))


def step_logps(model: PreTrainedModel, rows: Dataset) -> StepLogps:
    """log π of every step of each row under one model."""
    prm = ImplicitPRM(model, None, _tokenizer(), 1.0, ARITHMETIC_FORMAT)
    return [
        None if s is None else sum_by_step(s.policy_logps, s.step_ends)
        for s in score_rows(prm, rows)
    ]


@cache
def rows_of(place: str) -> Dataset:
    """The rows of a place: ``validation``, or the test rollouts of a generator."""
    if place == "validation":
        return load_rollouts("reasoner", "validation")
    rows = load_rollouts(place, "test")
    if place == "early":
        kept = set(list(dict.fromkeys(rows["prompt"]))[:EARLY_PROBLEMS])
        rows = rows.select([i for i, prompt in enumerate(rows["prompt"]) if prompt in kept])
    return rows


@cache
def reference_steps(reference: str, place: str) -> StepLogps:
    """log π_ref of every step of the rows of a place; zeros where there is no reference."""
    if REFERENCES[reference] is None:
        return [np.zeros(len(steps)) for steps in rows_of(place)["steps"]]
    return step_logps(reference_model(reference), rows_of(place))


def words(text: str, finished: bool) -> int:
    """Tokens of a solution, the end of text included if it has one.

    A number or a sign each. Two number tokens in a row, which a generator writes once in some
    thousand solutions, cannot be told from one: such a text is outside this world.
    """
    return len(re.findall(r"\d+|\D", text)) + finished


@cache
def lengths(place: str) -> Array:
    """Tokens of each row of a place (N)."""
    rows = rows_of(place)
    return np.array([words(*row) for row in zip(rows["completion"], rows["finished"], strict=True)])


def read(
    policy_steps: StepLogps, reference: str, place: str, beta: float, per_token: bool = False
) -> Judged:
    """Rewards of the steps of a place: β (log π_θ − log π_ref), per token of the row if asked."""
    scale = beta / lengths(place) if per_token else np.full(len(policy_steps), beta)
    return by_additive_steps(
        [
            None if of_policy is None or of_ref is None else factor * (of_policy - of_ref)
            for of_policy, of_ref, factor in zip(
                policy_steps, reference_steps(reference, place), scale, strict=True
            )
        ]
    )


# ---- Training --------------------------------------------------------------------------------


class PerTokenTrainer(ImplicitPRMTrainer):
    """CE on the log-ratio per token: r = β/T Σ (log π_θ − log π_ref)."""

    def _rewards(self, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        return super()._rewards(model, inputs) / inputs["response_mask"].sum(-1)


def train(cell: Mapping[str, Any]) -> PreTrainedModel:
    """The policy of a cell: ``objective``, ``reference``, ``beta``, ``learning_rate``, ``seed``."""
    per_token = cell["objective"] == "CE, per token"
    objective = "CE" if per_token else cell["objective"]
    return train_prm(
        prepared(objective, cell["reference"]),
        objective=objectives.VARIANTS[objective][0],
        beta=cell["beta"],
        learning_rate=cell["learning_rate"],
        seed=cell["seed"],
        max_steps=cell.get("max_steps", -1),
        attention=cell.get("attention", "sdpa"),
        trainer=PerTokenTrainer if per_token else ImplicitPRMTrainer,
    ).policy


def second_stage(
    policy: PreTrainedModel, stage: str, learning_rate: float, seed: int
) -> PreTrainedModel:
    """A copy of a policy after one epoch more, of CE or of step labels, with a fresh schedule."""
    policy, seed = copy.deepcopy(policy), STAGE_SEED + seed
    if stage == MORE_CE:
        return train_prm(
            objectives.prepared("CE"),
            beta=STEP_BETA,
            learning_rate=learning_rate,
            seed=seed,
            policy=policy,
            epochs=1,
        ).policy
    rows = load_rollouts("reasoner", "train")
    scorer = LogRatio(policy, STEP_BETA)
    train_scorer(scorer, rows, step_labels(stage, rows), learning_rate, seed, epochs=1)
    return policy


# ---- Measuring -------------------------------------------------------------------------------


@cache
def resampled_problems(count: int) -> Array:
    """How often each problem is drawn: (R+1, P). The first row is the sample itself.

    The same draws for every arm and seed.
    """
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    return np.vstack([np.ones(count), drawn])


def won_pairs(scores: Array, labels: npt.NDArray[np.bool_], weights: Array) -> tuple[Array, Array]:
    """How many (valid, wrong) pairs there are, and in how many the valid one scores higher.

    Ties count half. ``scores`` and ``labels`` (L), ``weights`` (R, L); both (R).
    """
    order = scores.argsort()
    _, starts = np.unique(scores[order], return_index=True)  # where each group of ties begins
    valid = np.add.reduceat(weights[:, order] * labels[order], starts, axis=1)
    wrong = np.add.reduceat(weights[:, order] * ~labels[order], starts, axis=1)
    below = wrong.cumsum(axis=1) - wrong / 2
    return (valid * below).sum(axis=1), valid.sum(axis=1) * wrong.sum(axis=1)


def auroc_within(
    scores: Array, labels: npt.NDArray[np.bool_], weights: Array, strata: npt.NDArray[Any]
) -> Array:
    """Chance that a valid step scores above a wrong one *of its stratum*: (R).

    With one stratum for all the usual AUROC. ``weights`` (R, L), the rest (L).
    """
    parts = [strata == name for name in np.unique(strata)]
    counted = [won_pairs(scores[p], labels[p], weights[:, p]) for p in parts]
    won, pairs = (np.sum(column, axis=0) for column in zip(*counted, strict=True))
    return np.asarray(won / pairs)


@cache
def _strata(place: str) -> npt.NDArray[Any]:
    """Position and operation of each step of :func:`step_truth`, such as ``3*``: (L)."""
    truth, texts = step_truth(place, "test"), rows_of(place)["steps"]
    return np.array(
        [
            f"{step}{next(c for c in texts[row][step] if c in '+-*')}"
            for row, step in zip(truth.row, truth.step, strict=True)
        ]
    )


def _steps_told_apart(judged: Judged) -> dict[str, Array]:
    """AUROC of the reasoner's valid against wrong steps up to the first error, on seen facts."""
    truth = step_truth("reasoner", "test")
    scores = scores_at(judged.steps, truth.row, truth.step)
    seen = ~truth.unseen & ~np.isnan(scores)
    weights = resampled_problems(len(set(rows_of("reasoner")["prompt"])))[:, truth.problem]
    weights = weights * truth.weight
    strata = _strata("reasoner")
    together = np.zeros(len(scores))
    found = {}
    for name, part, within in (
        ("AUROC", seen, together),
        ("AUROC, slips", seen & ~truth.misconception, together),
        ("AUROC, misconceptions", seen & truth.misconception, together),
        ("AUROC within position and operation", seen, strata),
    ):
        found[name] = auroc_within(scores[part], truth.valid[part], weights[:, part], within[part])
    return found


def _first_errors(judged: Judged, threshold: float) -> Array:
    """First-error F1 (0..1) on the reasoner's test rollouts: (R+1)."""
    rows = rows_of("reasoner")
    sums = first_error_hits(rows, judged, threshold)
    totals = resampled_problems(len(sums)) @ sums  # (R+1, 4)
    a, b = totals[:, 0] / totals[:, 1], totals[:, 2] / totals[:, 3]
    return np.asarray(2 * a * b / np.maximum(a + b, 1e-12))


@cache
def starting_values() -> Array:
    """Q⁰ of each test problem: the share of right ones among the reasoner's 64 rollouts."""
    rows = rows_of("reasoner")
    return np.array(rows["label"])[candidate_grid(rows)].mean(axis=1)


def within_problems(values: Array, q: Array, problem: npt.NDArray[Any]) -> dict[int, float]:
    """Rank correlation of values and true Q over the prefixes of each problem.

    A problem's Q⁰ is one number, so the correlation with Q − Q⁰ is the same. Problems whose
    prefixes all have one value, or one Q, have no correlation and are left out.
    """
    found = {}
    for number in np.unique(problem):
        own = problem == number
        if np.ptp(values[own]) > 0 and np.ptp(q[own]) > 0:
            found[int(number)] = rank_correlation(values[own], q[own])
    return found


def _agreement(judged: Judged) -> dict[str, Array]:
    """Rank correlations of the running sum with the true Q of the reasoner's prefixes: (R+1)."""
    row, step, q, problem = true_values("reasoner")
    values = scores_at(judged.values, row, step)
    known = ~np.isnan(values)
    values, q, problem = values[known], q[known], problem[known]
    names, numbers = np.unique(problem, return_inverse=True)
    draws = resampled_problems(len(names))
    gain = q - starting_values()[problem]
    within = within_problems(values, q, numbers)
    defined = np.array(list(within))
    of_defined = draws[:, defined]
    return {
        "agreement with Q": _rank_correlations(values, q, draws[:, numbers]),
        "agreement with Q − Q⁰": _rank_correlations(values, gain, draws[:, numbers]),
        "agreement within problems": of_defined
        @ np.array(list(within.values()))
        / of_defined.sum(axis=1),
    }


def _rank_correlations(a: Array, b: Array, weights: Array) -> Array:
    """Spearman's correlation under each row of weights (R, L), by the ranks in the whole sample."""
    first, second = rankdata(a), rankdata(b)
    total = weights.sum(axis=1)

    def mean(x: Array) -> Array:
        return np.asarray(weights @ x / total)

    covariance = mean(first * second) - mean(first) * mean(second)
    spread = [mean(side**2) - mean(side) ** 2 for side in (first, second)]
    return np.asarray(covariance / np.sqrt(spread[0] * spread[1]))


def best_of_n(judged: Judged, place: str) -> dict[str, Array]:
    """Accuracy per problem, in percent, of the best of N by the minimum and by the sum."""
    rows = rows_of(place)
    grid = candidate_grid(rows)
    correct = np.array(rows["label"])[grid]
    return {
        rule: 100 * best_of_n_accuracy(scores[grid], correct, N)
        for rule, scores in (("min", judged.by_min), ("sum", judged.by_sum))
    }


def measure_readings(
    policy: PreTrainedModel,
    beta: float,
    references: Sequence[str],
    early: bool,
    per_token: bool = False,
) -> dict[str, Any]:
    """A policy read with each of some references: answers by place, and resampled quantities."""
    places = ("validation", "reasoner", "strong", *(("early",) if early else ()))
    steps = {place: step_logps(policy, rows_of(place)) for place in places}
    found = {}
    for reference in references:
        judged = {p: read(steps[p], reference, p, beta, per_token) for p in places}
        rows, scores = rows_of("validation"), judged["validation"].steps
        known = np.array([s is not None for s in scores])
        threshold = choose_threshold(
            [s for s in scores if s is not None],
            np.array(rows["first_error"])[known],
            np.array(rows["weight"])[known],
        )
        resampled = (
            _steps_told_apart(judged["reasoner"])
            | {"first-error F1": _first_errors(judged["reasoner"], threshold)}
            | _agreement(judged["reasoner"])
        )
        found[reference] = {
            "answers": {
                f"{place}, {rule}": np.round(accuracy, 2).tolist()
                for place in places[1:]
                for rule, accuracy in best_of_n(judged[place], place).items()
            },
            "resampled": {k: np.round(100 * v, 3).tolist() for k, v in resampled.items()},
        }
    return found


def write_solutions(
    policy: PreTrainedModel, seed: int, split: str = "test"
) -> dict[str, list[float]]:
    """What a policy writes under the reasoner's sampler.

    Per problem of a split: the share of right solutions and of finished ones, both in percent, and
    their mean number of tokens.
    """
    prompts = list(dict.fromkeys(load_rollouts("reasoner", split)["prompt"]))
    rollouts = sample_rollouts(
        policy,
        _tokenizer(),
        prompts,
        n=SAMPLES,
        sampling=MIN_P,
        format=ARITHMETIC_FORMAT,
        seed=seed,
    )
    found: dict[str, list[float]] = {"pass@1": [], "finished": [], "tokens": []}
    for prompt, drawn in zip(prompts, rollouts, strict=True):
        right = [
            bool(r.completion) and grade(prompt, ARITHMETIC_FORMAT.split(r.completion), r.finished)
            for r in drawn
        ]
        tokens = [words(r.completion, r.finished) for r in drawn]
        found["pass@1"].append(100 * float(np.mean(right)))
        found["finished"].append(100 * float(np.mean([r.finished for r in drawn])))
        found["tokens"].append(float(np.mean(tokens)))
    return found


def measure(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Everything about one cell: ``readings`` by arm and reference, ``policy`` what it writes."""
    be_quiet()
    objective, reference = cell["objective"], cell["reference"]
    if objective == UNTRAINED:
        policy = reference_model("reasoner")
        readings = measure_readings(policy, 1.0, ("none", "early"), early=True)
        return {
            "readings": {UNTRAINED: readings},
            "policy": write_solutions(policy, cell["seed"]),
        }
    policy = train(cell)
    found: dict[str, Any] = {"policy": write_solutions(policy, cell["seed"])}
    if objective in WRITERS:
        return found
    per_token = objective == "CE, per token"
    names = dict.fromkeys((reference, "none") if per_token else (reference, *READ_WITH))
    early = (objective, reference) in ON_EARLY
    readings = measure_readings(policy, cell["beta"], list(names), early, per_token)
    found["readings"] = {STAGE_1: readings}
    for stage, rate in cell.get("stages", {}).items():
        later = second_stage(policy, stage, rate, cell["seed"])
        found["readings"][stage] = measure_readings(
            later, STEP_BETA, ("reasoner", "none"), early=False
        )
    return found


# ---- Hyper-parameters ------------------------------------------------------------------------


def validation_accuracy(
    policy: PreTrainedModel, reference: str, beta: float, per_token: bool = False
) -> float:
    """Accuracy (percent) on the validation split, mean of best of N by minimum and by sum."""
    place = "validation"
    judged = read(step_logps(policy, rows_of(place)), reference, place, beta, per_token)
    return round(float(np.mean(list(best_of_n(judged, place).values()))), 3)


def validate(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Validation accuracy of a setting; of all second stages and rates for the cell of stages."""
    be_quiet()
    policy = train(cell)
    if cell.get("stages"):
        return {
            "accuracy": {
                stage: {
                    str(rate): validation_accuracy(
                        second_stage(policy, stage, rate, cell["seed"]), "reasoner", STEP_BETA
                    )
                    for rate in STAGE_RATES
                }
                for stage in STAGES
            }
        }
    per_token = cell["objective"] == "CE, per token"
    return {"accuracy": validation_accuracy(policy, cell["reference"], cell["beta"], per_token)}


def chapter_6(objective: str) -> dict[str, float]:
    """β and learning rate of an objective with the reasoner as reference, as chapter 06 has it."""
    chosen = load_result("objectives")["config"]["chosen"]
    return dict(chosen[objectives.VARIANTS[objective][0]])


def arm(objective: str, reference: str, seed: int) -> dict[str, Any]:
    return {"objective": objective, "reference": reference, "seed": seed}


def sweep_cells() -> list[dict[str, Any]]:
    """One cell for the rates of all second stages, then every setting of SWEEP."""
    stages = arm("CE", "reasoner", 0) | chapter_6("CE") | {"stages": dict.fromkeys(STAGES)}
    return [stages] + [
        arm(*name, 0) | {"beta": beta, "learning_rate": rate}
        for name, (betas, rates) in SWEEP.items()
        for beta in betas
        for rate in rates
    ]


def choose(validation: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The rate of each second stage, and the setting of each arm, with the best accuracy."""
    stages, *others = validation
    settings: dict[str, dict[str, dict[str, float]]] = {}
    for objective, reference in SWEEP:
        own = [c for c in others if (c["objective"], c["reference"]) == (objective, reference)]
        best = max(own, key=lambda c: c["accuracy"])
        chosen = {name: best[name] for name in ("beta", "learning_rate")}
        settings.setdefault(objective, {})[reference] = chosen
    for (objective, reference), (other, _) in SAME_SETTING.items():
        settings.setdefault(objective, {})[reference] = chapter_6(other)
    rates = {
        stage: float(max(by_rate, key=lambda rate: by_rate[rate]))
        for stage, by_rate in stages["accuracy"].items()
    }
    return {"stages": rates, "settings": settings}


def grid_cells(chosen: Mapping[str, Any], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Every arm and seed, in the order of TIERS."""
    settings: dict[tuple[str, str], dict[str, Any]] = {
        ("CE", "reasoner"): chapter_6("CE") | {"stages": chosen["stages"]},
        (UNTRAINED, "none"): {},
    }
    for objective, by_reference in chosen["settings"].items():
        for reference, setting in by_reference.items():
            settings[objective, reference] = setting
    return [arm(*name, seed) | settings[name] for tier in TIERS for seed in seeds for name in tier]


# ---- Summaries -------------------------------------------------------------------------------


def mean_over_seeds(measured: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, Array]:
    """Mean over seeds of vectors by name."""
    return {name: np.mean([m[name] for m in measured], axis=0) for name in measured[0]}


def resampled_interval(values: Array) -> list[float]:
    """Value and 95% interval from the sample itself and its resamples (R+1)."""
    low, high = np.quantile(values[1:], (0.025, 0.975))
    return [round(float(x), 2) for x in (values[0], low, high)]


Reading = dict[str, dict[str, Array]]


def readings_of(runs: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str, str], Reading]:
    """Means over seeds, by objective, training reference, stage and reference at inference."""
    collected: dict[tuple[str, str, str, str], list[Any]] = {}
    for run in runs:
        for stage, by_reference in run.get("readings", {}).items():
            for reference, reading in by_reference.items():
                key = (run["objective"], run["reference"], stage, reference)
                collected.setdefault(key, []).append(reading)
    return {
        key: {kind: mean_over_seeds([r[kind] for r in own]) for kind in ("answers", "resampled")}
        for key, own in collected.items()
    }


def compared(reading: Reading, rivals: Mapping[str, Reading]) -> dict[str, dict[str, list[float]]]:
    """Every measured quantity with its interval, and its paired difference to each rival."""
    rows: dict[str, dict[str, list[float]]] = {}
    for name, values in reading["answers"].items():
        rows[name] = {"value": rounded(mean_interval(values))}
        for rival, theirs in rivals.items():
            if name in theirs["answers"]:
                difference = paired_difference(values, theirs["answers"][name])
                rows[name][f"minus {rival}"] = rounded(difference)
    for name, values in reading["resampled"].items():
        rows[name] = {"value": resampled_interval(values)}
        for rival, theirs in rivals.items():
            rows[name][f"minus {rival}"] = resampled_interval(values - theirs["resampled"][name])
    return rows


def summarise(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Means over seeds with intervals over problems, and paired differences, in points.

    A second stage is compared with stage 1 and with one more epoch of CE, read alike; a reading
    with the same policy read with the reasoner (``the reasoner``), with what was trained and read
    with the reasoner (``as usual``), and with CE done so (``CE``).
    """
    readings = readings_of(runs)
    found = []
    for (objective, trained, stage, read_with), reading in readings.items():
        if stage in (STAGE_1, UNTRAINED):
            candidates = {
                "the reasoner": (objective, trained, stage, "reasoner"),
                "as usual": (objective, "reasoner", stage, "reasoner"),
                "CE": ("CE", "reasoner", STAGE_1, "reasoner"),
            }
        else:
            candidates = {
                STAGE_1: (objective, trained, STAGE_1, read_with),
                MORE_CE: (objective, trained, MORE_CE, read_with),
            }
        key = (objective, trained, stage, read_with)
        rivals = {name: readings[k] for name, k in candidates.items() if k in readings and k != key}
        found.append(
            {"part": "summary", "objective": objective, "trained with": trained}
            | {"stage": stage, "read with": read_with, "rows": compared(reading, rivals)}
        )
    return found + summarise_policies(runs)


def summarise_policies(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the trained policies write, and the paired difference to the reasoner itself."""
    collected: dict[tuple[str, str], list[Any]] = {}
    for run in runs:
        collected.setdefault((run["objective"], run["reference"]), []).append(run["policy"])
    means = {key: mean_over_seeds(own) for key, own in collected.items()}
    base = means[UNTRAINED, "none"]
    return [
        {"part": "policy", "objective": objective, "trained with": reference}
        | {
            "rows": {
                name: {
                    "value": rounded(mean_interval(values)),
                    "minus the reasoner": rounded(paired_difference(values, base[name])),
                }
                for name, values in mean.items()
            }
        }
        for (objective, reference), mean in means.items()
    ]


def without_problems(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run as the result file keeps it: one number for each quantity."""
    kept = {k: v for k, v in run.items() if k not in ("readings", "policy")}
    kept["policy"] = {k: round(float(np.mean(v)), 2) for k, v in run["policy"].items()}
    kept["readings"] = {
        stage: {
            reference: {k: round(float(np.mean(v)), 2) for k, v in reading["answers"].items()}
            | {k: round(v[0], 2) for k, v in reading["resampled"].items()}
            for reference, reading in by_reference.items()
        }
        for stage, by_reference in run.get("readings", {}).items()
    }
    return kept


def tolerance(first: Mapping[str, Any], again: Mapping[str, Any]) -> float:
    """Twice the largest difference, in points, that another attention made in any answers."""
    differences = [
        abs(float(np.mean(values)) - float(np.mean(other["answers"][name])))
        for reference, other in again["readings"][STAGE_1].items()
        for name, values in first["readings"][STAGE_1][reference]["answers"].items()
    ]
    return max(MIN_TOLERANCE, round(2 * max(differences), 2))


def main(
    workers: Annotated[int, typer.Option(help="processes, one core each", min=1)] = 2,
) -> None:
    """Run the whole experiment and write its result file."""
    config: dict[str, Any] = {
        "references": REFERENCES,
        "sweep": [[*name, *tried] for name, tried in SWEEP.items()],
        "stages": STAGES,
        "stage rates": STAGE_RATES,
        "epochs": EPOCHS,
        "n": N,
        "resamples": RESAMPLES,
    }
    validation = run_cells("ablations-validation", config, sweep_cells(), validate, workers)
    swept = config
    config = config | {"chosen": choose(validation)}
    grid = grid_cells(config["chosen"], SEEDS)
    (first,) = (
        c for c in grid if (c["objective"], c["reference"]) == AGAIN and c["seed"] == SEEDS[0]
    )
    elsewhere = first | {"attention": "eager"}  # as another machine might
    measured = run_cells("ablations", config, [elsewhere, *grid], measure, workers)
    again, *runs = measured
    cells = [{"part": "validation"} | cell for cell in validation]
    cells += [{"part": "run"} | without_problems(run) for run in runs]
    cells += summarise(runs)
    save_result(
        "ablations",
        "python -m implicitprm.experiments.ablations",
        config | {"seeds": SEEDS},
        cells,
        {" ".join(AGAIN): tolerance(runs[grid.index(first)], again)},
        sum(cell["seconds"] for cell in (*validation, *measured)),
    )
    forget_cells("ablations-validation", swept)
    forget_cells("ablations", config)


if __name__ == "__main__":
    typer.run(main)
