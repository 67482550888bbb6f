"""Statistics of a corpus, counted during its conversion: lengths of documents, duplicates, use of the vocabulary."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hindsight.tokenization.tokenizer import Tokenizer

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
LISTED_TOKENS = 20
HASHES_AT_ONCE = 1 << 22
TOKENS_AT_ONCE = 1 << 18
"""So few that the 64-bit copies that `bincount` makes stay in the processor's cache."""


class LengthCounts:
    """Number of documents of each length, in tokens.

    Args:
        values: lengths, ascending.
        counts: number of documents of each length.
    """

    def __init__(self, values: NDArray[np.int64] | None = None, counts: NDArray[np.int64] | None = None) -> None:
        self.values = np.empty(0, np.int64) if values is None else values
        self.counts = np.empty(0, np.int64) if counts is None else counts

    def add(self, lengths: NDArray[np.int64]) -> None:
        """Count documents of these lengths."""
        values, counts = np.unique(lengths, return_counts=True)
        together, place = np.unique(np.concatenate([self.values, values]), return_inverse=True)
        sums = np.zeros(len(together), np.int64)
        np.add.at(sums, place, np.concatenate([self.counts, counts]))
        self.values, self.counts = together, sums

    def quantile(self, share: float) -> int:
        """Give the smallest length that at least this share of the documents does not exceed."""
        below = np.cumsum(self.counts)
        return int(self.values[min(np.searchsorted(below, share * below[-1]), len(self.values) - 1)])


def add_counts(counts: NDArray[np.int64], tokens: NDArray[np.integer]) -> None:
    """Add to (vocab_size,) counts how often each id occurs among tokens, (T,)."""
    for start in range(0, len(tokens), TOKENS_AT_ONCE):
        counts += np.bincount(tokens[start : start + TOKENS_AT_ONCE], minlength=len(counts))


def count_duplicates(path: Path) -> int:
    """Count the hashes in a file of 64-bit hashes that repeat an earlier one, some millions at a time."""
    if not path.is_file() or path.stat().st_size == 0:
        return 0
    hashes = np.memmap(path, "<u8", "r")
    n_groups = -(-len(hashes) // HASHES_AT_ONCE)
    distinct = 0
    for group in range(n_groups):
        chunks = (hashes[start : start + HASHES_AT_ONCE] for start in range(0, len(hashes), HASHES_AT_ONCE))
        distinct += len(np.unique(np.concatenate([chunk[chunk % n_groups == group] for chunk in chunks])))
    return len(hashes) - distinct


def vocabulary_use(counts: NDArray[np.int64], tokenizer: Tokenizer) -> dict[str, Any]:
    """Describe which tokens a corpus consists of.

    Args:
        counts: (vocab_size,) how often each id occurs.
        tokenizer: the tokenizer.

    Returns:
        most_frequent: the tokens that occur most, as [text, times]; longest: of those that occur, as [text, bytes];
        fragment_share: share of all tokens that are not complete UTF-8 characters; unused: ids that never occur.
    """
    total = max(int(counts.sum()), 1)
    frequent = np.argsort(-counts, kind="stable")[:LISTED_TOKENS]
    length = np.where(counts > 0, tokenizer.bytes_per_token, 0)
    longest = np.argsort(-length, kind="stable")[:LISTED_TOKENS]
    fragments = sum(int(counts[i]) for i in np.flatnonzero(counts) if tokenizer.is_fragment(int(i)))
    return {
        "most_frequent": [[tokenizer.name_of(int(i)), int(counts[i])] for i in frequent if counts[i]],
        "longest": [[tokenizer.name_of(int(i)), int(length[i])] for i in longest if length[i]],
        "fragment_share": fragments / total,
        "unused": int((counts == 0).sum()),
    }


def length_summary(lengths: LengthCounts) -> dict[str, int]:
    """Give quantiles of the documents' lengths by name, such as "50%"."""
    return {f"{share:.0%}": lengths.quantile(share) for share in QUANTILES} if len(lengths.values) else {}
