"""Chapter 11: what can be said about a reward model from its scores of every step.

Each analysis takes a :class:`Judged` and returns named values in every resample of the problems
(R+1,), the value on the problems themselves first: so that means over seeds, differences of models
and differences of differences all get their intervals from the same draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, cast

import numpy as np
import pandas as pd

from implicitprm.arithmetic.measure import candidate_grid
from implicitprm.evaluation import (
    best_of_n_accuracy,
    choose_threshold,
    first_error,
    rank_correlation,
)
from implicitprm.experiments.error_sets import (
    TARGETS,
    met_in_training,
    operations,
    pooled_truths,
    problem_numbers,
    set_rows,
    true_prefixes,
)

RESAMPLES = 300
#: A category of errors is reported where errors of so many problems are in it.
MIN_PROBLEMS = 10
#: Where a threshold is chosen, and where it is carried to.
CARRIED = ("test", "unseen", "strong", "early")
PLACES = ("first number", "operator", "second number", "=", "result", "newline")
N = 16

Scores = list[np.ndarray | None]
Draws = dict[str, np.ndarray]


# --- statistics over resamples of the problems ------------------------------------------------


@cache
def resamples(n_problems: int) -> np.ndarray:
    """How often each problem is drawn: once each in row 0, then RESAMPLES bootstrap draws.

    (R+1, P). The same draws for every method, so that differences of methods are paired.
    """
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(n_problems, np.full(n_problems, 1 / n_problems), size=RESAMPLES)
    return np.vstack([np.ones(n_problems, dtype=int), drawn])


def share(
    part: np.ndarray, whole: np.ndarray, problem: np.ndarray, drawn: np.ndarray
) -> np.ndarray:
    """Σ part / Σ whole of items (L) in every resample; NaN where the whole is 0: (R+1,)."""
    n_problems = drawn.shape[1]
    above, below = (drawn @ np.bincount(problem, x, n_problems) for x in (part, whole))
    return np.divide(above, below, out=np.full(len(drawn), np.nan), where=below > 0)


def auroc_draws(
    scores: np.ndarray,
    right: np.ndarray,
    weight: np.ndarray,
    problem: np.ndarray,
    drawn: np.ndarray,
) -> np.ndarray:
    """AUROC of items (L) in every resample, NaN where a class is missing: (R+1,)."""
    if not len(scores):
        return np.full(len(drawn), np.nan)
    order = scores.argsort(kind="stable")
    _, starts = np.unique(scores[order], return_index=True)  # where each group of ties begins
    counted = (weight * drawn[:, problem])[:, order]
    good = np.add.reduceat(counted * right[order], starts, axis=1)  # (R+1, G)
    bad = np.add.reduceat(counted * ~right[order], starts, axis=1)
    pairs = good.sum(axis=1) * bad.sum(axis=1)
    above = (good * (bad.cumsum(axis=1) - bad / 2)).sum(axis=1)
    return np.divide(above, pairs, out=np.full(len(drawn), np.nan), where=pairs > 0)


def correlation_draws(
    a: np.ndarray, b: np.ndarray, weight: np.ndarray, problem: np.ndarray, drawn: np.ndarray
) -> np.ndarray:
    """Rank correlation of items (L) in every resample: (R+1,)."""
    found = []
    for counts in drawn:
        counted = weight * counts[problem]
        kept = counted > 0
        found.append(rank_correlation(a[kept], b[kept], counted[kept]))
    return np.array(found)


def triple(draws: np.ndarray) -> list[float]:
    """The value and the 2.5 and 97.5 percent quantiles of its resamples."""
    low, high = np.nanquantile(draws[1:], (0.025, 0.975))
    return [round(float(x), 4) for x in (draws[0], low, high)]


# --- what the analyses share ------------------------------------------------------------------


def at(scores: Scores, rows: Sequence[int], steps: Sequence[int]) -> np.ndarray:
    """One score per (row, step), NaN where a row lies outside this world: (L)."""
    return np.array(
        [
            np.nan if (of_row := scores[row]) is None else of_row[step]
            for row, step in zip(rows, steps, strict=True)
        ]
    )


class Judged:
    """What one trained model says of every step: ``steps`` by set, as a reward or logit.

    ``additive``: the scores are shares of a sum (a log-ratio, a log-probability), so that their
    running sum is the value; a head's logit is a value by itself. ``tokens`` of TOKEN_SETS, of
    models that have a score for a token.
    """

    def __init__(
        self,
        steps: Mapping[str, Scores],
        additive: bool,
        tokens: Mapping[str, list[list[list[float]] | None]] | None = None,
    ):
        self.steps, self.additive, self.tokens = steps, additive, tokens
        rows = set_rows("validation")
        known = [i for i, s in enumerate(steps["validation"]) if s is not None]
        self.threshold = choose_threshold(
            [cast(np.ndarray, steps["validation"][i]) for i in known],
            np.array(rows["first_error"])[known],
            np.array(rows["weight"])[known],
        )

    @classmethod
    def of_run(cls, run: Mapping[str, Any]) -> Judged:
        """From what :func:`measure` returned."""
        steps = {
            name: [None if row is None else np.array(row) for row in of_rows]
            for name, of_rows in run["steps"].items()
        }
        return cls(steps, "tokens" in run, run.get("tokens"))

    def frame(self, *names: str) -> tuple[pd.DataFrame, np.ndarray]:
        """The steps of some sets with their ``score``, and the resamples of their problems."""
        truths, n_problems = pooled_truths(names)
        score = np.concatenate(
            [
                at(self.steps[name], part["row"], part["step"])
                for name in names
                for part in [truths[truths["set"] == name]]
            ]
        )
        scored = truths.assign(score=score)
        return scored[~np.isnan(score)], resamples(n_problems)

    def values(self, name: str) -> Scores:
        """The value of each prefix: running sums where scores add up, else the logits."""
        if not self.additive:
            return self.steps[name]
        return [None if s is None else s.cumsum() for s in self.steps[name]]


def without_reference(run: Mapping[str, Any], reference: Mapping[str, Any], beta: float) -> Judged:
    """log π_θ in the place of the reward: reward / β + log π_ref, step by step."""
    steps = {
        name: [
            None if ours is None else np.array(ours) / beta + np.array(theirs)
            for ours, theirs in zip(of_rows, reference["steps"][name], strict=True)
        ]
        for name, of_rows in run["steps"].items()
    }
    return Judged(steps, additive=True)


def _columns(part: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return part["weight"].to_numpy(), part["problem"].to_numpy()


def steps_auroc(part: pd.DataFrame, drawn: np.ndarray) -> np.ndarray:
    """AUROC of the valid against the wrong steps of a frame: (R+1,)."""
    return auroc_draws(part["score"].to_numpy(), part["valid"].to_numpy(), *_columns(part), drawn)


def below(part: pd.DataFrame, threshold: float, drawn: np.ndarray) -> np.ndarray:
    """Share of the steps of a frame that are taken for wrong: (R+1,)."""
    weight, problem = _columns(part)
    return share(weight * (part["score"].to_numpy() < threshold), weight, problem, drawn)


def mean_score(part: pd.DataFrame, drawn: np.ndarray, column: str = "score") -> np.ndarray:
    """Mean score of the steps of a frame: (R+1,)."""
    weight, problem = _columns(part)
    return share(weight * part[column].to_numpy(), weight, problem, drawn)


# --- 1: the first-error protocol --------------------------------------------------------------


def own_threshold(judged: Judged, name: str) -> float:
    """The threshold that is best on a set itself."""
    rows, steps = set_rows(name), judged.steps[name]
    known = [i for i, s in enumerate(steps) if s is not None]
    return choose_threshold(
        [cast(np.ndarray, steps[i]) for i in known],
        np.array(rows["first_error"])[known],
        np.array(rows["weight"])[known],
    )


def f1_draws(judged: Judged, name: str, threshold: float) -> dict[str, np.ndarray]:
    """ProcessBench's scores on a set in every resample of its problems."""
    rows, steps = set_rows(name), judged.steps[name]
    problem, n_problems = problem_numbers(name)
    known = np.array([s is not None for s in steps])
    found = np.array([-2 if s is None else first_error(s, threshold) for s in steps])
    label, weight = np.array(rows["first_error"]), np.array(rows["weight"]) * known
    hit, drawn = weight * (found == label), resamples(n_problems)
    a = share(hit * (label >= 0), weight * (label >= 0), problem, drawn)
    b = share(hit * (label < 0), weight * (label < 0), problem, drawn)
    return {"error accuracy": a, "correct accuracy": b, "F1": 2 * a * b / np.maximum(a + b, 1e-9)}


