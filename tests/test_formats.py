"""Separators of text files, and JSON lines as others write them."""

import gzip
import io
import json
import logging
import random
from collections import Counter

import pytest
from helpers.small_data import convert_config

import convert_to_mds
import train_tokenizer
from hindsight.config.corpus import CorpusConfig, CorpusFormat, OnError
from hindsight.config.tokenizer import TokenizerConfig
from hindsight.errors import InputError
from hindsight.shards.manifest import Manifest
from hindsight.text.documents import Corpus
from hindsight.text.formats import MARK, MOST_MARKS, OTHER_MARKS, add_marks, describe_marks, marks_in
from hindsight.text.problems import ReadingReport

MARKER = "<|endoftext|>"


def write(path, data):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def read(path, reading=None, **settings):
    return [document.raw for document in Corpus(CorpusConfig(corpus=str(path), **settings)).documents(reading)]


# ----------------------------------------------------------------------------------------------------------- separator


def test_a_line_separates_documents_where_asked(tmp_path):
    text = f"{MARKER}\nOne.\n\nMore of it.\n{MARKER}\r\n\n\nTwo, {MARKER} inside.\n{MARKER}\n{MARKER}\nThree\n{MARKER}"
    path = write(tmp_path / "a.txt", text)
    documents = [b"One.\n\nMore of it.\n", f"Two, {MARKER} inside.\n".encode(), b"Three\n"]
    assert read(path, separator=MARKER) == documents
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder" / "a.txt.gz", gzip.compress(text.encode()))
    write(tmp_path / "folder" / "b.jsonl", json.dumps({"text": f"a\n{MARKER}\nb"}))
    assert read(tmp_path / "folder", separator=MARKER) == [*documents, f"a\n{MARKER}\nb".encode()]


def split_slowly(data, mark):
    """Documents of a text, line by line."""
    documents, lines = [], []
    for line in io.BytesIO(data):
        if line.removesuffix(b"\n").removesuffix(b"\r") == mark:
            documents.append(lines)
            lines = []
        elif lines or line not in (b"\n", b"\r\n"):
            lines.append(line)
    return [b"".join(lines) for lines in [*documents, lines] if lines]


@pytest.mark.parametrize("mark", ["S", "--", "aa"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("small_bytes", [0, 1 << 20])
def test_parts_of_any_size_hold_each_document_between_lines_once(tmp_path, monkeypatch, mark, suffix, small_bytes):
    rng = random.Random(0)
    monkeypatch.setattr("hindsight.text.parts.SMALL_FILE_BYTES", small_bytes)
    pieces = ["\n", "\n\n", "\r\n", mark, f"\n{mark}\n", f"\n{mark}\r\n", f"{mark}\n", "a", "bc", "é", "-", "S"]
    for _ in range(60):
        data = "".join(rng.choice(pieces) for _ in range(rng.randint(0, 60))).encode()
        path = write(tmp_path / f"a.txt{suffix}", gzip.compress(data) if suffix else data)
        for part_bytes in (1, 2, 3, 5, 17, 1000):
            monkeypatch.setattr("hindsight.text.blocks.CHUNK_BYTES", rng.choice([1, 2, 3, 7, 100]))
            config = CorpusConfig(corpus=str(path), separator=mark)
            documents = [document.raw for document in Corpus(config, part_bytes).documents()]
            assert documents == split_slowly(data, mark.encode()), (data, part_bytes)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"separator": ""}, "separator= is empty"),
        ({"separator": " "}, "is to be the text of one line"),
        ({"separator": "a\nb"}, "is to be the text of one line"),
        ({"separator": "x", "corpus_format": CorpusFormat.line}, "corpus_format=line has none; leave one of them out"),
    ],
)
def test_a_separator_that_separates_nothing_is_refused(settings, match):
    with pytest.raises(InputError, match=match):
        CorpusConfig(corpus="x", **settings)


def test_a_separator_for_a_corpus_without_text_files_is_refused(tmp_path):
    with pytest.raises(InputError, match="is for text files"):
        read(write(tmp_path / "a.jsonl", b'{"text": "x"}\n'), separator=MARKER)


def test_lines_that_others_separate_by_are_told_and_stay_text(tmp_path, tokenizer_dir, caplog):
    caplog.set_level(logging.INFO, "hindsight")
    corpus = write(tmp_path / "a.txt", f"A story.\n\nIts end.\n{MARKER}\n" * 20)
    convert_to_mds.main(convert_config(corpus, tokenizer_dir, tmp_path / "out", separator=None))
    told = f"{MARKER} (20); if they end documents, give 'separator={MARKER}'"
    assert caplog.text.count(told) == 2  # at the start and at the end
    assert Manifest.load(tmp_path / "out").summary["marks"] == {MARKER: 20}
    caplog.clear()
    train_tokenizer.main(TokenizerConfig(corpus=str(corpus), out=str(tmp_path / "tokenizer"), vocab_size=270))
    assert told in caplog.text


