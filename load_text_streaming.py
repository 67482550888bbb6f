"""MDS shards -> batches of (inputs, targets): the same windows one after the other, in whichever order each is read.

Shards are MosaicML Streaming's, and its Stream fetches them from object storage. Its StreamingDataset is not used: it
keeps the order of an epoch, a barrier and the states of shards in shared memory below names that all runs of a machine
count through. There the names of runs that begin, end and are killed at once collide, a reader that dies is waited for
for ever, a small /dev/shm ends the process by SIGBUS, and a process has descriptors for a few dozen runs. Here readers
share files and their locks, and the order of an epoch is made before the data workers are forked.

Shapes: B windows, T tokens.
"""

import logging
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Semaphore, Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from composer.core import DataSpec
from composer.utils import dist
from numpy.typing import NDArray
from streaming.base.util import bytes_to_int
from streaming.base.world import World
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from hindsight.errors import InputError
from hindsight.interrupts import giving_up_after, leave_with_parent
from hindsight.loading.collate import Batch, Collate
from hindsight.loading.mds_reader import WindowStream
from hindsight.loading.shard_files import Shards
from hindsight.loading.windows import SplitWindows, device_share, epoch_pieces
from hindsight.orders.examples import IGNORED
from hindsight.orders.order import Order
from hindsight.ranks import on_each_node
from hindsight.shards.h5 import HASH_KEY
from hindsight.shards.manifest import H5, Manifest
from hindsight.training.setup import RunSetup

if TYPE_CHECKING:
    from hindsight.loading.h5_reader import H5Stream

log = logging.getLogger("hindsight")

PREFETCHED_SHARDS = 2
"""Shards that are downloaded from object storage before their first window is needed."""
CHUNK_WINDOWS = 1 << 12
"""Window numbers that are converted to Python integers at a time: one takes 8 bytes in NumPy's array, 40 in a list."""
PATIENCE_S = 5.0
"""Seconds that the next batch is waited for after a request to stop, so that its step is made and saved."""
FETCHES = 8
"""Times that a shard is fetched for one window: others may evict it before it is read."""


