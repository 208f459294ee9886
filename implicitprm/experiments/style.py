"""Chapter 10: ``python -m implicitprm.experiments.style`` (about ten minutes of one core).

A style that has nothing to do with being right, in a world made for the purpose: the reasoner is
trained a little further on the tutor's solutions in which one step in ten is written with ``#`` for
``=``: ``7+5#12``. A PRM is trained on its rollouts by CE. Does log π_θ alone punish the rare style,
and does the log-ratio leave it out of account?

The control is the same candidates with every step written as usual (``plain``): same policy, same
answers, only the style differs; and, with half of the steps restyled, a style more frequent than
the one trained on. One world is made; the PRMs are trained with several seeds. To measure how far
another machine may be off, the first seed is trained again with another attention.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from datasets import Dataset
from transformers import (
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    set_seed,
)

from implicitprm.arithmetic import (
    ARITHMETIC_FORMAT,
    Problem,
    Tutor,
    check_solution,
    checkpoint_path,
    unseen_facts,
)
from implicitprm.arithmetic.collect import MIN_P, problems_of
from implicitprm.arithmetic.measure import candidate_grid
from implicitprm.arithmetic.pretrain import TUTOR_SEED, TutorStream, fit, training_row
from implicitprm.arithmetic.problems import SEPARATOR
from implicitprm.evaluation import (
    best_of_n_accuracy,
    mean_interval,
    paired_difference,
    steps_up_to_first_error,
)
from implicitprm.experiments.ablations import (
    MIN_TOLERANCE,
    Array,
    N,
    StepLogps,
    auroc_within,
    chapter_6,
    mean_over_seeds,
    resampled_interval,
    resampled_problems,
    step_logps,
)
from implicitprm.experiments.baselines import by_additive_steps, scores_at
from implicitprm.experiments.grid import forget_cells, run_cells
from implicitprm.experiments.runs import EPOCHS, be_quiet, train_prm
from implicitprm.experiments.store import rounded, save_result
from implicitprm.rollouts import sample_rollouts
from implicitprm.training import add_reference_logps

SEEDS = (0, 1, 2)
RATE = 0.1
#: Of the further training of the reasoner on restyled solutions.
UPDATES = 250
LEARNING_RATE = 2e-3
WORLD_SEED = 0
ROLLOUTS = {"train": 8, "test": 32}
#: How the candidates are written: as sampled, every step as usual, every other step restyled.
WRITTEN = ("as sampled", "plain", "half restyled")
HALF = 0.5
READ_WITH = ("its generator", "none")
#: log π of the generator itself, before the PRM is trained
UNTRAINED = "untrained, none"

_RESTYLED = re.compile(r"(\d+[+*-]\d+)#(\d+)")


def restyle(steps: Sequence[str], rate: float, rng: np.random.Generator) -> list[str]:
    """``7+5=12`` → ``7+5#12``, each operation step with probability ``rate``."""
    chosen = rng.random(len(steps)) < rate
    return [
        step.replace("=", "#") if restyled else step
        for step, restyled in zip(steps, chosen, strict=True)
    ]


def plain(steps: Sequence[str]) -> list[str]:
    """The steps as usual, ``7+5=12``; the answer ``#12`` and what is no step stay as they are."""
    return [_RESTYLED.sub(r"\1=\2", step) if _RESTYLED.fullmatch(step) else step for step in steps]


class RestyledStream(TutorStream):
    """The tutor's solutions, restyled."""

    def row(self, problem: Problem, rng: np.random.Generator) -> dict[str, list[int]]:
        solution = restyle(self.tutor.solve(problem, rng), RATE, rng)
        return training_row(self.tokenizer, problem.prompt, SEPARATOR.join(solution))


@dataclass(frozen=True)
class World:
    """The restyled reasoner, its training rows with reference log-probs, and its test rows."""

    generator: PreTrainedModel
    train: Dataset
    test: Dataset


