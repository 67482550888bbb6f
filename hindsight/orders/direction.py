"""Turn windows of tokens into (inputs, targets), forward or backward in time.

Nothing else reverses training data (inspect_mds.py reverses what it shows). Shapes: B windows, T tokens. The two
directions are defined in "Arrows of Time for Large Language Models", arXiv:2401.17505, section 2.
"""

import torch
from torch import Tensor

from hindsight.config.direction import Direction

IGNORED = -100
"""Padding behind the tokens of a window that is shorter than T; as a target it is ignored (PyTorch's ignore_index)."""


def turn(window_BT: Tensor, direction: Direction) -> Tensor:
    """Put the tokens of each window into the order in which the model reads them; padding stays at the end.

    Args:
        window_BT: token ids in reading order, int64; IGNORED behind the last token of a short window.
        direction: which end of the window the model sees first.

    Returns:
        The window itself (forward) or with its tokens reversed (backward). Turning twice gives the window back.

    Raises:
        ValueError: no order is known by this name.
    """
    if direction is Direction.forward:
        return window_BT
    if direction is Direction.backward:
        return _reversed(window_BT)
    raise ValueError(f"direction={direction} has no order in which tokens are put; name one of {list(Direction)}.")


def _reversed(window_BT: Tensor) -> Tensor:
    """Reverse the tokens of each window; padding stays at the end."""
    if not _has_padding(window_BT):
        return window_BT.flip(1)
    length_B1 = (window_BT != IGNORED).sum(dim=1, keepdim=True)
    position_T = torch.arange(window_BT.shape[1], device=window_BT.device)
    # Position t gets the token at length-1-t; from t = length on that is negative and, modulo T, lies in the padding.
    return window_BT.gather(1, (length_B1 - 1 - position_T) % window_BT.shape[1])


def make_example(window_BT: Tensor, direction: Direction, bos_id: int) -> tuple[Tensor, Tensor]:
    """Shift right behind BOS, so that both directions score the same T tokens.

    Args:
        window_BT: token ids in reading order, int64; IGNORED behind the last token of a short window.
        direction: which end of the window the model sees first.
        bos_id: id prepended to the inputs; never a target by itself.

    Returns:
        inputs_BT, targets_BT: position t predicts targets_BT[:, t]; targets of padding are IGNORED, its inputs BOS.
    """
    targets_BT = turn(window_BT, direction)
    inputs_BT = torch.empty_like(targets_BT)
    inputs_BT[:, :1] = bos_id
    inputs_BT[:, 1:] = targets_BT[:, :-1]
    if _has_padding(targets_BT):
        inputs_BT.masked_fill_(inputs_BT == IGNORED, bos_id)
    return inputs_BT, targets_BT


def _has_padding(window_BT: Tensor) -> bool:
    """Look at the last position of each window: hardly any batch is padded, and one without padding needs less work."""
    return bool((window_BT[:, -1:] == IGNORED).any())
