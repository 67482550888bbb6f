"""How fast stored tokens become batches: `OMP_NUM_THREADS=1 python -m benchmarks.loading`, from the repository's root.

The loader that training gets is timed in turns with Streaming's with its defaults, over the same shards, and with
nanoGPT's get_batch (https://github.com/karpathy/nanoGPT/blob/master/train.py) over the same tokens in one file. Local
shards, page cache warm, batches of 8. A ratio is taken within a round; what is printed is the median over rounds.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from streaming import StreamingDataLoader, StreamingDataset
from torch import Tensor

from benchmarks.table import HEAD, Row
from hindsight.config.direction import Direction
from hindsight.loading.mds_reader import WindowStream
from hindsight.loading.windows import Split
from hindsight.shards.manifest import SPLITS, Manifest, SplitCounts
from hindsight.shards.mds import COLUMN, OFFSET_BYTES, index_of, write_shard
from load_text_streaming import TextStreamingDataset, build_loader

ROOT = Path(__file__).resolve().parent.parent
BATCH_SIZE = 8
BLOCK_LENGTH = 2048
SHARD_BYTES = 1 << 26
DTYPE = "uint16"
BOS_ID = 0
SEED = 0
WARM_UP_BATCHES = 20

Batches = Callable[[], Iterator[dict[str, Tensor]]]
"""Starts a pass over batches."""


@dataclass(frozen=True)
class Speeds:
    """Million tokens/s of every contender, a number for each round."""

    mtok_s: dict[str, list[float]]

    def median(self, name: str) -> float:
        """Give the median over rounds."""
        return statistics.median(self.mtok_s[name])

    def ratio(self, name: str, yardstick: str) -> tuple[float, float, float]:
        """Give the speed of one over that of another, taken within a round: median, lowest, highest."""
        ratios = [a / b for a, b in zip(self.mtok_s[name], self.mtok_s[yardstick], strict=True)]
        return statistics.median(ratios), min(ratios), max(ratios)


@dataclass(frozen=True)
class Start:
    """What it takes a process to get the first batch of a large set."""

    open_s: float
    """Seconds to open the dataset."""
    first_batch_s: float
    """Seconds from opening the dataset to the first batch, both included."""
    peak_rss_gb: float
    """Largest resident memory of the process, imports included, in units of 10^9 bytes."""
    imports_rss_gb: float
    """The same after the imports."""


def make_manifest(
    n_tokens: dict[str, int], block_length: int = BLOCK_LENGTH, compression: str | None = None
) -> Manifest:
    """Describe a corpus of random tokens, as convert_to_mds.py would."""
    splits = {
        name: SplitCounts(None, tokens, tokens, -(-tokens // block_length), unigram_entropy_nats=1.0)
        for name, tokens in n_tokens.items()
    }
    return Manifest(
        format="mds",
        tokenizer_fingerprint="none",
        vocab_size=1 << 16,
        corpus_fingerprint="none",
        block_length=block_length,
        blocks_per_shard=SHARD_BYTES // (block_length * np.dtype(DTYPE).itemsize),
        dtype=DTYPE,
        seed=SEED,
        val_share=0.01,
        settings={"compression": compression, "hashes": []},
        splits=splits,
    )


def write_corpus(folder: Path, n_tokens: int) -> NDArray[np.uint16]:
    """Write random tokens as the converter does.

    Returns:
        The training tokens, mapped from the one file that nanoGPT reads.
    """
    folder.mkdir()
    manifest = make_manifest({"train": n_tokens, "val": BLOCK_LENGTH})
    tokens = np.random.default_rng(SEED).integers(1 << 16, size=n_tokens, dtype=np.uint16)
    for split, stream in (("train", tokens), ("val", tokens[:BLOCK_LENGTH])):
        (folder / split).mkdir()
        filled = np.concatenate([stream, np.zeros(-len(stream) % BLOCK_LENGTH, np.uint16)])
        blocks, at_once = filled.reshape(-1, BLOCK_LENGTH), manifest.blocks_per_shard
        starts = range(0, len(blocks), at_once)
        shards = [write_shard(folder / split, n, blocks[i : i + at_once], manifest) for n, i in enumerate(starts)]
        (folder / split / "index.json").write_text(index_of(shards), encoding="utf-8")
    manifest.save(folder)
    tokens.tofile(folder / "tokens.bin")
    return np.memmap(folder / "tokens.bin", np.uint16, "r")


def write_sparse_corpus(folder: Path, n_blocks: int) -> None:
    """Write shards whose tokens are holes in the file: all the size, next to no disk."""
    manifest = make_manifest({"train": n_blocks * BLOCK_LENGTH, "val": BLOCK_LENGTH})
    block_bytes = BLOCK_LENGTH * np.dtype(DTYPE).itemsize
    for name in SPLITS:
        (folder / name).mkdir(parents=True)
        n_left, shards = manifest.splits[name].blocks, []
        while n_left:
            n = min(n_left, manifest.blocks_per_shard)
            begin = OFFSET_BYTES * (n + 2)
            path = folder / name / f"shard.{len(shards):05}.mds"
            with path.open("wb") as file:
                file.write(np.uint32(n).tobytes())
                file.write((begin + np.arange(n + 1) * block_bytes).astype(np.uint32).tobytes())
                file.truncate(begin + n * block_bytes)
            shards.append(_shard_entry(path.name, n, begin + n * block_bytes))
            n_left -= n
        (folder / name / "index.json").write_text(json.dumps({"version": 2, "shards": shards}))
    manifest.save(folder)


def _shard_entry(basename: str, n_blocks: int, n_bytes: int) -> dict[str, Any]:
    return {
        "column_encodings": [f"ndarray:{DTYPE}:{BLOCK_LENGTH}"],
        "column_names": [COLUMN],
        "column_sizes": [BLOCK_LENGTH * np.dtype(DTYPE).itemsize],
        "compression": None,
        "format": "mds",
        "hashes": [],
        "raw_data": {"basename": basename, "bytes": n_bytes, "hashes": {}},
        "samples": n_blocks,
        "size_limit": None,
        "version": 2,
        "zip_data": None,
    }


def open_dataset(folder: Path, context_length: int) -> TextStreamingDataset:
    """Open the training split as train_composer.py does."""
    split = Split.of(str(folder), "train", Manifest.load(folder), context_length, BATCH_SIZE)
    return TextStreamingDataset(WindowStream(split), split, BATCH_SIZE, shuffle=True, seed=SEED)


def our_batches(folder: Path, context_length: int, direction: Direction, num_workers: int = 0) -> Batches:
    """Give the batches that training gets."""
    loader = build_loader(open_dataset(folder, context_length), direction, BOS_ID, num_workers, SEED).dataloader
    return lambda: iter(loader)


def _stack(samples: list[dict[str, NDArray]]) -> dict[str, Tensor]:
    return {"input_ids": torch.stack([torch.from_numpy(sample[COLUMN].astype(np.int64)) for sample in samples])}


def streaming_batches(folder: Path, n_batches: int) -> Batches:
    """Give batches of blocks as Streaming does, all settings but the length of the epoch being its defaults.

    The threads of a pass that is broken off would go on, and disturb the next contender: hence short epochs.
    """
    dataset = StreamingDataset(
        local=str(folder), split="train", shuffle=True, batch_size=BATCH_SIZE, epoch_size=n_batches * BATCH_SIZE
    )
    loader = StreamingDataLoader(dataset, batch_size=BATCH_SIZE, collate_fn=_stack)
    return lambda: iter(loader)


def nanogpt_batches(tokens: NDArray[np.uint16], context_length: int) -> Batches:
    """Give the batches of nanoGPT's get_batch, for ever."""

    def get_batch() -> dict[str, Tensor]:
        starts = torch.randint(len(tokens) - context_length, (BATCH_SIZE,))
        x = torch.stack([torch.from_numpy(tokens[i : i + context_length].astype(np.int64)) for i in starts])
        y = torch.stack([torch.from_numpy(tokens[i + 1 : i + 1 + context_length].astype(np.int64)) for i in starts])
        return {"input_ids": x, "targets": y}

    def batches() -> Iterator[dict[str, Tensor]]:
        while True:
            yield get_batch()

    return batches


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
    """Time every contender in turns: its batches, and how many of them to read in a round."""
    mtok_s: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(rounds):
        names = list(contenders)
        for name in names if i % 2 == 0 else names[::-1]:
            mtok_s[name].append(time_batches(*contenders[name]))
    return Speeds(mtok_s)


