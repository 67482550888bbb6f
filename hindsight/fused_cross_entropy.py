"""Head and cross-entropy over a few rows at a time, so that the logits of a batch are never there all at once.

The gradient of the *sum* of the losses is taken in the forward pass, while a chunk's logits are there, and put in their
place; the backward pass only multiplies it by the number that it is given. So fewer passes go over the logits, and
float16 loses no small gradient before the loss is scaled. What is kept for the backward pass has the sizes of the
hidden states and of the head's weight.

Shapes: N predictions, C of a chunk, D d_model, V token ids, P of them with padding.
Source: the idea is Liger Kernel's (arXiv:2410.10989).
"""

import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from hindsight.chunk_rows import rows_of
from hindsight.config.training import Loss
from hindsight.errors import InputError
from hindsight.orders.examples import IGNORED

PADDED_TO = 64
"""Token ids of a matrix product in half precision on a GPU are a multiple of it: others take its slower kernels."""
OLDEST_LIGER = (0, 8)
"""Version whose loss says which tokens it predicted."""


class Scores(NamedTuple):
    """What is known of a batch's predictions."""

    total: Tensor
    """Sum of the nats, shape (), which has a gradient."""
    nats: Tensor
    """Cross-entropy of each target in float32, 0 where it is IGNORED, shape (N,); or their sum; without gradient."""
    correct: Tensor
    """Whether no logit is larger than the target's; False where it is IGNORED, shape (N,)."""


def linear_cross_entropy(
    hidden: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    softcap: float | None = None,
    *,
    rows: int | None = None,
    padded_to: int | None = None,
    compiled: bool | None = None,
) -> Scores:
    """Score the predictions of a head without bias; equal, to rounding, to the cross-entropy of all logits.

    Under autocast the products are in its type; soft-max and sums are in float32.

    Args:
        hidden: the head's inputs, (N, D) or (B, T, D).
        weight_VD: the head's weight.
        targets_N: token ids, int64, or IGNORED.
        softcap: logits are softcap * tanh(logits / softcap); None for as they are.
        rows: rows of a chunk; None for what suits device and vocabulary.
        padded_to: the products take a multiple of so many token ids; None for what suits device and type.
        compiled: whether the soft-max is compiled; None for: if the model is, but not in float32 on a CPU, which gains
            nothing by it.
    """
    hidden_ND = hidden.reshape(-1, hidden.shape[-1])
    kind = hidden.device.type
    dtype = _product_dtype(hidden_ND, weight_VD)
    is_half = dtype.itemsize == 2
    if padded_to is None:
        padded_to = PADDED_TO if kind == "cuda" and is_half else 1
    if compiled is None:
        compiled = torch.compiler.is_compiling() and (kind == "cuda" or is_half)
    how = (dtype, softcap, rows or rows_of(len(targets_N), len(weight_VD), kind, is_half), padded_to, compiled)
    wanted = (torch.is_grad_enabled() and each.requires_grad for each in (hidden_ND, weight_VD))
    total, nats_N, correct_N, _, _ = score_chunks(hidden_ND, weight_VD, targets_N, *how, *wanted)
    return Scores(total, nats_N.detach(), correct_N)


