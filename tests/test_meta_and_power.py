"""Several groups in one table, and how many seeds resolve a gap."""

from typing import cast

import numpy as np
import pytest
from scipy import optimize, stats

from hindsight.analysis.meta import holm, random_effects
from hindsight.analysis.power import margin_for, seeds_for


def test_holm_multiplies_the_smallest_p_by_all_and_never_falls():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    assert holm([0.5]) == [0.5]


def test_the_mean_over_groups_has_equal_weights_and_tau2_is_paule_and_mandels():
    effects, errors = np.array([0.5, 0.7, 1.4, 0.2]), np.array([0.1, 0.14, 0.2, 0.15])

    def q(tau2: float) -> float:
        weights = 1 / (errors**2 + tau2)
        return float(weights @ (effects - weights @ effects / weights.sum()) ** 2)

    tau2 = cast(float, optimize.brentq(lambda value: q(value) - 3, 0, 10))
    half = float(stats.t.ppf(0.975, 3)) * effects.std(ddof=1) / 2
    found = random_effects([*effects], [*errors])
    assert found is not None
    assert found.tau2 == pytest.approx(tau2, rel=1e-3)
    assert found.mean == pytest.approx(0.7)
    assert found.interval == pytest.approx((0.7 - half, 0.7 + half))
    assert 0 < found.i2 < 1


@pytest.mark.parametrize("between", [0.0, 0.1])
def test_the_interval_of_the_mean_covers_with_three_seeds_in_each_group(between):
    n_groups, n_seeds, truth = 5, 3, 0.5
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(600):
        gaps = truth + rng.normal(0, between, (n_groups, 1)) + rng.normal(0, 0.1, (n_groups, n_seeds))
        found = random_effects([*gaps.mean(axis=1)], [*gaps.std(axis=1, ddof=1) / n_seeds**0.5])
        assert found is not None
        assert found.interval is not None
        covered.append(found.interval[0] <= truth <= found.interval[1])
    assert np.mean(covered) == pytest.approx(0.95, abs=0.018)


def test_groups_that_agree_have_no_variance_between_them_and_two_groups_no_interval():
    found = random_effects([0.5, 0.5, 0.5], [0.1, 0.1, 0.1])
    assert found is not None
    assert (found.mean, found.tau2, found.i2) == pytest.approx((0.5, 0, 0))
    two = random_effects([0.4, 0.6], [0.1, 0.1])
    assert two is not None
    assert (two.mean, two.interval) == (pytest.approx(0.5), None)


def test_one_group_or_one_without_spread_has_no_mean_over_groups():
    assert random_effects([0.5], [0.1]) is None
    assert random_effects([0.5, 0.6], [0.1, 0.0]) is None


# Cohen (1988) and G*Power: a paired t test at two-sided 5% with power 0.8.
@pytest.mark.parametrize(("effect", "n_seeds"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10), (2.0, 5), (100.0, 3)])
def test_seeds_are_those_of_the_tables(effect, n_seeds):
    assert seeds_for(effect * 0.01, 0.01) == n_seeds


@pytest.mark.parametrize("n_seeds", [3, 5, 10])
def test_the_gap_that_seeds_resolve_takes_that_many_seeds(n_seeds):
    margin = margin_for(n_seeds, 0.01)
    assert seeds_for(margin * 1.001, 0.01) == n_seeds
    assert seeds_for(margin * 0.999, 0.01) == n_seeds + 1


def test_a_larger_gap_never_takes_more_seeds():
    found = [seeds_for(effect, 1.0) or 0 for effect in np.geomspace(0.05, 200, 400)]
    assert min(found) == 3, "fewer have no interval"
    assert found == sorted(found, reverse=True)


def test_power_is_what_simulation_gives():
    rng = np.random.default_rng(0)
    gaps = rng.normal(margin_for(5, 1.0), 1.0, (4000, 5))
    assert (np.asarray(stats.ttest_1samp(gaps, 0, axis=1)[1]) < 0.05).mean() == pytest.approx(0.8, abs=0.02)


def test_gaps_that_no_one_can_pay_for_and_gaps_without_spread():
    assert seeds_for(1e-6, 0.1) is None
    assert seeds_for(0.01, 0.0) == 3
