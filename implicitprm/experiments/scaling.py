"""Chapter 09: ``python -m implicitprm.experiments.scaling`` (about two hours of one core).

How much outcome data an implicit PRM needs, and of which kind. A nested random share of the
training instructions, with a nested random choice of the responses to each, trains CE and DPO; once
for three epochs, where the number of updates grows with the data, and once for the same number of
updates whatever the data. At that number KTO and NCA are trained on all data, too. Then the paper's
Table 2 in miniature: responses of another sampler or of another checkpoint, every distinct response
once, and instructions that have nothing to do with the test.

The β and learning rate of each objective are those of chapter 06; other learning rates are tried on
the validation split where there is little data, and none is chosen by it. Cells are kept, so that
the command goes on after an interruption. To measure how far another machine may be off, some cells
of the first seed are trained again with another implementation of attention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from datasets import Dataset, concatenate_datasets
from transformers import AutoModelForCausalLM, AutoTokenizer

from implicitprm.arithmetic import ARITHMETIC_FORMAT as FORMAT
from implicitprm.arithmetic import checkpoint_path, load_rollouts
from implicitprm.arithmetic.measure import inside_world
from implicitprm.data import pair_responses
from implicitprm.evaluation import (
    auroc,
    bootstrap_over_problems,
    mean_interval,
    paired_difference,
    rank_correlation,
)
from implicitprm.experiments import baselines, objectives
from implicitprm.experiments.baselines import (
    Judged,
    by_additive_steps,
    by_length,
    by_ref,
    ref_step_logps,
    scores_at,
    step_truth,
)
from implicitprm.experiments.grid import forget_cells, run_cells
from implicitprm.experiments.runs import EPOCHS, be_quiet, train_prm
from implicitprm.experiments.store import load_result, rounded, save_result
from implicitprm.logprobs import score_logps
from implicitprm.rewards import ImplicitPRM, sum_by_step
from implicitprm.steps import EncodedSolution, Solution, encode
from implicitprm.training import OBJECTIVES, add_reference_logps

SEEDS = (0, 1, 2)
N = 16
SHARES = (0.125, 0.25, 0.5, 1.0)
#: Responses per instruction; one response makes no pair.
RESPONSES = {"CE": (1, 2, 4, 8), "DPO": (2, 4, 8)}
ALL = 8
#: At matched updates: shares and responses.
MATCHED = {
    "CE": ((0.25, 1), (0.25, 2), (0.25, 4), (0.25, 8), (1.0, 1), (1.0, 2), (1.0, 8)),
    "DPO": ((0.25, 2), (0.25, 8), (1.0, 2)),
}
#: What DPO's full data make in three epochs.
MATCHED_UPDATES = 102
BATCH = 64
SCHEDULES = ("3 epochs", "matched")
#: Where responses come from, beside the base: eight of `reasoner` with min-p.
DIVERSITY = ("full temperature", "half early", "once each")
#: Instructions with + and * are tested; those with − alone are irrelevant to them.
OPERATIONS = ("A1", "A1+A2", "A1+irrelevant", "irrelevant")
#: Source → tested world → generator and split of its rollouts.
TESTED: dict[str, tuple[str, str]] = {
    "reasoner": ("reasoner", "test"),
    "strong": ("strong", "test"),
    "plus_times": ("reasoner", "plus_times_test"),
}
VALIDATION = ("reasoner", "validation")
RULES = ("min", "sum", "vote")
#: Tried on the validation split for a fourth of the instructions at matched updates: objective,
#: responses, and learning rates as a factor of chapter 06's.
TRIED = (("CE", 1, (0.5, 1.0, 2.0)), ("DPO", 2, (0.25, 1.0)))
RESAMPLES = 300

Cell = Mapping[str, Any]
Floats = npt.NDArray[np.float64]


# ---- Data -----------------------------------------------------------------------------------


@cache
def all_rows(world: str, split: str) -> Dataset:
    """Training rollouts of a file with their reference log-probabilities, once per process.

    Without the few texts that the tokenizer cannot read again.
    """
    be_quiet()
    folder = checkpoint_path("reasoner")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = load_rollouts(world, split).select_columns(
        ["prompt", "completion", "label", "weight", "finished"]
    )
    rows = rows.select(np.flatnonzero(inside_world(tokenizer, rows)).tolist())
    reference = AutoModelForCausalLM.from_pretrained(folder)
    return add_reference_logps(rows, reference, tokenizer, FORMAT, batch_size=128)


def nested_subset(rows: Dataset, share: float, responses: int, seed: int) -> Dataset:
    """A random ``share`` of the prompts with at most ``responses`` random draws of each.

    A row of weight w stands for w draws; its new weight is how many of them were taken. With one
    seed a smaller share, or fewer responses, is part of a larger one.

    Raises ValueError for a share outside (0, 1], fewer than one response, or no prompt left.
    """
    if not 0 < share <= 1 or responses < 1:
        raise ValueError(
            f"share={share} must lie in (0, 1] and responses={responses} be at least 1"
        )
    by_prompt: dict[str, list[int]] = {}
    for index, (prompt, weight) in enumerate(zip(rows["prompt"], rows["weight"], strict=True)):
        by_prompt.setdefault(prompt, []).extend([index] * int(weight))
    rng = np.random.default_rng(seed)
    # Every random number is drawn whatever the share, so that subsets are nested.
    drawn = [rng.permutation(indices)[:responses] for indices in by_prompt.values()]
    chosen = rng.permutation(len(drawn))[: round(share * len(drawn))]
    if not len(chosen):
        raise ValueError(f"a share of {share} of {len(drawn)} prompts holds none")
    numbers, counts = np.unique(np.concatenate([drawn[i] for i in chosen]), return_counts=True)
    taken = rows.select(numbers.tolist()).remove_columns("weight")
    return taken.add_column("weight", counts.tolist())


def training_rows(cell: Cell) -> Dataset:
    """The unpaired rows of a cell, by its source, share and responses."""
    base = all_rows("reasoner", "train")
    seed, source = cell["seed"], cell["source"]
    if source == "base":
        return nested_subset(base, cell["share"], cell["responses"], seed)
    if source == "full temperature":
        return all_rows("reasoner_full", "train")
    if source == "half early":
        early = all_rows("early", "train")
        halves = [nested_subset(rows, 1.0, ALL // 2, seed) for rows in (base, early)]
        return _merged(halves)
    if source == "once each":
        return base.remove_columns("weight")
    return _merged([_operation_rows(part, seed) for part in source.split("+")])


def _operation_rows(part: str, seed: int) -> Dataset:
    """One of two random halves of the instructions with + and *, or those with − alone."""
    if part == "irrelevant":
        return all_rows("reasoner", "minus")
    rows = all_rows("reasoner", "plus_times")
    prompts = sorted(set(rows["prompt"]))
    order = np.random.default_rng(seed).permutation(len(prompts))
    half = order[: len(order) // 2] if part == "A1" else order[len(order) // 2 :]
    chosen = {prompts[number] for number in half}
    return rows.select([i for i, prompt in enumerate(rows["prompt"]) if prompt in chosen])


def _merged(parts: Sequence[Dataset]) -> Dataset:
    """Rows of several sets; the weights of a completion that is in two of them are added up."""
    rows = concatenate_datasets(list(parts))
    totals: dict[tuple[str, str, bool], int] = {}
    first: dict[tuple[str, str, bool], int] = {}
    columns = (rows["prompt"], rows["completion"], rows["finished"], rows["weight"])
    for index, (*text, weight) in enumerate(zip(*columns, strict=True)):
        key = (text[0], text[1], text[2])
        first.setdefault(key, index)
        totals[key] = totals.get(key, 0) + weight
    kept = rows.select(list(first.values())).remove_columns("weight")
    return kept.add_column("weight", list(totals.values()))


def paired(rows: Dataset) -> Dataset:
    """All pairs of unpaired rows, with the reference log-probabilities that those have."""
    pairs = pair_responses(rows, "all", objectives.PAIRING_SEED)
    known = {
        (prompt, text, finished): logp
        for prompt, text, finished, logp in zip(
            rows["prompt"], rows["completion"], rows["finished"], rows["ref_logps"], strict=True
        )
    }
    for side in ("chosen", "rejected"):
        keys = zip(pairs["prompt"], pairs[side], pairs[f"{side}_finished"], strict=True)
        pairs = pairs.add_column(f"ref_{side}_logps", [known[key] for key in keys])
    return pairs


def counts(rows: Dataset) -> dict[str, float]:
    """What unpaired rows hold.

    ``instructions``, ``rollouts``, ``unique`` (distinct responses), ``pairs`` (distinct ones), and
    ``without pair``: the share of instructions that give none, in percent.
    """
    outcomes: dict[str, list[int]] = {}
    for prompt, label in zip(rows["prompt"], rows["label"], strict=True):
        outcomes.setdefault(prompt, [0, 0])[int(label)] += 1
    pairs = [wrong * right for wrong, right in outcomes.values()]
    weights = rows["weight"] if "weight" in rows.column_names else [1] * len(rows)
    return {
        "instructions": len(outcomes),
        "rollouts": int(sum(weights)),
        "unique": len(rows),
        "pairs": sum(pairs),
        "without pair": round(100 * float(np.mean(np.array(pairs) == 0)), 2),
    }


def updates(cell: Cell, found: Mapping[str, float]) -> int:
    """The number of updates of a cell whose rows have these counts."""
    if cell["schedule"] == "matched":
        return MATCHED_UPDATES
    by_pairs = OBJECTIVES[cell["objective"].lower()].format == "preference"
    rows = found["pairs"] if by_pairs else found["unique"]
    return EPOCHS * -(-int(rows) // BATCH)


# ---- Training and measuring -----------------------------------------------------------------


def train(cell: Cell) -> ImplicitPRM:
    """Train the PRM of a cell."""
    objective = cell["objective"].lower()
    settings = dict(load_result("objectives")["config"]["chosen"][objective])
    settings["learning_rate"] *= cell.get("rate factor", 1.0)
    rows = training_rows(cell)
    return train_prm(
        paired(rows) if OBJECTIVES[objective].format == "preference" else rows,
        objective=objective,
        seed=cell["seed"],
        max_steps=MATCHED_UPDATES if cell["schedule"] == "matched" else -1,
        attention=cell.get("attention", "sdpa"),
        **settings,
    )


def tested(cell: Cell) -> tuple[str, ...]:
    """The names in TESTED on which a cell is measured."""
    return ("plus_times",) if cell["source"] in OPERATIONS else ("reasoner", "strong")


@cache
def _encoded(file: tuple[str, str]) -> list[EncodedSolution | None]:
    """The tokenised rollouts of a generator and split, once; None outside this world."""
    rows = load_rollouts(*file)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_path("reasoner"))
    return [
        encode(tokenizer, Solution(row["prompt"], tuple(row["steps"]), row["finished"]), FORMAT)
        if inside
        else None
        for row, inside in zip(rows, inside_world(tokenizer, rows), strict=True)
    ]


def judge(prm: ImplicitPRM, file: tuple[str, str]) -> Judged:
    """What a PRM says of the rollouts of a generator and split, as ``by_log_ratio`` has it."""
    encoded = _encoded(file)
    known = [solution for solution in encoded if solution is not None]
    scored = iter(score_logps(prm.policy, known, prm.tokenizer.pad_token_id, 128, "policy"))
    of_ref = ref_step_logps(load_rollouts(*file))
    steps: list[npt.NDArray[Any] | None] = []
    for solution, ref in zip(encoded, of_ref, strict=True):
        if solution is None or ref is None:
            steps.append(None)
        else:
            of_policy = sum_by_step(next(scored).numpy(), solution.step_ends)
            steps.append(prm.beta * (of_policy - ref))
    return by_additive_steps(steps)


def answers(rows: Dataset, judged: Judged) -> dict[str, Floats]:
    """Accuracy (0..1) per problem of best of N by min and sum, and of the weighted vote."""
    names = {"min": f"best of {N}: min", "sum": f"best of {N}: sum", "vote": f"vote of {N}"}
    found = baselines.answers(rows, judged, (N,))
    return {rule: found[name] for rule, name in names.items()}


@cache
def levels(name: str) -> dict[str, Floats]:
    """Accuracy (percent) per problem of what needs no training, on one of TESTED."""
    rows = load_rollouts(*TESTED[name])
    known = baselines.levels(rows, (N,))
    found = {
        "pass@1": known["chance"],
        "majority": known[f"majority of {N}"],
        "oracle": known[f"oracle of {N}"],
        "shortest": answers(rows, by_length(rows))["min"],
    }
    found |= {f"log π_ref, {rule}": v for rule, v in answers(rows, by_ref(rows)).items()}
    return {level: 100 * values for level, values in found.items()}


def seen_auroc(name: str, judged: Judged) -> float:
    """AUROC of valid against wrong steps on facts that occur in PRM training."""
    truth = step_truth(*TESTED[name])
    score = scores_at(judged.steps, truth.row, truth.step)
    part = ~truth.unseen & ~np.isnan(score)
    return round(auroc(score[part], truth.valid[part], truth.weight[part]), 4)


def measure(cell: Cell) -> dict[str, Any]:
    """Counts of the data of a cell; accuracy per problem (percent) and AUROC on what is tested."""
    prm = train(cell)
    found = counts(training_rows(cell))
    result: dict[str, Any] = {"counts": found | {"updates": updates(cell, found)}, "tested": {}}
    for name in tested(cell):
        rows = load_rollouts(*TESTED[name])
        judged = judge(prm, TESTED[name])
        result["tested"][name] = {
            rule: [round(100 * float(value), 2) for value in values]
            for rule, values in answers(rows, judged).items()
        } | {"auroc": seen_auroc(name, judged)}
    return result


def validate(cell: Cell) -> dict[str, Any]:
    """Accuracy (percent) by each rule on the validation split."""
    accuracy = answers(load_rollouts(*VALIDATION), judge(train(cell), VALIDATION))
    return {"accuracy": {rule: round(100 * float(v.mean()), 3) for rule, v in accuracy.items()}}


# ---- Summaries ------------------------------------------------------------------------------

#: What names an arm: a cell without its seed.
ARM = ("objective", "source", "share", "responses", "schedule")
Arm = tuple[Any, ...]
#: The runs of every arm by seed.
ByArm = dict[Arm, dict[int, Cell]]


def arm(cell: Cell) -> Arm:
    """(objective, source, share, responses, schedule)."""
    return tuple(cell[name] for name in ARM)


def by_arm(runs: Sequence[Cell]) -> ByArm:
    """The runs of every arm by seed."""
    found: ByArm = {}
    for run in runs:
        found.setdefault(arm(run), {})[run["seed"]] = run
    return found


def summarise(runs: Sequence[Cell]) -> list[dict[str, Any]]:
    """Every arm with its controls, and the effects that answer the chapter's questions."""
    found = by_arm(runs)
    return [
        *_arms(found),
        *_equal_budgets(found),
        *_contrasts(found),
        *_slopes(found),
        *_orders(found),
    ]


