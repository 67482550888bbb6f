"""Uncertainty over seeds and text together: a hierarchical bootstrap, what varies how much, and how often it covers.

Shapes: S seeds, N blocks of text in the order of the documents, D documents, B draws. A draw takes seeds with
replacement, documents with replacement, and in each of these blocks with replacement. Seeds were evaluated on the same
text, and what is drawn of it is the same for all seeds of a draw (Owen (2007), Ann. Appl. Stat. 1:386, on crossed
factors): with other documents for each seed, what is special about a document would seem to average out over seeds.

Sources: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13 (percentile intervals); Davison and
Hinkley, Bootstrap Methods (1997), section 3.8 (hierarchies); Searle, Casella and McCulloch, Variance Components (1992),
chapter 4 (random factors by the analysis of variance).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hindsight.analysis.inference import LEVEL, Floats, Interval

Ints = NDArray[np.int64]

DRAWS = 2000
MOST_BLOCKS = 4096
"""Most blocks that a draw is made of; of more, neighbours count as one."""
AT_ONCE = 1 << 22
"""Weights that are in memory at once, 32 MiB of them."""
SIMULATIONS = 2000
SIMULATED_DRAWS = 500
SIMULATED_DOCUMENTS = 30
"""Most documents of a simulation; where there are more, each varies by more, so that their mean varies as much."""
SIMULATED_BLOCKS = 2
"""Blocks of a simulated document."""
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)


@dataclass(frozen=True)
class Blocks:
    """The gap in every block of text, as sums: the gap of a text is the ratio of its sums.

    Args:
        document: number of the document of each block, ascending; (N,).
        tokens: scored tokens; (N,).
        gaps: for each seed, nats of the order minus those of the reference; (S, N).
    """

    document: Ints
    tokens: Floats
    gaps: Floats

    @property
    def starts(self) -> Ints:
        """First block of each document."""
        return np.flatnonzero(np.diff(self.document, prepend=-1))

    @property
    def n_effective_documents(self) -> float:
        """How many documents of one size would have the mean vary as much as these do (Kish, 1965, for weights)."""
        tokens_D = np.add.reduceat(self.tokens, self.starts)
        return float(tokens_D.sum() ** 2 / (tokens_D**2).sum())

    def merged(self, starts: Ints) -> "Blocks":
        """The same with the blocks from each start to the next as one, of the document of the first."""
        gap_SN = np.add.reduceat(self.gaps, starts, axis=1)
        return Blocks(self.document[starts], np.add.reduceat(self.tokens, starts), gap_SN)

    def coarse(self, most: int = MOST_BLOCKS) -> "Blocks":
        """The same in at most so many blocks: longer ones, or, of too many documents, neighbours as one."""
        n, starts_D = len(self.document), self.starts
        if n <= most:
            return self
        if len(starts_D) > most // 2:
            return self.merged(starts_D[:: math.ceil(len(starts_D) / most)])
        width = math.ceil(n / (most - len(starts_D)))
        within_N = np.arange(n) - np.repeat(starts_D, np.diff(starts_D, append=n))
        return self.merged(np.flatnonzero(within_N % width == 0))


@dataclass(frozen=True)
class Components:
    """Standard deviations of a document's gap, nats per token, by where they come from."""

    seed: float
    document: float
    residual: float
    """What a seed does to a document beyond both, and the text in it."""


