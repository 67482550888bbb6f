"""A process in a pseudo-terminal, and what its screen shows: as much of a terminal as prompt_toolkit commands."""

import codecs
import contextlib
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager

COMMAND = re.compile(r"\x1b(?:\[([?>]?)([\d;]*)([@-~])|\][^\x07]*\x07|[()][A-Z0-9]|[=>78])")
UNFINISHED = re.compile(r"\x1b(?:\[[?>]?[\d;]*)?\Z")


class Screen:
    """What a terminal shows, as lines; those that have left it at the top are kept."""

    def __init__(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        self.lines = [[" "] * columns for _ in range(rows)]
        self.gone: list[str] = []
        self.row = self.column = 0
        self.wraps, self.waiting = True, ""
        self.unknown: set[str] = set()
        self.cleared = ""
        """What it showed when all below the cursor was last cleared."""

    def feed(self, text: str) -> int:
        """Obey what was written; return how often the place of the cursor was asked for."""
        text, asked = self.waiting + text, 0
        self.waiting = match[0] if (match := UNFINISHED.search(text)) else ""
        text = text.removesuffix(self.waiting)
        place = 0
        while place < len(text):
            if (match := COMMAND.match(text, place)) is not None:
                asked += self._obey(match[1] or "", match[2] or "", match[3] or "")
                place = match.end()
            else:
                self._write(text[place])
                place += 1
        return asked

    def text(self) -> str:
        """All lines, those that have left the screen first, without spaces at their ends."""
        return "\n".join([*self.gone, *("".join(line).rstrip() for line in self.lines)]).rstrip()

    def _obey(self, mark: str, numbers: str, kind: str) -> int:
        first = int(numbers.partition(";")[0] or 0)
        steps = max(first, 1)
        if mark == "?" and numbers == "7":
            self.wraps = kind == "h"
        elif mark or kind in ("m", ""):
            pass
        elif kind == "A":
            self.row = max(self.row - steps, 0)
        elif kind == "B":
            self.row = min(self.row + steps, self.rows - 1)
        elif kind == "C":
            self.column = min(self.column + steps, self.columns - 1)
        elif kind == "D":
            self.column = max(self.column - steps, 0)
        elif kind == "K":
            self.lines[self.row][self.column :] = [" "] * (self.columns - self.column)
        elif kind == "J" and first == 0:
            self.lines[self.row][self.column :] = [" "] * (self.columns - self.column)
            for line in self.lines[self.row + 1 :]:
                line[:] = [" "] * self.columns
            self.cleared = self.text()
        elif kind == "n" and first == 6:
            return 1
        else:
            self.unknown.add(f"{mark}{numbers}{kind}")
        return 0

    def _write(self, character: str) -> None:
        if character == "\r":
            self.column = 0
        elif character == "\b":
            self.column = max(min(self.column, self.columns - 1) - 1, 0)
        elif character == "\n":
            self._next_line()
        elif character == "\x07":
            pass
        elif unicodedata.category(character) == "Cc":
            self.unknown.add(repr(character))
        else:
            if self.column == self.columns and self.wraps:
                self.column = 0
                self._next_line()
            self.lines[self.row][min(self.column, self.columns - 1)] = character
            self.column = min(self.column + 1, self.columns)

    def _next_line(self) -> None:
        self.row += 1
        if self.row == self.rows:
            self.row -= 1
            self.gone.append("".join(self.lines.pop(0)).rstrip())
            self.lines.append([" "] * self.columns)


class Terminal:
    """A process in a pseudo-terminal.

    Args:
        master: descriptor of the terminal's other end.
        process: the process.
        rows: of the screen.
        columns: of the screen.
    """

    def __init__(self, master: int, process: "subprocess.Popen[bytes]", rows: int, columns: int) -> None:
        self.master, self.process, self.screen = master, process, Screen(rows, columns)
        self.seen: list[str] = []
        """What the screen showed after each piece of output."""
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def type(self, keys: str) -> None:
        """Send keys."""
        os.write(self.master, keys.encode())

    def read(self, wait_s: float) -> bool:
        """Take what the process writes within some seconds; whether there was anything."""
        if not select.select([self.master], [], [], wait_s)[0]:
            return False
        try:
            content = os.read(self.master, 1 << 16)
        except OSError:  # the process has ended
            return False
        for _ in range(self.screen.feed(self.decoder.decode(content))):
            self.type(f"\x1b[{self.screen.row + 1};{self.screen.column + 1}R")
        self.seen.append(self.screen.text())
        return bool(content)

    def wait_for(self, text: str, timeout_s: float = 60) -> str:
        """Read until the screen shows a text; what it shows then, perhaps in the middle of a drawing."""
        return self._wait_for(text, self.screen.text, timeout_s)

    def wait_for_drawing(self, text: str, timeout_s: float = 60) -> str:
        """Read until a drawing that ends with clearing what is below it shows a text; all that it shows."""
        return self._wait_for(text, lambda: self.screen.cleared, timeout_s)

    def _wait_for(self, text: str, shown: Callable[[], str], timeout_s: float) -> str:
        end = time.monotonic() + timeout_s
        while text not in shown():
            assert time.monotonic() < end, f"no {text!r} within {timeout_s} s:\n{self.screen.text()}"
            has_ended = self.process.poll() is not None
            assert self.read(0.2) or not has_ended, f"ended without {text!r}:\n{self.screen.text()}"
        return shown()

    def end(self, timeout_s: float = 60) -> int:
        """Wait until the process has ended; its exit status."""
        end = time.monotonic() + timeout_s
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it goes on:\n{self.screen.text()}"
            self.read(0.1)
        while self.read(0):
            pass
        return self.process.returncode


@contextmanager
def in_terminal(
    command: list[str], environment: dict[str, str], rows: int = 24, columns: int = 80
) -> Iterator[Terminal]:
    """Start a process in a pseudo-terminal of its own, whose size no variable of the environment gainsays."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    settings = termios.tcgetattr(slave)
    # GNU readline, which pytest imports, sets both for the processes below it.
    outside = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        env={**outside, "TERM": "xterm", **environment},
    )
    try:
        yield Terminal(master, process, rows, columns)
        assert termios.tcgetattr(slave) == settings, "the terminal was left in another mode"
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            process.wait()
        os.close(slave)
        os.close(master)
