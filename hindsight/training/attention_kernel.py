"""Whether FlashAttention can run a model on this GPU, which is told before hours go by on a slower kernel."""

import torch
from torch.backends.cuda import SDPAParams, can_use_flash_attention

from hindsight.config.model import GPTConfig
from hindsight.config.training import Precision, TrainConfig


def slow_attention(config: TrainConfig) -> list[str]:
    """Say in a line that FlashAttention cannot run the attention of a model; nothing where it can, or is not meant to.

    It is not for float32, nor for document_mask=true, and PyTorch has it on a CPU for every shape.
    """
    model = config.model
    if not torch.cuda.is_available() or not isinstance(model, GPTConfig):
        return []
    if config.precision is Precision.fp32 or config.document_mask:
        return []
    dtype = torch.bfloat16 if config.precision is Precision.bf16 else torch.float16
    d_head = model.d_model // model.n_heads
    x_BHTK = torch.empty(1, model.n_heads, model.context_length, d_head, dtype=dtype, device="cuda", requires_grad=True)
    if can_use_flash_attention(SDPAParams(x_BHTK, x_BHTK, x_BHTK, None, model.dropout, True, False)):
        return []
    return [
        f"note     attention runs by a slower kernel than FlashAttention, which {torch.cuda.get_device_name()} does "
        f"not support for heads of {d_head} numbers (model.d_model / model.n_heads; at most 256) in "
        f"{config.precision.name}"
    ]
