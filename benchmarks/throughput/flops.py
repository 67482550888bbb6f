"""Model FLOPs utilization (MFU): tokens/s times FLOPs per token, over the FLOP/s that the device could do at best.

FLOPs per token are those of `hindsight/planning/parameters.py`. The best rate of a GPU is its datasheet's for dense
bfloat16; that of a CPU is measured here, in every round, on a matrix product in the same precision with as many
threads.
"""

import time

import torch

from benchmarks.throughput.setup import Setup
from hindsight.config.training import Precision
from hindsight.planning.devices import find_device

MATMUL_SIZE = 2048


def best_flops(setup: Setup, precision: Precision) -> float | None:
    """FLOP/s that the device could do at best; None for a GPU whose datasheet is not listed."""
    if setup.device == "cuda":
        device = find_device(torch.cuda.get_device_name())
        return None if device is None else device.flops
    torch.set_num_threads(setup.threads)
    dtype = torch.bfloat16 if precision is Precision.bf16 else torch.float32
    a, b = torch.ones(2, MATMUL_SIZE, MATMUL_SIZE, dtype=dtype)
    began = time.perf_counter()
    torch.mm(a, b)
    return 2 * MATMUL_SIZE**3 / (time.perf_counter() - began)
