"""What an evaluation keeps while it is made: rows of scored tokens, in a hidden folder beside its file.

Batches are the same however many processes share them, and whatever a kill has taken: so are the rows.
"""

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hindsight.analysis.token_losses import GROUP_ROWS, TokenLossWriter
from hindsight.errors import InputError
from hindsight.evaluation.scoring import ROWS, Plan
from hindsight.files import read_json, write_atomically

PART_TOKENS = 1 << 15
"""Tokens that the model reads for a part, roughly: what a kill costs each process, at most."""
MOST_PARTS = 1 << 10
"""Parts of a large evaluation, whose parts are larger, up to GROUP_ROWS tokens."""
IDENTITY = "evaluation.json"
PARTS = "*/*.npz"
"""Rows that are made, from the work folder of an evaluation."""
RESULT = "result.parquet"
MOST_IDENTITY_BYTES = 1 << 20
DAMAGED = (EOFError, KeyError, ValueError, OSError, zipfile.BadZipFile)
"""Raised by reading a damaged .npz file."""


@dataclass(frozen=True)
class Work:
    """The rows that are scored so far.

    Args:
        folder: a folder for them, which all processes see.
        plan: what is scored.
    """

    folder: Path
    plan: Plan

    @cached_property
    def batches_per_part(self) -> int:
        """Batches in a part."""
        batch_tokens = self.plan.batch_size * self.plan.context_length
        wanted = min(max(PART_TOKENS, self.plan.n_batches * batch_tokens // MOST_PARTS), GROUP_ROWS)
        return max(1, wanted // batch_tokens)

    @property
    def n_parts(self) -> int:
        """How many parts there are."""
        return -(-self.plan.n_batches // self.batches_per_part)

    def batches(self, part: int) -> range:
        """Give the batches of a part."""
        first = part * self.batches_per_part
        return range(first, min(first + self.batches_per_part, self.plan.n_batches))

    def begin(self, identity: dict[str, Any]) -> list[int]:
        """Keep what an earlier start of the same evaluation has done, and nothing of another; the parts to make."""
        self.folder.mkdir(exist_ok=True)
        identity = {**identity, "batches_per_part": self.batches_per_part}
        if _read(self.folder / IDENTITY) != json.loads(json.dumps(identity)):
            for path in self.folder.iterdir():
                path.unlink()
            write_atomically(self.folder / IDENTITY, json.dumps(identity))
        return [part for part in range(self.n_parts) if self._load(part) is None]

    def save(self, part: int, rows: list[dict[str, NDArray[Any]]]) -> None:
        """Keep the rows of a part's batches."""
        rows = rows[::-1] if self.plan.is_backward else rows
        file = io.BytesIO()
        np.savez(file, **{name: np.concatenate([each[name] for each in rows]) for name in ROWS})
        write_atomically(self._path(part), file.getbuffer())

    def rows(self) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the rows of all parts, in the order of the stream.

        Raises:
            InputError: a part is missing, or damaged.
        """
        for part in range(self.n_parts)[:: -1 if self.plan.is_backward else 1]:
            rows = self._load(part)
            if rows is None:
                raise InputError(
                    f"{self._path(part)} is missing or damaged: the work folder must be one that all processes share. "
                    "The same command goes on."
                )
            yield rows

    def _path(self, part: int) -> Path:
        return self.folder / f"{part:06}.npz"

    def _load(self, part: int) -> dict[str, NDArray[Any]] | None:
        """Read the rows of a part; None unless they are there and whole."""
        n_rows = self.plan.n_scored(self.batches(part))
        try:
            with self._path(part).open("rb") as file, np.load(file) as stored:
                rows = {name: stored[name] for name in ROWS}
        except DAMAGED:
            return None
        is_whole = all(rows[name].shape == (n_rows,) and rows[name].dtype == kind for name, kind in ROWS.items())
        return rows if is_whole else None


def assemble(
    work: Work,
    metadata: dict[str, Any],
    contents: list[bytes],
    special: dict[int, str],
    bytes_V: NDArray[np.int64],
    eos_id: int,
) -> Path:
    """Write the file of token losses from the parts, in the work folder.

    Args:
        work: the work folder, all of whose parts are made.
        metadata: what the file says of itself.
        contents: bytes of each id.
        special: names of the ids that stand for none.
        bytes_V: (V,) UTF-8 bytes that count for each id.
        eos_id: id that ends a document, and belongs to it.

    Returns:
        The file.
    """
    path = work.folder / RESULT
    place = document = document_place = 0
    with TokenLossWriter(path, metadata, contents, special) as writer:
        for rows in work.rows():
            n_rows = len(rows["id"])
            is_end = rows["id"] == eos_id
            ended_before = np.cumsum(is_end) - is_end
            begins = np.where(np.concatenate([[False], is_end[:-1]]), np.arange(n_rows), -document_place)
            in_document = np.arange(n_rows) - np.maximum.accumulate(begins)
            writer.add(
                {
                    **rows,
                    "place": np.arange(place, place + n_rows),
                    "document": document + ended_before,
                    "document_place": in_document,
                    "bytes": bytes_V[rows["id"]],
                    "likeliest": rows["rank"] == 0,
                }
            )
            place += n_rows
            document += int(ended_before[-1] + is_end[-1])
            document_place = 0 if is_end[-1] else int(in_document[-1]) + 1
        assert place == work.plan.n_tokens
        writer.metadata["documents"] = document + (document_place > 0)
    return path


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return read_json(path, MOST_IDENTITY_BYTES)
    except (OSError, ValueError):
        return None
