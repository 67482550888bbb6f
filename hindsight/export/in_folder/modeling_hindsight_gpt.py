"""The GPT of model.block=modern for transformers 4 and 5, which have none: Llama's with QK-norm and a soft-cap.

This file lies beside the weights of such a model, and needs nothing but torch and transformers:

    AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)

What it has in common with modeling_hindsight_rnn.py is in both: whoever trusts a model's code has one file to read.

Shapes: B rows, T new tokens, N tokens with those before them, D d_model, V vocab_size, H heads, G key and value heads,
K = D / H numbers in a head, F numbers in the MLP's hidden layer.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast


class HindsightGPTConfig(PretrainedConfig):
    """Sizes of a GPT.

    Args:
        vocab_size: V.
        d_model: D, the width of the residual stream.
        n_layers: blocks.
        n_heads: H.
        n_kv_heads: G, which divides H.
        d_hidden: F.
        activation: of the MLP: relu2, swiglu, gelu or gelu_tanh.
        bias: whether linear layers but the head have biases.
        rope_theta: base of the rotary frequencies.
        norm_eps: added to the mean square in all norms.
        logit_softcap: bound c of the logits, c * tanh(logits / c); None for none.
        dropout: inside the blocks, in training.
        embedding_dropout: on the embedding, in training.
        max_position_embeddings: tokens in a window of training.
        tie_word_embeddings: whether the head's weight is the embedding's.
        kwargs: what every configuration has.
    """

    model_type = "hindsight_gpt"
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "d_model",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "num_key_value_heads": "n_kv_heads",
    }

    def __init__(
        self,
        vocab_size: int = 256,
        d_model: int = 16,
        n_layers: int = 1,
        n_heads: int = 1,
        n_kv_heads: int = 1,
        d_hidden: int = 64,
        activation: str = "relu2",
        bias: bool = False,
        rope_theta: float = 10000.0,
        norm_eps: float = 1e-5,
        logit_softcap: float | None = None,
        dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        max_position_embeddings: int = 256,
        tie_word_embeddings: bool = False,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.d_model = d_model
        self.n_layers = n_layers
        self.n_heads = n_heads
        self.n_kv_heads = n_kv_heads
        self.d_hidden = d_hidden
        self.activation = activation
        self.bias = bias
        self.rope_theta = rope_theta
        self.norm_eps = norm_eps
        self.logit_softcap = logit_softcap
        self.dropout = dropout
        self.embedding_dropout = embedding_dropout
        self.max_position_embeddings = max_position_embeddings
        self.use_cache = kwargs.pop("use_cache", True)
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)


class Attention(nn.Module):
    """Causal self-attention: `qkv` holds the rows of the queries, then of the keys, then of the values."""

    def __init__(self, config: HindsightGPTConfig, number: int) -> None:
        super().__init__()
        self.config = config
        self.number = number
        self.d_head = config.d_model // config.n_heads
        self.qkv = nn.Linear(config.d_model, (config.n_heads + 2 * config.n_kv_heads) * self.d_head, bias=config.bias)
        self.out = nn.Linear(config.d_model, config.d_model, bias=config.bias)

    def forward(self, x_BTD: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor, cache: Any) -> Tensor:
        """Return what is added to the residual stream; the cache, if there is one, takes in the new keys and values."""
        H, G = self.config.n_heads, self.config.n_kv_heads
        heads_BnTK = self.qkv(x_BTD).unflatten(-1, (H + 2 * G, self.d_head)).transpose(1, 2)
        q_BHTK, k_BGNK, v_BGNK = heads_BnTK.split([H, G, G], dim=1)
        q_BHTK, k_BGNK = (self._rotated_unit(x_BnTK, *rotation) for x_BnTK in (q_BHTK, k_BGNK))
        if cache is not None:
            k_BGNK, v_BGNK = cache.update(k_BGNK, v_BGNK, self.number)
        # Not for G = H: a repeat of one copies the whole cache for each new token.
        k_BHNK, v_BHNK = (x_BGNK.repeat_interleave(H // G, dim=1) if G < H else x_BGNK for x_BGNK in (k_BGNK, v_BGNK))
        dropout = self.config.dropout if self.training else 0.0
        mixed_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BHNK, v_BHNK, attn_mask=mask, dropout_p=dropout)
        return self.out(mixed_BHTK.transpose(1, 2).flatten(2))

    def _rotated_unit(self, x_BnTK: Tensor, cos_TK: Tensor, sin_TK: Tensor) -> Tensor:
        """Divide each head by its root mean square, and rotate the pairs (i, i + K/2)."""
        unit_BnTK = F.rms_norm(x_BnTK, x_BnTK.shape[-1:], eps=self.config.norm_eps)
        first, second = unit_BnTK.chunk(2, dim=-1)
        return (unit_BnTK * cos_TK + torch.cat((-second, first), dim=-1) * sin_TK).type_as(x_BnTK)


class MLP(nn.Module):
    """D -> F -> D, with the activation of the config; swiglu has a gate."""

    def __init__(self, config: HindsightGPTConfig) -> None:
        super().__init__()
        self.activation = config.activation
        if config.activation == "swiglu":
            self.gate = nn.Linear(config.d_model, config.d_hidden, bias=config.bias)
        self.up = nn.Linear(config.d_model, config.d_hidden, bias=config.bias)
        self.down = nn.Linear(config.d_hidden, config.d_model, bias=config.bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return what is added to the residual stream."""
        x_BTF = self.up(x_BTD)
        if self.activation == "swiglu":
            return self.down(F.silu(self.gate(x_BTD)) * x_BTF)
        if self.activation == "relu2":
            return self.down(F.relu(x_BTF).square())
        return self.down(F.gelu(x_BTF, approximate="tanh" if self.activation == "gelu_tanh" else "none"))


