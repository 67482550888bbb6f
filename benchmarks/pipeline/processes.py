"""Seconds and peak memory of commands, run in turns."""

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
ONE_THREAD = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
"""The environment in which `tokenizers` and ffbpe compute in one thread."""


class Cost(NamedTuple):
    """What a command took."""

    seconds: float
    peak_mib: float
    """Sum of the peaks of all its processes."""


def measure(*commands: list[str], one_thread: bool = False) -> Cost:
    """Run Python with these arguments, one command after the other; memory is that of the largest command."""
    environment = os.environ | (ONE_THREAD if one_thread else {})
    peak, began = 0.0, time.perf_counter()
    for command in commands:
        with (
            tempfile.TemporaryFile() as output,
            subprocess.Popen(
                [sys.executable, *command], cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
            ) as process,
            watched_memory(process.pid) as peaks_mib,
        ):
            if process.wait() != 0:
                output.seek(0)
                raise RuntimeError(f"{command} failed: {output.read().decode(errors='replace')}")
        peak = max(peak, sum(peaks_mib.values()))
    return Cost(time.perf_counter() - began, peak)


@contextmanager
def watched_memory(pid: int) -> Iterator[dict[int, float]]:
    """Look up the peak memory of a process and its descendants five times a second, in MiB, by process id."""
    peaks_mib: dict[int, float] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            peaks_mib.update(tree_peaks_mib(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peaks_mib
    finally:
        ended.set()
        watcher.join()


def tree_peaks_mib(pid: int) -> dict[int, float]:
    """Peak memory so far of a process and its descendants, in MiB, by process id."""
    peaks_mib: dict[int, float] = {}
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        peaks_mib[pid] = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                peaks_mib |= tree_peaks_mib(int(child))
    except (OSError, StopIteration):  # the process has ended meanwhile
        pass
    return peaks_mib


def in_turns(contenders: dict[str, Callable[[], Cost]], rounds: int) -> dict[str, list[Cost]]:
    """Run every contender once a round, in the order given and in its reverse by turns."""
    costs: dict[str, list[Cost]] = {name: [] for name in contenders}
    for i in range(rounds):
        for name in list(contenders)[:: 1 if i % 2 == 0 else -1]:
            costs[name].append(contenders[name]())
            sys.stderr.write(f"{name}: {costs[name][-1].seconds:.2f} s, {costs[name][-1].peak_mib:.0f} MiB\n")
    return costs


def ratio(ours: list[Cost], theirs: list[Cost], key: str = "seconds") -> float:
    """Seconds (or peak_mib) of ours over theirs, the median over rounds."""
    return statistics.median(getattr(a, key) / getattr(b, key) for a, b in zip(ours, theirs, strict=True))
