"""Keys of the models in conf/model/."""

from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING

from hindsight.config.checks import (
    require,
    require_name,
    require_no_credentials,
    require_positive,
    require_share,
    require_text,
)
from hindsight.config.freezing import frozen_parts
from hindsight.config.typed_text import NAMES

RNN_MODEL_TYPE, GPT_MODEL_TYPE = "hindsight_rnn", "hindsight_gpt"
"""What config.json calls an exported GRU or LSTM, and a GPT of block=modern: transformers has no name for them."""


class Block(Enum):
    """The transformer block: GPT-2's, Llama's (RMSNorm, rotary positions, SwiGLU, grouped-query attention), or modern.

    The last is Llama's with QK-norm, and with any activation.
    """

    gpt2 = "gpt2"
    llama = "llama"
    modern = "modern"


class Activation(Enum):
    """What the MLP of block=gpt2 and block=modern computes in its hidden layer."""

    gelu = "gelu"
    gelu_tanh = "gelu_tanh"
    relu2 = "relu2"
    swiglu = "swiglu"


class Init(Enum):
    """Initial weights of a GPT."""

    gpt2 = "gpt2"
    zero_out = "zero_out"
    torch = "torch"


class Cell(Enum):
    """The recurrent cell."""

    gru = "gru"
    lstm = "lstm"


@dataclass
class ModelConfig:
    """What all models have; model=NAME picks a named one from conf/model/."""

    name: str = MISSING
    """Name of the model in run names and tables."""
    n_layers: int = MISSING
    """Number of layers."""
    d_model: int = MISSING
    """Width of the residual stream (GPT) or of the hidden state (RNN)."""
    context_length: int = 256
    """Tokens in a window; GPT's longest with learned positions, and the default of data.context_length."""
    vocab_size: int | None = None
    """Number of token ids; null takes it from the tokenizer of the data."""
    tied_head: bool = False
    """Whether the output projection is the embedding's weight."""
    dropout: float = 0.0
    """Dropout inside the layers during training."""
    embedding_dropout: float = 0.0
    """Dropout on the embedded input during training."""
    init_from: str | None = None
    """Weights that a new run begins with, in place of drawn ones: a folder of Hugging Face's GPT-2 or Llama, with its
    tokenizer; the name of one on the Hub; or a run of ours, of which the newest checkpoint is taken: its folder, or the
    address s3://BUCKET/FOLDER of its checkpoints. The other keys of the model must say the same sizes, and the
    tokenizer of the data must be that of the weights, with special tokens added behind or not; null for none."""
    freeze: list[str] = field(default_factory=list[str], metadata=NAMES)
    """Parts whose weights stay as they began: embedding, positions, norm, head, and blocks (GRU, LSTM: layers) by their
    numbers, such as blocks.0-3 or blocks.5.attention."""

    @property
    def own_model_type(self) -> str | None:
        """What config.json of an exported folder calls a model that transformers lacks, whose code is in the folder."""
        return None

    @property
    def parts(self) -> list[str]:
        """Names of the parts that have weights, each a prefix of theirs."""
        # Not abstract: benchmarks.throughput begins with a ModelConfig of no kind, in whose place a named model comes.
        raise NotImplementedError

    @property
    def frozen(self) -> list[str]:
        """Those of the parts whose weights stay as they are."""
        return frozen_parts(self.freeze, self.parts) if self.freeze else []

    def __post_init__(self) -> None:
        require_name("model.name", self.name)
        require_positive("model.", self, "n_layers", "d_model", "context_length", "vocab_size")
        require_share("model.", self, "dropout", "embedding_dropout")
        require_text("model.", self, "init_from")
        require_no_credentials("model.", self)