def in_chunks(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    dtype: torch.dtype,
    softcap: float | None,
    rows: int,
    padded_to: int,
    compiled: bool,
    wants_hidden: bool,
    wants_weight: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Score predictions chunk by chunk.

    Returns:
        The fields of Scores, and the gradients of the total by hidden states and weight, empty where they are not
        wanted.
    """
    N, V = len(targets_N), len(weight_VD)
    P = -(-V // padded_to) * padded_to
    weight_PD = weight_VD.to(dtype) if P == V else F.pad(weight_VD.to(dtype), (0, 0, 0, P - V))
    nats_N = hidden_ND.new_empty(N, dtype=torch.promote_types(dtype, torch.float32))
    correct_N = hidden_ND.new_empty(N, dtype=torch.bool)
    grad_hidden_ND = torch.empty_like(hidden_ND) if wants_hidden else hidden_ND.new_empty(0)
    grad_weight_PD = weight_VD.new_zeros(P, weight_VD.shape[1]) if wants_weight else weight_VD.new_empty(0)
    logits_RP = weight_PD.new_empty(min(rows, N), P)
    take = _compiled_cross_entropy_grad() if compiled else cross_entropy_grad_
    with torch.autocast(hidden_ND.device.type, enabled=False):
        for start in range(0, N, rows):
            chunk = slice(start, start + rows)
            hidden_CD, logits_CP = hidden_ND[chunk].to(dtype), logits_RP[: N - start]
            torch.mm(hidden_CD, weight_PD.T, out=logits_CP)
            ids_C1, counts_C1 = targets_N[chunk, None].clamp(min=0), targets_N[chunk, None] != IGNORED
            logits_CV = logits_CP[:, :V]  # those of padding are 0, as is their gradient
            nats_N[chunk], correct_N[chunk], softcap_grad_C1 = take(logits_CV, ids_C1, counts_C1, softcap)
            if not (wants_hidden or wants_weight):
                continue
            # p - 1, where p may round to 1 in half precision; it is 0 where the target is IGNORED.
            logits_CV.scatter_(1, ids_C1, (torch.expm1(-nats_N[chunk, None]) * softcap_grad_C1).to(dtype))
            if wants_hidden and hidden_ND.dtype == dtype:
                torch.mm(logits_CP, weight_PD, out=grad_hidden_ND[chunk])
            elif wants_hidden:
                grad_hidden_ND[chunk] = logits_CP @ weight_PD
            if wants_weight and grad_weight_PD.dtype == dtype:
                grad_weight_PD.addmm_(logits_CP.T, hidden_CD)
            elif wants_weight:
                grad_weight_PD += logits_CP.T @ hidden_CD
    return nats_N.sum(), nats_N, correct_N, grad_hidden_ND, grad_weight_PD[:V]


score_chunks = torch.library.custom_op("hindsight::score_chunks", in_chunks, mutates_args=())
"""`in_chunks` as an operator, so that torch.compile takes the loop as one and unrolls nothing."""


@score_chunks.register_fake
def _(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, dtype: torch.dtype, *how: Any) -> tuple[Tensor, ...]:
    wants_hidden, wants_weight = how[-2:]
    nats_N = hidden_ND.new_empty(len(targets_N), dtype=torch.promote_types(dtype, torch.float32))
    return (
        nats_N.sum(),
        nats_N,
        hidden_ND.new_empty(len(targets_N), dtype=torch.bool),
        torch.empty_like(hidden_ND) if wants_hidden else hidden_ND.new_empty(0),
        torch.empty_like(weight_VD) if wants_weight else weight_VD.new_empty(0),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.wanted = inputs[-2:]
    ctx.save_for_backward(*output[-2:])
    ctx.set_materialize_grads(False)


def _multiply(ctx: Any, grad_total: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    gradients = (
        gradient * grad_total if wanted and grad_total is not None else None
        for gradient, wanted in zip(ctx.saved_tensors, ctx.wanted, strict=True)
    )
    return (*gradients, *[None] * 8)


score_chunks.register_autograd(_multiply, setup_context=_keep)


def cross_entropy_grad_(
    logits_CV: Tensor, ids_C1: Tensor, counts_C1: Tensor, softcap: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Put the gradient of each row's nats into the place of its logits, but for the target's own column.

    Returns:
        nats_C, correct_C, and the derivative of the target's logit by what it was before softcap.
    """
    x_CV = logits_CV if logits_CV.dtype.itemsize >= 4 else logits_CV.float()
    softcap_grad_CV = None
    if softcap is not None:
        x_CV.div_(softcap).tanh_()
        softcap_grad_CV = x_CV.square().neg_().add_(1)
        x_CV.mul_(softcap)
    max_C1, target_C1 = x_CV.amax(1, keepdim=True), x_CV.gather(1, ids_C1)
    correct_C = ((target_C1 >= max_C1) & counts_C1).squeeze(1)
    x_CV.sub_(max_C1).exp_()
    sum_C1 = x_CV.sum(1, keepdim=True)
    nats_C = ((sum_C1.log() + max_C1 - target_C1) * counts_C1).squeeze(1)
    x_CV.mul_(counts_C1 / sum_C1)
    if softcap_grad_CV is not None:
        x_CV.mul_(softcap_grad_CV)
    softcap_grad_C1 = torch.ones_like(target_C1) if softcap_grad_CV is None else softcap_grad_CV.gather(1, ids_C1)
    if x_CV is not logits_CV:
        logits_CV.copy_(x_CV)
    return nats_C, correct_C, softcap_grad_C1


@cache
def _compiled_cross_entropy_grad() -> Any:
    return torch.compile(cross_entropy_grad_)


def require_liger(loss: Loss) -> None:
    """Raise InputError where loss=liger is asked for and cannot run here."""
    if loss is not Loss.liger:
        return
    try:
        installed = version("liger-kernel")
    except PackageNotFoundError:
        installed = None
    if (missing := missing_for_liger(installed, torch.cuda.is_available())) is not None:
        raise InputError(f"loss=liger needs {missing}.")


def missing_for_liger(installed: str | None, has_gpu: bool) -> str | None:
    """Say what loss=liger lacks with a version of Liger Kernel, and how to mend it; None if it lacks nothing."""
    if not has_gpu:
        return "a GPU; use loss=chunked here"
    way_out = "`pip install --upgrade liger-kernel`, or use loss=chunked"
    if installed is None:
        return f"Liger Kernel; {way_out}"
    if tuple(map(int, re.findall(r"\d+", installed)[:2])) < OLDEST_LIGER:
        return f"Liger Kernel {'.'.join(map(str, OLDEST_LIGER))} or later, and {installed} is installed; {way_out}"
    return None


def liger_cross_entropy(hidden: Tensor, weight_VD: Tensor, targets_N: Tensor, softcap: float | None = None) -> Scores:
    """Score predictions with gradient by Liger Kernel; only the sum of the nats is known."""
    from liger_kernel.transformers import (  # pyright: ignore[reportMissingImports] - optional, for a GPU
        LigerFusedLinearCrossEntropyLoss,
    )

    dtype = _product_dtype(hidden, weight_VD)
    score = LigerFusedLinearCrossEntropyLoss(
        ignore_index=IGNORED,
        reduction="sum",
        softcap=softcap,
        accum_dtype=torch.float32,
        return_predicted_tokens=True,
    )
    found = score(weight_VD.to(dtype), hidden.flatten(0, -2).to(dtype), targets_N)
    return Scores(found.loss, found.loss.detach(), found.predicted_tokens == targets_N)


def _product_dtype(hidden: Tensor, weight_VD: Tensor) -> torch.dtype:
    """Type of the products of a head: under autocast, autocast's."""
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight_VD.dtype
