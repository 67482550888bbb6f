"""What a synthetic language is: texts of one length, and the exact entropy of one.

Every document is OPENING, its characters, and a line feed; EOS follows in a conversion. With a tokenizer of bytes these
are T = 2 + characters + 2 tokens. Two tokens without any choice stand at each end, so that the layout of a document is
the same for a model that begins at its end.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

OPENING = b"<:"
"""What every document begins with: as many tokens as the line feed and EOS at its end."""
END_TOKENS = 2
"""The line feed and EOS."""
FIRST_LETTER = ord("a")
FIRST_DIGIT = ord("0")


class Role(Enum):
    """What a language is for.

    null: both directions are equally hard, by symmetry. calibration: a small model comes near the floor in every order.
    positive: a direction may be harder to learn, although the floors are the same.
    """

    null = "null"
    calibration = "calibration"
    positive = "positive"


@dataclass(frozen=True)
class Language:
    """A law of documents.

    Args:
        characters: characters of a document between OPENING and the line feed.
        nats: entropy of a document.
        twin_probability: probability that two documents are the same text, the sum of the squared probabilities.
        possible_texts: number of different documents.
        layout: what a document looks like, in a line.
        derivation: where `nats` comes from.
        role: what the language is for.
        is_calibration: whether a small model comes near the floor; nulls may do so too.
        draw: (documents, generator) -> their characters, (documents, characters) uint8.
        nats_std: standard deviation of -ln p over documents, whose mean is `nats`: the mean over n documents that are
            held out differs from it by about nats_std over the root of n. 0 if all texts are equally likely.
        nats_error: most that `nats` may be wrong by, beyond rounding.
    """

    characters: int
    nats: float
    twin_probability: float
    possible_texts: int
    layout: str
    derivation: str
    role: Role
    is_calibration: bool
    draw: Callable[[int, np.random.Generator], NDArray[np.uint8]]
    nats_std: float
    nats_error: float = 0.0

    @property
    def tokens(self) -> int:
        """Tokens of a document, EOS included, by a tokenizer of bytes."""
        return len(OPENING) + self.characters + END_TOKENS


def language_generator(seed: int) -> np.random.Generator:
    """Draws what the language is: its probabilities, matrix, or map."""
    return np.random.default_rng([seed, 0])


def document_generator(seed: int) -> np.random.Generator:
    """Draws the documents."""
    return np.random.default_rng([seed, 1])


def entropy(probabilities: NDArray[np.float64], axis: int | None = None) -> NDArray[np.float64]:
    """Entropy in nats, over all entries or along an axis; 0 ln 0 is 0."""
    logs = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    return -(probabilities * logs).sum(axis)


def drawn_rows(shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.float64]:
    """Draw laws along the last axis: strongly uneven, and none of their probabilities near 0."""
    uneven, even_share = 0.3, 0.05
    rows = generator.dirichlet(np.full(shape[-1], uneven), shape[:-1])
    return (1 - even_share) * rows + even_share / shape[-1]


def choose(cumulative: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.int64]:
    """Draw an index for each row of cumulative probabilities, (B, V) -> (B,)."""
    draws = generator.random(len(cumulative))
    return np.minimum((draws[:, None] >= cumulative).sum(1), cumulative.shape[1] - 1)


def involution(size: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Draw a permutation that is its own inverse: elements in pairs, and one by itself if their number is odd."""
    shuffled = generator.permutation(size)
    mapped = np.arange(size)
    first, second = shuffled[: size // 2], shuffled[size // 2 : size // 2 * 2]
    mapped[first], mapped[second] = second, first
    return mapped


def digits_of(numbers: NDArray[np.int64], width: int, base: int = 10, first: int = FIRST_DIGIT) -> NDArray[np.uint8]:
    """Write numbers with leading zeros, (...) -> (..., width) characters."""
    powers = base ** np.arange(width - 1, -1, -1)
    return (numbers[..., None] // powers % base + first).astype(np.uint8)


def side_by_side(*parts: NDArray[np.uint8] | str) -> NDArray[np.uint8]:
    """Join characters, (..., width) of each part, behind each other; a text, never the first part, is in every row."""
    shape = np.shape(parts[0])[:-1]
    rows = [
        np.broadcast_to(np.frombuffer(part.encode(), np.uint8), (*shape, len(part))) if isinstance(part, str) else part
        for part in parts
    ]
    return np.concatenate(rows, -1)


def joined_samples(samples: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Join the samples of each document by semicolons, (B, n, c) -> (B, n * (c + 1) - 1)."""
    n_documents, n_samples, width = samples.shape
    with_ends = np.full((n_documents, n_samples, width + 1), ord(";"), np.uint8)
    with_ends[..., :width] = samples
    return with_ends.reshape(n_documents, -1)[:, :-1]


def of_samples(
    samples: int,
    width: int,
    nats: float,
    texts: int,
    draw: Callable[[tuple[int, int], np.random.Generator], NDArray[np.uint8]],
    *,
    twin_probability: float | None = None,
    nats_std: float,
    layout: str,
    derivation: str,
    role: Role,
    is_calibration: bool = False,
) -> Language:
    """Make a language whose documents are independent samples, joined by semicolons.

    Args:
        samples: samples in a document.
        width: characters of a sample.
        nats: entropy of a sample.
        texts: different samples.
        draw: ((documents, samples), generator) -> their characters, (documents, samples, width).
        twin_probability: probability that two samples are the same; None if all are equally likely.
        nats_std: standard deviation of -ln p of a sample.
        layout: what a sample looks like.
        derivation: the entropy of a sample.
        role: what the language is for.
        is_calibration: whether a small model comes near the floor.
    """
    if samples > 1:
        layout = f"{samples} samples {layout}, with ; between them"
        derivation += f" The {samples} samples of a document are independent: {samples} times as much."
    return Language(
        characters=samples * (width + 1) - 1,
        nats=samples * nats,
        twin_probability=(1 / texts if twin_probability is None else twin_probability) ** samples,
        possible_texts=texts**samples,
        layout=layout,
        derivation=derivation,
        role=role,
        is_calibration=is_calibration,
        draw=lambda documents, generator: joined_samples(draw((documents, samples), generator)),
        nats_std=math.sqrt(samples) * nats_std,
    )


class Source(Protocol):
    """What emits symbols, one after the other."""

    @property
    def symbols(self) -> int:
        """Number of different symbols."""
        ...

    def twin_probability(self, length: int) -> float:
        """Probability that two texts of `length` symbols are the same."""
        ...

    def nats_std(self, length: int) -> float:
        """Standard deviation of -ln p of a text of `length` symbols."""
        ...

    def draw(self, documents: int, length: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """Draw texts, (documents, length) symbols."""
        ...


def of_source(
    source: Source, length: int, *, nats: float, derivation: str, role: Role, nats_error: float = 0.0
) -> Language:
    """Make a language whose documents are symbols of a source, as letters; a small model comes near its floor.

    Args:
        source: what emits them.
        length: symbols of a document.
        nats: entropy of a document.
        derivation: where that comes from.
        role: what the language is for.
        nats_error: most that `nats` may be wrong by, beyond rounding.
    """
    return Language(
        characters=length,
        twin_probability=source.twin_probability(length),
        possible_texts=source.symbols**length,
        layout=f"{length} symbols, letters from a to {chr(FIRST_LETTER + source.symbols - 1)}",
        is_calibration=True,
        draw=lambda documents, generator: (source.draw(documents, length, generator) + FIRST_LETTER).astype(np.uint8),
        nats_std=source.nats_std(length),
        nats=nats,
        derivation=derivation,
        role=role,
        nats_error=nats_error,
    )
