"""Tables for scored data sets: what ``implicitprm evaluate`` prints.

Each table puts the trained reward beside what is free: the length, the log-probabilities of either
model alone, the source of the solution, and chance.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from datasets import Dataset
from rich.table import Table
from scipy.stats import bootstrap

from implicitprm.data import extract_answer
from implicitprm.evaluation import (
    Interval,
    auroc_interval,
    best_of_n_accuracy,
    choose_threshold,
    first_error,
    mean_interval,
    paired_difference,
    pass_at_n,
    vote_accuracy,
)
from implicitprm.selection import AGGREGATIONS, aggregate
from implicitprm.steps import response_text

RESAMPLES = 1000
#: Numbers of candidates of the paper's Table 1 (arXiv 2412.01981).
NS = (4, 16, 64)
MAJORITY = "majority vote"
STEP_SCORES = {
    "step reward": "step_rewards",
    "q (running sum)": "q_values",
    "log π_θ of the step": "policy_step_logps",
    "log π_ref of the step": "ref_step_logps",
}
#: ProcessBench F1 (%) of step scorers by split as arXiv 2501.07301 prints it; their thresholds were
#: chosen on gsm8k.
PROCESSBENCH_SPLITS = ("gsm8k", "math", "olympiadbench", "omnimath")
PROCESSBENCH_F1: dict[str, tuple[float, float, float, float]] = {
    "Math-Shepherd-PRM-7B": (47.9, 29.5, 24.8, 23.8),
    "RLHFlow-PRM-Mistral-8B": (50.4, 33.4, 13.8, 15.8),
    "RLHFlow-PRM-Deepseek-8B": (38.8, 33.8, 16.9, 16.9),
    "Skywork-PRM-7B": (70.8, 53.6, 22.9, 21.0),
    "EurusPRM-Stage1": (44.3, 35.6, 21.7, 23.1),
    "EurusPRM-Stage2": (47.3, 35.7, 21.2, 20.9),
    "Qwen2.5-Math-7B-Math-Shepherd": (62.5, 31.6, 13.7, 7.7),
    "Qwen2.5-Math-7B-PRM800K": (68.2, 62.6, 50.7, 44.3),
    "Qwen2.5-Math-PRM-7B": (82.4, 77.6, 67.5, 66.3),
}


def _outcome_predictors(rows: Dataset) -> dict[str, np.ndarray]:
    """One score per scored solution (N) by each predictor of its outcome; higher means right."""
    return {
        "outcome reward (sum)": np.array(rows["outcome"]),
        "outcome reward (min step)": np.array([min(steps) for steps in rows["step_rewards"]]),
        "log π_θ": np.array([sum(steps) for steps in rows["policy_step_logps"]]),
        "log π_ref": np.array([sum(steps) for steps in rows["ref_step_logps"]]),
        "log π_ref per token": np.array(
            [
                sum(steps) / ends[-1]
                for steps, ends in zip(rows["ref_step_logps"], rows["step_ends"], strict=True)
            ]
        ),
        "shorter": -np.array([ends[-1] for ends in rows["step_ends"]]),
    }


def outcome_report(rows: Dataset, group: str | None, seed: int) -> Table:
    """AUROC of each predictor of the outcome, with 95% intervals over prompts.

    A row counts as often as its ``weight`` says, once where there is none. With ``group``, a column
    name, also within each of its values and their mean, and the group itself as a predictor: the
    share of right answers of the group in the other half of the prompts.
    """
    labels, counts = np.array(rows["label"], dtype=bool), _counts(rows)
    problems = _numbered(rows["prompt"])
    predictors = _outcome_predictors(rows)
    parts = {"all": np.ones(len(rows), dtype=bool)}
    if group is not None:
        groups = np.array(rows[group])
        predictors[f"{group} alone"] = _group_rates(groups, labels, problems, counts, seed)
        parts |= {str(value): groups == value for value in dict.fromkeys(rows[group])}

    table = Table(
        title=f"AUROC on {counts.sum()} solutions of {problems.max() + 1} prompts, "
        f"{np.average(labels, weights=counts):.1%} right, 95% intervals over prompts"
    )
    table.add_column("predictor")
    for name in parts if group is None else [*parts, "mean within"]:
        table.add_column(name)
    for predictor, scores in predictors.items():
        columns = [[part] for part in parts.values()]
        if group is not None:
            columns.append(list(parts.values())[1:])
        table.add_row(
            predictor,
            *(
                str(auroc_interval(scores, labels, problems, counts, column, seed=seed))
                for column in columns
            ),
        )
    return table


def best_of_n_reports(rows: Dataset, seed: int) -> list[Table]:
    """Accuracy of choosing one of N candidates of a prompt, by each score and by votes, one table
    for each N.

    Expected over the sets of N that can be drawn from a prompt's candidates, each row as often as
    its ``weight`` says, at every N of NS that at least two prompts have, else at the most that two
    have; no table where no two prompts have two. Answers are read from the solutions, and are right
    where ``label`` says so. Intervals are over prompts, differences to the majority vote paired.

    Raises ValueError for a weight that is no whole number above 0.
    """
    grids = _candidate_grids(_numbered(rows["prompt"]), _counts(rows))
    sizes = sorted((len(row) for grid in grids for row in grid), reverse=True)
    if len(sizes) < 2 or sizes[1] < 2:
        return []
    rules = _selection_rules(rows, seed)
    tables = []
    for n in [n for n in NS if n <= sizes[1]] or [sizes[1]]:
        own = [grid for grid in grids if grid.shape[1] >= n]
        table = Table(
            title=f"one of {n} candidates, {sum(map(len, own))} of {len(sizes)} prompts have as "
            "many, 95% intervals over prompts"
        )
        for heading in ("chosen by", "right", "points above majority"):
            table.add_column(heading)
        accuracy = {
            name: np.concatenate([rule(grid, n) for grid in own]) for name, rule in rules.items()
        }
        for name, by_prompt in accuracy.items():
            gain = paired_difference(100 * by_prompt, 100 * accuracy[MAJORITY], seed=seed)
            table.add_row(
                name,
                f"{mean_interval(by_prompt, seed=seed):.1%}",
                "" if name == MAJORITY else f"{gain:+.1f}",
            )
        tables.append(table)
    return tables


def _selection_rules(
    rows: Dataset, seed: int
) -> dict[str, Callable[[np.ndarray, int], np.ndarray]]:
    """Accuracy per prompt (P) of each way to choose among n of the candidates in a grid (P, M)."""
    labels = np.array(rows["label"], dtype=bool)
    answers = np.array([extract_answer(text) for text in _texts(rows)], dtype=object)
    predictors = _outcome_predictors(rows)
    scores = {
        f"reward, {how}": np.array([aggregate(steps, how) for steps in rows["step_rewards"]])
        for how in AGGREGATIONS
    } | {name: values for name, values in predictors.items() if not name.startswith("outcome")}

    def best(values: np.ndarray) -> Callable[[np.ndarray, int], np.ndarray]:
        return lambda grid, n: best_of_n_accuracy(values[grid], labels[grid], n)

    def vote(values: np.ndarray | None) -> Callable[[np.ndarray, int], np.ndarray]:
        return lambda grid, n: vote_accuracy(
            answers[grid].tolist(),
            labels[grid],
            n,
            None if values is None else values[grid],
            seed=seed,
        )

    return {
        "pass@1": lambda grid, n: labels[grid].mean(axis=1),
        MAJORITY: vote(None),
        "vote weighted by σ(reward, sum)": vote(scores["reward, sum"]),
        **{f"best by {name}": best(values) for name, values in scores.items()},
        "oracle (pass@N)": lambda grid, n: pass_at_n(labels[grid], n),
    }


def first_error_hits(
    rows: Dataset, seed: int, chosen_on: Dataset | None = None
) -> dict[str, np.ndarray]:
    """Whether the first error that each step score predicts is the labelled one: 0 or 1 (P).

    The threshold of each score is chosen on one half of the problems and used on the other, both
    ways; or on the rows ``chosen_on``, as ProcessBench chooses it on GSM8K for all of its splits
    (arXiv 2412.06559, §4). ``chance`` guesses evenly among the steps and "no error", and is the
    chance of being right.
    """
    labels = np.array(rows["first_error"])
    of_choice = None if chosen_on is None else _step_scores(chosen_on)
    hits = {}
    for name, step_scores in _step_scores(rows).items():
        if chosen_on is None or of_choice is None:
            predictions = _cross_fitted(step_scores, labels, seed)
        else:
            threshold = choose_threshold(of_choice[name], chosen_on["first_error"])
            predictions = np.array([first_error(scores, threshold) for scores in step_scores])
        hits[name] = (predictions == labels).astype(float)
    return hits | {"chance": np.array([1 / (len(steps) + 1) for steps in rows["step_rewards"]])}


def _step_scores(rows: Dataset) -> dict[str, list[Sequence[float]]]:
    """One list of step scores per solution by each predictor of a first error."""
    scores = {name: list(rows[column]) for name, column in STEP_SCORES.items()}
    return scores | {
        "shorter step": [(-np.diff(ends, prepend=0)).tolist() for ends in rows["step_ends"]]
    }


def first_error_report(rows: Dataset, seed: int, chosen_on: Dataset | None = None) -> Table:
    """First-error F1 as ProcessBench defines it, with 95% intervals over problems.

    Thresholds are chosen as :func:`first_error_hits` says. Intervals take them as given, and on the
    rows that chose them F1 is optimistic. Below it stand published F1 where the rows are of a split
    of ProcessBench.
    """
    labels = np.array(rows["first_error"])
    how = "the other half" if chosen_on is None else _name_of(chosen_on)
    table = Table(
        title=f"first error in {len(rows)} solutions of {_name_of(rows)}, "
        f"{(labels >= 0).mean():.1%} of them with one, threshold chosen on {how}, "
        "95% intervals over problems"
    )
    for name in ("step score", "F1", "accuracy with error", "accuracy without"):
        table.add_column(name)
    for name, hits in first_error_hits(rows, seed, chosen_on).items():
        table.add_row(name, *map(str, f1_intervals(hits, labels, seed)))
    if _name_of(rows) in PROCESSBENCH_SPLITS:
        table.add_section()
        place = PROCESSBENCH_SPLITS.index(_name_of(rows))
        for name, by_split in PROCESSBENCH_F1.items():
            table.add_row(f"published: {name}", f"{by_split[place] / 100:.3f}", "", "")
    return table


def _name_of(rows: Dataset) -> str:
    """The split of ProcessBench whose ids the rows have ("gsm8k-12"), else "this file"."""
    ids = rows["id"] if "id" in rows.column_names else []
    names = {str(value).rpartition("-")[0] for value in ids}
    (name,) = names if len(names) == 1 else ("",)
    return name if name in PROCESSBENCH_SPLITS else "this file"


def _texts(rows: Dataset) -> list[str]:
    if "completion" in rows.column_names:
        return [response_text(completion) for completion in rows["completion"]]
    return ["\n".join(steps) for steps in rows["completions"]]


def _counts(rows: Dataset) -> np.ndarray:
    """How often each row was drawn (N): its ``weight``, 1 where there is no such column."""
    if "weight" not in rows.column_names:
        return np.ones(len(rows), dtype=int)
    weights = np.array(rows["weight"], dtype=float)
    wrong = np.flatnonzero((weights < 1) | (weights != weights.round()))
    if wrong.size:
        raise ValueError(
            f"row {wrong[0]}: weight {weights[wrong[0]]} is no whole number above 0; it says how "
            "often a solution was drawn"
        )
    return weights.astype(int)


def _candidate_grids(problems: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
    """Row indices of each prompt's candidates, each row as often as it was drawn.

    One grid (P, M) for the prompts with M candidates each, for every M.
    """
    drawn = np.repeat(np.arange(len(problems)), counts)
    drawn = drawn[problems[drawn].argsort(kind="stable")]
    by_size: dict[int, list[np.ndarray]] = defaultdict(list)
    for candidates in np.split(drawn, np.bincount(problems[drawn]).cumsum()[:-1]):
        by_size[len(candidates)].append(candidates)
    return [np.stack(prompts) for prompts in by_size.values()]


def _numbered(prompts: Sequence) -> np.ndarray:
    """The index of each row's prompt among the distinct prompts (N)."""
    indices: dict[str, int] = {}
    return np.array([indices.setdefault(str(prompt), len(indices)) for prompt in prompts])


