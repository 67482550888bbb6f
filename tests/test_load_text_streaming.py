import dataclasses
import json
import os
import resource
import shutil
import traceback
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from composer.utils import dist
from helpers.processes import few_descriptors
from helpers.small_data import convert_config, draws
from streaming.base.partition import get_partitions

import convert_to_mds
from hindsight.errors import InputError
from hindsight.loading import shard_files
from hindsight.loading.h5_reader import H5Stream
from hindsight.loading.mds_reader import WindowStream
from hindsight.loading.windows import SplitWindows, device_share, epoch_order, epoch_pieces, window_order
from hindsight.orders.examples import IGNORED, turn
from hindsight.orders.known import open_order
from hindsight.shards.manifest import Manifest
from hindsight.tokenization.tokenizer import Tokenizer
from load_text_streaming import TextStreamingDataset, build_loader

BOS = 0


def open_split(folder: Path, name: str, context_length: int, batch_size: int = 4) -> tuple[SplitWindows, Manifest]:
    manifest = Manifest.load(folder)
    return SplitWindows.of(str(folder), name, manifest, context_length, batch_size), manifest


def open_dataset(
    folder: Path, name: str = "train", context_length: int = 32, batch_size: int = 4, shuffle: bool = True
):
    split, manifest = open_split(folder, name, context_length, batch_size)
    if manifest.format == "h5":
        stream = H5Stream(split, split_start=manifest.splits["train"].tokens if name == "val" else 0)
    else:
        stream = WindowStream(split)
    return TextStreamingDataset(stream, split, batch_size, shuffle, seed=7)


def read(dataset: TextStreamingDataset, order: str = "forward", num_workers: int = 0):
    opened = open_order(order, dataset.windows.context_length)
    return list(build_loader(dataset, opened, BOS, num_workers, seed=7).dataloader)


def stream_of(corpus: Path, shards: Path, name: str) -> list[int]:
    """Tokens of a split, made from the text: those of each of its documents, with EOS behind."""
    tokenizer, manifest = Tokenizer.load(shards / "tokenizer"), Manifest.load(shards)
    texts = [document.removesuffix("\n") + "\n" for document in corpus.read_text(encoding="utf-8").split("\n\n")]
    is_val = draws(texts, manifest.seed) < manifest.val_share
    chosen = [text for text, val in zip(texts, is_val, strict=True) if val == (name == "val")]
    return [token for text in chosen for token in [*tokenizer.tokenize(text)[0].tolist(), tokenizer.eos_id]]


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("context_length", [8, 32, 64])
def test_a_pass_predicts_each_training_token_exactly_once(corpus, shards, context_length, direction):
    stream = stream_of(corpus, shards, "train")
    expected = [tuple(stream[i : i + context_length]) for i in range(0, len(stream), context_length)]
    seen = []
    for batch in read(open_dataset(shards, context_length=context_length), direction):
        assert batch["input_ids"].shape == batch["targets"].shape == (4, context_length)
        assert batch["input_ids"].dtype == batch["targets"].dtype == torch.int64
        assert (batch["input_ids"][:, 0] == BOS).all()
        for window in turn(batch["targets"], open_order(direction, context_length)).tolist():
            seen.append(tuple(token for token in window if token != IGNORED))
    assert sorted(window for window in seen if window) == sorted(expected)
    assert seen != expected, "not shuffled"


def test_forward_and_backward_see_the_same_windows_in_the_same_order(shards):
    forward = read(open_dataset(shards), "forward")
    backward = read(open_dataset(shards), "backward")
    assert len(forward) == len(backward) > 10
    for one, other in zip(forward, backward, strict=True):
        assert torch.equal(one["targets"], turn(other["targets"], open_order("backward", 32)))
        assert not torch.equal(one["input_ids"], other["input_ids"])


def test_the_tail_of_the_validation_stream_is_evaluated_and_nothing_twice(corpus, shards):
    stream = stream_of(corpus, shards, "val")
    assert len(stream) % 32, "the tail is whole: change the fixture"
    for batch_size in (4, 16):
        batches = read(open_dataset(shards, "val", batch_size=batch_size, shuffle=False))
        targets = torch.cat([batch["targets"].flatten() for batch in batches])
        assert targets[targets != IGNORED].tolist() == stream


def test_no_document_is_in_both_splits(corpus, shards):
    train, val = stream_of(corpus, shards, "train"), stream_of(corpus, shards, "val")
    counts = Manifest.load(shards).splits
    assert (counts["train"].tokens, counts["val"].tokens) == (len(train), len(val))
    documents = {name: split.documents or 0 for name, split in counts.items()}
    assert min(documents.values()) > 0
    assert sum(documents.values()) == 120


