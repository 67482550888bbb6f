"""Training in an order is training forward on shards whose windows were put into that order beforehand."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.several_runs import train_on_two
from helpers.small_data import convert_config
from helpers.tiny_models import GPT2, GRU, LLAMA, MODERN
from helpers.training_runs import by_step, losses, settings, train
from safetensors.torch import load_file

import convert_to_mds
from hindsight.config.model import Cell, Init
from hindsight.config.training import Precision
from hindsight.loading.mds_reader import WindowStream
from hindsight.loading.windows import SplitWindows
from hindsight.orders.known import FORMULAS, UNITS, open_order
from hindsight.orders.order import Order
from hindsight.shards.manifest import SPLITS, TOKENIZER_FOLDER, Manifest
from hindsight.tokenization.tokenizer import Tokenizer
from hindsight.training.precision import is_available
from language_model import LanguageModel, build_model
from load_text_streaming import TextStreamingDataset, build_loader

T = 32
MODELS = {
    "gpt2": replace(GPT2, n_layers=1, context_length=T, dropout=0.1),
    "llama": replace(LLAMA, n_layers=1, context_length=T),
    "modern": replace(MODERN, n_layers=1, context_length=T, init=Init.zero_out, dropout=0.1),
    "gru": replace(GRU, dropout=0.1),
    "lstm": replace(GRU, n_layers=1, cell=Cell.lstm),
}
ORDERS = [*FORMULAS, "random_chunk:3", "uniform_random:3", "blocks:5", *UNITS, "segments:3"]


@pytest.fixture(scope="module")
def unsigned(corpus: Path, tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards without hashes, whose tokens a test may therefore move."""
    out = tmp_path_factory.mktemp("unsigned") / "shards"
    convert_to_mds.main(convert_config(corpus, tokenizer_dir, out, hashes=[]))
    return out


def opened_for(folder: Path, order: str) -> Order:
    """An order for windows of T tokens of a corpus."""
    return open_order(order, T, Tokenizer.load(folder / TOKENIZER_FOLDER))


def permute_shards(folder: Path, copy: Path, order: str) -> Path:
    """Copy shards, with the tokens of each window of T in an order."""
    shutil.copytree(folder, copy)
    manifest, opened = Manifest.load(folder), opened_for(folder, order)
    for split in SPLITS:
        left = manifest.splits[split].tokens
        for path in sorted((copy / split).glob("*.mds")):
            data = bytearray(path.read_bytes())
            begin = int.from_bytes(data[4:8], "little")
            tokens = np.frombuffer(data, manifest.dtype, offset=begin)[:left]
            left -= len(tokens)
            for start in range(0, len(tokens), T):
                window = tokens[start : start + T]
                window[:] = window[opened.permutation(window.astype(np.int64))]
            path.write_bytes(data)
    return copy


