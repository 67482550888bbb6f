"""MDS shards -> batches of (inputs, targets), the same windows in the same order for both directions.

Streaming sees every window (windows.py) as a sample, so that its partition over nodes, devices and workers, and its
state for resuming, hold for windows.

Shapes: B windows, T tokens.
"""

import logging
import socket
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Semaphore, Thread, main_thread
from typing import Any

import numpy as np
import torch
from composer.core import DataSpec
from composer.utils import dist
from numpy.typing import NDArray
from streaming import Stream, StreamingDataLoader, StreamingDataset
from streaming.base.dataset import _ShardState
from torch import Tensor

from hindsight.config.direction import Direction
from hindsight.errors import InputError
from hindsight.interrupts import leave_with_parent
from hindsight.loading import streaming_shared_memory
from hindsight.loading.mds_reader import WindowStream
from hindsight.loading.windows import SplitWindows, window_order
from hindsight.orders.direction import IGNORED, make_example
from hindsight.ranks import on_each_node
from hindsight.shards.h5 import HASH_KEY
from hindsight.shards.manifest import H5, Manifest
from hindsight.training.setup import RunSetup

log = logging.getLogger("hindsight")

PREFETCHED_SHARDS = 2
"""Shards that are downloaded from object storage before their first window is needed."""
EXIT_POLL_S = 0.2
"""Seconds after which the prefetching thread notices that its process ends."""
CHUNK_WINDOWS = 1 << 12
"""Window numbers that are converted to Python integers at a time: one takes 8 bytes in NumPy's array, 40 in a list."""


