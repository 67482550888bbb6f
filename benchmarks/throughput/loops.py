"""The variants as training loops: a plain loop around a model, and train_composer.py's Trainer around ours."""

from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from composer.core import Callback, State
from composer.loggers import Logger
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

import train_composer
from benchmarks.throughput.huggingface import HuggingFaceGPT2
from benchmarks.throughput.plain import PlainModel
from benchmarks.throughput.setup import BYTE_IDS, Contender, Setup
from benchmarks.throughput.turns import Turns
from hindsight.config.data import DataConfig
from hindsight.config.direction import Direction
from hindsight.config.model import GPTConfig
from hindsight.config.optim import OptimConfig
from hindsight.config.throughput import Variant
from hindsight.config.training import (
    CheckpointConfig,
    Precision,
    SamplesConfig,
    TrainConfig,
    WandbConfig,
    WandbMode,
)
from hindsight.device import device_of_process
from hindsight.orders.examples import make_example
from hindsight.orders.known import open_order
from hindsight.training.optim import build_optimizer
from language_model import LanguageModel, build_model
from loss_utils import metric_values

NEVER = "1000000000ba"
BOS_ID = 0


def run_loop(contender: Contender, turns: Turns, shards: Path | None, folder: Path) -> None:
    """Build a variant and train until no more turns are asked for.

    Args:
        contender: what is measured.
        turns: takes the time of its steps.
        shards: the Trainer's data.
        folder: a folder for its files.
    """
    setup, variant = contender.setup, contender.variant
    torch.manual_seed(setup.seed)
    device_of_process()  # before the model of a plain loop: float32 is float32 on all sides
    if variant is Variant.trainer:
        assert shards is not None
        run_trainer(train_config(setup, shards, folder), turns)
    else:
        run_plainly(model_of(variant, setup), setup, turns)


def model_of(variant: Variant, setup: Setup) -> nn.Module:
    """Build the model of a plain loop: {"input_ids", "targets"} -> {"loss"}, and "sums" with variant=metrics."""
    if variant is Variant.plain:
        return PlainModel(setup.model, setup.vocab_size)
    if variant is Variant.huggingface:
        assert isinstance(setup.model, GPTConfig)
        return HuggingFaceGPT2(setup.model, setup.vocab_size)
    one_byte_per_token = np.ones(setup.vocab_size, np.int64)
    module = build_model(setup.model, setup.vocab_size, setup.seed)
    return LanguageModel(module, one_byte_per_token, variant is Variant.metrics, loss=setup.loss)


def run_plainly(model: nn.Module, setup: Setup, turns: Turns) -> None:
    """Make steps of forward, loss, backward, clipping and optimizer, on batches that are on the device already."""
    optim = OptimConfig()
    model = model.to(setup.device)
    optimizer = build_optimizer(model, optim)
    forward = compiled(model) if setup.compile else model
    for inputs_BT, targets_BT in cycle(random_batches(setup)):
        sums: list[Tensor] = []
        size = setup.microbatch_size
        for inputs, targets in zip(inputs_BT.split(size), targets_BT.split(size), strict=True):
            with torch.autocast(setup.device, torch.bfloat16, enabled=setup.precision is Precision.bf16):
                outputs = forward({"input_ids": inputs, "targets": targets})
            (outputs["loss"] * (len(inputs) / len(inputs_BT))).backward()
            sums += [outputs["sums"]] if "sums" in outputs else []
        clip_grad_norm_(model.parameters(), optim.grad_clip or float("inf"))
        optimizer.step()
        optimizer.zero_grad()
        if sums:
            metric_values(torch.stack(sums).sum(dim=0))
        turns.mark()


def compiled(model: nn.Module) -> nn.Module:
    """Compile ours as train_composer.py does, and others as a whole."""
    if not isinstance(model, LanguageModel):
        return torch.compile(model)  # pyright: ignore[reportReturnType] - of a module it is one
    model.compile_regions()
    return model


def random_batches(setup: Setup) -> list[tuple[Tensor, Tensor]]:
    """Draw the (inputs_BT, targets_BT) of a turn, on the device."""
    rng = np.random.default_rng(setup.seed)
    shape = (setup.steps + 1, setup.batch_size, setup.context_length)
    forward = open_order("forward", setup.context_length)
    windows = torch.from_numpy(rng.integers(BYTE_IDS, size=shape))
    pairs = [make_example(window_BT, forward, BOS_ID) for window_BT in windows]
    return [(inputs_BT.to(setup.device), targets_BT.to(setup.device)) for inputs_BT, targets_BT in pairs]


def train_config(setup: Setup, shards: Path, folder: Path) -> TrainConfig:
    """A run with everything on but W&B, which would compute in a process of its own beside it.

    Of what happens at intervals, all is there, and none falls into a turn.
    """
    return TrainConfig(
        direction=Direction.forward,
        model=setup.model,
        data=DataConfig(path=str(shards), context_length=setup.context_length),
        optim=OptimConfig(),
        max_duration=NEVER,
        batch_size=setup.batch_size,
        microbatch_size=setup.microbatch_size,
        seed=setup.seed,
        runs_dir=str(folder),
        eval_interval=NEVER,
        checkpoint=CheckpointConfig(interval=NEVER),
        precision=setup.precision,
        loss=setup.loss,
        compile=setup.compile,
        wandb=WandbConfig(mode=WandbMode.disabled),
        samples=SamplesConfig(interval=NEVER),
        progress_bar=False,
    )


def run_trainer(config: TrainConfig, turns: Turns) -> None:
    """Train as train_composer.py does: shards, loader, metrics, clipping, schedule, metrics.jsonl, all callbacks."""
    setup = train_composer.prepare(config)
    model = train_composer.build_language_model(setup)
    run = train_composer.open_run(setup, model)
    trainer, _ = train_composer.build_trainer(run, model)
    trainer.state.callbacks.append(MarkSteps(turns))
    try:
        trainer.fit()
    finally:
        trainer.engine.close()  # alone: trainer.close() would save what nobody reads


class MarkSteps(Callback):
    """Marks the end of every step, and how long each batch was waited for."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns

    def before_dataloader(self, state: State, logger: Logger) -> None:
        """Begin to wait for a batch."""
        self.turns.begin_wait()

    def after_dataloader(self, state: State, logger: Logger) -> None:
        """End it."""
        self.turns.end_wait()

    def batch_end(self, state: State, logger: Logger) -> None:
        """Mark the end of the step that Composer has just made."""
        self.turns.mark()
