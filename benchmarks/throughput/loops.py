"""The variants as training loops: a plain loop around a model, and Composer's Trainer around ours."""

import time
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from composer import Trainer
from composer.core import Callback, State
from composer.loggers import Logger
from streaming import MDSWriter
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from benchmarks.throughput.huggingface import HuggingFaceGPT2
from benchmarks.throughput.setup import Setup
from hindsight.config.model import GPTConfig
from hindsight.config.optim import OptimConfig
from hindsight.config.throughput import Variant
from hindsight.loading.mds_reader import WindowStream
from hindsight.loading.windows import SplitWindows
from hindsight.orders.examples import make_example
from hindsight.orders.known import open_order
from hindsight.shards.manifest import token_dtype
from hindsight.training.gradient import ClipGradient
from hindsight.training.optim import build_optimizer, build_scheduler, learning_rate
from language_model import LanguageModel, build_model
from load_text_streaming import TextStreamingDataset, build_loader
from logging_composer import MetricsFile, TrainMetrics
from loss_utils import metric_values

BOS_ID = 0
WINDOWS_PER_BLOCK = 8


class Loop(Protocol):
    """A variant, ready to train."""

    def take_turn(self) -> list[float]:
        """Make one step to warm up and then `setup.steps` more; return the seconds of each of the latter."""
        ...


