"""Which files of a corpus are taken, as what, and which are only counted."""

import gzip
import json
import logging
import os
import socket

import pytest
import zstandard
from helpers.small_data import convert_config

import convert_to_mds
import train_tokenizer
from hindsight.config.corpus import CorpusConfig, CorpusFormat, OnError
from hindsight.config.tokenizer import TokenizerConfig
from hindsight.errors import InputError
from hindsight.shards.manifest import Manifest
from hindsight.text.documents import Corpus
from hindsight.text.files import StoredFile
from hindsight.text.finding import find_files
from hindsight.text.problems import ReadingReport

LINES = "".join(json.dumps({"text": f"text {number}", "url": "http://x.y"}) + "\n" for number in range(3)).encode()
TEXTS = ["text 0", "text 1", "text 2"]
TAR = b"a.txt".ljust(257, b"\0") + b"ustar\x0000" + bytes(248)


def write(path, data=b"one\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def names(corpus, folder):
    return [os.path.relpath(file.path, folder) for file in find_files(str(corpus)).files]


def not_taken(corpus):
    return find_files(str(corpus)).not_taken


def read(corpus, reading=None, **settings):
    return [document.text for document in Corpus(CorpusConfig(corpus=str(corpus), **settings)).documents(reading)]


# ------------------------------------------------------------------------------------------------------ linked folders


def test_a_symlinked_folder_of_a_corpus_is_read(tmp_path):
    write(tmp_path / "real" / "deep" / "a.txt")
    write(tmp_path / "corpus" / "b.txt")
    (tmp_path / "corpus" / "a link").symlink_to(tmp_path / "real")
    found = ["a link/deep/a.txt", "b.txt"]
    assert names(tmp_path / "corpus", tmp_path / "corpus") == found
    assert names(tmp_path / "corpus" / "**" / "*.txt", tmp_path / "corpus") == found
    (tmp_path / "whole").symlink_to(tmp_path / "corpus")
    assert names(tmp_path / "whole", tmp_path / "whole") == found


@pytest.mark.timeout(20)
@pytest.mark.parametrize("pattern", ["", "**/*.txt"])
def test_links_in_a_circle_end_and_give_each_file_once(tmp_path, pattern):
    corpus = tmp_path / "corpus"
    write(corpus / "a" / "a.txt")
    write(corpus / "b" / "b.txt")
    for name in ("self", "a/up", "b/up", "b/more"):
        (corpus / name).symlink_to(corpus)
    (corpus / "a" / "beside").symlink_to(corpus / "b")
    (corpus / "out").symlink_to(tmp_path)  # a folder that holds the corpus
    write(tmp_path / "beside.txt")
    assert names(corpus / pattern, corpus) == ["a/a.txt", "b/b.txt", "out/beside.txt"]
    if not pattern:
        assert not_taken(corpus) == {"link to a folder that is taken already": 6}


def test_a_link_that_leads_to_itself_or_to_nothing_is_counted_or_refused(tmp_path):
    write(tmp_path / "a.txt")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert not_taken(tmp_path) == {"broken link": 2}
    (tmp_path / "b.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"b\.txt cannot be read"):
        read(tmp_path)
    assert read(tmp_path, on_error=OnError.skip) == ["one\n"]


# ------------------------------------------------------------------------------------------------------------- endings


@pytest.mark.parametrize(
    "name", ["a.json.gz", "a.ndjson", "a.JSONL", "a.json", "a.Jsonl.GZ", "a.jsonlines", "a.NDJSON.zst"]
)
@pytest.mark.parametrize("named", [True, False])
def test_json_lines_of_any_name_are_read_as_such(tmp_path, name, named):
    compress = {".gz": gzip.compress, ".zst": zstandard.compress}.get(name[name.rindex(".") :].lower(), bytes)
    path = write(tmp_path / name, compress(LINES))
    assert read(path if named else tmp_path) == TEXTS


@pytest.mark.parametrize("name", ["A.TXT", "b.Txt.GZ", "c.TXT.Zst"])
def test_endings_of_any_case_are_known(tmp_path, name):
    compress = {".gz": gzip.compress, ".zst": zstandard.compress}.get(name[name.rindex(".") :].lower(), bytes)
    write(tmp_path / name, compress(b"one\n\ntwo\n"))
    assert read(tmp_path) == ["one\n", "two\n"]


def test_parquet_of_any_case_is_known(tmp_path):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"text": ["one", "two"]}), tmp_path / "A.PARQUET")
    assert read(tmp_path) == read(tmp_path / "A.PARQUET") == ["one", "two"]


