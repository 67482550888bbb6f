"""A corpus in parts of a few megabytes, each of whole documents, which any process can read.

A part is either places in files that a reader finds by itself (plain text, small compressed files), or text that was
read beforehand, in order (large compressed files, standard input, parquet, datasets of Hugging Face). A document
belongs to the part in which its first byte lies, so that parts, put together, are the documents in order.

Memory: a part, and a document of at most `max_document_bytes`.
"""

import hashlib
import json
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

import xxhash

from hindsight.config.corpus import CorpusConfig, CorpusFormat, LineSeparators, OnError
from hindsight.errors import InputError
from hindsight.text.files import COMPRESSED, MAGIC, PARQUET, StoredFile, WrongContentError, find_files
from hindsight.text.formats import CHUNK_BYTES, SEPARATORS, Separator, decompressed
from hindsight.text.tables import dataset_rows, parquet_rows

PART_BYTES = 1 << 22
"""Size of a part, unless its last document goes beyond."""
SMALL_FILE_BYTES = 1 << 17
"""Compressed files up to this size are a process's part; larger ones are read by one process for all."""
CHECKED_FILES = 16
"""Files whose first bytes are looked at before anything is read."""
STDIN = "standard input"
_READ_ERRORS = (OSError, EOFError, lzma.LZMAError, zlib.error)


class Document(NamedTuple):
    """A document: its UTF-8 bytes, and the same as text."""

    raw: bytes
    text: str


class Problem(NamedTuple):
    """Text that cannot be used."""

    path: str
    what: str
    advice: str

    @property
    def message(self) -> str:
        """The line that the user reads."""
        return f"corpus: {self.path} {self.what}; {self.advice}, or leave it out with on_error=skip."


@dataclass
class Reading:
    """What reading a part brought to light."""

    problems: list[Problem] = field(default_factory=list)
    empty: int = 0
    """Documents without any text (an empty file, string or row); they are left out."""


class Segment(NamedTuple):
    """Documents of a file that begin at bytes from start to end; the whole file if end is None."""

    file: int
    start: int
    end: int | None


class Part(NamedTuple):
    """Documents that are read together.

    Args:
        signature: hash that changes when the documents do: of their bytes, or of the files' names, sizes and versions;
            may be empty where nobody asks for it.
        stored_bytes: how much of the corpus, as stored, it takes.
        segments: where the documents are; empty if they are in `text`.
        text: whole documents with their separators, or one string a document.
        file: the file that `text` is from.
        offset: bytes (or rows) of the file before `text`.
        line: lines of the file before `text`.
        problems: what could not be read before `text`.
    """

    signature: str
    stored_bytes: int
    segments: tuple[Segment, ...] = ()
    text: bytes | list[Any] = b""
    file: int = 0
    offset: int = 0
    line: int = 0
    problems: tuple[Problem, ...] = ()


