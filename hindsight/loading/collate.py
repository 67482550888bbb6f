"""Windows of tokens -> a batch of inputs and targets, in the order in which the model reads.

Shapes: B windows, T tokens.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hindsight.orders.documents import documents_of, shift_within
from hindsight.orders.examples import IGNORED, make_example, permutations
from hindsight.orders.order import Order


@dataclass(frozen=True)
class Collate:
    """Windows -> {"input_ids", "targets"}, each (B, T) int64, and "documents" if an eos_id tells them apart.

    With order=both there is "way" too, (B,) int64: the number of the reading.
    """

    order: Order
    bos_id: int
    context_length: int
    eos_id: int | None = None

    def __call__(self, samples: list[dict[str, NDArray]]) -> "Batch":
        """Stack windows, pad short ones with IGNORED, and shift them into inputs and targets."""
        window_BT = np.empty((len(samples), self.context_length), np.int64)
        for row_T, sample in zip(window_BT, samples, strict=True):
            tokens = sample["tokens"]
            row_T[: len(tokens)] = tokens
            row_T[len(tokens) :] = IGNORED
        windows_BT = torch.from_numpy(window_BT)
        if not self.order.readings:
            return Batch(self._read(windows_BT, self.order, self.bos_id))
        way_B = torch.tensor([sample["way"] for sample in samples])
        batch = Batch(way=way_B)
        for way, reading in enumerate(self.order.readings):
            rows = way_B == way
            for name, values_BT in self._read(windows_BT[rows], reading.order, reading.start_id).items():
                batch.setdefault(name, torch.empty_like(windows_BT))[rows] = values_BT
        return batch

    def _read(self, windows_BT: Tensor, order: Order, start_id: int) -> dict[str, Tensor]:
        """Shift windows into inputs and targets in an order."""
        if self.eos_id is not None:
            positions_BT = permutations(windows_BT, order)
            targets_BT = windows_BT.gather(1, positions_BT)
            documents_BT = documents_of(windows_BT, self.eos_id).gather(1, positions_BT)
            inputs_BT = shift_within(targets_BT, documents_BT, start_id)
            return {"input_ids": inputs_BT, "targets": targets_BT, "documents": documents_BT}
        inputs_BT, targets_BT = make_example(windows_BT, order, start_id)
        return {"input_ids": inputs_BT, "targets": targets_BT}


class Batch(dict[str, Tensor]):
    """A batch that data workers send through their pipe.

    PyTorch would send each tensor as shared memory and a socket in TMPDIR: a small /dev/shm ends the worker by SIGBUS,
    and where TMPDIR is too long for a socket's name it is waited for for ever.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        """Send NumPy's arrays."""
        return Batch.received, ({name: tensor.numpy() for name, tensor in self.items()},)

    @classmethod
    def received(cls, arrays: dict[str, NDArray]) -> "Batch":
        """Make the batch that was sent."""
        return cls((name, torch.from_numpy(array)) for name, array in arrays.items())
