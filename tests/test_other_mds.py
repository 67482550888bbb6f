import json
import logging

import numpy as np
import pytest
from helpers.small_data import convert_config
from helpers.training_runs import train
from streaming import MDSWriter
from test_conversion import stream
from test_inspect_mds import damage, look

import convert_to_h5
import convert_to_mds
from hindsight.conversion.convert import open_source
from hindsight.conversion.mds_source import OtherMds, holds_mds
from hindsight.conversion.text_source import TextSource
from hindsight.errors import InputError
from hindsight.shards.manifest import Manifest
from hindsight.tokenization.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokens(shards):
    return np.array(stream(shards, "train")[: 64 * 40], np.int64)


def as_bytes(row):
    return row.astype(np.int64).tobytes()


def as_int32(row):
    return row.astype(np.int32)


FORMS = {
    "llm-foundry": ("ndarray:int32", as_int32),
    "older": ("bytes", as_bytes),
    "fixed shape": ("ndarray:int32:64", as_int32),
    "any type": ("ndarray", lambda row: row.astype(np.uint16)),
    "two dimensions": ("ndarray:int64", lambda row: row.reshape(2, 32)),
}


def write(folder, rows, form="llm-foundry", **settings):
    encoding, convert = FORMS[form]
    more = {"attention_mask": "bytes", "zeta": "int"} if form == "two dimensions" else {}
    with MDSWriter(columns={"tokens": encoding, **more}, out=str(folder), size_limit=3000, **settings) as writer:
        for row in rows:
            writer.write({"tokens": convert(row), **({"attention_mask": b"x" * 7, "zeta": 3} if more else {})})
    return folder


@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize("form", FORMS)
def test_mds_of_other_programs_is_taken_token_for_token(tokens, tokenizer_dir, tmp_path, form, compression, caplog):
    folder = write(tmp_path / "theirs", tokens.reshape(-1, 64), form, compression=compression)
    convert_to_mds.main(convert_config(folder, tokenizer_dir, tmp_path / "out"))
    pieces = {split: np.array(stream(tmp_path / "out", split)).reshape(-1, 64) for split in ("train", "val")}
    assert min(map(len, pieces.values())) > 0
    order = [row.tobytes() for row in tokens.reshape(-1, 64)]
    for rows in pieces.values():
        places = [order.index(row.tobytes()) for row in rows]
        assert places == sorted(places)
    assert sum(map(len, pieces.values())) == len(order)
    assert look(tmp_path / "out", caplog, windows=0)[1] == 0


def test_their_train_and_val_stay_what_they_are_and_can_be_trained_on(tokens, tokenizer_dir, tmp_path):
    rows = tokens.reshape(-1, 64)
    write(tmp_path / "theirs" / "train", rows[:30])
    write(tmp_path / "theirs" / "val", rows[30:])
    convert_to_mds.main(convert_config(tmp_path / "theirs", tokenizer_dir, tmp_path / "out"))
    assert stream(tmp_path / "out", "train") == rows[:30].ravel().tolist()
    assert stream(tmp_path / "out", "val") == rows[30:].ravel().tolist()
    assert Manifest.load(tmp_path / "out").splits["train"].documents is None
    convert_to_h5.main(convert_config(tmp_path / "theirs", tokenizer_dir, tmp_path / "h5"))
    assert stream(tmp_path / "h5", "val") == rows[30:].ravel().tolist()
    train(tmp_path / "out", tmp_path / "runs", "run_name=a", "max_duration=2ba")


def test_samples_of_any_lengths_are_joined(tokens, tokenizer_dir, tmp_path):
    cuts = np.cumsum([1, 63, 200, 7, 500, 64])
    folder = write(tmp_path / "theirs" / "train", np.split(tokens[:835], cuts)[:-1])
    write(tmp_path / "theirs" / "val", [tokens[:5]])
    convert_to_mds.main(convert_config(folder.parent, tokenizer_dir, tmp_path / "out"))
    assert stream(tmp_path / "out", "train") == tokens[:835].tolist()


def test_the_same_command_goes_on_and_says_when_there_is_nothing_to_do(tokens, tokenizer_dir, tmp_path, caplog):
    caplog.set_level(logging.INFO, "hindsight")
    folder = write(tmp_path / "theirs", tokens.reshape(-1, 64))
    for _ in range(2):
        convert_to_mds.main(convert_config(folder, tokenizer_dir, tmp_path / "out"))
    assert "already there, nothing to do" in caplog.text


def test_what_cannot_be_taken_is_refused_with_one_line(tokens, tokenizer_dir, shards, tmp_path):
    def refused(folder, match):
        with pytest.raises(InputError, match=match):
            convert_to_mds.main(convert_config(folder, tokenizer_dir, tmp_path / "out"))
        assert not (tmp_path / "out").exists()

    with MDSWriter(columns={"text": "str"}, out=str(tmp_path / "text")) as writer:
        writer.write({"text": "x"})
    refused(tmp_path / "text", r"it has the columns text, and no `tokens`")
    with MDSWriter(columns={"tokens": "ndarray:float32"}, out=str(tmp_path / "float")) as writer:
        writer.write({"tokens": np.ones(3, np.float32)})
    refused(tmp_path / "float", r"`tokens` are ndarray:float32, not integers")
    refused(write(tmp_path / "large", [np.full(64, 5000)] * 9), r"token id 5000, but tokenizer= has only ids below 300")
    folder = write(tmp_path / "hashed", tokens.reshape(-1, 64), hashes=["sha1"])
    damage(folder / "shard.00001.mds")
    refused(folder, r"corpus=.*hashed is damaged \(shard.00001.mds is not what the index says\)")
    (folder / "shard.00001.mds").unlink()
    refused(folder, r"shard.00001.mds is missing")
    refused(shards / "train", r"is one split of a converted corpus; give the folder above it")


