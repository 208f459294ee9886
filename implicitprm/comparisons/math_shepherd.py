"""Math-Shepherd's step labels: complete every prefix and see what comes of it (arXiv 2312.08935).

From the end of each step of a solution, K completions are sampled and graded. The *soft* label of
the step is the share of right ones, the *hard* label is whether there is one. The same completions
estimate the true Q(prefix) = P(right | prefix) under the sampler: the soft label is its unbiased
estimate, the hard one estimates P(at least one of K right) = 1 − (1 − Q)^K.

Both are about being *right*. The mean and the maximum of Proposition 3.2 are about r_θ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from implicitprm.rollouts import Sampling, sample_rollouts
from implicitprm.steps import Prompt, Solution, SolutionFormat

#: Is the solution of this prompt with these steps right? The last argument: is it finished.
Grader = Callable[[Prompt, Sequence[str], bool], bool]


@dataclass(frozen=True)
class Completions:
    """What became of the completions of each prefix of one solution of S steps.

    ``right`` (S, K) says which of the K completions of steps 0..t are right, and
    ``generated_tokens`` (S) how many tokens they have together, end of text included. The prefix
    that is the whole finished solution needs no completion: its row repeats the outcome.
    """

    right: npt.NDArray[np.bool_]
    generated_tokens: npt.NDArray[np.int64]


def complete_prefixes(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    solutions: Sequence[Solution],
    grade: Grader,
    *,
    n: int,
    sampling: Sampling,
    format: SolutionFormat,
    seed: int,
    batch_size: int = 512,
) -> list[Completions]:
    """Sample ``n`` completions from the end of every step of every solution, and grade them.

    A prefix that several solutions to one prompt share is completed once. A step that ends the
    solution cannot be continued: ``n`` copies of the outcome stand for it.

    Raises ValueError for n < 1 and where prompt, prefix and new tokens exceed the model's context.
    """
    if n < 1:
        raise ValueError(f"n={n}: a label needs at least one completion")
    wanted = dict.fromkeys(
        (solution.prompt, solution.steps[:end])
        for solution in solutions
        for end in range(1, _open_prefixes(solution) + 1)
    )
    prefixes = list(wanted)
    drawn = sample_rollouts(
        model,
        tokenizer,
        [prompt for prompt, _ in prefixes],
        n=n,
        sampling=sampling,
        format=format,
        seed=seed,
        prefixes=[format.separator.join((*steps, "")) for _, steps in prefixes],
        batch_size=batch_size,
    )
    results = {}
    for (prompt, steps), rollouts in zip(prefixes, drawn, strict=True):
        right = [
            # An empty completion ends the text where a step could have followed.
            grade(
                prompt,
                (*steps, *(format.split(rollout.completion) if rollout.completion else ())),
                rollout.finished,
            )
            for rollout in rollouts
        ]
        tokens = sum(rollout.tokens for rollout in rollouts)
        results[prompt, steps] = (np.array(right), tokens)
    return [_of_solution(solution, results, grade, n) for solution in solutions]


def _open_prefixes(solution: Solution) -> int:
    """How many prefixes can be continued: all but a finished solution itself."""
    return len(solution.steps) - (1 if solution.finished else 0)


def _of_solution(
    solution: Solution,
    results: dict[tuple[Prompt, tuple[str, ...]], tuple[np.ndarray, int]],
    grade: Grader,
    n: int,
) -> Completions:
    found = [
        results[solution.prompt, solution.steps[:end]]
        for end in range(1, _open_prefixes(solution) + 1)
    ]
    if solution.finished:
        outcome = grade(solution.prompt, solution.steps, True)
        found.append((np.full(n, outcome), 0))
    return Completions(
        right=np.stack([right for right, _ in found]),
        generated_tokens=np.array([tokens for _, tokens in found]),
    )


def soft_labels(right: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Share of right completions of each prefix: (S, K) → (S) (arXiv 2312.08935, Eq. 4)."""
    return _checked(right).mean(axis=1)


def hard_labels(right: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Is there a right completion of each prefix: (S, K) → (S) (arXiv 2312.08935, Eq. 3)."""
    return np.asarray(_checked(right).any(axis=1))


def _checked(right: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    outcomes = np.asarray(right)
    if outcomes.ndim != 2 or outcomes.shape[1] == 0:
        raise ValueError(f"right must be (S, K) with K >= 1, got shape {outcomes.shape}")
    if not np.isin(outcomes, (0, 1)).all():
        raise ValueError("right must be bool or 0/1")
    return outcomes.astype(bool)
