"""A file -> blocks of complete documents.

Memory: one block, and one document of at most max_document_bytes.
"""

import lzma
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, BinaryIO, NamedTuple

from hindsight.config.corpus import CorpusConfig, CorpusFormat, OnError
from hindsight.errors import InputError
from hindsight.text.compression import decompressed
from hindsight.text.files import StoredFile, WrongContentError
from hindsight.text.formats import (
    BEGINNING_BYTES,
    CHUNK_BYTES,
    TAR,
    format_of,
    is_json_lines,
    separator_of,
)
from hindsight.text.problems import Problem, ReadingReport, too_long, unreadable

_READ_ERRORS = (OSError, EOFError, MemoryError, lzma.LZMAError, zlib.error)


class Block(NamedTuple):
    """Complete documents with their separators.

    Args:
        offset: bytes of the file before them, after decompression.
        line: lines of the file before them; None if they were not counted.
        text: the documents.
    """

    offset: int
    line: int | None
    text: bytes


class BlockReader:
    """Reads a file block by block.

    Args:
        file: the file.
        config: the format, the longest document, and what to do about text that cannot be used.
        block_bytes: size of a block; its last document may exceed it.
        reading: records the problems.
    """

    def __init__(self, file: StoredFile, config: CorpusConfig, block_bytes: int, reading: ReadingReport) -> None:
        self.file = file
        self.config = config
        self.block_bytes = block_bytes
        self.reading = reading
        self.format = format_of(file, config)
        self.separator = separator_of(file, config)

    def all(self) -> Iterator[Block]:
        """Yield the blocks of the file, from its beginning to its end."""
        with open_checked(self.file) as stored:
            yield from self.of_stream(decompressed(stored, self.file.compression))

    def of_stream(self, stream: BinaryIO) -> Iterator[Block]:
        """Yield the blocks of an open stream; a document that an error cuts off is left out."""
        chunks = self.until_error(_chunks(stream, min(CHUNK_BYTES, self.block_bytes)))
        if self.separator is None:
            yield from self._single_document(chunks)
            return
        separator, limit = self.separator, self.config.max_document_bytes
        buffer, offset, line, skipping, complete = bytearray(), 0, 0, False, False
        for chunk in chunks:
            complete = not chunk
            buffer += chunk
            if skipping:  # inside a document that is too long
                end = separator.first_end(buffer)
                dropped = end if end is not None else max(0, len(buffer) - separator.before)
                offset, line = offset + dropped, line + buffer.count(b"\n", 0, dropped)
                del buffer[:dropped]
                skipping = end is None
            if skipping or (len(buffer) < self.block_bytes and not complete):
                continue
            end = len(buffer) if complete else separator.last_end(buffer)
            if end and offset == 0 and (problem := self._misread(buffer)):
                self.reading.note(problem, self.config.on_error)
                return
            if end:
                # Through a view, here and below: slicing the buffer would make one more copy.
                yield (block := Block(offset, line, bytes(memoryview(buffer)[:end])))
                offset, line = offset + end, line + block.text.count(b"\n")
                del buffer[:end]
            if len(buffer) > limit + CHUNK_BYTES:  # blank lines and half a separator may be part of it
                self._note_too_long(offset)
                skipping = True
        if not complete and not skipping and (end := separator.last_end(buffer)):
            yield Block(offset, line, bytes(memoryview(buffer)[:end]))

    def _single_document(self, chunks: Iterator[bytes]) -> Iterator[Block]:
        """Yield all of a stream as one block, unless an error ends it early."""
        buffer, complete = bytearray(), False
        for chunk in chunks:
            buffer += chunk if len(buffer) <= self.config.max_document_bytes else b""
            complete = not chunk
        if complete and (problem := self._misread(buffer)) is not None:
            self.reading.note(problem, self.config.on_error)
        elif complete:
            yield Block(0, 0, bytes(buffer))

    def of_range(self, start: int, end: int) -> Iterator[Block]:
        """Yield the documents of an uncompressed file whose first byte lies in a range, as at most one block."""
        separator, limit, file = self.separator, self.config.max_document_bytes, self.file
        assert separator is not None
        base = max(0, start - separator.before)
        if start > 0 and _misread_by_its_beginning(file, self.format) is not None:
            return
        with open_checked(file) if start == 0 else file.open(base) as stored:
            # One byte more shows whether a line that begins in the range is blank.
            block = stored.read(min(end + 1, file.size) - base)
            if len(block) < min(end + 1, file.size) - base:
                raise InputError(f"corpus: {file.path} changed while it was read; start again when it is complete.")
            if start == 0 and (problem := self._misread_first(block)) is not None:
                self.reading.note(problem, self.config.on_error)
                return
            ends = (match.end() for match in separator.pattern.finditer(block))
            first = next((place for place in ends if base + place >= start), len(block)) if start else 0
            if base + first >= end:
                return
            last = max(separator.last_end(block) or 0, first)
            buffer = bytearray(block)
            if base + last >= end:
                del buffer[last:]
            while last < len(buffer):  # the last document continues behind the range
                searched = max(last - separator.shared, len(buffer) - separator.before, 0)
                buffer += (chunk := stored.read(min(CHUNK_BYTES, file.size - base - len(buffer))))
                stop = separator.first_end(buffer, searched)
                if stop is not None or not chunk:
                    del buffer[stop if stop is not None else len(buffer) :]
                    break
                if len(buffer) - last > limit + CHUNK_BYTES:
                    del buffer[last:]
                    self._note_too_long(base + last)
            if len(buffer) > first:
                yield Block(base + first, None, bytes(memoryview(buffer)[first:]))

    def until_error(self, items: Iterator[Any]) -> Iterator[Any]:
        """Yield items that are read from the file, up to the first error, which becomes a problem."""
        try:
            yield from items
        except WrongContentError:
            if self.config.on_error is OnError.stop:
                raise
            problem = Problem(self.file.path, "is not what its name says", "fetch or name it again")
            self.reading.note(problem, self.config.on_error)
        except _READ_ERRORS as error:
            self.reading.note(unreadable(self.file, error), self.config.on_error)

    def _misread_first(self, block: bytes) -> Problem | None:
        """Look at the beginning of the file in its first block, unless that is shorter."""
        if len(block) >= min(BEGINNING_BYTES, self.file.size):
            return self._misread(block)
        return _misread_by_its_beginning(self.file, self.format)

    def _misread(self, beginning: bytes | bytearray) -> Problem | None:
        return _misread(self.file, self.format, bytes(beginning[:BEGINNING_BYTES]))

    def _note_too_long(self, offset: int) -> None:
        self.reading.note(too_long(self.file, f"byte {offset}", self.config.max_document_bytes), self.config.on_error)


