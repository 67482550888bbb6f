"""Read a text piece by piece: a model computes what is new, and keeps what it needs of the tokens before.

A GPT keeps the keys and values of its layers, a GRU or LSTM their states; a token then costs one step, however long the
text is. A model sees at most context_length tokens, the first id included. When there is no room for more, it begins
again, with the first id and the last half of a context of what was read, computed anew.

Shapes: B rows (texts), T new tokens, N tokens of the context, D d_model, V token ids; H heads, G key and value heads,
R = H / G heads that share one, K numbers in a head.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hindsight.config.model import GPTConfig, RNNConfig


class KeyValues:
    """The keys and values of an attention layer at all tokens that were read."""

    def __init__(self) -> None:
        self.length = 0
        self.k_BGNK: Tensor | None = None
        self.v_BGNK: Tensor | None = None

    def attend(self, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor) -> Tensor:
        """Let each new token attend to itself and to all before it, (B, H, T, K)."""
        T, start = q_BHTK.shape[2], self.length
        self.length += T
        self.k_BGNK = _written(self.k_BGNK, k_BGTK, start)
        self.v_BGNK = _written(self.v_BGNK, v_BGTK, start)
        k_BGNK, v_BGNK = self.k_BGNK[:, :, : self.length], self.v_BGNK[:, :, : self.length]
        repeats = q_BHTK.shape[1] // k_BGTK.shape[1]
        if T == 1:  # heads that share keys take the place of steps, so that no key is copied for each of them
            q_BGRK = q_BHTK.squeeze(2).unflatten(1, (-1, repeats))
            return F.scaled_dot_product_attention(q_BGRK, k_BGNK, v_BGNK).flatten(1, 2)[:, :, None]
        k_BHNK, v_BHNK = k_BGNK.repeat_interleave(repeats, dim=1), v_BGNK.repeat_interleave(repeats, dim=1)
        if start == 0:
            return F.scaled_dot_product_attention(q_BHTK, k_BHNK, v_BHNK, is_causal=True)
        mask_TN = torch.ones(T, self.length, dtype=torch.bool, device=q_BHTK.device).tril(start)
        return F.scaled_dot_product_attention(q_BHTK, k_BHNK, v_BHNK, attn_mask=mask_TN)

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows."""
        if self.k_BGNK is not None and self.v_BGNK is not None:
            self.k_BGNK, self.v_BGNK = self.k_BGNK[rows], self.v_BGNK[rows]


def _written(stored_BGNK: Tensor | None, new_BGTK: Tensor, start: int) -> Tensor:
    """Write behind the first `start` tokens; where there is no room, into a copy of at least twice the size."""
    if stored_BGNK is None:
        stored_BGNK = new_BGTK[:, :, :0]
    T, room = new_BGTK.shape[2], stored_BGNK.shape[2]
    if start + T > room:
        stored_BGNK = F.pad(stored_BGNK, (0, 0, 0, max(T, room)))
    stored_BGNK[:, :, start : start + T] = new_BGTK
    return stored_BGNK


class LayerState:
    """The state of a recurrent layer after all tokens that were read; zero at first."""

    def __init__(self) -> None:
        self.state: Any = None

    def run(self, layer: nn.Module, x_BTD: Tensor) -> Tensor:
        """Return the layer's hidden states at new tokens, (B, T, D)."""
        x_BTD, self.state = layer(x_BTD, self.state)
        return x_BTD

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows."""
        if isinstance(self.state, tuple):  # an LSTM's hidden state and cell
            self.state = tuple(part_1BD[:, rows] for part_1BD in self.state)
        elif self.state is not None:
            self.state = self.state[:, rows]


def empty_past(module: nn.Module) -> list[KeyValues] | list[LayerState] | None:
    """Make what the layers keep before the first token; None for a module that is no GPT or RNN of ours."""
    config = getattr(module, "config", None)
    if isinstance(config, GPTConfig):
        return [KeyValues() for _ in range(config.n_layers)]
    if isinstance(config, RNNConfig):
        return [LayerState() for _ in range(config.n_layers)]
    return None


class Decoder:
    """Reads several texts of one length at once, and says what a model predicts behind them.

    Logits are those of the model on the whole context, up to rounding. A module that is no GPT or RNN of ours computes
    the whole context each time.

    Args:
        module: inputs_BT -> logits_BTV, in evaluation mode.
        start_id: id that begins its inputs; it is read with the first tokens.
        context_length: tokens that the module sees at most, the first id included.
        n_rows: B, until `keep` changes it.
    """

    def __init__(self, module: nn.Module, start_id: int, context_length: int, n_rows: int = 1) -> None:
        self.module: Any = module
        self.context_length = context_length
        self.device = next(module.parameters()).device
        self.context_BN = torch.full((n_rows, 1), start_id, device=self.device)
        self.past = empty_past(module)
        self.n_computed = 0

    @torch.no_grad()
    def read(self, tokens_BT: Tensor) -> Tensor:
        """Read tokens, and return logits_BV, what is predicted behind the last.

        There may be none before anything was read. What does not fit into the context makes it begin again, with the
        last context_length // 2 of all tokens.
        """
        if self.context_BN.shape[1] + tokens_BT.shape[1] > self.context_length:
            self._begin_again(tokens_BT)
        else:
            self.context_BN = torch.cat((self.context_BN, tokens_BT.to(self.device)), dim=1)
        if self.past is None:
            return self.module(self.context_BN)[:, -1]
        new_BT = self.context_BN[:, self.n_computed :]
        self.n_computed = self.context_BN.shape[1]
        return self.module.logits(self.module.hidden(new_BT, past=self.past)[:, -1])

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order; a row that is named several times is continued in several ways."""
        rows_B = torch.tensor(rows, device=self.device)
        self.context_BN = self.context_BN[rows_B]
        for layer in self.past or ():
            layer.keep(rows_B)

    def _begin_again(self, tokens_BT: Tensor) -> None:
        start_B1, read_BN = self.context_BN[:, :1], self.context_BN[:, 1:]
        known_BN = torch.cat((read_BN, tokens_BT.to(self.device)), dim=1)
        kept_BN = known_BN[:, known_BN.shape[1] - self.context_length // 2 :]
        self.context_BN = torch.cat((start_B1, kept_BN), dim=1)
        self.past, self.n_computed = empty_past(self.module), 0