def _group_rates(
    groups: np.ndarray, labels: np.ndarray, problems: np.ndarray, counts: np.ndarray, seed: int
) -> np.ndarray:
    """Share of right answers of each row's group, counted on the half without the row's prompt."""
    half = _halves(problems.max() + 1, seed)[problems]
    rates = np.empty(len(labels))
    for side in (False, True):
        for value in np.unique(groups):
            other = (half != side) & (groups == value)
            right = (labels * counts)[other].sum()
            rates[(half == side) & (groups == value)] = right / counts[other].sum()
    return rates


def _halves(n_problems: int, seed: int) -> np.ndarray:
    """A random half of the problems as a mask (P)."""
    return np.random.default_rng(seed).permutation(n_problems) < n_problems // 2


def _cross_fitted(step_scores: list, labels: np.ndarray, seed: int) -> np.ndarray:
    """Predicted first errors (P), each under the threshold chosen on the other half."""
    half = _halves(len(labels), seed)
    predictions = np.empty(len(labels), dtype=int)
    for side in (False, True):
        other = np.flatnonzero(half != side)
        threshold = choose_threshold([step_scores[row] for row in other], labels[other])
        for row in np.flatnonzero(half == side):
            predictions[row] = first_error(step_scores[row], threshold)
    return predictions


