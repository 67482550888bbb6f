"""The order of a run's callbacks, which is a protocol between them.

Composer calls them in the order of their list, and the loggers after them. What belongs to a step is done before the
step is saved, and the run is left only then; so each callback has a phase, and the list is sorted by it.
"""

from collections.abc import Sequence
from enum import IntEnum

from composer.core import Callback


class Phase(IntEnum):
    """When a callback has its turn within an event."""

    hold = 0
    """Keeps the locks on the run's folders."""
    restore = 1
    """Restores what a checkpoint holds, before anything draws random numbers."""
    update = 2
    """Changes the update: clips the gradient, or stops at a loss that is not finite."""
    measure = 3
    """Reads what was computed: metrics, samples."""
    save = 4
    """Saves the step, with all that was measured."""
    leave = 5
    """Leaves the run, whose step is saved."""


def check_order(callbacks: Sequence[Callback]) -> None:
    """Check that callbacks are listed by their phase; AssertionError if one has none, or comes too early or late."""
    phases = [getattr(callback, "phase", None) for callback in callbacks]
    names = ", ".join(f"{type(callback).__name__} ({phase})" for callback, phase in zip(callbacks, phases, strict=True))
    assert all(isinstance(phase, Phase) for phase in phases), f"a callback has no phase: {names}"
    assert phases == sorted(phase for phase in phases if phase is not None), f"callbacks are out of order: {names}"
