"""Compression, and the separators of documents.

- cc100: blank lines, that is lines of nothing but their line ending. A document keeps the ends of its lines, of the
  last one too.
- line, jsonl: the line feed. An empty line is no document.
- file: no separator; a file is a document.

The end of a file ends a document in every format.
"""

import bz2
import gzip
import io
import json
import lzma
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import zstandard

from hindsight.config.corpus import CorpusFormat
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
    """

    pattern: "re.Pattern[bytes]"
    kept: int
    before: int
    ends: tuple[bytes, ...]

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
        start = match.end() if self.kept and (match := _BLANK_LINES.match(block)) else 0
        for match in self.pattern.finditer(block, start):
            yield start, block[start : match.start() + self.kept]
            start = match.end()
        if start < len(block):
            yield start, block[start:]


_BLANK_LINES = re.compile(rb"(?:\r?\n)+")
_BLANK_LINE = Separator(re.compile(rb"\n(?:\r?\n)+"), kept=1, before=3, ends=(b"\n\n", b"\n\r\n"))
_LINE_FEED = Separator(re.compile(rb"\n"), kept=0, before=1, ends=(b"\n",))
SEPARATORS: dict[CorpusFormat, Separator | None] = {
    CorpusFormat.cc100: _BLANK_LINE,
    CorpusFormat.line: _LINE_FEED,
    CorpusFormat.jsonl: _LINE_FEED,
    CorpusFormat.file: None,
}


def format_of(file: StoredFile, corpus_format: CorpusFormat) -> CorpusFormat:
    """Give the format of a file: jsonl if its name says so, otherwise the configured one."""
    return CorpusFormat.jsonl if file.kind == JSON_LINES else corpus_format


def separator_of(file: StoredFile, corpus_format: CorpusFormat) -> Separator | None:
    """Give the separator of the documents in a file; None if the file is a single document."""
    return SEPARATORS[format_of(file, corpus_format)]


def begins_with_object(beginning: bytes, key: str | None = None) -> bool:
    """Whether the first line of a text is a JSON object (with this key), by its first BEGINNING_BYTES."""
    line, end, _ = beginning.removeprefix(BOM).lstrip().partition(b"\n")
    if not line.startswith(b"{"):
        return False
    try:
        value = json.loads(line.decode())
    except (ValueError, RecursionError):  # the line may be longer than what is looked at
        is_cut = not end and len(beginning) >= BEGINNING_BYTES
        return is_cut and (key is None or json.dumps(key, ensure_ascii=False).encode() in line)
    return isinstance(value, dict) and (key in value if key is not None else value != {})


def is_json_lines(beginning: bytes) -> bool:
    """Whether a text is JSON lines rather than prose: its first line is an object, and its second begins as one."""
    second = beginning.removeprefix(BOM).lstrip().partition(b"\n")[2].lstrip()
    return begins_with_object(beginning) and second[:1] in (b"", b"{")


def decompressed(file: StoredFile, stored: BinaryIO) -> BinaryIO:
    """Wrap an open file so that reading decompresses it, if its name says that it is compressed."""
    return _DECOMPRESS[file.compression](stored) if file.compression else stored


def _open_zst(stored: BinaryIO) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(_ZstdReader(stored), CHUNK_BYTES))


class _ZstdReader(io.RawIOBase):
    """Decompresses zstd frames; EOFError if the last one is cut off, which zstandard's own reader does not report."""

    def __init__(self, stored: BinaryIO) -> None:
        self._stored = stored
        self._frame: Any = None
        self._unread = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            self._unread = self._unread or self._stored.read(CHUNK_BYTES)
            if not self._unread:
                if self._frame is not None:
                    raise EOFError
                return 0
            self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
            try:
                self._ready = memoryview(self._frame.decompress(self._unread))
            except zstandard.ZstdError as error:
                raise OSError(str(error)) from error
            self._unread = self._frame.unused_data
            if self._frame.eof:
                self._frame = None
        n_bytes = min(len(buffer), len(self._ready))
        buffer[:n_bytes], self._ready = self._ready[:n_bytes], self._ready[n_bytes:]
        return n_bytes


_DECOMPRESS: dict[str, Callable[[BinaryIO], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _open_zst,
}
