"""What the losses of runs say about an order: the unit of inference is the trained run, a sample is a run's loss.

Shapes: S seeds that both orders were trained with, N and M runs of two orders with seeds of their own. Losses are nats
per token; a gap is the loss of an order minus that of the reference. Runs of one seed begin with the same weights and
see the same windows: they are a pair, and the test is the paired one. Where the seeds differ there is only Welch's.

Sources: the t tests are scipy's. Sign flips: Fisher, The Design of Experiments (1935), section 21. Two one-sided
tests: Schuirmann (1987), J. Pharmacokinet. Biopharm. 15:657. d: Cohen, Statistical Power Analysis (1988), section 2.3.
Ratio of means by the delta method: Casella and Berger, Statistical Inference (2002), section 5.5.4.
"""

import itertools
import math
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Interval = tuple[float, float]

LEVEL = 0.95
"""Of all intervals."""
FEWEST_SEEDS = 3
"""With fewer, intervals are infinite for every purpose (two seeds: the t quantile is 12.7), and none is given."""
MOST_FLIPPED = 20
"""Most seeds whose sign flips are all counted, 1,048,576; of more seeds, DRAWN_FLIPS are drawn."""
DRAWN_FLIPS = 1 << 16
ROUNDING = 1e-12
"""Values that differ by no more than this share of themselves differ by nothing."""


