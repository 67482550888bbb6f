"""Products of two primes: p*q=pq, with p < q. Easy to multiply; to factorize, hard."""

import math

import numpy as np
from numpy.typing import NDArray

from hindsight.synthetic.language import Language, Role, digits_of, of_samples, side_by_side


def primes_below(limit: int) -> NDArray[np.int64]:
    """All primes below a number, by the sieve of Eratosthenes."""
    is_prime = np.ones(limit, bool)
    is_prime[:2] = False
    for number in range(2, math.isqrt(limit) + 1):
        if is_prime[number]:
            is_prime[number * number :: number] = False
    return np.flatnonzero(is_prime)


def primes(digits: int, reversed_digits: bool, samples: int, seed: int) -> Language:
    """Texts p*q=pq of all pairs p < q of primes below 10**digits, equally likely.

    Args:
        digits: digits of p and q; the product has twice as many.
        reversed_digits: whether each number is written with its last digit first.
        samples: samples in a document.
        seed: unused: there is nothing to draw in the language itself.
    """
    known = primes_below(10**digits)
    pairs = math.comb(len(known), 2)
    widths = digits, digits, 2 * digits

    def draw(shape: tuple[int, int], generator: np.random.Generator) -> NDArray[np.uint8]:
        first, second = generator.integers(0, len(known), shape), generator.integers(0, len(known) - 1, shape)
        second += second >= first  # another one than the first, all equally likely
        p, q = known[np.minimum(first, second)], known[np.maximum(first, second)]
        step = -1 if reversed_digits else 1
        written = [digits_of(number, width)[..., ::step] for number, width in zip((p, q, p * q), widths, strict=True)]
        return side_by_side(written[0], "*", written[1], "=", written[2])

    return of_samples(
        samples,
        sum(widths) + 2,
        math.log(pairs),
        pairs,
        draw,
        nats_std=0.0,
        layout=f"p*q=pq, numbers of {digits}, {digits} and {2 * digits} digits{', last digit first' * reversed_digits}",
        derivation=(
            f"The {len(known)} primes below 10**{digits} make {pairs} pairs p < q, all equally likely; the product "
            f"follows from them, and they from it, as no number has two factorizations: H = ln {pairs} = "
            f"{math.log(pairs):.9g} a sample."
        ),
        role=Role.positive,
    )
