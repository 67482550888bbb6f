"""What a text costs under a model: the nats of each token, the negative natural logarithm of its probability.

A forward model factorizes the probability of n tokens as p(x_1) p(x_2 | x_1) ..., a backward one as p(x_n)
p(x_n-1 | x_n) ...: two estimates of one number. Both together are taken by the mean of their logarithms, which ranks
texts as the joint score of Liu et al. does ("Agreement on Target-bidirectional Neural Machine Translation", NAACL
2016): a product of both models (doi:10.1162/089976602760128018), without its normalization, which is the same for all
texts.

Windows are those of training: a text longer than the context is cut into windows side by side from its begin, and each
is scored without the others.

Shapes: B windows, T tokens of the longest of them, n tokens of a text, V token ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hindsight.orders.examples import IGNORED, make_example, permutations, turn_back
from hindsight.orders.order import Order, Reading, readings_of

BOTH = "both"
"""The name of what a forward and a backward model give together."""


@dataclass(frozen=True)
class Reader:
    """A model in one of the ways in which it reads.

    Args:
        module: inputs_BT -> logits_BTV.
        reading: the order that it was trained in, and the id that begins its inputs.
        context_length: tokens in a window.
    """

    module: nn.Module
    reading: Reading
    context_length: int

    @property
    def name(self) -> str:
        """The order in which it reads, by which results name it."""
        return self.reading.order.name

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.module.parameters()).device


def readers_of(module: nn.Module, order: Order, bos_id: int, context_length: int) -> list[Reader]:
    """Give the ways in which a model reads: one, or with order=both two."""
    return [Reader(module, reading, context_length) for reading in readings_of(order, bos_id).values()]


def token_nats(reader: Reader, texts: Sequence[Sequence[int]], batch_size: int) -> list[NDArray[np.float64]]:
    """Score texts.

    Args:
        reader: the model.
        texts: token ids of each, in reading order; n of them.
        batch_size: windows that are scored at once; those of about the same length are taken together.

    Returns:
        For each text (n,) nats of its tokens, in reading order.
    """
    nats = [np.zeros(len(text)) for text in texts]
    windows = [
        (number, start, min(start + reader.context_length, len(text)))
        for number, text in enumerate(texts)
        for start in range(0, len(text), reader.context_length)
    ]
    windows.sort(key=lambda window: window[2] - window[1])
    for first in range(0, len(windows), batch_size):
        batch = windows[first : first + batch_size]
        nats_BT = _window_nats(reader, [texts[number][start:stop] for number, start, stop in batch])
        for (number, start, stop), nats_T in zip(batch, nats_BT, strict=True):
            nats[number][start:stop] = nats_T[: stop - start]
    return nats


def _window_nats(reader: Reader, windows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """Score windows; (B, T) nats in reading order, 0 behind the end of a short one."""
    window_BT = torch.full((len(windows), max(map(len, windows))), IGNORED)
    for row_T, window in zip(window_BT, windows, strict=True):
        row_T[: len(window)] = torch.tensor(window)
    inputs_BT, targets_BT = make_example(window_BT, reader.reading.order, reader.reading.start_id)
    nats_BT = target_nats(log_probs(reader, inputs_BT), targets_BT.to(reader.device))
    return turn_back(nats_BT.cpu(), permutations(window_BT, reader.reading.order)).numpy()


@torch.no_grad()
def log_probs(reader: Reader, inputs_BT: Tensor) -> Tensor:
    """Predict what follows each input, (B, T, V) logarithms of probabilities in float32, on the model's device."""
    return reader.module(inputs_BT.to(reader.device)).float().log_softmax(-1)


def target_nats(log_probs_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Take the nats of the targets, 0 where they are IGNORED; (B, T)."""
    return F.nll_loss(log_probs_BTV.flatten(0, 1), targets_BT.flatten(), ignore_index=IGNORED, reduction="none").view(
        targets_BT.shape
    )


def together(nats: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Add the mean of a forward and a backward model, if there are both.

    Args:
        nats: of a text, (n,) by the name of the reader.
    """
    return nats if len(nats) < 2 else {**nats, BOTH: np.mean([*nats.values()], axis=0)}
