"""What the processes of a run do together."""

import atexit
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from composer.utils import dist, get_device

from hindsight.errors import InputError
from hindsight.files import write_atomically

T = TypeVar("T")
LET_THREADS_RUN_S = 0.2
"""Many times what a thread that is about to free memory needs, also on a machine with more work than cores."""
TOLD = ".error-of-rank-"
"""Begins the name of the file in a run's folder in which a process says why it ends."""


def meet(timeout_s: float) -> None:
    """Meet the other processes; nobody waits for one of them longer than this, in seconds."""
    if not dist.is_initialized():  # it is for all runs of a sweep but the first
        atexit.register(_part)
    dist.initialize_dist(get_device(None), timeout=timeout_s)


def _part() -> None:
    """Let gloo's threads give back the tensors of the last collective before the interpreter begins to end.

    One that asks for the interpreter's lock after that aborts the process, or hangs it, whatever its exit status was
    to be; a process that is alone has such threads too
    (https://github.com/pytorch/pytorch/issues/190489; delete this with a torch that ends them by itself, which 2.7.0
    does not). destroy_process_group() is no way out: it holds the lock while it waits for them, and hangs.
    """
    time.sleep(LET_THREADS_RUN_S)


def on_rank_0(task: Callable[[], T]) -> T:
    """Do something on rank 0 alone, and give its result to all processes, or raise its error on all of them.

    Files that are looked at by one process are the same for all, whatever another is writing.
    """
    answer: list[Any] = [None, None]
    raised: Exception | None = None
    if dist.get_global_rank() == 0:
        try:
            answer[0] = task()
        except Exception as error:  # whatever it is, the others must not wait for it
            raised = error
            answer[1] = type(error) is InputError, str(error)
    dist.broadcast_object_list(answer)
    if raised is not None:
        raise raised
    if answer[1] is not None:
        is_input, text = answer[1]
        raise InputError(text) if is_input else RuntimeError(text)
    return answer[0]


def on_each_node(task: Callable[[], None]) -> None:
    """Do something once a node; an InputError or OSError of any node ends as InputError on all processes."""
    error = None
    if dist.get_local_rank() == 0:
        try:
            task()
        except (InputError, OSError) as caught:
            error = str(caught)
    errors = [text for text in dist.all_gather_object(error) if text is not None]
    if errors:
        raise InputError(errors[0])


def tell_rank_0(folder: Path, error: BaseException) -> None:
    """Leave a word for rank 0 before a process ends alone, because a bad input met it first."""
    if dist.get_global_rank() != 0 and isinstance(error, InputError):
        write_atomically(folder / f"{TOLD}{dist.get_global_rank()}", str(error))


def told_to_rank_0(folder: Path, error: BaseException) -> InputError | None:
    """Give, on rank 0, whose output people see, the error of the process that ended first; None if there is none."""
    if dist.get_global_rank() != 0 or dist.get_world_size() == 1 or isinstance(error, InputError | KeyboardInterrupt):
        return None
    for _ in range(10):  # a broken connection may be noticed before the file is seen
        for path in sorted(folder.glob(TOLD + "*")):
            return InputError(path.read_text(encoding="utf-8"))
        time.sleep(0.2)
    return None