def further_trained(updates: int) -> PreTrainedModel:
    """The reasoner after some updates on restyled solutions."""
    set_seed(WORLD_SEED)
    tokenizer = _tokenizer()
    model = LlamaForCausalLM.from_pretrained(checkpoint_path("reasoner"))
    stream = RestyledStream(Tutor(TUTOR_SEED), tokenizer, WORLD_SEED)
    fit(model, tokenizer, stream, updates, LEARNING_RATE, 1, WORLD_SEED, [])
    return model.eval()


@cache
def world(updates: int = UPDATES) -> World:
    """Make the world, once per process."""
    generator = further_trained(updates)
    train = add_reference_logps(
        sampled_rows(generator, "train"), generator, _tokenizer(), ARITHMETIC_FORMAT, batch_size=128
    )
    return World(generator, train, sampled_rows(generator, "test"))


def sampled_rows(generator: PreTrainedModel, split: str) -> Dataset:
    """Rollouts of a split, as :func:`load_rollouts` has them; truth is that of the plain steps.

    Training loses the rows that use an unseen fact.
    """
    problems = problems_of(split)
    drawn = sample_rollouts(
        generator,
        _tokenizer(),
        [problem.prompt for problem in problems],
        n=ROLLOUTS[split],
        sampling=MIN_P,
        format=ARITHMETIC_FORMAT,
        seed=WORLD_SEED,
    )
    unseen = unseen_facts(Tutor())
    rows = []
    for problem, of_problem in zip(problems, drawn, strict=True):
        for rollout, count in Counter(of_problem).items():
            steps = ARITHMETIC_FORMAT.split(rollout.completion)
            truth = check_solution(problem, plain(steps), rollout.finished)
            if split == "train" and not unseen.isdisjoint(truth.facts):
                continue
            rows.append(
                {
                    "prompt": problem.prompt,
                    "completion": rollout.completion,
                    "label": truth.correct,
                    "weight": count,
                    "finished": rollout.finished,
                    "steps": list(steps),
                    "first_error": truth.first_error,
                    "valid": list(truth.valid),
                }
            )
    return Dataset.from_list(rows)


@cache
def _tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(checkpoint_path("reasoner"))


def written(rows: Dataset, how: str) -> Dataset:
    """The rows in one of WRITTEN; their truth is the same."""
    if how == "as sampled":
        return rows
    rng = np.random.default_rng(WORLD_SEED)

    def rewrite(row: dict[str, Any]) -> dict[str, Any]:
        steps = plain(row["steps"])
        if how == "half restyled":
            steps = restyle(steps, HALF, rng)
        return {"steps": steps, "completion": SEPARATOR.join(steps)}

    return rows.map(rewrite)


@dataclass(frozen=True)
class Steps:
    """The operation steps of some rows up to and including the first error of each: (L)."""

    row: npt.NDArray[np.int64]
    step: npt.NDArray[np.int64]
    valid: npt.NDArray[np.bool_]
    restyled: npt.NDArray[np.bool_]
    problem: npt.NDArray[np.int64]
    weight: npt.NDArray[np.int64]


def steps_of(rows: Dataset) -> Steps:
    """What is true of the steps of some rows, and which of them are restyled."""
    problems = {prompt: number for number, prompt in enumerate(dict.fromkeys(rows["prompt"]))}
    lines = []
    for number, row in enumerate(rows):
        put_back = plain(row["steps"])
        for step in steps_up_to_first_error(row["first_error"], len(row["steps"])):
            if "=" in put_back[step]:
                restyled = row["steps"][step] != put_back[step]
                line = (number, step, row["valid"][step], restyled)
                lines.append((*line, problems[row["prompt"]], row["weight"]))
    return Steps(*(np.array(column) for column in zip(*lines, strict=True)))


