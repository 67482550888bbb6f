import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from gpt import GPT
from hindsight.config.model import Block, GPTConfig
from hindsight.hf_weights import from_hugging_face, to_hugging_face

V, T = 31, 12


def config_of(block: Block, tied_head: bool, n_kv_heads: int | None = None, bias: bool | None = None) -> GPTConfig:
    return GPTConfig(
        name="tiny",
        n_layers=2,
        d_model=16,
        n_heads=4,
        context_length=T,
        mlp_ratio=2.5,
        block=block,
        n_kv_heads=n_kv_heads,
        tied_head=tied_head,
        bias=bias,
    )


CONFIGS = pytest.mark.parametrize(
    "config",
    [
        config_of(Block.gpt2, tied_head=False),
        config_of(Block.gpt2, tied_head=True),
        *(config_of(Block.llama, tied_head=False, n_kv_heads=n) for n in (1, 2, 4)),
        config_of(Block.llama, tied_head=True, n_kv_heads=2),
        config_of(Block.llama, tied_head=False),
        config_of(Block.gpt2, tied_head=False, bias=False),
        config_of(Block.llama, tied_head=False, bias=True),
    ],
    ids=[
        "gpt2",
        "gpt2-tied",
        "llama-1kv",
        "llama-2kv",
        "llama-4kv",
        "llama-tied",
        "llama",
        "gpt2-no-bias",
        "llama-bias",
    ],
)


def their_model(config: GPTConfig) -> GPT2LMHeadModel | LlamaForCausalLM:
    torch.manual_seed(0)
    if config.block is Block.gpt2:
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=V,
                n_positions=T,
                n_embd=16,
                n_layer=2,
                n_head=4,
                n_inner=40,
                tie_word_embeddings=config.tied_head,
            )
        )
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=V,
            hidden_size=16,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=config.n_key_value_heads,
            attention_bias=config.has_bias,
            mlp_bias=config.has_bias,
            tie_word_embeddings=config.tied_head,
        )
    )


def assert_equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


@CONFIGS
def test_our_weights_are_the_same_after_a_way_to_hugging_face_and_back(config: GPTConfig):
    weights = GPT(config, V).state_dict()
    assert_equal(from_hugging_face(to_hugging_face(weights, config), config), weights)


@CONFIGS
def test_hugging_faces_weights_are_the_same_after_a_way_to_us_and_back(config: GPTConfig):
    weights = their_model(config).state_dict()
    if config.tied_head:
        del weights["lm_head.weight"]  # as in their files
    assert_equal(to_hugging_face(from_hugging_face(weights, config), config), weights)


@CONFIGS
def test_both_models_load_every_weight_of_the_other(config: GPTConfig):
    ours, theirs = GPT(config, V), their_model(config)
    ours.load_state_dict(from_hugging_face(theirs.state_dict(), config))
    converted = to_hugging_face(ours.state_dict(), config)
    assert all(weight.is_contiguous() for weight in converted.values())
    loaded = theirs.load_state_dict(converted, strict=False)
    assert loaded.unexpected_keys == []
    assert loaded.missing_keys == (["lm_head.weight"] if config.tied_head else [])
