"""Markov chains of order 1 to 3, and reversible ones.

Shapes: C contexts (the last symbols, as a number in base V), V symbols. A document is a piece of the stationary chain:
its first symbols have the stationary law, so that its entropy is exact at every length.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hindsight.synthetic.language import Language, Role, choose, drawn_rows, entropy, language_generator, of_source


@dataclass(frozen=True)
class Chain:
    """A stationary Markov chain.

    Args:
        next: probability of each symbol behind each context.
        start: stationary probability of each context.
        order: symbols of a context.
    """

    next: NDArray[np.float64]
    start: NDArray[np.float64]
    order: int

    @property
    def symbols(self) -> int:
        """Number of different symbols."""
        return self.next.shape[1]

    @property
    def followed(self) -> NDArray[np.int64]:
        """The context that each context becomes with each symbol."""
        return followed_contexts(*self.next.shape)

    @property
    def rate(self) -> float:
        """Entropy of a symbol behind its context, in nats."""
        return float(self.start @ entropy(self.next, 1))

    def nats(self, length: int) -> float:
        """Entropy of `length` symbols: that of the first context, and the rate for each symbol behind it."""
        return float(entropy(self.start)) + (length - self.order) * self.rate

    def twin_probability(self, length: int) -> float:
        """Probability that two texts of `length` symbols are the same."""
        together_C, squared_CV = self.start**2, self.next**2
        for _ in range(length - self.order):
            weights = (together_C[:, None] * squared_CV).ravel()
            together_C = np.bincount(self.followed.ravel(), weights, len(together_C))
        return float(together_C.sum())

    def nats_std(self, length: int) -> float:
        """Standard deviation of -ln p of a text of `length` symbols.

        By the moments of -ln p of what is behind each context, from the last symbol to the first.
        """
        nats_CV = -np.log(self.next)
        mean_C = square_C = np.zeros(len(self.start))
        for _ in range(length - self.order):
            mean_CV, square_CV = mean_C[self.followed], square_C[self.followed]
            mean_C = (self.next * (nats_CV + mean_CV)).sum(1)
            square_C = (self.next * (nats_CV**2 + 2 * nats_CV * mean_CV + square_CV)).sum(1)
        first_C = -np.log(self.start)
        mean = float(self.start @ (first_C + mean_C))
        square = float(self.start @ (first_C**2 + 2 * first_C * mean_C + square_C))
        return math.sqrt(max(square - mean**2, 0.0))

    def draw(self, documents: int, length: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """Draw texts, (documents, length) symbols."""
        start = np.broadcast_to(np.cumsum(self.start), (documents, len(self.start)))
        contexts = choose(start, generator)
        drawn = np.empty((documents, length), np.int64)
        for place in range(self.order):
            drawn[:, place] = contexts // self.symbols ** (self.order - 1 - place) % self.symbols
        cumulative_CV, followed_CV = np.cumsum(self.next, 1), self.followed
        for place in range(self.order, length):
            drawn[:, place] = choose(cumulative_CV[contexts], generator)
            contexts = followed_CV[contexts, drawn[:, place]]
        return drawn


def followed_contexts(contexts: int, symbols: int) -> NDArray[np.int64]:
    """Tell the context that each becomes with each symbol, (C, V)."""
    return (np.arange(contexts)[:, None] * symbols + np.arange(symbols)) % contexts


def stationary(transitions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve for the law that one step of an irreducible chain leaves as it is, (C, C) -> (C,)."""
    contexts = len(transitions)
    equations = transitions.T - np.eye(contexts)
    equations[-1] = 1.0  # one of the equations follows from the others; the probabilities sum to 1
    solved = np.linalg.solve(equations, np.eye(contexts)[-1])
    return np.maximum(solved, 0) / np.maximum(solved, 0).sum()


def markov_chain(symbols: int, order: int, seed: int) -> Chain:
    """Draw a chain; it is reversible only if it has two symbols and order 1 or 2."""
    next_CV = drawn_rows((symbols**order, symbols), language_generator(seed))
    transitions = np.zeros((len(next_CV), len(next_CV)))
    np.put_along_axis(transitions, followed_contexts(*next_CV.shape), next_CV, 1)
    return Chain(next_CV, stationary(transitions), order)


def reversible_chain(symbols: int, seed: int) -> Chain:
    """Draw a chain of order 1 with start[a] next[a, b] = start[b] next[b, a], from symmetric weights of its pairs."""
    generator = language_generator(seed)
    weights = np.triu(generator.gamma(0.3, size=(symbols, symbols)))
    weights = weights + np.triu(weights, 1).T
    weights = weights / weights.sum() + 0.05 / symbols**2  # no pair is impossible
    weights /= weights.sum()
    sums = weights.sum(1)
    return Chain(weights / sums[:, None], sums, 1)


def _language(chain: Chain, length: int, role: Role, about: str) -> Language:
    first = float(entropy(chain.start))
    order, rest = chain.order, length - chain.order
    beginning = "first symbol has" if order == 1 else f"first {order} symbols have"
    return of_source(
        chain,
        length,
        nats=chain.nats(length),
        derivation=(
            f"{about} Its {beginning} the stationary law of contexts, of entropy {first:.9g} nats; "
            f"each of the {rest} behind them has the entropy rate, the mean over contexts of the entropy of the next "
            f"symbol, {chain.rate:.9g} nats. H = {first:.9g} + {rest} * {chain.rate:.9g}."
        ),
        role=role,
    )


def markov(length: int, symbols: int, markov_order: int, seed: int) -> Language:
    """Texts of a Markov chain."""
    chain = markov_chain(symbols, markov_order, seed)
    # Any stationary law of two symbols gives a text of up to three and its reverse the same probability.
    role = Role.null if symbols == 2 and markov_order <= 2 else Role.calibration
    return _language(chain, length, role, f"A stationary Markov chain of order {markov_order}.")


def reversible_markov(length: int, symbols: int, seed: int) -> Language:
    """Texts of a reversible Markov chain, which have the same law when they are reversed."""
    about = (
        "A stationary Markov chain with p(a) p(b|a) = p(b) p(a|b), which holds because both are the weight of the pair "
        "{a, b}: a text and its reverse are equally likely."
    )
    return _language(reversible_chain(symbols, seed), length, Role.null, about)
