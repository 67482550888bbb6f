"""MDS shards -> windows: a shard whose samples are windows, and the stream of a split's shards.

Shapes: T tokens.
"""

import errno
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from streaming import Stream
from streaming.base.format import Reader
from streaming.base.format.mds import MDSReader
from streaming.base.world import World

from hindsight.errors import DISK_FULL, InputError
from hindsight.files import open_regular
from hindsight.loading.remote import Remote
from hindsight.loading.shard_files import OpenFiles
from hindsight.loading.windows import SplitWindows, shard_extent
from hindsight.shards.integrity import check_once, find_fault, known_hashes, read_in_chunks
from hindsight.shards.mds import INDEX_NAME, find_mismatch


class WindowReader(MDSReader):
    """A shard whose samples are windows.

    Args:
        shard: the shard, whose samples are blocks.
        windows: the windows of the shard's split.
        number: index of the shard in the split; the last shard also has the empty windows that pad the last batch.
        files: reads its file.
        is_copy: whether to delete the file if it is damaged: it was downloaded, and is then downloaded again.
    """

    def __init__(
        self, shard: MDSReader, windows: SplitWindows, number: int, files: OpenFiles, is_copy: bool = False
    ) -> None:
        super().__init__(
            shard.dirname,
            shard.split,
            shard.column_encodings,
            shard.column_names,
            shard.column_sizes,
            shard.compression,
            shard.hashes,
            shard.raw_data,
            shard.samples,
            shard.size_limit,
            shard.zip_data,
        )
        self.n_blocks = shard.samples
        self.folder = Path(windows.folder)
        self.files, self.is_copy, self.vocab_size = files, is_copy, windows.vocab_size
        self.path = os.path.join(self.dirname, self.split, self.raw_data.basename)
        self.windows, self.context_length = windows, windows.context_length
        self.block_length = windows.block_length
        self.dtype = np.dtype(shard.column_encodings[0].split(":")[1])
        self.n_tokens, self.samples = shard_extent(windows, number)
        self.n_filled = windows.count(self.n_tokens)
        self.was_damaged = False
        self.begin: int | None = None  # byte at which the tokens begin, once the file was checked

    def get_item(self, idx: int) -> dict[str, Any]:
        """Read a window as {"tokens": (T or fewer,) token ids}; FileNotFoundError if the shard is not there yet."""
        start = self.windows.start(idx) if idx < self.n_filled else self.n_tokens
        stop = min(start + self.context_length, self.n_tokens)
        if self.begin is None:
            self.begin = self._check(Path(self.path))
        size = self.dtype.itemsize
        data = self.files.read(self.path, self.begin + start * size, max(stop - start, 0) * size)
        return {"tokens": np.frombuffer(data, self.dtype)}

    def _check(self, path: Path) -> int:
        """Check the file by size and hash, and its ids; return the offset of its tokens: blocks behind an index.

        Raises:
            InputError: the file is damaged.
            FileNotFoundError: it is not there, or was damaged, and is made again from its source.
        """
        n_bytes = path.stat().st_size
        try:
            with open_regular(path) as file:
                begin = int.from_bytes(file.read(8)[4:], "little")
            fault = "its size is not that of its index"
            if n_bytes == self.raw_data.bytes == begin + self.n_blocks * self.block_length * self.dtype.itemsize:
                expected = f"{self.raw_data.hashes} {self.vocab_size}"
                fault = check_once(self.folder, path, expected, partial(self._find_fault, path, begin))
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno != errno.EINVAL:  # of the machine or of its disk, not of what is in the file
                raise InputError(f"{path} cannot be read ({error.strerror}).") from error
            fault = str(error)
        if fault is None:
            return begin
        is_copy = self.is_copy or (self.zip_data and path.with_name(self.zip_data.basename).is_file())
        if is_copy and not self.was_damaged and _is_removed(path):
            self.was_damaged = True
            raise FileNotFoundError(f"{path} was damaged")
        raise InputError(f"{path} is damaged: {fault}; convert or copy the data again.")

    def _find_fault(self, path: Path, begin: int) -> str | None:
        with path.open("rb") as file:
            head = file.read(begin)
        tokens = read_in_chunks(path, begin, self.dtype)
        return find_fault(head, tokens, known_hashes(self.raw_data.hashes), self.vocab_size)


