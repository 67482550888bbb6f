"""plan.py: what it says of a run is what the built model has, what a step holds in memory, and what a run writes."""

import json
import re
import shutil
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.processes import ROOT, run_command
from helpers.training_runs import by_step, compose_config, last_of_each, records, settings, train
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hindsight import runs
from hindsight.config.model import Activation, Block, Cell, GPTConfig, ModelConfig, RNNConfig
from hindsight.config.optim import OptimConfig, OptimizerName
from hindsight.config.schemas import model_names
from hindsight.config.training import Loss
from hindsight.errors import InputError
from hindsight.fused_cross_entropy import in_chunks
from hindsight.planning.memory import Memory, memory_of
from hindsight.planning.parameters import (
    n_by_muon,
    n_matrices,
    n_parameters,
    n_tensors,
    n_trained,
    parameters_by_part,
)
from hindsight.planning.plan import evaluated_tokens, plan_of
from hindsight.planning.table import duration, table
from hindsight.shown_numbers import short, size
from hindsight.studies.sweep import median_speed
from hindsight.training.course import Course
from hindsight.training.disk import added
from hindsight.training.optim import build_optimizer, freeze
from hindsight.training.setup import check_setup, locate_data
from language_model import LanguageModel, build_model

T = 64
GPT = GPTConfig(name="a", n_layers=3, d_model=64, n_heads=4, context_length=T)
LLAMA = replace(GPT, block=Block.llama, mlp_ratio=2.6667)
MODERN = replace(GPT, block=Block.modern, activation=Activation.relu2, logit_softcap=15.0)
RNN = RNNConfig(name="a", n_layers=3, d_model=64, cell=Cell.gru, context_length=T)
KINDS = {
    "gpt2": GPT,
    "gpt2_tied": replace(GPT, tied_head=True, mlp_ratio=2.3),
    "gpt2_no_bias": replace(GPT, bias=False),
    "llama": LLAMA,
    "llama_bias": replace(LLAMA, bias=True, tied_head=True),
    "llama_grouped": replace(LLAMA, n_kv_heads=2),
    "modern": MODERN,
    "modern_grouped": replace(MODERN, n_kv_heads=2, logit_softcap=None),
    "modern_swiglu": replace(MODERN, activation=Activation.swiglu, bias=True),
    "gru": RNN,
    "lstm_norm": replace(RNN, cell=Cell.lstm, final_norm=True, tied_head=True),
}
PART_OF = {"embedding": "embedding", "positions": "positions", "head": "head", "layers": "recurrent"}
"""Names of the weights that are a part by their first word."""


def plan(*arguments: str) -> dict[str, Any]:
    return plan_of(compose_config("plan", *arguments))


def built_parts(config: ModelConfig, vocab_size: int) -> dict[str, int]:
    """Parameters of a model that is built, by the parts of a plan."""
    with torch.device("meta"):
        module = build_model(config, vocab_size, seed=0)
    found: dict[str, int] = {}
    for name, weight in module.named_parameters():
        words = name.split(".")
        inner = {"attention": "attention", "mlp": "mlp"}.get(words[2] if len(words) > 2 else "", "norms")
        part = PART_OF.get(words[0], inner)
        found[part] = found.get(part, 0) + weight.numel()
    return found


@pytest.mark.parametrize("name", model_names())
def test_parameters_are_those_of_the_built_model_for_every_named_model(name: str):
    config = compose_config("train_composer", "direction=forward", f"model={name}").model
    planned = {part: count for part, count in parameters_by_part(config, 300).items() if count}
    assert planned == built_parts(config, 300)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_and_tensors_are_those_of_the_built_model_with_any_keys(kind: str):
    config = KINDS[kind]
    planned = {part: count for part, count in parameters_by_part(config, 111).items() if count}
    assert planned == built_parts(config, 111)
    assert n_tensors(config, config.parts) == len([*build_model(config, 111, seed=0).parameters()])
    assert parameters_by_part(replace(config, vocab_size=200), 111)["embedding"] == 200 * 64


FREEZES = {
    "gpt2": ["embedding", "blocks.0-1", "positions"],
    "gpt2_tied": ["embedding"],
    "llama_bias": ["blocks.0-2.attention", "blocks.2.mlp_norm", "norm"],
    "llama": ["blocks.0-1.mlp", "head"],
    "modern": ["blocks.0-1.mlp", "blocks.2.attention", "embedding"],
    "lstm_norm": ["layers.0-1"],
    "gru": ["layers.2", "head"],
}


