"""The tokenizer of the stack machine's world: one token per instruction, or sign of a task.

No token begins another, so whatever the reasoner writes is read again as the same tokens.
"""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from implicitprm.arithmetic.tokenizer import SPECIAL_TOKENS
from implicitprm.stackmachine.machine import INSTRUCTION_OF, OPERATIONS, SEPARATOR, VARIABLES

INSTRUCTIONS = (*(f"push {name}" for name in VARIABLES), *OPERATIONS, "swap", "end")
WORDS = (*INSTRUCTIONS, SEPARATOR, *VARIABLES, *INSTRUCTION_OF, "(", ")")


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer; text outside this world (``pop``, ``7``) is an error in it."""
    words = [*SPECIAL_TOKENS.values(), *WORDS]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}))
    pattern = Regex("|".join((*INSTRUCTIONS, r"[\s\S]")))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern, behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **SPECIAL_TOKENS
    )