def first_error_draws(judged: Judged) -> Draws:
    """With the threshold of the validation split, and with one tuned on the set itself."""
    found: Draws = {}
    for name in CARRIED:
        carried = f1_draws(judged, name, judged.threshold)
        own = f1_draws(judged, name, own_threshold(judged, name))["F1"]
        found |= {f"{name}: {key}": values for key, values in carried.items()}
        found[f"{name}: F1, own threshold"] = own
        found[f"{name}: own minus carried"] = own - carried["F1"]
    return found


# --- 2: which errors are caught ---------------------------------------------------------------


def categories(frame: pd.DataFrame) -> dict[str, tuple[pd.Series, pd.Series]]:
    """Name → which wrong steps are in a category, and which valid ones they are compared with.

    A wrong answer is the tutor's favourite or not; a valid step is neither, so that all of them
    stand against either kind. The same holds for the kind of an error.
    """
    every = pd.Series(True, index=frame.index)
    depth = frame["step"].clip(upper=4)
    left = frame["left"].clip(upper=4)
    both = {
        "all": every,
        "slip": ~frame["misconception"],
        "misconception": frame["misconception"],
        **{sign: frame["operation"] == sign for sign in "+-*"},
        **{f"step {n + 1}{'+' if n == 4 else ''}": depth == n for n in range(5)},
        **{f"{n}{'+' if n == 4 else ''} left": left == n for n in range(5)},
    }
    of_wrong = {
        "favourite answer": frame["favourite"],
        "other answer": ~frame["favourite"],
        "arithmetic": frame["kind"] == "arithmetic",
        "operand": frame["kind"] == "operand",
    }
    return {name: (mask, mask) for name, mask in both.items()} | {
        name: (mask, every) for name, mask in of_wrong.items()
    }


