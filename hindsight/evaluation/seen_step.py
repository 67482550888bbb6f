"""What a run saw in one of its optimizer steps: the windows of the batch, where they are, and how they read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hindsight import runs
from hindsight.config.conversion import InspectConfig
from hindsight.conversion.token_sources import ConvertedTokens
from hindsight.errors import InputError
from hindsight.evaluation.evaluated_data import located, order_of_run
from hindsight.evaluation.trained_run import TrainedRun, read_run
from hindsight.json_lines import read_backward, step_of
from hindsight.loading.collate import Batch, Collate
from hindsight.loading.step_windows import StepBatch, StoredWindow, batch_of_step, fetch_windows, read_windows
from hindsight.loading.windows import SplitWindows, device_share
from hindsight.orders.examples import IGNORED
from hindsight.orders.order import Order
from hindsight.shards.manifest import MDS, TOKENIZER_FOLDER, Manifest
from hindsight.tokenization.tokenizer import Tokenizer
from hindsight.tokenization.window_text import window_text
from hindsight.training.setup import Location

SPLIT = "train"


@dataclass(frozen=True)
class SeenStep:
    """An optimizer step of a run, with the data that it was made on.

    Args:
        run: the run.
        step: the step, from 1.
        manifest: what the data says of itself.
        tokenizer: the tokenizer.
        order: the order in which the run reads a window.
        windows: the windows of its training.
        batch: the batch of the step.
        rows: which rows of the batch are looked at: all, or those of one device.
        stored: their windows.
    """

    run: TrainedRun
    step: int
    manifest: Manifest
    tokenizer: Tokenizer
    order: Order
    windows: SplitWindows
    batch: StepBatch
    rows: NDArray[np.int64]
    stored: Sequence[StoredWindow]

    @property
    def ways(self) -> list[int]:
        """The reading of each row; 0 for an order that has only one."""
        return (self.batch.reads[self.rows] % self.order.n_readings).tolist()

    def examples(self) -> Batch:
        """Give inputs and targets as the run's loader made them of these rows."""
        eos_id = self.tokenizer.eos_id if self.run.config.document_mask else None
        collate = Collate(self.order, self.tokenizer.bos_id, self.windows.context_length, eos_id)
        rows = zip(self.stored, self.ways, strict=True)
        samples: list[dict[str, Any]] = [{"tokens": stored.tokens, "way": way} for stored, way in rows]
        return collate(samples)


def open_step(config: InspectConfig) -> SeenStep:
    """Find the batch of a step in the run's data, and read its windows.

    Raises:
        InputError: there is no such run or step, the data is not the run's, or it is damaged.
    """
    assert config.run is not None
    assert config.step is not None
    run = read_run(config.run)
    _check_step(run, config.step)
    key, path = ("path", config.path) if config.path is not None else ("data.path", run.config.data.path)
    with located(run, path, key) as place:
        return _open(run, config, place)


