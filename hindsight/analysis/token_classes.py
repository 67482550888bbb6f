"""What kind of text a token stands for, from its bytes and those of the token before it; and that text.

Where the text of the data is reversed, tokens are classified and shown as what they are in reading order: the rows of a
file from the last to the first, the characters of each token reversed.
"""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hindsight.text.graphemes import reverse_bytes

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
        is_reversed: whether the tokens stand for reversed text.
    """

    def __init__(self, token_bytes: Sequence[bytes], special: Mapping[int, str], is_reversed: bool = False) -> None:
        self.is_reversed = is_reversed
        token_bytes = [reverse_bytes(text) for text in token_bytes] if is_reversed else token_bytes
        kinds = [SPECIAL if i in special else _kind(text) for i, text in enumerate(token_bytes)]
        self.kind_of_id = np.array(kinds, np.int8)
        self.begins_apart_of_id = np.array([text[:1].isspace() for text in token_bytes], bool)
        self.ends_in_letter_of_id = np.array(
            [i not in special and _ends_in_letter(text) for i, text in enumerate(token_bytes)], bool
        )

    def of(self, ids: NDArray[Any], before: int | None, behind: int | None = None) -> NDArray[np.int8]:
        """Classes of consecutive tokens; `before` and `behind` are the ids in the rows around them, if any."""
        return self._of(ids[::-1], behind)[::-1] if self.is_reversed else self._of(ids, before)

    def _of(self, ids: NDArray[Any], before: int | None) -> NDArray[np.int8]:
        follows_letter = np.empty(len(ids), bool)
        follows_letter[1:] = self.ends_in_letter_of_id[ids[:-1]]
        follows_letter[:1] = before is not None and self.ends_in_letter_of_id[before]
        classes = self.kind_of_id[ids]
        goes_on = (classes == START) & follows_letter & ~self.begins_apart_of_id[ids]
        classes[goes_on] = INSIDE
        return classes


def texts_of(
    ids: Sequence[int], token_bytes: Sequence[bytes], special: Mapping[int, str], is_reversed: bool = False
) -> Iterator[str]:
    r"""Text of each token: its special name, or its characters; bytes that are none by themselves as \xe6."""
    for i in ids:
        text = reverse_bytes(token_bytes[i]) if is_reversed else token_bytes[i]
        yield special[i] if i in special else text.decode(errors="backslashreplace")


def text_of(
    ids: Sequence[int], token_bytes: Sequence[bytes], special: Mapping[int, str], is_reversed: bool = False
) -> str:
    """Text of consecutive tokens, in which characters are whole that lie across tokens; in reading order."""
    parts: list[bytes] = []
    for is_special, group in groupby(ids, special.__contains__):
        if is_special:
            parts += [special[i].encode() for i in group]
        else:
            text = b"".join(token_bytes[i] for i in group)
            parts.append(reverse_bytes(text) if is_reversed else text)
    return b"".join(parts[::-1] if is_reversed else parts).decode(errors="backslashreplace")


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
