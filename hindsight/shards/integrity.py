"""Whether a file of tokens is what it was when it was written: its hash, and no token id beyond the vocabulary.

Reading a GiB for that takes 0.2 s where it is in memory, and longer from a disk. What was found intact is therefore
recorded beside the manifest, and read again only when the file has changed. Where nothing can be recorded, as in a
folder that is read-only, every process checks what it reads.
"""

import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

RECORD_NAME = ".checked"
"""File beside the manifest: a key for each state of a file that was found intact."""
MAX_RECORD_BYTES = 1 << 26
"""A larger record is not read: it takes 30 bytes a shard."""
KEY_CHARS = 32
CHUNK_BYTES = 1 << 20
"""Bytes that are hashed and looked through at once, while they are in the processor's cache."""
QUICK_HASHES = {"xxh64"}
"""Hashes that need no import of Streaming."""
WAIT_S = 5.0
"""Longest wait for another process that checks the same file, and WAIT_S_PER_BYTE more for each of its bytes."""
WAIT_S_PER_BYTE = 2e-8
POLL_S = 0.005


def known_hashes(hashes: dict[str, str]) -> dict[str, str]:
    """Choose one of a file's hashes that can be computed here, the quickest; an empty dict if there is none."""
    for name in sorted(hashes, key=lambda name: name not in QUICK_HASHES):
        if name in QUICK_HASHES:
            return {name: hashes[name]}
        from streaming.base.hashing import get_hashes  # imported late: it takes seconds

        if name in get_hashes():
            return {name: hashes[name]}
    return {}


def hash_of(algorithm: str, pieces: Iterable[bytes | memoryview]) -> str:
    """Hash the pieces of a file as Streaming does."""
    if algorithm in QUICK_HASHES:
        digest = xxhash.xxh64()
        for piece in pieces:
            digest.update(piece)
        return digest.hexdigest()
    from streaming.base.hashing import get_hash  # imported late: it takes seconds

    return get_hash(algorithm, b"".join(pieces))


def find_fault(head: bytes, tokens: Iterable[NDArray], hashes: dict[str, str], vocab_size: int) -> str | None:
    """Say what is wrong with a file; None if it is intact.

    Args:
        head: what stands before the tokens.
        tokens: the tokens, in pieces.
        hashes: the file's hash by the name of its kind; empty if it has none.
        vocab_size: number of token ids.
    """
    low, high = 0, -1

    def pieces() -> Iterator[memoryview | bytes]:
        nonlocal low, high
        yield head
        for some in tokens:
            if len(some):
                low, high = min(low, int(some.min())), max(high, int(some.max()))
                yield np.ascontiguousarray(some).view(np.uint8).data

    if hashes:
        ((name, expected),) = hashes.items()
        if hash_of(name, pieces()) != expected:
            return "its hash is not what it was when it was written"
    else:
        for _ in pieces():
            pass
    if low < 0 or high >= vocab_size:
        return f"it holds the token id {low if low < 0 else high}, and the vocabulary only ids below {vocab_size}"
    return None


def read_in_chunks(path: Path, begin: int, dtype: np.dtype) -> Iterator[NDArray]:
    """Read the tokens of a file from the byte `begin` to its end."""
    with path.open("rb") as file:
        file.seek(begin)
        while len(tokens := np.fromfile(file, dtype, CHUNK_BYTES // dtype.itemsize)):
            yield tokens


def check_once(folder: Path, path: Path, expected: str, find: Callable[[], str | None]) -> str | None:
    """Look for a fault in a file, unless it was found intact before and has not changed since.

    Processes that need the same file at the same time wait for the first of them.

    Args:
        folder: the converted corpus, where the record is kept.
        path: the file, in this folder.
        expected: what the file is compared with; part of the record's key.
        find: looks for a fault, and describes it; None if there is none.
    """
    status = path.stat()
    key = _key(folder, path, expected, status)
    record = folder / RECORD_NAME
    with _opened(record, os.O_RDONLY) as descriptor:
        if _holds(descriptor, key):
            return None
    with _opened(record, os.O_RDWR | os.O_APPEND | os.O_CREAT) as descriptor:
        _lock(descriptor, key, WAIT_S + status.st_size * WAIT_S_PER_BYTE)
        if _holds(descriptor, key):
            return None
        fault = find()
        if fault is None and descriptor is not None and _key(folder, path, expected, path.stat()) == key:
            with suppress(OSError):  # a full disk: it is checked again at the next start
                os.write(descriptor, f"{key}\n".encode())
        return fault


def _key(folder: Path, path: Path, expected: str, status: os.stat_result) -> str:
    """Name a state of a file: whatever changes its content, or puts another in its place, changes this."""
    place = path.relative_to(folder)
    state = f"{place} {expected} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
    return hashlib.blake2b(state.encode(errors="surrogateescape"), digest_size=KEY_CHARS // 2).hexdigest()


@contextmanager
def _opened(record: Path, flags: int) -> Iterator[int | None]:
    """Open the record, if it is a plain file of this user's, or of whoever owns the corpus; None otherwise."""
    try:
        descriptor = os.open(record, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError:
        yield None
        return
    try:
        status = os.fstat(descriptor)
        owners = {os.getuid(), record.parent.stat().st_uid}
        is_ours = stat.S_ISREG(status.st_mode) and status.st_uid in owners and status.st_size <= MAX_RECORD_BYTES
        yield descriptor if is_ours else None
    finally:
        os.close(descriptor)


def _holds(descriptor: int | None, key: str) -> bool:
    return descriptor is not None and key.encode() in os.pread(descriptor, MAX_RECORD_BYTES, 0).split()


def _lock(descriptor: int | None, key: str, wait_s: float) -> None:
    """Lock the byte of the record that stands for the key, until the record is closed, or do without after a while.

    The byte is far behind the end. Closing any other descriptor of the record would give up the lock.
    """
    deadline = time.monotonic() + wait_s
    while descriptor is not None and time.monotonic() < deadline:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, (1 << 40) + int(key[:7], 16))
            return
        except (BlockingIOError, PermissionError):  # another process holds it
            time.sleep(POLL_S)
        except OSError:  # a file system without locks
            return
