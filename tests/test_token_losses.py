import json

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from hindsight.analysis import token_losses
from hindsight.analysis.token_losses import COLUMNS, GROUP_ROWS, TokenLosses, TokenLossWriter
from hindsight.errors import InputError

METADATA = {
    "run": "a-run",
    "folder": "/runs/a-run",
    "order": "backward",
    "seed": 3,
    "step": 200,
    "split": "val",
    "data_fingerprint": "d",
    "tokenizer_fingerprint": "t",
    "data": "data/novels",
    "context": "windows",
    "context_length": 32,
    "document_mask": False,
    "git_commit": None,
}
TOKEN_BYTES = [b"", b"a", b"\xc3", "é".encode()]


def rows_of(n: int, start: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(start)
    values = {name: rng.integers(0, 50, n).astype(kind) for name, kind in COLUMNS.items()}
    values["nats"] = rng.gamma(2, size=n).astype(np.float32)
    values["id"] %= len(TOKEN_BYTES)
    return values | {"place": np.arange(start, start + n), "likeliest": rng.random(n) < 0.3}


def write(path, *parts, **changes):
    with TokenLossWriter(path, METADATA | changes, TOKEN_BYTES, {0: "<|eos|>"}) as writer:
        for part in parts:
            writer.add(part)
    return path


@pytest.fixture
def written(tmp_path):
    return write(tmp_path / "a.parquet", rows_of(1000))


def test_what_was_written_is_read_with_its_types_its_metadata_and_its_tokens(tmp_path):
    parts = [rows_of(700), rows_of(40, start=700)]
    opened = TokenLosses.open(write(tmp_path / "a.parquet", *parts))
    for name, values in opened.read([*COLUMNS]).items():
        assert values.dtype == COLUMNS[name]
        np.testing.assert_array_equal(values, np.concatenate([part[name] for part in parts]))
    assert opened.rows == 740
    assert METADATA.items() <= opened.metadata.items()
    nats = np.concatenate([part["nats"] for part in parts]).astype(np.float64)
    assert opened.metadata["sums"]["nats"] == pytest.approx(nats.sum(), rel=1e-12)
    assert opened.metadata["sums"]["bytes"] == sum(part["bytes"].sum() for part in parts)
    assert opened.token_bytes == TOKEN_BYTES
    assert opened.special == {0: "<|eos|>"}


def test_rows_are_stored_in_groups_of_one_size_however_they_came(tmp_path):
    n = GROUP_ROWS + 17
    whole = write(tmp_path / "whole.parquet", rows_of(n))
    parts = [{name: values[start : start + 9999] for name, values in rows_of(n).items()} for start in range(0, n, 9999)]
    assert write(tmp_path / "parts.parquet", *parts).stat().st_size == pytest.approx(whole.stat().st_size, rel=1e-3)
    file = parquet.ParquetFile(whole)
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [GROUP_ROWS, 17]
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    sizes = [len(batch["nats"]) for batch in TokenLosses.open(whole).batches(["nats"], size=1000)]
    assert max(sizes) <= 1000
    assert sum(sizes) == n


def test_a_file_that_was_not_completed_does_not_appear(tmp_path):
    with pytest.raises(KeyError, match="place"):
        write(tmp_path / "a.parquet", rows_of(5), {})
    assert [*tmp_path.iterdir()] == []


def read_all(path) -> None:
    opened = TokenLosses.open(path)
    opened.read([*COLUMNS])
    _ = opened.token_bytes


def refusal(path) -> str:
    with pytest.raises(InputError) as caught:
        read_all(path)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    return text


def test_what_is_missing_foreign_or_of_another_version_is_refused_in_a_line(tmp_path, written, monkeypatch):
    assert "does not exist" in refusal(tmp_path / "none.parquet")
    assert "is no file" in refusal(tmp_path)
    (tmp_path / "text").write_text("place,nats\n")
    assert "no parquet file" in refusal(tmp_path / "text")
    parquet.write_table(pyarrow.table({"text": ["a"]}), tmp_path / "other.parquet")
    assert "is no file of token losses" in refusal(tmp_path / "other.parquet")
    monkeypatch.setattr(token_losses, "VERSION", 2)
    assert "is of version 1, and version 2 is read here" in refusal(written)


@pytest.mark.parametrize("damage", ["cut", "page", "footer"])
def test_a_damaged_file_is_refused_in_a_line(written, damage):
    data = bytearray(written.read_bytes())
    if damage == "cut":
        del data[len(data) // 2 :]
    elif damage == "page":
        data[200] ^= 1
    else:
        place = data.index(b'"rows": 1000')
        data[place : place + 12] = b'"rows": 9000'
    written.write_bytes(data)
    assert "is damaged" in refusal(written)


@pytest.mark.parametrize(
    ("metadata", "tokens", "columns"),
    [
        ({"rows": "many"}, {}, {}),
        ({"sums": {}}, {}, {}),
        ({"sums": dict.fromkeys(token_losses.SUMS, "many")}, {}, {}),
        ({}, {}, {"nats": np.zeros(1000)}),
        ({}, {}, {"nats": pyarrow.array([None] * 1000, pyarrow.float32())}),
        ({}, {"bytes": ["水"]}, {}),
        ({}, {}, {"id": np.full(1000, len(TOKEN_BYTES), np.int32)}),
        *(({}, {}, {name: np.full(1000, -1, COLUMNS[name])}) for name in token_losses.COUNTS),
    ],
)
def test_a_file_that_others_made_with_what_cannot_be_is_refused(written, metadata, tokens, columns):
    file = parquet.ParquetFile(written)
    table, stored = file.read(), dict(file.metadata.metadata or {})
    for name, values in columns.items():
        place = table.column_names.index(name)
        table = table.set_column(place, name, pyarrow.array(values))
    described = {
        token_losses.METADATA_KEY: json.dumps(json.loads(stored[token_losses.METADATA_KEY]) | metadata),
        token_losses.TOKENS_KEY: json.dumps(json.loads(stored[token_losses.TOKENS_KEY]) | tokens),
    }
    parquet.write_table(table.replace_schema_metadata(described), written)
    assert "is damaged" in refusal(written)
