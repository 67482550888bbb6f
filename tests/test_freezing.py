"""Parts of a model that stay as they are."""

import json

import pytest
import torch
from helpers.training_runs import compose_config, settings, train
from safetensors.torch import load_file

import train_composer
from hindsight.config.freezing import frozen_parts
from hindsight.config.schemas import SCHEMAS
from hindsight.config.typed_text import as_typed, text_keys
from hindsight.errors import InputError

FROZEN = ["model.freeze=[embedding,blocks.0]", "optim.lr=0.01", "checkpoint.interval=3ba", "run_name=a"]


def test_frozen_parts_stay_as_they_began_and_are_in_no_optimizer(shards, trained, tmp_path):
    run = train(shards, tmp_path, f"model.init_from={trained['forward']}", *FROZEN)
    before, after = load_file(trained["forward"] / "model.safetensors"), load_file(run / "model.safetensors")
    frozen = {name for name in before if name.startswith(("embedding.", "blocks.0."))}
    assert {name for name in before if torch.equal(before[name], after[name])} == frozen
    (newest,) = (run / "checkpoints").glob("ep*-ba6-rank0.pt")
    state = torch.load(newest, weights_only=False)["state"]["optimizers"]["AdamW"]
    assert {name.removeprefix("module.") for name in state["state"]} == before.keys() - frozen
    metadata = json.loads((run / "metadata.json").read_text())
    assert metadata["n_parameters"] == sum(weight.numel() for weight in before.values())
    assert metadata["n_trainable_parameters"] == sum(before[name].numel() for name in before.keys() - frozen)


PARTS = ["embedding", *(f"blocks.{i}.{part}" for i in range(12) for part in ("attention", "mlp")), "norm", "head"]


@pytest.mark.parametrize(
    ("names", "frozen"),
    [
        (["embedding"], ["embedding"]),
        (["blocks.1"], ["blocks.1.attention", "blocks.1.mlp"]),
        (["blocks.0-1.mlp", "norm"], ["blocks.0.mlp", "blocks.1.mlp", "norm"]),
        (["head", "blocks.10-11.attention"], ["blocks.10.attention", "blocks.11.attention", "head"]),
        (["blocks"], PARTS[1:-2]),
    ],
)
def test_names_of_frozen_parts_mean_all_that_is_in_them(names, frozen):
    assert frozen_parts(names, PARTS) == frozen


@pytest.mark.parametrize(
    "name", ["embeddings", "blocks.12", "blocks.3-12", "blocks.1.ml", "", "blocks.-1", "0-3", "embedding.weight"]
)
def test_a_name_of_no_part_is_refused_with_those_that_there_are(name):
    with pytest.raises(
        InputError, match=r"model.freeze=.* is no part of this model; its parts are embedding, blocks.att"
    ):
        frozen_parts([name], PARTS)


def test_something_is_left_to_train_and_a_tied_head_is_the_embedding():
    with pytest.raises(InputError, match="leaves nothing to train"):
        frozen_parts(["embedding", "blocks", "norm", "head"], PARTS)
    with pytest.raises(InputError, match=r"model\.freeze=head is no part"):
        compose_config("train_composer", "direction=forward", "model=gpt2", "model.freeze=[head]")


def test_the_names_that_can_be_frozen_are_those_of_all_weights(shards, tmp_path):
    for changes in (
        [],
        ["model.block=llama", "model.bias=true"],
        ["model.block=modern", "model.activation=swiglu"],
        ["model.tied_head=true"],
        ["model=lstm_small", "model.final_norm=true"],
    ):
        given = [
            each for each in settings(shards, tmp_path, *changes) if "lstm" not in str(changes) or "n_heads" not in each
        ]
        setup = train_composer.prepare(compose_config("train_composer", *given))
        model = train_composer.build_language_model(setup).module
        parts = setup.config.model.parts
        owners = [[part for part in parts if name.startswith(f"{part}.")] for name, _ in model.named_parameters()]
        assert all(len(owner) == 1 for owner in owners)
        assert {owner[0] for owner in owners} == set(parts)


def test_frozen_parts_are_typed_with_commas():
    keys = text_keys(SCHEMAS["train_composer"], [type(compose_config("train_composer", "direction=forward").model)])
    assert as_typed(["model.freeze=embedding,blocks.0-3"], keys, is_sweep=False) == [
        "model.freeze=[embedding,blocks.0-3]"
    ]
    assert as_typed(["model.freeze=norm"], keys, is_sweep=False) == ["model.freeze=[norm]"]
    assert as_typed(["model.freeze=norm,head"], keys, is_sweep=True) == ["model.freeze=[norm],[head]"]
