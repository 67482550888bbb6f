"""GPUs by name: how fast they are at best, and how much memory they have."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """What a GPU can do, by NVIDIA's datasheets.

    Args:
        name: part of its name, as PyTorch says it.
        flops: dense bfloat16 FLOP/s.
        memory_bytes: its memory.
    """

    name: str
    flops: float
    memory_bytes: int


DEVICES = (
    Device("H100 PCIe", 756e12, 80 * 10**9),
    Device("H100 NVL", 835e12, 94 * 10**9),
    Device("H100", 989e12, 80 * 10**9),
    Device("H200", 989e12, 141 * 10**9),
    Device("A100-SXM4-40GB", 312e12, 40 * 10**9),
    Device("A100-PCIE-40GB", 312e12, 40 * 10**9),
    Device("A100", 312e12, 80 * 10**9),
)
"""GPUs that are known; of those whose name is part of what is given, the first counts."""


def find_device(name: str) -> Device | None:
    """Find a GPU by a name that holds one of ours; None if it is not known."""
    return next((device for device in DEVICES if device.name.lower() in name.lower()), None)