def _arms(found: ByArm) -> list[dict[str, Any]]:
    """Accuracy of each arm with its differences to what needs no training, in points."""
    cells = []
    for name, runs in found.items():
        own = list(runs.values())
        mean_counts = {
            count: round(float(np.mean([run["counts"][count] for run in own])), 2)
            for count in own[0]["counts"]
        }
        rows = {world: _arm_rows(own, world) for world in own[0]["tested"]}
        cells.append(
            {"part": "summary", **dict(zip(ARM, name, strict=True))}
            | {"counts": mean_counts, "rows": rows}
        )
    return cells


def _arm_rows(own: Sequence[Cell], world: str) -> dict[str, Any]:
    """The seeds of one arm on one of TESTED: by rule, and the step AUROC."""
    untrained = levels(world)
    rows: dict[str, Any] = {"auroc": [run["tested"][world]["auroc"] for run in own]}
    for rule in RULES:
        seeds = np.array([run["tested"][world][rule] for run in own])  # (K, P)
        values = seeds.mean(axis=0)
        rows[rule] = {
            "accuracy": rounded(mean_interval(values)),
            "minus majority": rounded(paired_difference(values, untrained["majority"])),
            "minus pass@1": rounded(paired_difference(values, untrained["pass@1"])),
            "minus log π_ref": rounded(paired_difference(values, untrained[f"log π_ref, {rule}"])),
            "seeds": [round(float(seed.mean()), 2) for seed in seeds],
        }
    return rows


