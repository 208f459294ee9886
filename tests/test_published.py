"""Published implicit PRMs by name: each format against the published rule, on tiny models.

The models and their tokenizers are made here; what is real is the text that the chat templates of
Qwen2.5-Math and Llama 3.1 put around a solution. The rule is computed again from that text, written
out by hand: no template, no offsets and nothing of the package takes part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from implicitprm import ImplicitPRM, SolutionFormat
from implicitprm.published import (
    PUBLISHED,
    load_published,
    published_prm,
)
from implicitprm.selection import AGGREGATIONS, aggregate

PROBLEM = "Tom has 3 apples and buys 4. How many has he?"
#: A step of two lines, one that ends in a blank, one with a fraction.
STEPS = ("He starts with 3 apples.\nHe buys 4.", "3 + 4 = 7 ", "So the answer is \\boxed{7}.")
#: As the PRM reads them.
NUMBERED = tuple(f"Step {k}: {step}" for k, step in enumerate(STEPS, 1))
SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."


@dataclass(frozen=True)
class Family:
    """The chat format of a family of models: a template, and the text it renders around a turn."""

    specials: tuple[str, ...]
    end: str
    template: str
    before: str  # up to the response, with {problem}
    after: str  # from the response's end, its end-of-turn token first


# Of Qwen/Qwen2.5-Math-7B-Instruct (Apache 2.0), tokenizer_config.json, without its part for tools.
QWEN = Family(
    specials=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    end="<|im_end|>",
    template=(
        "{%- if messages[0]['role'] == 'system' %}"
        "{{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}"
        "{%- else %}{{- '<|im_start|>system\\nPlease reason step by step, and put your final "
        "answer within \\\\boxed{}.<|im_end|>\\n' }}{%- endif %}"
        "{%- for message in messages %}"
        '{%- if (message.role == "user") or (message.role == "system" and not loop.first) or '
        '(message.role == "assistant" and not message.tool_calls) %}'
        "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}"
        "{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
    ),
    before=(
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"
        "<|im_start|>user\n{problem}<|im_end|>\n<|im_start|>assistant\n"
    ),
    after="<|im_end|>\n",
)
# The template's own text falls under the Llama 3.1 Community License, which asks for notices. This
# one is ours: it renders, for a user's and an assistant's turn, the text of Meta's documentation of
# the prompt format, with the template's default date, and trims as the original does.
LLAMA = Family(
    specials=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    end="<|eot_id|>",
    template=(
        "{{- bos_token }}{{- '<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge "
        "Date: December 2023\\nToday Date: 26 Jul 2024\\n\\n<|eot_id|>' }}"
        "{%- for message in messages %}"
        "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
        "{{- message['content'] | trim + '<|eot_id|>' }}{%- endfor %}"
        "{%- if add_generation_prompt %}"
        "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
    ),
    before=(
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n{problem}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    after="<|eot_id|>",
)
FAMILIES = {
    "EurusPRM-Stage1": QWEN,
    "EurusPRM-Stage2": QWEN,
    "ImplicitPRM_DPO": LLAMA,
    "ImplicitPRM_CE": LLAMA,
}
#: How Llama 3's tokenizer cuts a text into words; Qwen2.5's differs in single digits only.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
every_prm = pytest.mark.parametrize("name", list(PUBLISHED))


@cache
def tokenizer_of(name: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with the family's special tokens and chat template."""
    family = FAMILIES[name]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    corpus = ["\n\n".join(NUMBERED) + PROBLEM + "\n\n\n\n\n\n", SYSTEM + "\n\nStep 4: \n\n"] * 20
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=list(family.specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        # Llama's begins every text; Qwen's tokenizer has none.
        bos_token=family.specials[0] if family is LLAMA else None,
        eos_token=family.end,
        pad_token=family.specials[0],
    )
    fast.chat_template = family.template
    return fast


