"""The scorecard: verdicts from intervals; no claim without a file, no file without a claim."""

from __future__ import annotations

import numpy as np
import pytest

from implicitprm.experiments import scorecard as card
from implicitprm.experiments.propositions import check, check_language
from implicitprm.experiments.scorecard import CLAIMS, Claim, Effect, scorecard, verdict
from implicitprm.experiments.store import load_result, result_path
from implicitprm.qvalues import Language, random_language

#: But for what a GPU has run, which is no claim; the scorecard ends with it.
FILES = {path.stem for path in result_path("x").parent.glob("*.json")} - {"gpu"}


def effect(low: float, high: float, expects: card.Expects = "above 0") -> Effect:
    return Effect("here", ((low + high) / 2, low, high), expects)


@pytest.mark.parametrize(
    ("low", "high", "expects", "finding"),
    [
        (0.1, 2, "above 0", card.HOLDS),
        (-2, -0.1, "above 0", card.CONTRADICTED),
        (-0.1, 2, "above 0", card.NOT_DECIDED),
        (0, 2, "above 0", card.NOT_DECIDED),
        (-2, -0.1, "below 0", card.HOLDS),
        (0.1, 2, "below 0", card.CONTRADICTED),
        (-2, 0, "below 0", card.NOT_DECIDED),
        (-1.9, 1.9, "about 0", card.HOLDS),
        (0.5, 1.9, "about 0", card.HOLDS),
        (-2.1, 1.0, "about 0", card.NOT_DECIDED),
        (1.9, 2.1, "about 0", card.NOT_DECIDED),
        (-9, 9, "about 0", card.NOT_DECIDED),
        (2, 4, "about 0", card.NOT_DECIDED),  # it touches what counts as nothing
        (3, 4, "about 0", card.CONTRADICTED),
        (-4, -2.1, "about 0", card.CONTRADICTED),
        (-9, -8, "not above 0", card.HOLDS),
        (-9, 1.9, "not above 0", card.HOLDS),
        (-1, 2.1, "not above 0", card.NOT_DECIDED),
        (0.1, 2.1, "not above 0", card.NOT_DECIDED),
        (2.1, 9, "not above 0", card.CONTRADICTED),
        (8, 9, "not below 0", card.HOLDS),
        (-2.1, 1, "not below 0", card.NOT_DECIDED),
        (-9, -0.1, "not below 0", card.NOT_DECIDED),
        (-9, -2.1, "not below 0", card.CONTRADICTED),
    ],
)
def test_a_finding_follows_from_the_interval(
    low: float, high: float, expects: card.Expects, finding: str
) -> None:
    assert effect(low, high, expects).finding == finding


@pytest.mark.parametrize(
    ("value", "margin", "finding"),
    [(0, 0, card.HOLDS), (0.3, 0, card.CONTRADICTED), (-0.09, 0.1, card.HOLDS),
     (-0.11, 0.1, card.CONTRADICTED)],
)  # fmt: skip
def test_a_count_is_always_decided(value: float, margin: float, finding: str) -> None:
    one = Effect("counted", card.exact(value), "about 0", "(ratio − 1)", margin)
    assert one.finding == finding
    assert "[" not in str(one)


def test_an_effect_is_printed_with_its_sign_and_its_unit() -> None:
    assert str(effect(-2, 1)) == "here: -0.5 [-2.0, +1.0] points"
    assert (
        str(Effect("here", (0.1, 0.05, 0.2), unit="AUROC")) == "here: +0.100 [+0.050, +0.200] AUROC"
    )
    assert str(Effect("here", card.exact(31.8), unit="percent break it")) == (
        "here: 31.8 percent break it"
    )


def test_a_verdict_follows_from_the_findings() -> None:
    up, down, open_ = effect(1, 2), effect(-2, -1), effect(-1, 1)
    assert verdict([up, up]) == card.HOLDS
    assert verdict([up, down]) == verdict([up, open_]) == card.CONDITIONAL
    assert verdict([down, down]) == verdict([down, open_]) == card.CONTRADICTED
    assert verdict([open_, open_]) == card.NOT_DECIDED
    assert verdict([]) == card.NOT_TESTABLE


def without_a_file(claims: tuple[Claim, ...], files: set[str]) -> list[str]:
    """Claims that name a file which is not there, or neither a file nor a reason."""
    return [
        claim.text
        for claim in claims
        if not set(claim.files) <= files or bool(claim.files) == bool(claim.why_not)
    ]