#: Kinds of errors that are compared with one another.
CONTRASTS = (
    ("slip", "misconception"),
    ("favourite answer", "other answer"),
    ("arithmetic", "operand"),
    ("+", "*"),
    ("step 1", "step 5+"),
)


def taxonomy_draws(judged: Judged, name: str) -> Draws:
    """Recall of wrong steps, false alarms on valid ones and AUROC, by category of a set.

    Categories with errors of fewer than MIN_PROBLEMS problems are left out.
    """
    frame, drawn = judged.frame(name)
    frame = operations(frame)
    found: Draws = {}
    for category, (wrong, valid) in categories(frame).items():
        errors, others = frame[wrong & ~frame["valid"]], frame[valid & frame["valid"]]
        if errors["problem"].nunique() < MIN_PROBLEMS or others.empty:
            continue
        found[f"{category}: recall"] = below(errors, judged.threshold, drawn)
        found[f"{category}: AUROC"] = steps_auroc(pd.concat([errors, others]), drawn)
        if wrong is valid:  # a category of valid steps, too
            found[f"{category}: false alarms"] = below(others, judged.threshold, drawn)
    for one, other in CONTRASTS:
        for measured in ("recall", "AUROC"):
            if f"{other}: {measured}" in found:
                found[f"{one} minus {other}: {measured}"] = (
                    found[f"{one}: {measured}"] - found[f"{other}: {measured}"]
                )
    return found


