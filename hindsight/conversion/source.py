"""Sources of a conversion: a source divides itself into parts, and makes the tokens of each."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hindsight.conversion.token_part import TokenPart
from hindsight.text.digest import Digest


class Source(ABC):
    """What is converted: text, or tokens that were stored before."""

    seed: int
    val_share: float
    origin: dict[str, Any]
    """The other settings that the documents and the split depend on."""
    where: str
    """The corpus and its units, for messages."""
    action: str
    """A verb for the progress bar."""
    unit: str
    """The unit of `stored_bytes` and `total`, for the progress bar."""
    costly: bool
    """Whether making tokens takes long enough for several processes."""
    total: int | None
    """Size of the source; None if unknown."""
    fingerprint: str | None = None
    """Fingerprint of the corpus; None if it is only known when all was read."""
    stamp: str | None
    """Hash that changes with the corpus, and costs no reading of it; None if there is none."""
    files: int = 1
    """Number of files."""
    not_taken: Mapping[str, int] = MappingProxyType({})
    """How many files of the corpus are not taken, by kind."""
    counts_documents: bool = True
    """Whether documents can be told apart."""
    summary: dict[str, Any]
    """Statistics from an earlier conversion; empty if there was none."""
    val_below: float | None = None
    """Documents with a smaller draw go to val. None until both splits have a document: only then is the threshold
    val_share safe."""

    def prepare(self) -> None:  # noqa: B027 - stored tokens need nothing
        """Prepare for reading; called once, before any part is read."""

    def paths(self) -> list[str]:
        """Name some files that a process must see to read parts."""
        return []

    @abstractmethod
    def parts(self) -> Iterator[Any]:
        """Divide the source, the same way each time, into parts with a `signature` and `stored_bytes`."""

    @abstractmethod
    def read(self, part: Any) -> TokenPart:
        """Make the tokens of a part, which `parts` gave."""

    @abstractmethod
    def digest(self, part: Any) -> Digest:
        """Compute the digest of a part without making its tokens."""


def draws_of(hashes: NDArray[np.uint64], seed: int) -> NDArray[np.float64]:
    """Draw a number in [0, 1) for each hash, by a seed: the finalizer of SplitMix64 (doi:10.1145/2660193.2660195)."""
    salt = hashlib.blake2b(f"split {seed}".encode(), digest_size=8).digest()
    mixed = hashes ^ np.frombuffer(salt, "<u8")
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)) / float(1 << 53)
