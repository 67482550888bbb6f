"""Tokens per second of our loader, of Streaming's and of nanoGPT's, in turns over the same random tokens."""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from streaming import StreamingDataLoader, StreamingDataset
from torch import Tensor

from benchmarks.loading.shards import BLOCK_LENGTH, SEED, write_corpus
from benchmarks.table import Row
from hindsight.loading.mds_reader import WindowStream
from hindsight.loading.windows import SplitWindows
from hindsight.orders.known import open_order
from hindsight.shards.manifest import Manifest
from hindsight.shards.mds import COLUMN
from load_text_streaming import TextStreamingDataset, build_loader

BATCH_SIZE = 8
BOS_ID = 0
WARM_UP_BATCHES = 20

Batches = Callable[[], Iterator[dict[str, Tensor]]]
"""Starts a pass over batches."""


@dataclass(frozen=True)
class Speeds:
    """Million tokens/s of every contender, a number for each round."""

    mtok_s: dict[str, list[float]]

    def median(self, name: str) -> float:
        """Return the median over rounds."""
        return statistics.median(self.mtok_s[name])

    def ratio(self, name: str, yardstick: str) -> tuple[float, float, float]:
        """Return the speed of one over that of another, taken within a round: median, lowest, highest."""
        ratios = [a / b for a, b in zip(self.mtok_s[name], self.mtok_s[yardstick], strict=True)]
        return statistics.median(ratios), min(ratios), max(ratios)


# -------------------------------------------------------------------------------------------------------- contenders


def open_dataset(folder: Path, context_length: int) -> TextStreamingDataset:
    """Open the training split as train_composer.py does."""
    split = SplitWindows.of(str(folder), "train", Manifest.load(folder), context_length, BATCH_SIZE)
    return TextStreamingDataset(WindowStream(split), split, BATCH_SIZE, shuffle=True, seed=SEED)


def our_batches(folder: Path, context_length: int, order: str, num_workers: int = 0) -> Batches:
    """Load batches as training does."""
    dataset = open_dataset(folder, context_length)
    loader = build_loader(dataset, open_order(order, context_length), BOS_ID, num_workers, SEED).dataloader
    return lambda: iter(loader)


def streaming_batches(folder: Path, n_batches: int) -> Batches:
    """Load batches of blocks by Streaming, with its defaults in everything but the length of the epoch.

    The threads of a pass that is broken off would go on running and disturb the next contender: hence short epochs.
    """
    dataset = StreamingDataset(
        local=str(folder), split="train", shuffle=True, batch_size=BATCH_SIZE, epoch_size=n_batches * BATCH_SIZE
    )
    loader = StreamingDataLoader(dataset, batch_size=BATCH_SIZE, collate_fn=_collate)
    return lambda: iter(loader)


def _collate(samples: list[dict[str, NDArray]]) -> dict[str, Tensor]:
    return {"input_ids": torch.stack([torch.from_numpy(sample[COLUMN].astype(np.int64)) for sample in samples])}


def nanogpt_batches(tokens: NDArray[np.uint16], context_length: int) -> Batches:
    """Draw batches by nanoGPT's get_batch, without end."""

    def get_batch() -> dict[str, Tensor]:
        starts = torch.randint(len(tokens) - context_length, (BATCH_SIZE,))
        x = torch.stack([torch.from_numpy(tokens[i : i + context_length].astype(np.int64)) for i in starts])
        y = torch.stack([torch.from_numpy(tokens[i + 1 : i + 1 + context_length].astype(np.int64)) for i in starts])
        return {"input_ids": x, "targets": y}

    def batches() -> Iterator[dict[str, Tensor]]:
        while True:
            yield get_batch()

    return batches


# --------------------------------------------------------------------------------------------------------- measuring


def time_batches(batches: Batches, n_batches: int) -> float:
    """Read batches, the first few untimed.

    Returns:
        Million tokens/s.
    """
    n_tokens, iterator = 0, batches()
    for _ in islice(iterator, WARM_UP_BATCHES):
        pass
    began = time.perf_counter()
    for batch in islice(iterator, max(n_batches - WARM_UP_BATCHES, 1)):
        n_tokens += batch["input_ids"].numel()
    return n_tokens / (time.perf_counter() - began) / 1e6


def measure_speeds(contenders: dict[str, tuple[Batches, int]], rounds: int) -> Speeds:
    """Time every contender in turns.

    Args:
        contenders: its batches, and how many of them to read in a round, for each contender.
        rounds: how often each has its turn.
    """
    mtok_s: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(rounds):
        names = list(contenders)
        for name in names if i % 2 == 0 else names[::-1]:
            mtok_s[name].append(time_batches(*contenders[name]))
    return Speeds(mtok_s)


def compare_loaders(folder: Path, n_tokens: int = 100_000_000, rounds: int = 5) -> tuple[Speeds, list[Row]]:
    """Time our loader, Streaming's and nanoGPT's over the same random tokens."""
    tokens = write_corpus(folder, n_tokens)
    n_batches = n_tokens // (BLOCK_LENGTH * BATCH_SIZE)
    n_streaming = n_batches // 8 + WARM_UP_BATCHES
    speeds = measure_speeds(
        {
            "forward": (our_batches(folder, BLOCK_LENGTH, "forward"), n_batches),
            "backward": (our_batches(folder, BLOCK_LENGTH, "backward"), n_batches),
            "nanogpt": (nanogpt_batches(tokens, BLOCK_LENGTH), n_batches),
            "streaming": (streaming_batches(folder, n_streaming), n_streaming),
            "of 256": (our_batches(folder, 256, "forward"), n_batches),
            "of 256, backward": (our_batches(folder, 256, "backward"), n_batches),
            "2 workers": (our_batches(folder, BLOCK_LENGTH, "forward", num_workers=2), n_batches // 4),
        },
        rounds,
    )
    return speeds, _speed_rows(speeds)


def _speed_rows(speeds: Speeds) -> list[Row]:
    rows = [Row(f"Streaming's defaults, windows of {BLOCK_LENGTH}", f"{speeds.median('streaming'):.1f} Mtok/s")]
    rows.append(Row(f"nanoGPT's get_batch, windows of {BLOCK_LENGTH}", f"{speeds.median('nanogpt'):.1f} Mtok/s"))
    for name in ("forward", "backward"):
        rows.append(Row(f"ours, {name}, windows of {BLOCK_LENGTH}", f"{speeds.median(name):.1f} Mtok/s"))
        for yardstick, target in (("streaming", 5.0), ("nanogpt", 0.8)):
            ratio, low, high = speeds.ratio(name, yardstick)
            value = f"x{ratio:.2f} ({low:.2f} to {high:.2f})"
            rows.append(Row(f"ours, {name} / {yardstick}", value, f"≥ {target}", ratio >= target))
    for name in ("of 256", "of 256, backward"):
        mtok_s = speeds.median(name)
        rows.append(Row(f"ours, windows {name}", f"{mtok_s:.1f} Mtok/s", "≥ 10", mtok_s >= 10))
    rows.append(Row(f"ours, 2 workers, windows of {BLOCK_LENGTH}", f"{speeds.median('2 workers'):.1f} Mtok/s"))
    return rows
