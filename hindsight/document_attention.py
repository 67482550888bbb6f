"""Attention within documents: to earlier steps of the same document only.

On a GPU by FlexAttention (https://pytorch.org/docs/2.7/nn.attention.flex_attention.html), which skips blocks without a
pair of one document; elsewhere, and in training with dropout, which it lacks, by PyTorch's attention with a mask.
Shapes: B sequences, T tokens, H heads, K numbers in a head.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

SMALLEST_HEAD = 16
"""Numbers in a head that FlexAttention's kernel needs."""


def mask_of(documents_BT: Tensor, d_head: int, dropout: float) -> "Tensor | BlockMask":
    """Make the mask that all layers share, for `attend_within`.

    Args:
        documents_BT: the document of each step.
        d_head: numbers in a head.
        dropout: share of the attention weights that is dropped; 0 in an evaluation.

    Returns:
        (B, 1, T, T) bool, True where a step attends to another; or a BlockMask.
    """
    if documents_BT.is_cuda and dropout == 0.0 and d_head >= SMALLEST_HEAD:
        return block_mask_of(documents_BT)
    T = documents_BT.shape[1]
    causal_TT = torch.ones(T, T, dtype=torch.bool, device=documents_BT.device).tril()
    return ((documents_BT[:, :, None] == documents_BT[:, None, :]) & causal_TT)[:, None]


@torch.compiler.disable
def block_mask_of(documents_BT: Tensor) -> "BlockMask":
    """Make the mask of FlexAttention."""
    from torch.nn.attention.flex_attention import create_block_mask  # here: few runs need it

    def attends(b: Tensor, h: Tensor, step: Tensor, other: Tensor) -> Tensor:
        return (step >= other) & (documents_BT[b, step] == documents_BT[b, other])

    B, T = documents_BT.shape
    return create_block_mask(attends, B, None, T, T, device=str(documents_BT.device))


def attend_within(q_BHTK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, mask: "Tensor | BlockMask", dropout: float) -> Tensor:
    """Mix the values by attention under a mask of `mask_of`, (B, H, T, K)."""
    if isinstance(mask, Tensor):
        return F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, attn_mask=mask, dropout_p=dropout)
    from torch.nn.attention.flex_attention import flex_attention

    attend: Any = flex_attention if torch.compiler.is_compiling() else _compiled()  # or as a part of the model
    return attend(q_BHTK, k_BHTK, v_BHTK, block_mask=mask)


@lru_cache(1)
def _compiled() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)
