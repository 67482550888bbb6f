"""A tiny model of each architecture, and one that keeps nothing of the tokens before."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from hindsight.config.model import Activation, Block, Cell, GPTConfig, ModelConfig, RNNConfig
from language_model import build_model

V, C, START = 31, 12, 30
"""Token ids, tokens of the context, the id that begins the inputs."""
GPT2 = GPTConfig(name="tiny", n_layers=2, d_model=16, n_heads=4, context_length=C)
LLAMA = dataclasses.replace(GPT2, block=Block.llama, mlp_ratio=2.5)
MODERN = dataclasses.replace(LLAMA, block=Block.modern, activation=Activation.relu2, logit_softcap=2.0)
GRU = RNNConfig(name="tiny", n_layers=2, d_model=16, cell=Cell.gru)
CONFIGS = {
    "gpt2": GPT2,
    "llama": LLAMA,
    "llama-2kv": dataclasses.replace(LLAMA, n_kv_heads=2),
    "llama-1kv": dataclasses.replace(LLAMA, n_kv_heads=1),
    "modern": MODERN,
    "modern-2kv": dataclasses.replace(MODERN, n_kv_heads=2, activation=Activation.swiglu, logit_softcap=None),
    "gru": GRU,
    "lstm-norm": dataclasses.replace(GRU, cell=Cell.lstm, final_norm=True),
}
EVERY_ARCHITECTURE = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


class Plain(nn.Module):
    """Computes the whole context anew each time, as a module that is none of ours."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs_BT: Tensor) -> Tensor:
        return self.module(inputs_BT)


def build(config: ModelConfig) -> nn.Module:
    """Build a model with weights large enough for every part of it to show in the logits."""
    module = build_model(config, V, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in module.parameters():
            if weight.ndim > 1:
                weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return module.eval()
