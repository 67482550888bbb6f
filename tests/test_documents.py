import bz2
import gzip
import io
import itertools
import json
import lzma
import random
import sys

import pytest
import zstandard

from hindsight.config.corpus import CorpusConfig, CorpusFormat, LineSeparators, OnError
from hindsight.errors import InputError
from hindsight.text.digest import Digest, content_of
from hindsight.text.documents import Corpus
from hindsight.text.finding import find_files
from hindsight.text.formats import SEPARATORS
from hindsight.text.problems import ReadingReport

COMPRESS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard.compress}


def read(path, corpus_format=CorpusFormat.cc100, reading=None, **settings):
    config = CorpusConfig(corpus=str(path), corpus_format=corpus_format, **settings)
    return [document.raw for document in Corpus(config).documents(reading)]


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def paths(found):
    return [file.path for file in found.files]


def refused(match, path, *arguments, **settings):
    with pytest.raises(InputError, match=match):
        read(path, *arguments, **settings)


# ------------------------------------------------------------------------------------------------ documents of a text


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
    refused(f"does not begin as a {suffix} file", write(tmp_path / f"a.txt{suffix}", b"plain text, longer than a head"))


def test_a_zstd_file_of_several_frames_is_read_to_its_end(tmp_path):
    data = b"one\ntwo\n\nthree\n" * 100_000
    compressed = zstandard.compress(data[:15]) + zstandard.compress(data[15:])
    assert read(write(tmp_path / "a.txt.zst", compressed)) == read(write(tmp_path / "b.txt", data))


# ------------------------------------------------------------------------------------------------------------- files


def test_a_folder_gives_its_text_files_sorted_without_hidden_ones(tmp_path):
    for name in ("b.txt", "a/z.txt", "a.txt.gz", ".hidden.txt", ".git/x.txt", "readme.md", "notes.gz"):
        write(tmp_path / name, b"x")
    expected = [tmp_path / "a" / "z.txt", tmp_path / "a.txt.gz", tmp_path / "b.txt"]
    assert paths(find_files(str(tmp_path))) == [str(path) for path in expected]


def test_a_glob_gives_the_files_that_match_sorted(tmp_path):
    for name in ("c.text", "a.text", "b/d.text", "e.txt"):
        write(tmp_path / name, b"x")
    assert paths(find_files(str(tmp_path / "*.text"))) == [str(tmp_path / name) for name in ("a.text", "c.text")]
    assert paths(find_files(str(tmp_path / "**" / "d.text"))) == [str(tmp_path / "b" / "d.text")]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path):
    path = write(tmp_path / "a[1].txt", b"x")
    assert paths(find_files(str(path))) == [str(path)]


@pytest.mark.parametrize("name", ["missing.txt", "*.txt"])
def test_a_missing_corpus_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"corpus=.* does not exist"):
        find_files(str(tmp_path / name))


def test_a_folder_without_text_is_refused(tmp_path):
    write(tmp_path / "readme.md", b"x")
    with pytest.raises(InputError, match=r"corpus=.* has no text"):
        find_files(str(tmp_path))


@pytest.mark.parametrize("corpus_format", [CorpusFormat.cc100, CorpusFormat.file, CorpusFormat.line])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_bytes_that_are_not_utf8_are_refused_with_their_offset(tmp_path, corpus_format, suffix):
    data = "é\n\n\r\n\nzwei\ndrei ".encode() + b"\xff!\n\nfour\n"
    path = write(tmp_path / f"a.txt{suffix}", COMPRESS[suffix](data) if suffix else data)
    with pytest.raises(InputError, match=rf"a\.txt.* is not UTF-8 at byte {data.index(0xFF)}\b"):
        read(path, corpus_format)


def split_slowly(data, corpus_format):
    """Documents of a text, line by line."""
    if corpus_format is CorpusFormat.file:
        return [data] if data else []
    documents, lines = [], []
    for line in io.BytesIO(data):
        if corpus_format is CorpusFormat.line:
            documents += [text] if (text := line.removesuffix(b"\n")).strip(b"\r") else []
        elif line in (b"\n", b"\r\n"):
            documents.append(b"".join(lines))
            lines = []
        else:
            lines.append(line)
    return [document for document in [*documents, b"".join(lines)] if document]


