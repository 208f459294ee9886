"""The training loop: sample, grade, keep, reward, update; over and over.

One loop for every way to give credit. Without a :class:`ProcessReward` it is RLOO on outcomes; with
:class:`ImplicitReward` and a learning rate for its model it is PRIME (arXiv 2502.01456, Algorithm
1); without that rate the reward model is frozen; :class:`StepReward` gives known rewards of steps,
such as the truth.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from implicitprm.comparisons.math_shepherd import Grader
from implicitprm.logprobs import collate, response_logps, score_logps
from implicitprm.losses import ce_loss
from implicitprm.reinforce.terms import (
    by_step,
    discounted_returns,
    informative,
    kl_loss,
    leave_one_out,
    min_form,
    policy_loss,
    subtract_process_baseline,
    unit_scale,
    whiten,
)
from implicitprm.rewards import token_rewards
from implicitprm.rollouts import Rollout, Sampling, sample_rollouts
from implicitprm.steps import (
    EncodedSolution,
    Prompt,
    Solution,
    SolutionFormat,
    encode,
    render_prompt,
)

#: The reward of each step of a solution (S), from prompt, steps, and whether it is finished.
StepRewards = Callable[[Prompt, Sequence[str], bool], Sequence[float]]
#: Called with the policy and the number of batches done; what it returns is kept in the history.
Evaluate = Callable[[PreTrainedModel, int], Mapping[str, Any]]


@dataclass(frozen=True)
class ReinforceConfig:
    """How a policy is trained.

    ``batches`` batches of ``prompts_per_batch`` prompts with ``group_size`` responses each are
    sampled; each is used for ``minibatches`` updates. Credit is ``outcome_weight`` times the
    outcome's advantage plus ``process_weight`` times that of the process rewards, which are given
    to tokens or steps and added up, or, with ``min_temperature``, taken in min-form. ``normalise``
    scales the process rewards (:func:`~implicitprm.reinforce.terms.unit_scale`) and whitens the
    sum. ``accuracy_bounds`` None keeps every prompt.

    ``clip`` is ε of the clipped ratio, ``kl_weight`` stands before the KL divergence from the
    reference. ``micro_batch_size`` is how many responses a backward pass takes at a time, which
    changes memory and not the update. ``evaluate_every`` and ``save_every`` count batches.
    """

    learning_rate: float
    batches: int
    prompts_per_batch: int = 64
    group_size: int = 4
    minibatches: int = 1
    outcome_weight: float = 1.0
    process_weight: float = 0.0
    granularity: Literal["token", "step"] = "token"
    min_temperature: float | None = None
    discount: float = 1.0
    normalise: bool = True
    accuracy_bounds: tuple[float, float] | None = (0.2, 0.8)
    clip: float = 0.2
    kl_weight: float = 0.0
    max_grad_norm: float = 1.0
    micro_batch_size: int = 64
    evaluate_every: int = 10
    save_every: int = 10
    seed: int = 0


@dataclass(frozen=True)
class Batch:
    """B graded responses; those to one prompt stand next to each other.

    ``outcomes`` (B) are 0 or 1; ``mask`` (B, R) says which response tokens there are and
    ``step_of`` (B, R) to which step each belongs, 0 in the padding. What is not ``readable`` (B)
    has a solution of one step that is no step (:func:`read_response`).
    """

    solutions: tuple[Solution, ...]
    readable: tuple[bool, ...]
    encoded: tuple[EncodedSolution, ...]
    outcomes: Tensor
    mask: Tensor
    step_of: Tensor

    def select(self, rows: Sequence[int]) -> Batch:
        """Some of the responses, in the order of ``rows``, without the padding of the others."""
        encoded = tuple(self.encoded[row] for row in rows)
        width = max(solution.step_ends[-1] for solution in encoded)
        return Batch(
            tuple(self.solutions[row] for row in rows),
            tuple(self.readable[row] for row in rows),
            encoded,
            self.outcomes[rows],
            self.mask[rows, :width],
            self.step_of[rows, :width],
        )


class ProcessReward(Protocol):
    """Where process rewards come from."""

    def rewards(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """A reward per token (B, R), 0 in the padding, and what is worth a line in the history.

        A reward that learns does so here, after the rewards it returns were computed.
        """

    def state(self) -> dict[str, Any]:
        """What a killed run needs to go on, for ``torch.save``; {} where nothing is learned."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""


