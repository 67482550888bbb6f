"""A corpus: the documents that a configuration names, in order, all at once or part by part.

Memory: one part, and one document of at most `max_document_bytes`.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from hindsight.config.corpus import CorpusConfig, CorpusFormat, LineSeparators, OnError, TextOrder
from hindsight.errors import InputError
from hindsight.text.blocks import Block, BlockReader
from hindsight.text.files import DATASET_PREFIX, PLAIN, STDIN, StoredFile, WrongContentError
from hindsight.text.finding import Found, find_files
from hindsight.text.formats import BOM, add_marks, format_of, marks_in, may_have_marks, separator_of
from hindsight.text.graphemes import reverse_text
from hindsight.text.parts import PART_BYTES, Divider, Part, is_sequential
from hindsight.text.problems import Place, Problem, ReadingReport, too_long, unreadable

_JSON = json.JSONDecoder(parse_int=float)
"""Integers may be of any length in JSON; float() bounds the time that they take."""
CHECKED_FILES = 16
"""Files whose first bytes are checked before anything is read."""


class Document(NamedTuple):
    """A document: its UTF-8 bytes as it is read, by which it is hashed, and its text in the order of text_order=."""

    raw: bytes
    text: str


class Corpus:
    """The documents that a configuration names.

    Args:
        config: corpus= and the other keys of reading it.
        part_bytes: size of a part; None for PART_BYTES.
    """

    def __init__(self, config: CorpusConfig, part_bytes: int | None = None) -> None:
        self.config = config
        self.part_bytes = part_bytes or PART_BYTES
        self._counted_lines: dict[StoredFile, tuple[int, int]] = {}
        if config.corpus == "-":
            found = Found([StoredFile(STDIN, 0, "", is_stream=True)], {})
        elif config.corpus.startswith(DATASET_PREFIX):
            found = Found([StoredFile(config.corpus, 0, "")], {})
        else:
            found = find_files(config.corpus, config.text_key)
        self.files = found.files
        """The files, in order."""
        self.not_taken = found.not_taken
        """How many files of the corpus are not taken, by kind."""
        if config.separator is not None and not any(file.kind == PLAIN and file.dataset is None for file in self.files):
            raise InputError(
                f"separator={config.separator} is for text files, and corpus={config.corpus} has none; leave it out."
            )
        for file in self.files[:CHECKED_FILES]:
            self._check(file)

    @property
    def stored_bytes(self) -> int | None:
        """Size of the corpus as stored; None if unknown."""
        return sum(file.size for file in self.files) or None

    @property
    def stamp(self) -> str | None:
        """Hash of the files' names, sizes and versions; None if their content can change without them."""
        if self.stored_bytes is None:
            return None
        digest = hashlib.blake2b(digest_size=16)
        for file in self.files:
            digest.update(repr(file).encode())
        return digest.hexdigest()

    @property
    def random_access(self) -> bool:
        """Whether each part can be read without those before it."""
        return not any(is_sequential(file) for file in self.files)

    def parts(self, signed: bool = True) -> Iterator[Part]:
        """Divide the corpus, the same way each time; InputError on what cannot be read, unless on_error=skip.

        Args:
            signed: whether parts that carry text are hashed, so that they have a signature too.
        """
        for part in Divider(self.files, self.config, self.part_bytes).parts():
            yield part.signed() if signed else part

    def documents(self, reading: ReadingReport | None = None) -> Iterator[Document]:
        """Yield all documents in order."""
        reading = reading or ReadingReport()
        for part in self.parts(signed=False):
            yield from self.read(part, reading)

    def read(self, part: Part, reading: ReadingReport) -> Iterator[Document]:
        """Yield the documents of a part in order, without empty ones.

        Raises:
            InputError: some text cannot be used; with on_error=skip, `reading` records it instead.
        """
        for problem in part.problems:
            self._note(problem, reading)
        if isinstance(part.text, list):
            yield from self._from_rows(part, part.text, reading)
        elif part.text:
            yield from self._from_block(self.files[part.file], Block(part.offset, part.line, part.text), reading)
        for segment in part.segments:
            file = self.files[segment.file]
            reader = BlockReader(file, self.config, self.part_bytes, reading)
            blocks = reader.all() if segment.end is None else reader.of_range(segment.start, segment.end)
            for block in reader.until_error(blocks):
                yield from self._from_block(file, block, reading)

    def _from_block(self, file: StoredFile, block: Block, reading: ReadingReport) -> Iterator[Document]:
        separator = separator_of(file, self.config)
        is_json = format_of(file, self.config) is CorpusFormat.jsonl
        parse = self._parse_json if is_json else self._parse_text
        documents = [(0, block.text)] if separator is None else separator.documents(block.text)
        has_marks = not is_json and may_have_marks(block.text, self.config.separator)
        blank = b" \t\r\n" if is_json else b"\r\n"
        for number, (start, raw) in enumerate(documents):
            if is_json and raw.startswith(BOM):  # also where files with one were joined
                start, raw = start + len(BOM), raw[len(BOM) :]
            if separator is not None and not separator.kept and not raw.strip(blank):
                continue  # an empty line is no document
            if not raw:
                reading.empty += 1
            elif len(raw) > self.config.max_document_bytes:
                self._note(self._too_long(file, f"byte {block.offset + start}"), reading)
            else:
                line = None if block.line is None else block.line + number
                place = Place(file, block.offset + start, line, self._counted_lines)
                document = parse(raw, place, reading)
                if document is not None:
                    if has_marks:
                        add_marks(reading.marks, marks_in(raw, self.config.separator))
                    yield document

    def _parse_text(self, raw: bytes, place: Place, reading: ReadingReport) -> Document | None:
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            byte = place.byte(error.start)
            self._note(Problem(place.file.path, f"is not UTF-8 at {byte}", "convert it, e.g. with iconv"), reading)
            return None
        return self._usable(text, raw, place.file, lambda: place.byte(raw.index(0)), reading)

    def _parse_json(self, raw: bytes, place: Place, reading: ReadingReport) -> Document | None:
        key, advice = self.config.text_key, "name the key of the text with text_key="
        what: str | None = None
        try:
            value = _JSON.decode(raw.decode())
            if not isinstance(value, dict):
                what, advice = "is no JSON object", self._advice_on_json(place, raw)
            elif key not in value:
                what = f"has no key {key!r}"
            elif not isinstance(value[key], str):
                what = f"has no string under the key {key!r}"
            else:
                text: str = value[key]
                return self._usable(text, None, place.file, place.line_number, reading)
        except UnicodeDecodeError as error:
            what, advice = f"is not UTF-8 ({place.byte(error.start)})", "convert it, e.g. with iconv"
        except RecursionError:
            what, advice = "is nested too deeply", "mend it"
        except ValueError as error:
            what, advice = f"is no JSON ({error})", self._advice_on_json(place, raw)
        self._note(Problem(place.file.path, f"{place.line_number()} {what}", advice), reading)
        return None

    def _advice_on_json(self, place: Place, raw: bytes) -> str:
        first = raw.strip()
        if place.offset <= len(BOM) and (first.startswith(b"[") or first == b"{"):
            command = "jq -c '.[]'" if first.startswith(b"[") else "jq -c ."
            return f"make a line of each object, by {command}"
        return f"mend it: a line is an object whose key {self.config.text_key!r} holds the text"

    def _from_rows(self, part: Part, values: list[Any], reading: ReadingReport) -> Iterator[Document]:
        file, column = self.files[part.file], self.config.text_column
        for number, value in enumerate(values, part.offset):
            if value is None:
                reading.empty += 1
            elif isinstance(value, bytes):
                what = f"has bytes that are not UTF-8 in row {number}"
                self._note(Problem(file.path, what, "convert it"), reading)
            elif not isinstance(value, str):
                what = f"row {number} has no text in the column {column!r}"
                self._note(Problem(file.path, what, "name another with text_column="), reading)
            else:
                document = self._usable(value, None, file, lambda number=number: f"row {number}", reading)
                if document is not None:
                    yield document

    def _usable(
        self, text: str, raw: bytes | None, file: StoredFile, place: Callable[[], str], reading: ReadingReport
    ) -> Document | None:
        """Check and complete a document; None if it is empty or cannot be used."""
        if not text:
            reading.empty += 1
            return None
        if "\0" in text if raw is None else b"\0" in raw:
            what = f"holds a NUL character at {place()}"
            advice = "remove it" if raw is None else "it may be binary, or UTF-16: convert it"
            self._note(Problem(file.path, what, advice), reading)
            return None
        if self.config.line_separators is LineSeparators.newline and ("\u2028" in text or "\u2029" in text):
            text, raw = text.replace("\u2028", "\n").replace("\u2029", "\n"), None
        try:
            raw = text.encode() if raw is None else raw
        except UnicodeEncodeError:
            what = f"holds half a surrogate pair at {place()}, which is no character"
            self._note(Problem(file.path, what, "put U+FFFD in its place"), reading)
            return None
        if len(raw) > self.config.max_document_bytes:
            self._note(self._too_long(file, place()), reading)
            return None
        return Document(raw, reverse_text(text) if self.config.text_order is TextOrder.reversed else text)

    def _check(self, file: StoredFile) -> None:
        if file.is_stream or file.dataset is not None:
            return
        try:
            file.check()
        except WrongContentError:
            if self.config.on_error is OnError.stop:
                raise
        except OSError as error:
            self._note(unreadable(file, error), ReadingReport())

    def _too_long(self, file: StoredFile, place: str) -> Problem:
        return too_long(file, place, self.config.max_document_bytes)

    def _note(self, problem: Problem, reading: ReadingReport) -> None:
        reading.note(problem, self.config.on_error)