def big_split(n_tokens: int, context_length: int, batch_size: int, blocks_per_shard: int = 50) -> SplitWindows:
    return SplitWindows("/nowhere", "train", n_tokens, 2048, blocks_per_shard, context_length, batch_size)


@pytest.mark.parametrize("context_length", [128, 256, 2048])
@pytest.mark.parametrize("n_blocks", [34, 65, 700])
def test_windows_of_one_batch_come_from_different_blocks(n_blocks, context_length, monkeypatch):
    monkeypatch.setattr("hindsight.loading.windows.GROUP_BLOCKS", 256)  # several groups, not of 2**16 blocks
    split = big_split(n_blocks * 2048 - 1500, context_length, batch_size=32)
    for epoch in range(3):
        order = window_order(split, True, 5, epoch)
        for batch in order.reshape(-1, 32):
            blocks = batch[batch < split.n_windows] // split.windows_per_block
            assert len(np.unique(blocks)) == len(blocks)


@pytest.mark.parametrize("n_tokens", [1, 100, 2048, 2049, 999_999])
def test_an_epochs_order_has_every_window_once_and_is_filled_up_to_whole_batches(n_tokens):
    split = big_split(n_tokens, 256, batch_size=24)
    order = window_order(split, True, 5, 0)
    assert len(order) % 24 == 0
    assert sorted(order) == list(range(split.n_padded))
    assert (order[: split.n_windows] < split.n_windows).all()


def test_the_order_depends_on_seed_and_epoch_alone():
    split = big_split(999_999, 256, batch_size=24)
    first = window_order(split, True, 5, 0)
    assert np.array_equal(first, window_order(split, True, 5, 0))
    assert not np.array_equal(first, window_order(split, True, 5, 1))
    assert not np.array_equal(first, window_order(split, True, 6, 0))


