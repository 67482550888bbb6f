"""What is measured against: models in plain PyTorch, by their definitions, with a plain loss.

GPT-2 is that of "Language Models are Unsupervised Multitask Learners" (Radford et al., 2019). Shapes: B windows, T
tokens, D d_model, H heads, K = D / H.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hindsight.config.model import Activation, Cell, GPTConfig, ModelConfig, RNNConfig


class PlainBlock(nn.Module):
    """A block of GPT-2: attention and MLP, each behind a LayerNorm."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        D = config.d_model
        self.n_heads, self.dropout = config.n_heads, config.dropout
        self.norms = nn.ModuleList(nn.LayerNorm(D, eps=config.norm_eps) for _ in range(2))
        self.qkv, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.up, self.down = nn.Linear(D, config.d_hidden), nn.Linear(config.d_hidden, D)
        self.approximate = "tanh" if config.activation is Activation.gelu_tanh else "none"

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Add attention and MLP to the residual stream."""
        q_BHTK, k_BHTK, v_BHTK = (
            part_BTD.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
            for part_BTD in self.qkv(self.norms[0](x_BTD)).chunk(3, dim=-1)
        )
        dropout = self.dropout if self.training else 0.0
        mixed_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, dropout_p=dropout, is_causal=True)
        x_BTD = x_BTD + F.dropout(self.out(mixed_BHTK.transpose(1, 2).flatten(2)), self.dropout, self.training)
        hidden = F.gelu(self.up(self.norms[1](x_BTD)), approximate=self.approximate)
        return x_BTD + F.dropout(self.down(hidden), self.dropout, self.training)


class PlainGPT2(nn.Module):
    """GPT-2 up to its last LayerNorm.

    Args:
        config: our model; its block is gpt2.
        vocab_size: number of token ids.
    """

    def __init__(self, config: GPTConfig, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, config.d_model)
        self.positions = nn.Embedding(config.context_length, config.d_model)
        self.dropout = nn.Dropout(config.embedding_dropout)
        self.blocks = nn.Sequential(*(PlainBlock(config) for _ in range(config.n_layers)))
        self.norm = nn.LayerNorm(config.d_model, eps=config.norm_eps)

    def forward(self, inputs_BT: Tensor) -> Tensor:
        """Return the residual stream after the last norm, (B, T, D)."""
        places_T = torch.arange(inputs_BT.shape[1], device=inputs_BT.device)
        return self.norm(self.blocks(self.dropout(self.embedding(inputs_BT) + self.positions(places_T))))


class PlainRNN(nn.Module):
    """One nn.LSTM or nn.GRU of several layers behind an embedding.

    Args:
        config: our model.
        vocab_size: number of token ids.
    """

    def __init__(self, config: RNNConfig, vocab_size: int) -> None:
        super().__init__()
        D = config.d_model
        self.embedding = nn.Embedding(vocab_size, D)
        self.dropout = nn.Dropout(config.embedding_dropout)
        kind = nn.GRU if config.cell is Cell.gru else nn.LSTM
        self.layers = kind(D, D, num_layers=config.n_layers, batch_first=True, dropout=config.dropout)
        self.norm = nn.LayerNorm(D) if config.final_norm else nn.Identity()

    def forward(self, inputs_BT: Tensor) -> Tensor:
        """Return the hidden states of the last layer, (B, T, D)."""
        return self.norm(self.layers(self.dropout(self.embedding(inputs_BT)))[0])


class PlainModel(nn.Module):
    """A plain GPT-2, LSTM or GRU with a head and PyTorch's cross-entropy.

    Args:
        config: our model, of which it has the shape.
        vocab_size: number of token ids.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        if isinstance(config, RNNConfig):
            self.body = PlainRNN(config, vocab_size)
        else:
            assert isinstance(config, GPTConfig)
            self.body = PlainGPT2(config, vocab_size)
        self.head = nn.Linear(config.d_model, vocab_size, bias=False)
        nn.init.normal_(self.body.embedding.weight, std=0.02)
        if config.tied_head:
            self.head.weight = self.body.embedding.weight

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss of a batch: {"input_ids", "targets"} -> {"loss"}, mean nats per token."""
        logits_BTV = self.head(self.body(batch["input_ids"]))
        return {"loss": F.cross_entropy(logits_BTV.flatten(0, 1), batch["targets"].flatten())}
