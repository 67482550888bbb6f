"""The tokens of a part, in a file between the process that makes them and the one that assembles them."""

import io
import json
import struct
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hindsight.files import write_atomically
from hindsight.text.digest import Digest

DAMAGED = (EOFError, KeyError, TypeError, ValueError, struct.error, zipfile.BadZipFile)
"""Raised by reading a damaged .npz file; other errors have other causes."""


@dataclass
class TokenPart:
    """Tokens of a part in reading order, and one row per unit.

    A unit is a document, or a piece of block_length tokens if documents are unknown; a part that was split before, by
    an earlier conversion, is one unit.

    Args:
        signature: the signature of the part.
        digest: digest of the units' contents.
        tokens: (N,) token ids.
        lengths: (U,) tokens in each unit.
        draws: (U,) in [0, 1); units whose draw is below the share of validation belong to it.
        documents: (U,) number of documents in each unit.
        bytes: (U,) UTF-8 bytes of each unit.
        hashes: (U,) hash of each document; empty if documents are unknown.
        problems: messages about text that was left out, the first ones.
        empty: documents without text.
        marks: lines that are text, but by which others separate documents.
        n_problems: how many texts were left out.
    """

    signature: str
    digest: Digest
    tokens: NDArray[np.integer]
    lengths: NDArray[np.int64]
    draws: NDArray[np.float64]
    documents: NDArray[np.int64]
    bytes: NDArray[np.int64]
    hashes: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    problems: list[str] = field(default_factory=list)
    empty: int = 0
    marks: dict[str, int] = field(default_factory=dict)
    n_problems: int = 0

    def save(self, path: Path) -> None:
        """Write the part; the checksums of .npz show later whether it is intact."""
        head = [self.signature, *self.digest, self.problems, self.empty, self.marks, self.n_problems]
        file = io.BytesIO()
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        np.savez(file, head=np.frombuffer(json.dumps(head).encode(), np.uint8), **arrays)
        write_atomically(path, file.getbuffer())

    @classmethod
    def load(cls, path: Path) -> "TokenPart | None":
        """Read a part; None if the file is damaged."""
        try:
            with np.load(path) as stored:
                # Earlier versions stored five of these.
                head = json.loads(stored["head"].tobytes())
                signature, documents, value, problems, empty, marks, n = [*head, {}, len(head[3])][:7]
                arrays: dict[str, Any] = {name: stored[name] for name in _ARRAYS}
        except DAMAGED:
            return None
        return cls(
            signature, Digest(documents, value), **arrays, problems=problems, empty=empty, marks=marks, n_problems=n
        )


_ARRAYS = ("tokens", "lengths", "draws", "documents", "bytes", "hashes")
