"""GPT: a decoder-only transformer with pre-norm blocks: GPT-2's, Llama's, or a modern one.

Shapes: B sequences, T tokens, D d_model, V vocab_size, H heads, G key and value heads, K = D / H numbers in a head,
F = round(mlp_ratio * D) numbers in the MLP's hidden layer.

Sources: block=gpt2 and the initialisation are from "Language Models are Unsupervised Multitask Learners" (Radford et
al., 2019); block=llama is from arXiv:2302.13971, with RMSNorm (arXiv:1910.07467), rotary positions (arXiv:2104.09864),
SwiGLU (arXiv:2002.05202) and grouped-query attention (arXiv:2305.13245). With the same weights, the logits are those of
Hugging Face's models (tests/test_gpt.py; hindsight/hf_weights.py has their names of the weights). activation=gelu and
init=torch make the GPT of arXiv:2401.17505 (tests/test_published_models.py).

block=modern is block=llama with QK-norm (arXiv:2010.04245), an MLP with ReLU² (arXiv:2109.08668) or another activation,
and a soft-cap of the logits on demand (Gemma 2, arXiv:2408.00118), as in https://github.com/karpathy/nanochat and
https://github.com/KellerJordan/modded-nanogpt, which tried many changes for the speed of training.
"""

import math
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from hindsight.config.model import Activation, Block, GPTConfig, Init
from hindsight.document_attention import attend_within, mask_of
from hindsight.errors import InputError
from hindsight.orders.documents import places_within

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

    from hindsight.generation.decoding import KeyValues

INIT_STD = 0.02
Rotation: TypeAlias = "tuple[Tensor, Tensor] | None"
Mask: TypeAlias = "Tensor | BlockMask | None"
Past: TypeAlias = "KeyValues | None"


class Attention(nn.Module):
    """Causal self-attention: `qkv` holds the rows of the queries, then of the keys, then of the values."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.n_heads = config.n_heads
        self.n_kv_heads = config.n_key_value_heads
        self.d_head = config.d_model // config.n_heads
        self.dropout = config.dropout
        self.qk_norm_eps = config.norm_eps if config.block is Block.modern else None
        bias = config.has_bias
        self.qkv = nn.Linear(config.d_model, (self.n_heads + 2 * self.n_kv_heads) * self.d_head, bias=bias)
        self.out = nn.Linear(config.d_model, config.d_model, bias=bias)

    def forward(self, x_BTD: Tensor, rotation: Rotation, mask: Mask = None, past: Past = None) -> Tensor:
        """Let each position attend to itself and to those before it.

        Args:
            x_BTD: the residual stream after the norm.
            rotation: cos_TK and sin_TK of `rotary_angles`; None if positions are learned.
            mask: what each position attends to, from `mask_of`; None for all before it.
            past: what is before the first position, while a text is written.

        Returns:
            out_BTD, to be added to the residual stream.
        """
        q_size, kv_size = self.n_heads * self.d_head, self.n_kv_heads * self.d_head
        q, k, v = self.qkv(x_BTD).split([q_size, kv_size, kv_size], dim=-1)
        q_BHTK = q.unflatten(-1, (self.n_heads, self.d_head)).transpose(1, 2)
        k_BGTK = k.unflatten(-1, (self.n_kv_heads, self.d_head)).transpose(1, 2)
        v_BGTK = v.unflatten(-1, (self.n_kv_heads, self.d_head)).transpose(1, 2)
        if self.qk_norm_eps is not None:
            q_BHTK, k_BGTK = qk_norm(q_BHTK, self.qk_norm_eps), qk_norm(k_BGTK, self.qk_norm_eps)
        if rotation is not None:
            q_BHTK, k_BGTK = rotate(q_BHTK, *rotation), rotate(k_BGTK, *rotation)
        if past is not None:
            return self.out(past.attend(q_BHTK, k_BGTK, v_BGTK).transpose(1, 2).flatten(2))
        # Repeated here and not by enable_gqa=True, which the memory-efficient kernel (fp32 on a GPU) does not support:
        # PyTorch would fall back to a kernel that stores all T x T attention weights.
        repeats = self.n_heads // self.n_kv_heads
        k_BHTK = k_BGTK.repeat_interleave(repeats, dim=1) if repeats > 1 else k_BGTK
        v_BHTK = v_BGTK.repeat_interleave(repeats, dim=1) if repeats > 1 else v_BGTK
        dropout = self.dropout if self.training else 0.0
        if mask is None:
            mixed_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, dropout_p=dropout, is_causal=True)
        else:
            mixed_BHTK = attend_within(q_BHTK, k_BHTK, v_BHTK, mask, dropout)
        return self.out(mixed_BHTK.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """GPT-2's MLP: D -> F -> D with GELU, by default in its tanh approximation; or with the square of ReLU."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        d_hidden = config.d_hidden
        self.up = nn.Linear(config.d_model, d_hidden, bias=config.has_bias)
        self.down = nn.Linear(d_hidden, config.d_model, bias=config.has_bias)
        self.activation = config.activation

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return the MLP's output at each position, to be added to the residual stream."""
        x_BTF = self.up(x_BTD)
        if self.activation is Activation.relu2:
            return self.down(F.relu(x_BTF).square())
        return self.down(F.gelu(x_BTF, approximate="tanh" if self.activation is Activation.gelu_tanh else "none"))


