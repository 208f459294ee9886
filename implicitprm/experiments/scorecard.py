"""The scorecard of chapter 15: every claim, its effect here with an interval, and a verdict.

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

from implicitprm.experiments.paper import COMPUTE_RATIOS
from implicitprm.experiments.store import load_result

Expects = Literal["above 0", "below 0", "about 0"]
HOLDS = "holds"
CONDITIONAL = "holds under a condition"
REVERSED = "reversed"
NOT_FOUND = "not found here"
NOT_TESTABLE = "not testable here"


@dataclass(frozen=True)
class Effect:
    """One number that bears on a claim, under one condition.

    ``interval`` is its value, low and high end; ``expects`` is what the claim says of it. An effect
    "about 0" is one whose whole interval lies within ± ``margin``.
    """

    condition: str
    interval: tuple[float, float, float]
    expects: Expects = "above 0"
    unit: str = "points"
    margin: float = 2.0

    def __str__(self) -> str:
        value, low, high = self.interval
        number = (
            "{:+.1f} [{:+.1f}, {:+.1f}]" if self.unit == "points" else "{:.3g} [{:.3g}, {:.3g}]"
        )
        return f"{self.condition}: {number.format(value, low, high)} {self.unit}"

    @property
    def finding(self) -> str:
        """HOLDS, REVERSED or NOT_FOUND."""
        _, low, high = self.interval
        if self.expects == "about 0":
            return HOLDS if -self.margin <= low and high <= self.margin else NOT_FOUND
        above, below = low > 0, high < 0
        if self.expects == "below 0":
            above, below = below, above
        return HOLDS if above else REVERSED if below else NOT_FOUND


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

    HOLDS where all do; CONDITIONAL where some do; REVERSED where none does and the interval of one
    lies wholly on the other side; otherwise NOT_FOUND.
    """
    findings = {effect.finding for effect in effects}
    if not findings:
        return NOT_TESTABLE
    if findings == {HOLDS}:
        return HOLDS
    if HOLDS in findings:
        return CONDITIONAL
    return REVERSED if REVERSED in findings else NOT_FOUND


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
                "effect here": "; ".join(map(str, effects)) or claim.why_not,
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


def exact(value: float) -> tuple[float, float, float]:
    """A number without sampling error, such as a count."""
    return value, value, value


def broken(count: str) -> list[Effect]:
    """Share of the prefixes of all toy languages that break a statement."""
    share = sum(c[count] for c in cells("propositions")) / prefixes_checked()
    return [Effect(f"of {prefixes_checked()} prefixes", exact(share), "about 0", "broken", 0.0)]


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
        Effect(f"{rule.split()[1]}, {name}", as_triple(curves(world)["rules"][rule]["fall"]))
        for rule in ("reward, sum over steps", "reward, min over steps")
        for name, world in WORLDS_OF_VOTES.items()
    ]


def beats(rivals: Mapping[str, str]) -> list[Effect]:
    """Each objective minus a baseline, by the minimum, mean of the nine cells of a problem."""
    by_min = {
        name: pick("baselines", part="overall", method=rival)["rows"]["min"]
        for name, rival in rivals.items()
    }
    return [
        Effect(f"{own} minus {name}", negative(rows[f"minus {own}"]))
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
        Effect(f"{generator}, {facts} facts", steps_of(generator, facts), unit="AUROC − ½")
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


CLAIMS: tuple[Claim, ...] = (
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
        "A reward model trained on outcomes chooses better answers than the majority",
        "abstract",
        "00",
        ("start_here",),
        first_look,
    ),
    Claim(
        "Trained on outcomes alone, step rewards tell valid steps from wrong ones",
        "§3",
        "08",
        ("baselines",),
        steps_found,
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
        lambda: beats({"hard labels": "log-ratio, Math-Shepherd, hard"}),
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
        lambda: beats({"AutoPSV": "log-ratio, AutoPSV"}),
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
)
