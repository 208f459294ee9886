"""Step-level beam search: a score of unfinished solutions decides which of them are continued.

Best-of-N samples N whole solutions and uses the score once, at the end. Here N candidates for the
first step are sampled, the best are kept, each is continued by several next steps, and so on: the
tokens that best-of-N spends on solutions with a bad beginning go to the good ones (arXiv
2408.03314, §5). Any score of a solution can guide it; the process rewards of a PRM are one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from implicitprm.rewards import ImplicitPRM
from implicitprm.rollouts import Sampling, sample_rollouts
from implicitprm.selection import aggregate
from implicitprm.steps import Prompt, Solution, SolutionFormat

#: A score of each solution, finished or being written; the higher the better.
Guide = Callable[[Sequence[Solution]], Sequence[float]]


@dataclass(frozen=True)
class Beam:
    """A solution, or the beginning of one, separators at its end included, and its score."""

    text: str
    finished: bool
    score: float


@dataclass(frozen=True)
class Search:
    """What one prompt's search found: its beams, best first, and how many tokens it sampled."""

    beams: tuple[Beam, ...]
    tokens: int

    @property
    def best(self) -> Beam:
        """The best finished beam; the best of all where none is finished."""
        return next((beam for beam in self.beams if beam.finished), self.beams[0])


def step_guide(prm: ImplicitPRM, how: str, batch_size: int = 128) -> Guide:
    """The PRM's step rewards so far, made one score as ``selection.aggregate`` does by ``how``."""

    def scores(solutions: Sequence[Solution]) -> list[float]:
        scored = prm.score_solutions(solutions, batch_size)
        return [aggregate(solution.step_rewards, how) for solution in scored]

    return scores


def beam_search(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    guide: Guide,
    *,
    width: int,
    expansions: int,
    max_steps: int,
    sampling: Sampling,
    format: SolutionFormat,
    seed: int,
    batch_size: int = 512,
) -> list[Search]:
    """Search a solution of each prompt; returns one ``Search`` per prompt.

    ``width`` · ``expansions`` first steps are sampled; then the ``width`` best distinct candidates
    are kept and each unfinished one is continued by ``expansions`` next steps. Finished ones stay
    in the race, and the search ends when all that are kept are finished, or after ``max_steps``
    rounds. ``sampling.max_new_tokens`` limits one step; what it cuts off goes on in the next round.
    Candidates without any text score −∞.

    Raises ValueError for a width, expansions or max_steps below 1, and where the guide gives
    another number of scores than it got solutions, or a NaN.
    """
    for name, value in (("width", width), ("expansions", expansions), ("max_steps", max_steps)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    seeds = np.random.default_rng(seed).integers(2**31, size=max_steps).tolist()
    kept = [[Beam("", False, 0.0)] for _ in prompts]
    tokens = [0] * len(prompts)
    for step in range(max_steps):
        parents = [(row, b.text) for row, beams in enumerate(kept) for b in beams if not b.finished]
        if not parents:
            break
        sampled = sample_rollouts(
            model,
            tokenizer,
            [prompts[row] for row, _ in parents],
            n=expansions if step else width * expansions,
            sampling=sampling,
            format=format,
            seed=seeds[step],
            prefixes=[text for _, text in parents],
            stop=format.separator,
            batch_size=batch_size,
        )
        found = set()
        for (row, text), rollouts in zip(parents, sampled, strict=True):
            tokens[row] += sum(rollout.tokens for rollout in rollouts)
            found |= {(row, text + rollout.completion, rollout.finished) for rollout in rollouts}
        kept = [[beam for beam in beams if beam.finished] for beams in kept]
        # In order, since that of a set of texts changes from run to run.
        for row, beam in _scored(prompts, sorted(found), guide, format):
            kept[row].append(beam)
        kept = [sorted(beams, key=lambda beam: -beam.score)[:width] for beams in kept]
    return [Search(tuple(beams), count) for beams, count in zip(kept, tokens, strict=True)]


def _scored(
    prompts: Sequence[Prompt],
    candidates: Sequence[tuple[int, str, bool]],
    guide: Guide,
    format: SolutionFormat,
) -> list[tuple[int, Beam]]:
    """Score candidates (index of the prompt, text, finished), those without any text −∞."""
    solutions = [
        Solution(prompts[row], format.split(text), finished)
        for row, text, finished in candidates
        if text.strip()
    ]
    scores = np.asarray(guide(solutions), dtype=float)
    if scores.shape != (len(solutions),) or np.isnan(scores).any():
        raise ValueError(
            f"the guide must give {len(solutions)} numbers, one for each solution; it gave "
            f"{scores.shape}, {int(np.isnan(scores).sum())} of them NaN"
        )
    given = iter(scores.tolist())
    return [
        (row, Beam(text, finished, next(given) if text.strip() else -np.inf))
        for row, text, finished in candidates
    ]
