"""Streaming's shared memory, on a machine where other runs train, begin and are killed.

Streaming 0.13.0 numbers its segments in /dev/shm by searching for the first free number, so that two datasets that are
opened at the same time may take the same one; a killed process leaves its segments behind; and Streaming's own
`clean_stale_shared_memory` also unlinks segments that others are using, and stops at the first number that is free
(https://github.com/mosaicml/streaming, streaming/base/shared/prefix.py and util.py). Delete with a Streaming that does
none of this.
"""

import fcntl
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from streaming.base.constant import BARRIER_FILELOCK, CACHE_FILELOCK, LOCALS, SHM_TO_CLEAN

SEGMENTS = Path("/dev/shm")  # noqa: S108 - where Linux keeps shared memory
NAME = re.compile(rf"\d{{6}}_({'|'.join([*SHM_TO_CLEAN, BARRIER_FILELOCK, CACHE_FILELOCK])})")


LOCK = SEGMENTS / "hindsight.lock"
"""One for the whole machine, outside TMPDIR, of which each job may have its own."""
LOCK_TIMEOUT_S = 120.0
"""Opening datasets takes a second; a process that waits longer than this continues without the lock."""


@contextmanager
def one_process_at_a_time() -> Iterator[None]:
    """Hold the machine's lock, so that no other process opens datasets meanwhile."""
    if not SEGMENTS.is_dir():
        yield
        return
    try:
        descriptor = _open_lock()
    except OSError:  # another user keeps it from us: better without the lock than not at all
        yield
        return
    try:
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _open_lock() -> int:
    try:
        return os.open(LOCK, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return os.open(LOCK, os.O_CREAT | os.O_RDONLY | os.O_NOFOLLOW, 0o644)


def remove_unused() -> None:
    """Unlink segments of this user that no process has mapped or open, and lock files without a segment.

    Segments that another process is using, or that belong to another user, stay. Without /dev/shm there are none.
    """
    mine = _named_by_streaming(SEGMENTS)
    used = _in_use() if mine else set()
    for path in mine:
        if str(path) not in used:
            path.unlink(missing_ok=True)
    for path in _named_by_streaming(Path(tempfile.gettempdir())):
        if not (SEGMENTS / f"{path.name[:6]}_{LOCALS}").exists():
            path.unlink(missing_ok=True)


def _named_by_streaming(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    paths = []
    for path in (Path(entry.path) for entry in os.scandir(folder) if NAME.fullmatch(entry.name)):
        with suppress(FileNotFoundError):  # a run that ends meanwhile unlinks its own
            if path.stat().st_uid == os.getuid():
                paths.append(path)
    return paths


def _in_use() -> set[str]:
    """Paths below /dev/shm that a process of this user has mapped, or has opened in order to map them."""
    used: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            for line in (process / "maps").read_text().splitlines():
                used.add(line[line.find("/") :] if "/dev/shm/" in line else "")  # noqa: S108
            used |= {os.readlink(link) for link in (process / "fd").iterdir()}
        except OSError:  # the process has ended, or belongs to another user, whose segments are not touched
            continue
    return used