@pytest.mark.parametrize("kind", FREEZES)
def test_what_is_trained_of_a_model_with_frozen_parts_is_what_its_optimizer_has(kind: str):
    config = replace(KINDS[kind], freeze=FREEZES[kind])
    module = build_model(config, 111, seed=0)
    freeze(module, config.frozen)
    trained = [weight for weight in module.parameters() if weight.requires_grad]
    assert n_trained(config, 111) == sum(weight.numel() for weight in trained) < n_parameters(config, 111)
    assert n_tensors(config, config.parts) - n_tensors(config, config.frozen) == len(trained)
    memory = memory_of(config, 111, 2, T, n_devices=2)
    assert memory.gradients == memory.buckets == memory.optimizer // 2 == 4 * n_trained(config, 111)
    assert measured_peak(config, 111, 4, False, False, 1) <= 1.01 * memory_of(config, 111, 4, T).peak
    matrices = build_optimizer(module, OptimConfig(name=OptimizerName.muon)).param_groups[0]["params"]
    by_muon = sum(weight.numel() for weight in matrices)
    assert (n_by_muon(config, 111), n_matrices(config)) == (by_muon, len(matrices))
    assert memory_of(config, 111, 2, T, is_muon=True).optimizer == memory.optimizer - 4 * by_muon


@pytest.mark.parametrize("model", ["gpt_nano", "lstm_small"])
def test_a_checkpoint_of_a_run_by_muon_has_the_size_that_is_planned(shards: Path, tmp_path: Path, model: str):
    given = [f"model={model}", "optim.name=muon", "max_duration=2ba"]
    folder = train(shards, tmp_path, *given, "run_name=a")
    (file,) = (folder / "checkpoints").glob("*.pt")
    found, adamw = (plan(*settings(shards, tmp_path, *keys)) for keys in (given, [given[0], given[2]]))
    assert found["disk"]["checkpoint_bytes"] == pytest.approx(file.stat().st_size, abs=6_000)
    assert found["disk"]["checkpoint_bytes"] < adamw["disk"]["checkpoint_bytes"]
    optimizers = [each["memory"]["bytes_by_part"]["optimizer"] for each in (found, adamw)]
    assert optimizers[0] < optimizers[1]


def test_a_checkpoint_of_a_run_with_frozen_parts_has_the_size_that_is_planned(shards: Path, tmp_path: Path):
    given = ["model.freeze=[embedding,blocks.0]", "max_duration=2ba"]
    folder = train(shards, tmp_path, *given, "run_name=a")
    (file,) = (folder / "checkpoints").glob("*.pt")
    found, whole = (plan(*settings(shards, tmp_path, *keys)) for keys in (given, given[1:]))
    assert found["disk"]["checkpoint_bytes"] == pytest.approx(file.stat().st_size, abs=6_000)
    assert found["disk"]["checkpoint_bytes"] < whole["disk"]["checkpoint_bytes"] - 100_000
    assert found["model"]["trained_parameters"] == runs.read_metadata(folder)["n_trainable_parameters"]
    assert f"{found['model']['trained_parameters']:,} are trained" in table(found)
    assert " are trained" not in table(whole)


class Peak(TorchDispatchMode):
    """Counts the bytes of all tensors that are made inside, and the most that are there at once."""

    def __init__(self, known: list[torch.Tensor]) -> None:
        super().__init__()
        self.living = {weakref.ref(tensor.untyped_storage()) for tensor in known}
        self.now = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.name() == "hindsight::score_chunks":  # an operator, which hides what is in it
            with self:
                result = in_chunks(*args)
        else:
            result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        self.most = max(self.most, self.now)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        n_bytes = storage.nbytes()

        def freed(reference: Any) -> None:
            self.now -= n_bytes
            self.living.discard(reference)

        if weakref.ref(storage) not in self.living:
            self.living.add(weakref.ref(storage, freed))
            self.now += n_bytes