def shared_seeds(found: ByArm, arms: Sequence[Arm]) -> list[int]:
    """The seeds that all of some arms have: what is compared has seen the same instructions."""
    return sorted(set.intersection(*(set(found[name]) for name in arms)))


def _accuracy(found: ByArm, name: Arm, seeds: Sequence[int], world: str, rule: str) -> Floats:
    """Accuracy (percent) per problem of one arm, mean over seeds: (P)."""
    mean: Floats = np.mean([found[name][seed]["tested"][world][rule] for seed in seeds], axis=0)
    return mean


def combined(found: ByArm, weights: Mapping[Arm, float]) -> dict[str, Any]:
    """A linear combination of arms, problem by problem, in points with intervals over problems.

    By tested world and rule, over the seeds that all of them have.
    """
    seeds = shared_seeds(found, list(weights))
    worlds = found[next(iter(weights))][seeds[0]]["tested"]
    return {
        "seeds": len(seeds),
        "rows": {
            world: {
                rule: rounded(
                    mean_interval(
                        sum(w * _accuracy(found, a, seeds, world, rule) for a, w in weights.items())
                    )
                )
                for rule in RULES
            }
            for world in worlds
        },
    }


def _effect(found: ByArm, effect: str, a: Arm, b: Arm) -> dict[str, Any]:
    """Arm a minus arm b, paired by problem."""
    head = {"part": "effect", "effect": effect, "a": list(a), "b": list(b)}
    return head | combined(found, {a: 1.0, b: -1.0})


