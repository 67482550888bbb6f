"""Texts and what they cost: as a table of tokens, as lines, or as JSON lines in a file."""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hindsight import output
from hindsight.config.generation import GenerateConfig
from hindsight.generation.judges import Judges
from hindsight.generation.records import check_out, hash_of, records_in_work
from hindsight.generation.scores import together, token_nats
from hindsight.shown_text import one_line

log = logging.getLogger("hindsight")

COLUMN = 10
"""Characters of a column of numbers."""


@dataclass(frozen=True)
class Scored:
    """A text with its nats.

    Args:
        text: the text.
        tokens: its n token ids.
        n_bytes: UTF-8 bytes that they stand for.
        nats: (n,) of each token, by the name of the model; with two models there are those of both together, too.
    """

    text: str
    tokens: list[int]
    n_bytes: int
    nats: dict[str, NDArray[np.float64]]

    @property
    def sums(self) -> dict[str, float]:
        """The nats of all tokens."""
        return {name: float(nats.sum()) for name, nats in self.nats.items()}

    @property
    def bits_per_byte(self) -> dict[str, float]:
        """Bits for each byte of the text."""
        return {name: nats / math.log(2) / self.n_bytes for name, nats in self.sums.items()}


def scored(judges: Judges, texts: Sequence[str], whole: bool, batch_size: int) -> list[Scored]:
    """Score texts.

    Args:
        judges: the models.
        texts: in reading order; none is empty.
        whole: whether each is a whole document, the end of which is scored too.
        batch_size: windows that are scored at once.
    """
    end = [judges.tokenizer.eos_id] if whole else []
    tokens = [[*each, *end] for each in judges.tokens_of(texts)]
    nats = [token_nats(reader, tokens, batch_size) for reader in judges.readers]
    names = [reader.name for reader in judges.readers]
    return [
        Scored(
            text,
            text_tokens,
            int(judges.tokenizer.bytes_per_token[text_tokens].sum()),
            together(dict(zip(names, nats_of_text, strict=True))),
        )
        for text, text_tokens, nats_of_text in zip(texts, tokens, zip(*nats, strict=True), strict=True)
    ]


def score(judges: Judges, texts: Iterable[str], config: GenerateConfig) -> None:
    """Score the texts of a call: one as a table, many as lines, or into a file."""
    whole, batch_size = config.whole, config.batch_size
    if config.out is not None:
        write_file(judges, [*texts], whole, batch_size, check_out(config.out))
    elif config.text is not None:
        say_one(judges, config.text, whole, batch_size)
    else:
        say_lines(judges, texts, whole, batch_size)


def say_one(judges: Judges, text: str, whole: bool, batch_size: int) -> None:
    """Print the nats of each token of a text, and of all together."""
    (found,) = scored(judges, [text], whole, batch_size)
    names = [judges.tokenizer.name_of(token) for token in found.tokens]
    width = max(map(len, [*names, "nats/token"]))
    if is_long(judges, len(found.tokens)):
        output.say_error(f"text= has {len(names)} tokens: {windows_note(judges)}")

    def say(name: str, values: Iterable[str]) -> None:
        output.say(f"{name:{width}}" + "".join(f"{value:>{COLUMN}}" for value in values))

    say("token", found.nats)
    for number, name in enumerate(names):
        say(name, (f"{nats[number]:.3f}" for nats in found.nats.values()))
    say("nats", (f"{nats:.3f}" for nats in found.sums.values()))
    say("nats/token", (f"{nats / len(names):.4f}" for nats in found.sums.values()))
    say("bits/byte", (f"{bits:.4f}" for bits in found.bits_per_byte.values()))


def say_lines(judges: Judges, texts: Iterable[str], whole: bool, batch_size: int) -> None:
    r"""Print a line for each text: its nats by each model, tabs between them, and the text; its line feeds as \n."""
    waiting, first = iter(texts), 1
    while some := [*islice(waiting, batch_size)]:
        for found in scored(judges, some, whole, batch_size):
            if is_long(judges, len(found.tokens)):
                output.say_error(f"text {first} has {len(found.tokens)} tokens: {windows_note(judges)}")
            if first == 1:
                output.say("\t".join([*(f"{name}_nats" for name in found.nats), "text"]))
            output.say("\t".join([*(f"{nats:.4f}" for nats in found.sums.values()), one_line(found.text)]))
            first += 1


def write_file(judges: Judges, texts: list[str], whole: bool, batch_size: int, out: Path) -> None:
    """Write a record for each text into a new file; go on with one that was begun so."""
    settings = {
        "models": judges.fingerprints,
        "texts": hash_of(texts),
        "whole": whole,
        "batch_size": batch_size,
    }
    with records_in_work(out, settings, len(texts), "texts") as records:
        for first in range(records.n_done, len(texts), batch_size):
            for found in scored(judges, texts[first : first + batch_size], whole, batch_size):
                records.add(record_of(found, judges))
    # Of all texts, also of those that an earlier start has scored.
    if n_long := sum(is_long(judges, len(tokens) + whole) for tokens in judges.tokens_of(texts)):
        log.warning("%d of %d texts are longer than the context: %s", n_long, len(texts), windows_note(judges))
    log.info("out=%s: %d texts.", out, len(texts))


def is_long(judges: Judges, n_tokens: int) -> bool:
    """Whether a text does not fit into one window."""
    return n_tokens > min(reader.context_length for reader in judges.readers)


def windows_note(judges: Judges) -> str:
    """Say what becomes of a text that does not fit into one window."""
    lengths = " and ".join(dict.fromkeys(str(reader.context_length) for reader in judges.readers))
    return f"the context has {lengths}, and such a text is cut into windows, each scored without the others."


def record_of(found: Scored, judges: Judges) -> dict[str, Any]:
    """Give the record of a text."""
    return {
        "text": found.text,
        "tokens": len(found.tokens),
        "bytes": found.n_bytes,
        "nats": found.sums,
        "bits_per_byte": found.bits_per_byte,
        "token_texts": [judges.tokenizer.name_of(token) for token in found.tokens],
        "token_nats": {name: [round(value, 5) for value in nats.tolist()] for name, nats in found.nats.items()},
        "models": judges.models,
    }
