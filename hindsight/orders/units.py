"""Orders of units of text: the last unit first, each unit in reading order inside.

A unit is made of whole tokens, and begins at a token whose text begins it. Special tokens, such as the end of a
document, are units of their own, so that no unit reaches across documents. Shapes: B windows, T tokens; N = B * T, the
tokens of all windows, one behind the other; V token ids.
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
        self.tokens = [texts.bytes_of(token) for token in range(texts.vocab_size)]
        self.is_special_V = np.array([not token for token in self.tokens])

    @abstractmethod
    def begins(self, window_BT: NDArray[np.int64], is_edge_N: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Tell at which tokens a unit begins.

        Args:
            window_BT: windows without padding.
            is_edge_N: which tokens begin a unit anyway: special ones, those behind them, and the first of a window.

        Returns:
            (N,), is_edge_N included.
        """

    def permutation(self, window_T: NDArray[np.int64]) -> NDArray[np.int64]:
        """Give the positions of a window's n tokens in the order in which the model reads them, (n,) int64."""
        return self._positions(window_T[None])[0]

    def permutations(self, window_BT: NDArray[np.int64], lengths_B: NDArray[np.int64]) -> NDArray[np.int64]:
        """Give `permutation` of each window, (B, T) int64; what is behind its tokens, in number lengths_B, stays."""
        if (lengths_B < window_BT.shape[1]).any():
            return super().permutations(window_BT, lengths_B)
        return self._positions(window_BT)

    def reading_order(self, written_n: NDArray[np.int64]) -> NDArray[np.int64]:
        """Give the positions, in reading order, of tokens that a model wrote one behind the other in this order."""
        return self.permutation(written_n)

    def _positions(self, window_BT: NDArray[np.int64]) -> NDArray[np.int64]:
        """Reverse the units of all windows at once: those of the last window come first then, and go back."""
        B, T = window_BT.shape
        if not window_BT.size:
            return np.empty((B, T), np.int64)
        is_edge_BT = self.is_special_V[window_BT]
        is_edge_BT[:, 1:] |= is_edge_BT[:, :-1].copy()
        is_edge_BT[:, 0] = True
        starts = np.flatnonzero(self.begins(window_BT, is_edge_BT.ravel()))
        sizes = np.diff(starts, append=B * T)
        shift = (starts + starts + sizes)[::-1] - B * T  # of a unit that ends at e: its start - (B * T - e)
        moved_BT = (arange(B * T) + np.repeat(shift, sizes[::-1])).reshape(B, T)[::-1]
        return moved_BT - T * arange(B)[:, None]
