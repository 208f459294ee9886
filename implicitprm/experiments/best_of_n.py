"""Chapter 07: ``python -m implicitprm.experiments.best_of_n`` (about 40 minutes of one core).

A PRM chooses among 1 to 64 candidates, in four worlds: a reasoner with and without misconceptions,
each sampled with min-p and from its whole distribution. CE with the β and learning rate that
chapter 06 validated for `reasoner`, five seeds; the other worlds have no validation problems, so
they use the same, and a few other values are tried in one of them to see whether the fall depends
on the choice. None is chosen by it.

Then interventions where accuracy falls most: candidates are dropped by several rules, each with
controls that drop as many; rewards are averaged over the seeds, and are cut off above 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from implicitprm.arithmetic import ARITHMETIC_FORMAT, checkpoint_path, load_rollouts
from implicitprm.arithmetic.measure import (
    answer_scores,
    candidate_grid,
    inside_world,
    score_rows,
    step_scores,
)
from implicitprm.evaluation import (
    best_of_n_accuracy,
    mean_interval,
    paired_difference,
    pass_at_n,
    steps_up_to_first_error,
    vote_accuracy,
)
from implicitprm.experiments.grid import forget_cells, run_cells
from implicitprm.experiments.runs import EPOCHS, be_quiet, train_prm
from implicitprm.experiments.store import load_result, rounded, save_result
from implicitprm.rewards import ImplicitPRM, ScoredSolution
from implicitprm.selection import aggregate

#: World trained in → generator, and the worlds whose test rollouts are ranked.
WORLDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "reasoner": ("reasoner", ("reasoner", "reasoner_full", "early", "strong")),
    "reasoner_full": ("reasoner", ("reasoner_full", "reasoner")),
    "control": ("control", ("control", "control_full")),
    "control_full": ("control", ("control_full", "control")),
}
SEEDS = (0, 1, 2, 3, 4)
NS = (1, 2, 4, 8, 16, 32, 64)
#: The fall is the accuracy at the second less that at the first.
FALL = (16, 64)
#: Where the fall is largest: trained and tested here, interventions are made.
DEEP = "reasoner_full"
SUM, MIN = "reward, sum over steps", "reward, min over steps"
VOTE, MAJORITY = "vote weighted by reward", "majority vote"
VOTE_BY_MIN = "vote weighted by reward, min"
#: Rules that use the trained reward, for the tolerance: kind → rules.
TRAINED = {"best of N": (SUM, MIN), "vote": (VOTE, VOTE_BY_MIN)}
#: Differences of the summary, paired by problem.
PAIRS = ((VOTE, MAJORITY), (VOTE, SUM), (VOTE, MIN), (SUM, MAJORITY), (MIN, MAJORITY))
#: A candidate with a step that the reference gives less than this is dropped. Fixed in advance but
#: for the last, which was added to show where dropping begins to do harm.
EPSILONS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
#: Edges of the bins of π_ref(step) in the table of noise.
BINS = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.7, 1.0)
RANDOM_DRAWS = 20
#: Another β or learning rate in DEEP, one seed: does the fall depend on it?
OTHER_SETTINGS = ({"beta": 0.5}, {"beta": 2.0}, {"learning_rate": 5e-4}, {"learning_rate": 2e-3})
MIN_TOLERANCE = 0.25
RESAMPLES = 2000

Bools = npt.NDArray[np.bool_]
Accuracy = dict[str, dict[int, np.ndarray]]


# ---- Training and measuring ------------------------------------------------------------------


def training_rows(world: str) -> Dataset:
    """The training rollouts of a world, without the few that its tokenizer cannot read again."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_path(WORLDS[world][0]))
    rows = load_rollouts(world, "train").select_columns(
        ["prompt", "completion", "label", "weight", "finished"]
    )
    return rows.select(np.flatnonzero(inside_world(tokenizer, rows)).tolist())


def train(cell: Mapping[str, Any]) -> ImplicitPRM:
    """Train the PRM of a cell."""
    be_quiet()
    return train_prm(
        training_rows(cell["trained"]),
        WORLDS[cell["trained"]][0],
        beta=cell["beta"],
        learning_rate=cell["learning_rate"],
        seed=cell["seed"],
        attention=cell.get("attention", "sdpa"),
    )


@cache
def _test_rows(world: str) -> Dataset:
    return load_rollouts(world, "test")


