"""Solutions, their steps, and which token ends which step.

A language model sees one text: the prompt, the solution's steps joined by a separator, and the
token that ends the turn. This module renders that text, tokenises it once, and reads from the
tokenizer's character offsets which step every response token belongs to:

- a token belongs to the step that holds its first character;
- a separator belongs to the step before it, a prefix such as ``Step 1:`` to the step it names;
- tokens with equal offsets (the bytes of one character) stay together;
- the end-of-turn token belongs to the last step, and what follows it is not response.

Step ends are never found by tokenising prefixes again: a prefix may split into other tokens than
the whole text, and then rewards land on the wrong step without any error to show it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from transformers import PreTrainedTokenizerBase

#: A prompt is a text, or the messages of a conversation that ends before the assistant's turn.
Prompt = str | Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Solution:
    """A prompt and the steps of one solution of it.

    ``finished`` is False for a solution that was cut off or is still being written: it has no
    end-of-turn token.
    """

    prompt: Prompt
    steps: tuple[str, ...]
    finished: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.steps, str):
            raise ValueError("steps must be a sequence of texts, one per step, not one text")
        object.__setattr__(self, "steps", tuple(self.steps))
        if not self.steps:
            raise ValueError("a solution needs at least one step")
        for index, step in enumerate(self.steps):
            if not isinstance(step, str):
                raise ValueError(f"step {index} is no text but {type(step).__name__}: {step!r}")
            if not step.strip():
                raise ValueError(f"step {index} of {len(self.steps)} is empty")


def response_text(completion: Prompt) -> str:
    """The text of a completion: itself, or the content of its one assistant message.

    Raises ValueError for a conversation of more than one message, or by somebody else.
    """
    if isinstance(completion, str):
        return completion
    if len(completion) != 1 or completion[0]["role"] != "assistant":
        raise ValueError(
            f"a completion is one assistant message, not {len(completion)} by "
            f"{[message['role'] for message in completion]}"
        )
    return completion[0]["content"]


@dataclass(frozen=True)
class SolutionFormat:
    """How prompt and steps become the text that the model sees.

    ``separator`` stands between steps; ``chat`` makes a text prompt a user message and applies the
    tokenizer's chat template. A prompt of messages always goes through the template.
    ``step_prefix`` stands before each step, with the step's number, from 1, for ``{k}``; a step
    that begins with its own prefix gets no second one.
    """

    separator: str = "\n\n"
    chat: bool = False
    step_prefix: str = ""

    def __post_init__(self) -> None:
        if not self.separator:
            raise ValueError("the separator between steps must not be empty")
        if self.step_prefix and "{k}" not in self.step_prefix:
            raise ValueError(
                f"the step prefix {self.step_prefix!r} has no {{k}} where the step's number stands"
            )

    def response(self, steps: Sequence[str]) -> tuple[str, list[int]]:
        """The response text, and the character at which each step starts in it."""
        numbered = [self._numbered(step, number) for number, step in enumerate(steps, 1)]
        lengths = [len(step) + len(self.separator) for step in numbered]
        return self.separator.join(numbered), [0, *accumulate(lengths[:-1])]

    def _numbered(self, step: str, number: int) -> str:
        prefix = self._prefix(number)
        return step if step.startswith(prefix) else prefix + step

    def _prefix(self, number: int) -> str:
        return self.step_prefix.replace("{k}", str(number))

    def split(self, completion: str) -> tuple[str, ...]:
        """Split a whole response into steps; the separators between them are all that is lost.

        Separators at the end, and separators that follow one another, stay with the step before
        them, so that joining gives the response back and no step is empty. In a response that
        begins with the first step's prefix, a step begins where the next prefix stands, whatever
        separators the step before it holds.
        """
        numbered = bool(self.step_prefix) and completion.startswith(self._prefix(1))
        steps: list[str] = []
        for piece in completion.split(self.separator):
            goes_on = numbered and not piece.startswith(self._prefix(len(steps) + 1))
            if steps and (goes_on or not (piece.strip() and steps[-1].strip())):
                steps[-1] += self.separator + piece
            else:
                steps.append(piece)
        return tuple(steps)


@dataclass(frozen=True)
class EncodedSolution:
    """A tokenised solution of T response tokens in S steps.

    ``input_ids`` are prompt and response; ``response_start`` is the index of the first response
    token in them; ``step_ends`` (S) are exclusive ends counted in response tokens, the last one is
    T; ``tokens`` (T) are the pieces of text that the response tokens stand for.
    """

    input_ids: tuple[int, ...]
    response_start: int
    step_ends: tuple[int, ...]
    tokens: tuple[str, ...]


def encode(
    tokenizer: PreTrainedTokenizerBase, solution: Solution, format: SolutionFormat
) -> EncodedSolution:
    """Render and tokenise a solution, and find the tokens of each step.

    Raises ValueError where the first response token has nothing before it, a token reaches from
    the prompt into the response, a step owns no token or contains the text of a special token, or
    the chat template changes what the prompt or the response says.
    """
    response, step_starts = format.response(solution.steps)
    prompt = render_prompt(tokenizer, solution.prompt, format)
    text = _render(tokenizer, solution, format, prompt, response)
    content_start, content_end = _locate(text, len(prompt), response)
    ids, spans = _tokenize(tokenizer, text)

    response_start = sum(start < len(prompt) for start, _ in spans)
    _check_prompt_boundary(text, spans, response_start, len(prompt))
    content = range(response_start, sum(start < content_end for start, _ in spans))
    end = _response_end(tokenizer, text, ids, spans, content)
    # Step 0 also owns the space that some templates put before the response.
    owners = [
        max(0, bisect_right(step_starts, start - content_start) - 1)
        for start, _ in spans[response_start:end]
    ]
    counts = [owners.count(step) for step in range(len(solution.steps))]
    if 0 in counts:
        step = counts.index(0)
        raise ValueError(
            f"step {step} ({solution.steps[step]!r}) owns no token: the tokenizer merges it with "
            "its neighbours; use a separator that is a token of its own, such as a line end"
        )
    return EncodedSolution(
        input_ids=tuple(ids[:end]),
        response_start=response_start,
        step_ends=tuple(accumulate(counts)),
        tokens=tuple(text[start:stop] for start, stop in spans[response_start:end]),
    )


def render_prompt(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, format: SolutionFormat
) -> str:
    """The text of a prompt as the model sees it, up to where its response begins."""
    if isinstance(prompt, str) and not format.chat:
        bos = _bos(tokenizer)
        return prompt if prompt.startswith(bos) else bos + prompt
    rendered = tokenizer.apply_chat_template(
        _messages(tokenizer, prompt), tokenize=False, add_generation_prompt=True
    )
    return str(rendered)


def _bos(tokenizer: PreTrainedTokenizerBase) -> str:
    """The beginning-of-text token if the tokenizer puts one before plain text, else nothing."""
    adds_bos = tokenizer.bos_token_id in tokenizer("").input_ids[:1]
    return str(tokenizer.bos_token) if adds_bos else ""


def _messages(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[dict[str, str]]:
    if tokenizer.chat_template is None:
        raise ValueError(
            f"{tokenizer.name_or_path or 'the tokenizer'} has no chat template: give prompts as "
            "text and a format with chat=False, or a tokenizer of a chat model"
        )
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return [dict(message) for message in prompt]


def _render(
    tokenizer: PreTrainedTokenizerBase,
    solution: Solution,
    format: SolutionFormat,
    prompt: str,
    response: str,
) -> str:
    if isinstance(solution.prompt, str) and not format.chat:
        return prompt + response + (tokenizer.eos_token or "" if solution.finished else "")
    messages = _messages(tokenizer, solution.prompt)
    text = tokenizer.apply_chat_template(
        [*messages, {"role": "assistant", "content": response}],
        tokenize=False,
        continue_final_message=not solution.finished,
    )
    if not str(text).startswith(prompt):
        raise ValueError(
            "the chat template renders the prompt differently once a response follows it, so the "
            f"response cannot be located; prompt alone: {prompt[-80:]!r}, "
            f"with response: {str(text)[: len(prompt)][-80:]!r}; use another template, or give the "
            "rendered prompt as text with chat=False"
        )
    return str(text)


def _locate(text: str, prompt_end: int, response: str) -> tuple[int, int]:
    """Where the response's characters start and end in the text.

    A template may trim the response; then the start is where its untrimmed text would begin.
    """
    if text.startswith(response, prompt_end):
        return prompt_end, prompt_end + len(response)
    trimmed = response.strip()
    found = text.find(trimmed, prompt_end)
    if found < 0 or text[prompt_end:found].strip():
        raise ValueError(
            "the chat template changes the response, so its steps cannot be located; it renders "
            f"{text[prompt_end:][:80]!r} for {response[:80]!r}; use another template, or give the "
            "rendered prompt as text with chat=False"
        )
    return found - (len(response) - len(response.lstrip())), found + len(trimmed)


def _tokenize(
    tokenizer: PreTrainedTokenizerBase, text: str
) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids, and the characters of the text that each token stands for."""
    if not tokenizer.is_fast:
        raise ValueError(
            f"{tokenizer.name_or_path} has no fast tokenizer; step ends are read from its offsets"
        )
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return encoding["input_ids"], _spans(encoding.tokens(), encoding["offset_mapping"], text)


