"""Chapter 14: ``python -m implicitprm.experiments.beam_search`` (about 15 minutes of one core).

Step-level beam search in the arithmetic world against best-of-N at equal tokens. Guides are the
step rewards of CE-trained PRMs (three seeds, the β and learning rate that chapter 06 validated),
and two that need no training: log π_ref, and chance. Width and expansions of each guide and budget
are chosen on validation problems, with one PRM; chance has those of the summed reward.

Tokens are what the reasoner samples. A search's tokens, divided by those of one whole solution, are
the N of best-of-N that costs as much; N is no whole number, so accuracy is interpolated between the
two next to it, as if N were drawn with the right mean. Best-of-N and votes choose among the shipped
rollouts of the same model and sampler.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Annotated, Any

import numpy as np
import typer
from datasets import Dataset

from implicitprm.arithmetic import ARITHMETIC_FORMAT, load_rollouts
from implicitprm.arithmetic.collect import MIN_P, problems_of
from implicitprm.arithmetic.measure import answer_scores, candidate_grid, score_rows
from implicitprm.arithmetic.problems import check_solution
from implicitprm.beam_search import Guide, Search, beam_search, step_guide
from implicitprm.evaluation import (
    best_of_n_accuracy,
    mean_interval,
    paired_difference,
    pass_at_n,
    vote_accuracy,
)
from implicitprm.experiments.grid import forget_cells, run_cells
from implicitprm.experiments.runs import EPOCHS, be_quiet, reference_scorer, train_prm
from implicitprm.experiments.store import load_result, rounded, save_result
from implicitprm.rewards import ImplicitPRM
from implicitprm.steps import Solution

SEEDS = (0, 1, 2)
#: Candidates of the first step → the (width, expansions) that are tried.
SHAPES: dict[int, tuple[tuple[int, int], ...]] = {
    4: ((1, 4), (2, 2)),
    16: ((1, 16), (2, 8), (4, 4)),
}
#: The first so many of the validation problems.
VALIDATED = 100
SUM, MIN = "reward, sum over steps", "reward, min over steps"
LIKELIHOOD, CHANCE = "log π_ref alone", "chance"
GUIDES = (SUM, MIN, LIKELIHOOD, CHANCE)
MAJORITY, VOTE, ORACLE = "majority vote", "vote weighted by reward", "oracle"
#: The longest solutions have 8 operations and an answer; a step has 6 tokens.
MAX_STEPS = 12
SAMPLING = replace(MIN_P, max_new_tokens=16)
MIN_TOLERANCE = 0.5


# ---- Searching -------------------------------------------------------------------------------


def guides(prm: ImplicitPRM, seed: int) -> dict[str, Guide]:
    """The four guides by name; a text that the tokenizer cannot read again is the worst."""
    rng = np.random.default_rng(seed)
    found: dict[str, Guide] = {
        SUM: step_guide(prm, "sum"),
        MIN: step_guide(prm, "min"),
        LIKELIHOOD: step_guide(reference_scorer(), "sum"),
        CHANCE: lambda solutions: rng.random(len(solutions)).tolist(),
    }
    return {name: _inside_world(guide, prm) for name, guide in found.items()}


def _inside_world(guide: Guide, prm: ImplicitPRM) -> Guide:
    words = prm.tokenizer.get_vocab()

    def scores(solutions: Sequence[Solution]) -> list[float]:
        known = [
            all(word in words for step in s.steps for word in re.findall(r"\d+", step))
            for s in solutions
        ]
        given = iter(guide([s for s, inside in zip(solutions, known, strict=True) if inside]))
        return [next(given) if inside else -np.inf for inside in known]

    return scores


def search(
    prm: ImplicitPRM, split: str, guide: Guide, shape: tuple[int, int], seed: int
) -> dict[str, list[int]]:
    """Search the problems of a split: whether each answer is right, and the tokens (P)."""
    problems = problems_of(split)[: VALIDATED if split == "validation" else None]
    assert prm.reference is not None
    found = beam_search(
        prm.reference,
        prm.tokenizer,
        [problem.prompt for problem in problems],
        guide,
        width=shape[0],
        expansions=shape[1],
        max_steps=MAX_STEPS,
        sampling=SAMPLING,
        format=ARITHMETIC_FORMAT,
        seed=seed,
    )
    right = [_is_right(problem, result) for problem, result in zip(problems, found, strict=True)]
    return {"right": right, "tokens": [result.tokens for result in found]}


def _is_right(problem: Any, result: Search) -> int:
    best = result.best
    steps = ARITHMETIC_FORMAT.split(best.text)
    return int(bool(best.text.strip()) and check_solution(problem, steps, best.finished).correct)


def train(cell: Mapping[str, Any]) -> ImplicitPRM:
    """Train the PRM of a cell."""
    be_quiet()
    rows = load_rollouts("reasoner", "train").select_columns(
        ["prompt", "completion", "label", "weight", "finished"]
    )
    return train_prm(
        rows,
        beta=cell["beta"],
        learning_rate=cell["learning_rate"],
        seed=cell["seed"],
        attention=cell.get("attention", "sdpa"),
    )


def validate(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Accuracy on the validation problems, in percent, by guide, budget and shape."""
    prm = train(cell)
    found: list[dict[str, Any]] = []
    for name, guide in guides(prm, cell["seed"]).items():
        if name == CHANCE:
            continue
        for budget, shapes in SHAPES.items():
            for shape in shapes:
                result = search(prm, "validation", guide, shape, cell["seed"])
                found.append(
                    {
                        "guide": name,
                        "budget": budget,
                        "shape": list(shape),
                        "accuracy": round(100 * float(np.mean(result["right"])), 2),
                        "tokens": round(float(np.mean(result["tokens"])), 1),
                    }
                )
    return {"searches": found}


