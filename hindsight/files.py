"""Files and folders that scripts write: whole or not at all, and never over something else.

Each is made beside its place under a hidden name and renamed when it is complete.
"""

import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hindsight.errors import InputError


def write_atomically(path: Path, *content: str | bytes | memoryview) -> None:
    """Write a file from its pieces, text as UTF-8, so that no reader ever sees half of it."""
    partial = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            for piece in content:
                file.write(piece.encode() if isinstance(piece, str) else piece)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Let a file, or the names in a folder, reach the disk, so that a power cut does not take them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def local_path(key: str, path: str) -> Path:
    """Give a path as absolute; InputError for an address such as s3://, which would become a folder of that name."""
    if "://" in path:
        raise InputError(f"{key}={path} is not on this machine; give a local path, and copy the result to the remote.")
    return Path(os.path.abspath(os.path.expanduser(path)))


def is_free(out: Path) -> bool:
    """Whether a folder can be made at this place: nothing is there, or an empty folder."""
    return not out.exists() or (out.is_dir() and not any(out.iterdir()))


def partial_of(out: Path) -> Path:
    """Name the hidden folder beside `out` in which it is made."""
    return out.parent / f".{out.name}.partial"


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give a folder beside `out`, inside a hidden one, to write into; rename it to `out` at the end.

    What a killed process left of an earlier attempt is removed first, and all of it on any error.

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
def locked(folder: Path, doing: str) -> Iterator[None]:
    """Hold a folder, made if need be, for this process; InputError, with what another is doing, if that holds it.

    The lock ends with the process, however that ends, and forked children do not inherit it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise InputError(f"{doing} (process {file.read().strip()}); wait for it, or end it.") from None
        file.truncate(0)
        file.write(f"{os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
