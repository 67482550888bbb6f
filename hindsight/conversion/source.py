"""What a conversion reads: a source divides itself into parts, and makes the tokens of each."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hindsight.conversion.token_part import TokenPart
from hindsight.text.digest import Digest


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


def draws_of(hashes: NDArray[np.uint64], seed: int) -> NDArray[np.float64]:
    """Draw a number in [0, 1) for each hash and a seed: the finalizer of SplitMix64 (doi:10.1145/2660193.2660195)."""
    salt = hashlib.blake2b(f"split {seed}".encode(), digest_size=8).digest()
    mixed = hashes ^ np.frombuffer(salt, "<u8")
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)) / float(1 << 53)