def measured_peak(
    config: ModelConfig,
    vocab_size: int,
    windows: int,
    is_mixed: bool,
    is_checkpointed: bool,
    n_microbatches: int,
    name: OptimizerName = OptimizerName.adamw,
    loss: Loss = Loss.auto,
) -> int:
    """Most bytes of tensors in a training step, weights and optimizer included."""
    module = build_model(config, vocab_size, 0, is_checkpointed)
    freeze(module, config.frozen)
    model = LanguageModel(module, np.ones(vocab_size, np.int64), loss=loss).train()
    optimizer = build_optimizer(module, OptimConfig(name=name))
    batch = dict.fromkeys(("input_ids", "targets"), torch.zeros(windows, T, dtype=torch.int64))

    def step() -> None:
        for _ in range(n_microbatches):
            with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
                loss = model.loss(model(batch), batch)
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()  # the optimizer makes its state
    state = [value for of in optimizer.state.values() for value in of.values()]
    known = [*module.parameters(), *state, *batch.values(), model.bytes_V]
    before = sum(tensor.untyped_storage().nbytes() for tensor in {*module.parameters(), *state})
    with Peak(known) as peak:
        step()
    return before + peak.most


STEPS = [(1500, 4, 1), (300, 8, 2)]
"""Token ids, windows of a microbatch, and microbatches."""
LARGE_STEP = (5000, 16, 1)


@pytest.mark.parametrize("is_checkpointed", [False, True], ids=["stored", "checkpointed"])
@pytest.mark.parametrize("is_mixed", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("loss", [Loss.plain, Loss.chunked])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "llama_grouped", "modern", "modern_grouped", "modern_swiglu", "gru"])
def test_the_memory_of_a_step_is_what_its_tensors_take(kind: str, loss: Loss, is_mixed: bool, is_checkpointed: bool):
    for vocab_size, windows, n_microbatches in [*STEPS, *([LARGE_STEP] if kind in ("gpt2", "modern") else [])]:
        found = measured_peak(KINDS[kind], vocab_size, windows, is_mixed, is_checkpointed, n_microbatches, loss=loss)
        how = {"is_mixed": is_mixed, "is_checkpointed": is_checkpointed, "accumulates": n_microbatches > 1}
        planned = memory_of(KINDS[kind], vocab_size, windows, T, loss=loss, **how).peak
        exact = 0.01 if loss is Loss.plain else 0.03
        assert planned == pytest.approx(found, rel=0.15 if is_checkpointed else 0.05 if is_mixed else exact)


@pytest.mark.parametrize("kind", ["gpt2", "llama_grouped", "gru"])
def test_the_memory_of_a_step_by_muon_is_what_its_tensors_take(kind: str):
    for windows in (1, 4):  # the update takes most, or the loss
        found = measured_peak(KINDS[kind], 300, windows, False, False, 1, OptimizerName.muon, Loss.plain)
        assert memory_of(KINDS[kind], 300, windows, T, is_muon=True, loss=Loss.plain).peak == pytest.approx(
            found, rel=0.02
        )


def test_memory_grows_with_what_it_depends_on():
    def of(windows: int = 4, **how: Any) -> Memory:
        return memory_of(GPT, 300, windows, T, **how)

    assert of(windows=8).activations == 2 * of().activations
    assert of(is_checkpointed=True).activations < of(is_mixed=True).activations < of().activations
    assert of(n_devices=2).peak - of().peak == of().gradients == of().weights
    many, few = (memory_of(GPT, 50257, 64, T, loss=loss).logits for loss in (Loss.plain, Loss.chunked))
    assert few < many / 20
    assert of(accumulates=True).peak - of().peak == of().gradients


def test_steps_and_tokens_are_those_that_training_records(trained: dict[str, Path], shards: Path):
    config = runs.read_config(trained["forward"])
    recorded = runs.read_metadata(trained["forward"])
    found = plan(*settings(shards, trained["forward"].parent, "max_duration=12ba"))
    assert found["model"]["parameters"] == recorded["n_parameters"]
    assert found["model"]["vocab_size"] == recorded["vocab_size"] == 300
    assert found["tokens"]["steps"] == recorded["total_steps"] == 12
    assert found["tokens"]["batch"] == config["batch_size"] * config["data.context_length"]
    epochs = plan(*settings(shards, trained["forward"].parent, "max_duration=3ep"))["tokens"]
    assert epochs["training"] == 3 * json.loads((shards / "manifest.json").read_text())["splits"]["train"]["tokens"]
    both = plan(*settings(shards, trained["forward"].parent, "order=both", "max_duration=3ep"))["tokens"]
    assert both["training"] == 2 * epochs["training"]


