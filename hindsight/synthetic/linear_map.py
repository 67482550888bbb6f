"""Linear maps over F2: x|y with y = A x, of which every bit may be flipped.

A row of A has few ones, so that a bit of y is the sum of few bits of x; the inverse of A has many. Forward, each bit
of y is easy; backward, the bits of x that a model meets first are sums of many bits of y.
"""

import math

import numpy as np
from numpy.typing import NDArray

from hindsight.synthetic.language import (
    FIRST_DIGIT,
    Language,
    Role,
    entropy,
    involution,
    language_generator,
    of_samples,
    side_by_side,
)

LN2 = math.log(2)


def sparse_matrix(bits: int, nonzeros: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Draw an invertible matrix over F2 with so many ones a row.

    With one in each row it is a permutation for which x|y has the same law when it is reversed. Rows of an even
    number of ones all map the vector of ones to 0: one of them, drawn, has one less.

    Returns:
        (bits, bits), each 0 or 1.
    """
    if nonzeros == 1:
        return np.eye(bits, dtype=np.uint8)[involution(bits, generator)[::-1]]
    shorter = int(generator.integers(bits)) if nonzeros % 2 == 0 else None
    rows: list[NDArray[np.uint8]] = []
    # Any independent rows can be completed: rows of this kind span all vectors. The shorter one is first, because the
    # others, of an even number, span only those of an even sum.
    reduced: dict[int, int] = {}
    while len(rows) < bits:
        ones = nonzeros - 1 if shorter is not None and not rows else nonzeros
        places = generator.choice(bits, ones, replace=False)
        if _adds(reduced, sum(1 << int(place) for place in places)):
            rows.append(np.bincount(places, minlength=bits).astype(np.uint8))
    if shorter is not None:
        rows.insert(shorter, rows.pop(0))
    return np.stack(rows)


def _adds(reduced: dict[int, int], row: int) -> bool:
    """Add a row, as a number, to an echelon form; False if it is a sum of earlier ones."""
    while row:
        lead = row.bit_length()
        if lead not in reduced:
            reduced[lead] = row
            return True
        row ^= reduced[lead]
    return False


def inverse(matrix: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Invert a matrix over F2 by elimination."""
    size = len(matrix)
    work = np.concatenate([matrix, np.eye(size, dtype=np.uint8)], 1)
    for column in range(size):
        pivot = column + int(np.argmax(work[column:, column]))
        assert work[pivot, column], "the matrix is invertible"
        work[[column, pivot]] = work[[pivot, column]]
        others = np.flatnonzero(work[:, column])
        work[others[others != column]] ^= work[column]
    return work[:, size:]


def linear_map(bits: int, nonzeros: int, flips: float, samples: int, seed: int) -> Language:
    """Texts x|y, y = A x over F2 with flips."""
    matrix = sparse_matrix(bits, nonzeros, language_generator(seed))

    def draw(shape: tuple[int, int], generator: np.random.Generator) -> NDArray[np.uint8]:
        x = generator.integers(0, 2, (*shape, bits), np.uint8)
        flipped = generator.random((*shape, bits)) < flips if flips else np.zeros((*shape, bits), bool)
        y = (x @ matrix.T) % 2 ^ flipped
        digits = [(each + FIRST_DIGIT).astype(np.uint8) for each in (x, y)]
        return side_by_side(digits[0], "|", digits[1])

    noise = abs(float(entropy(np.array([flips, 1 - flips]))))  # no -0
    same_noise = flips**2 + (1 - flips) ** 2
    about = (
        f"y = A x over F2, A of {bits} x {bits}, invertible, {nonzeros} ones a row (of its inverse "
        f"{inverse(matrix).sum(1).mean():.3g} on average). x is uniform, {bits} ln 2; given x, y has the entropy of "
        f"its flips, {bits} h({flips:g}) with h(p) = -p ln p - (1-p) ln(1-p), {noise:.9g} nats. "
        f"H = {bits} * ({LN2:.9g} + {noise:.9g}) a sample. The separator is certain."
    )
    return of_samples(
        samples,
        2 * bits + 1,
        bits * (LN2 + noise),
        2 ** (bits if flips == 0 else 2 * bits),
        draw,
        twin_probability=(same_noise / 2) ** bits,
        nats_std=math.sqrt(bits * flips * (1 - flips)) * math.log((1 - flips) / flips) if flips else 0.0,
        layout=f"x|y, {bits} bits each",
        derivation=about,
        role=Role.null if nonzeros == 1 else Role.positive,
    )
