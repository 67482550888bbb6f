import dataclasses
import gzip
import json
import logging
import math
import shutil

import h5py
import numpy as np
import pytest
from helpers.processes import run_command
from helpers.small_data import convert_config, draws, make_text, shard_bytes_of
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from streaming import MDSWriter
from streaming.base.format import reader_from_json

import convert_to_h5
import convert_to_mds
import train_tokenizer
from hindsight.config.corpus import CorpusFormat
from hindsight.config.tokenizer import TokenizerConfig
from hindsight.errors import InputError
from hindsight.files import new_folder
from hindsight.shards.integrity import RECORD_NAME
from hindsight.shards.manifest import Manifest, entropy_nats, token_dtype
from hindsight.shards.mds import read_shard_bytes
from hindsight.tokenization.tokenizer import Tokenizer


def mds_stream(folder, split):
    """The tokens of a split, read by Streaming's own reader, the filling included."""
    index = json.loads((folder / split / "index.json").read_text())
    blocks = []
    for shard in index["shards"]:
        reader = reader_from_json(str(folder), split, shard)
        blocks += [reader[i]["tokens"] for i in range(shard["samples"])]
    return np.concatenate(blocks)


def stream(folder, split):
    """The tokens of a split, without any filling."""
    manifest = Manifest.load(folder)
    n_train, n_val = manifest.splits["train"].tokens, manifest.splits["val"].tokens
    if manifest.format == "mds":
        return mds_stream(folder, split)[: n_train if split == "train" else n_val].tolist()
    with h5py.File(folder / "tokens.h5") as file:
        tokens = np.asarray(file["tokens"])
    assert len(tokens) == n_train + n_val
    return (tokens[:n_train] if split == "train" else tokens[n_train:]).tolist()


def documents_of(folder, split):
    """The texts of a split, cut at EOS."""
    tokenizer = Tokenizer.load(folder / "tokenizer")
    tokens = np.array(stream(folder, split))
    assert tokens[-1] == tokenizer.eos_id
    pieces = np.split(tokens, np.flatnonzero(tokens == tokenizer.eos_id) + 1)[:-1]
    return [tokenizer.detokenize(piece) for piece in pieces]


def split_text(path):
    """The documents of a cc100 text, cut in another way than hindsight.text does."""
    return [text + "\n" for text in path.read_text(encoding="utf-8").removesuffix("\n").split("\n\n")]


def same(folder, other):
    """Whether two conversions are the same, wherever their corpus was."""
    first, second = (dataclasses.replace(Manifest.load(path), corpus={}) for path in (folder, other))
    return first == second and first.fingerprint == second.fingerprint


def tree(folder, contents=False):
    if contents:
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


def refused(script, config, match):
    with pytest.raises(InputError, match=match):
        script.main(config)


# ------------------------------------------------------------------------------------------------------ what is stored


@pytest.mark.parametrize("name", ["shards", "h5_data"])
def test_each_document_is_in_one_split_whole_and_in_order(corpus, name, request):
    folder = request.getfixturevalue(name)
    documents = split_text(corpus)
    train, val = documents_of(folder, "train"), documents_of(folder, "val")
    in_val = draws(documents, 0) < 0.2
    assert train == [text for text, chosen in zip(documents, in_val, strict=True) if not chosen]
    assert val == [text for text, chosen in zip(documents, in_val, strict=True) if chosen]
    assert len(train) + len(val) == len(documents)


def test_blocks_hold_the_ids_of_the_documents_each_followed_by_eos(corpus, shards):
    tokenizer = Tokenizer.load(shards / "tokenizer")
    for split in ("train", "val"):
        expected = []
        for text in documents_of(shards, split):
            expected += [*tokenizer.tokenize(text)[0].tolist(), tokenizer.eos_id]
        assert stream(shards, split) == expected


