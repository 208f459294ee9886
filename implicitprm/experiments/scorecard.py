"""Claims, by chapter: the effect of each here with an interval, and a verdict.

``python -m implicitprm.experiments.scorecard`` prints it.

Nothing in it is typed: an effect is read from a result file, and the verdict follows from the
intervals by :func:`verdict`. A claim that nothing here can test says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import pandas as pd

from implicitprm.evaluation import mean_interval
from implicitprm.experiments.gpu import gpu_line
from implicitprm.experiments.paper import COMPUTE_RATIOS
from implicitprm.experiments.store import load_result, rounded

Expects = Literal["above 0", "below 0", "about 0", "not above 0", "not below 0"]
HOLDS = "holds"
CONDITIONAL = "holds under a condition"
CONTRADICTED = "contradicted here"
NOT_DECIDED = "not decided here"
NOT_TESTABLE = "not testable here"


F1 = "points of F1"
#: How an effect is printed, by its unit; in any other, as a difference with three decimals.
FORMATS = {
    "points": "+.1f",
    F1: "+.1f",
    "nats": ".1e",
    "nats × β a response": "+.1f",
    "percent break it": ".1f",
    "(ratio − 1)": "+.2f",
    "(ratio / stated ratio − 1)": "+.2f",
}


@dataclass(frozen=True)
class Effect:
    """One number that bears on a claim, under one condition.

    ``interval`` is its value, low and high end, all three equal for a count, which has no sampling
    error; ``expects`` is what the claim says of it. "Above 0" and "below 0" allow one side of 0;
    "about 0" allows what lies within ± ``margin``, "not above 0" (or below) what does not lie
    beyond the margin on that side.
    """

    condition: str
    interval: tuple[float, float, float]
    expects: Expects = "above 0"
    unit: str = "points"
    margin: float = 2.0

    def __str__(self) -> str:
        value, low, high = self.interval
        spec = FORMATS.get(self.unit, "+.3f")
        bounds = "" if low == high else f" [{low:{spec}}, {high:{spec}}]"
        return f"{self.condition}: {value:{spec}}{bounds} {self.unit}"

    @property
    def finding(self) -> str:
        """HOLDS if the whole interval is allowed, CONTRADICTED if none of it, else NOT_DECIDED."""
        _, low, high = self.interval
        if self.expects in ("below 0", "not below 0"):  # the mirror image of the other side
            low, high = -high, -low
        if self.expects == "about 0":
            allowed, excluded = max(-low, high) <= self.margin, max(low, -high) > self.margin
        elif self.expects in ("not above 0", "not below 0"):
            allowed, excluded = high <= self.margin, low > self.margin
        else:
            allowed, excluded = low > 0, high < 0
        return HOLDS if allowed else CONTRADICTED if excluded else NOT_DECIDED


@dataclass(frozen=True)
class Claim:
    """What somebody says, where, and how to find out.

    ``files`` name the result files that ``effects`` reads; a claim without them says in ``why_not``
    why it cannot be tested here.
    """

    text: str
    source: str
    chapter: str
    files: tuple[str, ...] = ()
    effects: Callable[[], list[Effect]] = list
    why_not: str = ""


def verdict(effects: list[Effect]) -> str:
    """One word for all effects of a claim.

    HOLDS where all do; CONDITIONAL where some do; CONTRADICTED where none does and at least one
    contradicts it; otherwise NOT_DECIDED.
    """
    findings = {effect.finding for effect in effects}
    if not findings:
        return NOT_TESTABLE
    if findings == {HOLDS}:
        return HOLDS
    if HOLDS in findings:
        return CONDITIONAL
    return CONTRADICTED if CONTRADICTED in findings else NOT_DECIDED


def scorecard() -> pd.DataFrame:
    """One line per claim: claim, source, chapter, effect, verdict."""
    lines = []
    for claim in CLAIMS:
        effects = claim.effects()
        lines.append(
            {
                "claim": claim.text,
                "source": claim.source,
                "chapter": claim.chapter,
                "effect": "; ".join(map(str, effects)) or claim.why_not,
                "verdict": verdict(effects),
            }
        )
    return pd.DataFrame(lines)


# ---- Reading the result files ---------------------------------------------------------------


@cache
def cells(name: str) -> tuple[dict[str, Any], ...]:
    return tuple(load_result(name)["cells"])


def pick(name: str, **where: Any) -> dict[str, Any]:
    """The one cell of a result file that has these values. Raises LookupError for none or more."""
    found = [c for c in cells(name) if all(c.get(key) == value for key, value in where.items())]
    if len(found) != 1:
        raise LookupError(f"{name}.json has {len(found)} cells with {where}, not one")
    return found[0]


def as_triple(interval: list[float]) -> tuple[float, float, float]:
    value, low, high = interval
    return value, low, high


def negative(interval: list[float]) -> tuple[float, float, float]:
    value, low, high = interval
    return -value, -high, -low


def percent(interval: tuple[float, float, float]) -> tuple[float, float, float]:
    value, low, high = interval
    return 100 * value, 100 * low, 100 * high


def exact(value: float) -> tuple[float, float, float]:
    """A number without sampling error, such as a count."""
    return value, value, value


def broken(count: str) -> list[Effect]:
    """Share of the prefixes of all toy languages that break a statement."""
    prefixes = prefixes_checked()
    share = exact(100 * sum(c[count] for c in cells("propositions")) / prefixes)
    return [Effect(f"of {prefixes:,} prefixes", share, "about 0", "percent break it", 0.0)]


def prefixes_checked() -> int:
    return sum(cell["prefixes"] for cell in cells("propositions"))


def running_sum() -> list[Effect]:
    gap = max(cell["gap"] for cell in cells("propositions"))
    tolerance = load_result("propositions")["tolerance"]
    return [Effect("largest difference / β", exact(gap), "about 0", "nats", margin=tolerance)]


# ---- Chapters 06 to 08 ----------------------------------------------------------------------

GENERATORS = ("early", "reasoner", "strong")
OBJECTIVES = ("CE", "DPO", "NCA", "KTO")
MIN_16 = "best of 16: reward, min over steps"


def objective(variant: str, generator: str, rival: str, rule: str = MIN_16) -> list[float]:
    rows = pick("objectives", part="summary", variant=variant, generator=generator, split="test")
    return rows["rows"][rule][f"minus {rival}"]


def above_majority() -> list[Effect]:
    return [
        Effect(f"{variant}, {generator}", as_triple(objective(variant, generator, "majority")))
        for variant in OBJECTIVES
        for generator in GENERATORS
    ]


def better_than(rival: str, variant: str) -> list[Effect]:
    """By the minimum of 16, one objective minus another, by generator of the candidates."""
    return [
        Effect(generator, as_triple(objective(variant, generator, rival)))
        for generator in GENERATORS
    ]


def worse_than(rival: str, variant: str) -> list[Effect]:
    return [
        Effect(generator, as_triple(objective(variant, generator, rival)), "below 0")
        for generator in GENERATORS
    ]


def balanced() -> list[Effect]:
    return [
        Effect(f"{how}, {generator}", as_triple(objective(how, generator, "CE")), "about 0")
        for how in ("CE, balanced", "CE, balanced by prompt")
        for generator in GENERATORS
    ]


WORLDS_OF_VOTES = {
    "misconceptions": "reasoner",
    "misconceptions, nothing truncated": "reasoner_full",
    "no misconceptions": "control",
    "no misconceptions, nothing truncated": "control_full",
}


def curves(world: str) -> dict[str, Any]:
    return pick("best_of_n", part="summary", trained=world, tested=world)


def at_64(world: str, first: str, second: str) -> tuple[float, float, float]:
    (found,) = (d for d in curves(world)["differences"] if d["of"] == [first, second])
    return as_triple(found["difference"][-1])


def weighted_vote(rival: str) -> list[Effect]:
    return [
        Effect(name, at_64(world, "vote weighted by reward", rival))
        for name, world in WORLDS_OF_VOTES.items()
    ]


def fall_to_64() -> list[Effect]:
    return [
        Effect(
            f"{rule.split()[1]}, {name}",
            as_triple(curves(world)["rules"][rule]["fall"]),
            "not below 0",
        )
        for rule in ("reward, sum over steps", "reward, min over steps")
        for name, world in WORLDS_OF_VOTES.items()
    ]


def beats(rivals: Mapping[str, str], expects: Expects = "above 0") -> list[Effect]:
    """Each objective minus a baseline, by the minimum, mean of the nine cells of a problem."""
    by_min = {
        name: pick("baselines", part="overall", method=rival)["rows"]["min"]
        for name, rival in rivals.items()
    }
    return [
        Effect(f"{own} minus {name}", negative(rows[f"minus {own}"]), expects)
        for name, rows in by_min.items()
        for own in OBJECTIVES
    ]


def flops(source: str, operations: int | None) -> float:
    where = {"part": "cost", "operations": operations, "counted": "as in the paper"}
    return pick("baselines", source=source, **where)["flops"]


def cheaper_than(source: str) -> list[Effect]:
    """FLOPs of the source of labels over those of CE, minus 1; counted, not sampled."""
    return [
        Effect(
            f"{operations} operations",
            exact(flops(source, operations) / flops("CE", operations) - 1),
            unit="(ratio − 1)",
        )
        for operations in (3, 5, 8)
    ]


def as_cheap_as_stated(source: str) -> list[Effect]:
    """Our ratio over the paper's, minus 1; it agrees within a tenth."""
    stated = float(np.mean(COMPUTE_RATIOS[f"{source} / CE"]))
    return [
        Effect(
            f"{operations} operations",
            exact(flops(source, operations) / flops("CE", operations) / stated - 1),
            "about 0",
            "(ratio / stated ratio − 1)",
            margin=0.1,
        )
        for operations in (3, 5, 8)
    ]


