"""The windows of the batch of an optimizer step, and where in the stored tokens they are.

Their order is the loader's own (`windows.epoch_order`); their tokens are read from the stored data, a part of it at a
time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hindsight.conversion.token_sources import ConvertedTokens
from hindsight.loading.remote import Remote
from hindsight.loading.windows import SplitWindows, epoch_order


@dataclass(frozen=True)
class StepBatch:
    """The batch of an optimizer step.

    Args:
        epoch: its epoch, from 0.
        place: its place in the epoch, from 0.
        reads: (B,) n_ways * window + way; windows from n_windows on are empty.
    """

    epoch: int
    place: int
    reads: NDArray[np.int64]


def batch_of_step(windows: SplitWindows, n_ways: int, shuffle: bool, seed: int, step: int) -> StepBatch:
    """Give the batch with which an optimizer step was made; steps count from 1, through all epochs and resumes."""
    epoch, place = divmod(step - 1, windows.n_batches)
    order = epoch_order(windows, n_ways, shuffle, seed, epoch)
    size = windows.batch_size
    return StepBatch(epoch, place, order[place * size : (place + 1) * size])


@dataclass(frozen=True)
class StoredWindow:
    """A window with its place in a split.

    Args:
        number: its number in the split; one from n_windows on is empty.
        start: index of its first token in the split.
        tokens: its tokens in reading order, at most context_length of them.
        document: number in the split of the document of its first token; None if not known.
        offset: index of its first token in that document; None if not known.
    """

    number: int
    start: int
    tokens: NDArray[np.int64]
    document: int | None = None
    offset: int | None = None


def read_windows(
    source: ConvertedTokens, windows: SplitWindows, numbers: Sequence[int], eos_id: int | None, is_whole: bool
) -> list[StoredWindow]:
    """Read windows of a split, each part of the stored data at most once.

    Args:
        source: the stored data.
        windows: the windows of the split.
        numbers: those that are wanted, in any order.
        eos_id: id that ends every document; None if documents cannot be told apart.
        is_whole: whether to read all tokens before them too, by which documents are counted.
    """
    starts = {number: windows.start(number) for number in numbers if number < windows.n_windows}
    wanted = np.array(sorted(set(starts.values())), np.int64)
    pieces: dict[int, list[NDArray[np.int64]]] = {start: [] for start in wanted.tolist()}
    places: dict[int, tuple[int, int]] = {}
    n_ended = begin = 0  # documents that have ended, and where the next one begins
    for at, tokens in _parts(source, windows, wanted, is_whole):
        end = at + len(tokens)
        for start in wanted[(wanted < end) & (wanted + windows.context_length > at)].tolist():
            inside = tokens[max(start - at, 0) : start + windows.context_length - at]
            pieces[start].append(inside.astype(np.int64))
        if eos_id is None or not is_whole:
            continue
        ends = at + np.flatnonzero(tokens == eos_id)
        for start in wanted[(wanted >= at) & (wanted < end)].tolist():
            ended = int(np.searchsorted(ends, start))
            places[start] = n_ended + ended, start - (int(ends[ended - 1]) + 1 if ended else begin)
        n_ended, begin = n_ended + len(ends), int(ends[-1]) + 1 if len(ends) else begin
    found = {
        number: StoredWindow(number, start, np.concatenate(pieces[start]), *places.get(start, (None, None)))
        for number, start in starts.items()
    }
    return [found.get(number, _empty(windows)) for number in numbers]


def fetch_windows(remote: Remote, windows: SplitWindows, numbers: Sequence[int]) -> list[StoredWindow]:
    """Read windows of a split on object storage, of which no more than a shard is kept here at a time.

    Their documents stay unknown: to count them, everything before would be fetched too.
    """
    from streaming.base.world import World  # here and below: Streaming takes seconds

    from hindsight.loading.mds_reader import WindowStream
    from hindsight.loading.shard_files import Shards

    stream = WindowStream(windows, remote, is_bounded=True)
    shards = stream.get_shards(World.detect(), False)
    stream.set_up_local(shards, np.zeros(len(shards), np.int64))
    files = Shards(stream, shards, None)
    per_shard = windows.blocks_per_shard * windows.windows_per_block
    found: dict[int, StoredWindow] = {}
    wanted = np.unique([number for number in numbers if number < windows.n_windows]).astype(np.int64)
    for shard in np.unique(wanted // per_shard).tolist():
        files.prepare(shard)
        for number in wanted[wanted // per_shard == shard].tolist():
            tokens = shards[shard].get_item(number - shard * per_shard)["tokens"]
            found[number] = StoredWindow(number, windows.start(number), tokens.astype(np.int64))
        shards[shard].evict()
    return [found.get(number, _empty(windows)) for number in numbers]


def _empty(windows: SplitWindows) -> StoredWindow:
    """Give a window that pads the last batch of an epoch."""
    return StoredWindow(windows.n_windows, windows.n_tokens, np.empty(0, np.int64))


def _parts(
    source: ConvertedTokens, windows: SplitWindows, wanted: NDArray[np.int64], is_whole: bool
) -> Iterator[tuple[int, NDArray]]:
    """Read the parts of a split up to the last window that is wanted: index of the first token, and tokens."""
    at = 0
    for part in source.parts():
        if part.split != windows.name:
            continue
        end = at + part.end - part.start
        if not len(wanted) or at >= wanted[-1] + windows.context_length:
            return
        if is_whole or ((wanted < end) & (wanted + windows.context_length > at)).any():
            yield at, source.read(part).tokens
        at = end
