"""The implicit process reward model: from log-ratios to step rewards and q-values.

With two causal language models, a policy π_θ and a reference π_ref, the reward of a response is
r(y) = β log π_θ(y)/π_ref(y) (arXiv 2412.01981, Eq. 2). It is a sum over tokens, so every step has
its share, and the running sum over steps is a q-value (Proposition 3.1). Train r on outcomes and
the process rewards are there without a step label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path

import datasets
import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from implicitprm.devices import processes, weights_dtype
from implicitprm.logprobs import check_length, score_logps
from implicitprm.reference_cache import ReferenceCache
from implicitprm.steps import (
    EncodedSolution,
    Prompt,
    Solution,
    SolutionFormat,
    encode,
    response_text,
)

#: What scoring adds to a data set.
SCORE_COLUMNS = (
    "step_rewards",
    "q_values",
    "outcome",
    "policy_step_logps",
    "ref_step_logps",
    "step_ends",
)


def token_rewards(policy_logps: Tensor, ref_logps: Tensor, beta: float) -> Tensor:
    """β (log π_θ − log π_ref) of each token, in nats times β; shapes are equal and kept."""
    return beta * (policy_logps - ref_logps)


def step_rewards(rewards: Tensor, step_ends: Sequence[int]) -> Tensor:
    """Sum a value per token (T) over each step's tokens, given exclusive ``step_ends``; (S)."""
    if not step_ends or step_ends[-1] != len(rewards):
        raise ValueError(f"step_ends {list(step_ends)} do not end at token {len(rewards)}")
    return torch.stack([rewards[start:end].sum() for start, end in pairwise((0, *step_ends))])


def q_values(rewards: Tensor) -> Tensor:
    """q^t, the running sum of step rewards (S); the last one is the outcome reward."""
    return rewards.cumsum(-1)


@dataclass(frozen=True, repr=False)
class ScoredSolution:
    """The rewards of one solution of S steps and T response tokens.

    ``token_rewards`` (T) and ``step_rewards`` (S) sum to ``outcome``; ``q_values`` (S) is the
    running sum of the step rewards; ``step_ends`` (S) are exclusive ends counted in tokens;
    ``policy_logps`` and ``ref_logps`` (T) are in nats.
    """

    steps: tuple[str, ...]
    tokens: tuple[str, ...]
    step_ends: tuple[int, ...]
    token_rewards: np.ndarray
    step_rewards: np.ndarray
    q_values: np.ndarray
    outcome: float
    policy_logps: np.ndarray
    ref_logps: np.ndarray

    def __repr__(self) -> str:
        """A table of the steps with their rewards and q-values."""
        lines = [f"{'reward':>10}{'q':>10}  step"]
        for reward, q, step in zip(self.step_rewards, self.q_values, self.steps, strict=True):
            lines.append(f"{reward:>+10.3f}{q:>+10.3f}  {step}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """A table of the steps, each token coloured by its reward (blue good, orange bad)."""
        scale = max(float(np.abs(self.token_rewards).max()), 1e-9)
        rows = []
        for number, (start, end) in enumerate(pairwise((0, *self.step_ends))):
            shaded = "".join(
                _shaded(token, float(reward), scale)
                for token, reward in zip(
                    self.tokens[start:end], self.token_rewards[start:end], strict=True
                )
            )
            rows.append(
                f"<tr><td>{number}</td><td style='text-align:left'><code>{shaded}</code></td>"
                f"<td>{self.step_rewards[number]:+.3f}</td><td>{self.q_values[number]:+.3f}</td></tr>"
            )
        head = "<tr><th>step</th><th>tokens</th><th>step reward</th><th>q</th></tr>"
        caption = f"<caption>outcome reward {self.outcome:+.3f}</caption>"
        return f"<table>{caption}{head}{''.join(rows)}</table>"


def _shaded(token: str, reward: float, scale: float) -> str:
    colour = "0,114,178" if reward > 0 else "213,94,0"
    style = f"background:rgba({colour},{min(abs(reward) / scale, 1.0):.2f})"
    return (
        f"<span style='{style}' title='{reward:+.4f}'>{escape(token).replace(chr(10), '↵')}</span>"
    )


def sum_by_step(values: np.ndarray, step_ends: Sequence[int]) -> np.ndarray:
    """Sum a value per token (T), such as a log-probability, over each step's tokens; (S)."""
    return step_rewards(torch.from_numpy(values), step_ends).numpy()


def load_causal_lm(name: str, dtype: str | torch.dtype | None = None) -> PreTrainedModel:
    """Load a causal language model from safetensors onto the device at hand, in eval mode.

    ``dtype`` None means the checkpoint's own on an accelerator and float32 on a CPU, where half
    precision is slow.

    Raises ValueError where a checkpoint has pickled weights only, which could run code on loading.
    """
    dtype = dtype or weights_dtype()
    try:
        model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, use_safetensors=True)
    except OSError as error:
        if "safetensors" not in str(error):
            raise
        raise ValueError(
            f"{name} has no safetensors weights; pickled weights are not loaded because they can "
            "run code: convert the checkpoint with model.save_pretrained(folder)"
        ) from error
    return model.to(processes().device).eval()


