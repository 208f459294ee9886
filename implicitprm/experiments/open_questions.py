"""Chapter 15: ``python -m implicitprm.experiments.open_questions`` (about 45 minutes of one core).

The baselines of three lab sheets, one for each question that the paper leaves open:

- *by kind of problem*: train on one kind, test on every kind;
- *quality of the reference*: checkpoints of the reasoner's own pretraining as reference, and as
  reference and start;
- *selection of instructions*: seven rules that choose a tenth of them.

All train by CE with chapter 06's hyper-parameters. The first and the last hold the number of
updates fixed, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from implicitprm.arithmetic import (
    ARITHMETIC_FORMAT,
    Fact,
    Problem,
    checkpoint_path,
    load_rollouts,
)
from implicitprm.arithmetic.measure import answer_accuracy, score_rows, step_frame
from implicitprm.arithmetic.pretrain import Snapshot, StopAt, recipes, train_generator
from implicitprm.arithmetic.problems import FACTS
from implicitprm.evaluation import auroc, mean_interval, paired_difference
from implicitprm.experiments import baselines, objectives
from implicitprm.experiments.grid import SCRATCH, forget_cells, run_cells
from implicitprm.experiments.runs import EPOCHS, be_quiet, train_prm
from implicitprm.experiments.store import load_result, rounded, save_result
from implicitprm.rewards import ImplicitPRM
from implicitprm.training import add_reference_logps

SEEDS = (0, 1, 2)
N = 16
#: Updates wherever data sets of different size are compared: rather more than half of chapter 06's.
UPDATES = 100
RULES = {
    "min": f"best of {N}: reward, min over steps",
    "sum": f"best of {N}: reward, sum over steps",
    "vote": "vote weighted by reward",
}
MIN_TOLERANCE = 0.25


def is_short(problem: Problem) -> bool:
    return len(problem.operations) <= 5


def multiplies(problem: Problem) -> bool:
    return any(sign == "*" for sign, _ in problem.operations)


#: Lab 1. Kinds of problem, two and two.
KINDS: dict[str, Callable[[Problem], bool]] = {
    "short": is_short,
    "long": lambda problem: not is_short(problem),
    "without *": lambda problem: not multiplies(problem),
    "with *": multiplies,
}
KIND_SIZE = 300
ALL_KINDS = "mixed"

#: Lab 2. Steps of the reasoner's pretraining (it ends at 1,800), and the shipped ``strong``.
EARLY_STEPS = (300, 600)
CHECKPOINTS = (*(f"step {step}" for step in EARLY_STEPS), "early", "reasoner", "strong")
#: What the checkpoint is: the reference of a policy that starts as the reasoner, or both.
ROLES = ("reference", "start and reference")

#: Lab 3.
BUDGET = 150


@dataclass(frozen=True)
class Instruction:
    """A training problem and what is known of it before a PRM is trained: its rollouts."""

    problem: Problem
    #: numbers of its distinct rollouts in ``load_rollouts("reasoner", "train")``
    rows: tuple[int, ...]
    #: share of its rollouts whose answer is right
    pass_rate: float


Selection = Callable[[Sequence[Instruction], int, np.random.Generator], list[int]]


def at_random(pool: Sequence[Instruction], budget: int, rng: np.random.Generator) -> list[int]:
    return rng.permutation(len(pool))[:budget].tolist()


def _first(
    pool: Sequence[Instruction],
    budget: int,
    rng: np.random.Generator,
    key: Callable[[Instruction], float],
) -> list[int]:
    """The ``budget`` instructions with the lowest key, ties in random order."""
    order = rng.permutation(len(pool))
    return sorted(order.tolist(), key=lambda index: key(pool[index]))[:budget]


def shortest(pool: Sequence[Instruction], budget: int, rng: np.random.Generator) -> list[int]:
    return _first(pool, budget, rng, lambda one: len(one.problem.operations))


def longest(pool: Sequence[Instruction], budget: int, rng: np.random.Generator) -> list[int]:
    return _first(pool, budget, rng, lambda one: -len(one.problem.operations))


def half_right(pool: Sequence[Instruction], budget: int, rng: np.random.Generator) -> list[int]:
    return _first(pool, budget, rng, lambda one: abs(one.pass_rate - 0.5))


def mostly_wrong(pool: Sequence[Instruction], budget: int, rng: np.random.Generator) -> list[int]:
    """The lowest pass rates above 0: an instruction without a right answer teaches no contrast."""
    return _first(pool, budget, rng, lambda one: one.pass_rate or math.inf)


def most_responses(pool: Sequence[Instruction], budget: int, rng: np.random.Generator) -> list[int]:
    return _first(pool, budget, rng, lambda one: -len(one.rows))


def most_facts(pool: Sequence[Instruction], budget: int, rng: np.random.Generator) -> list[int]:
    """Greedy: each time an instruction whose true solution adds most facts not yet covered."""
    covered: set[Fact] = set()
    left = rng.permutation(len(pool)).tolist()
    chosen: list[int] = []
    while left and len(chosen) < budget:
        best = max(left, key=lambda index: len(set(pool[index].problem.facts) - covered))
        left.remove(best)
        chosen.append(best)
        covered |= set(pool[best].problem.facts)
    return chosen


SELECTIONS: dict[str, Selection] = {
    "at random": at_random,
    "shortest": shortest,
    "longest": longest,
    "half right": half_right,
    "mostly wrong": mostly_wrong,
    "most responses": most_responses,
    "most facts": most_facts,
}


@cache
def instructions() -> tuple[Instruction, ...]:
    """The training problems that have rollouts, in the order of the file."""
    rows: dict[str, list[int]] = {}
    rollouts = load_rollouts("reasoner", "train")
    for number, prompt in enumerate(rollouts["prompt"]):
        rows.setdefault(prompt, []).append(number)
    weights, labels = np.array(rollouts["weight"]), np.array(rollouts["label"])
    return tuple(
        Instruction(
            Problem.parse(prompt),
            tuple(numbers),
            float(np.average(labels[numbers], weights=weights[numbers])),
        )
        for prompt, numbers in rows.items()
    )


def of_kind(kind: str, seed: int) -> list[int]:
    """KIND_SIZE instructions of one of KINDS, or of all, drawn with ``seed``."""
    members = [
        index
        for index, one in enumerate(instructions())
        if kind == ALL_KINDS or KINDS[kind](one.problem)
    ]
    return np.random.default_rng(seed).permutation(members)[:KIND_SIZE].tolist()


def rows_of(chosen: Sequence[int]) -> Dataset:
    """The training rows of chosen instructions, with log π_ref. No instruction may occur twice."""
    if len(set(chosen)) != len(chosen):
        raise ValueError("an instruction was chosen more than once")
    pool = instructions()
    return objectives.prepared("CE").select([row for index in chosen for row in pool[index].rows])


def choose_instructions(rule: Selection, seed: int) -> list[int]:
    """BUDGET instructions by a rule. Raises ValueError where the rule returns another number."""
    chosen = rule(instructions(), BUDGET, np.random.default_rng(seed))
    if len(chosen) != BUDGET:
        raise ValueError(f"the rule chose {len(chosen)} instructions; the budget is {BUDGET}")
    return chosen


def hyperparameters() -> dict[str, Any]:
    return load_result("objectives")["config"]["chosen"]["ce"]


def checkpoint_folder(checkpoint: str) -> Path:
    """Where one of CHECKPOINTS lies: in the package, or where :func:`make_checkpoints` wrote it."""
    if checkpoint.startswith("step "):
        return SCRATCH / "checkpoints" / checkpoint.replace(" ", "-")
    return checkpoint_path(checkpoint)


def make_checkpoints() -> None:
    """The first part of the reasoner's pretraining again, saved at EARLY_STEPS; some minutes."""
    if checkpoint_folder(f"step {EARLY_STEPS[-1]}").exists():
        return
    snapshots = [Snapshot(step, checkpoint_folder(f"step {step}")) for step in EARLY_STEPS]
    train_generator(recipes()["reasoner"], 0, [*snapshots, StopAt(EARLY_STEPS[-1])])