@dataclass
class GPTConfig(ModelConfig):
    """A decoder-only transformer."""

    n_heads: int = MISSING
    """Number of attention heads; divides d_model."""
    n_kv_heads: int | None = None
    """Number of key and value heads (block=llama or modern); divides n_heads; null for n_heads."""
    block: Block = Block.gpt2
    """gpt2 (LayerNorm, learned positions, GELU), llama (RMSNorm, rotary positions, SwiGLU), or modern (RMSNorm, rotary
    positions, queries and keys of unit size in each head, the activation that is given)."""
    mlp_ratio: float = 4.0
    """Width of the MLP's hidden layer over d_model."""
    activation: Activation = Activation.gelu_tanh
    """gelu (exact) or gelu_tanh, the approximation of GPT-2 (block=gpt2 or modern); relu2, the square of ReLU, or
    swiglu (block=modern; block=llama has SwiGLU)."""
    bias: bool | None = None
    """Whether linear layers have biases (norms keep theirs, the head has none); null for yes with block=gpt2, no with
    the others."""
    init: Init = Init.gpt2
    """Initial weights: gpt2 (N(0, 0.02), less before the residual stream, biases 0), zero_out (the same, but zeros
    before the residual stream), or torch, PyTorch's defaults (embeddings N(0, 1), the rest uniform within
    1 / sqrt(inputs))."""
    rope_theta: float = 10000.0
    """Base of the rotary frequencies (block=llama or modern)."""
    norm_eps: float = 1e-5
    """Added to the variance in LayerNorm and RMSNorm."""
    logit_softcap: float | None = None
    """Bound of the logits c, which become c * tanh(logits / c) (block=modern); null for none."""

    @property
    def own_model_type(self) -> str | None:
        """None for GPT-2 and Llama."""
        return GPT_MODEL_TYPE if self.block is Block.modern else None

    @property
    def has_bias(self) -> bool:
        """Whether linear layers have biases."""
        return self.block is Block.gpt2 if self.bias is None else self.bias

    @property
    def is_gated(self) -> bool:
        """Whether the MLP's hidden layer is multiplied by a gate, for which it has a third matrix."""
        return self.block is Block.llama or self.activation is Activation.swiglu

    @property
    def n_key_value_heads(self) -> int:
        """Number of key and value heads."""
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def d_hidden(self) -> int:
        """Width of the MLP's hidden layer, the nearest integer: mlp_ratio=2.6667 is 8/3 at the usual widths."""
        return round(self.mlp_ratio * self.d_model)

    @property
    def parts(self) -> list[str]:
        """Names of the parts that have weights; a tied head is the embedding."""
        inside = ("attention_norm", "attention", "mlp_norm", "mlp")
        return [
            "embedding",
            *(["positions"] if self.block is Block.gpt2 else []),
            *(f"blocks.{i}.{name}" for i in range(self.n_layers) for name in inside),
            "norm",
            *([] if self.tied_head else ["head"]),
        ]

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(
            "model.", self, "n_heads", "n_kv_heads", "mlp_ratio", "rope_theta", "norm_eps", "logit_softcap"
        )
        require(
            self.mlp_ratio * self.d_model >= 1,
            f"model.mlp_ratio={self.mlp_ratio} leaves the MLP no width with model.d_model={self.d_model}; raise it.",
        )
        require(
            self.d_model % self.n_heads == 0,
            f"model.n_heads={self.n_heads} does not divide model.d_model={self.d_model}; choose a divisor.",
        )
        if self.n_kv_heads is not None:
            require(
                self.block is not Block.gpt2,
                f"model.n_kv_heads={self.n_kv_heads} needs model.block=llama or modern; leave it null for "
                "model.block=gpt2.",
            )
            require(
                self.n_heads % self.n_kv_heads == 0,
                f"model.n_kv_heads={self.n_kv_heads} does not divide model.n_heads={self.n_heads}; choose a divisor.",
            )
        if self.block is not Block.modern:
            require(
                self.activation not in (Activation.relu2, Activation.swiglu),
                f"model.activation={self.activation.name} needs model.block=modern; leave it out for "
                f"model.block={self.block.name}.",
            )
            require(
                self.logit_softcap is None,
                f"model.logit_softcap={self.logit_softcap} needs model.block=modern; leave it null for "
                f"model.block={self.block.name}.",
            )
        if self.block is Block.llama:
            require(
                self.activation is Activation.gelu_tanh,
                f"model.activation={self.activation.name} is of model.block=gpt2 and modern; leave it out for "
                "model.block=llama.",
            )
        if self.block is not Block.gpt2:
            require(
                (self.d_model // self.n_heads) % 2 == 0,
                f"model.d_model/model.n_heads={self.d_model // self.n_heads} is odd; rotary positions turn pairs of "
                "numbers, so choose sizes with an even quotient.",
            )
        frozen_parts(self.freeze, self.parts)


@dataclass
class RNNConfig(ModelConfig):
    """A stack of recurrent layers."""

    cell: Cell = MISSING
    """gru or lstm."""
    final_norm: bool = False
    """Whether a LayerNorm stands between the last layer and the head."""

    @property
    def own_model_type(self) -> str | None:
        """The name of our own."""
        return RNN_MODEL_TYPE

    @property
    def parts(self) -> list[str]:
        """Names of the parts that have weights; a tied head is the embedding."""
        return [
            "embedding",
            *(f"layers.{i}" for i in range(self.n_layers)),
            *(["norm"] if self.final_norm else []),
            *([] if self.tied_head else ["head"]),
        ]

    def __post_init__(self) -> None:
        super().__post_init__()
        frozen_parts(self.freeze, self.parts)
