"""Blocks of K tokens, the last block first, each in reading order inside: between forward (K = T) and backward (1)."""

import numpy as np
from numpy.typing import NDArray


def blocks(length: int, size: int) -> NDArray[np.int64]:
    """Positions of blocks of `size` tokens from the start of the window on, in reverse; the last may be shorter."""
    starts = range(0, length, size)
    return np.concatenate([np.arange(start, min(start + size, length)) for start in reversed(starts)])
