"""What losses of runs say about an order, against published losses with a known answer, and against simulations."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import permutation_test
from scipy.stats import t as student_t

from hindsight.analysis import inference

# Mean validation losses (nats/token) of GPT-2 models of arXiv:2505.08739, seeds 1 to 3.
PUBLISHED = {
    "124M": {
        "forward": (3.5011097189851488, 3.4936902523167417, 3.4892208583294413),
        "backward": (3.51021801882085, 3.4988766854948894, 3.505829435155709),
        "permuted": (4.998055969049026, 4.906340056849656, 4.910769254434607),
    },
    "355M": {
        "forward": (2.876732940040865, 2.877519096158509, 2.878085920620228),
        "backward": (2.899810295663224, 2.898406626541683, 2.8989525691591362),
        "permuted": (3.9004813372031366, 3.8715977654958094, 3.867532954400396),
    },
    "774M": {
        "forward": (2.536650594971733, 2.5400410506596893, 2.5414855498747326),
        "backward": (2.568737833694686, 2.5710042434874447, 2.5726622072869985),
        "permuted": (3.375840924377081, 3.355776383344139, 3.3535988309185067),
    },
}
SIMULATIONS = 1500
N_DOCUMENTS, SEED_STD, DOCUMENT_STD, RESIDUAL_STD, LOSS = 30, 0.01, 0.3, 0.01, 4.0


def losses_of(size: str, order: str) -> np.ndarray:
    return np.array(PUBLISHED[size][order])


def equivalence(found: inference.TTest, margin: float) -> float:
    p = inference.equivalence_p(found, margin)
    assert p is not None
    return p


def document_losses(rng: np.random.Generator, n_runs: int, n_seeds: int, gap: float) -> np.ndarray:
    """Losses by run, order, seed and document: what a document costs, what a seed does to both orders, and to one."""
    shape = (n_runs, 2, n_seeds, N_DOCUMENTS)
    seeds = rng.normal(0, SEED_STD, (n_runs, 1, n_seeds, 1)) + rng.normal(0, SEED_STD, (n_runs, 2, n_seeds, 1))
    text = rng.normal(0, DOCUMENT_STD, N_DOCUMENTS)  # the same for all: it is this text that the losses are of
    gaps = np.array([0, gap]).reshape(1, 2, 1, 1)
    return LOSS + gaps + seeds + (text - text.mean()) + rng.normal(0, RESIDUAL_STD, shape)


@pytest.mark.parametrize(
    ("size", "mean", "half", "is_significant"),
    [("124M", 0.0103, 0.0144, False), ("355M", 0.0216, 0.0032, True), ("774M", 0.0314, 0.0015, True)],
)
def test_published_losses_have_their_gap_over_seeds(size, mean, half, is_significant):
    found = inference.paired_t(losses_of(size, "backward") - losses_of(size, "forward"))
    assert found.interval is not None
    assert found.mean == pytest.approx(mean, abs=5e-5)
    assert (found.interval[1] - found.interval[0]) / 2 == pytest.approx(half, abs=5e-5)
    assert found.is_significant is is_significant


@pytest.mark.parametrize("size", PUBLISHED)
def test_the_permuted_order_is_harder_at_every_size_and_the_null_is_the_mean_of_all_pairs(size):
    assert inference.paired_t(losses_of(size, "permuted") - losses_of(size, "forward")).mean > 0.8
    losses = {order: losses_of(size, order) for order in PUBLISHED[size]}
    nulls, mean = inference.null_of(losses)
    apart = [abs(a - b) for of in losses.values() for a, b in itertools.combinations(of, 2)]
    assert mean == pytest.approx(np.mean(apart))
    assert [null.n_pairs for null in nulls.values()] == [3, 3, 3]
    assert nulls["forward"].std == pytest.approx(np.std(apart[:3], ddof=1))


def test_sign_flips_are_exact_and_their_smallest_p_is_that_of_all_of_one_sign():
    assert inference.sign_flip_p(np.array([1.0, 2, 3, 4, 5])) == (1 / 16, 1 / 16)
    assert inference.sign_flip_p(np.array([-1.0, -2, -4])) == (0.25, 0.25)
    # Of the 8 flips of 1, 2, 4, four have a sum at least as far from 0 as 4 + 1 - 2 = 3.
    signs = [sum(s * x for s, x in zip(each, (1, 2, 4), strict=True)) for each in itertools.product((1, -1), repeat=3)]
    expected = sum(abs(total) >= 3 for total in signs) / 8
    assert inference.sign_flip_p(np.array([1.0, -2, 4]))[0] == pytest.approx(expected)
    assert inference.sign_flip_p(np.arange(1.0, 21)) == (2**-19, 2**-19)


def test_all_sign_flips_of_20_seeds_are_counted_and_of_more_some_are_drawn():
    p, smallest = inference.sign_flip_p(np.arange(1.0, 22))
    assert p == smallest == pytest.approx(2 / (inference.DRAWN_FLIPS + 1))


def test_exact_sign_flips_are_those_of_another_implementation():
    for n_seeds in (2, 5, 9, 12):
        gaps = np.random.default_rng(n_seeds).normal(0.5, 1, n_seeds)
        found = permutation_test((gaps,), lambda x, axis: x.mean(axis), permutation_type="samples", vectorized=True)
        assert inference.sign_flip_p(gaps)[0] == pytest.approx(float(found.pvalue), rel=1e-12)


def test_effect_sizes_are_in_deviations_over_seeds():
    gap = np.array([0.1, 0.2, 0.3])
    assert inference.cohens_d(gap) == pytest.approx(2)
    assert inference.cohens_d_unpaired(np.array([1.0, 2, 3]), np.array([2.0, 3, 4])) == pytest.approx(1)


def test_two_one_sided_tests_find_a_gap_within_the_margin():
    found = inference.paired_t(np.array([0.001, 0.002, -0.001, 0.0, 0.001]))
    assert found.standard_error is not None
    t = (0.01 - abs(found.mean)) / found.standard_error
    assert equivalence(found, 0.01) == pytest.approx(student_t.sf(t, 4))
    assert equivalence(found, 0.01) < 0.05 < equivalence(found, 0.001)


def test_the_relative_gap_uses_the_covariance_of_pairs():
    rng = np.random.default_rng(0)
    forward = 4 + rng.normal(0, 0.1, 8)
    backward = 1.02 * forward + rng.normal(0, 0.001, 8)
    paired, unpaired = inference.relative_gap(forward, backward), inference.relative_gap_unpaired(forward, backward)
    assert paired.mean == unpaired.mean == pytest.approx(backward.mean() / forward.mean() - 1)
    assert paired.standard_error is not None
    assert unpaired.standard_error is not None
    assert unpaired.standard_error > 20 * paired.standard_error
    (f, fb), (_, b) = np.cov(forward, backward)
    ratio = backward.mean() / forward.mean()
    variance = (b + ratio**2 * f - 2 * ratio * fb) / 8 / forward.mean() ** 2
    assert paired.standard_error == pytest.approx(math.sqrt(variance))


def test_runs_that_differ_by_nothing_have_a_gap_without_spread_and_no_warning():
    forward, backward = np.full(4, 4.0), np.full(4, 4.1)
    found = inference.paired_t(backward - forward)
    assert (found.interval, found.t, found.p) == ((found.mean, found.mean), None, None)
    assert found.is_significant
    assert inference.relative_gap(forward, backward).interval == pytest.approx((0.025, 0.025))
    assert inference.welch_t(forward, backward).interval == pytest.approx((0.1, 0.1))
    assert inference.welch_t(forward, backward + 0.1 * (np.arange(4) == 3)).p is not None
    assert inference.cohens_d(backward - forward) is None
    assert equivalence(found, 0.2) == 0
    assert inference.units_t(backward - forward) == (None, None)


@pytest.mark.parametrize("n_seeds", [1, 2])
def test_fewer_than_three_seeds_have_no_interval(n_seeds):
    forward, backward = np.array([4.0, 4.1])[:n_seeds], np.array([4.2, 4.25])[:n_seeds]
    for found in (
        inference.paired_t(backward - forward),
        inference.welch_t(forward, backward),
        inference.relative_gap(forward, backward),
        inference.relative_gap_unpaired(forward, backward),
    ):
        assert found.interval is None
        assert not found.is_significant


@pytest.mark.parametrize("n_seeds", [3, 5, 10])
def test_intervals_cover_and_equivalence_errs_as_often_as_they_say(n_seeds):
    gap, margin = 0.02, 0.02  # a gap as large as the margin is not within it
    losses = document_losses(np.random.default_rng(n_seeds), SIMULATIONS, n_seeds, gap).mean(axis=3)
    covered = {"paired": 0, "welch": 0, "relative": 0, "relative unpaired": 0}
    n_equivalent = 0
    # What a seed does to both orders is there for pairs; independent runs are those of two other comparisons.
    for (forward, backward), (_, others) in zip(losses, np.roll(losses, 1, axis=0), strict=True):
        paired = inference.paired_t(backward - forward)
        for name, found, truth in (
            ("paired", paired, gap),
            ("welch", inference.welch_t(forward, others), gap),
            ("relative", inference.relative_gap(forward, backward), gap / LOSS),
            ("relative unpaired", inference.relative_gap_unpaired(forward, others), gap / LOSS),
        ):
            assert found.interval is not None
            covered[name] += found.interval[0] <= truth <= found.interval[1]
        n_equivalent += equivalence(paired, margin) < 0.05
    for name, n in covered.items():
        assert n / SIMULATIONS == pytest.approx(0.95, abs=0.02), name
    # Below 5% where so few seeds seldom show anything to be equivalent.
    assert n_equivalent / SIMULATIONS <= 0.07


def test_equivalence_errs_in_5_percent_where_it_has_power():
    losses = document_losses(np.random.default_rng(0), SIMULATIONS, 10, 0.1).mean(axis=3)
    wrong = [equivalence(inference.paired_t(b - f), 0.1) < 0.05 for f, b in losses]
    right = [equivalence(inference.paired_t(b - f), 0.2) < 0.05 for f, b in losses[:200]]
    assert np.mean(wrong) == pytest.approx(0.05, abs=0.02)
    assert np.mean(right) == 1


def test_a_test_over_documents_of_two_runs_finds_a_difference_where_there_is_none():
    losses = document_losses(np.random.default_rng(1), 500, 2, 0.0)
    two_seeds = losses[:, 0, 1] - losses[:, 0, 0]
    a_pair = losses[:, 1, 0] - losses[:, 0, 0]
    for differences in (two_seeds, a_pair):
        p_values = [inference.units_t(each)[1] for each in differences]
        false_positives = np.mean([p is not None and p < 0.05 for p in p_values])
        assert false_positives > 0.5, "ten times what it says"
