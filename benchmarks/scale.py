"""Slopes behind docs/scale.md: what grows with the data, the model or the run, at three sizes each.

`python -m benchmarks.scale [PART]...`, from the repository's root, where PART is one of PARTS; 3 GiB of disk in
$TMPDIR, a GiB of memory. Each size runs in a process of its own, forked before, whose CPU time and memory count.
"""

import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from benchmarks.arguments import parse_scale

if __name__ == "__main__":
    parse_scale(sys.argv[1:])  # before the imports below, which take seconds

import numpy as np
import torch
from streaming.base.world import World

from benchmarks.table import HEAD, Row
from hindsight.config.model import GPTConfig
from hindsight.config.optim import OptimConfig
from hindsight.conversion.corpus_statistics import count_duplicates
from hindsight.conversion.work_folder import Progress, WorkFolder
from hindsight.json_lines import keep_until
from hindsight.loading.mds_reader import WindowStream
from hindsight.loading.windows import SplitWindows, device_share, epoch_pieces
from hindsight.shards.integrity import find_fault, read_in_chunks
from hindsight.shards.manifest import SPLITS, Manifest
from hindsight.shards.mds import INDEX_NAME, blocks_in, index_of, read_shard_bytes, write_shard
from hindsight.training.checkpoint_content import read_content
from hindsight.training.optim import build_optimizer
from language_model import build_model

BLOCK_LENGTH, SHARD_BYTES, CONTEXT_LENGTH = 2048, 1 << 26, 1024
BLOCKS = blocks_in(SHARD_BYTES, BLOCK_LENGTH, 2)
MIB = 1 << 20