def bootstrap_interval(blocks: Blocks, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Percentile interval of the gap in nats per token, over seeds and text."""
    rng = np.random.default_rng(seed)
    blocks = blocks.coarse()
    n, n_seeds = len(blocks.tokens), len(blocks.gaps)
    gaps: list[Floats] = []
    for start in range(0, draws, max(AT_ONCE // n, 1)):
        weights_BN = _block_weights(blocks.starts, n, min(AT_ONCE // n, draws - start), rng)
        gap_BS = (weights_BN @ blocks.gaps.T) / (weights_BN @ blocks.tokens)[:, None]
        gaps.append((gap_BS * _seed_weights(n_seeds, len(gap_BS), rng)).sum(axis=1))
    low, high = np.quantile(np.concatenate(gaps), TAILS)
    return float(low), float(high)


def components_of(blocks: Blocks) -> Components | None:
    """Split the variance of documents' gaps by seed, document and residual; None for one seed, or one document.

    The analysis of variance of two crossed random factors, with each document's squares weighted by its tokens, as in
    the gap: w_D are shares, and the mean squares have the expectations
        over seeds, of the weighted means          seed² + residual² sum(w²)
        over documents, of the means over seeds   (document² + residual²/S) (1 - sum(w²))
        of the interaction                         residual² (S - 1)/S (1 - sum(w²))
    For documents of one size these are the textbook's. A negative estimate of a variance counts as 0.
    """
    starts_D = blocks.starts
    n_seeds = len(blocks.gaps)
    if n_seeds < 2 or len(starts_D) < 2:
        return None
    tokens_D = np.add.reduceat(blocks.tokens, starts_D)
    gap_SD = np.add.reduceat(blocks.gaps, starts_D, axis=1) / tokens_D
    w_D = tokens_D / tokens_D.sum()
    squares, gap_S, gap_D = float((w_D**2).sum()), gap_SD @ w_D, gap_SD.mean(axis=0)
    interaction_SD = gap_SD - gap_S[:, None] - gap_D + gap_S.mean()
    residual = float((interaction_SD**2 @ w_D).sum()) / ((n_seeds - 1) * (1 - squares))
    document = float(w_D @ (gap_D - gap_S.mean()) ** 2) / (1 - squares) - residual / n_seeds
    seed = float(gap_S.var(ddof=1)) - residual * squares
    return Components(*(math.sqrt(max(variance, 0.0)) for variance in (seed, document, residual)))


def coverage_of(
    components: Components, n_seeds: int, n_documents: float, simulations: int = SIMULATIONS, seed: int = 0
) -> float:
    """Measure how often the bootstrap's interval contains the gap, where gaps vary by these components.

    Losses are normal; the gap that is to be covered is that over all seeds and documents.

    Args:
        components: standard deviations.
        n_seeds: seeds of a comparison.
        n_documents: documents, or effective documents where sizes differ.
        simulations: comparisons that are made up.
        seed: of the random numbers.
    """
    rng = np.random.default_rng(seed)
    n_simulated = int(np.clip(round(n_documents), 2, SIMULATED_DOCUMENTS))
    scale = math.sqrt(n_simulated / n_documents)
    starts_D = np.arange(n_simulated) * SIMULATED_BLOCKS
    n = n_simulated * SIMULATED_BLOCKS
    weights_BN = _block_weights(starts_D, n, SIMULATED_DRAWS, rng) / n
    weights_BS = _seed_weights(n_seeds, SIMULATED_DRAWS, rng)
    at_once = max(AT_ONCE // (SIMULATED_DRAWS * n_seeds), 1)
    n_covered = 0
    for start in range(0, simulations, at_once):
        n_now = min(at_once, simulations - start)
        gap_RSN = rng.normal(0, scale * components.residual * math.sqrt(SIMULATED_BLOCKS), (n_now, n_seeds, n))
        document_RD = rng.normal(0, scale * components.document, (n_now, 1, n_simulated))
        gap_RSN += np.repeat(document_RD, SIMULATED_BLOCKS, axis=2)
        gap_RSN += rng.normal(0, components.seed, (n_now, n_seeds, 1))
        gap_RB = ((gap_RSN @ weights_BN.T) * weights_BS.T).sum(axis=1)
        low_R, high_R = np.quantile(gap_RB, TAILS, axis=1)
        n_covered += int(((low_R <= 0) & (high_R >= 0)).sum())
    return n_covered / simulations


def _block_weights(starts_D: Ints, n: int, draws: int, rng: np.random.Generator) -> Floats:
    """How often each of n blocks is in each draw: documents with replacement, in each of them its number of blocks."""
    lengths_D = np.diff(starts_D, append=n)
    document_BD = rng.integers(len(starts_D), size=(draws, len(starts_D)))
    length_BD = lengths_D[document_BD]
    total_B = length_BD.sum(axis=1)
    length_M = np.repeat(length_BD.ravel(), length_BD.ravel())
    start_M = np.repeat(starts_D[document_BD].ravel(), length_BD.ravel())
    block_M = start_M + (rng.random(len(length_M)) * length_M).astype(np.int64)
    counts = np.bincount(np.repeat(np.arange(draws) * n, total_B) + block_M, minlength=draws * n)
    return counts.reshape(draws, n).astype(np.float64)


def _seed_weights(n_seeds: int, draws: int, rng: np.random.Generator) -> Floats:
    """Share of each seed in each draw."""
    return rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=draws) / n_seeds