def test_the_tail_is_filled_up_and_not_counted(shards):
    manifest = Manifest.load(shards)
    pad_id = Tokenizer.load(shards / "tokenizer").pad_id
    for split, counts in manifest.splits.items():
        stored = mds_stream(shards, split)
        assert len(stored) == counts.blocks * 64
        assert 0 <= len(stored) - counts.tokens < 64
        assert set(stored[counts.tokens :].tolist()) <= {pad_id}
    assert any(counts.tokens % 64 for counts in manifest.splits.values())


def test_the_manifest_counts_what_is_there(corpus, shards, tokenizer_dir):
    manifest = Manifest.load(shards)
    assert manifest.tokenizer_fingerprint == Tokenizer.load(tokenizer_dir).fingerprint
    assert (manifest.format, manifest.block_length, manifest.blocks_per_shard, manifest.dtype) == (
        "mds",
        64,
        5,
        "uint16",
    )
    assert (manifest.seed, manifest.val_share, manifest.vocab_size) == (0, 0.2, 300)
    for split, counts in manifest.splits.items():
        texts = documents_of(shards, split)
        assert counts.documents == len(texts)
        assert counts.bytes == sum(len(text.encode()) for text in texts)
        shares = np.bincount(stream(shards, split)) / counts.tokens
        assert counts.unigram_entropy_nats == pytest.approx(-sum(p * math.log(p) for p in shares if p))


def test_entropy_of_known_distributions():
    assert entropy_nats(np.array([5, 0, 5, 5, 5])) == pytest.approx(math.log(4))
    assert entropy_nats(np.array([0, 7])) == 0


@pytest.mark.parametrize("block_length", [1, 7, 64])
@pytest.mark.parametrize("blocks_per_shard", [1, 3, 10])
@pytest.mark.parametrize("compression", [None, "zstd:7"])
def test_every_shard_but_the_last_holds_exactly_blocks_per_shard(
    tmp_path, tokenizer_dir, block_length, blocks_per_shard, compression
):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("".join(f"{number}, one two\n\n" for number in range(12)))
    shard_bytes = shard_bytes_of(blocks_per_shard, block_length) + 1
    changes = {"block_length": block_length, "shard_bytes": shard_bytes, "compression": compression}
    convert_to_mds.main(convert_config(corpus, tokenizer_dir, tmp_path / "out", **changes))
    manifest = Manifest.load(tmp_path / "out")
    assert manifest.blocks_per_shard == blocks_per_shard
    for split, counts in manifest.splits.items():
        shards = json.loads((tmp_path / "out" / split / "index.json").read_text())["shards"]
        samples = [shard["samples"] for shard in shards]
        assert set(samples[:-1]) <= {blocks_per_shard}
        assert 0 < samples[-1] <= blocks_per_shard
        assert sum(samples) == counts.blocks


@pytest.mark.parametrize("hashes", [[], ["xxh64"], ["blake2b", "md5", "sha256", "sha3_512", "xxh128", "xxh3_64"]])
@pytest.mark.parametrize("shard_bytes", [1172, 4000, 1 << 14])
def test_no_shard_is_larger_than_shard_bytes(tmp_path, corpus, tokenizer_dir, shard_bytes, hashes):
    changes = {"shard_bytes": shard_bytes, "hashes": hashes}
    convert_to_mds.main(convert_config(corpus, tokenizer_dir, tmp_path / "out", **changes))
    sizes = [path.stat().st_size for path in sorted((tmp_path / "out" / "train").glob("*.mds"))]
    assert len(sizes) > 1 or shard_bytes > 10_000
    assert max(sizes) <= shard_bytes
    if len(sizes) > 1:
        assert sizes[0] > shard_bytes - 512 - 132


def test_data_whose_shards_an_earlier_version_counted_by_tokens_alone_stays_as_it_is(
    corpus, tokenizer_dir, shards, caplog
):
    caplog.set_level(logging.INFO, "hindsight")
    before = tree(shards)
    five_blocks_of_tokens = 5 * 64 * 2
    convert_to_mds.main(convert_config(corpus, tokenizer_dir, shards, shard_bytes=five_blocks_of_tokens))
    assert "already there, nothing to do" in caplog.text
    assert tree(shards) == before