@pytest.mark.parametrize("n_ways", [1, 2])
@pytest.mark.parametrize("shuffle", [True, False])
def test_the_share_of_a_device_is_that_of_the_whole_order_which_it_never_holds(n_ways, shuffle, monkeypatch):
    # Several groups and pieces of few windows; with the real sizes that takes billions of tokens.
    monkeypatch.setattr("hindsight.loading.windows.GROUP_BLOCKS", 50)
    monkeypatch.setattr("hindsight.loading.windows.PIECE_WINDOWS", 999)
    split = dataclasses.replace(big_split(700 * 2048 - 1500, 256, batch_size=24), passes=n_ways)
    order = epoch_order(split, n_ways, shuffle, 5, 1)
    for n_devices, n_nodes, offset in (
        (1, 1, 0),
        (1, 1, 240),
        (6, 2, 0),
        (8, 1, 24),
        (12, 3, 2400),
        (24, 4, len(order)),
    ):
        for rank in range(n_devices):
            pieces = epoch_pieces(split, n_ways, shuffle, 5, 1)
            share = device_share(pieces, rank, n_devices, n_nodes, offset)
            node, rank_of_node = divmod(rank, n_devices // n_nodes)
            assert np.array_equal(share, order[offset:][node + n_nodes * rank_of_node :: n_devices])


@pytest.mark.parametrize("stride", [1, 5, 16, 31, 32, None])
@pytest.mark.parametrize("n_tokens", [1, 31, 32, 33, 63, 64, 65, 127, 640, 649, 671, 700])
def test_windows_with_a_stride_are_in_their_block_and_have_every_token_of_it(stride, n_tokens):
    split = SplitWindows("/nowhere", "train", n_tokens, 64, 3, 32, batch_size=4, stride=stride)
    starts = [split.start(number) for number in range(split.n_windows)]
    windows = [range(start, min(start + 32, n_tokens)) for start in starts]
    assert all(len(window) == 32 for window in windows[:-1])
    assert len(windows[-1]) > 0
    assert all(window[0] // 64 == window[-1] // 64 for window in windows)
    assert {token for window in windows for token in window} == set(range(n_tokens))
    assert sum(len(window) for window in windows) == split.epoch_tokens
    within = [b - a for a, b in pairwise(starts) if a // 64 == b // 64]
    assert all(0 < distance <= (stride or 32) for distance in within)
    if stride in (32, None):
        assert split.epoch_tokens == n_tokens
        assert starts == [*range(0, n_tokens, 32)]
    assert sorted(window_order(split, True, 5, 0)) == [*range(split.n_padded)]


@pytest.mark.parametrize("kind", ["shards", "h5_data"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_overlapping_windows_are_read_from_both_formats_and_in_both_directions(
    kind, direction, corpus, shards, request
):
    folder, tokens = request.getfixturevalue(kind), stream_of(corpus, shards, "train")
    split, _ = open_split(folder, "train", 32)
    split = dataclasses.replace(split, stride=13)
    stream = H5Stream(split, split_start=0) if kind == "h5_data" else WindowStream(split)
    batches = read(TextStreamingDataset(stream, split, 4, shuffle=False, seed=7), direction)
    rows = [[token for token in row.tolist() if token != IGNORED] for batch in batches for row in batch["targets"]]
    if direction == "backward":
        rows = [row[::-1] for row in rows]
    expected = [tokens[split.start(number) :][:32] for number in range(split.n_windows)]
    assert rows == expected + [[]] * (split.n_padded - split.n_windows)
    assert split.n_windows == 4 * 116 + 1  # the last block has 6 tokens


def test_a_stride_that_would_leave_out_tokens_is_refused(shards):
    with pytest.raises(InputError, match=r"data.stride=33 would leave out tokens between windows"):
        SplitWindows.of(str(shards), "train", Manifest.load(shards), 32, 4, stride=33)


def test_neighbouring_windows_of_a_block_are_spread_over_the_epoch():
    split = big_split(700 * 2048, 256, batch_size=8)
    place = np.argsort(window_order(split, True, 5, 0))
    assert np.abs(np.diff(place)).mean() > split.n_windows / 10


@pytest.mark.dist
def test_reading_workers_change_nothing(shards):
    without, with_two = read(open_dataset(shards)), read(open_dataset(shards), num_workers=2)
    assert len(without) == len(with_two)
    assert all(torch.equal(a["targets"], b["targets"]) for a, b in zip(without, with_two, strict=True))


def assert_same(some: list[dict[str, torch.Tensor]], others: list[dict[str, torch.Tensor]]) -> None:
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        assert torch.equal(one["input_ids"], other["input_ids"])
        assert torch.equal(one["targets"], other["targets"])


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.dist)])
def test_local_shards_give_what_fetched_ones_would(shards, num_workers):
    quick, ordinary = open_dataset(shards), open_dataset(shards)
    ordinary.is_local = False
    for _ in range(2):
        assert_same(read(quick, num_workers=num_workers), read(ordinary, num_workers=num_workers))
    for dataset in (quick, ordinary):
        dataset.load_state_dict({**quick.state_dict(12, True), "epoch": 5})
    assert_same(read(quick, num_workers=num_workers), read(ordinary, num_workers=num_workers))
    assert quick.state_dict(4, True) == ordinary.state_dict(4, True)


@pytest.mark.parametrize(("ranks", "ranks_per_node", "num_workers"), [(1, 1, 0), (4, 2, 1), (6, 3, 2), (4, 1, 3)])
def test_windows_are_divided_as_streaming_divides_them(shards, monkeypatch, ranks, ranks_per_node, num_workers):
    """Runs that earlier versions began, by Streaming's own partition, go on exactly."""
    split, _ = open_split(shards, "train", 8, 12)
    dataset = open_dataset(shards, context_length=8, batch_size=12)
    dataset.batch_size = 12 // ranks
    monkeypatch.setattr(dataset, "get_item", lambda number: number)
    n_workers, done, order = max(num_workers, 1), 24, window_order(split, True, 7, 3)
    arguments = len(order), 1, ranks // ranks_per_node, ranks_per_node, n_workers, dataset.batch_size, done
    theirs = get_partitions("orig", *arguments)
    monkeypatch.setattr(dist, "get_world_size", lambda: ranks)
    monkeypatch.setattr(dist, "get_local_world_size", lambda: ranks_per_node)
    for rank in range(ranks):
        monkeypatch.setattr(dist, "get_global_rank", lambda rank=rank: rank)
        dataset.load_state_dict({"epoch": 3, "sample_in_epoch": done, "shuffle_seed": 7})
        dataset.begin_epoch()
        for number in range(n_workers):
            worker = SimpleNamespace(id=number, num_workers=n_workers)
            monkeypatch.setattr("load_text_streaming.get_worker_info", lambda w=worker: w)
            numbers = theirs[rank // ranks_per_node, rank % ranks_per_node, number].ravel()
            assert list(dataset) == order[numbers[numbers >= 0]].tolist()


# Streaming leaves the files that it decompresses to the garbage collector.
leaves_files_open = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture
def compressed(corpus, tokenizer_dir, tmp_path) -> Path:
    out = tmp_path / "compressed"
    convert_to_mds.main(convert_config(corpus, tokenizer_dir, out, compression="zstd:3"))
    assert not list(out.glob("train/*.mds"))
    return out


@leaves_files_open
@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.dist)])
def test_compressed_shards_give_the_same_batches(shards, compressed, num_workers):
    for _ in range(2):
        assert_same(read(open_dataset(compressed), num_workers=num_workers), read(open_dataset(shards)))


