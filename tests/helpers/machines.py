"""Workers of pytest-xdist that do not disturb each other, as if each had a machine of its own.

Runs find each other in /dev/shm and /proc: Streaming numbers its segments there, a run removes what no process uses,
and tests look at what is left. So each worker gets both for itself, and a folder for temporary files, by namespaces of
Linux. That takes root, or what a container allows it; without it, tests run one after the other.
"""

import os
import shlex
import subprocess
import sys

MOST_WORKERS = 4
"""More would have tests wait for each other's processors, of which some start a dozen processes."""
UNSHARE = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
# The shell is the first process of its namespace, and collects processes whose parents have ended.
IN_IT = """
mount -t tmpfs tmpfs /dev/shm || exit 1
chmod 1777 /dev/shm
TMPDIR=$(mktemp -d) || exit 1
export TMPDIR
chmod 1777 "$TMPDIR"
"$@"
status=$?
rm -rf "$TMPDIR"
exit $status
"""
COMMAND = [*UNSHARE, "sh", "-c", IN_IT, "sh"]
"""Runs what follows on a machine of its own."""


def are_possible() -> bool:
    """Whether this user can have them here."""
    try:
        return subprocess.run([*COMMAND, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def number_of_workers() -> int:
    """One a processor, up to a bound; 0, which is pytest itself, where they would disturb each other."""
    processors = min(len(os.sched_getaffinity(0)), MOST_WORKERS)
    return processors if processors > 1 and are_possible() else 0


def python() -> str:
    """The command of a worker's interpreter, as execnet takes it."""
    return shlex.join([*COMMAND, sys.executable])
