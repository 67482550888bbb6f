"""Files from somebody else: what they name outside their folder is not read, and nothing that they hold runs."""

import json
import shutil

import h5py
import numpy as np
import pytest
import torch
from helpers.small_data import convert_config
from helpers.training_runs import TINY, compose_config, train

import convert_to_h5
import convert_to_mds
import inspect_mds
from hindsight.config.conversion import InspectConfig
from hindsight.errors import InputError
from hindsight.tokenization.tokenizer import Tokenizer
from language_model import build_model, load_weights, save_weights

SHORT = ["run_name=a", "max_duration=2ba"]


@pytest.mark.parametrize("name", ["../../secret.mds", "/etc/passwd", "..", ".hidden/../x", "a/b.mds", ""])
def test_an_index_cannot_name_a_file_outside_its_folder(shards, tokenizer_dir, tmp_path, name):
    data = shutil.copytree(shards, tmp_path / "data")
    index = json.loads((data / "train" / "index.json").read_text())
    secret = data.parent / "secret.mds"
    shutil.copy(data / "train" / index["shards"][0]["raw_data"]["basename"], secret)
    index["shards"][0]["raw_data"]["basename"] = name
    (data / "train" / "index.json").write_text(json.dumps(index))
    for attempt in (
        lambda: train(data, tmp_path / "runs", *SHORT),
        lambda: inspect_mds.main(InspectConfig(path=str(data))),
        lambda: convert_to_h5.main(convert_config(data, tokenizer_dir, tmp_path / "h5")),
    ):
        with pytest.raises(InputError, match="is no plain name of a file"):
            attempt()


def _write_external_link(file, tokens, secret):
    file["tokens"] = h5py.ExternalLink(str(secret), "tokens")


def _write_soft_link(file, tokens, secret):
    file["outside"] = h5py.ExternalLink(str(secret), "tokens")
    file["tokens"] = h5py.SoftLink("/outside")


def _write_external_storage(file, tokens, secret):
    place = [(str(secret.with_suffix(".raw")), 0, h5py.h5f.UNLIMITED)]
    file.create_dataset("tokens", tokens.shape, tokens.dtype, external=place)


def _write_virtual(file, tokens, secret):
    layout = h5py.VirtualLayout(tokens.shape, tokens.dtype)
    layout[:] = h5py.VirtualSource(str(secret), "tokens", tokens.shape)
    file.create_virtual_dataset("tokens", layout)


def _write_filtered(file, tokens, secret):
    # Blosc, a plugin: optional, so that it can be named where it is not installed.
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((64,))
    settings.set_filter(32001, h5py.h5z.FLAG_OPTIONAL)
    space = h5py.h5s.create_simple(tokens.shape)
    h5py.h5d.create(file.id, b"tokens", h5py.h5t.NATIVE_UINT16, space, settings).write(
        h5py.h5s.ALL, h5py.h5s.ALL, tokens
    )


def _write_odd_bits(file, tokens, secret):
    number = h5py.h5t.STD_U16LE.copy()
    number.set_precision(12)
    number.set_offset(4)
    space = h5py.h5s.create_simple(tokens.shape)
    h5py.h5d.create(file.id, b"tokens", number, space).write(h5py.h5s.ALL, h5py.h5s.ALL, tokens)


def _write_ragged(file, tokens, secret):
    file.create_dataset("tokens", (3,), h5py.vlen_dtype(np.uint16))


def _write_references(file, tokens, secret):
    file["other"] = tokens
    file.create_dataset("tokens", data=[file["other"].ref] * 3, dtype=h5py.ref_dtype)


def _write_regions(file, tokens, secret):
    other = file.create_dataset("other", data=tokens)
    file.create_dataset("tokens", data=[other.regionref[:5]], dtype=h5py.regionref_dtype)


def _write_names(file, tokens, secret):
    file.create_dataset("tokens", data=tokens % 2, dtype=h5py.enum_dtype({"A": 0, "B": 1}, "i"))


def _write_group(file, tokens, secret):
    file.create_group("tokens")["tokens"] = tokens


