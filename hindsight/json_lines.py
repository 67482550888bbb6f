"""Files with a JSON object a line, such as metrics.jsonl: one reader for all, in constant memory.

Such a file is added to while its run lasts, and whatever ends the run may cut its last line. Everything else that
cannot be read is damage: nobody deletes it in silence.
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from hindsight.errors import InputError
from hindsight.files import open_regular, written_atomically

log = logging.getLogger("hindsight")

MAX_LINE_BYTES = 1 << 24
BLOCK_BYTES = 1 << 16
NUMBER, TEXT = rb"-?(?:0|[1-9]\d*+)(?:\.\d++)?(?:[eE][-+]?\d++)?", rb'"(?:[ !#-\[\]-~]|\\["\\/bfnrt]|\\u[0-9a-f]{4})*+"'
VALUE = NUMBER + b"|" + TEXT + b"|NaN|-?Infinity|null|true|false"
OURS = re.compile(rb'\{"step": (\d{1,18})(?:, ' + TEXT + b": (?:" + VALUE + rb"))*+\}\r?\n")
"""A line as runs write it: to match one takes half the time of parsing it."""


def parse(line: bytes | str) -> dict[str, Any] | None:
    """Parse a line; None if it is no object."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def step_of(record: dict[str, Any] | None) -> int | None:
    """Step of a record; None if it has none that a run can be at."""
    step = record.get("step") if record is not None else None
    return step if type(step) is int and step >= 0 else None


def _is_cut(line: bytes) -> bool:
    """Tell whether a line is the last one, and a kill has cut it."""
    return not line.endswith(b"\n") and len(line) < MAX_LINE_BYTES


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file, from its beginning on; a last line that was cut is left out.

    Raises:
        InputError: the file cannot be read, or another line is no object.
    """
    with _opened(path) as file:
        for number, line in enumerate(_lines(file), start=1):
            record = parse(line)
            if record is not None:
                yield record
            elif line.strip() and not _is_cut(line):
                raise InputError(f"{path}, line {number} is no JSON object; the file is damaged.")


def read_backward(path: Path, holding: bytes = b"") -> Iterator[dict[str, Any]]:
    """Yield the objects of a file from its end on, without what is none; nothing of a file that is missing.

    Args:
        path: the file.
        holding: only lines in which these bytes stand are parsed, and yielded.
    """
    if not path.exists():
        return
    with _opened(path) as file:
        place, rest = file.seek(0, os.SEEK_END), b""
        while place > 0 and len(rest) < MAX_LINE_BYTES:
            start = max(place - BLOCK_BYTES, 0)
            file.seek(start)
            block, place = file.read(place - start) + rest, start
            if holding not in block:  # nothing but the begin of a line that may go on in the block before
                rest = block.partition(b"\n")[0]
                continue
            rest, *lines = block.split(b"\n")
            found = (line for line in reversed(lines) if holding in line)
            yield from (record for line in found if (record := parse(line)) is not None)
        if place == 0 and holding in rest and (record := parse(rest)) is not None:
            yield record


@dataclass(frozen=True)
class Last:
    """The last line of a file.

    Args:
        record: its object.
        start: where it begins, in bytes.
    """

    record: dict[str, Any]
    start: int


@dataclass
class _Judge:
    """Decides which lines stay, and counts what is damaged.

    Args:
        until: last step that stays.
        once: whether a step has one line only.
    """

    until: int
    once: bool
    step: int = -1
    n_damaged: int = 0
    first_damaged: int = 0
    n_later: int = 0
    first_later: int = 0

    def keeps(self, number: int, line: bytes) -> bool:
        """Tell whether a line stays."""
        match = OURS.fullmatch(line)
        step = int(match[1]) if match is not None else step_of(parse(line))
        if step is None or (step <= self.until and (step < self.step or (self.once and step == self.step))):
            if line.strip() and not _is_cut(line):
                self._damaged(number, 1)
            return False
        if step > self.until:
            self.n_later += 1
            self.first_later = self.first_later or number
            return False
        if self.n_later:  # they are not the end of the file, as lines of later steps are
            self._damaged(self.first_later, self.n_later)
            self.n_later = self.first_later = 0
        self.step = step
        return True

    def _damaged(self, number: int, how_many: int) -> None:
        self.first_damaged = min(self.first_damaged or number, number)
        self.n_damaged += how_many


def keep_until(path: Path, step: int, once: bool) -> Last | None:
    """Drop the lines after a step, which is where a run goes on; None if no line is left, or there is no file.

    A last line that was cut goes with them. If another line is no object, or has no step, or one that does not follow
    that of the line before, the file as it was is kept under another name. A kill at any moment loses nothing.

    Args:
        path: the file.
        step: the last one that stays.
        once: whether a step has one line only.
    """
    if not path.exists():
        return None
    judge = _Judge(step, once)
    place, start, last_line, is_prefix = 0, 0, b"", True
    with _opened(path) as file:
        for number, line in enumerate(_lines(file), start=1):
            if judge.keeps(number, line):
                is_prefix = is_prefix and place == start + len(last_line)
                start, last_line = place, line
            place += len(line)
    if is_prefix and not judge.n_damaged and last_line[-1:] in (b"\n", b""):
        os.truncate(path, start + len(last_line))
        return _last(last_line, start)
    return _rewritten(path, judge)


def keep_copy(path: Path, step: int) -> None:
    """Copy a file that has lines after a step, before they are dropped and nothing will write them again."""
    last = next((record for record in read_backward(path) if step_of(record) is not None), None)
    if last is not None and last["step"] > step:
        copy = path.with_name(f"{path.name}.until-{last['step']}")
        with _opened(path) as file, written_atomically(copy) as new:
            shutil.copyfileobj(file, new)
        log.warning("%s: lines after step %d, whose checkpoint is gone, are kept in %s.", path, step, copy.name)


def _rewritten(path: Path, found: _Judge) -> Last | None:
    """Write the lines that stay into a new file in the place of the old, which is kept if it was damaged."""
    if found.n_damaged:
        kept = _set_aside(path)
        others = f" and {found.n_damaged - 1} more" if found.n_damaged > 1 else ""
        log.warning(
            "%s: line %d%s is no JSON object with a step that follows; the other lines stay, and the file as it was is "
            "kept as %s.",
            *(path, found.first_damaged, others, kept.name),
        )
    judge = _Judge(found.until, found.once)
    start, last_line = 0, b""
    with _opened(path) as file, written_atomically(path) as new:
        for number, line in enumerate(_lines(file), start=1):
            if judge.keeps(number, line):
                start, last_line = new.tell(), line
                new.write(line if line.endswith(b"\n") else line + b"\n")
    return _last(last_line, start)


def _last(line: bytes, start: int) -> Last | None:
    record = parse(line)
    return None if record is None else Last(record, start)


def _set_aside(path: Path) -> Path:
    """Keep a file under a name that is free."""
    names = (path.with_name(f"{path.name}.damaged-{number}") for number in count(1))
    kept = next(name for name in names if not os.path.lexists(name))
    try:
        os.link(path, kept)
    except OSError:  # not every file system has links
        with _opened(path) as file, written_atomically(kept) as copy:
            shutil.copyfileobj(file, copy)
    return kept


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with open_regular(path) as file:
            yield file
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); train_composer.py writes it.") from None


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file with their ends; of one that is too long, its pieces."""
    while line := file.readline(MAX_LINE_BYTES):
        yield line
