import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
import wandb
from composer.utils import dist
from helpers.processes import ROOT, run_command
from helpers.small_data import convert_config
from helpers.training_runs import TINY, by_step, compose_config, records, settings, train
from omegaconf import OmegaConf
from safetensors.torch import load_file

import convert_to_mds
import train_composer
import train_tokenizer
from hindsight.config.direction import Direction
from hindsight.config.tokenizer import TokenizerConfig
from hindsight.device import device_of_process
from hindsight.errors import InputError
from hindsight.orders.examples import IGNORED
from hindsight.training.checkpoint_files import checkpoints_in, outdated
from hindsight.training.run_folder import open_run
from language_model import build_model
from load_text_streaming import TextStreamingDataset, build_dataset, build_loader, build_loaders
from loss_utils import nats_to_bits
from train_composer import build_language_model, build_trainer, prepare

DROPOUT = ["model.dropout=0.2", "model.embedding_dropout=0.1"]


def test_a_run_leaves_its_config_metrics_metadata_samples_and_checkpoints(shards, tmp_path):
    folder = train(shards, tmp_path, "eval_interval=3ba", "checkpoint.interval=2ba", "samples.interval=4ba")
    assert folder.name == "gpt_nano-l2-d24-ctx64-h2-t32-shards-forward-seed0"
    config = OmegaConf.load(folder / "config.yaml")
    assert config.direction == "forward"
    assert config.data.context_length == 32
    assert config.optim.lr == 6e-4
    assert config.run_name == folder.name
    lines = records(folder)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["tokens"] for line in lines] == [256 * step for step in range(1, 7)]
    keys = {"loss_nats", "perplexity", "accuracy", "bits_per_byte"}
    assert all({f"train/{key}" for key in keys} <= line.keys() for line in lines)
    assert all({"seconds", "train/lr", "train/grad_norm", "train/tokens_per_second"} <= line.keys() for line in lines)
    assert [line["step"] for line in lines if {f"eval/{key}" for key in keys} <= line.keys()] == [3, 6]
    assert lines[0]["train/lr"] == 0.0
    assert lines[1]["train/lr"] == pytest.approx(3e-4)
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata["n_parameters"] == sum(p.numel() for p in nano(300).parameters())
    assert metadata["versions"]["torch"] == torch.__version__.split("+")[0]
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert [sample["step"] for sample in samples] == [4, 6]
    assert all(sample["text"].startswith(sample["prompt"]) for sample in samples)
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names == ["ep0-ba4-rank0.pt", "ep0-ba6-rank0.pt"]


def nano(vocab_size: int) -> torch.nn.Module:
    return build_model(compose_config("train_composer", "direction=forward", *TINY).model, vocab_size, seed=0)


def test_a_backward_models_samples_are_in_reading_order_with_the_prompt_at_their_end(shards, tmp_path):
    folder = train(shards, tmp_path, "direction=backward", "samples.interval=6ba", "samples.prompts=[rivers ran]")
    (sample,) = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert sample["text"].endswith("rivers ran")
    assert len(sample["text"]) > len("rivers ran")


@pytest.mark.parametrize("direction", Direction)
def test_the_model_learns_well_below_the_unigram_entropy(shards, tmp_path, direction):
    folder = train(
        shards, tmp_path, f"direction={direction.name}", "max_duration=8ep", "optim.lr=0.01", "eval_interval=8ep"
    )
    metadata = json.loads((folder / "metadata.json").read_text())
    assert records(folder)[-1]["eval/loss_nats"] < metadata["val_unigram_entropy_nats"] - 1


def test_a_pair_starts_from_the_same_weights_and_sees_the_same_windows(shards, tmp_path):
    pair = {}
    for direction in ("forward", "backward"):
        config = compose_config("train_composer", *settings(shards, tmp_path, f"direction={direction}", "seed=3"))
        dist.initialize_dist(device_of_process())
        setup = prepare(config)
        loader = build_loader(build_dataset(setup, "train", True), setup.order, setup.tokenizer.bos_id, 0, config.seed)
        targets = torch.cat([batch["targets"] for batch in loader.dataloader])
        weights = build_model(config.model, 300, config.seed).state_dict()
        pair[direction] = weights, targets.sort(dim=1).values
    assert all(torch.equal(pair["forward"][0][name], pair["backward"][0][name]) for name in pair["forward"][0])
    assert torch.equal(pair["forward"][1], pair["backward"][1])


def test_training_is_shuffled_by_the_seed_and_validation_never(shards, tmp_path):
    first = {}
    for changes in (["seed=3"], ["seed=4"], ["seed=3", "data.shuffle=false"]):
        config = compose_config("train_composer", *settings(shards, tmp_path, *changes))
        setup = prepare(replace(config, run_name="_".join(changes)))
        model = build_language_model(setup)
        trainer, _ = build_trainer(open_run(setup, model), model)
        assert trainer.state.dataloader is not None
        evaluated = next(iter(trainer.state.evaluators[0].dataloader.dataloader))["targets"]
        first[changes[-1]] = next(iter(trainer.state.dataloader))["targets"], evaluated
        trainer.close()
    assert not torch.equal(first["seed=3"][0], first["seed=4"][0])
    in_order = first["data.shuffle=false"][0]
    assert not torch.equal(first["seed=3"][0], in_order)
    reading_order = prepare(compose_config("train_composer", *settings(shards, tmp_path)))
    dataset = build_dataset(reading_order, "val", shuffle=False)
    expected = torch.stack([torch.from_numpy(dataset.get_item(i)["tokens"].astype(np.int64)) for i in range(8)])
    assert all(torch.equal(evaluated, expected) for _, evaluated in first.values())