class Corpus:
    """The documents that a configuration names.

    Args:
        config: corpus= and what goes with it.
        part_bytes: size of a part; None for PART_BYTES.
    """

    def __init__(self, config: CorpusConfig, part_bytes: int | None = None) -> None:
        self.config = config
        self.part_bytes = part_bytes or PART_BYTES
        self._lines: dict[StoredFile, tuple[int, int]] = {}
        self.dataset = config.corpus.removeprefix("hf:") if config.corpus.startswith("hf:") else None
        if config.corpus == "-" or self.dataset is not None:
            self.files = [StoredFile(STDIN if self.dataset is None else config.corpus, 0, "")]
        else:
            self.files = find_files(config.corpus)
            for file in self.files[:CHECKED_FILES]:
                self._check(file)
        """The files, in order."""

    @property
    def stored_bytes(self) -> int | None:
        """Size of the corpus as stored; None where it is not known."""
        return sum(file.size for file in self.files) or None

    @property
    def stamp(self) -> str | None:
        """Hash of names, sizes and versions; None where content can change without it."""
        if self.stored_bytes is None:
            return None
        digest = hashlib.blake2b(digest_size=16)
        for file in self.files:
            digest.update(repr(file).encode())
        return digest.hexdigest()

    @property
    def random_access(self) -> bool:
        """Whether any part can be read without those before it."""
        return not any(self._in_order(file) for file in self.files)

    # ---------------------------------------------------------------------------------------------------------- parts

    def parts(self, signed: bool = True) -> Iterator[Part]:
        """Divide the corpus; the same way each time. InputError on what cannot be read, unless on_error=skip.

        Args:
            signed: whether parts with text have their signature, which costs a reading of it.
        """
        for part in self._parts():
            yield part if part.signature or not signed else part._replace(signature=_signature_of(part.text))

    def _parts(self) -> Iterator[Part]:
        segments: list[Segment] = []
        size = 0
        for number, file in enumerate(self.files):
            if self._in_order(file):
                if segments:
                    yield self._part_of(segments, size)
                    segments, size = [], 0
                yield from self._parts_in_order(number, file)
                continue
            for segment in self._segments(number, file):
                segments.append(segment)
                size += (file.size if segment.end is None else segment.end) - segment.start
                if size >= self.part_bytes:
                    yield self._part_of(segments, size)
                    segments, size = [], 0
        if segments:
            yield self._part_of(segments, size)

    def _in_order(self, file: StoredFile) -> bool:
        """Whether a file is read from its beginning by one process."""
        large = file.compression is not None and file.size > SMALL_FILE_BYTES
        return large or file.kind == PARQUET or file.path == STDIN or self.dataset is not None

    def _segments(self, number: int, file: StoredFile) -> Iterator[Segment]:
        if file.compression is not None or self._separator(file) is None:
            yield Segment(number, 0, None)
            return
        for start in range(0, max(file.size, 1), self.part_bytes):
            yield Segment(number, start, min(start + self.part_bytes, file.size))

    def _part_of(self, segments: list[Segment], size: int) -> Part:
        places = [(self.files[number], start, end) for number, start, end in segments]
        return Part(_hash(repr(places).encode()), size, tuple(segments))

    def _parts_in_order(self, number: int, file: StoredFile) -> Iterator[Part]:
        reading = Reading()
        in_rows = self.dataset is not None or file.kind == PARQUET
        parts = self._parts_of_rows(number, file) if in_rows else self._parts_of_text(number, file, reading)
        yield from self._guarded(file, parts, reading)
        if reading.problems:
            yield Part(_hash(repr(reading.problems).encode()), 0, file=number, problems=tuple(reading.problems))

    def _parts_of_text(self, number: int, file: StoredFile, reading: Reading) -> Iterator[Part]:
        with _open_stdin() if file.path == STDIN else self._opened(file) as stored:
            position = 0
            for offset, line, text in self._blocks(file, decompressed(file, stored), reading):
                problems, reading.problems = tuple(reading.problems), []
                read = stored.tell() - position if file.path != STDIN else 0
                position += read
                yield Part("", read, (), text, number, offset, line, problems)

    def _parts_of_rows(self, number: int, file: StoredFile) -> Iterator[Part]:
        rows = dataset_rows(self.dataset, self.config) if self.dataset is not None else parquet_rows(file, self.config)
        values: list[Any] = []
        first = size = 0
        for value in rows:
            values.append(value)
            size += len(value) if isinstance(value, str) else 0
            if size >= self.part_bytes:
                yield Part("", 0, (), values, number, first)
                values, first, size = [], first + len(values), 0
        yield Part("", file.size, (), values, number, first)

    # -------------------------------------------------------------------------------------------------------- reading

    def read(self, part: Part, reading: Reading) -> Iterator[Document]:
        """Yield the documents of a part in order, without empty ones.

        Raises:
            InputError: some text cannot be used, unless on_error=skip, which notes it in `reading`.
        """
        for problem in part.problems:
            self._report(problem, reading)
        if isinstance(part.text, list):
            yield from self._from_rows(part, part.text, reading)
        elif part.text:
            yield from self._from_text(self.files[part.file], part.text, part.offset, part.line, reading)
        for segment in part.segments:
            file = self.files[segment.file]
            if segment.end is None:
                blocks = self._guarded(file, self._whole_file(file, reading), reading)
            else:
                blocks = self._guarded(file, self._read_range(file, segment.start, segment.end, reading), reading)
            for offset, line, block in blocks:
                yield from self._from_text(file, block, offset, line, reading)

    def documents(self, reading: Reading | None = None) -> Iterator[Document]:
        """Yield all documents in order."""
        reading = reading or Reading()
        for part in self.parts(signed=False):
            yield from self.read(part, reading)

    def _whole_file(self, file: StoredFile, reading: Reading) -> Iterator[tuple[int, int | None, bytes]]:
        with self._opened(file) as stored:
            yield from self._blocks(file, decompressed(file, stored), reading)

    def _blocks(self, file: StoredFile, stream: BinaryIO, reading: Reading) -> Iterator[tuple[int, int, bytes]]:
        """Yield (offset, lines before, whole documents) of a stream; what is cut off at its end is left out."""
        separator, limit = self._separator(file), self.config.max_document_bytes
        buffer, offset, line, skipping, complete = bytearray(), 0, 0, False, False
        if separator is None:
            for _, chunk in self._guarded(file, _chunks(stream, min(CHUNK_BYTES, self.part_bytes)), reading):
                buffer += chunk if len(buffer) <= limit else b""
                complete = not chunk
            if complete:
                yield 0, 0, bytes(buffer)
            return
        for _, chunk in self._guarded(file, _chunks(stream, min(CHUNK_BYTES, self.part_bytes)), reading):
            complete = not chunk
            buffer += chunk
            if skipping:  # behind a document that is too long
                end = separator.first_end(buffer)
                dropped = end if end is not None else max(0, len(buffer) - separator.before)
                offset, line = offset + dropped, line + buffer.count(b"\n", 0, dropped)
                del buffer[:dropped]
                skipping = end is None
            if skipping or (len(buffer) < self.part_bytes and not complete):
                continue
            end = len(buffer) if complete else separator.last_end(buffer)
            if end:
                # Through a view here and below: a slice of the buffer would be one copy more.
                yield offset, line, (block := bytes(memoryview(buffer)[:end]))
                offset, line = offset + end, line + block.count(b"\n")
                del buffer[:end]
            if len(buffer) > limit + CHUNK_BYTES:  # blank lines and half a separator may be part of it
                self._report(self._too_long(file, offset), reading)
                skipping = True
        if not complete and not skipping and (end := separator.last_end(buffer)):
            yield offset, line, bytes(memoryview(buffer)[:end])

    def _read_range(
        self, file: StoredFile, start: int, end: int, reading: Reading
    ) -> Iterator[tuple[int, None, bytes]]:
        """Yield (offset, None, documents) for those documents of plain text whose first byte lies in a range."""
        separator, limit = self._separator(file), self.config.max_document_bytes
        assert separator is not None
        base = max(0, start - separator.before)
        with self._opened(file, base) as stored:
            # One byte more shows whether a line that begins in the range is blank.
            block = stored.read(min(end + 1, file.size) - base)
            if len(block) < min(end + 1, file.size) - base:
                raise InputError(f"corpus: {file.path} changed while it was read; start again when it is complete.")
            ends = (match.end() for match in separator.pattern.finditer(block))
            first = next((place for place in ends if base + place >= start), len(block)) if start else 0
            if base + first >= end:
                return
            last = max(separator.last_end(block) or 0, first)
            buffer = bytearray(block)
            if base + last >= end:
                del buffer[last:]
            while last < len(buffer):  # the last document goes on behind the range
                searched = max(last, len(buffer) - separator.before)
                buffer += (chunk := stored.read(min(CHUNK_BYTES, file.size - base - len(buffer))))
                stop = separator.first_end(buffer, searched)
                if stop is not None or not chunk:
                    del buffer[stop if stop is not None else len(buffer) :]
                    break
                if len(buffer) - last > limit + CHUNK_BYTES:
                    del buffer[last:]
                    self._report(self._too_long(file, base + last), reading)
            if len(buffer) > first:
                yield base + first, None, bytes(memoryview(buffer)[first:])

    def _from_text(
        self, file: StoredFile, block: bytes, offset: int, line: int | None, reading: Reading
    ) -> Iterator[Document]:
        separator = self._separator(file)
        parse = self._parse_json if self._format(file) is CorpusFormat.jsonl else self._parse_text
        pieces = [(0, block)] if separator is None else separator.split(block)
        for number, (start, raw) in enumerate(pieces):
            if not raw.strip(b"\r\n") and separator is not None and not separator.kept:
                continue  # an empty line is no document
            if not raw:
                reading.empty += 1
            elif len(raw) > self.config.max_document_bytes:
                self._report(self._too_long(file, offset + start), reading)
            else:
                place = Place(file, offset + start, None if line is None else line + number, self._lines)
                document = parse(raw, place, reading)
                if document is not None:
                    yield document

    def _parse_text(self, raw: bytes, place: "Place", reading: Reading) -> Document | None:
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            byte = place.byte(error.start)
            self._report(Problem(place.file.path, f"is not UTF-8 at {byte}", "convert it, e.g. with iconv"), reading)
            return None
        return self._usable(text, raw, place.file, lambda: place.byte(raw.index(0)), reading)

    def _parse_json(self, raw: bytes, place: "Place", reading: Reading) -> Document | None:
        key, advice = self.config.text_key, "name the key of the text with text_key="
        what: str | None = None
        try:
            value = json.loads(raw.decode())
            if not isinstance(value, dict):
                what = "is no JSON object"
            elif key not in value:
                what = f"has no key {key!r}"
            elif not isinstance(value[key], str):
                what = f"has no string under the key {key!r}"
            else:
                text: str = value[key]
                return self._usable(text, None, place.file, place.line_number, reading)
        except UnicodeDecodeError as error:
            what, advice = f"is not UTF-8 ({place.byte(error.start)})", "convert it, e.g. with iconv"
        except (ValueError, RecursionError) as error:
            what, advice = f"is no JSON ({error})", "mend it"
        self._report(Problem(place.file.path, f"{place.line_number()} {what}", advice), reading)
        return None

    def _from_rows(self, part: Part, values: list[Any], reading: Reading) -> Iterator[Document]:
        file, column = self.files[part.file], self.config.text_column
        for number, value in enumerate(values, part.offset):
            if value is None:
                reading.empty += 1
            elif not isinstance(value, str):
                what = f"row {number} has no text in the column {column!r}"
                self._report(Problem(file.path, what, "name another with text_column="), reading)
            else:
                document = self._usable(value, None, file, lambda number=number: f"row {number}", reading)
                if document is not None:
                    yield document

    def _usable(
        self, text: str, raw: bytes | None, file: StoredFile, place: Callable[[], str], reading: Reading
    ) -> Document | None:
        """Check and finish a document; None if it is empty or cannot be used."""
        if not text:
            reading.empty += 1
            return None
        if "\0" in text if raw is None else b"\0" in raw:
            what = f"holds a NUL character at {place()}"
            self._report(Problem(file.path, what, "it may be binary, or UTF-16: convert it"), reading)
            return None
        if self.config.line_separators is LineSeparators.newline and ("\u2028" in text or "\u2029" in text):
            text, raw = text.replace("\u2028", "\n").replace("\u2029", "\n"), None
        try:
            raw = text.encode() if raw is None else raw
        except UnicodeEncodeError:
            what = f"holds half a surrogate pair at {place()}, which is no character"
            self._report(Problem(file.path, what, "mend it"), reading)
            return None
        if len(raw) > self.config.max_document_bytes:
            self._report(self._too_long(file, 0, place()), reading)
            return None
        return Document(raw, text)

    # -------------------------------------------------------------------------------------------------------- helpers

    def _format(self, file: StoredFile) -> CorpusFormat:
        return CorpusFormat.jsonl if file.kind == ".jsonl" else self.config.corpus_format

    def _separator(self, file: StoredFile) -> Separator | None:
        return SEPARATORS[self._format(file)]

    def _opened(self, file: StoredFile, start: int = 0) -> BinaryIO:
        if start == 0:
            file.check()
        return file.open(start)

    def _check(self, file: StoredFile) -> None:
        try:
            file.check()
        except WrongContentError:
            if self.config.on_error is OnError.stop:
                raise
        except OSError as error:
            self._report(_unreadable(file, error), Reading())

    def _too_long(self, file: StoredFile, offset: int, place: str | None = None) -> Problem:
        limit = self.config.max_document_bytes
        what = f"holds a document of more than max_document_bytes={limit} at {place or f'byte {offset}'}"
        return Problem(file.path, what, "see whether corpus_format= is the right one, or raise max_document_bytes=")

    def _report(self, problem: Problem, reading: Reading) -> None:
        if self.config.on_error is OnError.stop:
            raise InputError(problem.message)
        reading.problems.append(problem)

    def _guarded(self, file: StoredFile, items: Iterator[Any], reading: Reading) -> Iterator[Any]:
        """Yield items until one cannot be read."""
        try:
            yield from items
        except WrongContentError:
            if self.config.on_error is OnError.stop:
                raise
            reading.problems.append(Problem(file.path, "is not what its name says", "fetch or name it again"))
        except _READ_ERRORS as error:
            self._report(_unreadable(file, error), reading)


