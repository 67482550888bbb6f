"""What a run writes down: metrics.jsonl, samples.jsonl, Weights & Biases, TensorBoard.

Names are train/... for one optimizer step and eval/... for an evaluation. A step is the number of optimizer steps
made: train/loss_nats at step n is the loss of the n-th batch before its update, eval/loss_nats that of the model after.
"""

import itertools
import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from composer.core import Callback, Event, State
from composer.loggers import Logger, LoggerDestination
from composer.utils import create_interval_scheduler, dist
from omegaconf import OmegaConf

from gpt import GPT
from hindsight import runs
from hindsight.config.training import WandbMode
from hindsight.device import device_of_process
from hindsight.generation.sampling import Sampling
from hindsight.generation.writing import last, write, writes_on
from hindsight.json_lines import keep_until
from hindsight.orders.order import readings_of
from hindsight.ranks import on_rank_0
from hindsight.text.graphemes import reverse_text
from hindsight.training.callback_order import Phase
from hindsight.training.console import Console
from hindsight.training.gradient import TOTAL_LOSS, ClipGradient
from hindsight.training.loggers import SAMPLE_COLUMNS, SAMPLE_WAY, TensorboardFiles, WandbRun, own_metrics
from hindsight.training.run_folder import OpenRun
from hindsight.training.setup import RunSetup
from hindsight.training.sharding import whole
from hindsight.training.speed import Speed
from language_model import LanguageModel
from loss_utils import metric_values
from rnn import RNN


class TrainMetrics(Callback):
    """Log a training step: loss, metrics, learning rate, gradient norm, speed, memory.

    Args:
        gradient: ClipGradient; its `norm` gives the norm before clipping.
        interval: optimizer steps between two lines.
        layer_norms: whether to log the norm of each weight, and that of its gradient, before its update.
    """

    phase = Phase.measure

    def __init__(self, gradient: ClipGradient, interval: int, layer_norms: bool = False) -> None:
        self.gradient = gradient
        self.interval = interval
        self.layer_norms = layer_norms
        self.norms: dict[str, torch.Tensor] = {}
        self.sums: torch.Tensor | None = None
        self.grad_norm = torch.tensor(float("nan"))
        self.lr = float("nan")
        self.speed = Speed()

    def before_train_batch(self, state: State, logger: Logger) -> None:
        """Forget the sums of the batch before."""
        self.sums = None
        self.speed.start(state)

    def after_loss(self, state: State, logger: Logger) -> None:
        """Add the sums of a microbatch."""
        outputs = state.outputs
        assert isinstance(outputs, dict)
        if (sums := outputs.get("sums")) is not None:
            self.sums = sums if self.sums is None else self.sums + sums

    def after_train_batch(self, state: State, logger: Logger) -> None:
        """Take what the optimizer step is going to use, if it is to be logged."""
        self.lr = state.optimizers[0].param_groups[0]["lr"]
        if (int(state.timestamp.batch) + 1) % self.interval == 0:
            self.grad_norm = self.gradient.norm(state)
            if self.layer_norms:
                self.norms = norms_of(state.model)

    def batch_end(self, state: State, logger: Logger) -> None:
        """Log the step that was just made."""
        self.speed.mark(state)
        if int(state.timestamp.batch) % self.interval:
            return
        metrics = {runs.TRAIN_LOSS: state.total_loss_dict[TOTAL_LOSS]}
        if self.sums is not None:
            total = self.sums.clone()
            dist.all_reduce(total, reduce_operation="SUM")
            values = metric_values(total)
            metrics |= {f"{runs.TRAIN}{name}": values[name] for name in values if name != "loss_nats"}
        metrics |= {
            "train/lr": self.lr,
            "train/grad_norm": float(self.grad_norm),
            **(dict(zip(self.norms, torch.stack([*self.norms.values()]).tolist(), strict=True)) if self.norms else {}),
            runs.TOKENS_PER_SECOND: self.speed.tokens_per_second,
            "train/peak_memory_mib": peak_memory_mib(),
        }
        logger.log_metrics(metrics)


def norms_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """L2 norms of every weight and of its clipped gradient, by the names of model.safetensors."""
    norms: dict[str, torch.Tensor] = {}
    for name, weight in model.named_parameters():
        short = name.split("module.")[-1]  # DDP's wrapper and LanguageModel each add one
        norms[f"train/weight_norm/{short}"] = whole(weight.detach().norm())
        if weight.grad is not None:
            norms[f"train/grad_norm/{short}"] = whole(weight.grad.norm())
    return norms


