"""microbatch_size=auto: Composer halves what a GPU takes at once when memory runs out, and makes the step again."""

import logging
from typing import Any

import torch
from composer import Trainer
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist

from hindsight.config.training import AUTO, TrainConfig
from hindsight.errors import InputError
from hindsight.training.callback_order import Phase

log = logging.getLogger("hindsight")


def check_microbatch(config: TrainConfig, has_gpu: bool) -> None:
    """Refuse to look for a microbatch size where memory that runs out ends the process."""
    if config.microbatch_size == AUTO and not has_gpu:
        raise InputError(
            f"microbatch_size={AUTO} needs a GPU, which says that its memory has run out; here give a number of "
            "windows, or leave it null. `python plan.py` says what memory a number takes."
        )


def device_microbatch(config: TrainConfig) -> int | str | None:
    """What one device takes at once, as Composer wants it: not more than its part of the batch, of which it warns."""
    size = config.microbatch_size
    return min(size, config.batch_size // dist.get_world_size()) if isinstance(size, int) else size


class AutoMicrobatch(Callback):
    """Let a step that is made again be made as if nothing had failed before, and evaluations take what training does.

    A run goes on with the size that was found: other sizes would round sums otherwise. What the optimizer keeps is
    allocated before the first step, as an update that is cut short by it could not be made again.

    Composer 0.32.1 clears losses and gradients of a failed attempt, but not what dropout has drawn. And where the
    allocator had to free its cache in two steps one after the other, it halves the size and trains the batch again,
    although the optimizer has made its step already; `num_consecutive_thrashes`, set to 0 in each step, never gets
    there (https://github.com/mosaicml/composer/blob/v0.32.1/composer/trainer/trainer.py#L2746-L2755). Delete with a
    Composer that does neither.

    Args:
        config: the run's config; with device_eval_batch_size, evaluations have a size of their own.
    """

    phase = Phase.restore

    def __init__(self, config: TrainConfig) -> None:
        self.sets_evaluation = config.device_eval_batch_size is None
        self.trainer: Trainer | None = None
        self.step, self.size = -1, 0
        self.random: list[torch.Tensor] = []

    def after_load(self, state: State, logger: Logger) -> None:
        """Begin with the size that the checkpoint holds, if a device has so many windows now."""
        if self.size:
            self.size = min(self.size, int(state.device_train_microbatch_size or 1))
            state.device_train_microbatch_size = self.size

    def fit_start(self, state: State, logger: Logger) -> None:
        """Allocate what the optimizer keeps, while there is nothing of a step yet.

        Raises:
            InputError: there is no room for it, whatever the size of a microbatch.
        """
        try:
            for optimizer in state.optimizers:
                allocate_state(optimizer)
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"microbatch_size={AUTO}: whatever a device takes at once, it has no room for this model's weights, "
                "their gradients and the optimizer's running means of these; train a smaller model, or on several "
                "devices with parallelism=fsdp and a number of windows. `python plan.py` says what a model takes."
            ) from error

    def before_train_batch(self, state: State, logger: Logger) -> None:
        """Keep the random state that the step begins with; give it back where the step is made again."""
        if self.trainer is not None:
            self.trainer.num_consecutive_thrashes = 0
        if self.step == int(state.timestamp.batch):
            _set_random(self.random)
        else:
            self.step, self.random = int(state.timestamp.batch), _random()

    def batch_end(self, state: State, logger: Logger) -> None:
        """Say which size was found."""
        size = int(state.device_train_microbatch_size or 0)
        if size != self.size and dist.get_global_rank() == 0:
            log.info("microbatch_size=%s: a device takes %d windows at once", AUTO, size)
        self.size = size

    def eval_before_all(self, state: State, logger: Logger) -> None:
        """Evaluate with the size that was found."""
        for evaluator in state.evaluators if self.size and self.sets_evaluation else ():
            evaluator.device_eval_microbatch_size = self.size

    def state_dict(self) -> dict[str, Any]:
        """Keep the size that was found."""
        return {"size": self.size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the size; a checkpoint of an earlier version has none."""
        self.size = state.get("size", 0)


def allocate_state(optimizer: torch.optim.Optimizer) -> None:
    """Allocate what an AdamW keeps of each weight, which else its first update does; all is as before that update.

    PyTorch counts the step of a weight before it allocates the means: where memory runs out in between, the next
    update finds the one without the other, after a part of the weights was updated. It has no function for this; as
    torch.distributed.checkpoint.state_dict does, an update is made of gradients of zero at a learning rate of 0, which
    changes no bit of a weight. One that has a state already is left as it is.
    """
    if optimizer.state:
        return
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for weight in group["params"]:
            weight.grad = torch.zeros_like(weight)
    optimizer.step()
    optimizer.zero_grad()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    for of_weight in optimizer.state.values():
        of_weight["step"].zero_()


def _random() -> list[torch.Tensor]:
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if torch.cuda.is_available() else [])]


def _set_random(states: list[torch.Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state(states[1])
