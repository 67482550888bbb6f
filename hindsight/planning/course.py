"""The course of a run, before it begins: steps, tokens, epochs, and how often something happens on the way."""

from dataclasses import dataclass

from hindsight.config.training import TrainConfig
from hindsight.durations import parse_duration, steps_in
from hindsight.loading.windows import SplitWindows

TOKENS_PER_PARAMETER = 20
"""Tokens for each parameter with which a given number of FLOPs reaches the lowest loss: arXiv:2203.15556, table 3, of
all parameters, embeddings included, for 0.07 to 16 billion of them and tokens that are seen once."""


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

    def times(self, interval: str, step: int | None = None) -> int:
        """How often something has happened after so many steps (None: all), if it does at an interval such as 100ba."""
        step = self.steps if step is None else step
        number, unit = parse_duration(interval)
        if unit == "ba":
            return step // number
        if unit == "ep":
            return step // self.epoch_steps // number
        return min(self.tokens_until(step) // number, step)


def evaluated_tokens(config: TrainConfig, course: Course, val: SplitWindows, n_readings: int) -> int:
    """Tokens of all evaluations of a run: one at each interval, and one at the end.

    Args:
        config: the run.
        course: how long it is.
        val: the windows of validation.
        n_readings: ways in which each window is read; 2 with order=both.
    """
    number, unit = parse_duration(config.eval_interval)
    at_end = unit != "ba" or course.steps % number != 0
    tokens = val.n_tokens
    if config.eval_batches is not None:
        tokens = min(tokens, config.eval_batches * val.batch_tokens)
    return n_readings * tokens * (course.times(config.eval_interval) + at_end)
