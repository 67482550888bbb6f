"""What a training step must not do: wait for the device, or leave the kernels that it is meant to take."""

import dataclasses
import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from composer.core import Callback, State
from composer.loggers import Logger
from helpers.recording_run import one_more, train_recorded
from helpers.tiny_models import CONFIGS, C, V, build
from helpers.training_runs import by_step, compose_config, settings, train
from helpers.watched_steps import ON_DEVICE, NeverWaits, NoWaits, no_waits
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import clip_grad_norm_

from hindsight.config.optim import OptimConfig
from hindsight.config.training import Precision
from hindsight.device import device_of_process
from hindsight.training.attention_kernel import slow_attention
from hindsight.training.optim import build_optimizer, build_scheduler
from hindsight.training.precision import computing_in, is_available, needs_cpu_autocast
from language_model import LanguageModel
from load_text_streaming import count_targets, split_batch

GPTS = [name for name in CONFIGS if name.split("-")[0] in ("gpt2", "llama", "modern")]


@pytest.mark.parametrize("device", ON_DEVICE)
@pytest.mark.parametrize("optim", ["optim.clip=norm", "optim.clip=value", "optim.clip=adaptive"])
@pytest.mark.parametrize("metrics", ["metrics=true", "metrics=false"])
def test_nothing_of_a_runs_step_waits_for_the_device(device, optim, metrics, shards, tmp_path):
    callback = NeverWaits()
    given = ["microbatch_size=4", optim, metrics, "layer_norms=true", "model.dropout=0.1"]
    with one_more(callback), callback.watch:  # which ends with a run that fails too
        run = train(shards, tmp_path, *given)
    assert (callback.n_forward, callback.n_steps) == (12, 6)
    assert len(by_step(run, "train/grad_norm")) == 6


@pytest.mark.parametrize("device", ON_DEVICE)
@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("precision", [Precision.fp32, Precision.bf16], ids=lambda each: each.name)
def test_forward_backward_clipping_and_update_never_wait(kind, precision, device):
    if not is_available(precision):
        pytest.skip("this machine does not support the format")
    where = device_of_process()
    module: Any = build(CONFIGS[kind])
    model = where.module_to_device(
        LanguageModel(module, np.ones(V, np.int64), is_bf16_on_cpu=needs_cpu_autocast(precision))
    )
    config = OptimConfig()
    optimizer = build_optimizer(model, config)
    scheduler = build_scheduler(optimizer, lambda step: 0.1, config)
    ids_BT = torch.randint(0, V, (2, C))
    pinned = {name: ids_BT.pin_memory() if device == "gpu" else ids_BT for name in ("input_ids", "targets")}
    for is_watched in (False, True):  # the first step makes the optimizer's state
        with no_waits() if is_watched else nullcontext():
            batch = where.batch_to_device(pinned)
            with computing_in(precision) if device == "gpu" else nullcontext():
                outputs = model.train()(batch)
            outputs["loss"].backward()
            clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    assert outputs["sums"][2] == 2 * C


def test_a_wait_is_noticed():
    with NoWaits(), pytest.raises(AssertionError, match="waits for the device"):
        float(torch.ones(()))


def test_targets_of_microbatches_are_counted_before_they_are_on_the_device():
    targets_BT = torch.tensor([[1, 2], [3, -100], [-100, -100]])
    batch = {"input_ids": targets_BT.clamp(min=0), "targets": targets_BT}
    parts = split_batch(batch, 2)
    assert [each["n_targets"] for each in parts] == [3, 0]
    assert count_targets(batch) == 3
    assert all(torch.equal(each["targets"], rows) for each, rows in zip(parts, targets_BT.split(2), strict=True))
    with NoWaits():
        assert [count_targets(each) for each in parts] == [3, 0]


@pytest.mark.parametrize("device", ON_DEVICE)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("kind", GPTS)
def test_attention_runs_by_the_flash_kernel(kind, dtype, device):
    if device == "cpu" and dtype is torch.float16:
        pytest.skip("not on a CPU")
    kind_of = "cuda" if device == "gpu" else "cpu"
    config = dataclasses.replace(CONFIGS[kind], d_model=64, context_length=64)  # heads of 16 numbers
    module: Any = build(config)
    model = LanguageModel(module, np.ones(V, np.int64)).to(kind_of).train()
    ids_BT = torch.randint(0, V, (2, 64), device=kind_of)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # no other: an error where it cannot run
        with torch.autocast(kind_of, dtype):
            loss = model({"input_ids": ids_BT, "targets": ids_BT})["loss"]
        loss.backward()
    assert torch.isfinite(loss)


def end_of_200_steps(shards: Path, runs: Path, name: str, *changes: str) -> float:
    common = ["optim.lr=3e-3", "max_duration=200ba", "eval_interval=200ba", "checkpoint.interval=200ba"]
    return by_step(train(shards, runs, *common, f"run_name={name}", *changes), "eval/loss_nats")[200]


@pytest.fixture(scope="module")
def ends_of_fp32(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Validation losses of two seeds."""
    runs = tmp_path_factory.mktemp("fp32")
    return [end_of_200_steps(shards, runs, f"seed{seed}", f"seed={seed}") for seed in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("device", ON_DEVICE)
@pytest.mark.parametrize("change", ["precision=bf16", "precision=fp16", "compile=true"])
def test_200_steps_end_within_the_noise_of_fp32(change, device, shards, tmp_path, ends_of_fp32):
    if change.startswith("precision") and not is_available(Precision[change.removeprefix("precision=")]):
        pytest.skip("this machine does not support the format")
    fp32, other_seed = ends_of_fp32
    noise = min(abs(other_seed - fp32), 0.1)
    assert abs(end_of_200_steps(shards, tmp_path, "changed", change) - fp32) < max(noise, 0.02)


@pytest.mark.parametrize("device", ON_DEVICE)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_reads_the_windows_of_an_uninterrupted_one_in_their_order(workers, device, shards, tmp_path):
    given = [f"data.num_workers={workers}", "optim.schedule=constant", "optim.cooldown_share=0"]

    def inputs(*changes: str) -> dict[int, list[list[int]]]:
        seen = train_recorded(compose_config("train_composer", *settings(shards, tmp_path, *given, *changes)))
        return {step: batch["input_ids"].tolist() for step, batch in seen.items()}

    whole = inputs("run_name=whole", "max_duration=40ba")
    first, second = (inputs("run_name=parts", f"max_duration={steps}ba") for steps in (17, 40))
    assert list(second) == list(range(18, 41))
    assert first | second == whole


@pytest.mark.parametrize("parallelism", ["ddp", "fsdp"])
def test_a_process_that_is_alone_makes_no_process_group(parallelism, shards, tmp_path, caplog):
    if torch.distributed.is_initialized():
        pytest.skip("another test has made one")
    caplog.set_level(logging.INFO, logger="hindsight")
    groups = []

    class Group(Callback):
        def batch_start(self, state: State, logger: Logger) -> None:
            groups.append(torch.distributed.is_initialized())

    with one_more(Group()):
        train(shards, tmp_path, f"parallelism={parallelism}")
    assert groups == [False] * 6
    assert ("note     one process has nothing to divide" in caplog.text) == (parallelism == "fsdp")


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU there may be something to say")
def test_without_a_gpu_nothing_is_said_of_its_kernels(shards, tmp_path):
    assert slow_attention(compose_config("train_composer", *settings(shards, tmp_path, "precision=bf16"))) == []
