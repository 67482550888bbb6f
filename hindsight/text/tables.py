"""Tables -> one text per row: parquet files, and datasets of Hugging Face."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hindsight.config.corpus import CorpusConfig
from hindsight.errors import InputError
from hindsight.text.files import StoredFile

BATCH_ROWS = 256
"""Rows that are read at once."""


def parquet_rows(file: StoredFile, config: CorpusConfig) -> Iterator[Any]:
    """Yield the text of each row; InputError if the column is missing or holds no text, OSError for a damaged file."""
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
            kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
            if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
                raise InputError(
                    f"corpus: {file.path} has no text in the column {config.text_column!r}, but {kind}; name another "
                    "with text_column=."
                )
            for batch in table.iter_batches(BATCH_ROWS, columns=[config.text_column]):
                yield from batch.column(0).to_pylist()
        except pyarrow.ArrowException as error:
            raise OSError(str(error)) from error


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
            yield from batch[config.text_column]
    except Exception as error:  # as above
        raise OSError(" ".join(str(error).split())) from error
