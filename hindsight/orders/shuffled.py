"""A random order that is the same for all windows of a run.

Source: the published code of arXiv:2401.17505, by its names, and with its generator: an equal seed gives its order.
"""

import random

import numpy as np
from numpy.typing import NDArray

CHUNK = 8
"""Tokens in a chunk of `random_chunk`, as published."""


def uniform_random(length: int, seed: int) -> NDArray[np.int64]:
    """All positions in a random order."""
    return _sample(length, seed)


def random_chunk(length: int, seed: int) -> NDArray[np.int64]:
    """Chunks of 8 tokens in a random order, each in reading order inside; windows have a multiple of 8 tokens."""
    return (_sample(length // CHUNK, seed)[:, None] * CHUNK + np.arange(CHUNK)).ravel()


def _sample(size: int, seed: int) -> NDArray[np.int64]:
    return np.array(random.Random(seed).sample(range(size), size), np.int64)  # noqa: S311 - no secret