@pytest.mark.parametrize("corpus_format", [CorpusFormat.cc100, CorpusFormat.file, CorpusFormat.line])
@pytest.mark.parametrize("suffix", ["", ".xz"])
@pytest.mark.parametrize("small_bytes", [0, 1 << 20])
def test_parts_of_any_size_hold_each_document_once_and_in_order(
    tmp_path, monkeypatch, corpus_format, suffix, small_bytes
):
    rng = random.Random(0)
    monkeypatch.setattr("hindsight.text.parts.SMALL_FILE_BYTES", small_bytes)
    pieces = ["\n", "\n", "\n\n", "\r\n", "\r", "a", "bc", "é", "x y"]
    for _ in range(60):
        data = "".join(rng.choice(pieces) for _ in range(rng.randint(0, 60))).encode()
        path = write(tmp_path / f"a.txt{suffix}", COMPRESS[suffix](data) if suffix else data)
        for part_bytes in (1, 2, 3, 5, 17, 1000):
            monkeypatch.setattr("hindsight.text.blocks.CHUNK_BYTES", rng.choice([1, 2, 3, 7, 100]))
            config = CorpusConfig(corpus=str(path), corpus_format=corpus_format)
            documents = [document.raw for document in Corpus(config, part_bytes).documents()]
            assert documents == split_slowly(data, corpus_format), (data, part_bytes)


def test_small_files_share_a_part_and_large_ones_have_many(tmp_path):
    for number in range(10):
        write(tmp_path / f"{number}.txt", b"x" * 30)
    write(tmp_path / "large.txt", b"line\n" * 200)
    parts = list(Corpus(CorpusConfig(corpus=str(tmp_path), corpus_format=CorpusFormat.line), 100).parts())
    assert [len(part.segments) for part in parts] == [4, 4, 2 + 1, *[1] * 9]
    assert sum(part.stored_bytes for part in parts) == 10 * 30 + 1000


def test_a_signature_is_of_names_sizes_times_or_of_the_text(tmp_path, monkeypatch):
    def signatures(path):
        return [part.signature for part in Corpus(CorpusConfig(corpus=str(path)), 8).parts()]

    path = write(tmp_path / "a.txt", b"one\n\ntwo\n\nthree\n")
    before = signatures(path)
    assert signatures(path) == before
    assert len(set(before)) == len(before) == 2
    write(path, b"one\n\ntwo\n\nfour!\n")
    assert not set(signatures(path)) & set(before)
    monkeypatch.setattr("hindsight.text.parts.SMALL_FILE_BYTES", 0)
    packed = signatures(write(tmp_path / "a.txt.gz", gzip.compress(b"one\n\ntwo\n\nthree\n")))
    again = signatures(write(tmp_path / "b.txt.xz", lzma.compress(b"one\n\ntwo\n\nfour!\n")))
    assert packed[0] == again[0]
    assert packed[-1] != again[-1]


def test_digests_join_to_that_of_the_whole():
    hashes = [bytes([n] * 16) for n in range(10)]
    whole = Digest.of(hashes)
    for cut in range(11):
        assert Digest.of(hashes[:cut]).then(Digest.of(hashes[cut:])) == whole
    prints = {Digest.of(list(order)).fingerprint for order in itertools.permutations(hashes[:4])}
    assert len(prints | {Digest.of(hashes[:3]).fingerprint, Digest.of([*hashes[:4], bytes(16)]).fingerprint}) == 26


# ------------------------------------------------------------------------------------------------------ other formats


def test_what_a_document_says_is_hashed_as_ever():
    for pieces in itertools.product([b"", b"\r", b"\n", b"\xef\xbb\xbf", b"a", b"\r\n"], repeat=5):
        raw = b"".join(pieces)
        assert content_of(raw) == raw.removeprefix(b"\xef\xbb\xbf").strip(b"\r\n").replace(b"\r\n", b"\n") + b"\n"