def without_a_claim(claims: tuple[Claim, ...], files: set[str]) -> set[str]:
    return files - {name for claim in claims for name in claim.files}


def test_every_claim_has_its_result_file() -> None:
    assert without_a_file(CLAIMS, FILES) == []


def test_every_result_file_has_a_claim() -> None:
    assert without_a_claim(CLAIMS, FILES) == set()


def test_a_claim_without_a_file_and_a_file_without_a_claim_are_found() -> None:
    claims = (
        Claim("measured", "§1", "00", ("there",), lambda: [effect(1, 2)]),
        Claim("lost", "§2", "00", ("gone",), lambda: [effect(1, 2)]),
        Claim("bare", "§3", "00"),
        Claim("said why", "§4", "00", why_not="needs a GPU"),
    )
    assert without_a_file(claims, {"there", "more"}) == ["lost", "bare"]
    assert without_a_claim(claims, {"there", "more"}) == {"more"}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.text[:60])
def test_a_claim_reads_the_files_that_it_names_and_no_others(
    claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = set()

    def noting(name: str) -> dict:
        read.add(name)
        return load_result(name)

    monkeypatch.setattr(card, "load_result", noting)
    card.cells.cache_clear()
    effects = claim.effects()
    card.cells.cache_clear()
    assert read == set(claim.files)
    assert bool(effects) == bool(claim.files)
    for one in effects:
        value, low, high = one.interval
        assert low <= value <= high, one.condition
    assert len({one.condition for one in effects}) == len(effects)


def test_all_chapters_but_three_are_on_it_in_their_order() -> None:
    chapters = [claim.chapter for claim in CLAIMS]
    assert chapters == sorted(chapters)
    without = {"01", "04", "05"}  # chapter 15 names them
    assert set(chapters) == {f"{number:02}" for number in range(16)} - without


def test_one_quantity_has_one_unit() -> None:
    units = {one.unit for claim in CLAIMS for one in claim.effects()}
    assert units <= {*card.FORMATS, "AUROC", "AUROC above ½", "AUROC lost", "rank correlation"}


def test_claims_are_said_once_and_lines_are_complete() -> None:
    table = scorecard()
    assert len(table) == len(CLAIMS) == table["claim"].nunique()
    assert (table != "").all(axis=None)


def test_a_changed_number_changes_its_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = next(claim for claim in CLAIMS if claim.text == "DPO is better than CE")
    assert verdict(claim.effects()) == card.CONTRADICTED

    def mirrored(name: str) -> dict:
        result = load_result(name)
        for cell in result["cells"]:
            if cell["part"] == "summary":
                rule = cell["rows"][card.MIN_16]
                rule["minus CE"] = list(card.negative(rule["minus CE"]))
        return result

    monkeypatch.setattr(card, "load_result", mirrored)
    card.cells.cache_clear()
    assert verdict(claim.effects()) == card.HOLDS
    card.cells.cache_clear()


def test_a_cell_that_is_not_there_is_an_error() -> None:
    with pytest.raises(LookupError, match=r"has 0 cells with .*'nobody'"):
        card.pick("objectives", part="summary", variant="nobody")
    with pytest.raises(LookupError, match="not one"):
        card.pick("objectives", part="summary", variant="CE")


# ---- Propositions ---------------------------------------------------------------------------


def test_stored_propositions_are_recomputed() -> None:
    stored = load_result("propositions")
    for cell in stored["cells"][:3]:
        again = check(cell["seed"], cell["beta"])
        assert again.pop("gap") == pytest.approx(cell["gap"], abs=stored["tolerance"])
        assert again == {name: value for name, value in cell.items() if name != "gap"}


def test_a_policy_that_is_not_normalised_breaks_the_propositions() -> None:
    rng = np.random.default_rng(0)
    reference = random_language(rng, 3, 3)
    policy = random_language(rng, 3, 3, within=reference)
    assert check_language(policy, reference, 1.0)["gap"] < 1e-9
    louder = Language(lambda y: policy.next_logps(y) + 0.5, policy.end, policy.max_length)
    broken = check_language(louder, reference, 1.0)
    assert broken["gap"] > 0.1


def test_the_order_of_the_printed_formula_matters() -> None:
    found = [check(seed, 1.0) for seed in range(3)]
    assert sum(cell["as printed"] for cell in found) > 0
    assert sum(cell["below"] + cell["above"] for cell in found) == 0
