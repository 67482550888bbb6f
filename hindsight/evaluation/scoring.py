"""Which windows are scored, and what of each window counts; and the rows of a batch.

Shapes: B windows, T tokens.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hindsight.errors import InputError
from hindsight.evaluation.token_stream import TokenStream
from hindsight.orders.documents import places_within
from hindsight.orders.examples import IGNORED, permutations, turn_back
from hindsight.orders.order import Order

Batch = dict[str, Tensor]
Score = Callable[[Batch], tuple[Tensor, Tensor]]
"""Batch -> nats (B, T) float32 and ranks (B, T) int64 of its targets, on the CPU."""
ROWS = {"id": np.int32, "window_place": np.int32, "context": np.int32, "nats": np.float32, "rank": np.int32}
"""What is kept of each scored token until all are scored; the rest follows from the ids of the tokens before."""


class Window(NamedTuple):
    """Tokens that the model reads, and which of them are scored: places in the stream."""

    start: int
    stop: int
    first: int
    last: int


@dataclass(frozen=True)
class Plan:
    """The windows of an evaluation, in the order in which they are scored: each token of the stream in one of them.

    Args:
        n_tokens: length of the stream.
        context_length: tokens in a window (T).
        stride: None for windows side by side, as a run evaluates; else windows begin so many tokens apart, from the end
            at which the model begins, and all but the first score their last `stride` tokens, in the model's order.
        is_backward: whether the model begins at the end of the stream.
        batch_size: windows that are taken at once (B).
    """

    n_tokens: int
    context_length: int
    stride: int | None
    is_backward: bool
    batch_size: int

    @classmethod
    def of(cls, n_tokens: int, context_length: int, stride: int | None, order: str, batch_size: int) -> "Plan":
        """Make a plan; InputError if windows cannot slide so."""
        if stride is not None and order not in ("forward", "backward"):
            raise InputError(
                f"context=sliding:{stride} has no meaning for order={order}, in which a text is not read from one end "
                "to the other; use context=windows."
            )
        if stride is not None and stride > context_length:
            raise InputError(
                f"context=sliding:{stride} would leave out tokens between windows of {context_length} tokens, those of "
                "the run; give at most that."
            )
        return cls(n_tokens, context_length, stride, stride is not None and order == "backward", batch_size)

    @cached_property
    def n_windows(self) -> int:
        """How many windows there are."""
        return 1 + max(0, -(-(self.n_tokens - self.context_length) // (self.stride or self.context_length)))

    @cached_property
    def n_batches(self) -> int:
        """How many batches there are."""
        return -(-self.n_windows // self.batch_size)

    def window(self, number: int) -> Window:
        """Give a window by its number."""
        stride = self.stride or self.context_length
        start = number * stride
        stop = min(start + self.context_length, self.n_tokens)
        first = start + self.context_length - stride if number else 0
        if self.is_backward:
            return Window(self.n_tokens - stop, self.n_tokens - start, self.n_tokens - stop, self.n_tokens - first)
        return Window(start, stop, first, stop)

    def batch(self, number: int) -> list[Window]:
        """Give the windows of a batch, which are the same whatever else is scored beside it."""
        first = number * self.batch_size
        return [self.window(each) for each in range(first, min(first + self.batch_size, self.n_windows))]

    def n_scored(self, batches: range) -> int:
        """Count the tokens that are scored in batches that follow each other."""
        ends = self.batch(batches[0])[0], self.batch(batches[-1])[-1]
        return max(window.last for window in ends) - min(window.first for window in ends)


@dataclass(frozen=True)
class Pass:
    """One reading of all windows by the model.

    Args:
        name: what tells it from the others of a run; "" where there are none.
        order: the order in which the model reads a window.
        collate: windows -> batch, as in training.
    """

    name: str
    order: Order
    collate: Callable[[list[dict[str, Any]]], Batch]


def score_batches(
    plan: Plan, batches: range, reading: Pass, stream: TokenStream, score: Score
) -> Iterator[dict[str, NDArray[Any]]]:
    """Score batches; yield the ROWS of each, in the order of the stream."""
    for number in batches:
        windows = plan.batch(number)
        rows = score_windows(plan.context_length, windows, reading, stream, score)
        rows = rows[::-1] if plan.is_backward else rows
        yield {name: np.concatenate([each[name] for each in rows]) for name in ROWS}


def score_windows(
    T: int, windows: list[Window], reading: Pass, stream: TokenStream, score: Score
) -> list[dict[str, NDArray[Any]]]:
    """Score windows; the ROWS of each, in reading order."""
    tokens = [stream.read(window.start, window.stop) for window in windows]
    window_BT = np.full((len(windows), T), IGNORED, np.int64)
    for row_T, each in zip(window_BT, tokens, strict=True):
        row_T[: len(each)] = each
    batch = reading.collate([{"tokens": each} for each in tokens])
    positions_BT = permutations(torch.from_numpy(window_BT), reading.order)
    assert np.array_equal(turn_back(batch["targets"], positions_BT), window_BT)
    nats_BT, ranks_BT = score(batch)
    values = {"nats": nats_BT, "rank": ranks_BT, "context": context_of(batch)}
    in_reading_order = {name: turn_back(values_BT, positions_BT).numpy() for name, values_BT in values.items()}
    in_reading_order |= {"id": window_BT, "window_place": np.broadcast_to(np.arange(T), window_BT.shape)}
    return [
        {
            name: in_reading_order[name][number, window.first - window.start : window.last - window.start].astype(kind)
            for name, kind in ROWS.items()
        }
        for number, window in enumerate(windows)
    ]


def context_of(batch: Batch) -> Tensor:
    """Count, for each target, the tokens of context that the model has, BOS not counted; (B, T) int64."""
    targets_BT = batch["targets"]
    if "documents" in batch:
        return places_within(batch["documents"])
    return torch.arange(targets_BT.shape[1]).expand_as(targets_BT)
