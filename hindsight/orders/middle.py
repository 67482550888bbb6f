"""From the middle outwards, or from both ends inwards. Source: the published code of arXiv:2401.17505, by its names."""

import numpy as np
from numpy.typing import NDArray


def middle_out(length: int) -> NDArray[np.int64]:
    """The middle m = length // 2, then m - 1, m + 1, m - 2, m + 2, ..."""
    steps = np.arange(length)
    return length // 2 + (-1) ** steps * ((steps + 1) // 2)


def end_in(length: int) -> NDArray[np.int64]:
    """First, last, second, last but one, ..."""
    steps = np.arange(length)
    return np.where(steps % 2 == 0, steps // 2, length - 1 - steps // 2)