@dataclass(frozen=True)
class TTest:
    """A mean of gaps, and what a t test says of it; None where it cannot be told."""

    mean: float
    std: float | None = None
    """Over n - 1; of the paired gaps, or of the difference of two runs that are not paired."""
    standard_error: float | None = None
    interval: Interval | None = None
    t: float | None = None
    degrees_of_freedom: float | None = None
    p: float | None = None
    """Two-sided."""

    @property
    def is_significant(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


@dataclass(frozen=True)
class Null:
    """How far runs of one order lie apart that differ in the seed alone."""

    mean_absolute: float
    """Mean of |difference| over all pairs of seeds."""
    std: float | None
    """Standard deviation of |difference| over these pairs; None for one pair."""
    n_pairs: int


def spread(values_S: Floats) -> float | None:
    """Sample standard deviation; 0 where values differ by rounding alone, None for one value."""
    if len(values_S) < 2:
        return None
    if np.ptp(values_S) <= ROUNDING * np.abs(values_S).max():
        return 0.0
    return float(values_S.std(ddof=1))


def paired_t(gap_S: Floats) -> TTest:
    """Test by Student's t whether the mean of paired gaps is 0.

    Args:
        gap_S: gap of each seed.
    """
    mean, std = float(gap_S.mean()), spread(gap_S)
    if std is None:
        return TTest(mean)
    n = len(gap_S)
    if std == 0:
        return TTest(mean, 0.0, 0.0, (mean, mean) if n >= FEWEST_SEEDS else None, None, n - 1, None)
    found = _scipy_stats().ttest_1samp(gap_S, 0)
    interval = _interval(found.confidence_interval(LEVEL)) if n >= FEWEST_SEEDS else None
    return TTest(mean, std, std / math.sqrt(n), interval, float(found.statistic), n - 1, float(found.pvalue))


def welch_t(reference_N: Floats, other_M: Floats) -> TTest:
    """Test by Welch's t whether two orders have the same mean loss, their runs taken as not paired."""
    mean = float(other_M.mean() - reference_N.mean())
    reference_std, other_std = spread(reference_N), spread(other_M)
    if reference_std is None or other_std is None:
        return TTest(mean)
    n, m = len(reference_N), len(other_M)
    std = math.hypot(reference_std, other_std)
    error = math.hypot(reference_std / math.sqrt(n), other_std / math.sqrt(m))
    is_enough = min(n, m) >= FEWEST_SEEDS
    if error == 0:
        return TTest(mean, std, error, (mean, mean) if is_enough else None, None, n + m - 2, None)
    with _constants_allowed():
        found = _scipy_stats().ttest_ind(other_M, reference_N, equal_var=False)
        interval = _interval(found.confidence_interval(LEVEL)) if is_enough else None
    return TTest(mean, std, error, interval, float(found.statistic), float(found.df), float(found.pvalue))


def sign_flip_p(gap_S: Floats) -> tuple[float, float]:
    """Test whether gaps are as likely of either sign, by flips of their signs, with no distribution.

    Exact, over all flips, to MOST_FLIPPED seeds; of more seeds, flips are drawn at random.

    Returns:
        The two-sided p value, and the smallest that so many seeds can reach: all of one sign have 2 of 2^S flips. Where
        flips are drawn, what was measured counts as one more of them.
    """
    if len(gap_S) < 2:
        return 1.0, 1.0
    if len(gap_S) <= MOST_FLIPPED:
        sums = gap_S[:1]  # the flips of the first have the same sums with the other sign
        for gap in gap_S[1:]:
            sums = np.concatenate([sums + gap, sums - gap])
        least = abs(float(gap_S.sum())) - ROUNDING * float(np.abs(gap_S).sum())
        return float((np.abs(sums) >= least).mean()), 1 / len(sums)
    found = _scipy_stats().permutation_test(
        (gap_S,), _mean, permutation_type="samples", vectorized=True, n_resamples=DRAWN_FLIPS, rng=0
    )
    return min(float(found.pvalue), 1.0), 2 / (DRAWN_FLIPS + 1)


def cohens_d(gap_S: Floats) -> float | None:
    """Mean of paired gaps in standard deviations of such a gap (Cohen's d_z); None if they have no spread."""
    std = spread(gap_S)
    return float(gap_S.mean()) / std if std else None


def cohens_d_unpaired(reference_N: Floats, other_M: Floats) -> float | None:
    """Difference of means in pooled standard deviations of a run (Cohen's d_s); None if runs have no spread."""
    stds, weights = (spread(reference_N), spread(other_M)), (len(reference_N) - 1, len(other_M) - 1)
    if stds[0] is None or stds[1] is None:
        return None
    pooled = math.sqrt((weights[0] * stds[0] ** 2 + weights[1] * stds[1] ** 2) / sum(weights))
    return float(other_M.mean() - reference_N.mean()) / pooled if pooled else None


def equivalence_p(found: TTest, margin: float) -> float | None:
    """Test whether the mean gap is within a margin, by two one-sided t tests; the larger of their p values.

    Args:
        found: the paired test, or Welch's.
        margin: largest |gap| that counts as none.
    """
    if found.standard_error is None or found.degrees_of_freedom is None:
        return None
    if found.standard_error == 0:
        return float(abs(found.mean) >= margin)
    t = (margin - abs(found.mean)) / found.standard_error
    return float(_scipy_stats().t.sf(t, found.degrees_of_freedom))


def relative_gap(reference_S: Floats, other_S: Floats) -> TTest:
    """Ratio of the mean losses minus 1, its interval by the delta method with the covariance of pairs.

    To first order R = mean(other) / mean(reference) varies as mean(other - R reference) / mean(reference), in which the
    covariance is contained; as that is estimated from S pairs, the quantile is that of t with S - 1.
    """
    ratio = float(other_S.mean() / reference_S.mean())
    residual_S = (other_S - ratio * reference_S) / float(reference_S.mean())
    return _without_few(_t_of(ratio - 1, _negligible(spread(residual_S)), len(residual_S)), len(residual_S))


def relative_gap_unpaired(reference_N: Floats, other_M: Floats) -> TTest:
    """The same for runs that are not paired: no covariance, and degrees of freedom by Welch and Satterthwaite."""
    mean = float(reference_N.mean())
    ratio = float(other_M.mean()) / mean
    found = welch_t(ratio * reference_N / mean, other_M / mean)
    n = min(len(reference_N), len(other_M))
    if found.standard_error is None or found.degrees_of_freedom is None:
        return TTest(ratio - 1)
    return _without_few(_t_of(ratio - 1, found.std, n, found.standard_error, found.degrees_of_freedom), n)


def null_of(losses: Mapping[str, Floats]) -> tuple[dict[str, Null], float | None]:
    """Measure how far runs of the same order and other seeds lie apart.

    Args:
        losses: of each order, the losses of its runs.

    Returns:
        The null of each order with at least two runs, and the mean |difference| over the pairs of all orders.
    """
    found: dict[str, Null] = {}
    every: list[float] = []
    for order, values in losses.items():
        apart = [abs(float(a - b)) for a, b in itertools.combinations(values, 2)]
        if apart:
            found[order] = Null(math.fsum(apart) / len(apart), spread(np.array(apart)), len(apart))
            every += apart
    return found, math.fsum(every) / len(every) if every else None


def units_t(difference_D: Floats) -> tuple[float | None, float | None]:
    """T and p of a test over units of text (documents, chunks) of one pair of runs.

    No claim rests on it: it takes the spread over the text for that over trained runs, and finds that two seeds of one
    order differ. It is computed to show that.
    """
    if not spread(difference_D):
        return None, None
    found = _scipy_stats().ttest_1samp(difference_D, 0)
    return float(found.statistic), float(found.pvalue)


def _t_of(mean: float, std: float | None, n: int, error: float | None = None, df: float | None = None) -> TTest:
    if std is None:
        return TTest(mean)
    error, df = std / math.sqrt(n) if error is None else error, n - 1 if df is None else df
    if error == 0:
        return TTest(mean, std, 0.0, (mean, mean), None, df, None)
    stats = _scipy_stats()
    half, t = error * float(stats.t.ppf((1 + LEVEL) / 2, df)), mean / error
    return TTest(mean, std, error, (mean - half, mean + half), t, df, 2 * float(stats.t.sf(abs(t), df)))


def _without_few(found: TTest, n: int) -> TTest:
    """A test without its interval, if that is of too few seeds."""
    return found if n >= FEWEST_SEEDS else replace(found, interval=None)


def _negligible(std: float | None) -> float | None:
    """The spread of relative residuals; 0 where it is that of rounding, as their mean, 0, cannot tell."""
    return 0.0 if std is not None and std <= ROUNDING else std


def _mean(values: Floats, axis: int) -> Floats:
    return values.mean(axis=axis)


def _interval(found: Any) -> Interval:
    return float(found.low), float(found.high)


def _scipy_stats() -> Any:
    """scipy.stats, whose import takes a second, and which has no types."""
    import scipy.stats  # pyright: ignore[reportMissingTypeStubs]

    return cast(Any, scipy.stats)


@contextmanager
def _constants_allowed() -> Generator[None, None, None]:
    """No warning of scipy where all runs of one order have the same loss, which is no loss of precision."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Precision loss occurred", RuntimeWarning)
        yield
