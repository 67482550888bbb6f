"""optim.name=muon: what it makes of a matrix, and of a run."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from helpers.processes import run_command
from helpers.tiny_models import CONFIGS, EVERY_ARCHITECTURE, build
from helpers.training_runs import by_step, losses, settings, train
from safetensors.torch import load_file
from torch import nn

from hindsight.config.model import RNNConfig
from hindsight.config.optim import OptimConfig, OptimizerName
from hindsight.errors import InputError
from hindsight.training.muon import RMS, Muon, matrices_of, orthogonal
from hindsight.training.optim import build_optimizer

MUON = OptimConfig(name=OptimizerName.muon, lr=0.01)


def give_gradients(model: nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        weight.grad = torch.randn(weight.shape, generator=generator)


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("shape", [(24, 24), (16, 48), (48, 16)])
def test_a_matrix_keeps_its_singular_vectors_and_gets_singular_values_about_1(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    values = left.T @ orthogonal(matrix, torch.float32) @ right.T
    assert torch.allclose(values, values.diagonal().diag(), atol=1e-4)
    assert 0.5 < values.diagonal().min() < values.diagonal().max() < 1.3
    assert torch.equal(orthogonal(torch.zeros(shape), torch.float32), torch.zeros(shape))


@EVERY_ARCHITECTURE
def test_matrices_of_the_layers_are_muons_queries_keys_values_and_gates_each_by_itself(config):
    model = build(config)
    names = {id(weight): name for name, weight in model.named_parameters()}
    found = {names[id(weight)]: rows for weight, rows in matrices_of(model).items()}
    if isinstance(config, RNNConfig):
        gates = 4 if config.cell.name == "lstm" else 3
        expected = {f"layers.{i}.weight_{kind}_l0": [16] * gates for i in range(2) for kind in ("ih", "hh")}
    else:
        kv = 4 * config.n_key_value_heads
        block = {"attention.qkv": [16, kv, kv], "attention.out": [16], "mlp.down": [16], "mlp.up": [config.d_hidden]}
        block |= {"mlp.gate": [config.d_hidden]} if config.is_gated else {}
        expected = {f"blocks.{i}.{name}.weight": rows for i in range(2) for name, rows in block.items()}
    assert found == expected


@EVERY_ARCHITECTURE
def test_each_matrix_is_updated_by_itself_with_an_update_of_the_size_of_adamws(config):
    model = build(config)
    give_gradients(model)
    before, gradients = weights_of(model), {name: torch.as_tensor(w.grad) for name, w in model.named_parameters()}
    build_optimizer(model, replace(MUON, weight_decay=0.0)).step()
    names = {id(weight): name for name, weight in model.named_parameters()}
    for weight, rows in matrices_of(model).items():
        change = (weight.detach() - before[names[id(weight)]]) / MUON.lr
        for part, gradient in zip(change.split(rows), gradients[names[id(weight)]].split(rows), strict=True):
            expected = -RMS * math.sqrt(max(part.shape)) * orthogonal(gradient, torch.float32)
            torch.testing.assert_close(part, expected, rtol=1e-3, atol=1e-4)
            assert float(part.square().mean().sqrt()) == pytest.approx(RMS, rel=0.35)


@EVERY_ARCHITECTURE
def test_all_other_weights_are_updated_bit_for_bit_as_by_adamw(config):
    for decay_all in (False, True):
        models = {name: build(config) for name in OptimizerName}
        for name, model in models.items():
            optimizer = build_optimizer(model, replace(MUON, name=name, decay_all=decay_all))
            for step in range(3):
                give_gradients(model, step)
                optimizer.step()
        muon, adamw = (weights_of(model) for model in models.values())
        matrices = {id(weight) for weight in matrices_of(models[OptimizerName.muon])}
        for name, weight in models[OptimizerName.muon].named_parameters():
            assert torch.equal(muon[name], adamw[name]) == (id(weight) not in matrices)


def test_matrices_decay_as_with_adamw():
    models = [build(CONFIGS["gpt2"]) for _ in range(2)]
    for model, decay in zip(models, (0.0, 0.5), strict=True):
        give_gradients(model)
        build_optimizer(model, replace(MUON, weight_decay=decay)).step()
    before = weights_of(build(CONFIGS["gpt2"]))
    for name in ("blocks.0.attention.qkv.weight", "head.weight"):
        plain, decayed = (weights_of(model)[name] for model in models)
        torch.testing.assert_close(plain - decayed, MUON.lr * 0.5 * before[name], rtol=0.02, atol=1e-6)


def test_a_weight_without_a_gradient_stays_and_so_does_what_is_kept_of_it():
    model = build(CONFIGS["gpt2"])
    optimizer = build_optimizer(model, MUON)
    give_gradients(model)
    optimizer.step()
    before = weights_of(model)
    kept = [value.clone() for state in optimizer.state.values() for value in state.values()]
    optimizer.zero_grad()
    optimizer.step()
    assert all(torch.equal(before[name], weight) for name, weight in weights_of(model).items())
    after = [value for state in optimizer.state.values() for value in state.values()]
    assert all(torch.equal(one, other) for one, other in zip(kept, after, strict=True))


def test_its_state_is_loaded_into_another_optimizer_bit_for_bit():
    models = [build(CONFIGS["lstm-norm"]) for _ in range(2)]
    whole, parts = (build_optimizer(model, MUON) for model in models)
    for step in range(2):
        give_gradients(models[0], step)
        whole.step()
    models[1].load_state_dict(models[0].state_dict())
    parts.load_state_dict(copy.deepcopy(whole.state_dict()))
    for model, optimizer in zip(models, (whole, parts), strict=True):
        give_gradients(model, seed=9)
        optimizer.step()
    one, other = (weights_of(model) for model in models)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="PyTorch has it from 2.9 on: make test-latest runs this")
@pytest.mark.parametrize("shape", [(24, 24), (16, 48), (48, 16)])
def test_a_whole_matrix_is_updated_bit_for_bit_as_by_pytorchs_muon(shape):
    ours, theirs = (nn.Parameter(torch.ones(shape)) for _ in range(2))
    kind = torch.optim.Muon  # pyright: ignore[reportAttributeAccessIssue] - of a newer PyTorch
    settings = {"lr": 0.01, "weight_decay": 0.1, "momentum": 0.9}
    others = [{"params": [nn.Parameter(torch.ones(1))]}]
    pair = [
        (ours, Muon({ours: [shape[0]]}, others, **settings, betas=(0.9, 0.95), eps=1e-8, dtype=torch.bfloat16)),
        (theirs, kind([theirs], **settings, adjust_lr_fn="match_rms_adamw")),
    ]
    for weight, optimizer in pair:
        generator = torch.Generator().manual_seed(0)
        for _ in range(5):
            weight.grad = torch.randn(shape, generator=generator)
            optimizer.step()
    assert torch.equal(ours, theirs)


# --------------------------------------------------------------------------------------------------------------- runs

KEYS = ["optim.name=muon", "optim.lr=0.02", "optim.schedule=constant", "optim.cooldown_share=0", "model.dropout=0.1"]


def test_a_run_learns_by_muon_and_logs_its_rate(shards, tmp_path):
    ends = {}
    for name in ("adamw", "muon"):
        run = train(shards, tmp_path, f"optim.name={name}", "optim.lr=0.005", "max_duration=40ba", f"run_name={name}")
        ends[name] = by_step(run, "eval/loss_nats")[40]
        assert by_step(run, "train/lr")[2] == 0.0025
    start = by_step(run)[1]
    assert ends["muon"] != ends["adamw"]
    assert max(ends.values()) < start - 2


@pytest.mark.parametrize("model", ["gpt_nano", "lstm_small"])
def test_a_resumed_run_has_bit_for_bit_the_losses_and_weights_of_an_uninterrupted_one(shards, tmp_path, model):
    keys = [*KEYS, f"model={model}", "eval_interval=5ba"]
    whole = train(shards, tmp_path, *keys, "run_name=whole", "max_duration=20ba")
    train(shards, tmp_path, *keys, "run_name=parts", "max_duration=10ba")
    parts = train(shards, tmp_path, *keys, "run_name=parts", "max_duration=20ba")
    assert losses(parts) == losses(whole)
    one, other = (load_file(run / "model.safetensors") for run in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_does_not_go_on_with_another_optimizer(shards, tmp_path):
    train(shards, tmp_path, "run_name=a")
    with pytest.raises(InputError, match=r"optim\.name"):
        train(shards, tmp_path, "run_name=a", "optim.name=muon", "max_duration=8ba")


def test_layer_norms_frozen_parts_and_a_longer_run_go_with_muon(shards, tmp_path):
    keys = ["optim.name=muon", "model.freeze=[blocks.0]", "layer_norms=true", "train.more_lr=rewarm", "run_name=a"]
    run = train(shards, tmp_path, *keys)
    train(shards, tmp_path, *keys, "max_duration=9ba")
    assert len(by_step(run)) == 9
    assert by_step(run, "train/grad_norm/blocks.1.attention.qkv.weight").keys() == set(range(1, 10))
    assert not by_step(run, "train/grad_norm/blocks.0.attention.qkv.weight")
    (newest,) = (run / "checkpoints").glob("*-ba9-*.pt")
    state = torch.load(newest, weights_only=False)["state"]["optimizers"]["Muon"]["state"]
    assert not [name for name in state if ".blocks.0." in name]
    assert [*state["module.blocks.1.mlp.up.weight"]] == ["momentum_buffer"]
    assert {*state["module.blocks.1.mlp.up.bias"]} == {"step", "exp_avg", "exp_avg_sq"}


@pytest.mark.slow
@pytest.mark.dist
def test_two_processes_have_the_losses_of_one(shards, tmp_path):
    one = train(shards, tmp_path, *KEYS[:2], "run_name=one", "max_duration=12ba")
    keys = settings(shards, tmp_path, *KEYS[:2], "run_name=two", "max_duration=12ba")
    done = run_command("composer", "-n", "2", "train_composer.py", *keys)
    assert done.returncode == 0, done.stdout + done.stderr
    two = by_step(tmp_path / "two")
    assert [*two.values()] == pytest.approx([*by_step(one).values()], rel=1e-6)
