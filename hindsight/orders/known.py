"""All orders by the name that order= gives them."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hindsight.config.order import split_order
from hindsight.orders import blocks, direction, halves, middle, parity, quarters, shuffled
from hindsight.orders.order import FixedOrder, Order

FORMULAS: dict[str, tuple[Callable[[int], NDArray[np.int64]], int]] = {
    "forward": (direction.forward, 1),
    "backward": (direction.backward, 1),
    "even_odd": (parity.even_odd, 1),
    "odd_even": (parity.odd_even, 1),
    "middle_out": (middle.middle_out, 1),
    "end_in": (middle.end_in, 1),
    "half_back_forward": (halves.half_back_forward, 2),
    "half_forward_back": (halves.half_forward_back, 2),
    "quarter_middle_out_interleave": (quarters.quarter_middle_out_interleave, 4),
    "quarter_middle_out_concat": (quarters.quarter_middle_out_concat, 4),
    "quarter_end_in_interleave": (quarters.quarter_end_in_interleave, 4),
    "quarter_end_in_concat": (quarters.quarter_end_in_concat, 4),
}
"""Orders without a number: their formula, and what the length of a window must be a multiple of."""
NUMBERED: dict[str, tuple[Callable[[int, int], NDArray[np.int64]], int]] = {
    "random_chunk": (shuffled.random_chunk, shuffled.CHUNK),
    "uniform_random": (shuffled.uniform_random, 1),
    "blocks": (blocks.blocks, 1),
}
"""Orders with a number, which their formula takes behind the length."""


def open_order(name: str, context_length: int) -> Order:
    """Make an order for windows of `context_length` tokens; InputError if there is none, or it does not fit them."""
    kind, number = split_order(name)
    if number is None:
        formula, multiple = FORMULAS[kind]
        return FixedOrder(name, formula, context_length, multiple)
    numbered, multiple = NUMBERED[kind]
    return FixedOrder(name, lambda length: numbered(length, number), context_length, multiple)
