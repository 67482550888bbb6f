import math

import pytest

from benchmarks.steps_to_loss import FIRST_LR, best_lr, steps_to


def test_a_loss_that_the_shortest_run_reaches_takes_its_steps():
    assert steps_to(3.0, {200: 3.0, 400: 2.0}) == 200
    assert steps_to(3.5, {400: 2.0, 200: 3.0}) == 200


def test_steps_between_two_lengths_are_interpolated_along_their_logarithm():
    losses = {100: 4.0, 200: 3.0, 400: 2.0}
    assert steps_to(3.0, losses) == pytest.approx(200)
    assert steps_to(2.5, losses) == pytest.approx(200 * math.sqrt(2))
    assert steps_to(2.75, losses) == pytest.approx(200 * 2**0.25)


def test_the_first_length_that_reaches_a_loss_counts_where_a_longer_one_is_worse():
    assert steps_to(2.5, {100: 3.0, 200: 2.5, 300: 2.75, 400: 2.0}) == pytest.approx(200)


def test_a_loss_that_no_run_reaches_has_no_steps():
    assert steps_to(1.0, {200: 3.0, 400: 2.0}) is None


@pytest.mark.parametrize(("best", "n_tried"), [(1, 3), (2, 4), (8, 6), (1 / 2, 4), (1 / 8, 6)])
def test_the_best_rate_has_a_worse_one_on_either_side(best, n_tried):
    tried = []

    def loss_at(lr: float) -> float:
        tried.append(lr)
        return abs(math.log2(lr / (FIRST_LR * best)))

    assert best_lr(loss_at) == pytest.approx(FIRST_LR * best)
    assert len(tried) == len(set(tried)) == n_tried
    assert min(tried) < FIRST_LR * best < max(tried)