def load_checkpoint(checkpoint: str) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(checkpoint_folder(checkpoint)).eval()


def rows_referred_to(reference: PreTrainedModel) -> Dataset:
    """The training rows with log-probabilities of another reference."""
    be_quiet()
    return add_reference_logps(
        objectives.prepared("CE").remove_columns("ref_logps"),
        reference,
        AutoTokenizer.from_pretrained(checkpoint_path()),
        ARITHMETIC_FORMAT,
        batch_size=128,
    )


def train_with_reference(
    reference: PreTrainedModel, start: PreTrainedModel | None, seed: int, attention: str = "sdpa"
) -> ImplicitPRM:
    """Train with any reference of the same tokenizer; the policy starts as ``start`` (changed in
    place), or as the reasoner."""
    prm = train_prm(
        rows_referred_to(reference),
        policy=start,
        seed=seed,
        attention=attention,
        **hyperparameters(),
    )
    return ImplicitPRM(prm.policy, reference, prm.tokenizer, prm.beta, prm.format)


def train_on(chosen: Sequence[int], seed: int, attention: str = "sdpa") -> ImplicitPRM:
    """Train on chosen instructions, UPDATES updates however many they are."""
    return train_prm(
        rows_of(chosen), max_steps=UPDATES, seed=seed, attention=attention, **hyperparameters()
    )


