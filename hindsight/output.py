"""What a command says: control characters are shown, credentials are not, and a lost reader ends nothing.

Standard output may be a pipe whose reader has left (`| head -1`), a full disk, a terminal that knows no UTF-8, or
closed. The work goes on in each case; what was lost for another reason than a reader that left is said on standard
error, and is exit status 2.
"""

import atexit
import errno
import logging
import os
import sys
import traceback
from contextlib import suppress
from io import TextIOWrapper
from types import TracebackType
from typing import TextIO

from hindsight.shown_text import visible, without_credentials

STATUS_OUTPUT_LOST = 2
READER_LEFT = (errno.EPIPE, errno.ECONNRESET)


class _Lost:
    """Whether standard output was lost in this process."""

    error: OSError | None = None
    is_watched = False


def exit_status() -> int:
    """Status of a command that has done its work: 2 if what it said was lost."""
    return STATUS_OUTPUT_LOST if _Lost.error is not None else 0


def say(text: str) -> None:
    """Write lines to standard output at once."""
    _write(sys.stdout, text)


def redraw(text: str, lines_above: int) -> None:
    """Write lines into a terminal in the place of those that were written last.

    Args:
        text: the lines.
        lines_above: how many lines were.
    """
    up, end_of_line, below = f"\x1b[{lines_above}A" if lines_above else "", "\x1b[K\n", "\x1b[J"
    lines = without_credentials(visible(text)).split("\n")
    _write_raw(sys.stdout, up + "".join(f"{line}{end_of_line}" for line in lines) + below)


def say_error(text: str) -> None:
    """Write a line to standard error."""
    _write(sys.stderr, text)


def _write(stream: TextIO, text: str) -> None:
    _write_raw(stream, without_credentials(visible(text)) + "\n")


def _write_raw(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        lose(stream, error)


def lose(stream: TextIO, error: OSError) -> None:
    """Let a stream that cannot be written go to nowhere, and say so if its reader has not left by itself."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with suppress(OSError, ValueError):  # a stream that is no file, as in a test
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
    if error.errno not in READER_LEFT and stream is sys.stdout and _Lost.error is None:
        _Lost.error = error
        say_error(f"standard output cannot be written ({error.strerror}); the work goes on without it.")


class ShownText(logging.Formatter):
    """Formats a record as people may see it; a progress bar takes this over from `Lines`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, or lines, of a record."""
        return without_credentials(visible(super().format(record)))


class Lines(logging.StreamHandler[TextIO]):
    """Logs to a stream that may be lost."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Go on without the line where it cannot be written; others are mistakes of ours."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            lose(self.stream, error)
        else:
            super().handleError(record)


def prepare_output() -> None:
    """Make standard output and error safe to write to, whatever they are; tracebacks too show what they may."""
    _open_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.excepthook = _show_traceback
    if not _Lost.is_watched:
        _Lost.is_watched = True
        atexit.register(_end_output)


def log_to_output() -> None:
    """Log lines of ours to standard output, and of others what is worse than information."""
    if not logging.getLogger().handlers:  # a test has its own
        handler = Lines(sys.stdout)
        handler.setFormatter(ShownText("%(message)s"))
        logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("hindsight").setLevel(logging.INFO)


def log_to_error() -> None:
    """Let standard output be for results alone: log lines to standard error instead."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, Lines):
            handler.setStream(sys.stderr)


def _open_closed() -> None:
    """Give a closed standard stream (`>&-`) somewhere to go, before another file takes its number."""
    while True:
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor > 2:
            os.close(descriptor)
            break
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - for as long as the process lives
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    say_error("".join(traceback.format_exception(kind, error, trace)).rstrip())


def _end_output() -> None:
    """Write what is buffered before the interpreter does, which would print a traceback where that fails."""
    try:
        sys.stdout.flush()
    except OSError as error:
        lose(sys.stdout, error)
    except ValueError:  # closed
        pass
