"""A model that writes text: prompts go in as people type them, and texts come out in reading order while they grow."""

import codecs
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, partial
from itertools import groupby

from torch import nn

from hindsight.config.corpus import TextOrder
from hindsight.config.generation import GenerateConfig
from hindsight.errors import InputError
from hindsight.generation.prompts import require_characters
from hindsight.generation.sampling import sampling_of
from hindsight.generation.writing import Text, last, require_room, write, writes_on
from hindsight.orders.order import Order, Reading, readings_of
from hindsight.orders.units import UnitOrder
from hindsight.text.graphemes import reverse_text
from hindsight.tokenization.tokenizer import Tokenizer

MISSING = "·"
"""Stands for a token of a window that is not filled yet."""
MAX_CONTINUATION_BYTES = 3
"""Most bytes of a character behind its first."""


class Growth(Enum):
    """Where a text grows, as people read it: behind its prompt, before it, or anywhere in a window."""

    right = "right"
    left = "left"
    inside = "inside"


@dataclass(frozen=True, eq=False)
class Written:
    """A text while a model writes it, in reading order; it is decoded when it is looked at.

    Args:
        decoded: gives what stands before the prompt, the prompt as the tokenizer gives it back, and what stands behind
            it; of a window, with `MISSING` for each token that it lacks.
        n_tokens: tokens written, without the prompt's.
        is_ended: whether the model ended the document there.
    """

    decoded: Callable[[], tuple[str, str, str]]
    n_tokens: int
    is_ended: bool

    @cached_property
    def parts(self) -> tuple[str, str, str]:
        """What stands before the prompt, the prompt, and what stands behind it."""
        return self.decoded()

    @property
    def prompt(self) -> str:
        """The prompt, as the tokenizer gives it back."""
        return self.parts[1]

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.parts)


