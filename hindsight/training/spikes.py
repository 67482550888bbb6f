"""Steps that are left out on demand: those whose loss or gradient is far beyond what the steps before had.

As in OLMo-core (https://github.com/allenai/OLMo-core, src/olmo_core/optim/skip_step_optimizer.py), a step counts as one
if its loss or the norm of its gradient, before clipping, lies many standard deviations above the mean of the last
WINDOW steps. In two things this differs. Only what lies above counts. And a step that was left out enters the mean as
if it had been at the limit: a single spike does not hide those behind it, and where a loss has risen for good, the
limit rises with it until steps are made again.

A step is left out by taking its gradients away, for an optimizer leaves weights without a gradient, and what it keeps
of them, as they are. Its batch counts as seen, and the learning rate goes on.
"""

import logging
import math
import statistics
from typing import Any

import torch
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist

from hindsight import runs
from hindsight.orders.examples import IGNORED
from hindsight.training.callback_order import Phase
from hindsight.training.gradient import ClipGradient

log = logging.getLogger("hindsight")

WINDOW = 128
"""Steps before, of which the mean and the standard deviation are taken."""
VALUES = ("loss", "gradient norm")
"""What is looked at of a step."""
FIRST = 64
"""Steps at the beginning of a run that are made whatever they are like."""


class SkipSpikes(Callback):
    """Leave out steps whose loss or gradient norm is a spike, on all ranks together.

    What is not finite is no spike: a NaN stops the run as it would without this, and float16's scaler does as ever.

    Args:
        deviations: standard deviations above the mean that are the limit.
        gradient: gives the norm of the gradient before clipping.
        interval: optimizer steps between two lines of metrics.
    """

    phase = Phase.update

    def __init__(self, deviations: float, gradient: ClipGradient, interval: int) -> None:
        self.deviations, self.gradient, self.interval = deviations, gradient, interval
        self.recent: dict[str, list[float]] = {name: [] for name in VALUES}
        self.skipped_steps = 0
        self._sums: torch.Tensor | None = None

    def before_train_batch(self, state: State, logger: Logger) -> None:
        """Forget the sums of the step before."""
        self._sums = None

    def after_loss(self, state: State, logger: Logger) -> None:
        """Add the nats and the targets of a microbatch."""
        assert isinstance(state.loss, torch.Tensor)
        n_targets = (state.batch["targets"] != IGNORED).sum()
        sums = torch.stack([state.loss.detach().double() * n_targets, n_targets.double()])
        self._sums = sums if self._sums is None else self._sums + sums

    def after_train_batch(self, state: State, logger: Logger) -> None:
        """Take the gradients away if the step is a spike; this waits for a GPU to have computed them."""
        assert self._sums is not None
        total = torch.cat([self._sums, self.gradient.norm(state).detach().double().reshape(1)])
        dist.all_reduce(total, reduce_operation="SUM")  # all ranks decide by the same numbers
        nats, n_targets, norms = total.tolist()
        values = {"loss": nats / max(n_targets, 1), "gradient norm": norms / dist.get_world_size()}
        if not all(map(math.isfinite, values.values())):
            return
        beyond = {}
        for name, value in values.items():
            recent = self.recent[name]
            limit = limit_of(recent, self.deviations)
            if value > limit:
                beyond[name] = f"{name} {value:.4g} is beyond {limit:.4g}"
            self.recent[name] = [*recent, min(value, limit)][-WINDOW:]
        if beyond:
            self.skipped_steps += 1
            for weight in state.model.parameters():
                weight.grad = None
            if dist.get_global_rank() == 0:
                step = int(state.timestamp.batch) + 1
                log.warning(
                    "step %d is left out: its %s (optim.skip_spikes=%g).",
                    step,
                    " and its ".join(beyond.values()),
                    self.deviations,
                )

    def batch_end(self, state: State, logger: Logger) -> None:
        """Log how many steps were left out."""
        if int(state.timestamp.batch) % self.interval == 0:
            logger.log_metrics({runs.SKIPPED_STEPS: self.skipped_steps})

    def state_dict(self) -> dict[str, Any]:
        """Give what a resume needs to decide as this run would have."""
        return {"recent": self.recent, "skipped_steps": self.skipped_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.recent, self.skipped_steps = state["recent"], state["skipped_steps"]


def limit_of(recent: list[float], deviations: float) -> float:
    """Give the largest value of a step that is made, after steps with these; infinity at the beginning of a run."""
    if len(recent) < FIRST:
        return math.inf
    return statistics.fmean(recent) + deviations * statistics.stdev(recent)
