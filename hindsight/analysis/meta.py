"""Several groups in one table: p values that count each other, and a mean over data such as languages.

Sources: Holm (1979), Scand. J. Stat. 6:65; between groups: Paule and Mandel (1982), J. Res. Natl. Bur. Stand. 87:377.
The mean has equal weights, and the interval of Student's t over the means of the groups: that of random effects takes
the standard errors for known, and where each is of 3 seeds it is too narrow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from hindsight.analysis.inference import Interval, paired_t


@dataclass(frozen=True)
class RandomEffects:
    """Mean over groups that are taken as drawn from all that there might be, such as languages."""

    mean: float
    interval: Interval | None
    """None for two groups."""
    tau2: float
    """Variance of the true effects between groups."""
    i2: float
    """Share of the variance of the measured effects that is not from within groups; 0 at least."""


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values so that below 5% any is found by mistake in 5% of tables at most (Holm's step-down)."""
    from statsmodels.stats import multitest  # pyright: ignore[reportMissingTypeStubs]

    if not p_values:
        return []
    return [float(p) for p in cast(Any, multitest).multipletests(p_values, method="holm")[1]]


def random_effects(effects: Sequence[float], standard_errors: Sequence[float]) -> RandomEffects | None:
    """Average over groups; None for fewer than two with a standard error above 0."""
    from statsmodels.stats import meta_analysis  # pyright: ignore[reportMissingTypeStubs]

    known = [(effect, error**2) for effect, error in zip(effects, standard_errors, strict=True) if error > 0]
    if len(known) < 2:
        return None
    means, variances = np.array(known).T
    with np.errstate(divide="ignore"):  # I² of groups that agree in every digit
        found = cast(Any, meta_analysis).combine_effects(means, variances, method_re="iterated")
    test = paired_t(means)
    return RandomEffects(test.mean, test.interval, float(found.tau2), max(float(found.i2), 0.0))