def f1_intervals(hits: np.ndarray, labels: np.ndarray, seed: int) -> list[Interval]:
    """F1 and its two accuracies from the chance (0..1) that each prediction is right (P).

    Problems with and without an error are resampled apart: F1 conditions on either kind.
    """
    statistics = (_harmonic_mean, lambda a, b, axis: a.mean(axis), lambda a, b, axis: b.mean(axis))
    return [
        _over_problems(lambda i, j, axis, of=of: of(hits[i], hits[j], axis=axis), labels, seed)
        for of in statistics
    ]


def f1_difference(hits: np.ndarray, rival: np.ndarray, labels: np.ndarray, seed: int) -> Interval:
    """F1 minus that of ``rival`` on the same problems (P), which are resampled together."""

    def difference(i: np.ndarray, j: np.ndarray, axis: int) -> np.ndarray:
        ours = _harmonic_mean(hits[i], hits[j], axis=axis)
        return ours - _harmonic_mean(rival[i], rival[j], axis=axis)

    return _over_problems(difference, labels, seed)


def _over_problems(statistic: Callable[..., np.ndarray], labels: np.ndarray, seed: int) -> Interval:
    """Bootstrap interval of a function of the problems with an error and those without."""
    sides = (np.flatnonzero(labels >= 0), np.flatnonzero(labels < 0))
    drawn = bootstrap(
        sides,
        statistic,
        n_resamples=RESAMPLES,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = drawn.confidence_interval
    return Interval(float(statistic(*sides, axis=-1)), float(low), float(high))


def _harmonic_mean(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
    """2ab/(a+b) of two means, 0 where both are 0."""
    first, second = a.mean(axis), b.mean(axis)
    total = np.where(first + second > 0, first + second, 1.0)
    return 2 * first * second / total
