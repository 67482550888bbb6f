"""The commands of a study as processes: several at once, each with its log, and none that outlives the study.

They are forked from processes that have imported what they need (fork_server.py): one for what a training needs, and a
light one for everything else, which is ready at once.
"""

import atexit
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from hindsight import interrupts
from hindsight.errors import InputError
from hindsight.studies.commands import ROOT, Command
from hindsight.studies.fork_server import TRAINING

SERVER = "hindsight.studies.fork_server"
OF_TRAINING = ("train_composer", "evaluate_tokens")
"""Commands that need PyTorch and Composer."""
LIGHT = ("hindsight.command_line", "hindsight.conversion.convert", "hindsight.tokenization.bpe_training")
"""What the other commands import."""
_servers: dict[tuple[str, ...], subprocess.Popen[bytes]] = {}
"""Those of this process, which several studies of it, one after the other, share: by kind and environment."""
_numbers = count()
LINGER_S = 120.0
"""Seconds that commands have to save and leave after a request to stop."""


@dataclass(frozen=True)
class Ended:
    """A command that has ended.

    Args:
        name: the name by which it was started.
        status: its exit status, or the number of a signal, less than 0.
    """

    name: str
    status: int


class Processes:
    """Starts commands, and waits for them.

    Args:
        folder: folder of their logs, which is made.
        environment: what they have in their environment beside that of this process.
        with_training: whether trainings will be started, so that what they import is imported from now on.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], with_training: bool) -> None:
        self.folder, self.environment = folder, dict(environment)
        folder.mkdir(parents=True, exist_ok=True)
        self.has_started = False
        """Whether a command was started."""
        self._running: dict[int, tuple[str, subprocess.Popen[bytes]]] = {}
        self._used: dict[str, subprocess.Popen[bytes]] = {}
        self._lines: dict[int, bytes] = {}
        self._selector = selectors.DefaultSelector()
        if with_training:
            self._server(TRAINING)

    @property
    def running(self) -> list[str]:
        """Names of the commands that run."""
        return [name for name, _ in self._running.values()]

    def log_of(self, name: str) -> Path:
        """The file to which a command writes what it says."""
        return self.folder / f"{name}.log"

    def start(self, name: str, command: Command, environment: Mapping[str, str] | None = None) -> None:
        """Start a command; what it says is added to its log, behind the line that is typed for it."""
        self.has_started = True
        log = self.log_of(name)
        with log.open("a", encoding="utf-8", errors="surrogateescape") as file:
            file.write(f"$ {command.typed}\n")
        is_forked = command.devices == 1 and "." not in command.script
        server = self._server(TRAINING if is_forked and command.script in OF_TRAINING else "")
        number = next(_numbers)
        self._running[number] = name, server
        self._say(
            server,
            {
                "start": number,
                "program": command.program,
                "script": str(ROOT / f"{command.script}.py") if is_forked else None,
                "arguments": command.arguments,
                "log": str(log.absolute()),
                "folder": os.getcwd(),
                "environment": self.environment
                | ({} if is_forked else {"PYTHONPATH": str(ROOT)})
                | dict(environment or {}),
            },
        )

    def wait(self, timeout_s: float | None = None) -> list[Ended]:
        """Wait until a command ends, for so many seconds at most; those that have."""
        ended: list[Ended] = []
        for key, _ in self._selector.select(timeout_s):
            read = os.read(key.fd, 1 << 16)
            if not read:
                raise InputError(
                    "the process from which commands are started was ended from outside, perhaps because memory ran "
                    f"out ({self.folder / 'processes.log'}); the same command goes on."
                )
            *lines, self._lines[key.fd] = (self._lines[key.fd] + read).split(b"\n")
            for line in lines:
                answer = json.loads(line)
                name, _ = self._running.pop(answer["number"])
                ended.append(Ended(name, answer["status"]))
        return ended

    def run(self, name: str, command: Command) -> int:
        """Start a command and wait for it; its exit status."""
        self.start(name, command)
        while True:
            for ended in self.wait():
                if ended.name == name:
                    return ended.status

    def stop(self) -> None:
        """Ask all that run to leave, and wait for them."""
        with suppress(InputError, BrokenPipeError):  # what they are forked from has ended, and they with it
            for number, (_, server) in self._running.items():
                self._say(server, {"signal": int(signal.SIGTERM), "number": number})
            until = time.monotonic() + LINGER_S
            while self._running and time.monotonic() < until:
                self.wait(until - time.monotonic())

    def close(self) -> None:
        """End everything that still runs; the processes that commands are forked from stay for other studies."""
        self._selector.close()
        if self._running:
            end_servers()
        self._running.clear()

    def _server(self, kind: str) -> subprocess.Popen[bytes]:
        if kind not in self._used:
            key = kind, *(f"{name}={value}" for name, value in sorted(self.environment.items()))
            if key not in _servers or _servers[key].poll() is not None:
                _servers[key] = self._new_server(kind)
            self._used[kind] = server = _servers[key]
            assert server.stdout is not None
            self._selector.register(server.stdout.fileno(), selectors.EVENT_READ)
            self._lines[server.stdout.fileno()] = b""
        return self._used[kind]

    def _new_server(self, kind: str) -> subprocess.Popen[bytes]:
        with (self.folder / "processes.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", SERVER, str(os.getpid()), *([kind] if kind else LIGHT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env=os.environ | self.environment,
                start_new_session=True,  # what is typed in the terminal is for the study, which passes it on
            )

    def _say(self, server: subprocess.Popen[bytes], request: Mapping[str, Any]) -> None:
        assert server.stdin is not None
        server.stdin.write(json.dumps(request).encode() + b"\n")
        server.stdin.flush()


@atexit.register
def end_servers() -> None:
    """End the processes that commands are forked from, and with them all that still runs."""
    while _servers:
        _, server = _servers.popitem()
        server.kill()
        server.communicate()


def was_interrupted(status: int) -> bool:
    """Tell by the exit status of a command whether it was asked to stop, as a scheduler asks all processes of a job."""
    return status == interrupts.EXIT_INTERRUPTED or -status in interrupts.SIGNALS


def require_uninterrupted(status: int) -> None:
    """Leave as the study does on a signal, if a command was asked to stop that cannot go on.

    Raises:
        GaveUp: it was.
    """
    if was_interrupted(status):
        raise interrupts.GaveUp(signal.Signals(-status).name if status < 0 else "a signal")


def how_it_ended(status: int) -> str:
    """Say an exit status in words."""
    return f"ended by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def last_line(log: Path) -> str:
    """The last line of a log that says something; where the last start has an error of ours, that line."""
    try:
        text = log.read_bytes()[-(1 << 16) :].decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.rpartition("\n$ ")[2].splitlines()[1:] if line.strip()]
    return lines[-1] if lines else ""
