"""document_mask=true: each document's part of a window is a window of its own, in every order.

The documents of a window are counted in reading order, and turned with its tokens; EOS belongs to the document that it
ends. What the model reads at a step is then the token of the same document that was read last, or BOS.
Shapes: B windows, T tokens.
"""

import torch
from torch import Tensor

from hindsight.orders.examples import IGNORED


def documents_of(window_BT: Tensor, eos_id: int) -> Tensor:
    """Number the document of each token, (B, T) int64, from 0 in each window; padding is a document of its own.

    Args:
        window_BT: token ids in reading order, int64; IGNORED behind the last token of a short window.
        eos_id: id that ends every document.
    """
    ends_BT = window_BT == eos_id
    documents_BT = ends_BT.cumsum(dim=1) - ends_BT.long()
    return documents_BT.masked_fill(window_BT == IGNORED, window_BT.shape[1])


def shift_within(targets_BT: Tensor, documents_BT: Tensor, bos_id: int) -> Tensor:
    """Give what the model reads at each step: the token of the same document that was read last, BOS if there is none.

    Args:
        targets_BT: token ids in the order of the model; IGNORED where there is none.
        documents_BT: their documents, in the same order.
        bos_id: id that starts every input.
    """
    grouped_BT, steps_BT = documents_BT.sort(dim=1, stable=True)
    read_BT = torch.full_like(targets_BT, bos_id)
    goes_on_BT = grouped_BT[:, 1:] == grouped_BT[:, :-1]
    read_BT[:, 1:] = targets_BT.gather(1, steps_BT)[:, :-1].where(goes_on_BT, bos_id)
    inputs_BT = torch.empty_like(targets_BT).scatter(1, steps_BT, read_BT)
    return inputs_BT.masked_fill(inputs_BT == IGNORED, bos_id)


def places_within(documents_BT: Tensor) -> Tensor:
    """Count the earlier steps of the same document, (B, T) int64: where a token is in the document's part."""
    grouped_BT, steps_BT = documents_BT.sort(dim=1, stable=True)
    order_BT = torch.arange(documents_BT.shape[1], device=documents_BT.device).expand_as(documents_BT)
    begins_BT = torch.ones_like(grouped_BT, dtype=torch.bool)
    begins_BT[:, 1:] = grouped_BT[:, 1:] != grouped_BT[:, :-1]
    first_BT = order_BT.masked_fill(~begins_BT, 0).cummax(dim=1).values
    return torch.empty_like(documents_BT).scatter(1, steps_BT, order_BT - first_BT)
