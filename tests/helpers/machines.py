"""Workers of pytest-xdist that do not disturb each other, as if each had a machine of its own.

Some tests fill /dev/shm, look for processes, or at what is left in a folder for temporary files. So each worker gets
all three for itself, by Linux's namespaces. Root may have them, and on most machines everybody; where they are
forbidden, tests run one after the other.
"""

import atexit
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from functools import cache

MOST_WORKERS = 4
"""More would have tests wait for each other's processors, of which some start a dozen processes."""
UNSHARE = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
AS_ROOT = ["--user", "--map-root-user"]
"""Who is not root is it in a namespace of users, as far as its own files go."""
# The shell is the first process of its namespace, and collects processes whose parents have ended.
IN_IT = """
mount -t tmpfs tmpfs /dev/shm || exit 1
chmod 1777 /dev/shm
"$@"
exit $?
"""


@cache
def command() -> list[str]:
    """What runs a command that follows on a machine of its own; nothing if that is forbidden here."""
    for unshare in (UNSHARE, [*UNSHARE, *AS_ROOT]):
        found = [*unshare, "sh", "-c", IN_IT, "sh"]
        try:
            if subprocess.run([*found, "true"], capture_output=True, check=False).returncode == 0:
                return found
        except FileNotFoundError:  # no Linux
            break
    return []


def number_of_workers() -> int:
    """One a processor, up to a bound; 0, which is pytest itself, where they would disturb each other."""
    processors = min(len(os.sched_getaffinity(0)), MOST_WORKERS)
    return processors if processors > 1 and command() else 0


def python() -> str:
    """The command of a worker's interpreter, as execnet takes it; its folder goes when this process ends."""
    folder = tempfile.mkdtemp(prefix="worker-")
    os.chmod(folder, 0o1777)  # noqa: S103 - as /tmp is
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return shlex.join(["env", f"TMPDIR={folder}", *command(), sys.executable])