def choose(searches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The shape with the highest validation accuracy, of each guide and budget."""
    chosen = []
    for guide in GUIDES:
        for budget in SHAPES:
            judged = SUM if guide == CHANCE else guide
            own = [s for s in searches if (s["guide"], s["budget"]) == (judged, budget)]
            best = max(own, key=lambda s: s["accuracy"])
            chosen.append({"guide": guide, "budget": budget, "shape": best["shape"]})
    return chosen


def measure(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Every chosen search on the test problems, and what chooses among the shipped rollouts."""
    prm = train(cell)
    by_name = guides(prm, cell["seed"])
    searches = [
        chosen | search(prm, "test", by_name[chosen["guide"]], chosen["shape"], cell["seed"])
        for chosen in cell["chosen"]
    ]
    rows = _in_order(load_rollouts("reasoner", "test"), "test")
    scores = answer_scores(score_rows(prm, rows))
    kept = {name: scores[name].tolist() for name in (SUM, MIN, LIKELIHOOD)}
    return {"searches": searches, "scores": kept}


def _in_order(rows: Dataset, split: str) -> Dataset:
    """Rollouts in the order of the problems of their split."""
    place = {problem.prompt: index for index, problem in enumerate(problems_of(split))}
    return rows.select(np.argsort([place[p] for p in rows["prompt"]], kind="stable").tolist())


# ---- Comparing at equal tokens ---------------------------------------------------------------


def tokens_of(completion: str, finished: bool) -> int:
    """The tokens that the reasoner sampled for a text, the end-of-text token included.

    A number of this world is one token; a longer one was written as several.
    """
    return len(re.findall(r"\d{1,2}|\D", completion)) + finished


def at(accuracy: Callable[[int], np.ndarray], n: float) -> np.ndarray:
    """Accuracy per problem (P) at an N that is no whole number, between those next to it."""
    low = int(n)
    share = n - low
    return accuracy(low) if share == 0 else (1 - share) * accuracy(low) + share * accuracy(low + 1)


@cache
def _candidates() -> dict[str, Any]:
    rows = _in_order(load_rollouts("reasoner", "test"), "test")
    grid = candidate_grid(rows)  # (P, M)
    tokens = [tokens_of(r["completion"], r["finished"]) for r in rows]
    answers = [steps[-1] if steps[-1].startswith("#") else None for steps in rows["steps"]]
    return {
        "grid": grid,
        "correct": np.array(rows["label"])[grid],
        "tokens": np.array(tokens)[grid],
        "answers": np.array(answers, dtype=object)[grid].tolist(),
    }


def equal_n(tokens: np.ndarray) -> float:
    """The N of best-of-N that samples as many tokens as searches with these (P) do."""
    return float(tokens.sum() / _candidates()["tokens"].mean(axis=1).sum())


def among_rollouts(scores: Mapping[str, Sequence[float]], n: float) -> dict[str, np.ndarray]:
    """Accuracy per problem (P), in percent, of every rule that chooses among N rollouts."""
    grid, correct, answers = (_candidates()[key] for key in ("grid", "correct", "answers"))
    values = {name: np.array(of_rows)[grid] for name, of_rows in scores.items()}
    found = {
        name: at(lambda k, v=v: best_of_n_accuracy(v, correct, k), n)  # type: ignore[misc]
        for name, v in values.items()
    }
    found[CHANCE] = correct.mean(axis=1)
    found[MAJORITY] = at(lambda k: vote_accuracy(answers, correct, k), n)
    found[VOTE] = at(lambda k: vote_accuracy(answers, correct, k, values[SUM]), n)
    found[ORACLE] = at(lambda k: pass_at_n(correct, k), n)
    return {name: 100 * accuracy for name, accuracy in found.items()}


def summarise(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each chosen search, its mean over the seeds, and its differences paired by problem.

    ``minus``: against what chooses among as many tokens of whole solutions, by the guide's own
    score, by votes, and by an oracle, and against the searches of the other guides.
    """
    searched: dict[tuple[str, int], np.ndarray] = {}
    rivals: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    about: dict[tuple[str, int], dict[str, Any]] = {}
    for index, first in enumerate(runs[0]["searches"]):
        key = (first["guide"], first["budget"])
        own = [run["searches"][index] for run in runs]
        searched[key] = 100 * np.mean([s["right"] for s in own], axis=0)
        tokens = [np.array(s["tokens"]) for s in own]
        ns = [equal_n(t) for t in tokens]
        chosen = [among_rollouts(run["scores"], n) for run, n in zip(runs, ns, strict=True)]
        rivals[key] = {name: np.mean([c[name] for c in chosen], axis=0) for name in chosen[0]}
        about[key] = {"tokens": round(float(np.mean(tokens)), 1), "n": round(float(np.mean(ns)), 2)}
    found = []
    for key, accuracy in searched.items():
        guide, budget = key
        against = {
            f"best of N by {guide}": rivals[key][guide],
            MAJORITY: rivals[key][MAJORITY],
            VOTE: rivals[key][VOTE],
            ORACLE: rivals[key][ORACLE],
        } | {f"search by {other}": searched[other, budget] for other in GUIDES if other != guide}
        found.append(
            {"guide": guide, "budget": budget}
            | about[key]
            | {
                "accuracy": rounded(mean_interval(accuracy)),
                "rivals": {name: round(float(v.mean()), 2) for name, v in against.items()},
                "minus": {
                    name: rounded(paired_difference(accuracy, v)) for name, v in against.items()
                },
            }
        )
    return found


def _means(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run as the result file keeps it: averaged over problems."""
    searches = [
        {key: search[key] for key in ("guide", "budget", "shape")}
        | {
            "accuracy": round(100 * float(np.mean(search["right"])), 2),
            "tokens": round(float(np.mean(search["tokens"])), 1),
        }
        for search in run["searches"]
    ]
    left_out = ("searches", "scores", "chosen")
    return {k: v for k, v in run.items() if k not in left_out} | {"searches": searches}


def tolerance(first: Mapping[str, Any], again: Mapping[str, Any]) -> float:
    """Twice the largest difference, in points, that another attention made; at least
    MIN_TOLERANCE."""
    pairs = zip(_means(first)["searches"], _means(again)["searches"], strict=True)
    return max(
        MIN_TOLERANCE, round(2 * max(abs(a["accuracy"] - b["accuracy"]) for a, b in pairs), 2)
    )


def main(
    workers: Annotated[int, typer.Option(help="processes, one core each", min=1)] = 2,
) -> None:
    """Run the whole experiment and write its result file."""
    setting = load_result("objectives")["config"]["chosen"]["ce"]
    config: dict[str, Any] = {
        "seeds": SEEDS,
        "epochs": EPOCHS,
        "setting": setting,
        "shapes": {str(budget): shapes for budget, shapes in SHAPES.items()},
        "guides": GUIDES,
        "validation problems": VALIDATED,
        "max steps": MAX_STEPS,
    }
    (validated,) = run_cells(
        "beam_search-validation", config, [{"seed": SEEDS[0]} | setting], validate, workers
    )
    chosen = choose(validated["searches"])
    tried, config = config, config | {"chosen": chosen}
    grid = [{"seed": seed, "chosen": chosen} | setting for seed in SEEDS]
    # By another implementation of attention, as another machine might.
    elsewhere = grid[0] | {"attention": "eager"}
    measured = run_cells("beam_search", config, [*grid, elsewhere], measure, workers)
    runs, again = measured[:-1], measured[-1]
    cells = [{"part": "validation"} | one for one in validated["searches"]]
    cells += [{"part": "run"} | _means(run) for run in runs]
    cells += [{"part": "summary"} | one for one in summarise(runs)]
    save_result(
        "beam_search",
        "python -m implicitprm.experiments.beam_search",
        config,
        cells,
        tolerance(runs[0], again),
        sum(cell["seconds"] for cell in (validated, *measured)),
    )
    forget_cells("beam_search-validation", tried)
    forget_cells("beam_search", config)


if __name__ == "__main__":
    typer.run(main)
