"""What kind of text a token stands for, from its bytes and those of the token before it."""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLASSES = ("word start", "inside a word", "digit", "punctuation", "white space", "special")
"""A token belongs to one: by the first character that is no white space, if it has any."""
START, INSIDE, DIGIT, PUNCTUATION, SPACE, SPECIAL = range(len(CLASSES))
APOSTROPHES = "'\u2019"
"""Before a letter they are part of a word: don't."""


class TokenClasses:
    """Classes of the tokens of a stream.

    Whether letters begin a word or go on with one, a token does not always say by itself: "The" behind a line feed
    begins one. Letters go on with a word where they follow a letter; what precedes the first token counts as none.

    Args:
        token_bytes: the bytes that each id stands for.
        special: names of the special tokens by their ids.
    """

    def __init__(self, token_bytes: Sequence[bytes], special: Mapping[int, str]) -> None:
        kinds = [SPECIAL if i in special else _kind(text) for i, text in enumerate(token_bytes)]
        self.kind_of_id = np.array(kinds, np.int8)
        self.begins_apart_of_id = np.array([text[:1].isspace() for text in token_bytes], bool)
        self.ends_in_letter_of_id = np.array(
            [i not in special and _ends_in_letter(text) for i, text in enumerate(token_bytes)], bool
        )

    def of(self, ids: NDArray[Any], before: int | None) -> NDArray[np.int8]:
        """Classes of consecutive tokens; `before` is the id that precedes them, if any."""
        follows_letter = np.empty(len(ids), bool)
        follows_letter[1:] = self.ends_in_letter_of_id[ids[:-1]]
        follows_letter[:1] = before is not None and self.ends_in_letter_of_id[before]
        classes = self.kind_of_id[ids]
        goes_on = (classes == START) & follows_letter & ~self.begins_apart_of_id[ids]
        classes[goes_on] = INSIDE
        return classes


def texts_of(ids: Sequence[int], token_bytes: Sequence[bytes], special: Mapping[int, str]) -> Iterator[str]:
    r"""Text of each token: its special name, or its characters; bytes that are none by themselves as \xe6."""
    for i in ids:
        yield special[i] if i in special else token_bytes[i].decode(errors="backslashreplace")


def text_of(ids: Sequence[int], token_bytes: Sequence[bytes], special: Mapping[int, str]) -> str:
    """Text of consecutive tokens, in which characters are whole that lie across tokens."""
    return b"".join(special[i].encode() if i in special else token_bytes[i] for i in ids).decode(
        errors="backslashreplace"
    )


def _kind(text: bytes) -> int:
    if not text:
        return SPECIAL
    characters = text.decode(errors="replace").strip()
    if not characters:
        return SPACE
    first = characters[0]
    if _is_letter(first) or (first in APOSTROPHES and len(characters) > 1 and _is_letter(characters[1])):
        return START
    return DIGIT if unicodedata.category(first).startswith("N") else PUNCTUATION


def _ends_in_letter(text: bytes) -> bool:
    return bool(text) and _is_letter(text.decode(errors="replace")[-1])


def _is_letter(character: str) -> bool:
    """Letters, marks on them, and what is a part of a character, which is more often one of a letter than not."""
    return unicodedata.category(character)[0] in "LM" or character == "\ufffd"
