"""Tokens of a window as a line of text for people."""

import itertools
from collections.abc import Iterable

from hindsight.text.graphemes import reverse_text
from hindsight.tokenization.tokenizer import Tokenizer

EOS_SHOWN = "⏎EOS⏎"
"""What stands where a document ends."""


def window_text(read: Iterable[int], order: str, tokenizer: Tokenizer, is_reversed: bool) -> str:
    """Give the text of tokens in the order in which they are read, and show where a document ends.

    Args:
        read: the tokens, in that order.
        order: its name; in another one than forward each token is decoded by itself.
        tokenizer: the tokenizer.
        is_reversed: whether text was reversed before it was tokenized; it is reversed again.
    """
    parts = [list(read)] if order == "forward" else [[token] for token in read]
    return "".join(_as_text(part, tokenizer, is_reversed) for part in parts)


def _as_text(tokens: list[int], tokenizer: Tokenizer, is_reversed: bool) -> str:
    """Give the text of tokens, each document's by itself."""
    texts: list[str] = []
    for is_end, part in itertools.groupby(tokens, lambda token: token == tokenizer.eos_id):
        document = [*part]
        text = tokenizer.detokenize(document)  # "" for EOS
        texts.append(EOS_SHOWN * len(document) if is_end else reverse_text(text) if is_reversed else text)
    return "".join(texts)