def test_json_of_a_folder_that_is_no_json_lines_is_counted(tmp_path):
    write(tmp_path / "a.txt")
    write(tmp_path / "dataset_info.json", json.dumps({"description": "x", "text": 5}, indent=2).encode())
    write(tmp_path / "one_line.json", b'{"version": 2}')
    write(tmp_path / "array.json", b'[{"text": "x"}]')
    write(tmp_path / "lines.json", LINES)
    assert names(tmp_path, tmp_path) == ["a.txt", "lines.json"]
    assert not_taken(tmp_path) == {".json without a JSON object in its first line that has text_key=": 3}


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("first", [b"", b"\xef\xbb\xbf", b"\n\n"])
def test_json_lines_that_are_named_txt_are_read_as_prose_only_where_asked(tmp_path, monkeypatch, suffix, first):
    monkeypatch.setattr("hindsight.text.documents.PART_BYTES", 70)
    monkeypatch.setattr("hindsight.text.parts.SMALL_FILE_BYTES", 0)
    write(tmp_path / f"a.txt{suffix}", (gzip.compress if suffix else bytes)(first + LINES))
    with pytest.raises(InputError, match=r"a\.txt.* holds JSON lines.*; read it with corpus_format=jsonl"):
        read(tmp_path)
    lines = (first.removesuffix(b"\n\n") + LINES).decode().splitlines()
    assert [text.strip() for text in read(tmp_path, corpus_format=CorpusFormat.line)] == lines
    write(tmp_path / "b.txt")
    reading = ReadingReport()
    assert [text.strip() for text in read(tmp_path, reading, on_error=OnError.skip)] == ["one"]
    assert len(reading.problems) == 1
    if not first:
        assert read(tmp_path / f"a.txt{suffix}", corpus_format=CorpusFormat.jsonl) == TEXTS


@pytest.mark.parametrize(
    "text",
    [
        b"{}\n\ntwo\n",
        b'{"a": 1}\n\nis an object.\n',
        b"{ and so on\n",
        b'{"a": 1\n{',
        b'{"role": "user"}\n{name} said hello to us.\n\nSome prose.\n',
        b"{{Infobox " + b"x" * (1 << 17) + b"}}\n\nSome prose.\n",
    ],
    ids=lambda text: repr(text[:30]),
)
def test_prose_that_begins_with_a_brace_is_prose(tmp_path, text):
    assert read(write(tmp_path / "a.txt", text))[0].startswith("{")


def test_json_lines_with_a_first_line_of_any_length_are_read_and_other_json_is_counted(tmp_path):
    for length in (70_000, 1 << 24):
        write(tmp_path / f"{length}.json", json.dumps({"html": "x" * length, "text": "hello"}).encode() + b"\n")
    write(tmp_path / "tokenizer.json", json.dumps({"model": "x" * 70_000}).encode())
    assert read(tmp_path, max_document_bytes=1 << 25) == ["hello"] * 2
    assert not_taken(tmp_path) == {".json without a JSON object in its first line that has text_key=": 1}


