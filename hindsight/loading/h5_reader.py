"""An h5 file of tokens -> the same batches as from MDS shards.

The file's one-dimensional `tokens` holds the training stream followed by the validation stream. It is read through
the same dataset as MDS, in pieces of as many blocks as an MDS shard has, so that order, partition and resuming are the
same.
"""

import os
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from streaming import Stream
from streaming.base.format.base.reader import FileInfo, JointReader, Reader
from streaming.base.world import World

from hindsight.errors import InputError
from hindsight.loading.shard_files import OpenFiles
from hindsight.loading.windows import SplitWindows, shard_extent
from hindsight.shards.h5 import H5_NAME, open_tokens


class H5WindowReader(JointReader):
    """A piece of `tokens`, in the place of a shard, whose samples are windows.

    Args:
        path: the h5 file.
        windows: the windows of the piece's split.
        split_start: index in `tokens` at which the split begins.
        number: index of the piece in the split.
        files: reads the file.
    """

    def __init__(self, path: Path, windows: SplitWindows, split_start: int, number: int, files: OpenFiles) -> None:
        n_tokens, n_windows = shard_extent(windows, number)
        info = FileInfo(path.name, path.stat().st_size, {})
        super().__init__(str(path.parent), "", None, [], info, n_windows, None, None)
        self.path = path
        self.windows, self.context_length = windows, windows.context_length
        self.start = split_start + number * windows.block_length * windows.blocks_per_shard
        self.n_tokens, self.n_filled = n_tokens, windows.count(n_tokens)
        self.files = files
        self.opened: tuple[int, h5py.Dataset] | None = None
        self.contiguous: tuple[int, np.dtype] | None = None  # where the tokens begin in the file, and their type

    def get_item(self, idx: int) -> dict[str, NDArray]:
        """Read a window as {"tokens": (T or fewer,) token ids}."""
        start = self.windows.start(idx) if idx < self.n_filled else self.n_tokens
        stop = min(start + self.context_length, self.n_tokens)
        try:
            if self.contiguous is None and self.opened is None:
                self._look()
            if self.contiguous is None:
                return {"tokens": self._tokens()[self.start + start : self.start + stop]}
        except OSError as error:
            raise InputError(f"{self.path} is damaged ({error}); convert or copy the data again.") from error
        begin, dtype = self.contiguous
        size = dtype.itemsize
        try:
            data = self.files.read(str(self.path), begin + (self.start + start) * size, max(stop - start, 0) * size)
        except FileNotFoundError as error:
            raise InputError(f"{self.path} is missing; convert or copy the data again.") from error
        return {"tokens": np.frombuffer(data, dtype)}

    def get_sample_data(self, idx: int) -> bytes:
        """Read a window as bytes."""
        return self.get_item(idx)["tokens"].tobytes()

    def decode_sample(self, data: bytes) -> dict[str, NDArray]:
        """Decode the bytes of `get_sample_data`."""
        dtype = self.contiguous[1] if self.contiguous is not None else self._tokens().dtype
        return {"tokens": np.frombuffer(data, dtype)}

    def set_up_local(self, listing: set[str], safe_keep_zip: bool) -> int:
        """Return the bytes of the piece that are on this disk: all of them."""
        return self.raw_data.bytes

    def close(self) -> None:
        """Close a file whose tokens do not lie in one stretch; it is opened again when it is read."""
        if self.opened is not None and self.opened[0] == os.getpid():
            self.opened[1].file.close()
        self.opened = None

    def _look(self) -> None:
        """Find whether all tokens lie in one stretch of the file: reading there is faster than h5py's slices."""
        tokens = self._tokens()
        if (begin := tokens.id.get_offset()) is not None:
            self.contiguous, self.opened = (begin, tokens.dtype), None
            tokens.file.close()

    def _tokens(self) -> h5py.Dataset:
        if self.opened is None or self.opened[0] != os.getpid():  # an h5 handle does not survive a fork
            self.opened = os.getpid(), open_tokens(self.path)
        return self.opened[1]


class H5Stream(Stream):
    """The pieces of a split, as windows."""

    def __init__(self, windows: SplitWindows, split_start: int) -> None:
        super().__init__(local=windows.folder, split=windows.name, keep_zip=False)
        self.windows = windows
        self.split_start = split_start
        self.files = OpenFiles()
        self.readers: list[H5WindowReader] = []

    def close(self) -> None:
        """Close the file."""
        self.files.close()
        for reader in self.readers:
            reader.close()

    def get_shards(self, world: World, allow_unsafe_types: bool) -> list[Reader]:
        """Divide the split into pieces of as many blocks as an MDS shard has."""
        path = Path(self.windows.folder, H5_NAME)
        try:
            tokens = open_tokens(path)
            with tokens.file:
                n_stored = len(tokens)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is missing or damaged ({error}); convert or copy the data again.") from error
        if n_stored < self.split_start + self.windows.n_tokens:
            raise InputError(f"{path} has fewer tokens than manifest.json says; convert or copy the data again.")
        n_shards = self.windows.n_shards
        self.readers = [H5WindowReader(path, self.windows, self.split_start, i, self.files) for i in range(n_shards)]
        return [*self.readers]

    def set_up_local(self, shards: list[Reader], cache_usage_per_shard: NDArray[np.int64]) -> None:
        """Mark every piece as being here."""
        cache_usage_per_shard[:] = [shard.set_up_local(set(), False) for shard in shards]
