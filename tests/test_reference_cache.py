"""implicitprm.reference_cache: found by content only, never a wrong value, shared by processes."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import VOCABULARY, tiny_model
from peft import LoraConfig, get_peft_model
from tiny import problems, tiny_llama
from torch import Tensor
from transformers import LlamaForCausalLM

from implicitprm import ImplicitPRM, Solution, reference_cache
from implicitprm.arithmetic import ARITHMETIC_FORMAT
from implicitprm.arithmetic.tokenizer import build_tokenizer
from implicitprm.logprobs import score_logps
from implicitprm.reference_cache import DATABASE, ReferenceCache
from implicitprm.steps import EncodedSolution


def encoded(seed: int, count: int = 6) -> list[EncodedSolution]:
    rng = np.random.default_rng(seed)
    solutions = []
    for _ in range(count):
        ids = tuple(int(token) for token in rng.integers(3, VOCABULARY, rng.integers(6, 20)))
        texts = ("x",) * (len(ids) - 4)
        solutions.append(EncodedSolution(ids, 4, (len(texts),), texts))
    return solutions


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many solutions each call had to compute."""
    counts = []

    def counted(model: Any, solutions: Any, *others: Any) -> list[Tensor]:
        counts.append(len(solutions))
        return score_logps(model, solutions, *others)

    monkeypatch.setattr(reference_cache, "score_logps", counted)
    return counts


def look_up(folder: Path, model: Any, solutions: list[EncodedSolution]) -> list[Tensor]:
    return ReferenceCache(folder, model).score_logps(solutions, 0, 4, "test")