def _open(run: TrainedRun, config: InspectConfig, place: Location) -> SeenStep:
    """Find the batch in data whose description is here."""
    assert config.step is not None
    manifest = _manifest(place, is_given=config.path is not None)
    _check_data(run, manifest, place)
    tokenizer = Tokenizer.load(Path(place.folder, TOKENIZER_FOLDER), place.key)
    order = order_of_run(run, tokenizer)
    settings, n_ways = run.config, order.n_readings
    windows = SplitWindows.of(
        place.folder, SPLIT, manifest, run.context_length, settings.batch_size, settings.data.stride, n_ways
    )
    batch = batch_of_step(windows, n_ways, settings.data.shuffle, settings.seed, config.step)
    rows = _rows(run, config)
    numbers = (batch.reads[rows] // n_ways).tolist()
    if place.remote is not None:
        stored = fetch_windows(place.remote, windows, numbers)
    else:
        eos_id = tokenizer.eos_id if manifest.splits[SPLIT].documents is not None else None
        source = ConvertedTokens(Path(place.folder), manifest, tokenizer, place.key)
        if config.verify or manifest.format == MDS:  # else all of an h5 file is read
            source.prepare()
        stored = read_windows(source, windows, numbers, eos_id, config.verify and eos_id is not None)
    return SeenStep(run, config.step, manifest, tokenizer, order, windows, batch, rows, stored)


def _manifest(place: Location, is_given: bool) -> Manifest:
    """Read what the data says of itself, which may not be where the run found it any more."""
    try:
        return Manifest.load(place.folder, place.key)
    except InputError as error:
        if is_given:
            raise
        raise InputError(f"{error} Or say by path= where the data of the run is now.") from None


def _check_step(run: TrainedRun, step: int) -> None:
    """Refuse a step that the run neither has made nor is to make: it may have been made shorter later."""
    total = run.metadata.get("total_steps")
    made = next((found for record in _lines(run) if (found := step_of(record)) is not None), 0)
    if isinstance(total, int) and step > max(total, made):
        raise InputError(
            f"step={step}: {run.where} has {max(total, made)} steps; give one of them, the first is step=1."
        )


def _lines(run: TrainedRun) -> Iterator[dict[str, Any]]:
    """Give what the run has measured, the last step first; nothing of a run whose folder is not here."""
    return iter(()) if run.folder is None else read_backward(run.folder / runs.METRICS)


def _check_data(run: TrainedRun, manifest: Manifest, place: Location) -> None:
    """Refuse data that the run was not trained on; that of val_path may be elsewhere."""
    where = f"{place.key}={place.folder if place.remote is None else place.remote.url}"
    expected = str(run.metadata[runs.FINGERPRINTS[0]]).partition("+")[0]
    if manifest.fingerprint != expected:
        raise InputError(
            f"{where} is not the data that {run.where} was trained on (fingerprint {manifest.fingerprint[:12]}, "
            f"not {expected[:12]}); say by path= where that is now."
        )
    if place.remote is not None and manifest.format != MDS:
        raise InputError(f"{where} is h5, which is read here only; copy it.")


def _rows(run: TrainedRun, config: InspectConfig) -> NDArray[np.int64]:
    """Choose the rows of a batch that are looked at."""
    rows = np.arange(run.config.batch_size)
    if config.rank is None:
        return rows
    n_devices = run.metadata.get("world_size")
    if not isinstance(n_devices, int) or n_devices < 1 or len(rows) % n_devices:
        raise InputError(f"rank={config.rank}: {runs.METADATA} of {run.where} has no world_size; leave it out.")
    if config.rank >= n_devices:
        raise InputError(f"rank={config.rank}: {run.where} had {n_devices} devices, counted from 0.")
    if n_devices % config.nodes:
        raise InputError(f"nodes={config.nodes} does not divide the {n_devices} devices of {run.where}.")
    return device_share([rows], config.rank, n_devices, config.nodes)


def step_lines(seen: SeenStep, rank: int | None, most: int | None) -> Iterator[str]:
    """Describe a step: where its batch is in the run, and the place and text of each window.

    Args:
        seen: the step.
        rank: the device whose rows these are; None for all.
        most: most windows that are shown; None for all.
    """
    yield from _head(seen)
    targets_BT, ways = seen.examples()["targets"], seen.ways
    filled = [row for row, stored in enumerate(seen.stored) if len(stored.tokens)]
    microbatch_size = seen.run.config.windows_at_once
    for row in filled[:most]:
        stored = seen.stored[row]
        microbatch = f", microbatch {row // microbatch_size}" if rank is not None and microbatch_size else ""
        yield f"row {seen.rows[row]}{microbatch}: {_place(seen, stored)}"
        order = seen.order.readings[ways[row]].order if seen.order.readings else seen.order
        read = targets_BT[row][targets_BT[row] != IGNORED].tolist()
        yield f"    {order.name}: {window_text(read, order.name, seen.tokenizer, seen.manifest.is_reversed)!r}"
    if len(filled) < len(seen.stored):
        yield f"{len(seen.stored) - len(filled)} empty windows pad the last batch of the epoch."
    if most is not None and most < len(filled):
        yield f"{len(filled) - most} more windows are not shown (windows=)."


def _head(seen: SeenStep) -> Iterator[str]:
    """Say where the batch is in the run, what the step's loss was, and what documents are."""
    batch, windows, data = seen.batch, seen.windows, seen.run.config.data
    stride = f" every {data.stride}" if data.stride is not None else ""
    shuffled = f"shuffled by seed={seen.run.config.seed}" if data.shuffle else "not shuffled"
    yield (
        f"{seen.run.name}, step {seen.step}: epoch {batch.epoch + 1}, batch {batch.place + 1} of {windows.n_batches} "
        f"in it; {windows.batch_size} windows of {windows.context_length} tokens{stride}, {seen.order.name}, {shuffled}"
    )
    if seen.run.folder is not None:
        loss = _loss(seen.run, seen.step)
        known = f"{loss:.4f} nats, before the step" if loss is not None else f"not in {runs.METRICS}"
        yield f"{runs.TRAIN_LOSS}: {known}"
    corpus = seen.manifest.corpus
    if any(stored.document is not None for stored in seen.stored):
        files = f", {corpus['files']} files" if corpus.get("files") not in (None, 1) else ""
        yield f"documents of {SPLIT} are counted from 0, in the order of the corpus ({corpus.get('path')}{files})"


def _loss(run: TrainedRun, step: int) -> float | None:
    """Loss that the run recorded of a step."""
    for record in _lines(run):
        found = step_of(record)
        if found is not None and found <= step:
            loss = record.get(runs.TRAIN_LOSS) if found == step else None
            return loss if runs.is_number(loss) else None
    return None


def _place(seen: SeenStep, stored: StoredWindow) -> str:
    """Say where a window is."""
    block = stored.start // seen.windows.block_length
    text = (
        f"window {stored.number}, tokens {stored.start:,} to {stored.start + len(stored.tokens):,} of {SPLIT} "
        f"(shard {block // seen.windows.blocks_per_shard}, block {block})"
    )
    if stored.document is None:
        return text
    last = stored.document + int((stored.tokens[:-1] == seen.tokenizer.eos_id).sum())
    until = f", to document {last}" if last > stored.document else ""
    return f"{text}; document {stored.document} from its token {stored.offset:,} on{until}"