#: How often training has met a wrong step, in distinct rollouts: name → at least, below.
MET = {
    "never": (0, 1),
    "once or twice": (1, 3),
    "3 to 9 times": (3, 10),
    "10 times or oftener": (10, 10**9),
}


def met_draws(judged: Judged) -> Draws:
    """Recall and AUROC of wrong steps by how often training met the same wrong step."""
    found: Draws = {}
    for name in ("test", "early"):
        frame, drawn = judged.frame(name)
        frame = operations(frame.assign(met=met_in_training(name)[frame.index]))
        valid = frame[frame["valid"]]
        for often, (low, high) in MET.items():
            errors = frame[~frame["valid"] & (frame["met"] >= low) & (frame["met"] < high)]
            found[f"{name}: {often}: recall"] = below(errors, judged.threshold, drawn)
            found[f"{name}: {often}: AUROC"] = steps_auroc(pd.concat([errors, valid]), drawn)
        first, *_, last = MET
        found[f"{name}: often minus never: AUROC"] = (
            found[f"{name}: {last}: AUROC"] - found[f"{name}: {first}: AUROC"]
        )
    return found


# --- 3: lucky solutions -----------------------------------------------------------------------


def lucky_draws(judged: Judged) -> Draws:
    """Wrong steps of solutions whose answer is right all the same, against those of the others.

    On facts that training has seen, both test splits. *Cancelled*: a later step is wrong, too;
    *absorbed*: every later step is right, and a multiplication made the two states one.
    """
    frame, drawn = judged.frame("test", "unseen")
    frame = operations(frame)
    frame = frame[~frame["unseen"]]
    wrong, valid = frame[~frame["valid"]], frame[frame["valid"]]
    lucky = wrong["correct"]
    groups = {
        "unlucky": wrong[~lucky],
        "lucky": wrong[lucky],
        "lucky, absorbed": wrong[lucky & ~wrong["again"]],
        "lucky, cancelled": wrong[lucky & wrong["again"]],
    }
    found: Draws = {}
    for name, part in groups.items():
        found[f"{name}: recall"] = below(part, judged.threshold, drawn)
        found[f"{name}: AUROC"] = steps_auroc(pd.concat([part, valid]), drawn)
    found["recall, unlucky minus lucky"] = found["unlucky: recall"] - found["lucky: recall"]
    found["AUROC, unlucky minus lucky"] = found["unlucky: AUROC"] - found["lucky: AUROC"]
    found["lucky scores above unlucky"] = auroc_draws(
        wrong["score"].to_numpy(), lucky.to_numpy(dtype=bool), *_columns(wrong), drawn
    )
    return found | _lucky_outcomes(judged)


def _lucky_outcomes(judged: Judged) -> Draws:
    """Share of solutions whose last value is above 0 (a chance of ½), by what they are."""
    rows, values = set_rows("test"), judged.values("test")
    problem, n_problems = problem_numbers("test")
    last = np.array([np.nan if v is None else v[-1] for v in values])
    weight = np.array(rows["weight"]) * ~np.isnan(last)
    right, clean = np.array(rows["label"]), np.array(rows["first_error"]) < 0
    kinds = {"clean": clean, "lucky": right & ~clean, "wrong": ~right}
    return {
        f"{name}: outcome above 0": share(
            weight * kind * (last > 0), weight * kind, problem, resamples(n_problems)
        )
        for name, kind in kinds.items()
    }


# --- 4: tokens inside a step ------------------------------------------------------------------