def test_a_shard_holds_at_least_one_block(tmp_path, corpus, tokenizer_dir):
    convert_to_mds.main(convert_config(corpus, tokenizer_dir, tmp_path / "out", shard_bytes=1))
    assert Manifest.load(tmp_path / "out").blocks_per_shard == 1


@pytest.mark.parametrize(
    ("compression", "hashes"), [(None, ["xxh64"]), (None, []), ("zstd:3", ["sha256", "xxh64"]), ("br:2", ["md5"])]
)
def test_shards_and_index_are_byte_for_byte_those_of_mdswriter(tmp_path, corpus, tokenizer_dir, compression, hashes):
    changes = {"compression": compression, "hashes": hashes}
    convert_to_mds.main(convert_config(corpus, tokenizer_dir, tmp_path / "ours", **changes))
    for split in ("train", "val"):
        shards = json.loads((tmp_path / "ours" / split / "index.json").read_text())["shards"]
        raw = (read_shard_bytes(tmp_path / "ours" / split, shard)[-64 * 2 * shard["samples"] :] for shard in shards)
        blocks = np.frombuffer(b"".join(raw), np.uint16).reshape(-1, 64)
        writer = MDSWriter(
            columns={"tokens": "ndarray:uint16:64"},
            out=str(tmp_path / "theirs" / split),
            compression=compression,
            hashes=hashes,
            size_limit=None,
        )
        writer.size_limit = writer.extra_bytes_per_shard + 5 * (64 * 2 + 4)  # five blocks
        with writer:
            for block in blocks:
                writer.write({"tokens": block})
        names = sorted(path.name for path in (tmp_path / "theirs" / split).iterdir())
        assert names == sorted(path.name for path in (tmp_path / "ours" / split).iterdir())
        assert len(names) > 3
        for name in names:
            assert (tmp_path / "ours" / split / name).read_bytes() == (tmp_path / "theirs" / split / name).read_bytes()


# Documents of any characters but NUL, which is refused, and half surrogates, which are none.
DOCUMENTS = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1), min_size=2)


@pytest.mark.slow
@pytest.mark.dist
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=DOCUMENTS, workers=st.sampled_from([2, 3]), part_bytes=st.sampled_from([1, 40, 1000]))
def test_any_documents_come_back_from_both_formats_and_any_number_of_workers_splits_them_alike(
    tokenizer_dir, tmp_path_factory, monkeypatch, texts, workers, part_bytes
):
    in_val = draws(texts, 0) < 0.3
    assume(len(set(draws(texts, 0))) > 1 and not in_val.all())
    monkeypatch.setattr("hindsight.text.documents.PART_BYTES", part_bytes)
    folder = tmp_path_factory.mktemp("any")
    lines = "".join(json.dumps({"text": text}, ensure_ascii=len(text) % 2 == 0) + "\n" for text in texts)
    (folder / "corpus.jsonl").write_text(lines, encoding="utf-8")
    changes = {"val_share": 0.3, "block_length": 8, "shard_bytes": shard_bytes_of(4, 8)}
    convert_to_mds.main(convert_config(folder / "corpus.jsonl", tokenizer_dir, folder / "one", **changes))
    changes["workers"] = workers
    convert_to_mds.main(convert_config(folder / "corpus.jsonl", tokenizer_dir, folder / "many", **changes))
    assert tree(folder / "one", contents=True) == tree(folder / "many", contents=True)
    convert_to_h5.main(convert_config(folder / "one", tokenizer_dir, folder / "h5", **changes))
    convert_to_mds.main(convert_config(folder / "h5", tokenizer_dir, folder / "back", **changes))
    for name in ("one", "h5", "back"):
        sides = {split: documents_of(folder / name, split) for split in ("train", "val")}
        if in_val.any():
            assert sides["val"] == [text for text, chosen in zip(texts, in_val, strict=True) if chosen]
            assert sides["train"] == [text for text, chosen in zip(texts, in_val, strict=True) if not chosen]
        assert sorted(sides["train"] + sides["val"]) == sorted(texts)
        assert not set(sides["train"]) & set(sides["val"])


