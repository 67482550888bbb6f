"""What a run writes down: metrics.jsonl, samples.jsonl, Weights & Biases, TensorBoard.

Names are train/... for one optimizer step and eval/... for an evaluation. A step is the number of optimizer steps
made: train/loss_nats at step n is the loss of the n-th batch before its update, eval/loss_nats that of the model after.
"""

import json
import os
import resource
import sys
from collections.abc import Callable, Iterator
from heapq import merge
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from composer.core import Callback, Event, State
from composer.loggers import Logger, LoggerDestination
from composer.utils import create_interval_scheduler, dist
from omegaconf import OmegaConf

from hindsight import runs
from hindsight.config.training import TrainConfig, WandbMode
from hindsight.errors import InputError
from hindsight.generation import generate
from hindsight.json_lines import keep_until, read_records
from hindsight.shown_text import visible
from hindsight.training.callback_order import Phase
from hindsight.training.console import Console
from hindsight.training.gradient import TOTAL_LOSS, ClipGradient
from hindsight.training.run_folder import OpenRun
from hindsight.training.setup import RunSetup
from hindsight.training.speed import Speed
from hindsight.training.wandb_files import logged_rows
from language_model import LanguageModel
from loss_utils import metric_values

SAMPLE_COLUMNS = ["step", "prompt", "text"]


