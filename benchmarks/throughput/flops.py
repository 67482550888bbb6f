"""Model FLOPs utilization (MFU): tokens/s times FLOPs per token, over the FLOP/s that the device could do at best.

FLOPs per token: 6N + 12LHQT for a transformer of L layers with H heads of Q numbers over T tokens (arXiv:2204.02311,
appendix B), 6N for an RNN. N counts the weights that a token is multiplied by: without embeddings, with the head. Like
there, attention counts in full, as if it were not causal, and activation checkpointing not at all. The best rate of a
GPU is its datasheet's for dense bfloat16; that of a CPU is measured here, in every round, on a matrix product in
float32 with as many threads.
"""

import time

import torch
from torch import nn

from benchmarks.throughput.setup import Setup
from hindsight.config.model import GPTConfig, ModelConfig
from language_model import build_model

MATMUL_SIZE = 2048
GPU_FLOPS = {"H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Part of a GPU's name -> dense bfloat16 FLOP/s of NVIDIA's datasheets; the first match counts."""


def flops_per_token(config: ModelConfig, vocab_size: int, context_length: int) -> int:
    """FLOPs of forward and backward pass for a token, by the formula above."""
    with torch.device("meta"):
        module = build_model(config, vocab_size, seed=0)
    embeddings = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    embeddings.discard(id(module.head.weight))  # tied: the same weight, and a matrix product all the same
    n = sum(weight.numel() for weight in module.parameters() if id(weight) not in embeddings)
    attention = 12 * config.n_layers * config.d_model * context_length if isinstance(config, GPTConfig) else 0
    return 6 * n + attention


def best_flops(setup: Setup) -> float | None:
    """FLOP/s that the device could do at best; None for a GPU whose datasheet is not listed here."""
    if setup.device == "cuda":
        name = torch.cuda.get_device_name()
        return next((rate for part, rate in GPU_FLOPS.items() if part in name), None)
    torch.set_num_threads(setup.threads)
    a, b = torch.ones(2, MATMUL_SIZE, MATMUL_SIZE)
    began = time.perf_counter()
    torch.mm(a, b)
    return 2 * MATMUL_SIZE**3 / (time.perf_counter() - began)
