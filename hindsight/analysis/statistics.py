"""Statistics over seeds: the unit of inference is the trained run."""

import statistics
from collections.abc import Sequence
from typing import Any

from hindsight.analysis.pairs import Pair, family_of


def over_seeds(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Summarize the gaps of pairs that differ in nothing but their seed.

    Returns:
        For each group of at least two such pairs: data, model, orders, seeds, and mean and sample standard deviation
        (over n - 1) of each gap.
    """
    groups: dict[tuple[str, tuple[str, str]], list[Pair]] = {}
    for pair in pairs:
        groups.setdefault((family_of(pair.runs[0]), pair.orders), []).append(pair)
    return [_summary(group) for group in groups.values() if len(group) > 1]


def _summary(pairs: Sequence[Pair]) -> dict[str, Any]:
    gaps = {key: [pair.gaps()[key] for pair in pairs] for key in pairs[0].gaps()}
    return {
        "data": pairs[0].data,
        "model": pairs[0].model,
        "reference": pairs[0].orders[0],
        "order": pairs[0].orders[1],
        "seeds": [pair.seed for pair in pairs],
        "mean": {key: statistics.mean(values) for key, values in gaps.items()},
        "std": {key: statistics.stdev(values) for key, values in gaps.items()},
    }