class TextStreamingDataset(IterableDataset[dict[str, Any]]):
    """Windows of a split, in `epoch_order`, divided among devices and workers.

    A global batch is a contiguous part of that order, whatever the number of devices.

    Args:
        stream: the split's shards.
        windows: the windows of the split.
        device_batch_size: windows that one device takes from a global batch.
        shuffle: whether to shuffle.
        seed: seed of the shuffle.
        cache_limit: most bytes of fetched shards that stay, such as 20gb; None for no limit.
        n_ways: ways in which each window is read, one batch after the other without shuffle; see `both_ways`.
    """

    def __init__(
        self,
        stream: "WindowStream | H5Stream",
        windows: SplitWindows,
        device_batch_size: int,
        shuffle: bool,
        seed: int,
        cache_limit: str | None = None,
        n_ways: int = 1,
    ) -> None:
        self.n_ways = n_ways
        self.stream, self.windows, self.batch_size = stream, windows, device_batch_size
        self.shuffle, self.seed = shuffle, seed
        self.shards = stream.get_shards(World.detect(), False)
        sizes = [shard.samples for shard in self.shards]
        self.first_windows: list[int] = (np.cumsum(sizes) - sizes).tolist()
        self.files = Shards(stream, self.shards, bytes_to_int(cache_limit) if cache_limit is not None else None)
        on_each_node(self._look_at_files)
        self.is_local = stream.remote is None
        self.share = np.empty(0, np.int64)
        self.epoch = self.offset = self.taken = 0
        self.has_begun = False

    def _look_at_files(self) -> None:
        """Remove what a killed download left in the cache; InputError if a shard is missing that must be here."""
        if self.stream.remote is not None:
            self.files.remove_strays()
        self.stream.set_up_local(self.shards, np.zeros(len(self.shards), np.int64))

    def __len__(self) -> int:
        """Windows that one device takes in an epoch, in whatever ways."""
        return self.n_samples // dist.get_world_size()

    @property
    def n_samples(self) -> int:
        """Windows of an epoch on all devices, the empty ones that pad the last batch included."""
        return self.windows.n_padded * (self.n_ways // self.windows.passes)

    def begin_epoch(self) -> None:
        """Make this device's share of the epoch that comes next; data workers inherit it by a fork."""
        if self.has_begun:
            self.epoch, self.offset = self.epoch + 1, 0
        self.has_begun, self.taken = True, 0
        n_devices = dist.get_world_size()
        self.share = device_share(
            epoch_pieces(self.windows, self.n_ways, self.shuffle, self.seed, self.epoch),
            dist.get_global_rank(),
            n_devices,
            n_devices // dist.get_local_world_size(),
            self.offset,
        )

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the windows of this worker's part of the share: every n-th batch, with n workers."""
        worker = get_worker_info()
        numbers = self.share
        if worker is not None:
            numbers = numbers.reshape(-1, self.batch_size)[worker.id :: worker.num_workers].ravel()
        yield from self._windows(numbers) if self.is_local else self._fetched_windows(numbers)

    def _windows(self, numbers: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
        for start in range(0, len(numbers), CHUNK_WINDOWS):
            yield from map(self._sample, numbers[start : start + CHUNK_WINDOWS].tolist())

    def _sample(self, number: int) -> dict[str, Any]:
        window, way = divmod(number, self.n_ways)
        return self.get_item(window) if self.n_ways == 1 else {**self.get_item(window), "way": way}

    def _fetched_windows(self, numbers: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
        """Yield windows, while a thread prefetches the next shards; an error is raised when the shard is needed."""
        if not len(numbers):
            return
        shards = np.searchsorted(self.first_windows, numbers // self.n_ways, "right") - 1
        firsts = np.sort(np.unique(shards, return_index=True)[1])
        permits, ended = Semaphore(PREFETCHED_SHARDS), False

        def prefetch() -> None:
            for first in firsts:
                permits.acquire()
                if ended:
                    return
                with suppress(InputError, OSError):  # raised again where the shard is needed
                    self.files.prepare(int(shards[first]), wait=False)

        Thread(target=prefetch, daemon=True).start()
        try:
            for start, end in zip(firsts, [*firsts[1:], len(numbers)], strict=True):
                permits.release()
                yield from self._windows(numbers[start:end])
        finally:
            ended = True
            permits.release()

    def get_item(self, number: int) -> dict[str, Any]:
        """Read a window as {"tokens": (T or fewer,) token ids}; its shard is fetched if it is not here."""
        shard = bisect_right(self.first_windows, number) - 1
        for _ in range(FETCHES):
            try:
                return self.shards[shard].get_item(number - self.first_windows[shard])
            except FileNotFoundError:
                self.files.prepare(shard)
        raise InputError(
            f"data.cache_limit: a shard of {self.windows.name} was evicted {FETCHES} times before it was read; "
            "raise it."
        )

    def state_dict(self, num_samples: int, from_beginning: bool) -> dict[str, Any]:
        """Return the state to resume from after a number of samples of an epoch; Composer asks for it.

        After the last batch of an epoch Composer asks for sample 0, which is that of the next. The keys are those of
        Streaming 0.13.0, which earlier versions read.
        """
        is_over = from_beginning and num_samples == 0 and self.has_begun and self.taken == len(self.share)
        return {
            "epoch": self.epoch + is_over,
            "sample_in_epoch": num_samples if from_beginning else self.offset + num_samples,
            "num_canonical_nodes": 1,
            "shuffle_seed": self.seed,
            "initial_physical_nodes": dist.get_world_size() // dist.get_local_world_size(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on, when the next epoch begins, after the samples of a state."""
        self.epoch, self.offset, self.seed = state["epoch"], state["sample_in_epoch"], state["shuffle_seed"]
        self.has_begun = False


class TextLoader(DataLoader[Any]):
    """Loads the batches of an epoch, from where the dataset stands."""

    dataset: TextStreamingDataset

    def __iter__(self) -> Iterator[Batch]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Begin an epoch."""
        self.dataset.begin_epoch()
        try:
            return self._batches(super().__iter__())
        except OSError as error:
            raise InputError(
                f"data.num_workers={self.num_workers}: data workers cannot be started ({error.strerror}); make room in "
                "/dev/shm, raise the limits (ulimit), or choose data.num_workers=0."  # noqa: S108 - not a path of ours
            ) from error

    def _batches(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        try:
            while True:
                with giving_up_after(PATIENCE_S):
                    batch = next(batches, None)
                if batch is None:
                    return
                self.dataset.taken += len(batch["targets"])
                yield batch
        finally:
            self.dataset.stream.close()  # a sweep makes many runs in one process


def worker_error(error: BaseException, num_workers: int) -> InputError | None:
    """What to say where a data worker has ended by itself; None for any other error."""
    if not isinstance(error, RuntimeError) or not str(error).startswith("DataLoader worker"):
        return None
    return InputError(
        f"data.num_workers={num_workers}: {str(error).splitlines()[0].strip()} It was ended from outside, perhaps "
        "because memory ran out; try fewer. The same command goes on from the last checkpoint."
    )


def count_targets(batch: dict[str, Any]) -> int:
    """Number of targets in a batch, without padding; of a microbatch, as `split_batch` counted them."""
    return batch["n_targets"] if "n_targets" in batch else int((batch["targets"] != IGNORED).sum())


def split_batch(batch: dict[str, Tensor], n_windows: int | float) -> list[dict[str, Any]]:
    """Split a batch into microbatches, and count the targets of each while it is on the CPU.

    Composer asks for the number again when a microbatch is on its device, and would wait there for all that was begun.
    """
    pieces = zip(*(tensor.split(int(n_windows)) for tensor in batch.values()), strict=True)
    microbatches = [dict(zip(batch, tensors, strict=True)) for tensors in pieces]
    return [{**each, "n_targets": count_targets(each)} for each in microbatches]


def build_loader(
    dataset: TextStreamingDataset, order: Order, bos_id: int, num_workers: int, seed: int, eos_id: int | None = None
) -> DataSpec:
    """Build the loader of a dataset, which yields batches of `Collate`, and counts tokens as `count_targets`.

    Args:
        dataset: the windows of a split.
        order: the order in which the model reads a window.
        bos_id: id that starts every input.
        num_workers: data workers; 0 reads in this process.
        seed: seed of the workers. The loader draws from a generator of its own, so that reading data does not change
            the random state on which dropout depends.
        eos_id: id that ends every document, if each is to be read by itself; None to read a window as one.
    """
    loader = TextLoader(
        dataset,
        batch_size=dataset.batch_size,
        collate_fn=Collate(order, bos_id, dataset.windows.context_length, eos_id),
        num_workers=num_workers,
        worker_init_fn=leave_with_parent,
        generator=torch.Generator().manual_seed(seed),
        pin_memory=torch.cuda.is_available(),
    )
    return DataSpec(
        loader, num_samples=dataset.n_samples, get_num_tokens_in_batch=count_targets, split_batch=split_batch
    )


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
    device_batch_size = windows.batch_size // dist.get_world_size()
    n_ways = setup.order.n_readings
    return TextStreamingDataset(stream, windows, device_batch_size, shuffle, setup.config.seed, limit, n_ways)


def check_h5(setup: RunSetup) -> None:
    """Check h5 files by their hashes, once a node: of a file, unlike of shards, nothing is known before all is read."""
    from hindsight.shards.h5 import check_tokens

    for place in dict.fromkeys(setup.locations.values()):
        manifest = next(setup.manifests[name] for name, other in setup.locations.items() if other == place)
        if manifest.format == H5:
            check_tokens(Path(place.folder), manifest, place.key)


def build_datasets(setup: RunSetup) -> dict[str, TextStreamingDataset]:
    """Open both splits, and tell which of them were stored without hashes."""
    if any(manifest.format == H5 for manifest in setup.manifests.values()):
        on_each_node(partial(check_h5, setup))
    datasets = {
        "train": build_dataset(setup, "train", setup.config.data.shuffle),
        "val": build_dataset(setup, "val", shuffle=False),
    }
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
    return HASH_KEY in manifest.summary if manifest.format == H5 else dataset.stream.validate_hash is not None


def build_loaders(setup: RunSetup) -> dict[str, DataSpec]:
    """Build the loaders of train and val."""
    config, bos_id = setup.config, setup.tokenizer.bos_id
    eos_id = setup.tokenizer.eos_id if config.document_mask else None
    return {
        name: build_loader(dataset, setup.order, bos_id, config.data.num_workers, config.seed, eos_id)
        for name, dataset in build_datasets(setup).items()
    }
