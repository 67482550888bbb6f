"""Signals and the file STOP: the step is finished, a checkpoint is saved, and all processes leave together.

Schedulers warn a job before they end it: Slurm by the signal that --signal names, Grid Engine by SIGUSR1 or SIGUSR2.
This module imports nothing that takes time, so that a warning that comes early is heard as well.
"""

import os
import signal
from types import FrameType

STATUS = 75
"""Exit status of a run that was interrupted and can go on: EX_TEMPFAIL of sysexits.h."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
STOP_NAME = "STOP"
"""A file of this name in a run's folder interrupts the run."""


class Interrupted(Exception):  # noqa: N818 - it is no error
    """A run has saved what it had made, because it was asked to leave."""


class _Heard:
    """What this process was asked so far."""

    name: str | None = None
    process: int = 0


def listen() -> None:
    """Note the signals from here on, instead of ending at once; a second SIGINT raises KeyboardInterrupt."""
    _Heard.process = os.getpid()
    for number in SIGNALS:
        signal.signal(number, _note)


def heard() -> str | None:
    """Name of the signal that this process has got; None if it has got none."""
    return _Heard.name


def forget() -> None:
    """Begin anew, for a second run in this process."""
    _Heard.name = None


def ignore_in_worker(worker: int) -> None:
    """Let a process that reads ahead go on until the training process, which gets the signal too, has no use for it."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _note(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _Heard.process:
        return  # a forked process that has not got handlers of its own yet
    if number == signal.SIGINT and _Heard.name == "SIGINT":
        raise KeyboardInterrupt
    _Heard.name = signal.Signals(number).name