def token_frame(judged: Judged, name: str) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Operation steps of a set, the rewards of their PLACES (L, 6), and the resamples."""
    frame, drawn = judged.frame(name)
    frame = operations(frame)
    of_rows = cast(Mapping[str, list], judged.tokens)[name]
    tokens = [of_rows[row][step] for row, step in zip(frame["row"], frame["step"], strict=True)]
    regular = np.array([len(step) == len(PLACES) for step in tokens])
    values = np.array([step for step, keep in zip(tokens, regular, strict=True) if keep])
    return frame[regular], values, drawn


def token_draws(judged: Judged) -> Draws:
    """Mean reward by place in the step, and what single places know of the step.

    Right and wrong steps of ``test`` (arithmetic errors), and operand errors of ``early``.
    """
    frame, values, drawn = token_frame(judged, "test")
    weight, problem = _columns(frame)
    valid = frame["valid"].to_numpy()
    found: Draws = {}
    for name, mask in (("right", valid), ("wrong", ~valid)):
        for place, column in zip(PLACES, values.T, strict=True):
            found[f"{name}: {place}"] = share(weight * mask * column, weight * mask, problem, drawn)
    result = PLACES.index("result")
    rest = values.sum(axis=1) - values[:, result]
    found["AUROC: result only"] = auroc_draws(values[:, result], valid, weight, problem, drawn)
    found["AUROC: all but the result"] = auroc_draws(rest, valid, weight, problem, drawn)
    frame, values, drawn = token_frame(judged, "early")
    weight, problem = _columns(frame)
    operand = (frame["kind"] == "operand").to_numpy()
    for place, column in zip(PLACES, values.T, strict=True):
        found[f"operand error: {place}"] = share(
            weight * operand * column, weight * operand, problem, drawn
        )
    return found


# --- 5: q against the truth -------------------------------------------------------------------


def _agreement(frame: pd.DataFrame, value: np.ndarray, reward: np.ndarray, half: str = "") -> Draws:
    """Rank correlations of a value and a step reward with the true ones, in every resample."""
    kept = ~np.isnan(value)
    frame, value, reward = frame[kept], value[kept], reward[kept]
    names, problem = np.unique(frame["problem"], return_inverse=True)
    drawn, ones = resamples(len(names)), np.ones(len(frame))
    found = {
        f"pooled: {target}": correlation_draws(
            value, frame[target + half].to_numpy(), ones, problem, drawn
        )
        for target in TARGETS
    }
    later = (frame["step"] > 0).to_numpy()
    found["steps: dQ"] = correlation_draws(
        reward[later], frame["dQ" + half].to_numpy()[later], ones[later], problem[later], drawn
    )
    inside = [_within(value, frame["Q" + half].to_numpy(), problem == n) for n in range(len(names))]
    defined = ~np.isnan(inside)
    found["within: Q"] = share(
        np.where(defined, inside, 0.0), defined.astype(float), np.arange(len(names)), drawn
    )
    means, totals = (
        np.bincount(problem, x) / np.bincount(problem)
        for x in (value, frame["Q" + half].to_numpy())
    )
    each, single = np.arange(len(names)), np.ones(len(names))
    found["across: Q"] = correlation_draws(means, totals, single, each, drawn)
    return found


def _within(value: np.ndarray, q: np.ndarray, mask: np.ndarray) -> float:
    """Rank correlation inside one problem, NaN where either side is constant."""
    if np.ptp(value[mask]) == 0 or np.ptp(q[mask]) == 0:
        return float("nan")
    return rank_correlation(value[mask], q[mask])


def truth_draws(judged: Judged) -> Draws:
    """q^t against Q^t, Q^t − Q^0 and their log-odds; step rewards against Q^t − Q^{t−1}.

    *Pooled* over all prefixes, *within* problems (where the three targets have one order), and
    *across*: the means of problems. A head has no step reward: the change of its logit stands for
    it, and first steps are left out for all.
    """
    frame = true_prefixes()
    value = at(judged.values("test"), frame["row"], frame["step"])
    before = at(judged.values("test"), frame["row"], np.maximum(frame["step"] - 1, 0))
    found = _agreement(frame, value, value - before)
    found["pooled: Q - Q0 minus Q"] = found["pooled: Q - Q0"] - found["pooled: Q"]
    names, problem = np.unique(frame["problem"], return_inverse=True)
    start = frame.groupby("problem")["Q0"].first().to_numpy()
    mean = np.bincount(problem, np.nan_to_num(value)) / np.bincount(problem)
    drawn, single = resamples(len(names)), np.ones(len(names))
    found["across: Q0"] = correlation_draws(mean, start, single, np.arange(len(names)), drawn)
    return found


def ceiling_draws() -> Draws:
    """The highest rank correlation that the noise of the true values leaves room for.

    One half of the completions stands for the model, the other for the truth; the reliability of
    all of them follows by Spearman and Brown, 2ρ/(1+ρ), and its root is the ceiling.
    """
    frame = true_prefixes()
    halves: Draws = {}
    for target in TARGETS:
        found = _agreement(
            frame, frame[f"{target} a"].to_numpy(), frame["dQ a"].to_numpy(), half=" b"
        )
        halves[f"pooled: {target}"] = found[f"pooled: {target}"]
        if target == "Q":
            halves |= {key: found[key] for key in ("steps: dQ", "within: Q", "across: Q")}
    return {name: np.sqrt(2 * rho / (1 + rho)) for name, rho in halves.items()}


# --- 6: the published criticism ---------------------------------------------------------------


def minimum_draws(judged: Judged) -> Draws:
    """Where the lowest step of a solution is, and what choosing by it is worth without the end.

    Of ``test``: solutions without an error (*clean*) and with one (*wrong*, lucky ones included).
    The answer is the last step, and the last operation the one before. *Uniform* is the chance of
    any one step, 1/S.
    """
    rows, steps = set_rows("test"), judged.steps["test"]
    problem, n_problems = problem_numbers("test")
    drawn = resamples(n_problems)
    known = np.array([s is not None for s in steps])
    size = np.array([1 if s is None else len(s) for s in steps])
    lowest = np.array([0 if s is None else int(s.argmin()) for s in steps])
    first, weight = np.array(rows["first_error"]), np.array(rows["weight"]) * known
    places = {
        "answer": lowest == size - 1,
        "last operation": lowest == size - 2,
        "first step": lowest == 0,
        "uniform": 1 / size,
    }
    groups = {"all": first > -2, "clean": first < 0, "wrong": first >= 0}
    found = {
        f"{name}: {place}": share(weight * group * where, weight * group, problem, drawn)
        for name, group in groups.items()
        for place, where in places.items()
    }
    wrong = weight * groups["wrong"]
    for place, where in (("at", lowest == first), ("after", lowest > first)):
        found[f"wrong: {place} the first error"] = share(wrong * where, wrong, problem, drawn)
    found["wrong: last operation is the first error"] = share(
        wrong * (first == size - 2), wrong, problem, drawn
    )
    return found | choice_draws(judged)


#: What a solution may be chosen by; steps of one solution (S) → its score.
RULES = {
    "min": lambda s: s.min(),
    "min without the answer": lambda s: s[:-1].min(),
    "min without the last operation": lambda s: min(s[:-2].min(initial=np.inf), s[-1]),
    "min without both": lambda s: s[:-2].min(initial=np.inf),
    "answer alone": lambda s: s[-1],
    "last operation alone": lambda s: s[-2],
}


def choice_draws(judged: Judged) -> Draws:
    """Accuracy of best-of-N on ``test`` by each of RULES, in percent, and what an end is worth."""
    rows = set_rows("test")
    grid = candidate_grid(rows)
    correct = np.array(rows["label"])[grid]
    drawn = resamples(len(grid))
    found: Draws = {}
    for name, rule in RULES.items():
        scores = np.array([-np.inf if s is None else rule(s) for s in judged.steps["test"]])
        accuracy = 100 * best_of_n_accuracy(scores[grid], correct, N)
        found[f"best of {N}: {name}"] = drawn @ accuracy / drawn.sum(axis=1)
    whole = found[f"best of {N}: min"]
    return found | {
        f"{name} minus min": found[f"best of {N}: {name}"] - whole for name in list(RULES)[1:]
    }


def length_draws(judged: Judged) -> Draws:
    """Does a longer text get a higher score?

    *Across*: rank correlation of a solution's score with its number of steps, among clean and among
    wrong ones. *Characters*: of a valid step's score with its length. *Inside*: linear correlation
    of score and characters of the wrong solutions of one problem. *Repeated*: a right step written
    twice, which makes a solution longer and no better: how often its score rises.
    """
    rows, steps = set_rows("test"), judged.steps["test"]
    problem, n_problems = problem_numbers("test")
    drawn = resamples(n_problems)
    known = np.array([s is not None for s in steps])
    weight, clean = np.array(rows["weight"]), np.array(rows["first_error"]) < 0
    size = np.array([len(of_row) for of_row in rows["steps"]])
    characters = np.array([len(text) for text in rows["completion"]])
    found: Draws = {}
    for rule, of_steps in (("min", np.min), ("sum", np.sum)):
        score = np.array([np.nan if s is None else of_steps(s) for s in steps])
        for name, group in (("clean", clean), ("wrong", ~clean)):
            part = known & group
            found[f"across, {name}: {rule}"] = correlation_draws(
                score[part], size[part], weight[part], problem[part], drawn
            )
        part = known & ~clean
        found[f"inside, wrong: {rule}"] = _inside_problems(
            score[part], characters[part], weight[part], problem[part], drawn
        )
    frame, _ = judged.frame("test")
    frame = operations(frame[frame["valid"]])
    written = [
        len(rows["steps"][row][step]) for row, step in zip(frame["row"], frame["step"], strict=True)
    ]
    found["characters, valid steps"] = correlation_draws(
        frame["score"].to_numpy(), np.array(written), *_columns(frame), drawn
    )
    return found | _padding_draws(judged)


def _inside_problems(
    a: np.ndarray, b: np.ndarray, weight: np.ndarray, problem: np.ndarray, drawn: np.ndarray
) -> np.ndarray:
    """Linear correlation of the deviations from each problem's means, in every resample."""
    totals = np.maximum(np.bincount(problem, weight), 1e-9)
    x, y = (v - (np.bincount(problem, weight * v) / totals)[problem] for v in (a, b))
    n_problems = drawn.shape[1]
    xy, xx, yy = (
        drawn @ np.bincount(problem, weight * product, n_problems)
        for product in (x * y, x * x, y * y)
    )
    return xy / np.sqrt(xx * yy)


