"""Losses by token of reversed text: what a report shows of them is in reading order."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.token_files import EOS, losses_of, tokens_of, write_token_file
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from hindsight.analysis import cuts
from hindsight.analysis.cuts import cuts_of
from hindsight.analysis.side_by_side import side_by_side
from hindsight.analysis.token_classes import CLASSES, TokenClasses, text_of, texts_of
from hindsight.analysis.token_losses import METADATA_KEY, TokenLosses
from hindsight.errors import InputError
from hindsight.text.graphemes import reverse_bytes, reverse_text

DOCUMENTS = [f"Café {number} stood here; the old dog's bed was 42 cm wide. " * 4 for number in range(9)]


def write(path: Path, order: str, documents: list[str], **metadata: str) -> TokenLosses:
    token_bytes, special, columns = tokens_of(documents)
    columns |= losses_of(columns, order, 0)
    return write_token_file(path, token_bytes, special, columns, order=order, **metadata)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Cuts of losses on reversed text."""
    folder, backward = tmp_path_factory.mktemp("files"), [*map(reverse_text, DOCUMENTS)]
    return cuts_of(
        {order: {0: write(folder / order, order, backward, text_order="reversed")} for order in ("forward", "backward")}
    )


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["tac", " ehT"], ["word start", "word start"]),  # The cat
        (["g", "niht", " o", "N"], ["inside a word", "word start", "inside a word", "word start"]),  # No thing
        (["é", b"\xb0\xb4", b"\xe6", " ", "!"], ["inside a word"] * 2 + ["word start", "white space", "punctuation"]),
        (["24", "x", EOS, "b"], ["digit", "word start", "special", "word start"]),
        (["dn", "\n", "a"], ["word start", "white space", "word start"]),
    ],
)
def test_classes_of_reversed_tokens_are_those_of_the_words_that_people_read(tokens, expected):
    token_bytes = [b"", *(token if isinstance(token, bytes) else token.encode() for token in tokens)]
    ids = np.array([0 if text == EOS else number for number, text in enumerate(tokens, start=1)])
    classes = TokenClasses(token_bytes, {0: EOS}, is_reversed=True)
    assert [CLASSES[k] for k in classes.of(ids, None)] == expected
    behind = [*ids[1:].tolist(), None]
    assert [CLASSES[classes.of(ids[i : i + 1], None, behind[i])[0]] for i in range(len(ids))] == expected


def test_text_and_tokens_of_reversed_rows_are_in_reading_order():
    token_bytes, special = [b"", b"dn\xc3", b"\xa9f", b"\xff", b" ehT"], {0: EOS}
    assert text_of([3, 1, 2, 4, 0, 4], token_bytes, special, is_reversed=True) == f"The {EOS}The f\u00e9nd\\xff"
    assert [*texts_of([1, 4, 0], token_bytes, special, is_reversed=True)] == ["\\xc3nd", "The ", EOS]


@given(st.text(max_size=12), st.integers(0, 9), st.integers(0, 9))
def test_any_bytes_reversed_twice_are_themselves(text, start, stop):
    content = text.encode()[start : len(text.encode()) - stop]
    assert reverse_bytes(text.encode()) == reverse_text(text).encode()
    assert sorted(reverse_bytes(content)) == sorted(content)
    assert reverse_bytes(reverse_bytes(content)) == content


def test_passages_tokens_and_documents_are_shown_in_reading_order(found):
    assert found["measured"]["text_order"] == "reversed"
    whole = EOS.join(["", *DOCUMENTS[::-1]])  # from the last row to the first
    passages = found["passages"]["order_harder"] + found["passages"]["order_easier"]
    assert passages
    for passage in passages:
        assert passage["before"] + passage["text"] + passage["after"] in whole
        assert "".join(token["text"] for token in passage["tokens"]) == passage["text"]
    shown = "".join(token["text"] for token in found["passages"]["shown"]["tokens"])
    assert len(shown) > 100
    assert shown in whole
    labels = [row["label"] for row in found["cuts"]["document"]]
    assert all(label.startswith(f"{k}: Café {k} sto") for k, label in enumerate(labels))
    texts = {row["label"] for name in ("mean_harder", "mean_easier") for row in found["tokens"][name]}
    assert texts & {"here", "wide", "old ", "bed ", "the "}, texts


def test_kinds_of_tokens_do_not_depend_on_how_rows_are_divided(found, monkeypatch, tmp_path):
    backward = [*map(reverse_text, DOCUMENTS)]
    files = [write(tmp_path / o, o, backward, text_order="reversed") for o in ("forward", "backward")]
    monkeypatch.setattr(cuts, "side_by_side", lambda given: side_by_side(given, size=64))
    assert cuts_of({file.metadata["order"]: {0: file} for file in files})["cuts"]["class"] == found["cuts"]["class"]


@pytest.mark.parametrize(("said", "is_damaged"), [(None, False), ("reading", False), ("sideways", True)])
def test_a_file_that_does_not_say_it_is_of_text_in_reading_order(said, is_damaged, tmp_path):
    file = write(tmp_path / "new", "forward", DOCUMENTS)
    table = parquet.read_table(file.path)
    metadata = {key: value for key, value in file.metadata.items() if key != "text_order"}
    metadata |= {} if said is None else {"text_order": said}
    stored = {**(table.schema.metadata or {}), METADATA_KEY: json.dumps(metadata).encode()}
    parquet.write_table(table.replace_schema_metadata(stored), tmp_path / "old")
    if is_damaged:
        with pytest.raises(InputError, match="unknown text_order"):
            TokenLosses.open(tmp_path / "old")
    else:
        old = TokenLosses.open(tmp_path / "old")
        assert (old.metadata["text_order"], old.is_reversed) == ("reading", False)
        assert old.metadata == file.metadata
