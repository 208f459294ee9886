"""Chapter 11: ``python -m implicitprm.experiments.where_is_the_error`` (half an hour of one core).

Which errors a reward model finds, and why: the first-error protocol with a threshold from another
split, the errors by kind, depth and operation, lucky solutions, the tokens inside a wrong step, q
against the true Q, and the published criticism (is it an outcome model in disguise, does it like
length, does it lean on surface tokens, does it know anything about facts that it has never seen).

The log-ratio under three objectives, and two explicit heads: an outcome reward model and one on
Math-Shepherd's soft labels, with the hyper-parameters that chapters 06 and 08 chose on the
validation split. A cell keeps the scores of every step; all that is said about them is computed by
``summarise``, with intervals over problems after the mean over seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
import typer
from torch import nn

from implicitprm.arithmetic import (
    load_rollouts,
)
from implicitprm.arithmetic.measure import score_rows
from implicitprm.experiments import baselines, objectives
from implicitprm.experiments.error_draws import (
    CARRIED,
    Draws,
    Judged,
    N,
    categories,
    ceiling_draws,
    f1_draws,
    first_error_draws,
    length_draws,
    lucky_draws,
    met_draws,
    minimum_draws,
    own_threshold,
    surface_draws,
    taxonomy_draws,
    token_draws,
    triple,
    truth_draws,
    unseen_draws,
    without_reference,
)
from implicitprm.experiments.error_sets import (
    EARLY_PROBLEMS,
    SETS,
    operations,
    set_rows,
    step_truths,
)
from implicitprm.experiments.grid import forget_cells, run_cells
from implicitprm.experiments.runs import (
    be_quiet,
    reference_scorer,
    score_rows_by_steps,
    train_prm,
    train_steps,
)
from implicitprm.experiments.store import load_result, save_result
from implicitprm.rewards import ImplicitPRM, ScoredSolution

SEEDS = {"CE": 4, "KTO": 3, "DPO": 3, "ORM": 3, "head, Math-Shepherd, soft": 3}
LOG_RATIOS = ("CE", "KTO", "DPO")
HEADS = ("ORM", "head, Math-Shepherd, soft")
REFERENCE = "log π_ref"
#: The policy that CE leaves behind, read without its reference.
POLICY = "log π_θ (CE)"
METHODS = (*LOG_RATIOS, *HEADS, POLICY, REFERENCE)
RIVALS = ("ORM", REFERENCE)
#: Trained again with another attention.
AGAIN = ("CE", "ORM")
MIN_TOLERANCE = 0.25
#: Sets whose single tokens are kept, up to the first error.
TOKEN_SETS = ("test", "early")


# --- the cells --------------------------------------------------------------------------------


def train(cell: Mapping[str, Any], max_steps: int = -1) -> ImplicitPRM | nn.Module:
    """Train the PRM or the head of a cell, by the hyper-parameters of chapters 06 and 08."""
    be_quiet()
    method, attention = cell["method"], cell.get("attention", "sdpa")
    if method in LOG_RATIOS:
        objective = objectives.VARIANTS[method][0]
        return train_prm(
            objectives.prepared(method),
            objective=objective,
            seed=cell["seed"],
            attention=attention,
            max_steps=max_steps,
            **load_result("objectives")["config"]["chosen"][objective],
        )
    architecture, source = baselines.STEP_METHODS[method]
    rows = load_rollouts("reasoner", "train")
    return train_steps(
        rows,
        baselines.step_labels(source, rows),
        architecture,
        load_result("baselines")["config"]["chosen"][method],
        cell["seed"],
        attention=attention,
    )


@cache
def reference_logps(name: str) -> list[ScoredSolution | None]:
    """The rows of a set under the reference alone: its ``policy_logps`` are log π_ref."""
    return score_rows(reference_scorer(), set_rows(name))


def token_rewards(prm: ImplicitPRM, name: str) -> list[tuple[np.ndarray, tuple[int, ...]] | None]:
    """The reward of every token of each row of a set, and the ends of its steps."""
    policy = ImplicitPRM(prm.policy, None, prm.tokenizer, 1.0, prm.format)
    found: list[tuple[np.ndarray, tuple[int, ...]] | None] = []
    for ours, theirs in zip(score_rows(policy, set_rows(name)), reference_logps(name), strict=True):
        if ours is None or theirs is None:
            found.append(None)
        else:
            rewards = prm.beta * (ours.policy_logps - theirs.policy_logps)
            found.append((rewards, ours.step_ends))
    return found


def measure_prm(prm: ImplicitPRM) -> dict[str, Any]:
    """Step rewards on every set, token rewards on TOKEN_SETS."""
    return _kept({name: token_rewards(prm, name) for name in SETS})


def measure_reference() -> dict[str, Any]:
    """log π_ref in the place of the reward."""
    return _kept(
        {
            name: [
                None if s is None else (s.policy_logps, s.step_ends) for s in reference_logps(name)
            ]
            for name in SETS
        }
    )


def _kept(
    tokens: Mapping[str, Sequence[tuple[np.ndarray, tuple[int, ...]] | None]],
) -> dict[str, Any]:
    """Sums over steps of all sets; tokens of TOKEN_SETS step by step, up to the first error."""
    steps, kept = {}, {}
    for name, of_rows in tokens.items():
        steps[name] = [
            None if row is None else [round(float(part.sum()), 4) for part in _parts(*row)]
            for row in of_rows
        ]
        if name in TOKEN_SETS:
            firsts = set_rows(name)["first_error"]
            kept[name] = [
                None
                if row is None
                else [
                    np.round(part.astype(float), 4).tolist()
                    for part in _parts(*row)[: first + 1 or None]
                ]
                for row, first in zip(of_rows, firsts, strict=True)
            ]
    return {"steps": steps, "tokens": kept}


def _parts(values: np.ndarray, ends: Sequence[int]) -> list[np.ndarray]:
    return [values[start:end] for start, end in pairwise((0, *ends))]


def measure_head(head: nn.Module) -> dict[str, Any]:
    """The logit of every step of every set."""
    steps = {
        name: [
            None if logits is None else [round(float(z), 4) for z in logits]
            for logits in score_rows_by_steps(head, set_rows(name))
        ]
        for name in SETS
    }
    return {"steps": steps}


def measure(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Train the method of a cell and score every step of every set."""
    be_quiet()
    if cell["method"] == REFERENCE:
        return measure_reference()
    trained = train(cell)
    if isinstance(trained, ImplicitPRM):
        return measure_prm(trained)
    return measure_head(trained)


