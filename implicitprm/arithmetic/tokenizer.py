"""The tokenizer of the arithmetic world: one token per number, sign and line end."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from implicitprm.arithmetic.problems import APPLY, MODULUS

SPECIAL_TOKENS = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer; text outside the arithmetic world (``77``, ``x``) is an error in it."""
    words = [*SPECIAL_TOKENS.values(), *map(str, range(MODULUS)), *APPLY, "=", "#", "\n"]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\d+|\D"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **SPECIAL_TOKENS
    )