def steps_of(generator: str, facts: str) -> tuple[float, float, float]:
    """AUROC of CE's step rewards minus ½: value and interval averaged over seeds."""
    runs = [c for c in cells("baselines") if c["part"] == "run" and c["method"] == "CE"]
    found = np.mean([run["generators"][generator]["auroc"][facts] for run in runs], axis=0)
    return as_triple((found - 0.5).tolist())


def steps_found() -> list[Effect]:
    return [
        Effect(f"{generator}, {facts} facts", steps_of(generator, facts), unit="AUROC above ½")
        for generator in GENERATORS
        for facts in ("seen", "unseen")
    ]


def first_look() -> list[Effect]:
    """Chapter 00: best of 16 by the minimum minus the majority vote, by world and seed."""
    return [
        Effect(f"{c['world']}, seed {c['seed']}", as_triple(c["rows"][MIN_16]["minus majority"]))
        for c in cells("start_here")
        if c["part"] == "test" and c["split"] == "test"
    ]


# ---- Chapters 09 to 11, and the second world -------------------------------------------------


def one_response() -> list[Effect]:
    """CE with one response per instruction, by the minimum of 16, minus one response alone."""
    arm = {"objective": "CE", "source": "base", "share": 1.0, "responses": 1}
    rows = pick("scaling", part="summary", schedule="3 epochs", **arm)["rows"]
    return [
        Effect(f"minus {level}, {world}", as_triple(rows[world]["min"][f"minus {level}"]))
        for level in ("pass@1", "majority")
        for world in ("reasoner", "strong")
    ]


