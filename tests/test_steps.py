"""Which token belongs to which step: encode() against a second algorithm, for five tokenizers.

encode() reads the tokenizer's character offsets. The algorithm here never looks at them: it walks
through the bytes of the text, token by token, and asks which character holds each token's first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, chain, pairwise

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoTokenizer,
    ByT5Tokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from implicitprm.arithmetic import ARITHMETIC_FORMAT
from implicitprm.arithmetic.tokenizer import build_tokenizer
from implicitprm.smollm2 import smollm2_path
from implicitprm.steps import (
    EncodedSolution,
    Solution,
    SolutionFormat,
    encode,
    render_prompt,
    response_text,
)

CORPUS = [
    "First we add.\n\nSo 2 + 2 = 4.\n\nThen x = 4.\n\n  So the answer is 4.\n\n",
    "Q: add\nA step one;  step two; x \n  y\n   z.\n\nA 日本語 😀 step.\n\n",
] * 20
#: The end of a turn: a special token that has no role (eos_token, ...), as Llama 3's <|eot_id|>.
END = "<|end|>"
SPECIALS = ["<unk>", "<s>", "</s>", "<|start|>", END]
CHAT = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
TRIMMING = CHAT.replace("m['content']", "m['content'] | trim")
#: Spaces around the response and a word for the end, as in Llama 2's template.
SPACED = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<s>[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }} </s>{% endif %}{% endfor %}"
)


# Tokenizers


def _fast(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    fast.chat_template = CHAT
    return fast


arithmetic = cache(build_tokenizer)


@cache
def byte_level(split_words: bool, trim_offsets: bool) -> PreTrainedTokenizerFast:
    """Byte-level BPE; unless it splits words first, its merges cross the separator."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=split_words
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _fast(tokenizer)


@cache
def sentencepiece_bpe() -> PreTrainedTokenizerFast:
    """BPE with ▁ for a space and bytes for unknown characters, and <s> in front, as Llama 2's."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=SPECIALS, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    spec = json.loads(tokenizer.to_str())
    vocabulary = spec["model"]["vocab"]
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    spec["model"]["byte_fallback"] = True
    tokenizer = Tokenizer.from_str(json.dumps(spec))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", SPECIALS.index("<s>"))]
    )
    return _fast(tokenizer)


@cache
def unigram() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.UnigramTrainer(
        vocab_size=80, special_tokens=SPECIALS, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _fast(tokenizer)


@pytest.fixture(scope="session")
def smollm2() -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(smollm2_path())
    except ModuleNotFoundError as error:
        pytest.skip(str(error))


# The second algorithm


def _bytes_of_byte_level(piece: str) -> int:
    return len(piece)  # the vocabulary writes each byte as one character


def _bytes_of_sentencepiece(piece: str) -> int:
    if piece.startswith("<0x"):
        return 1
    return len(piece.replace("▁", " ").encode())


@dataclass(frozen=True)
class Layout:
    """The text that the model sees, put together by hand, and which step owns which character."""

    prompt: str
    content: str
    tail: str
    owners: list[int]  # one per character of the content


def lay_out(prompt: str, steps: Sequence[str], separator: str, tail: str) -> Layout:
    owners: list[int] = []
    for index, step in enumerate(steps):
        following = separator if index + 1 < len(steps) else ""
        owners += [index] * len(step + following)
    return Layout(prompt, separator.join(steps), tail, owners)


def trimmed(layout: Layout) -> Layout:
    left = len(layout.content) - len(layout.content.lstrip())
    right = len(layout.content.rstrip())
    return Layout(layout.prompt, layout.content.strip(), layout.tail, layout.owners[left:right])


def walk(
    tokenizer: PreTrainedTokenizerBase,
    layout: Layout,
    piece_bytes: Callable[[str], int],
    end: str = END,
    prefix: int = 0,
) -> tuple[int, list[list[str]]] | str:
    """The number of prompt tokens and the texts of each step's tokens; or the error there must be.

    ``prefix`` is the number of characters that the tokenizer puts before the text.
    """
    text = layout.prompt + layout.content + layout.tail
    pieces = tokenizer.tokenize(text)
    added = tokenizer.get_added_vocab()
    lengths = [len(piece) if piece in added else piece_bytes(piece) for piece in pieces]
    lengths[0] -= prefix
    character_of_byte = [index for index, char in enumerate(text) for _ in char.encode()]
    assert sum(lengths) == len(character_of_byte), "the pieces must spell the text"
    content_start = len(layout.prompt)
    content_end = content_start + len(layout.content)
    prompt_tokens = 0
    owned: list[list[str]] = [[] for _ in range(layout.owners[-1] + 1)]
    for piece, (first_byte, next_byte) in zip(
        pieces, pairwise((0, *accumulate(lengths))), strict=True
    ):
        first, last = character_of_byte[first_byte], character_of_byte[next_byte - 1]
        if first < content_start:
            prompt_tokens += 1
            # A piece of no bytes is the space before the text.
            if next_byte > first_byte and last >= content_start:
                return "reaches from the prompt"
        else:
            owner = layout.owners[first - content_start] if first < content_end else -1
            owned[owner].append(text[first : last + 1])
            if piece == end:
                break
    if prompt_tokens == 0:
        return "nothing before it"
    if [] in owned:
        return "owns no token"
    return prompt_tokens, owned


def assert_agrees(
    tokenizer: PreTrainedTokenizerBase,
    solution: Solution,
    format: SolutionFormat,
    expected: tuple[int, list[list[str]]] | str,
) -> None:
    """Every response token belongs to exactly one step, to the right one, and is shown whole."""
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            encode(tokenizer, solution, format)
        return
    encoded = encode(tokenizer, solution, format)
    prompt_tokens, owned = expected
    assert encoded.response_start == prompt_tokens
    assert len(encoded.input_ids) == prompt_tokens + len(encoded.tokens)
    assert encoded.step_ends == tuple(accumulate(map(len, owned)))
    assert encoded.tokens == tuple(chain.from_iterable(owned))


def owned_texts(encoded: EncodedSolution) -> list[str]:
    """What each step's tokens spell."""
    return ["".join(encoded.tokens[start:end]) for start, end in pairwise((0, *encoded.step_ends))]


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids)))


