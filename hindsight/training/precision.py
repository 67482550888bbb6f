"""The number format that a model computes in: whether this machine has it, and how it is switched on.

On a GPU Composer turns PyTorch's autocast on round every forward pass. Without one Composer 0.32.1 accepts fp32 alone:
it is given that, and `LanguageModel` turns the autocast of a CPU on by itself. Matrix products and attention are then
in bfloat16; weights, gradients, optimizer and loss stay in float32. `needs_cpu_autocast` and the model's own autocast
can go with a Composer whose `_validate_precision` (composer/core/precision.py) lets amp_bf16 pass on a CPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from composer.core.precision import Precision as ComposerPrecision
from composer.core.precision import get_precision_context

from hindsight.config.training import Precision
from hindsight.device import device_of_process
from hindsight.errors import InputError
from hindsight.machine import processor_flags

BF16_FLAGS = {"avx512_bf16", "amx_bf16"}
"""Instructions that multiply bfloat16 on an x86 processor; without them it is slower than float32."""


def check_precision(precision: Precision) -> None:
    """Require that this machine computes in a number format at speed; InputError if it does not."""
    if precision is Precision.fp32 or _has_gpu():
        return
    has_bf16 = bool(processor_flags() & BF16_FLAGS)
    if precision is Precision.fp16:
        others = "precision=bf16 or fp32" if has_bf16 else "precision=fp32"
        raise InputError(f"precision=fp16 needs a GPU; use {others} here.")
    if not has_bf16:
        raise InputError(
            f"precision=bf16 needs a GPU, or a processor with {' or '.join(sorted(BF16_FLAGS))}, which this one does "
            "not list in /proc/cpuinfo; use precision=fp32 here."
        )


def is_available(precision: Precision) -> bool:
    """Whether `check_precision` lets a number format pass."""
    try:
        check_precision(precision)
    except InputError:
        return False
    return True


def composer_precision(precision: Precision) -> ComposerPrecision:
    """Give Composer's name of a number format; fp32 where it has no part in it."""
    names = {Precision.fp32: "fp32", Precision.bf16: "amp_bf16", Precision.fp16: "amp_fp16"}
    return ComposerPrecision(names[precision] if _has_gpu() else "fp32")


def needs_cpu_autocast(precision: Precision) -> bool:
    """Whether the model itself is to turn on the autocast of a CPU."""
    return precision is Precision.bf16 and not _has_gpu()


@contextmanager
def computing_in(precision: Precision) -> Iterator[None]:
    """Compute what is within as a run's training and evaluation do."""
    with (
        get_precision_context(composer_precision(precision)),
        torch.autocast("cpu", torch.bfloat16, enabled=needs_cpu_autocast(precision)),
    ):
        yield


def _has_gpu() -> bool:
    return device_of_process().name == "gpu"