def _lines_of(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a file that has been gone through at a resume."""
    return read_records(path) if path.exists() else iter(())


if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def own_metrics(metrics: dict[str, Any]) -> dict[str, float]:
    """Keep train/... and eval/... of what Composer hands to loggers, and call its metrics/eval/... eval/... too."""
    named = {name.removeprefix("metrics/"): value for name, value in metrics.items()}
    return {name: float(value) for name, value in named.items() if name.startswith((runs.TRAIN, runs.EVAL))}


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
            **{name: float(norm) for name, norm in self.norms.items()},
            runs.TOKENS_PER_SECOND: self.speed.tokens_per_second,
            "train/peak_memory_mib": peak_memory_mib(),
        }
        logger.log_metrics(metrics)


def norms_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """L2 norms of every weight and of its clipped gradient, by the names of model.safetensors."""
    norms: dict[str, torch.Tensor] = {}
    for name, weight in model.named_parameters():
        short = name.split("module.")[-1]  # DDP's wrapper and LanguageModel each add one
        norms[f"train/weight_norm/{short}"] = weight.detach().norm()
        if weight.grad is not None:
            norms[f"train/grad_norm/{short}"] = weight.grad.norm()
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

    Backward models write towards the beginning; their texts are turned back to reading order.

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
        self.direction, self.seed = setup.config.direction, setup.config.seed
        self.context_length = setup.windows["train"].context_length
        self.written = 0
        self.is_due: Callable[[State, Event], bool] = create_interval_scheduler(self.config.interval or "0ba")

    def after_load(self, state: State, logger: Logger) -> None:
        """Go on after the step of the checkpoint."""
        if dist.get_global_rank() == 0:
            last = keep_until(self.path, int(state.timestamp.batch), once=False)
            self.written = int(last.record["step"]) if last is not None else 0

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
        if self.config.interval is None or dist.get_global_rank() != 0 or not self.is_due(state, event):
            return
        step = int(state.timestamp.batch)
        if step == self.written:
            return
        self.written = step
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        rows = []
        for prompt in self.config.prompts:
            ids_1T = generate(
                self.model.module,
                self.tokenizer.tokenize(prompt),
                self.direction,
                self.tokenizer.bos_id,
                self.tokenizer.eos_id,
                self.config.length,
                self.context_length,
                self.config.temperature,
                self.config.top_k,
                generator,
            )
            rows.append([step, prompt, self.tokenizer.detokenize(ids_1T)])
        columns = SAMPLE_COLUMNS
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows)
        logger.log_table(columns, rows, name="samples", step=step)


class WandbRun(LoggerDestination):
    """Log to Weights & Biases through its public interface; a resumed run goes on in the same W&B run.

    Composer 0.32.1's own logger needs a wandb older than 0.19, which needs a protobuf older than 6
    (https://github.com/mosaicml/composer, setup.py: extra "wandb"), and asks the server even when offline.
    Delete with a Composer that does neither.

    What a kill has kept from W&B is in metrics.jsonl and samples.jsonl, and is logged when the run goes on: each step
    once, whether it was kept or is made again.

    Args:
        config: the run's config; its wandb.mode is offline or online.
        folder: the run's folder.
        run_name: name and id of the run.
        hyperparameters: what to keep as the run's config.
    """

    def __init__(self, config: TrainConfig, folder: Path, run_name: str, hyperparameters: dict[str, Any]) -> None:
        self.run, self.folder = None, folder
        self.logged: dict[int, frozenset[str]] = {}
        if dist.get_global_rank() == 0:
            # wandb 0.31.0 keeps the arguments, and ends with a traceback where one is no UTF-8, such as a file's name.
            sys.argv[:] = map(visible, sys.argv)
            import wandb  # here: a run that does not use it trains without it
            from wandb.errors import UsageError

            if config.wandb.mode is WandbMode.offline:
                for step, names in logged_rows(folder):
                    self.logged[step] = self.logged.get(step, names) | names
            # W&B never goes back to an earlier step: another run of this name needs an id of its own.
            others = len([*folder.glob(runs.EARLIER + "*")])
            try:
                self.run = wandb.init(
                    project=config.wandb.project,
                    entity=config.wandb.entity,
                    name=run_name,
                    id=f"{run_name}-{others}" if others else run_name,
                    resume="allow",
                    mode=config.wandb.mode.value,
                    dir=folder,
                    config=hyperparameters,
                    settings=wandb.Settings(console="off", disable_code=True, disable_git=True, silent=True),
                )
            except UsageError as error:
                raise InputError(
                    f"wandb.mode={config.wandb.mode.name}: {error} Mend that, or choose offline or disabled."
                ) from error

    def after_load(self, state: State, logger: Logger) -> None:
        """Log what W&B lacks up to the step of the checkpoint."""
        if self.run is None:
            return
        # Both in the order of their steps, and metrics of a step before its samples.
        metrics = ((line["step"], own_metrics(line)) for line in _lines_of(self.folder / runs.METRICS))
        samples = groupby(_lines_of(self.folder / runs.SAMPLES), key=lambda line: line["step"])
        tables = ((step, [*map(self._row, rows)]) for step, rows in samples)
        for step, values in merge(metrics, tables, key=lambda of_step: of_step[0]):
            if isinstance(values, dict):
                self._log(values, step)
            else:
                self.log_table(SAMPLE_COLUMNS, values, "samples", step)
        now = int(state.timestamp.batch)
        self.logged = {step: names for step, names in self.logged.items() if step >= now}

    @staticmethod
    def _row(line: dict[str, Any]) -> list[Any]:
        return [line.get(column) for column in SAMPLE_COLUMNS]

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Log the metrics of a step."""
        self._log(own_metrics(metrics), step)

    def _log(self, values: dict[str, Any], step: int | None) -> None:
        """Log what W&B does not have of a step; online, it says itself up to which step it has all."""
        if self.run is None or step is None or step < self.run.starting_step:
            return
        had = self.logged.get(step, ())
        if new := {name: value for name, value in values.items() if name not in had}:
            self.run.log(new, step=step)

    def log_table(self, columns: list[str], rows: list[Any], name: str = "Table", step: int | None = None) -> None:
        """Log texts."""
        if self.run is not None:
            import wandb

            self._log({name: wandb.Table(columns=[*columns], data=rows)}, step)

    def post_close(self) -> None:
        """Finish writing."""
        if self.run is not None:
            self.run.finish()


class TensorboardFiles(LoggerDestination):
    """Write TensorBoard's files by the names of metrics.jsonl; a resumed run replaces the steps that it makes again.

    Composer 0.32.1's own logger writes other names beside these, once more each evaluation, in a folder of the run's
    name inside the run's folder.

    Args:
        folder: for the files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writer: SummaryWriter | None = None

    def after_load(self, state: State, logger: Logger) -> None:
        """Begin to write, after the step of the checkpoint."""
        if dist.get_global_rank() == 0:
            from torch.utils.tensorboard import SummaryWriter  # here: it takes a second, and few runs need it

            self.writer = SummaryWriter(str(self.folder), purge_step=int(state.timestamp.batch) + 1)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Write the metrics of a step."""
        if self.writer is not None:
            for name, value in own_metrics(metrics).items():
                self.writer.add_scalar(name, value, step)

    def log_table(self, columns: list[str], rows: list[Any], name: str = "Table", step: int | None = None) -> None:
        """Write texts, each below its prompt."""
        if self.writer is not None:
            for row in rows:
                self.writer.add_text(name, "\n\n".join(str(cell) for cell in row), step)

    def eval_end(self, state: State, logger: Logger) -> None:
        """Let TensorBoard see what is written."""
        if self.writer is not None:
            self.writer.flush()

    def batch_end(self, state: State, logger: Logger) -> None:
        """Let TensorBoard see a new run at once; later steps are flushed every two minutes."""
        if self.writer is not None and int(state.timestamp.batch) == 1:
            self.writer.flush()

    def post_close(self) -> None:
        """Finish writing."""
        if self.writer is not None:
            self.writer.close()


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