def check_same_tokenizer(
    policy: PreTrainedTokenizerBase, reference: PreTrainedTokenizerBase
) -> None:
    """Raise ValueError, naming both, where the vocabularies of two tokenizers differ."""
    if policy.get_vocab() == reference.get_vocab():
        return
    raise ValueError(
        f"policy {policy.name_or_path!r} ({len(policy)} tokens) and reference "
        f"{reference.name_or_path!r} ({len(reference)} tokens) have different tokenizers; a "
        "log-ratio needs the same tokens under both models"
    )


class ImplicitPRM:
    """Scores the steps of solutions by the log-ratio of two causal language models.

    ``reference`` None stands for a uniform reference: log π_ref is taken as 0, and the reward is
    β log π_θ (the paper's §5.4, "no reference at inference"). ``reference_cache`` is a folder in
    which a :class:`~implicitprm.reference_cache.ReferenceCache` keeps the log-probabilities of the
    reference; the model must not change from then on.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        reference: PreTrainedModel | None,
        tokenizer: PreTrainedTokenizerBase,
        beta: float,
        format: SolutionFormat | None = None,
        reference_cache: str | Path | None = None,
    ):
        if not beta > 0:
            raise ValueError(f"beta must be positive, not {beta}")
        if reference_cache is not None and reference is None:
            raise ValueError(f"without a reference there is nothing to keep in {reference_cache}")
        self.policy, self.reference = policy, reference
        self.tokenizer, self.beta = tokenizer, beta
        self.format = format or SolutionFormat(chat=tokenizer.chat_template is not None)
        self._cache = None
        if reference is not None and reference_cache is not None:
            self._cache = ReferenceCache(reference_cache, reference)

    @classmethod
    def from_pretrained(
        cls,
        policy: str,
        reference: str | None = None,
        *,
        beta: float,
        format: SolutionFormat | None = None,
        dtype: str | torch.dtype | None = None,
        reference_cache: str | Path | None = None,
    ) -> ImplicitPRM:
        """Load policy and reference by hub id or folder.

        ``format`` None means steps separated by blank lines, in the chat template if the policy's
        tokenizer has one. ``dtype`` is explained in :func:`load_causal_lm`.

        Raises ValueError where the tokenizers differ or weights are not in safetensors.
        """
        tokenizer = AutoTokenizer.from_pretrained(policy)
        if reference is not None:
            check_same_tokenizer(tokenizer, AutoTokenizer.from_pretrained(reference))
        return cls(
            load_causal_lm(policy, dtype),
            None if reference is None else load_causal_lm(reference, dtype),
            tokenizer,
            beta,
            format,
            reference_cache,
        )

    def score(self, prompt: Prompt, steps: Sequence[str], finished: bool = True) -> ScoredSolution:
        """Score one solution. ``finished`` False scores one that is still being written.

        Raises as :meth:`score_solutions`.
        """
        return self.score_solutions([Solution(prompt, tuple(steps), finished)])[0]

    def score_solutions(
        self, solutions: Sequence[Solution], batch_size: int = 32
    ) -> list[ScoredSolution]:
        """Score solutions, one forward pass per model and batch; the order is kept.

        Raises ValueError, naming the solution, where one cannot be tokenised into steps or is
        longer than the context. Nothing is truncated.
        """
        encoded = [self._encode(index, solution) for index, solution in enumerate(solutions)]
        pad = self.tokenizer.pad_token_id
        policy_logps = score_logps(self.policy, encoded, pad, batch_size, "policy")
        if self.reference is None:
            ref_logps = [torch.zeros_like(logps) for logps in policy_logps]
        elif self._cache is not None:
            ref_logps = self._cache.score_logps(encoded, pad, batch_size, "reference")
        else:
            # The same batches as under the policy: equal models give rewards of exactly 0.
            ref_logps = score_logps(self.reference, encoded, pad, batch_size, "reference")
        return [
            self._scored(*parts)
            for parts in zip(solutions, encoded, policy_logps, ref_logps, strict=True)
        ]

    def score_dataset(self, dataset: datasets.Dataset, batch_size: int = 32) -> datasets.Dataset:
        """Score a data set and return it with :data:`SCORE_COLUMNS` added.

        Rows have a ``prompt`` and either ``completions``, the steps (the stepwise format), or
        ``completion``, a whole response that is split at the separator. ``outcome`` is the sum of
        the step rewards, ``policy_step_logps`` and ``ref_step_logps`` are the log-probabilities of
        each step, and ``step_ends`` counts tokens.
        """
        scored = self.score_solutions(
            [self._solution(dataset, index, row) for index, row in enumerate(dataset)], batch_size
        )
        rows = [
            {
                "step_rewards": solution.step_rewards.tolist(),
                "q_values": solution.q_values.tolist(),
                "outcome": solution.outcome,
                "policy_step_logps": sum_by_step(
                    solution.policy_logps, solution.step_ends
                ).tolist(),
                "ref_step_logps": sum_by_step(solution.ref_logps, solution.step_ends).tolist(),
                "step_ends": list(solution.step_ends),
            }
            for solution in scored
        ]
        for name in SCORE_COLUMNS:
            dataset = dataset.add_column(name, [row[name] for row in rows])
        return dataset

    def _solution(self, dataset: datasets.Dataset, index: int, row: dict) -> Solution:
        try:
            if "completions" in row:
                steps = tuple(row["completions"])
            else:
                steps = self.format.split(response_text(row["completion"]))
            return Solution(row["prompt"], steps, row.get("finished") is not False)
        except KeyError as error:
            raise ValueError(
                "scoring needs the columns 'prompt' and 'completion', or 'prompt' and "
                f"'completions' (the steps); there are {dataset.column_names}"
            ) from error
        except ValueError as error:
            raise ValueError(f"row {index}: {error}") from error

    def _encode(self, index: int, solution: Solution) -> EncodedSolution:
        try:
            encoded = encode(self.tokenizer, solution, self.format)
        except ValueError as error:
            raise ValueError(f"solution {index}: {error}") from error
        for model in filter(None, (self.policy, self.reference)):
            check_length(encoded, model, f"solution {index}")
        return encoded

    def _scored(
        self, solution: Solution, encoded: EncodedSolution, policy_logps: Tensor, ref_logps: Tensor
    ) -> ScoredSolution:
        rewards = token_rewards(policy_logps, ref_logps, self.beta)
        by_step = step_rewards(rewards, encoded.step_ends)
        q = q_values(by_step)
        return ScoredSolution(
            steps=solution.steps,
            tokens=encoded.tokens,
            step_ends=encoded.step_ends,
            token_rewards=rewards.numpy(),
            step_rewards=by_step.numpy(),
            q_values=q.numpy(),
            outcome=float(q[-1]),
            policy_logps=policy_logps.numpy(),
            ref_logps=ref_logps.numpy(),
        )
