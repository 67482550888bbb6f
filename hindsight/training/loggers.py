"""Weights & Biases and TensorBoard, by the names of metrics.jsonl."""

import sys
from collections.abc import Iterator
from heapq import merge
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from composer.core import State
from composer.loggers import Logger, LoggerDestination
from composer.utils import dist

from hindsight import runs
from hindsight.config.training import TrainConfig, WandbMode
from hindsight.errors import InputError
from hindsight.json_lines import read_records
from hindsight.shown_text import visible
from hindsight.training.wandb_files import logged_rows

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

SAMPLE_COLUMNS = ["step", "prompt", "text"]
"""Keys of a line of samples.jsonl."""
SAMPLE_WAY = "direction"
"""One more key with order=both: which of its directions a text was written in."""


def own_metrics(metrics: dict[str, Any]) -> dict[str, float]:
    """Keep train/... and eval/... of what Composer hands to loggers, and call its metrics/eval/... eval/... too."""
    named = {name.removeprefix("metrics/"): value for name, value in metrics.items()}
    return {name: float(value) for name, value in named.items() if name.startswith((runs.TRAIN, runs.EVAL))}


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
        tables = ((step, [*rows]) for step, rows in samples)
        for step, values in merge(metrics, tables, key=lambda of_step: of_step[0]):
            if isinstance(values, dict):
                self._log(values, step)
            else:
                columns = [*SAMPLE_COLUMNS, *([SAMPLE_WAY] if SAMPLE_WAY in values[0] else [])]
                self.log_table(columns, [[line.get(key) for key in columns] for line in values], "samples", step)
        now = int(state.timestamp.batch)
        self.logged = {step: names for step, names in self.logged.items() if step >= now}

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


def _lines_of(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a file that has been gone through at a resume."""
    return read_records(path) if path.exists() else iter(())