@pytest.mark.parametrize("num_workers", [0, pytest.param(1, marks=pytest.mark.dist)])
def test_runs_of_one_process_give_their_descriptors_back(shards, tmp_path, num_workers):
    """As those of a sweep: 150 of them must do with the 1024 that a process may have."""
    count, more = [], [f"data.num_workers={num_workers}", "tensorboard=true", "max_duration=1ba", "eval_batches=1"]
    for number in range(4):
        train(shards, tmp_path, f"run_name={number}", *more)
        count.append(len(os.listdir("/proc/self/fd")))
    assert max(count[1:]) <= count[0]


def test_the_gradient_is_clipped_on_demand(shards, tmp_path):
    clipped = by_step(train(shards, tmp_path, "run_name=a", "optim.grad_clip=1e-7", "optim.eps=1e-3"))
    free = by_step(train(shards, tmp_path, "run_name=b", "optim.grad_clip=null", "optim.eps=1e-3"))
    assert clipped[1] == free[1]
    assert clipped[6] > free[6]


@pytest.mark.parametrize("direction", Direction)
def test_clipping_of_every_kind_and_norms_of_every_weight_on_demand(shards, tmp_path, direction):
    common = ["max_duration=3ba", "optim.eps=1e-3", "layer_norms=true", f"direction={direction.name}"]
    found = []
    for kind, limit in (("norm", 1e-3), ("value", 1e-4), ("adaptive", 1e-4)):
        folder = train(shards, tmp_path, *common, f"run_name={kind}", f"optim.clip={kind}", f"optim.grad_clip={limit}")
        line, names = records(folder)[-1], load_file(folder / "model.safetensors").keys()
        assert {f"train/weight_norm/{name}" for name in names} <= line.keys()
        clipped = math.sqrt(sum(line[f"train/grad_norm/{name}"] ** 2 for name in names))
        assert 0 < clipped < line["train/grad_norm"]
        found.append(clipped)
    assert found[0] == pytest.approx(1e-3, rel=1e-3)
    assert len(set(found)) == 3
    assert "train/weight_norm/norm.weight" not in records(train(shards, tmp_path, "run_name=plain"))[-1]


def test_samples_after_the_checkpoint_are_dropped_at_a_resume(shards, tmp_path):
    folder = train(shards, tmp_path, "run_name=a", "max_duration=2ba", "samples.interval=2ba")
    with (folder / "samples.jsonl").open("a") as file:
        file.write(json.dumps({"step": 3, "prompt": "", "text": "lost"}) + "\n")
    train(shards, tmp_path, "run_name=a", "max_duration=4ba", "samples.interval=2ba")
    assert [json.loads(line)["step"] for line in (folder / "samples.jsonl").read_text().splitlines()] == [2, 4]


def test_the_evaluation_is_the_sum_over_the_whole_set_whatever_the_batches(shards, tmp_path):
    whole = train(shards, tmp_path, "run_name=a", "max_duration=1ba", "optim.warmup_steps=1")
    pieces = train(shards, tmp_path, "run_name=b", "max_duration=1ba", "optim.warmup_steps=1", "microbatch_size=3")
    config = compose_config("train_composer", *settings(shards, tmp_path))
    setup = prepare(config)
    module = nano(300)  # a warm-up from 0 leaves the weights as they were in the first step
    nats, size, hits, count = 0.0, 0, 0, 0
    loader = build_loader(build_dataset(setup, "val", False), setup.order, setup.tokenizer.bos_id, 0, 0)
    with torch.no_grad():
        for batch in loader.dataloader:
            keep = batch["targets"] != IGNORED
            logits = module(batch["input_ids"])[keep].double()
            targets = batch["targets"][keep]
            nats += -logits.log_softmax(-1).gather(1, targets[:, None]).sum().item()
            hits += (logits.argmax(-1) == targets).sum().item()
            size += int(setup.tokenizer.bytes_per_token[targets.numpy()].sum())
            count += len(targets)
    assert count == setup.manifests["val"].splits["val"].tokens
    assert size == setup.manifests["val"].splits["val"].bytes
    for folder in (whole, pieces):
        last = records(folder)[-1]
        assert last["eval/loss_nats"] == pytest.approx(nats / count, rel=1e-5)
        assert last["eval/perplexity"] == pytest.approx(math.exp(last["eval/loss_nats"]), rel=1e-9)
        assert last["eval/accuracy"] == pytest.approx(hits / count, rel=1e-9)
        assert last["eval/bits_per_byte"] == pytest.approx(nats_to_bits(nats) / size, rel=1e-5)


def test_an_evaluation_has_batches_of_its_own_on_demand_and_the_same_losses(shards, tmp_path):
    given = ["max_duration=2ba", "optim.lr=0.01"]
    plain = records(train(shards, tmp_path, "run_name=plain", *given))[-1]
    for size in (1, 3, 64, 1000):
        setup = prepare(compose_config("train_composer", *settings(shards, tmp_path, f"device_eval_batch_size={size}")))
        sizes = {len(batch["targets"]) for batch in build_loaders(setup)["val"].dataloader}
        assert sizes == {min(size, 67)}
        own = records(train(shards, tmp_path, f"run_name=size{size}", f"device_eval_batch_size={size}", *given))[-1]
        assert own["train/loss_nats"] == plain["train/loss_nats"]
        assert own["eval/loss_nats"] == pytest.approx(plain["eval/loss_nats"], rel=1e-6)
        assert own["eval/accuracy"] == plain["eval/accuracy"]