def test_streaming_reads_what_was_written(shards):
    index = json.loads((shards / "train" / "index.json").read_text())
    assert index["shards"][0]["column_encodings"] == ["ndarray:uint16:64"]
    assert list(index["shards"][0]["raw_data"]["hashes"]) == ["xxh64"]


def test_ids_above_65535_need_uint32():
    assert [token_dtype(n) for n in (300, 65536, 65537)] == ["uint16", "uint16", "uint32"]


def test_uint32_is_stored_where_the_vocabulary_needs_it(tmp_path, corpus, tokenizer_dir):
    large = tmp_path / "large"
    shutil.copytree(tokenizer_dir, large)
    content = json.loads((large / "tokenizer.json").read_text())
    token = next(token for token, token_id in content["model"]["vocab"].items() if token_id == 100)
    content["model"]["vocab"][token] = 70_000
    (large / "tokenizer.json").write_text(json.dumps(content))
    convert_to_mds.main(convert_config(corpus, large, tmp_path / "mds"))
    convert_to_h5.main(convert_config(tmp_path / "mds", large, tmp_path / "h5"))
    manifest = Manifest.load(tmp_path / "mds")
    assert (manifest.dtype, manifest.vocab_size, manifest.blocks_per_shard) == ("uint32", 70_001, 2)
    assert max(path.stat().st_size for path in (tmp_path / "mds").glob("*/*.mds")) <= shard_bytes_of(5)
    assert documents_of(tmp_path / "mds", "train") + documents_of(tmp_path / "mds", "val")
    assert stream(tmp_path / "h5", "train") == stream(tmp_path / "mds", "train")


def test_a_corpus_larger_than_the_buffers_is_stored_whole(tmp_path, corpus, tokenizer_dir, shards, monkeypatch):
    monkeypatch.setattr("hindsight.text.documents.PART_BYTES", 300)  # as much smaller as the corpus is, each of these
    monkeypatch.setattr("hindsight.conversion.token_sources.PART_TOKENS", 100)
    monkeypatch.setattr("hindsight.shards.h5.BUFFER_TOKENS", 100)
    monkeypatch.setattr("hindsight.tokenization.tokenizer.PIECE_CHARS", 20)
    convert_to_mds.main(convert_config(corpus, tokenizer_dir, tmp_path / "mds"))
    convert_to_h5.main(convert_config(tmp_path / "mds", tokenizer_dir, tmp_path / "h5"))
    convert_to_mds.main(convert_config(tmp_path / "h5", tokenizer_dir, tmp_path / "back"))
    for name in ("mds", "back"):
        assert same(tmp_path / name, shards)
        for split in ("train", "val"):
            assert np.array_equal(mds_stream(tmp_path / name, split), mds_stream(shards, split))


@pytest.mark.parametrize("corpus_format", ["file", "line"])
def test_other_formats_make_other_documents(tmp_path, tokenizer_dir, corpus_format):
    (tmp_path / "text").mkdir()
    for number in range(4):
        (tmp_path / "text" / f"{number}.txt.gz").write_bytes(gzip.compress(b"one\n\n%d\n" % number))
    config = convert_config(
        tmp_path / "text", tokenizer_dir, tmp_path / "out", corpus_format=CorpusFormat[corpus_format]
    )
    convert_to_mds.main(config)
    documents = documents_of(tmp_path / "out", "train") + documents_of(tmp_path / "out", "val")
    expected = [f"one\n\n{n}\n" for n in range(4)] if corpus_format == "file" else ["one"] * 4 + list("0123")
    assert sorted(documents) == sorted(expected)


def test_literal_special_tokens_end_no_document(tmp_path, tokenizer_dir):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("a<|eos|>b\n\n<|bos|>\n")
    convert_to_mds.main(convert_config(corpus, tokenizer_dir, tmp_path / "out"))
    counts = Manifest.load(tmp_path / "out").splits
    documents = documents_of(tmp_path / "out", "train") + documents_of(tmp_path / "out", "val")
    assert sorted(documents) == ["<|bos|>\n", "a<|eos|>b\n"]
    assert [counts[split].documents for split in ("train", "val")] == [1, 1]


