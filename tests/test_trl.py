"""Agreement with TRL: its log-probs through our losses, and its losses against our Trainer's.

One fixed batch on a tiny model, float32, no dropout. TRL is pinned: the tests call its trainers'
own `_compute_loss`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from datasets import Dataset
from tiny import problems, tiny_llama
from torch import Tensor

from implicitprm.arithmetic import ARITHMETIC_FORMAT
from implicitprm.arithmetic.tokenizer import build_tokenizer
from implicitprm.losses import ce_loss, dpo_loss, kto_loss, kto_reference_point, nca_loss
from implicitprm.rewards import token_rewards
from implicitprm.training import ImplicitPRMConfig, ImplicitPRMTrainer

trl = pytest.importorskip("trl", reason="needs the extra test: pip install -e .[test]")

BETA = 0.3
ROWS = 6
SETTINGS: dict[str, Any] = {
    "beta": BETA,
    "per_device_train_batch_size": ROWS,
    "report_to": "none",
    "save_strategy": "no",
    "use_cpu": True,
    "bf16": False,
    "disable_tqdm": True,
}
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def pairs() -> Dataset:
    """Right solutions against solutions that end a step early and off by one."""
    rows = []
    for number, problem in enumerate(problems(ROWS)):
        wrong = [*problem.steps[: 1 + number % 3], f"#{(problem.answer + 1) % 50}"]
        rows.append(
            {
                "prompt": problem.prompt,
                "chosen": "\n".join(problem.steps),
                "rejected": "\n".join(wrong),
            }
        )
    return Dataset.from_list(rows)


def unpaired() -> Dataset:
    """Every other pair's chosen or rejected side, with the KL completions of TRL's rotation."""
    rows = [
        {
            "prompt": row["prompt"],
            "completion": row["chosen" if number % 2 else "rejected"],
            "label": bool(number % 2),
        }
        for number, row in enumerate(pairs())
    ]
    rotated = [rows[number - 1]["completion"] for number in range(ROWS)]
    return Dataset.from_list(
        [row | {"KL_completion": other} for row, other in zip(rows, rotated, strict=True)]
    )


def theirs(
    kind: str, folder: Path, dataset: Dataset, seeds: tuple[int, int] = (0, 1), **settings: Any
) -> Any:
    """TRL's trainer of a kind; ``seeds`` of policy and reference."""
    config = getattr(trl, f"{kind}Config")(output_dir=str(folder), **SETTINGS, **settings)
    return getattr(trl, f"{kind}Trainer")(
        model=tiny_llama(seeds[0]),
        ref_model=tiny_llama(seeds[1]),
        args=config,
        train_dataset=dataset,
        processing_class=build_tokenizer(),
    )


def batch_of(trainer: Any) -> dict[str, Tensor]:
    """All rows in their order, as the trainer's collator makes them."""
    return trainer.data_collator([trainer.train_dataset[row] for row in range(ROWS)])


def our_loss(
    objective: str, folder: Path, dataset: Dataset, seeds: tuple[int, int] = (0, 1)
) -> float:
    """The loss of our Trainer on the same rows and models."""
    trainer = ImplicitPRMTrainer(
        tiny_llama(seeds[0]),
        tiny_llama(seeds[1]),
        ImplicitPRMConfig(output_dir=str(folder), objective=objective, **SETTINGS),
        dataset,
        build_tokenizer(),
        ARITHMETIC_FORMAT,
    )
    batch = trainer.data_collator(cast(Dataset, trainer.train_dataset).to_list())
    with torch.no_grad():
        return float(trainer.compute_loss(cast(Any, trainer.model), batch))


def rewards_of(trainer: Any, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """TRL's log-probs of both responses of each row through our reward; (B) each."""
    policy = trainer.compute_ref_log_probs(trainer.model, batch)
    reference = trainer.compute_ref_log_probs(trainer.ref_model, batch)
    first, second = (token_rewards(p, r, BETA) for p, r in zip(policy, reference, strict=True))
    assert float(first.abs().min()) > 1e-2  # the two models differ: the losses are no constants
    return first, second


def bco(chosen: Tensor, rejected: Tensor) -> Tensor:
    """TRL's bco_pair is a sum over the pair: twice the mean CE of its two responses."""
    labels = torch.tensor([True] * len(chosen) + [False] * len(rejected))
    return 2 * ce_loss(torch.cat([chosen, rejected]), labels)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss_type", "ours", "objective"),
    [("sigmoid", dpo_loss, "dpo"), ("nca_pair", nca_loss, "nca"), ("bco_pair", bco, None)],
)
def test_paired_losses(loss_type: str, ours: Any, objective: str | None, tmp_path: Path) -> None:
    trainer = theirs("DPO", tmp_path, pairs(), loss_type=[loss_type])
    batch = batch_of(trainer)
    with torch.no_grad():
        expected = float(trainer._compute_loss(trainer.model, batch, False))
    chosen, rejected = rewards_of(trainer, batch)
    assert float(ours(chosen, rejected)) == pytest.approx(expected, rel=1e-5)
    # Exchanged pairs have another loss, so the agreement is one of these rows.
    assert float(ours(rejected, chosen)) != pytest.approx(expected, rel=1e-2)
    if objective:
        assert our_loss(objective, tmp_path, pairs()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "clamped"), [((0, 1), True), ((1, 0), False)])
def test_kto(seeds: tuple[int, int], clamped: bool, tmp_path: Path) -> None:
    dataset = unpaired().remove_columns("KL_completion")
    trainer = theirs("KTO", tmp_path, dataset, seeds)
    batch = batch_of(trainer)
    with torch.no_grad():
        expected = float(trainer._compute_loss(trainer.model, batch, False))
    own, mismatched = rewards_of(trainer, batch)
    # TRL averages log-ratios and multiplies by β in the loss: z = β·KL.
    point = kto_reference_point(mismatched)
    assert (float(point) == 0) == clamped
    assert float(kto_loss(own, batch["label"], point)) == pytest.approx(expected, rel=1e-5)
    assert our_loss("kto", tmp_path, unpaired(), seeds) == pytest.approx(expected, rel=1e-5)
