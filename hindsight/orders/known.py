"""All orders by the name that order= gives them."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hindsight.config.order import BOTH, split_order
from hindsight.orders import blocks, direction, halves, middle, parity, quarters, shuffled
from hindsight.orders.both import Both, SpecialTokens
from hindsight.orders.order import FixedOrder, Order
from hindsight.orders.segments import Segments
from hindsight.orders.units import TokenTexts
from hindsight.orders.words import Sentences, Words

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


UNITS: dict[str, Callable[[str, TokenTexts], Order]] = {"words": Words, "sentences": Sentences}
"""Orders of units of text."""
SEGMENTS = "segments"
"""The order of random segments, which has a number and needs the tokenizer."""


class OrderTokenizer(TokenTexts, SpecialTokens, Protocol):
    """What orders ask of a tokenizer."""


def open_order(name: str, context_length: int, texts: OrderTokenizer | None = None) -> Order:
    """Make an order for windows of `context_length` tokens; InputError if there is none, or it does not fit them.

    Args:
        name: the value of order= that means it.
        context_length: tokens in a full window.
        texts: the tokenizer; only orders of units of text, and `both`, need it.
    """
    kind, number = split_order(name)
    if number is None and kind in FORMULAS:
        formula, multiple = FORMULAS[kind]
        return FixedOrder(name, formula, context_length, multiple)
    if number is not None and kind in NUMBERED:
        numbered, multiple = NUMBERED[kind]
        return FixedOrder(name, lambda length: numbered(length, number), context_length, multiple)
    assert texts is not None, f"order={name} depends on the tokens"
    if kind == BOTH:
        return Both(texts, context_length)
    return Segments(name, texts, number) if number is not None else UNITS[kind](name, texts)
