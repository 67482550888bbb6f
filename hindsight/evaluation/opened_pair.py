"""A run whose model judges texts, or a forward and a backward run whose models judge the same texts together."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn

from hindsight.config.generation import GenerateConfig, Mode
from hindsight.config.order import BOTH
from hindsight.errors import InputError
from hindsight.evaluation.opened_run import OpenedRun, opened_run
from hindsight.evaluation.trained_run import read_run
from hindsight.generation.judges import Judge, Judges
from hindsight.generation.scores import readers_of

DIRECTIONS = ("forward", "backward")


@contextmanager
def opened_judges(
    run: OpenedRun, config: GenerateConfig, load_trained: Callable[[OpenedRun], nn.Module]
) -> Iterator[Judges]:
    """Build the models that judge texts: that of a run, and that of the run of the other direction.

    Args:
        run: the open one.
        config: other=, direction=, and what they are for.
        load_trained: builds the model of a run, with its weights.

    Raises:
        InputError: before any is built: the models do not do for what is asked.
    """
    _require_directions(run, config)
    with opened_with(run, config.other, config.checkpoint, config.tokenizer) as runs:
        judges = [
            Judge(reader, each.run.given, each.weights.step, each.weights.fingerprint)
            for each in runs
            for reader in readers_of(load_trained(each), each.order, run.tokenizer.bos_id, each.run.context_length)
            if config.direction in (None, reader.name)
        ]
        yield Judges(judges, run.tokenizer, run.text_order)


def _require_directions(run: OpenedRun, config: GenerateConfig) -> None:
    """Raise InputError for a choice where there is none, and where a second direction is missing."""
    if run.order.name == BOTH:
        return
    if config.direction is not None:
        raise InputError(f"direction={config.direction} is for a run of order=both; leave it out.")
    if config.mode is Mode.infill and config.other is None:
        raise InputError(
            f"{run.run.where} reads {run.order.name} only, and mode=infill needs both directions; give a run of "
            "the other one by other=, or a run of order=both."
        )


@contextmanager
def opened_with(
    first: OpenedRun, other: str | None, checkpoint: str, tokenizer: str | None
) -> Iterator[list[OpenedRun]]:
    """Open the run of the other direction beside one that is open.

    Args:
        first: the open one.
        other: folder of the second, or the address of its checkpoints on S3; None for none.
        checkpoint: newest, backup, or a step.
        tokenizer: folder of the tokenizer; None for where the second run found it.

    Yields:
        The first alone, or the forward run and the backward one.

    Raises:
        InputError: the other cannot be opened, or they are no pair.
    """
    if other is None:
        yield [first]
        return
    _require_direction(first)
    with opened_run(read_run(other, "other"), checkpoint, tokenizer) as second:
        _require_pair(first, second)
        yield sorted([first, second], key=lambda each: DIRECTIONS.index(each.order.name))


def _require_direction(run: OpenedRun) -> None:
    """Raise InputError unless a run is one of a pair."""
    where = run.run.where
    if run.order.name == BOTH:
        raise InputError(
            f"{where} has order=both, which is both directions in one model; give it as run=, without other=."
        )
    if run.order.name not in DIRECTIONS:
        raise InputError(
            f"{where} has order={run.order.name}; with other=, give a run with direction=forward and one with "
            "direction=backward."
        )


def _require_pair(first: OpenedRun, second: OpenedRun) -> None:
    """Raise InputError unless two runs read the same tokens from both ends."""
    run, other = first.run.where, second.run.where
    _require_direction(second)
    if first.order.name == second.order.name:
        needed = DIRECTIONS[1 - DIRECTIONS.index(first.order.name)]
        raise InputError(f"{other} is {second.order.name}, as {run} is; give a run with direction={needed}.")
    if first.tokenizer.fingerprint != second.tokenizer.fingerprint:
        raise InputError(
            f"{other} has another tokenizer than {run} (fingerprint {second.tokenizer.fingerprint[:12]}, not "
            f"{first.tokenizer.fingerprint[:12]}), so that their tokens do not compare; give a run on the same data."
        )
    if first.text_order is not second.text_order:
        raise InputError(
            f"{other} has text_order={second.text_order.value}, and {run} text_order={first.text_order.value}, so that "
            "their tokens do not compare; give a run on the same data."
        )