class TextStreamingDataset(StreamingDataset):
    """Windows of a split, in `window_order`, divided among devices and workers.

    With one canonical node, a global batch is a contiguous part of that order, whatever the number of devices.

    Args:
        stream: the split's shards.
        windows: the windows of the split.
        device_batch_size: windows that one device takes from a global batch.
        shuffle: whether to shuffle.
        seed: seed of the shuffle.
        cache_limit: most bytes of fetched shards that stay, such as 20gb; None for no limit.
    """

    def __init__(
        self,
        stream: Stream,
        windows: SplitWindows,
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
        self.windows = windows
        self.shuffle_windows = shuffle
        self.is_local = stream.remote is None
        self.first_windows: list[int] = self.sample_offset_per_shard.tolist()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the windows of this worker's share of an epoch.

        Streaming's loop prefetches in two threads. For each sample they take a file lock and contend for the GIL, which
        costs 20 to 200 microseconds, and after an error they end the epoch early, or wait for ever.
        """
        # As StreamingDataset.__iter__ of Streaming 0.13.0, without the threads, and like it with private attributes
        # (https://github.com/mosaicml/streaming, streaming/base/dataset.py). Delete with a Streaming that needs none.
        self._unique_worker_world = self._unique_rank_world.detect_workers()
        self._parallel_worker_world = self._parallel_rank_world.detect_workers()
        numbers = self._get_work(*self._resume_incr_epoch())
        numbers = numbers[numbers >= 0]  # -1 pads the shares of the workers
        yield from self._windows(numbers) if self.is_local else self._fetched_windows(numbers)

    def _windows(self, numbers: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
        for start in range(0, len(numbers), CHUNK_WINDOWS):
            yield from map(self.get_item, numbers[start : start + CHUNK_WINDOWS].tolist())

    def _fetched_windows(self, numbers: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
        """Yield windows, while a thread prefetches the next shards; an error is raised when the shard is needed."""
        shards = np.searchsorted(self.first_windows, numbers, "right") - 1
        firsts = np.sort(np.unique(shards, return_index=True)[1])
        permits, ended = Semaphore(PREFETCHED_SHARDS), False

        def prefetch() -> None:
            for first in firsts:
                while not permits.acquire(timeout=EXIT_POLL_S):
                    if not main_thread().is_alive():
                        return
                if ended:
                    return
                with suppress(InputError):  # raised again where the shard is needed
                    self.prepare_shard(int(shards[first]), blocking=False)

        # Not a daemon thread: where the process ends in the middle of an epoch, the interpreter must wait for the
        # download, because other processes would wait for ever for a shard that is half downloaded. Not a thread of a
        # pool either: the interpreter would wait for that one for ever.
        Thread(target=prefetch).start()
        try:
            for start, end in zip(firsts, [*firsts[1:], len(numbers)], strict=True):
                permits.release()
                yield from self._windows(numbers[start:end])
        finally:
            ended = True
            permits.release()

    def get_item(self, sample_id: int, retry: int = 7) -> dict[str, Any]:
        """Read a window as {"tokens": (T or fewer,) token ids}, directly from its shard if that is here."""
        if self.is_local:
            shard = bisect_right(self.first_windows, sample_id) - 1
            try:
                return self.shards[shard].get_item(sample_id - self.first_windows[shard])
            except FileNotFoundError:
                pass  # still compressed: Streaming decompresses it once
        return super().get_item(sample_id, retry)

    def prepare_shard(self, shard_id: int, blocking: bool = True) -> None:
        """Download and decompress a shard.

        After an error Streaming 0.13.0 leaves the shard marked as being prepared, and its lock held, so that all other
        processes wait for ever (https://github.com/mosaicml/streaming, streaming/base/dataset.py, `prepare_shard`).
        Delete with a Streaming that does not.
        """
        try:
            super().prepare_shard(shard_id, blocking)
        except Exception as error:  # whatever it is, other processes must not wait for this one
            if self._cache_filelock.is_locked:
                self._cache_filelock.release(force=True)
            self._shard_states[shard_id] = _ShardState.REMOTE  # those who wait try it, and raise the same error
            if isinstance(error, InputError) or not self.cache_limit:
                raise
            raise InputError(
                f"data.cache_limit={self.cache_limit}: no room for a shard ({error}); raise it."
            ) from error

    def resample_streams(self, epoch: int, stream_id: int | None = None) -> tuple[NDArray, NDArray[np.int64]]:
        """Return the order of an epoch where Streaming asks for the samples to draw from."""
        order = window_order(self.windows, self.shuffle_windows, self.shuffle_seed, epoch)
        return np.array([len(order)], np.int64), order

    def state_dict(self, num_samples: int, from_beginning: bool) -> dict[str, Any]:
        """Return the state to resume from after a number of samples.

        After the last batch of an epoch Composer asks for sample 0 of an epoch that has not begun; Streaming 0.13.0
        answers with the epoch before, and replays its order (https://github.com/mosaicml/streaming,
        streaming/base/dataset.py, `state_dict`). Delete with a Streaming that does not.
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
        """Stack windows, pad short ones with IGNORED, and shift them into inputs and targets."""
        window_BT = np.empty((len(samples), self.context_length), np.int64)
        for row_T, sample in zip(window_BT, samples, strict=True):
            tokens = sample["tokens"]
            row_T[: len(tokens)] = tokens
            row_T[len(tokens) :] = IGNORED
        inputs_BT, targets_BT = make_example(torch.from_numpy(window_BT), self.direction, self.bos_id)
        return {"input_ids": inputs_BT, "targets": targets_BT}


def count_targets(batch: dict[str, Tensor]) -> int:
    """Number of targets in a batch, without padding."""
    return int((batch["targets"] != IGNORED).sum())


def build_loader(
    dataset: TextStreamingDataset, direction: Direction, bos_id: int, num_workers: int, seed: int
) -> DataSpec:
    """Build the loader of a dataset, which yields batches of `Collate`, and counts tokens as `count_targets`.

    Args:
        dataset: the windows of a split.
        direction: which end of a window the model sees first.
        bos_id: id that starts every input.
        num_workers: data workers; 0 reads in this process.
        seed: seed of the workers. The loader draws from a generator of its own, so that reading data does not change
            the random state on which dropout depends.
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
    return DataSpec(loader, num_samples=dataset.windows.n_padded, get_num_tokens_in_batch=count_targets)


def build_dataset(setup: RunSetup, split_name: str, shuffle: bool) -> TextStreamingDataset:
    """Open a split for this device, from MDS or h5, whichever the data is in."""
    windows, manifest = setup.windows[split_name], setup.manifests[split_name]
    remote = setup.locations[split_name].remote
    limit = setup.config.data.cache_limit if remote is not None else None
    if manifest.format == H5:
        from hindsight.loading.h5_reader import H5Stream  # imported late: only this format needs h5py

        stream = H5Stream(windows, split_start=manifest.splits["train"].tokens if split_name == "val" else 0)
    else:
        stream = WindowStream(windows, remote, is_bounded=limit is not None)
    device_batch_size = setup.config.batch_size // dist.get_world_size()
    try:
        return TextStreamingDataset(stream, windows, device_batch_size, shuffle, setup.config.seed, limit)
    except ValueError as error:
        if limit is None:
            raise
        raise InputError(f"data.cache_limit={limit}: {error}") from error


def check_h5(setup: RunSetup) -> None:
    """Check h5 files by their hashes, once a node: of a file, unlike of shards, nothing is known before all is read."""
    from hindsight.shards.h5 import check_tokens

    for place in dict.fromkeys(setup.locations.values()):
        manifest = next(setup.manifests[name] for name, other in setup.locations.items() if other == place)
        if manifest.format == H5:
            check_tokens(Path(place.folder), manifest, place.key)


def build_datasets(setup: RunSetup) -> dict[str, TextStreamingDataset]:
    """Open both splits, while no other run on this machine opens its own."""
    if any(manifest.format == H5 for manifest in setup.manifests.values()):
        on_each_node(partial(check_h5, setup))
    hosts = dist.all_gather_object(socket.gethostname())
    with ExitStack() as held:
        # Node by node, in one order for all runs: two that start on the same nodes must not wait for each other.
        for host in sorted(set(hosts)):
            if dist.get_global_rank() == hosts.index(host):
                held.enter_context(streaming_shared_memory.one_process_at_a_time())
                streaming_shared_memory.remove_unused()
            dist.barrier()
        datasets = {
            "train": build_dataset(setup, "train", setup.config.data.shuffle),
            "val": build_dataset(setup, "val", shuffle=False),
        }
        dist.barrier()
    if dist.get_global_rank() == 0:
        for name, manifest in setup.manifests.items():
            if not has_hashes(manifest, datasets[name]):
                log.info(
                    "%s=%s: its %s split was stored without hashes, so that only sizes and token ids are checked.",
                    setup.locations[name].key,
                    setup.locations[name].folder,
                    name,
                )
    return datasets


def has_hashes(manifest: Manifest, dataset: TextStreamingDataset) -> bool:
    """Whether damage to the tokens of a split would be noticed by a hash."""
    return HASH_KEY in manifest.summary if manifest.format == H5 else dataset.streams[0].validate_hash is not None


def build_loaders(setup: RunSetup) -> dict[str, DataSpec]:
    """Build the loaders of train and val."""
    config = setup.config
    return {
        name: build_loader(dataset, config.direction, setup.tokenizer.bos_id, config.data.num_workers, config.seed)
        for name, dataset in build_datasets(setup).items()
    }