def _spans(
    pieces: Sequence[str], offsets: Sequence[tuple[int, int]], text: str
) -> list[tuple[int, int]]:
    """The tokens' offsets, with the spaces that some tokenizers (GPT-NeoX's) trim from them.

    Without its spaces a token could seem to start in the next step, or in the response although it
    starts in the prompt. ``pieces`` are the tokens as the vocabulary writes them, with Ġ for a
    space.
    """
    pieces = [piece.replace("Ġ", " ") for piece in pieces]
    starts: list[int] = []
    previous_end = 0
    for piece, (start, end) in zip(pieces, offsets, strict=True):
        leading = piece[: len(piece) - len(piece.lstrip())]
        trimmed = text.endswith(leading, previous_end, start)
        starts.append(start - len(leading) if trimmed else start)
        previous_end = end
    spans: list[tuple[int, int]] = []
    for index, (piece, (_, end)) in enumerate(zip(pieces, offsets, strict=True)):
        trailing = len(piece) - len(piece.rstrip())
        next_start = starts[index + 1] if index + 1 < len(starts) else len(text)
        spans.append((starts[index], max(end, min(end + trailing, next_start))))
    return spans


def _check_prompt_boundary(
    text: str, spans: Sequence[tuple[int, int]], response_start: int, prompt_end: int
) -> None:
    if response_start == 0:
        raise ValueError(
            "the first response token has nothing before it and so no probability; give a prompt "
            "that is not empty"
        )
    start, end = spans[response_start - 1]
    if end > prompt_end:
        raise ValueError(
            f"the token {text[start:end]!r} reaches from the prompt into the response; end the "
            "prompt with a line end and begin the response without a space or line end"
        )


def _response_end(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    ids: Sequence[int],
    spans: Sequence[tuple[int, int]],
    content: range,
) -> int:
    """The index after the last response token: the end-of-turn token, where there is one.

    ``content`` are the indices of the tokens of the steps' own text.
    """
    # all_special_ids would miss tokens without a role of their own, such as Llama 3's <|eot_id|>.
    special = {
        index: token.content
        for index, token in tokenizer.added_tokens_decoder.items()
        if token.special
    }
    for index in content:
        start, end = spans[index]
        # An unknown character also gets a special token, but not one that stands in the text.
        if text[start:end].strip() == special.get(ids[index]):
            raise ValueError(
                f"the solution contains the special token {special[ids[index]]!r}; remove its "
                "text from the steps"
            )
    return next(
        (index + 1 for index in range(content.stop, len(ids)) if ids[index] in special),
        content.stop,
    )