def _padding_draws(judged: Judged) -> Draws:
    """How often a score rises when a right step is written twice."""
    rows = set_rows("repeated")
    problem, n_problems = problem_numbers("repeated")
    pairs = [
        (judged.steps["test"][origin], judged.steps["repeated"][number])
        for number, origin in enumerate(rows["origin"])
    ]
    known = np.array([a is not None and b is not None for a, b in pairs])
    clean = np.array(rows["first_error"]) < 0
    found: Draws = {}
    for rule, of_steps in (("min", np.min), ("sum", np.sum)):
        change = np.array(
            [0.0 if a is None or b is None else of_steps(b) - of_steps(a) for a, b in pairs]
        )
        for name, group in (("clean", clean), ("wrong", ~clean)):
            weight = np.array(rows["weight"]) * known * group
            rises = (change > 0) + 0.5 * (change == 0)
            found[f"repeated, {name}: {rule} rises"] = share(
                weight * rises, weight, problem, resamples(n_problems)
            )
    return found


def changed_frame(judged: Judged, name: str) -> tuple[pd.DataFrame, np.ndarray]:
    """The steps of a changed set with their ``score`` and what the step scored ``before``.

    NaN before for an inserted step.
    """
    frame, drawn = judged.frame(name)
    rows = set_rows(name)
    origin = np.array(rows["origin"])[frame["row"]]
    place = frame["step"].to_numpy()
    inserted = np.zeros(len(frame), dtype=bool)
    if name == "repeated":
        twice = np.array([altered.index(True) for altered in rows["altered"]])[frame["row"]]
        inserted = place == twice
        place = place - (place >= twice)
    before = at(judged.steps["test"], origin, place)
    return frame.assign(before=np.where(inserted, np.nan, before), inserted=inserted), drawn


