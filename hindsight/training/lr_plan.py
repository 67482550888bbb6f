"""The learning rate of a run whose length was changed while it lasted: which schedule holds from which step on.

A run that is never made longer or shorter has one stretch, and the rate of `optim.learning_rate`. Each start with
another length adds a stretch. The stretches are saved with every checkpoint, so that whatever interrupts a run, and
with whichever command it goes on, its steps have the rates that they would have had without.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hindsight.config.optim import OptimConfig
from hindsight.config.training import MoreLR
from hindsight.errors import InputError
from hindsight.training.optim import learning_rate


@dataclass(frozen=True)
class Stretch:
    """A part of a run with one schedule.

    Args:
        after: steps made before it.
        until: length of the run, in steps.
        how: what train.more_lr was.
        lr: learning rate of the last step before it.
    """

    after: int
    until: int
    how: MoreLR
    lr: float


Plan = tuple[Stretch, ...]
CONTINUE = MoreLR["continue"]
MOST_STRETCHES = 10_000


def whole(total_steps: int) -> Plan:
    """Plan of a run whose length was never changed."""
    return (Stretch(0, total_steps, CONTINUE, 0.0),)


def rate(step: int, plan: Plan, config: OptimConfig) -> float:
    """Learning rate of an optimizer step; `step` steps were made before it."""
    stretch = plan[0]
    for later in plan[1:]:
        # With `continue`, the first step keeps the rate that was saved for it.
        if step > later.after or (step == later.after and later.how is not CONTINUE):
            stretch = later
    if stretch.how is MoreLR.constant:
        return stretch.lr
    if stretch.how is MoreLR.rewarm:
        from_here = replace(config, lr_init=min(stretch.lr, config.lr))
        return learning_rate(step - stretch.after, stretch.until - stretch.after, from_here)
    return learning_rate(step, stretch.until, config)


def extend(plan: Plan, step: int, total_steps: int, how: MoreLR, config: OptimConfig) -> Plan:
    """Give the plan of a run that goes on at a step, up to a length; the same plan if that is its length.

    Raises:
        InputError: a rate of 0 would be kept.
    """
    if total_steps == plan[-1].until or total_steps <= step:
        return plan
    lr = rate(max(step - 1, 0), plan, config)
    if how is MoreLR.constant and lr == 0:
        raise InputError(
            f"train.more_lr=constant would keep the rate of step {step}, which is 0; choose rewarm or continue."
        )
    return (*plan, Stretch(step, total_steps, how, lr))


def is_ahead(recorded: Plan, saved: Plan, step: int, total_steps: int) -> bool:
    """Tell whether a run was made that long at this step or a later one, whose checkpoints are not there.

    Args:
        recorded: plan of its last start.
        saved: plan in the checkpoint from which it goes on.
        step: step of that checkpoint.
        total_steps: length that is asked for.
    """
    n = len(saved)
    return (
        recorded[:n] == saved and len(recorded) > n and recorded[n].after >= step and recorded[-1].until == total_steps
    )


def change_line(before: Plan, plan: Plan, config: OptimConfig) -> str | None:
    """Say what becomes of the learning rate where the length of a run is changed; None where it is not."""
    if plan == before:
        return None
    new = plan[-1]
    next_lr = rate(new.after + (new.how is CONTINUE), plan, config)
    return (
        f"lr       from {new.lr:.3g} to {next_lr:.3g} at step {new.after}: the run is now {new.until:,} steps long, "
        f"not {before[-1].until:,} (train.more_lr={new.how.name})"
    )


def as_records(plan: Plan) -> list[dict[str, Any]]:
    """Give a plan as it is stored."""
    return [{"after": s.after, "until": s.until, "how": s.how.name, "lr": s.lr} for s in plan]


def from_records(records: Any) -> Plan | None:
    """Read a stored plan; None for what is none."""
    try:
        plan = tuple(
            Stretch(record["after"], record["until"], MoreLR[record["how"]], record["lr"]) for record in records
        )
    except (LookupError, TypeError):
        return None
    return plan if 0 < len(plan) <= MOST_STRETCHES and _is_possible(plan) else None


def _is_possible(plan: Sequence[Stretch]) -> bool:
    counts = [number for stretch in plan for number in (stretch.after, stretch.until)]
    is_counted = all(type(number) is int and 0 <= number < 1 << 62 for number in counts)
    begins = [stretch.after for stretch in plan if type(stretch.after) is int]
    is_rate = all(type(stretch.lr) is float and 0 <= stretch.lr < 1e9 for stretch in plan)
    return is_counted and is_rate and begins[0] == 0 and begins == sorted(begins) and plan[0].how is CONTINUE
