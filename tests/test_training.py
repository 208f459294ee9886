"""implicitprm.training: the first reward, the first step, weights, the reference, bad data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from datasets import Dataset
from sklearn.metrics import roc_auc_score
from tiny import problems, tiny_llama
from torch import Tensor
from transformers import LlamaForCausalLM

from implicitprm import ImplicitPRM, Solution, training
from implicitprm.arithmetic import ARITHMETIC_FORMAT
from implicitprm.arithmetic.tokenizer import build_tokenizer
from implicitprm.data import add_mismatched
from implicitprm.training import (
    OBJECTIVES,
    ImplicitPRMConfig,
    ImplicitPRMTrainer,
    add_reference_logps,
    train_last_layers,
)

BETA = 0.5
RATE = 0.05
State = dict[str, Tensor]


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Solutions of one to three steps; the right ones are true, the wrong ones a step off."""
    examples = []
    for number, problem in enumerate(problems(count, seed)):
        steps = problem.steps[-1 - number % 3 :]
        right = number % 2 == 0
        if not right:
            steps[-1] = f"#{(problem.answer + 1) % 50}"
        examples.append({"prompt": problem.prompt, "completion": "\n".join(steps), "label": right})
    return examples


def config(folder: Path, **changes: Any) -> ImplicitPRMConfig:
    """One full-batch step of plain gradient descent unless told otherwise."""
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "beta": BETA,
        "max_steps": 1,
        "per_device_train_batch_size": 8,
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
    }
    return ImplicitPRMConfig(**(settings | changes))


def trainer_of(
    folder: Path,
    data: list[dict[str, Any]],
    model: LlamaForCausalLM,
    reference: LlamaForCausalLM | None,
    eval_data: list[dict[str, Any]] | None = None,
    **changes: Any,
) -> ImplicitPRMTrainer:
    return ImplicitPRMTrainer(
        model,
        reference,
        config(folder, **changes),
        Dataset.from_list(data),
        build_tokenizer(),
        ARITHMETIC_FORMAT,
        eval_dataset=Dataset.from_list(eval_data) if eval_data else None,
    )


def train(folder: Path, data: list[dict[str, Any]], **changes: Any) -> State:
    """The weights after training the model of seed 0 against the reference of seed 1."""
    model = tiny_llama(0)
    trainer_of(folder, data, model, tiny_llama(1), **changes).train()
    return state(model)


def state(model: LlamaForCausalLM) -> State:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def assert_same(one: State, other: State, atol: float) -> None:
    for name, weight in one.items():
        torch.testing.assert_close(weight, other[name], rtol=0, atol=atol, msg=name)


def largest_change(one: State, other: State) -> float:
    return max(float((weight - other[name]).abs().max()) for name, weight in one.items())


def prepared(trainer: ImplicitPRMTrainer) -> Dataset:
    """The rows as the trainer made them ready."""
    return cast(Dataset, trainer.train_dataset)


