"""Orders of units of text: the last unit first, each unit in reading order inside.

A unit is made of whole tokens, and begins at a token whose text begins it. Special tokens, such as the end of a
document, are units of their own, so that no unit reaches across documents. Shapes: B windows, T tokens, V token ids.
"""

from abc import abstractmethod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hindsight.orders.order import Order, arange


class TokenTexts(Protocol):
    """What an order of units asks of a tokenizer."""

    vocab_size: int

    def bytes_of(self, token_id: int) -> bytes:
        """Give the bytes that an id stands for; b"" for special tokens."""
        ...


class UnitOrder(Order):
    """The units of a window in reverse; what they are, a subclass says.

    Args:
        name: the value of order= that means it.
        texts: the tokenizer.
    """

    def __init__(self, name: str, texts: TokenTexts) -> None:
        super().__init__(name)
        self.is_special_V = np.array([not texts.bytes_of(token) for token in range(texts.vocab_size)])

    @abstractmethod
    def begins(self, window_BT: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell at which tokens a unit begins, (B, T), but for special tokens and the first of a document."""

    def permutation(self, window_T: NDArray[np.int64]) -> NDArray[np.int64]:
        """Give the positions of a window's n tokens in the order in which the model reads them, (n,) int64."""
        return self.permutations(window_T[None], np.array([len(window_T)]))[0]

    def permutations(self, window_BT: NDArray[np.int64], lengths_B: NDArray[np.int64]) -> NDArray[np.int64]:
        """Give `permutation` of each window at once, (B, T); padding stays behind the tokens."""
        B, T = window_BT.shape
        places_T, lengths_B1 = arange(T), lengths_B[:, None]
        is_token_BT = places_T < lengths_B1
        ids_BT = np.where(is_token_BT, window_BT, 0)
        is_special_BT = self.is_special_V[ids_BT]
        begins_BT = self.begins(ids_BT) | is_special_BT
        begins_BT[:, 1:] |= is_special_BT[:, :-1]
        begins_BT[:, :1] = True
        starts_BT = np.maximum.accumulate(np.where(begins_BT, places_T, 0), axis=1)
        ends_BT = np.full((B, T), T)  # of the unit of each token
        ends_BT[:, :-1] = np.where(begins_BT[:, 1:], places_T[1:], T)
        ends_BT = np.minimum.accumulate(ends_BT[:, ::-1], axis=1)[:, ::-1]
        steps_BT = lengths_B1 - np.minimum(ends_BT, lengths_B1) + places_T - starts_BT
        positions_BT = np.empty((B, T), np.int64)
        np.put_along_axis(positions_BT, np.where(is_token_BT, steps_BT, places_T), places_T[None], axis=1)
        return positions_BT

    def reading_order(self, written_n: NDArray[np.int64]) -> NDArray[np.int64]:
        """Give the positions, in reading order, of tokens that a model wrote one behind the other in this order."""
        return self.permutation(written_n)
