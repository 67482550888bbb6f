"""The course of a run, before it begins: steps, tokens, epochs, and how often something happens on the way."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hindsight.durations import parse_duration, steps_in
from hindsight.loading.windows import SplitWindows


@dataclass(frozen=True)
class Course:
    """How long a run is.

    Args:
        steps: optimizer steps.
        epoch_steps: those of an epoch.
        epoch_tokens: tokens of an epoch.
        batch_tokens: tokens of a full batch.
    """

    steps: int
    epoch_steps: int
    epoch_tokens: int
    batch_tokens: int

    @classmethod
    def of(cls, max_duration: str, train: SplitWindows) -> "Course":
        """Give the course of a run on these windows."""
        sizes = train.n_batches, train.epoch_tokens, train.batch_tokens
        return cls(steps_in(max_duration, *sizes), *sizes)

    @classmethod
    def ahead(cls, max_duration: str, batch_tokens: int) -> "Course | None":
        """Give the course of a run on data that is not known yet, as if an epoch had no end; None for a run of epochs.

        Args:
            max_duration: such as 1000ba.
            batch_tokens: tokens of a full batch.
        """
        number, unit = parse_duration(max_duration)
        if unit == "ep":
            return None
        steps = number if unit == "ba" else -(-number // batch_tokens)
        return cls(steps, steps + 1, (steps + 1) * batch_tokens, batch_tokens)

    @property
    def tokens(self) -> int:
        """Tokens that are trained on."""
        return self.tokens_until(self.steps)

    @property
    def epochs(self) -> float:
        """Epochs, the last one in part."""
        return self.tokens / self.epoch_tokens

    def tokens_until(self, step: int) -> int:
        """Tokens of the first steps; the last batch of an epoch has those that are left."""
        epochs, rest = divmod(step, self.epoch_steps)
        return epochs * self.epoch_tokens + min(rest * self.batch_tokens, self.epoch_tokens)

    def steps_at(self, *intervals: str, with_last: bool = False, after: int = 0) -> set[int]:
        """Steps behind which something happens that does so at any of these intervals, once a step.

        Args:
            intervals: such as 100ba, 1ep or 1_000_000tok.
            with_last: whether it happens at the end of the run, too, as an evaluation does.
            after: steps that are made already, and left out.
        """
        found = {step for interval in intervals for step in self._steps_of(interval)}
        found |= {self.steps} if with_last else set()
        return {step for step in found if step > after}

    def _steps_of(self, interval: str) -> Iterable[int]:
        number, unit = parse_duration(interval)
        if unit == "tok":
            return self._steps_reaching(number)
        steps = number if unit == "ba" else number * self.epoch_steps
        return range(steps, self.steps + 1, steps)

    def _steps_reaching(self, tokens: int) -> Iterator[int]:
        """Steps at which a multiple of so many tokens is reached; one step may reach several."""
        step = 0
        sizes = self.epoch_steps, self.epoch_tokens, self.batch_tokens
        while True:
            reached = self.tokens_until(step) // tokens
            step = steps_in(f"{(reached + 1) * tokens}tok", *sizes)
            if step > self.steps:
                return
            yield step