class Place(NamedTuple):
    """Where a document begins, for messages."""

    file: StoredFile
    offset: int
    line: int | None
    """Lines of the file before it; None if they have to be counted."""
    counted: dict[StoredFile, tuple[int, int]]
    """Bytes of each file for which that was done, and the lines in them."""

    def byte(self, more: int) -> str:
        """Name a byte of the document."""
        return f"byte {self.offset + more}{' of its decompressed text' if self.file.compression else ''}"

    def line_number(self) -> str:
        """Name the document's line, counted from 1."""
        line = self.line
        if line is None:
            start, line = self.counted.get(self.file, (0, 0))
            start, line = (start, line) if start <= self.offset else (0, 0)
            with self.file.open(start) as stored:
                left = self.offset - start
                while left and (chunk := stored.read(min(left, CHUNK_BYTES))):
                    line, left = line + chunk.count(b"\n"), left - len(chunk)
            self.counted[self.file] = self.offset, line
        return f"line {line + 1}"


def _open_stdin() -> BinaryIO:
    if sys.stdin is None:
        raise InputError("corpus=-: standard input is closed; pipe text into it, or name a file.")
    stream: Any = sys.stdin.buffer
    head = stream.peek(8)[:8] if hasattr(stream, "peek") else b""
    suffix = next((suffix for suffix in COMPRESSED if head.startswith(MAGIC[suffix]) and suffix != ".bz2"), None)
    if suffix is not None:
        raise InputError(f"corpus=- is compressed, as {suffix} files are; decompress it on the way, as xzcat does.")
    return stream


def _chunks(stream: BinaryIO, size: int) -> Iterator[tuple[None, bytes]]:
    """Yield what a stream gives, all of it up to where it is damaged, and nothing at its end."""
    read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)  # read() would drop what precedes an error
    while True:
        yield None, (chunk := read(size))
        if not chunk:
            return


def _hash_rows(values: list[Any]) -> str:
    digest = xxhash.xxh3_128()
    for value in values:
        raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else repr(value).encode()
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()


def _unreadable(file: StoredFile, error: BaseException) -> Problem:
    if isinstance(error, EOFError):
        return Problem(file.path, "is cut off: its compressed data has no end", "fetch it again")
    return Problem(file.path, f"cannot be read ({getattr(error, 'strerror', None) or error})", "fetch it again")


def _signature_of(text: bytes | list[Any]) -> str:
    return _hash_rows(text) if isinstance(text, list) else _hash(text)


def _hash(content: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(content)
