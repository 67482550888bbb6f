"""GRU and LSTM language models: embedding, stacked recurrent layers, head. The state starts at zero in each window.

Shapes: B sequences, T tokens, N = B * T, D d_model (width of the embedding and of every layer's hidden state), V
vocab_size.
Sources: GRU is from arXiv:1406.1078, LSTM from Hochreiter and Schmidhuber, 1997; torch.nn documents the equations. With
final_norm they are those of arXiv:2401.17505 (tests/test_published_models.py).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.checkpoint import checkpoint

from hindsight.config.model import Cell, RNNConfig
from hindsight.orders.documents import places_within

if TYPE_CHECKING:
    from hindsight.generation.decoding import LayerState


class RNN(nn.Module):
    """A stack of recurrent layers; position t of its logits predicts target t from inputs 0..t.

    The layers are separate modules, with `nn.Dropout` between them. One `nn.GRU(num_layers=n)` would leave the dropout
    to cuDNN, whose random state is not part of PyTorch's: a resumed run would draw other dropout masks than an
    uninterrupted one.

    The weights are drawn from torch's global random state, which `language_model.build_model` seeds, and by PyTorch's
    defaults: the embedding from N(0, 1), all else uniformly within 1 / sqrt(D). Only a tied embedding is drawn from
    N(0, 1 / D) instead, because N(0, 1) would give large logits in the head. The recurrent weights are not made
    orthogonal: the last bits of an orthogonal matrix depend on the number of threads, and the runs of a pair must start
    from the same weights, bit for bit.

    Args:
        config: sizes and kind of cell.
        vocab_size: number of token ids.
        activation_checkpointing: whether training stores only each layer's input, and computes the other activations
            again in the backward pass.
    """

    def __init__(self, config: RNNConfig, vocab_size: int, activation_checkpointing: bool = False):
        super().__init__()
        self.config = config
        self.activation_checkpointing = activation_checkpointing
        self.embedding = nn.Embedding(vocab_size, config.d_model)
        self.embedding_dropout = nn.Dropout(config.embedding_dropout)
        layer = nn.GRU if config.cell is Cell.gru else nn.LSTM
        self.layers = nn.ModuleList(
            layer(config.d_model, config.d_model, batch_first=True) for _ in range(config.n_layers)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.d_model) if config.final_norm else None
        self.head = nn.Linear(config.d_model, vocab_size, bias=False)
        self.logit_softcap: float | None = None
        if config.tied_head:
            nn.init.normal_(self.embedding.weight, std=config.d_model**-0.5)
            self.head.weight = self.embedding.weight

    def hidden(
        self, inputs_BT: Tensor, documents_BT: Tensor | None = None, past: "list[LayerState] | None" = None
    ) -> Tensor:
        """Return hidden_BTD, the hidden states of the last layer, normed on demand, which are the head's input.

        Args:
            inputs_BT: token ids.
            documents_BT: the document of each, for each of which the state starts at zero; None for one.
            past: of each layer, the state before the first token, while one document is written; it takes in the new.
        """
        x_BTD = self.embedding_dropout(self.embedding(inputs_BT))
        packing = None if documents_BT is None else Packing.of(documents_BT)
        x = x_BTD if packing is None else packing.pack(x_BTD)
        for i, layer in enumerate(self.layers):
            if i > 0:
                x = self.dropout(x)
            if past is not None:
                x = past[i].run(layer, x)
            elif self.activation_checkpointing and self.training:
                x = cast(Tensor, checkpoint(run_layer, layer, x, packing, use_reentrant=False))
            else:
                x = run_layer(layer, x, packing)
        x_BTD = x if packing is None else packing.unpack(x, x_BTD.shape)
        return x_BTD if self.norm is None else self.norm(x_BTD)

    def forward(self, inputs_BT: Tensor, documents_BT: Tensor | None = None) -> Tensor:
        """Return logits_BTV."""
        return self.logits(self.hidden(inputs_BT, documents_BT))

    def logits(self, hidden_BTD: Tensor) -> Tensor:
        """Return logits_BTV of hidden states."""
        return self.head(hidden_BTD)


@dataclass(frozen=True)
class Packing:
    """Documents of any lengths as PyTorch's PackedSequence: their first tokens, then their second ones, and so on.

    Args:
        steps: which of the B * T steps comes first, second, ...
        sizes: how many documents have a first token, a second one, ..., on the CPU.
    """

    steps: Tensor
    sizes: Tensor

    @classmethod
    def of(cls, documents_BT: Tensor) -> "Packing":
        """Pack the documents of a batch, longest first."""
        B, T = documents_BT.shape
        rows_B1 = torch.arange(B, device=documents_BT.device)[:, None]
        documents_N = (documents_BT + rows_B1 * (T + 1)).flatten()
        lengths = documents_N.bincount(minlength=1)
        places_N = places_within(documents_BT).flatten()
        rank = torch.empty_like(lengths)
        rank[lengths.argsort(descending=True, stable=True)] = torch.arange(len(lengths), device=lengths.device)
        steps = (places_N * len(lengths) + rank[documents_N]).argsort()
        return cls(steps, places_N.bincount().cpu())

    def pack(self, x_BTD: Tensor) -> Tensor:
        """Put the steps into the order of the packing, (B * T, D)."""
        return x_BTD.flatten(0, 1)[self.steps]

    def unpack(self, x_ND: Tensor, shape: torch.Size) -> Tensor:
        """Put the steps back into their places, (B, T, D)."""
        return torch.empty_like(x_ND).index_copy(0, self.steps, x_ND).view(shape)


def run_layer(layer: nn.Module, x: Tensor, packing: Packing | None = None) -> Tensor:
    """Return the hidden states of a recurrent layer at each position; the first output of nn.GRU and nn.LSTM."""
    if packing is None:
        return layer(x)[0]
    return layer(PackedSequence(x, packing.sizes))[0].data
