"""Parquet files of every type of text, and with rows that are none."""

import pyarrow as pa
import pytest
from helpers.bounded import read_in_a_child
from pyarrow import parquet

from hindsight.config.corpus import CorpusConfig, OnError
from hindsight.errors import InputError
from hindsight.text import tables
from hindsight.text.documents import Corpus
from hindsight.text.problems import ReadingReport

ROWS = [b"one\n\nmore", "zwei é".encode(), None, b"three", b""]


def read(path, reading=None, **settings):
    return [document.raw for document in Corpus(CorpusConfig(corpus=str(path), **settings)).documents(reading)]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary()])
@pytest.mark.parametrize("index", [None, pa.int8(), pa.int32()])
@pytest.mark.parametrize("batch_bytes", [1, 1 << 26])
def test_text_of_every_string_and_binary_type_is_read(tmp_path, monkeypatch, kind, index, batch_bytes):
    monkeypatch.setattr("hindsight.text.tables.BATCH_BYTES", batch_bytes)
    if index is None:
        column = pa.array(ROWS, pa.binary()).cast(kind)
    elif kind == pa.string_view():
        pytest.skip("pyarrow has no dictionaries of it")
    else:
        column = pa.array(ROWS, kind).dictionary_encode().cast(pa.dictionary(index, kind))
    parquet.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    reading = ReadingReport()
    assert read(tmp_path / "a.parquet", reading) == [row for row in ROWS if row]
    assert reading.empty == 2


@pytest.mark.parametrize("batch_bytes", [1, 1 << 26])
def test_bytes_of_a_fixed_size_and_a_column_of_nulls_are_read(tmp_path, monkeypatch, batch_bytes):
    monkeypatch.setattr("hindsight.text.tables.BATCH_BYTES", batch_bytes)
    parquet.write_table(pa.table({"text": pa.array([b"12345", b"abcde"], pa.binary(5))}), tmp_path / "a.parquet")
    parquet.write_table(pa.table({"text": pa.nulls(3)}), tmp_path / "b.parquet")
    reading = ReadingReport()
    assert read(tmp_path, reading) == [b"12345", b"abcde"]
    assert reading.empty == 3


@pytest.mark.parametrize("kind", [pa.string(), pa.binary()])
@pytest.mark.parametrize("dictionary", [True, False])
def test_a_row_that_is_not_utf8_is_refused_or_skipped_alone(tmp_path, kind, dictionary):
    rows = [f"text {n}".encode() for n in range(600)]
    rows[300] = b"caf\xe9 au lait"
    raw = pa.array(rows, pa.binary())
    column = pa.Array.from_buffers(kind, len(raw), raw.buffers())
    column = column.dictionary_encode() if dictionary else column
    parquet.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet has bytes that are not UTF-8 in row 300; convert it, or leave"):
        read(tmp_path / "a.parquet")
    reading = ReadingReport()
    assert read(tmp_path / "a.parquet", reading, on_error=OnError.skip) == [*rows[:300], *rows[301:]]
    assert len(reading.problems) == 1


def test_a_nul_in_a_row_is_refused_with_what_helps(tmp_path):
    parquet.write_table(pa.table({"text": ["one", "t\0wo"]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="holds a NUL character at row 1; remove it"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize(("repeated", "n_rows"), [("", 256), ("x" * 10_000, 16)])
def test_few_rows_are_read_at_once_only_where_a_long_text_may_be_repeated(tmp_path, monkeypatch, repeated, n_rows):
    monkeypatch.setattr("hindsight.text.tables.BATCH_BYTES", 1 << 16)
    parquet.write_table(pa.table({"text": [*map(str, range(20_000)), repeated]}), tmp_path / "a.parquet")
    sizes, texts = [], tables._texts
    monkeypatch.setattr(tables, "_texts", lambda column: sizes.append(len(column)) or texts(column))
    assert len(read(tmp_path / "a.parquet")) == 20_000 + bool(repeated)
    assert max(sizes) == n_rows


# --------------------------------------------------------------------------------------------------------------- bombs


def write_bomb(path, kind):
    """A file of a few kilobytes that expands to 1.5 GB and more."""
    if kind == "many rows":
        column = pa.DictionaryArray.from_arrays(pa.array([0] * 1_500_000, pa.int32()), pa.array(["x" * 1000]))
        parquet.write_table(pa.table({"text": column}), path, compression="zstd")
    elif kind == "long rows":
        column = pa.DictionaryArray.from_arrays(pa.array([0] * 500, pa.int32()), pa.array(["x" * 6_000_000]))
        parquet.write_table(pa.table({"text": column}), path, compression="zstd")
    else:
        table = pa.table({"text": pa.array(["x" * 100_000] * 1000, pa.large_string())})
        with parquet.ParquetWriter(path, table.schema, compression="zstd", use_dictionary=False) as writer:
            for _ in range(15):
                writer.write_table(table)


@pytest.mark.parametrize("kind", ["many rows", "long rows", "pages"])
def test_a_parquet_file_that_expands_as_no_text_does_ends_in_one_line_and_takes_little_memory(tmp_path, kind):
    write_bomb(tmp_path / "a.parquet", kind)
    assert (tmp_path / "a.parquet").stat().st_size < 200_000
    said, mebibytes = read_in_a_child(tmp_path / "a.parquet", on_error="skip" if kind == "pages" else "stop")
    assert "a.parquet expands to more than 1000 times its size, as no text does" in said
    assert "write its text into another format" in said
    assert mebibytes < 500


def test_many_rows_without_text_are_read_and_make_parts_of_a_bounded_length(tmp_path, monkeypatch):
    monkeypatch.setattr("hindsight.text.parts.MOST_ROWS", 1000)
    parquet.write_table(pa.table({"text": [None, "one"] * 2000}), tmp_path / "a.parquet")
    corpus = Corpus(CorpusConfig(corpus=str(tmp_path / "a.parquet")))
    assert [len(part.text) for part in corpus.parts()] == [1000] * 4 + [0]
    assert len(list(corpus.documents())) == 2000


@pytest.mark.parametrize("row", [b"\xff" * 1000, [7] * 400], ids=["bytes", "numbers"])
def test_rows_that_are_no_text_fill_a_part_too(tmp_path, monkeypatch, row):
    rows = [row] * 100
    monkeypatch.setattr("hindsight.text.parts.parquet_rows", lambda file, config: iter(rows))
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    corpus = Corpus(CorpusConfig(corpus=str(tmp_path / "a.parquet"), on_error=OnError.skip), part_bytes=10_000)
    assert max(len(part.text) for part in corpus.parts()) <= 10
    reading = ReadingReport()
    assert not list(corpus.documents(reading))
    assert reading.n_problems == 100
