"""Where tokens come from: text, and in stored.py tokens from before. Each source divides itself into parts.

Text is split by documents, before anything is cut into blocks, and by what they say: equal documents are on the same
side.
"""

import hashlib
import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hindsight.config.conversion import ConvertConfig
from hindsight.conversion.token_part import TokenPart
from hindsight.shards.manifest import token_dtype
from hindsight.text.digest import HASH_BYTES, Digest, hash_document
from hindsight.text.documents import CHECKED_FILES, Corpus
from hindsight.text.parts import Part
from hindsight.text.problems import Reading
from hindsight.tokenization.fast_encoding import choose_encoder
from hindsight.tokenization.tokenizer import Tokenizer

SAMPLE_BYTES = 1 << 18
"""Text of the corpus on which an encoder is checked."""
SAMPLE_PARTS = 8


class Source(ABC):
    """Where tokens come from."""

    seed: int
    val_share: float
    origin: dict[str, Any]
    """What else the documents and the split depend on."""
    where: str
    """What the units are, for messages."""
    doing: str
    """What is done to it, for the progress bar."""
    unit: str
    """What `stored_bytes` of its parts counts, for the progress bar."""
    costly: bool
    """Whether making tokens takes long enough to have several processes do it."""
    total: int | None
    """How much of it there is; None where that is not known."""
    fingerprint: str | None = None
    """Fingerprint of the corpus; None where it is that of what is read."""
    stamp: str | None
    """Hash that changes when the corpus does; None where there is none."""
    files: int = 1
    """Number of files."""
    counts_documents: bool = True
    """Whether documents are known."""
    summary: dict[str, Any]
    """Statistics that are known beforehand."""
    val_below: float | None = None
    """Draws below it are val's; None where that depends on all documents, as at least one is held out."""

    def prepare(self) -> None:  # noqa: B027 - stored tokens need nothing
        """Get ready to read, once."""

    def paths(self) -> list[str]:
        """Name files that whoever reads a part must see; a few of many."""
        return []

    @abstractmethod
    def parts(self) -> Iterator[Any]:
        """Divide the source, the same way each time, into parts with a `signature` and `stored_bytes`."""

    @abstractmethod
    def read(self, part: Any) -> TokenPart:
        """Make the tokens of a part."""

    @abstractmethod
    def digest(self, part: Any) -> Digest:
        """Read a part again, without making tokens."""


class Text(Source):
    """Documents. EOS follows each."""

    doing = "tokenizing"
    unit = "B"
    costly = True

    def __init__(self, config: ConvertConfig, tokenizer: Tokenizer) -> None:
        self.config = config
        self.seed = config.seed
        self.val_share = config.val_share
        self.origin = {**config.reading(), "split_by": "text"}
        self.where = f"corpus={config.corpus}, with corpus_format={config.corpus_format.value},"
        self.corpus = Corpus(config)
        self.total = self.corpus.stored_bytes
        self.stamp = self.corpus.stamp
        self.files = len(self.corpus.files)
        self.summary = {}
        self.tokenizer = tokenizer
        self.dtype = token_dtype(tokenizer.vocab_size)
        self.key = f"{tokenizer.fingerprint} {self.seed} {self.origin}"
        """What the tokens of a part depend on, beside its text."""
        self._parts = self.corpus.parts()

    def prepare(self) -> None:
        """Choose the encoder, checked on a sample of the corpus."""
        if self.corpus.random_access:
            parts = list(self.corpus.parts())
            chosen = parts[:: max(1, len(parts) // SAMPLE_PARTS)]
        else:
            chosen = list(itertools.islice(self._parts, 1))
            self._parts = itertools.chain(chosen, self._parts)
        texts = (text for part in chosen for text in self._beginning(part, SAMPLE_BYTES // len(chosen)))
        self.encoder = choose_encoder(self.tokenizer, self.config.encoder, texts)

    def paths(self) -> list[str]:
        """Name some of the files."""
        return (
            []
            if not self.corpus.random_access
            else [file.path for file in self.corpus.files[:CHECKED_FILES] if os.path.isfile(file.path)]
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_parts": iter(())}  # who divides the corpus is the process that hands out its parts

    def _beginning(self, part: Part, n_bytes: int) -> Iterator[str]:
        for document in self.corpus.read(part, Reading()):
            yield document.text[:n_bytes]
            n_bytes -= len(document.raw)
            if n_bytes <= 0:
                return

    def parts(self) -> Iterator[Part]:
        """Divide the corpus."""
        for part in self._parts:
            yield part._replace(signature=hashlib.blake2b(f"{self.key} {part.signature}".encode()).hexdigest()[:32])
        self._parts = self.corpus.parts()

    def read(self, part: Part) -> TokenPart:
        """Encode the documents of a part."""
        reading = Reading()
        ids: list[NDArray] = []
        lengths: list[int] = []
        n_bytes: list[int] = []
        hashes: list[bytes] = []
        end = np.array([self.tokenizer.eos_id], self.dtype)
        for document in self.corpus.read(part, reading):
            encoded = self.encoder.encode(document.text).astype(self.dtype)
            ids += (encoded, end)
            lengths.append(len(encoded) + 1)
            n_bytes.append(len(document.raw))
            hashes.append(hash_document(document.raw))
        numbers = np.frombuffer(b"".join(hashes), "<u8")[:: HASH_BYTES // 8]
        return TokenPart(
            part.signature,
            Digest.of(hashes),
            np.concatenate(ids) if ids else np.empty(0, self.dtype),
            np.array(lengths, np.int64),
            draws_of(numbers, self.seed),
            np.ones(len(lengths), np.int64),
            np.array(n_bytes, np.int64),
            numbers,
            [problem.message for problem in reading.problems],
            reading.empty,
        )

    def digest(self, part: Part) -> Digest:
        """Hash the documents of a part."""
        return Digest.of([hash_document(document.raw) for document in self.corpus.read(part, Reading())])


def draws_of(hashes: NDArray[np.uint64], seed: int) -> NDArray[np.float64]:
    """Draw a number in [0, 1) for each hash and a seed: the finalizer of SplitMix64 (doi:10.1145/2660193.2660195)."""
    salt = hashlib.blake2b(f"split {seed}".encode(), digest_size=8).digest()
    mixed = hashes ^ np.frombuffer(salt, "<u8")
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)) / float(1 << 53)