@pytest.mark.parametrize("direction", Direction)
def test_evaluate_takes_the_newest_checkpoint_and_trains_nothing(shards, tmp_path, caplog, direction):
    caplog.set_level(logging.INFO, logger="hindsight")
    common = ["run_name=a", f"direction={direction.name}", *DROPOUT]
    folder = train(shards, tmp_path, *common, "eval_batches=2", "checkpoint.interval=2ba")
    whole = train(shards, tmp_path, *common, "run_name=whole")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "metrics.jsonl"}
    partial = records(folder)
    caplog.clear()
    train(shards, tmp_path, *common, "evaluate=true", "max_duration=1000ba", "optim.warmup_steps=2")
    assert "a: evaluates step 6, and trains nothing." in caplog.text
    assert by_step(folder) == by_step(whole)
    assert [line["step"] for line in records(folder)] == [line["step"] for line in partial]
    evaluated = by_step(folder, "eval/loss_nats")[6]
    assert evaluated == pytest.approx(by_step(whole, "eval/loss_nats")[6], abs=1e-9)
    assert evaluated != partial[-1]["eval/loss_nats"]
    assert f"validation {evaluated:.4f}" in caplog.text
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "metrics.jsonl"}
    assert after == before


@pytest.mark.parametrize("direction", Direction)
def test_windows_of_training_overlap_on_demand_and_those_of_validation_do_not(shards, tmp_path, direction):
    common = ["data.stride=16", "max_duration=1ep", f"direction={direction.name}", *DROPOUT]
    common += ["optim.schedule=constant", "optim.cooldown_share=0"]
    whole = train(shards, tmp_path, "run_name=whole", *common)
    config = compose_config("train_composer", *settings(shards, tmp_path, *common, "run_name=x"))
    windows = prepare(config).windows
    last = records(whole)[-1]
    assert last["tokens"] == windows["train"].epoch_tokens > 1.4 * windows["train"].n_tokens
    assert windows["val"].epoch_tokens == windows["val"].n_tokens
    train(shards, tmp_path, "run_name=parts", *common, "max_duration=20ba")
    assert by_step(train(shards, tmp_path, "run_name=parts", *common)) == by_step(whole)
    with pytest.raises(InputError, match=r"data.stride=32 \(the run has 16\)"):
        train(shards, tmp_path, "run_name=parts", *common, "data.stride=32")


def test_evaluate_needs_a_run_with_a_checkpoint_and_makes_nothing(shards, tmp_path):
    with pytest.raises(InputError, match=r"evaluate=true: there is no run in .*/a; give the run_name of one"):
        train(shards, tmp_path / "runs", "run_name=a", "evaluate=true")
    assert not (tmp_path / "runs").exists()


def test_a_checkpoint_is_saved_when_minutes_have_passed_and_changes_no_loss(shards, tmp_path):
    common = ["checkpoint.interval=1000ba", "checkpoint.keep=-1", *DROPOUT]
    plain = train(shards, tmp_path, "run_name=plain", *common, "checkpoint.minutes=60")
    often = train(shards, tmp_path, "run_name=often", *common, "checkpoint.minutes=1e-6")
    assert [path.name for path in (plain / "checkpoints").iterdir()] == ["ep0-ba6-rank0.pt"]
    names = {path.name for path in (often / "checkpoints").iterdir()}
    assert names == {f"ep0-ba{step}-rank0.pt" for step in range(1, 7)}
    assert by_step(often) == by_step(plain)


def test_gradient_accumulation_changes_only_rounding_also_in_the_filled_up_batch_of_an_epoch(shards, tmp_path):
    whole = by_step(train(shards, tmp_path, "run_name=a", "max_duration=2ep", "optim.lr=0.01"))
    pieces = by_step(train(shards, tmp_path, "run_name=b", "max_duration=2ep", "optim.lr=0.01", "microbatch_size=1"))
    assert list(whole.values()) == pytest.approx(list(pieces.values()), rel=2e-4)


def test_a_microbatch_of_more_than_the_batch_is_the_batch(shards, tmp_path):
    # Warnings are errors here, and Composer warns of what it cannot split.
    larger = train(shards, tmp_path, "run_name=a", "max_duration=2ba", "microbatch_size=90")
    assert by_step(larger) == by_step(train(shards, tmp_path, "run_name=b", "max_duration=2ba"))


def test_metrics_leave_the_losses_as_they_are(shards, tmp_path):
    with_metrics = train(shards, tmp_path, "run_name=a")
    without = train(shards, tmp_path, "run_name=b", "metrics=false")
    assert by_step(with_metrics) == by_step(without)
    assert not by_step(without, "train/accuracy")


