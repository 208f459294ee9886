"""Chapter 12: ``python -m implicitprm.experiments.reinforcement`` (about an hour and a half of one
core).

Does a dense reward help reinforcement learning? First the head-room: true step labels against the
outcome alone. Then implicit process rewards as PRIME gives them (arXiv 2502.01456), and what they
are compared with. The learning rate of every arm, and the weight of learned process rewards, are
chosen with a seed of their own, by the accuracy on problems not seen before.

No run meets a problem twice, and none a test problem: the accuracy of a batch, before it is used,
is one on problems not seen before, and makes the learning curves. Ends are compared on the test
problems, paired by problem and by seed.

The reasoner starts at problems of 8 operations, of which it solves a quarter. (From ``early`` no
arm learned: see CHANGELOG.)
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import typer
from scipy.stats import spearmanr
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from implicitprm.arithmetic import ARITHMETIC_FORMAT, checkpoint_path, load_rollouts
from implicitprm.arithmetic.collect import FULL
from implicitprm.arithmetic.problems import Problem, check_solution, sample_problem
from implicitprm.arithmetic.values import grade
from implicitprm.comparisons.math_shepherd import complete_prefixes, soft_labels
from implicitprm.evaluation import Interval
from implicitprm.experiments.grid import SCRATCH, forget_cells, run_cells
from implicitprm.experiments.runs import be_quiet, train_prm
from implicitprm.experiments.store import config_hash, load_result, rounded, save_result
from implicitprm.reinforce.loop import (
    Batch,
    ImplicitReward,
    ProcessReward,
    ReinforceConfig,
    StepReward,
    add_gradient,
    advantages,
    make_batch,
    process_advantages,
    reinforce,
)
from implicitprm.reinforce.terms import by_step
from implicitprm.rollouts import sample_rollouts
from implicitprm.steps import Prompt

GENERATOR, OPERATIONS = "reasoner", 8
SEEDS, ABLATION_SEEDS = (0, 1, 2, 3, 4), (0, 1, 2)
#: The seeds of every choice.
VALIDATION_SEEDS = (100, 101, 102)
BATCHES, SWEEP_BATCHES = 40, 20
PROMPTS, GROUP = 48, 4
TRAINING_PROBLEMS, TEST_PROBLEMS = 2000, 300
#: Responses to each test problem.
TEST_RESPONSES = 2
#: Batches whose accuracies make one point of a curve.
WINDOW = 5
MIN_TOLERANCE = 1.0
RATES = (1e-4, 2e-4, 4e-4, 8e-4)
#: Of learned process rewards, beside the outcome's weight of 1.
WEIGHTS = (0.3, 0.1, 1.0)
#: CE's β of chapter 06, and the learning rates of an online reward model.
BETA, REWARD_RATES = 1.0, (5e-4, 1e-3, 2e-3)
#: What is chosen for an arm, as cells name it.
CHOSEN = ("learning_rate", "weight", "reward_rate")
#: PURE's temperature.
TEMPERATURE = 0.1
#: When an implicit reward is compared with the true advantage, and on how much.
WHY_SEEDS, WHY_BATCHES = (0,), (10, 40)
WHY_PROBLEMS, WHY_RESPONSES, WHY_COMPLETIONS, WHY_GRADIENTS = 12, 2, 16, 10

Source = Literal["none", "truth", "online", "online, rewards first", "frozen", "trained, online"]


@dataclass(frozen=True)
class Arm:
    """Where process rewards come from, and what differs in the configuration."""

    source: Source = "none"
    options: dict[str, Any] = field(default_factory=dict)
    #: whose learning rate and weight it has; None: its own, from the sweep
    tuned_as: str | None = None


#: Credit for a step alone: −1 for the first wrong one.
STEP_ALONE = {"granularity": "step", "discount": 0.0, "process_weight": 1.0}
ALL = {"accuracy_bounds": None}
OUTCOME, IMPLICIT, FROZEN = "outcome", "implicit", "frozen"
#: Whether a gain of the frozen PRM is that of its learning rate.
FASTER = "outcome, rate of frozen"
TRUE, TRUE_ALL = "true steps", "true steps alone, all prompts"
MAIN: dict[str, Arm] = {
    OUTCOME: Arm(),
    TRUE_ALL: Arm("truth", STEP_ALONE | {"outcome_weight": 0.0} | ALL),
    IMPLICIT: Arm("online"),
    FROZEN: Arm("frozen"),
    FASTER: Arm("none", tuned_as=FROZEN),
}
#: With fewer seeds, and what was chosen for another arm where there is no sweep of their own.
ABLATIONS: dict[str, Arm] = {
    TRUE: Arm("truth", STEP_ALONE),
    "frozen alone, all prompts": Arm("frozen", {"outcome_weight": 0.0} | ALL, FROZEN),
    "implicit, all prompts": Arm("online", ALL, IMPLICIT),
    "implicit, trained first": Arm("trained, online", tuned_as=IMPLICIT),
    "implicit, by step": Arm("online", {"granularity": "step"}, IMPLICIT),
    "implicit, min-form": Arm(
        "online", {"granularity": "step", "min_temperature": TEMPERATURE}, IMPLICIT
    ),
    "implicit, step alone": Arm("online", {"granularity": "step", "discount": 0.0}, IMPLICIT),
    "frozen, step alone": Arm("frozen", {"granularity": "step", "discount": 0.0}, FROZEN),
    "implicit, rewards before the update": Arm("online, rewards first", tuned_as=IMPLICIT),
    "outcome, all prompts": Arm("none", ALL, OUTCOME),
    "true steps alone": Arm("truth", STEP_ALONE | {"outcome_weight": 0.0}, TRUE),
}
ARMS = MAIN | ABLATIONS
WHY_ARMS = (IMPLICIT, FROZEN)
SWEPT = [name for name, arm in ARMS.items() if arm.tuned_as is None]


# ---- The world -------------------------------------------------------------------------------


@cache
def prompts() -> dict[str, list[str]]:
    """Distinct problems: ``test``, which are drawn first, and ``train``."""
    rng = np.random.default_rng(7)
    drawn: dict[str, None] = {}
    while len(drawn) < TEST_PROBLEMS + TRAINING_PROBLEMS:
        drawn[sample_problem(rng, (OPERATIONS, OPERATIONS)).prompt] = None
    every = list(drawn)
    return {"test": every[:TEST_PROBLEMS], "train": every[TEST_PROBLEMS:]}


def true_rewards(prompt: Prompt, steps: Sequence[str], finished: bool) -> list[float]:
    """−1 for the first wrong step, 0 for every other."""
    first = check_solution(Problem.parse(str(prompt)), steps, finished).first_error
    return [-1.0 if step == first else 0.0 for step in range(len(steps))]


def start(attention: str = "sdpa") -> PreTrainedModel:
    folder = checkpoint_path(GENERATOR)
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention).eval()


@cache
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(checkpoint_path(GENERATOR))


def trained_reward() -> PreTrainedModel:
    """A PRM trained by CE on the shipped rollouts of the reasoner, as in chapter 06.

    One for all runs, kept in SCRATCH.
    """
    folder = SCRATCH / "reinforcement-prm"
    if not folder.exists():
        rows = load_rollouts(GENERATOR, "train").select_columns(
            ["prompt", "completion", "label", "weight", "finished"]
        )
        setting = load_result("objectives")["config"]["chosen"]["ce"]
        scratch = folder.with_suffix(".new")
        train_prm(rows, **setting, seed=0).policy.save_pretrained(scratch)
        scratch.rename(folder)
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def process_reward(cell: Mapping[str, Any]) -> ProcessReward | None:
    """The source of process rewards of a cell's arm."""
    source = ARMS[cell["arm"]].source
    if source == "none":
        return None
    if source == "truth":
        return StepReward(true_rewards)
    model = start() if source.startswith("online") else trained_reward()
    rate = 0.0 if source == "frozen" else cell["reward_rate"]
    first = source != "online, rewards first"
    return ImplicitReward(model, start(), tokenizer().pad_token_id, BETA, rate, first)


