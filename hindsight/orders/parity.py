"""Every second token first. Source: the published code of arXiv:2401.17505, by its names."""

import numpy as np
from numpy.typing import NDArray


def even_odd(length: int) -> NDArray[np.int64]:
    """0, 2, 4, ..., 1, 3, 5, ..."""
    return np.concatenate([np.arange(0, length, 2), np.arange(1, length, 2)])


def odd_even(length: int) -> NDArray[np.int64]:
    """1, 3, 5, ..., 0, 2, 4, ..."""
    return np.concatenate([np.arange(1, length, 2), np.arange(0, length, 2)])