# ----------------------------------------------------------------------------------------------------------- the split


def test_the_split_follows_the_share_and_the_seed():
    texts = [f"document {number}" for number in range(5000)]
    in_val = [draws(texts, seed) < 0.1 for seed in (0, 1)]
    assert (in_val[0] != in_val[1]).any()
    assert [chosen.mean() for chosen in in_val] == pytest.approx([0.1, 0.1], abs=0.02)
    uniform = np.histogram(draws(texts, 0), 10, (0, 1))[0] / 5000
    assert uniform == pytest.approx([0.1] * 10, abs=0.02)


def test_documents_that_say_the_same_are_on_the_same_side_wherever_they_are(tmp_path, tokenizer_dir):
    texts = [f"document {number}\n" for number in range(200)]
    (tmp_path / "corpus.txt").write_text("\n".join([*texts, *reversed(texts), texts[7]]))
    convert_to_mds.main(convert_config(tmp_path / "corpus.txt", tokenizer_dir, tmp_path / "out"))
    sides = [documents_of(tmp_path / "out", split) for split in ("train", "val")]
    assert not set(sides[0]) & set(sides[1])
    assert sorted(sides[0] + sides[1]) == sorted([*texts, *texts, texts[7]])
    assert Manifest.load(tmp_path / "out").summary["duplicate_documents"] == 201


