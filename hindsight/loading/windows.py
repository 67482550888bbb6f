"""Windows of a stream of tokens: how many there are, which shard holds them, and in which order an epoch sees them.

A split is one stream of tokens, stored in blocks of `block_length`. Training divides it into windows of
`context_length`, which divides the block length; the last window of a split may be shorter. With a `stride` of less,
windows begin so many tokens apart and overlap, but never across a block, so never across the split; the last window of
a block ends with it. Empty windows pad the last
batch of an epoch: all batches have one size, and no window is seen twice.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from hindsight.errors import InputError
from hindsight.shards.manifest import Manifest

SHUFFLE_BLOCKS = 1 << 18
"""py1e is Streaming's shuffle algorithm: blocks of a shard land within this distance of each other, so that about 16
shards of 64 MiB are in use at a time."""
PIECE_WINDOWS = 1 << 20
"""Windows in reading order that are counted at a time."""
GROUP_BLOCKS = 1 << 16
"""Blocks whose windows are spread over the same stretch of an epoch."""


def require_windows(context_length: int, stride: int | None, block_length: int, folder: str) -> None:
    """Raise InputError if windows cannot be cut from the blocks of a dataset.

    Args:
        context_length: tokens in a window.
        stride: tokens from the start of a window to that of the next; None for context_length.
        block_length: tokens in a block.
        folder: folder of the dataset, for the message.
    """
    if block_length % context_length:
        small = [n for n in range(1, isqrt(block_length) + 1) if block_length % n == 0]
        divisors = sorted({*small, *(block_length // n for n in small)})
        raise InputError(
            f"data.context_length={context_length} does not divide block_length={block_length} of {folder}; "
            f"choose one of {divisors}, or convert the corpus with another block_length."
        )
    if stride is not None and stride > context_length:
        raise InputError(
            f"data.stride={stride} would leave out tokens between windows of data.context_length={context_length}; "
            "give at most that."
        )


@dataclass(frozen=True)
class SplitWindows:
    """The windows of a split of a converted corpus.

    Args:
        folder: folder of the dataset, absolute.
        name: train or val.
        n_tokens: length of the split's stream.
        block_length: tokens in a block.
        blocks_per_shard: blocks in every shard but the last.
        context_length: tokens in a window (T).
        batch_size: windows in a global batch (B); empty windows pad the split to a multiple of it.
        vocab_size: number of token ids.
        stride: tokens from the start of a window to that of the next in its block; None for context_length, with which
            each token is in one window.
        passes: times that an epoch sees each window; 2 with order=both.
    """

    folder: str
    name: str
    n_tokens: int
    block_length: int
    blocks_per_shard: int
    context_length: int
    batch_size: int
    vocab_size: int = 1 << 32
    stride: int | None = None
    passes: int = 1

    @classmethod
    def of(
        cls,
        folder: str,
        name: str,
        manifest: Manifest,
        context_length: int,
        batch_size: int,
        stride: int | None = None,
        passes: int = 1,
    ) -> "SplitWindows":
        """Look up a split in the manifest of its dataset; InputError if windows cannot be cut from its blocks."""
        block_length = manifest.block_length
        require_windows(context_length, stride, block_length, folder)
        n_tokens = manifest.splits[name].tokens
        return cls(
            os.path.abspath(folder),
            name,
            n_tokens,
            block_length,
            manifest.blocks_per_shard,
            context_length,
            batch_size,
            manifest.vocab_size,
            stride,
            passes,
        )

    @cached_property
    def shift(self) -> int:
        """Tokens from the start of a window to that of the next."""
        return self.stride or self.context_length

    @cached_property
    def windows_per_block(self) -> int:
        """Windows in a whole block."""
        return self._windows_within(self.block_length)

    @property
    def n_windows(self) -> int:
        """Windows with at least one token."""
        return self.count(self.n_tokens)

    @property
    def epoch_tokens(self) -> int:
        """Targets in an epoch: the tokens of the split, those in several windows as often as they are."""
        last = self.n_windows - 1
        return self.passes * (last * self.context_length + min(self.context_length, self.n_tokens - self.start(last)))

    @property
    def n_padded(self) -> int:
        """Windows of an epoch, all passes together, with the empty ones that pad the last batch."""
        return -(-self.n_windows * self.passes // self.batch_size) * self.batch_size

    @property
    def n_batches(self) -> int:
        """Global batches in an epoch."""
        return self.n_padded // self.batch_size

    @property
    def batch_tokens(self) -> int:
        """Tokens in a full batch."""
        return self.batch_size * self.context_length

    @property
    def n_shards(self) -> int:
        """Shards of the split."""
        return -(-self.n_tokens // (self.block_length * self.blocks_per_shard))

    def count(self, n_tokens: int) -> int:
        """Windows with at least one token in so many tokens from the start of a block on."""
        blocks, rest = divmod(n_tokens, self.block_length)
        return blocks * self.windows_per_block + (self._windows_within(rest) if rest else 0)

    def start(self, number: int) -> int:
        """Token at which a window begins; the number counts windows from the start of a block on."""
        block, within = divmod(number, self.windows_per_block)
        return block * self.block_length + min(within * self.shift, self.block_length - self.context_length)

    def _windows_within(self, n_tokens: int) -> int:
        return max(-(-(n_tokens - self.context_length) // self.shift), 0) + 1


def window_order(windows: SplitWindows, shuffle: bool, seed: int, epoch: int) -> NDArray[np.int64]:
    """Order of the windows in an epoch, with the empty ones that pad the last batch at the end.

    Without shuffling, reading order. With it, the blocks are shuffled by Streaming's py1e, which keeps the windows of a
    shard close enough for a cache, and cut into groups. A group has as many rounds as a block has windows. Round r
    visits every block of the group once, in a random order, and takes one window of each that was not taken yet. Two
    windows of a block are at least a batch apart, so that a batch has no two of them, as long as the split has more
    blocks than a batch has windows.

    Returns:
        (n_padded,) window numbers in the split; a number from n_windows on is an empty window.
    """
    return np.concatenate([*_pieces_of_order(windows, shuffle, seed, epoch)])


def _pieces_of_order(windows: SplitWindows, shuffle: bool, seed: int, epoch: int) -> Iterator[NDArray[np.int64]]:
    """Yield the order of `window_order` a group of blocks at a time: as a whole it takes 8 bytes a window."""
    if not shuffle:
        for start in range(0, windows.n_padded, PIECE_WINDOWS):
            yield np.arange(start, min(start + PIECE_WINDOWS, windows.n_padded))
        return
    from streaming.base.shuffle import get_shuffle  # here: data is checked before the seconds that this import takes

    rng = np.random.default_rng((seed, epoch))
    n_blocks = -(-windows.n_tokens // windows.block_length)
    shard_blocks = np.full(windows.n_shards, windows.blocks_per_shard)
    shard_blocks[-1] = n_blocks - shard_blocks[:-1].sum()
    spread = max(SHUFFLE_BLOCKS, 4 * windows.blocks_per_shard)
    blocks = get_shuffle("py1e", shard_blocks, 1, seed, epoch, spread)
    n_rounds = windows.windows_per_block
    for group in np.array_split(blocks, max(n_blocks // GROUP_BLOCKS, 1)):
        size = len(group)
        # Shuffling only within chunks keeps two windows of a block at least size - chunk + 1 positions apart, less
        # up to two where the split's last block lacks windows.
        chunk = max(1, min(size // 2, size - windows.batch_size - 1))
        place = np.arange(size) // chunk + rng.random((n_rounds, size))
        turns = np.argsort(place, axis=1)
        first = rng.integers(n_rounds, size=size)
        numbers_in_block = (first[turns] + np.arange(n_rounds)[:, None]) % n_rounds
        numbers = (group[turns] * n_rounds + numbers_in_block).ravel()
        yield numbers[numbers < windows.n_windows]
    yield np.arange(windows.n_windows, windows.n_padded)


def both_ways(windows: SplitWindows, shuffle: bool, seed: int, epoch: int) -> NDArray[np.int64]:
    """Order of an epoch that sees each window in two ways: a pass over all, each in one of the ways, then another.

    Returns:
        (n_padded,) 2 * window + way, which is 0 or 1; windows from n_windows on are empty.
    """
    once = replace(windows, passes=1)
    first, second = (window_order(once, shuffle, seed, 2 * epoch + i)[: windows.n_windows] for i in range(2))
    ways = np.random.default_rng((seed, epoch, 2)).integers(2, size=windows.n_windows)
    empty = np.arange(windows.n_windows, windows.n_padded - windows.n_windows)
    return np.concatenate([2 * first + ways[first], 2 * second + 1 - ways[second], 2 * empty])


def in_turns(windows: SplitWindows) -> NDArray[np.int64]:
    """Order of an evaluation in two ways: each batch in the first, and at once in the second.

    Returns:
        (2 * n_padded,) 2 * window + way, which is 0 or 1.
    """
    batches = np.arange(windows.n_padded).reshape(-1, windows.batch_size)
    return np.stack([2 * batches, 2 * batches + 1], axis=1).ravel()


def epoch_order(windows: SplitWindows, n_ways: int, shuffle: bool, seed: int, epoch: int) -> NDArray[np.int64]:
    """Order of an epoch: n_ways * window + way, with the empty windows that pad the last batch.

    A global batch is a contiguous part of it, whatever the number of devices.

    Args:
        windows: the windows of the split.
        n_ways: ways in which each window is read.
        shuffle: whether to shuffle.
        seed: seed of the shuffle.
        epoch: number of the epoch, from 0.
    """
    return np.concatenate([*epoch_pieces(windows, n_ways, shuffle, seed, epoch)])


def epoch_pieces(
    windows: SplitWindows, n_ways: int, shuffle: bool, seed: int, epoch: int
) -> Iterator[NDArray[np.int64]]:
    """Yield `epoch_order` a piece at a time; with several ways, it is one piece."""
    if n_ways == 1:
        yield from _pieces_of_order(windows, shuffle, seed, epoch)
    else:
        yield in_turns(windows) if windows.passes == 1 else both_ways(windows, shuffle, seed, epoch)


def device_share(
    pieces: Iterable[NDArray[np.int64]], rank: int, n_devices: int, n_nodes: int, offset: int = 0
) -> NDArray[np.int64]:
    """Give what one device takes of global batches, without holding all of them, as of hundreds of GB.

    Devices of one node take windows that lie apart; earlier versions did, and runs go on exactly.

    Args:
        pieces: the batches, or an epoch, in pieces of any size.
        rank: the device.
        n_devices: devices of the run.
        n_nodes: its nodes.
        offset: windows of all devices that are left out at the beginning.
    """
    node, rank_of_node = divmod(rank, n_devices // n_nodes)
    start = offset + node + n_nodes * rank_of_node  # of its next window, from the beginning of the piece
    shares = [np.empty(0, np.int64)]
    for piece in pieces:
        shares.append(piece[start::n_devices].copy())  # a view would keep the piece
        start -= len(piece)
        start = max(start, start % n_devices)
    return np.concatenate(shares)


def shard_extent(windows: SplitWindows, number: int) -> tuple[int, int]:
    """Number of tokens and of windows in a shard of a split, the empty windows that pad the last batch included."""
    shard_tokens = windows.block_length * windows.blocks_per_shard
    if number < windows.n_shards - 1:
        return shard_tokens, windows.blocks_per_shard * windows.windows_per_block
    before = number * windows.blocks_per_shard * windows.windows_per_block
    return windows.n_tokens - number * shard_tokens, windows.n_padded - before
