"""Measure variants in turns, each in a process of its own."""

import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.throughput.flops import best_flops
from benchmarks.throughput.loops import build_loop
from benchmarks.throughput.setup import Setup
from hindsight.config.throughput import Variant
from logging_composer import peak_memory_mib


@dataclass
class Result:
    """What was measured of a variant, without the round that warms up."""

    variant: Variant
    turns: list[list[float]]
    """Seconds of each step of each turn."""
    peak_mib: float


def measure(variants: Sequence[Variant], setup: Setup) -> tuple[list[Result], float | None]:
    """Let the variants take turns, `setup.rounds` times and once before to warm up.

    Returns:
        The result of each variant, and the FLOP/s that the device could do at best; None for an unknown GPU.
    """
    results = [Result(variant, [], 0.0) for variant in variants]
    rates = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        workers = [Worker(variant, setup, Path(folder, str(i))) for i, variant in enumerate(variants)]
        for worker in workers:
            stack.callback(worker.close)
        for number in tqdm(range(setup.rounds + 1), desc="measuring", unit="round", disable=None):
            rates.append(best_flops(setup))
            for worker, result in zip(workers, results, strict=True):
                seconds, result.peak_mib = worker.take_turn()
                result.turns += [seconds] if number else []
    known = [rate for rate in rates[1:] if rate is not None]
    return results, statistics.median(known) if known else None


class Worker:
    """A process that runs one variant, and waits between its turns.

    Args:
        variant: what it runs.
        setup: what is measured.
        folder: a new folder for its files.
    """

    def __init__(self, variant: Variant, setup: Setup, folder: Path) -> None:
        self.variant = variant
        context = get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=serve_turns, args=(variant, setup, folder, other))
        self.process.start()
        other.close()

    def take_turn(self) -> tuple[list[float], float]:
        """Run a turn in the process; return the seconds of its steps, and its peak memory so far in MiB."""
        try:
            self.pipe.send(True)
            return self.pipe.recv()
        except (EOFError, ConnectionError):
            raise RuntimeError(f"The variant {self.variant.name} failed; its own error stands above.") from None

    def close(self) -> None:
        """Close the pipe, at which the process ends, and wait for it."""
        self.pipe.close()
        self.process.join()


def serve_turns(variant: Variant, setup: Setup, folder: Path, pipe: Connection) -> None:
    """Run a variant in this process, a turn for each request, until the other end of the pipe is closed."""
    torch.set_num_threads(setup.threads)
    folder.mkdir()
    loop = None
    while is_requested(pipe):
        loop = loop or build_loop(variant, setup, folder)  # in its turn, so that no two compute at once
        seconds = loop.take_turn()
        peak_mib = peak_memory_mib()
        if setup.device == "cuda":
            torch.cuda.empty_cache()  # the other variants need the memory
        pipe.send((seconds, peak_mib))


def is_requested(pipe: Connection) -> bool:
    """Wait for the request for a turn; False if the other end closes the pipe instead."""
    try:
        return pipe.recv()
    except EOFError:
        return False