def scaling_slope(amount: str) -> list[Effect]:
    """Points per doubling of an amount."""
    return [
        Effect(
            f"{name}, {schedule}",
            as_triple(
                pick("scaling", part="slope", slope=amount, objective=name, schedule=schedule)[
                    "rows"
                ]["reasoner"]["min"]
            ),
        )
        for name in ("CE", "DPO")
        for schedule in ("3 epochs", "matched")
    ]


def contrast(name: str, world: str = "reasoner", **where: Any) -> tuple[float, float, float]:
    cell = pick("scaling", part="effect", effect=name, **where)
    return as_triple(cell["rows"][world]["min"])


def responses_for_dpo() -> list[Effect]:
    name = "8 responses minus 2: DPO's gain minus CE's"
    return [
        Effect(schedule, contrast(name, schedule=schedule)) for schedule in ("3 epochs", "matched")
    ]


def arm_of_scaling(objective: str, source: str, schedule: str = "matched") -> list[Any]:
    return [objective, source, 1.0, 8, schedule]


def no_gain(sources: Mapping[str, str], than: str, world: str) -> list[Effect]:
    """Kinds of data that the paper found to bring nothing: that is, they are not better."""
    return [
        Effect(
            condition,
            contrast(f"{source} minus {than}", world, a=arm_of_scaling("CE", source)),
            "not above 0",
        )
        for source, condition in sources.items()
    ]


def matched_order() -> list[Effect]:
    """The paper's order DPO, NCA, CE, KTO, at one number of updates."""
    expects: dict[str, Expects] = {"DPO": "above 0", "NCA": "above 0", "KTO": "below 0"}
    return [
        Effect(
            f"{name} minus CE",
            contrast(f"{name} minus CE", a=arm_of_scaling(name, "base")),
            to,
        )
        for name, to in expects.items()
    ]


def reading(
    objective: str, trained: str, read: str, stage: str = "stage 1"
) -> dict[str, dict[str, list[float]]]:
    where = {"part": "summary", "objective": objective, "stage": stage}
    return pick("ablations", **where, **{"trained with": trained, "read with": read})["rows"]


def second_stage(labels: Mapping[str, Expects]) -> list[Effect]:
    return [
        Effect(
            label,
            as_triple(
                reading("CE", "reasoner", "reasoner", label)["reasoner, min"][
                    "minus one more epoch of CE"
                ]
            ),
            to,
        )
        for label, to in labels.items()
    ]


def without_reference(trained: str, read: str, quantity: str) -> list[Effect]:
    """CE and DPO trained and read so, minus the same objective with the reference in both."""
    return [
        Effect(
            f"{objective}, trained with {trained}",
            as_triple(reading(objective, trained, read)[quantity]["minus as usual"]),
            "not below 0" if quantity == "reasoner, min" else "below 0",
        )
        for objective in ("CE", "DPO")
    ]


def as_policy() -> list[Effect]:
    effects = []
    for name in OBJECTIVES:
        where = {"part": "policy", "objective": name, "trained with": "reasoner"}
        value = pick("ablations", **where)["rows"]["pass@1"]["minus the reasoner"]
        effects.append(Effect(name, as_triple(value), "below 0"))
    return effects