@leaves_files_open
@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.dist)])
def test_a_damaged_compressed_shard_is_an_error_and_nobody_waits_for_it(compressed, num_workers):
    shard = sorted((compressed / "train").glob("*.zstd"))[1]
    shard.write_bytes(shard.read_bytes()[:-10])
    dataset = open_dataset(compressed)
    with pytest.raises(InputError, match=r"train/shard.00001.mds.zstd cannot be decompressed") as refusal:
        read(dataset, num_workers=num_workers)
    # The frames hold torch's iterator, and torch's exception the frames. Cleared, it ends its readers; found by the
    # garbage collector, with queues that are closed by then, it waits 5 s for each, and the interpreter for ever.
    traceback.clear_frames(refusal.tb)
    with pytest.raises(InputError, match=r"train/shard.00001.mds.zstd cannot be decompressed"):
        dataset.files.prepare(1)


@pytest.mark.parametrize("is_local", [True, False])
def test_an_epoch_of_which_nothing_is_left_has_no_batches(shards, is_local):
    dataset = open_dataset(shards)
    dataset.is_local = is_local
    dataset.load_state_dict({"epoch": 0, "sample_in_epoch": dataset.windows.n_padded, "shuffle_seed": 7})
    assert read(dataset) == []
    assert len(read(dataset)) == dataset.windows.n_padded / 4


def test_what_a_killed_download_left_in_the_cache_is_removed(shards, tmp_path):
    cache = shutil.copytree(shards, tmp_path / "cache")
    before = {path.name for path in (cache / "train").iterdir()}
    for name in ("shard.00000.mds.a1B2c3D4", "shard.00001.mds.tmp"):
        (cache / "train" / name).touch()
    (cache / "train" / ".lock-3").touch()
    open_dataset(cache).files.remove_strays()
    assert {path.name for path in (cache / "train").iterdir()} == {*before, ".lock-3"}


def test_a_file_that_the_machine_cannot_open_is_not_called_damaged(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"x.mds cannot be read \(Not a directory\)\.$"):
        shard_files.OpenFiles().read(str(tmp_path / "file" / "x.mds"), 0, 1)


def test_open_shards_take_few_file_descriptors(shards, monkeypatch):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(shard_files.resource, "getrlimit", lambda _: (4 * shard_files.OPEN_SHARE, limits[1]))
    dataset = open_dataset(shards)
    assert len(dataset.shards) > 10
    batches = iter(build_loader(dataset, open_order("forward", 32), BOS, 0, seed=7).dataloader)
    for _ in range(10):
        next(batches)
    while_reading = len(os.listdir("/proc/self/fd"))
    list(batches)
    assert len(os.listdir("/proc/self/fd")) == while_reading - 4


@pytest.mark.parametrize("name", ["train", "val"])
def test_h5_gives_the_same_batches_as_mds(shards, h5_data, name):
    assert_same(read(open_dataset(shards, name)), read(open_dataset(h5_data, name)))


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.dist)])
def test_an_h5_file_that_was_stored_again_in_chunks_gives_the_same_batches(shards, h5_data, tmp_path, num_workers):
    copy = tmp_path / "copy"
    shutil.copytree(h5_data, copy)
    with h5py.File(h5_data / "tokens.h5") as file, h5py.File(copy / "tokens.h5", "w") as other:
        other.create_dataset("tokens", data=np.asarray(file["tokens"]), chunks=(100,), compression="gzip")
    before = len(os.listdir("/proc/self/fd"))
    assert_same(read(open_dataset(copy), num_workers=num_workers), read(open_dataset(shards)))
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("done", [1, 5])
def test_a_loaded_state_goes_on_with_the_next_batch(shards, done):
    dataset = open_dataset(shards)
    read(dataset)
    second_epoch = read(dataset)
    state = dataset.state_dict(4 * done, True)
    assert (state["epoch"], state["sample_in_epoch"]) == (1, 4 * done)
    resumed = open_dataset(shards)
    resumed.load_state_dict(state)
    rest = read(resumed)
    assert len(rest) == len(second_epoch) - done
    assert all(torch.equal(a["targets"], b["targets"]) for a, b in zip(rest, second_epoch[done:], strict=True))


