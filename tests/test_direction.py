import pytest
import torch

from hindsight.orders.examples import IGNORED, make_example, turn
from hindsight.orders.known import open_order

FORWARD, BACKWARD = open_order("forward", 6), open_order("backward", 6)


def test_both_directions_are_scored_on_the_same_tokens():
    window_BT = torch.arange(12).reshape(2, 6)
    inputs_BT, forward_BT = make_example(window_BT, FORWARD, bos_id=99)
    assert inputs_BT.tolist() == [[99, 0, 1, 2, 3, 4], [99, 6, 7, 8, 9, 10]]
    assert torch.equal(forward_BT, window_BT)
    inputs_BT, backward_BT = make_example(window_BT, BACKWARD, bos_id=99)
    assert inputs_BT[0].tolist() == [99, 5, 4, 3, 2, 1]
    assert torch.equal(backward_BT.flip(1), forward_BT)


def test_a_short_window_is_filled_up_behind_its_tokens_in_both_directions():
    window_BT = torch.tensor([[1, 2, 3, IGNORED, IGNORED, IGNORED], [IGNORED] * 6, [1, 2, 3, 4, 5, 6]])
    inputs_BT, targets_BT = make_example(window_BT, BACKWARD, bos_id=9)
    assert targets_BT.tolist() == [[3, 2, 1, IGNORED, IGNORED, IGNORED], [IGNORED] * 6, [6, 5, 4, 3, 2, 1]]
    assert inputs_BT.tolist() == [[9, 3, 2, 1, 9, 9], [9] * 6, [9, 6, 5, 4, 3, 2]]
    inputs_BT, targets_BT = make_example(window_BT, FORWARD, bos_id=9)
    assert torch.equal(targets_BT, window_BT)
    assert inputs_BT[0].tolist() == [9, 1, 2, 3, 9, 9]


@pytest.mark.parametrize("order", [FORWARD, BACKWARD])
def test_turning_twice_gives_the_window_back(order):
    window_BT = torch.randint(0, 50, (4, 6), generator=torch.Generator().manual_seed(0))
    window_BT[1, 4:] = IGNORED
    assert torch.equal(turn(turn(window_BT, order), order), window_BT)


def test_the_window_itself_is_left_as_it_is():
    window_BT = torch.tensor([[1, 2, IGNORED, IGNORED, IGNORED, IGNORED]])
    for order in (FORWARD, BACKWARD):
        make_example(window_BT, order, bos_id=9)
    assert window_BT.tolist() == [[1, 2, IGNORED, IGNORED, IGNORED, IGNORED]]
