"""Commands that tests run as a user does, and waiting for what other processes do."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def few_descriptors(free: int) -> Iterator[None]:
    """Leave this process so many descriptors, whatever it has open."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    filled = [os.dup(0)]
    while filled[-1] <= highest:  # no number below the limit is free but the last few
        filled.append(os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (filled[-1] + 1 + free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in filled:
            os.close(descriptor)


def skip(reason: str) -> NoReturn:
    """Skip a test that this machine lacks something for; fail where all tests must run, as in .ci/run."""
    if os.environ.get("HINDSIGHT_ALL_TESTS"):
        pytest.fail(f"{reason}, and HINDSIGHT_ALL_TESTS is set")
    pytest.skip(reason)
