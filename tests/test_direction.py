from typing import Any

import pytest
import torch

from hindsight.config.direction import Direction
from hindsight.orders.direction import IGNORED, make_example, turn


def test_both_directions_are_scored_on_the_same_tokens():
    window_BT = torch.arange(12).reshape(2, 6)
    inputs_BT, forward_BT = make_example(window_BT, Direction.forward, bos_id=99)
    assert inputs_BT.tolist() == [[99, 0, 1, 2, 3, 4], [99, 6, 7, 8, 9, 10]]
    assert torch.equal(forward_BT, window_BT)
    inputs_BT, backward_BT = make_example(window_BT, Direction.backward, bos_id=99)
    assert inputs_BT[0].tolist() == [99, 5, 4, 3, 2, 1]
    assert torch.equal(backward_BT.flip(1), forward_BT)


def test_a_short_window_is_filled_up_behind_its_tokens_in_both_directions():
    window_BT = torch.tensor([[1, 2, 3, IGNORED, IGNORED], [IGNORED] * 5, [1, 2, 3, 4, 5]])
    inputs_BT, targets_BT = make_example(window_BT, Direction.backward, bos_id=9)
    assert targets_BT.tolist() == [[3, 2, 1, IGNORED, IGNORED], [IGNORED] * 5, [5, 4, 3, 2, 1]]
    assert inputs_BT.tolist() == [[9, 3, 2, 1, 9], [9] * 5, [9, 5, 4, 3, 2]]
    inputs_BT, targets_BT = make_example(window_BT, Direction.forward, bos_id=9)
    assert torch.equal(targets_BT, window_BT)
    assert inputs_BT[0].tolist() == [9, 1, 2, 3, 9]


@pytest.mark.parametrize("direction", Direction)
def test_turning_twice_gives_the_window_back(direction):
    window_BT = torch.randint(0, 50, (4, 7), generator=torch.Generator().manual_seed(0))
    window_BT[1, 4:] = IGNORED
    assert torch.equal(turn(turn(window_BT, direction), direction), window_BT)


def test_the_window_itself_is_left_as_it_is():
    window_BT = torch.tensor([[1, 2, IGNORED]])
    for direction in Direction:
        make_example(window_BT, direction, bos_id=9)
    assert window_BT.tolist() == [[1, 2, IGNORED]]


def test_a_direction_without_an_order_is_refused_not_reversed():
    sideways: Any = "sideways"
    with pytest.raises(ValueError, match="direction=sideways has no order"):
        turn(torch.tensor([[1, 2, 3]]), sideways)