def write_in_every_format(folder, texts):
    """The same texts in files of every format that can hold them."""
    import pyarrow
    from pyarrow import parquet

    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    parquet.write_table(pyarrow.table({"text": texts}), folder / "a.parquet")
    (folder / "single").mkdir()
    for number, text in enumerate(texts):
        (folder / "single" / f"{number:03}.txt").write_text(text)
    contents = {
        "blank.txt": "\n\n".join(texts).encode(),
        "ends.txt": "\n\n\n".join(texts).encode() + b"\n",
        "windows.txt": "\ufeff".encode() + "\r\n\r\n".join(text.replace("\n", "\r\n") for text in texts).encode(),
        "mark.txt": "".join(f"{text}\n<|end|>\n" for text in texts).encode(),
        "a.jsonl": lines.encode(),
        "fed.jsonl": "".join(json.dumps({"text": f"\n{text}\n"}) + "\n" for text in texts).encode(),
        "a.json.gz": gzip.compress(lines.encode()),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [*(folder / name for name in contents), folder / "a.parquet", folder / "single"]


def test_a_text_is_on_the_same_side_in_every_format_and_repeats_itself_there(tmp_path, tokenizer_dir):
    texts = [f"document {number},\nof two lines" for number in range(60)]
    sides = []
    for number, path in enumerate(write_in_every_format(tmp_path, texts)):
        changes = {"separator": "<|end|>"} if path.stem == "mark" else {}
        changes |= {"corpus_format": CorpusFormat.file} if path.is_dir() else {}
        out = tmp_path / f"out{number}"
        convert_to_mds.main(convert_config(path, tokenizer_dir, out, **changes))
        stored = {split: [text.strip("\ufeff\r\n") for text in documents_of(out, split)] for split in ("train", "val")}
        sides.append({split: [text.replace("\r", "") for text in texts] for split, texts in stored.items()})
    assert sorted(sides[0]["train"] + sides[0]["val"]) == sorted(texts)
    assert all(side == sides[0] for side in sides)
    folder = tmp_path / "together"
    folder.mkdir()
    for name in ("blank.txt", "windows.txt", "a.jsonl", "fed.jsonl", "a.parquet"):
        shutil.copy(tmp_path / name, folder)
    convert_to_mds.main(convert_config(folder, tokenizer_dir, tmp_path / "out"))
    assert Manifest.load(tmp_path / "out").summary["duplicate_documents"] == 4 * 60
    stored = [
        {text.strip("\ufeff\r\n") for text in documents_of(tmp_path / "out", split)} for split in ("train", "val")
    ]
    assert not {text.replace("\r", "") for text in stored[0]} & {text.replace("\r", "") for text in stored[1]}


@pytest.mark.parametrize("n_documents", [2, 3, 50])
def test_one_document_at_least_is_held_out(tmp_path, tokenizer_dir, n_documents):
    texts = [f"document {number}\n" for number in range(n_documents)]
    (tmp_path / "corpus.txt").write_text("\n".join(texts))
    config = convert_config(tmp_path / "corpus.txt", tokenizer_dir, tmp_path / "out", val_share=1e-9)
    convert_to_mds.main(config)
    assert documents_of(tmp_path / "out", "val") == [texts[int(np.argmin(draws(texts, 0)))]]
    assert len(documents_of(tmp_path / "out", "train")) == n_documents - 1


def test_a_corpus_of_one_document_is_refused(tmp_path, tokenizer_dir):
    (tmp_path / "one.txt").write_text("one\ntwo\n")
    config = convert_config(tmp_path / "one.txt", tokenizer_dir, tmp_path / "out")
    refused(convert_to_mds, config, r"one\.txt, with corpus_format=cc100, is a single document")
    assert [path.name for path in tmp_path.iterdir()] == ["one.txt"]


def test_a_share_that_leaves_nothing_to_train_on_is_refused(tmp_path, tokenizer_dir):
    (tmp_path / "two.txt").write_text("one\n\ntwo\n")
    config = convert_config(tmp_path / "two.txt", tokenizer_dir, tmp_path / "out", val_share=0.999999)
    refused(convert_to_mds, config, r"val_share=0.999999 leaves nothing to train on")


# ------------------------------------------------------------------------------------- tokens that were stored before


@pytest.mark.parametrize("compression", [None, "br:3"])
def test_mds_to_h5_and_back_keeps_every_token_and_the_split(tmp_path, corpus, tokenizer_dir, shards, compression):
    other = {"seed": 5, "val_share": 0.5, "block_length": 32}
    convert_to_h5.main(convert_config(shards, tokenizer_dir, tmp_path / "h5", **other))
    other["compression"] = compression
    convert_to_mds.main(convert_config(tmp_path / "h5" / "tokens.h5", tokenizer_dir, tmp_path / "mds", **other))
    convert_to_mds.main(convert_config(tmp_path / "mds", tokenizer_dir, tmp_path / "again"))
    for split in ("train", "val"):
        expected = stream(shards, split)
        assert [stream(tmp_path / name, split) for name in ("h5", "again")] == [expected] * 2
    assert same(tmp_path / "again", shards)
    assert Manifest.load(tmp_path / "h5").corpus_fingerprint == Manifest.load(shards).corpus_fingerprint
    assert Manifest.load(tmp_path / "mds").blocks_per_shard == 9


def test_h5_holds_the_same_streams_as_mds_contiguously(shards, h5_data):
    for split in ("train", "val"):
        assert stream(h5_data, split) == stream(shards, split)
    assert Manifest.load(h5_data).splits == Manifest.load(shards).splits
    with h5py.File(h5_data / "tokens.h5") as file:
        assert list(file) == ["tokens"]
        tokens = file["tokens"]
        assert isinstance(tokens, h5py.Dataset)
        assert (tokens.ndim, tokens.dtype, tokens.chunks) == (1, np.uint16, None)
    assert sorted(path.name for path in h5_data.iterdir() if path.name != RECORD_NAME) == [
        "manifest.json",
        "tokenizer",
        "tokens.h5",
    ]


def write_published(path, tokens, name="tokens"):
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=tokens, chunks=True)
    return path