# ---- Responses -------------------------------------------------------------------------------


def read_response(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Prompt,
    prompt_ids: Sequence[int],
    rollout: Rollout,
    format: SolutionFormat,
) -> tuple[Solution | None, EncodedSolution]:
    """The sampled tokens of a response to a prompt with these tokens, and their steps.

    The policy is trained on the tokens that it drew, never on a text that was tokenised again: the
    two differ where two tokens spell what a third one does. Such a response, or one without text,
    is a single step, and there is no solution for it (None).
    """
    sampled = (*prompt_ids, *rollout.token_ids)
    if rollout.completion.strip():
        solution = Solution(prompt, format.split(rollout.completion), rollout.finished)
        try:
            encoded = encode(tokenizer, solution, format)
        except Exception:  # what tokenizers raises for a word that the vocabulary lacks
            encoded = None
        if encoded is not None and encoded.input_ids == sampled:
            return solution, encoded
    return None, EncodedSolution(sampled, len(prompt_ids), (len(rollout.token_ids),), ())


def make_batch(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    rollouts: Sequence[Sequence[Rollout]],
    grade: Grader,
    format: SolutionFormat,
    device: torch.device,
) -> Batch:
    """Grade and tokenise the rollouts of each prompt."""
    solutions: list[Solution] = []
    readable: list[bool] = []
    encoded: list[EncodedSolution] = []
    outcomes: list[bool] = []
    for prompt, group in zip(prompts, rollouts, strict=True):
        text = render_prompt(tokenizer, prompt, format)
        ids = tokenizer(text, add_special_tokens=False).input_ids
        for rollout in group:
            solution, tokens = read_response(tokenizer, prompt, ids, rollout, format)
            encoded.append(tokens)
            readable.append(solution is not None)
            if solution is None:
                solution = Solution(prompt, (f"{rollout.completion}?",), False)
            solutions.append(solution)
            outcomes.append(readable[-1] and grade(prompt, solution.steps, solution.finished))
    lengths = torch.tensor([tokens.step_ends[-1] for tokens in encoded])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    step_of = pad_sequence([_step_of(tokens) for tokens in encoded], batch_first=True)
    return Batch(
        tuple(solutions),
        tuple(readable),
        tuple(encoded),
        torch.tensor(outcomes, dtype=torch.float32, device=device),
        mask.to(device),
        step_of.to(device),
    )


def _step_of(tokens: EncodedSolution) -> Tensor:
    """The step of each response token (T)."""
    ends = torch.tensor(tokens.step_ends)
    return torch.bucketize(torch.arange(int(ends[-1])), ends, right=True)


def gather_logps(
    model: PreTrainedModel, encoded: Sequence[EncodedSolution], pad_token_id: int | None
) -> Tensor:
    """Log-probabilities of response tokens, with gradient, each response from column 0; (B, R)."""
    batch = collate(
        [e.input_ids for e in encoded], [e.response_start for e in encoded], pad_token_id
    )
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    logps = response_logps(model, **batch)  # (B, T)
    lengths = [solution.step_ends[-1] for solution in encoded]
    return pad_sequence(list(logps[batch["response_mask"]].split(lengths)), batch_first=True)


def score_grid(
    model: PreTrainedModel, encoded: Sequence[EncodedSolution], pad_token_id: int | None
) -> Tensor:
    """The same without gradient, on the model's device; (B, R)."""
    logps = score_logps(model, encoded, pad_token_id, 256, "scoring")
    return pad_sequence(logps, batch_first=True).to(model.device)


def micro_batches(batch: Batch, size: int) -> list[list[int]]:
    """Rows of like length together, the longest first."""
    order = sorted(range(len(batch.encoded)), key=lambda row: -len(batch.encoded[row].input_ids))
    return [order[start : start + size] for start in range(0, len(order), size)]


# ---- Process rewards -------------------------------------------------------------------------


