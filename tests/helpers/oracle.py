"""A Markov source whose losses are known, and a GPT whose weights are the answer.

From state x the source goes to x, x + 1, ..., x + m - 1 (modulo k), each with probability 1 / m, so that states are
uniform and every possible transition costs the same: ln m nats forward as backward, and ln k nats without context. The
mutual information of two neighbours is ln(k / m) nats, in every text and not only on average.
"""

import math
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hindsight.config.model import GPTConfig

K, M = 10, 4
"""States, and those that may follow each."""
FORWARD_NATS, UNIGRAM_NATS = math.log(M), math.log(K)
NEVER_NATS = 40.0
"""Stands for an infinite loss; e**-40 of probability is lost in float32."""
FIRST_ID = 20
"""Token id of state 0."""
MODEL = ["model=gpt_nano", "model.n_layers=1", f"model.d_model={K + 4}", "model.n_heads=1", "model.mlp_ratio=1"]


def write_source(path: Path, n_pieces: int, length: int, seed: int) -> None:
    """Write a file of tokens, in pieces that begin with state 0 and may stand behind each other in any order."""
    rng = np.random.default_rng(seed)
    pieces = np.empty((n_pieces, length), np.int64)
    for piece in pieces:
        piece[0] = 0
        for i in range(1, length):
            following = (piece[i - 1] + np.arange(M)) % K
            # State 0 must be near enough to begin the next piece.
            piece[i] = rng.choice(following[-following % K <= (M - 1) * (length - i)])
    with h5py.File(path, "w") as file:
        file["tokens"] = (pieces.ravel() + FIRST_ID).astype(np.uint16)


def exact_logits(order: str) -> NDArray[np.float64]:
    """Logits of the next state (row) after each state read, in an order; (K, K)."""
    states = np.arange(K)
    steps = (states[:, None] - states[None, :]) % K
    if order == "backward":
        steps = -steps % K
    return np.where(steps < M, -math.log(M), -NEVER_NATS)


def unigram_logits() -> NDArray[np.float64]:
    """Logits of the next state, whatever was read; (K, K)."""
    return np.full((K, K), -math.log(K))


@torch.no_grad()
def answer_with(model: nn.Module, config: GPTConfig, logits: NDArray[np.float64], bos_id: int) -> None:
    """Set the weights so that the logits depend on the last input alone: after BOS every state is as likely.

    Attention and MLP add nothing. An input is embedded as a unit vector; LayerNorm takes off its mean 1 / D and divides
    by s, so a row of the head with sum 0 and the entries s * logit gives the logits.
    """
    D, weights = config.d_model, dict(model.named_parameters())
    for name, weight in weights.items():
        weight.fill_(1.0 if name.endswith("norm.weight") else 0.0)
    embedding_VD, head_VD = weights["embedding.weight"], weights["head.weight"]
    embedding_VD[FIRST_ID : FIRST_ID + K, :K] = torch.eye(K)
    embedding_VD[bos_id, K] = 1
    scale = math.sqrt((1 / D) * (1 - 1 / D) + config.norm_eps)
    rows = torch.zeros(head_VD.shape, dtype=torch.float64)
    rows[:, : K + 1] = -NEVER_NATS
    rows[FIRST_ID : FIRST_ID + K, :K] = torch.from_numpy(logits)
    rows[FIRST_ID : FIRST_ID + K, K] = -math.log(K)
    rows *= scale
    rows[:, K + 1] = -rows.sum(dim=1)
    head_VD.copy_(rows)
