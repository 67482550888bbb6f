"""A dataset with every window turned: forward on it is backward on the original, bit for bit."""

from pathlib import Path

import numpy as np
import pytest
from helpers.training_runs import losses, train
from safetensors.torch import load_file

from hindsight.conversion.token_sources import ConvertedTokens
from hindsight.conversion.verify import verify_tokens
from hindsight.errors import InputError
from hindsight.shards.manifest import TOKENIZER_FOLDER, Manifest
from hindsight.shards.mds import read_index, read_shard
from hindsight.shards.turned import write_turned
from hindsight.tokenization.tokenizer import Tokenizer

T = 32


def tokens_of(folder: Path, split: str) -> np.ndarray:
    manifest = Manifest.load(folder)
    entries = read_index(folder / split)
    parts = [read_shard(folder / split, entry, manifest.dtype, manifest.block_length) for entry in entries]
    return np.concatenate(parts)[: manifest.splits[split].tokens]


@pytest.fixture(scope="module")
def turned(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("turned") / "data"
    write_turned(shards, out, T)
    return out


def test_each_window_is_turned_the_last_of_a_split_by_itself(shards: Path, turned: Path):
    for split in ("train", "val"):
        plain, found = tokens_of(shards, split), tokens_of(turned, split)
        assert len(plain) % T  # the last window is shorter
        windows = [plain[start : start + T][::-1] for start in range(0, len(plain), T)]
        assert np.array_equal(found, np.concatenate(windows))


def test_its_manifest_says_that_it_is_another_dataset_and_its_files_are_whole(shards: Path, turned: Path):
    plain, found = Manifest.load(shards), Manifest.load(turned)
    assert found.fingerprint != plain.fingerprint
    assert found.tokenizer_fingerprint == plain.tokenizer_fingerprint
    assert found.settings["turned"] == T
    tokenizer = Tokenizer.load(turned / TOKENIZER_FOLDER)
    assert [*verify_tokens(ConvertedTokens(turned, found, tokenizer), tokenizer)] == []


def test_forward_on_it_is_backward_on_the_original_bit_for_bit(shards: Path, turned: Path, tmp_path: Path):
    forward = train(turned, tmp_path / "a", "direction=forward", "eval_interval=3ba")
    backward = train(shards, tmp_path / "b", "direction=backward", "eval_interval=3ba")
    assert losses(forward) == losses(backward)
    one, other = (load_file(folder / "model.safetensors") for folder in (forward, backward))
    assert all((one[name] == other[name]).all() for name in one)


def test_windows_that_do_not_divide_a_block_are_refused(shards: Path, h5_data: Path, tmp_path: Path):
    with pytest.raises(InputError, match="context_length=48 does not divide block_length=64"):
        write_turned(shards, tmp_path / "out", 48)
    with pytest.raises(InputError, match="is h5"):
        write_turned(h5_data, tmp_path / "out", T)
