"""MDS shards -> batches of (inputs, targets), the same windows in the same order for both directions.

Streaming sees every window (windows.py) as a sample, so that its partition over nodes, devices and workers, and its
state for resuming, hold for windows.

Shapes: B windows, T tokens.
"""

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Semaphore, Thread, main_thread
from typing import Any

import numpy as np
import torch
from composer.core import DataSpec
from numpy.typing import NDArray
from streaming import Stream, StreamingDataLoader, StreamingDataset
from streaming.base.dataset import _ShardState
from streaming.base.format import Reader
from streaming.base.format.mds import MDSReader
from streaming.base.hashing import get_hash
from streaming.base.world import World
from torch import Tensor

from config import DISK_FULL, Direction, InputError
from direction import IGNORED, make_example
from interrupts import leave_with_parent
from manifest import check_names
from remote_data import Remote
from windows import Split, shard_extent, window_order

SHARDS_AHEAD = 2
"""Shards that are fetched from object storage before their first window is asked for."""
LONGEST_LEAVE_S = 0.2
"""Seconds after which a thread that fetches ahead notices that its process ends."""
CHUNK_WINDOWS = 1 << 12
"""Window numbers that are turned into Python's at a time: one takes 8 bytes in NumPy's array, and 40 in a list."""


class WindowReader(MDSReader):
    """A shard whose samples are windows.

    Args:
        shard: the shard, whose samples are blocks.
        split: the split that the shard belongs to.
        number: the shard's place in the split; the last shard also has the windows that fill up the last batch.
        verify: whether to compare its hash at its first use, and to delete it if it is another: Streaming fetches
            it anew then. A fetched shard may have been cut or damaged since.
        mapped: whether the file is mapped into memory. It is read window by window instead where shards are evicted: a
            file that any process has mapped keeps its place on the disk after it is deleted.
    """

    def __init__(self, shard: MDSReader, split: Split, number: int, verify: bool = False, mapped: bool = True) -> None:
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
        self.verify, self.mapped = verify, mapped
        self.context_length = split.context_length
        self.block_length = split.block_length
        self.dtype = np.dtype(shard.column_encodings[0].split(":")[1])
        self.n_tokens, self.samples = shard_extent(split, number)
        self.tokens: NDArray | None = None  # a plain array over the mapped file: a memmap takes longer to slice
        self.begin: int | None = None  # byte at which the tokens begin, once the file was checked

    def get_item(self, idx: int) -> dict[str, Any]:
        """Give a window as {"tokens": (T or fewer,) token ids}; FileNotFoundError if the shard is not there yet."""
        start = idx * self.context_length
        stop = min(start + self.context_length, self.n_tokens)
        if self.tokens is not None:
            return {"tokens": self.tokens[start:stop]}
        path = Path(self.dirname, self.split, self.raw_data.basename)
        if self.begin is None:
            self.begin = self._check(path)
        if self.mapped:
            self.tokens = map_bytes(path)[self.begin :].view(self.dtype)
            return {"tokens": self.tokens[start:stop]}
        place = self.begin + start * self.dtype.itemsize
        return {"tokens": np.fromfile(path, self.dtype, max(stop - start, 0), offset=place)}

    def evict(self) -> int:
        """Delete the shard from the cache, and let go of its pages."""
        self.tokens = None
        return super().evict()

    def _check(self, path: Path) -> int:
        """Give the byte at which the tokens begin: blocks of a fixed size lie one after the other behind an index."""
        if self.verify:
            data = path.read_bytes()
            if any(get_hash(name, data) != value for name, value in self.raw_data.hashes.items()):
                path.unlink()
                raise FileNotFoundError(f"{path} was damaged")
        n_bytes = path.stat().st_size
        with path.open("rb") as file:
            begin = int.from_bytes(file.read(8)[4:], "little")
        if n_bytes != self.raw_data.bytes or n_bytes != begin + self.n_blocks * self.block_length * self.dtype.itemsize:
            raise InputError(f"{path} is damaged: its size is not that of its index; convert or copy the data again.")
        return begin


def map_bytes(path: Path) -> NDArray[np.uint8]:
    """Map a file that is not empty. np.memmap would keep a file descriptor; a process has as few as 1024 of them."""
    return torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8).numpy()


