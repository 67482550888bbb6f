"""microbatch_size=auto: a step that is made again counts once. Composer's own loop runs, memory seems to run out."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from composer import Evaluator, Trainer
from composer.core import DataSpec, State
from composer.loggers import Logger, LoggerDestination
from helpers.training_runs import compose_config
from torch import Tensor
from torch.utils.data import DataLoader

from hindsight.config.model import GPTConfig
from hindsight.config.optim import OptimConfig
from hindsight.device import device_of_process
from hindsight.errors import InputError
from hindsight.planning.plan import plan_of
from hindsight.training.gradient import ClipGradient
from hindsight.training.microbatches import AutoMicrobatch, allocate_state, check_microbatch, device_microbatch
from hindsight.training.optim import build_optimizer, freeze
from language_model import LanguageModel, build_model
from load_text_streaming import count_targets
from logging_composer import TrainMetrics

GPT = GPTConfig(name="a", n_layers=1, d_model=16, n_heads=2, context_length=8, dropout=0.2)
B, T, V, ROOM, STEPS = 8, 8, 30, 2, 3
UNMEASURED = ("train/tokens_per_second", "train/peak_memory_mib")


class Model(LanguageModel):
    """A model that seems to have no room for more than ROOM windows: it fails at once, or in its second microbatch."""

    last_rows = failures = 0

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        outputs = super().forward(batch)
        rows = len(batch["targets"])
        if self.training and rows > ROOM and (rows == B or self.last_rows == rows):
            self.failures += 1
            self.last_rows = 0
            raise RuntimeError("CUDA out of memory, says a test.")
        self.last_rows = rows
        return outputs


class Logged(LoggerDestination):
    """Keeps what is logged of each step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.trainer: Trainer | None = None

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if "train/loss_nats" in metrics:
            self.steps.append({key: value for key, value in metrics.items() if key not in UNMEASURED})

    def batch_end(self, state: State, logger: Logger) -> None:
        assert math.isfinite(self.steps[-1]["train/grad_norm"])
        if self.trainer is not None:  # as after two steps in which the allocator freed its cache
            self.trainer.num_consecutive_thrashes = 2


def train(
    microbatch_size: int, is_auto: bool, epochs: int = 1, load_path: Path | None = None
) -> tuple[Model, list[dict[str, float]], Trainer]:
    config = OptimConfig(lr=0.01, grad_clip=0.1, warmup_steps=0)
    model = Model(build_model(GPT, V, seed=1), np.ones(V, np.int64))
    tokens = torch.randint(V, (2 * STEPS * B, T), generator=torch.Generator().manual_seed(2))
    rows: Any = [{"input_ids": row, "targets": row} for row in tokens]
    loaders = [
        DataSpec(DataLoader(part, batch_size=B), get_num_tokens_in_batch=count_targets)
        for part in (rows[: STEPS * B], rows[STEPS * B :])
    ]
    gradient, logged = ClipGradient(config.grad_clip), Logged()
    auto = AutoMicrobatch(compose_config("train_composer", "direction=forward", "model=gpt_nano"))
    trainer = Trainer(
        model=model,
        train_dataloader=loaders[0],
        eval_dataloader=Evaluator(label="eval", dataloader=loaders[1], eval_interval=f"{STEPS}ba"),
        optimizers=build_optimizer(model.module, config),
        max_duration=f"{epochs * STEPS}ba",
        load_path=None if load_path is None else str(load_path),
        device_train_microbatch_size=microbatch_size,
        accumulate_train_batch_on_tokens=True,
        seed=3,
        callbacks=[*([auto] if is_auto else []), gradient, TrainMetrics(gradient, 1)],
        loggers=[logged],
        progress_bar=False,
        auto_log_hparams=False,
    )
    if is_auto:  # Composer refuses "auto" without a GPU; all that it does when memory runs out is the same
        auto.trainer = logged.trainer = trainer
        trainer.state.auto_microbatching = True
    trainer.fit()
    return model, logged.steps, trainer


def test_a_step_that_ran_out_of_memory_is_made_again_as_if_it_had_not(recwarn):
    _, expected, _ = train(ROOM, is_auto=False)
    model, found, trainer = train(B, is_auto=True)
    decreased = [
        str(warning.message).split("decreased from ")[-1] for warning in recwarn if "CUDA" in str(warning.message)
    ]
    assert decreased == ["8 -> 4.", "4 -> 2."]
    assert model.failures == 2
    assert found == expected, "losses, gradients and sums are those of a run with the size that was found"
    assert len(found) == STEPS
    assert [evaluator.device_eval_microbatch_size for evaluator in trainer.state.evaluators] == [ROOM]


