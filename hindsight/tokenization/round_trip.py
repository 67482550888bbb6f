"""Whether the tokens of a text stand for its bytes, and are the same each time.

Normalizers, a space that is put first, and patterns that drop what they do not match lose or change text. Then neither
bits per byte nor the check of a converted corpus mean what they say.
"""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from hindsight.errors import InputError
from hindsight.tokenization.fast_encoding import HARD_TEXTS, Encoder
from hindsight.tokenization.tokenizer import Tokenizer

SHOWN_CHARS = 20
"""Characters on both sides of the first difference that a message shows."""


class Contents(dict[int, bytes]):
    """The bytes that ids stand for, looked up once for each."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def __missing__(self, token_id: int) -> bytes:
        self[token_id] = content = self._tokenizer.bytes_of(token_id)
        return content


def find_loss(tokenizer: Tokenizer, encode: Callable[[str], NDArray], texts: Iterable[str] = HARD_TEXTS) -> str | None:
    """Describe the first text that does not come back from its tokens; None if all do."""
    contents = Contents(tokenizer)
    for text in texts:
        raw, back = text.encode(), b"".join(map(contents.__getitem__, encode(text).tolist()))
        if raw != back:
            at = next((i for i, (a, b) in enumerate(zip(raw, back, strict=False)) if a != b), min(len(raw), len(back)))
            before, after = (content[max(at - SHOWN_CHARS, 0) : at + SHOWN_CHARS] for content in (raw, back))
            return f"{before.decode(errors='replace')!r} becomes {after.decode(errors='replace')!r}"
    return None


def loses_text(tokenizer: Tokenizer) -> bool:
    """Whether one of the hard texts does not come back."""
    return find_loss(tokenizer, lambda text: np.array(tokenizer.encode_batch([text])[0], np.int64)) is not None


def require_round_trip(tokenizer: Tokenizer, encoder: Encoder, sample: list[str], may_lose: bool, where: str) -> None:
    """Raise InputError if a tokenizer is random, or if it loses text and may not.

    Args:
        tokenizer: the tokenizer.
        encoder: makes its ids.
        sample: texts like those to encode.
        may_lose: whether text may be lost.
        where: how messages name the tokenizer.
    """
    for text in HARD_TEXTS:
        if not np.array_equal(encoder.encode(text), encoder.encode(text)):
            raise InputError(
                f"{where} is random: it gives other tokens to the same text each time; switch that off in its "
                "tokenizer.json."
            )
    if may_lose:
        return
    loss = find_loss(tokenizer, encoder.encode, [*HARD_TEXTS, *sample])
    if loss is not None:
        raise InputError(
            f"{where} does not give the text back: {loss}; choose another tokenizer, or convert what its tokens stand "
            "for with lossy_tokenizer=true."
        )
