"""The formats of text files: how they are recognized, and what separates documents.

- cc100: blank lines, that is lines of nothing but their line ending. A document keeps the ends of its lines, of the
  last one too.
- line, jsonl: the line feed. An empty line is no document.
- file: no separator; a file is a document.
- separator=LINE: lines that are LINE. A document keeps the ends of its lines; blank lines before it are dropped.

The end of a file ends a document in every format.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hindsight.config.corpus import CorpusConfig, CorpusFormat
from hindsight.text.files import JSON_LINES, StoredFile

CHUNK_BYTES = 1 << 18
BEGINNING_BYTES = 1 << 16
"""Bytes of a file by which its format is recognized."""
BOM = b"\xef\xbb\xbf"
TAR = slice(257, 262), b"ustar"
"""Where a tar archive says that it is one."""


@dataclass(frozen=True)
class Separator:
    r"""Recognizes where documents end and begin.

    Args:
        pattern: the end of a document's last line, with everything up to the next document.
        kept: number of the pattern's first bytes that belong to the document; 1 for the blank line, before which a
            document keeps the line feed of its last line.
        before: number of bytes before a document that suffice to recognize its beginning; 3 for the blank line: \n\r\n.
        ends: the shortest separators; \n\n and \n\r\n for the blank line.
        line: with separator=, the line that separates; it may also be the first one, or the last without a line feed.
    """

    pattern: "re.Pattern[bytes]"
    kept: int
    before: int
    ends: tuple[bytes, ...]
    line: "re.Pattern[bytes] | None" = None

    @property
    def shared(self) -> int:
        """How many bytes the end of a separator may have in common with the next one: the line feed between lines."""
        return 0 if self.line is None else 1

    def first_end(self, text: bytes | bytearray, start: int = 0) -> int | None:
        """Find the end of the first separator in a text; None if there is none."""
        ends = [place + len(end) for end in self.ends if (place := text.find(end, start)) >= 0]
        return min(ends, default=None)

    def last_end(self, text: bytes | bytearray) -> int | None:
        """Find the end of the last separator in a text; None if there is none."""
        last = 0
        for end in self.ends:
            if (place := text.rfind(end, max(last - len(end), 0))) >= 0:  # an earlier one would end before `last`
                last = max(last, place + len(end))
        return last or None

    def documents(self, block: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, document) for a block of complete documents; some of them may be empty."""
        if self.line is not None:
            yield from self._between_lines(block, self.line)
            return
        start = match.end() if self.kept and (match := _BLANK_LINES.match(block)) else 0
        for match in self.pattern.finditer(block, start):
            yield start, block[start : match.start() + self.kept]
            start = match.end()
        if start < len(block):
            yield start, block[start:]

    def _between_lines(self, block: bytes, line: "re.Pattern[bytes]") -> Iterator[tuple[int, bytes]]:
        start = 0
        for end, behind in [*(match.span() for match in line.finditer(block)), (len(block), len(block))]:
            start = match.end() if (match := _BLANK_LINES.match(block, start, end)) else start
            if start < end:
                yield start, block[start:end]
            start = behind


_BLANK_LINES = re.compile(rb"(?:\r?\n)+")
_BLANK_LINE = Separator(re.compile(rb"\n(?:\r?\n)+"), kept=1, before=3, ends=(b"\n\n", b"\n\r\n"))
_LINE_FEED = Separator(re.compile(rb"\n"), kept=0, before=1, ends=(b"\n",))
SEPARATORS: dict[CorpusFormat, Separator | None] = {
    CorpusFormat.cc100: _BLANK_LINE,
    CorpusFormat.line: _LINE_FEED,
    CorpusFormat.jsonl: _LINE_FEED,
    CorpusFormat.file: None,
}


def _line_of(text: str) -> Separator:
    """Give the separator that is a line of this text."""
    mark = text.encode()
    ends = (b"\n%b\n" % mark, b"\n%b\r\n" % mark)
    line = re.compile(rb"(?m:^)" + re.escape(mark) + rb"\r?(?:\n|\Z)")
    return Separator(re.compile(rb"(?<=\n)" + re.escape(mark) + rb"\r?\n"), 0, len(mark) + 3, ends, line)


