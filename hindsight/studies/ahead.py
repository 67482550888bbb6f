"""What is known of a run whose data is not made yet, by its settings alone: how long it is, and what cannot be."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hindsight.config.order import order_of, split_order
from hindsight.config.tokenizer import BYTES
from hindsight.config.training import TrainConfig
from hindsight.loading.windows import require_windows
from hindsight.orders.known import FORMULAS, NUMBERED, open_order
from hindsight.studies.composed import composed
from hindsight.studies.made_data import Dataset
from hindsight.studies.planned_runs import PlannedRun
from hindsight.tokenization.bpe_training import N_BYTES, SPECIAL_TOKENS
from hindsight.training.course import Course
from hindsight.training.setup import check_context, context_length_of


@dataclass(frozen=True)
class Ahead:
    """A run that is not checked against its data, which is not there.

    Args:
        config: its settings.
        folder: its folder.
        vocab_size: number of token ids that are asked of its tokenizer.
        course: how long it is, where every batch is full.
    """

    config: TrainConfig
    folder: Path
    vocab_size: int
    course: Course

    @property
    def total_steps(self) -> int:
        """Optimizer steps in the run."""
        return self.course.steps


def ahead_of(run: PlannedRun) -> Ahead | None:
    """Say what a run is going to be; None where it is as long as its data, in epochs.

    Args:
        run: the run; its data is not made yet.
    """
    course = Course.ahead(run.config.max_duration, run.config.batch_size * context_length_of(run.config))
    if course is None:
        return None
    vocab_size = _settings_of(run.dataset, "train_tokenizer").vocab_size
    n_ids = N_BYTES + len(SPECIAL_TOKENS) if vocab_size == BYTES else int(vocab_size)
    return Ahead(run.config, run.folder, n_ids, course)


def check_ahead(run: PlannedRun) -> None:
    """Check the settings of a run against each other and those by which its data is going to be made.

    Args:
        run: the run; its data is not made yet.

    Raises:
        InputError: they do not fit, whatever the text is.
    """
    check_context(run.config)
    context_length = context_length_of(run.config)
    block_length = _settings_of(run.dataset, "convert_to_mds").block_length
    require_windows(context_length, run.config.data.stride, block_length, run.dataset.folder)
    if split_order(order_of(run.config))[0] in {*FORMULAS, *NUMBERED}:  # others ask a tokenizer
        open_order(order_of(run.config), context_length)


def _settings_of(dataset: Dataset, script: str) -> Any:
    """Settings of the command that makes a part of a dataset; check_steps of making.py says if they cannot be."""
    step = next(step for step in dataset.steps if step.command.script == script)
    return composed(script, step.command.arguments, script)
