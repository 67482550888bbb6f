"""How far an evaluation is: a bar in a terminal, lines in a log."""

import logging
import sys
import time
from typing import Any

from tqdm import tqdm

from hindsight.evaluation.losses_in_work import Work

log = logging.getLogger("hindsight")

LINE_INTERVAL_S = 30.0
"""Least seconds between two lines."""


class Progress:
    """Shows how many tokens of a process's share are scored.

    Args:
        work: what is scored.
        parts: the parts of this process.
        n_ranks: processes that share the work.
        is_shown: whether this process shows its own.
    """

    def __init__(self, work: Work, parts: list[int], n_ranks: int, is_shown: bool) -> None:
        self.total = sum(work.plan.n_scored(work.batches(part)) for part in parts)
        self.share = f"scoring, 1 of {n_ranks} processes" if n_ranks > 1 else "scoring"
        self.is_shown, self.done = is_shown, 0
        self.has_bar = is_shown and sys.stderr.isatty() and sys.stdout.isatty()
        self.began_s = time.monotonic()
        self.next_line_s = self.began_s + LINE_INTERVAL_S

    def __enter__(self) -> "Progress":
        self.bar: tqdm[Any] = tqdm(
            total=self.total, desc=self.share, unit="tok", unit_scale=True, disable=not self.has_bar
        )
        return self

    def add(self, n_tokens: int) -> None:
        """Count tokens that were scored."""
        self.done += n_tokens
        self.bar.update(n_tokens)
        now = time.monotonic()
        if self.is_shown and not self.has_bar and now >= self.next_line_s:
            self.next_line_s = now + LINE_INTERVAL_S
            rate = self.done / (now - self.began_s)
            left = tqdm.format_interval((self.total - self.done) / rate)
            log.info(
                "%s: %.0f%% · %s tok/s · %s left",
                self.share,
                100 * self.done / self.total,
                tqdm.format_sizeof(rate),
                left,
            )

    def __exit__(self, *_: object) -> None:
        self.bar.close()
