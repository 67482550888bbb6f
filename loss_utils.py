"""The loss, and the sums from which every metric is computed: nats, correct predictions, targets, bytes.

Shapes: N predictions, V token ids. A metric over a set is a quotient of two sums over all batches and ranks, divided
once at the end; it is never a mean of means.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from hindsight.orders.examples import IGNORED
from hindsight.runs import METRIC_NAMES

MOST_COMPARED = 1 << 24
"""Logits that `target_ranks` compares at a time."""


def nats_to_bits(nats: float) -> float:
    """Convert nats to bits; a bit is ln 2 nats."""
    return nats / math.log(2)


def target_nats(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Compute the cross-entropy of each target in nats, 0 where the target is IGNORED. Shape (N,), float32.

    Logits of lower precision are converted to float32 first: a sum over thousands of ids in bfloat16 would lose the
    differences that a comparison is about.
    """
    return F.cross_entropy(logits_NV.float(), targets_N, ignore_index=IGNORED, reduction="none")


def target_ranks(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Count the ids that have a larger logit than each target, 0 where the target is IGNORED. Shape (N,), int64.

    A prediction is correct, as `sums` counts it, where this is 0. Few rows at a time: a whole batch compared takes a
    quarter of the memory of its logits.
    """
    counts_N = targets_N != IGNORED
    target_logits_N1 = logits_NV.gather(1, targets_N.masked_fill(~counts_N, 0)[:, None])
    n_rows = max(1, MOST_COMPARED // logits_NV.shape[1])
    few = [slice(start, start + n_rows) for start in range(0, len(targets_N), n_rows)]
    return torch.cat([(logits_NV[rows] > target_logits_N1[rows]).sum(dim=1) for rows in few]) * counts_N


def correct_predictions(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Tell where the target's logit is the largest; one reduction (amax), no sorting. Shape (N,), bool."""
    counts_N = targets_N != IGNORED
    target_logits_N = logits_NV.gather(1, targets_N.masked_fill(~counts_N, 0)[:, None]).squeeze(1)
    return (target_logits_N >= logits_NV.amax(dim=1)) & counts_N


def mean_nats(nats: Tensor, targets_N: Tensor) -> Tensor:
    """Average over the targets that are not IGNORED; 0 for a batch of padding only. Shape ().

    Args:
        nats: cross-entropy of each target, or the sum of them.
        targets_N: token ids, int64, or IGNORED.
    """
    return nats.sum() / (targets_N != IGNORED).sum().clamp(min=1)


def sums(nats: Tensor, correct_N: Tensor, targets_N: Tensor, bytes_V: Tensor) -> Tensor:
    """Sum up a batch: what it adds to the sums behind all metrics.

    Args:
        nats: cross-entropy of each target, from `target_nats`, or their sum.
        correct_N: whether it was predicted, from `correct_predictions`.
        targets_N: token ids, int64, or IGNORED.
        bytes_V: UTF-8 bytes that each token id stands for, int64; 0 for special tokens.

    Returns:
        (4,) float64: nats, correct predictions, targets, bytes of the targets.
    """
    counts_N = targets_N != IGNORED
    bytes_N = bytes_V[targets_N.masked_fill(~counts_N, 0)] * counts_N
    parts = [nats.double().sum(), correct_N.sum(), counts_N.sum(), bytes_N.sum()]
    return torch.stack([part.double() for part in parts])


def metric_values(sums_4: Tensor) -> dict[str, float]:
    """Compute METRIC_NAMES of a set from its sums (nats, correct predictions, targets, bytes); NaN for an empty set.

    Bits per byte = sum of nats / ln 2 / UTF-8 bytes of the targets.
    """
    nats, correct, targets, size = (float(value) for value in sums_4.cpu())  # one copy from the device
    loss_nats = nats / targets if targets else math.nan
    return {
        "loss_nats": loss_nats,
        # Python's exp overflows where the metric is merely very large.
        "perplexity": math.exp(loss_nats) if loss_nats < 700 else math.inf,
        "accuracy": correct / targets if targets else math.nan,
        "bits_per_byte": nats_to_bits(nats) / size if size else math.nan,
    }


class TokenMetric(Metric):
    """One of METRIC_NAMES over a whole set: adds up the sums of batches and ranks, and divides once.

    Args:
        name: which of METRIC_NAMES.
        way: with order=both, the number of the reading whose batches count; None for all.
    """

    full_state_update = False
    higher_is_better = None
    total: Tensor

    def __init__(self, name: str, way: int | None = None) -> None:
        super().__init__()
        if name not in METRIC_NAMES:
            raise ValueError(f"name={name!r} is no metric; choose one of {METRIC_NAMES}.")
        self.name, self.way = name, way
        zero_4 = torch.zeros(4, dtype=torch.float64)
        self.add_state("total", default=zero_4, dist_reduce_fx="sum")  # pyright: ignore[reportUnknownMemberType]

    def update(self, sums_4: Tensor) -> None:
        """Add the sums of a batch, as `sums` gives them."""
        self.total += sums_4

    def compute(self) -> Tensor:
        """Return the metric over all batches so far, as a float64 scalar."""
        return torch.tensor(metric_values(self.total)[self.name], dtype=torch.float64)