def grid_cells() -> list[dict[str, Any]]:
    """Seed by seed, so that a grid that is cut short has every method."""
    return [{"method": REFERENCE, "seed": 0}] + [
        {"method": method, "seed": seed}
        for seed in range(max(SEEDS.values()))
        for method, seeds in SEEDS.items()
        if seed < seeds
    ]


# --- the result -------------------------------------------------------------------------------

SECTIONS: dict[str, Callable[[Judged], Draws]] = {
    "first error": first_error_draws,
    "taxonomy": lambda judged: taxonomy_draws(judged, "test"),
    "taxonomy, early": lambda judged: taxonomy_draws(judged, "early"),
    "met": met_draws,
    "lucky": lucky_draws,
    "tokens": token_draws,
    "truth": truth_draws,
    "minimum": minimum_draws,
    "length": length_draws,
    "surface": surface_draws,
    "unseen": unseen_draws,
}
#: What methods are compared in; of tokens and of the shares of uniform draws there is no question.
COMPARED = (
    "first error",
    "taxonomy",
    "taxonomy, early",
    "met",
    "lucky",
    "truth",
    "minimum",
    "surface",
    "unseen",
)


def analyse(judged: Judged, section: str) -> Draws:
    """Everything that a section says about one model."""
    if section == "tokens" and judged.tokens is None:
        return {}
    return SECTIONS[section](judged)


def headline(judged: Judged) -> dict[str, float]:
    """The numbers by which a recomputed model is compared with the stored one, in points.

    First-error F1 by the best threshold of each set: the F1 of a carried one can jump, because on
    validation far-away thresholds are nearly equally good.
    """
    draws = first_error_draws(judged) | {
        f"unseen: {key}": values for key, values in unseen_draws(judged).items()
    }
    draws |= {f"minimum: {key}": values for key, values in minimum_draws(judged).items()}
    draws |= {f"truth: {key}": values for key, values in truth_draws(judged).items()}
    named = {
        "test: F1, own threshold": 100,
        "strong: F1, own threshold": 100,
        "early: F1, own threshold": 100,
        "unseen: seen: AUROC": 100,
        "unseen: unseen: AUROC": 100,
        "minimum: clean: answer": 100,
        "minimum: wrong: at the first error": 100,
        f"minimum: best of {N}: min": 1,
        "truth: pooled: Q": 100,
        "truth: within: Q": 100,
    }
    return {name: round(float(scale * draws[name][0]), 2) for name, scale in named.items()}


def judged_runs(measured: Sequence[Mapping[str, Any]]) -> list[tuple[str, int, Judged]]:
    """Method, seed and model of every measured cell, and the policies of CE without reference."""
    (reference,) = (cell for cell in measured if cell["method"] == REFERENCE)
    runs = [(cell["method"], cell["seed"], Judged.of_run(cell)) for cell in measured]
    beta = load_result("objectives")["config"]["chosen"]["ce"]["beta"]
    return runs + [
        (POLICY, cell["seed"], without_reference(cell, reference, beta))
        for cell in measured
        if cell["method"] == "CE"
    ]


