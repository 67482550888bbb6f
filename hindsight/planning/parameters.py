"""Parameters and FLOPs of a model by formula, from its sizes alone; gpt.py and rnn.py have the layers that are counted.

FLOPs per token: 6N + 12LHQT for a transformer of L layers with H heads of Q numbers over T tokens (arXiv:2204.02311,
appendix B), 6N for an RNN. N counts the weights that a token is multiplied by: without embeddings, with the head. Like
there, attention counts in full, as if it were not causal, and activation checkpointing not at all.

Letters: V token ids, D d_model, F numbers in the MLP's hidden layer.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from hindsight.config.model import Block, Cell, GPTConfig, ModelConfig, RNNConfig

EMBEDDING, POSITIONS, ATTENTION, MLP, RECURRENT, NORMS, HEAD = (
    "embedding",
    "positions",
    "attention",
    "mlp",
    "recurrent",
    "norms",
    "head",
)
"""Parts of a model."""
TOKENS_PER_PARAMETER = 20
"""Tokens for each parameter with which a given number of FLOPs reaches the lowest loss: arXiv:2203.15556, table 3, of
all parameters, embeddings included, for 0.07 to 16 billion of them and tokens that are seen once."""
FORWARD_SHARE = 1 / 3
"""Of the FLOPs of a training step, those of its forward pass, which is what an evaluation needs."""


def qkv_width(config: GPTConfig) -> int:
    """Numbers that attention makes of a token: queries, keys and values."""
    return (config.n_heads + 2 * config.n_key_value_heads) * (config.d_model // config.n_heads)


def parameters_by_part(config: ModelConfig, vocab_size: int) -> dict[str, int]:
    """Number of parameters of each part; a head that is tied to the embedding has none of its own.

    Args:
        config: the model; its vocab_size, if set, counts.
        vocab_size: number of token ids otherwise.
    """
    D, L = config.d_model, config.n_layers
    V = config.vocab_size or vocab_size
    parts = {EMBEDDING: V * D}
    if isinstance(config, GPTConfig):
        F, width, bias = config.d_hidden, qkv_width(config), int(config.has_bias)
        is_gpt2 = config.block is Block.gpt2
        if is_gpt2:
            parts[POSITIONS] = config.context_length * D
        parts[ATTENTION] = L * (width * (D + bias) + D * (D + bias))
        into = 2 if config.is_gated else 1  # gate and up; or up
        parts[MLP] = L * (into * F * (D + bias) + D * (F + bias))
        parts[NORMS] = (2 * L + 1) * D * (2 if is_gpt2 else 1)
    elif isinstance(config, RNNConfig):
        gates = 4 if config.cell is Cell.lstm else 3
        parts[RECURRENT] = L * gates * (2 * D * D + 2 * D)
        parts[NORMS] = 2 * D if config.final_norm else 0
    else:
        raise TypeError(f"{type(config).__name__} is neither GPTConfig nor RNNConfig.")
    return parts | {HEAD: 0 if config.tied_head else V * D}


def n_parameters(config: ModelConfig, vocab_size: int) -> int:
    """Number of parameters of a model."""
    return sum(parameters_by_part(config, vocab_size).values())


def trained_by_part(config: ModelConfig, vocab_size: int) -> dict[str, int]:
    """Number of parameters of each part that are trained: without those that model.freeze names."""
    parts = parameters_by_part(config, vocab_size)
    number, frozen = (Counter(map(_part_of, names)) for names in (config.parts, config.frozen))
    return {part: count - frozen[part] * count // (number[part] or 1) for part, count in parts.items()}


def n_trained(config: ModelConfig, vocab_size: int) -> int:
    """Number of parameters that are trained."""
    return sum(trained_by_part(config, vocab_size).values())


def n_by_muon(config: ModelConfig, vocab_size: int) -> int:
    """Number of parameters that optim.name=muon updates by Muon: the matrices of the layers that are trained."""
    if isinstance(config, RNNConfig):
        D = config.d_model
        return trained_by_part(config, vocab_size)[RECURRENT] * D // (D + 1)  # without two biases a matrix
    assert isinstance(config, GPTConfig)
    parts = trained_by_part(replace(config, bias=False), vocab_size)
    return parts[ATTENTION] + parts[MLP]


def n_matrices(config: ModelConfig) -> int:
    """Number of tensors that those parameters are."""
    is_gated = isinstance(config, GPTConfig) and config.is_gated
    tensors = {RECURRENT: 2, ATTENTION: 2, MLP: 3 if is_gated else 2}
    return sum(tensors.get(_part_of(name), 0) for name in {*config.parts}.difference(config.frozen))


def n_tensors(config: ModelConfig, names: Sequence[str]) -> int:
    """Number of tensors that the parameters of a model are, in those of config.parts that are named."""
    tensors = {RECURRENT: 4, NORMS: 2}
    if isinstance(config, GPTConfig):
        biases, norms = 1 + int(config.has_bias), 2 if config.block is Block.gpt2 else 1
        tensors = {ATTENTION: 2 * biases, MLP: (3 if config.is_gated else 2) * biases, NORMS: norms}
    return sum(tensors.get(_part_of(name), 1) for name in names)


def _part_of(name: str) -> str:
    """Part of a plan that one of config.parts belongs to, such as blocks.0.mlp_norm to norms; they are of one size."""
    if name.startswith("layers."):
        return RECURRENT
    return NORMS if name.endswith("norm") else name.split(".")[-1]


def flops_per_token(config: ModelConfig, vocab_size: int, context_length: int) -> int:
    """FLOPs of forward and backward pass for a token, by the formula above."""
    parts = parameters_by_part(config, vocab_size)
    n = sum(parts.values()) - parts.get(POSITIONS, 0)
    n -= 0 if config.tied_head else parts[EMBEDDING]  # tied: the same weight, and a matrix product all the same
    attention = 12 * config.n_layers * config.d_model * context_length if isinstance(config, GPTConfig) else 0
    return 6 * n + attention