def configure(cell: Mapping[str, Any]) -> ReinforceConfig:
    """The configuration of a cell's run."""
    weighted = cell["weight"] is not None and ARMS[cell["arm"]].source != "none"
    weight = {"process_weight": cell["weight"]} if weighted else {}
    return ReinforceConfig(
        learning_rate=cell["learning_rate"],
        batches=cell["batches"],
        prompts_per_batch=PROMPTS,
        group_size=GROUP,
        evaluate_every=1,
        seed=cell["seed"],
        **(ARMS[cell["arm"]].options | weight),
    )


# ---- Runs ------------------------------------------------------------------------------------


def measure(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Train one arm; its curve, and its end on the test problems.

    A killed run goes on from its last saved batch.
    """
    be_quiet()
    config, process = configure(cell), process_reward(cell)
    policy = start(cell.get("attention", "sdpa"))
    clock = {"start": time.process_time()}

    def evaluate(model: PreTrainedModel, batch: int) -> dict[str, Any]:
        found: dict[str, Any] = {"cpu_seconds": time.process_time() - clock["start"]}
        if batch in cell["why"] and isinstance(process, ImplicitReward):
            found["why"] = why(model, process, config, batch)
        if batch == cell["batches"] and cell["tested"]:
            found["right"] = on_test(model, process)
        clock["start"] = time.process_time()
        return found

    folder = SCRATCH / f"reinforcement-{config_hash(dict(cell))}"
    history = reinforce(
        policy,
        tokenizer(),
        prompts()["train"],
        grade,
        config,
        sampling=FULL,
        format=ARITHMETIC_FORMAT,
        process=process,
        evaluate=evaluate,
        folder=folder,
    )
    shutil.rmtree(folder)  # or a remake would find it done
    lines = history[1:]
    keys = ("accuracy", "kept", "prm_reward", "prm_auc", "grad_norm")
    return {
        key: [round(line[key], 4) if key in line else None for line in lines]
        for key in keys
        if any(key in line for line in lines)
    } | {
        "tokens": sum(line["tokens"] for line in lines),
        # Of the processor, for a batch: the machine had other work.
        "batch_seconds": round(float(np.mean([line["cpu_seconds"] for line in lines])), 2),
        "why": [{"batch": line["batch"]} | line["why"] for line in lines if "why" in line],
        "test": lines[-1].get("right"),
    }


def on_test(model: PreTrainedModel, process: ProcessReward | None) -> dict[str, Any]:
    """Share of right responses to each test problem (P), and the mean reward by a PRM."""
    batch = sample_batch(model, prompts()["test"], TEST_RESPONSES, seed=0)
    right = batch.outcomes.view(-1, TEST_RESPONSES).mean(1).tolist()
    found: dict[str, Any] = {"right": right}
    if isinstance(process, ImplicitReward):
        rewards, _ = frozen(process).rewards(batch)
        found["reward"] = round(float(rewards.sum(-1).mean()), 4)
    return found


def sample_batch(model: PreTrainedModel, chosen: Sequence[str], n: int, seed: int) -> Batch:
    """Graded responses of a policy to some prompts."""
    drawn = sample_rollouts(
        model, tokenizer(), chosen, n=n, sampling=FULL, format=ARITHMETIC_FORMAT, seed=seed
    )
    return make_batch(tokenizer(), chosen, drawn, grade, ARITHMETIC_FORMAT, model.device)


def frozen(process: ImplicitReward) -> ImplicitReward:
    """The same models, without an update."""
    return ImplicitReward(process.model, process.reference, tokenizer().pad_token_id, process.beta)


# ---- Why -------------------------------------------------------------------------------------


def why(
    policy: PreTrainedModel, process: ImplicitReward, config: ReinforceConfig, batch: int
) -> dict[str, Any]:
    """How good the credit is, and how noisy the gradient, at this point of a run."""
    return agreement(policy, process, config, batch) | {
        "gradient": gradient_noise(policy, process, config, batch)
    }


def agreement(
    policy: PreTrainedModel, process: ImplicitReward, config: ReinforceConfig, seed: int
) -> dict[str, Any]:
    """Rank correlation of credit with the true advantage of a step, with its standard error.

    The true advantage, V after a step minus V before it, is estimated from completions by the
    policy; ``reliability`` is the share of its variance that is not Monte Carlo error. ``ceiling``
    is the agreement of two independent halves of the completions. Errors are bootstrapped over
    problems.
    """
    chosen = prompts()["test"][:WHY_PROBLEMS]
    batch = sample_batch(policy, chosen, WHY_RESPONSES, seed)
    read = [row for row, readable in enumerate(batch.readable) if readable]
    completed = complete_prefixes(
        policy,
        tokenizer(),
        [batch.solutions[row] for row in read],
        grade,
        n=WHY_COMPLETIONS,
        sampling=replace(FULL, max_new_tokens=46),  # what can follow a first step, and fits
        format=ARITHMETIC_FORMAT,
        seed=seed + 1,
    )
    first = sample_batch(policy, chosen, WHY_COMPLETIONS, seed + 2)
    at_start = first.outcomes.view(-1, WHY_COMPLETIONS).bool().numpy()  # (problems, K)
    rewards, _ = frozen(process).rewards(batch)
    steps = int(batch.step_of.max()) + 1
    per_step = by_step(rewards, batch.step_of, steps)
    pairs = replace(config, group_size=WHY_RESPONSES, normalise=False, outcome_weight=1.0)
    of_process = process_advantages(rewards, batch, pairs)
    outcome = advantages(None, batch, pairs)
    rows: list[tuple[int, list[float]]] = []
    for row, completions in zip(read, completed, strict=True):
        problem, solution = row // WHY_RESPONSES, batch.solutions[row]
        right = np.vstack([at_start[problem], completions.right])  # (S + 1, K)
        truth = true_rewards(solution.prompt, solution.steps, solution.finished)
        half = WHY_COMPLETIONS // 2
        whole, one, other = (
            np.diff(soft_labels(part)) for part in (right, right[:, :half], right[:, half:])
        )
        error = soft_labels(right) * (1 - soft_labels(right)) / (WHY_COMPLETIONS - 1)
        for step, end in enumerate(batch.encoded[row].step_ends):
            rows.append(
                (
                    problem,
                    [
                        whole[step],
                        one[step],
                        other[step],
                        error[step] + error[step + 1],
                        float(per_step[row, step]),
                        float(of_process[row, end - 1]),
                        float(outcome[row, end - 1]),
                        truth[step],
                    ],
                )
            )
    problems = np.array([problem for problem, _ in rows])
    table = np.array([values for _, values in rows])
    names = ("implicit reward", "implicit advantage", "outcome advantage", "true step label")
    found: dict[str, Any] = {
        name: correlation(table[:, 0], table[:, 4 + place], problems)
        for place, name in enumerate(names)
    }
    variance = float(table[:, 0].var())
    return {
        "correlation": found
        | {"ceiling (half against half)": correlation(table[:, 1], table[:, 2], problems)},
        "reliability": round(1 - float(table[:, 3].mean()) / variance, 3) if variance else None,
        "steps": len(table),
    }


def correlation(
    a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], groups: npt.NDArray[np.int64]
) -> list[float | None]:
    """Spearman's ρ and its standard error, bootstrapped over groups; None where one is constant."""
    if a.std() == 0 or b.std() == 0:
        return [None, None]
    rng = np.random.default_rng(0)
    names = np.unique(groups)
    members = {name: np.flatnonzero(groups == name) for name in names}
    drawn = []
    for _ in range(200):
        rows = np.concatenate([members[name] for name in rng.choice(names, len(names))])
        if a[rows].std() and b[rows].std():
            drawn.append(spearmanr(a[rows], b[rows]).statistic)
    return [round(float(spearmanr(a, b).statistic), 3), round(float(np.std(drawn)), 3)]


def gradient_noise(
    policy: PreTrainedModel, process: ImplicitReward, config: ReinforceConfig, seed: int
) -> dict[str, float | None]:
    """Noise of the policy gradient with the outcome alone and with process rewards added.

    Of WHY_GRADIENTS independent batches each; see :func:`noise`. ``cosine`` is that of the two
    mean gradients: whether they point the same way.
    """
    raw = replace(config, normalise=False, accuracy_bounds=None)
    arms = {
        OUTCOME: replace(raw, process_weight=0.0),
        "both": replace(config, accuracy_bounds=None),
    }
    gradients: dict[str, list[Tensor]] = {name: [] for name in arms}
    for number in range(WHY_GRADIENTS):
        first = number * WHY_PROBLEMS % (TEST_PROBLEMS - WHY_PROBLEMS)
        chosen = prompts()["test"][first : first + WHY_PROBLEMS]
        batch = sample_batch(policy, chosen, GROUP, seed * 1000 + number)
        rewards, _ = frozen(process).rewards(batch)
        for name, own in arms.items():
            credit = advantages(rewards, batch, own)
            add_gradient(policy, batch, credit, None, None, tokenizer().pad_token_id, own)
            found = [p.grad.flatten() for p in policy.parameters() if p.grad is not None]
            gradients[name].append(torch.cat(found).clone())
            policy.zero_grad()
    stacked = {name: torch.stack(found).double() for name, found in gradients.items()}
    means = {name: found.mean(0) for name, found in stacked.items()}
    cosine = torch.nn.functional.cosine_similarity(means[OUTCOME], means["both"], dim=0)
    return {f"noise, {name}": noise(found) for name, found in stacked.items()} | {
        "cosine": round(float(cosine), 3)
    }


def noise(gradients: Tensor) -> float | None:
    """E‖g − ḡ‖² / ‖E g‖² of independent gradients (N, parameters), both without bias.

    Independent of any scale of the loss. ‖E g‖² is the mean inner product of two different ones;
    where it is not positive the noise cannot be told: None.
    """
    count = len(gradients)
    squares = (gradients**2).sum()
    signal = ((gradients.sum(0) ** 2).sum() - squares) / (count * (count - 1))
    spread = squares / count - signal
    return round(float(spread / signal), 2) if signal > 0 else None


# ---- Choosing --------------------------------------------------------------------------------


def trials(tried: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """Every learning rate; or, after these, what else there is to choose, at the best rate."""
    found = []
    for name in SWEPT:
        source = ARMS[name].source
        first = {
            "weight": WEIGHTS[0] if source in ("online", "frozen") else None,
            "reward_rate": REWARD_RATES[0] if source == "online" else None,
        }
        if not tried:
            found += [first | {"arm": name, "learning_rate": rate} for rate in RATES]
            continue
        chosen = best(tried, name) | {"arm": name}
        if first["weight"] is not None:
            found += [chosen | {"weight": weight} for weight in WEIGHTS[1:]]
        if first["reward_rate"] is not None:
            found += [chosen | {"reward_rate": rate} for rate in REWARD_RATES[1:]]
    common = {"batches": SWEEP_BATCHES, "why": [], "tested": False}
    return [one | common | {"seed": seed} for one in found for seed in VALIDATION_SEEDS]


def late_accuracy(cell: Mapping[str, Any]) -> float:
    """Mean accuracy of the second half of a run's batches, on problems not seen before; percent."""
    accuracy = cell["accuracy"]
    return round(100 * float(np.mean(accuracy[len(accuracy) // 2 :])), 2)


def best(cells: Sequence[Mapping[str, Any]], arm: str) -> dict[str, Any]:
    """What was chosen of the trials of an arm, with the highest late accuracy over the seeds."""
    by_setting: dict[tuple[Any, ...], list[float]] = {}
    for cell in cells:
        if cell["arm"] == arm:
            setting = tuple(cell[name] for name in CHOSEN)
            by_setting.setdefault(setting, []).append(late_accuracy(cell))
    found = max(by_setting, key=lambda setting: float(np.mean(by_setting[setting])))
    return dict(zip(CHOSEN, found, strict=True))


# ---- Comparing -------------------------------------------------------------------------------


def over_seeds_and_problems(values: npt.ArrayLike) -> Interval:
    """Mean of (seeds, problems) with its 95% bootstrap interval, resampling both."""
    table = np.asarray(values, dtype=float)
    rng = np.random.default_rng(0)
    seeds, problems = table.shape
    drawn = [
        table[rng.integers(seeds, size=seeds)][:, rng.integers(problems, size=problems)].mean()
        for _ in range(2000)
    ]
    return Interval(float(table.mean()), *map(float, np.percentile(drawn, [2.5, 97.5])))


def curve(accuracy: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Accuracy in windows of WINDOW batches, in percent: (seeds, batches) → (seeds, points)."""
    table = np.asarray(accuracy, dtype=float)
    return 100 * table.reshape(len(table), -1, WINDOW).mean(-1)


def batches_to(curves: npt.NDArray[np.float64], target: float) -> float:
    """Batches until the mean curve (seeds, points) reaches a target, between its points.

    The curve never falls: each point counts as the best so far. NaN where it is not reached.
    """
    mean = np.maximum.accumulate(curves.mean(0))
    middles = WINDOW * (np.arange(len(mean)) + 0.5)
    if mean[-1] < target:
        return float("nan")
    place = int(np.argmax(mean >= target))
    if place == 0:
        return float(middles[0])
    share = (target - mean[place - 1]) / (mean[place] - mean[place - 1])
    return float(middles[place - 1] + share * WINDOW)


def efficiency(outcome: npt.NDArray[np.float64], arm: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Rollouts that the outcome alone needs over those of an arm, to the same accuracy.

    The accuracy is the best of the outcome's mean curve. Seeds are resampled in pairs, and the
    accuracy with them. An arm that does not get there counts as if it did with the last batch, so
    that its ratio is too high; ``not reached`` is the share of such resamples.
    """
    whole = float(WINDOW * outcome.shape[1])

    def ratio(rows: npt.NDArray[np.int64]) -> tuple[float, bool]:
        target = float(outcome[rows].mean(0).max())
        used = batches_to(arm[rows], target)
        reached = not np.isnan(used)
        return batches_to(outcome[rows], target) / (used if reached else whole), reached

    rng = np.random.default_rng(0)
    seeds = len(outcome)
    drawn = [ratio(rng.integers(seeds, size=seeds)) for _ in range(2000)]
    low, high = np.percentile([value for value, _ in drawn], [2.5, 97.5])
    value, _ = ratio(np.arange(seeds))
    return {
        "target": round(float(outcome.mean(0).max()), 2),
        "ratio": rounded(Interval(value, float(low), float(high))),
        "not reached": round(1 - float(np.mean([reached for _, reached in drawn])), 3),
    }


def summarise(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each arm's end, curve and cost, and what it differs from the outcome arm by, in points."""
    by_arm: dict[str, list[Mapping[str, Any]]] = {}
    for run in sorted(runs, key=lambda run: run["seed"]):
        by_arm.setdefault(run["arm"], []).append(run)
    ends = {arm: 100 * np.array([r["test"]["right"] for r in own]) for arm, own in by_arm.items()}
    curves = {arm: curve([r["accuracy"] for r in own]) for arm, own in by_arm.items()}
    rivals = [arm for arm in (OUTCOME, FROZEN) if arm in by_arm]
    found = []
    for arm, own in by_arm.items():
        line: dict[str, Any] = {
            "arm": arm,
            "seeds": len(own),
            "end": rounded(over_seeds_and_problems(ends[arm])),
            "curve": curves[arm].mean(0).round(2).tolist(),
            "curve_sd": curves[arm].std(0, ddof=1).round(2).tolist(),
            "batch_seconds": round(float(np.mean([r["batch_seconds"] for r in own])), 2),
        }
        for rival in rivals:
            # Seeds that both have: an arm is paired with the same problems in the same order.
            both = min(len(ends[arm]), len(ends[rival]))
            gap = ends[arm][:both] - ends[rival][:both]
            line[f"minus {rival}"] = rounded(over_seeds_and_problems(gap))
            line[f"minus {rival}, whole curve"] = rounded(
                over_seeds_and_problems(curves[arm][:both] - curves[rival][:both])
            )
        outcome = curves[OUTCOME][: len(own)]
        line["rollouts"] = efficiency(outcome, curves[arm][: len(outcome)])
        if "prm_reward" in own[0]:
            line["prm_reward"] = _window_means([r["prm_reward"] for r in own])
            line["prm_auc"] = _window_means([r["prm_auc"] for r in own])
        found.append(line)
    return found


def _window_means(values: Sequence[Sequence[float | None]]) -> list[float]:
    table = np.array(values, dtype=float)
    windows = table.reshape(len(table), -1, WINDOW)
    return np.nanmean(windows, axis=(0, 2)).round(3).tolist()


def without_problems(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run as the result file keeps it: its end averaged over problems."""
    test = dict(run["test"]) | {"right": round(100 * float(np.mean(run["test"]["right"])), 2)}
    return dict(run) | {"test": test}


def tolerance(first: Mapping[str, Any], again: Mapping[str, Any]) -> float:
    """Twice the difference, in points of a run's mean accuracy, that another attention made.

    At least MIN_TOLERANCE: here the two drew the same tokens, which another machine need not.
    """
    difference = abs(float(np.mean(first["accuracy"]) - np.mean(again["accuracy"])))
    return max(MIN_TOLERANCE, round(200 * difference, 2))


def sweep_config() -> dict[str, Any]:
    return {
        "world": [GENERATOR, OPERATIONS],
        "seeds": VALIDATION_SEEDS,
        "batches": SWEEP_BATCHES,
        "sizes": [PROMPTS, GROUP],
        "rates": RATES,
        "weights": WEIGHTS,
        "reward model": [BETA, REWARD_RATES],
        "arms": {name: asdict(ARMS[name]) for name in SWEPT},
    }


def run_config(chosen: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "sweep": sweep_config(),
        "chosen": chosen,
        "seeds": [SEEDS, ABLATION_SEEDS],
        "batches": BATCHES,
        "test": [TEST_PROBLEMS, TEST_RESPONSES],
        "why": [WHY_SEEDS, WHY_BATCHES, WHY_PROBLEMS, WHY_RESPONSES, WHY_COMPLETIONS],
        "gradients": WHY_GRADIENTS,
        "arms": {name: asdict(arm) for name, arm in ARMS.items()},
    }


def runs_of(chosen: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The cells of all arms, a seed after the other."""
    return [
        {"arm": name, "seed": seed, "batches": BATCHES, "tested": True}
        | {"why": list(WHY_BATCHES) if name in WHY_ARMS and seed in WHY_SEEDS else []}
        | dict(chosen[ARMS[name].tuned_as or name])
        for arms, seeds in ((MAIN, SEEDS), (ABLATIONS, ABLATION_SEEDS))
        for seed in seeds
        for name in arms
    ]


def write(
    tried: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]],
    again: Mapping[str, Any],
) -> None:
    """Write the result file; ``again`` is the first run by another implementation of attention."""
    cells: list[dict[str, Any]] = [
        {"part": "validation", "late_accuracy": late_accuracy(cell)}
        | {name: cell[name] for name in ("arm", *CHOSEN, "seed", "seconds")}
        for cell in tried
    ]
    cells += [{"part": "run"} | without_problems(run) for run in runs]
    cells += [{"part": "summary"} | one for one in summarise(runs)]
    save_result(
        "reinforcement",
        "python -m implicitprm.experiments.reinforcement",
        config,
        cells,
        tolerance(runs[0], again),
        sum(cell["seconds"] for cell in (*tried, *runs, again)),
    )


def main(
    workers: Annotated[int, typer.Option(help="processes, one core each", min=1)] = 2,
) -> None:
    """Run the experiment and write its result file."""
    swept = sweep_config()
    tried = run_cells("reinforcement-validation", swept, trials(), measure, workers)
    tried += run_cells("reinforcement-validation", swept, trials(tried), measure, workers)
    config = run_config({name: best(tried, name) for name in SWEPT})
    grid = runs_of(config["chosen"])
    # By another implementation of attention, as another machine might.
    elsewhere = grid[0] | {"attention": "eager"}
    measured = run_cells("reinforcement", config, [*grid, elsewhere], measure, workers)
    write(tried, config, measured[:-1], measured[-1])
    forget_cells("reinforcement-validation", swept)
    forget_cells("reinforcement", config)


if __name__ == "__main__":
    typer.run(main)
