"""Turn windows of tokens into (inputs, targets), forward or backward in time.

The only place where training data is turned round. Shapes: B windows, T tokens. Definition of the two directions:
"Arrows of Time for Large Language Models", arXiv:2401.17505, section 2.
"""

import torch
from torch import Tensor

from hindsight.config.direction import Direction

IGNORED = -100
"""Marks what fills up a window that is shorter than T; as a target it counts for nothing (PyTorch's ignore_index)."""


def turn(window_BT: Tensor, direction: Direction) -> Tensor:
    """Give the tokens in the order in which the model reads them; what fills up a short window stays at its end.

    Args:
        window_BT: token ids in reading order, int64; IGNORED after the last token of a short window.
        direction: which end of the window the model sees first.

    Returns:
        The window itself (forward) or with its tokens reversed (backward). Turning twice gives the window back.
    """
    if direction is Direction.forward:
        return window_BT
    if not _any_short(window_BT):
        return window_BT.flip(1)
    length_B1 = (window_BT != IGNORED).sum(dim=1, keepdim=True)
    position_T = torch.arange(window_BT.shape[1], device=window_BT.device)
    # Position length-1-t holds the token; from t = length on it is negative and, modulo T, stays in the filling.
    return window_BT.gather(1, (length_B1 - 1 - position_T) % window_BT.shape[1])


def make_example(window_BT: Tensor, direction: Direction, bos_id: int) -> tuple[Tensor, Tensor]:
    """Shift right behind BOS, so that both directions score the same T tokens.

    Args:
        window_BT: token ids in reading order, int64; IGNORED after the last token of a short window.
        direction: which end of the window the model sees first.
        bos_id: id prepended to the inputs; never a target by itself.

    Returns:
        inputs_BT, targets_BT: position t predicts targets_BT[:, t]; targets are IGNORED where there is no token.
    """
    targets_BT = turn(window_BT, direction)
    inputs_BT = torch.empty_like(targets_BT)
    inputs_BT[:, :1] = bos_id
    inputs_BT[:, 1:] = targets_BT[:, :-1]
    if _any_short(targets_BT):
        inputs_BT.masked_fill_(inputs_BT == IGNORED, bos_id)
    return inputs_BT, targets_BT


def _any_short(window_BT: Tensor) -> bool:
    """Tell whether a window is filled up, by its end: almost no batch has one, and whole windows need less work."""
    return bool((window_BT[:, -1:] == IGNORED).any())
