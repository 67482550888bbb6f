"""Tables -> one text per row: parquet files, and datasets of Hugging Face."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hindsight.config.corpus import CorpusConfig
from hindsight.errors import InputError
from hindsight.text.compression import check_expansion
from hindsight.text.files import StoredFile

BATCH_ROWS = 256
"""Rows that are read at once."""
LEAST_BATCH_ROWS, BATCH_BYTES = 16, 1 << 26
"""Fewer are, if as many rows of the largest text that a group of rows repeats would exceed so many bytes."""


def parquet_rows(file: StoredFile, config: CorpusConfig) -> Iterator[Any]:
    """Yield the text of each row, or its bytes if they are no UTF-8.

    Raises:
        InputError: the column is missing or holds no text.
        OSError: the file is damaged.
    """
    import pyarrow  # imported late: only tables need it
    from pyarrow import parquet

    with file.open() as stored:
        try:
            table = parquet.ParquetFile(stored, pre_buffer=False, buffer_size=1 << 20)
            names = table.schema_arrow.names
            if config.text_column not in names:
                raise InputError(
                    f"corpus: {file.path} has no column {config.text_column!r}; choose one of {', '.join(names)} with "
                    "text_column=."
                )
            kind = table.schema_arrow.field(config.text_column).type
            if not _is_text(kind):
                raise InputError(
                    f"corpus: {file.path} has no text in the column {config.text_column!r}, but {kind}; name another "
                    "with text_column=."
                )
            yield from _rows_within_bounds(stored, table, file, config)
        except pyarrow.ArrowException as error:
            raise OSError(str(error)) from error


def _rows_within_bounds(opened: Any, table: Any, file: StoredFile, config: CorpusConfig) -> Iterator[Any]:
    """Yield the text of each row, group by group; ExpandsTooMuchError for what no text expands to.

    A group says beforehand what it expands to in memory; in how many rows the values of a dictionary are repeated
    only shows when they are read.
    """
    stored = n_bytes = 0
    for number in range(table.num_row_groups):
        group = table.metadata.row_group(number)
        chunks = (group.column(place) for place in range(group.num_columns))
        chunk = next(chunk for chunk in chunks if chunk.path_in_schema == config.text_column)
        stored = min(stored + max(chunk.total_compressed_size, 0), file.size)
        check_expansion(stored, n_bytes + chunk.total_uncompressed_size)
        largest = chunk.total_uncompressed_size
        if largest * BATCH_ROWS > BATCH_BYTES:  # of texts that are not repeated, no batch can exceed the group
            average = largest // max(group.num_rows, 1)
            largest = min(largest, max(average, _largest_value(opened, table, number, config)))
        rows = min(max(BATCH_BYTES // max(largest, 1), LEAST_BATCH_ROWS), BATCH_ROWS)
        for batch in table.iter_batches(rows, row_groups=[number], columns=[config.text_column]):
            values = _texts(batch.column(0))
            n_bytes += len(values) + sum(map(len, filter(None, values)))
            yield from values
            check_expansion(stored, n_bytes)


def _largest_value(stored: Any, table: Any, number: int, config: CorpusConfig) -> int:
    """Give the size of the largest value in the dictionary of a group, which rows may repeat; of its first, if none."""
    from pyarrow import compute, parquet, types

    column = config.text_column
    group = parquet.ParquetFile(
        stored, metadata=table.metadata, read_dictionary=[column], pre_buffer=False, buffer_size=1 << 20
    )
    first = next(group.iter_batches(1, row_groups=[number], columns=[column]), None)
    if first is None or not types.is_dictionary(first.column(0).type):
        return BATCH_BYTES
    lengths = compute.call_function("binary_length", [first.column(0).dictionary])
    return compute.call_function("max", [lengths]).as_py() or 0


def text_of(value: Any) -> Any:
    """Decode a row's bytes; what is no UTF-8, or no bytes, stays as it is."""
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value


def _is_text(kind: Any) -> bool:
    """Whether a column of a type holds text: of any type of strings or bytes, also as a dictionary."""
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    strings = (types.is_string, types.is_large_string, types.is_string_view)
    others = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary, types.is_null)
    return any(fits(kind) for fits in (*strings, *others))


def _texts(column: Any) -> list[Any]:
    """Give the text of each row of a column, or its bytes if they are no UTF-8, at which pyarrow would end."""
    import pyarrow

    column = column.dictionary_decode() if pyarrow.types.is_dictionary(column.type) else column
    try:
        return [text_of(value) for value in column.to_pylist()]
    except UnicodeDecodeError:
        return [text_of(value) for value in column.cast(pyarrow.large_binary()).to_pylist()]


def dataset_rows(name: str, config: CorpusConfig) -> Iterator[Any]:
    """Yield the text of each row of a dataset on the Hub, which is streamed, or in a folder."""
    import datasets

    datasets.disable_progress_bars()
    folder = Path(name).expanduser()
    try:
        if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
            loaded: Any = datasets.load_from_disk(str(folder))
            rows = loaded[config.hf_split] if isinstance(loaded, dict) else loaded
        else:
            where = str(folder) if folder.is_dir() else name
            rows = datasets.load_dataset(where, config.hf_config, split=config.hf_split, streaming=True)
        columns = rows.column_names or list(next(iter(rows)))
    except Exception as error:  # datasets raises errors of many libraries
        reason = " ".join(str(error).split())
        raise InputError(
            f"corpus=hf:{name} cannot be read ({reason}); give a dataset's name and a connection to the Hub, or a "
            "folder, and see hf_config= and hf_split=."
        ) from error
    if config.text_column not in columns:
        raise InputError(
            f"corpus=hf:{name} has no column {config.text_column!r}; choose one of {', '.join(columns)} with "
            "text_column=."
        )
    try:
        for batch in rows.select_columns([config.text_column]).iter(batch_size=BATCH_ROWS):
            yield from map(text_of, batch[config.text_column])
    except Exception as error:  # as above
        raise OSError(" ".join(str(error).split())) from error