def test_jsonl_gives_the_text_under_a_key(tmp_path):
    lines = [json.dumps({"text": text, "id": 1}, ensure_ascii=False) for text in ("a\nb\n\nc", "", "é\u2028漢")]
    path = write(tmp_path / "a.jsonl.zst", zstandard.compress("\n".join([*lines[:2], "", lines[2]]).encode()))
    reading = ReadingReport()
    assert read(path, reading=reading) == [b"a\nb\n\nc", "é\u2028漢".encode()]
    assert reading.empty == 1
    other = write(tmp_path / "b.txt", '{"body": "x"}\r\n{"body": "y"}')
    assert read(other, CorpusFormat.jsonl, text_key="body") == [b"x", b"y"]


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("line", "match"),
    [
        ('{"body": "x"}', "line 5003 has no key 'text'; name the key of the text with text_key="),
        ('{"text": 5}', "line 5003 has no string under the key 'text'"),
        ('["text"]', "line 5003 is no JSON object"),
        ('{"text": "x', "line 5003 is no JSON "),
        (b'{"text": "\xff"}', r"line 5003 is not UTF-8 \(byte 80042"),
        ('{"text": "\\ud800"}', "holds half a surrogate pair at line 5003"),
        ('{"text": "\\u0000"}', "holds a NUL character at line 5003"),
    ],
)
def test_a_line_that_is_no_text_is_refused_with_its_number(tmp_path, monkeypatch, suffix, line, match):
    monkeypatch.setattr("hindsight.text.documents.PART_BYTES", 1 << 14)
    monkeypatch.setattr("hindsight.text.parts.SMALL_FILE_BYTES", 0)
    good = b'{"text": "good"}\n'
    data = good * 5001 + b"\n" + (line if isinstance(line, bytes) else line.encode()) + b"\n" + good
    path = write(tmp_path / f"a.jsonl{suffix}", COMPRESS[suffix](data) if suffix else data)
    refused(match.replace("80042", str(data.index(b"\xff")) if b"\xff" in data else ""), path)
    reading = ReadingReport()
    assert read(path, reading=reading, on_error=OnError.skip) == [b"good"] * 5002
    assert len(reading.problems) == 1


