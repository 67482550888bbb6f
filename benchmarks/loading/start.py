"""Seconds and memory before the first batch: of large corpora, with workers, and of imports.

`python -m benchmarks.loading.start FOLDER CONTEXT_LENGTH` measures one start, in a process that does nothing else.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.loading.shards import BLOCK_LENGTH, write_sparse_corpus
from benchmarks.loading.speed import our_batches
from benchmarks.table import Row

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Start:
    """What a process needs until it has the first batch of a large corpus."""

    open_s: float
    """Seconds to open the dataset."""
    first_batch_s: float
    """Seconds from opening the dataset to the first batch, both included."""
    peak_rss_gb: float
    """Largest resident memory of the process, imports included, in units of 10^9 bytes."""
    imports_rss_gb: float
    """The same after the imports."""


def start_here(folder: Path, context_length: int) -> Start:
    """Load a first batch in this process, which must have done nothing else."""
    imports_rss_gb, began = peak_rss_gb(), time.perf_counter()
    batches = our_batches(folder, context_length, "forward")
    open_s = time.perf_counter() - began
    next(batches())
    return Start(open_s, time.perf_counter() - began, peak_rss_gb(), imports_rss_gb)


def peak_rss_gb() -> float:
    """Largest resident memory that this process has had, in units of 10^9 bytes.

    getrusage's maximum would include that of the process that started this one.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024 / 1e9


def measure_start(folder: Path, context_length: int, rounds: int = 3) -> Start:
    """Load the first batch in processes of their own: the median of seconds, the largest of memory."""
    arguments = "-m", "benchmarks.loading.start", str(folder), str(context_length)
    starts = [Start(**json.loads(_python(*arguments))) for _ in range(rounds)]
    return Start(
        statistics.median(start.open_s for start in starts),
        statistics.median(start.first_batch_s for start in starts),
        max(start.peak_rss_gb for start in starts),
        max(start.imports_rss_gb for start in starts),
    )


def compare_starts(folder: Path, n_windows: int = 10_000_000) -> Iterator[Row]:
    """Measure the start on a large corpus, cut into whole blocks and into pieces of them."""
    for context_length in (BLOCK_LENGTH, 256):
        sparse = folder / str(context_length)
        write_sparse_corpus(sparse, n_windows * context_length // BLOCK_LENGTH)
        start, name = measure_start(sparse, context_length), f"{n_windows:,} windows of {context_length}"
        seconds = f"{start.first_batch_s:.2f} s (opening {start.open_s:.2f})"
        yield Row(f"first batch, {name}", seconds, "< 10", start.first_batch_s < 10)
        memory = f"{start.peak_rss_gb:.2f} GB (imports {start.imports_rss_gb:.2f})"
        yield Row(f"peak memory, {name}", memory, "< 1.5", start.peak_rss_gb < 1.5)


def measure_first_batches(folder: Path, rounds: int = 5) -> Iterator[Row]:
    """Time the way from opening the corpus of `compare_loaders` to the first batch, without and with workers."""
    for num_workers in (0, 2):
        seconds = []
        for _ in range(rounds):
            began = time.perf_counter()
            next(our_batches(folder, BLOCK_LENGTH, "forward", num_workers)())
            seconds.append(time.perf_counter() - began)
        yield Row(f"first batch, {num_workers} workers, 100M tokens", f"{statistics.median(seconds):.3f} s")


def measure_imports(*statements: str) -> Iterator[Row]:
    """Time each of these import statements."""
    for statement in statements:
        yield Row(statement, f"{measure_import(statement):.2f} s")


def measure_import(statement: str, rounds: int = 3) -> float:
    """Seconds of an import in a process of its own, the median over rounds.

    A round before them writes the bytecode, so that an environment without it (uv writes none) has the same figures.
    """
    code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    with tempfile.TemporaryDirectory() as folder:
        bytecode = {"PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}
        return statistics.median([float(_python("-c", code, variables=bytecode)) for _ in range(rounds + 1)][1:])


def _python(*arguments: str, variables: dict[str, str] | None = None) -> str:
    """Run Python from the repository's root with more environment variables; return what it prints."""
    command, environment = [sys.executable, *arguments], os.environ | (variables or {})
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(start_here(Path(sys.argv[1]), int(sys.argv[2])))))
