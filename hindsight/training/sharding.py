"""Divide a model among the devices (parallelism=fsdp): of every weight, gradient and running mean each keeps a part.

PyTorch's fully_shard (FSDP2, arXiv:2304.11277) is applied before the Trainer sees the model, the same way on GPUs and
CPUs. Composer 0.32.1 finds that the model is sharded: it wraps no DDP around it, saves whole tensors on rank 0, and
loads them into the parts; so a checkpoint is the same file whatever the devices are. Its own parallelism_config would
begin at the model inside LanguageModel, whose loss uses the head's weight, and compute norms in half precision too.

Weights stay float32 while they are exchanged, so that all is computed as with DDP, in another order of sums.
"""

from typing import Any

import torch
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist
from torch import Tensor, nn
from torch.distributed import ReduceOp, reduce_scatter_tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from hindsight.config.training import Parallelism, TrainConfig
from hindsight.device import device_of_process
from hindsight.training.callback_order import Phase


def shard(model: nn.Module, layers: nn.ModuleList) -> None:
    """Divide the parameters of a model among all devices; an optimizer is built after this.

    Args:
        model: what the Trainer calls, whose weights are the same on all ranks; it moves to this rank's device.
        layers: its blocks: the weights of one are gathered at a time, those of the rest for the whole step.
    """
    device = {"gpu": "cuda"}.get(device_of_process().name, "cpu")
    mesh = init_device_mesh(device, (dist.get_world_size(),))
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def is_divided(config: TrainConfig) -> bool:
    """Whether a run divides its model: one process has nothing to divide."""
    return config.parallelism is Parallelism.fsdp and dist.get_world_size() > 1


def nothing_to_divide(config: TrainConfig) -> list[str]:
    """Say in a line that parallelism=fsdp does nothing where one process trains; nothing otherwise."""
    if config.parallelism is not Parallelism.fsdp or is_divided(config):
        return []
    return ["note     one process has nothing to divide: parallelism=fsdp does nothing here"]


class AverageGradient(Callback):
    """Divide gradients that were added up over the ranks where their mean is meant, before anything else uses them.

    gloo of PyTorch 2.7 adds up where it is asked for the mean, without a word
    (https://github.com/pytorch/pytorch/issues/162338); whether it does is tried. Delete with a PyTorch whose gloo has
    the mean.
    """

    phase = Phase.update

    def __init__(self) -> None:
        self.divisor = 1.0

    def fit_start(self, state: State, logger: Logger) -> None:
        """Try it."""
        ones = device_of_process().tensor_to_device(torch.ones(dist.get_world_size()))
        reduced = torch.empty_like(ones[:1])
        reduce_scatter_tensor(reduced, ones, op=ReduceOp.AVG)
        self.divisor = float(reduced)

    def after_train_batch(self, state: State, logger: Logger) -> None:
        """Divide the gradient of the step."""
        if self.divisor != 1:
            for weight in state.model.parameters():
                if weight.grad is not None:
                    weight.grad.div_(self.divisor)


def whole(tensor: Tensor) -> Tensor:
    """Gather a tensor of which each rank has a part; all ranks call this together. Others are given back."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_weights(module: nn.Module) -> dict[str, Any] | None:
    """Gather the weights of a module on rank 0's CPU; all ranks call this together.

    Returns:
        The weights by their names, empty on other ranks; None, on all, where they are not divided.
    """
    if not any(isinstance(weight, DTensor) for weight in module.parameters()):
        return None
    return get_model_state_dict(module, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