def test_parquet_gives_the_text_of_a_column(tmp_path):
    import pyarrow
    from pyarrow import parquet

    texts = [f"text {number}\n\nof a row" for number in range(1000)]
    table = pyarrow.table({"body": [*texts[:500], None, "", *texts[500:]], "id": range(1002)})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=300)
    reading = ReadingReport()
    assert read(tmp_path / "a.parquet", text_column="body", reading=reading) == [text.encode() for text in texts]
    assert reading.empty == 2
    config = CorpusConfig(corpus=str(tmp_path), text_column="body")
    assert [len(part.text) for part in Corpus(config, 5000).parts()][:2] == [
        len(part.text) for part in Corpus(config, 5000).parts()
    ][:2]
    assert [document.text for document in Corpus(config, 5000).documents()] == texts
    refused(r"a\.parquet has no column 'text'; choose one of body, id", tmp_path / "a.parquet")
    refused("has no text in the column 'id', but int64; name another", tmp_path / "a.parquet", text_column="id")
    damaged = bytearray((tmp_path / "a.parquet").read_bytes())
    refused("cannot be read", write(tmp_path / "cut.parquet", bytes(damaged[: len(damaged) // 2])), text_column="body")
    refused("does not begin as a .parquet file", write(tmp_path / "b.parquet", b"text"), text_column="body")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_folder_of_datasets_gives_the_text_of_a_column(tmp_path):
    import datasets

    texts = ["one\n\nmore", "zwei é", "three"]
    table = datasets.Dataset.from_dict({"text": texts, "id": [1, 2, 3]})
    table.save_to_disk(str(tmp_path / "saved"))
    datasets.DatasetDict({"test": table}).save_to_disk(str(tmp_path / "splits"))
    write(tmp_path / "files" / "train.jsonl", "".join(json.dumps({"text": text}) + "\n" for text in texts))
    expected = [text.encode() for text in texts]
    assert read(f"hf:{tmp_path / 'saved'}") == expected
    assert read(f"hf:{tmp_path / 'splits'}", hf_split="test") == expected
    assert read(f"hf:{tmp_path / 'files'}") == expected
    refused("has no column 'body'; choose one of text, id", f"hf:{tmp_path / 'saved'}", text_column="body")
    refused(r"corpus=hf:.* cannot be read", f"hf:{tmp_path / 'files'}", hf_split="nosuch")
    refused(r"corpus=hf:.* cannot be read .* give a dataset's name and a connection", f"hf:{tmp_path / 'missing'}")


def test_standard_input_is_text_too(monkeypatch):
    class Stdin:
        buffer = io.BytesIO(b"one\n\ntwo\n")

    monkeypatch.setattr(sys, "stdin", Stdin)
    assert read("-") == [b"one\n", b"two\n"]


def test_line_separators_stay_unless_asked(tmp_path):
    path = write(tmp_path / "a.txt", "a\u2028b\u2029\n")
    assert read(path) == ["a\u2028b\u2029\n".encode()]
    assert read(path, line_separators=LineSeparators.newline) == [b"a\nb\n\n"]


# ------------------------------------------------------------------------------------------------- what cannot be used


def test_a_nul_byte_is_refused_with_its_offset(tmp_path):
    refused(
        r"holds a NUL character at byte 6; it may be binary, or UTF-16", write(tmp_path / "a.txt", b"one\n\nt\0wo\n")
    )
    refused(r"is not UTF-8 at byte 0", write(tmp_path / "b.txt", "one\n\ntwo\n".encode("utf-16")))


def test_a_file_that_is_compressed_though_its_name_does_not_say_so_is_refused(tmp_path):
    refused(r"is a \.gz file by its content; name it .*a\.txt\.gz", write(tmp_path / "a.txt", gzip.compress(b"x")))


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("corpus_format", [CorpusFormat.cc100, CorpusFormat.file, CorpusFormat.line])
def test_a_document_that_is_too_long_is_refused_before_it_is_held(tmp_path, monkeypatch, suffix, corpus_format):
    monkeypatch.setattr("hindsight.text.blocks.CHUNK_BYTES", 1000)
    monkeypatch.setattr("hindsight.text.parts.SMALL_FILE_BYTES", 0)
    data = b"short\n\n" + b"x" * 50_000 + b"\n\nlast\n"
    path = write(tmp_path / f"a.txt{suffix}", COMPRESS[suffix](data) if suffix else data)
    start = 0 if corpus_format is CorpusFormat.file else 7
    limits = {"max_document_bytes": 10_000}
    refused(f"a document of more than max_document_bytes=10000 at byte {start}", path, corpus_format, **limits)
    for part_bytes in (1, 100, 20_000, 1 << 20):
        monkeypatch.setattr("hindsight.text.documents.PART_BYTES", part_bytes)
        reading = ReadingReport()
        documents = read(path, corpus_format, reading, on_error=OnError.skip, **limits)
        assert [document.strip() for document in documents] == [[b"short", b"last"], []][start == 0]
        assert len(reading.problems) == 1


def test_skipping_leaves_out_what_cannot_be_used_and_nothing_else(tmp_path):
    write(tmp_path / "1.txt", b"one\n\nb\xffd\n\ntwo\n")
    write(tmp_path / "2.txt.xz", lzma.compress(b"three\n\n" + bytes(range(65, 91)) * 5000 + b"\n\nlost\n")[:-60])
    (tmp_path / "3.txt").symlink_to(tmp_path / "nowhere")
    write(tmp_path / "4.txt.gz", b"no gzip, though it is long enough")
    write(tmp_path / "5.txt", b"")
    write(tmp_path / "6.txt", b"four\n")
    reading = ReadingReport()
    documents = read(tmp_path, reading=reading, on_error=OnError.skip)
    assert [document for document in documents if len(document) < 100] == [b"one\n", b"two\n", b"three\n", b"four\n"]
    assert b"lost\n" not in documents
    found = [problem.message.removeprefix(f"corpus: {tmp_path}/")[:24] for problem in reading.problems]
    assert found == [
        "1.txt is not UTF-8 at by",
        "2.txt.xz is cut off: its",
        "3.txt cannot be read (No",
        "4.txt.gz is not what its",
    ]
    refused(r"4\.txt\.gz does not begin as a \.gz file", tmp_path)
    (tmp_path / "4.txt.gz").unlink()
    refused(r"1\.txt is not UTF-8", tmp_path)


def test_a_file_that_grows_or_shrinks_while_it_is_read(tmp_path):
    path = write(tmp_path / "a.txt", b"one\n\ntwo\n")
    opened = Corpus(CorpusConfig(corpus=str(path)))
    write(path, b"one\n\ntwo\nand more\n\n")
    assert [document.raw for document in opened.documents()] == [b"one\n", b"two\n"]
    write(path, b"one\n")
    with pytest.raises(InputError, match="changed while it was read"):
        list(opened.documents())


@pytest.mark.parametrize("corpus_format", [CorpusFormat.cc100, CorpusFormat.line])
def test_the_last_end_of_a_separator_is_found_in_every_short_text(corpus_format):
    separator = SEPARATORS[corpus_format]
    assert separator is not None
    for length in range(8):
        for characters in itertools.product(b"a\n\r", repeat=length):
            text = bytes(characters)
            ends = [at for at in range(length + 1) if text[:at].endswith(separator.ends)]
            assert separator.last_end(text) == max(ends, default=None)
            assert separator.first_end(text) == min(ends, default=None)