def style_explained_away() -> list[Effect]:
    where = {"part": "summary", "read with": "none"}
    return [
        Effect(
            f"{written}, by {rule}",
            as_triple(
                pick("style", **where, written=written)["rows"][rule][
                    "cost of style minus its generator"
                ]
            ),
            "below 0",
        )
        for written in ("as sampled", "half restyled")
        for rule in ("min", "sum")
    ]


def errors(
    section: str, key: str, method: str = "CE", minus: str | None = None
) -> tuple[float, float, float]:
    where = {"section": section, "method": method}
    if minus is None:
        return as_triple(pick("where_is_the_error", part="summary", **where)["rows"][key])
    cell = pick("where_is_the_error", part="difference", minus=minus, **where)
    return as_triple(cell["rows"][key])


def advantage_like() -> list[Effect]:
    """Agreement of q with Q − Q⁰ minus that with Q, pooled; and what a head has more."""
    return [
        Effect("CE", errors("truth", "pooled: Q - Q0 minus Q"), unit="rank correlation"),
        Effect(
            "CE minus the outcome head",
            errors("truth", "pooled: Q - Q0 minus Q", minus="ORM"),
            unit="rank correlation",
        ),
    ]


def an_orm_in_disguise() -> list[Effect]:
    """Best of 16 by the minimum, without the last step minus with it, in points."""
    return [
        Effect(name, errors("minimum", "min without the answer minus min", name), "below 0")
        for name in ("CE", "DPO", "KTO")
    ]


def surface_tokens() -> list[Effect]:
    """AUROC that commuted operands cost, less what they cost a head that sees confidence."""
    return [
        Effect(
            f"{name} minus the outcome head",
            errors("surface", "commuted: AUROC lost", name, "ORM"),
            unit="AUROC lost",
        )
        for name in ("CE", "DPO", "KTO")
    ]


def unseen_facts() -> list[Effect]:
    return [
        Effect(
            f"{kind}, CE minus the outcome head",
            errors("unseen", f"drop, {kind}: AUROC", minus="ORM"),
            unit="AUROC lost",
        )
        for kind in ("slips", "misconceptions")
    ]


def carried_threshold() -> list[Effect]:
    """First-error F1 by CE's carried threshold, minus that of log π_ref by its own."""
    return [
        Effect(
            generator,
            percent(errors("first error", f"{key}: F1", minus="log π_ref")),
            unit=F1,
        )
        for generator, key in (("reasoner", "test"), ("strong", "strong"), ("early", "early"))
    ]


def in_the_second_world(rule: str, rival: str, expects: Expects = "above 0") -> list[Effect]:
    return [
        Effect(name.upper(), as_triple(cell["rows"][rule][f"minus {rival}"]), expects)
        for name, cell in second_world().items()
    ]


def steps_in_the_second_world() -> list[Effect]:
    key, found = "step reward minus log π_ref alone", second_world()
    return [
        *(Effect(n.upper(), as_triple(c["auroc"][key]), unit="AUROC") for n, c in found.items()),
        *(
            Effect(f"{n.upper()}, first errors", percent(as_triple(c["f1"][key])), unit=F1)
            for n, c in found.items()
        ),
    ]


def search_against_best_of_n() -> list[Effect]:
    found = []
    for guide in ("reward, sum over steps", "reward, min over steps"):
        for budget in (4, 16):
            cell = pick("beam_search", part="summary", guide=guide, budget=budget)
            effect = as_triple(cell["minus"][f"best of N by {guide}"])
            found.append(Effect(f"{guide}, {budget} first steps", effect))
    return found


# ---- A real language model ------------------------------------------------------------------


def real(quantity: str) -> dict[str, Any]:
    return pick("real_solutions", part="summary")[quantity]


def real_outcomes() -> list[Effect]:
    """AUROC of the reward within the solutions of one model, less the ½ of chance."""
    return [
        Effect(f"within {model}", (value - 0.5, low - 0.5, high - 0.5), unit="AUROC above ½")
        for model, (value, low, high) in real("AUROC")["reward, sum over steps"].items()
    ]


def real_outcomes_against(rivals: tuple[str, ...]) -> list[Effect]:
    gains = real("AUROC of the reward minus")
    return [Effect(f"minus {rival}", as_triple(gains[rival]), unit="AUROC") for rival in rivals]


def real_choices() -> list[Effect]:
    """Choosing among four solutions, minus always taking the best model's, in points."""
    return [
        Effect(rule, as_triple(real("rows")[rule]["minus always the best model"]))
        for rule in (
            "best of 4: reward, sum over steps",
            "best of 4: reward, min over steps",
            "vote weighted by reward",
        )
    ]


