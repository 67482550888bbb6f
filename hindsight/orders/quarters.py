"""Each half of a window in an order of `middle`, one after the other or in turns.

Source: the published code of arXiv:2401.17505, by its names; windows have a multiple of 4 tokens.
"""

import numpy as np
from numpy.typing import NDArray

from hindsight.orders.middle import end_in, middle_out


def quarter_middle_out_interleave(length: int) -> NDArray[np.int64]:
    """Each half from its middle outwards, a token of the first, one of the second, and so on."""
    return _in_turns(middle_out(length // 2))


def quarter_middle_out_concat(length: int) -> NDArray[np.int64]:
    """Each half from its middle outwards, the first half first."""
    return _one_by_one(middle_out(length // 2))


def quarter_end_in_interleave(length: int) -> NDArray[np.int64]:
    """Each half from its ends inwards, a token of the first, one of the second, and so on."""
    return _in_turns(end_in(length // 2))


def quarter_end_in_concat(length: int) -> NDArray[np.int64]:
    """Each half from its ends inwards, the first half first."""
    return _one_by_one(end_in(length // 2))


def _in_turns(half: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.stack([half, half + len(half)], axis=1).ravel()


def _one_by_one(half: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([half, half + len(half)])
