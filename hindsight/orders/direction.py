"""Forward and backward: the first token first, or the last. arXiv:2401.17505, section 2."""

import numpy as np
from numpy.typing import NDArray


def forward(length: int) -> NDArray[np.int64]:
    """0, 1, 2, ... (arange)."""
    return np.arange(length)


def backward(length: int) -> NDArray[np.int64]:
    """..., 2, 1, 0."""
    return np.arange(length)[::-1].copy()