def test_training_is_the_same_whatever_is_logged(shards, tmp_path):
    common = ["max_duration=8ba", "optim.grad_clip=0.1", "eval_interval=4ba", *DROPOUT]
    everything = ["tensorboard=true", "samples.interval=2ba", "log_interval=1", "metrics=true"]
    nothing = ["tensorboard=false", "samples.interval=null", "log_interval=1000", "metrics=false"]
    with_all = train(shards, tmp_path, "run_name=a", *common, *everything)
    without = train(shards, tmp_path, "run_name=b", *common, *nothing)
    assert not by_step(without)
    assert by_step(with_all, "eval/loss_nats") == by_step(without, "eval/loss_nats")
    assert (with_all / "model.safetensors").read_bytes() == (without / "model.safetensors").read_bytes()


def test_a_compiled_and_a_checkpointed_model_have_the_same_losses_to_rounding(shards, tmp_path):
    plain = by_step(train(shards, tmp_path, "run_name=a"))
    checkpointed = by_step(train(shards, tmp_path, "run_name=b", "activation_checkpointing=true"))
    assert list(plain.values()) == pytest.approx(list(checkpointed.values()), rel=1e-5)


@pytest.mark.slow
def test_torch_compile_on_demand_has_the_same_losses_to_rounding(shards, tmp_path):
    plain = by_step(train(shards, tmp_path, "run_name=a", "max_duration=3ba"))
    compiled = by_step(train(shards, tmp_path, "run_name=b", "max_duration=3ba", "compile=true"))
    assert list(plain.values()) == pytest.approx(list(compiled.values()), rel=1e-5)


# ------------------------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize("saved_at", ["5ba", "1ep"])
def test_a_resumed_run_has_bit_for_bit_the_losses_of_an_uninterrupted_one(shards, tmp_path, saved_at):
    common = [*DROPOUT, f"checkpoint.interval={saved_at}", "eval_interval=4ba", "optim.schedule=constant"]
    common += ["optim.cooldown_share=0"]
    whole = train(shards, tmp_path, "run_name=whole", "max_duration=60ba", *common)
    parts = train(shards, tmp_path, "run_name=parts", f"max_duration={saved_at}", *common)
    assert 0 < len(records(parts)) < 50
    assert train(shards, tmp_path, "run_name=parts", "max_duration=60ba", *common) == parts
    assert [record["step"] for record in records(parts)] == list(range(1, 61))
    assert by_step(parts) == by_step(whole)
    evaluated, expected = by_step(parts, "eval/loss_nats"), by_step(whole, "eval/loss_nats")
    assert {step: evaluated[step] for step in expected} == expected
    assert [record["tokens"] for record in records(parts)] == [record["tokens"] for record in records(whole)]


@pytest.mark.slow
def test_a_run_killed_between_two_checkpoints_has_bit_for_bit_the_losses_of_one_that_was_not(shards, tmp_path):
    changes = [*DROPOUT, "max_duration=400ba", "checkpoint.interval=7ba", "eval_interval=50ba"]
    command = ["train_composer.py", *settings(shards, tmp_path, *changes, "run_name=killed")]
    whole = train(shards, tmp_path, *changes, "run_name=whole")
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    killed, deadline = tmp_path / "killed", time.monotonic() + 100
    while not (killed / "metrics.jsonl").exists() or len((killed / "metrics.jsonl").read_text().splitlines()) < 60:
        assert process.poll() is None, "ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    lines_at_kill = len((killed / "metrics.jsonl").read_text().splitlines())
    assert 60 <= lines_at_kill < 400
    done = run_command("python", *command)
    assert done.returncode == 0, done.stderr
    assert "goes on from step" in done.stdout
    assert [record["step"] for record in records(killed)] == list(range(1, 401))
    assert by_step(killed) == by_step(whole)
    assert by_step(killed, "eval/loss_nats") == by_step(whole, "eval/loss_nats")


def test_a_resume_does_not_read_again_what_was_consumed(shards, tmp_path, monkeypatch):
    train(shards, tmp_path, "max_duration=20ba", "eval_interval=100ba", "checkpoint.interval=20ba")
    read = []
    original = TextStreamingDataset.get_item
    monkeypatch.setattr(
        TextStreamingDataset,
        "get_item",
        lambda self, i: (read.append(self.windows.name), original(self, i))[1],
    )
    train(shards, tmp_path, "max_duration=22ba", "eval_interval=100ba", "eval_batches=1")
    assert read.count("train") <= 3 * 8
    assert read.count("val") == 8


def test_a_run_that_goes_on_with_other_versions_says_so(shards, tmp_path, caplog):
    folder = train(shards, tmp_path, "run_name=a", "max_duration=2ba")
    train(shards, tmp_path, "run_name=a", "max_duration=3ba")
    assert "the run was last started with" not in caplog.text
    metadata = json.loads((folder / "metadata.json").read_text())
    metadata["versions"]["torch"] = "2.0.1"
    (folder / "metadata.json").write_text(json.dumps(metadata))
    train(shards, tmp_path, "run_name=a", "max_duration=4ba")
    assert f"a: the run was last started with torch 2.0.1 (now {version('torch')}):" in caplog.text


def test_a_finished_run_says_so_and_changes_nothing(shards, tmp_path, caplog):
    folder = train(shards, tmp_path)
    before = (folder / "metrics.jsonl").read_bytes()
    caplog.set_level("INFO", logger="hindsight")
    train(shards, tmp_path)
    assert "nothing to do, it is at step 6 of 6ba" in caplog.text
    assert (folder / "metrics.jsonl").read_bytes() == before


