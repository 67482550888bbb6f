"""Read the files of token losses of several runs side by side, a chunk of rows at a time.

Shapes: O = 2 orders (the reference, and the one that is compared with it), S seeds, I tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hindsight.analysis.token_losses import TokenLosses
from hindsight.errors import InputError

CHUNK_ROWS = 1 << 16
"""Rows of each file that are in memory at once; a multiple of the length of a passage."""
PLACES = ("id", "document", "document_place", "window_place")
"""Columns that say which token it is: read from the first file."""
SAME = ("data_fingerprint", "tokenizer_fingerprint", "split", "context_length", "context", "step", "rows")
"""What the files that are compared have in common, by the keys of their metadata."""
Array = NDArray[Any]


@dataclass
class Chunk:
    """Consecutive tokens, and what every run lost on them."""

    start: int
    """Number of the first row."""
    ids: Array
    documents: Array
    document_places: Array
    window_places: Array
    contexts: Array
    """Tokens of context that the model had, (O, I): it depends on the order, and on no seed."""
    nats: Array
    """Losses, (O, S, I), float64."""
    ranks: Array
    """Ids that were likelier, (O, S, I)."""


def check_same(files: Sequence[TokenLosses]) -> None:
    """Raise InputError where a file is not of the same data, read in the same way, as the first."""
    first = files[0]
    for file in files[1:]:
        for key in SAME:
            if (given := file.metadata[key]) != (expected := first.metadata[key]):
                what = "of other data" if key in SAME[:3] else "that was read in another way"
                raise InputError(
                    f"{file.path} is a token file {what} than {first.path}: {key}={given} against {expected}; "
                    "write both with evaluate_tokens.py, from the same data and at the same step."
                )


def side_by_side(files: Sequence[TokenLosses], n_orders: int = 2, size: int = CHUNK_ROWS) -> Iterator[Chunk]:
    """Read files, those of the first order's seeds first, and check that their rows are of the same tokens.

    Raises:
        InputError: a file is damaged, or of other data.
    """
    n_seeds = len(files) // n_orders
    start, shape = 0, (n_orders, n_seeds, -1)
    columns = [
        [*(PLACES if number == 0 else PLACES[:1]), *(["context"] if number % n_seeds == 0 else []), "nats", "rank"]
        for number in range(len(files))
    ]
    for parts in zip_longest(*(_chunks(file, of, size) for file, of in zip(files, columns, strict=True))):
        for file, part in zip(files, parts, strict=True):
            if part is None or parts[0] is None or not np.array_equal(part["id"], parts[0]["id"]):
                raise InputError(
                    f"{file.path} is a token file of other data than {files[0].path}: their tokens differ "
                    f"from row {start} on; write both with evaluate_tokens.py, from the same data."
                )
        yield Chunk(
            start,
            *(parts[0][name] for name in PLACES),
            contexts=np.stack([part["context"] for part in parts[::n_seeds]]),
            nats=np.stack([part["nats"].astype(np.float64) for part in parts]).reshape(shape),
            ranks=np.stack([part["rank"] for part in parts]).reshape(shape),
        )
        start += len(parts[0]["id"])


def _chunks(file: TokenLosses, columns: Sequence[str], size: int) -> Iterator[dict[str, Array]]:
    """Give the rows in chunks of one size, whatever row groups the file has."""
    waiting: list[dict[str, Array]] = []
    n_waiting = 0
    for batch in file.batches(columns, size):
        waiting.append(batch)
        n_waiting += len(batch["id"])
        while n_waiting >= size:
            whole = {name: np.concatenate([part[name] for part in waiting]) for name in columns}
            yield {name: values[:size] for name, values in whole.items()}
            waiting, n_waiting = [{name: values[size:] for name, values in whole.items()}], n_waiting - size
    if n_waiting:
        yield {name: np.concatenate([part[name] for part in waiting]) for name in columns}
