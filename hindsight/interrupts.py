"""Signals that interrupt a run: the step is finished, a checkpoint is saved, and all processes leave together.

Schedulers warn a job before they end it: Slurm by the signal that --signal names, Grid Engine by SIGUSR1 or SIGUSR2.
This module imports nothing that takes time, so that a warning that comes early is handled as well.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
from multiprocessing import resource_tracker
from types import FrameType

EXIT_INTERRUPTED = 75
"""Exit status of a run that was interrupted and can go on: EX_TEMPFAIL of sysexits.h."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
PR_SET_PDEATHSIG = 1
"""Option of prctl(2): the signal that a process gets when its parent ends."""


class Interrupted(Exception):  # noqa: N818 - it is no error
    """A run has saved what it had made, because it was asked to stop."""


class _Received:
    """The signals that this process has received so far."""

    name: str | None = None
    sigints: int = 0
    process: int = 0


def handle_signals() -> None:
    """Record the signals from here on, instead of ending at once; a second SIGINT raises KeyboardInterrupt."""
    _Received.process = os.getpid()
    # Grid Engine sends its warnings to all processes of a job: the resource tracker of shared memory must not end.
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # it inherits this
    resource_tracker.ensure_running()
    for number in SIGNALS:
        signal.signal(number, _record)


def received_signal() -> str | None:
    """Name of the signal that this process has received; None if it has received none."""
    return _Received.name


def ignore_signals() -> None:
    """Ignore all signals from here on: a process that leaves by itself leaves with its own exit status.

    Composer's launcher sends SIGTERM to the other ranks as soon as one has left, which would end them in the middle of
    the interpreter's shutdown, where Python's signal handlers no longer exist.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def leave_with_parent(worker: int) -> None:
    """Let a data worker end with the training process, and no earlier: the worker_init_fn of the DataLoader.

    A worker receives the signals that are sent to all processes of a job, and must serve the current step; when the
    training process is killed, PyTorch's own watch takes seconds to notice, or never does where that happened before
    the watch began.
    """
    ignore_signals()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:  # it was killed before this process asked for the signal
        os._exit(1)


def _record(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _Received.process:
        return  # a forked process that has no handlers of its own yet
    _Received.name = signal.Signals(number).name
    _Received.sigints += number == signal.SIGINT
    if number == signal.SIGINT and _Received.sigints > 1:
        raise KeyboardInterrupt