def test_an_h5_file_of_the_published_code_is_split_by_pieces_of_a_block(tmp_path, tokenizer_dir):
    tokens = np.random.default_rng(0).integers(0, 300, 64 * 20 + 13, dtype=np.int32)
    corpus = write_published(tmp_path / "published.h5", tokens)
    convert_to_mds.main(convert_config(corpus, tokenizer_dir, tmp_path / "mds"))
    table = Tokenizer.load(tokenizer_dir).bytes_per_token
    number_of = {tokens[n * 64 : (n + 1) * 64].tobytes(): n for n in range(21)}
    found = []
    for split, counts in Manifest.load(tmp_path / "mds").splits.items():
        stored = np.array(stream(tmp_path / "mds", split))
        numbers = [
            number_of[stored[start : start + 64].astype(np.int32).tobytes()] for start in range(0, len(stored), 64)
        ]
        assert numbers == sorted(numbers)
        found += numbers
        assert counts.documents is None
        assert counts.bytes == table[stored].sum()
    assert sorted(found) == list(range(21))
    convert_to_h5.main(convert_config(tmp_path / "mds", tokenizer_dir, tmp_path / "h5", block_length=32))
    convert_to_mds.main(convert_config(tmp_path / "h5", tokenizer_dir, tmp_path / "back"))
    assert same(tmp_path / "back", tmp_path / "mds")


def test_h5_files_that_are_no_tokens_are_refused(tmp_path, tokenizer_dir):
    def refuse(tokens, match, name="tokens"):
        path = write_published(tmp_path / "published.h5", tokens, name)
        refused(convert_to_mds, convert_config(path, tokenizer_dir, tmp_path / "out"), match)
        assert [path.name for path in tmp_path.iterdir()] == ["published.h5"]

    one_dimensional = r"has no one-dimensional dataset `tokens` of integers"
    refuse(np.zeros((4, 64), np.int32), one_dimensional)
    refuse(np.zeros(640, np.float32), one_dimensional)
    refuse(np.zeros(640, np.int32), one_dimensional, name="ids")
    refuse(np.full(640, 300, np.int32), r"token id 300, but tokenizer= has only ids below 300")
    refuse(np.full(640, -1, np.int32), r"token id -1")
    refuse(np.zeros(64, np.int32), r"in pieces of block_length=64 tokens, is a single")
    (tmp_path / "published.h5").write_bytes(b"no h5")
    refused(
        convert_to_mds,
        convert_config(tmp_path / "published.h5", tokenizer_dir, tmp_path / "out"),
        "cannot be read as h5",
    )


def test_tokens_of_another_tokenizer_are_refused(tmp_path, corpus, shards):
    train_tokenizer.main(TokenizerConfig(corpus=str(corpus), out=str(tmp_path / "other"), vocab_size=299))
    refused(
        convert_to_h5, convert_config(shards, tmp_path / "other", tmp_path / "out"), "was made with another tokenizer"
    )


def test_damaged_shards_are_refused(tmp_path, tokenizer_dir, shards):
    copy = tmp_path / "copy"
    shutil.copytree(shards, copy)
    shard = copy / "train" / "shard.00001.mds"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    config = convert_config(copy, tokenizer_dir, tmp_path / "out")
    refused(convert_to_h5, config, r"train is damaged \(shard.00001.mds is not what the index says\)")
    shard.unlink()
    refused(convert_to_h5, config, r"train is damaged")
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------------ the out folder


@pytest.mark.parametrize(("script", "name"), [(convert_to_mds, "shards"), (convert_to_h5, "h5_data")])
def test_converting_again_does_nothing_and_says_so(corpus, tokenizer_dir, caplog, request, script, name):
    folder = request.getfixturevalue(name)
    caplog.set_level(logging.INFO, "hindsight")
    before = tree(folder)
    script.main(convert_config(corpus, tokenizer_dir, folder))
    script.main(convert_config(folder, tokenizer_dir, folder))
    assert caplog.text.count("already there, nothing to do") == 2
    assert tree(folder) == before