def test_the_checkpoints_of_a_run_have_the_size_and_the_number_that_are_planned(trained: dict[str, Path], shards: Path):
    for name, keys in {"forward": [], "gru": ["model=gru_small"]}.items():
        folder = trained[name]
        files = [*(folder / "checkpoints").rglob("*.pt")]
        given = settings(shards, folder.parent, "max_duration=12ba", *keys)
        found = plan(*[each for each in given if name == "forward" or each != "model.n_heads=2"])["disk"]
        for file in files:
            assert found["checkpoint_bytes"] == pytest.approx(file.stat().st_size, abs=6_000)
    given = ["max_duration=12ba", "checkpoint.interval=5ba", "checkpoint.backup_interval=5ba"]
    found = plan(*settings(shards, folder.parent, *given))["disk"]
    kept = [*(trained["forward"] / "checkpoints").glob("*.pt")]
    backups = [*(trained["forward"] / "checkpoints" / "backups").glob("*.pt")]
    assert (found["checkpoints"], found["backups"]) == (len(kept) + 1, len(backups)) == (3, 2)


@pytest.mark.parametrize(
    ("max_duration", "eval_interval", "interval", "backup_interval"),
    [
        ("2ep", "1ep", "1ep", "2ep"),
        ("7ba", "3ba", "1ep", "2ba"),
        ("9ba", "2000tok", "4ba", "5000tok"),
        ("16000tok", "2ep", "3ba", "1ep"),
        ("3ep", "4ba", "100tok", "3ba"),
    ],
)
def test_evaluations_and_checkpoints_are_those_of_a_real_run(
    shards: Path, tmp_path: Path, max_duration: str, eval_interval: str, interval: str, backup_interval: str
):
    given = ["batch_size=64", f"max_duration={max_duration}", f"eval_interval={eval_interval}", "checkpoint.keep=-1"]
    given += [f"checkpoint.interval={interval}", f"checkpoint.backup_interval={backup_interval}", "eval_batches=1"]
    folder = train(shards, tmp_path, *given, "run_name=a")
    config = compose_config("plan", *settings(shards, tmp_path, *given))
    windows = check_setup(config, locate_data(config)).windows
    course = Course.of(max_duration, windows["train"])
    assert 2 < course.epoch_steps < course.steps == len(records(folder))

    def saved_in(place: Path) -> set[int]:
        return {int(file.name.split("-")[1].removeprefix("ba")) for file in place.glob("*.pt")}

    assert course.steps_at(eval_interval, with_last=True) == by_step(folder, "eval/loss_nats").keys()
    assert course.steps_at(interval, eval_interval, with_last=True) == saved_in(folder / "checkpoints")
    assert course.steps_at(backup_interval) == saved_in(folder / "checkpoints" / "backups")
    n_evaluations = len(by_step(folder, "eval/loss_nats"))
    assert evaluated_tokens(config, course, windows["val"], 1) == n_evaluations * windows["val"].batch_tokens
    planned = added(config, course)
    assert planned.most == planned.at_end == len(saved_in(folder / "checkpoints"))
    assert planned.backups == len(saved_in(folder / "checkpoints" / "backups"))


def test_what_happens_at_intervals_happens_as_often_as_in_a_run():
    course = Course(steps=25, epoch_steps=10, epoch_tokens=950, batch_tokens=100)
    assert course.tokens == 950 * 2 + 500
    assert [len(course.steps_at(each)) for each in ("10ba", "1ep", "2ep", "3ep", "950tok", "1tok")] == [
        2,
        2,
        1,
        0,
        2,
        25,
    ]
    assert course.steps_at("1ep", "8ba", with_last=True, after=8) == {10, 16, 20, 24, 25}
    assert course.steps_at("130tok", after=8) == {10, 11, 13, 14, 15, 17, 18, 19, 21, 22, 24, 25}


