"""GRU and LSTM language models: embedding, stacked recurrent layers, head. The state starts at zero in each window.

Shapes: B sequences, T tokens, D d_model (width of the embedding and of every layer's hidden state), V vocab_size.
Sources: GRU is from arXiv:1406.1078, LSTM from Hochreiter and Schmidhuber, 1997; torch.nn documents the equations. With
final_norm they are those of arXiv:2401.17505 (tests/test_published_models.py).
"""

from typing import cast

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hindsight.config.model import Cell, RNNConfig


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
        if config.tied_head:
            nn.init.normal_(self.embedding.weight, std=config.d_model**-0.5)
            self.head.weight = self.embedding.weight

    def hidden(self, inputs_BT: Tensor) -> Tensor:
        """Return hidden_BTD, the hidden states of the last layer, normed on demand, which are the head's input."""
        x_BTD = self.embedding_dropout(self.embedding(inputs_BT))
        for i, layer in enumerate(self.layers):
            if i > 0:
                x_BTD = self.dropout(x_BTD)
            if self.activation_checkpointing and self.training:
                x_BTD = cast(Tensor, checkpoint(run_layer, layer, x_BTD, use_reentrant=False))
            else:
                x_BTD = run_layer(layer, x_BTD)
        return x_BTD if self.norm is None else self.norm(x_BTD)

    def forward(self, inputs_BT: Tensor) -> Tensor:
        """Return logits_BTV."""
        return self.head(self.hidden(inputs_BT))


def run_layer(layer: nn.Module, x_BTD: Tensor) -> Tensor:
    """Return the hidden states of a recurrent layer at each position; the first output of nn.GRU and nn.LSTM."""
    return layer(x_BTD)[0]
