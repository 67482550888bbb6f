"""Files -> parts: pieces of a few megabytes with complete documents, which any process can read.

A part either names places in files, which its reader opens (plain text, small compressed files), or carries text that
was read sequentially (large compressed files, standard input, parquet, datasets of Hugging Face). A document belongs to
the part that holds its first byte, so that the parts in order give all documents in order.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import xxhash

from hindsight.config.corpus import CorpusConfig
from hindsight.text.blocks import BlockReader, open_checked
from hindsight.text.compression import decompressed
from hindsight.text.files import PARQUET, StoredFile, open_stream
from hindsight.text.formats import separator_of
from hindsight.text.problems import Problem, ReadingReport
from hindsight.text.tables import dataset_rows, parquet_rows

PART_BYTES = 1 << 22
"""Size of a part; its last document may exceed it."""
MOST_ROWS = 1 << 20
"""Rows of a part, at most: empty ones have no size."""
SMALL_FILE_BYTES = 1 << 17
"""Compressed files up to this size are opened by whoever reads the part; one process reads larger ones for all."""


class Segment(NamedTuple):
    """The documents of a file that begin at the bytes from start to end; all documents if end is None."""

    file: int
    start: int
    end: int | None


class Part(NamedTuple):
    """Documents that are read together.

    Args:
        signature: hash that changes when the documents do: of their bytes, or of the files' names, sizes and versions;
            may be empty where nobody asks for it.
        stored_bytes: its share of the size of the corpus as stored.
        segments: where the documents are; empty if they are in `text`.
        text: complete documents with their separators, or a string per document.
        file: number of the file that `text` is from.
        offset: bytes (or rows) of the file before `text`.
        line: lines of the file before `text`.
        problems: text before `text` that could not be used.
    """

    signature: str
    stored_bytes: int
    segments: tuple[Segment, ...] = ()
    text: bytes | list[Any] = b""
    file: int = 0
    offset: int = 0
    line: int | None = 0
    problems: tuple[Problem, ...] = ()

    def signed(self) -> "Part":
        """Give the part with a signature; one that carries text is hashed for it."""
        return self if self.signature else self._replace(signature=_hash_text(self.text))


def is_sequential(file: StoredFile) -> bool:
    """Whether a file must be read from its beginning, by one process."""
    large = file.compression is not None and file.size > SMALL_FILE_BYTES
    return large or file.kind == PARQUET or file.is_stream or file.dataset is not None


class Divider:
    """Divides files into parts, the same way each time.

    Args:
        files: the files, in order.
        config: the format, and what to do about text that cannot be used.
        part_bytes: size of a part.
    """

    def __init__(self, files: list[StoredFile], config: CorpusConfig, part_bytes: int) -> None:
        self.files = files
        self.config = config
        self.part_bytes = part_bytes

    def parts(self) -> Iterator[Part]:
        """Yield the parts; InputError on what cannot be read, unless on_error=skip."""
        segments: list[Segment] = []
        size = 0
        for number, file in enumerate(self.files):
            if is_sequential(file):
                if segments:
                    yield self._part_of(segments, size)
                    segments, size = [], 0
                yield from self._sequential_parts(number, file)
                continue
            for segment in self._segments(number, file):
                segments.append(segment)
                size += (file.size if segment.end is None else segment.end) - segment.start
                if size >= self.part_bytes:
                    yield self._part_of(segments, size)
                    segments, size = [], 0
        if segments:
            yield self._part_of(segments, size)

    def _segments(self, number: int, file: StoredFile) -> Iterator[Segment]:
        if file.compression is not None or separator_of(file, self.config) is None:
            yield Segment(number, 0, None)
            return
        for start in range(0, max(file.size, 1), self.part_bytes):
            yield Segment(number, start, min(start + self.part_bytes, file.size))

    def _part_of(self, segments: list[Segment], size: int) -> Part:
        places = [(self.files[number], start, end) for number, start, end in segments]
        return Part(_hash(repr(places).encode()), size, tuple(segments))

    def _sequential_parts(self, number: int, file: StoredFile) -> Iterator[Part]:
        reading = ReadingReport()
        reader = BlockReader(file, self.config, self.part_bytes, reading)
        in_rows = file.dataset is not None or file.kind == PARQUET
        parts = self._parts_of_rows(number, file) if in_rows else self._parts_of_text(number, reader)
        yield from reader.until_error(parts)
        if reading.problems:
            yield Part(_hash(repr(reading.problems).encode()), 0, file=number, problems=tuple(reading.problems))

    def _parts_of_text(self, number: int, reader: BlockReader) -> Iterator[Part]:
        file, reading = reader.file, reader.reading
        with open_stream(file) if file.is_stream else open_checked(file) as stored:
            position = 0
            for block in reader.of_stream(decompressed(stored, file.compression)):
                problems, reading.problems = tuple(reading.problems), []
                read = 0 if file.is_stream else stored.tell() - position
                position += read
                yield Part("", read, (), block.text, number, block.offset, block.line, problems)

    def _parts_of_rows(self, number: int, file: StoredFile) -> Iterator[Part]:
        dataset = file.dataset
        rows = dataset_rows(dataset, self.config) if dataset is not None else parquet_rows(file, self.config)
        values: list[Any] = []
        first = size = 0
        for value in rows:
            values.append(value)
            size += _size_of(value)
            if size >= self.part_bytes or len(values) >= MOST_ROWS:
                yield Part("", 0, (), values, number, first)
                values, first, size = [], first + len(values), 0
        yield Part("", file.size, (), values, number, first)


def _size_of(value: Any) -> int:
    """Give the size of a row, also of one that is no text: a part ends by the size of all."""
    if isinstance(value, str | bytes):
        return len(value)
    return 0 if value is None else len(repr(value))


def _hash_text(text: bytes | list[Any]) -> str:
    return _hash_rows(text) if isinstance(text, list) else _hash(text)


def _hash_rows(values: list[Any]) -> str:
    digest = xxhash.xxh3_128()
    for value in values:
        raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else repr(value).encode()
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()


def _hash(content: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(content)
