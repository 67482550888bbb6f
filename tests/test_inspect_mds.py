import itertools
import json
import logging
import shutil

import h5py
import numpy as np
import pytest
from helpers.processes import run_command
from helpers.small_data import convert_config

import convert_to_mds
import inspect_mds
from hindsight.config.conversion import InspectConfig
from hindsight.config.direction import Direction
from hindsight.errors import InputError
from hindsight.tokenization.tokenizer import Tokenizer


def look(folder, caplog, **settings):
    """What is said of a folder, and the exit status."""
    caplog.clear()
    caplog.set_level(logging.INFO, "hindsight")
    status = 0
    try:
        inspect_mds.main(InspectConfig(path=str(folder), **settings))
    except SystemExit as error:
        status = error.code
    return caplog.text, status


@pytest.fixture
def copy(shards, tmp_path):
    return shutil.copytree(shards, tmp_path / "copy")


@pytest.mark.parametrize("name", ["shards", "h5_data"])
def test_a_whole_corpus_is_described_and_found_whole(name, request, caplog):
    text, status = look(request.getfixturevalue(name), caplog)
    assert status == 0
    assert "intact, by its hashes and counts" in text
    for part in (
        "train: ",
        "val: ",
        "tokens per document: 0% ",
        "most frequent tokens: ",
        "longest tokens: ",
        "never used",
    ):
        assert part in text
    assert text.count("train window") == 3


@pytest.mark.parametrize("name", ["shards", "h5_data"])
def test_windows_are_shown_in_either_direction(name, request, caplog):
    folder = request.getfixturevalue(name)
    tokenizer = Tokenizer.load(folder / "tokenizer")
    source = inspect_mds.ConvertedTokens(folder, inspect_mds.Manifest.load(folder), tokenizer)
    stream = np.concatenate([source.read(part).tokens for part in source.parts() if part.split == "val"])
    shown = {}
    for direction in Direction:
        text, _ = look(folder, caplog, split="val", windows=1000, context_length=16, direction=direction, verify=False)
        lines = [line.split(f"{direction.value}: ", 1)[1] for line in text.splitlines() if "val window" in line]
        shown[direction] = lines
        assert len(lines) == len(stream) // 16
    for start, forward, backward in zip(range(0, len(stream), 16), *shown.values(), strict=False):
        window = stream[start : start + 16].tolist()
        pieces = ["⏎EOS⏎" if i == tokenizer.eos_id else tokenizer.detokenize([i]) for i in window]
        assert backward == repr("".join(pieces[::-1]))
        ends = [-1, *(place for place, i in enumerate(window) if i == tokenizer.eos_id), len(window)]
        documents = [tokenizer.detokenize(window[end + 1 : next_end]) for end, next_end in itertools.pairwise(ends)]
        assert forward == repr("⏎EOS⏎".join(documents))


def test_windows_are_shown_in_an_order_of_units(shards, caplog):
    shown = {}
    for order in ("forward", "words", "sentences", "segments:1"):
        text, _ = look(shards, caplog, windows=3, context_length=64, order=order, verify=False)
        shown[order] = [line.split(f"{order}: ", 1)[1] for line in text.splitlines() if "train window" in line]
    assert len({tuple(lines) for lines in shown.values()}) == 4
    assert all(len(line) > 64 for lines in shown.values() for line in lines)


def test_both_directions_at_once_are_not_shown(shards):
    with pytest.raises(InputError, match="order=both: look at direction=forward and at direction=backward"):
        InspectConfig(path=str(shards), order="both")


def damage(path, at=-1):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def test_every_kind_of_damage_is_found_with_status_1(copy, caplog, shards):
    def found(match):
        text, status = look(copy, caplog, windows=0)
        assert status == 1
        assert match in text
        shutil.rmtree(copy)
        shutil.copytree(shards, copy)

    damage(copy / "train" / "shard.00002.mds")
    found("train, tokens 640 to 960: ")
    (copy / "train" / "shard.00001.mds").unlink()
    found("train is damaged")
    (copy / "train" / "shard.00001.mds").write_bytes(b"short")
    found("shard.00001.mds is not what the index says")
    (copy / "val" / "shard.00099.mds").write_bytes(b"left over")
    found("val/shard.00099.mds is not in the index")
    manifest = json.loads((copy / "manifest.json").read_text())
    for key, change, match in (
        ("documents", 1, "documents, manifest.json says"),
        ("bytes", 1, "bytes of text, manifest.json says"),
        ("unigram_entropy_nats", 0.1, "has other tokens than manifest.json says"),
    ):
        changed = json.loads(json.dumps(manifest))
        changed["splits"]["val"][key] += change
        (copy / "manifest.json").write_text(json.dumps(changed))
        found(match)


def test_damage_that_no_hash_records_is_found_by_what_the_tokens_say(tmp_path, corpus, tokenizer_dir, h5_data, caplog):
    convert_to_mds.main(convert_config(corpus, tokenizer_dir, tmp_path / "plain", hashes=[]))
    damage(tmp_path / "plain" / "train" / "shard.00001.mds", at=-20)
    assert look(tmp_path / "plain", caplog, windows=0)[1] == 1
    shutil.copytree(h5_data, tmp_path / "h5")
    with h5py.File(tmp_path / "h5" / "tokens.h5", "r+") as file:
        tokens = file["tokens"]
        assert isinstance(tokens, h5py.Dataset)
        tokens[100:110] = tokens[100:110][::-1]
    assert look(tmp_path / "h5", caplog, windows=0)[1] == 1


def test_a_split_of_any_mds_is_checked_by_its_index(copy, caplog):
    text, status = look(copy / "train", caplog)
    assert status == 0
    assert "columns ['ndarray:uint16:64']" in text
    damage(copy / "train" / "shard.00000.mds")
    assert look(copy / "train", caplog)[1] == 1


def test_what_is_no_corpus_is_refused(tmp_path, copy):
    with pytest.raises(InputError, match=r"path=.* has no manifest.json"):
        inspect_mds.main(InspectConfig(path=str(tmp_path)))
    (copy / "val" / "index.json").write_text("{}")
    with pytest.raises(InputError, match=r"path=.*val: index.json is missing or damaged"):
        inspect_mds.main(InspectConfig(path=str(copy)))
    with pytest.raises(InputError, match="split=test must be train or val"):
        InspectConfig(path="x", split="test")


@pytest.mark.parametrize(("name", "file"), [("shards", "train/shard.00000.mds"), ("h5_data", "tokens.h5")])
def test_damage_that_windows_meet_is_named_by_the_key_of_the_folder(name, file, request, tmp_path, caplog):
    damaged = shutil.copytree(request.getfixturevalue(name), tmp_path / "damaged")
    (damaged / file).write_bytes(b"no data")
    with pytest.raises(InputError, match=f"^path={damaged}"):
        look(damaged, caplog, windows=1000, verify=False)


def test_a_path_alone_is_enough_and_the_status_tells(copy):
    done = run_command("python", "inspect_mds.py", str(copy), "windows=1")
    assert done.returncode == 0, done.stderr
    assert "intact" in done.stdout.splitlines()[-1]
    damage(copy / "val" / "shard.00000.mds")
    done = run_command("python", "inspect_mds.py", str(copy))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for path in copy.glob("*/*.mds"):
        damage(path)
    (copy / "val" / "index.json").unlink()
    done = run_command("python", "inspect_mds.py", str(copy))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