@cache
def model_of(name: str, seed: int) -> LlamaForCausalLM:
    """A tiny model with weights so large that no two next-token distributions are alike."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer_of(name)),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0 if parameter.ndim > 1 else 1.0)
    return model.eval()


def save(folder: Path, name: str, seed: int) -> str:
    model_of(name, seed).save_pretrained(folder)
    tokenizer_of(name).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def prm(name: str, tmp_path: Path) -> ImplicitPRM:
    """The published PRM of that name, but for its weights."""
    return load_published(
        name,
        policy=save(tmp_path / "policy", name, 0),
        reference=save(tmp_path / "reference", name, 1),
    )


# ---- The published rule, from the text on ------------------------------------------------------


def token_logps(model: LlamaForCausalLM, ids: Sequence[int]) -> np.ndarray:
    """log p of each token but the first, in float64: (T-1)."""
    with torch.no_grad():
        logps = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return logps[:-1].gather(1, torch.tensor(ids)[1:, None])[:, 0].numpy()


@dataclass(frozen=True)
class Layout:
    """The whole text in tokens, and the number of tokens before each step and before its end."""

    ids: list[int]
    bounds: list[int]  # where the first step starts, then where each step ends


def lay_out(name: str) -> Layout:
    """By the bytes that the tokens before a token spell: a separator closes its step."""
    family, tokenizer = FAMILIES[name], tokenizer_of(name)
    prompt = family.before.replace("{problem}", PROBLEM)
    ids = tokenizer(prompt + "\n\n".join(NUMBERED) + family.end, add_special_tokens=False).input_ids
    read = [len(str(tokenizer.decode(ids[:t])).encode()) for t in range(len(ids))]
    starts = np.cumsum(
        [len(prompt.encode()), *(len((step + "\n\n").encode()) for step in NUMBERED[:-1])]
    )
    return Layout(ids, [*map(int, np.searchsorted(read, starts)), len(ids)])


def rewards_between(name: str, ids: Sequence[int], bounds: Sequence[int]) -> np.ndarray:
    """0.001 · Σ (log π_θ − log π_ref) over the tokens between each two bounds."""
    ratio = token_logps(model_of(name, 0), ids) - token_logps(model_of(name, 1), ids)
    # The log-prob of the first token is missing.
    return np.array([0.001 * ratio[a - 1 : b - 1].sum() for a, b in pairwise(bounds)])


def published_step_rewards(name: str) -> np.ndarray:
    layout = lay_out(name)
    return rewards_between(name, layout.ids, layout.bounds)


@every_prm
def test_agrees_with_the_published_rule(name: str, prm: ImplicitPRM) -> None:
    scored = prm.score(PROBLEM, STEPS)
    expected = published_step_rewards(name)
    # Rewards are a thousandth of some nats.
    assert np.abs(expected).min() > 1e-4
    np.testing.assert_allclose(scored.step_rewards, expected, rtol=0, atol=2e-7)
    np.testing.assert_allclose(scored.q_values, expected.cumsum(), rtol=0, atol=5e-7)


@every_prm
def test_the_text_is_the_published_one(name: str, prm: ImplicitPRM) -> None:
    """The template renders what the documentation prints, and the steps are numbered once."""
    family = FAMILIES[name]
    rendered = prm.tokenizer.apply_chat_template(
        [
            {"role": "user", "content": PROBLEM},
            {"role": "assistant", "content": "\n\n".join(NUMBERED)},
        ],
        tokenize=False,
    )
    prompt = family.before.replace("{problem}", PROBLEM)
    assert rendered == prompt + "\n\n".join(NUMBERED) + family.after
    tokens = "".join(prm.score(PROBLEM, STEPS).tokens)
    assert tokens == "\n\n".join(NUMBERED) + family.end
    assert "".join(prm.score(PROBLEM, NUMBERED).tokens) == tokens


def with_format(separator: str, step_prefix: str) -> Callable[[ImplicitPRM], None]:
    def change(prm: ImplicitPRM) -> None:
        prm.format = SolutionFormat(separator, True, step_prefix)

    return change


def with_template(old: str, new: str) -> Callable[[ImplicitPRM], None]:
    """Change the template where it ends the assistant's header, or the turn."""

    def change(prm: ImplicitPRM) -> None:
        template = str(prm.tokenizer.chat_template)
        assert template.count(old) > 0
        prm.tokenizer.chat_template = template.replace(old, new)

    return change


def with_coefficient(prm: ImplicitPRM) -> None:
    prm.beta = 0.005  # that of eval/process_eval.sh


def without_reference(prm: ImplicitPRM) -> None:
    prm.reference = None


def with_swapped_models(prm: ImplicitPRM) -> None:
    assert prm.reference is not None
    prm.policy, prm.reference = prm.reference, prm.policy


WRONG: dict[str, dict[str, Callable[[ImplicitPRM], None]]] = {
    name: {
        "separator": with_format("\n", "Step {k}: "),
        "no step numbers": with_format("\n\n", ""),
        "other step numbers": with_format("\n\n", "{k}. "),
        "coefficient": with_coefficient,
        "no reference": without_reference,
        "models swapped": with_swapped_models,
        **(
            {
                "template tail": with_template("'<|im_end|>' + '\\n' }}", "'\\n' }}"),
                "system prompt": with_template("Please reason step by step, ", ""),
            }
            if family is QWEN
            else {
                "template tail": with_template("trim + '<|eot_id|>'", "trim + '\\n'"),
                "system prompt": with_template("Today Date", "Date"),
            }
        ),
    }
    for name, family in FAMILIES.items()
}


