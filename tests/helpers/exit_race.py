"""Processes with a process group that leave with status 2 while gloo's threads get hardly any time.

Prints what became of each: its status, or -14 where it still hung after LONG_S seconds, as a third do without the pause
at the end of `ranks`.
"""

import gc
import os
import signal
import sys
import warnings
from contextlib import suppress

from composer.utils import dist

from hindsight.ranks import join

PROCESSES = 12
LONG_S = 20


def leave() -> None:
    """Hold the interpreter's lock from the last collective to the end, so that gloo's threads are late for it."""
    signal.alarm(LONG_S)
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    sys.setswitchinterval(LONG_S)
    before = os.listdir("/proc/self/task")
    join(LONG_S)
    for thread in {*os.listdir("/proc/self/task")}.difference(before):
        with suppress(ProcessLookupError):  # some threads end by themselves once the group is made
            os.sched_setscheduler(int(thread), os.SCHED_IDLE, os.sched_param(0))
    dist.all_gather_object("x")
    sys.exit(2)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    gc.freeze()
    for _ in range(PROCESSES):
        child = os.fork()
        if child == 0:
            leave()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