def real_first_errors(rival: str) -> list[Effect]:
    """First-error F1 of the step reward minus that of a rival, on ProcessBench, in points."""
    summary = pick("processbench", part="summary")
    return [
        Effect(
            table, as_triple(summary[table][rival]["F1 of step reward minus this one's"]), unit=F1
        )
        for table in ("gsm8k, threshold of the other half", "math, threshold of gsm8k")
    ]


def second_world() -> dict[str, dict[str, Any]]:
    return {
        name: pick("second_world", part="summary", objective=name) for name in ("ce", "dpo", "kto")
    }


# ---- A pre-trained model ----------------------------------------------------------------------

#: How much the PRM of chapter 13 was trained on; a test compares it with the rollouts.
SMOLLM2 = "SmolLM2-135M, trained on answers to 200 problems"


def on_a_pretrained_model(rules: Mapping[str, str]) -> list[Effect]:
    """Rules of choice among eight answers minus the majority vote, mean of the seeds."""
    rows = pick("smollm2", part="summary")["rows"]
    return [
        Effect(f"{condition}, {SMOLLM2}", as_triple(rows[rule]["minus majority"]))
        for rule, condition in rules.items()
    ]


def right_calculations() -> list[Effect]:
    """AUROC of step rewards minus ½: value and interval averaged over seeds."""
    runs = [cell for cell in cells("smollm2") if cell["part"] == "run"]
    found = np.mean([run["right calculation AUROC"]["step reward"] for run in runs], axis=0)
    return [Effect(SMOLLM2, as_triple((found - 0.5).tolist()), unit="AUROC above ½")]


def beyond_its_reference() -> list[Effect]:
    """AUROC within problems of the reward minus that of log π_ref, right against wrong answers."""
    found = pick("smollm2", part="summary")["reward minus log π_ref alone, AUROC"]
    return [Effect(SMOLLM2, as_triple(found), unit="AUROC")]


# ---- Reinforcement learning ------------------------------------------------------------------


def trained_with(arm: str, of: str = "minus outcome") -> tuple[float, float, float]:
    """An arm of the reinforcement learning, by a difference of its summary, in points."""
    return as_triple(pick("reinforcement", part="summary", arm=arm)[of])


def head_room() -> list[Effect]:
    return [
        Effect(arm, trained_with(arm)) for arm in ("true steps", "true steps alone, all prompts")
    ]


def rollouts_saved(stated: float = 1.0) -> list[Effect]:
    """Rollouts of the outcome over those of implicit rewards, to the outcome's last accuracy.

    Over the stated ratio, minus 1; a stated 1 means that there is a saving at all, any other that
    the ratio agrees within a fifth.
    """
    cell = pick("reinforcement", part="summary", arm="implicit")
    value, low, high = (x / stated - 1 for x in cell["rollouts"]["ratio"])
    if stated == 1.0:
        return [Effect("implicit", (value, low, high), unit="(ratio − 1)")]
    unit = "(ratio / stated ratio − 1)"
    return [Effect("implicit", (value, low, high), "about 0", unit, margin=0.2)]


def online_against_offline() -> list[Effect]:
    return [
        Effect("at the end", trained_with("implicit", "minus frozen")),
        Effect("over the whole curve", trained_with("implicit", "minus frozen, whole curve")),
    ]


def frozen_against_outcome() -> list[Effect]:
    """Also at one learning rate: a gain must not be that of the rate."""
    value, low, high = trained_with("outcome, rate of frozen", "minus frozen")
    return [
        Effect("each at its own learning rate", trained_with("frozen")),
        Effect("both at the frozen arm's", (-value, -high, -low)),
    ]


def frozen_alone() -> list[Effect]:
    """From the first eighth of the batches to the last one, over seeds."""
    runs = [
        cell
        for cell in cells("reinforcement")
        if cell["part"] == "run" and cell["arm"] == "frozen alone, all prompts"
    ]

    def rise(key: str, scale: float) -> tuple[float, float, float]:
        parts = [np.array_split(run[key], 8) for run in runs]
        found = [scale * (np.nanmean(of[-1]) - np.nanmean(of[0])) for of in parts]
        return as_triple(rounded(mean_interval(found)))

    return [
        Effect("its reward", rise("prm_reward", 1.0), unit="nats × β a response"),
        Effect("accuracy", rise("accuracy", 100.0), "below 0"),
    ]


# ---- The open questions ----------------------------------------------------------------------


def lab(name: str, arm: str, tested: str = "all") -> tuple[float, float, float]:
    """An arm minus the control of its lab, by the minimum of 16."""
    cell = pick("open_questions", part="summary", lab=name, arm=arm, tested=tested)
    return as_triple(cell["rows"]["min"]["minus control"])


def other_kinds() -> list[Effect]:
    """Trained on one kind of problem, tested on its opposite, minus a mixed set of equal size."""
    opposite = {"short": "long", "long": "short", "without *": "with *", "with *": "without *"}
    return [
        Effect(
            f"trained on {own}, tested on {other}".replace("*", "×"),
            lab("kind", own, other),
            "not below 0",
        )
        for own, other in opposite.items()
    ]