def measure_first_batch(folder: Path, num_workers: int, rounds: int = 5) -> float:
    """Give the seconds from opening the dataset to the first batch, the median over rounds."""
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        next(our_batches(folder, BLOCK_LENGTH, Direction.forward, num_workers)())
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def peak_rss_gb() -> float:
    """Largest resident memory that this process has had, in units of 10^9 bytes.

    getrusage's maximum would include that of the process that started this one.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024 / 1e9


def start_of(folder: Path, context_length: int) -> Start:
    """Get a first batch in this process, which must have done nothing else."""
    imports_rss_gb, began = peak_rss_gb(), time.perf_counter()
    batches = our_batches(folder, context_length, Direction.forward)
    open_s = time.perf_counter() - began
    next(batches())
    return Start(open_s, time.perf_counter() - began, peak_rss_gb(), imports_rss_gb)


def measure_start(folder: Path, context_length: int, rounds: int = 3) -> Start:
    """Get the first batch of a large set in processes of their own: the median of seconds, the largest of memory."""
    call = f"start_of(Path({str(folder)!r}), {context_length})"
    code = f"from benchmarks.loading import *; print(json.dumps(vars({call})))"
    starts = [Start(**json.loads(_python(code))) for _ in range(rounds)]
    return Start(
        statistics.median(start.open_s for start in starts),
        statistics.median(start.first_batch_s for start in starts),
        max(start.peak_rss_gb for start in starts),
        max(start.imports_rss_gb for start in starts),
    )


def measure_import(statement: str, rounds: int = 3) -> float:
    """Give the seconds of an import in a process of its own, the median over rounds.

    A round before them writes the bytecode, so that an environment without it (uv writes none) has the same figures.
    """
    code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    with tempfile.TemporaryDirectory() as folder:
        bytecode = {"PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}
        return statistics.median([float(_python(code, bytecode)) for _ in range(rounds + 1)][1:])


def _python(code: str, variables: dict[str, str] | None = None) -> str:
    command, environment = [sys.executable, "-c", code], os.environ | (variables or {})
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


def compare_loaders(folder: Path, n_tokens: int = 100_000_000, rounds: int = 5) -> tuple[Speeds, list[Row]]:
    """Time our loader, Streaming's and nanoGPT's over the same random tokens."""
    tokens = write_corpus(folder, n_tokens)
    n_batches = n_tokens // (BLOCK_LENGTH * BATCH_SIZE)
    speeds = measure_speeds(
        {
            "forward": (our_batches(folder, BLOCK_LENGTH, Direction.forward), n_batches),
            "backward": (our_batches(folder, BLOCK_LENGTH, Direction.backward), n_batches),
            "nanogpt": (nanogpt_batches(tokens, BLOCK_LENGTH), n_batches),
            "streaming": (
                streaming_batches(folder, n_batches // 8 + WARM_UP_BATCHES),
                n_batches // 8 + WARM_UP_BATCHES,
            ),
            "of 256": (our_batches(folder, 256, Direction.forward), n_batches),
            "of 256, backward": (our_batches(folder, 256, Direction.backward), n_batches),
            "2 workers": (our_batches(folder, BLOCK_LENGTH, Direction.forward, num_workers=2), n_batches // 4),
        },
        rounds,
    )
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
    return speeds, rows


def compare_starts(folder: Path, n_windows: int = 10_000_000) -> list[Row]:
    """Measure the start on a large set, cut into whole blocks and into pieces of them."""
    rows = []
    for context_length in (BLOCK_LENGTH, 256):
        sparse = folder / str(context_length)
        write_sparse_corpus(sparse, n_windows * context_length // BLOCK_LENGTH)
        start, name = measure_start(sparse, context_length), f"{n_windows:,} windows of {context_length}"
        seconds = f"{start.first_batch_s:.2f} s (opening {start.open_s:.2f})"
        rows.append(Row(f"first batch, {name}", seconds, "< 10", start.first_batch_s < 10))
        memory = f"{start.peak_rss_gb:.2f} GB (imports {start.imports_rss_gb:.2f})"
        rows.append(Row(f"peak memory, {name}", memory, "< 1.5", start.peak_rss_gb < 1.5))
    return rows


def measure_all(folder: Path) -> list[Row]:
    """Measure everything, in an empty folder."""
    rows = compare_loaders(folder / "corpus")[1]
    for num_workers in (0, 2):
        seconds = measure_first_batch(folder / "corpus", num_workers)
        rows.append(Row(f"first batch, {num_workers} workers, 100M tokens", f"{seconds:.3f} s"))
    rows += compare_starts(folder / "large")
    for statement in ("import torch", "import streaming", "import composer", "import load_text_streaming"):
        rows.append(Row(statement, f"{measure_import(statement):.2f} s"))
    return rows


def main() -> None:
    """Print the table."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    with tempfile.TemporaryDirectory() as folder:
        rows = measure_all(Path(folder))
    sys.stdout.write("\n".join([HEAD, *map(str, rows)]) + "\n")


if __name__ == "__main__":
    main()
