"""Signals and the file STOP: the step is finished, a checkpoint is saved, and all processes leave together.

Schedulers warn a job before they end it: Slurm by the signal that --signal names, Grid Engine by SIGUSR1 or SIGUSR2.
This module imports nothing that takes time, so that a warning that comes early is heard as well.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
from multiprocessing import resource_tracker
from types import FrameType

STATUS = 75
"""Exit status of a run that was interrupted and can go on: EX_TEMPFAIL of sysexits.h."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
PR_SET_PDEATHSIG = 1
"""Of prctl(2): the signal that a process gets when its parent ends."""
STOP_NAME = "STOP"
"""A file of this name in a run's folder interrupts the run."""


class Interrupted(Exception):  # noqa: N818 - it is no error
    """A run has saved what it had made, because it was asked to leave."""


class _Heard:
    """What this process was asked so far."""

    name: str | None = None
    sigints: int = 0
    process: int = 0


def listen() -> None:
    """Note the signals from here on, instead of ending at once; a second SIGINT raises KeyboardInterrupt."""
    _Heard.process = os.getpid()
    # Grid Engine sends its warnings to all processes of a job: the one that keeps track of shared memory must not end.
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # it inherits this
    resource_tracker.ensure_running()
    for number in SIGNALS:
        signal.signal(number, _note)


def heard() -> str | None:
    """Name of the signal that this process has got; None if it has got none."""
    return _Heard.name


def ignore() -> None:
    """Hear no signal any more: a process that leaves by itself leaves with its own status.

    Composer's launcher sends SIGTERM to the others as soon as one has left, which would end them in the middle of the
    interpreter's end, where it takes the handlers of Python away.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def leave_with_parent(worker: int) -> None:
    """Let a process that reads ahead end with the training process, and no earlier.

    It hears the signals that are sent to all processes of a job, and must serve the step in hand; when the training
    process is killed, PyTorch's own watch takes seconds to notice, or for ever where that was before it began.
    """
    ignore()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:  # it was killed before this process could ask for the signal
        os._exit(1)


def _note(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _Heard.process:
        return  # a forked process that has not got handlers of its own yet
    _Heard.name = signal.Signals(number).name
    _Heard.sigints += number == signal.SIGINT
    if number == signal.SIGINT and _Heard.sigints > 1:
        raise KeyboardInterrupt