def test_the_beginning_of_a_file_is_looked_at_once(tmp_path, monkeypatch):
    path = write(tmp_path / "a.txt", b"".join(b"%d\n\n" % number for number in range(20_000)))
    opened, open_file = [], StoredFile.open
    monkeypatch.setattr(StoredFile, "open", lambda file, start=0: opened.append(start) or open_file(file, start))
    corpus = Corpus(CorpusConfig(corpus=str(path)), part_bytes=1 << 14)
    n_parts = len(list(corpus.parts()))
    opened.clear()
    assert len(list(corpus.documents())) == 20_000
    assert n_parts > 5
    assert len([start for start in opened if start]) == n_parts - 1
    assert opened.count(0) == 3  # its first bytes, its beginning, its first part


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [
        ("a.txt", b"PK\x03\x04....", "is a zip archive by its content; unpack it"),
        ("a.zip", b"PK\x03\x04....", "is a zip archive by its content; unpack it"),
        ("a.pdf", b"%PDF-1.7\n", "is a PDF by its content; give its text"),
        ("a.tgz", gzip.compress(b"x", mtime=0), r"is a \.gz file by its content; unpack it"),
        ("a.tar.gz", gzip.compress(TAR, mtime=0), "is a tar archive"),
        ("a.tar", TAR, "is a tar archive by its content; unpack"),
    ],
)
def test_an_archive_that_is_named_is_refused_with_what_helps(tmp_path, name, data, match):
    with pytest.raises(InputError, match=match):
        read(write(tmp_path / name, data))


# ------------------------------------------------------------------------------------------------------------ counting


def test_every_file_of_a_folder_is_taken_or_counted(tmp_path):
    for name in (".hidden.txt", ".git/x.txt", "a.PDF", "b.pdf", "c.zip", "d.tar.gz", "e.txt.bak", "README", "x.00001"):
        write(tmp_path / name)
    write(tmp_path / "a.txt")
    write(tmp_path / "empty.txt", b"")
    os.mkfifo(tmp_path / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket.txt"))
    (tmp_path / "folder.txt").mkdir()
    write(tmp_path / "folder.txt" / "b.txt")
    assert names(tmp_path, tmp_path) == ["a.txt", "empty.txt", "folder.txt/b.txt"]
    assert not_taken(tmp_path) == {
        "hidden": 2,
        ".pdf": 2,
        ".zip": 1,
        ".tar.gz": 1,
        ".bak": 1,
        "without a known ending": 2,
        "empty": 1,
        "pipe, socket or device": 2,
    }


def test_what_a_glob_matches_is_taken_or_counted(tmp_path):
    write(tmp_path / "a.txt")
    write(tmp_path / "b.pdf")
    write(tmp_path / "folder" / "c.txt")
    os.mkfifo(tmp_path / "pipe")
    assert names(tmp_path / "*", tmp_path) == ["a.txt", "b.pdf"]
    assert not_taken(tmp_path / "*") == {"folder": 1, "pipe, socket or device": 1}
    with pytest.raises(InputError, match="has no text, only 1 pipe, socket or device; give"):
        find_files(str(tmp_path / "pip*"))


def test_a_folder_without_text_says_what_it_has(tmp_path):
    write(tmp_path / "a.pdf")
    write(tmp_path / "b.pdf")
    with pytest.raises(InputError, match=r"has no text, only 2 \.pdf; give \.txt"):
        find_files(str(tmp_path))


def test_what_is_not_taken_is_printed_and_in_the_manifest(tmp_path, corpus, tokenizer_dir, caplog):
    caplog.set_level(logging.INFO, "hindsight")
    folder = tmp_path / "corpus"
    write(folder / "a.txt", corpus.read_bytes())
    write(folder / "b.pdf")
    write(folder / ".c")
    write(folder / "empty.txt", b"")
    convert_to_mds.main(convert_config(folder, tokenizer_dir, tmp_path / "out"))
    manifest = Manifest.load(tmp_path / "out")
    assert manifest.corpus["not_taken"] == {".pdf": 1, "hidden": 1, "empty": 1}
    assert manifest.corpus["files"] == 1
    assert "files of the corpus that were not taken: 1 .pdf, 1 empty, 1 hidden." in caplog.text
    caplog.clear()
    train_tokenizer.main(TokenizerConfig(corpus=str(folder), out=str(tmp_path / "tokenizer"), vocab_size=300))
    assert "files that are not taken: 1 .pdf, 1 empty, 1 hidden." in caplog.text
