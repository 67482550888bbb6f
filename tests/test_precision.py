from pathlib import Path

import pytest
import torch
from helpers.token_runs import score
from helpers.training_runs import by_step, compose_config, losses, settings, train
from safetensors.torch import load_file

import train_composer
from hindsight.config.training import Precision
from hindsight.errors import InputError
from hindsight.machine import processor_flags
from hindsight.training import precision
from hindsight.training.precision import check_precision, is_available

HAS_GPU = torch.cuda.is_available()
of_a_processor = pytest.mark.skipif(HAS_GPU, reason="the GPU of this machine supports every format, whatever its flags")
needs_bf16 = pytest.mark.skipif(not is_available(Precision.bf16), reason="this machine does not support the format")
KINDS = {
    "gpt": [],
    "llama": ["model.block=llama"],
    "capped": ["model.block=modern", "model.logit_softcap=2"],
    "gru": ["model=gru_small"],
    "lstm": ["model=lstm_small"],
}


def train_kind(kind: str, shards: Path, runs: Path, *changes: str) -> Path:
    """A run of a kind of model, named by the first change."""
    name = changes[0].replace("=", "-")
    given = settings(shards, runs, *KINDS[kind], f"run_name={name}", "optim.lr=3e-3", *changes)
    train_composer.main(compose_config("train_composer", *given))
    return runs / name


@of_a_processor
@pytest.mark.parametrize(
    ("flags", "asked", "words"),
    [
        ({"avx2"}, "bf16", ["precision=bf16 needs a GPU", "amx_bf16 or avx512_bf16", "use precision=fp32 here"]),
        ({"avx2"}, "fp16", ["precision=fp16 needs a GPU", "use precision=fp32 here"]),
        ({"amx_bf16"}, "fp16", ["precision=fp16 needs a GPU", "use precision=bf16 or fp32 here"]),
    ],
)
def test_a_number_format_that_this_machine_does_not_support_is_refused(monkeypatch, flags, asked, words):
    monkeypatch.setattr(precision, "processor_flags", lambda: flags)  # those of another processor
    with pytest.raises(InputError) as refused:
        check_precision(Precision[asked])
    assert all(word in str(refused.value) for word in words)
    assert not is_available(Precision[asked])


@of_a_processor
@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16"])
def test_bf16_runs_on_a_processor_that_multiplies_it(monkeypatch, flag):
    monkeypatch.setattr(precision, "processor_flags", lambda: {"avx2", flag})  # those of another processor
    check_precision(Precision.bf16)


def test_the_flags_of_this_processor_are_read():
    listed = Path("/proc/cpuinfo")
    if not listed.exists() or "\nflags" not in listed.read_text():
        pytest.skip("no x86 Linux")
    assert "sse2" in processor_flags()


@needs_bf16
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_in_bf16_ends_near_the_loss_of_fp32_and_keeps_its_weights_in_fp32(kind, shards, tmp_path):
    fp32 = train_kind(kind, shards, tmp_path, "precision=fp32", "max_duration=20ba")
    bf16 = train_kind(kind, shards, tmp_path, "precision=bf16", "max_duration=20ba")
    for key in ("train/loss_nats", "eval/loss_nats"):
        one, other = by_step(fp32, key), by_step(bf16, key)
        assert one != other
        assert [*other.values()] == pytest.approx([*one.values()], abs=0.02)
        assert one.keys() == other.keys()
    assert {weight.dtype for weight in load_file(bf16 / "model.safetensors").values()} == {torch.float32}


@needs_bf16
@pytest.mark.skipif(HAS_GPU, reason="a run takes the GPU, whose sums are not bit for bit the same")
def test_a_run_in_bf16_goes_on_bit_for_bit(shards, tmp_path):
    changes = ["precision=bf16", "model.dropout=0.2", "max_duration=6ba", "optim.schedule=constant"]
    changes += ["optim.cooldown_share=0", "checkpoint.interval=3ba"]
    whole = train(shards, tmp_path, *changes, "run_name=whole")
    train(shards, tmp_path, *changes, "run_name=parts", "max_duration=3ba")
    parts = train(shards, tmp_path, *changes, "run_name=parts")
    assert [line for line in losses(parts) if line.step != 3] == [line for line in losses(whole) if line.step != 3]
    one, other = load_file(whole / "model.safetensors"), load_file(parts / "model.safetensors")
    assert all(torch.equal(one[name], other[name]) for name in one)


@needs_bf16
@pytest.mark.parametrize("kind", ["gpt", "capped", "lstm"])
def test_losses_by_token_are_computed_in_the_format_of_the_run(kind, shards, tmp_path):
    run = train_kind(kind, shards, tmp_path, "precision=bf16")
    nats = {}
    for given in ("null", "bf16", "fp32"):
        file = score(run, tmp_path / f"{given}.parquet", f"precision={given}")
        assert file.metadata["precision"] == given.replace("null", "bf16")
        nats[given] = file.metadata["sums"]["nats"] / file.rows
    assert nats["null"] == nats["bf16"] == pytest.approx(by_step(run, "eval/loss_nats")[6], rel=1e-7)
    assert nats["fp32"] != nats["bf16"]
    assert nats["fp32"] == pytest.approx(nats["bf16"], abs=0.01)
