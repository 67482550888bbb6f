"""Weights that no run can begin with."""

import json
import logging
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.initial_weights import GPT2, LLAMA_JSON, begin, theirs, write_folder
from safetensors.torch import load_file, save_file

from hindsight.errors import InputError
from hindsight.training.hf_sizes import sizes_of


@pytest.fixture(scope="module")
def gpt2(tokenizer_dir, tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("hf") / "gpt2", theirs("gpt2"), tokenizer_dir)


def change_json(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def other_shape(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["transformer.h.0.mlp.c_fc.weight"] = torch.zeros(24, 95)
    save_file(weights, folder / "model.safetensors")


def not_finite(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["transformer.wpe.weight"][0, 0] = math.nan
    save_file(weights, folder / "model.safetensors")


def fewer_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["transformer.h.1.ln_2.bias"]
    save_file(weights, folder / "model.safetensors")


def foreign_pickle(folder: Path) -> None:
    torch.save({"transformer.wte.weight": Path("a")}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def index_elsewhere(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))


def other_token(folder: Path) -> None:
    spec = json.loads((folder / "tokenizer.json").read_text())
    vocab = spec["model"]["vocab"]
    names = {number: name for name, number in vocab.items()}
    vocab[names[290]], vocab[names[291]] = 291, 290
    (folder / "tokenizer.json").write_text(json.dumps(spec))


def other_words(folder: Path) -> None:
    spec = json.loads((folder / "tokenizer.json").read_text())
    spec["normalizer"] = {"type": "Lowercase"}
    (folder / "tokenizer.json").write_text(json.dumps(spec))


BAD = {
    "sizes": (
        lambda f: change_json(f, "config.json", n_layer=3, n_head=4),
        r"give model.n_layers=3 model.n_heads=4\.$",
    ),
    "bert": (lambda f: change_json(f, "config.json", model_type="bert"), "has model_type=bert in its config.json"),
    "scaled": (
        lambda f: change_json(f, "config.json", scale_attn_by_inverse_layer_idx=True),
        "which the models here do",
    ),
    "activation": (lambda f: change_json(f, "config.json", activation_function="relu"), "model.activation is gelu or"),
    "gelu": (lambda f: change_json(f, "config.json", activation_function="gelu"), r"give model.activation=gelu\."),
    "a text": (lambda f: change_json(f, "config.json", n_layer="two"), r"config.json is damaged \(n_layer is 'two'\)"),
    "no json": (lambda f: (f / "config.json").write_text("{"), "config.json cannot be read"),
    "no config": (
        lambda f: (f / "config.json").unlink(),
        "has neither config.json, as folders of Hugging Face have, nor",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has neither model.safetensors nor pytorch_model.bin"),
    "cut": (lambda f: (f / "model.safetensors").write_bytes(b"\x00" * 40), "model.safetensors cannot be read"),
    "shape": (other_shape, r"mlp.up.weight is \[95, 24\], not \[96, 24\]"),
    "nan": (not_finite, "positions.weight has NaN or infinity"),
    "missing": (fewer_weights, r"has no transformer.h.1.ln_2.bias \(1 weights are missing\)"),
    "pickle": (foreign_pickle, "pytorch_model.bin cannot be read"),
    "index": (index_elsewhere, "names files that are not in the folder"),
    "token": (other_token, r"id 290 is .* there and .* in data.tokenizer"),
    "words": (other_words, "the normalizer in tokenizer.json differ"),
    "no tokenizer": (lambda f: [each.unlink() for each in f.glob("tokenizer*")], "has no tokenizer.json"),
}


@pytest.mark.parametrize("case", BAD)
def test_weights_that_do_not_fit_are_refused_in_a_line(shards, gpt2, tmp_path, case):
    change, message = BAD[case]
    copy = shutil.copytree(gpt2, tmp_path / "copy")
    change(copy)
    with pytest.raises(InputError, match=message) as refused:
        begin(shards, tmp_path / "runs", *GPT2, f"model.init_from={copy}")
    assert str(refused.value).startswith(f"model.init_from={copy}")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["model.init_from=./nowhere"], r"model.init_from=\./nowhere does not exist"),
        (["model.init_from=nobody/nothing"], "is no folder here, and the Hub does not give it"),
        (["model.init_from=."], "has neither config.json"),
    ],
)
def test_weights_that_are_nowhere_are_told_in_a_line(shards, tmp_path, monkeypatch, changes, message):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        begin(shards, tmp_path / "runs", *changes)


def test_another_kind_of_run_and_one_without_a_checkpoint_are_refused(shards, trained, tmp_path):
    with pytest.raises(InputError, match=r"holds a GRU or LSTM, and model=gpt_nano is a GPT"):
        begin(shards, tmp_path, f"model.init_from={trained['gru']}")
    empty = tmp_path / "empty"
    empty.mkdir()
    for name in ("config.yaml", "metadata.json"):
        shutil.copy(trained["forward"] / name, empty)
    with pytest.raises(InputError, match=r"^model.init_from=.*has no checkpoint"):
        begin(shards, tmp_path, f"model.init_from={empty}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, r"scales its rotary positions \(rope_type=llama3\)"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 5.0}}, r"rope_type=yarn"),
        ({"head_dim": 16}, "head_dim=16 in its config.json, not 12"),
        ({"hidden_act": "gelu"}, "hidden_act=gelu; model.block=llama has silu"),
        ({"attention_bias": True}, "attention_bias=True and mlp_bias=False"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"num_attention_heads": 5}, "model.n_heads=5 does not divide"),
    ],
)
def test_a_llama_that_is_computed_otherwise_is_refused_before_anything_is_loaded(changes, message):
    with pytest.raises(InputError, match=message):
        sizes_of(LLAMA_JSON | changes, "model.init_from=a")


def test_a_name_that_may_be_a_mistyped_path_is_said_to_be_looked_for_on_the_hub(shards, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO, logger="hindsight")
    with pytest.raises(InputError, match="is no folder here, and the Hub does not give it"):
        begin(shards, tmp_path / "runs", "model.init_from=exportd/typo")
    assert caplog.messages == [
        "model.init_from=exportd/typo is no folder here: looks for it on the Hub, which may take a while"
    ]
