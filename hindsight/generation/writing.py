"""Let a model write: after a prompt (forward), before it (backward, units), or all over a window (other orders)."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from hindsight.errors import InputError
from hindsight.generation.decoding import Decoder
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
) -> Generator[list[Text], None, None]:
    """Write texts from a prompt at once, one for each seed.

    What a seed gives does not depend on the others, unless rounding, which is another in a larger batch, decides
    between two tokens.

    A model of words writes one word behind the other: what it wrote is split into words again, and these are put into
    reading order before the prompt; so are sentences. Segments cannot be told apart, and stay as they were written.
    What is longer than the context goes on by the rule of `decoding`, a prompt too.

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
        All texts, at first as the prompt alone, then after each token; those that ended stay as they are.

    Raises:
        InputError: a window has no room behind the prompt.
    """
    require_room(prompt, reading.order, context_length)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    was_training = module.training
    module.eval()
    try:
        if writes_on(reading.order):
            decoder = Decoder(module, reading.start_id, context_length)
            yield from _write_on(decoder, [*prompt], reading.order, eos_id, length, sampling, generators)
        else:
            decoder = Decoder(module, reading.start_id, context_length, n_rows=len(seeds))
            yield from _fill(decoder, [*prompt], reading.order, eos_id, length, sampling, generators)
    finally:
        module.train(was_training)


def last(texts: Iterator[list[Text]]) -> list[Text]:
    """Give what is written in the end."""
    *_, written = texts
    return written


def writes_on(order: Order) -> bool:
    """Whether a model of this order writes one token next to the other, and not all over a window."""
    return order.name in ("forward", "backward") or isinstance(order, UnitOrder)


def require_room(prompt: Sequence[int], order: Order, context_length: int, key: str = "prompt") -> None:
    """Raise InputError if a model that fills windows has no room behind a prompt.

    Args:
        prompt: its tokens.
        order: the order that the model was trained in.
        context_length: tokens of a window.
        key: where the prompt was given.
    """
    if not writes_on(order) and len(prompt) >= context_length:
        raise InputError(
            f"{key}= has {len(prompt)} tokens, and a model of order={order.name} fills a window of {context_length}; "
            f"shorten it to at most {context_length - 1}."
        )


def _write_on(
    decoder: Decoder,
    prompt: list[int],
    order: Order,
    eos_id: int,
    length: int,
    sampling: Sampling,
    generators: list[torch.Generator],
) -> Iterator[list[Text]]:
    read = [prompt[position] for position in order.permutation(np.array(prompt, np.int64))] if prompt else []
    written: list[list[int]] = [[] for _ in generators]
    texts = [_shown(prompt, [], order) for _ in generators]
    yield [*texts]
    going, tokens_BT = [*range(len(texts))], torch.tensor([read], dtype=torch.int64)
    for count in range(length):
        logits_BV = decoder.read(tokens_BT)
        if count == 0:  # all go on from one prompt
            decoder.keep([0] * len(texts))
            logits_BV = logits_BV.expand(len(texts), -1)
        drawn = sampling.draw(logits_BV, [generators[i] for i in going])
        for i, token in zip(going, drawn, strict=True):
            if token == eos_id:
                texts[i] = replace(texts[i], is_ended=True)
            else:
                written[i].append(token)
                texts[i] = _shown(prompt, written[i], order)
        yield [*texts]
        rows = [row for row, token in enumerate(drawn) if token != eos_id]
        if not rows:
            return
        if len(rows) < len(going):
            decoder.keep(rows)
            going = [going[row] for row in rows]
        tokens_BT = torch.tensor([[drawn[row]] for row in rows])


def _fill(
    decoder: Decoder,
    prompt: list[int],
    order: Order,
    eos_id: int,
    length: int,
    sampling: Sampling,
    generators: list[torch.Generator],
) -> Iterator[list[Text]]:
    n, size = len(prompt), min(len(prompt) + length, decoder.context_length)
    window_T = np.zeros(size, np.int64)
    window_T[:n] = prompt
    positions, n_read = order.permutation(window_T).tolist(), 0
    window_BT = torch.from_numpy(window_T).repeat(len(generators), 1)
    windows: list[list[int | None]] = [[*prompt, *[None] * (size - n)] for _ in generators]
    yield [Text([*window], (0, n)) for window in windows]
    for count, position in enumerate(positions):
        if position < n:
            continue
        logits_BV = decoder.read(window_BT[:, positions[n_read:count]])
        n_read = count
        drawn = sampling.draw(logits_BV, generators)
        window_BT[:, position] = torch.tensor(drawn)
        for window, token in zip(windows, drawn, strict=True):
            window[position] = token
        yield [Text([*window], (0, n)) for window in windows]
    ends = [window.index(eos_id, n) if eos_id in window[n:] else None for window in windows]
    if any(end is not None for end in ends):
        yield [Text(window[:end], (0, n), is_ended=end is not None) for window, end in zip(windows, ends, strict=True)]


def _shown(prompt: list[int], added: list[int], order: Order) -> Text:
    if order.name == "forward":
        return Text([*prompt, *added], (0, len(prompt)))
    if isinstance(order, UnitOrder):
        added = [added[position] for position in order.reading_order(np.array(added, np.int64))]
    else:
        added = added[::-1]
    return Text([*added, *prompt], (len(added), len(added) + len(prompt)))
