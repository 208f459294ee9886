"""The package on a device that is not there, beside itself on the CPU.

``python pretend_worker.py`` is a process of its own, because torch knows of that device from then
on. It prints how often each check waited for the device.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pretend_device import DEVICE, GENERATORS, WAITS
from safetensors.torch import load_file
from tiny import problems, tiny_llama

from implicitprm import ImplicitPRM, Solution
from implicitprm.arithmetic import ARITHMETIC_FORMAT, checkpoint_path
from implicitprm.arithmetic.tokenizer import build_tokenizer
from implicitprm.beam_search import beam_search, step_guide
from implicitprm.comparisons.heads import ConfidenceHead, NextTokenHead
from implicitprm.comparisons.step_labels import score_steps
from implicitprm.logprobs import collate, response_logps
from implicitprm.losses import ce_loss, dpo_loss, kto_loss, kto_reference_point, nca_loss
from implicitprm.qvalues import language_of
from implicitprm.rewards import token_rewards
from implicitprm.rollouts import Sampling, sample_rollouts
from implicitprm.steps import encode

TOKENIZER = build_tokenizer()
HOW: dict[str, Any] = {"sampling": Sampling(48), "format": ARITHMETIC_FORMAT, "seed": 3}


def model(seed: int, device: torch.device) -> Any:
    made: Any = tiny_llama(seed)
    made.set_attn_implementation("eager")
    return made.to(device)


def solutions(count: int = 12) -> list[Solution]:
    return [Solution(problem.prompt, tuple(problem.steps)) for problem in problems(count)]


def scores(device: torch.device) -> Any:
    prm = ImplicitPRM(model(0, device), model(1, device), TOKENIZER, 1.0, ARITHMETIC_FORMAT)
    alike = [replaced for solution in solutions(2) for replaced in [solution] * 60]
    scored = [*prm.score_solutions(solutions(), 4), *prm.score_solutions(alike, 50)]
    return np.concatenate([solution.token_rewards for solution in scored])


def rollouts(device: torch.device) -> Any:
    prompts = [problem.prompt for problem in problems(6)]
    drawn = sample_rollouts(model(0, device), TOKENIZER, prompts, n=4, **HOW)
    return [(r.completion, r.finished) for of_prompt in drawn for r in of_prompt]


def cut_rollouts(device: torch.device) -> Any:
    """With everything that changes the distribution."""
    how = HOW | {"sampling": Sampling(24, temperature=0.7, top_p=0.9, min_p=0.02)}
    prompts = [problem.prompt for problem in problems(6)]
    drawn = sample_rollouts(model(0, device), TOKENIZER, prompts, n=4, **how)
    return [(r.completion, r.finished) for of_prompt in drawn for r in of_prompt]


def searched(device: torch.device) -> Any:
    """By trained models: an untrained one writes what its tokenizer cannot read again."""
    policy, reference = (model(0, torch.device("cpu")) for _ in range(2))
    for made, name in ((policy, "reasoner"), (reference, "early")):
        made.load_state_dict(load_file(checkpoint_path(name) / "model.safetensors"), strict=False)
        made.to(device)
    prm = ImplicitPRM(policy, reference, TOKENIZER, 1.0, ARITHMETIC_FORMAT)
    found = beam_search(
        policy, TOKENIZER, [problem.prompt for problem in problems(3)], step_guide(prm, "min"),
        width=2, expansions=2, max_steps=2, **(HOW | {"sampling": Sampling(24, min_p=0.05)}),
    )  # fmt: skip
    return [(beam.text, beam.finished, round(beam.score, 2)) for one in found for beam in one.beams]


def gradients(device: torch.device) -> Any:
    """Of every objective, from tokens to the first layer."""
    encoded = [encode(TOKENIZER, solution, ARITHMETIC_FORMAT) for solution in solutions(8)]
    batch = collate([s.input_ids for s in encoded], [s.response_start for s in encoded], 0)
    batch = {name: tensor.to(device) for name, tensor in batch.items()}
    labels = torch.tensor([True, False] * 4).to(device)
    weights = torch.linspace(0.5, 1.5, 8).to(device)

    def paired(loss: Any) -> Any:
        return lambda r: loss(r[:4], r[4:], weights[:4])

    found = []
    for loss in (
        lambda r: ce_loss(r, labels, weights),
        lambda r: kto_loss(r, labels, kto_reference_point(r, weights), weights),
        paired(dpo_loss),
        paired(nca_loss),
    ):
        policy = model(0, device)
        logps = response_logps(policy, **batch).sum(-1)
        loss(token_rewards(logps, 0.9 * logps.detach(), 0.1)).backward()
        found.append(policy.model.layers[0].mlp.up_proj.weight.grad.cpu().flatten()[:50])
    return torch.cat(found).detach().numpy()


def cached(device: torch.device) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        prm = ImplicitPRM(
            model(0, device), model(1, device), TOKENIZER, 1.0, ARITHMETIC_FORMAT, folder
        )
        again = [prm.score_solutions(solutions(), 4) for _ in range(2)]
    return np.concatenate([solution.ref_logps for scored in again for solution in scored])


def heads(device: torch.device) -> Any:
    torch.manual_seed(0)
    scorers = [
        NextTokenHead(model(0, device), 3, 4),
        ConfidenceHead(model(0, device)).to(device),
    ]
    scored = [score_steps(one, solutions(), TOKENIZER, ARITHMETIC_FORMAT, 4) for one in scorers]
    return np.concatenate([logits for of_scorer in scored for logits in of_scorer])


def distributions(device: torch.device) -> Any:
    language = language_of(model(0, device), (5, 6), 2, 3)
    return np.array([language.next_logps(prefix) for prefix in ((), (5,), (6,), (5, 6))])


def refuses(wrong: Callable[[], object]) -> bool:
    try:
        wrong()
    except (RuntimeError, TypeError):
        return True
    return False


if __name__ == "__main__":
    there, here = torch.ones(3, device=DEVICE), torch.ones(3)
    assert refuses(lambda: there + here)
    assert refuses(lambda: there.numpy())
    waits = {}
    for check in (
        scores,
        rollouts,
        cut_rollouts,
        searched,
        gradients,
        cached,
        heads,
        distributions,
    ):
        expected = check(torch.device("cpu"))
        WAITS.clear()
        found = check(DEVICE)
        waits[check.__name__] = sum(WAITS.values())
        assert np.size(expected) > 5
        assert isinstance(expected, list) or np.abs(expected).max() > 1e-2
        if isinstance(expected, list):
            assert found == expected
        else:
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    # Searches make several.
    assert {made.type for made in GENERATORS} == {"cpu", DEVICE.type}
    assert GENERATORS[0].type == "cpu" != GENERATORS[1].type
    print(json.dumps(waits))