@pytest.mark.filterwarnings("ignore:CUDA out of memory")
def test_a_resume_goes_on_with_the_size_that_was_found(tmp_path):
    path = tmp_path / "saved.pt"
    _, _, trainer = train(B, is_auto=True)
    trainer.save_checkpoint(str(path))
    model, steps, trainer = train(B, is_auto=True, epochs=2, load_path=path)
    assert (model.failures, trainer.state.device_train_microbatch_size, len(steps)) == (0, ROOM, STEPS)
    _, expected, _ = train(ROOM, is_auto=False, epochs=2, load_path=path)
    assert steps == expected
    _, _, trainer = train(1, is_auto=True, epochs=2, load_path=path)
    assert trainer.state.device_train_microbatch_size == 1, "a device has fewer windows now"


class Crowded(torch.optim.AdamW):
    """A device that seems to be full once weights and gradients are on it."""

    def step(self, closure: Any = None) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory, says a test.")


@pytest.mark.parametrize("frozen", [False, True])
def test_the_state_of_an_optimizer_is_allocated_before_its_first_step_and_changes_no_bit(frozen):
    def updates(is_allocated: bool) -> tuple[list[Tensor], list[Any]]:
        module = build_model(GPT, V, seed=1).eval()  # without dropout
        freeze(module, ["blocks.0"] if frozen else [])
        before = [weight.clone() for weight in module.parameters()]
        optimizer = build_optimizer(module, OptimConfig(lr=0.01))
        if is_allocated:
            allocate_state(optimizer)
            trained = [weight for weight in module.parameters() if weight.requires_grad]
            assert {*optimizer.state} == {*trained}
            assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
            assert all(weight.grad is None for weight in trained)
            assert not any(value.any() for of_weight in optimizer.state.values() for value in of_weight.values())
        for _ in range(2):
            optimizer.zero_grad()
            module(torch.arange(T)[None]).logsumexp(-1).sum().backward()
            optimizer.step()
        allocate_state(optimizer)  # does nothing: there is a state
        return [*module.parameters()], [optimizer.state_dict()["param_groups"], optimizer.state_dict()["state"]]

    (one, (groups, state)), (other, (other_groups, other_state)) = updates(True), updates(False)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert groups == other_groups
    assert state.keys() == other_state.keys()
    assert all(torch.equal(state[i][name], other_state[i][name]) for i in state for name in state[i])


def test_where_there_is_no_room_for_the_state_the_run_is_refused_with_the_ways_out():
    model = build_model(GPT, V, seed=1)
    state = State(
        model=LanguageModel(model, np.ones(V, np.int64)),
        rank_zero_seed=0,
        run_name="a",
        device=device_of_process(),
        optimizers=Crowded(model.parameters()),
    )
    auto = AutoMicrobatch(compose_config("train_composer", "direction=forward", "model=gpt_nano"))
    with pytest.raises(InputError, match=r"no room for this model.*smaller model.*parallelism=fsdp.*plan.py"):
        auto.fit_start(state, Logger(state))


def test_auto_needs_a_gpu_and_a_number_is_at_most_the_batch():
    given = ["direction=forward", "model=gpt_nano", "batch_size=8"]
    auto = compose_config("train_composer", *given, "microbatch_size=auto")
    assert (auto.windows_at_once, device_microbatch(auto)) == (None, "auto")
    check_microbatch(auto, has_gpu=True)
    with pytest.raises(InputError, match=r"microbatch_size=auto needs a GPU.*leave it null"):
        check_microbatch(auto, has_gpu=False)
    assert device_microbatch(compose_config("train_composer", *given, "microbatch_size=90")) == 8
    assert device_microbatch(compose_config("train_composer", *given)) is None


def test_a_plan_with_auto_halves_the_microbatch_until_it_fits():
    given = ["experiment=gpt2", "data_tokens=1_000_000_000", "model.vocab_size=50257", "batch_size=512"]
    whole = plan_of(compose_config("plan", *given, "microbatch_size=auto"))["memory"]
    assert whole["microbatch_size"] == 512
    memory = plan_of(compose_config("plan", *given, "microbatch_size=auto", "gpu=A100"))["memory"]
    assert memory["fits"]
    twice = plan_of(compose_config("plan", *given, f"microbatch_size={2 * memory['microbatch_size']}", "gpu=A100"))
    assert not twice["memory"]["fits"]
