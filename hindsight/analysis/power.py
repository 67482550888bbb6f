"""How many seeds resolve a gap, from the spread that was measured: Student's paired t, power 0.8, two-sided 5%.

The spread is itself an estimate: from 3 seeds it may be a sixth of the true one, or twice it (95% of chi with 2 degrees
of freedom).
"""

import math
from functools import cache
from typing import Any, cast

from hindsight.analysis.inference import FEWEST_SEEDS, LEVEL

POWER = 0.8
"""Probability of finding a gap that is there."""
MOST_SEEDS = 1 << 20
LARGEST_EFFECT = 30.0
"""In standard deviations; larger ones are found by the fewest seeds as well."""


def seeds_for(margin_nats: float, std_nats: float) -> int | None:
    """Fewest seeds that find a gap as large as the margin, 3 at least; None for more than a million.

    Args:
        margin_nats: a mean gap, above 0.
        std_nats: standard deviation of the gap of a seed.
    """
    effect = min(margin_nats / std_nats, LARGEST_EFFECT) if std_nats else LARGEST_EFFECT
    enough = FEWEST_SEEDS
    while _power(effect, enough) < POWER:
        enough *= 2
        if enough > MOST_SEEDS:
            return None
    too_few = max(enough // 2, FEWEST_SEEDS - 1)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if _power(effect, middle) < POWER:
            too_few = middle
        else:
            enough = middle
    return enough


def margin_for(n_seeds: int, std_nats: float) -> float:
    """Smallest gap that so many seeds find, in nats; at least two."""
    return _effect_for(n_seeds) * std_nats


@cache
def _effect_for(n_seeds: int) -> float:
    low, high = 0.0, LARGEST_EFFECT
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _power(middle, n_seeds) < POWER else (low, middle)
    return high


def _power(effect: float, n_seeds: int) -> float:
    """Probability that |t| is above its quantile, by the noncentral t (Cohen (1988), section 2.2).

    statsmodels' TTestPower is the same and gives NaN for effects above 5, where the far tail underflows (0.15.0).
    """
    import scipy.stats  # pyright: ignore[reportMissingTypeStubs]

    stats = cast(Any, scipy.stats)
    df, center = n_seeds - 1, effect * math.sqrt(n_seeds)
    quantile = float(stats.t.ppf((1 + LEVEL) / 2, df))
    near, far = float(stats.nct.sf(quantile, df, center)), float(stats.nct.cdf(-quantile, df, center))
    return near + (0.0 if math.isnan(far) else far)
