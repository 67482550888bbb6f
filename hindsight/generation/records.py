"""A file of JSON lines that is made line by line, goes on after a kill, and gets its name when it is whole."""

import hashlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from hindsight.errors import InputError
from hindsight.files import local_path, locked, partial_of, read_json, write_atomically
from hindsight.json_lines import parse

log = logging.getLogger("hindsight")

SETTINGS, LINES = "settings.json", "lines.jsonl"
"""What the hidden folder holds: what the lines depend on, and those that are done."""
MAX_SETTINGS_BYTES = 1 << 20
LINE_INTERVAL_S = 30.0
"""Least seconds between two lines that say how far it is."""


def check_out(given: str) -> Path:
    """Raise InputError unless a new file can be made there."""
    out = local_path("out", given)
    if os.path.lexists(out):
        raise InputError(f"out={given} is there already; remove it, or choose another name.")
    if not out.parent.is_dir():
        raise InputError(f"out={given}: there is no folder {out.parent}; make it, or choose another name.")
    return out


class RecordsInWork:
    """Records of which the first are done.

    Args:
        file: the file in work, at its end.
        n_done: how many it has.
        total: how many there will be.
        what: what they are, for the line that says how far it is.
    """

    def __init__(self, file: BinaryIO, n_done: int, total: int, what: str) -> None:
        self.file, self.n_done, self.total, self.what = file, n_done, total, what
        self.n_before, self.began_s = n_done, time.monotonic()
        self.next_line_s = self.began_s + LINE_INTERVAL_S
        has_bar = sys.stderr.isatty() and sys.stdout.isatty()
        self.bar: tqdm[Any] = tqdm(initial=n_done, total=total, desc=what, unit="", disable=not has_bar)

    def add(self, record: dict[str, Any]) -> None:
        """Write the next record to the disk."""
        self.file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        self.file.flush()
        self.n_done += 1
        self.bar.update()
        now = time.monotonic()
        if self.bar.disable and now >= self.next_line_s:
            self.next_line_s = now + LINE_INTERVAL_S
            left_s = (self.total - self.n_done) * (now - self.began_s) / (self.n_done - self.n_before)
            log.info("%s: %d of %d · %s left", self.what, self.n_done, self.total, tqdm.format_interval(left_s))


@contextmanager
def records_in_work(out: Path, settings: dict[str, Any], total: int, what: str) -> Iterator[RecordsInWork]:
    """Give the records of `out` that are done, to add the others; in the end they take the name `out`.

    Args:
        out: what `check_out` gives.
        settings: all that records depend on.
        total: how many records there will be.
        what: what they are, for the line that says how far it is.

    Raises:
        InputError: another process makes the same file, or what is done of it was made with other settings.
    """
    folder = partial_of(out)
    with locked(folder, f"out={out}: another process makes it"):
        path = folder / LINES
        n_done, before = _keep_whole_lines(path), _settings_in(folder)
        if before != settings:
            if n_done:
                raise InputError(
                    f"out={out}: {n_done} of its lines are done, with other settings "
                    f"({_differences(before, settings)}); give those again, choose another out=, or remove {folder}."
                )
            write_atomically(folder / SETTINGS, json.dumps(settings))
        if n_done:
            log.info("out=%s: going on after %d of %d.", out, n_done, total)
        with path.open("ab") as file:
            records = RecordsInWork(file, n_done, total, what)
            try:
                yield records
            finally:
                records.bar.close()
            os.fsync(file.fileno())
        if os.path.lexists(out):
            raise InputError(f"out={out} has come to be meanwhile; what was made is kept as {path}.")
        path.rename(out)
        shutil.rmtree(folder, ignore_errors=True)


def _settings_in(folder: Path) -> dict[str, Any] | None:
    try:
        return read_json(folder / SETTINGS, MAX_SETTINGS_BYTES)
    except (OSError, ValueError):
        return None


def _differences(before: dict[str, Any] | None, now: dict[str, Any]) -> str:
    """Name the settings that differ, with the values of those that are numbers or switches."""
    if before is None:
        return "which cannot be read"
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    is_short = {name: not isinstance(now.get(name), str | dict) for name in names}
    values = {name: f"={json.dumps(before.get(name))} then, {json.dumps(now.get(name))} now" for name in names}
    return ", ".join(name + values[name] * is_short[name] for name in names)


def hash_of(texts: Sequence[Any]) -> str:
    """Hash texts, or lists of them, which are a setting of the records that are made of them."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def _keep_whole_lines(path: Path) -> int:
    """Drop a last line that was cut; return how many there are."""
    if not path.exists():
        return 0
    n_lines = n_bytes = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n") or parse(line) is None:
                break
            n_lines += 1
            n_bytes += len(line)
    os.truncate(path, n_bytes)
    return n_lines
