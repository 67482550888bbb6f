"""AdamW or Muon with its parameter groups, and learning-rate schedules as plain functions of the step."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from hindsight.config.optim import OptimConfig, OptimizerName, Schedule
from hindsight.training.muon import Muon, matrices_of


def freeze(model: nn.Module, parts: Sequence[str]) -> None:
    """Leave the weights of these parts, such as blocks.0, as they are: without gradient, and in no optimizer."""
    inside = tuple(f"{part}." for part in parts)
    for name, weight in model.named_parameters():
        if name.startswith(inside):
            weight.requires_grad_(False)


def parameter_groups(model: nn.Module, weight_decay: float, decay_all: bool = False) -> list[dict]:
    """Split the parameters: matrices decay; biases, norms and embeddings do not, but for decay_all.

    A weight shared by the embedding and the head is an embedding.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decays = [p for p in parameters if decay_all or (p.ndim >= 2 and id(p) not in embeddings)]
    decaying = {id(p) for p in decays}
    return [
        {"params": decays, "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) not in decaying], "weight_decay": 0.0},
    ]


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW | Muon:
    """AdamW (arXiv:1711.05101) in its fused form, which does the same sums in one pass, or Muon beside it."""
    groups = parameter_groups(model, config.weight_decay, config.decay_all)
    betas = config.betas[0], config.betas[1]
    if config.name is OptimizerName.adamw:
        return torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=config.eps, fused=True)
    matrices = matrices_of(model)
    others = [{**group, "params": [p for p in group["params"] if p not in matrices]} for group in groups]
    return Muon(matrices, others, config.lr, config.weight_decay, config.muon_momentum, betas, config.eps)


def build_scheduler(optimizer: torch.optim.Optimizer, rate: Callable[[int], float], config: OptimConfig) -> LambdaLR:
    """Let the learning rate follow a function of the steps made.

    PyTorch's scheduler counts the steps itself. A function of Composer 0.32.1's state would come one step late: it is
    called before the state has counted the step.
    """
    return LambdaLR(optimizer, lambda step: rate(step) / config.lr)


def set_learning_rate(optimizer: torch.optim.Optimizer, scheduler: LambdaLR) -> None:
    """Give the next step the rate that the scheduler has for it, in place of the one that was loaded."""
    for group, share in zip(optimizer.param_groups, scheduler.lr_lambdas, strict=True):
        group["lr"] = group["initial_lr"] * share(scheduler.last_epoch)


def learning_rate(step: int, total_steps: int, config: OptimConfig) -> float:
    """Learning rate of an optimizer step.

    Args:
        step: number of optimizer steps made before this one.
        total_steps: length of the run in optimizer steps; the schedule ends there and keeps its last value.
        config: the peak `lr`, the shape and its numbers.

    Returns:
        The learning rate. Warm-up: from lr_init up to lr over warmup_steps. Then, of lr - lr_min, above lr_min:
        constant: all of it until the cool-down, then linearly to none; linear: linearly to none; cosine: half a cosine;
        cosine_restarts: half a cosine each period_steps, each from `shrink` times the peak before (arXiv:1608.03983);
        polynomial: the share of the steps that is left, to the power; inverse_sqrt: sqrt(warmup_steps / step).
    """
    if step < config.warmup_steps:
        return config.lr_init + (config.lr - config.lr_init) * step / config.warmup_steps
    since, length = step - config.warmup_steps, max(total_steps - config.warmup_steps, 1)
    done = min(since / length, 1.0)
    peak = config.lr
    if config.schedule is Schedule.constant:
        cooldown_steps = min(config.cooldown_share * total_steps, length)
        left = max(total_steps - step, 0)
        share = min(left / cooldown_steps, 1.0) if cooldown_steps else 1.0
    elif config.schedule is Schedule.linear:
        share = 1 - done
    elif config.schedule is Schedule.cosine:
        share = (1 + math.cos(math.pi * done)) / 2
    elif config.schedule is Schedule.polynomial:
        share = (1 - done) ** config.power
    elif config.schedule is Schedule.inverse_sqrt:
        share = math.sqrt(config.warmup_steps / step)
    else:
        period, within = divmod(since, config.period_steps)
        peak = max(config.lr * config.shrink**period, config.lr_min)
        share = (1 + math.cos(math.pi * within / config.period_steps)) / 2
    return config.lr_min + (peak - config.lr_min) * share