# Random texts

#: Blanks, sentence ends, what the corpus merges, and characters of two to four bytes.
CHARACTERS = " \n\n\t..;=AaSstepx24é日本語😀👩\u200d🔬"
TEXTS = st.one_of(
    st.text(CHARACTERS, max_size=12),
    st.lists(st.sampled_from([*CORPUS[0].split(" "), " ", "\n", "😀", "日"]), max_size=6).map(
        " ".join
    ),
    # SmolLM2's vocabulary lacks some control characters, and the planes of Unicode not in use.
    st.text(st.characters(max_codepoint=0x1FFFF, exclude_categories=["Cs", "Cc"]), max_size=8),
)
STEPS = st.lists(TEXTS.filter(str.strip), min_size=1, max_size=4).map(tuple)
SEPARATORS = st.sampled_from(["\n\n", "\n", ".\n\n", " ", "; ", "\n ", "日"])
KNOWN_TEXTS = st.text(sorted(set("".join(CORPUS))), max_size=12)

random_texts = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
byte_level_bpe = pytest.mark.parametrize(
    ("split_words", "trim_offsets"),
    [(True, False), (True, True), (False, False), (False, True)],
    ids=["words", "words-trimmed", "crossing", "crossing-trimmed"],
)


@byte_level_bpe
@given(prompt=TEXTS, steps=STEPS, separator=SEPARATORS, finished=st.booleans())
@example("Q\n", ("x", " A"), "\n ", True)  # a token that ends in a trimmed space, then one that
@example("Q\n", ("  x", "y"), "\n", True)  # begins with one, between steps and after the prompt
@example("Q ", ("  x", "y"), "\n", True)  # tokens that are nothing but spaces
@example("Q\n", ("So", "😀", "日本"), " ", True)  # a space and a part of a character in one token
@example(
    "日", ("本語", "x"), "\n", True
)  # parts of two characters in one token, across the boundary
@random_texts
def test_byte_level_bpe(
    split_words: bool,
    trim_offsets: bool,
    prompt: str,
    steps: tuple[str, ...],
    separator: str,
    finished: bool,
) -> None:
    tokenizer = byte_level(split_words, trim_offsets)
    layout = lay_out(prompt, steps, separator, "</s>" if finished else "")
    expected = walk(tokenizer, layout, _bytes_of_byte_level, end="</s>")
    solution = Solution(prompt, steps, finished)
    assert_agrees(tokenizer, solution, SolutionFormat(separator), expected)


