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


def test_h5_cannot_name_another_file(h5_data, tokenizer_dir, tmp_path):
    data = shutil.copytree(h5_data, tmp_path / "data")
    with h5py.File(data / "tokens.h5") as file:
        dataset = file["tokens"]
        assert isinstance(dataset, h5py.Dataset)
        size, dtype = len(dataset), dataset.dtype
    (tmp_path / "secret").write_bytes(np.zeros(size, dtype).tobytes())
    with h5py.File(data / "tokens.h5", "w") as file:
        file.create_dataset("tokens", (size,), dtype, external=[(str(tmp_path / "secret"), 0, h5py.h5f.UNLIMITED)])
    with pytest.raises(InputError, match="tokens are not in the file itself"):
        train(data, tmp_path / "runs", *SHORT)
    with pytest.raises(InputError, match="in other files"):
        convert_to_mds.main(convert_config(data / "tokens.h5", tokenizer_dir, tmp_path / "mds"))


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
