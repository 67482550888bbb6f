from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from composer.devices import DeviceGPU
from helpers.processes import run_command
from helpers.token_runs import score
from helpers.training_runs import by_step, compose_config, settings, train

from hindsight.errors import InputError
from hindsight.training.attention_kernel import slow_attention

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


def final_loss(shards: Path, runs: Path, name: str, *changes: str) -> float:
    run = train(shards, runs, "direction=backward", f"run_name={name}", "max_duration=60ba", *changes)
    return by_step(run, "eval/loss_nats")[60]


def allowed_tf32() -> list[bool]:
    return [torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32]


@pytest.mark.parametrize("model", ["gpt_nano", "lstm_small"])
def test_float32_is_never_computed_in_tf32(model, shards, tmp_path):
    given = ["run_name=a", f"model={model}", "precision=fp32", "max_duration=2ba"]
    DeviceGPU(allow_tf32=True)
    run = train(shards, tmp_path, *given)
    assert allowed_tf32() == [False, False]
    train(shards, tmp_path, *given, "max_duration=4ba")  # Composer loads a checkpoint
    assert allowed_tf32() == [False, False]
    DeviceGPU(allow_tf32=True)
    score(run, tmp_path / "a.parquet")
    assert allowed_tf32() == [False, False]
    a, b = torch.randn(2, 256, 256, device="cuda")
    torch.testing.assert_close(a @ b, (a.double() @ b.double()).float(), rtol=1e-4, atol=1e-4)  # TF32: about 1e-2


def test_mixed_precision_and_compile_end_near_the_loss_of_fp32(shards, tmp_path):
    changes = ["optim.lr=0.01"]
    fp32 = final_loss(shards, tmp_path, "fp32", *changes)
    for name, change in {"bf16": "precision=bf16", "fp16": "precision=fp16", "compiled": "compile=true"}.items():
        assert final_loss(shards, tmp_path, name, *changes, change) == pytest.approx(fp32, abs=0.05)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_muon_and_left_out_steps_go_with_every_precision(shards, tmp_path, precision):
    changes = ["optim.name=muon", "optim.lr=0.01", f"precision={precision}"]
    plain = final_loss(shards, tmp_path, "plain", *changes)
    assert plain < 4
    assert final_loss(shards, tmp_path, "never", *changes, "optim.skip_spikes=1e6") == pytest.approx(plain, abs=0.01)
    run = train(
        shards, tmp_path, *changes, "run_name=skipping", "max_duration=90ba", "optim.lr=1e-5", "optim.skip_spikes=0.5"
    )
    assert by_step(run, "train/skipped_steps")[90] > 0


def test_a_resumed_run_on_a_gpu_has_the_evaluation_of_an_uninterrupted_one(shards, tmp_path):
    changes = ["model.dropout=0.2", "checkpoint.interval=25ba", "optim.schedule=constant", "optim.cooldown_share=0"]
    whole = final_loss(shards, tmp_path, "whole", *changes)
    final_loss(shards, tmp_path, "parts", *changes, "max_duration=25ba")
    assert final_loss(shards, tmp_path, "parts", *changes) == pytest.approx(whole, rel=1e-6)


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("parallelism", ["ddp", "fsdp"])
def test_two_gpus_have_the_losses_of_one_by_nccl(parallelism, shards, tmp_path):
    one = train(shards, tmp_path, "run_name=one")
    given = settings(shards, tmp_path, "run_name=two", f"parallelism={parallelism}")
    done = run_command("composer", "-n", "2", "train_composer.py", *given)
    assert done.returncode == 0, done.stderr
    for key in ("train/loss_nats", "eval/loss_nats"):
        assert [*by_step(tmp_path / "two", key).values()] == pytest.approx([*by_step(one, key).values()], rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "is_told"),
    [
        (["precision=bf16"], False),
        (["precision=bf16", "model.d_model=640"], True),  # heads of 320 numbers
        (["precision=fp32", "model.d_model=640"], False),
        (["precision=bf16", "model.d_model=640", "document_mask=true"], False),
    ],
)
def test_a_run_is_told_where_flash_attention_cannot_run(changes, is_told, shards, tmp_path):
    config = compose_config("train_composer", *settings(shards, tmp_path, *changes))
    assert [("slower kernel" in line, "heads of 320" in line) for line in slow_attention(config)] == [
        (True, True)
    ] * is_told


@pytest.mark.dist
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_two_gpus_with_a_part_of_the_weights_each_train_as_one(shards, tmp_path, precision):
    given = ["direction=forward", "max_duration=20ba", "optim.lr=0.01", f"precision={precision}"]
    one = train(shards, tmp_path, "run_name=one", *given)
    two = settings(shards, tmp_path, "run_name=two", *given, "parallelism=fsdp")
    done = run_command("composer", "-n", "2", "train_composer.py", *two)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [*by_step(tmp_path / "two").values()] == pytest.approx([*by_step(one).values()], rel=5e-3)


@contextmanager
def one_gib() -> Iterator[None]:
    """Leave one GiB of the GPU's memory to this process."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(2**30 / torch.cuda.get_device_properties(0).total_memory)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.filterwarnings("ignore:CUDA out of memory:RuntimeWarning")
def test_auto_finds_a_microbatch_that_fits_and_changes_no_loss(shards, tmp_path):
    given = ["direction=forward", "max_duration=5ba", "batch_size=448", "model.d_model=256", "model.n_layers=8"]
    expected = by_step(train(shards, tmp_path, "run_name=given", *given, "microbatch_size=14"))
    with one_gib():
        found = by_step(train(shards, tmp_path, "run_name=auto", *given, "microbatch_size=auto"))
    assert [*found.values()] == pytest.approx([*expected.values()], rel=1e-4)


def test_auto_refuses_a_model_whose_optimizer_has_no_room(shards, tmp_path):
    given = ["direction=forward", "model.d_model=1024", "model.n_layers=8"]  # 400 MB of weights, and three times more
    with one_gib(), pytest.raises(InputError, match="has no room for this model's weights"):
        train(shards, tmp_path, *given, "microbatch_size=auto")
