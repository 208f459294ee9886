"""The benchmarks run, and find results that differ; their times are nobody's business here."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from benchmarks import rounds, sampling, scoring
from benchmarks.memory import peak_bytes
from rich.console import Console


def test_every_table_is_filled() -> None:
    tables = scoring.tables(rounds=2, size=0.2)
    assert [table.row_count for table in tables] == [3, 3, 3, 3]
    console = Console(width=200, file=io.StringIO(), record=True)
    for table in tables:
        console.print(table)
    text = console.export_text()
    assert "published style" in text
    assert "growth: vocabulary" in text


def test_results_that_differ_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*arguments: Any) -> list[torch.Tensor]:
        first, *others = published_style(*arguments)
        return [first + 1e-3, *others]

    published_style = scoring.published_style
    monkeypatch.setattr(scoring, "published_style", wrong)
    with pytest.raises(AssertionError, match="not close"):
        scoring.tables(rounds=1, size=0.1)


def test_rollouts_stand_beside_generate_and_shared_prefixes_beside_naive_ones() -> None:
    assert sampling.against_generate(rounds=1, count=2, n=2).row_count == 2
    table = sampling.against_naive(rounds=1, count=3, n=1)
    assert table.row_count == 3


def test_other_texts_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "generate", lambda *_, **__: ["another text"])
    with pytest.raises(AssertionError, match="greedy texts differ"):
        sampling.against_generate(rounds=1, count=2, n=2)


@pytest.mark.slow
def test_training_steps_stand_beside_trl_s(monkeypatch: pytest.MonkeyPatch) -> None:
    training = pytest.importorskip("benchmarks.training", reason="needs trl")
    assert training.table(rounds=1, count=3, tokens=24, vocabulary=100).row_count == 4
    wrong = training.THEIRS | {"ce": ("DPO", "bco_pair", 1)}
    monkeypatch.setattr(training, "THEIRS", wrong)
    with pytest.raises(AssertionError, match="ce: the losses are"):
        training.table(rounds=1, count=3, tokens=24, vocabulary=100)


def test_turns_alternate_and_the_first_round_is_not_counted() -> None:
    turns: list[str] = []
    contenders = {name: (lambda name=name: turns.append(name)) for name in ("a", "b")}
    seconds = rounds.alternate(contenders, rounds=2)
    assert turns == ["a", "b"] * 3
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


def test_peak_memory_is_that_of_the_largest_moment() -> None:
    def allocate() -> int:
        parts = [torch.ones(2**20).sum(), torch.ones(2**20).sum()]  # 4 MB, one after the other
        return len(parts)

    peak, result = peak_bytes(allocate)
    assert result == 2
    assert peak == 4 * 2**20 + 2 * 4  # and the sums
    together, _ = peak_bytes(lambda: torch.ones(2**20) + torch.ones(2**20))
    assert together == 3 * 4 * 2**20
