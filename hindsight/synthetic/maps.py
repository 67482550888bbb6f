"""Words and what they are mapped to: a one-to-one code, and a map of many to one."""

import math

import numpy as np
from numpy.typing import NDArray

from hindsight.synthetic.language import (
    FIRST_LETTER,
    Language,
    Role,
    digits_of,
    involution,
    language_generator,
    of_samples,
    side_by_side,
)


def code_of(symbols: int, letters: int, seed: int) -> NDArray[np.int64]:
    """Draw a one-to-one code of all words: the number of y for each x, as numbers in base `symbols`.

    y is the mirror image of x in a drawn pairing of all words, m(reverse of x) with m(m(w)) = w. Then x is m(reverse of
    y) spelt backward: read from its end, x>y is a text of the very same code.
    """
    words = np.arange(symbols**letters)
    spelt = words[:, None] // symbols ** np.arange(letters) % symbols  # last letter first
    reverse = spelt @ symbols ** np.arange(letters - 1, -1, -1)
    return involution(len(words), language_generator(seed))[reverse]


def code(samples: int, symbols: int, letters: int, seed: int) -> Language:
    """Texts x>y with y the code of x."""
    code_W = code_of(symbols, letters, seed)
    words = len(code_W)

    def draw(shape: tuple[int, int], generator: np.random.Generator) -> NDArray[np.uint8]:
        x = generator.integers(0, words, shape)
        spelt = [digits_of(word, letters, symbols, FIRST_LETTER) for word in (x, code_W[x])]
        return side_by_side(spelt[0], ">", spelt[1])

    return of_samples(
        samples,
        2 * letters + 1,
        math.log(words),
        words,
        draw,
        nats_std=0.0,
        layout=f"x>y, words of {letters} letters from a to {chr(FIRST_LETTER + symbols - 1)}",
        derivation=(
            f"x is one of {symbols}**{letters} = {words} words, all equally likely, and y follows from it, as x "
            f"follows from y: H = ln {words} = {math.log(words):.9g} a sample. A text read from its end has "
            "the same law."
        ),
        role=Role.null,
        is_calibration=True,
    )


def many_to_one_of(values: int, multiplicity: int, seed: int) -> NDArray[np.int64]:
    """Draw the y of each x, so that each y has `multiplicity` x."""
    return language_generator(seed).permutation(values) // multiplicity


def many_to_one(samples: int, values: int, multiplicity: int, seed: int) -> Language:
    """Texts x>y, y=f(x), where f takes every value for `multiplicity` x."""
    map_X = many_to_one_of(values, multiplicity, seed)
    images = values // multiplicity
    widths = len(str(values - 1)), len(str(images - 1))

    def draw(shape: tuple[int, int], generator: np.random.Generator) -> NDArray[np.uint8]:
        x = generator.integers(0, values, shape)
        return side_by_side(digits_of(x, widths[0]), ">", digits_of(map_X[x], widths[1]))

    return of_samples(
        samples,
        sum(widths) + 1,
        math.log(values),
        values,
        draw,
        nats_std=0.0,
        layout=f"x>y, numbers of {widths[0]} and {widths[1]} digits",
        derivation=(
            f"x is one of {values} numbers, all equally likely, and y = f(x) follows from it: H = ln {values} = "
            f"{math.log(values):.9g} a sample. From its end: y is one of {images} numbers, all equally likely, and x "
            f"one of the {multiplicity} that f maps to it, ln {images} + ln {multiplicity}, the same."
        ),
        role=Role.positive,
    )