class ImplicitReward:
    """r_t = β log π_φ/π_ref of every token, its model trained with CE on every batch, or frozen.

    ``learning_rate`` 0 freezes the model. PRIME starts ``model`` and ``reference`` as the policy,
    and its published setting updates the model first and gives rewards afterwards: they have then
    seen the outcomes of the very responses that they judge. ``update_first`` False gives the
    rewards of the model as it was.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        reference: PreTrainedModel,
        pad_token_id: int | None,
        beta: float,
        learning_rate: float = 0.0,
        update_first: bool = True,
        micro_batch_size: int = 64,
        max_grad_norm: float = 1.0,
    ):
        self.model, self.reference = model, reference
        self.beta, self.learning_rate, self.update_first = beta, learning_rate, update_first
        self._pad, self._size, self._max_norm = pad_token_id, micro_batch_size, max_grad_norm
        self._optimizer = new_optimizer(model, learning_rate)

    def rewards(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Rewards, and, unless frozen, one update; what is said of the model is from before it."""
        ref_logps = score_grid(self.reference, batch.encoded, self._pad)
        before = self._score(batch, ref_logps)
        of_response, right = before.sum(-1), batch.outcomes.bool()
        line = {
            "prm_loss": float(ce_loss(of_response, batch.outcomes)),
            "prm_reward": float(of_response.mean()),
            "prm_auc": _auc(of_response[right], of_response[~right]),
        }
        if self.learning_rate == 0:
            return before, line
        self._learn(batch, ref_logps)
        return self._score(batch, ref_logps) if self.update_first else before, line

    def _score(self, batch: Batch, ref_logps: Tensor) -> Tensor:
        return token_rewards(score_grid(self.model, batch.encoded, self._pad), ref_logps, self.beta)

    def _learn(self, batch: Batch, ref_logps: Tensor) -> None:
        for rows in micro_batches(batch, self._size):
            logps = gather_logps(self.model, [batch.encoded[row] for row in rows], self._pad)
            rewards = token_rewards(logps, ref_logps[rows, : logps.shape[1]], self.beta)
            loss = ce_loss(rewards.sum(-1), batch.outcomes[rows])
            (loss * len(rows) / len(batch.encoded)).backward()
        clip_grad_norm_(self.model.parameters(), self._max_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()

    def state(self) -> dict[str, Any]:
        """The weights of the model and the state of its optimiser."""
        return {"model": self.model.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])


def _auc(right: Tensor, wrong: Tensor) -> float:
    """P(a right response has the higher reward), ties half; NaN without one of both."""
    gaps = right[:, None] - wrong
    return float(((gaps > 0).float() + (gaps == 0).float() / 2).mean())


