"""The hierarchical bootstrap, its components of variance, and the coverage that is measured for it."""

import tracemalloc

import numpy as np
import pytest

from hindsight.analysis.bootstrap import Blocks, Components, bootstrap_interval, components_of, coverage_of

GAP = 0.02


def made_up(
    rng: np.random.Generator, components: Components, n_seeds: int, n_documents: int = 30, n_blocks: int = 2
) -> Blocks:
    """Gaps of documents of one size that vary by these components around GAP."""
    shape = (n_seeds, n_documents, n_blocks)
    gaps = (
        GAP + rng.normal(0, components.seed, (n_seeds, 1, 1)) + rng.normal(0, components.document, (1, n_documents, 1))
    )
    gaps = gaps + rng.normal(0, components.residual * n_blocks**0.5, shape)
    tokens = np.full(n_documents * n_blocks, 500.0)
    return Blocks(np.repeat(np.arange(n_documents), n_blocks), tokens, gaps.reshape(n_seeds, -1) * tokens)


def test_components_are_those_that_the_gaps_were_made_of():
    rng = np.random.default_rng(0)
    truth = Components(seed=0.005, document=0.01, residual=0.02)
    found = [components_of(made_up(rng, truth, 5)) for _ in range(400)]
    for name in ("seed", "document", "residual"):
        mean_variance = np.mean([getattr(each, name) ** 2 for each in found])
        assert mean_variance**0.5 == pytest.approx(getattr(truth, name), rel=0.06)


def test_components_of_documents_of_one_size_are_the_textbooks():
    blocks = made_up(np.random.default_rng(3), Components(0.01, 0.02, 0.01), 4, n_documents=6, n_blocks=3)
    gap_SD = blocks.gaps.reshape(4, 6, 3).sum(axis=2) / 1500
    rows, columns = gap_SD.mean(axis=1, keepdims=True), gap_SD.mean(axis=0, keepdims=True)
    residual = ((gap_SD - rows - columns + gap_SD.mean()) ** 2).sum() / (3 * 5)
    seed = (6 * rows.var(ddof=1) - residual) / 6
    document = (4 * columns.var(ddof=1) - residual) / 4
    found = components_of(blocks)
    assert found is not None
    assert (found.seed**2, found.document**2, found.residual**2) == pytest.approx((seed, document, residual))


def test_sizes_of_documents_count_as_weights():
    tokens = np.array([100.0, 100, 800])
    blocks = Blocks(np.arange(3), tokens, np.array([[0.1, 0.2, 0.3], [0.2, 0.2, 0.5]]) * tokens)
    assert blocks.n_effective_documents == pytest.approx(1 / (0.01 + 0.01 + 0.64))
    low, high = bootstrap_interval(Blocks(np.arange(3), tokens, np.full((2, 3), 0.25) * tokens))
    assert (low, high) == pytest.approx((0.25, 0.25)), "a gap is a ratio of sums"


def test_one_seed_or_one_document_has_no_components():
    assert components_of(made_up(np.random.default_rng(0), Components(1, 1, 1), 1)) is None
    assert components_of(made_up(np.random.default_rng(0), Components(1, 1, 1), 3, n_documents=1)) is None


@pytest.mark.parametrize(("n_documents", "n_blocks"), [(3, 5000), (200, 100), (9000, 2), (20_000, 1), (1, 9000)])
def test_long_text_is_taken_in_coarser_blocks_that_keep_its_sums_and_its_documents(n_documents, n_blocks):
    blocks = made_up(np.random.default_rng(0), Components(0.01, 0.01, 0.01), 2, n_documents, n_blocks)
    coarse = blocks.coarse(4096)
    assert 1000 < len(coarse.tokens) <= 4096
    assert coarse.tokens.sum() == blocks.tokens.sum()
    assert coarse.gaps.sum(axis=1) == pytest.approx(blocks.gaps.sum(axis=1))
    assert (np.diff(coarse.document) >= 0).all()
    if n_documents <= 2048:
        assert np.array_equal(np.bincount(blocks.document, blocks.tokens), np.bincount(coarse.document, coarse.tokens))


def test_memory_is_bounded_whatever_the_text():
    blocks = made_up(np.random.default_rng(0), Components(0.01, 0.01, 0.01), 5, 2000, 100)
    tracemalloc.start()
    bootstrap_interval(blocks)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 400e6


@pytest.mark.parametrize("n_seeds", [3, 5, 10])
def test_the_coverage_that_is_told_is_that_of_the_bootstrap(n_seeds):
    rng = np.random.default_rng(n_seeds)
    components = Components(seed=0.01, document=0.005, residual=0.01)
    told = coverage_of(components, n_seeds, 30)
    intervals = [bootstrap_interval(made_up(rng, components, n_seeds), draws=500, seed=i) for i in range(400)]
    measured = np.mean([low <= GAP <= high for low, high in intervals])
    assert measured == pytest.approx(told, abs=0.05)


def test_with_few_seeds_the_interval_is_too_narrow_and_the_coverage_says_so():
    seeds_alone = Components(seed=0.01, document=0.0, residual=0.0)
    covered = [coverage_of(seeds_alone, n_seeds, 30) for n_seeds in (3, 5, 10, 50)]
    assert covered == sorted(covered)
    assert covered[0] < 0.8
    assert covered[-1] == pytest.approx(0.95, abs=0.02)


def test_what_is_special_about_documents_does_not_average_out_over_seeds():
    # With documents drawn anew for each seed it would: intervals would be 10**0.5 times too narrow, and cover 45%.
    assert coverage_of(Components(seed=0.0, document=0.05, residual=0.001), 10, 30) == pytest.approx(0.93, abs=0.03)


def test_the_same_text_has_the_same_interval():
    blocks = made_up(np.random.default_rng(0), Components(0.01, 0.01, 0.01), 3)
    assert bootstrap_interval(blocks) == bootstrap_interval(blocks)