def test_without_data_a_plan_takes_its_tokens():
    given = ["model=gpt_nano", "data_tokens=1_000_000", "model.vocab_size=512", "max_duration=2ep"]
    found = plan(*given)
    assert found["tokens"]["training"] == 2_000_000
    assert found["flops"]["training"] == 2_000_000 * found["flops"]["per_token"]
    assert found["flops"]["evaluation"] is None
    assert found["time"] is None
    assert found["tokens"]["compute_optimal"] == 20 * found["model"]["parameters"]
    assert plan(*given, "order=both")["tokens"]["training"] == 4_000_000


def test_hours_are_those_of_a_share_of_a_device_and_of_measured_speeds(trained: dict[str, Path]):
    given = ["model=gpt2", "data_tokens=1_000_000_000", "model.vocab_size=50257", "max_duration=1ep"]
    found = plan(*given, "gpu=NVIDIA H100 80GB HBM3", "mfu=0.4", "devices=8")
    assert found["time"]["hours"] == pytest.approx(found["flops"]["training"] / (0.4 * 8 * 989e12) / 3600)
    assert found["time"]["device_hours"] == pytest.approx(8 * found["time"]["hours"])
    assert plan(*given, "peak_tflops=989", "devices=8", "mfu=0.4")["time"]["hours"] == found["time"]["hours"]
    measured = plan(*given, "tokens_per_second=1e6", "gpu=A100")["time"]
    assert measured["training_hours"] == pytest.approx(1e9 / 1e6 / 3600)
    assert measured["mfu"] == pytest.approx(1e6 * found["flops"]["per_token"] / 312e12)


def test_the_speed_of_a_run_counts_as_it_is_or_in_flops(trained: dict[str, Path], shards: Path):
    folder = trained["forward"]
    same = plan(*settings(shards, folder.parent, f"run={folder}"))["time"]
    assert same["tokens_per_second"] == median_speed(folder)
    assert same["by"] == "measured of forward, 1 device"
    given = settings(shards, folder.parent, f"run={folder}", "model.n_layers=4")
    larger = plan(*given)
    ratio = plan(*settings(shards, folder.parent))["flops"]["per_token"] / larger["flops"]["per_token"]
    assert larger["time"]["tokens_per_second"] == pytest.approx(same["tokens_per_second"] * ratio)
    assert larger["time"]["by"] == "the FLOP/s of forward, 1 device, which has other settings"


def edited(run: Path, folder: Path, recorded: str, instead: str) -> Path:
    """Copy a run into a folder, with a key of its recorded configuration as it is given."""
    shutil.copytree(run, folder)
    config = (folder / runs.CONFIG).read_text()
    assert config.count(f"\n{recorded}\n") == 1
    (folder / runs.CONFIG).write_text(config.replace(f"\n{recorded}\n", f"\n{instead}\n"))
    return folder


def test_a_run_that_has_what_the_plan_leaves_null_has_other_settings(
    trained: dict[str, Path], tmp_path: Path, shards: Path
):
    folder = edited(trained["forward"], tmp_path / "parts", "microbatch_size: null", "microbatch_size: 1")
    given = settings(shards, tmp_path, f"run={folder}")
    assert plan(*given)["time"]["by"] == "the FLOP/s of parts, 1 device, which has other settings"
    assert plan(*given, "microbatch_size=1")["time"]["by"] == "measured of parts, 1 device"


def test_a_run_that_is_older_than_loss_has_the_speed_of_plain(trained: dict[str, Path], tmp_path: Path, shards: Path):
    folder = edited(trained["forward"], tmp_path / "older", "loss: auto", "")
    given = settings(shards, tmp_path, f"run={folder}")
    assert plan(*given)["time"]["by"] == "the FLOP/s of older, 1 device, which has other settings"
    assert plan(*given, "loss=plain")["time"]["by"] == "measured of older, 1 device"


def test_the_largest_microbatch_that_fits_is_the_largest():
    given = ["experiment=gpt2", "data_tokens=1_000_000_000", "model.vocab_size=50257", "gpu=A100"]
    largest = plan(*given)["memory"]["largest_microbatch_size"]
    assert plan(*given, f"microbatch_size={largest}")["memory"]["fits"]
    larger = next(size for size in range(largest + 1, 481) if 480 % size == 0)
    assert not plan(*given, f"microbatch_size={larger}")["memory"]["fits"]
    none = plan(*given, "model.n_layers=1000")["memory"]
    assert (none["fits"], none["largest_microbatch_size"]) == (False, None)