def _misread(file: StoredFile, corpus_format: CorpusFormat, beginning: bytes) -> Problem | None:
    """Describe a file that is no text, or JSON lines that would be read as prose, by its beginning.

    Only cc100, which is the format where none is named, is doubted: whoever names another one may mean it.
    """
    if beginning[TAR[0]] == TAR[1]:
        return Problem(file.path, "is a tar archive by its content", "unpack it")
    if corpus_format is not CorpusFormat.cc100 or not is_json_lines(beginning):
        return None
    what = "holds JSON lines, by the first ones, which corpus_format=cc100 would take for prose"
    way = "read it with corpus_format=jsonl, or name it .jsonl; if its lines are the text, with corpus_format=line"
    return Problem(file.path, what, way)


@lru_cache(maxsize=4096)
def _misread_by_its_beginning(file: StoredFile, corpus_format: CorpusFormat) -> Problem | None:
    """Look at the beginning of a file once, not for each of its parts: on S3 that is a request."""
    with file.open() as stored:
        return _misread(file, corpus_format, stored.read(BEGINNING_BYTES))


def open_checked(file: StoredFile, start: int = 0) -> BinaryIO:
    """Open a file at an offset; at its beginning, WrongContentError if the content contradicts the name."""
    if start == 0:
        file.check()
    return file.open(start)


def _chunks(stream: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield the content of a stream up to where it is damaged, and b"" at its end."""
    read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)  # read() would drop what precedes an error
    while True:
        yield (chunk := read(size))
        if not chunk:
            return