def is_answered_early(shards: Path, runs: Path, *changes: str) -> bool:
    config = compose_config("train_composer", *settings(shards, runs, "run_name=a", *changes))
    try:
        train_composer.answer_early(config)
    except SystemExit as end:
        return end.code == 0
    return False


def test_only_a_run_with_all_that_belongs_to_its_end_is_answered_early(shards, tmp_path):
    assert not is_answered_early(shards, tmp_path)
    folder = train(shards, tmp_path, "run_name=a")
    assert is_answered_early(shards, tmp_path)
    for longer in ("max_duration=7ba", "train.more=1ba", f"checkpoint.folder={tmp_path}/other", "sanity_check=true"):
        assert not is_answered_early(shards, tmp_path, longer)
    with pytest.raises(InputError, match="seed=1"):
        is_answered_early(shards, tmp_path, "seed=1")
    for name in ("metrics.jsonl", "model.safetensors", "checkpoints/ep0-ba6-rank0.pt", "finished.json"):
        (folder / name).rename(tmp_path / "away")
        assert not is_answered_early(shards, tmp_path), name
        (tmp_path / "away").rename(folder / name)
    assert is_answered_early(shards, tmp_path)


def test_a_run_that_is_trained_beyond_its_end_and_stopped_is_not_at_that_end_any_more(shards, tmp_path):
    folder = train(shards, tmp_path, "run_name=a", "max_duration=3ba")
    (folder / "STOP").touch()
    with pytest.raises(SystemExit) as stopped:
        train(shards, tmp_path, "run_name=a", "max_duration=2000ba")
    assert stopped.value.code == 75
    assert not is_answered_early(shards, tmp_path, "max_duration=3ba")


def test_an_evaluation_that_a_kill_prevented_is_made_up_for(shards, tmp_path):
    folder = train(shards, tmp_path)
    whole = (folder / "metrics.jsonl").read_text()
    *lines, last = whole.splitlines()
    record = {key: value for key, value in json.loads(last).items() if not key.startswith("eval/")}
    (folder / "metrics.jsonl").write_text("\n".join([*lines, json.dumps(record)]) + "\n")
    train(shards, tmp_path)
    assert (folder / "metrics.jsonl").read_text() == whole


def test_a_loss_that_is_no_number_ends_the_run_and_is_never_saved(shards, tmp_path):
    changes = ["optim.lr=1e30", "optim.warmup_steps=3", "optim.grad_clip=null", "checkpoint.interval=1ba"]
    with pytest.raises(FloatingPointError, match="The loss of step"):
        train(shards, tmp_path, "run_name=a", "max_duration=20ba", *changes)
    logged = by_step(tmp_path / "a")
    assert all(math.isfinite(loss) for loss in logged.values())
    saved = [int(path.name.split("-ba")[1].split("-")[0]) for path in (tmp_path / "a" / "checkpoints").glob("ep*.pt")]
    assert max(saved) == max(logged)


@pytest.mark.parametrize(
    ("change", "words"),
    [("seed=1", r"seed=1 \(the run has 0\)"), ("optim.lr=0.1", "optim.lr"), ("model.d_model=12", "model.d_model=12")],
)
def test_a_resume_with_other_settings_is_refused_with_both_values(shards, tmp_path, change, words):
    train(shards, tmp_path, "run_name=a", "max_duration=1ba")
    with pytest.raises(InputError, match=words):
        train(shards, tmp_path, "run_name=a", "max_duration=2ba", change)


def test_a_run_that_began_before_a_key_existed_goes_on_with_the_default_of_the_key_alone(shards, tmp_path):
    config = train(shards, tmp_path, "run_name=a", "max_duration=1ba") / "config.yaml"
    config.write_text("".join(line for line in config.read_text().splitlines(True) if "grad_clip" not in line))
    with pytest.raises(InputError, match=r"optim.grad_clip=2.0 \(the run has 1.0\)"):
        train(shards, tmp_path, "run_name=a", "max_duration=2ba", "optim.grad_clip=2")
    train(shards, tmp_path, "run_name=a", "max_duration=2ba")
    assert max(by_step(tmp_path / "a")) == 2


@pytest.mark.parametrize("name", ["config.yaml", "metadata.json"])
def test_a_resume_of_a_run_with_a_damaged_record_is_refused(shards, tmp_path, name):
    folder = train(shards, tmp_path, "run_name=a", "max_duration=1ba")
    (folder / name).write_text("{{{")
    with pytest.raises(InputError, match="is damaged"):
        train(shards, tmp_path, "run_name=a", "max_duration=2ba")


def test_a_resume_on_other_data_is_refused(shards, corpus, tokenizer_dir, tmp_path):
    other = tmp_path / "other"
    convert_to_mds.main(convert_config(corpus, tokenizer_dir, other, seed=5))
    train(shards, tmp_path, "run_name=a", "max_duration=1ba")
    with pytest.raises(InputError, match="data_fingerprint"):
        train(other, tmp_path, "run_name=a", "max_duration=2ba")