def test_a_separator_makes_another_conversion_and_is_in_the_manifest(tmp_path, tokenizer_dir, caplog):
    caplog.set_level(logging.INFO, "hindsight")
    text = "".join(f"Story {n}.\n\nIts end.\n{MARKER}\n" for n in range(20)) + f"{MARKER} inside"
    corpus = write(tmp_path / "a.txt", text)
    convert_to_mds.main(convert_config(corpus, tokenizer_dir, tmp_path / "out", separator=MARKER))
    manifest = Manifest.load(tmp_path / "out")
    assert manifest.settings["separator"] == MARKER
    assert sum(counts.documents or 0 for counts in manifest.splits.values()) == 21
    assert f"inside lines, where it is text and separates nothing: {MARKER} (1)" in caplog.text
    with pytest.raises(InputError, match=r"holds a conversion with separator=<\|endoftext\|> \(now None\)"):
        convert_to_mds.main(convert_config(corpus, tokenizer_dir, tmp_path / "out"))


def test_the_marks_of_others_are_known():
    known = [b"<|endoftext|>", b"<|eos|>", b"</s>", b"<EOS>", b"[SEP]", b"<|end of text|>"]
    text = b"\n".join([*known, b"<p>", b"x <|eos|>", b"[1]", b"<|a|b|>"])
    assert [match[1] for match in MARK.finditer(text)] == known


def test_however_many_marks_there_are_few_are_told_and_recorded():
    names = ["".join(chr(97 + (n // 26**place) % 26) for place in range(3)) for n in range(500)]
    text = "".join(f"<|{name}|>\n" for name in names).encode() + b"</s>\n" * 3
    marks = Counter({"</s>": 1})
    add_marks(marks, marks_in(text, None))
    assert len(marks) == MOST_MARKS + 1
    assert marks.total() == 504
    said = describe_marks(marks, None)
    assert said.startswith("lines that are text, and separate nothing: </s> (1), <|aaa|> (1), ")
    assert f", {OTHER_MARKS} (499); if they end documents, give 'separator=</s>'" in said
    assert marks_in(b"a--b--", "--") == {"--": 2}
    assert not marks_in(b"ab", "--")


# ---------------------------------------------------------------------------------------------------------- JSON lines


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "a.txt"])
def test_json_lines_may_begin_with_a_byte_order_mark_also_where_files_were_joined(tmp_path, name):
    lines = b'\xef\xbb\xbf{"text": "one"}\n{"text": "two"}\r\n'
    path = write(tmp_path / name, lines + lines + b" \t\n\xef\xbb\xbf\n")
    corpus_format = CorpusFormat.jsonl if name == "a.txt" else CorpusFormat.cc100
    assert read(path, corpus_format=corpus_format) == [b"one", b"two"] * 2
    packed = write(tmp_path / "b.jsonl.gz", gzip.compress(lines) + gzip.compress(lines))
    assert read(packed) == [b"one", b"two"] * 2


def test_a_byte_order_mark_of_a_text_stays(tmp_path):
    assert read(write(tmp_path / "a.txt", "\ufeffone\n")) == ["\ufeffone\n".encode()]


@pytest.mark.parametrize(
    ("line", "match"),
    [
        (r'{"text": "a\ud83d b"}', "holds half a surrogate pair at line 2, which is no character; put U+FFFD in its"),
        (r'{"text": "a\u0000b"}', "holds a NUL character at line 2; remove it, or leave it out with on_error=skip"),
        ('{"text": ' + "[" * 100_000 + "}", "line 2 is nested too deeply"),
        ('{"text": "x"', "line 2 is no JSON .*; mend it: a line is an object whose key 'text' holds the text, or"),
    ],
)
def test_a_json_string_that_is_no_text_is_skipped_when_asked(tmp_path, line, match):
    path = write(tmp_path / "a.jsonl", '{"text": "one"}\n' + line + '\n{"text": "two"}\n')
    with pytest.raises(InputError, match=match.replace("+", r"\+")):
        read(path)
    reading = ReadingReport()
    assert read(path, reading, on_error=OnError.skip) == [b"one", b"two"]
    assert len(reading.problems) == 1


def test_json_of_any_validity_beside_the_text_is_taken(tmp_path):
    lines = ['{"id": ' + "7" * 1_000_000 + ', "text": "one"}', r'{"title": "\ud800", "text": "\ud83d\ude00"}']
    path = write(tmp_path / "a.jsonl", "\n".join([*lines, '{"text": "first", "text": "last"}', '{"text": 5}']))
    reading = ReadingReport()
    assert read(path, reading, on_error=OnError.skip) == [b"one", "😀".encode(), b"last"]
    assert [problem.what for problem in reading.problems] == ["line 4 has no string under the key 'text'"]


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ('[{"text": "x"}, {"text": "y"}]', r"jq -c '\.\[\]'"),
        (json.dumps({"text": "x", "n": 1}, indent=1), "jq -c \\.,"),
    ],
)
def test_json_that_is_no_lines_is_refused_with_what_helps(tmp_path, text, advice):
    with pytest.raises(InputError, match=advice):
        read(write(tmp_path / "a.json", text))