def test_an_out_folder_that_holds_something_else_is_refused_and_left_alone(tmp_path, corpus, tokenizer_dir, shards):
    before = tree(shards)
    for change in ({"block_length": 32}, {"seed": 1}, {"val_share": 0.3}, {"shard_bytes": 900}, {"hashes": []}):
        config = convert_config(corpus, tokenizer_dir, shards, **change)
        refused(convert_to_mds, config, r"out=.* holds a conversion with .*\(now ")
    refused(
        convert_to_h5, convert_config(corpus, tokenizer_dir, shards), r"holds a conversion with format=mds \(now h5\)"
    )
    (tmp_path / "other.txt").write_text(make_text(5, seed=2))
    refused(
        convert_to_mds,
        convert_config(tmp_path / "other.txt", tokenizer_dir, shards),
        "conversion with corpus_fingerprint=",
    )
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    refused(convert_to_mds, convert_config(corpus, tokenizer_dir, tmp_path / "out"), "holds something else")
    refused(convert_to_mds, convert_config(corpus, tokenizer_dir, tmp_path / "other.txt"), "holds something else")
    remote = dataclasses.replace(convert_config(corpus, tokenizer_dir, tmp_path), out="s3://bucket/x")
    refused(convert_to_h5, remote, "one file is not made to be streamed; give a local folder")
    assert tree(shards) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.txt", "out"]


def test_an_empty_out_folder_is_filled(tmp_path, corpus, tokenizer_dir, shards):
    (tmp_path / "out").mkdir()
    convert_to_mds.main(convert_config(corpus, tokenizer_dir, tmp_path / "out"))
    assert same(tmp_path / "out", shards)


def test_what_cannot_be_stored_is_refused_before_the_corpus_is_read(tmp_path, corpus, tokenizer_dir):
    def refuse(match, **change):
        refused(
            convert_to_mds, convert_config(tmp_path / "missing.txt", tokenizer_dir, tmp_path / "out", **change), match
        )

    refuse(r"compression=zip is not known; choose one of br, bz2, gz, snappy, zstd", compression="zip")
    refuse(r"hashes=\['crc'\] are not known", hashes=["xxh64", "crc"])
    refuse(r"shard_bytes=8589934592 .* more than the 4 GiB", shard_bytes=1 << 33)
    refuse(r"corpus=.*missing\.txt does not exist")


def test_a_folder_appears_only_when_it_is_complete(tmp_path):
    with new_folder(tmp_path / "a" / "out") as folder:
        (folder / "x").write_text("x")
        assert not (tmp_path / "a" / "out").exists()
    assert [path.name for path in (tmp_path / "a" / "out").iterdir()] == ["x"]


# -------------------------------------------------------------------------------------------------------- the manifest


def test_a_missing_or_damaged_manifest_is_refused(tmp_path, shards):
    with pytest.raises(InputError, match=r"data.path=.* has no manifest.json: convert a corpus with convert_to_mds.py"):
        Manifest.load(tmp_path)
    good = json.loads((shards / "manifest.json").read_text())
    for content in ("{", "[]", "{}", json.dumps(good | {"extra": 1}), json.dumps(good | {"splits": {"train": {}}})):
        (tmp_path / "manifest.json").write_text(content)
        with pytest.raises(InputError, match=r"data.val_path=.*: manifest.json cannot be read"):
            Manifest.load(tmp_path, key="data.val_path")
    (tmp_path / "manifest.json").write_text(json.dumps(good | {"version": 2}))
    with pytest.raises(InputError, match="has version 2, this program reads 1"):
        Manifest.load(tmp_path)


# ----------------------------------------------------------------------------------------------------------- as a user


def test_bad_input_ends_with_status_2_and_one_line(tmp_path, tokenizer_dir):
    (tmp_path / "empty.txt").write_text("")
    arguments = [f"corpus={tmp_path / 'empty.txt'}", f"tokenizer={tokenizer_dir}", f"out={tmp_path / 'out'}"]
    for script in ("convert_to_mds.py", "convert_to_h5.py"):
        done = run_command("python", script, *arguments)
        assert done.returncode == 2
        assert done.stderr.splitlines() == [
            f"{script}: corpus={tmp_path / 'empty.txt'} is empty: it holds no document; give one with text."
        ]
    assert [path.name for path in tmp_path.iterdir()] == ["empty.txt"]
