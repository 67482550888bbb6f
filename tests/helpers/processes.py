"""Commands that tests run as a user does, and waiting for what other processes do."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_command(*command: str, timeout_s: float = 120, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run one of the project's scripts, or composer, as a user does; output is kept."""
    programs = {"python": sys.executable, "composer": str(Path(sys.executable).with_name("composer"))}
    arguments = [programs[command[0]], *command[1:]]
    return subprocess.run(
        arguments, cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL
    )


def wait_until(
    what: str,
    is_so: Callable[[], object],
    timeout_s: float = 60,
    interval_s: float = 0.2,
    is_over: Callable[[], object] = lambda: False,
) -> bool:
    """Wait until something is so; AssertionError that names it if it is not in time.

    Args:
        what: its name.
        is_so: whether it is so.
        timeout_s: how long to wait.
        interval_s: seconds between two looks.
        is_over: whether it cannot come any more.

    Returns:
        Whether it is so: False if it was over before.
    """
    end = time.monotonic() + timeout_s
    while not is_so():
        if is_over():
            return bool(is_so())
        assert time.monotonic() < end, f"{what}: not within {timeout_s} s"
        time.sleep(interval_s)
    return True


def is_alive(process: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def let_threads_run_before_forks() -> None:
    """Pause before each fork of this process, and of those that it forks, on a Python whose children may hang.

    A child that is forked while another thread makes or frees its thread state waits for ever for a lock which that
    thread held (https://github.com/python/cpython/issues/112275; delete this with Python 3.10.15, 3.11.10 or 3.12 as
    the oldest). gloo's threads do so as they free the tensors of a collective, and loaders fork their readers just
    after one: 7 of 6000 such forks hung, with the pause 0 of 11000.
    """
    if sys.version_info < (3, 10, 15) or (3, 11) <= sys.version_info < (3, 11, 10):
        os.register_at_fork(before=lambda: time.sleep(0.005))


def skip(reason: str) -> NoReturn:
    """Skip a test that this machine lacks something for; fail where all tests must run, as in .ci/run."""
    if os.environ.get("HINDSIGHT_ALL_TESTS"):
        pytest.fail(f"{reason}, and HINDSIGHT_ALL_TESTS is set")
    pytest.skip(reason)
