"""What a run says while it trains: one progress bar in a terminal, or plain lines in a log.

People see the output of rank 0. Lines of progress go through the logger "hindsight.progress", which is silent while a
bar shows the same.
"""

import logging
import shutil
import sys
import time
from contextlib import ExitStack
from typing import Any

from composer.core import State
from composer.loggers import Logger, LoggerDestination
from composer.utils import dist
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from hindsight import runs
from hindsight.shown_numbers import short
from hindsight.training.speed import Speed

progress_log = logging.getLogger("hindsight.progress")

LINE_INTERVAL_S = 10.0
"""Least seconds between two lines about training steps; evaluations, checkpoints and resumes each have their own."""
BAR_FORMAT = "{bar} {desc}"
"""The bar takes the columns that the text leaves."""
BAR_COLUMNS = 80
"""Widest bar, so that it fits the usual terminal."""


class Console(LoggerDestination):
    """Show how far a run is: a bar where standard output and error are a terminal, plain lines otherwise.

    Args:
        total_steps: optimizer steps in the run.
        with_bar: whether to show a bar in a terminal.
    """

    def __init__(self, total_steps: int, with_bar: bool) -> None:
        self.total_steps = total_steps
        self.with_bar = with_bar and sys.stderr.isatty() and sys.stdout.isatty()
        self.speed = Speed()
        self.losses: dict[str, float] = {}
        self.bar: tqdm[Any] | None = None
        self.cleanup = ExitStack()
        self.next_line_s = 0.0
        self.is_new = False
        self.eval_batches = 0

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Take the losses that were just logged."""
        if runs.TRAIN_LOSS in metrics:
            self.losses["loss"] = float(metrics[runs.TRAIN_LOSS])
            self.is_new = True

    def fit_start(self, state: State, logger: Logger) -> None:
        """Open the bar, which takes the place of the lines of progress."""
        if dist.get_global_rank() == 0 and self.with_bar and self.bar is None:
            self.speed.start(state)
            columns = min(BAR_COLUMNS, shutil.get_terminal_size().columns)
            self.bar = tqdm(total=self.total_steps, ncols=columns, bar_format=BAR_FORMAT, miniters=0)
            self._show(int(state.timestamp.batch), self._place(int(state.timestamp.batch)))
            self.cleanup.enter_context(logging_redirect_tqdm())
            progress_log.setLevel(logging.WARNING)
            self.cleanup.callback(progress_log.setLevel, logging.NOTSET)

    def before_train_batch(self, state: State, logger: Logger) -> None:
        """Begin to take the speed."""
        self.speed.start(state)

    def batch_end(self, state: State, logger: Logger) -> None:
        """Show the loss and the speed of the step that was just made."""
        self.speed.mark(state)
        step = int(state.timestamp.batch)
        if self.bar is not None:
            self._show(step, self._line(step))
        elif self.is_new and time.monotonic() >= self.next_line_s:
            self.next_line_s = time.monotonic() + LINE_INTERVAL_S
            self._say(self._line(step))
        self.is_new = False

    def eval_start(self, state: State, logger: Logger) -> None:
        """Begin to count the batches of an evaluation."""
        self.eval_batches = 0

    def eval_batch_end(self, state: State, logger: Logger) -> None:
        """Show how far an evaluation is."""
        self.eval_batches += 1
        total = f"/{int(state.dataloader_len)}" if state.dataloader_len is not None else ""
        step = int(state.timestamp.batch)
        text = f"{self._place(step)} · evaluating, batch {self.eval_batches}{total}"
        if self.bar is not None:
            self._show(step, text)
        elif time.monotonic() >= self.next_line_s:
            self.next_line_s = time.monotonic() + LINE_INTERVAL_S
            self._say(text)

    def eval_end(self, state: State, logger: Logger) -> None:
        """Say the losses of an evaluation."""
        metrics = {name: float(metric.compute()) for name, metric in state.eval_metrics["eval"].items()}
        self.losses["eval"] = metrics["loss_nats"]
        step = int(state.timestamp.batch)
        if self.bar is not None:
            self._show(step, self._line(step))
            self.bar.refresh()
        self._say(
            f"{self._place(step)} · eval {metrics['loss_nats']:.4f} nats/token · {metrics['bits_per_byte']:.4f} "
            f"bits/byte · perplexity {metrics['perplexity']:.2f} · accuracy {metrics['accuracy']:.2%}"
        )

    def close(self, state: State, logger: Logger) -> None:
        """Leave the bar as it is, and let lines through again."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
        self.cleanup.close()

    def _show(self, step: int, text: str) -> None:
        """Update the bar, which tqdm redraws at most ten times a second."""
        assert self.bar is not None
        self.bar.set_description_str(text, refresh=False)
        self.bar.update(step - self.bar.n)

    def _place(self, step: int) -> str:
        return f"step {step}/{self.total_steps}"

    def _line(self, step: int) -> str:
        """Such as step 120/400 · loss 4.51 · eval 4.60 · 5.2k tok/s · 01:12 left."""
        losses = [f"{name} {loss:.2f}" for name, loss in self.losses.items()]
        left = tqdm.format_interval(self.speed.seconds_for(max(self.total_steps - step, 0)))
        return " · ".join([self._place(step), *losses, f"{short(self.speed.tokens_per_second)} tok/s", f"{left} left"])

    def _say(self, line: str) -> None:
        if dist.get_global_rank() == 0:
            progress_log.info("%s", line)
