"""Words and sentences in reverse, found in the text of the tokens.

- White space is that of ASCII. It belongs to the word behind it, as in the tokens of GPT-2, and punctuation to the word
  before it. A text without white space, such as Chinese, has one word a line.
- A sentence begins at a word behind `.`, `!`, `?` or an ellipsis, and behind their full-width forms (U+3002, U+FF01,
  U+FF1F) also without white space; closing quotes and brackets may stand between. It begins at an empty line, too, but
  not at a line break, by which many texts are wrapped. Abbreviations (`Mr. Pickwick`) end a sentence; no rule without a
  dictionary tells them apart.

A boundary inside a token lies at the end of that token if only white space follows in it, and is none otherwise. A
character may be in several tokens: its bytes are put together. Shapes: B windows, T tokens, V token ids.
"""

import re
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from hindsight.orders.order import arange
from hindsight.orders.units import TokenTexts, UnitOrder

WHITE_SPACE = b" \t\n\r\v\f"
ENDS, WIDE_ENDS = ".!?…", "\u3002\uff01\uff1f"
CLOSERS = "\"'\u2019\u201d\xbb\u203a)]}\u300d\u300f\uff09\u3011\u300b\u3009"
"""Quotes and brackets that close."""
_TAIL = re.compile(f"(?:([{ENDS}])|([{WIDE_ENDS}]))?[{re.escape(CLOSERS)}]*\\Z")


class Mark(IntEnum):
    """What a token says of whether a sentence has ended."""

    other = 0
    end = 1
    wide_end = 2
    closer = 3
    """Goes on with what the tokens before said."""
    part = 4
    """A part of a character, which decides as a whole."""


