import numpy as np
import pytest
import torch
from helpers.training_runs import compose_config
from hypothesis import given
from hypothesis import strategies as st

from hindsight.config.direction import Direction
from hindsight.config.order import NUMBERED, PUBLISHED, UNITS, order_of
from hindsight.errors import InputError
from hindsight.orders import known
from hindsight.orders.examples import IGNORED, make_example, permutations, turn, turn_back
from hindsight.orders.known import open_order

FIXED = [*known.FORMULAS, "random_chunk:0", "uniform_random:7", "blocks:1", "blocks:3", "blocks:64"]
OF_8 = {
    "forward": [0, 1, 2, 3, 4, 5, 6, 7],
    "backward": [7, 6, 5, 4, 3, 2, 1, 0],
    "even_odd": [0, 2, 4, 6, 1, 3, 5, 7],
    "odd_even": [1, 3, 5, 7, 0, 2, 4, 6],
    "middle_out": [4, 3, 5, 2, 6, 1, 7, 0],
    "end_in": [0, 7, 1, 6, 2, 5, 3, 4],
    "half_back_forward": [3, 2, 1, 0, 4, 5, 6, 7],
    "half_forward_back": [0, 1, 2, 3, 7, 6, 5, 4],
    "quarter_middle_out_interleave": [2, 6, 1, 5, 3, 7, 0, 4],
    "quarter_middle_out_concat": [2, 1, 3, 0, 6, 5, 7, 4],
    "quarter_end_in_interleave": [0, 4, 3, 7, 1, 5, 2, 6],
    "quarter_end_in_concat": [0, 3, 1, 2, 4, 7, 5, 6],
    "blocks:3": [6, 7, 3, 4, 5, 0, 1, 2],
}
# Of the published code, run with Python 3.11: random.seed(SEED), random.sample(range(n), n).
UNIFORM_0_OF_8 = [6, 7, 3, 0, 2, 5, 1, 4]


@pytest.mark.parametrize("name", OF_8)
def test_an_order_reads_a_window_of_8_as_its_name_says(name):
    assert open_order(name, 8).permutation(np.zeros(8, np.int64)).tolist() == OF_8[name]


def test_random_orders_are_those_of_the_published_code():
    assert open_order("uniform_random:0", 8).permutation(np.zeros(8, np.int64)).tolist() == UNIFORM_0_OF_8
    chunks = open_order("random_chunk:0", 64).permutation(np.zeros(64, np.int64)).reshape(8, 8)
    assert (chunks[:, 0] // 8).tolist() == UNIFORM_0_OF_8
    assert (chunks - chunks[:, :1] == np.arange(8)).all()


def test_every_named_order_is_known_and_no_other():
    assert [*known.FORMULAS] == ["forward", "backward", *PUBLISHED]
    assert [*known.UNITS] == [*UNITS]
    assert {*known.NUMBERED, known.SEGMENTS} == NUMBERED.keys()


@given(st.sampled_from(FIXED), st.integers(1, 12), st.data())
def test_every_order_is_a_permutation_for_full_and_short_windows(name, eighths, data):
    order = open_order(name, 8 * eighths)
    length = data.draw(st.integers(0, 8 * eighths))
    permutation = order.permutation(np.zeros(length, np.int64))
    assert sorted(permutation.tolist()) == [*range(length)]


@given(st.sampled_from(FIXED), st.integers(0, 2**32 - 1), st.lists(st.integers(0, 24), min_size=1, max_size=4))
def test_what_is_turned_comes_back_and_every_order_scores_each_token_once(name, seed, lengths):
    order = open_order(name, 24)
    window_BT = torch.randint(0, 50, (len(lengths), 24), generator=torch.Generator().manual_seed(seed))
    for window_T, length in zip(window_BT, lengths, strict=True):
        window_T[length:] = IGNORED
    positions_BT = permutations(window_BT, order)
    turned_BT = turn(window_BT, order)
    assert torch.equal(turn_back(turned_BT, positions_BT), window_BT)
    inputs_BT, targets_BT = make_example(window_BT, order, bos_id=99)
    assert torch.equal(targets_BT.sort().values, window_BT.sort().values)
    for inputs_T, targets_T, length in zip(inputs_BT, targets_BT, lengths, strict=True):
        assert (targets_T[length:] == IGNORED).all()
        assert inputs_T[: length + 1].tolist() == [99, *targets_T[:length].tolist()][: len(inputs_T)]


@pytest.mark.parametrize(
    ("name", "length"), [("half_back_forward", 7), ("quarter_end_in_concat", 6), ("random_chunk:1", 12)]
)
def test_an_order_that_does_not_fit_the_window_is_refused(name, length):
    with pytest.raises(InputError, match=f"order={name} needs windows of a multiple of . tokens, not of {length};"):
        open_order(name, length)


def test_a_direction_is_an_order_by_another_name_and_one_of_the_two_is_kept():
    for argument in ("direction=backward", "order=backward"):
        config = compose_config("train_composer", argument)
        assert (config.direction, config.order, order_of(config)) == (Direction.backward, None, "backward")
    config = compose_config("train_composer", "order=blocks:8")
    assert (config.direction, config.order, order_of(config)) == (None, "blocks:8", "blocks:8")
