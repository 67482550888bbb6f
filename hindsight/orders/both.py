"""order=both: one model reads every window in each direction; an id in the place of BOS says which.

The tokenizers of train_tokenizer.py have special tokens for it. For another tokenizer the model has two ids more,
behind its own; they are inputs and never targets.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hindsight.orders import direction
from hindsight.orders.order import FixedOrder, Order, Reading

NAMES = {"forward": "<|forward|>", "backward": "<|backward|>"}
"""The special tokens that begin the inputs of each direction."""


class SpecialTokens(Protocol):
    """What this asks of a tokenizer."""

    vocab_size: int

    def special_id(self, name: str) -> int | None:
        """Give the id of a special token; None if there is none."""
        ...


class Both(Order):
    """Forward and backward, each a reading of its own.

    Args:
        tokens: the tokenizer.
        context_length: tokens in a full window.
    """

    def __init__(self, tokens: SpecialTokens, context_length: int) -> None:
        super().__init__("both")
        ids = [tokens.special_id(name) for name in NAMES.values()]
        starts = [token_id for token_id in ids if token_id is not None]
        if len(starts) < len(NAMES):
            starts = [tokens.vocab_size, tokens.vocab_size + 1]
        formulas = {"forward": direction.forward, "backward": direction.backward}
        self.readings = tuple(
            Reading(FixedOrder(name, formulas[name], context_length), start)
            for name, start in zip(NAMES, starts, strict=True)
        )

    def permutation(self, window_T: NDArray[np.int64]) -> NDArray[np.int64]:
        """Have none: each of the `readings` has one."""
        raise AssertionError("order=both has an order for each of its readings")


def vocab_size_for(order: Order, vocab_size: int) -> int:
    """Number of ids of a model that reads in an order, by a tokenizer with so many ids."""
    return max([vocab_size, *(reading.start_id + 1 for reading in order.readings)])