def summarise_section(
    runs: Sequence[tuple[str, int, Judged]], section: str
) -> list[dict[str, Any]]:
    """By method the mean over seeds with its interval, and the differences to RIVALS."""
    means: dict[str, Draws] = {}
    for method in METHODS:
        found = [analyse(judged, section) for name, _, judged in runs if name == method]
        if found and found[0]:
            means[method] = {
                key: np.mean([draws[key] for draws in found], axis=0) for key in found[0]
            }
    cells: list[dict[str, Any]] = [
        {"part": "summary", "section": section, "method": method}
        | {"rows": {key: triple(draws) for key, draws in of_method.items()}}
        for method, of_method in means.items()
    ]
    if section in COMPARED:
        cells += [
            {"part": "difference", "section": section, "method": method, "minus": rival}
            | {"rows": _differences(means[method], means[rival])}
            for method in means
            for rival in RIVALS
            if rival in means and method != rival
        ]
    return cells


def summarise(runs: Sequence[tuple[str, int, Judged]]) -> list[dict[str, Any]]:
    """Every section, and the ceiling of the agreement with the true values."""
    cells = [cell for section in SECTIONS for cell in summarise_section(runs, section)]
    ceiling = {key: triple(draws) for key, draws in ceiling_draws().items()}
    return [*cells, {"part": "summary", "section": "truth", "method": "ceiling", "rows": ceiling}]


#: What differences of methods leave out: scores have units of their own, and the rest is detail.
UNITS = ("score", "uniform", "alarms", "own threshold", "step ", " left", "before")


def _differences(ours: Draws, theirs: Draws) -> dict[str, list[float]]:
    return {
        key: triple(ours[key] - theirs[key])
        for key in ours
        if key in theirs and not any(word in key for word in UNITS)
    }


def count_cells() -> list[dict[str, Any]]:
    """How many errors each category of ``test`` and ``early`` has, with how many problems."""
    cells = []
    for name in ("test", "early"):
        frame = operations(step_truths(name))
        rows = {}
        for category, (wrong, valid) in categories(frame).items():
            errors, others = frame[wrong & ~frame["valid"]], frame[valid & frame["valid"]]
            rows[category] = {
                "errors": int(errors["weight"].sum()),
                "valid": int(others["weight"].sum()),
                "problems": int(errors["problem"].nunique()),
            }
        cells.append({"part": "counts", "set": name, "rows": rows})
    return cells


def run_summary(method: str, seed: int, judged: Judged, part: str = "run") -> dict[str, Any]:
    """What the result file keeps of one run: its headline, its thresholds by set, and the F1 (%)
    that the threshold of validation has on each set."""
    thresholds = {"validation": judged.threshold} | {
        name: own_threshold(judged, name) for name in CARRIED
    }
    carried = {name: f1_draws(judged, name, judged.threshold)["F1"][0] for name in CARRIED}
    return {
        "part": part,
        "method": method,
        "seed": seed,
        "headline": headline(judged),
        "thresholds": {name: round(value, 3) for name, value in thresholds.items()},
        "carried": {name: round(100 * float(value), 2) for name, value in carried.items()},
    }


def tolerances(
    runs: Sequence[tuple[str, int, Judged]], again: Sequence[tuple[str, int, Judged]]
) -> dict[str, float]:
    """Twice the largest difference of a headline, in points, that another attention made.

    By method; at least MIN_TOLERANCE.
    """
    found: dict[str, float] = {}
    for method, seed, other in again:
        (first,) = (judged for name, number, judged in runs if (name, number) == (method, seed))
        ours, theirs = headline(first), headline(other)
        largest = max(abs(ours[name] - theirs[name]) for name in ours)
        found[method] = max(MIN_TOLERANCE, round(2 * largest, 2))
    return found


def main(
    workers: Annotated[int, typer.Option(help="processes, one core each", min=1)] = 2,
) -> None:
    """Run the whole experiment and write its result file."""
    chosen = {name: load_result(name)["config"]["chosen"] for name in ("objectives", "baselines")}
    config: dict[str, Any] = {
        "sets": SETS,
        "early_problems": EARLY_PROBLEMS,
        "chosen": {
            "objectives": chosen["objectives"],
            "baselines": {method: chosen["baselines"][method] for method in HEADS},
        },
    }
    elsewhere = [{"method": method, "seed": 0, "attention": "eager"} for method in AGAIN]
    grid = grid_cells()
    measured = run_cells("where_is_the_error", config, [*grid, *elsewhere], measure, workers)
    runs = judged_runs(measured[: len(grid)])
    again = [(c["method"], c["seed"], Judged.of_run(c)) for c in measured[len(grid) :]]
    cells = count_cells()
    cells += [run_summary(*run) for run in runs]
    cells += [run_summary(*run, part="again") for run in again]
    cells += summarise(runs)
    save_result(
        "where_is_the_error",
        "python -m implicitprm.experiments.where_is_the_error",
        config | {"seeds": SEEDS},
        cells,
        tolerances(runs, again),
        sum(cell["seconds"] for cell in measured),
    )
    forget_cells("where_is_the_error", config)


if __name__ == "__main__":
    typer.run(main)