def told_apart(scores: Array, steps: Steps) -> dict[str, Array]:
    """AUROC (R+1), in percent, of valid steps against wrong ones, of restyled valid steps against
    wrong ones, and of plain valid steps against *restyled valid* ones (50: blind to style)."""
    known = ~np.isnan(scores)
    draws = resampled_problems(int(steps.problem.max()) + 1)
    weights = draws[:, steps.problem] * steps.weight
    pairs = {
        "AUROC": (steps.valid, ~steps.valid),
        "AUROC, restyled valid": (steps.valid & steps.restyled, ~steps.valid),
        "plain over restyled": (steps.valid & ~steps.restyled, steps.valid & steps.restyled),
    }
    found = {}
    for name, (high, low) in pairs.items():
        part = known & (high | low)
        if not high.any() or not low.any():
            continue
        one = np.zeros(int(part.sum()))
        found[name] = 100 * auroc_within(scores[part], high[part], weights[:, part], one)
    return found


def penalty(scores: Array, put_back: Array, steps: Steps) -> Array:
    """What the style does to the score of a valid step, in nats: mean over restyled steps (R+1)."""
    part = steps.valid & steps.restyled & ~np.isnan(scores) & ~np.isnan(put_back)
    draws = resampled_problems(int(steps.problem.max()) + 1)
    weights = draws[:, steps.problem[part]] * steps.weight[part]
    return np.asarray(weights @ (scores - put_back)[part] / weights.sum(axis=1))


def measure_scores(by_way: Mapping[str, StepLogps], rows: Mapping[str, Dataset]) -> dict[str, Any]:
    """Everything about one scorer, given its step scores of the test rows in each of WRITTEN."""
    grid = candidate_grid(rows["plain"])
    correct = np.array(rows["plain"]["label"])[grid]
    found: dict[str, Any] = {}
    for way, scores in by_way.items():
        judged, steps = by_additive_steps(scores), steps_of(rows[way])
        resampled = told_apart(scores_at(scores, steps.row, steps.step), steps)
        if way != "plain":
            at = scores_at(by_way["plain"], steps.row, steps.step)
            resampled["style, nats"] = penalty(scores_at(scores, steps.row, steps.step), at, steps)
        found[way] = {
            "answers": {
                rule: np.round(100 * best_of_n_accuracy(values[grid], correct, N), 2).tolist()
                for rule, values in (("min", judged.by_min), ("sum", judged.by_sum))
            },
            "resampled": {k: np.round(v, 3).tolist() for k, v in resampled.items()},
        }
    return found


@cache
def _generator_logps(updates: int, how: str) -> StepLogps:
    made = world(updates)
    return step_logps(made.generator, written(made.test, how))


