"""The tokens of a part, on disk between the process that made them and the one that puts parts together."""

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
"""What reading a damaged .npz file raises; other errors are not the file's fault."""


@dataclass
class TokenPart:
    """Tokens of a part in reading order, made up of units: documents, or what stands in for them.

    Args:
        signature: that of the part.
        digest: digest of the units' contents.
        tokens: (N,) token ids.
        lengths: (U,) tokens in each unit.
        draws: (U,) in [0, 1); a unit with a draw below the share of validation belongs to it.
        documents: (U,) documents that a unit stands for.
        bytes: (U,) UTF-8 bytes of each unit.
        hashes: (U,) hash of each document, or none.
        problems: what was left out, as the user reads it.
        empty: documents without text.
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

    def save(self, path: Path) -> None:
        """Write the part; its checksums tell later whether it is whole."""
        head = [self.signature, *self.digest, self.problems, self.empty]
        file = io.BytesIO()
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        np.savez(file, head=np.frombuffer(json.dumps(head).encode(), np.uint8), **arrays)
        write_atomically(path, file.getbuffer())

    @classmethod
    def load(cls, path: Path) -> "TokenPart | None":
        """Read a part; None if there is none, or it is damaged."""
        try:
            with np.load(path) as stored:
                signature, documents, value, problems, empty = json.loads(stored["head"].tobytes())
                arrays: dict[str, Any] = {name: stored[name] for name in _ARRAYS}
        except DAMAGED:
            return None
        return cls(signature, Digest(documents, value), **arrays, problems=problems, empty=empty)


_ARRAYS = ("tokens", "lengths", "draws", "documents", "bytes", "hashes")
