"""Temporary files of this process, where neither other users nor a kill can do harm.

Names in $TMPDIR can be guessed, and on most machines all users may write there. All that is kept there lies in one
folder of this user, which nobody else may enter. Each process has a folder of its own inside, for itself and for the
libraries it uses, locked while it lives: what a killed process left is removed by the next that begins.
"""

import atexit
import fcntl
import hashlib
import os
import re
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hindsight.errors import InputError

OWN = f"t-{hashlib.blake2b(socket.gethostname().encode(), digest_size=3).hexdigest()}-"
"""Prefix of the folder of a process of this host: where hosts share $TMPDIR, they may not see each other's locks."""
LONGEST = 75
"""Longest path of such a folder: a library puts a socket into it, whose path has at most 107 bytes."""
LAUNCHER = "launcher"
"""File with the number of composer's launcher, and the folder that it made for the output of this process."""
LOCK_TIMEOUT_S = 10.0
"""Making or removing a folder takes milliseconds; a process that waits longer goes on without."""

_folder: Path | None = None


def users_folder() -> Path:
    """Give the folder of this user in $TMPDIR, made if it is missing; what is kept there outlives the process."""
    return _folder or private_folder(Path(tempfile.gettempdir(), f"hindsight-{os.getuid()}"), "TMPDIR")


def private_folder(path: Path, key: str) -> Path:
    """Make a folder that only this user may enter; InputError if another could write what is in it.

    Args:
        path: the folder; those above it are made as well.
        key: the key or variable that chooses another place.
    """
    path = Path(os.path.abspath(path))
    _check_way(path, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    _check_way(path, key)
    status, fault = path.lstat(), None
    if stat.S_ISLNK(status.st_mode):
        fault = "is a symbolic link"
    elif not stat.S_ISDIR(status.st_mode):
        fault = "is no folder"
    elif status.st_uid != os.geteuid():
        fault = f"belongs to another user ({status.st_uid})"
    elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        fault = f"may be written by others (mode {stat.S_IMODE(status.st_mode):o})"
    if fault is not None:
        raise InputError(
            f"{path} {fault}; what is kept there must be out of reach for other users. Remove it, or choose another "
            f"place by {key}."
        )
    if stat.S_IMODE(status.st_mode) != 0o700:  # earlier versions let others read
        path.chmod(0o700)
    return path


def _check_way(path: Path, key: str) -> None:
    """Refuse a path on which another user could put a folder or link of theirs; what is missing yet is no concern."""
    for each in (path, path.resolve()):
        for folder, entry in zip([*each.parents][::-1], [*[*each.parents][::-1][1:], each], strict=True):
            if not folder.exists() or not (mode := folder.stat().st_mode) & stat.S_IWOTH:
                continue
            if not mode & stat.S_ISVTX:
                raise InputError(
                    f"{entry}: all users may replace what is in {folder}, which lacks the sticky bit; set it "
                    f"(chmod +t), or choose another place by {key}."
                )
            with suppress(FileNotFoundError):
                if (owner := entry.lstat().st_uid) not in (0, os.geteuid()):
                    raise InputError(
                        f"{entry} belongs to another user ({owner}), who could change what is kept there; remove it, "
                        f"or choose another place by {key}."
                    )


def use_own_folder() -> None:
    """Keep the temporary files of this process, and of those that it starts, in a folder that goes with it."""
    global _folder
    if _folder is not None:
        return
    place = users_folder()
    # PyTorch would compile into a folder that any user can name beforehand, and run what it finds there.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(place / "torchinductor"))
    _folder = place
    if len(str(place)) + len(OWN) + 9 > LONGEST:
        return
    with _locked(place / "lock"):
        for path in place.glob(f"{OWN}*"):
            _remove_unused(path)
        own = Path(tempfile.mkdtemp(prefix=OWN, dir=place))
        descriptor = os.open(own / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)  # open until the end
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    _note_launcher(own)
    os.environ["TMPDIR"] = tempfile.tempdir = str(own)
    process = os.getpid()
    atexit.register(lambda: _remove(own) if os.getpid() == process else None)


def _remove_unused(path: Path) -> None:
    """Remove the folder of a process that has ended without removing it."""
    with suppress(OSError), (path / "lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(path)


def _remove(own: Path) -> None:
    with suppress(OSError, ValueError):
        process, folder = (own / LAUNCHER).read_text().split(maxsplit=1)
        has_left = os.getppid() != int(process) and not _is_running(process)
        if has_left and os.lstat(folder).st_uid == os.geteuid():
            shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(own, ignore_errors=True)


def _is_running(process: str) -> bool:
    try:
        return Path("/proc", process, "stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def _note_launcher(own: Path) -> None:
    """Note the folder into which composer's launcher has this process write: a launcher that is killed leaves it."""
    with suppress(OSError):
        output = Path(os.readlink("/proc/self/fd/1"))
        if re.fullmatch(r"rank\d+\.stdout\.txt", output.name) and re.fullmatch(r"tmp\w{8}", output.parent.name):
            (own / LAUNCHER).write_text(f"{os.getppid()} {output.parent}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.02)
            except OSError:
                break
        yield
    finally:
        os.close(descriptor)
