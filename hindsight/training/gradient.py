"""What training does to a step itself: clip the gradient, and stop before a loss that is not finite is saved.

These are no loggers: losses are the same whatever is logged.
"""

import math

import torch
from composer.core import Callback, State
from composer.loggers import Logger
from torch.nn.utils import clip_grad_norm_, get_total_norm

from hindsight.training.callback_order import Phase

TOTAL_LOSS = "loss/train/total"
"""Composer's name of the loss of a step in State.total_loss_dict, over all microbatches and ranks."""


class ClipGradient(Callback):
    """Scale the gradient of a step down to a largest norm.

    Args:
        max_norm: largest L2 norm over all parameters; None for no limit.
    """

    phase = Phase.update

    def __init__(self, max_norm: float | None) -> None:
        self.max_norm = max_norm
        self._norm: torch.Tensor | None = None

    def before_train_batch(self, state: State, logger: Logger) -> None:
        """Forget the norm of the step before."""
        self._norm = None

    def after_train_batch(self, state: State, logger: Logger) -> None:
        """Clip, once all microbatches have added to the gradient."""
        if self.max_norm is not None:
            parameters = [p for p in state.model.parameters() if p.grad is not None]
            self._norm = clip_grad_norm_(parameters, self.max_norm)

    def norm(self, state: State) -> torch.Tensor:
        """Norm of the step's gradient before clipping, shape (); computed here where nothing is clipped."""
        if self._norm is None:
            self._norm = get_total_norm([p.grad for p in state.model.parameters() if p.grad is not None])
        return self._norm


class StopAtNonFiniteLoss(Callback):
    """End a run whose loss is NaN or infinite, before anything of that step is logged or saved."""

    phase = Phase.update

    def batch_end(self, state: State, logger: Logger) -> None:
        """Check the loss of the step that was just made.

        Raises:
            FloatingPointError: it is not finite.
        """
        loss_nats = state.total_loss_dict[TOTAL_LOSS]
        if not math.isfinite(loss_nats):
            raise FloatingPointError(
                f"The loss of step {int(state.timestamp.batch)} is {loss_nats}; nothing of it was saved. Start anew "
                "under another run_name with a lower optim.lr, a lower optim.grad_clip or more optim.warmup_steps."
            )
