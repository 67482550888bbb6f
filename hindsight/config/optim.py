"""Keys of the optimizer and of the learning rate, optim.lr and so on."""

import math
from dataclasses import dataclass, field
from enum import Enum

from hindsight.config.checks import require, require_positive, require_share


class Schedule(Enum):
    """The shape of the learning rate after its warm-up."""

    constant = "constant"
    linear = "linear"
    cosine = "cosine"
    cosine_restarts = "cosine_restarts"
    polynomial = "polynomial"
    inverse_sqrt = "inverse_sqrt"


class OptimizerName(Enum):
    """What turns a gradient into an update."""

    adamw = "adamw"
    muon = "muon"


class Clip(Enum):
    """What optim.grad_clip limits."""

    norm = "norm"
    value = "value"  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride] - an Enum may have a member of this name
    adaptive = "adaptive"


@dataclass
class OptimConfig:
    """AdamW (arXiv:1711.05101) or Muon (arXiv:2502.16982), and the learning rate."""

    name: OptimizerName = OptimizerName.adamw
    """adamw, or muon: the matrices of the layers by Muon, with the same learning rate and weight decay, and all else by
    AdamW."""
    lr: float = 6e-4
    """Peak learning rate, reached after warmup_steps."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    """Decay rates of the running mean of the gradient and of its square."""
    eps: float = 1e-8
    """Added to the denominator of the update."""
    muon_momentum: float = 0.95
    """Decay rate of the running mean of the gradient of what name=muon updates by Muon."""
    weight_decay: float = 0.1
    """Decoupled weight decay of the matrices; norms, biases and embeddings have none, but for decay_all."""
    decay_all: bool = False
    """Whether norms, biases and embeddings decay too, as with PyTorch's AdamW(model.parameters())."""
    grad_clip: float | None = 1.0
    """Limit of the gradient, of the kind that clip names; null for none."""
    clip: Clip = Clip.norm
    """What grad_clip limits: norm (of the whole gradient, which is scaled down), value (of each of its numbers), or
    adaptive (norm of the gradient over that of the weights, for each row of a matrix; about 0.01)."""
    skip_spikes: float | None = None
    """Standard deviations above the mean of the last 128 steps beyond which a step's loss, or the norm of its gradient,
    is a spike: the step is left out, and says so. OLMo has 6; null makes every step."""
    schedule: Schedule = Schedule.cosine
    """constant (with a cool-down), linear, cosine, cosine_restarts, polynomial, or inverse_sqrt (of the step: it needs
    a warm-up, and does not depend on the length of the run)."""
    warmup_steps: int = 100
    """Optimizer steps of linear warm-up from lr_init; 0 for none."""
    lr_init: float = 0.0
    """Learning rate at the start of the warm-up."""
    lr_min: float = 0.0
    """Learning rate at the end of the schedule, and of each period of cosine_restarts."""
    cooldown_share: float = 0.2
    """Share of all steps, at the end, over which schedule=constant falls linearly to lr_min; 0 for none."""
    period_steps: int = 1000
    """Optimizer steps from one restart to the next (cosine_restarts)."""
    shrink: float = 1.0
    """Each peak of cosine_restarts over the one before."""
    power: float = 2.0
    """Power of the share of the run that is left (polynomial); 1 is linear."""

    def __post_init__(self) -> None:
        require_positive("optim.", self, "lr", "eps", "period_steps", "shrink", "power")
        require_positive("optim.", self, "grad_clip", "skip_spikes", way_out=", or null for none")
        require(self.warmup_steps >= 0, f"optim.warmup_steps={self.warmup_steps} must be at least 0.")
        require(
            0 <= self.weight_decay < math.inf,
            f"optim.weight_decay={self.weight_decay} must be at least 0, and finite.",
        )
        require_share("optim.", self, "cooldown_share", "muon_momentum")
        require(
            self.schedule is not Schedule.inverse_sqrt or self.warmup_steps > 0,
            "optim.warmup_steps=0: optim.schedule=inverse_sqrt falls from the end of the warm-up on; give at least 1.",
        )
        require(
            len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas),
            f"optim.betas={self.betas} must be two numbers, each at least 0 and less than 1.",
        )
        for name in ("lr_init", "lr_min"):
            value = getattr(self, name)
            require(0 <= value <= self.lr, f"optim.{name}={value} must lie between 0 and optim.lr={self.lr}.")