@pytest.mark.parametrize(
    ("name", "what"), [(name, what) for name, changes in WRONG.items() for what in changes]
)
def test_a_wrong_format_does_not_agree(name: str, what: str, prm: ImplicitPRM) -> None:
    """So the agreement above depends on each fact of the entry."""
    WRONG[name][what](prm)
    difference = np.abs(prm.score(PROBLEM, STEPS).step_rewards - published_step_rewards(name))
    assert difference.max() > 1e-4


# ---- The published step ends -------------------------------------------------------------------


def published_bounds(name: str) -> list[int]:
    """The bounds of the steps by the published scripts, in tokens of the whole text.

    They render and tokenise the conversation with the first k steps and subtract 2; bon_eval.py of
    PRIME-RL/ImplicitPRM first removes the end of the turn, the EurusPRM card does not. Position i
    of log-probs without the first token is that of token i + 1, and the running sum there includes
    it: a step ends before token i + 2. The mask, cut in the same way, starts at i.
    """
    tokenizer = tokenizer_of(name)
    positions = []
    for k in range(len(NUMBERED) + 1):
        text = tokenizer.apply_chat_template(
            [
                {"role": "user", "content": PROBLEM},
                {"role": "assistant", "content": "\n\n".join(NUMBERED[:k])},
            ],
            tokenize=False,
        )
        text = str(text).strip()
        if FAMILIES[name] is LLAMA and k < len(NUMBERED):
            text = text.removesuffix("<|eot_id|>")
        if 0 < k < len(NUMBERED):
            text += "\n\n"
        positions.append(len(tokenizer(text, add_special_tokens=False).input_ids) - 2)
    return [positions[0], *(position + 2 for position in positions[1:])]


#: How many tokens late the published bounds are. With Qwen's template both scripts count the end of
#: the turn in, and a separator that shares a token with the text before it (".\n\n", " \n\n") is
#: counted apart from it: inner ends are one or two tokens late. The mask starts early with both
#: templates: it lets tokens of the assistant's header into the first step.
LATE = {QWEN.end: [-1, 2, 2, 0], LLAMA.end: [-2, 0, 0, 0]}


@every_prm
def test_how_far_the_published_step_ends_are_off(name: str) -> None:
    late = [a - b for a, b in zip(published_bounds(name), lay_out(name).bounds, strict=True)]
    assert late == LATE[FAMILIES[name].end]


@every_prm
def test_what_the_published_step_ends_do_to_the_rewards(name: str, prm: ImplicitPRM) -> None:
    """A step's reward differs from the published one where one of its bounds does."""
    theirs = rewards_between(name, lay_out(name).ids, published_bounds(name))
    difference = np.abs(prm.score(PROBLEM, STEPS).step_rewards - theirs)
    moved = [a != 0 or b != 0 for a, b in pairwise(LATE[FAMILIES[name].end])]
    assert (difference > 1e-5).tolist() == moved


# ---- The entries -------------------------------------------------------------------------------


#: What the cards of the EurusPRMs and eval/bon_eval.sh of PRIME-RL/ImplicitPRM name.
REFERENCES = {
    "EurusPRM-Stage1": "Qwen/Qwen2.5-Math-7B-Instruct",
    "EurusPRM-Stage2": "Qwen/Qwen2.5-Math-7B-Instruct",
    "ImplicitPRM_DPO": "meta-llama/Llama-3.1-8B-Instruct",
    "ImplicitPRM_CE": "meta-llama/Llama-3.1-8B-Instruct",
}


@every_prm
def test_entries_are_whole(name: str) -> None:
    entry = PUBLISHED[name]
    assert entry.reference == REFERENCES[name]
    assert entry.policy.endswith(f"/{name}")
    assert entry.policy != entry.reference
    assert entry.best_of_n in AGGREGATIONS
    assert all(entry.sources)
    assert entry.format == SolutionFormat("\n\n", True, "Step {k}: ")


def test_accumulative_rewards_end_in_the_sum() -> None:
    """What the card calls accumulative, the running sum, is at its end the outcome reward."""
    rewards = [0.5, -2.0, 1.0]
    assert published_prm("EurusPRM-Stage2").response_score(rewards) == np.cumsum(rewards)[-1]
    assert published_prm("EurusPRM-Stage1").response_score(rewards) == aggregate(rewards, "min")


def test_an_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"no published PRM 'Eurus'; there are EurusPRM-Stage1, "):
        load_published("Eurus")