def _write_large_chunks(file, tokens, secret):
    file.create_dataset("tokens", (1 << 28,), np.uint16, chunks=(1 << 28,), compression="gzip")


def _write_nothing(file, tokens, secret):
    file.create_dataset("tokens", (10**12,), np.uint16, chunks=(1 << 16,))


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (_write_external_link, "not in the file itself, but a link"),
        (_write_soft_link, "not in the file itself, but a link"),
        (_write_external_storage, "not in the file itself, but in other files"),
        (_write_virtual, "not in the file itself, but in other files"),
        (_write_filtered, "need the filter 32001"),
        (_write_odd_bits, "unused bits"),
        (_write_ragged, "no one-dimensional dataset"),
        (_write_references, "no one-dimensional dataset"),
        (_write_regions, "no one-dimensional dataset"),
        (_write_names, "no one-dimensional dataset"),
        (_write_group, "no one-dimensional dataset"),
        (_write_large_chunks, "in chunks of more than"),
        (_write_nothing, "were never written"),
    ],
)
def test_h5_is_read_only_as_a_plain_dataset_of_its_own(h5_data, tokenizer_dir, tmp_path, write, words, caplog):
    data = shutil.copytree(h5_data, tmp_path / "data")
    secret = tmp_path / "secret.h5"
    shutil.copy(data / "tokens.h5", secret)
    with h5py.File(secret) as file:
        tokens = np.asarray(file["tokens"])
    (tmp_path / "secret.raw").write_bytes(tokens.tobytes())
    with h5py.File(data / "tokens.h5", "w") as file:
        write(file, tokens, secret)
    alone = tmp_path / "alone.h5"
    shutil.copy(data / "tokens.h5", alone)
    with pytest.raises(InputError, match=words):
        train(data, tmp_path / "runs", *SHORT)
    for corpus in (data, data / "tokens.h5", alone):
        with pytest.raises(InputError, match=words):
            convert_to_mds.main(convert_config(corpus, tokenizer_dir, tmp_path / "mds"))
    with pytest.raises(SystemExit, match="1"):
        inspect_mds.main(InspectConfig(path=str(data)))
    assert words in caplog.text or "train has 0 documents" in caplog.text


def test_a_tokenizer_with_code_runs_nothing(shards, tmp_path):
    data = shutil.copytree(shards, tmp_path / "data")
    config = json.loads((data / "tokenizer" / "tokenizer_config.json").read_text())
    config |= {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "tokenizer_class": "Evil"}
    (data / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(config))
    (data / "tokenizer" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    Tokenizer.load(data / "tokenizer")
    train(data, tmp_path / "runs", *SHORT)
    assert not (tmp_path / "ran").exists()


def test_the_config_of_a_run_cannot_read_the_environment(shards, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
    train(shards, tmp_path, *SHORT)
    path = tmp_path / "a" / "config.yaml"
    path.write_text(path.read_text().replace("direction: forward", "direction: ${oc.env:AWS_SECRET_ACCESS_KEY}"))
    with pytest.raises(InputError, match="with other settings") as refused:
        train(shards, tmp_path, *SHORT, "max_duration=4ba")
    assert "planted" not in str(refused.value)


def test_weights_are_exported_as_safetensors_and_come_back(shards, tmp_path):
    train(shards, tmp_path, *SHORT)
    config = compose_config("train_composer", *TINY, "direction=forward").model
    trained = torch.load(tmp_path / "a" / "checkpoints" / "ep0-ba2-rank0.pt")["state"]["model"]
    model = build_model(config, 300, seed=99)
    load_weights(model, tmp_path / "a" / "model.safetensors")
    for name, weights in model.state_dict().items():
        assert torch.equal(weights, trained[f"module.{name}"]), name
    save_weights(model, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "a" / "model.safetensors").read_bytes()
    (tmp_path / "again.safetensors").write_bytes(b"cut")
    with pytest.raises(InputError, match="does not hold the weights of this model"):
        load_weights(model, tmp_path / "again.safetensors")
