"""Let a model write: after a prompt (forward), before it (backward, units), or all over a window (other orders)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hindsight.generation.sampling import Sampling
from hindsight.orders.order import Order, Reading
from hindsight.orders.units import UnitOrder


@dataclass(frozen=True)
class Text:
    """A text while a model writes it.

    Args:
        tokens: token ids in reading order; None where a window is not filled yet.
        prompt: where the prompt is among them, as (start, stop).
        is_ended: whether the model ended the document there; the end is not among the tokens.
    """

    tokens: list[int | None]
    prompt: tuple[int, int]
    is_ended: bool = False

    @property
    def known(self) -> list[int]:
        """The tokens that are there."""
        return [token for token in self.tokens if token is not None]


def write(
    module: nn.Module,
    prompt: Sequence[int],
    reading: Reading,
    eos_id: int,
    length: int,
    context_length: int,
    sampling: Sampling,
    seeds: Sequence[int],
) -> Iterator[list[Text]]:
    """Write texts from a prompt, one for each seed; what a seed gives does not depend on the others.

    A model of words writes one word behind the other: what it wrote is split into words again, and these are put into
    reading order before the prompt; so are sentences. Segments cannot be told apart, and stay as they were written.

    In any other order, the model fills a window that begins with the prompt, and the tokens of the prompt stand where
    they are; what is behind the first end of a document is left out.

    Args:
        module: inputs_BT -> logits_BTV.
        prompt: the prompt's tokens in reading order; there may be none.
        reading: the order that the module was trained in, and the id that begins its inputs.
        eos_id: id between documents; a text ends there.
        length: tokens to write at most.
        context_length: tokens that the module sees at most, the first id included.
        sampling: how tokens are drawn.
        seeds: of the draws, one for each text.

    Yields:
        All texts after each token; those that ended stay as they are.
    """
    texts: list[Text] = []
    was_training = module.training
    module.eval()
    try:
        for seed in seeds:
            text, generator = Text([], (0, 0)), torch.Generator().manual_seed(seed)
            for text in _write_one(module, [*prompt], reading, eos_id, length, context_length, sampling, generator):
                yield [*texts, text]
            texts.append(text)
    finally:
        module.train(was_training)


def last(texts: Iterator[list[Text]]) -> list[Text]:
    """Give what is written in the end."""
    *_, written = texts
    return written


@torch.no_grad()
def _write_one(
    module: nn.Module,
    prompt: list[int],
    reading: Reading,
    eos_id: int,
    length: int,
    context_length: int,
    sampling: Sampling,
    generator: torch.Generator,
) -> Iterator[Text]:
    order, n = reading.order, len(prompt)
    if order.name in ("forward", "backward") or isinstance(order, UnitOrder):
        read = [prompt[position] for position in order.permutation(np.array(prompt, np.int64))] if n else []
        for count in range(length + 1):
            added = read[n:]
            yield _shown(prompt, added, order)
            if count < length:
                token = sampling.draw(_logits(module, [reading.start_id, *read][-context_length:]), generator)
                if token == eos_id:
                    done = _shown(prompt, added, order)
                    yield Text(done.tokens, done.prompt, is_ended=True)
                    return
                read = [*read, token]
        return
    size = min(n + length, context_length)
    window: list[int | None] = [*prompt[:size], *[None] * (size - n)]
    filled = np.full(size, reading.start_id)
    filled[:n] = prompt[:size]
    read = [reading.start_id]
    yield Text([*window], (0, n))
    for position in order.permutation(filled).tolist():
        if position >= n:
            window[position] = sampling.draw(_logits(module, read), generator)
            yield Text([*window], (0, n))
        read.append(window[position] or 0)
    if eos_id in window[n:]:
        yield Text(window[: window.index(eos_id, n)], (0, n), is_ended=True)


def _shown(prompt: list[int], added: list[int], order: Order) -> Text:
    if order.name == "forward":
        return Text([*prompt, *added], (0, len(prompt)))
    if isinstance(order, UnitOrder):
        added = [added[position] for position in order.reading_order(np.array(added, np.int64))]
    else:
        added = added[::-1]
    return Text([*added, *prompt], (len(added), len(added) + len(prompt)))


def _logits(module: nn.Module, read: list[int]) -> Tensor:
    device = next(module.parameters()).device
    return module(torch.tensor([read], device=device))[0, -1]
