"""Random segments of 1 to 25 tokens in reverse, each in reading order inside. Source: arXiv:2403.13799.

The segments of a window depend on the seed and the window's tokens alone, so that they are the same in every epoch and
in every evaluation. The end of a document ends a segment. Shapes: B windows, T tokens.
"""

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

    def begins(self, window_BT: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell at which tokens a segment begins, (B, T), but for special tokens and the first of a document."""
        B, T = window_BT.shape
        places_T = np.arange(1, T + 1, dtype=np.uint64)
        hash_B = mixed((window_BT.astype(np.uint64) * mixed(places_T)).sum(axis=1) + mixed(self.seed_1))
        lengths_BT = mixed(hash_B[:, None] + places_T) % np.uint64(LONGEST) + np.uint64(1)
        starts_BT = np.cumsum(lengths_BT.astype(np.int64), axis=1)
        begins_BT = np.zeros((B, T + 1), np.bool_)
        np.put_along_axis(begins_BT, np.minimum(starts_BT, T), True, axis=1)
        return begins_BT[:, :T]

    def reading_order(self, written_n: NDArray[np.int64]) -> NDArray[np.int64]:
        """Leave the tokens that a model wrote as they are: where its segments begin, nothing in them says."""
        return np.arange(len(written_n))


def mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash numbers, by the generator splitmix64 (Steele, Lea, Flood, 2014; https://doi.org/10.1145/2660193.2660195)."""
    numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
