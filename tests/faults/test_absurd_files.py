"""Descriptions from somebody else that cannot be: each ends in one line, in seconds and without memory."""

import json
import os
import shutil

import pytest
from helpers.small_data import convert_config
from helpers.training_runs import train

import convert_to_h5
import inspect_mds
from hindsight.config.conversion import InspectConfig
from hindsight.errors import InputError
from hindsight.loading.windows import SplitWindows
from hindsight.shards.integrity import RECORD_NAME
from hindsight.shards.manifest import Manifest
from hindsight.tokenization.tokenizer import Tokenizer

DEEP = "[" * 100_000 + "]" * 100_000
SHORT = ["run_name=a", "max_duration=2ba"]


@pytest.fixture
def data(shards, tmp_path):
    return shutil.copytree(shards, tmp_path / "data", ignore=lambda *_: [RECORD_NAME])


def refused_everywhere(data, tokenizer_dir, tmp_path, match="index.json|manifest.json"):
    def inspect():
        try:
            inspect_mds.main(InspectConfig(path=str(data)))
        except SystemExit as left:
            raise InputError("manifest.json") from left

    for attempt in (
        lambda: train(data, tmp_path / "runs", *SHORT),
        inspect,
        lambda: convert_to_h5.main(convert_config(data, tokenizer_dir, tmp_path / "h5")),
    ):
        with pytest.raises(InputError, match=match):
            attempt()


@pytest.mark.parametrize("value", [10**18 + 1, -5, 0, 1.5, 1e400, "64", None, True, [64], 10**4000])
@pytest.mark.parametrize(
    "key", ["block_length", "blocks_per_shard", "vocab_size", "splits.train.tokens", "splits.val.blocks"]
)
@pytest.mark.timeout(60)
def test_a_manifest_with_numbers_that_cannot_be_is_refused(data, key, value):
    content = json.loads((data / "manifest.json").read_text())
    *path, last = key.split(".")
    place = content
    for name in path:
        place = place[name]
    place[last] = value
    (data / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"manifest.json"):
        Manifest.load(data)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "changes",
    [
        {"block_length": (1 << 31) - 1, "blocks": 1},
        {"blocks_per_shard": 1 << 32},
        {"blocks_per_shard": 1},
        {"tokens": 1 << 50, "blocks": (1 << 50) // 64},
        {"vocab_size": 1 << 32},
    ],
)
def test_numbers_that_the_files_do_not_bear_out_are_refused_at_once(data, tokenizer_dir, tmp_path, changes):
    content = json.loads((data / "manifest.json").read_text())
    for key, value in changes.items():
        for place in [content] if key in content else content["splits"].values():
            place[key] = value
    (data / "manifest.json").write_text(json.dumps(content))
    refused_everywhere(data, tokenizer_dir, tmp_path, match="index.json|manifest.json|context_length|damaged")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("content", [DEEP, "[]", "1", '"x"', "{}", '{"splits": 5}', "\0", "\ud800"])
@pytest.mark.parametrize("name", ["manifest.json", "train/index.json"])
def test_files_that_are_no_description_are_refused(data, tokenizer_dir, tmp_path, name, content):
    (data / name).write_text(content, errors="surrogatepass")
    refused_everywhere(data, tokenizer_dir, tmp_path)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["manifest.json", "train/index.json"])
def test_files_of_gigabytes_are_not_read(data, tokenizer_dir, tmp_path, name):
    os.truncate(data / name, 8 << 30)  # a hole
    refused_everywhere(data, tokenizer_dir, tmp_path, match="bytes, more than|manifest.json")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_tokenizer_of_gigabytes_is_not_read(data, name):
    os.truncate(data / "tokenizer" / name, 8 << 30)
    with pytest.raises(InputError, match=r"cannot be read \(it has \d+ bytes, more than"):
        Tokenizer.load(data / "tokenizer")


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "changes",
    [
        {"samples": 10**15},
        {"samples": -1},
        {"samples": "5"},
        {"samples": 5.0},
        {"samples": 4},
        {"column_encodings": ["ndarray:object:64"]},
        {"column_encodings": ["pkl"]},
        {"column_encodings": ["ndarray:uint16:1000000000"]},
        {"raw_data": {"basename": "shard.00000.mds", "bytes": 10**18, "hashes": {}}},
        {"raw_data": {"basename": "shard.00000.mds", "bytes": 10, "hashes": {}}},
        {"raw_data": {"basename": "shard.00000.mds", "bytes": 10, "hashes": {"xxh64": 7}}},
        {"raw_data": None},
    ],
)
def test_an_index_with_samples_that_cannot_be_is_refused(data, tokenizer_dir, tmp_path, changes):
    index = json.loads((data / "train" / "index.json").read_text())
    index["shards"][0] |= changes
    (data / "train" / "index.json").write_text(json.dumps(index))
    refused_everywhere(data, tokenizer_dir, tmp_path)


def test_the_choices_of_a_context_length_are_found_for_any_block_length(data):
    content = json.loads((data / "manifest.json").read_text())
    content["block_length"] = (1 << 31) - 2
    for split in content["splits"].values():
        split["blocks"] = 1
    (data / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"choose one of \[1, 2, 3, 6, 7, 9"):
        SplitWindows.of(str(data), "train", Manifest.load(data), 32, 4)


def split_by(pattern):
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]}}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(z|zz)+y", r"(.*b){20}$", r"(\w+\s?)+$", "("])
def test_a_pattern_that_takes_for_ever_is_refused(tokenizer_dir, tmp_path, pattern):
    folder = shutil.copytree(tokenizer_dir, tmp_path / "tokenizer")
    spec = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(spec | split_by(pattern)))
    with pytest.raises(InputError, match="has a pattern that takes too long, or cannot be used"):
        Tokenizer.load(folder)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"])
def test_a_tokenizer_that_is_nested_too_deeply_is_refused(tokenizer_dir, tmp_path, name):
    folder = shutil.copytree(tokenizer_dir, tmp_path / "tokenizer")
    (folder / name).write_text('{"normalizer": ' + DEEP + "}")
    with pytest.raises(InputError, match=rf"{name} cannot be read \(it is nested too deeply\)"):
        Tokenizer.load(folder)


@pytest.mark.timeout(60)
def test_an_id_beyond_all_vocabularies_takes_no_memory(tokenizer_dir, tmp_path):
    folder = shutil.copytree(tokenizer_dir, tmp_path / "tokenizer")
    spec = json.loads((folder / "tokenizer.json").read_text())
    spec["model"]["vocab"]["Ġzz"] = (1 << 32) - 1
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(InputError, match="ids must be below"):
        Tokenizer.load(folder)
