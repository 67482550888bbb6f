"""The two halves of a window, one of them backward. Source: the published code of arXiv:2401.17505, by its names."""

import numpy as np
from numpy.typing import NDArray


def half_back_forward(length: int) -> NDArray[np.int64]:
    """The first half backward, then the second forward: away from the middle, to one side and then to the other."""
    middle = length // 2
    return np.concatenate([np.arange(middle)[::-1], np.arange(middle, length)])


def half_forward_back(length: int) -> NDArray[np.int64]:
    """The first half forward, then the second backward: to the middle, from one side and then from the other."""
    middle = length // 2
    return np.concatenate([np.arange(middle), np.arange(middle, length)[::-1]])