def _base(objective: str, share: float, responses: int, schedule: str) -> Arm:
    return (objective, "base", share, responses, schedule)


def _source(objective: str, source: str, schedule: str) -> Arm:
    return (objective, source, 1.0, ALL, schedule)


def _grid(found: ByArm, objective: str, schedule: str) -> list[Arm]:
    """The arms of the grid of instructions and responses."""
    return [a for a in found if (a[0], a[1], a[4]) == (objective, "base", schedule)]


def _equal_budgets(found: ByArm) -> list[dict[str, Any]]:
    """At equal rollouts, the arm of more instructions minus the one of more responses.

    Every such pair of arms, and the mean over pairs per halving of the instructions.
    """
    cells = []
    for objective in RESPONSES:
        for schedule in SCHEDULES:
            arms = sorted(_grid(found, objective, schedule), reverse=True)
            pairs = [(a, b) for a, b in combinations(arms, 2) if a[2] * a[3] == b[2] * b[3]]
            cells += [_effect(found, "equal rollouts", a, b) for a, b in pairs]
            weights = dict.fromkeys(arms, 0.0)
            for a, b in pairs:
                each = 1 / (len(pairs) * float(np.log2(a[2] / b[2])))
                weights[a] += each
                weights[b] -= each
            head = {
                "part": "effect",
                "effect": "equal rollouts, mean per halving",
                "objective": objective,
                "schedule": schedule,
                "pairs": len(pairs),
            }
            cells.append(head | combined(found, weights))
    return cells


