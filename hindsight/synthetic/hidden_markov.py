"""A small hidden Markov model: symbols that a state emits, which itself is a Markov chain.

Shapes: S states, V symbols, N texts. The entropy of a text has no closed form. It is summed over all texts up to a
length; beyond, the entropy of each further symbol lies between two bounds that approach each other exponentially fast
(Cover and Thomas, Elements of Information Theory, theorem 4.5.1).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hindsight.errors import InputError
from hindsight.synthetic.chains import stationary
from hindsight.synthetic.language import (
    Language,
    Role,
    choose,
    document_generator,
    drawn_rows,
    entropy,
    language_generator,
    of_source,
)

MAX_TEXTS = 1 << 18
"""Texts over which the entropy is summed, at most."""
MAX_ERROR = 1e-3
"""Share of the entropy by which it may be wrong."""
DRAWN = 4096
"""Texts from which the standard deviation is estimated, to about 1%."""


class Bounds(NamedTuple):
    """Entropy of a text in nats, and the most that it may be wrong by."""

    nats: float
    error: float
    summed: int
    """Symbols up to which it is exact."""
    rate: float
    """Entropy of each symbol behind them."""


@dataclass(frozen=True)
class HiddenChain:
    """A stationary hidden Markov model.

    Args:
        moves: probability of each state behind each.
        emits: probability of each symbol in each state.
        start: stationary probability of each state.
    """

    moves: NDArray[np.float64]
    emits: NDArray[np.float64]
    start: NDArray[np.float64]

    @property
    def symbols(self) -> int:
        """Number of different symbols."""
        return self.emits.shape[1]

    def extended(self, texts_NS: NDArray[np.float64]) -> NDArray[np.float64]:
        """Extend all texts by every symbol: (N, S) -> (N * V, S), with the probability of text and state behind it."""
        emitted = np.einsum("ns,sv,st->nvt", texts_NS, self.emits, self.moves)
        return emitted.reshape(-1, texts_NS.shape[1])

    def bounds(self, length: int, max_texts: int = MAX_TEXTS) -> Bounds:
        """Entropy of a text of `length` symbols, summed over so many texts at most."""
        summed = 2
        while summed < length and self.symbols ** (summed + 1) <= max_texts:
            summed += 1
        states = len(self.start)
        # by their first state, whose probability is included
        texts = [start * row[None] for start, row in zip(self.start, np.eye(states), strict=True)]
        nats, given = [0.0], [0.0]
        for _ in range(summed):
            texts = [self.extended(each) for each in texts]
            nats.append(float(entropy(np.sum(texts, axis=0).sum(1))))
            # of text and first state together; the difference of two is that given the first state
            given.append(float(sum(entropy(each.sum(1)) for each in texts)))
        upper, lower = nats[-1] - nats[-2], given[-1] - given[-2]
        rest = length - summed
        return Bounds(nats[-1] + rest * (upper + lower) / 2, rest * (upper - lower) / 2, summed, (upper + lower) / 2)

    def twin_probability(self, length: int) -> float:
        """Probability that two texts of `length` symbols are the same."""
        pairs = np.outer(self.start, self.start)
        same = self.emits @ self.emits.T
        for _ in range(length):
            pairs = self.moves.T @ (pairs * same) @ self.moves
        return float(pairs.sum())

    def nats_std(self, length: int) -> float:
        """Standard deviation of -ln p of a text of `length` symbols: of DRAWN texts, by the forward algorithm."""
        drawn = self.draw(DRAWN, length, document_generator(0))
        states_NS = np.tile(self.start, (DRAWN, 1))
        nats_N = np.zeros(DRAWN)
        for place in range(length):
            emitted_NS = states_NS * self.emits[:, drawn[:, place]].T
            sums_N = emitted_NS.sum(1)
            nats_N -= np.log(sums_N)
            states_NS = emitted_NS / sums_N[:, None] @ self.moves
        return float(nats_N.std(ddof=1))

    def draw(self, documents: int, length: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """Draw texts, (documents, length) symbols."""
        moves, emits = np.cumsum(self.moves, 1), np.cumsum(self.emits, 1)
        states = choose(np.broadcast_to(np.cumsum(self.start), (documents, len(self.start))), generator)
        drawn = np.empty((documents, length), np.int64)
        for place in range(length):
            drawn[:, place] = choose(emits[states], generator)
            states = choose(moves[states], generator)
        return drawn


def hidden_chain(symbols: int, states: int, seed: int) -> HiddenChain:
    """Draw a model whose states mostly stay, and differ in what they emit."""
    generator = language_generator(seed)
    moves = 0.3 * drawn_rows((states, states), generator) + 0.7 * np.eye(states)
    return HiddenChain(moves, drawn_rows((states, symbols), generator), stationary(moves))


def hidden_markov(length: int, symbols: int, states: int, seed: int) -> Language:
    """Texts of a hidden Markov model."""
    chain = hidden_chain(symbols, states, seed)
    bounds = chain.bounds(length)
    if bounds.error > MAX_ERROR * bounds.nats:
        raise InputError(
            f"symbols={symbols}, states={states} and seed={seed} make a language whose entropy is known to "
            f"{bounds.error / bounds.nats:.1%} only; choose fewer symbols or states, or another seed."
        )
    rest = length - bounds.summed
    derivation = (
        f"A stationary hidden Markov model of {states} states. The entropy of its first {bounds.summed} symbols is "
        f"summed over all {symbols}**{bounds.summed} texts"
    )
    if rest:
        derivation += (
            f"; that of each of the {rest} behind them is {bounds.rate:.9g} nats, between H(X_n | X_1..X_n-1) and the "
            f"same given the first state, at n = {bounds.summed}, so that H is wrong by at most {bounds.error:.2g} nats"
        )
    return of_source(
        chain,
        length,
        nats=bounds.nats,
        derivation=f"{derivation}.",
        # Two states are visited in the same way in both directions of time, as by any chain of two.
        role=Role.null if states == 2 else Role.calibration,
        nats_error=bounds.error,
    )
