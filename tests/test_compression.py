"""Compressed files as the formats' own programs take them, with little memory however far they expand."""

import bz2
import gzip
import io
import lzma
import random
import shutil
import subprocess

import pytest
import zstandard
from helpers.bounded import read_in_a_child

from hindsight.config.corpus import CorpusConfig, CorpusFormat
from hindsight.errors import InputError
from hindsight.text.compression import READ_BYTES, ExpandsTooMuchError, decompressed
from hindsight.text.documents import Corpus

COMPRESS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard.compress}
SKIPPED_FRAME = b"\x53\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"other"


def unpack(data, suffix):
    return decompressed(io.BytesIO(data), suffix).read()


def read(path, reading=None, **settings):
    return [document.raw for document in Corpus(CorpusConfig(corpus=str(path), **settings)).documents(reading)]


def noise(n_bytes):
    return random.Random(0).randbytes(n_bytes)


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("padding", [b"", b"\0" * 4, b"\0" * 1000, b"\0" * (2 * READ_BYTES)])
def test_members_in_a_row_with_zeros_behind_them_are_read_to_the_end(suffix, padding):
    pieces = [b"one", b"", noise(300_000), b"x" * 1_000_000, b"last"]
    data = b"".join(COMPRESS[suffix](piece) + padding for piece in pieces)
    assert unpack(data, suffix) == b"".join(pieces)


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_cut_anywhere_and_bytes_that_do_not_belong_are_noticed(suffix):
    data = COMPRESS[suffix](b"one\n" * 50) + COMPRESS[suffix](b"two\n" * 50)
    first = len(COMPRESS[suffix](b"one\n" * 50))
    for end in (*range(1, first), *range(first + 1, len(data))):
        with pytest.raises(EOFError):
            unpack(data[:end], suffix)
    with pytest.raises(Exception, match=r".") as failed:
        unpack(data + b"what is this", suffix)
    assert not isinstance(failed.value, EOFError)


@pytest.mark.parametrize("suffix", COMPRESS)
def test_any_chunks_of_any_content_come_back(suffix, monkeypatch):
    rng = random.Random(1)
    for chunk_bytes in (1, 2, 7, 100, 5000):
        monkeypatch.setattr("hindsight.text.compression.READ_BYTES", chunk_bytes)
        content = [rng.choice([noise(rng.randint(0, 3000)), b"a" * rng.randint(0, 20_000)]) for _ in range(4)]
        assert unpack(b"".join(map(COMPRESS[suffix], content)), suffix) == b"".join(content)


@pytest.mark.skipif(shutil.which("zstd") is None, reason="needs the program zstd")
@pytest.mark.parametrize("options", [["--long=28"], ["--ultra", "-20", "--long=31"], ["--no-check", "-1"]])
def test_zstd_with_any_window_is_read(tmp_path, options):
    text = b"one\n\ntwo\n\n" + b"%d\n" * 1000 % tuple(range(1000))
    command = ["zstd", "-q", *options, "-o", str(tmp_path / "a.txt.zst")]
    subprocess.run(command, input=text, check=True)
    assert b"".join(read(tmp_path / "a.txt.zst", corpus_format=CorpusFormat.file)) == text


def test_every_valid_frame_of_zstd_is_read(tmp_path):
    parameters = zstandard.ZstdCompressionParameters(
        window_log=31, write_content_size=0, write_checksum=1, compression_level=1
    )
    streamed = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    unsized = streamed.compress(b"two\n\n") + streamed.flush()
    empty = zstandard.compress(b"")
    data = SKIPPED_FRAME + zstandard.compress(b"one\n\n") + SKIPPED_FRAME + empty + unsized + SKIPPED_FRAME
    (tmp_path / "a.txt.zst").write_bytes(data)
    assert read(tmp_path / "a.txt.zst") == [b"one\n", b"two\n"]


def test_zstd_that_needs_a_dictionary_is_refused_with_what_helps(tmp_path):
    dictionary = zstandard.train_dictionary(1000, [b"sample %d of many" % n for n in range(2000)])
    (tmp_path / "a.txt.zst").write_bytes(zstandard.ZstdCompressor(dict_data=dictionary).compress(b"sample 5 of many"))
    with pytest.raises(InputError, match="unpack it with its dictionary"):
        read(tmp_path / "a.txt.zst")


# --------------------------------------------------------------------------------------------------------------- bombs


@pytest.mark.parametrize("suffix", [".bz2", ".xz", ".zst"])
def test_a_file_that_expands_as_no_text_does_is_refused_soon(suffix):
    bomb = decompressed(io.BytesIO(COMPRESS[suffix](bytes(1 << 25)) * 4), suffix)
    with pytest.raises(ExpandsTooMuchError):
        bomb.read()


@pytest.mark.parametrize(("corpus_format", "on_error"), [("cc100", "stop"), ("line", "skip"), ("file", "skip")])
@pytest.mark.parametrize("content", [b"x", b"x" * 99 + b"\n\n"])
def test_a_bomb_ends_in_one_line_and_takes_little_memory(tmp_path, corpus_format, on_error, content):
    stream = zstandard.ZstdCompressor(level=1).compressobj()
    block = content * ((1 << 25) // len(content))
    data = b"".join([*(stream.compress(block) for _ in range(8)), stream.flush()])
    path = tmp_path / "bomb.txt.zst"
    path.write_bytes(data * 10)  # 2.6 GB
    assert path.stat().st_size < 1 << 20
    said, mebibytes = read_in_a_child(path, corpus_format, on_error)
    assert "expands to more than 1000 times its size" in said or "max_document_bytes" in said
    assert mebibytes < 300