@byte_level_bpe
@given(prompt=TEXTS, steps=STEPS, separator=SEPARATORS, finished=st.booleans(), trim=st.booleans())
@example("Q", (" \n x", "y \n"), "\n\n", True, True)
@example("So", (" So",), "\n\n", True, True)  # the response's text stands in the prompt too
@random_texts
def test_byte_level_bpe_in_a_chat_template(
    split_words: bool,
    trim_offsets: bool,
    prompt: str,
    steps: tuple[str, ...],
    separator: str,
    finished: bool,
    trim: bool,
) -> None:
    tokenizer = byte_level(split_words, trim_offsets)
    user = prompt.strip() if trim else prompt
    rendered = f"<|start|>user\n{user}<|end|>\n<|start|>assistant\n"
    layout = lay_out(rendered, steps, separator, "<|end|>\n" if finished else "")
    if trim:
        layout = trimmed(layout)
    expected = walk(tokenizer, layout, _bytes_of_byte_level)
    tokenizer.chat_template = TRIMMING if trim else CHAT
    solution = Solution([{"role": "user", "content": prompt}], steps, finished)
    assert_agrees(tokenizer, solution, SolutionFormat(separator), expected)


@given(prompt=TEXTS, steps=STEPS, separator=SEPARATORS, finished=st.booleans())
@random_texts
def test_sentencepiece_bpe(
    prompt: str, steps: tuple[str, ...], separator: str, finished: bool
) -> None:
    tokenizer = sentencepiece_bpe()
    layout = lay_out("<s>" + prompt, steps, separator, "</s>" if finished else "")
    expected = walk(tokenizer, layout, _bytes_of_sentencepiece, end="</s>")
    solution = Solution(prompt, steps, finished)
    assert_agrees(tokenizer, solution, SolutionFormat(separator), expected)


@given(
    prompt=KNOWN_TEXTS,
    steps=st.lists(KNOWN_TEXTS.filter(str.strip), min_size=1, max_size=4).map(tuple),
    separator=st.sampled_from(["\n\n", "\n", ".\n\n", " ", "; ", "\n "]),
)
@random_texts
def test_unigram(prompt: str, steps: tuple[str, ...], separator: str) -> None:
    tokenizer = unigram()
    layout = lay_out(prompt, steps, separator, "</s>")
    prefix = 0 if (prompt + steps[0]).startswith(" ") else 1  # the ▁ before the first word
    expected = walk(tokenizer, layout, _bytes_of_sentencepiece, end="</s>", prefix=prefix)
    assert_agrees(tokenizer, Solution(prompt, steps), SolutionFormat(separator), expected)


_EXPRESSION = r"([0-9]|[1-4][0-9])([-+*=#]([0-9]|[1-4][0-9])){0,4}"


@given(
    prompt=st.from_regex(_EXPRESSION, fullmatch=True),
    steps=st.lists(st.from_regex("#?" + _EXPRESSION, fullmatch=True), min_size=1, max_size=6),
    finished=st.booleans(),
)
@random_texts
def test_arithmetic_tokenizer(prompt: str, steps: list[str], finished: bool) -> None:
    tokenizer = arithmetic()
    layout = lay_out(prompt + "\n", steps, "\n", "<eos>" if finished else "")
    expected = walk(tokenizer, layout, len, end="<eos>")
    assert not isinstance(expected, str), "in this world every line end is a token of its own"
    solution = Solution(prompt + "\n", tuple(steps), finished)
    assert_agrees(tokenizer, solution, ARITHMETIC_FORMAT, expected)