def check_equal(ones: list[Tensor], others: list[Tensor], tolerance: float = 0.0) -> None:
    for one, other in zip(ones, others, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


def test_what_is_known_is_not_computed(tmp_path: Path, computed: list[int]) -> None:
    model, solutions = tiny_model("llama"), encoded(0)
    fresh = score_logps(model, solutions, 0, 4, "test")
    check_equal(look_up(tmp_path, model, solutions), fresh)
    check_equal(look_up(tmp_path, model, solutions[::-1]), fresh[::-1])
    mixed = [*encoded(1, 2), *solutions, solutions[0]]
    check_equal(look_up(tmp_path, model, mixed)[2:], [*fresh, fresh[0]])
    assert computed == [6, 0, 2]


def test_equal_weights_elsewhere_are_the_same_model(tmp_path: Path, computed: list[int]) -> None:
    model = tiny_model("llama")
    model.save_pretrained(tmp_path / "copy")
    look_up(tmp_path, model, encoded(0))
    copied = LlamaForCausalLM.from_pretrained(tmp_path / "copy")
    look_up(tmp_path, copied, encoded(0))
    assert computed == [6, 0]


def one_weight(model: Any) -> Any:
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[3, 5] += 1e-6
    return model


def same_bytes_in_another_place(model: Any) -> Any:
    with torch.no_grad():
        first, second = model.model.layers[0].mlp, model.model.layers[1].mlp
        first.up_proj, second.up_proj = second.up_proj, first.up_proj
    return model


def another_position_encoding(model: Any) -> Any:
    model.config.rope_parameters["rope_theta"] = 500.0
    return model


def adapter(scale: int) -> Callable[[Any], Any]:
    def adapted(model: Any) -> Any:
        torch.manual_seed(0)
        settings = LoraConfig(r=2, lora_alpha=scale, init_lora_weights=False)
        return get_peft_model(model, settings)

    return adapted


OTHERS: dict[str, Callable[[Any], Any]] = {
    "weight": one_weight,
    "exchange": same_bytes_in_another_place,
    "dtype": lambda model: model.bfloat16(),
    "configuration": another_position_encoding,
    "adapter": adapter(2),
    "stronger adapter": adapter(4),
}


def test_each_model_is_another(tmp_path: Path, computed: list[int]) -> None:
    """bfloat16 has the same values as the float32 copy of them, and yet scores otherwise."""
    models = [tiny_model("llama").bfloat16().float()]
    models += [change(tiny_model("llama").bfloat16().float()) for change in OTHERS.values()]
    assert len({reference_cache._fingerprint(model) for model in models}) == 1 + len(OTHERS)
    for model in models:
        look_up(tmp_path, model.eval(), encoded(0))
    assert computed == [6] * len(models)


def test_one_other_token_or_another_start_is_another_entry(
    tmp_path: Path, computed: list[int]
) -> None:
    model, (known, *_) = tiny_model("llama"), encoded(0)
    look_up(tmp_path, model, [known])
    ids, texts = known.input_ids, known.tokens
    for position in (0, 3, 4, len(ids) - 1):
        other = (*ids[:position], (ids[position] + 1) % VOCABULARY, *ids[position + 1 :])
        look_up(tmp_path, model, [EncodedSolution(other, 4, (len(texts),), texts)])
    later = EncodedSolution(ids, 5, (len(texts) - 1,), texts[1:])
    shorter = EncodedSolution(ids[:-1], 4, (len(texts) - 1,), texts[1:])
    expected = score_logps(model, [later, shorter], 0, 4, "test")
    check_equal(look_up(tmp_path, model, [later, shorter]), expected)
    assert computed == [1, 1, 1, 1, 1, 2]
    # Steps are no part of what the reference says.
    look_up(tmp_path, model, [EncodedSolution(ids, 4, (1, len(texts)), texts)])
    assert computed[-1] == 0


def test_a_changed_value_is_computed_anew(tmp_path: Path, computed: list[int]) -> None:
    model, solutions = tiny_model("llama"), encoded(0)
    fresh = look_up(tmp_path, model, solutions)
    with closing(sqlite3.connect(tmp_path / DATABASE)) as database, database:
        keys = [key for (key,) in database.execute("SELECT key FROM logps ORDER BY key")]
        (value,) = database.execute("SELECT value FROM logps WHERE key = ?", keys[:1]).fetchone()
        flipped = bytes([value[0] ^ 1]) + value[1:]
        database.execute("UPDATE logps SET value = ? WHERE key = ?", (flipped, keys[0]))
        database.execute("UPDATE logps SET value = ? WHERE key = ?", (value[:4], keys[1]))
        moved = database.execute("SELECT value, seal FROM logps WHERE key = ?", keys[2:3])
        database.execute("UPDATE logps SET value = ?, seal = ? WHERE key = ?",
                         (*moved.fetchone(), keys[3]))  # fmt: skip
    check_equal(look_up(tmp_path, model, solutions), fresh, 1e-5)
    assert computed == [6, 3]
    look_up(tmp_path, model, solutions)
    assert computed == [6, 3, 0]  # mended


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_file_cut_off_is_an_error_or_a_miss(
    share: float, tmp_path: Path, computed: list[int]
) -> None:
    model, solutions = tiny_model("llama"), encoded(0, 60)
    fresh = look_up(tmp_path, model, solutions)
    path = tmp_path / DATABASE
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    found = values_or_error(tmp_path, model, solutions)
    if isinstance(found, str):
        assert f"the cache {path} is damaged" in found
        assert "delete it" in found
    else:
        check_equal(found, fresh, 1e-5)


def values_or_error(
    folder: Path, model: Any, solutions: list[EncodedSolution]
) -> list[Tensor] | str:
    try:
        return look_up(folder, model, solutions)
    except ValueError as error:
        return str(error)


def test_what_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_text("no database at all, whatever its name may say" * 50)
    with pytest.raises(ValueError, match=r"sqlite3 is damaged .*: delete it"):
        ReferenceCache(tmp_path, tiny_model("llama"))


SHARED = """
import sys
sys.path[:0] = sys.argv[2:]
from test_reference_cache import encoded, look_up, tiny_model
from pathlib import Path
for seed in range(40):
    look_up(Path(sys.argv[1]), tiny_model("llama"), encoded(seed, 2))
"""


@pytest.mark.slow
def test_two_processes_use_one_folder(tmp_path: Path, computed: list[int]) -> None:
    run = [sys.executable, "-c", SHARED, str(tmp_path), *sys.path]
    running = [subprocess.Popen(run, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in running:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    model = tiny_model("llama")
    for seed in range(40):
        solutions = encoded(seed, 2)
        expected = score_logps(model, solutions, 0, 4, "test")
        check_equal(look_up(tmp_path, model, solutions), expected, 1e-5)
    assert set(computed) == {0}


def test_a_prm_scores_the_same_through_its_cache(tmp_path: Path, computed: list[int]) -> None:
    solutions = [Solution(problem.prompt, tuple(problem.steps)) for problem in problems(5)]

    def prm(policy: int, cache: Path | None) -> ImplicitPRM:
        models = tiny_llama(policy), tiny_llama(1)
        return ImplicitPRM(*models, build_tokenizer(), 0.5, ARITHMETIC_FORMAT, cache)

    for policy in (0, 2):
        cached = prm(policy, tmp_path).score_solutions(solutions)
        for one, other in zip(cached, prm(policy, None).score_solutions(solutions), strict=True):
            np.testing.assert_allclose(one.token_rewards, other.token_rewards, atol=1e-5)
    assert computed == [5, 0]
    with pytest.raises(ValueError, match="without a reference there is nothing to keep"):
        ImplicitPRM(tiny_llama(0), None, build_tokenizer(), 0.5, reference_cache=tmp_path)