def _contrasts(found: ByArm) -> list[dict[str, Any]]:
    """Differences of two arms: what updates, responses, objectives and kinds of data change."""
    wanted: list[tuple[str, Arm, Arm]] = []
    for schedule in SCHEDULES:
        for objective, responses in RESPONSES.items():
            full = _base(objective, 1.0, ALL, schedule)
            wanted += [
                (f"8 responses minus {r}", full, _base(objective, 1.0, r, schedule))
                for r in responses[:-1]
            ]
            wanted += [
                (f"all instructions minus {s:.1%}", full, _base(objective, s, ALL, schedule))
                for s in SHARES[:-1]
            ]
            wanted += [
                (f"{source} minus base", _source(objective, source, schedule), full)
                for source in DIVERSITY
            ]
            alone = _source(objective, "A1", schedule)
            wanted += [
                (f"{source} minus A1", _source(objective, source, schedule), alone)
                for source in OPERATIONS[1:]
            ]
        wanted += [
            (
                f"{other} minus CE",
                _base(other, 1.0, ALL, schedule),
                _base("CE", 1.0, ALL, schedule),
            )
            for other in ("DPO", "NCA", "KTO")
        ]
    wanted += [
        (
            "matched minus 3 epochs",
            _base(objective, s, r, "matched"),
            _base(objective, s, r, "3 epochs"),
        )
        for objective, responses in RESPONSES.items()
        for s in SHARES
        for r in responses
    ]
    cells = [_effect(found, name, a, b) for name, a, b in wanted if a in found and b in found]
    return cells + [_responses_for_dpo(found, schedule) for schedule in SCHEDULES]