@given(prompt=TEXTS, steps=STEPS, separator=SEPARATORS, finished=st.booleans())
@example("Add.", ("1. Take 2.", "2. Add 3.", "So 5."), "\n\n", True)
@settings(random_texts, suppress_health_check=[*HealthCheck])
def test_smollm2_in_its_chat_template(
    smollm2: PreTrainedTokenizerBase,
    prompt: str,
    steps: tuple[str, ...],
    separator: str,
    finished: bool,
) -> None:
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    rendered = (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{prompt}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    layout = lay_out(rendered, steps, separator, "<|im_end|>\n" if finished else "")
    expected = walk(smollm2, layout, _bytes_of_byte_level, end="<|im_end|>")
    solution = Solution(prompt, steps, finished)
    assert_agrees(smollm2, solution, SolutionFormat(separator, chat=True), expected)


@given(steps=STEPS, separator=SEPARATORS)
@random_texts
def test_tokens_with_equal_offsets_stay_together(steps: tuple[str, ...], separator: str) -> None:
    tokenizer = byte_level(split_words=False, trim_offsets=False)
    try:
        encoded = encode(tokenizer, Solution("Q\n", steps), SolutionFormat(separator))
    except ValueError:
        return
    text = "Q\n" + separator.join(steps) + "</s>"
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    for end in encoded.step_ends[:-1]:
        boundary = encoded.response_start + end
        assert offsets[boundary - 1] != offsets[boundary]


# Worked examples, by hand


def test_arithmetic_solution_by_hand() -> None:
    encoded = encode(
        arithmetic(), Solution("7+5-3\n", ("7+5=12", "12-3=9", "#9")), ARITHMETIC_FORMAT
    )
    assert encoded.response_start == 6
    assert encoded.tokens[:7] == ("7", "+", "5", "=", "12", "\n", "12")
    assert encoded.tokens[-3:] == ("#", "9", "<eos>")
    assert encoded.step_ends == (6, 12, 15)


def test_smollm2_by_hand(smollm2: PreTrainedTokenizerBase) -> None:
    solution = Solution("What is 1 + 2 + 3?", ("1 + 2 = 3.", "So 3 + 3 = 6 😀", "The answer is 6."))
    encoded = encode(smollm2, solution, SolutionFormat(chat=True))
    prompt = decode(smollm2, encoded.input_ids[: encoded.response_start])
    assert prompt.endswith("<|im_start|>assistant\n")
    ends = (0, *encoded.step_ends)
    response = encoded.input_ids[encoded.response_start :]
    owned = [decode(smollm2, response[start:end]) for start, end in pairwise(ends)]
    assert owned == ["1 + 2 = 3.\n\n", "So 3 + 3 = 6 😀\n\n", "The answer is 6.<|im_end|>"]


def test_a_token_that_crosses_the_separator_belongs_to_the_step_before() -> None:
    tokenizer = byte_level(split_words=False, trim_offsets=False)
    steps = ("First we add.", "So x = 4.")
    assert ".ĊĊSo" in "".join(tokenizer.tokenize("\n\n".join(steps)))
    encoded = encode(tokenizer, Solution("Q\n", steps), SolutionFormat())
    first, second = owned_texts(encoded)
    assert first.startswith("First we add.\n\n")
    assert len(first) > len("First we add.\n\n"), "the merged token reaches into the second step"
    assert first + second == "First we add.\n\nSo x = 4.</s>"


def test_trimmed_offsets_change_nothing() -> None:
    text = ("So x", " 4", "  y.", "Then z")
    assert (
        byte_level(False, True)("x  y", return_offsets_mapping=True)["offset_mapping"]
        != (byte_level(False, False)("x  y", return_offsets_mapping=True)["offset_mapping"])
    )
    for separator in ("\n", "\n ", " "):
        for split_words in (True, False):
            with_spaces, without = (
                encode(
                    byte_level(split_words, trim), Solution("Q:\n", text), SolutionFormat(separator)
                )
                for trim in (False, True)
            )
            assert with_spaces == without


def test_what_follows_the_end_of_turn_is_no_response() -> None:
    tokenizer = byte_level(split_words=True, trim_offsets=False)
    tokenizer.chat_template = CHAT
    assert tokenizer.convert_tokens_to_ids(END) not in tokenizer.all_special_ids
    solution = Solution("Add.", ("x = 2.", "So 4."))
    encoded = encode(tokenizer, solution, SolutionFormat(chat=True))
    assert owned_texts(encoded) == ["x = 2.\n\n", f"So 4.{END}"]


def test_an_unfinished_solution_has_no_end_of_turn() -> None:
    tokenizer = byte_level(split_words=True, trim_offsets=False)
    tokenizer.chat_template = CHAT
    for format in (SolutionFormat(), SolutionFormat(chat=True)):
        finished = encode(tokenizer, Solution("Add.\n", ("x = 2.", "So")), format)
        unfinished = encode(tokenizer, Solution("Add.\n", ("x = 2.", "So"), False), format)
        assert unfinished.input_ids == finished.input_ids[:-1]
        assert unfinished.step_ends == (finished.step_ends[0], finished.step_ends[1] - 1)


def test_a_template_that_puts_spaces_around_the_response() -> None:
    tokenizer = byte_level(split_words=True, trim_offsets=False)
    tokenizer.chat_template = SPACED
    encoded = encode(tokenizer, Solution("Add.", ("So 2", "4")), SolutionFormat(chat=True))
    assert owned_texts(encoded) == [" So 2\n\n", "4 </s>"]


def test_messages_and_text_give_the_same_tokens() -> None:
    tokenizer = byte_level(split_words=True, trim_offsets=False)
    tokenizer.chat_template = CHAT
    steps = ("x = 2.", "So 4.")
    as_text = encode(tokenizer, Solution("Add.", steps), SolutionFormat(chat=True))
    messages = [{"role": "user", "content": "Add."}]
    for chat in (True, False):
        as_messages = encode(tokenizer, Solution(messages, steps), SolutionFormat(chat=chat))
        assert as_messages == as_text


def test_a_system_prompt_stands_in_the_prompt_only(smollm2: PreTrainedTokenizerBase) -> None:
    steps = ("2 + 2 = 4.", "So 4.")
    user = {"role": "user", "content": "Add."}
    system = {"role": "system", "content": "Answer in one word."}
    with_system = encode(smollm2, Solution([system, user], steps), SolutionFormat())
    default = encode(smollm2, Solution([user], steps), SolutionFormat())
    assert with_system.tokens == default.tokens
    assert with_system.step_ends == default.step_ends
    prompt = decode(smollm2, with_system.input_ids[: with_system.response_start])
    assert prompt.count("system") == 1
    assert "Answer in one word." in prompt


def test_bos_stands_once_before_plain_text() -> None:
    tokenizer = sentencepiece_bpe()
    assert render_prompt(tokenizer, "Add.\n", SolutionFormat()) == "<s>Add.\n"
    assert render_prompt(tokenizer, "<s>Add.\n", SolutionFormat()) == "<s>Add.\n"
    assert render_prompt(byte_level(True, False), "Add.\n", SolutionFormat()) == "Add.\n"
    encoded = encode(tokenizer, Solution("", ("x = 2",)), SolutionFormat())
    assert encoded.response_start == 1, "<s> alone is prompt enough"


# The rule that others publish


def retokenised_ends(
    tokenizer: PreTrainedTokenizerBase, solution: Solution, separator: str, tail: int
) -> list[int]:
    """Step ends as the length of each prefix, tokenised again, without the template's tail.

    The rule of the ProcessBench script of the paper's repository, there with ``tail`` 2.
    """
    user = {"role": "user", "content": str(solution.prompt)}
    ends = []
    for count in range(1, len(solution.steps) + 1):
        prefix = separator.join(solution.steps[:count])
        if count < len(solution.steps):
            prefix += separator
        messages = [user, {"role": "assistant", "content": prefix}]
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        ends.append(len(tokenizer(text, add_special_tokens=False).input_ids) - tail)
    return ends


def test_tokenising_prefixes_again_misplaces_steps(smollm2: PreTrainedTokenizerBase) -> None:
    solution = Solution("Add 1, 2 and 3.", ("1 + 2 = 3.", "Then 3 + 3 = 6.", "So 6."))
    encoded = encode(smollm2, solution, SolutionFormat(chat=True))
    ours = [encoded.response_start + end for end in encoded.step_ends]
    published = retokenised_ends(smollm2, solution, "\n\n", tail=2)
    # At the end of a prefix the blank line is one token; before a letter it is two. And the rule
    # leaves the end-of-turn token out.
    assert [ours_ - theirs for ours_, theirs in zip(ours, published, strict=True)] == [1, 1, 1]


def test_the_number_of_tail_tokens_depends_on_the_template() -> None:
    tokenizer = byte_level(split_words=True, trim_offsets=False)
    solution = Solution("Add.", ("x = 2.", "y = 4.", "So 4."))
    for template, tail in ((CHAT, 2), (CHAT.replace("<|end|>\n", "<|end|>"), 1)):
        tokenizer.chat_template = template
        encoded = encode(tokenizer, solution, SolutionFormat(";\n", chat=True))
        content_ends = [encoded.response_start + end for end in encoded.step_ends]
        content_ends[-1] -= 1  # the end-of-turn token
        assert retokenised_ends(tokenizer, solution, ";\n", tail) == content_ends
        assert retokenised_ends(tokenizer, solution, ";\n", 3 - tail) != content_ends


# SolutionFormat


@given(text=TEXTS, separator=SEPARATORS)
@example("\n\nA\n\n\n\nB\n\n", "\n\n")
@random_texts
def test_split_loses_nothing_and_leaves_no_step_empty(text: str, separator: str) -> None:
    steps = SolutionFormat(separator).split(text)
    assert separator.join(steps) == text
    assert all(step.strip() for step in steps) or not text.strip()


@given(steps=st.lists(st.text("abc.", min_size=1), min_size=1), separator=SEPARATORS)
def test_split_finds_the_steps_again(steps: list[str], separator: str) -> None:
    # No step shares a character with the separator, so there is one way to split.
    steps = [step.replace(".", "") or "a" for step in steps]
    assert SolutionFormat(separator).split(separator.join(steps)) == tuple(steps)


def test_split_by_hand() -> None:
    assert SolutionFormat().split("\n\nA\n\n\n\nB\nC\n\n") == ("\n\nA\n\n", "B\nC\n\n")


def test_response_is_the_joined_steps_and_where_each_starts() -> None:
    text, starts = SolutionFormat("; ").response(("So", "x = 2", "4"))
    assert text == "So; x = 2; 4"
    assert [text[start:] for start in starts] == ["So; x = 2; 4", "x = 2; 4", "4"]


NUMBERED = SolutionFormat(step_prefix="Step {k}: ")


def test_a_prefix_belongs_to_the_step_it_names() -> None:
    tokenizer = byte_level(split_words=True, trim_offsets=False)
    encoded = encode(tokenizer, Solution("Q\n", ("So 2", "x = 4")), NUMBERED)
    assert owned_texts(encoded) == ["Step 1: So 2\n\n", "Step 2: x = 4</s>"]


@given(prompt=TEXTS, steps=STEPS, separator=SEPARATORS)
@random_texts
def test_numbered_steps_are_the_steps_with_their_prefixes(
    prompt: str, steps: tuple[str, ...], separator: str
) -> None:
    """The same tokens and ends as for steps that have the prefix in their text."""
    tokenizer = byte_level(split_words=True, trim_offsets=False)
    written = tuple(f"({k}) {step}" for k, step in enumerate(steps, 1))
    found: list[EncodedSolution | str] = []
    for given_steps, prefix in ((steps, "({k}) "), (written, "({k}) "), (written, "")):
        format = SolutionFormat(separator, step_prefix=prefix)
        try:
            found.append(encode(tokenizer, Solution(prompt + "\n", given_steps), format))
        except ValueError as error:
            found.append(str(error)[:20])
    assert found[0] == found[1] == found[2]


def test_a_numbered_response_is_split_at_its_numbers() -> None:
    text = "Step 1: A\n\nB\n\nStep 2: C\n\nStep 4: D\n\n"
    steps = NUMBERED.split(text)
    assert steps == ("Step 1: A\n\nB", "Step 2: C\n\nStep 4: D\n\n")
    assert NUMBERED.response(steps)[0] == text


def test_an_unnumbered_response_is_split_at_separators_and_numbered() -> None:
    steps = NUMBERED.split("A\n\nStep 2: B\n\nC")
    assert steps == ("A", "Step 2: B", "C")
    assert NUMBERED.response(steps)[0] == "Step 1: A\n\nStep 2: B\n\nStep 3: C"


def test_a_prefix_without_a_number() -> None:
    with pytest.raises(ValueError, match=r"'Step: ' has no \{k\}"):
        SolutionFormat(step_prefix="Step: ")


# Errors


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((), "at least one step"),
        (("x", ""), "step 1 of 2 is empty"),
        (("x", " \n\t"), "step 1 of 2 is empty"),
        ("x = 2", "not one text"),
        (("x", 2), "step 1 is no text but int"),
    ],
    ids=["none", "empty", "blank", "one text", "a number"],
)
def test_steps_that_are_none(steps: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Solution("Q\n", steps)


def test_an_empty_response_has_no_steps() -> None:
    with pytest.raises(ValueError, match="is empty"):
        Solution("Q\n", SolutionFormat().split(""))


def test_empty_separator() -> None:
    with pytest.raises(ValueError, match="separator between steps must not be empty"):
        SolutionFormat("")


def test_a_step_that_owns_no_token() -> None:
    tokenizer = byte_level(split_words=False, trim_offsets=False)
    assert tokenizer.tokenize("So x =") == ["So", "ĠxĠ", "="]
    with pytest.raises(ValueError, match=r"step 1 \('x'\) owns no token"):
        encode(tokenizer, Solution("Q\n", ("So", "x", "=")), SolutionFormat(" "))


@pytest.mark.parametrize("trim_offsets", [False, True])
@pytest.mark.parametrize(
    ("prompt", "step", "token"),
    [("Q ", "step", " step"), ("Q\n", "  x", "\n  "), ("Q ", " x", "  ")],
    ids=["leading space", "trailing space", "spaces"],
)
def test_a_token_that_crosses_from_prompt_to_response(
    trim_offsets: bool, prompt: str, step: str, token: str
) -> None:
    tokenizer = byte_level(split_words=False, trim_offsets=trim_offsets)
    with pytest.raises(ValueError, match=re.escape(f"{token!r} reaches from the prompt")):
        encode(tokenizer, Solution(prompt, (step,)), SolutionFormat())


def test_a_prompt_that_leaves_nothing_before_the_response() -> None:
    for tokenizer in (byte_level(True, False), arithmetic()):
        with pytest.raises(ValueError, match="nothing before it"):
            encode(tokenizer, Solution("", ("2+2",)), SolutionFormat())


@pytest.mark.parametrize("token", ["</s>", END], ids=["with a role", "without a role"])
def test_the_text_of_a_special_token_in_a_step(token: str) -> None:
    tokenizer = byte_level(split_words=True, trim_offsets=False)
    solution = Solution("Q\n", ("x = 2", f"So {token} 4"))
    with pytest.raises(ValueError, match="contains the special token"):
        encode(tokenizer, solution, SolutionFormat())


def test_an_unknown_character_is_not_the_text_of_a_special_token() -> None:
    encoded = encode(unigram(), Solution("Q\n", ("x = ß", "So")), SolutionFormat("\n"))
    assert unigram().unk_token_id in encoded.input_ids[encoded.response_start :]
    assert owned_texts(encoded) == ["x = ß\n", "So</s>"]


def test_a_slow_tokenizer() -> None:
    with pytest.raises(ValueError, match="no fast tokenizer"):
        encode(ByT5Tokenizer(), Solution("Q\n", ("x",)), SolutionFormat())


@pytest.mark.parametrize("prompt", ["Add.", [{"role": "user", "content": "Add."}]])
def test_no_chat_template(prompt: str | list[dict[str, str]]) -> None:
    with pytest.raises(ValueError, match="has no chat template"):
        encode(arithmetic(), Solution(prompt, ("2+2",)), SolutionFormat(chat=True))


def test_a_template_that_renders_the_prompt_differently() -> None:
    tokenizer = byte_level(split_words=True, trim_offsets=False)
    tokenizer.chat_template = CHAT.replace(
        "<|end|>", "{% if loop.last and m['role'] == 'user' %}!{% endif %}<|end|>"
    )
    with pytest.raises(ValueError, match="renders the prompt differently"):
        encode(tokenizer, Solution("Add.", ("x", "y")), SolutionFormat(chat=True))


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    "template",
    [
        CHAT.replace("m['content']", "m['content'].split('</think>')[-1]"),
        CHAT.replace("{{ m['content'] }}", "<think></think>{{ m['content'] }}"),
        CHAT.replace("add_generation_prompt", "false"),
    ],
    ids=["cuts", "inserts", "no generation prompt"],
)
def test_a_template_that_changes_the_response(template: str, finished: bool) -> None:
    tokenizer = byte_level(split_words=True, trim_offsets=False)
    tokenizer.chat_template = template
    solution = Solution("Add.", ("I think</think>", "So 4"), finished)
    with pytest.raises(ValueError, match=r"changes the response|does not appear in the chat"):
        encode(tokenizer, solution, SolutionFormat(chat=True))


def test_a_completion_is_a_text_or_one_assistant_message() -> None:
    assert response_text("7+5=12") == "7+5=12"
    assert response_text([{"role": "assistant", "content": "7+5=12"}]) == "7+5=12"
    with pytest.raises(ValueError, match="one assistant message"):
        response_text([{"role": "user", "content": "7+5=12"}])
    with pytest.raises(ValueError, match="one assistant message"):
        response_text([{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}])