def peak_memory_mib() -> float:
    """Most memory held so far by this process, in MiB: on its GPU if it has one, else in main memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


class MetricsFile(LoggerDestination):
    """Write metrics.jsonl: an object a step, with step, tokens, seconds (of training) and what was measured.

    Args:
        path: the file; lines of steps that a resumed run makes again are replaced.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record: dict[str, float] = {}
        self.line_start = 0
        self.pending: dict[str, float] = {}

    def after_load(self, state: State, logger: Logger) -> None:
        """Go on after the step of the checkpoint."""
        if dist.get_global_rank() == 0 and (last := keep_until(self.path, int(state.timestamp.batch), once=True)):
            self.record, self.line_start = last.record, last.start

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Take what belongs to the present step."""
        self.pending |= own_metrics(metrics)

    def batch_end(self, state: State, logger: Logger) -> None:
        """Write the step."""
        self._write(state)

    def eval_end(self, state: State, logger: Logger) -> None:
        """Write the evaluation into the line of its step."""
        self._write(state)

    def _write(self, state: State) -> None:
        if not self.pending or dist.get_global_rank() != 0:
            return
        time = state.timestamp
        place = {"step": int(time.batch), "tokens": int(time.token), "seconds": time.total_wct.total_seconds()}
        with self.path.open("rb+" if self.path.exists() else "wb") as file:
            if self.record.get("step") != place["step"]:
                self.record, self.line_start = place, file.seek(0, os.SEEK_END)
            self.record |= self.pending
            file.seek(self.line_start)
            file.write((json.dumps(self.record) + "\n").encode())
            file.truncate()
        self.pending = {}


class Samples(Callback):
    """Let the model write on from fixed prompts, into samples.jsonl and the loggers' table "samples".

    Backward models write towards the beginning; texts are in reading order, whatever the order of the model, and of the
    text that it was trained on.

    Args:
        setup: the run, with its prompts and how to sample.
        model: its model.
    """

    phase = Phase.measure

    def __init__(self, setup: RunSetup, model: LanguageModel) -> None:
        self.path, self.config, self.model, self.tokenizer = (
            setup.folder / runs.SAMPLES,
            setup.config.samples,
            model,
            setup.tokenizer,
        )
        self.readings = readings_of(setup.order, setup.tokenizer.bos_id)
        self.seed = setup.config.seed
        self.as_read: Callable[[str], str] = reverse_text if setup.manifests["train"].is_reversed else str
        self.context_length = setup.windows["train"].context_length
        self.written = 0
        self.is_due: Callable[[State, Event], bool] = create_interval_scheduler(self.config.interval or "0ba")

    def after_load(self, state: State, logger: Logger) -> None:
        """Go on after the step of the checkpoint."""

        def written() -> int:
            last = keep_until(self.path, int(state.timestamp.batch), once=False)
            return int(last.record["step"]) if last is not None else 0

        self.written = on_rank_0(written)

    def eval_before_all(self, state: State, logger: Logger) -> None:
        """Write samples of the step before its evaluation, because a checkpoint is saved there."""
        self._write(state, logger, Event.BATCH_CHECKPOINT)

    def batch_checkpoint(self, state: State, logger: Logger) -> None:
        """Write samples where the interval is in steps or tokens, and at the end."""
        self._write(state, logger, Event.BATCH_CHECKPOINT)

    def epoch_checkpoint(self, state: State, logger: Logger) -> None:
        """Write samples where the interval is in epochs."""
        self._write(state, logger, Event.EPOCH_CHECKPOINT)

    def _write(self, state: State, logger: Logger, event: Event) -> None:
        if self.config.interval is None or not self.is_due(state, event):
            return
        step = int(state.timestamp.batch)
        if step == self.written:
            return
        self.written = step
        module = self.model.whole_module()
        if module is None or dist.get_global_rank() != 0:
            return
        module = device_of_process().module_to_device(module)
        with torch.compiler.set_stance("force_eager"):  # each length of a text would be compiled by itself
            rows = self._rows(step, module)
        columns = [*SAMPLE_COLUMNS, SAMPLE_WAY][: len(rows[0])] if rows else SAMPLE_COLUMNS
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows)
        logger.log_table(columns, rows, name="samples", step=step)

    def _rows(self, step: int, module: GPT | RNN) -> list[list[Any]]:
        """Write on from each prompt; rows of the table."""
        seed = self.seed * 1_000_003 + step
        sampling = Sampling(self.config.temperature, self.config.top_k)
        rows: list[list[Any]] = []
        for prompt, (way, reading) in itertools.product(self.config.prompts, self.readings.items()):
            tokens = self.tokenizer.tokenize(self.as_read(prompt))[0].tolist()
            if not writes_on(reading.order):  # a prompt that is too long must not stop a training
                tokens = tokens[: self.context_length - 1]
            (text,) = last(
                write(
                    module,
                    tokens,
                    reading,
                    self.tokenizer.eos_id,
                    self.config.length,
                    self.context_length,
                    sampling,
                    [seed + len(rows)],
                )
            )
            rows.append([step, prompt, self.as_read(self.tokenizer.detokenize(text.known)), *([way] if way else [])])
        return rows


def build_loggers(run: OpenRun) -> list[LoggerDestination]:
    """Build the loggers that the config asks for; metrics.jsonl and the console always."""
    config, folder, run_name = run.setup.config, run.setup.folder, run.setup.run_name
    hyperparameters = {"config": OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True), **run.metadata}
    loggers: list[LoggerDestination] = [
        MetricsFile(folder / runs.METRICS),
        Console(run.setup.total_steps, config.progress_bar),
    ]
    if config.wandb.mode is not WandbMode.disabled:
        loggers.append(WandbRun(config, folder, run_name, hyperparameters))
    if config.tensorboard:
        loggers.append(TensorboardFiles(folder / runs.TENSORBOARD))
    return loggers
