"""Random segments of 1 to 25 tokens in reverse, each in reading order inside. Source: arXiv:2403.13799.

The segments of a window depend on the seed and the window's tokens alone, so that they are the same in every epoch and
in every evaluation. The end of a document ends a segment. Shapes as in `units`.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hindsight.orders.units import TokenTexts, UnitOrder

LONGEST = 25
"""Tokens in a segment at most, as published."""


class Segments(UnitOrder):
    """Random segments in reverse.

    Args:
        name: the value of order= that means it.
        texts: the tokenizer.
        seed: seed of the segments.
    """

    def __init__(self, name: str, texts: TokenTexts, seed: int) -> None:
        super().__init__(name, texts)
        self.seed_1 = np.array([seed], np.uint64)

    def begins(self, window_BT: NDArray[np.int64], is_edge_N: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Tell at which tokens a segment begins, (N,), is_edge_N included."""
        B, T = window_BT.shape
        hash_B = mixed((window_BT.astype(np.uint64) * weights(T)).sum(axis=1) + mixed(self.seed_1))
        n_segments = T // 8 + 8  # 13 tokens long in the mean
        while (starts := self._starts(hash_B, min(n_segments, T)))[:, -1].min() < T:
            n_segments *= 2
        begins_BT = np.zeros((B, T + 1), np.bool_)
        np.put_along_axis(begins_BT, np.minimum(starts, T), True, axis=1)
        return begins_BT[:, :T].ravel() | is_edge_N

    def _starts(self, hash_B: NDArray[np.uint64], n_segments: int) -> NDArray[np.int64]:
        lengths = mixed(hash_B[:, None] + np.arange(n_segments, dtype=np.uint64)) % np.uint64(LONGEST) + np.uint64(1)
        return np.cumsum(lengths.astype(np.int64), axis=1)

    def reading_order(self, written_n: NDArray[np.int64]) -> NDArray[np.int64]:
        """Leave the tokens that a model wrote as they are: where its segments begin, nothing in them says."""
        return np.arange(len(written_n))


@lru_cache(1)
def weights(length: int) -> NDArray[np.uint64]:
    """Factors of the tokens in the hash of a window."""
    return mixed(np.arange(1, length + 1, dtype=np.uint64))


def mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash numbers, by the generator splitmix64 (Steele, Lea, Flood, 2014; https://doi.org/10.1145/2660193.2660195)."""
    numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