def test_a_run_that_another_process_trains_is_refused(shards, tmp_path):
    folder = train(shards, tmp_path, "run_name=a", "max_duration=1ba")
    before = (folder / "metrics.jsonl").read_bytes()
    program = "import sys, pathlib; from hindsight.training import run_folder"
    program += "; run_folder.RunLock().acquire(pathlib.Path(sys.argv[1]), 'a')"
    holder = subprocess.Popen(
        [sys.executable, "-c", f"{program}; print('held'); input()", str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=rf"being trained by another process \(process {holder.pid} on "):
        train(shards, tmp_path, "run_name=a", "max_duration=2ba")
    assert (folder / "metrics.jsonl").read_bytes() == before
    holder.communicate("\n")
    train(shards, tmp_path, "run_name=a", "max_duration=2ba")
    assert len(by_step(folder)) == 2


def test_backups_stay_and_checkpoints_go_also_over_a_resume(shards, tmp_path):
    common = ["checkpoint.interval=2ba", "checkpoint.keep=1", "checkpoint.backup_interval=4ba"]
    train(shards, tmp_path, "max_duration=6ba", *common)
    folder = train(shards, tmp_path, "max_duration=10ba", *common) / "checkpoints"
    assert sorted(path.name for path in folder.glob("*.pt")) == ["ep0-ba10-rank0.pt"]
    assert sorted(path.name for path in (folder / "backups").glob("*.pt")) == [
        f"ep0-ba{step}-rank0.pt" for step in (4, 8)
    ]


def test_the_newest_checkpoint_is_the_one_of_the_highest_step(tmp_path):
    for name in ("ep0-ba5-rank0.pt", "ep0-ba10-rank0.pt", "ep0-ba100-rank0.pt", ".saving-ep0-ba200-rank0.pt"):
        (tmp_path / name).touch()
    names = ["ep0-ba100-rank0.pt", "ep0-ba10-rank0.pt", "ep0-ba5-rank0.pt"]
    assert [path.name for path in checkpoints_in(tmp_path)] == names
    assert outdated(names, names[0], keep=2) == names[2:]
    assert outdated(names, names[1], keep=1) == names[2:], "one of a later step neither counts nor goes"
    assert outdated(names, names[0], keep=-1) == []


# ---------------------------------------------------------------------------------------------------------- processes


@pytest.mark.slow
@pytest.mark.dist
def test_two_processes_have_the_losses_of_one_on_the_same_global_batches(shards, tmp_path):
    changes = ["max_duration=2ep", "optim.lr=0.01", "eval_interval=1ep"]
    one = train(shards, tmp_path, "run_name=one", *changes)
    done = run_command(
        "composer", "-n", "2", "train_composer.py", *settings(shards, tmp_path, "run_name=two", *changes)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    two = tmp_path / "two"
    assert len(by_step(one)) > 40
    assert list(by_step(two).values()) == pytest.approx(list(by_step(one).values()), rel=2e-4)
    for key in ("eval/loss_nats", "eval/bits_per_byte", "eval/accuracy"):
        assert by_step(two, key) == pytest.approx(by_step(one, key), rel=1e-3)
    assert [record["tokens"] for record in records(two)] == [record["tokens"] for record in records(one)]


@pytest.mark.slow
@pytest.mark.dist
def test_bad_input_under_composer_ends_with_the_line_and_status_2(tmp_path):
    done = run_command("composer", "-n", "2", "train_composer.py", "direction=sideways", f"runs_dir={tmp_path}/runs")
    assert done.returncode == 2, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count("direction: Invalid value 'sideways'") == 1
    assert not (tmp_path / "runs").exists()


# ------------------------------------------------------------------------------------------------------------ loggers


def test_tensorboard_has_the_names_and_values_of_metrics_jsonl_and_the_runs_name_once(shards, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    changes = ["run_name=a", "tensorboard=true", "eval_interval=2ba", "samples.interval=4ba"]
    for end in ("max_duration=4ba", "max_duration=6ba"):
        folder = train(shards, tmp_path, *changes, end)
        time.sleep(1)  # TensorBoard reads files by the second in their names
    files = list(tmp_path.rglob("events.*"))
    assert {path.parent for path in files} == {folder / "tensorboard"}
    shown = EventAccumulator(str(folder / "tensorboard")).Reload()
    names = {name for record in records(folder) for name in record} - {"step", "tokens", "seconds"}
    assert set(shown.Tags()["scalars"]) == names
    for name in names:
        values = {event.step: event.value for event in shown.Scalars(name)}
        assert values == pytest.approx(by_step(folder, name), rel=1e-6, nan_ok=True), name


def test_wandb_offline_and_tensorboard_write_into_the_runs_folder_and_never_the_environment(
    shards, tmp_path, monkeypatch
):
    monkeypatch.setenv("PLANTED_API_KEY", "sk-planted-5417")
    folder = train(shards, tmp_path, "wandb.mode=offline", "tensorboard=true", "samples.interval=6ba")
    wandb.teardown()  # waits for its process, which writes the file
    offline = list((folder / "wandb").glob("offline-run-*/*.wandb"))
    assert len(offline) == 1
    assert b"eval/loss_nats" in offline[0].read_bytes()
    assert list((folder / "tensorboard").rglob("events.*"))
    for path in folder.rglob("*"):
        if path.is_file():
            assert b"sk-planted-5417" not in path.read_bytes(), path


def test_wandb_online_without_a_login_is_one_line(shards, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(InputError, match=r"wandb.mode=online: .*choose offline or disabled"):
        train(shards, tmp_path, "wandb.mode=online")


def test_a_sanity_check_tries_the_whole_path_and_leaves_nothing(shards, tmp_path, caplog):
    caplog.set_level("INFO", logger="hindsight")
    config = compose_config(
        "train_composer", *settings(shards, tmp_path / "runs", "sanity_check=true", "train.more=5ep")
    )
    train_composer.main(config)
    assert "Sanity check passed" in caplog.text
    assert not list((tmp_path / "runs").glob("*"))
    assert not list((tmp_path / "runs").glob(".*"))


def test_training_on_h5_has_the_losses_of_training_on_mds(shards, h5_data, tmp_path):
    from_mds = train(shards, tmp_path, "run_name=mds", "max_duration=30ba")
    from_h5 = train(h5_data, tmp_path, "run_name=h5", "max_duration=30ba")
    assert by_step(from_h5) == by_step(from_mds)
    assert by_step(from_h5, "eval/loss_nats") == by_step(from_mds, "eval/loss_nats")


def test_val_path_evaluates_another_dataset(shards, corpus, tokenizer_dir, tmp_path):
    other = tmp_path / "other"
    convert_to_mds.main(convert_config(corpus, tokenizer_dir, other, val_share=0.5, seed=9))
    here = train(shards, tmp_path, "run_name=here", "max_duration=1ba")
    there = train(shards, tmp_path, "run_name=there", "max_duration=1ba", f"data.val_path={other}")
    assert by_step(here) == by_step(there)
    assert by_step(here, "eval/loss_nats") != by_step(there, "eval/loss_nats")


@pytest.mark.parametrize("model", ["gru_small", "lstm_small", "llama_small"])
def test_every_kind_of_model_trains(shards, tmp_path, model):
    small = ["model.n_layers=1", "model.d_model=24"]
    given = [s for s in settings(shards, tmp_path, f"model={model}", *small) if not s.startswith("model.n_heads")]
    given += ["model.n_heads=4", "model.n_kv_heads=2"] if model == "llama_small" else []
    train_composer.main(compose_config("train_composer", *given, "run_name=a"))
    assert len(by_step(tmp_path / "a")) == 6


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("data.context_length=24", "data.context_length=24 does not divide block_length=64"),
        ("data.context_length=128", "data.context_length=128 exceeds model.context_length=64"),
        ("data.path=nowhere", "data.path=nowhere has no manifest.json"),
        ("data.val_path=nowhere", "data.val_path=nowhere has no manifest.json"),
        ("data.tokenizer=nowhere", "data.tokenizer=nowhere has no tokenizer.json"),
        ("precision=fp16", "precision=fp16 needs a GPU"),
        ("model.vocab_size=100", "model.vocab_size=100 is less than the tokenizer's 300"),
    ],
)
def test_bad_input_is_refused_before_a_folder_is_made(shards, tmp_path, change, words):
    if change == "precision=fp16" and torch.cuda.is_available():
        pytest.skip("a GPU supports the format")
    with pytest.raises(InputError, match=words):
        train(shards, tmp_path / "runs", change)
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a run takes the GPU, for which nothing is compiled in C++")
@pytest.mark.parametrize(("named", "words"), [("none", "CXX=none is no program"), (None, r"there is no \w+\+\+")])
def test_compile_without_a_compiler_is_refused_before_a_folder_is_made(shards, tmp_path, monkeypatch, named, words):
    if named is None:
        monkeypatch.delenv("CXX", raising=False)  # which would be taken for any on the PATH
        monkeypatch.setenv("PATH", str(tmp_path))  # as where none is installed
    else:
        monkeypatch.setenv("CXX", named)  # PyTorch takes what it names, and no other
    with pytest.raises(InputError, match=rf"compile=true needs a C\+\+ compiler.*{words}.*leave compile=false"):
        train(shards, tmp_path / "runs", "compile=true")
    assert not (tmp_path / "runs").exists()


def test_a_tokenizer_that_did_not_make_the_shards_is_refused(shards, corpus, tmp_path):
    other = tmp_path / "tokenizer"
    train_tokenizer.main(TokenizerConfig(corpus=str(corpus), out=str(other), vocab_size=290))
    with pytest.raises(InputError, match="is not the tokenizer that made the tokens in"):
        train(shards, tmp_path / "runs", f"data.tokenizer={other}")
    assert not (tmp_path / "runs").exists()


def test_a_run_folder_that_holds_something_else_is_refused_and_left_alone(shards, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="holds something that is no run"):
        train(shards, tmp_path, "run_name=a")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["thesis.tex"]


def test_what_a_start_left_that_was_killed_at_once_does_not_stop_the_next(shards, tmp_path):
    (tmp_path / "a").mkdir()
    for name in (".lock", ".metadata.json.partial", "config.yaml"):
        (tmp_path / "a" / name).write_text("")
    assert len(by_step(train(shards, tmp_path, "run_name=a"))) == 6


def test_a_duration_in_tokens_ends_at_the_first_batch_that_reaches_it(shards, tmp_path):
    folder = train(shards, tmp_path, "max_duration=1_000tok")
    assert records(folder)[-1]["tokens"] == 1024
    assert json.loads((folder / "metadata.json").read_text())["total_steps"] == 4


def test_losses_keep_all_their_digits(shards, tmp_path):
    folder = train(shards, tmp_path, "max_duration=1ba")
    (value,) = by_step(folder).values()
    assert np.float32(value) == value
    assert repr(value) in (folder / "metrics.jsonl").read_text()


# --------------------------------------------------------------------------------------------------- names, dead runs


def kill_before_the_first_save(shards: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, *changes: str) -> Path:
    """Leave what a run has that is killed at its third step, before it has saved any."""

    def end(self: object, state: object, logger: object) -> None:
        raise BrokenPipeError("killed")

    with monkeypatch.context() as killed:
        killed.setattr("hindsight.training.checkpoints.ResumeSaver.batch_checkpoint", end)
        with pytest.raises(BrokenPipeError):
            train(shards, runs, "checkpoint.interval=3ba", *changes)
    return runs / compose_config("train_composer", *settings(shards, runs, *changes)).name_of_run()


def test_a_run_that_never_saved_gives_way_to_another_and_its_records_are_kept(shards, tmp_path, caplog, monkeypatch):
    folder = kill_before_the_first_save(shards, tmp_path, monkeypatch, "samples.interval=1ba", "samples.length=2")
    before = (folder / "metrics.jsonl").read_bytes()
    assert before
    assert train(shards, tmp_path, "batch_size=4") == folder
    assert [*by_step(folder)] == [1, 2, 3, 4, 5, 6]
    assert (folder / "earlier-1" / "metrics.jsonl").read_bytes() == before
    assert OmegaConf.load(folder / "earlier-1" / "config.yaml").batch_size == 8
    assert f"its records are kept in {folder}/earlier-1." in caplog.text
    with pytest.raises(InputError, match=r"batch_size=8 \(the run has 4\)"):
        train(shards, tmp_path, "max_duration=8ba")  # this one has saved


def test_a_run_that_never_saved_begins_anew_with_the_same_settings_and_each_step_once(shards, tmp_path, monkeypatch):
    folder = kill_before_the_first_save(shards, tmp_path, monkeypatch)
    train(shards, tmp_path)
    assert [*by_step(folder)] == [1, 2, 3, 4, 5, 6]
    assert not list(folder.glob("earlier-*"))


def test_damaged_records_of_a_run_that_never_saved_are_set_aside(shards, tmp_path, monkeypatch):
    folder = kill_before_the_first_save(shards, tmp_path, monkeypatch)
    (folder / "config.yaml").write_text("{{{")
    train(shards, tmp_path)
    assert (folder / "earlier-1" / "config.yaml").read_text() == "{{{"


@pytest.mark.parametrize("left", ["model.safetensors", "newest_checkpoint.json", "finished.json", "damaged"])
def test_a_run_whose_checkpoints_are_gone_never_begins_anew_with_whatever_settings(shards, tmp_path, left):
    folder = train(shards, tmp_path, "run_name=a")
    (path,) = (folder / "checkpoints").glob("*.pt")
    path.rename(path.with_name(path.name + ".damaged"))
    for name in ("model.safetensors", "newest_checkpoint.json", "finished.json"):
        if name != left:
            (folder / name).unlink()
    if left != "damaged":
        shutil.rmtree(folder / "checkpoints")
    before = (folder / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match="has saved checkpoints, and none"):
        train(shards, tmp_path, "run_name=a")
    with pytest.raises(InputError, match="seed=7"):
        train(shards, tmp_path, "run_name=a", "seed=7")
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_the_default_name_has_what_differs_from_the_named_model():
    def name(*changes: str) -> str:
        return compose_config("train_composer", "direction=forward", "data.path=x/novels", *changes).name_of_run()

    assert name("model=gpt_nano") == "gpt_nano-novels-forward-seed0"
    assert name("model=gpt_nano", "model.n_layers=3", "optim.lr=1", "seed=2") == "gpt_nano-novels-forward-seed2"
    assert name("model=gpt_nano", "model.n_layers=2") == "gpt_nano-l2-novels-forward-seed0"
    assert name("model=modern_demo") == "modern_demo-novels-forward-seed0"
    assert name("model=modern_demo", "model.logit_softcap=null") == "modern_demo-nocap-novels-forward-seed0"
    changes = ["model.logit_softcap=30", "model.activation=swiglu"]
    assert name("model=modern_demo", *changes) == "modern_demo-activationswiglu-cap30.0-novels-forward-seed0"
    assert name("model=gpt_nano", "model.block=modern") == "gpt_nano-modern-novels-forward-seed0"
    assert name("model=gpt_nano", "data.context_length=128") == "gpt_nano-t128-novels-forward-seed0"
    assert name("model=gpt2", "model.tied_head=false") == "gpt2-notiedhead-novels-forward-seed0"
    assert name("model=gru_small", "model.dropout=0.1") == "gru_small-dropout0.1-novels-forward-seed0"
    many = [f"model.{key}" for key in ("d_model=96", "rope_theta=1234567.5", "norm_eps=1.25e-4", "mlp_ratio=3.4375")]
    many += ["model.dropout=0.12345678", "model.embedding_dropout=0.12345678"]
    assert len(name("model=gpt_nano", *many)) < 60
    assert name("model=gpt_nano", *many) != name("model=gpt_nano", *many, "model.n_layers=2")


def test_a_run_that_an_earlier_version_began_is_found_by_the_name_that_it_had(shards, tmp_path):
    earlier = "gpt_nano-shards-forward-seed0"
    train(shards, tmp_path, f"run_name={earlier}", "max_duration=2ba")
    assert train(shards, tmp_path, "max_duration=4ba") == tmp_path / earlier
    assert max(by_step(tmp_path / earlier)) == 4
    other = train(shards, tmp_path, "max_duration=2ba", "model.n_layers=1")
    assert other.name == "gpt_nano-l1-d24-ctx64-h2-t32-shards-forward-seed0"
