"""The text of a document in reverse, for text_order=reversed: by grapheme clusters (UAX #29), so that é stays é.

Reversing twice gives any text back, although clusters may join to others in another order: LF and CR, single letters of
flags, letters of Hangul, a mark that begins a text. By the kinds of its characters alone, a text is divided into

- units: a character that joins no other, with the marks behind it (and the rare signs that stand before it), and
- runs, between them, of characters that may join each other.

Units and runs change their order. A unit stays as it is; a run is reversed by its clusters if these are the clusters of
the result too, and stays as it is otherwise. Either way the result has the same units and runs, so that reversing is
its own inverse. Marks that begin a text, and signs that end it, stay where they are.
"""

from functools import lru_cache

import regex

MARK, SIGN, JOINING, QUIET, PLAIN = "msjqp"
"""Kinds of characters. A mark belongs to what is before it, a sign to what is behind it. Those that may join each other
are joining, or quiet if they do so only where marks or joining ones are. Plain ones join none."""
_KINDS_OF = {
    MARK: regex.compile(r"[\p{GCB=Extend}\p{GCB=ZWJ}\p{GCB=SpacingMark}]"),
    SIGN: regex.compile(r"\p{GCB=Prepend}"),
    JOINING: regex.compile(r"[\p{GCB=CR}\p{GCB=RI}\p{GCB=L}\p{GCB=V}\p{GCB=T}]"),
    QUIET: regex.compile(
        r"[\p{GCB=LF}\p{GCB=Control}\p{GCB=LV}\p{GCB=LVT}\p{Extended_Pictographic}\p{InCB=Consonant}]"
    ),
}
_NOT_SIMPLE = regex.compile(
    r"(?=[\r\u0300-\U0010FFFF])"  # where all of them are: it makes the search five times faster
    rf"(?:{'|'.join(_KINDS_OF[kind].pattern for kind in (MARK, SIGN, JOINING))})"
)
_STRETCH = regex.compile("[^p]++(?:(?<=s)p[^p]*+)*+")
"""In a string of kinds: what is not plain, and what signs stand before."""
_RUN_OR_UNIT = regex.compile("(?P<run>(?:[qjm]|s++(?!p))++)|s*+pm*+")
_CLUSTER = regex.compile(r"\X")
_NO_CHARACTERS = regex.compile("([\udc80-\udcff]+)")
"""Bytes of incomplete characters, as Python decodes them with errors=surrogateescape."""
_CACHED_CHARS = 32
"""Stretches up to this length, such as CR LF or a word of Hindi, are looked up."""
_MOST_INDICATORS = 1000
"""Regional indicators in a row, at most, that are paired: the time to find their pairs grows with the square."""


class _Kinds(dict[int, str]):
    """The kind of each character, by its code; found once for each."""

    def __missing__(self, code: int) -> str:
        matching = (kind for kind, pattern in _KINDS_OF.items() if pattern.match(chr(code)))
        self[code] = kind = next(matching, PLAIN)
        return kind


_KINDS = _Kinds()


def reverse_text(text: str) -> str:
    """Reverse a text by grapheme clusters; reversed again, it is the same text."""
    if (text.isascii() and "\r" not in text) or _NOT_SIMPLE.search(text) is None:
        return text[::-1]  # each character is a cluster, in any order
    kinds = text.translate(_KINDS)
    start = len(kinds) - len(kinds.lstrip(MARK))
    stop = max(start, len(kinds.rstrip(SIGN)))
    pieces = [text[stop:]]
    end = start
    for match in _STRETCH.finditer(kinds, start, stop):
        first, last = match.span()
        first -= kinds[first] == MARK  # the plain character that it belongs to
        stretch = text[first:last]
        short = len(stretch) <= _CACHED_CHARS
        pieces += [text[end:first][::-1], _reverse_short_stretch(stretch) if short else _reverse_stretch(stretch)]
        end = last
    pieces += [text[end:stop][::-1], text[:start]]
    return "".join(reversed(pieces))


def reverse_bytes(content: bytes) -> bytes:
    """Reverse a piece of text by grapheme clusters; bytes that are no whole characters stay in their order."""
    text = content.decode(errors="surrogateescape")
    pieces = _NO_CHARACTERS.split(text)  # every second one is such bytes
    backward = [piece if number % 2 else reverse_text(piece) for number, piece in enumerate(pieces)]
    return "".join(reversed(backward)).encode(errors="surrogateescape")


def _reverse_stretch(stretch: str) -> str:
    """Reverse whole units and runs."""
    pieces = (
        stretch[slice(*match.span())] if match["run"] is None else _reverse_run(stretch[slice(*match.span())])
        for match in _RUN_OR_UNIT.finditer(stretch.translate(_KINDS))
    )
    return "".join(reversed([*pieces]))


_reverse_short_stretch = lru_cache(maxsize=1 << 16)(_reverse_stretch)


def _reverse_run(run: str) -> str:
    """Reverse a run by its clusters; give it as it is if the result has others, or would join what is around it."""
    if _has_too_many_indicators(run):
        return run
    backward = "".join(reversed(_CLUSTER.findall(run)))
    joins = _KINDS[ord(backward[0])] == MARK or _KINDS[ord(backward[-1])] == SIGN
    if joins or _has_too_many_indicators(backward) or "".join(reversed(_CLUSTER.findall(backward))) != run:
        return run
    return backward


_INDICATORS = regex.compile(rf"\p{{GCB=RI}}{{{_MOST_INDICATORS + 1}}}")


def _has_too_many_indicators(run: str) -> bool:
    return len(run) > _MOST_INDICATORS and _INDICATORS.search(run) is not None