def better_references() -> list[Effect]:
    """Checkpoints as references of a policy that starts as the reasoner, minus the reasoner."""
    expects: dict[str, Expects] = {"early": "below 0", "strong": "above 0"}
    return [
        Effect(f"{checkpoint} minus the reasoner", lab("reference", f"{checkpoint}, reference"), to)
        for checkpoint, to in expects.items()
    ]


def selection_rules() -> list[Effect]:
    return [
        Effect(rule, lab("selection", rule))
        for rule in dict.fromkeys(
            c["rule"] for c in cells("open_questions") if c["part"] == "selection"
        )
        if rule != "at random"
    ]


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "A reward model trained on outcomes chooses better answers than the majority",
        "abstract",
        "00",
        ("start_here",),
        first_look,
    ),
    Claim(
        "The running sum of β log-ratios is β log E exp(r/β) over completions",
        "Proposition 3.1",
        "02",
        ("propositions",),
        running_sum,
    ),
    Claim(
        "q is at least the soft value (mean of r over completions)",
        "Proposition 3.2",
        "03",
        ("propositions",),
        lambda: broken("below"),
    ),
    Claim(
        "q is at most the hard value (largest r among completions)",
        "Proposition 3.2",
        "03",
        ("propositions",),
        lambda: broken("above"),
    ),
    Claim(
        "The lower bound with the expectation given y_<t, as printed",
        "Proposition 3.2, as printed",
        "03",
        ("propositions",),
        lambda: broken("as printed"),
    ),
    Claim(
        "Any of the four objectives gives a reward that beats the majority vote",
        "§4.2, Table 1",
        "06",
        ("objectives",),
        above_majority,
    ),
    Claim(
        "DPO is better than CE",
        "§4.2, Table 1",
        "06",
        ("objectives",),
        lambda: better_than("CE", "DPO"),
    ),
    Claim(
        "KTO is the weakest: worse than CE",
        "§4.2, Table 1",
        "06",
        ("objectives",),
        lambda: worse_than("CE", "KTO"),
    ),
    Claim(
        "Balancing right and wrong responses changes little for CE",
        "§4.2, Table 1",
        "06",
        ("objectives",),
        balanced,
    ),
    Claim(
        "A vote weighted by the reward beats the majority vote, at 64 candidates",
        "§4.3, Figure 3",
        "07",
        ("best_of_n",),
        lambda: weighted_vote("majority vote"),
    ),
    Claim(
        "The weighted vote beats best-of-N by the minimum, at 64 candidates",
        "§4.3, Figure 3",
        "07",
        ("best_of_n",),
        lambda: weighted_vote("reward, min over steps"),
    ),
    Claim(
        "Best-of-N gains, or loses nothing, from 16 to 64 candidates",
        "§4.2, Table 1 (weaker generators)",
        "07",
        ("best_of_n",),
        fall_to_64,
    ),
    Claim(
        "Trained on outcomes alone, step rewards tell valid steps from wrong ones",
        "§3",
        "08",
        ("baselines",),
        steps_found,
    ),
    Claim(
        "The implicit PRM beats Math-Shepherd, as a discriminative head",
        "§4.2, Table 1",
        "08",
        ("baselines",),
        lambda: beats({"hard labels": "head, Math-Shepherd, hard"}),
    ),
    Claim(
        "Outcome labels are as good as Math-Shepherd's, with the log-ratio for both",
        "§4.2 (label swap)",
        "08",
        ("baselines",),
        lambda: beats({"hard labels": "log-ratio, Math-Shepherd, hard"}, "not below 0"),
    ),
    Claim(
        "The implicit PRM beats AutoPSV, as a discriminative head",
        "§4.2, Table 1",
        "08",
        ("baselines",),
        lambda: beats({"AutoPSV": "head, AutoPSV"}),
    ),
    Claim(
        "Outcome labels are as good as AutoPSV's, with the log-ratio for both",
        "§4.2 (label swap)",
        "08",
        ("baselines",),
        lambda: beats({"AutoPSV": "log-ratio, AutoPSV"}, "not below 0"),
    ),
    Claim(
        "Math-Shepherd costs more FLOPs than CE",
        "§5",
        "08",
        ("baselines",),
        lambda: cheaper_than("Math-Shepherd"),
    ),
    Claim(
        "Math-Shepherd costs 38.8 times the FLOPs of CE",
        "abstract, §5",
        "08",
        ("baselines",),
        lambda: as_cheap_as_stated("Math-Shepherd"),
    ),
    Claim(
        "AutoPSV costs 4.3 times the FLOPs of CE",
        "§5",
        "08",
        ("baselines",),
        lambda: as_cheap_as_stated("AutoPSV"),
    ),
    Claim(
        "CE works with one response per instruction",
        "§5.1, Figure 5",
        "09",
        ("scaling",),
        one_response,
    ),
    Claim(
        "More instructions help (points per doubling)",
        "§5.1, Figure 4",
        "09",
        ("scaling",),
        lambda: scaling_slope("instructions"),
    ),
    Claim(
        "More responses per instruction help (points per doubling)",
        "§5.1, Figure 5",
        "09",
        ("scaling",),
        lambda: scaling_slope("responses"),
    ),
    Claim(
        "DPO needs more responses than CE",
        "§5.1, Figure 5",
        "09",
        ("scaling",),
        responses_for_dpo,
    ),
    Claim(
        "More diverse responses bring nothing",
        "§5.2, Table 2",
        "09",
        ("scaling",),
        lambda: no_gain(
            {
                "half early": "half from the early checkpoint",
                "full temperature": "nothing truncated",
            },
            "base",
            "reasoner",
        ),
    ),
    Claim(
        "Irrelevant instructions bring nothing",
        "§5.2, Table 2",
        "09",
        ("scaling",),
        lambda: no_gain({"A1+irrelevant": "minus alone added"}, "A1", "plus_times"),
    ),
    Claim(
        "The order DPO, NCA, CE, KTO, at equal numbers of updates",
        "§4.2, Table 1",
        "09",
        ("scaling",),
        matched_order,
    ),
    Claim(
        "Math-Shepherd's step labels bring nothing in a second stage",
        "§5.3, Table 2",
        "10",
        ("ablations",),
        lambda: second_stage(
            {"Math-Shepherd, soft": "not above 0", "Math-Shepherd, hard": "not above 0"}
        ),
    ),
    Claim(
        "True step labels bring something in a second stage",
        "beside §5.3",
        "10",
        ("ablations",),
        lambda: second_stage({"true labels": "above 0"}),
    ),
    Claim(
        "Without the reference at inference best-of-N is not worse",
        "§5.4, Table 5",
        "10",
        ("ablations",),
        lambda: without_reference("reasoner", "none", "reasoner, min"),
    ),
    Claim(
        "Without the reference in training, read with it, best-of-N is not worse",
        "§5.4, Table 5",
        "10",
        ("ablations",),
        lambda: without_reference("none", "reasoner", "reasoner, min"),
    ),
    Claim(
        "Without the reference in both best-of-N is not worse",
        "§5.4, Table 5",
        "10",
        ("ablations",),
        lambda: without_reference("none", "none", "reasoner, min"),
    ),
    Claim(
        "Without the reference at inference the agreement with Q within problems suffers",
        "beside §5.4",
        "10",
        ("ablations",),
        lambda: without_reference("reasoner", "none", "agreement within problems"),
    ),
    Claim(
        "Training as a PRM makes the model a worse policy",
        "§5.3, Table 3",
        "10",
        ("ablations",),
        as_policy,
    ),
    Claim(
        "The reference explains a style away that log π_θ alone punishes",
        "Proposition 3.1 (consequence)",
        "10",
        ("style",),
        style_explained_away,
    ),
    Claim(
        "First errors are found with a threshold from another split, better than by confidence",
        "ProcessBench's protocol",
        "11",
        ("where_is_the_error",),
        carried_threshold,
    ),
    Claim(
        "q follows Q − Q⁰ rather than Q, more than an outcome head does",
        "Proposition 3.1 (q⁰ = 0)",
        "11",
        ("where_is_the_error",),
        advantage_like,
    ),
    Claim(
        "The minimum is an outcome reward in disguise: without the last step it is worse",
        "criticism, arXiv 2501.07301",
        "11",
        ("where_is_the_error",),
        an_orm_in_disguise,
    ),
    Claim(
        "Implicit rewards lean on surface tokens more than an explicit head",
        "criticism, arXiv 2507.07981",
        "11",
        ("where_is_the_error",),
        surface_tokens,
    ),
    Claim(
        "Implicit rewards generalise worse to unseen facts than an explicit head",
        "criticism, arXiv 2507.07981",
        "11",
        ("where_is_the_error",),
        unseen_facts,
    ),
    Claim(
        "True step labels make reinforcement learning better than the outcome alone",
        "head-room of arXiv 2502.01456",
        "12",
        ("reinforcement",),
        head_room,
    ),
    Claim(
        "Implicit process rewards make reinforcement learning more sample-efficient",
        "arXiv 2502.01456",
        "12",
        ("reinforcement",),
        rollouts_saved,
    ),
    Claim(
        "Implicit process rewards save 2.5 times the rollouts",
        "arXiv 2502.01456, abstract",
        "12",
        ("reinforcement",),
        lambda: rollouts_saved(2.5),
    ),
    Claim(
        "Implicit process rewards raise the final accuracy (there by 6.9%)",
        "arXiv 2502.01456",
        "12",
        ("reinforcement",),
        lambda: [Effect("implicit", trained_with("implicit"))],
    ),
    Claim(
        "A PRM that is updated online beats a frozen one",
        "arXiv 2502.01456",
        "12",
        ("reinforcement",),
        online_against_offline,
    ),
    Claim(
        "Implicit rewards of a frozen PRM, beside the outcome, raise the final accuracy",
        "arXiv 2502.01456, ablation",
        "12",
        ("reinforcement",),
        frozen_against_outcome,
    ),
    Claim(
        "A frozen reward alone is gamed: it rises while accuracy falls",
        "arXiv 2210.10760",
        "12",
        ("reinforcement",),
        frozen_alone,
    ),
    Claim(
        "On a pre-trained model best of 8 by the reward beats the majority vote",
        "abstract",
        "13",
        ("smollm2",),
        lambda: on_a_pretrained_model(
            {
                "best of 8: reward, min over steps": "minimum",
                "best of 8: reward, sum over steps": "sum",
            }
        ),
    ),
    Claim(
        "On a pre-trained model a vote weighted by the reward beats the majority vote",
        "§4.3, Figure 3",
        "13",
        ("smollm2",),
        lambda: on_a_pretrained_model({"vote weighted by reward": "eight answers"}),
    ),
    Claim(
        "On a pre-trained model step rewards tell right calculations from wrong ones",
        "§3",
        "13",
        ("smollm2",),
        right_calculations,
    ),
    Claim(
        "On a pre-trained model the reward tells right answers from wrong ones better than log "
        "π_ref does",
        "beside §4.2",
        "13",
        ("smollm2",),
        beyond_its_reference,
    ),
    Claim(
        "Trained on outcomes, a pre-trained model tells right solutions of a real model from wrong",
        "abstract",
        "13",
        ("real_solutions",),
        real_outcomes,
    ),
    Claim(
        "On real solutions the reward ranks outcomes better than length or log-probability do",
        "§1",
        "13",
        ("real_solutions",),
        lambda: real_outcomes_against(
            ("shortest", "log π_ref alone", "log π_ref per token", "log π_θ alone")
        ),
    ),
    Claim(
        "Choosing by the reward among four real models beats always taking the best one",
        "§4.2",
        "13",
        ("real_solutions",),
        real_choices,
    ),
    Claim(
        "Step rewards that guide the search beat best-of-N by them at equal tokens",
        "arXiv 2408.03314 §5",
        "14",
        ("beam_search",),
        search_against_best_of_n,
    ),
    Claim(
        "Step rewards of an outcome-trained model find the first error better than chance",
        "arXiv 2501.07301",
        "14",
        ("processbench",),
        lambda: real_first_errors("chance"),
    ),
    Claim(
        "Step rewards find the first error better than log π_ref of the step does",
        "§3",
        "14",
        ("processbench",),
        lambda: real_first_errors("log π_ref of the step"),
    ),
    Claim(
        "Best-of-N on MATH-500 with 8B models, to the figures of Table 1",
        "§4.2, Table 1",
        "14",
        why_not="needs models of 7B and more and a GPU",
    ),
    Claim(
        "Scoring with two models costs 22 to 202% of generation",
        "Table 4",
        "14",
        why_not="needs models of 7B and more and a GPU",
    ),
    Claim(
        "In a second world best of 16 by the minimum beats the majority vote",
        "abstract",
        "15",
        ("second_world",),
        lambda: in_the_second_world("best of 16: reward, min over steps", "majority"),
    ),
    Claim(
        "In a second world the weighted vote of 64 beats the majority vote",
        "§4.3, Figure 3",
        "15",
        ("second_world",),
        lambda: in_the_second_world("weighted vote of 64", "majority"),
    ),
    Claim(
        "In a second world the sum over steps loses from 16 to 64 candidates",
        "chapter 07's finding",
        "15",
        ("second_world",),
        lambda: in_the_second_world("best of 64: reward, sum over steps", "16", "below 0"),
    ),
    Claim(
        "In a second world step rewards rank steps better than log π_ref does",
        "§3",
        "15",
        ("second_world",),
        steps_in_the_second_world,
    ),
    Claim(
        "A PRM trained on one kind of problem serves the other as well as a mixed one",
        "open question: kinds of problem",
        "15",
        ("open_questions",),
        other_kinds,
    ),
    Claim(
        "The better the reference, the better the PRM",
        "open question: the reference",
        "15",
        ("open_questions",),
        better_references,
    ),
    Claim(
        "Choosing instructions by a rule is better than choosing them at random",
        "open question: instructions",
        "15",
        ("open_questions",),
        selection_rules,
    ),
)


def main() -> None:
    """Print the verdict on every claim, with the effects behind it, and what a GPU has run."""
    for line in scorecard().itertuples():
        print(f"{line.verdict.upper()}: {line.claim} ({line.source}; chapter {line.chapter})")
        print(f"    {line.effect}")
    print(gpu_line())


if __name__ == "__main__":
    main()