def losses_of(trainer: ImplicitPRMTrainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def rewards_of(trainer: ImplicitPRMTrainer) -> Tensor:
    """The rewards of the training rows under the model as it is now, in their order."""
    batch = trainer.data_collator(prepared(trainer).to_list())
    with torch.no_grad(), trainer.accelerator.autocast():
        _, outputs = trainer.compute_loss(cast(Any, trainer.model), batch, return_outputs=True)
    return outputs["rewards"]


# --- before the first update ----------------------------------------------------------------------


def test_rewards_start_at_0_and_the_loss_at_log_2(tmp_path: Path) -> None:
    model = tiny_llama(0)
    trainer = trainer_of(tmp_path, rows(8), model, model, eval_data=rows(5, seed=9))
    assert float(rewards_of(trainer).abs().max()) < 1e-5
    assert trainer.evaluate()["eval_loss"] == pytest.approx(math.log(2), abs=1e-6)
    trainer.train()
    assert losses_of(trainer)[0] == pytest.approx(math.log(2), abs=1e-6)
    # After it the rewards are no longer 0: the model was its own reference only at the start.
    assert float(rewards_of(trainer).abs().max()) > 1e-3


def test_rewards_start_near_0_under_bf16_autocast(tmp_path: Path) -> None:
    """The reference is scored under the same autocast; in float32 it would be off by far more."""
    model = tiny_llama(0)
    mixed = trainer_of(tmp_path, rows(8), model, model, bf16=True)
    assert float(rewards_of(mixed).abs().max()) < 1e-2
    full = trainer_of(tmp_path, rows(8), model, model)
    mixed.train_dataset = full.train_dataset
    assert float(rewards_of(mixed).abs().max()) > 2e-2


def test_another_reference_gives_other_rewards(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, rows(8), tiny_llama(0), tiny_llama(1))
    prm = ImplicitPRM(tiny_llama(0), tiny_llama(1), build_tokenizer(), BETA, ARITHMETIC_FORMAT)
    solutions = [Solution(row["prompt"], (row["completion"],)) for row in rows(8)]
    scored = [solution.outcome for solution in prm.score_solutions(solutions)]
    assert max(map(abs, scored)) > 1
    assert rewards_of(trainer).tolist() == pytest.approx(scored, abs=1e-4)


def test_no_reference_is_log_0_of_a_uniform_one(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, rows(8), tiny_llama(0), None)
    prm = ImplicitPRM(tiny_llama(0), None, build_tokenizer(), BETA, ARITHMETIC_FORMAT)
    solutions = [Solution(row["prompt"], (row["completion"],)) for row in rows(8)]
    scored = [solution.outcome for solution in prm.score_solutions(solutions)]
    assert rewards_of(trainer).tolist() == pytest.approx(scored, abs=1e-4)


def test_unfinished_rows_have_no_end_token(tmp_path: Path) -> None:
    data = [row | {"finished": number > 0} for number, row in enumerate(rows(8))]
    trainer = trainer_of(tmp_path, data, tiny_llama(0), None)
    ends = [row["input_ids"][0][-1] for row in prepared(trainer)]
    assert [end == build_tokenizer().eos_token_id for end in ends] == [False] + [True] * 7


# --- the first step -------------------------------------------------------------------------------


def step_by_hand(data: list[dict[str, Any]]) -> State:
    """One step of gradient descent on Eq. 5, with nothing of ours but the rows and the models."""
    tokenizer, policy, reference = build_tokenizer(), tiny_llama(0), tiny_llama(1)
    losses: list[Tensor] = []
    for row in data:
        start = len(tokenizer(row["prompt"]).input_ids)
        ids = tokenizer(row["prompt"] + row["completion"] + "<eos>").input_ids
        ratio: Any = 0.0
        for position in range(start, len(ids)):
            token, before = ids[position], torch.tensor([ids[:position]])
            with torch.no_grad():
                ref = torch.log_softmax(reference(before).logits[0, -1], -1)[token]
            ratio = ratio + torch.log_softmax(policy(before).logits[0, -1], -1)[token] - ref
        probability = torch.sigmoid(BETA * ratio.double())
        losses.append(-torch.log(probability if row["label"] else 1 - probability))
    torch.stack(losses).mean().backward()
    with torch.no_grad():
        for weight in policy.parameters():
            assert weight.grad is not None
            weight.sub_(RATE * weight.grad)
    return state(policy)


def test_the_first_step_is_the_gradient_of_equation_5(tmp_path: Path) -> None:
    data = rows(4)
    trained = train(tmp_path, data, per_device_train_batch_size=4)
    assert largest_change(trained, state(tiny_llama(0))) > 1e-2
    assert_same(trained, step_by_hand(data), atol=1e-5)


def test_weights_are_repeated_rows(tmp_path: Path) -> None:
    counts = [3, 1, 2, 2]
    weighted = [row | {"weight": count} for row, count in zip(rows(4), counts, strict=True)]
    repeated = [row for row, count in zip(rows(4), counts, strict=True) for _ in range(count)]
    one = train(tmp_path, weighted, per_device_train_batch_size=4)
    assert_same(one, train(tmp_path, repeated, per_device_train_batch_size=8), atol=1e-5)
    unweighted = train(tmp_path, rows(4), per_device_train_batch_size=4)
    assert largest_change(one, unweighted) > 1e-3


def test_accumulated_batches_are_one_large_batch(tmp_path: Path) -> None:
    data = [row | {"weight": 1 + number % 4} for number, row in enumerate(rows(8))]
    large = train(tmp_path, data)
    small = train(tmp_path, data, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    assert_same(large, small, atol=1e-5)
    assert largest_change(large, train(tmp_path, data, per_device_train_batch_size=2)) > 1e-3


def test_a_seed_repeats(tmp_path: Path) -> None:
    many = {"max_steps": 4, "per_device_train_batch_size": 2}
    one = train(tmp_path, rows(8), seed=3, **many)
    assert largest_change(one, train(tmp_path, rows(8), seed=3, **many)) == 0
    assert largest_change(one, train(tmp_path, rows(8), seed=4, **many)) > 1e-3


# --- the reference --------------------------------------------------------------------------------


def test_the_reference_does_not_change(tmp_path: Path) -> None:
    model, reference = tiny_llama(0), tiny_llama(1)
    trainer = trainer_of(tmp_path, rows(8), model, reference, max_steps=3)
    cached = list(prepared(trainer)["ref_logps"])
    trainer.train()
    assert largest_change(state(reference), state(tiny_llama(1))) == 0
    assert all(weight.grad is None for weight in reference.parameters())
    assert list(prepared(trainer)["ref_logps"]) == cached
    assert largest_change(state(model), state(tiny_llama(0))) > 1e-2


def test_cached_reference_log_probabilities_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = trainer_of(tmp_path, rows(8), tiny_llama(0), tiny_llama(1))
    cached = [
        row | {"ref_logps": value + 2}
        for row, (value,) in zip(rows(8), prepared(fresh)["ref_logps"], strict=True)
    ]
    monkeypatch.setattr(training, "score_logps", None)  # the reference is not asked again
    trainer = trainer_of(tmp_path, cached, tiny_llama(0), tiny_llama(1))
    assert (rewards_of(fresh) - rewards_of(trainer)).tolist() == pytest.approx(
        [2 * BETA] * 8, abs=1e-4
    )


# --- learning -------------------------------------------------------------------------------------


def test_it_learns_a_separable_task(tmp_path: Path) -> None:
    def task(seed: int) -> list[dict[str, Any]]:
        """Right responses are the even numbers: one token tells."""
        return [
            {"prompt": problem.prompt, "completion": f"#{number % 10}", "label": number % 2 == 0}
            for number, problem in enumerate(problems(64, seed))
        ]

    model = tiny_llama(0, scale=1.0)
    trainer = trainer_of(
        tmp_path,
        task(0),
        model,
        tiny_llama(0, scale=1.0),
        eval_data=task(1),
        optim="adamw_torch",
        learning_rate=3e-3,
        per_device_train_batch_size=32,
        max_steps=20,
    )
    held_out = cast(Dataset, trainer.eval_dataset)
    before = trainer.predict(held_out)
    trainer.train()
    after = trainer.predict(held_out)
    assert float(np.abs(before.predictions).max()) < 1e-5
    assert roc_auc_score(after.label_ids, after.predictions) > 0.95
    losses = losses_of(trainer)
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5)
    assert losses[-1] < 0.5


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_train_last_layers(tmp_path: Path, layers: int) -> None:
    model = tiny_llama(0)
    train_last_layers(model, layers)
    before = state(model)
    trainer_of(tmp_path, rows(8), model, tiny_llama(1)).train()
    changed = {name for name, weight in model.named_parameters() if not weight.equal(before[name])}
    trained = tuple(f"model.layers.{index}." for index in range(3 - layers, 3))
    assert changed == {name for name in before if name.startswith((*trained, "model.norm."))}


@pytest.mark.parametrize("layers", [0, -1, 4])
def test_impossible_numbers_of_layers(layers: int) -> None:
    with pytest.raises(ValueError, match=f"has 3 layers; {layers} of them"):
        train_last_layers(tiny_llama(0), layers)


# --- objectives -----------------------------------------------------------------------------------


def pairs(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Preference rows: true solutions against solutions that end early, in some number."""
    return [
        {
            "prompt": problem.prompt,
            "chosen": "\n".join(problem.steps),
            "rejected": "\n".join(
                [*problem.steps[: 1 + number % 3], f"#{(problem.answer + 1) % 50}"]
            ),
        }
        for number, problem in enumerate(problems(count, seed))
    ]


def data_for(objective: str, count: int, seed: int = 0) -> list[dict[str, Any]]:
    return (pairs if OBJECTIVES[objective].format == "preference" else rows)(count, seed)


@pytest.mark.parametrize(
    ("objective", "start"),
    # log 2; −log ½ − ½ log ½ − ½ log ½; 1 − σ(0)
    [("ce", math.log(2)), ("dpo", math.log(2)), ("nca", 2 * math.log(2)), ("kto", 0.5)],
)
def test_every_objective_starts_at_rewards_of_0_and_learns(
    objective: str, start: float, tmp_path: Path
) -> None:
    model = tiny_llama(0, scale=1.0)
    trainer = trainer_of(
        tmp_path,
        data_for(objective, 16),
        model,
        model,
        eval_data=data_for(objective, 16),  # it may learn its rows by heart
        objective=objective,
        optim="adamw_torch",
        learning_rate=1e-2,
        per_device_train_batch_size=16,
        max_steps=15,
    )
    assert trainer.evaluate()["eval_loss"] == pytest.approx(start, abs=1e-5)
    trainer.train()
    losses = losses_of(trainer)
    assert losses[0] == pytest.approx(start, abs=1e-5)
    assert losses[-1] < 0.9 * start  # NCA cannot fall below 0.69 of it
    assert trainer.evaluate()["eval_loss"] < 0.9 * start
    last = [line for line in trainer.state.log_history if "loss" in line][-1]
    assert last["reward_right"] > last["reward_wrong"]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_weights_are_repeated_rows_under_every_objective(objective: str, tmp_path: Path) -> None:
    counts = [3, 1, 2, 2]
    data = data_for(objective, 4)
    if objective == "kto":  # which responses are mismatched must not depend on the repetition
        data = add_mismatched(Dataset.from_list(data), 0).to_list()
    weighted = [row | {"weight": count} for row, count in zip(data, counts, strict=True)]
    repeated = [row for row, count in zip(data, counts, strict=True) for _ in range(count)]
    one = train(tmp_path, weighted, objective=objective, per_device_train_batch_size=4)
    other = train(tmp_path, repeated, objective=objective, per_device_train_batch_size=8)
    assert_same(one, other, atol=2e-5)
    unweighted = train(tmp_path, data, objective=objective, per_device_train_batch_size=4)
    assert largest_change(one, unweighted) > 1e-3


@pytest.mark.parametrize("objective", ["dpo", "nca"])
def test_accumulated_pairs_are_one_large_batch(objective: str, tmp_path: Path) -> None:
    data = [row | {"weight": 1 + number % 4} for number, row in enumerate(pairs(8))]
    large = train(tmp_path, data, objective=objective)
    small = train(
        tmp_path,
        data,
        objective=objective,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
    )
    assert_same(large, small, atol=2e-5)


def test_pairs_keep_their_sides_in_any_batch(tmp_path: Path) -> None:
    """Rewards of chosen and rejected, by row, whatever they are padded with."""
    trainer = trainer_of(tmp_path, pairs(6), tiny_llama(0), tiny_llama(1), objective="dpo")
    prm = ImplicitPRM(tiny_llama(0), tiny_llama(1), build_tokenizer(), BETA, ARITHMETIC_FORMAT)
    for side, name in enumerate(("chosen", "rejected")):
        scored = prm.score_solutions([Solution(row["prompt"], (row[name],)) for row in pairs(6)])
        assert rewards_of(trainer)[:, side].tolist() == pytest.approx(
            [solution.outcome for solution in scored], abs=1e-4
        )


def test_finished_is_read_per_response(tmp_path: Path) -> None:
    data = [
        row | {"chosen_finished": True, "rejected_finished": number > 0}
        for number, row in enumerate(pairs(3))
    ]
    trainer = trainer_of(tmp_path, data, tiny_llama(0), None, objective="dpo")
    end = build_tokenizer().eos_token_id
    ends = [[ids[-1] == end for ids in row["input_ids"]] for row in prepared(trainer)]
    assert ends == [[True, False], [True, True], [True, True]]


def test_mismatched_responses_have_no_gradient(tmp_path: Path) -> None:
    """KTO's reference point moves the loss, not the weights: its responses are not trained on."""
    trainer = trainer_of(tmp_path, rows(8), tiny_llama(1), tiny_llama(0), objective="kto")
    batch = trainer.data_collator(prepared(trainer).to_list())
    seen = []

    def forward(model: Any, inputs: Any, keywords: dict[str, Any]) -> None:
        seen.append((len(keywords["input_ids"]), torch.is_grad_enabled()))

    model = cast(Any, trainer.model)
    handle = model.register_forward_pre_hook(forward, with_kwargs=True)
    trainer.compute_loss(model, batch).backward()
    handle.remove()
    assert sorted(seen) == [(8, False), (8, True)]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_shared_reference_columns_are_those_of_the_trainer(objective: str, tmp_path: Path) -> None:
    data = Dataset.from_list(data_for(objective, 5))
    columns = [response.ref_logps for response in OBJECTIVES[objective].responses]
    shared = add_reference_logps(
        data, tiny_llama(1), build_tokenizer(), ARITHMETIC_FORMAT, objective, seed=42
    )
    assert set(columns) < set(shared.column_names)
    own = trainer_of(
        tmp_path, data.to_list(), tiny_llama(0), tiny_llama(1), objective=objective, seed=42
    )
    with_columns = trainer_of(
        tmp_path, shared.to_list(), tiny_llama(0), None, objective=objective, seed=42
    )
    torch.testing.assert_close(rewards_of(own), rewards_of(with_columns), rtol=0, atol=1e-4)
    assert float(rewards_of(own).abs().min()) > 1e-3


def test_the_columns_have_the_names_of_trl() -> None:
    names = {r.ref_logps for objective in OBJECTIVES.values() for r in objective.responses}
    assert names == {"ref_logps", "ref_KL_logps", "ref_chosen_logps", "ref_rejected_logps"}


def test_an_objective_needs_its_format(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="preference format needs columns"):
        trainer_of(tmp_path, rows(4), tiny_llama(0), None, objective="dpo")
    with pytest.raises(ValueError, match="unpaired format needs columns"):
        trainer_of(tmp_path, pairs(4), tiny_llama(0), None, objective="kto")
    with pytest.raises(ValueError, match="objective 'ppo' is unknown; choose one of ce, kto"):
        config(tmp_path, objective="ppo")
    with pytest.raises(ValueError, match="objective 'ppo' is unknown"):
        add_reference_logps(
            Dataset.from_list(rows(2)), tiny_llama(0), build_tokenizer(), ARITHMETIC_FORMAT, "ppo"
        )


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_a_weight_must_be_positive(weight: float, tmp_path: Path) -> None:
    data = [row | {"weight": 1.0} for row in rows(4)]
    data[2]["weight"] = weight
    with pytest.raises(ValueError, match=f"row 2: weight {weight} must be positive"):
        trainer_of(tmp_path, data, tiny_llama(0), None)


# --- memory: checkpointed activations, LoRA -------------------------------------------------------


@pytest.mark.parametrize("objective", ["ce", "kto"])
def test_gradient_checkpointing_changes_nothing(objective: str, tmp_path: Path) -> None:
    plain = train(tmp_path, rows(8), objective=objective)
    saved = train(tmp_path, rows(8), objective=objective, gradient_checkpointing=True)
    assert_same(plain, saved, atol=1e-6)


def lora(model: LlamaForCausalLM) -> Any:
    peft = pytest.importorskip("peft", reason="needs the extra lora: pip install -e .[lora]")
    torch.manual_seed(0)
    settings = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    return peft.get_peft_model(model, settings)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_lora_trains_its_adapter_and_nothing_else(checkpointing: bool, tmp_path: Path) -> None:
    base = tiny_llama(0, scale=1.0)
    before = state(base)
    policy = lora(base)
    trainer = trainer_of(
        tmp_path,
        rows(32),
        policy,
        policy,  # its weights before training: the base model, since an adapter starts at 0
        optim="adamw_torch",
        learning_rate=1e-2,
        per_device_train_batch_size=16,
        max_steps=10,
        gradient_checkpointing=checkpointing,
    )
    assert float(rewards_of(trainer).abs().max()) < 1e-5
    trainer.train()
    assert losses_of(trainer)[-1] < 0.9 * math.log(2)
    for name, weight in policy.named_parameters():
        if "lora" not in name:
            original = name.removeprefix("base_model.model.").replace(".base_layer", "")
            assert weight.equal(before[original]), name


def test_a_saved_adapter_is_a_policy(tmp_path: Path) -> None:
    """What LoRA saves is loaded by name, on its base model, and scores as it did in training."""
    tiny_llama(0).save_pretrained(tmp_path / "base")
    build_tokenizer().save_pretrained(tmp_path / "base")
    policy = lora(LlamaForCausalLM.from_pretrained(tmp_path / "base"))
    with torch.no_grad():
        for name, weight in policy.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.5)
    trainer = trainer_of(tmp_path, rows(8), policy, tiny_llama(0))
    trainer.save_model(str(tmp_path / "adapter"))
    assert (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size < 100_000
    prm = ImplicitPRM.from_pretrained(
        str(tmp_path / "adapter"), str(tmp_path / "base"), beta=BETA, format=ARITHMETIC_FORMAT
    )
    solutions = [Solution(row["prompt"], (row["completion"],)) for row in rows(8)]
    scored = [solution.outcome for solution in prm.score_solutions(solutions)]
    assert rewards_of(trainer).tolist() == pytest.approx(scored, abs=1e-4)
    assert max(map(abs, scored)) > 1e-2


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": 2}, r"row 2: label must be bool or 0/1, got 2"),
        ({"completion": " "}, r"row 2: completion is empty"),
        ({"completion": "7<eos>"}, r"row 2: the solution contains the special token '<eos>'"),
        (
            {"completion": "7+5=12\n" * 30 + "#7"},
            r"row 2 \(completion\) has \d+ tokens \(\d+ of them prompt\)",
        ),
        ({"prompt": ""}, r"row 2: the first response token has nothing before it"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    data = [row | {"label": int(row["label"])} for row in rows(4)]
    data[2] |= change
    with pytest.raises(ValueError, match=message):
        trainer_of(tmp_path, data, tiny_llama(0), None)


def test_misnamed_columns(tmp_path: Path) -> None:
    data = [
        {"prompt": row["prompt"], "response": row["completion"], "label": True} for row in rows(2)
    ]
    with pytest.raises(ValueError, match=r"missing completion.*'response': 'completion'"):
        trainer_of(tmp_path, data, tiny_llama(0), None)


def test_bad_configurations(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="beta must be positive, not 0"):
        config(tmp_path, beta=0)
    with pytest.raises(ValueError, match="remove_unused_columns must stay False"):
        config(tmp_path, remove_unused_columns=True)


def test_the_defaults_are_those_of_the_paper(tmp_path: Path) -> None:
    default = ImplicitPRMConfig(output_dir=str(tmp_path), use_cpu=True)
    assert (default.beta, default.learning_rate, default.num_train_epochs) == (0.05, 5e-7, 1)
    assert default.per_device_train_batch_size == 64
    assert (default.adam_beta1, default.adam_beta2, default.weight_decay) == (0.9, 0.95, 0)
    assert default.max_grad_norm == 1.0