def _responses_for_dpo(found: ByArm, schedule: str) -> dict[str, Any]:
    """What 8 responses instead of 2 bring to DPO, less what they bring to CE, in points."""
    weights = {
        _base(objective, 1.0, r, schedule): sign * (1.0 if r == ALL else -1.0)
        for objective, sign in (("DPO", 1.0), ("CE", -1.0))
        for r in (2, ALL)
    }
    name = "8 responses minus 2: DPO's gain minus CE's"
    return {"part": "effect", "effect": name, "schedule": schedule} | combined(found, weights)


def slope_weights(shares: Sequence[float], responses: Sequence[int]) -> Floats:
    """Weights of A arms whose sums are least-squares slopes of a plane: (2, A).

    Points per doubling of instructions and per doubling of responses, with an intercept.
    """
    design = np.stack([np.ones(len(shares)), np.log2(shares), np.log2(responses)], axis=1)
    weights: Floats = np.linalg.pinv(design)[1:]
    return weights


def _slopes(found: ByArm) -> list[dict[str, Any]]:
    """Points per doubling of instructions, of responses, and the first minus the second.

    On the arms that both objectives have.
    """
    cells = []
    for schedule in SCHEDULES:
        grids = [{a[1:] for a in _grid(found, objective, schedule)} for objective in RESPONSES]
        common = sorted(set.intersection(*grids))
        by_share, by_response = slope_weights([a[1] for a in common], [a[2] for a in common])
        slopes = {
            "instructions": by_share,
            "responses": by_response,
            "difference": by_share - by_response,
        }
        for objective in RESPONSES:
            arms = [(objective, *rest) for rest in common]
            for name, weights in slopes.items():
                head = {
                    "part": "slope",
                    "objective": objective,
                    "schedule": schedule,
                    "slope": name,
                }
                cells.append(head | combined(found, dict(zip(arms, weights.tolist(), strict=True))))
    return cells