class Layer(nn.Module):
    """A transformer block: attention and MLP, each behind a norm of its own and added to the residual stream."""

    def __init__(self, config: HindsightGPTConfig, number: int) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.attention = Attention(config, number)
        self.mlp_norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor, cache: Any) -> Tensor:
        """Return the residual stream after this block."""
        x_BTD = x_BTD + self.dropout(self.attention(self.attention_norm(x_BTD), rotation, mask, cache))
        return x_BTD + self.dropout(self.mlp(self.mlp_norm(x_BTD)))


class HindsightGPTForCausalLM(PreTrainedModel, GenerationMixin):
    """A GPT that predicts token t + 1 from tokens 0..t."""

    config_class = HindsightGPTConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    _tied_weights_keys: ClassVar[dict[str, str]] = {"head.weight": "embedding.weight"}

    def __init__(self, config: HindsightGPTConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.dropout = nn.Dropout(config.embedding_dropout)
        self.blocks = nn.ModuleList(Layer(config, number) for number in range(config.n_layers))
        self.norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Leave the weights as PyTorch draws them."""

    def get_input_embeddings(self) -> nn.Module:
        """The embedding."""
        return self.embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the embedding."""
        self.embedding = value

    def get_output_embeddings(self) -> nn.Module:
        """The head."""
        return self.head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the head."""
        self.head = new_embeddings

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        cache: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Read tokens.

        Args:
            input_ids: (B, T) token ids.
            attention_mask: (B, N) 1 for tokens, 0 for padding, which nothing attends to.
            past_key_values: a cache of transformers with the keys and values of the tokens before.
            cache: the same, as later versions of transformers call it.
            inputs_embeds: (B, T, D) in place of input_ids.
            labels: (B, T) ids to score, shifted here as in all of transformers; -100 for none.
            use_cache: whether to give a cache; by default in inference.
            return_dict: whether to give an object (by default) or a tuple.
            logits_to_keep: how many last logits to compute; 0 for all.
            kwargs: what other models take, and this one needs not.
        """
        x_BTD = self.dropout(self.embedding(input_ids) if inputs_embeds is None else inputs_embeds)
        is_kept = (self.config.use_cache and not self.training) if use_cache is None else use_cache
        cache = past_key_values if cache is None else cache
        cache = DynamicCache() if cache is None and is_kept else cache
        start = 0 if cache is None else cache.get_seq_length()
        rotation, mask = self._rotation(start, x_BTD), _mask(start, x_BTD, attention_mask)
        for block in self.blocks:
            x_BTD = block(x_BTD, rotation, mask, cache)
        logits_BTV = self.head(self.norm(x_BTD[:, -logits_to_keep:] if logits_to_keep else x_BTD))
        if (bound := self.config.logit_softcap) is not None:
            logits_BTV = bound * torch.tanh(logits_BTV / bound)
        loss = None
        if labels is not None:
            if logits_to_keep:
                raise ValueError(f"logits_to_keep={logits_to_keep}: labels need all logits; leave one of them out.")
            loss = F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        # By place: versions of transformers name the third otherwise.
        fields: Any = (loss, logits_BTV, cache if is_kept else None)
        output = CausalLMOutputWithPast(*fields)
        return output if return_dict is None or return_dict else output.to_tuple()

    def _rotation(self, start: int, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the rotary angles, in float32.

        Positions are those in the row, padding included: only distances matter.
        """
        d_head = self.config.d_model // self.config.n_heads
        exponents = torch.arange(0, d_head, 2, device=x_BTD.device, dtype=torch.float32) / d_head
        positions_T = torch.arange(start, start + x_BTD.shape[1], device=x_BTD.device, dtype=torch.float32)
        angles_TK = (positions_T[:, None] / self.config.rope_theta**exponents).repeat(1, 2)
        return angles_TK.cos(), angles_TK.sin()


def _mask(start: int, x_BTD: Tensor, attention_mask_BN: Tensor | None) -> Tensor:
    """Say what attends to what: each token to itself and to those before it, but no token to padding."""
    T = x_BTD.shape[1]
    causal_TN = torch.ones(T, start + T, dtype=torch.bool, device=x_BTD.device).tril(start)
    if attention_mask_BN is None:
        return causal_TN
    # Padding attends to itself: a row of nothing would be NaN, and go on to those that give it no weight.
    itself_TN = causal_TN.triu(start)
    return (causal_TN & attention_mask_BN[:, None, None, : start + T].bool()) | itself_TN