class SwiGLUMLP(nn.Module):
    """Llama's MLP: D -> F -> D, by default without biases, the hidden layer multiplied by a SiLU gate."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        d_hidden = config.d_hidden
        self.gate = nn.Linear(config.d_model, d_hidden, bias=config.has_bias)
        self.up = nn.Linear(config.d_model, d_hidden, bias=config.has_bias)
        self.down = nn.Linear(d_hidden, config.d_model, bias=config.has_bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return the MLP's output at each position, to be added to the residual stream."""
        return self.down(F.silu(self.gate(x_BTD)) * self.up(x_BTD))


class Layer(nn.Module):
    """A transformer block: attention and MLP, each behind a norm of its own and added to the residual stream."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.attention_norm = make_norm(config)
        self.attention = Attention(config)
        self.mlp_norm = make_norm(config)
        self.mlp = SwiGLUMLP(config) if config.is_gated else MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor, rotation: Rotation, mask: Mask = None, past: Past = None) -> Tensor:
        """Return the residual stream after this block."""
        x_BTD = x_BTD + self.dropout(self.attention(self.attention_norm(x_BTD), rotation, mask, past))
        return x_BTD + self.dropout(self.mlp(self.mlp_norm(x_BTD)))


class GPT(nn.Module):
    """A decoder-only transformer; position t of its logits predicts target t from inputs 0..t.

    The weights are drawn from torch's global random state; `language_model.build_model` seeds it.

    Args:
        config: sizes and kind of block.
        vocab_size: number of token ids.
        activation_checkpointing: whether training stores only each block's input, and computes the other activations
            again in the backward pass.
    """

    def __init__(self, config: GPTConfig, vocab_size: int, activation_checkpointing: bool = False):
        super().__init__()
        self.config = config
        self.activation_checkpointing = activation_checkpointing
        self.embedding = nn.Embedding(vocab_size, config.d_model)
        learned_positions = config.block is Block.gpt2
        self.positions = nn.Embedding(config.context_length, config.d_model) if learned_positions else None
        self.dropout = nn.Dropout(config.embedding_dropout)
        self.blocks = nn.ModuleList(Layer(config) for _ in range(config.n_layers))
        self.norm = make_norm(config)
        self.head = nn.Linear(config.d_model, vocab_size, bias=False)
        self.logit_softcap = config.logit_softcap
        if config.tied_head:
            self.head.weight = self.embedding.weight
        if config.init is not Init.torch:
            self._init_weights()
        elif config.tied_head:  # as in rnn.py: N(0, 1) would give large logits in the head
            nn.init.normal_(self.embedding.weight, std=config.d_model**-0.5)

    def _init_weights(self) -> None:
        """Draw the weights as GPT-2 does; norms keep PyTorch's ones and zeros.

        The 2 * n_layers projections that are added to the residual stream get smaller weights, so that its variance
        does not grow with depth; with init=zero_out zeros, so that each block begins as the identity.
        """
        is_zero = self.config.init is Init.zero_out
        residual_std = 0.0 if is_zero else INIT_STD / math.sqrt(2 * self.config.n_layers)
        for name, weight in self.named_parameters():  # a tied weight is listed once
            if name.endswith((".out.weight", ".down.weight")):
                nn.init.normal_(weight, std=residual_std)
            elif weight.ndim == 2:
                nn.init.normal_(weight, std=INIT_STD)
            elif name.endswith(".bias"):
                nn.init.zeros_(weight)

    def hidden(
        self, inputs_BT: Tensor, documents_BT: Tensor | None = None, past: "list[KeyValues] | None" = None
    ) -> Tensor:
        """Return hidden_BTD, the residual stream after the final norm, which is the head's input.

        Args:
            inputs_BT: token ids.
            documents_BT: the document of each, which attends to itself alone, with positions of its own; None for one.
            past: of each block, what is before the first position, while one document is written; it takes in the new.
        """
        start = past[0].length if past is not None else 0
        stop = start + inputs_BT.shape[1]
        x_BTD = self.embedding(inputs_BT)
        if self.positions is not None:
            if self.config.context_length < stop:
                raise InputError(
                    f"model.context_length={self.config.context_length} is less than the {stop} tokens of a window, "
                    f"and model.block=gpt2 has no positions beyond; set model.context_length={stop} or shorten the "
                    "window (in training, data.context_length)."
                )
            places = torch.arange(start, stop, device=inputs_BT.device)
            x_BTD = x_BTD + self.positions(places if documents_BT is None else places_within(documents_BT))
            rotation = None
        else:
            rotation = rotary_angles(start, stop, self.config, inputs_BT.device)
            if documents_BT is not None:
                places_BT = places_within(documents_BT)
                rotation = rotation[0][places_BT][:, None], rotation[1][places_BT][:, None]
        mask = None
        if documents_BT is not None:
            dropout = self.config.dropout if self.training else 0.0
            mask = mask_of(documents_BT, self.config.d_model // self.config.n_heads, dropout)
        x_BTD = self.dropout(x_BTD)
        for i, block in enumerate(self.blocks):
            if self.activation_checkpointing and self.training:
                x_BTD = checkpoint(block, x_BTD, rotation, mask, use_reentrant=False)
            else:
                x_BTD = block(x_BTD, rotation, mask, past[i] if past is not None else None)
        return self.norm(x_BTD)

    def forward(self, inputs_BT: Tensor, documents_BT: Tensor | None = None) -> Tensor:
        """Return logits_BTV."""
        return self.logits(self.hidden(inputs_BT, documents_BT))

    def logits(self, hidden_BTD: Tensor) -> Tensor:
        """Return logits_BTV of hidden states; under autocast, those with a soft-cap are in float32, as in the loss."""
        logits_BTV = self.head(hidden_BTD)
        if self.logit_softcap is None:
            return logits_BTV
        dtype = torch.promote_types(logits_BTV.dtype, torch.float32)
        return self.logit_softcap * torch.tanh(logits_BTV.to(dtype) / self.logit_softcap)


def make_norm(config: GPTConfig) -> nn.Module:
    """Make the block's norm: LayerNorm with bias (gpt2) or RMSNorm (llama, modern)."""
    norm = nn.LayerNorm if config.block is Block.gpt2 else nn.RMSNorm
    return norm(config.d_model, eps=config.norm_eps)