def _is_removed(path: Path) -> bool:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


class WindowStream(Stream):
    """The shards of a split, as windows.

    Args:
        windows: the windows of the split.
        remote: where they are downloaded from; None if they are in the split's folder.
        is_bounded: whether shards are evicted.
    """

    def __init__(self, windows: SplitWindows, remote: Remote | None = None, is_bounded: bool = False) -> None:
        if remote is None:
            super().__init__(local=windows.folder, split=windows.name, keep_zip=False)
        else:
            super().__init__(
                remote=remote.url,
                local=windows.folder,
                split=windows.name,
                download_retry=remote.retry,
                download_timeout=remote.timeout_s,
                keep_zip=False,
            )
        self.windows = windows
        self.files = OpenFiles(keep=not is_bounded)
        self.place = remote.url if remote is not None else windows.folder

    def close(self) -> None:
        """Close the files."""
        self.files.close()

    def get_shards(self, world: World, allow_unsafe_types: bool) -> list[Reader]:
        """Read the index; InputError if it is not the one that the manifest describes."""
        windows, shards = self.windows, []
        try:
            # Before Streaming reads the index, which may come from somebody else.
            place = Path(self.local, self.split or "")
            fault = find_mismatch(place, windows.n_tokens, windows.block_length, windows.blocks_per_shard)
            if fault is None:
                shards = super().get_shards(world, allow_unsafe_types)
        except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"data.path={self.place}: {self.windows.name}/{INDEX_NAME} is missing or damaged ({error}); "
                "convert or copy the data again."
            ) from error
        if fault is not None:
            raise InputError(
                f"data.path={self.place}: {self.windows.name}/{INDEX_NAME} {fault}; convert or copy the data again."
            )
        self.validate_hash = next(iter(known_hashes(shards[0].file_pairs[0][0].hashes)), None)
        is_copy = self.remote is not None
        return [
            WindowReader(shard, self.windows, i, self.files, is_copy)
            for i, shard in enumerate(shards)
            if isinstance(shard, MDSReader)
        ]

    def set_up_local(self, shards: list[Reader], cache_usage_per_shard: NDArray[np.int64]) -> None:
        """Find which shards are here; InputError if one is missing that cannot be downloaded."""
        super().set_up_local(shards, cache_usage_per_shard)
        if self.remote is None and not cache_usage_per_shard.all():
            name = shards[int(cache_usage_per_shard.argmin())].file_pairs[0][0].basename
            raise InputError(
                f"data.path={self.local}: {self.windows.name}/{name} is missing; convert or copy the data again."
            )

    def prepare_shard(self, shard: Reader) -> int:
        """Download and decompress a shard; any error is an InputError, and nothing of the shard stays in the cache."""
        try:
            return super().prepare_shard(shard)
        except Exception as error:  # every compression and every provider raises its own kinds
            raw, compressed = shard.file_pairs[0]
            name = f"{self.windows.name}/{(compressed or raw).basename}"
            if self.remote is None:
                raise InputError(
                    f"data.path={self.local}: {name} cannot be decompressed ({error}); make the folder writable, or "
                    "convert or copy the data again."
                ) from error
            for path in Path(self.local, self.split).glob(f"{raw.basename}*"):
                path.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                raise InputError(
                    f"data.cache_dir: the disk of {self.local} is full; make room, give another data.cache_dir, or "
                    "bound what is kept with data.cache_limit."
                ) from error
            raise InputError(
                f"data.path={self.place}: {name} cannot be fetched, or is not what it was when it was written "
                f"({error}); see whether it is there and whole, and check S3_ENDPOINT_URL and the keys. The same "
                "command goes on."
            ) from error
