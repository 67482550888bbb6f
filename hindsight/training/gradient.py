"""What training does to a step itself: clip the gradient, and stop before a loss that is not finite is saved.

These are no loggers: losses are the same whatever is logged.
"""

import math
from collections.abc import Iterable

import torch
from composer.core import Callback, State
from composer.loggers import Logger
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, get_total_norm

from hindsight.config.optim import Clip
from hindsight.training.callback_order import Phase
from hindsight.training.sharding import whole

TOTAL_LOSS = "loss/train/total"
"""Composer's name of the loss of a step in State.total_loss_dict, over all microbatches and ranks."""


SMALLEST_NORM = 1e-3
"""Least norm of weights for adaptive clipping: biases, which begin at 0, would never leave it
(arXiv:2102.06171; Composer 0.32.1 has no such bound)."""


class ClipGradient(Callback):
    """Limit the gradient of a step.

    Args:
        limit: the largest L2 norm over all parameters, or what `kind` says; None for no limit.
        kind: what is limited.
    """

    phase = Phase.update

    def __init__(self, limit: float | None, kind: Clip = Clip.norm) -> None:
        self.limit, self.kind = limit, kind
        self._norm: torch.Tensor | None = None

    def before_train_batch(self, state: State, logger: Logger) -> None:
        """Forget the norm of the step before."""
        self._norm = None

    def after_train_batch(self, state: State, logger: Logger) -> None:
        """Clip, once all microbatches have added to the gradient."""
        if self.limit is None:
            return
        parameters = [p for p in state.model.parameters() if p.grad is not None]
        if self.kind is Clip.norm:
            self._norm = whole(clip_grad_norm_(parameters, self.limit))
            return
        self._norm = self.norm(state)
        if self.kind is Clip.value:
            clip_grad_value_(parameters, self.limit)
        else:
            clip_adaptively(parameters, self.limit)

    def norm(self, state: State) -> torch.Tensor:
        """Norm of the step's gradient before clipping, shape (); computed here where nothing is clipped."""
        if self._norm is None:
            gradients = [p.grad for p in state.model.parameters() if p.grad is not None]
            self._norm = whole(get_total_norm(gradients))
        return self._norm


def clip_adaptively(parameters: Iterable[torch.Tensor], limit: float) -> None:
    """Scale the gradient of each row of a matrix, or of a vector, down to a share of the norm of its weights."""
    for weight in parameters:
        gradient = weight.grad
        assert gradient is not None
        axes = tuple(range(1, weight.ndim)) if weight.ndim > 1 else None
        norms = [torch.linalg.vector_norm(x.detach(), dim=axes, keepdim=axes is not None) for x in (weight, gradient)]
        most = limit * norms[0].clamp(min=SMALLEST_NORM)
        gradient.mul_((most / norms[1].clamp(min=1e-12)).clamp(max=1.0))


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