def test_one_process_has_nothing_to_divide_and_a_cpu_takes_its_own_chunks_in_bf16_too():
    given = ["experiment=gpt2", "data_tokens=1_000_000_000", "model.vocab_size=50257"]
    assert plan(*given, "parallelism=fsdp")["memory"] == plan(*given)["memory"]
    assert "gathered" in plan(*given, "parallelism=fsdp", "devices=2")["memory"]["bytes_by_part"]
    logits = [
        plan(*given, *format)["memory"]["bytes_by_part"]["logits"]
        for format in (["precision=bf16"], ["precision=fp16"], ["precision=bf16", "gpu=H100"])
    ]
    assert logits[0] < logits[1] == logits[2]


def test_a_run_that_the_disk_has_no_room_for_does_not_fit(shards: Path, tmp_path: Path):
    small = plan(*settings(shards, tmp_path))
    assert small["disk"]["fits"]
    assert "does not fit" not in table(small)
    large = plan("model=gpt2", "data_tokens=1000", "model.vocab_size=9", "model.n_layers=1_000_000", "max_duration=9ep")
    assert large["disk"]["total_bytes"] > large["disk"]["free_bytes"]
    assert not large["disk"]["fits"]
    assert f"\ndisk      does not fit: {size(large['disk']['total_bytes'])} in " in table(large)


def test_seeds_come_from_a_comparison_or_from_a_spread_that_is_given():
    given = ["data_tokens=1_000_000", "model.vocab_size=512", "tokens_per_second=1000", "margin_nats=0.01"]
    found = plan(*given, "std_nats=0.02")
    assert found["seeds"]["seeds"] == 34  # Cohen (1988): an effect of 0.5
    assert found["seeds"]["hours"] == pytest.approx(2 * 34 * found["time"]["hours"])
    stds = [
        group["gap"]["std_nats"]
        for group in json.loads((ROOT / "results/novels/comparison.json").read_text())["groups"]
    ]
    compared = f"comparison={ROOT / 'results' / 'novels'}"
    assert plan(*given, compared)["seeds"]["std_nats"] == max(stds)
    for spread in ("std_nats=0.02", compared):
        alone, with_margin = plan(*given[:-1], spread), plan(*given, spread)
        assert alone["seeds"]["seeds"] is alone["seeds"]["runs"] is None
        assert alone["seeds"]["margin_for_seeds_nats"] == with_margin["seeds"]["margin_for_seeds_nats"]
        assert table(alone).splitlines()[-1].startswith("seeds     of seeds, 3 find ")
    assert "seeds" not in plan(*given[:-1])


def test_weights_to_begin_with_that_are_here_are_looked_at(trained: dict[str, Path], shards: Path, tmp_path: Path):
    found = plan(*settings(shards, tmp_path, f"model.init_from={trained['forward']}"))
    changing = {name: found["disk"][name] for name in ("folder", "free_bytes")}
    assert found["disk"] == plan(*settings(shards, tmp_path))["disk"] | changing
    with pytest.raises(InputError, match=r"model.init_from=/nonexistent does not exist"):
        plan(*settings(shards, tmp_path, "model.init_from=/nonexistent"))
    with pytest.raises(InputError, match=r"is of other sizes than model=gpt_nano; give model.n_layers=2"):
        plan(*settings(shards, tmp_path, f"model.init_from={trained['forward']}", "model.n_layers=3"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data_tokens=1000"], "give model.vocab_size="),
        (["mfu=0.4", "tokens_per_second=10"], "mfu= and tokens_per_second= both say a speed"),
        (["mfu=1.4"], "mfu=1.4 is a share"),
        (["mfu=0.4", "data_tokens=1000", "model.vocab_size=9"], "give gpu= or peak_tflops= too"),
        (["gpu=TPU", "data_tokens=1000", "model.vocab_size=9"], "gpu=TPU is not known; choose one of H100"),
        (["devices=3"], "batch_size=.* does not divide among devices=3"),
        (["margin_nats=0.01"], "margin_nats=0.01 needs std_nats="),
        (["std_nats=0.01", "comparison=a"], "std_nats= and comparison= both say a spread"),
        (["comparison=nowhere", "margin_nats=1", "data_tokens=1000", "model.vocab_size=9"], "nowhere cannot be read"),
        (["run=nowhere", "data_tokens=1000", "model.vocab_size=9"], "run=nowhere does not exist"),
        (["data.path=s3://bucket/data"], "s3://bucket/data is not looked at"),
        (["data.path=nowhere"], "data.path=nowhere has no manifest.json"),
        (["data_tokens=0", "model.vocab_size=9"], "data_tokens=0 must be greater than 0"),
    ],
)
def test_what_a_plan_cannot_be_made_of_is_said_in_a_line(arguments: list[str], message: str):
    with pytest.raises(InputError, match=message):
        plan(*arguments)