def test_the_state_after_the_last_batch_of_an_epoch_begins_the_next(shards):
    dataset = open_dataset(shards)
    first = read(dataset)
    state = dataset.state_dict(0, True)
    resumed = open_dataset(shards)
    resumed.load_state_dict(state)
    assert not torch.equal(read(resumed)[0]["targets"], first[0]["targets"])
    assert torch.equal(read(dataset)[0]["targets"], read(_reopened(shards, state))[0]["targets"])


def _reopened(shards: Path, state: dict) -> TextStreamingDataset:
    dataset = open_dataset(shards)
    dataset.load_state_dict(state)
    return dataset


def test_a_context_length_that_does_not_divide_the_block_length_is_refused_with_the_choices(shards):
    with pytest.raises(
        InputError, match=r"data.context_length=24 does not divide block_length=64.*\[1, 2, 4, 8, 16, 32, 64\]"
    ):
        open_split(shards, "train", context_length=24)


def test_a_truncated_shard_is_an_error_and_not_wrong_data(shards, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(shards, copy)
    shard = sorted((copy / "train").glob("*.mds"))[1]
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises((InputError, AssertionError, ValueError), match=r"shard|size"):
        read(open_dataset(copy))


@pytest.mark.parametrize("data", ["shards", "h5_data"])
def test_data_that_is_cut_while_it_is_read_is_an_error_and_no_end_of_the_process(data, request, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(request.getfixturevalue(data), copy)
    batches = iter(build_loader(open_dataset(copy), open_order("forward", 32), BOS, 0, seed=7).dataloader)
    for _ in range(5):
        next(batches)
    for path in [*copy.glob("train/*.mds"), *copy.glob("*.h5")]:
        os.truncate(path, 100)
    with pytest.raises(InputError, match=r"was cut while it was read|is damaged"):
        list(batches)


@pytest.mark.dist
def test_workers_that_cannot_be_started_are_an_error_with_the_key(shards):
    loader = build_loader(open_dataset(shards), open_order("forward", 32), BOS, 2, seed=7).dataloader
    match = r"data.num_workers=2: data workers cannot be started \(Too many"
    with few_descriptors(5), pytest.raises(InputError, match=match):
        iter(loader)


def test_an_empty_shard_is_an_error(shards, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(shards, copy)
    sorted((copy / "train").glob("*.mds"))[1].write_bytes(b"")
    with pytest.raises(InputError, match=r"shard.00001.mds is damaged"):
        read(open_dataset(copy))


def test_a_missing_shard_is_an_error_before_anything_is_read(shards, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(shards, copy)
    sorted((copy / "train").glob("*.mds"))[2].unlink()
    with pytest.raises(InputError, match=r"train/shard.00002.mds is missing"):
        open_dataset(copy)


@pytest.mark.parametrize("damage", [None, "", '{"version": 2}', "[]"])
def test_a_missing_or_damaged_index_is_refused(shards, tmp_path, damage):
    copy = tmp_path / "copy"
    shutil.copytree(shards, copy)
    index = copy / "train" / "index.json"
    index.unlink() if damage is None else index.write_text(damage)
    with pytest.raises(InputError, match=r"train/index.json is missing or damaged"):
        open_dataset(copy)


@pytest.mark.parametrize("damage", [None, b"", b"text"])
def test_a_missing_or_damaged_h5_file_is_refused(h5_data, tmp_path, damage):
    copy = tmp_path / "copy"
    shutil.copytree(h5_data, copy)
    (copy / "tokens.h5").unlink() if damage is None else (copy / "tokens.h5").write_bytes(damage)
    with pytest.raises(InputError, match=r"tokens.h5 is missing or damaged"):
        open_dataset(copy)


@pytest.mark.parametrize("change", [{"block_length": 0}, {"blocks_per_shard": None}, {"format": "csv"}, {"splits": {}}])
def test_a_damaged_manifest_is_refused(shards, tmp_path, change):
    content = json.loads((shards / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(content | change))
    with pytest.raises(InputError, match=r"manifest.json"):
        Manifest.load(tmp_path)


def test_an_index_that_is_not_the_manifests_is_refused(shards, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(shards, copy)
    shutil.copy(copy / "val" / "index.json", copy / "train" / "index.json")
    with pytest.raises(InputError, match=r"other shards than manifest.json"):
        open_dataset(copy)
