"""Let a model write: after a prompt (forward), before it (backward, units), or all over a window (other orders)."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from torch import nn

from hindsight.errors import InputError
from hindsight.generation.decoding import Decoder
from hindsight.generation.sampling import Sampling
from hindsight.orders.order import Order, Reading
from hindsight.orders.units import UnitOrder

Placed = tuple[list[int | None], tuple[int, int]]
"""Token ids in reading order, None where a window is not filled yet; and where the prompt is, as (start, stop)."""


@dataclass(frozen=True, eq=False)
class Text:
    """A text while a model writes it.

    It is put into reading order when that is asked for, so that a step costs the same however long the text is.

    Args:
        placed: gives its tokens in reading order.
        n_written: how many they are without the prompt's.
        is_ended: whether the model ended the document there; the end is not among the tokens.
    """

    placed: Callable[[], Placed]
    n_written: int
    is_ended: bool = False

    @cached_property
    def _placed(self) -> Placed:
        return self.placed()

    @property
    def tokens(self) -> list[int | None]:
        """Token ids in reading order; None where a window is not filled yet."""
        return self._placed[0]

    @property
    def prompt(self) -> tuple[int, int]:
        """Where the prompt is among them, as (start, stop)."""
        return self._placed[1]

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


def require_room(prompt: Sequence[int], order: Order, context_length: int, where: str = "prompt=") -> None:
    """Raise InputError if a model that fills windows has no room behind a prompt.

    Args:
        prompt: its tokens.
        order: the order that the model was trained in.
        context_length: tokens of a window.
        where: how a message names the prompt.
    """
    if not writes_on(order) and len(prompt) >= context_length:
        raise InputError(
            f"{where} has {len(prompt)} tokens, and a model of order={order.name} fills a window of {context_length}; "
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
    texts = [Text(partial(_shown, prompt, [], 0, order), 0) for _ in generators]
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
                n = len(written[i])
                texts[i] = Text(partial(_shown, prompt, written[i], n, order), n)
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
    places = [position for position in positions if position >= n]
    window_BT = torch.from_numpy(window_T).repeat(len(generators), 1)
    written: list[list[int]] = [[] for _ in generators]
    yield [Text(partial(_window, prompt, row, 0, places), 0) for row in written]
    for count, position in enumerate(positions):
        if position < n:
            continue
        logits_BV = decoder.read(window_BT[:, positions[n_read:count]])
        n_read = count
        drawn = sampling.draw(logits_BV, generators)
        window_BT[:, position] = torch.tensor(drawn)
        for row, token in zip(written, drawn, strict=True):
            row.append(token)
        n_written = len(written[0])
        yield [Text(partial(_window, prompt, row, n_written, places), n_written) for row in written]
    ends = [[*window_T.tolist(), eos_id].index(eos_id, n) for window_T in window_BT]
    if any(end < size for end in ends):
        yield [
            Text(partial(_window, prompt, row, size - n, places, end), end - n, is_ended=end < size)
            for row, end in zip(written, ends, strict=True)
        ]


def _shown(prompt: list[int], written: list[int], n_written: int, order: Order) -> Placed:
    """Put the first tokens that were written into reading order, beside the prompt."""
    added = written[:n_written]
    if order.name == "forward":
        return [*prompt, *added], (0, len(prompt))
    if isinstance(order, UnitOrder):
        added = [added[position] for position in order.reading_order(np.array(added, np.int64))]
    else:
        added = added[::-1]
    return [*added, *prompt], (len(added), len(added) + len(prompt))


def _window(prompt: list[int], written: list[int], n_written: int, places: list[int], end: int | None = None) -> Placed:
    """Put the first tokens that were written where they stand behind the prompt; leave out what is behind the end."""
    tokens: list[int | None] = [*prompt, *[None] * len(places)]
    for place, token in zip(places[:n_written], written, strict=False):
        tokens[place] = token
    return tokens[:end], (0, len(prompt))
