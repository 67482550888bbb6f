"""A check that a step does not wait for the device, on the device that is here."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import torch
from composer.core import Callback, State
from composer.loggers import Logger
from torch.utils._python_dispatch import TorchDispatchMode

ON_DEVICE = [
    pytest.param("cpu", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="a run takes the GPU")),
    pytest.param(
        "gpu", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
    ),
]
"""The same test for whichever device is here: a run takes the GPU if there is one, and no CPU beside it."""
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "unique_dim", "_unique2", "bincount"}
"""Operators whose result the host waits for; the first is what item(), float() and bool() of a tensor call."""


class NoWaits(TorchDispatchMode):
    """Raises where the host would wait for a device, so that a CPU shows it too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator."""
        assert func.overloadpacket.__name__ not in WAITS, f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


@contextmanager
def no_waits() -> Iterator[None]:
    """Fail where the host waits for the device, on a GPU by PyTorch's own check."""
    if not torch.cuda.is_available():
        with NoWaits():
            yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


class NeverWaits(Callback):
    """Fails where anything from the first forward pass to the clipping of a step waits for the device.

    There Composer 0.32.1 waits itself: it reads the loss before the optimizer's update, and again at the end of a step.
    """

    def __init__(self) -> None:
        self.n_forward = self.n_steps = 0
        self.watch = ExitStack()

    def before_forward(self, state: State, logger: Logger) -> None:
        """Watch from here on."""
        self.n_forward += 1
        if self.n_forward % 2:  # the first microbatch of two
            self.watch.enter_context(no_waits())

    def after_train_batch(self, state: State, logger: Logger) -> None:
        """Watch no more."""
        self.n_steps += 1
        self.watch.close()