def train(cell: Mapping[str, Any]) -> ImplicitPRM:
    """Train the PRM of a cell."""
    seed, attention = cell["seed"], cell.get("attention", "sdpa")
    if cell["lab"] == "reference":
        start = load_checkpoint(cell["checkpoint"]) if cell["role"] == ROLES[1] else None
        return train_with_reference(load_checkpoint(cell["checkpoint"]), start, seed, attention)
    if cell["lab"] == "kind":
        return train_on(of_kind(cell["kind"], seed), seed, attention)
    return train_on(choose_instructions(SELECTIONS[cell["rule"]], seed), seed, attention)


def judge(prm: ImplicitPRM, rows: Dataset) -> dict[str, Any]:
    """Accuracy per problem, in percent, by each of RULES, and AUROC of steps on seen facts."""
    scored = score_rows(prm, rows)
    accuracy = answer_accuracy(rows, scored, N)
    steps = step_frame(rows, scored)
    seen = steps[~steps["unseen"]]
    return {
        "answers": {
            name: [round(100 * float(value), 2) for value in accuracy[rule]]
            for name, rule in RULES.items()
        },
        "auroc": round(auroc(seen["step reward"], seen["valid"], seen["weight"]), 4),
    }


def measure(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Train the PRM of a cell and judge the reasoner's test rollouts."""
    return judge(train(cell), load_rollouts("reasoner", "test"))


def on_validation(prm: ImplicitPRM) -> dict[str, np.ndarray]:
    """For your own ideas: accuracy per problem, in percent, by each of RULES on *validation*.

    Use the test rollouts once, at the end, for the one idea that was best here.
    """
    return {
        rule: np.array(values)
        for rule, values in judge(prm, load_rollouts("reasoner", "validation"))["answers"].items()
    }


def grid_cells(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """The cells of the three labs; the reasoner in both roles is one cell."""
    cells: list[dict[str, Any]] = []
    for seed in seeds:
        cells += [{"lab": "selection", "rule": rule, "seed": seed} for rule in SELECTIONS]
        cells += [{"lab": "kind", "kind": kind, "seed": seed} for kind in (*KINDS, ALL_KINDS)]
        cells += [
            {"lab": "reference", "checkpoint": checkpoint, "role": role, "seed": seed}
            for checkpoint in CHECKPOINTS
            for role in ROLES
            if (checkpoint, role) != ("reasoner", ROLES[0])
        ]
    return cells


def arm(cell: Mapping[str, Any]) -> str:
    """The name of a cell without its seed."""
    if cell["lab"] == "reference":
        return f"{cell['checkpoint']}, {cell['role']}"
    return cell["kind"] if cell["lab"] == "kind" else cell["rule"]


def levels() -> dict[str, np.ndarray]:
    """Majority, chance and oracle on the test rollouts, per problem, in percent."""
    found = baselines.levels(load_rollouts("reasoner", "test"))
    names = {"majority": f"majority of {N}", "chance": "chance", "oracle": f"oracle of {N}"}
    return {name: 100 * found[level] for name, level in names.items()}


def tested_problems() -> list[Problem]:
    """The problems of the test rollouts, in the order of their candidates."""
    return [Problem.parse(p) for p in dict.fromkeys(load_rollouts("reasoner", "test")["prompt"])]


#: What each lab compares its arms with.
CONTROLS = {
    "selection": "at random",
    "kind": ALL_KINDS,
    "reference": f"reasoner, {ROLES[1]}",
}


def summarise(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Means over seeds with intervals over problems, minus the majority vote and the lab's control.

    Lab ``kind`` is summarised once for every kind of test problem.
    """
    majority = levels()["majority"]
    problems = tested_problems()
    everything = np.ones(len(problems), dtype=bool)
    parts = {kind: np.array([is_kind(p) for p in problems]) for kind, is_kind in KINDS.items()}
    summaries = []
    for lab, control in CONTROLS.items():
        own = [run for run in runs if run["lab"] == lab]
        names = list(dict.fromkeys(arm(run) for run in own))
        mean = {
            (name, rule): np.mean([r["answers"][rule] for r in own if arm(r) == name], axis=0)
            for name in names
            for rule in RULES
        }
        tested = {"all": everything} | (parts if lab == "kind" else {})
        summaries += [
            {
                "part": "summary",
                "lab": lab,
                "arm": name,
                "tested": kind,
                "auroc": [r["auroc"] for r in own if arm(r) == name],
                "rows": {
                    rule: {
                        "accuracy": rounded(mean_interval(mean[name, rule][chosen])),
                        "minus majority": rounded(
                            paired_difference(mean[name, rule][chosen], majority[chosen])
                        ),
                        "minus control": rounded(
                            paired_difference(mean[name, rule][chosen], mean[control, rule][chosen])
                        ),
                    }
                    for rule in RULES
                },
            }
            for name in names
            for kind, chosen in tested.items()
        ]
    return summaries


def checkpoint_cells() -> list[dict[str, Any]]:
    """How good each checkpoint is by itself: nats per response, best-of-16 by its confidence.

    The nats are those of the reasoner's validation rollouts, each as often as it was drawn.
    """
    rows = load_rollouts("reasoner", "validation")
    test = load_rollouts("reasoner", "test")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_path())
    cells = []
    for checkpoint in CHECKPOINTS:
        model = load_checkpoint(checkpoint)
        alone = ImplicitPRM(model, None, tokenizer, 1.0, ARITHMETIC_FORMAT)
        scored = score_rows(alone, rows)
        known = [s is not None for s in scored]
        nats = [-s.policy_logps.sum() for s in scored if s is not None]
        weights = np.array(rows["weight"])[known]
        accuracy = answer_accuracy(test, score_rows(alone, test), N)
        cells.append(
            {
                "part": "checkpoint",
                "checkpoint": checkpoint,
                "nats per response": round(float(np.average(nats, weights=weights)), 4),
                "best of 16 by log π_ref": rounded(
                    mean_interval(100 * accuracy[f"best of {N}: log π_θ alone"])
                ),
            }
        )
    return cells


def selection_cells() -> list[dict[str, Any]]:
    """What each rule buys: distinct rollouts, share of right ones, facts, operations; seed 0."""
    pool = instructions()
    cells = []
    for name, rule in SELECTIONS.items():
        chosen = [pool[index] for index in choose_instructions(rule, 0)]
        facts = {fact for one in chosen for fact in one.problem.facts}
        lengths = [len(one.problem.operations) for one in chosen]
        cells.append(
            {
                "part": "selection",
                "rule": name,
                "distinct rollouts": sum(len(one.rows) for one in chosen),
                "pass rate": round(float(np.mean([one.pass_rate for one in chosen])), 3),
                "facts": round(len(facts) / len(FACTS), 3),
                "operations": round(float(np.mean(lengths)), 2),
            }
        )
    return cells


def tolerances(
    runs: Sequence[Mapping[str, Any]], again: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Twice the largest difference, in points, that another attention made, by lab."""
    found = {}
    for other in again:
        key = (other["lab"], arm(other), other["seed"])
        (first,) = (run for run in runs if (run["lab"], arm(run), run["seed"]) == key)
        largest = max(
            abs(np.mean(first["answers"][rule]) - np.mean(other["answers"][rule])) for rule in RULES
        )
        found[other["lab"]] = max(MIN_TOLERANCE, round(2 * float(largest), 2))
    return found


def without_problems(run: Mapping[str, Any]) -> dict[str, Any]:
    means = {rule: round(float(np.mean(v)), 2) for rule, v in run["answers"].items()}
    return {"part": "run"} | dict(run) | {"answers": means}


def main(
    workers: Annotated[int, typer.Option(help="processes, one core each", min=1)] = 2,
) -> None:
    """Run the three labs' baselines and write their result file."""
    config: dict[str, Any] = {
        "updates": UPDATES,
        "epochs": EPOCHS,
        "n": N,
        "kind_size": KIND_SIZE,
        "budget": BUDGET,
        "checkpoints": CHECKPOINTS,
        "chosen": hyperparameters(),
    }
    make_checkpoints()
    grid = grid_cells(SEEDS)
    elsewhere = [
        cell | {"attention": "eager"}
        for cell in grid
        if cell["seed"] == SEEDS[0] and arm(cell) in CONTROLS.values()
    ]
    measured = run_cells("open_questions", config, [*grid, *elsewhere], measure, workers)
    runs, again = measured[: len(grid)], measured[len(grid) :]
    cells = [without_problems(run) for run in runs]
    cells += summarise(runs) + checkpoint_cells() + selection_cells()
    cells.append(
        {"part": "levels"}
        | {name: rounded(mean_interval(values)) for name, values in levels().items()}
    )
    save_result(
        "open_questions",
        "python -m implicitprm.experiments.open_questions",
        config | {"seeds": SEEDS},
        cells,
        tolerances(runs, again),
        sum(cell["seconds"] for cell in measured),
    )
    forget_cells("open_questions", config)


if __name__ == "__main__":
    typer.run(main)
