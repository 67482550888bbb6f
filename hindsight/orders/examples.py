"""Turn windows of tokens into (inputs, targets), in the order in which the model reads them.

Nothing else puts training data into another order. Shapes: B windows, T tokens. The two directions are defined in
"Arrows of Time for Large Language Models", arXiv:2401.17505, section 2.
"""

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hindsight.orders.order import FixedOrder, Order

IGNORED = -100
"""Padding behind the tokens of a window that is shorter than T; as a target it is ignored (PyTorch's ignore_index)."""


def permutations(window_BT: Tensor, order: Order) -> Tensor:
    """Give the position of each window that the model reads at each step; padding stays at the end.

    Args:
        window_BT: token ids in reading order, int64; IGNORED behind the last token of a short window.
        order: the order in which the model reads.

    Returns:
        (B, T) int64: a loss at step t of window b belongs to the token at position [b, t].
    """
    T = window_BT.shape[1]
    if isinstance(order, FixedOrder) and len(order.positions_T) == T and not _has_padding(window_BT):
        return torch.as_tensor(order.positions_T).expand_as(window_BT)
    rows_BT = cast("NDArray[np.int64]", np.asarray(window_BT))
    return torch.as_tensor(order.permutations(rows_BT, (rows_BT != IGNORED).sum(axis=1)))


def turn(window_BT: Tensor, order: Order) -> Tensor:
    """Put the tokens of each window into the order in which the model reads them; padding stays at the end.

    Args:
        window_BT: token ids in reading order, int64; IGNORED behind the last token of a short window.
        order: the order in which the model reads.

    Returns:
        The tokens in that order, (B, T); `turn_back` gives the window again.
    """
    if order.name == "forward":
        return window_BT
    return window_BT.gather(1, permutations(window_BT, order))


def turn_back(turned_BT: Tensor, positions_BT: Tensor) -> Tensor:
    """Put what is in the order of the model, such as losses, back into reading order: the inverse of `turn`.

    Args:
        turned_BT: a value for each step.
        positions_BT: `permutations` of the windows.
    """
    return torch.empty_like(turned_BT).scatter(1, positions_BT, turned_BT)


def make_example(window_BT: Tensor, order: Order, bos_id: int) -> tuple[Tensor, Tensor]:
    """Shift right behind BOS, so that every order scores the same T tokens.

    Args:
        window_BT: token ids in reading order, int64; IGNORED behind the last token of a short window.
        order: the order in which the model reads.
        bos_id: id prepended to the inputs; never a target by itself.

    Returns:
        inputs_BT, targets_BT: position t predicts targets_BT[:, t]; targets of padding are IGNORED, its inputs BOS.
    """
    targets_BT = turn(window_BT, order)
    inputs_BT = torch.empty_like(targets_BT)
    inputs_BT[:, :1] = bos_id
    inputs_BT[:, 1:] = targets_BT[:, :-1]
    if _has_padding(targets_BT):
        inputs_BT.masked_fill_(inputs_BT == IGNORED, bos_id)
    return inputs_BT, targets_BT


def _has_padding(window_BT: Tensor) -> bool:
    """Look at the last position of each window: hardly any batch is padded, and one without padding needs less work."""
    return bool((window_BT[:, -1:] == IGNORED).any())