def _orders(found: ByArm) -> list[dict[str, Any]]:
    """Rank correlation of the arms' accuracy with each amount, over the arms of a grid.

    Intervals over problems; ``over rollouts`` is the correlation with an amount less that with
    the rollouts.
    """
    cells = []
    for objective in RESPONSES:
        for schedule in SCHEDULES:
            arms = _grid(found, objective, schedule)
            seeds = shared_seeds(found, arms)
            amounts = {
                count: np.array(
                    [np.mean([found[a][seed]["counts"][count] for seed in seeds]) for a in arms]
                )
                for count in ("rollouts", "instructions", "unique", "pairs", "updates")
            }
            rows = {
                world: {
                    rule: _correlations(
                        np.stack([_accuracy(found, a, seeds, world, rule) for a in arms]), amounts
                    )
                    for rule in RULES
                }
                for world in ("reasoner", "strong")
            }
            head = {"part": "order", "objective": objective, "schedule": schedule}
            cells.append(head | {"arms": len(arms), "seeds": len(seeds), "rows": rows})
    return cells


def _correlations(
    accuracy: Floats, amounts: Mapping[str, Floats]
) -> dict[str, dict[str, list[float]]]:
    """By amount (A): rank correlation with the accuracy (A, P), and its lead over rollouts."""

    def correlation(problems: npt.NDArray[np.int64], count: str) -> float:
        return rank_correlation(accuracy[:, problems].mean(axis=1), amounts[count])

    def interval(count: str, less: str | None) -> list[float]:
        def statistic(problems: npt.NDArray[np.int64]) -> float:
            base = correlation(problems, less) if less else 0.0
            return correlation(problems, count) - base

        return rounded(
            bootstrap_over_problems(statistic, accuracy.shape[1], resamples=RESAMPLES), 3
        )

    varied = [count for count, values in amounts.items() if np.ptp(values) > 0]
    return {
        count: {"correlation": interval(count, None)}
        | ({} if count == "rollouts" else {"over rollouts": interval(count, "rollouts")})
        for count in varied
    }


def level_cells() -> list[dict[str, Any]]:
    """What needs no training, on everything tested, with intervals and step AUROC of log π_ref."""
    return [
        {
            "part": "levels",
            "tested": name,
            "rows": {level: rounded(mean_interval(v)) for level, v in levels(name).items()},
            "auroc of log π_ref": seen_auroc(name, by_ref(load_rollouts(*TESTED[name]))),
        }
        for name in TESTED
    ]