class Writer:
    """A model with what it needs to read and write text.

    Args:
        module: inputs_BT -> logits_BTV.
        tokenizer: that of its training data.
        reading: the order in which it was trained, and the id that begins its inputs.
        context_length: tokens that it sees at most, the first id included.
        text_order: whether the text of documents was reversed before it was tokenized.
    """

    def __init__(
        self, module: nn.Module, tokenizer: Tokenizer, reading: Reading, context_length: int, text_order: TextOrder
    ) -> None:
        self.module, self.tokenizer, self.reading = module, tokenizer, reading
        self.context_length = context_length
        self.is_reversed = text_order is TextOrder.reversed

    @property
    def growth(self) -> Growth:
        """Where texts grow."""
        order = self.reading.order
        if not writes_on(order):
            return Growth.inside
        return Growth.right if (order.name == "forward") is not self.is_reversed else Growth.left

    def tokens_of(self, prompt: str, where: str) -> list[int]:
        """Give the tokens of a prompt in the order of the training text.

        Args:
            prompt: the prompt in reading order.
            where: how a message names it.

        Raises:
            InputError: it is no text, or leaves no room in a window that is to be filled.
        """
        require_characters(prompt, where)
        tokens = self.tokenizer.encode_batch([self._turned(prompt)])[0]
        require_room(tokens, self.reading.order, self.context_length, where)
        return tokens

    def n_unread(self, n_tokens: int) -> int:
        """How many of a prompt's tokens the model does not see: of one that fills the context, all but half of that."""
        return n_tokens - self.context_length // 2 if n_tokens >= self.context_length else 0

    def unread_note(self, n_tokens: int, where: str) -> str | None:
        """Say that a part of a prompt is not read; None if all of it is."""
        return f"{where} has {n_tokens} tokens: {self.context_rule}" if self.n_unread(n_tokens) else None

    @property
    def context_rule(self) -> str:
        """What becomes of a prompt that fills the context."""
        end = "first" if self.growth is Growth.left else "last"
        return (
            f"the model sees {self.context_length}, and begins with the {end} {self.context_length // 2} of the prompt."
        )

    def write(self, tokens: Sequence[int], config: GenerateConfig, seeds: Sequence[int]) -> Iterator[list[Written]]:
        """Write texts from a prompt, one for each seed.

        Args:
            tokens: what `tokens_of` gives.
            config: length and sampling.
            seeds: of the draws.

        Yields:
            All texts after each token, where characters whose bytes are not all there yet are left out; and once more
            in the end, with all there is.
        """
        texts: list[Text] = []
        for texts in self._steps(tokens, config, seeds):
            yield [self._written(text, is_done=False) for text in texts]
        yield [self._written(text, is_done=True) for text in texts]

    def texts(self, tokens: Sequence[int], config: GenerateConfig, seeds: Sequence[int]) -> list[Written]:
        """Write texts as `write` does, and give what they are in the end."""
        return [self._written(text, is_done=True) for text in last(self._steps(tokens, config, seeds))]

    def _steps(self, tokens: Sequence[int], config: GenerateConfig, seeds: Sequence[int]) -> Iterator[list[Text]]:
        eos_id, length = self.tokenizer.eos_id, self.context_length
        return write(self.module, tokens, self.reading, eos_id, config.length, length, sampling_of(config), seeds)

    def _turned(self, text: str) -> str:
        return reverse_text(text) if self.is_reversed else text

    def _written(self, text: Text, is_done: bool) -> Written:
        return Written(partial(self._decoded, text, is_done or text.is_ended), text.n_written, text.is_ended)

    def _decoded(self, text: Text, is_done: bool) -> tuple[str, str, str]:
        start, stop = text.prompt
        if isinstance(self.reading.order, UnitOrder) and not is_done:  # it grows in its middle
            before, prompt, after = (
                self._bytes(tokens).decode(errors="ignore")
                for tokens in (text.tokens[:start], text.tokens[start:stop], text.tokens[stop:])
            )
        else:
            before = self._text(text.tokens[:start], not is_done, False)
            prompt = self._text(text.tokens[start:stop], False, False)
            after = self._text(text.tokens[stop:], False, not is_done)
        if self.is_reversed:
            whole = reverse_text(before + prompt + after)
            before, prompt, after = _around(reverse_text(prompt), whole, is_before=start == 0)
        return before, prompt, after

    def _bytes(self, tokens: Sequence[int | None]) -> bytes:
        return b"".join(self.tokenizer.bytes_of(token) for token in tokens if token is not None)

    def _text(self, tokens: Sequence[int | None], is_left_open: bool, is_right_open: bool) -> str:
        """Decode tokens; characters that are incomplete where more is to come are left out."""
        runs = [(is_missing, [*run]) for is_missing, run in groupby(tokens, lambda token: token is None)]
        pieces: list[str] = []
        for number, (is_missing, run) in enumerate(runs):
            is_first, is_last = number == 0, number == len(runs) - 1
            pieces.append(
                MISSING * len(run)
                if is_missing
                else _decoded(self._bytes(run), is_left_open or not is_first, is_right_open or not is_last)
            )
        return "".join(pieces)


def readings_for(order: Order, bos_id: int, direction: str | None) -> dict[str, Reading]:
    """Give the readings of an order by their names; with order=both the one that direction= names comes first.

    Args:
        order: that of the run.
        bos_id: id that begins the inputs of most orders.
        direction: forward, backward, or None, which means forward.

    Raises:
        InputError: there is nothing to choose.
    """
    readings = readings_of(order, bos_id)
    if not order.readings and direction not in (None, order.name):
        raise InputError(
            f"direction={direction} is for a run of order=both; this one is of {order.name}; leave it out."
        )
    return dict(sorted(readings.items(), key=lambda item: item[0] != (direction or "forward")))


def _decoded(content: bytes, is_left_open: bool, is_right_open: bool) -> str:
    if is_left_open:
        n_cut = 0
        while n_cut < min(len(content), MAX_CONTINUATION_BYTES) and content[n_cut] & 0xC0 == 0x80:
            n_cut += 1
        content = content[n_cut:]
    return codecs.getincrementaldecoder("utf-8")("replace").decode(content, final=not is_right_open)


def _around(prompt: str, whole: str, is_before: bool) -> tuple[str, str, str]:
    """Find the prompt at the end or the beginning of a text; marks may have joined what is beside them."""
    if is_before and whole.endswith(prompt):
        return whole[: len(whole) - len(prompt)], prompt, ""
    if not is_before and whole.startswith(prompt):
        return "", prompt, whole[len(prompt) :]
    return "", "", whole