class StepReward:
    """Known rewards of steps, each given to the last token of its step."""

    def __init__(self, of: StepRewards):
        self._of = of

    def rewards(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """A reward at each step's last token (B, R)."""
        found = torch.zeros(batch.mask.shape, device=batch.mask.device)
        for row, (solution, tokens) in enumerate(zip(batch.solutions, batch.encoded, strict=True)):
            values = self._of(solution.prompt, solution.steps, solution.finished)
            ends = torch.tensor(tokens.step_ends, device=found.device)
            found[row, ends - 1] = torch.tensor(values, device=found.device, dtype=found.dtype)
        return found, {}

    def state(self) -> dict[str, Any]:
        """Nothing: known rewards do not change."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Does nothing."""


# ---- Advantages and updates ------------------------------------------------------------------


def process_advantages(rewards: Tensor, batch: Batch, config: ReinforceConfig) -> Tensor:
    """Unit rewards, in min-form or not, scaled, less their baseline, as returns; (B, R)."""
    mask = batch.mask
    if config.granularity == "step":
        counts = torch.tensor([len(e.step_ends) for e in batch.encoded], device=rewards.device)
        rewards = by_step(rewards, batch.step_of, int(counts.max()))  # (B, S)
        mask = torch.arange(int(counts.max()), device=rewards.device) < counts[:, None]
    if config.min_temperature is not None:
        rewards = min_form(rewards, mask, config.min_temperature)
    if config.normalise:
        rewards = unit_scale(rewards)
    rewards = subtract_process_baseline(rewards, mask, config.group_size)
    returns = discounted_returns(rewards, config.discount)
    if config.granularity == "step":
        returns = returns.gather(1, batch.step_of)
    return returns * batch.mask


def advantages(rewards: Tensor | None, batch: Batch, config: ReinforceConfig) -> Tensor:
    """The sum of both sources of credit, each with its own leave-one-out baseline; (B, R)."""
    outcome = leave_one_out(batch.outcomes, config.group_size)[:, None] * batch.mask
    found = config.outcome_weight * outcome
    if rewards is not None:
        found = found + config.process_weight * process_advantages(rewards, batch, config)
    return whiten(found, batch.mask) if config.normalise else found


def new_optimizer(model: PreTrainedModel, learning_rate: float) -> torch.optim.Optimizer:
    """AdamW with β₂ = 0.95 and no weight decay, for policy and reward model."""
    return torch.optim.AdamW(
        model.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0
    )


def add_gradient(
    policy: PreTrainedModel,
    batch: Batch,
    advantages: Tensor,
    old_logps: Tensor | None,
    ref_logps: Tensor | None,
    pad_token_id: int | None,
    config: ReinforceConfig,
) -> float:
    """Add the gradient of the loss, a mean over the batch's responses; returns the loss.

    ``old_logps`` None stands for those of the policy as it is.
    """
    total = 0.0
    for rows in micro_batches(batch, config.micro_batch_size):
        logps = gather_logps(policy, [batch.encoded[row] for row in rows], pad_token_id)
        width = logps.shape[1]
        mask = batch.mask[rows, :width]
        old = logps.detach() if old_logps is None else old_logps[rows, :width]
        loss = policy_loss(logps, old, advantages[rows, :width], mask, config.clip)
        if ref_logps is not None:
            loss = loss + config.kl_weight * kl_loss(logps, ref_logps[rows, :width], mask)
        loss = loss / len(batch.encoded)
        loss.backward()
        total += float(loss.detach())
    return total


def reinforce(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    grade: Grader,
    config: ReinforceConfig,
    *,
    sampling: Sampling,
    format: SolutionFormat,
    process: ProcessReward | None = None,
    reference: PreTrainedModel | None = None,
    evaluate: Evaluate | None = None,
    folder: Path | None = None,
) -> list[dict[str, Any]]:
    """Train ``policy`` in place; returns its history, one entry per batch and one before the first.

    While the prompts last none is used twice, so that ``accuracy``, the share of right responses of
    a batch, is one on problems not seen before.

    ``reference`` is needed for a KL term only. With ``folder`` the state is saved there every
    ``save_every`` batches, and the same call goes on from it after a kill, to the same end.

    Raises ValueError where the folder holds the state of another configuration.
    """
    trainer = _Trainer(
        policy, tokenizer, prompts, grade, config, sampling, format, process, reference
    )
    history = trainer.load(folder)
    done = len(history) - 1
    if done < 0:
        done, history = 0, [{"batch": 0} | dict(evaluate(policy, 0) if evaluate else {})]
    for number in tqdm(
        range(done, config.batches), "reinforce", config.batches, initial=done, unit="batch"
    ):
        start = time.perf_counter()
        line = trainer.step(number)
        line["seconds"] = time.perf_counter() - start
        finished = number + 1
        if evaluate and (finished % config.evaluate_every == 0 or finished == config.batches):
            line |= evaluate(policy, finished)
        history.append({"batch": finished} | line)
        if folder and (finished % config.save_every == 0 or finished == config.batches):
            trainer.save(folder, history)
    return history


class _Trainer:
    """Models and optimiser of a run."""

    def __init__(
        self,
        policy: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[Prompt],
        grade: Grader,
        config: ReinforceConfig,
        sampling: Sampling,
        format: SolutionFormat,
        process: ProcessReward | None,
        reference: PreTrainedModel | None,
    ):
        if config.kl_weight and reference is None:
            raise ValueError("a KL term needs a reference")
        if config.process_weight and process is None:
            raise ValueError("a process weight needs process rewards")
        self.policy, self.tokenizer, self.prompts, self.grade = policy, tokenizer, prompts, grade
        self.config, self.sampling, self.format = config, sampling, format
        self.process, self.reference = process, reference
        self.optimizer = new_optimizer(policy, config.learning_rate)

    def step(self, number: int) -> dict[str, Any]:
        """Batch ``number``: everything random in it follows from the seed and the number."""
        config, pad = self.config, self.tokenizer.pad_token_id
        rng = np.random.default_rng((config.seed, number))
        prompts = [self.prompts[index] for index in self._drawn(number)]
        rollouts = sample_rollouts(
            self.policy,
            self.tokenizer,
            prompts,
            n=config.group_size,
            sampling=self.sampling,
            format=self.format,
            seed=int(rng.integers(2**31)),
        )
        batch = make_batch(
            self.tokenizer, prompts, rollouts, self.grade, self.format, self.policy.device
        )
        line: dict[str, Any] = {
            "accuracy": float(batch.outcomes.mean()),
            "responses": len(batch.encoded),
            "tokens": int(batch.mask.sum()),
        }
        if config.accuracy_bounds is not None:
            kept = informative(batch.outcomes, config.group_size, config.accuracy_bounds)
            rows = kept.repeat_interleave(config.group_size).nonzero()[:, 0].tolist()
            line["kept"] = int(kept.sum())
            if not rows:
                return line
            batch = batch.select(rows)
        rewards = None
        if self.process is not None:
            rewards, found = self.process.rewards(batch)
            line |= found
        credit = advantages(rewards, batch, config)
        old = None
        if config.minibatches > 1:
            old = score_grid(self.policy, batch.encoded, pad)
        ref = None
        if config.kl_weight and self.reference is not None:
            ref = score_grid(self.reference, batch.encoded, pad)
        losses, norms = [], []
        for rows in _minibatches(rng, len(batch.encoded), config):
            part = batch.select(rows)
            width = part.mask.shape[1]
            losses.append(
                add_gradient(
                    self.policy,
                    part,
                    credit[rows, :width],
                    None if old is None else old[rows, :width],
                    None if ref is None else ref[rows, :width],
                    pad,
                    config,
                )
            )
            norms.append(float(clip_grad_norm_(self.policy.parameters(), config.max_grad_norm)))
            self.optimizer.step()
            self.optimizer.zero_grad()
        return line | {"loss": float(np.mean(losses)), "grad_norm": float(np.mean(norms))}

    def _drawn(self, number: int) -> list[int]:
        """The prompts of a batch: each once in a pass, in a new order in every pass."""
        size, count = self.config.prompts_per_batch, len(self.prompts)
        places = [divmod(number * size + place, count) for place in range(size)]
        orders = {
            turn: np.random.default_rng((self.config.seed, turn, 1)).permutation(count)
            for turn, _ in places
        }
        return [int(orders[turn][index]) for turn, index in places]

    def save(self, folder: Path, history: list[dict[str, Any]]) -> None:
        """Write the state as a whole: a kill leaves the one before it."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            "config": asdict(self.config),
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "process": self.process.state() if self.process else {},
            "history": history,
        }
        scratch = folder / "state.new"
        torch.save(state, scratch)
        os.replace(scratch, folder / "state.pt")

    def load(self, folder: Path | None) -> list[dict[str, Any]]:
        """Go on from a saved state; returns its history, which is empty where there is none."""
        if folder is None or not (folder / "state.pt").exists():
            return []
        state = torch.load(folder / "state.pt", map_location=self.policy.device)
        if state["config"] != asdict(self.config):
            raise ValueError(f"{folder} holds a run of another configuration: {state['config']}")
        self.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.process:
            self.process.load_state(state["process"])
        return list(state["history"])


def _minibatches(
    rng: np.random.Generator, responses: int, config: ReinforceConfig
) -> list[list[int]]:
    """The rows of each update: all, or the groups dealt out at random."""
    groups = responses // config.group_size
    order = rng.permutation(groups)
    size = config.group_size
    return [
        [int(group) * size + member for group in part for member in range(size)]
        for part in np.array_split(order, min(config.minibatches, groups))
    ]
