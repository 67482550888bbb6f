import json
import logging
import os
import shutil

import h5py
import numpy as np
import pytest
from helpers.small_data import convert_config
from helpers.training_runs import settings, train
from test_load_text_streaming import leaves_files_open, open_dataset, read

import convert_to_mds
from hindsight.errors import InputError
from hindsight.shards.integrity import RECORD_NAME

SHORT = ["run_name=a", "max_duration=2ba"]


@pytest.fixture
def copy(shards, tmp_path):
    shutil.rmtree(shutil.copytree(shards, tmp_path / "copy") / RECORD_NAME, ignore_errors=True)
    (tmp_path / "copy" / RECORD_NAME).unlink(missing_ok=True)
    return tmp_path / "copy"


@pytest.fixture
def h5_copy(h5_data, tmp_path):
    copy = shutil.copytree(h5_data, tmp_path / "h5_copy")
    (copy / RECORD_NAME).unlink(missing_ok=True)
    return copy


@pytest.fixture
def unhashed(corpus, tokenizer_dir, tmp_path):
    convert_to_mds.main(convert_config(corpus, tokenizer_dir, tmp_path / "unhashed", hashes=[]))
    return tmp_path / "unhashed"


def overwrite(path, tokens=b"\x20\x00" * 20, keep_time=False):
    """Write other tokens over the last ones of a file."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(-len(tokens), os.SEEK_END)
        file.write(tokens)
    if keep_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.dist)])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_shard_that_was_overwritten_is_refused_by_name(copy, split, num_workers):
    overwrite(copy / split / "shard.00001.mds")
    with pytest.raises(InputError, match=rf"{split}/shard.00001.mds is damaged: its hash is not what it was"):
        read(open_dataset(copy, split), num_workers=num_workers)


def test_training_on_damaged_shards_ends_with_one_line(copy, tmp_path):
    for path in copy.glob("*/*.mds"):
        overwrite(path)
    with pytest.raises(InputError, match=r"shard.*\.mds is damaged: its hash .* convert or copy the data again"):
        train(copy, tmp_path / "runs", *SHORT)


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.dist)])
def test_a_shard_is_hashed_once_for_all_processes_and_starts(copy, num_workers):
    for _ in range(3):
        read(open_dataset(copy), num_workers=num_workers)
    keys = (copy / RECORD_NAME).read_text().split()
    assert len(keys) == len(set(keys)) == len(list(copy.glob("train/*.mds")))


def test_damage_after_a_check_is_found_even_under_the_old_time(copy):
    read(open_dataset(copy))
    overwrite(copy / "train" / "shard.00000.mds", keep_time=True)
    with pytest.raises(InputError, match=r"shard.00000.mds is damaged"):
        read(open_dataset(copy))


def test_a_shard_in_place_of_another_is_refused_after_a_check_too(copy):
    read(open_dataset(copy))
    first, second, other = (copy / "train" / name for name in ("shard.00000.mds", "shard.00001.mds", "other"))
    first.rename(other)
    second.rename(first)
    other.rename(second)
    with pytest.raises(InputError, match=r"shard.0000[01].mds is damaged"):
        read(open_dataset(copy))


@pytest.mark.parametrize("obstacle", ["folder", "fifo", "link", "garbage"])
def test_where_nothing_can_be_recorded_shards_are_checked_all_the_same(copy, tmp_path, obstacle):
    record = copy / RECORD_NAME
    if obstacle == "folder":
        record.mkdir()
    elif obstacle == "fifo":
        os.mkfifo(record)
    elif obstacle == "link":
        record.symlink_to(tmp_path / "elsewhere")
    else:
        record.write_bytes(b"\xff\0" * 1000)
    read(open_dataset(copy))
    assert not (tmp_path / "elsewhere").exists()
    overwrite(copy / "train" / "shard.00000.mds")
    with pytest.raises(InputError, match=r"shard.00000.mds is damaged"):
        read(open_dataset(copy))


def test_an_id_beyond_the_vocabulary_is_refused_with_the_shard_that_holds_it(unhashed):
    overwrite(unhashed / "train" / "shard.00001.mds", np.array([300], "<u2").tobytes())
    with pytest.raises(InputError, match=r"shard.00001.mds is damaged: it holds the token id 300, .* ids below 300"):
        read(open_dataset(unhashed))


def test_data_without_hashes_is_trained_on_and_a_line_says_so(unhashed, tmp_path, caplog):
    caplog.set_level(logging.INFO, "hindsight")
    train(unhashed, tmp_path / "runs", *SHORT)
    assert caplog.text.count("its train split was stored without hashes") == 1


def test_data_with_hashes_is_trained_on_without_that_line(shards, h5_data, tmp_path, caplog):
    caplog.set_level(logging.INFO, "hindsight")
    for data in (shards, h5_data):
        train(data, tmp_path / data.name, *SHORT)
    assert "without hashes" not in caplog.text


@leaves_files_open
def test_a_decompressed_shard_that_was_damaged_is_decompressed_again(corpus, tokenizer_dir, tmp_path):
    out = tmp_path / "compressed"
    convert_to_mds.main(convert_config(corpus, tokenizer_dir, out, compression="zstd:3"))
    read(open_dataset(out))
    shard = out / "train" / "shard.00000.mds"
    intact = shard.read_bytes()
    overwrite(shard)
    read(open_dataset(out))
    assert shard.read_bytes() == intact
    shard.unlink()
    overwrite(out / "train" / "shard.00000.mds.zstd", b"x")
    with pytest.raises(InputError, match=r"shard.00000.mds.zstd cannot be decompressed \(Checksum failure"):
        read(open_dataset(out))


@pytest.mark.parametrize("damage", ["overwritten", "zeros", "fewer", "large id"])
def test_h5_that_is_not_what_it_was_is_neither_trained_on_nor_converted(h5_copy, tokenizer_dir, tmp_path, damage):
    path = h5_copy / "tokens.h5"
    with h5py.File(path, "r+") as file:
        tokens = np.asarray(file["tokens"])
        del file["tokens"]
        if damage == "overwritten":
            tokens[100:600] = 40
        elif damage == "zeros":
            tokens[:] = 0
        elif damage == "large id":
            tokens[-1] = 60000
        file.create_dataset("tokens", data=tokens[: -1 if damage == "fewer" else None])
    with pytest.raises(InputError, match=r"tokens.h5 is missing or damaged \((train|val): it"):
        train(h5_copy, tmp_path / "runs", *SHORT)
    with pytest.raises(InputError, match=r"tokens.h5 is missing or damaged"):
        convert_to_mds.main(convert_config(h5_copy, tokenizer_dir, tmp_path / "mds"))
    assert not (tmp_path / "mds").exists()


def test_h5_is_hashed_once(h5_copy, tmp_path):
    for _ in range(2):
        train(h5_copy, tmp_path / "runs", *SHORT)
    assert len((h5_copy / RECORD_NAME).read_text().split()) == 2


def test_hashes_of_a_kind_that_is_not_known_count_as_none(copy):
    index = json.loads((copy / "train" / "index.json").read_text())
    for entry in index["shards"]:
        entry["raw_data"]["hashes"] = {"md99": "0"}
    (copy / "train" / "index.json").write_text(json.dumps(index))
    dataset = open_dataset(copy)
    read(dataset)
    assert dataset.stream.validate_hash is None


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize("data", ["shards", "h5"])
def test_ranks_with_data_workers_hash_each_file_once_and_refuse_damage_together(
    fork_server, copy, h5_copy, tmp_path, data
):
    folder = copy if data == "shards" else h5_copy
    run = settings(folder, tmp_path / "runs", "run_name=a", "data.num_workers=2")
    run.remove("max_duration=6ba")
    assert fork_server.run([*run, "max_duration=2ep"], ranks=2) == [0, 0], fork_server.output()
    keys = (folder / RECORD_NAME).read_text().split()
    assert len(keys) == len(set(keys)) == (len(list(copy.glob("*/*.mds"))) if data == "shards" else 2)
    for path in [*folder.glob("train/*.mds"), *folder.glob("*.h5")]:
        overwrite(path)
    assert 2 in fork_server.run([*run, "max_duration=4ep"], ranks=2), fork_server.output()
    told = [line for line in fork_server.output().splitlines() if line.startswith("train_composer.py: ")]
    assert told
    assert all("damaged" in line for line in told), told