def measure(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Train the PRM of a seed; it is read with its generator and without, beside log π_ref."""
    be_quiet()
    updates = cell.get("updates", UPDATES)
    made, setting = world(updates), chapter_6("CE")
    start = copy.deepcopy(made.generator)
    start.set_attn_implementation(cell.get("attention", "sdpa"))
    policy = train_prm(
        made.train,
        beta=setting["beta"],
        learning_rate=setting["learning_rate"],
        seed=cell["seed"],
        policy=start,
        max_steps=cell.get("max_steps", -1),
    ).policy
    rows = {how: written(made.test, how) for how in WRITTEN}
    alone = {how: step_logps(policy, rows[how]) for how in WRITTEN}
    generator = {how: _generator_logps(updates, how) for how in WRITTEN}
    ratio = {
        how: [
            None if a is None or b is None else a - b
            for a, b in zip(alone[how], generator[how], strict=True)
        ]
        for how in WRITTEN
    }
    steps, labels = steps_of(made.test), np.array(made.test["label"])
    weight = np.array(made.test["weight"])
    return {
        "readings": {
            name: measure_scores(scores, rows)
            for name, scores in zip((*READ_WITH, UNTRAINED), (ratio, alone, generator), strict=True)
        },
        "world": {
            "pass@1": round(100 * float(np.average(labels, weights=weight)), 2),
            "steps restyled": round(
                100 * float(np.average(steps.restyled, weights=steps.weight)), 2
            ),
            "train rows": len(made.train),
        },
    }


def summarise(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Means over seeds with intervals over problems, by reading and way of writing.

    ``minus plain``: the same scorer on the same candidates put back. ``minus its generator``: the
    same policy and candidates read as a log-ratio. ``cost of style minus its generator``: the
    difference of two *minus plain*.
    """
    mean = {
        (name, way): {
            kind: mean_over_seeds([run["readings"][name][way][kind] for run in runs])
            for kind in ("answers", "resampled")
        }
        for name in (*READ_WITH, UNTRAINED)
        for way in WRITTEN
    }
    found = []
    for (name, way), reading in mean.items():
        base, ratio = mean[name, "plain"], mean[READ_WITH[0], way]
        ratio_base = mean[READ_WITH[0], "plain"]
        rows: dict[str, dict[str, list[float]]] = {}
        for rule, values in reading["answers"].items():
            cost = values - base["answers"][rule]
            ratio_cost = ratio["answers"][rule] - ratio_base["answers"][rule]
            rows[rule] = {
                "value": rounded(mean_interval(values)),
                "minus plain": rounded(mean_interval(cost)),
                "minus its generator": rounded(paired_difference(values, ratio["answers"][rule])),
                "cost of style minus its generator": rounded(paired_difference(cost, ratio_cost)),
            }
        for quantity, values in reading["resampled"].items():
            rows[quantity] = {"value": resampled_interval(values)}
            difference = values - ratio["resampled"][quantity]
            rows[quantity]["minus its generator"] = resampled_interval(difference)
            if quantity == "AUROC":
                cost = values - base["resampled"][quantity]
                ratio_cost = ratio["resampled"][quantity] - ratio_base["resampled"][quantity]
                rows[quantity]["minus plain"] = resampled_interval(cost)
                rows[quantity]["cost of style minus its generator"] = resampled_interval(
                    cost - ratio_cost
                )
        found.append({"part": "summary", "read with": name, "written": way, "rows": rows})
    return found


def tolerance(first: Mapping[str, Any], again: Mapping[str, Any]) -> float:
    """Twice the largest difference, in points, that another attention made in any answers.

    Of the readings of the trained policy; the generator's own are the same in both.
    """
    differences = [
        abs(float(np.mean(first["readings"][name][way]["answers"][rule]) - np.mean(values)))
        for name in READ_WITH
        for way, reading in again["readings"][name].items()
        for rule, values in reading["answers"].items()
    ]
    return max(MIN_TOLERANCE, round(2 * max(differences), 2))


def without_problems(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run as the result file keeps it: one number for each quantity."""
    readings = {
        name: {
            way: {k: round(float(np.mean(v)), 2) for k, v in reading["answers"].items()}
            | {k: round(v[0], 3) for k, v in reading["resampled"].items()}
            for way, reading in ways.items()
        }
        for name, ways in run["readings"].items()
    }
    return {"seed": run["seed"], "world": run["world"], "readings": readings}


def main(
    workers: Annotated[int, typer.Option(help="processes, one core each", min=1)] = 1,
) -> None:
    """Run the whole experiment and write its result file. Every process makes the world anew."""
    config: dict[str, Any] = {
        "rate": RATE,
        "half": HALF,
        "updates": UPDATES,
        "learning rate": LEARNING_RATE,
        "rollouts": ROLLOUTS,
        "setting": chapter_6("CE"),
        "epochs": EPOCHS,
        "n": N,
    }
    grid: list[dict[str, Any]] = [{"seed": seed} for seed in SEEDS]
    elsewhere = grid[0] | {"attention": "eager"}
    again, *runs = run_cells("style", config, [elsewhere, *grid], measure, workers)
    cells = [{"part": "run"} | without_problems(run) for run in runs] + summarise(runs)
    save_result(
        "style",
        "python -m implicitprm.experiments.style",
        config | {"seeds": SEEDS},
        cells,
        tolerance(runs[0], again),
        sum(run["seconds"] for run in (again, *runs)),
    )
    forget_cells("style", config)


if __name__ == "__main__":
    typer.run(main)
