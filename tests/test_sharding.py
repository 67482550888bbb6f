"""parallelism=fsdp: two processes, each with a part of all weights, train as two with the whole model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.several_runs import train_on_two
from helpers.training_runs import by_step, compose_config, losses, records, settings, train
from safetensors.torch import load_file

from hindsight.config.training import Precision
from hindsight.planning.plan import plan_of
from hindsight.training.checkpoint_files import checkpoints_in, load_weights_only
from hindsight.training.precision import is_available

MODELS = {
    "gpt2": ["model.tied_head=true", "layer_norms=true", "microbatch_size=2", "samples.interval=8ba"],
    "llama": ["model.block=llama", "activation_checkpointing=true", "optim.clip=adaptive", "model.freeze=[blocks.0]"],
    "lstm": ["model=lstm_small", "model.n_layers=2", "model.d_model=24", "model.final_norm=true", "optim.clip=value"],
}
OF_A_GPT = ("model.n_heads=", "model.context_length=")
UNMEASURED = ("seconds", "train/tokens_per_second", "train/peak_memory_mib")


def arguments(shards: Path, runs: Path, *changes: str) -> list[str]:
    usual = ["max_duration=16ba", "optim.lr=0.01", "eval_interval=8ba", "checkpoint.interval=8ba"]
    given = settings(shards, runs, *usual, *changes)
    return [key for key in given if not ("model=lstm_small" in changes and key.startswith(OF_A_GPT))]


def measured(run: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if key not in UNMEASURED} for record in records(run)]


def test_a_plan_divides_what_belongs_to_weights_among_the_devices():
    given = ["experiment=gpt2", "data_tokens=1_000_000_000", "model.vocab_size=50257", "batch_size=64"]

    def memory(devices: int, parallelism: str) -> dict[str, Any]:
        keys = (f"devices={devices}", f"parallelism={parallelism}", "microbatch_size=1")
        return plan_of(compose_config("plan", *given, *keys))["memory"]

    whole, parts = (memory(8, way) for way in ("ddp", "fsdp"))
    for name in ("weights", "gradients", "optimizer"):
        assert parts["bytes_by_part"][name] == whole["bytes_by_part"][name] // 8
    assert parts["bytes_by_part"]["activations"] == whole["bytes_by_part"]["activations"]
    assert 0 < parts["bytes_by_part"]["gathered"] < whole["bytes_by_part"]["weights"]
    assert memory(64, "fsdp")["peak_bytes"] < parts["peak_bytes"] < whole["peak_bytes"]


@pytest.mark.slow
@pytest.mark.dist
def test_two_processes_with_a_part_of_the_weights_each_train_as_two_with_all_of_them(shards: Path, tmp_path: Path):
    ways = ("ddp", "fsdp")
    given = [
        arguments(shards, tmp_path, *changes, f"run_name={name}-{way}", f"parallelism={way}")
        for name, changes in MODELS.items()
        for way in ways
    ]
    train_on_two(tmp_path, *given)
    for name in MODELS:
        whole, parts = (tmp_path / f"{name}-{way}" for way in ways)
        assert len(records(whole)) == 16
        for one, other in zip(measured(whole), measured(parts), strict=True):
            assert other == pytest.approx(one, rel=1e-3, abs=1e-5), name
        assert list(by_step(parts).values()) == pytest.approx(list(by_step(whole).values()), rel=1e-5), name
        weights, others = (load_file(run / "model.safetensors") for run in (whole, parts))
        assert weights.keys() == others.keys()
        for key, weight in weights.items():
            torch.testing.assert_close(others[key], weight, rtol=0.01, atol=1e-3)
    assert (tmp_path / "gpt2-fsdp/samples.jsonl").read_text() == (tmp_path / "gpt2-ddp/samples.jsonl").read_text()
    assert len((tmp_path / "gpt2-fsdp/samples.jsonl").read_text().splitlines()) == 2


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.filterwarnings("ignore:The current world size:UserWarning")
def test_a_run_goes_on_on_other_devices_with_parts_of_the_weights_or_with_all(shards: Path, tmp_path: Path):
    constant = ["optim.schedule=constant", "optim.cooldown_share=0", "eval_interval=100ba"]
    whole = train(shards, tmp_path, *arguments(shards, tmp_path, *constant, "run_name=whole", "max_duration=18ba"))
    parts = [*constant, "run_name=parts"]
    train(shards, tmp_path, *arguments(shards, tmp_path, *parts, "max_duration=6ba"))
    divided = [
        arguments(shards, tmp_path, *constant, f"run_name={name}", f"max_duration={steps}ba", "parallelism=fsdp")
        for name, steps in [("parts", 12), ("divided", 12), ("again", 6), ("again", 12)]
    ]
    train_on_two(tmp_path, *divided)
    again, once = (losses(tmp_path / name) for name in ("again", "divided"))
    ended = [line._replace(eval_nats=None) if line.step == 6 else line for line in again]  # where its first part ended
    assert ended == once, "bit for bit on the same devices"
    run = train(shards, tmp_path, *arguments(shards, tmp_path, *parts, "max_duration=18ba"))
    assert [line.step for line in losses(run)] == [line.step for line in losses(whole)]
    assert list(by_step(run).values()) == pytest.approx(list(by_step(whole).values()), rel=1e-5)


@pytest.mark.slow
@pytest.mark.dist
def test_a_checkpoint_of_parts_is_the_file_that_one_process_saves(shards: Path, tmp_path: Path):
    one = train(shards, tmp_path, *arguments(shards, tmp_path, "run_name=one", "max_duration=1ba"))
    train_on_two(tmp_path, arguments(shards, tmp_path, "run_name=two", "max_duration=1ba", "parallelism=fsdp"))
    load_weights_only()
    first, second = (
        torch.load(checkpoints_in(run / "checkpoints")[0], weights_only=True)["state"]
        for run in (one, tmp_path / "two")
    )
    assert first["model"].keys() == second["model"].keys()
    for key, weight in first["model"].items():
        assert type(second["model"][key]) is torch.Tensor
        torch.testing.assert_close(second["model"][key], weight, rtol=0, atol=1e-3)
    (moments, others) = (state["optimizers"]["AdamW"]["state"] for state in (first, second))
    assert moments.keys() == others.keys()
    for key, kept in moments.items():
        assert {name: others[key][name].shape for name in kept} == {name: kept[name].shape for name in kept}


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.skipif(not is_available(Precision.bf16), reason="this machine does not support the format")
def test_two_processes_with_a_part_of_the_weights_each_compute_in_bf16(shards: Path, tmp_path: Path):
    short = ["max_duration=4ba", "eval_interval=2ba", "checkpoint.interval=4ba", "optim.warmup_steps=0"]
    ways = ("ddp", "fsdp")
    given = [(*short, "precision=bf16", f"run_name={way}", f"parallelism={way}") for way in ways]
    train_on_two(tmp_path, *(arguments(shards, tmp_path, *changes) for changes in given))
    for key in ("train/loss_nats", "eval/loss_nats"):
        known, found = ([*by_step(tmp_path / way, key).values()] for way in ways)
        assert found == pytest.approx(known, rel=1e-3)