def test_inspection_says_by_what_it_checked(tokens, corpus, tokenizer_dir, tmp_path, shards, caplog):
    plain = write(tmp_path / "plain", tokens.reshape(-1, 64))
    assert "intact, by its sizes." in look(plain, caplog)[0]
    hashed = write(tmp_path / "both" / "train", tokens.reshape(-1, 64), hashes=["sha1", "xxh64"])
    assert "intact, by its sizes and hashes." in look(hashed, caplog)[0]
    write(tmp_path / "both" / "val", tokens.reshape(-1, 64))
    text, status = look(tmp_path / "both", caplog)
    assert (status, "intact, by its sizes." in text) == (0, True)
    assert "intact, by its hashes and counts." in look(shards, caplog)[0]
    convert_to_mds.main(convert_config(corpus, tokenizer_dir, tmp_path / "ours", hashes=[]))
    assert "intact, by its sizes and counts." in look(tmp_path / "ours", caplog)[0]


@pytest.mark.parametrize("change", ["samples", "offsets", "sizes"])
def test_shards_that_disagree_with_themselves_are_refused(tokens, tokenizer_dir, tmp_path, change):
    folder = write(tmp_path / "theirs", tokens.reshape(-1, 64))
    path = folder / "shard.00000.mds"
    data = bytearray(path.read_bytes())
    if change == "samples":
        index = json.loads((folder / "index.json").read_text())
        index["shards"][0]["samples"] = 10**9
        (folder / "index.json").write_text(json.dumps(index))
    else:
        at = 4 if change == "offsets" else int.from_bytes(data[4:8], "little")
        data[at : at + 4] = b"\xff\xff\xff\x7f"
        path.write_bytes(data)
    with pytest.raises(InputError, match="is damaged"):
        convert_to_mds.main(convert_config(folder, tokenizer_dir, tmp_path / "out"))


EMPTY_INDEX = '{"shards": [], "version": 2}'


def empty(folder):
    folder.mkdir(parents=True)
    (folder / "index.json").write_text(EMPTY_INDEX)
    return folder


def test_a_split_without_samples_is_as_if_it_was_not_there(tokens, tokenizer_dir, tmp_path, caplog):
    write(tmp_path / "theirs" / "train", tokens.reshape(-1, 64))
    empty(tmp_path / "theirs" / "val")
    convert_to_mds.main(convert_config(tmp_path / "theirs", tokenizer_dir, tmp_path / "out"))
    assert Manifest.load(tmp_path / "out").settings["split_by"] == "piece"
    assert len(stream(tmp_path / "out", "train")) + len(stream(tmp_path / "out", "val")) == tokens.size
    text, status = look(tmp_path / "theirs", caplog)
    assert (status, "val: 0 shards, 0 samples, columns []" in text) == (0, True)
    for folder in (empty(tmp_path / "none"), empty(tmp_path / "both" / "train").parent):
        with pytest.raises(InputError, match="has no samples"):
            convert_to_mds.main(convert_config(folder, tokenizer_dir, tmp_path / "out-none"))


def test_a_compressed_shard_that_is_damaged_is_told_without_hashes_too(tokens, tmp_path, caplog):
    folder = write(tmp_path / "theirs", tokens.reshape(-1, 64), compression="zstd")
    shard = next(folder.glob("*.zstd"))
    damage(shard, 3)
    text, status = look(folder, caplog)
    assert (status, f"{shard.name} is damaged (" in text) == (1, True)


@pytest.mark.parametrize("content", ["{}", "[1]", "not json", '{"shards": 3}'])
def test_a_text_folder_may_hold_an_index_json_of_another_kind(tokens, tokenizer_dir, tmp_path, content):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("A story.\n\nAnother one.\n")
    (folder / "index.json").write_text(content)
    assert not holds_mds(folder)
    source = open_source(convert_config(folder, tokenizer_dir, tmp_path / "out"), Tokenizer.load(tokenizer_dir))
    assert isinstance(source, TextSource)
    write(folder / "train", tokens.reshape(-1, 64)[:3])
    source = open_source(convert_config(folder, tokenizer_dir, tmp_path / "out"), Tokenizer.load(tokenizer_dir))
    assert isinstance(source, OtherMds)


def test_a_damaged_index_beside_shards_is_refused_as_that(tokens, tokenizer_dir, tmp_path):
    folder = write(tmp_path / "theirs", tokens.reshape(-1, 64)[:3])
    (folder / "index.json").write_text('{"sha')
    with pytest.raises(InputError, match=r"index\.json cannot be used"):
        open_source(convert_config(folder, tokenizer_dir, tmp_path / "out"), Tokenizer.load(tokenizer_dir))