def surface_draws(judged: Judged) -> Draws:
    """What another way of writing does to the scores of the same right and wrong steps.

    *Commuted*: ``5+7=12`` as ``7+5=12`` wherever it can be. *Repeated*: one right step written
    twice. Mean score and false alarms before and after, of altered and of unchanged steps that are
    right; AUROC before and after; and the share of clean solutions with a false alarm.
    """
    found: Draws = {}
    for name in ("commuted", "repeated"):
        frame, drawn = changed_frame(judged, name)
        frame = frame[frame["inserted"] | ~frame["before"].isna()]
        old = frame[~frame["inserted"]].assign(score=lambda f: f["before"])
        for kind, altered in (("altered", True), ("unchanged", False)):
            now, then = (f[f["valid"] & (f["altered"] == altered)] for f in (frame, old))
            found[f"{name}, {kind}: score"] = mean_score(now, drawn)
            found[f"{name}, {kind}: false alarms"] = below(now, judged.threshold, drawn)
            if len(then):
                found[f"{name}, {kind}: score before"] = mean_score(then, drawn)
                found[f"{name}, {kind}: false alarms before"] = below(then, judged.threshold, drawn)
        now, then = operations(frame), operations(old)
        found[f"{name}: AUROC"] = steps_auroc(now, drawn)
        found[f"{name}: AUROC before"] = steps_auroc(then, drawn)
        found[f"{name}: AUROC lost"] = found[f"{name}: AUROC before"] - found[f"{name}: AUROC"]
        for kind, altered in (("altered", True), ("unchanged", False)):
            ours, theirs = (f[f["altered"] == altered] for f in (now, then))
            if not ours["valid"].all() and len(theirs):
                found[f"{name}, {kind}: AUROC"] = steps_auroc(ours, drawn)
                found[f"{name}, {kind}: AUROC before"] = steps_auroc(theirs, drawn)
        found |= _alarms(judged, name)
    return found