class Words(UnitOrder):
    """Words in reverse.

    Args:
        name: the value of order= that means it.
        texts: the tokenizer.
    """

    def __init__(self, name: str, texts: TokenTexts) -> None:
        super().__init__(name, texts)
        tokens = [texts.bytes_of(token) for token in range(texts.vocab_size)]
        self.begins_white_V = np.array([token[:1] in WHITE_SPACE and token != b"" for token in tokens])
        self.ends_white_V = np.array([token[-1:] in WHITE_SPACE and token != b"" for token in tokens])
        self.is_white_V = np.array([not token.strip(WHITE_SPACE) for token in tokens]) & self.ends_white_V

    def begins(self, window_BT: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell at which tokens a word begins, (B, T), but for special tokens and the first of a document."""
        begins_BT = self.begins_white_V[window_BT]
        before_BT = window_BT[:, :-1]
        begins_BT[:, 1:] &= ~self.ends_white_V[before_BT]
        begins_BT[:, 1:] |= (self.ends_white_V & ~self.is_white_V)[before_BT]
        return begins_BT


class Sentences(Words):
    """Sentences in reverse.

    Args:
        name: the value of order= that means it.
        texts: the tokenizer.
    """

    def __init__(self, name: str, texts: TokenTexts) -> None:
        super().__init__(name, texts)
        tokens = [texts.bytes_of(token) for token in range(texts.vocab_size)]
        self.mark_V = np.array([mark_of(token) for token in tokens], np.int8)
        stripped = [token.lstrip(WHITE_SPACE) for token in tokens]
        self.breaks_before_V = np.array(
            [token[: len(token) - len(rest)].count(b"\n") for token, rest in zip(tokens, stripped, strict=True)]
        )
        stripped = [token.rstrip(WHITE_SPACE) for token in tokens]
        self.breaks_behind_V = np.array(
            [token[len(rest) :].count(b"\n") for token, rest in zip(tokens, stripped, strict=True)]
        )
        self.begins_inside_V = np.array([is_inside(token[:1]) for token in tokens])
        self.last_bytes_V = np.array([int.from_bytes(token[-3:], "big") for token in tokens])
        self.n_bits_V = 8 * np.array([min(len(token), 3) for token in tokens])
        marks = {**dict.fromkeys(ENDS, Mark.end), **dict.fromkeys(WIDE_ENDS, Mark.wide_end)}
        marks |= dict.fromkeys(CLOSERS, Mark.closer)
        keys = {int.from_bytes(mark.encode(), "big"): kind for mark, kind in marks.items() if len(mark.encode()) > 1}
        self.keys = np.array(sorted(keys))
        self.marks_of_keys = np.array([keys[key] for key in sorted(keys)], np.int8)

    def begins(self, window_BT: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell at which tokens a sentence begins, (B, T), but for special tokens and the first of a document."""
        words_BT = super().begins(window_BT)
        mark_BT = self._marks(window_BT)
        goes_on_BT = (mark_BT == Mark.closer) & ~words_BT
        goes_on_BT[:, :1] = False
        mark_BT[mark_BT == Mark.closer] = Mark.other
        last_BT = np.maximum.accumulate(np.where(goes_on_BT, 0, arange(window_BT.shape[1])), axis=1)
        ended_BT = np.take_along_axis(mark_BT, last_BT, axis=1)
        begins_BT = words_BT & self._has_empty_line(window_BT, words_BT)
        begins_BT[:, 1:] |= words_BT[:, 1:] & (ended_BT[:, :-1] != Mark.other)
        stays_BT = goes_on_BT | self.begins_inside_V[window_BT]
        begins_BT[:, 1:] |= (ended_BT[:, :-1] == Mark.wide_end) & ~stays_BT[:, 1:]
        return begins_BT

    def _marks(self, window_BT: NDArray[np.int64]) -> NDArray[np.int8]:
        """Look up what each token says; to the parts of a character, what the character says."""
        mark_BT = self.mark_V[window_BT]
        is_part_BT = mark_BT == Mark.part
        if not is_part_BT.any():
            return mark_BT
        last_BT, bits_BT = self.last_bytes_V[window_BT], self.n_bits_V[window_BT]
        bytes_BT = last_BT.copy()  # the last three bytes up to each token
        bytes_BT[:, 1:] |= last_BT[:, :-1] << bits_BT[:, 1:]
        bytes_BT[:, 2:] |= last_BT[:, :-2] << (bits_BT[:, 1:-1] + bits_BT[:, 2:])
        found_BT = np.full(window_BT.shape, Mark.other, np.int8)
        for n_bits in (24, 16):
            key_BT = bytes_BT & ((1 << n_bits) - 1)
            at_BT = np.searchsorted(self.keys, key_BT).clip(max=len(self.keys) - 1)
            found_BT = np.where(self.keys[at_BT] == key_BT, self.marks_of_keys[at_BT], found_BT)
        T = window_BT.shape[1]
        end_BT = np.full(window_BT.shape, T - 1)  # the last token of each character
        goes_on_BT = is_part_BT & self.begins_inside_V[window_BT]
        end_BT[:, :-1] = np.where(goes_on_BT[:, 1:], T - 1, arange(T - 1))
        end_BT = np.minimum.accumulate(end_BT[:, ::-1], axis=1)[:, ::-1]
        return np.where(is_part_BT, np.take_along_axis(found_BT, end_BT, axis=1), mark_BT)

    def _has_empty_line(self, window_BT: NDArray[np.int64], words_BT: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Tell where the white space that begins at a token, or in the one before, holds two line breaks or more."""
        T = window_BT.shape[1]
        before_BT = self.breaks_before_V[window_BT]
        total_BT = np.cumsum(before_BT, axis=1)
        text_BT = np.where(self.is_white_V[window_BT], T - 1, arange(T))
        text_BT = np.minimum.accumulate(text_BT[:, ::-1], axis=1)[:, ::-1]  # the next token with more than white space
        breaks_BT = np.take_along_axis(total_BT, text_BT, axis=1) - total_BT + before_BT
        ends_white_V = self.ends_white_V & ~self.is_white_V
        breaks_BT[:, 1:] += (self.breaks_behind_V * ends_white_V)[window_BT[:, :-1]]
        return breaks_BT >= 2


def is_inside(content: bytes) -> bool:
    """Whether all bytes are from within characters, behind their first."""
    return content != b"" and all(0x80 <= byte < 0xC0 for byte in content)


def mark_of(token: bytes) -> Mark:
    """Tell what a token says of the end of a sentence."""
    content = token.rstrip(WHITE_SPACE)
    text = content.decode("utf-8", "ignore")  # a character that has only begun says nothing yet
    if not text:
        return Mark.part if content else Mark.other
    match = _TAIL.search(text)
    assert match is not None
    if match[1] is not None:
        return Mark.end
    if match[2] is not None:
        return Mark.wide_end
    return Mark.closer if match.start() == 0 else Mark.other
