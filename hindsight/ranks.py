"""What the ranks of a run do together: collectives of small Python objects, and errors that reach rank 0."""

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from composer.utils import dist
from torch import nn

from hindsight import runs
from hindsight.device import device_of_process
from hindsight.errors import InputError
from hindsight.files import write_atomically
from hindsight.machine import let_threads_run_before_forks

T = TypeVar("T")
log = logging.getLogger("hindsight")
SAY_WAITING_S = 20.0
"""Seconds after which a process says that it waits for the others."""
FREE_TENSORS_S = 0.2
"""Many times what a thread that is about to free memory needs, also on a machine with more work than cores."""


def init_process_group(timeout_s: float) -> None:
    """Join the other ranks; a collective fails where one of them is waited for longer than this, in seconds.

    A process that is alone joins nobody. Its collectives, of which Composer makes five in each step,
    would be messages to a thread of gloo, or kernels of NCCL.
    """
    if dist.get_world_size() > 1:
        join(timeout_s)


def join(timeout_s: float) -> None:
    """Make PyTorch's process group."""
    if not dist.is_initialized():  # it is for all runs of a sweep but the first
        atexit.register(_let_gloo_free_tensors)
        let_threads_run_before_forks()
    waiting = threading.Timer(SAY_WAITING_S, _say_waiting)
    waiting.daemon = True
    waiting.start()
    try:
        dist.initialize_dist(device_of_process(), timeout=timeout_s)
    except (RuntimeError, ValueError) as error:  # of PyTorch, gloo and NCCL
        if "interface" in str(error) or "Cannot assign requested address" in str(error):
            raise InputError(
                "this machine has no network interface for 127.0.0.1, by which PyTorch's processes talk: bring it "
                f"up (`ip link set lo up`), or name another by GLOO_SOCKET_IFNAME ({error})."
            ) from error
        raise InputError(
            f"the {dist.get_world_size()} processes of WORLD_SIZE cannot meet at MASTER_ADDR="
            f"{os.environ.get('MASTER_ADDR')}, MASTER_PORT={os.environ.get('MASTER_PORT')} ({error})."
        ) from error
    finally:
        waiting.cancel()


def _say_waiting() -> None:
    log.warning(
        "still waiting for the other processes of WORLD_SIZE=%d, RANK=%d, at MASTER_ADDR=%s; if there are none, these "
        "variables are left over from a launcher: unset them.",
        dist.get_world_size(),
        dist.get_global_rank(),
        os.environ.get("MASTER_ADDR"),
    )


def _let_gloo_free_tensors() -> None:
    """Let gloo's threads free the tensors of the last collective before the interpreter begins to shut down.

    One that asks for the GIL after that aborts the process, or hangs it, whatever its exit status was to be
    (https://github.com/pytorch/pytorch/issues/190489; delete this with a torch that ends them by itself, which 2.7.0
    does not). destroy_process_group() is no way out: it holds the GIL while it waits for them, and hangs.
    """
    time.sleep(FREE_TENSORS_S)


def on_rank_0(task: Callable[[], T]) -> T:
    """Run a task on rank 0 alone, and give its result to all ranks, or raise its error on all of them.

    Files that one process reads are the same for all, whatever another is writing.
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


def send_weights(model: nn.Module) -> None:
    """Give the models of all ranks the weights of rank 0's."""
    if dist.get_world_size() == 1:
        return
    device = device_of_process()
    for tensor in model.state_dict().values():
        sent = device.tensor_to_device(tensor)  # NCCL sends from GPUs only
        dist.broadcast(sent, src=0)
        tensor.copy_(sent)


def on_each_node(task: Callable[[], None]) -> None:
    """Run a task once a node; an InputError or OSError of any node is raised as InputError on all ranks."""
    error = None
    if dist.get_local_rank() == 0:
        try:
            task()
        except (InputError, OSError) as caught:
            error = str(caught)
    errors = [text for text in dist.all_gather_object(error) if text is not None]
    if errors:
        raise InputError(errors[0])


def leave_error(folder: Path, error: BaseException) -> None:
    """Write an InputError into the run's folder before this rank ends alone; people see the output of rank 0 only."""
    if dist.get_global_rank() != 0 and isinstance(error, InputError):
        write_atomically(folder / f"{runs.ERROR_OF_RANK}{dist.get_global_rank()}", str(error))


def read_left_error(folder: Path, error: BaseException) -> InputError | None:
    """Read, on rank 0, the error of the rank that ended first; None if none was left, or this rank has its own.

    Args:
        folder: the run's folder.
        error: what ended this rank, such as a broken connection to the other.
    """
    if dist.get_global_rank() != 0 or dist.get_world_size() == 1 or isinstance(error, InputError | KeyboardInterrupt):
        return None
    for _ in range(10):  # a broken connection may be noticed before the file is seen
        for path in sorted(folder.glob(runs.ERROR_OF_RANK + "*")):
            return InputError(path.read_text(encoding="utf-8"))
        time.sleep(0.2)
    return None