def data_cells(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Counts of the grid's data by share, responses and seed."""
    return [
        {"part": "data", "share": share, "responses": responses, "seed": seed}
        | counts(nested_subset(all_rows("reasoner", "train"), share, responses, seed))
        for seed in seeds
        for share in SHARES
        for responses in RESPONSES["CE"]
    ]


def without_problems(run: Cell) -> dict[str, Any]:
    """A run with its accuracies averaged over problems: what the result file keeps."""
    kept = {
        name: {
            rule: values if rule == "auroc" else round(float(np.mean(values)), 2)
            for rule, values in rules.items()
        }
        for name, rules in run["tested"].items()
    }
    return dict(run) | {"tested": kept}


def tolerances(runs: Sequence[Cell], again: Sequence[Cell]) -> dict[str, float]:
    """Twice the largest difference, in points, that another attention made, by objective.

    At least what chapter 06 measured for the objective.
    """
    measured = load_result("objectives")["tolerance"]
    found: dict[str, float] = {name: measured[name.lower()] for name in ("CE", "DPO", "NCA", "KTO")}
    for other in again:
        (first,) = (r for r in runs if arm(r) == arm(other) and r["seed"] == other["seed"])
        worst = max(
            abs(np.mean(first["tested"][name][rule]) - np.mean(values))
            for name, rules in other["tested"].items()
            for rule, values in rules.items()
            if rule != "auroc"
        )
        name = other["objective"]
        found[name] = max(found[name], round(2 * float(worst), 2))
    return found


# ---- The grid -------------------------------------------------------------------------------


def _cell(objective: str, source: str, share: float, responses: int, schedule: str) -> Cell:
    return dict(zip(ARM, (objective, source, share, responses, schedule), strict=True))


def grid_cells(seeds: Sequence[int]) -> list[Cell]:
    """Every arm with every seed.

    DPO's full data stand once: their three epochs are the matched updates.
    """
    arms = [_cell("CE", "base", share, r, "matched") for share, r in MATCHED["CE"]]
    arms += [_cell("DPO", "base", share, r, "matched") for share, r in MATCHED["DPO"]]
    arms += [_cell(objective, "base", 1.0, ALL, "matched") for objective in ("KTO", "NCA")]
    arms += [_cell("CE", source, 1.0, ALL, "matched") for source in (*DIVERSITY, *OPERATIONS)]
    arms += [_cell("CE", source, 1.0, ALL, "3 epochs") for source in OPERATIONS[:3]]
    arms += [
        _cell(objective, "base", share, r, "3 epochs")
        for share in SHARES
        for objective, responses in RESPONSES.items()
        for r in responses
    ]
    return [{**cell, "seed": seed} for seed in seeds for cell in arms]


def with_full_dpo(runs: Sequence[Cell]) -> list[dict[str, Any]]:
    """The runs, and DPO's on all data as ``matched``, too.

    Raises ValueError where their updates are not the matched number.
    """
    full = _base("DPO", 1.0, ALL, "3 epochs")
    own = [run for run in runs if arm(run) == full]
    for run in own:
        if run["counts"]["updates"] != MATCHED_UPDATES:
            raise ValueError(f"DPO's full data make {run['counts']['updates']} updates")
    return [dict(run) for run in runs] + [dict(run) | {"schedule": "matched"} for run in own]


def elsewhere_cells() -> list[Cell]:
    """Cells of the first seed, by another implementation of attention.

    Of NCA and KTO chapter 06 has measured the difference with the same settings and data.
    """
    chosen = [
        _cell("CE", "base", 1.0, 1, "3 epochs"),
        _cell("DPO", "base", 1.0, 2, "matched"),
    ]
    return [{**c, "seed": SEEDS[0], "attention": "eager"} for c in chosen]


def sweep_cells() -> list[Cell]:
    """Learning rates for little data at matched updates."""
    return [
        {**_cell(objective, "base", 0.25, responses, "matched"), "seed": 0, "rate factor": factor}
        for objective, responses, factors in TRIED
        for factor in factors
    ]


def main(
    workers: Annotated[int, typer.Option(help="processes, one core each", min=1)] = 2,
) -> None:
    """Run the whole experiment and write its result file."""
    config: dict[str, Any] = {
        "settings": load_result("objectives")["config"]["chosen"],
        "shares": SHARES,
        "responses": RESPONSES,
        "matched_updates": MATCHED_UPDATES,
        "epochs": EPOCHS,
        "n": N,
    }
    grid, elsewhere = grid_cells(SEEDS), elsewhere_cells()
    measured = run_cells("scaling", config, [*elsewhere, *grid], measure, workers)
    validation = run_cells("scaling-validation", config, sweep_cells(), validate, workers)
    again, runs = measured[: len(elsewhere)], with_full_dpo(measured[len(elsewhere) :])
    cells = [{"part": "validation"} | cell for cell in validation]
    cells += level_cells()
    cells += data_cells(SEEDS)
    cells += [{"part": "run"} | without_problems(run) for run in runs]
    cells += summarise(runs)
    save_result(
        "scaling",
        "python -m implicitprm.experiments.scaling",
        config | {"seeds": SEEDS},
        cells,
        tolerances(runs, again),
        sum(cell["seconds"] for cell in (*validation, *measured)),
    )
    forget_cells("scaling-validation", config)
    forget_cells("scaling", config)


if __name__ == "__main__":
    typer.run(main)
