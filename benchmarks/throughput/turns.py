"""The clock of a training loop, and the turns that it takes beside the others."""

import time
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.throughput.setup import Setup
from logging_composer import peak_memory_mib


@dataclass(frozen=True)
class Step:
    """What an optimizer step took."""

    seconds: float
    cpu_seconds: float
    """CPU time of all threads of the process: on a shared machine, what of a step is its own."""
    wait_seconds: float
    """Of its seconds, those in which the loop waited for the loader."""


@dataclass(frozen=True)
class Turn:
    """What a process says of a turn."""

    steps: list[Step]
    peak_mib: float
    """Peak memory of the process so far."""
    first_step_seconds: float
    """From the first line of the process after its imports to the end of its first step, compilation included."""


class TurnsOver(BaseException):
    """No more turns are asked for; no Exception, so that no loop goes on in spite of it."""


class Turns:
    """Counts the steps of a loop, and holds it where a turn ends until the next is asked for.

    Args:
        setup: how many steps there are in a turn.
        pipe: requests for turns come here: a file for a trace of the turn, or None; the turns go back.
    """

    def __init__(self, setup: Setup, pipe: Connection) -> None:
        self.setup, self.pipe = setup, pipe
        self.gpu = setup.device == "cuda"
        self.marks: list[tuple[Any, float, float]] = []
        self.wait_began = self.waited = 0.0
        self.first_step_seconds: float | None = None
        self.trace: Path | None = None
        self.profiler: profile | None = None
        self.began = 0.0

    def wait_for_first(self) -> None:
        """Wait until the first turn is asked for, so that no two processes compute at once; TurnsOver if none is."""
        self._wait()
        self.began = time.perf_counter()

    def begin_wait(self) -> None:
        """Begin to wait for data."""
        self.wait_began = time.perf_counter()

    def end_wait(self) -> None:
        """Count the time since then as lost to data."""
        self.waited += time.perf_counter() - self.wait_began

    def mark(self) -> None:
        """Take the time at the end of a step; end the turn after its last, and wait for the next one.

        Raises:
            TurnsOver: there is none.
        """
        now: Any = time.perf_counter()
        if self.gpu:  # events, so that nothing is synchronized within a turn
            now = torch.cuda.Event(enable_timing=True)
            now.record()
        self.marks.append((now, time.process_time(), self.waited))
        self.waited = 0.0
        if self.first_step_seconds is None:
            if self.gpu:
                torch.cuda.synchronize()
            self.first_step_seconds = time.perf_counter() - self.began
        if len(self.marks) > self.setup.steps:
            self.pipe.send(self._end())
            self._wait()

    def _end(self) -> Turn:
        if self.gpu:
            torch.cuda.synchronize()
        if self.profiler is not None:
            self.profiler.stop()
            self.profiler.export_chrome_trace(str(self.trace))
            self.profiler = None
        marks, self.marks = self.marks, []
        steps = [
            Step(
                before[0].elapsed_time(after[0]) / 1000 if self.gpu else after[0] - before[0],
                after[1] - before[1],
                after[2],
            )
            for before, after in pairwise(marks)
        ]
        peak_mib = peak_memory_mib()
        if self.gpu:
            torch.cuda.empty_cache()  # the other variants need the memory
        assert self.first_step_seconds is not None
        return Turn(steps, peak_mib, self.first_step_seconds)

    def _wait(self) -> None:
        try:
            self.trace = self.pipe.recv()
        except EOFError:
            raise TurnsOver from None
        if self.trace is not None:
            kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.gpu else [])]
            self.profiler = profile(activities=kinds)
            self.profiler.start()
