"""Statistics over seeds: the unit of inference is the trained run."""

import json
import statistics
from collections.abc import Sequence
from typing import Any

from hindsight.analysis.pairs import Pair


def over_seeds(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Summarize the gaps of pairs that differ in nothing but their seed.

    Returns:
        For each group of at least two such pairs: data, model, seeds, and mean and sample standard deviation (over
        n - 1) of each gap.
    """
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(json.dumps(pair.runs[0].settings | {"seed": None}, sort_keys=True), []).append(pair)
    return [_summary(group) for group in groups.values() if len(group) > 1]


def _summary(pairs: Sequence[Pair]) -> dict[str, Any]:
    gaps = {key: [pair.gaps()[key] for pair in pairs] for key in pairs[0].gaps()}
    return {
        "data": pairs[0].data,
        "model": pairs[0].model,
        "seeds": [pair.seed for pair in pairs],
        "mean": {key: statistics.mean(values) for key, values in gaps.items()},
        "std": {key: statistics.stdev(values) for key, values in gaps.items()},
    }
