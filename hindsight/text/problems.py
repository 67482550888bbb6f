"""Text that cannot be used: the messages about it, the place that they name, and the record of all of them."""

import errno
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from hindsight.config.corpus import OnError
from hindsight.errors import InputError
from hindsight.text.compression import ExpandsTooMuchError
from hindsight.text.files import PARQUET, StoredFile
from hindsight.text.formats import CHUNK_BYTES

LISTED_PROBLEMS = 1000
"""Problems that are listed of a part, and of a corpus; more are only counted."""


class Problem(NamedTuple):
    """A message about text that cannot be used.

    `repr` of problems enters the signatures of parts, which work folders keep: the names here must not change.
    """

    path: str
    what: str
    advice: str

    @property
    def message(self) -> str:
        """The line that the user reads."""
        return f"corpus: {self.path} {self.what}; {self.advice}, or leave it out with on_error=skip."


@dataclass
class ReadingReport:
    """Counts empty documents and records unusable text, while documents are read."""

    problems: list[Problem] = field(default_factory=list)
    """The first LISTED_PROBLEMS of them."""
    n_problems: int = 0
    empty: int = 0
    """Documents without any text (an empty file, string or row), which are left out."""
    marks: Counter[str] = field(default_factory=Counter)
    """Lines in plain text by which others separate documents, such as <|endoftext|>, but that are text here."""

    def note(self, problem: Problem, on_error: OnError) -> None:
        """Record a problem; with on_error=stop, raise InputError with its message instead."""
        if on_error is OnError.stop:
            raise InputError(problem.message)
        self.n_problems += 1
        if len(self.problems) < LISTED_PROBLEMS:
            self.problems.append(problem)


class Place(NamedTuple):
    """Where a document begins, for messages."""

    file: StoredFile
    offset: int
    line: int | None
    """Lines of the file before the document; None if they are not counted yet."""
    counted: dict[StoredFile, tuple[int, int]]
    """For each file: an offset up to which its lines were counted, and their number."""

    def byte(self, more: int) -> str:
        """Name a byte of the document, by its offset in the file."""
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


def unreadable(file: StoredFile, error: BaseException) -> Problem:
    """Describe a file whose bytes cannot be read."""
    if isinstance(error, EOFError):
        return Problem(file.path, "is cut off: its compressed data has no end", "fetch it again")
    if isinstance(error, ExpandsTooMuchError):
        way = "write its text into another format" if file.kind == PARQUET else "unpack it beforehand"
        return Problem(file.path, f"{error}, as no text does", f"if it is one, {way}")
    if isinstance(error, MemoryError):
        return Problem(file.path, "cannot be read: memory ran out", "unpack it beforehand, or where there is more")
    number = getattr(error, "errno", None)
    advice = _ADVICE.get(number) if number is not None else None
    if "ictionary" in str(error):  # of zstd
        advice = "unpack it with its dictionary, by zstd -D"
    reason = " ".join(str(getattr(error, "strerror", None) or error).split())
    return Problem(file.path, f"cannot be read ({reason})", advice or "fetch it again")


_ADVICE = {
    errno.EACCES: "change who may read it",
    errno.EPERM: "change who may read it",
    errno.ENOENT: "mend the link, or see who removed it",
    errno.ELOOP: "mend the link",
}


def too_long(file: StoredFile, place: str, max_document_bytes: int) -> Problem:
    """Describe a document that exceeds max_document_bytes."""
    what = f"holds a document of more than max_document_bytes={max_document_bytes} at {place}"
    return Problem(file.path, what, "see whether corpus_format= is the right one, or raise max_document_bytes=")
