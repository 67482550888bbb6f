"""Sums of losses by bins of tokens, for two orders and every seed; each cut of them sums to the whole.

Shapes: O = 2 orders (the reference, and the one that is compared with it), S seeds, K bins.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Sums:
    """Counts and sums of losses by bin; it grows with the largest bin that is met."""

    def __init__(self, n_seeds: int, n_bins: int = 0) -> None:
        self.n_OSK = np.zeros((2, n_seeds, n_bins), np.int64)
        self.nats_OSK = np.zeros((2, n_seeds, n_bins))

    def add(self, order: int, seed: int, bins: Array, nats: Array) -> None:
        """Add tokens of one run: the bin and the loss of each."""
        n_K = np.bincount(bins)
        if len(n_K) > self.n_bins:
            # Doubled, so that bins that come one by one are not copied each time.
            more = ((0, 0), (0, 0), (0, max(len(n_K) - self.n_bins, self.n_bins)))
            self.n_OSK, self.nats_OSK = np.pad(self.n_OSK, more), np.pad(self.nats_OSK, more)
        self.n_OSK[order, seed, : len(n_K)] += n_K
        self.nats_OSK[order, seed, : len(n_K)] += np.bincount(bins, weights=nats)

    def grouped(self, group_of_bin: Callable[[Array], Array]) -> "Sums":
        """Sum bins into larger ones.

        Args:
            group_of_bin: maps the numbers of bins, 0 to K - 1, to those of groups.
        """
        bins = np.arange(self.n_OSK.shape[2])
        groups = np.asarray(group_of_bin(bins), np.int64)
        result = Sums(self.n_OSK.shape[1], int(groups.max(initial=-1)) + 1)
        np.add.at(result.n_OSK.T, groups, self.n_OSK.T)
        np.add.at(result.nats_OSK.T, groups, self.nats_OSK.T)
        return result.trimmed()

    def select(self, bins: Array) -> "Sums":
        """Keep some bins, in an order of their own."""
        result = Sums(self.n_OSK.shape[1])
        result.n_OSK, result.nats_OSK = self.n_OSK[:, :, bins], self.nats_OSK[:, :, bins]
        return result

    def trimmed(self) -> "Sums":
        """Drop the empty bins at the end."""
        return self.select(np.arange(int(np.flatnonzero(self.n_OSK.any((0, 1))).max(initial=-1)) + 1))

    @property
    def n_bins(self) -> int:
        """Bins, empty ones counted."""
        return self.n_OSK.shape[2]

    @property
    def counts(self) -> Array:
        """Tokens of each bin, the mean of both orders: these differ only where a bin depends on the order."""
        return self.n_OSK.mean((0, 1))

    @property
    def gap_sums(self) -> Array:
        """Summed losses of the order minus those of the reference, the mean over seeds."""
        return (self.nats_OSK[1] - self.nats_OSK[0]).mean(0)

    def rows(self, labels: Sequence[str], n_tokens: int) -> list[dict[str, Any]]:
        """Describe each bin that holds tokens.

        Args:
            labels: names of the bins, or of the first of them.
            n_tokens: tokens of the whole, by which contributions are divided: theirs sum to the gap of the whole.
        """
        return [self._row(k, label, n_tokens) for k, label in enumerate(labels) if self.n_OSK[:, :, k].any()]

    def _row(self, k: int, label: str, n_tokens: int) -> dict[str, Any]:
        n_OS, nats_OS = self.n_OSK[:, :, k], self.nats_OSK[:, :, k]
        reference, order = (_mean(nats_OS[o].sum(), n_OS[o].sum()) for o in (0, 1))
        is_in_both = bool(n_OS.all())
        gaps_S = nats_OS[1] / n_OS[1] - nats_OS[0] / n_OS[0] if is_in_both else None
        return {
            "label": label,
            "n_tokens": int(n_OS[0, 0]),
            "n_tokens_order": int(n_OS[1, 0]),
            "reference_sum_nats": float(nats_OS[0].mean()),
            "order_sum_nats": float(nats_OS[1].mean()),
            "reference_nats": reference,
            "order_nats": order,
            "gap_nats": float(gaps_S.mean()) if gaps_S is not None else None,
            "gap_std_nats": float(gaps_S.std(ddof=1)) if gaps_S is not None and len(gaps_S) > 1 else None,
            "contribution_nats": float((nats_OS[1] - nats_OS[0]).mean() / n_tokens),
        }


def _mean(total: float, n: int) -> float | None:
    return float(total / n) if n else None


def power_of_two(values: Array) -> Array:
    """Bin 0 for 0, 1 for 1, 2 for 2 and 3, 3 for 4 to 7, and so on."""
    # frexp is exact, where log2 of a power of two may not be.
    return np.frexp(np.asarray(values, np.float64))[1]


def power_of_two_labels(n_bins: int) -> list[str]:
    """Names of the bins of `power_of_two`."""
    bounds = [(0 if k == 0 else 1 << (k - 1), max((1 << k) - 1, 0)) for k in range(n_bins)]
    return [f"{low:,}" if low == high else f"{low:,} to {high:,}" for low, high in bounds]
