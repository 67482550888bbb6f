"""Signals that interrupt a run: the step is finished, a checkpoint is saved, and all processes leave together.

Schedulers warn a job before they end it: Slurm by the signal that --signal names, Grid Engine by SIGUSR1 or SIGUSR2; a
terminal that is lost sends SIGHUP. Where there is no step to finish, because the run has not begun or waits for data,
a request ends the wait. This module imports nothing that takes time, so that one that comes early is heard as well.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

EXIT_INTERRUPTED = 75
"""Exit status of a run that was interrupted and can go on: EX_TEMPFAIL of sysexits.h."""
SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
PR_SET_PDEATHSIG = 1
"""Option of prctl(2): the signal that a process gets when its parent ends."""
LAUNCHERS = ("composer", "composer.cli.launcher", "torchrun", "torch.distributed.run", "torch.distributed.launch")
"""Programs that start the processes of a run, as their command line names them."""
UNWIND_S = 3.0
"""Seconds that a start has to leave after a request, before its process is ended: PyTorch's waits hear no signal."""


class Interrupted(BaseException):
    """A run has saved what it had made, because it was asked to stop. Nothing that handles errors may catch this."""


class GaveUp(Interrupted):
    """What a process waited for has not come in time after a request to stop; it leaves alone, and saves nothing.

    Args:
        name: the signal.
        when: what the process did, for the line that says so; None for what this module knows.
    """

    def __init__(self, name: str | None, when: str | None = None) -> None:
        super().__init__(name)
        starting = _Received.wake_up is not None
        self.when = when or ("before the first step" if starting else "while data was waited for")


class _Received:
    """The signals that this process has received so far, and what it does on the next."""

    name: str | None = None
    sigints: int = 0
    process: int = 0
    patience_s: float | None = None
    """Seconds after a request at which what is waited for is given up; None where nothing is waited for."""
    give_up_at: float | None = None
    wake_up: tuple[int, int] | None = None
    """Ends of the pipe into which Python writes signals as they come, while a run starts."""
    last_words: str | None = None
    """What a process says that leaves at once; None for that of a run."""


def handle_signals() -> None:
    """Record the signals from here on, instead of ending at once; a second SIGINT raises KeyboardInterrupt.

    SIGHUP stays ignored where it is, as by nohup.
    """
    _Received.process = os.getpid()
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _record)


def handle_signals_again() -> None:
    """Take back handlers of signals that an import has set, where this process handles signals."""
    if _Received.process == os.getpid():
        handle_signals()


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


@contextmanager
def giving_up_after(patience_s: float) -> Iterator[None]:
    """Let a request to stop end what the main thread waits for inside, so many seconds later, by GaveUp."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, _Received.patience_s = _Received.patience_s, patience_s
    try:
        if _Received.name is not None:
            _give_up_in_time()
        yield
    finally:
        _Received.patience_s, _Received.give_up_at = before, None


def _give_up_in_time() -> None:
    assert _Received.patience_s is not None
    if _Received.give_up_at is None:
        _Received.give_up_at = time.monotonic() + _Received.patience_s
        threading.Thread(target=_wake_main_thread, args=(_Received.give_up_at,), daemon=True).start()
    if time.monotonic() >= _Received.give_up_at:
        _Received.give_up_at += UNWIND_S  # once more if whatever was called has swallowed this one
        raise GaveUp(_Received.name)


def _wake_main_thread(give_up_at: float) -> None:
    """Interrupt the main thread's system call when it is time, and again while it has not left."""
    while True:
        time.sleep(max(give_up_at - time.monotonic(), 0))
        if _Received.give_up_at is None or _Received.give_up_at > give_up_at + UNWIND_S:
            return
        give_up_at += UNWIND_S
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR2)


def leave_while_starting(last_words: str | None = None) -> None:
    """Leave on a request from here on, until `finish_steps`: nothing has begun that would have to be finished.

    Python runs handlers of signals between its own instructions only. A wait inside PyTorch, such as for another rank,
    is none, and neither are imports that take seconds: a thread sees the signal, and ends the process.

    Args:
        last_words: what a process says that is not the run of a training.
    """
    _Received.last_words = last_words
    if _Received.process != os.getpid() or _Received.wake_up is not None:
        return
    _Received.wake_up = os.pipe()
    os.set_blocking(_Received.wake_up[1], False)
    signal.set_wakeup_fd(_Received.wake_up[1], warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(_Received.wake_up[0],), daemon=True).start()


def finish_steps() -> None:
    """Finish the present step on a request from here on."""
    if _Received.wake_up is not None:
        signal.set_wakeup_fd(-1)
        os.close(_Received.wake_up[1])  # which ends the thread
        _Received.wake_up = None


def _watch(pipe: int) -> None:
    while (data := os.read(pipe, 1)) and data[0] not in SIGNALS:
        continue
    if data:
        time.sleep(UNWIND_S)
        if _Received.wake_up is not None:
            leave_at_once(GaveUp(signal.Signals(data[0]).name))
    os.close(pipe)


def leave_at_once(reason: GaveUp) -> None:
    """End the process with the line that says so, whatever its threads still wait for."""
    with suppress(OSError):
        sys.stdout.flush()
        words = _Received.last_words or f"{reason.when}: the same command goes on from the last checkpoint."
        os.write(1, f"Interrupted by {reason} {words}\n".encode())
    os._exit(EXIT_INTERRUPTED)


def leave_with_parent(worker: int) -> None:
    """Let a data worker end with the training process, and no earlier: the worker_init_fn of the DataLoader.

    A worker receives the signals that are sent to all processes of a job, and must serve the current step; when the
    training process is killed, PyTorch's own watch takes seconds to notice, or never does where that happened before
    the watch began.
    """
    ignore_signals()
    _signal_at_end_of_parent(signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:  # it was killed before this process asked for the signal
        os._exit(1)


def stop_with_launcher() -> None:
    """Stop when the launcher of this process is killed, which cannot pass on a signal then: the step is saved."""
    launcher = os.getppid()
    try:
        command = Path("/proc", str(launcher), "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return
    if "LOCAL_RANK" in os.environ and any(os.path.basename(argument) in LAUNCHERS for argument in command):
        _signal_at_end_of_parent(signal.SIGTERM)
        if os.getppid() != launcher:  # it was killed before
            os.kill(os.getpid(), signal.SIGTERM)


def die_with_parent(parent: int) -> None:
    """End with the process that started this one, by SIGKILL, at once.

    Args:
        parent: its number, by which is seen whether it has ended before.
    """
    _signal_at_end_of_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _signal_at_end_of_parent(number: signal.Signals) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


def _record(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _Received.process:
        return  # a forked process that has no handlers of its own yet
    if _Received.give_up_at is None or number != signal.SIGUSR2:  # else it may be _wake_main_thread's
        _Received.name = signal.Signals(number).name
    _Received.sigints += number == signal.SIGINT
    if number == signal.SIGINT and _Received.sigints > 1:
        raise KeyboardInterrupt
    if _Received.patience_s is not None:
        _give_up_in_time()
