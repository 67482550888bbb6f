"""Files and folders that are written atomically, and never over something else.

Each is made under a hidden name beside its final one, and renamed when it is complete.
"""

import errno
import fcntl
import json
import logging
import os
import shutil
import socket
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from hindsight.errors import InputError

LOCKED = (errno.EACCES, errno.EAGAIN)
"""Errors of a lock that another process holds; others mean that the file system has none, as some of NFS (ENOLCK)."""
log = logging.getLogger("hindsight")


FLOCK = "hhqqi4x" if sys.platform == "linux" else "qqihh"
"""How C lays out its struct flock."""


def is_locked(path: Path) -> bool | None:
    """Tell whether another process holds the lock of a file, without taking it.

    Not for a process that may hold it itself: it would neither see its own lock nor keep it.

    Returns:
        None where the file system does not say, or the file may not be read.
    """
    asked = (fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        packed = struct.pack(FLOCK, *(asked if sys.platform == "linux" else asked[2:] + asked[:2]))
        told = struct.unpack(FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, packed))
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return told[0 if sys.platform == "linux" else 3] != fcntl.F_UNLCK


def say_unlocked(folder: Path, error: OSError) -> None:
    """Say that a folder cannot be locked; the work goes on."""
    log.warning("%s: no locks on this file system (%s); start nothing else that writes here.", folder, error.strerror)


def write_atomically(path: Path, *content: str | bytes | memoryview) -> None:
    """Write a file from its pieces, text as UTF-8, so that no reader ever sees an incomplete one."""
    with written_atomically(path) as file:
        for piece in content:
            file.write(piece.encode() if isinstance(piece, str) else piece)


def read_json(path: Path, max_bytes: int) -> dict[str, Any]:
    """Read a JSON object from a file that may come from somebody else.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no JSON object, is larger than `max_bytes`, or is nested too deeply.
    """
    with open_regular(path) as file:
        if (n_bytes := os.fstat(file.fileno()).st_size) > max_bytes:
            raise ValueError(f"it has {n_bytes} bytes, more than {max_bytes}")
        raw = file.read()
    try:
        content = json.loads(raw.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    return content


@contextmanager
def written_atomically(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write, which takes the place of another at the end; on an error, nothing changes."""
    partial = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a file to read; OSError for a folder, a device, or a pipe, on which one would wait for ever."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "no regular file", str(path))
        with open(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def set_usual_mode(path: Path) -> None:
    """Give a file the mode of any other that this process makes; libraries may write for its owner only."""
    probe = path.with_name(f".{path.name}.mode")
    with probe.open("wb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    probe.unlink()
    path.chmod(mode)


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk, so that they survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def local_path(key: str, path: str) -> Path:
    """Make a path absolute; InputError for an address such as s3://, which would become a folder of that name."""
    if "://" in path:
        raise InputError(f"{key}={path} is not on this machine; give a local path, and copy the result to the remote.")
    return Path(os.path.abspath(os.path.expanduser(path)))


def is_free(out: Path) -> bool:
    """Whether a folder can be made here: nothing is there, or an empty folder."""
    return not out.exists() or (out.is_dir() and not any(out.iterdir()))


def partial_of(out: Path) -> Path:
    """Give the hidden folder beside `out` in which it is made."""
    return out.parent / f".{out.name}.partial"


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give a folder to write into, inside a hidden one beside `out`; rename it to `out` at the end.

    Files that a killed process left are removed first; on any error, everything is removed.

    Raises:
        InputError: another process makes the same folder.
    """
    partial = partial_of(out)
    with locked(partial, f"out={out}: another process makes it"):
        try:
            result = partial / "result"
            shutil.rmtree(result, ignore_errors=True)
            result.mkdir()
            yield result
            if out.exists():
                out.rmdir()  # only if it is empty
            result.rename(out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def locked(folder: Path, doing: str, is_shared: bool = False) -> Iterator[None]:
    """Lock a folder, made if it is missing, for this process; InputError that begins with `doing` if another holds it.

    The lock ends with the process, however that ends, and forked children do not inherit it. Several processes may hold
    it if all of them share it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as file:
        try:
            fcntl.lockf(file, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in LOCKED:
                say_unlocked(folder, error)
                yield
                return
            file.seek(0)
            raise InputError(f"{doing} (process {file.read().strip()}); wait for it, or end it.") from None
        file.truncate(0)
        file.write(f"{os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
