"""Names of a GPT's weights, ours and Hugging Face's: one table for GPT-2 and one for Llama, used in both directions.

The numbers are the same on both sides, and only two layouts differ. Hugging Face's GPT-2 keeps the matrices of
attention and MLP as Conv1D, (inputs, outputs), transposed against our nn.Linear, (outputs, inputs). Its Llama has one
matrix each for queries, keys and values, which are the rows of our `qkv` in this order. Rows within a head need no
permutation, because gpt.py rotates the same pairs (i, i + K/2).
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from hindsight.config.model import Block, GPTConfig

WEIGHT = ("weight",)
WEIGHT_AND_BIAS = ("weight", "bias")
HEAD = "head.weight"
EMBEDDING = "embedding.weight"


class Row(NamedTuple):
    """A module of ours, and what Hugging Face calls it; {i} stands for the number of a block."""

    ours: str
    theirs: tuple[str, ...]
    """One module; or three, for queries, keys and values, whose rows are ours one below the other."""
    parameters: tuple[str, ...]
    is_transposed: bool = False
    """Whether their matrix is (inputs, outputs)."""


GPT2 = (
    Row("embedding", ("transformer.wte",), WEIGHT),
    Row("positions", ("transformer.wpe",), WEIGHT),
    Row("blocks.{i}.attention_norm", ("transformer.h.{i}.ln_1",), WEIGHT_AND_BIAS),
    Row("blocks.{i}.attention.qkv", ("transformer.h.{i}.attn.c_attn",), WEIGHT_AND_BIAS, is_transposed=True),
    Row("blocks.{i}.attention.out", ("transformer.h.{i}.attn.c_proj",), WEIGHT_AND_BIAS, is_transposed=True),
    Row("blocks.{i}.mlp_norm", ("transformer.h.{i}.ln_2",), WEIGHT_AND_BIAS),
    Row("blocks.{i}.mlp.up", ("transformer.h.{i}.mlp.c_fc",), WEIGHT_AND_BIAS, is_transposed=True),
    Row("blocks.{i}.mlp.down", ("transformer.h.{i}.mlp.c_proj",), WEIGHT_AND_BIAS, is_transposed=True),
    Row("norm", ("transformer.ln_f",), WEIGHT_AND_BIAS),
    Row("head", ("lm_head",), WEIGHT),
)
LLAMA = (
    Row("embedding", ("model.embed_tokens",), WEIGHT),
    Row("blocks.{i}.attention_norm", ("model.layers.{i}.input_layernorm",), WEIGHT),
    Row(
        "blocks.{i}.attention.qkv",
        (
            "model.layers.{i}.self_attn.q_proj",
            "model.layers.{i}.self_attn.k_proj",
            "model.layers.{i}.self_attn.v_proj",
        ),
        WEIGHT,
    ),
    Row("blocks.{i}.attention.out", ("model.layers.{i}.self_attn.o_proj",), WEIGHT),
    Row("blocks.{i}.mlp_norm", ("model.layers.{i}.post_attention_layernorm",), WEIGHT),
    Row("blocks.{i}.mlp.gate", ("model.layers.{i}.mlp.gate_proj",), WEIGHT),
    Row("blocks.{i}.mlp.up", ("model.layers.{i}.mlp.up_proj",), WEIGHT),
    Row("blocks.{i}.mlp.down", ("model.layers.{i}.mlp.down_proj",), WEIGHT),
    Row("norm", ("model.norm",), WEIGHT),
    Row("head", ("lm_head",), WEIGHT),
)
TABLES = {Block.gpt2: GPT2, Block.llama: LLAMA}


class Names(NamedTuple):
    """A weight of ours, and the weights of Hugging Face's that hold it: a Row with all names filled in."""

    ours: str
    theirs: tuple[str, ...]
    is_transposed: bool


def names_of(config: GPTConfig) -> list[Names]:
    """List all weights of a model by both names; a tied head is the embedding, and is left out."""
    names: list[Names] = []
    for row in TABLES[config.block]:
        for i in range(config.n_layers if "{i}" in row.ours else 1):
            for parameter in _parameters(row, config):
                theirs = tuple(f"{module.format(i=i)}.{parameter}" for module in row.theirs)
                names.append(Names(f"{row.ours.format(i=i)}.{parameter}", theirs, row.is_transposed))
    return [each for each in names if not (config.tied_head and each.ours == HEAD)]


def to_hugging_face(weights: Mapping[str, Tensor], config: GPTConfig) -> dict[str, Tensor]:
    """Convert the weights of our GPT to the names and layouts of Hugging Face's GPT-2 or Llama.

    Args:
        weights: state_dict() of a GPT of this config.
        config: the model; its block says which of the two.

    Returns:
        What GPT2LMHeadModel or LlamaForCausalLM load, without lm_head.weight where the head is tied. Tensors may share
        memory with the given ones.
    """
    converted: dict[str, Tensor] = {}
    for names in names_of(config):
        weight = _laid_out(weights[names.ours], names)
        parts = weight.split(_qkv_rows(config)) if len(names.theirs) > 1 else (weight,)
        converted |= dict(zip(names.theirs, parts, strict=True))
    if config.block is Block.gpt2 and not config.has_bias:  # theirs always has biases
        linears = [name for name, weight in converted.items() if ".h." in name and weight.ndim == 2]
        converted |= {
            name.replace(".weight", ".bias"): converted[name].new_zeros(converted[name].shape[1]) for name in linears
        }
    return converted


def from_hugging_face(weights: Mapping[str, Tensor], config: GPTConfig) -> dict[str, Tensor]:
    """Convert the weights of Hugging Face's GPT-2 or Llama to those of our GPT.

    Args:
        weights: state_dict() of GPT2LMHeadModel or LlamaForCausalLM, with or without lm_head.weight where it is tied.
        config: the model of the same sizes.

    Returns:
        What load_state_dict() of a GPT of this config takes. Tensors may share memory with the given ones.
    """
    converted: dict[str, Tensor] = {}
    for names in names_of(config):
        parts = [weights[name] for name in names.theirs]
        converted[names.ours] = _laid_out(torch.cat(parts) if len(parts) > 1 else parts[0], names)
    if config.tied_head:
        converted[HEAD] = converted[EMBEDDING]
    return converted


def _parameters(row: Row, config: GPTConfig) -> tuple[str, ...]:
    """The parameters of a row's module; linear layers have biases or not, as the config says."""
    if ".attention." in row.ours or ".mlp." in row.ours:
        return WEIGHT_AND_BIAS if config.has_bias else WEIGHT
    return row.parameters


def _laid_out(weight: Tensor, names: Names) -> Tensor:
    """Transpose a matrix if its layouts differ, which works in both directions; biases and norms have one layout."""
    return weight.mT.contiguous() if names.is_transposed and weight.ndim == 2 else weight


def _qkv_rows(config: GPTConfig) -> list[int]:
    """Rows of the queries, the keys and the values in our `qkv`."""
    d_head = config.d_model // config.n_heads
    n_kv_heads = config.n_key_value_heads
    return [config.n_heads * d_head, n_kv_heads * d_head, n_kv_heads * d_head]
