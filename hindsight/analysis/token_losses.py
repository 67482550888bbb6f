"""The file of token losses: one row for each scored token of a split, and what it is of; written and read here.

A parquet file (zstd), in the order of the split's stream. Its metadata says of which run, data and tokenizer it is, and
holds the bytes of every id, so that the file explains itself. docs/evaluation.md describes the columns.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hindsight.config.corpus import TextOrder
from hindsight.errors import InputError
from hindsight.files import written_atomically

VERSION = 1
"""Version of the format; a reader refuses any other."""
COLUMNS = {
    "place": np.dtype(np.int64),
    "document": np.dtype(np.int32),
    "document_place": np.dtype(np.int64),
    "window_place": np.dtype(np.int32),
    "context": np.dtype(np.int32),
    "id": np.dtype(np.int32),
    "bytes": np.dtype(np.int32),
    "nats": np.dtype(np.float32),
    "rank": np.dtype(np.int32),
    "likeliest": np.dtype(np.bool_),
}
"""Every column and its type; none has nulls."""
GROUP_ROWS = 1 << 17
"""Most rows of a row group, which a reader has in memory at once."""
METADATA_KEY, TOKENS_KEY = b"hindsight", b"hindsight_tokens"
REQUIRED: dict[str, type | tuple[type, ...]] = {
    "run": str,
    "folder": str,
    "order": str,
    "seed": int,
    "step": int,
    "split": str,
    "data_fingerprint": str,
    "tokenizer_fingerprint": str,
    "data": str,
    "context": str,
    "context_length": int,
    "document_mask": bool,
    "text_order": str,
    "git_commit": (str, type(None)),
    "rows": int,
    "sums": dict,
}
"""What the metadata says beside the version, and of which type."""
DEFAULTS: dict[str, Any] = {"text_order": TextOrder.reading.value}
"""What a file means that does not say it: one from before that key."""
SUMS = ("nats", "likeliest", "bytes")
"""Columns whose sums over all rows are in the metadata."""
COUNTS = tuple(name for name, kind in COLUMNS.items() if kind.kind == "i")
"""Columns of whole numbers, none of which is below 0."""
PLACES = ("place", "document_place")
"""Columns that mostly grow by one from row to row."""


@dataclass(frozen=True)
class TokenLosses:
    """A file of token losses; `TokenLosses.open` looks at it, and reads no row.

    Args:
        path: the file.
        metadata: whose losses these are: run, order, seed, step, data and tokenizer fingerprints, counts and sums.
    """

    path: Path
    metadata: dict[str, Any]

    @classmethod
    def open(cls, path: Path, key: str = "runs") -> "TokenLosses":
        """Read what a file says of itself.

        Args:
            path: the file.
            key: the configuration key that gave it, for messages.

        Raises:
            InputError: it is missing, damaged, of another version, or no file of token losses.
        """
        with _reading(path, key) as file:
            stored = file.metadata.metadata or {}
            if METADATA_KEY not in stored:
                raise InputError(f"{key}={path} is no file of token losses; evaluate_tokens.py writes them.")
            metadata = DEFAULTS | _parsed(stored[METADATA_KEY])
            if (version := metadata.get("version")) != VERSION:
                raise InputError(
                    f"{key}={path} is of version {ascii(version)[:20]}, and version {VERSION} is read here; write it "
                    "again with evaluate_tokens.py."
                )
            types = dict(zip(file.schema_arrow.names, map(str, file.schema_arrow.types), strict=True))
            groups = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
            wrong = [name for name, kind in REQUIRED.items() if not isinstance(metadata.get(name), kind)]
            if types != {name: str(_arrow_type(kind)) for name, kind in COLUMNS.items()}:
                raise ValueError("its columns are not those of token losses")
            if wrong or not metadata["sums"].keys() >= set(SUMS) or TOKENS_KEY not in stored:
                raise ValueError(f"its metadata lacks {wrong[0] if wrong else 'the sums or the tokens'}")
            if not all(isinstance(metadata["sums"][name], int | float) for name in SUMS):
                raise ValueError("its sums are no numbers")
            if metadata["text_order"] not in TextOrder.__members__:
                raise ValueError("its metadata has an unknown text_order")
            if metadata["rows"] != file.metadata.num_rows or max(groups, default=0) > GROUP_ROWS:
                raise ValueError("it has not the rows that it says")
        return cls(Path(path), metadata)

    @property
    def rows(self) -> int:
        """Scored tokens."""
        return self.metadata["rows"]

    @property
    def is_reversed(self) -> bool:
        """Whether its tokens, in their order, stand for the text of each document in reverse."""
        return self.metadata["text_order"] == TextOrder.reversed.value

    @property
    def token_bytes(self) -> list[bytes]:
        """The bytes that each id stands for; b"" for special tokens."""
        return self._tokens[0]

    @property
    def special(self) -> dict[int, str]:
        """Names of the special tokens by their ids."""
        return self._tokens[1]

    def batches(self, columns: Sequence[str], size: int = GROUP_ROWS) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the rows in their order, so many at a time, as arrays by the names of the columns.

        Raises:
            InputError: the file is damaged.
        """
        with _reading(self.path, "tokens") as file:
            for batch in file.iter_batches(batch_size=size, columns=list(columns)):
                if any(column.null_count for column in batch.columns):
                    raise ValueError("it has nulls")
                found = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in columns}
                for name in columns:
                    if name in COUNTS and (found[name] < 0).any():
                        raise ValueError(f"its column {name} has a number below 0")
                if "id" in found and (found["id"] >= len(self.token_bytes)).any():
                    raise ValueError(f"it has an id that is none of its {len(self.token_bytes)} tokens")
                yield found

    def read(self, columns: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Read columns as a whole; InputError if the file is damaged."""
        found = {name: np.empty(self.rows, COLUMNS[name]) for name in columns}
        start = 0
        for batch in self.batches(columns):
            stop = start + len(batch[columns[0]])
            for name, values in batch.items():
                found[name][start:stop] = values
            start = stop
        return found

    @cached_property
    def _tokens(self) -> tuple[list[bytes], dict[int, str]]:
        with _reading(self.path, "tokens") as file:
            stored = _parsed(file.metadata.metadata[TOKENS_KEY])
            try:
                names = {int(number): str(name) for number, name in stored["special"].items()}
                return [text.encode("latin-1") for text in stored["bytes"]], names
            except (AttributeError, TypeError) as error:
                raise ValueError("the tokens in its metadata cannot be") from error


class TokenLossWriter:
    """Writes a file of token losses, which appears when it is complete; on an error, nothing changes.

    Args:
        path: the file.
        metadata: all that `TokenLosses.metadata` has but version, rows and sums.
        token_bytes: the bytes that each id stands for.
        special: names of the special tokens by their ids.
    """

    def __init__(
        self, path: Path, metadata: Mapping[str, Any], token_bytes: Sequence[bytes], special: Mapping[int, str]
    ) -> None:
        self.path, self.metadata = path, {"version": VERSION, **DEFAULTS, **metadata}
        self.tokens = {"bytes": [each.decode("latin-1") for each in token_bytes], "special": special}
        self.sums = {"nats": 0.0, "likeliest": 0, "bytes": 0}
        self.rows = 0
        self.waiting: list[dict[str, NDArray[Any]]] = []
        self.n_waiting = 0
        self.opened = ExitStack()

    def __enter__(self) -> "TokenLossWriter":
        import pyarrow
        from pyarrow import parquet

        schema = pyarrow.schema(
            [pyarrow.field(name, _arrow_type(kind), nullable=False) for name, kind in COLUMNS.items()]
        )
        file = self.opened.enter_context(written_atomically(self.path))
        self.writer = parquet.ParquetWriter(
            file,
            schema,
            compression="zstd",
            use_dictionary=[name for name in COLUMNS if name not in (*PLACES, "nats")],  # pyright: ignore[reportArgumentType]
            column_encoding={**dict.fromkeys(PLACES, "DELTA_BINARY_PACKED"), "nats": "PLAIN"},
            write_page_checksum=True,
            store_schema=False,  # one of its own would hide the metadata, which is complete only at the end
        )
        return self

    def add(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Append rows: an array for each of COLUMNS, all of one length."""
        rows = {name: np.asarray(columns[name], kind) for name, kind in COLUMNS.items()}
        self.sums["nats"] += float(rows["nats"].sum(dtype=np.float64))
        self.sums["likeliest"] += int(rows["likeliest"].sum())
        self.sums["bytes"] += int(rows["bytes"].sum(dtype=np.int64))
        self.rows += len(rows["place"])
        self.waiting.append(rows)
        self.n_waiting += len(rows["place"])
        while self.n_waiting >= GROUP_ROWS:
            self._write(GROUP_ROWS)

    def _write(self, n_rows: int) -> None:
        """Write a row group from the rows that wait."""
        import pyarrow

        whole = {name: np.concatenate([rows[name] for rows in self.waiting]) for name in COLUMNS}
        group = {name: values[:n_rows] for name, values in whole.items()}
        self.waiting = [{name: values[n_rows:] for name, values in whole.items()}]
        self.n_waiting -= n_rows
        self.writer.write_table(pyarrow.Table.from_pydict(group, self.writer.schema), row_group_size=GROUP_ROWS)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if kind is None:
            if self.n_waiting:
                self._write(self.n_waiting)
            metadata = self.metadata | {"rows": self.rows, "sums": self.sums}
            self.writer.add_key_value_metadata(
                {METADATA_KEY: json.dumps(metadata).encode(), TOKENS_KEY: json.dumps(self.tokens).encode()}
            )
        self.writer.close()
        self.opened.__exit__(kind, error, trace)


def _arrow_type(kind: np.dtype[Any]) -> Any:
    import pyarrow

    return pyarrow.from_numpy_dtype(kind)


def _parsed(stored: bytes) -> dict[str, Any]:
    content = json.loads(stored)
    if not isinstance(content, dict):
        raise ValueError("its metadata is no JSON object")
    return content


@contextmanager
def _reading(path: Path, key: str) -> Iterator[Any]:
    """Open a parquet file; whatever shows that it cannot be read is an InputError that names it."""
    import pyarrow
    from pyarrow import parquet

    path = Path(path)
    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        raise InputError(f"{key}={path} {what}; evaluate_tokens.py writes files of token losses.")
    try:
        with parquet.ParquetFile(path, pre_buffer=False, page_checksum_verification=True) as file:
            yield file
    except InputError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{key}={path} is damaged or no parquet file ({reason}); write it again with evaluate_tokens.py."
        ) from error