def qk_norm(x_BHTK: Tensor, eps: float) -> Tensor:
    """Divide the queries or keys of each head by their root mean square (QK-norm).

    Their products are then at most K, however large the weights become. It has no weights of its own, and rotation
    leaves the size as it is.
    """
    # Autocast of newer PyTorch makes it float32 on a GPU.
    return F.rms_norm(x_BHTK, x_BHTK.shape[-1:], eps=eps).type_as(x_BHTK)


def rotary_angles(start: int, stop: int, config: GPTConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return cos_TK and sin_TK of the rotary angles of positions start..stop - 1, in float32.

    They are computed in each forward pass, once for all blocks: a buffer would be lost if a model were built on the
    meta device, and would limit the length of a window.
    """
    d_head = config.d_model // config.n_heads
    exponents = torch.arange(0, d_head, 2, device=device, dtype=torch.float32) / d_head
    frequencies = 1.0 / config.rope_theta**exponents
    positions_T = torch.arange(start, stop, device=device, dtype=torch.float32)
    angles_TK = (positions_T[:, None] * frequencies).repeat(1, 2)
    return angles_TK.cos(), angles_TK.sin()


def rotate(x_BHTK: Tensor, cos_TK: Tensor, sin_TK: Tensor) -> Tensor:
    """Rotate the pairs (i, i + K/2) of each head by the angles of their position.

    The pairs are those of Hugging Face's Llama; the paper's are (2i, 2i + 1). The products are in float32 also under
    autocast: bfloat16 could not tell far positions apart.
    """
    first, second = x_BHTK.chunk(2, dim=-1)
    quarter_turn_BHTK = torch.cat((-second, first), dim=-1)
    return (x_BHTK * cos_TK + quarter_turn_BHTK * sin_TK).type_as(x_BHTK)