class Stopwatch:
    """Takes the time of steps; on a GPU by events, without synchronizing before the end of a turn."""

    def __init__(self, device: str) -> None:
        self.gpu = device == "cuda"
        self.marks: list[Any] = []

    def mark(self) -> None:
        """Record the present moment; call it at the end of every step."""
        if self.gpu:
            event = torch.cuda.Event(enable_timing=True)
            event.record()  # pyright: ignore[reportCallIssue]
            self.marks.append(event)
        else:
            self.marks.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Return the time between each two marks, and start again without marks."""
        marks, self.marks = self.marks, []
        pairs = list(pairwise(marks))
        if self.gpu:
            torch.cuda.synchronize()
            return [start.elapsed_time(end) / 1000 for start, end in pairs]
        return [end - start for start, end in pairs]


class PlainLoop:
    """Forward, loss, backward, clipping, optimizer, on batches that are on the device already.

    Args:
        setup: what is measured.
        model: {"input_ids", "targets"} -> {"loss"}, and "sums" if metrics are to be computed from them.
    """

    def __init__(self, setup: Setup, model: nn.Module) -> None:
        self.setup = setup
        self.optim = OptimConfig()
        self.model = model.to(setup.device)
        self.optimizer = build_optimizer(self.model, self.optim)
        self.forward = torch.compile(self.model) if setup.compile else self.model
        self.watch = Stopwatch(setup.device)
        windows = random_windows(setup).astype(np.int64).reshape(-1, setup.batch_size, setup.context_length)
        forward = open_order("forward", setup.context_length)
        pairs = [make_example(torch.from_numpy(window_BT), forward, BOS_ID) for window_BT in windows]
        self.batches = [(inputs_BT.to(setup.device), targets_BT.to(setup.device)) for inputs_BT, targets_BT in pairs]

    def take_turn(self) -> list[float]:
        """Train on each batch once."""
        for inputs_BT, targets_BT in self.batches:
            self._step(inputs_BT, targets_BT)
            self.watch.mark()
        return self.watch.seconds()

    def _step(self, inputs_BT: Tensor, targets_BT: Tensor) -> None:
        """Make an optimizer step, with gradient accumulation over microbatches."""
        sums = []
        size = self.setup.microbatch_size
        for inputs, targets in zip(inputs_BT.split(size), targets_BT.split(size), strict=True):
            with torch.autocast(self.setup.device, torch.bfloat16, enabled=self.setup.precision == "bf16"):
                outputs = self.forward({"input_ids": inputs, "targets": targets})
            (outputs["loss"] * (len(inputs) / len(inputs_BT))).backward()
            sums += [outputs["sums"]] if "sums" in outputs else []
        clip_grad_norm_(self.model.parameters(), self.optim.grad_clip or float("inf"))
        self.optimizer.step()
        self.optimizer.zero_grad()
        if sums:
            metric_values(torch.stack(sums).sum(dim=0))


class TrainerLoop:
    """Our model in Composer's Trainer: shards, loader, accumulation, metrics, clipping, schedule, metrics.jsonl.

    Evaluation, checkpoints and samples are left out: their intervals are a matter of choice. A turn is an epoch.

    Args:
        setup: what is measured.
        folder: an empty folder for shards and metrics.
    """

    def __init__(self, setup: Setup, folder: Path) -> None:
        optim = OptimConfig()
        module = build_model(setup.model, setup.vocab_size, setup.seed)
        optimizer = build_optimizer(module, optim)
        total_steps = (setup.rounds + 1) * (setup.steps + 1)
        split = write_shards(setup, folder / "shards")
        dataset = TextStreamingDataset(WindowStream(split), split, setup.batch_size, shuffle=True, seed=setup.seed)
        self.watch, gradient = Stopwatch(setup.device), ClipGradient(optim.grad_clip)
        self.trainer = Trainer(
            model=LanguageModel(module, one_byte_per_token(setup)),
            train_dataloader=build_loader(
                dataset, open_order("forward", dataset.windows.context_length), BOS_ID, num_workers=0, seed=setup.seed
            ),
            optimizers=optimizer,
            schedulers=build_scheduler(optimizer, lambda step: learning_rate(step, total_steps, optim), optim),
            step_schedulers_every_batch=True,
            precision={"fp32": "fp32", "bf16": "amp_bf16"}[setup.precision],
            device_train_microbatch_size=setup.microbatch_size,
            accumulate_train_batch_on_tokens=True,
            seed=setup.seed,
            callbacks=[gradient, TrainMetrics(gradient, interval=1), MarkSteps(self.watch)],
            loggers=[MetricsFile(folder / "metrics.jsonl")],
            progress_bar=False,
            compile_config={} if setup.compile else None,
            auto_log_hparams=False,
        )

    def take_turn(self) -> list[float]:
        """Train for an epoch."""
        self.trainer.fit(duration="1ep")
        return self.watch.seconds()


class MarkSteps(Callback):
    """Marks the end of every step on a stopwatch."""

    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch

    def batch_end(self, state: State, logger: Logger) -> None:
        """Mark the end of the step that Composer has just made."""
        self.watch.mark()


def build_loop(variant: Variant, setup: Setup, folder: Path) -> Loop:
    """Build a variant: its model, its data and its loop."""
    torch.manual_seed(setup.seed)
    if variant is Variant.trainer:
        return TrainerLoop(setup, folder)
    if variant is Variant.huggingface:
        assert isinstance(setup.model, GPTConfig)
        return PlainLoop(setup, HuggingFaceGPT2(setup.model, setup.vocab_size))
    module = build_model(setup.model, setup.vocab_size, setup.seed)
    return PlainLoop(setup, LanguageModel(module, one_byte_per_token(setup), variant is Variant.metrics))


# --------------------------------------------------------------------------------------------------------------- data


def random_windows(setup: Setup) -> np.ndarray:
    """Draw the tokens of a turn, shape (windows, context_length)."""
    rng = np.random.default_rng(setup.seed)
    shape = ((setup.steps + 1) * setup.batch_size, setup.context_length)
    return rng.integers(setup.vocab_size, size=shape).astype(token_dtype(setup.vocab_size))


def one_byte_per_token(setup: Setup) -> np.ndarray:
    """Give the UTF-8 bytes of each token id, which bits per byte needs: random tokens stand for a byte each."""
    return np.ones(setup.vocab_size, np.int64)


def write_shards(setup: Setup, folder: Path) -> SplitWindows:
    """Write the tokens of a turn as an MDS shard."""
    tokens = random_windows(setup).ravel()
    block_length = WINDOWS_PER_BLOCK * setup.context_length
    blocks = np.resize(tokens, (-(-len(tokens) // block_length), block_length))  # the last block is padded
    columns = {"tokens": f"ndarray:{tokens.dtype}:{block_length}"}
    with MDSWriter(columns=columns, out=str(folder / "train"), size_limit=None) as writer:
        for block in blocks:
            writer.write({"tokens": block})
    return SplitWindows(
        str(folder), "train", len(tokens), block_length, len(blocks), setup.context_length, setup.batch_size
    )
