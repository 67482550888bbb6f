"""Words and sentences in reverse, found in the text of the tokens.

- White space is that of ASCII. It belongs to the word behind it, as in the tokens of GPT-2, and punctuation to the word
  before it. A text without white space, such as Chinese, has one word a line.
- A sentence begins at a word behind `.`, `!`, `?` or an ellipsis, and behind their full-width forms (U+3002, U+FF01,
  U+FF1F) also without white space; closing quotes and brackets may stand between. It begins at an empty line, too, but
  not at a line break, by which many texts are wrapped. Abbreviations (`Mr. Pickwick`) end a sentence; no rule without a
  dictionary tells them apart.

A boundary inside a token lies at the end of that token if only white space follows in it, and is none otherwise. A
character may be in several tokens: its bytes are put together. Shapes as in
`units`.
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
BEGINS_WHITE, ENDS_WHITE, MIXED = 1, 2, 4
"""White space of a token: it begins with it; it ends with it; it ends with it, and holds other characters."""
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
        begins_V = np.array([token[:1] in WHITE_SPACE and token != b"" for token in self.tokens])
        ends_V = np.array([token[-1:] in WHITE_SPACE and token != b"" for token in self.tokens])
        is_mixed_V = ends_V & np.array([token.strip(WHITE_SPACE) != b"" for token in self.tokens])
        self.white_V = (BEGINS_WHITE * begins_V | ENDS_WHITE * ends_V | MIXED * is_mixed_V).astype(np.int8)

    def begins(self, window_BT: NDArray[np.int64], is_edge_N: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Tell at which tokens a word begins, (N,), is_edge_N included."""
        white_N = self.white_V[window_BT.ravel()]
        begins_N = is_edge_N.copy()
        before_N = white_N[:-1]
        begins_N[1:] |= ((white_N[1:] & ~(before_N >> 1)) | (before_N >> 2)) & BEGINS_WHITE != 0
        return begins_N


class Sentences(Words):
    """Sentences in reverse.

    Args:
        name: the value of order= that means it.
        texts: the tokenizer.
    """

    def __init__(self, name: str, texts: TokenTexts) -> None:
        super().__init__(name, texts)
        tokens = self.tokens
        self.mark_V = np.array([mark_of(token) for token in tokens], np.int8)
        first = [token[: len(token) - len(token.lstrip(WHITE_SPACE))] for token in tokens]
        last = [token[len(token.rstrip(WHITE_SPACE)) :] if token.strip(WHITE_SPACE) else b"" for token in tokens]
        self.breaks_before_V = np.array([space.count(b"\n") for space in first])
        self.breaks_behind_V = np.array([space.count(b"\n") for space in last])
        self.begins_inside_V = np.array([is_inside(token[:1]) for token in tokens])
        self.last_bytes_V = np.array([int.from_bytes(token[-3:], "big") for token in tokens])
        self.n_bits_V = 8 * np.array([min(len(token), 3) for token in tokens])
        marks = {**dict.fromkeys(ENDS, Mark.end), **dict.fromkeys(WIDE_ENDS, Mark.wide_end)}
        marks |= dict.fromkeys(CLOSERS, Mark.closer)
        keys = {int.from_bytes(mark.encode(), "big"): kind for mark, kind in marks.items() if len(mark.encode()) > 1}
        self.keys = np.array(sorted(keys))
        self.marks_of_keys = np.array([keys[key] for key in sorted(keys)], np.int8)

    def begins(self, window_BT: NDArray[np.int64], is_edge_N: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Tell at which tokens a sentence begins, (N,), is_edge_N included."""
        window_N = window_BT.ravel()
        is_word_N = super().begins(window_BT, is_edge_N)
        mark_N = self._marks(window_N)
        goes_on_N = (mark_N == Mark.closer) & ~is_word_N
        last_N = arange(len(window_N))
        last_N[goes_on_N] = 0
        mark_N[(mark_N == Mark.closer) & is_word_N] = Mark.other
        ended_N = mark_N[np.maximum.accumulate(last_N)]
        begins_N = is_edge_N.copy()
        words = np.flatnonzero(is_word_N)
        breaks = np.add.reduceat(self.breaks_before_V[window_N], words)  # other tokens of a word have none
        breaks[1:] += self.breaks_behind_V[window_N[words[1:] - 1]]
        begins_N[words[(breaks >= 2) | (ended_N[words - 1] != Mark.other)]] = True
        behind = np.flatnonzero(ended_N[:-1] == Mark.wide_end) + 1
        begins_N[behind[~(goes_on_N | self.begins_inside_V[window_N])[behind]]] = True
        return begins_N

    def _marks(self, window_N: NDArray[np.int64]) -> NDArray[np.int8]:
        """Look up what each token says; to the parts of a character, what the character says."""
        mark_N = self.mark_V[window_N]
        is_part_N = mark_N == Mark.part
        if not is_part_N.any():
            return mark_N
        last_N, bits_N = self.last_bytes_V[window_N], self.n_bits_V[window_N]
        bytes_N = last_N.copy()  # the last three bytes up to each token
        bytes_N[1:] |= last_N[:-1] << bits_N[1:]
        bytes_N[2:] |= last_N[:-2] << (bits_N[1:-1] + bits_N[2:])
        found_N = np.full(len(window_N), Mark.other, np.int8)
        for n_bits in (24, 16):
            key_N = bytes_N & ((1 << n_bits) - 1)
            at_N = np.searchsorted(self.keys, key_N).clip(max=len(self.keys) - 1)
            found_N = np.where(self.keys[at_N] == key_N, self.marks_of_keys[at_N], found_N)
        goes_on_N = is_part_N & self.begins_inside_V[window_N]
        end_N = arange(len(window_N))  # the last token of each character
        end_N[:-1][goes_on_N[1:]] = len(window_N) - 1
        end_N = np.minimum.accumulate(end_N[::-1])[::-1]
        return np.where(is_part_N, found_N[end_N], mark_N)


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
