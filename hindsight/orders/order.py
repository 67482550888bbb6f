"""An order: which position of a window the model reads first, second, and so on.

An order is a function from the tokens of a window to a permutation of their positions. Everything else follows from the
permutation: what the model sees, the way back, and the token to which a loss belongs. Nothing here imports torch.

Shapes: T tokens of a full window, n tokens of a window, which is shorter at the end of a split.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hindsight.errors import InputError


class Order(ABC):
    """The order in which a model reads windows.

    Args:
        name: the value of order= that means it.
    """

    readings: tuple["Reading", ...] = ()
    """The ways in which one model reads every window, in turns; none for an order that is read in this one way."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def n_readings(self) -> int:
        """How often a model reads every window: once, or in each of its readings."""
        return max(len(self.readings), 1)

    @abstractmethod
    def permutation(self, window_T: NDArray[np.int64]) -> NDArray[np.int64]:
        """Give the positions of a window's n tokens in the order in which the model reads them, (n,) int64."""

    def permutations(self, window_BT: NDArray[np.int64], lengths_B: NDArray[np.int64]) -> NDArray[np.int64]:
        """Give `permutation` of each window, (B, T) int64; what is behind its tokens, in number lengths_B, stays."""
        positions_BT = np.repeat(arange(window_BT.shape[1])[None], len(window_BT), axis=0)
        for positions_T, window_T, length in zip(positions_BT, window_BT, lengths_B.tolist(), strict=True):
            positions_T[:length] = self.permutation(window_T[:length])
        return positions_BT


@dataclass(frozen=True)
class Reading:
    """One of the ways in which a model reads windows.

    Args:
        order: its order.
        start_id: id that begins its inputs.
    """

    order: Order
    start_id: int


def readings_of(order: Order, bos_id: int) -> dict[str, Reading]:
    """Give the readings of an order by their names; the only one of most orders begins with BOS, and its name is ""."""
    return {each.order.name: each for each in order.readings} or {"": Reading(order, bos_id)}


class FixedOrder(Order):
    """An order of positions, whatever the tokens are.

    A shorter window has the order of a full one, without the positions that it lacks.

    Args:
        name: the value of order= that means it.
        formula: T -> (T,) positions in the order in which they are read.
        context_length: T.
        multiple: what T must be a multiple of.

    Raises:
        InputError: windows of T tokens cannot be read in this order.
    """

    def __init__(
        self, name: str, formula: Callable[[int], NDArray[np.int64]], context_length: int, multiple: int = 1
    ) -> None:
        super().__init__(name)
        if context_length % multiple:
            raise InputError(
                f"order={name} needs windows of a multiple of {multiple} tokens, not of {context_length}; choose "
                "another order, or another context_length."
            )
        self.positions_T = formula(context_length)

    def permutation(self, window_T: NDArray[np.int64]) -> NDArray[np.int64]:
        """Give the positions of a window's n tokens in the order in which the model reads them, (n,) int64."""
        return self.restricted(len(window_T))

    def restricted(self, n_tokens: int) -> NDArray[np.int64]:
        """Give the order of a window of n tokens, (n,) int64."""
        is_full = n_tokens == len(self.positions_T)
        return self.positions_T if is_full else self.positions_T[self.positions_T < n_tokens]


def arange(length: int) -> NDArray[np.int64]:
    """0, 1, 2, ... as int64."""
    return np.arange(length, dtype=np.int64)