class WindowStream(Stream):
    """The shards of a split, as windows.

    Args:
        split: the split.
        remote: where they are fetched from; None if they lie in the split's folder.
        is_bounded: whether shards are evicted.
    """

    def __init__(self, split: Split, remote: Remote | None = None, is_bounded: bool = False) -> None:
        if remote is None:
            super().__init__(local=split.folder, split=split.name)
        else:
            super().__init__(
                remote=remote.url,
                local=split.folder,
                split=split.name,
                download_retry=remote.retry,
                download_timeout=remote.timeout_s,
            )
        self.windows = split
        self.is_bounded = is_bounded
        self.place = remote.url if remote is not None else split.folder

    def get_shards(self, world: World, allow_unsafe_types: bool) -> list[Reader]:
        """Read the index; InputError if it is not the one that the manifest describes."""
        try:
            shards = super().get_shards(world, allow_unsafe_types)
            check_names(info.basename for shard in shards for pair in shard.file_pairs for info in pair if info)
        except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"data.path={self.place}: {self.windows.name}/index.json is missing or damaged ({error}); "
                "convert or copy the data again."
            ) from error
        blocks = -(-self.windows.n_tokens // self.windows.block_length)
        if len(shards) != self.windows.n_shards or sum(len(shard) for shard in shards) != blocks:
            raise InputError(
                f"data.path={self.place}: {self.windows.name}/index.json lists other shards than manifest.json; "
                "convert or copy the data again."
            )
        if self.remote is not None and (hashes := shards[0].file_pairs[0][0].hashes):
            self.validate_hash = next(iter(hashes))
        verify = self.remote is not None
        return [
            WindowReader(shard, self.windows, i, verify, mapped=not self.is_bounded)
            for i, shard in enumerate(shards)
            if isinstance(shard, MDSReader)
        ]

    def set_up_local(self, shards: list[Reader], cache_usage_per_shard: NDArray[np.int64]) -> None:
        """See which shards are here; InputError if one is missing that is to be found nowhere else."""
        super().set_up_local(shards, cache_usage_per_shard)
        if self.remote is None and not cache_usage_per_shard.all():
            name = shards[int(cache_usage_per_shard.argmin())].file_pairs[0][0].basename
            raise InputError(
                f"data.path={self.local}: {self.windows.name}/{name} is missing; convert or copy the data again."
            )

    def prepare_shard(self, shard: Reader) -> int:
        """Fetch and decompress a shard; on any error InputError, and nothing of the shard stays in the cache."""
        try:
            return super().prepare_shard(shard)
        except Exception as error:  # every compression and every provider has its own
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


class TextStreamingDataset(StreamingDataset):
    """Windows of a split, in `window_order`, divided among devices and workers.

    With one canonical node, a global batch is a stretch of that order, whatever the number of devices.

    Args:
        stream: the split's shards.
        split: the split.
        device_batch_size: windows that one device takes from a global batch.
        shuffle: whether to shuffle.
        seed: seed of the shuffle.
        cache_limit: most bytes of fetched shards that stay, such as 20gb; None for no limit.
    """

    def __init__(
        self,
        stream: Stream,
        split: Split,
        device_batch_size: int,
        shuffle: bool,
        seed: int,
        cache_limit: str | None = None,
    ) -> None:
        super().__init__(
            streams=[stream],
            batch_size=device_batch_size,
            num_canonical_nodes=1,
            partition_algo="orig",
            shuffle=False,  # resample_streams gives the order; the shuffle's seed is kept in the state
            shuffle_seed=seed,
            cache_limit=cache_limit,
        )
        self.windows = split
        self.shuffle_windows = shuffle
        self.is_local = stream.remote is None
        self.first_windows: list[int] = self.sample_offset_per_shard.tolist()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Give the windows of this worker's share of an epoch.

        Streaming's loop has two threads that download ahead. For each sample they take a file lock and contend for the
        interpreter, which costs 20 to 200 microseconds, and after an error they end the epoch early, or wait for ever.
        """
        # As StreamingDataset.__iter__ of Streaming 0.13.0, without the threads.
        self._unique_worker_world = self._unique_rank_world.detect_workers()
        self._parallel_worker_world = self._parallel_rank_world.detect_workers()
        numbers = self._get_work(*self._resume_incr_epoch())
        numbers = numbers[numbers >= 0]  # -1 fills up the shares of the workers
        yield from self._windows(numbers) if self.is_local else self._fetched_windows(numbers)

    def _windows(self, numbers: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
        for start in range(0, len(numbers), CHUNK_WINDOWS):
            yield from map(self.get_item, numbers[start : start + CHUNK_WINDOWS].tolist())

    def _fetched_windows(self, numbers: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
        """Give windows, while a thread fetches the next shards; what it cannot fetch is told when its turn comes."""
        shards = np.searchsorted(self.first_windows, numbers, "right") - 1
        firsts = np.sort(np.unique(shards, return_index=True)[1])
        permits, ended = Semaphore(SHARDS_AHEAD), False

        def fetch() -> None:
            for first in firsts:
                while not permits.acquire(timeout=LONGEST_LEAVE_S):
                    if not main_thread().is_alive():
                        return
                if ended:
                    return
                with suppress(InputError):  # who needs the shard gets it too
                    self.prepare_shard(int(shards[first]), blocking=False)

        # The interpreter waits for this thread when it ends in the middle of an epoch, as it must: a shard that is half
        # fetched would never be fetched by others. It would wait for ever for a thread of a pool.
        Thread(target=fetch).start()
        try:
            for start, end in zip(firsts, [*firsts[1:], len(numbers)], strict=True):
                permits.release()
                yield from self._windows(numbers[start:end])
        finally:
            ended = True
            permits.release()

    def get_item(self, sample_id: int, retry: int = 7) -> dict[str, Any]:
        """Give a window as {"tokens": (T or fewer,) token ids}, from its shard if that is here."""
        if self.is_local:
            shard = bisect_right(self.first_windows, sample_id) - 1
            try:
                return self.shards[shard].get_item(sample_id - self.first_windows[shard])
            except FileNotFoundError:
                pass  # still compressed: Streaming decompresses it once
        return super().get_item(sample_id, retry)

    def prepare_shard(self, shard_id: int, blocking: bool = True) -> None:
        """Download and decompress a shard.

        After an error Streaming 0.13.0 leaves the shard marked as being prepared, and its lock held, and all others
        wait for ever. Delete with a Streaming that does not.
        """
        try:
            super().prepare_shard(shard_id, blocking)
        except Exception as error:  # whatever it is, others must not wait for this process
            if self._cache_filelock.is_locked:
                self._cache_filelock.release(force=True)
            self._shard_states[shard_id] = _ShardState.REMOTE  # who waits tries as well, and gets the same error
            if isinstance(error, InputError) or not self.cache_limit:
                raise
            raise InputError(
                f"data.cache_limit={self.cache_limit}: no room for a shard ({error}); raise it."
            ) from error

    def resample_streams(self, epoch: int, stream_id: int | None = None) -> tuple[NDArray, NDArray[np.int64]]:
        """Give the order of an epoch, where Streaming asks for the samples to draw from."""
        order = window_order(self.windows, self.shuffle_windows, self.shuffle_seed, epoch)
        return np.array([len(order)], np.int64), order

    def state_dict(self, num_samples: int, from_beginning: bool) -> dict[str, Any]:
        """State to resume from after a number of samples.

        After the last batch of an epoch Composer asks for sample 0 of an epoch that has not begun; Streaming 0.13.0
        answers with the one before, and replays its order. Delete with a Streaming that does not.
        """
        state = super().state_dict(num_samples, from_beginning)
        if from_beginning and num_samples == 0 and self.next_epoch > 0:
            state["epoch"] = self.next_epoch
        return state


@dataclass(frozen=True)
class Collate:
    """Windows -> {"input_ids", "targets"}, each (B, T) int64."""

    direction: Direction
    bos_id: int
    context_length: int

    def __call__(self, samples: list[dict[str, NDArray]]) -> dict[str, Tensor]:
        """Stack windows, fill up short ones, and make the example."""
        window_BT = np.empty((len(samples), self.context_length), np.int64)
        for row_T, sample in zip(window_BT, samples, strict=True):
            tokens = sample["tokens"]
            row_T[: len(tokens)] = tokens
            row_T[len(tokens) :] = IGNORED
        inputs_BT, targets_BT = make_example(torch.from_numpy(window_BT), self.direction, self.bos_id)
        return {"input_ids": inputs_BT, "targets": targets_BT}


def count_targets(batch: dict[str, Tensor]) -> int:
    """Targets of a batch that count."""
    return int((batch["targets"] != IGNORED).sum())


def build_loader(
    dataset: TextStreamingDataset, direction: Direction, bos_id: int, num_workers: int, seed: int
) -> DataSpec:
    """Make the loader of a dataset, which yields batches of `Collate`, and counts tokens as `count_targets`.

    Args:
        dataset: what to load.
        direction: which end of a window the model sees first.
        bos_id: id that starts every input.
        num_workers: reading processes; 0 reads in this one.
        seed: seed of the workers. The loader draws from a generator of its own, so that reading data leaves alone the
            random state on which dropout depends.
    """
    loader = StreamingDataLoader(
        dataset,
        batch_size=dataset.batch_size,
        collate_fn=Collate(direction, bos_id, dataset.windows.context_length),
        num_workers=num_workers,
        worker_init_fn=leave_with_parent,
        generator=torch.Generator().manual_seed(seed),
        pin_memory=torch.cuda.is_available(),
    )
    return DataSpec(loader, num_samples=dataset.windows.n_filled, get_num_tokens_in_batch=count_targets)
