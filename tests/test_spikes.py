"""optim.skip_spikes: which steps are left out, and that nothing else changes."""

import logging
import math
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.processes import run_command
from helpers.small_data import convert_config
from helpers.training_runs import by_step, losses, records, settings, train
from safetensors.torch import load_file
from torch import nn

import convert_to_mds
from hindsight.config.optim import OptimConfig, OptimizerName
from hindsight.orders.examples import IGNORED
from hindsight.shards.manifest import Manifest
from hindsight.training.gradient import ClipGradient
from hindsight.training.optim import build_optimizer
from hindsight.training.spikes import FIRST, WINDOW, SkipSpikes, limit_of

STEADY = [1.0, 1.2] * (WINDOW // 2)


class State:
    """What the callback reads of Composer's state."""

    def __init__(self) -> None:
        self.model, self.loss = nn.Linear(3, 2, bias=False), torch.tensor(0.0)
        self.batch = {"targets": torch.tensor([[1, 2, IGNORED], [3, IGNORED, IGNORED]])}
        self.timestamp = SimpleNamespace(batch=0)


def is_made(skip: SkipSpikes, loss: float, norm: float) -> bool:
    """Whether a step with this loss and this norm of the gradient is made."""
    state: Any = State()
    logger: Any = None  # which nobody asks
    skip.gradient.before_train_batch(state, logger)
    skip.before_train_batch(state, logger)
    for offset in (-0.5, 0.5):  # two microbatches
        state.loss = torch.tensor(loss + offset)
        skip.after_loss(state, logger)
    state.model.weight.grad = torch.full((2, 3), norm / math.sqrt(6))
    skip.gradient.after_train_batch(state, logger)
    skip.after_train_batch(state, logger)
    return state.model.weight.grad is not None


def started(deviations: float = 6.0) -> SkipSpikes:
    """After WINDOW steady steps."""
    skip = SkipSpikes(deviations, ClipGradient(1.0), 1)
    assert all(is_made(skip, value, value) for value in STEADY)
    return skip


def test_the_first_steps_are_all_made():
    skip = SkipSpikes(6.0, ClipGradient(None), 1)
    assert all(is_made(skip, value, value) for value in [*STEADY[: FIRST - 1], 1e6])
    assert skip.skipped_steps == 0


def test_a_loss_or_a_gradient_beyond_the_limit_is_left_out_and_one_below_the_mean_never(caplog):
    limit = statistics.fmean(STEADY) + 6 * statistics.stdev(STEADY)
    assert is_made(started(), 0.99 * limit, 0.99 * limit)
    assert is_made(started(), -50.0, 0.0)
    for loss, norm, words in [(1.01 * limit, 1, "its loss 1.7"), (1, 1.01 * limit, "its gradient norm 1.7")]:
        skip = started()
        assert not is_made(skip, loss, norm)
        assert skip.skipped_steps == 1
        assert words in caplog.messages[-1]
        assert "(optim.skip_spikes=6)" in caplog.messages[-1]
    assert len(caplog.messages) == 2


def test_a_spike_hides_no_later_one_and_a_loss_that_rose_for_good_is_made_after_a_while():
    skip = started()
    assert not is_made(skip, 1e9, 1.0)
    assert not is_made(skip, 4.0, 1.0)
    risen = started()
    made = [is_made(risen, 100.0 + 0.1 * (step % 2), 1.0) for step in range(WINDOW)]
    assert made[:3] == [False] * 3
    assert made[WINDOW // 2 :] == [True] * (WINDOW // 2)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_no_spike_and_leaves_no_trace(value):
    skip = started()
    before = skip.state_dict()["recent"].copy()
    assert is_made(skip, value, 1.0)
    assert is_made(skip, 1.0, value)
    assert skip.state_dict() == {"recent": before, "skipped_steps": 0}
    assert limit_of(before["loss"], 6.0) == pytest.approx(statistics.fmean(STEADY) + 6 * statistics.stdev(STEADY))


@pytest.mark.parametrize("name", OptimizerName)
@pytest.mark.parametrize("is_scaled", [False, True], ids=["fp32", "fp16"])
def test_an_optimizer_leaves_a_step_without_gradients_out_also_with_a_scaler(name, is_scaled):
    model = nn.ModuleDict({"blocks": nn.ModuleList([nn.ModuleList([nn.Linear(3, 3)])]), "head": nn.Linear(3, 2)})
    optimizer, scaler = build_optimizer(model, OptimConfig(name=name)), torch.GradScaler("cpu", enabled=is_scaled)

    def step(is_spike: bool) -> list[torch.Tensor]:
        for weight in model.parameters():
            weight.grad = scaler.scale(torch.ones_like(weight))
        scaler.unscale_(optimizer)
        if is_spike:
            for weight in model.parameters():
                weight.grad = None
        scaler.step(optimizer)
        scaler.update()
        kept = [value for state in optimizer.state.values() for value in state.values()]
        return [tensor.detach().clone() for tensor in [*model.parameters(), *kept]]

    first, spike, third = step(is_spike=False), step(is_spike=True), step(is_spike=False)
    assert all(torch.equal(one, other) for one, other in zip(first, spike, strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(spike, third, strict=True))


# --------------------------------------------------------------------------------------------------------------- runs

STEPS, BAD = 90, 80
KEYS = ["batch_size=2", "data.shuffle=false", "optim.lr=0.02", "optim.schedule=constant", "optim.cooldown_share=0"]
FLAT = ["optim.lr=1e-5", "optim.skip_spikes=0.5"]
"""A loss that hardly falls, so that many steps are beyond half a standard deviation."""


@pytest.fixture(scope="module")
def spoilt(corpus: Path, tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of which the windows of step BAD are noise."""
    out = tmp_path_factory.mktemp("spoilt") / "shards"
    convert_to_mds.main(convert_config(corpus, tokenizer_dir, out, hashes=[]))
    manifest = Manifest.load(out)
    begin, noise = 2 * 32 * (BAD - 1), np.random.default_rng(0).integers(150, 300, 2 * 32)
    for path in sorted((out / "train").glob("*.mds")):
        data = bytearray(path.read_bytes())
        tokens = np.frombuffer(data, manifest.dtype, offset=int.from_bytes(data[4:8], "little"))
        inside = tokens[max(begin, 0) :][: min(len(noise), max(len(noise) + begin, 0))]
        inside[:] = noise[: len(inside)]
        noise, begin = noise[len(inside) :], begin - len(tokens)
        path.write_bytes(data)
    assert not len(noise)
    return out


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_step_on_noise_is_left_out_of_a_run_and_says_so(spoilt, tmp_path, caplog, name):
    caplog.set_level(logging.WARNING)
    keys = [*KEYS, f"optim.name={name}", "layer_norms=true", f"max_duration={STEPS}ba"]
    plain = train(spoilt, tmp_path, *keys, "run_name=plain")
    skipping = train(spoilt, tmp_path, *keys, "run_name=skipping", "optim.skip_spikes=6")
    (told,) = [message for message in caplog.messages if "left out" in message]
    assert told.startswith(f"step {BAD} is left out: its loss ")
    assert [line["step"] for line in records(skipping)] == [*range(1, STEPS + 1)]
    assert [line["tokens"] for line in records(skipping)] == [line["tokens"] for line in records(plain)]
    assert by_step(skipping, "train/lr") == by_step(plain, "train/lr")
    assert by_step(skipping, "train/skipped_steps") == {step: step >= BAD for step in range(1, STEPS + 1)}
    assert not by_step(plain, "train/skipped_steps")
    weight = "train/weight_norm/blocks.0.mlp.up.weight"
    norms, others = by_step(skipping, weight), by_step(plain, weight)
    assert norms[BAD] == norms[BAD + 1], "the norms are those before the update of a step"
    assert others[BAD] != others[BAD + 1]
    before = {step: loss for step, loss in by_step(skipping).items() if step <= BAD}
    assert before == {step: loss for step, loss in by_step(plain).items() if step <= BAD}
    assert by_step(skipping)[BAD + 1] != by_step(plain)[BAD + 1]


def test_a_limit_that_is_never_reached_changes_nothing(shards, tmp_path):
    keys = [*KEYS, "max_duration=70ba"]
    skipping = train(shards, tmp_path, *keys, "optim.skip_spikes=1e6", "run_name=a")
    assert losses(skipping) == losses(train(shards, tmp_path, *keys))


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_resumed_run_leaves_out_the_same_steps_and_has_bit_for_bit_the_losses(shards, tmp_path, name):
    keys = [*KEYS, *FLAT, f"optim.name={name}", "model.dropout=0.1", "eval_interval=40ba"]
    whole = train(shards, tmp_path, *keys, "run_name=whole", "max_duration=120ba")
    train(shards, tmp_path, *keys, "run_name=parts", "max_duration=80ba")
    parts = train(shards, tmp_path, *keys, "run_name=parts", "max_duration=120ba")
    skipped = by_step(whole, "train/skipped_steps")
    assert 0 < skipped[80] < skipped[120]
    assert by_step(parts, "train/skipped_steps") == skipped
    assert losses(parts) == losses(whole)
    one, other = (load_file(run / "model.safetensors") for run in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_loss_that_is_nan_still_stops_the_run(shards, tmp_path):
    keys = [*KEYS[:2], "optim.lr=1e30", "optim.grad_clip=null", "optim.skip_spikes=1", "max_duration=90ba"]
    with pytest.raises(FloatingPointError, match="nothing of it was saved"):
        train(shards, tmp_path, *keys)


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize("parallelism", ["ddp", "fsdp"])
def test_two_processes_leave_out_the_steps_of_one(shards, tmp_path, parallelism):
    keys = [*KEYS, *FLAT, "max_duration=90ba"]
    one = train(shards, tmp_path, *keys, "run_name=one")
    given = settings(shards, tmp_path, *keys, "run_name=two", f"parallelism={parallelism}")
    done = run_command("composer", "-n", "2", "train_composer.py", *given)
    assert done.returncode == 0, done.stdout + done.stderr
    skipped = by_step(one, "train/skipped_steps")
    assert skipped[90] > 0
    assert by_step(tmp_path / "two", "train/skipped_steps") == skipped
    assert [*by_step(tmp_path / "two").values()] == pytest.approx([*by_step(one).values()], rel=2e-4)
