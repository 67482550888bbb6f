"""Files that the readers of a node share: read without mapping them, fetched once, and evicted where space is bounded.

Readers are the ranks of a node and their data workers, any of which may be killed at any moment. They agree by locks
on files, which end with their process, and by nothing else: neither shared memory nor names in a folder for temporary
files, which other runs and users could meet.
"""

import fcntl
import os
import resource
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from streaming import Stream
from streaming.base.format import Reader

from hindsight.errors import InputError
from hindsight.shards.mds import INDEX_NAME

OPEN_FILES = 256
"""Most files that stay open at a time: the windows of an epoch's next steps lie in 20 shards of the default size, or in
160 of 8 MiB."""
OPEN_SHARE = 8
"""The part of the descriptors that a process may have which they take: one of so many."""
LOCKS = 64
"""Locks of a cache, which its shards share."""
LOCK_POLL_S = 0.02


def most_open() -> int:
    """Files that stay open at a time, with the limit of this process (`ulimit -n`)."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return OPEN_FILES if limit == resource.RLIM_INFINITY else max(1, min(OPEN_FILES, limit // OPEN_SHARE))


class OpenFiles:
    """Reads pieces of files, keeping those open that were read last.

    A mapped file that is cut, or cannot be read, ends the process by SIGBUS, without a word.

    Args:
        keep: whether files stay open. Not where they are evicted: one that any process has open keeps its space on the
            disk after it is deleted; there each read marks its file as used.
    """

    def __init__(self, keep: bool = True) -> None:
        self.limit = most_open() if keep else 0
        self.descriptors: OrderedDict[str, int] = OrderedDict()

    def read(self, path: str, start: int, n_bytes: int) -> bytes:
        """Read a piece; InputError if the file has become shorter, FileNotFoundError if it is not there."""
        descriptor = self.descriptors.get(path)
        if descriptor is None:
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise
            except OSError as error:
                raise InputError(f"{path} cannot be read ({error.strerror}).") from error
            if self.limit:
                self.descriptors[path] = descriptor
            if len(self.descriptors) > self.limit:
                os.close(self.descriptors.popitem(last=False)[1])
        else:
            self.descriptors.move_to_end(path)
        try:
            data = os.pread(descriptor, n_bytes, start)
            while 0 < len(data) < n_bytes and (more := os.pread(descriptor, n_bytes - len(data), start + len(data))):
                data += more
            if not self.limit:
                os.utime(descriptor)
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}); copy it from elsewhere.") from error
        finally:
            if not self.limit:
                os.close(descriptor)
        if len(data) != n_bytes:
            raise InputError(f"{path} was cut while it was read; convert or copy the data again.")
        return data

    def close(self) -> None:
        """Close all files; they are opened again when they are read."""
        while self.descriptors:
            os.close(self.descriptors.popitem()[1])

    def __del__(self) -> None:
        """Close them with the dataset."""
        self.close()


class Shards:
    """The shards of a split that are not there as they are read, but are fetched or decompressed.

    Args:
        stream: downloads and decompresses them.
        shards: their readers.
        limit: most bytes that a cache keeps; None for no limit.
    """

    def __init__(self, stream: Stream, shards: list[Reader], limit: int | None) -> None:
        self.stream, self.shards, self.limit = stream, shards, limit
        self.folder = Path(stream.local, stream.split)
        self.names = {info.basename: i for i, shard in enumerate(shards) for info in shard.file_pairs[0] if info}
        largest = max(shard.get_max_size() for shard in shards)
        if limit is not None and limit < max(4 * largest, stream.get_index_size() + largest):
            raise InputError(
                f"data.cache_limit: {limit} bytes are less than four shards of {largest} bytes, or than one and their "
                "index; raise it."
            )

    def prepare(self, number: int, wait: bool = True) -> None:
        """Fetch or decompress a shard, unless another reader has.

        Args:
            number: index of the shard.
            wait: whether to wait while another reader does.
        """
        raw, compressed = self.shards[number].file_pairs[0]
        if (self.folder / raw.basename).is_file():
            return
        if self.stream.remote is not None:
            lock = _locked(self._lock(number), os.O_CREAT, wait)
        elif compressed is not None:
            lock = _locked(self.folder / compressed.basename, 0, wait)  # the folder may be read-only for us
        else:
            raise InputError(f"{self.folder / raw.basename} is missing; convert or copy the data again.")
        with lock as is_mine:
            if is_mine and not (self.folder / raw.basename).is_file():
                if self.limit is not None:
                    self._make_room(self.limit - self.shards[number].get_max_size())
                self.stream.prepare_shard(self.shards[number])

    def remove_strays(self) -> None:
        """Remove what a killed download left: it counts as used space, and nobody reads it."""
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.name not in self.names and path.name != INDEX_NAME and not path.name.startswith(".lock"):
                path.unlink(missing_ok=True)

    def _make_room(self, limit: int) -> None:
        """Evict the shards that were not used for longest, until no more than `limit` bytes are left."""
        with _locked(self.folder / ".lock-evict", os.O_CREAT):
            files = []
            for entry in os.scandir(self.folder):
                with suppress(FileNotFoundError):
                    files.append((entry.stat().st_mtime_ns, entry.stat().st_size, self.names.get(entry.name)))
            used = sum(size for _, size, _ in files)
            for _, size, number in sorted((file for file in files if file[2] is not None), key=lambda file: file[0]):
                if used <= limit:
                    return
                with _locked(self._lock(number), os.O_CREAT, wait=False) as is_free:  # else it is being fetched
                    if is_free:
                        with suppress(FileNotFoundError):
                            self.shards[number].evict()
                        used -= size

    def _lock(self, number: int) -> Path:
        return self.folder / f".lock-{number % LOCKS}"


@contextmanager
def _locked(path: Path, flags: int, wait: bool = True) -> Iterator[bool]:
    """Lock a file, which ends with this process; whether it is locked. One that knows no locks counts as locked."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    yield False
                    return
                time.sleep(LOCK_POLL_S)
            except OSError:  # the file system has no locks: two may fetch the same, and what they get is verified
                break
            else:
                break
        yield True
    finally:
        os.close(descriptor)