def format_of(file: StoredFile, config: CorpusConfig) -> CorpusFormat:
    """Give the format of a file: jsonl if its name says so, otherwise the configured one."""
    return CorpusFormat.jsonl if file.kind == JSON_LINES else config.corpus_format


def separator_of(file: StoredFile, config: CorpusConfig) -> Separator | None:
    """Give the separator of the documents in a file; None if the file is a single document."""
    corpus_format = format_of(file, config)
    if config.separator is not None and corpus_format is CorpusFormat.cc100:
        return _line_of(config.separator)
    return SEPARATORS[corpus_format]


MARK = re.compile(
    rb"^(<\|[A-Za-z_ ]{1,30}\|>|</s>|<(?:eos|EOS|sep|SEP|doc|DOC|endoftext)>|\[(?:EOS|SEP)\])\r?$", re.MULTILINE
)
"""A line with which others end documents."""


LISTED_MARKS, MOST_MARKS = 5, 100
"""Marks that are shown, and that are counted by name; the others are counted together."""
OTHER_MARKS = "others"


def may_have_marks(text: bytes, separator: str | None) -> bool:
    """Whether `marks_in` may find any: of nearly all text, looking for two bytes shows that it has none."""
    return separator is not None or b"<" in text or b"[" in text


def marks_in(text: bytes, separator: str | None) -> Counter[str]:
    """Count the places of a document that look as if another one began there: lines, or what `separator` is."""
    if separator is not None:
        return +Counter({separator: text.count(separator.encode())})
    if not (text.startswith((b"<", b"[")) or b"\n<" in text or b"\n[" in text):
        return Counter()
    found: Counter[str] = Counter()
    for match in MARK.finditer(text):
        add_marks(found, {match[1].decode(): 1})
    return found


def add_marks(marks: Counter[str], more: Mapping[str, int]) -> None:
    """Count more marks, at most MOST_MARKS by their names."""
    for mark, count in more.items():
        marks[mark if mark in marks or len(marks) < MOST_MARKS else OTHER_MARKS] += count


def describe_marks(marks: Mapping[str, int], separator: str | None) -> str:
    """Warn of such places, which remain text."""
    by_count = sorted(marks.items(), key=lambda item: (item[0] == OTHER_MARKS, -item[1], item[0]))
    shown = by_count[:LISTED_MARKS]
    others = sum(count for _, count in by_count[LISTED_MARKS:])
    listed = ", ".join(f"{mark} ({count:,})" for mark, count in [*shown, *([(OTHER_MARKS, others)] if others else [])])
    if separator is not None:
        return f"inside lines, where it is text and separates nothing: {listed}."
    return (
        f"lines that are text, and separate nothing: {listed}; if they end documents, give 'separator={shown[0][0]}'."
    )


_OBJECT = re.compile(rb'\{\s*"')
"""The beginning of a JSON object that has a key."""


def begins_with_object(beginning: bytes, key: str | None = None) -> bool:
    """Whether the first line of a text is a JSON object (with this key), by its first BEGINNING_BYTES or more.

    Of a line that is longer, only its beginning is known: it may have the key.
    """
    line, end, _ = beginning.removeprefix(BOM).lstrip().partition(b"\n")
    if not line.startswith(b"{"):
        return False
    try:
        value = json.loads(line.decode())
    except (ValueError, RecursionError):
        is_cut = not end and len(beginning) >= BEGINNING_BYTES
        return is_cut and _OBJECT.match(line) is not None
    return isinstance(value, dict) and (key in value if key is not None else value != {})


def is_json_lines(beginning: bytes) -> bool:
    """Whether a text is JSON lines rather than prose: its first line is an object, and its second begins as one."""
    second = beginning.removeprefix(BOM).lstrip().partition(b"\n")[2].lstrip()
    is_cut = len(beginning) >= BEGINNING_BYTES and second == b"{"
    return begins_with_object(beginning) and (not second or is_cut or _OBJECT.match(second) is not None)
