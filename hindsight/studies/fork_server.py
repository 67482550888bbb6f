"""A process from which the commands of a study are forked, so that not each of them imports for seconds what all need.

    python -m hindsight.studies.fork_server PARENT NAME ...

It imports the modules that are named. Then a line of JSON on standard input starts a command, {"start": number,
"program": words, "script": name or null, "arguments": words, "log": path, "folder": path, "environment": {...}}, or
signals one, {"signal": 15, "number": number}. Lines on standard output say how a command has ended: {"number": number,
"status": exit status, or -9 after SIGKILL}.

A command has its own process group, and ends with this process, which ends with the study: by SIGKILL, at once. It is
the same that a person types: its file is run as __main__, and its exit handlers are called.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import runpy
import selectors
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

from hindsight.interrupts import SIGNALS, die_with_parent, ignore_signals
from hindsight.machine import let_threads_run_before_forks

ROOT = Path(__file__).resolve().parents[2]
TRAINING = "training"
"""Stands for all that a training and an evaluation import."""
OF_TRAINING = (
    *("torch", "composer", "composer.algorithms", "composer.utils.collect_env", "pyarrow.parquet"),
    *("language_model", "load_text_streaming", "logging_composer"),
)
ROOMS = ("hindsight.training", "hindsight.evaluation", "hindsight.orders", "hindsight.loading")


def import_all(names: list[str]) -> None:
    """Import modules, and do once what each command would do again."""
    gc.disable()
    for name in names:
        if name != TRAINING:
            importlib.import_module(name)
            continue
        for each in OF_TRAINING:
            importlib.import_module(each)
        asking = Thread(target=importlib.import_module("composer.utils.collect_env").get_cpu_model)
        asking.start()  # which takes a second, and Composer keeps the answer
        for room in ROOMS:
            for module in pkgutil.iter_modules(importlib.import_module(room).__path__, f"{room}."):
                importlib.import_module(module.name)
        compose = importlib.import_module("hindsight.command_line").configuration_of
        compose("train_composer", ["order=forward"])  # hydra imports its grammar when it first reads arguments
        asking.join()
    gc.freeze()
    gc.enable()


class _End:
    """The exit status of this process."""

    status = 0


def leave() -> None:
    """End this process as the last of its exit handlers, without freeing the objects of all modules one by one.

    That would copy most of the pages that a forked process shares: half of the time of a small command.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(_End.status)


class Server:
    """Starts commands and tells of their ends.

    Args:
        answers: descriptor to write to.
    """

    def __init__(self, answers: int) -> None:
        self.answers, self.running = answers, dict[int, int]()
        self.wakes = os.pipe()
        for end in self.wakes:
            os.set_blocking(end, False)

    def serve(self) -> dict[str, Any] | None:
        """Answer until standard input ends; in a forked process, give what it is to do."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.wakes[1], warn_on_full_buffer=False)
        waiting = b""
        with selectors.DefaultSelector() as selector:
            selector.register(0, selectors.EVENT_READ)
            selector.register(self.wakes[0], selectors.EVENT_READ)
            while True:
                events = [key.fd for key, _ in selector.select()]
                if self.wakes[0] in events:
                    with suppress(BlockingIOError):
                        os.read(self.wakes[0], 1 << 12)
                    self.tell_ends()
                if 0 not in events:
                    continue
                read = os.read(0, 1 << 16)
                if not read:
                    return None
                *lines, waiting = (waiting + read).split(b"\n")
                for line in lines:
                    if (job := self.answer(json.loads(line))) is not None:
                        return job

    def answer(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Do what a line asks; in a forked process, give it."""
        if "signal" in request:
            for process, number in self.running.items():
                if number == request["number"]:
                    os.kill(process, request["signal"])
            return None
        server = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the process that is forked no longer ignores them
        process = os.fork()
        if process:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            self.running[process] = request["start"]
            return None
        die_with_parent(server)
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for end in (*self.wakes, self.answers):
            os.close(end)
        return request

    def tell_ends(self) -> None:
        """Tell of each command that has ended."""
        while self.running:
            process, status = os.waitpid(-1, os.WNOHANG)
            if not process:
                return
            number = self.running.pop(process)
            self.say({"number": number, "status": os.waitstatus_to_exitcode(status)})

    def say(self, answer: dict[str, Any]) -> None:
        """Write a line."""
        os.write(self.answers, json.dumps(answer).encode() + b"\n")

    def end_all(self) -> None:
        """End what still runs: the study has left."""
        for process in self.running:
            with suppress(OSError):
                os.killpg(process, signal.SIGKILL)


def become(job: dict[str, Any]) -> None:
    """Be a command: its output into its log, its folder, environment and arguments."""
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in ((0, nothing), (1, log), (2, log)):
        os.dup2(descriptor, number)
    os.close(log)
    os.close(nothing)
    os.environ.update(job["environment"])
    os.chdir(job["folder"])
    tempfile.tempdir = None  # which is read from the environment once
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in {*SIGNALS} - {signal.SIGINT}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    if job["script"] is None or not _may_use_gpu():
        os.execv(job["program"][0], job["program"])  # noqa: S606 - words, no shell
    sys.argv = [job["script"], *job["arguments"]]
    _End.status = 1  # of a traceback
    try:
        runpy.run_path(job["script"], run_name="__main__")
        _End.status = 0
    except SystemExit as leaving:
        code = leaving.code
        _End.status = code if isinstance(code, int) else int(code is not None)
        raise


def _may_use_gpu() -> bool:
    """Whether CUDA works in this process: it does not where an import has looked for GPUs before the fork.

    No public function says so. `torch.cuda.is_initialized()` is False before the fork if GPUs were only counted, and
    counting them is what keeps forked processes from CUDA: poison_fork() in THCPModule_getDeviceCount_wrap of
    https://github.com/pytorch/pytorch/blob/v2.7.0/torch/csrc/cuda/Module.cpp. What is asked here is what
    torch.cuda.init() of PyTorch 2.7 refuses by.
    """
    torch = sys.modules.get("torch")
    return torch is None or not torch.cuda._is_in_bad_fork()


def main() -> None:
    """Serve, and be a command in each forked process."""
    die_with_parent(int(sys.argv[1]))
    ignore_signals()  # which a scheduler sends to all processes of a job: the study hears them, and ends this one
    atexit.register(leave)  # before any import does: handlers are called in reverse order
    let_threads_run_before_forks()
    answers = os.dup(1)
    os.dup2(2, 1)  # what an import prints is no answer
    import_all(sys.argv[2:])
    ignore_signals()  # importing Composer sets handlers
    server = Server(answers)
    job = server.serve()
    if job is None:
        server.end_all()
    else:
        become(job)


if __name__ == "__main__":
    main()