def test_the_command_of_the_page_on_scale_gives_its_figures():
    page = " ".join((ROOT / "docs" / "scale.md").read_text(encoding="utf-8").split())
    match = re.search(r"```bash python plan\.py (.*?)```", page)
    assert match is not None
    command = match[1].replace("\\", "").split()

    def of(*changes: str) -> dict[str, Any]:
        return plan(*last_of_each([*command, *changes]))

    found = of()
    speed = found["time"]["tokens_per_second"]
    seconds = found["tokens"]["batch"] / speed
    steps, hours = found["tokens"]["steps"], found["time"]["hours"]
    evaluation_s = 5e9 / (3 * speed)  # a third of the FLOPs of training
    evaluations = len(Course(steps, steps, 5 * 10**11, found["tokens"]["batch"]).steps_at("100ba", with_last=True))
    for words in (
        f"`plan.py` says {steps:,} steps",
        f"{speed / 1e6:.2f} million tokens/s, {hours:.1f} hours, and {seconds:.2f} s a step",
        f"{evaluation_s / 60:.0f} minutes each time;",
        f"the default `eval_interval=100ba` asks for it {evaluations:,} times",
        f"{evaluations * evaluation_s / 86400:.0f} days, for {hours:.0f} hours",
        f"`val_share=0.0001` ({evaluation_s / 100:.0f} s each time)",
        f"{size(found['disk']['checkpoint_bytes'])} each {100 * seconds:.0f} s",
        f"{1e12 / (3600 * hours) / 1e6:.1f} MB/s a node",
        f"a rank needs {round(speed / 64, -3):,.0f} tokens/s",
        f"activations, {size(found['memory']['bytes_by_part']['activations'])} for 16 windows",
    ):
        assert words in page
    for keys in ("microbatch_size=16", "microbatch_size=4", "microbatch_size=16 activation_checkpointing=true"):
        memory = [of(*keys.split(), f"parallelism={each}")["memory"] for each in ("fsdp", "ddp")]
        sizes = [size(each["peak_bytes"]) + ("" if each["fits"] else ", more than 90% of an H100") for each in memory]
        assert f"| `{keys}` | {' | '.join(sizes)} |" in page


def test_numbers_are_short():
    assert [short(each) for each in (0, 7, 9.96, 99.6, 999, 1000, 124_439_808, 2.14e18)] == [
        "0",
        "7",
        "9.96",
        "99.6",
        "999",
        "1.00k",
        "124M",
        "2.14E",
    ]
    assert [size(each) for each in (12, 1.49e9)] == ["12 B", "1.49 GB"]
    assert [duration(each) for each in (0.001, 0.5, 1.5, 100)] == ["4 s", "30 min", "1.5 h", "100.0 h (4.2 days)"]


def test_the_command_prints_a_table_or_json(shards: Path, tmp_path: Path):
    given = [each for each in settings(shards, tmp_path) if not each.startswith("direction=")]
    asked = [*given, "tokens_per_second=100", "margin_nats=0.01", "std_nats=0.01", "gpu=H100"]
    done = run_command("python", "plan.py", *asked, "json=true")
    assert done.returncode == 0, done.stderr
    printed, expected = json.loads(done.stdout), json.loads(json.dumps(plan(*asked)))
    for each in (printed, expected):
        assert each["disk"].pop("free_bytes") > 0
    assert printed == expected
    text = table(plan(*asked))
    for word in ("model ", "tokens ", "compute ", "memory ", "time ", "disk ", "seeds "):
        assert f"\n{word}" in f"\n{text}"
    assert not [*tmp_path.iterdir()]
