"""Muon for the matrices of the layers, AdamW for all else, in one optimizer: Composer 0.32.1 takes no second one.

Sources: Keller Jordan's Muon (https://kellerjordan.github.io/posts/muon/), which makes the momentum of a matrix nearly
orthogonal before it is subtracted, with its coefficients and its advice to take queries, keys and values apart. The
size of the update is that of arXiv:2502.16982: one learning rate and one weight decay serve both kinds of weights.

torch.optim.Muon, which PyTorch has from 2.9 on, is not used. It takes a stacked matrix only as a whole, and no weights
for AdamW; and it computes in bfloat16 on every processor. tests/test_muon.py compares the two where PyTorch has it.
Delete `orthogonal` and `_update` with a PyTorch that takes the parts of a matrix.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of x, x^3 and x^5 in a step of the iteration: they bring all singular values between about 0.7 and 1.2."""
ITERATIONS = 5
SMALLEST_NORM = 1e-7
"""Least norm that a matrix is divided by."""
RMS = 0.2
"""Root of the mean square of an update at a learning rate of 1, which is about that of AdamW's (arXiv:2502.16982)."""
IN_A_LAYER = re.compile(r"(^|\.)(blocks|layers)\.\d+\.")
QKV, GATES = ".qkv.weight", re.compile(r"\.weight_[ih]h_l0$")
"""Names of weights that are several matrices, one below the other: gpt.py's attention, PyTorch's GRU and LSTM."""


def matrices_of(model: nn.Module) -> dict[nn.Parameter, list[int]]:
    """Give the weights that Muon updates, each with the rows of the matrices that it stacks.

    These are all weights of two dimensions in blocks (GPT) or layers (GRU, LSTM) that are trained. Queries, keys and
    values are a matrix each, and so is each gate.
    """
    inside = [(name, weight) for name, weight in model.named_parameters() if IN_A_LAYER.search(name)]
    return {weight: _rows(name, *weight.shape) for name, weight in inside if weight.ndim == 2 and weight.requires_grad}


def _rows(name: str, n_rows: int, n_columns: int) -> list[int]:
    if name.endswith(QKV):  # as many queries as the residual stream is wide; fewer keys and values with n_kv_heads
        return [n_columns, (n_rows - n_columns) // 2, (n_rows - n_columns) // 2]
    return [n_columns] * (n_rows // n_columns) if GATES.search(name) else [n_rows]


def orthogonal(matrix_RC: Tensor, dtype: torch.dtype) -> Tensor:
    """Give the matrix with the same singular vectors whose singular values are all about 1, (R, C).

    Args:
        matrix_RC: any matrix; of zeros, the result is zeros.
        dtype: number format of the iteration and of the result.
    """
    a, b, c = COEFFICIENTS
    is_tall = matrix_RC.shape[0] > matrix_RC.shape[1]
    x = (matrix_RC.T if is_tall else matrix_RC).to(dtype)
    x = x / x.norm().clamp(min=SMALLEST_NORM)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x


class Muon(torch.optim.Optimizer):
    """The first parameter group is Muon's, the others are AdamW's. Weights without a gradient stay as they are.

    Every rank computes all of it from the gradient that they have in common.

    Args:
        matrices: the weights of Muon, from `matrices_of`.
        others: parameter groups of all other weights, each with its weight_decay.
        lr: learning rate of all.
        weight_decay: that of the matrices.
        momentum: decay rate of the running mean of their gradient.
        betas: AdamW's.
        eps: AdamW's.
        dtype: number format of the iteration; None for bfloat16 on a GPU, where it is meant to be fast, and float32 on
            a CPU, many of which have no bfloat16.
    """

    def __init__(
        self,
        matrices: Mapping[nn.Parameter, list[int]],
        others: Sequence[dict[str, Any]],
        lr: float,
        weight_decay: float,
        momentum: float,
        betas: tuple[float, float],
        eps: float,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.rows, self.dtype = matrices, dtype
        self.adamw = torch.optim.AdamW(others, lr=lr, betas=betas, eps=eps, fused=True)
        first = {"params": [*matrices], "weight_decay": weight_decay, "momentum": momentum}
        super().__init__([first, *self.adamw.param_groups], {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride] - PyTorch declares it as two overloads
        """Update all weights that have a gradient, after what Composer computes it with."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        matrices, *others = self.param_groups
        self.adamw.param_groups, self.adamw.state = others, self.state  # loading a state makes new ones
        self.adamw.step()
        for weight in matrices["params"]:
            if weight.grad is not None:
                self._update(weight, matrices)
        return loss

    def _update(self, weight: Tensor, group: Mapping[str, Any]) -> None:
        state, lr, gradient = self.state[weight], group["lr"], weight.grad
        assert gradient is not None
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        mean = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        update = gradient.lerp(mean, group["momentum"])  # Nesterov's
        dtype = self.dtype or (torch.bfloat16 if weight.is_cuda else torch.float32)
        weight.mul_(1 - lr * group["weight_decay"])
        rows = self.rows[weight]  # pyright: ignore[reportArgumentType]
        for part, of_part in zip(weight.split(rows), update.split(rows), strict=True):
            part.add_(orthogonal(of_part, dtype), alpha=-lr * RMS * math.sqrt(max(part.shape)))
