"""How far the runs of a study are: a bar in a terminal, lines in a log."""

import logging
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from hindsight.studies.known_runs import DONE, RunState

log = logging.getLogger("hindsight")

LINE_INTERVAL_S = 60.0
"""Least seconds between two lines."""


class Progress:
    """Shows how many tokens of all that is missing are trained.

    Args:
        states: how far the runs are that are trained or evaluated.
    """

    def __init__(self, states: Sequence[RunState]) -> None:
        self.total = sum(_left(state) for state in states)
        self.n_runs, self.n_done, self.tokens = len(states), 0, 0
        self.has_bar = sys.stderr.isatty() and sys.stdout.isatty()
        self.began_s = time.monotonic()
        self.next_s = self.began_s + LINE_INTERVAL_S
        self.cleanup = ExitStack()

    def __enter__(self) -> "Progress":
        is_shown = self.has_bar and self.n_runs > 0
        self.bar: tqdm[Any] = tqdm(total=self.total, unit="tok", unit_scale=True, disable=not is_shown)
        self.cleanup.callback(self.bar.close)
        if is_shown:
            self.cleanup.enter_context(logging_redirect_tqdm())
        return self

    def __exit__(self, *_: object) -> None:
        self.cleanup.close()

    @property
    def is_due(self) -> bool:
        """Whether something is shown by the next `show`."""
        return self.has_bar or time.monotonic() >= self.next_s

    def trained(self, state: RunState) -> None:
        """Count a run that is trained, and was so far before."""
        self.tokens += _left(state)

    def done(self, state: RunState) -> None:
        """Count a run that has ended, however."""
        self.n_done += 1

    def show(self, n_running: int, tokens_of_running: int) -> None:
        """Show how far all are.

        Args:
            n_running: runs that are trained or evaluated now.
            tokens_of_running: tokens that they have made since this start.
        """
        if not self.is_due:
            return
        made = self.tokens + tokens_of_running
        self.bar.set_description(f"{self.n_done} of {self.n_runs} runs done, {n_running} running", refresh=False)
        self.bar.n = min(made, self.total)
        self.bar.refresh()
        if not self.has_bar and self.total and made:
            self.next_s = time.monotonic() + LINE_INTERVAL_S
            left = (self.total - made) * (time.monotonic() - self.began_s) / made
            log.info(
                "%d of %d runs done, %d running: %.0f%% of the tokens, about %s left.",
                *(self.n_done, self.n_runs, n_running, 100 * made / self.total, tqdm.format_interval(left)),
            )


def _left(state: RunState) -> int:
    return 0 if state.state == DONE else max(state.setup.course.tokens - state.tokens, 0)
