"""Runs that begin with weights of transformers, and those weights."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import train_composer
from helpers.training_runs import compose_config, settings
from hindsight.training.initial_weights import begin_with
from hindsight.training.setup import RunSetup
from load_text_streaming import build_loaders

V, T = 300, 64
GPT2 = ["model.tied_head=true"]
LLAMA = [
    "model.block=llama",
    "model.n_kv_heads=1",
    "model.mlp_ratio=2.5",
    "model.norm_eps=1e-6",
    "model.rope_theta=500",
    "model.bias=true",
]
LLAMA_JSON = {"model_type": "llama", "hidden_size": 24, "intermediate_size": 60, "num_attention_heads": 2}


class Begun(NamedTuple):
    """A run at its first step."""

    setup: RunSetup
    module: nn.Module
    record: dict[str, Any]

    def loss_nats(self) -> float:
        """Mean nats of the first batch, without what is dropped out."""
        with torch.no_grad():
            return mean_nats(self.module.eval()(self.batch()["input_ids"]), self.batch()["targets"])

    def batch(self) -> dict[str, Tensor]:
        return next(iter(build_loaders(self.setup)["train"].dataloader))


def begin(shards: Path, runs: Path, *changes: str) -> Begun:
    """Begin a run as train_composer.py does, up to its first step; nothing is written."""
    setup = train_composer.prepare(compose_config("train_composer", *settings(shards, runs, *changes)))
    model = train_composer.build_language_model(setup)
    record = begin_with(setup, model)
    return Begun(setup, model.module, record)


def mean_nats(logits_BTV: Tensor, targets_BT: Tensor) -> float:
    return float(F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten()))


def theirs(kind: str, vocab_size: int = V) -> GPT2LMHeadModel | LlamaForCausalLM:
    """A model of transformers in the size of the tests' runs, with large weights, so that every one counts."""
    torch.manual_seed(5)
    sizes: dict[str, Any] = {"vocab_size": vocab_size, "initializer_range": 0.2}
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(n_positions=T, n_embd=24, n_layer=2, n_head=2, **sizes)).eval()
    heads = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "rope_theta": 500.0}
    biases = {"attention_bias": True, "mlp_bias": True}
    config = LlamaConfig(hidden_size=24, intermediate_size=60, **heads, **biases, **sizes)
    return LlamaForCausalLM(config).eval()


def their_nats(model: nn.Module, batch: dict[str, Tensor]) -> float:
    with torch.no_grad():
        return mean_nats(model(batch["input_ids"]).logits, batch["targets"])


def write_folder(folder: Path, model: GPT2LMHeadModel | LlamaForCausalLM, tokenizer_dir: Path, **how: Any) -> Path:
    model.save_pretrained(folder, **how)
    AutoTokenizer.from_pretrained(tokenizer_dir).save_pretrained(folder)
    return folder