def _alarms(judged: Judged, name: str) -> Draws:
    """F1 and the share of clean solutions of a changed set that are left alone."""
    found = f1_draws(judged, name, judged.threshold)
    return {f"{name}: {key}": found[key] for key in ("F1", "correct accuracy")}


def unseen_draws(judged: Judged) -> Draws:
    """AUROC, recall and false alarms on facts that training has seen and on facts it has not."""
    frame, drawn = judged.frame("test", "unseen")
    frame = operations(frame)
    kinds = {
        "": pd.Series(True, index=frame.index),
        ", slips": ~frame["misconception"],
        ", misconceptions": frame["misconception"],
    }
    found: Draws = {}
    for name, kind in kinds.items():
        for side, of_side in (("seen", ~frame["unseen"]), ("unseen", frame["unseen"])):
            part = frame[kind & of_side]
            found[f"{side}{name}: AUROC"] = steps_auroc(part, drawn)
            found[f"{side}{name}: recall"] = below(part[~part["valid"]], judged.threshold, drawn)
            found[f"{side}{name}: false alarms"] = below(
                part[part["valid"]], judged.threshold, drawn
            )
        found[f"drop{name}: AUROC"] = found[f"seen{name}: AUROC"] - found[f"unseen{name}: AUROC"]
    return found