@pytest.fixture(scope="module")
def permuted(unsigned: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The copy of the shards in an order, made once."""
    folder = tmp_path_factory.mktemp("permuted")

    def copy(order: str) -> Path:
        place = folder / order.replace(":", "")
        return place if place.exists() else permute_shards(unsigned, place, order)

    return copy


def trace(folder: Path, order: str, model: Any) -> list[Any]:
    """Losses, gradients and weights of a few steps on the training split, and the sums of the validation split."""
    manifest = Manifest.load(folder)
    module = LanguageModel(build_model(model, manifest.vocab_size, seed=3), np.ones(manifest.vocab_size, np.int64))
    opened = opened_for(folder, order)
    optimizer, seen = torch.optim.AdamW(module.parameters(), lr=1e-2), []
    torch.manual_seed(5)
    for split in SPLITS:
        windows = SplitWindows.of(str(folder), split, manifest, T, 8)
        dataset = TextStreamingDataset(WindowStream(windows), windows, 8, split == "train", seed=7)
        module.train(split == "train")
        for step, batch in enumerate(build_loader(dataset, opened, 0, 0, seed=7).dataloader):
            if split == "val":
                seen.append(module.eval_forward(batch))
            elif step < 3:
                loss = module.loss(module(batch), batch)
                optimizer.zero_grad()
                loss.backward()
                seen += [loss.detach(), *(torch.as_tensor(weight.grad).clone() for weight in module.parameters())]
                optimizer.step()
    return [*seen, *(weight.detach() for weight in module.parameters())]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("order", ORDERS)
def test_training_in_an_order_is_training_forward_on_windows_in_that_order(order, model, unsigned, permuted):
    turned, forward = trace(unsigned, order, MODELS[model]), trace(permuted(order), "forward", MODELS[model])
    assert len(turned) == len(forward)
    assert all(torch.equal(one, other) for one, other in zip(turned, forward, strict=True))
    if order != "forward":
        straight = trace(unsigned, "forward", MODELS[model])
        assert not all(torch.equal(one, other) for one, other in zip(turned, straight, strict=True))


@pytest.mark.parametrize("order", ["backward", "quarter_middle_out_interleave", "words", "segments:2"])
def test_a_run_in_an_order_has_the_losses_and_weights_of_a_forward_run_on_such_shards(
    order, unsigned, permuted, tmp_path
):
    turned = train(unsigned, tmp_path / "a", f"order={order}", "eval_interval=3ba")
    forward = train(permuted(order), tmp_path / "b", "direction=forward", "eval_interval=3ba")
    assert losses(turned) == losses(forward)
    weights, others = load_file(turned / "model.safetensors"), load_file(forward / "model.safetensors")
    assert all(torch.equal(weights[name], others[name]) for name in others)
    assert turned.name == f"gpt_nano-l2-d24-ctx64-h2-t32-shards-{order.replace(':', '')}-seed0"


SPIKES = ["optim.skip_spikes=0.5", "optim.lr=1e-5", "optim.schedule=constant", "max_duration=90ba", "batch_size=2"]
OPTIONS = {
    "plain": ["loss=plain"],
    "bf16": ["precision=bf16"],
    "compile": ["compile=true", "model.n_layers=1"],
    "modern": ["model.block=modern", "model.activation=relu2", "model.init=zero_out", "model.logit_softcap=5"],
    "swiglu": ["model.block=modern", "model.activation=swiglu"],
    "checkpointed": ["activation_checkpointing=true", "model.dropout=0.1"],
    "accumulated": ["microbatch_size=3"],
    "muon": ["optim.name=muon"],
    "muon_gru": ["optim.name=muon", "model=gru_small"],
    "spikes": SPIKES,
    "spikes_muon_lstm": [*SPIKES, "optim.name=muon", "model=lstm_small"],
}


@pytest.mark.parametrize("option", [pytest.param(x, marks=[pytest.mark.slow] * (x == "compile")) for x in OPTIONS])
def test_no_option_tells_a_backward_run_from_a_forward_run_on_turned_shards(option, unsigned, permuted, tmp_path):
    if option == "bf16" and not is_available(Precision.bf16):
        pytest.skip("this machine does not support the format")
    given = ["eval_interval=3ba", "optim.lr=0.01", *OPTIONS[option]]
    turned = train(unsigned, tmp_path / "a", "direction=backward", *given)
    forward = train(permuted("backward"), tmp_path / "b", "direction=forward", *given)
    assert losses(turned) == losses(forward)
    assert losses(turned) != losses(train(unsigned, tmp_path / "c", "direction=forward", *given))
    weights, others = load_file(turned / "model.safetensors"), load_file(forward / "model.safetensors")
    assert all(torch.equal(weights[name], others[name]) for name in others)
    skipped = by_step(turned, "train/skipped_steps")
    assert skipped == by_step(forward, "train/skipped_steps")
    assert (skipped.get(90, 0) > 0) == ("spikes" in option)


@pytest.mark.slow
@pytest.mark.dist
def test_no_part_of_a_divided_model_tells_a_backward_run_from_a_forward_run_on_turned_shards(
    unsigned, permuted, tmp_path
):
    given = ["eval_interval=3ba", "optim.lr=0.01", "parallelism=fsdp"]
    backward = settings(unsigned, tmp_path, "direction=backward", "run_name=turned", *given)
    forward = settings(permuted("backward"), tmp_path, "direction=forward", "run_name=forward", *given)
    train_on_two(tmp_path, backward, forward)
    assert losses(tmp_path / "turned") == losses(tmp_path / "forward")
    weights, others = (load_file(tmp_path / name / "model.safetensors") for name in ("turned", "forward"))
    assert all(torch.equal(weights[name], others[name]) for name in others)