def measured(task: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Run a task in a process of its own: what it says, with its seconds, CPU seconds and MiB added to those before."""

    def run(pipe: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            began, cpu = time.perf_counter(), time.process_time()
            found = task(Path(folder))
            found.setdefault("seconds", time.perf_counter() - began)
            found.setdefault("cpu_s", time.process_time() - cpu)
            found["mib"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            pipe.send(found)

    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=run, args=(there,))
    process.start()
    there.close()
    found = here.recv()
    process.join()
    return found


def timed(task: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of the clock and of the CPU that a task takes."""
    began, cpu = time.perf_counter(), time.process_time()
    task()
    return time.perf_counter() - began, time.process_time() - cpu


def windows_of(n_shards: int, folder: Path = Path(), block_length: int = BLOCK_LENGTH) -> SplitWindows:
    """The windows of a split of so many full shards."""
    blocks = blocks_in(SHARD_BYTES, block_length, 2)
    n_tokens = n_shards * blocks * block_length
    return SplitWindows(str(folder), "train", n_tokens, block_length, blocks, CONTEXT_LENGTH, 512)


def index(n_shards: int) -> dict[str, Any]:
    """Open the index of so many shards, which are files without content."""

    def task(folder: Path) -> dict[str, Any]:
        (folder / "train").mkdir()
        entry = write_shard(folder / "train", 0, np.zeros((BLOCKS, BLOCK_LENGTH), np.uint16), manifest())
        entries = []
        for number in range(n_shards):
            name = f"shard.{number:05}.mds"
            entries.append(entry | {"raw_data": entry["raw_data"] | {"basename": name}})
            with (folder / "train" / name).open("ab") as file:
                file.truncate(entry["raw_data"]["bytes"])
        (folder / "train" / INDEX_NAME).write_text(index_of(entries))
        stream = WindowStream(windows_of(n_shards, folder))
        opened: list[Any] = []
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        def open_all() -> None:
            opened.extend(stream.get_shards(World.detect(), False))
            stream.set_up_local(opened, np.zeros(len(opened), np.int64))

        seconds, cpu_s = timed(open_all)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
        size = (folder / "train" / INDEX_NAME).stat().st_size
        return {"seconds": seconds, "cpu_s": cpu_s, "bytes a shard": size / n_shards, "MiB of it": grown}

    return measured(task)


def manifest() -> Manifest:
    """What a conversion with the usual settings says."""
    settings = {"compression": None, "hashes": ["xxh64"]}
    return Manifest("mds", "", 50257, "", BLOCK_LENGTH, BLOCKS, "uint16", 0, 0.01, settings)


def order(n_shards: int, block_length: int = BLOCK_LENGTH) -> dict[str, Any]:
    """Make the share of one of 64 devices in the order of an epoch."""
    windows = windows_of(n_shards, block_length=block_length)

    def task(folder: Path) -> dict[str, Any]:
        device_share(epoch_pieces(windows, 1, True, 0, 0), rank=0, n_devices=64, n_nodes=8)
        return {"tokens": f"{windows.n_tokens:.2g}"}

    return measured(task)


def shards(n_shards: int) -> dict[str, Any]:
    """Write shards, one after the other, as a conversion does, and read them for the check before their first use."""
    tokens = np.random.default_rng(0).integers(50257, size=(BLOCKS, BLOCK_LENGTH)).astype(np.uint16)

    def task(folder: Path) -> dict[str, Any]:
        entries: list[dict[str, Any]] = []
        written, _ = timed(lambda: entries.extend(write_shard(folder, i, tokens, manifest()) for i in range(n_shards)))
        begin = int(np.frombuffer(read_shard_bytes(folder, entries[0]), "<u4", count=1, offset=4)[0])

        def check() -> None:
            for entry in entries:
                path = folder / entry["raw_data"]["basename"]
                pieces = read_in_chunks(path, begin, np.dtype(np.uint16))
                fault = find_fault(path.read_bytes()[:begin], pieces, entry["raw_data"]["hashes"], 50257)
                assert fault is None, fault

        checked, cpu_s = timed(check)
        return {"seconds": written, "cpu_s": cpu_s, "s to check": checked}

    return measured(task)


def metrics(n_lines: int) -> dict[str, Any]:
    """Find the last line that stays of metrics.jsonl at a resume."""
    line = {
        "step": 0,
        "tokens": 524288000000,
        "seconds": 123456.789012,
        "train/loss_nats": 3.123456789012345,
        "train/perplexity": 22.123456789012345,
        "train/accuracy": 0.41234567890123456,
        "train/bits_per_byte": 1.0123456789012345,
        "train/lr": 0.0005999999999999999,
        "train/grad_norm": 0.41234567880630493,
        "train/tokens_per_second": 25612345.123456789,
        "train/peak_memory_mib": 61234.56789,
    }

    def task(folder: Path) -> dict[str, Any]:
        path = folder / "metrics.jsonl"
        with path.open("w") as file:
            file.writelines(json.dumps(line | {"step": step}) + "\n" for step in range(1, n_lines + 1))
        size = path.stat().st_size
        seconds, cpu_s = timed(lambda: keep_until(path, n_lines, once=True))
        return {"seconds": seconds, "cpu_s": cpu_s, "bytes a line": size / n_lines}

    return measured(task)


def state(n_shards: int) -> dict[str, Any]:
    """Save the state of a conversion that has written so many shards."""

    def task(folder: Path) -> dict[str, Any]:
        entry = write_shard(folder, 0, np.zeros((1, BLOCK_LENGTH), np.uint16), manifest())
        progress = Progress({split: np.zeros(50257, np.int64) for split in SPLITS}, 0.01)
        progress.splits["train"].shards = [deepcopy(entry) for _ in range(n_shards)]
        files = WorkFolder(folder, keep_hashes=True)
        seconds, cpu_s = timed(lambda: files.save(manifest(), "out", progress))
        return {"seconds": seconds, "cpu_s": cpu_s}

    return measured(task)


def duplicates(n_documents: int) -> dict[str, Any]:
    """Count documents that repeat another, by their hashes, at the end of a conversion."""

    def task(folder: Path) -> dict[str, Any]:
        path, rng = folder / "hashes", np.random.default_rng(0)
        with path.open("wb") as file:
            for _ in range(n_documents // MIB):
                rng.integers(1 << 63, size=MIB, dtype=np.uint64).tofile(file)
        seconds, cpu_s = timed(lambda: count_duplicates(path))
        return {"seconds": seconds, "cpu_s": cpu_s}

    return measured(task)


def checkpoint(n_layers: int) -> dict[str, Any]:
    """Write weights and both running means, and check them as a resume does."""
    config = GPTConfig(name="a", n_layers=n_layers, d_model=512, n_heads=8, context_length=1024, tied_head=True)

    def task(folder: Path) -> dict[str, Any]:
        model = build_model(config, 16384, seed=0)
        optimizer = build_optimizer(model, OptimConfig())
        for weight in model.parameters():
            weight.grad = torch.zeros_like(weight)
        optimizer.step()
        moments = {str(number): kept for number, kept in optimizer.state_dict()["state"].items()}
        path = folder / "a.pt"

        def save() -> None:
            with path.open("wb") as file:
                torch.save({"model": model.state_dict(), "moments": moments}, file)
                file.flush()
                os.fsync(file.fileno())

        def check() -> None:
            with zipfile.ZipFile(path) as archive:
                read_content(archive, path.stat().st_size)

        save()  # the first one imports and allocates
        saved, saving_cpu_s = timed(save)
        checked, cpu_s = timed(check)
        loaded, _ = timed(lambda: torch.load(path, weights_only=True))
        size = path.stat().st_size / 1e9
        parameters = sum(weight.numel() for weight in model.parameters())
        found = {"parameters": f"{parameters / 1e6:.0f}M", "GB": size}
        found |= {"seconds": saved, "cpu_s": saving_cpu_s}
        return {**found, "s to check": checked, "s of CPU to check": cpu_s, "s to load": loaded}

    return measured(task)


PARTS: dict[str, list[tuple[str, Callable[[], dict[str, Any]]]]] = {
    "index": [(f"{n:,} shards opened", lambda n=n: index(n)) for n in (1000, 4000, 16000)],
    "order": [
        *((f"order of {n} shards", lambda n=n: order(n)) for n in (64, 128, 256)),
        *((f"order of {n} shards, blocks of 16384", lambda n=n: order(n, 16384)) for n in (64, 128, 256)),
    ],
    "shards": [(f"{n} shards written", lambda n=n: shards(n)) for n in (4, 8, 16)],
    "state": [(f"state saved of {n:,} shards", lambda n=n: state(n)) for n in (1000, 4000, 16000)],
    "duplicates": [(f"{n} Mi documents compared", lambda n=n: duplicates(n * MIB)) for n in (8, 16, 32)],
    "metrics": [
        (f"metrics.jsonl of {n:,} lines at a resume", lambda n=n: metrics(n)) for n in (10_000, 40_000, 160_000)
    ],
    "checkpoint": [(f"checkpoint of {n} layers", lambda n=n: checkpoint(n)) for n in (4, 8, 16)],
}


def main(parts: Sequence[str]) -> None:
    """Measure parts, and print a table, a row when it is known."""
    sys.stdout.write(HEAD + "\n")
    for part in parts:
        for name, task in PARTS[part]:
            found = task()
            words = [f"{found.pop('seconds'):.2f} s, {found.pop('cpu_s'):.2f} s of CPU, {found.pop('mib'):.0f} MiB"]
            for key, value in found.items():
                words.append(f"{key} {value:.3g}" if isinstance(value, float) else f"{value} {key}")
            sys.stdout.write(f"{Row(name, '; '.join(words))}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(parse_scale(sys.argv[1:]))