def measure(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Accuracy per problem, in percent, by tested world, rule and N; in DEEP the step rewards."""
    prm = train(cell)
    result: dict[str, Any] = {"tested": {}}
    for world in cell["tested"]:
        rows = _test_rows(world)
        scored = score_rows(prm, rows)
        result["tested"][world] = {
            # N as text, which it is when a kept cell is read back
            rule: {str(n): np.round(100 * values, 2).tolist() for n, values in by_n.items()}
            for rule, by_n in accuracies(rows, scored).items()
        }
        if cell.get("keep steps") and world == DEEP:
            result["step rewards"] = [
                None if s is None else np.round(s.step_rewards, 4).tolist() for s in scored
            ]
    return result


def given_answers(rows: Dataset) -> list[str | None]:
    """The answer of each row (N), None where its last step is none."""
    return [steps[-1] if steps[-1].startswith("#") else None for steps in rows["steps"]]


def rule_scores(scored: Sequence[ScoredSolution | None]) -> dict[str, np.ndarray]:
    """One score per row (N) by each rule of best-of-N: those of chapter 06, mean and last step."""
    steps = [None if s is None else s.step_rewards for s in scored]
    more = {"reward, mean over steps": "mean", "reward, last step": "last"}
    return answer_scores(scored) | {
        rule: _scores(steps, partial(aggregate, how=how)) for rule, how in more.items()
    }


def accuracies(
    rows: Dataset, scored: Sequence[ScoredSolution | None], ns: Sequence[int] = NS
) -> Accuracy:
    """Expected accuracy (0..1) per problem (P) of every way to choose, by rule and N."""
    grid = candidate_grid(rows)  # (P, M)
    correct = np.array(rows["label"])[grid]
    answers = np.array(given_answers(rows), dtype=object)[grid].tolist()
    scores = rule_scores(scored)
    found: Accuracy = {
        rule: {n: best_of_n_accuracy(values[grid], correct, n) for n in ns}
        for rule, values in scores.items()
    }
    votes = {MAJORITY: None, VOTE: scores[SUM][grid], VOTE_BY_MIN: scores[MIN][grid]}
    for rule, weights in votes.items():
        found[rule] = {n: vote_accuracy(answers, correct, n, weights) for n in ns}
    found["chance"] = {n: correct.mean(1) for n in ns}
    found["oracle"] = {n: pass_at_n(correct, n) for n in ns}
    return found


# ---- Interventions ---------------------------------------------------------------------------


def likely(step_logps: Sequence[np.ndarray | None], epsilon: float) -> Bools:
    """Which rows (N) have no step with π_ref(step) < ε; a row without log-probs has one."""
    return np.array([x is not None and bool((x >= np.log(epsilon)).all()) for x in step_logps])


def without(scores: np.ndarray, keep: Bools) -> np.ndarray:
    """Scores with dropped candidates at −∞: chosen only, and then all alike, if none is left."""
    return np.where(keep, scores, -np.inf)


def keep_highest(scores: np.ndarray, dropped: npt.NDArray[np.int64]) -> Bools:
    """Keep all but the ``dropped[p]`` lowest of the candidates of each problem: (P, M), (P)."""
    rank = scores.argsort(axis=1, kind="stable").argsort(axis=1)
    return rank >= dropped[:, None]


def keep_at_random(keep: Bools, alike: Bools, rng: np.random.Generator) -> Bools:
    """Shuffle which candidates of each problem are kept, among those with equal ``alike``.

    With ``alike`` constant as many of each problem are kept as before; with labels as ``alike``
    as many right and as many wrong ones. All (P, M).
    """
    shuffled = keep.copy()
    for value in (False, True):
        for row, kept, group in zip(shuffled, keep, alike == value, strict=True):
            row[group] = rng.permutation(kept[group])
    return shuffled


def only_losses(step_rewards: np.ndarray) -> float:
    """The sum over steps of the rewards below 0: no step can make up for another."""
    return float(np.minimum(step_rewards, 0).sum())


def fall(by_n: Mapping[int, np.ndarray]) -> list[float]:
    """Accuracy at FALL's second N less that at its first, paired by problem, with its interval."""
    return rounded(paired_difference(by_n[FALL[1]], by_n[FALL[0]], resamples=RESAMPLES))


def interventions(
    rows: Dataset,
    ref_steps: Sequence[np.ndarray | None],
    seeds: Sequence[Sequence[np.ndarray | None]],
    seen: set[str],
) -> list[dict[str, Any]]:
    """Best-of-N by sum and by min with candidates dropped, or with rewards changed.

    ``ref_steps`` are log π_ref of the steps of each row, ``seeds`` step rewards of each row by
    several PRMs, ``seen`` the steps that occur in training. Accuracies are means over the seeds.
    """
    grid = candidate_grid(rows)
    correct = np.array(rows["label"])[grid]
    scores = {
        rule: [_scores(rewards, how)[grid] for rewards in seeds]
        for rule, how in ((SUM, np.sum), (MIN, np.min))
    }
    everything = np.ones_like(correct)
    rng = np.random.default_rng(0)
    keeps: list[tuple[str, float | None, list[Bools]]] = [("none", None, [everything])]
    whole = _scores(ref_steps, np.sum)[grid]
    for epsilon in EPSILONS:
        keep = likely(ref_steps, epsilon)[grid]
        draws = {
            "as many at random": everything,
            "as many right and wrong at random": correct,
        }
        keeps += [
            ("a rare step", epsilon, [keep]),
            ("as many rare solutions", epsilon, [keep_highest(whole, (~keep).sum(1))]),
        ]
        keeps += [
            (name, epsilon, [keep_at_random(keep, alike, rng) for _ in range(RANDOM_DRAWS)])
            for name, alike in draws.items()
        ]
    known = np.array([seen.issuperset(steps) for steps in rows["steps"]])
    keeps.append(("a step not in training", None, [known[grid]]))
    found = []
    for rule in scores:
        plain = _mean_accuracy(scores[rule], keeps[0][2], correct)
        for name, smallest, masks in keeps:
            by_n = _mean_accuracy(scores[rule], masks, correct)
            share = {
                "dropped": 100 * float(np.mean([~m for m in masks])),
                "right dropped": 100 * float(np.mean([~m[correct] for m in masks])),
                "emptied": int((~masks[0]).all(1).sum()),
            }
            found.append(_intervention(rule, name, smallest, by_n, plain) | share)
        mean = _scores(average(seeds), np.sum if rule == SUM else np.min)[grid]
        by_n = _mean_accuracy([mean], [everything], correct)
        found.append(_intervention(rule, "none, rewards averaged over seeds", None, by_n, plain))
    losses = [_scores(rewards, only_losses)[grid] for rewards in seeds]
    by_n, plain = (_mean_accuracy(s, [everything], correct) for s in (losses, scores[SUM]))
    found.append(_intervention(SUM, "none, only rewards below 0 counted", None, by_n, plain))
    return found


def average(seeds: Sequence[Sequence[np.ndarray | None]]) -> list[np.ndarray | None]:
    """Step rewards of each row, averaged over the seeds."""
    return [
        None if any(r is None for r in rewards) else np.mean(np.array(rewards), axis=0)
        for rewards in zip(*seeds, strict=True)
    ]


def _scores(rows: Sequence[np.ndarray | None], how: Callable[[np.ndarray], float]) -> np.ndarray:
    return np.array([-np.inf if row is None else how(row) for row in rows])


def _mean_accuracy(
    scores: Sequence[np.ndarray], masks: Sequence[Bools], correct: Bools
) -> dict[int, np.ndarray]:
    """Accuracy per problem in percent, mean over seeds and masks, by N."""
    return {
        n: 100
        * np.mean(
            [best_of_n_accuracy(without(s, m), correct, n) for s in scores for m in masks], axis=0
        )
        for n in NS
    }


def _intervention(
    rule: str,
    name: str,
    epsilon: float | None,
    by_n: Mapping[int, np.ndarray],
    plain: Mapping[int, np.ndarray],
) -> dict[str, Any]:
    first, last = FALL
    falls = [accuracy[last] - accuracy[first] for accuracy in (by_n, plain)]
    return {
        "rule": rule,
        "drop": name,
        "epsilon": epsilon,
        "accuracy": [rounded(mean_interval(by_n[n], resamples=RESAMPLES)) for n in NS],
        "fall": fall(by_n),
        "fall minus plain": rounded(paired_difference(*falls)),
        f"gain at {last}": rounded(paired_difference(by_n[last], plain[last])),
    }


def noise(
    rows: Dataset,
    ref_steps: Sequence[np.ndarray | None],
    seeds: Sequence[Sequence[np.ndarray | None]],
) -> list[dict[str, Any]]:
    """Step rewards by bins of π_ref(step), for valid and wrong operation steps.

    ``mean`` over seeds and steps; ``seed sd``, the standard deviation of one step's reward over
    seeds (root of the mean variance); ``shared sd``, that of the steps' expected rewards around
    ``mean``, which all seeds have in common; ``above 0``, the share of rewards above 0 (%). Steps
    up to and including the first error, each as often as it was drawn.
    """
    problems = {prompt: i for i, prompt in enumerate(dict.fromkeys(rows["prompt"]))}
    columns: dict[str, list[Any]] = {
        key: [] for key in ("problem", "weight", "valid", "chance", "r")
    }
    for index, row in enumerate(rows):
        logps = ref_steps[index]
        if logps is None:
            continue
        rewards = np.array([seed[index] for seed in seeds])  # (K, S)
        for step in steps_up_to_first_error(row["first_error"], len(row["steps"])):
            if "=" in row["steps"][step]:
                columns["problem"].append(problems[row["prompt"]])
                columns["weight"].append(row["weight"])
                columns["valid"].append(row["valid"][step])
                columns["chance"].append(min(np.exp(logps[step]), 1.0))
                columns["r"].append(rewards[:, step])
    table = {key: np.array(values) for key, values in columns.items()}
    found = []
    for valid in (True, False):
        for low, high in pairwise(BINS):
            part = (table["valid"] == valid) & (table["chance"] > low) & (table["chance"] <= high)
            if table["weight"][part].sum() >= 50:
                own = {key: values[part] for key, values in table.items()}
                found.append({"valid": valid, "low": low, "high": high} | _noise_of(own))
    return found


def _noise_of(part: Mapping[str, np.ndarray]) -> dict[str, Any]:
    rewards, weight = part["r"], part["weight"]  # (J, K), (J)
    mean, variance = rewards.mean(1), rewards.var(1, ddof=1)
    quantities = {
        "mean": mean,
        "variance": variance,
        "square": mean**2 - variance / rewards.shape[1],  # unbiased for the square of the mean
        "above": 100 * (rewards > 0).mean(1),
    }
    names, numbers = np.unique(part["problem"], return_inverse=True)
    sums = {k: np.bincount(numbers, weights=weight * v) for k, v in quantities.items()}
    counts = np.bincount(numbers, weights=weight)
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
    resamples = np.vstack([np.ones(len(names)), drawn])  # the first is the sample itself
    of = {key: resamples @ values / (resamples @ counts) for key, values in sums.items()}
    measured = {
        "mean": of["mean"],
        "seed sd": np.sqrt(of["variance"]),
        "shared sd": np.sqrt(np.maximum(of["square"] - of["mean"] ** 2, 0)),
        "above 0": of["above"],
    }
    return {"steps": int(weight.sum())} | {
        name: [round(float(x), 3) for x in (v[0], *np.quantile(v[1:], (0.025, 0.975)))]
        for name, v in measured.items()
    }


# ---- Summaries -------------------------------------------------------------------------------


def mean_over_seeds(runs: Sequence[dict[str, Any]], trained: str, tested: str) -> Accuracy:
    """Accuracy per problem (P), in percent, averaged over the seeds, by rule and N."""
    own = [run["tested"][tested] for run in runs if run["trained"] == trained]
    return {
        rule: {n: np.mean([seed[rule][str(n)] for seed in own], axis=0) for n in NS}
        for rule in own[0]
    }


def summarise(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Curves and falls with intervals over problems, and the differences of PAIRS, in points."""
    found: list[dict[str, Any]] = []
    for trained, (_, worlds) in WORLDS.items():
        for tested in worlds:
            accuracy = mean_over_seeds(runs, trained, tested)
            where = {"trained": trained, "tested": tested}
            curves = {}
            for rule, by_n in accuracy.items():
                best = max(NS, key=lambda n, by_n=by_n: by_n[n].mean())  # type: ignore[misc]
                curves[rule] = {
                    "accuracy": [rounded(mean_interval(by_n[n])) for n in NS],
                    "fall": fall(by_n),
                    "best N": best,
                    "fall from best": rounded(paired_difference(by_n[NS[-1]], by_n[best])),
                }
            differences = [
                {
                    "of": [a, b],
                    "difference": [
                        rounded(paired_difference(accuracy[a][n], accuracy[b][n])) for n in NS
                    ],
                }
                for a, b in PAIRS
            ]
            found.append(where | {"rules": curves, "differences": differences})
    return found


def tolerances(runs: Sequence[dict[str, Any]], again: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Twice the largest difference, in points, that another attention made, by world and kind.

    Over the rules of TRAINED, all N, on the world's own test rollouts. At least MIN_TOLERANCE.
    """
    found = {}
    for run in again:
        world = run["trained"]
        (first,) = (r for r in runs if (r["trained"], r["seed"]) == (world, run["seed"]))
        ours, theirs = (r["tested"][world] for r in (first, run))
        for kind, rules in TRAINED.items():
            largest = max(
                abs(np.mean(ours[rule][str(n)]) - np.mean(theirs[rule][str(n)]))
                for rule in rules
                for n in NS
            )
            found[f"{world}, {kind}"] = max(MIN_TOLERANCE, round(2 * float(largest), 2))
    return found


def _means(run: dict[str, Any]) -> dict[str, Any]:
    """A run as the result file keeps it: accuracies by N averaged over problems, no steps."""
    tested = {
        world: {
            rule: [round(float(np.mean(by_n[str(n)])), 2) for n in NS]
            for rule, by_n in rules.items()
        }
        for world, rules in run["tested"].items()
    }
    return {k: v for k, v in run.items() if k not in ("step rewards", "keep steps")} | {
        "tested": tested
    }


def reference_steps(rows: Dataset, generator: str) -> list[np.ndarray | None]:
    """log π_ref of each step of each row, None for a row outside this world."""
    folder = checkpoint_path(generator)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    scored = score_rows(ImplicitPRM(model, model, tokenizer, 1.0, ARITHMETIC_FORMAT), rows)
    return [None if s is None else step_scores(s)["log π_ref alone"] for s in scored]


def main(
    workers: Annotated[int, typer.Option(help="processes, one core each", min=1)] = 2,
) -> None:
    """Run the whole experiment and write its result file."""
    setting = load_result("objectives")["config"]["chosen"]["ce"]
    config: dict[str, Any] = {
        "worlds": WORLDS,
        "seeds": SEEDS,
        "epochs": EPOCHS,
        "setting": setting,
        "other settings": OTHER_SETTINGS,
        "ns": NS,
        "epsilons": EPSILONS,
        "bins": BINS,
    }
    grid = [
        {"trained": world, "tested": tested, "seed": seed, "keep steps": world == DEEP} | setting
        for seed in SEEDS
        for world, (_, tested) in WORLDS.items()
    ]
    first = [cell | {"tested": [cell["trained"]], "keep steps": False} for cell in grid[:4]]
    # By another implementation of attention, as another machine might.
    elsewhere = [cell | {"attention": "eager"} for cell in first]
    (deep,) = (cell for cell in first if cell["trained"] == DEEP)
    others = [deep | other for other in OTHER_SETTINGS]
    measured = run_cells("best_of_n", config, [*grid, *elsewhere, *others], measure, workers)
    runs, again = measured[: len(grid)], measured[len(grid) : len(grid) + len(elsewhere)]
    rows = _test_rows(DEEP)
    ref_steps = reference_steps(rows, WORLDS[DEEP][0])
    seeds = [
        [None if r is None else np.array(r) for r in run["step rewards"]]
        for run in runs
        if run["trained"] == DEEP
    ]
    seen = {step for steps in load_rollouts(DEEP, "train")["steps"] for step in steps}
    cells = [{"part": "run"} | _means(run) for run in runs]
    cells += [{"part": "other setting"} | _means(run) for run in measured[-len(others) :]]
    cells += [{"part": "summary"} | cell for cell in summarise(runs)]
    cells += [
        {"part": "intervention"} | cell for cell in interventions(rows, ref_steps, seeds, seen)
    ]
    cells += [{"part": "noise"} | cell for cell in noise(rows, ref_steps, seeds)]
    save_result(
        "best_of_n",
        "python -m implicitprm.experiments.best_of_n",
        config,
        cells,
        tolerances(runs, again),
        sum(cell["seconds"] for cell in measured),
    )
    forget_cells("best_of_n", config)


if __name__ == "__main__":
    typer.run(main)
