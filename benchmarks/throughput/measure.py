"""Measure variants in turns, each in a process of its own."""

import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.throughput.data import make_shards
from benchmarks.throughput.flops import best_flops
from benchmarks.throughput.loops import run_loop
from benchmarks.throughput.setup import Contender
from benchmarks.throughput.turns import Step, Turn, Turns, TurnsOver
from benchmarks.worker import Worker
from hindsight.config.throughput import Variant
from hindsight.config.training import Precision


@dataclass
class Result:
    """What was measured of a variant, without the round that warms up."""

    contender: Contender
    turns: list[list[Step]]
    peak_mib: float
    first_step_seconds: float
    best_flops: float | None = None
    """FLOP/s that the device could do at best in this precision; None for an unknown GPU."""


def measure(contenders: Sequence[Contender], trace: Path | None = None) -> list[Result]:
    """Let the variants take turns, `setup.rounds` times and once before to warm up; all have the same sizes.

    Args:
        contenders: what is measured.
        trace: a folder, into which each writes a trace of one more turn.
    """
    setup = contenders[0].setup
    results = [Result(contender, [], 0.0, 0.0) for contender in contenders]
    rates: dict[Precision, list[float | None]] = {contender.setup.precision: [] for contender in contenders}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        has_trainer = any(contender.variant is Variant.trainer for contender in contenders)
        shards = make_shards(setup, Path(folder)) if has_trainer else None
        workers = [
            stack.enter_context(closing(worker_of(contender, shards, Path(folder, str(i)))))
            for i, contender in enumerate(contenders)
        ]
        for number in tqdm(range(setup.rounds + 1), desc="measuring", unit="round", disable=None):
            for precision, of in rates.items():
                of.append(best_flops(setup, precision))
            for worker, result in zip(workers, results, strict=True):
                turn: Turn = worker.ask()
                result.peak_mib, result.first_step_seconds = turn.peak_mib, turn.first_step_seconds
                result.turns += [turn.steps] if number else []
        if trace is not None:
            for worker, contender in zip(workers, contenders, strict=True):
                worker.ask(trace / f"{contender.name}.json.gz")
    for result in results:
        known = [rate for rate in rates[result.contender.setup.precision][1:] if rate is not None]
        result.best_flops = statistics.median(known) if known else None
    return results


def worker_of(contender: Contender, shards: Path | None, folder: Path) -> Worker:
    """Start a process that runs one variant; it is asked for turns, each with a file for a trace of it, or None.

    Args:
        contender: what it runs.
        shards: the Trainer's data.
        folder: a new folder for its files.
    """
    return Worker(f"variant {contender.name}", serve_turns, contender, shards, folder)


def serve_turns(contender: Contender, shards: Path | None, folder: Path, pipe: Connection) -> None:
    """Run a variant in this process, a turn for each request, until the other end of the pipe is closed."""
    torch.set_num_threads(contender.setup.threads)
    folder.mkdir()
    turns = Turns(contender.setup, pipe)
    try:
        turns.wait_for_first()
        run_loop(contender, turns, shards, folder)
    except TurnsOver:
        pass
