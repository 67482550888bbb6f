"""order=both: one model, every window once in each direction in an epoch, evaluated in each direction by itself."""

import json
import logging
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from composer.utils import dist
from helpers.training_runs import compose_config, losses, records, settings, train
from safetensors.torch import load_file

import evaluate_tokens
from hindsight.analysis.token_losses import TokenLosses
from hindsight.loading.windows import SplitWindows, both_ways, in_turns
from hindsight.orders.both import Both, vocab_size_for
from hindsight.orders.examples import IGNORED
from hindsight.orders.known import open_order
from hindsight.runs import METRIC_NAMES
from hindsight.studies.sweep import tokens_of
from hindsight.tokenization.tokenizer import Tokenizer
from hindsight.training.setup import RunSetup, check_setup, locate_data
from hindsight.training.summary import end_lines
from language_model import LanguageModel, build_model
from load_text_streaming import build_dataset, build_loader

WAYS = ("forward", "backward")


def setup_of(shards: Path, runs: Path, *changes: str) -> RunSetup:
    config = compose_config("train_composer", *settings(shards, runs, *changes))
    return check_setup(config, locate_data(config))


def batches_of(setup: RunSetup, split: str, start_id: int = 0, num_workers: int = 0) -> list[dict[str, torch.Tensor]]:
    dataset = build_dataset(setup, split, shuffle=split == "train")
    return list(build_loader(dataset, setup.order, start_id, num_workers, seed=7).dataloader)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("n_tokens", [64 * 30, 64 * 30 - 40, 64])
def test_an_epoch_sees_each_window_once_in_each_direction_in_a_pass_of_its_own(n_tokens, shuffle):
    windows = SplitWindows("x", "train", n_tokens, 64, 5, 32, 8, passes=2)
    n = windows.n_windows
    seen = [both_ways(windows, shuffle, 3, epoch) for epoch in range(3)]
    for items in seen:
        assert len(items) == windows.n_padded == 8 * windows.n_batches
        assert sorted(items[: 2 * n]) == [*range(2 * n)]
        assert sorted(items[:n] // 2) == sorted(items[n : 2 * n] // 2) == [*range(n)]
        assert (items[2 * n :] // 2 >= n).all()
    if n > 2:
        assert len({tuple(items % 2) for items in seen}) == 3, "other directions in each epoch"
        assert 0.2 < (seen[0][:n] % 2).mean() < 0.8
    assert (both_ways(windows, shuffle, 3, 1) == seen[1]).all()
    assert windows.epoch_tokens == 2 * n_tokens


def test_a_batch_of_an_evaluation_has_one_direction_and_both_have_the_same_windows():
    windows = SplitWindows("x", "val", 64 * 30, 64, 5, 32, 8)
    items = in_turns(windows).reshape(-1, 2, 8)
    assert (items[:, 0] % 2 == 0).all()
    assert (items[:, 1] == items[:, 0] + 1).all()
    assert (items[:, 0].ravel() // 2).tolist() == [*range(windows.n_padded)]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_each_direction_is_that_of_a_run_of_its_own_but_for_the_first_input(shards, tmp_path, num_workers):
    setup = setup_of(shards, tmp_path, "order=both")
    starts = [reading.start_id for reading in setup.order.readings]
    assert starts == [setup.tokenizer.special_id(f"<|{way}|>") for way in WAYS]
    found = batches_of(setup, "val", num_workers=num_workers)
    for number, way in enumerate(WAYS):
        alone = batches_of(setup_of(shards, tmp_path, f"direction={way}"), "val", starts[number])
        assert len(alone) * 2 == len(found)
        for one, other in zip(found[number::2], alone, strict=True):
            assert (one["way"] == number).all()
            assert torch.equal(one["input_ids"], other["input_ids"])
            assert torch.equal(one["targets"], other["targets"])
    assert all((batch["input_ids"][:, 0] == torch.tensor(starts)[batch["way"]]).all() for batch in found)


def test_training_has_the_examples_of_both_directions_each_once(shards, tmp_path):
    setup = setup_of(shards, tmp_path, "order=both")
    expected = []
    for way, start_id in zip(WAYS, [reading.start_id for reading in setup.order.readings], strict=True):
        for batch in batches_of(setup_of(shards, tmp_path, f"direction={way}"), "train", start_id):
            expected += rows_of(batch)
    found = [row for batch in batches_of(setup, "train") for row in rows_of(batch)]
    assert sorted(found) == sorted(expected)
    mixed = [batch["way"].float().mean() for batch in batches_of(setup, "train")]
    assert sum(0 < share < 1 for share in mixed) > 50, "a batch has both"


@pytest.mark.parametrize(("ranks", "ranks_per_node"), [(4, 2), (2, 2)])
def test_a_global_batch_is_the_same_part_of_the_epoch_on_any_number_of_devices(
    ranks, ranks_per_node, shards, tmp_path, monkeypatch
):
    setup = setup_of(shards, tmp_path, "order=both")
    datasets = {split: build_dataset(setup, split, split == "train") for split in ("train", "val")}
    whole = {}
    for split, dataset in datasets.items():
        dataset.begin_epoch()
        whole[split] = dataset.share.reshape(-1, 8)
    # In place of so many processes: what each of them asks of its surroundings.
    monkeypatch.setattr(dist, "get_world_size", lambda: ranks)
    monkeypatch.setattr(dist, "get_local_world_size", lambda: ranks_per_node)
    for split, dataset in datasets.items():
        parts = []
        for rank in range(ranks):
            monkeypatch.setattr(dist, "get_global_rank", lambda rank=rank: rank)
            dataset.load_state_dict({"epoch": 0, "sample_in_epoch": 0, "shuffle_seed": setup.config.seed})
            dataset.begin_epoch()
            parts.append(dataset.share.reshape(-1, 8 // ranks))
            assert len(dataset) == len(dataset.share)
        assert (np.sort(np.concatenate(parts, axis=1)) == np.sort(whole[split])).all()


def rows_of(batch: dict[str, torch.Tensor]) -> list[tuple[int, ...]]:
    """The examples of a batch, without empty ones."""
    pairs = zip(batch["input_ids"].tolist(), batch["targets"].tolist(), strict=True)
    return [(*inputs, *targets) for inputs, targets in pairs if targets[0] != IGNORED]


def test_a_run_is_evaluated_in_each_direction_and_writes_samples_in_both(shards, tmp_path):
    changes = ["order=both", "optim.lr=0.01", "samples.interval=6ba", "samples.prompts=['In the']", "eval_interval=6ba"]
    run = train(shards, tmp_path, *changes)
    assert "-both-" in run.name
    setup = setup_of(shards, tmp_path, *changes)
    (line,) = (line for line in records(run) if "eval/loss_nats" in line)
    for number, way in enumerate(WAYS):
        alone = evaluated_alone(run, shards, tmp_path, setup, number)
        assert {name: line[f"eval/{way}/{name}"] for name in METRIC_NAMES} == pytest.approx(alone, rel=1e-6)
    mean = (line["eval/forward/loss_nats"] + line["eval/backward/loss_nats"]) / 2
    assert line["eval/loss_nats"] == pytest.approx(mean, rel=1e-6)
    assert line["eval/forward/loss_nats"] != line["eval/backward/loss_nats"]
    samples = [json.loads(text) for text in (run / "samples.jsonl").read_text().splitlines()]
    assert [(sample["direction"], sample["prompt"]) for sample in samples] == [(way, "In the") for way in WAYS]
    assert samples[0]["text"].startswith("In the")
    assert samples[1]["text"].endswith("In the")
    assert end_lines(setup)[-1].endswith(f"python evaluate_tokens.py {run}")


def evaluated_alone(run: Path, shards: Path, runs: Path, setup: RunSetup, number: int) -> dict[str, float]:
    """Metrics of a run's last weights in one direction, by the loader of a run in that direction alone."""
    module = build_model(setup.config.model, setup.vocab_size, seed=9)
    module.load_state_dict(load_file(run / "model.safetensors"))
    model = LanguageModel(module, setup.tokenizer.bytes_per_token).eval()
    metrics: dict[str, Any] = model.get_metrics(is_train=False)
    reading = setup.order.readings[number]
    for batch in batches_of(setup_of(shards, runs, f"direction={WAYS[number]}"), "val", reading.start_id):
        with torch.no_grad():
            sums = model.eval_forward(batch)
        for metric in metrics.values():
            model.update_metric(batch, sums, metric)
    return {name: float(metric.compute()) for name, metric in metrics.items()}


@pytest.mark.parametrize("saved_at", ["25ba", "1ep"])
def test_a_resumed_run_has_bit_for_bit_the_losses_of_an_uninterrupted_one(saved_at, shards, tmp_path):
    common = ["order=both", "model.dropout=0.1", f"checkpoint.interval={saved_at}", "eval_interval=30ba"]
    common += ["optim.schedule=constant", "optim.cooldown_share=0"]
    whole = train(shards, tmp_path, "run_name=whole", "max_duration=70ba", *common)
    train(shards, tmp_path, "run_name=parts", f"max_duration={saved_at}", *common)
    parts = train(shards, tmp_path, "run_name=parts", "max_duration=70ba", *common)
    expected = dict((loss.step, loss.train_nats) for loss in losses(whole))
    assert dict((loss.step, loss.train_nats) for loss in losses(parts)) == expected
    assert [*expected] == [*range(1, 71)]
    assert records(parts)[-1]["eval/backward/loss_nats"] == records(whole)[-1]["eval/backward/loss_nats"]
    weights, others = (load_file(run / "model.safetensors") for run in (whole, parts))
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_durations_and_evaluations_count_both_directions(shards, tmp_path):
    setup = setup_of(shards, tmp_path, "order=both", "max_duration=2ep")
    once = setup_of(shards, tmp_path, "direction=forward", "max_duration=2ep")
    assert (once.total_steps, setup.total_steps) == (2 * 30, 2 * 59)
    assert setup_of(shards, tmp_path, "order=both", f"max_duration={2 * 7430 * 2}tok").total_steps == 2 * 59
    assert (tokens_of(once.config), tokens_of(setup.config)) == (2 * 7430, 4 * 7430)
    run = train(shards, tmp_path, "order=both", "eval_batches=2", "max_duration=2ba")
    few = records(run)[-1]
    first = list(islice(batches_of(setup, "val"), 4))
    assert [int(batch["way"][0]) for batch in first] == [0, 1, 0, 1]
    assert few["eval/loss_nats"] == pytest.approx(
        (few["eval/forward/loss_nats"] + few["eval/backward/loss_nats"]) / 2, rel=1e-6
    )


def test_a_tokenizer_without_the_two_tokens_gives_the_model_two_ids_more(shards):
    tokenizer = Tokenizer.load(shards / "tokenizer")

    class Others:
        vocab_size, bytes_of = tokenizer.vocab_size, staticmethod(tokenizer.bytes_of)

        @staticmethod
        def special_id(name: str) -> int | None:
            return 3 if name == "<|forward|>" else None

    order = open_order("both", 32, Others())
    assert isinstance(order, Both)
    assert [reading.start_id for reading in order.readings] == [300, 301]
    assert vocab_size_for(order, 300) == 302
    assert vocab_size_for(open_order("both", 32, tokenizer), 300) == vocab_size_for(order.readings[0].order, 300) == 300


def test_its_tokens_are_scored_in_each_direction(shards, tmp_path, caplog):
    run = train(shards, tmp_path, "order=both", "optim.lr=0.01", "eval_interval=6ba")
    line = records(run)[-1]
    caplog.set_level(logging.INFO, "hindsight")
    evaluate_tokens.main(compose_config("evaluate_tokens", f"run={run}"))
    for way in WAYS:
        file = TokenLosses.open(run / f"token_losses-{way}.parquet")
        assert (file.metadata["order"], file.metadata["run_order"]) == (way, "both")
        assert f"its own  {line[f'eval/{way}/loss_nats']:.6f} nats/token" in caplog.text
        assert file.read(["nats"])["nats"].mean(dtype=np.float64) == pytest.approx(
            line[f"eval/{way}/loss_nats"], rel=1e-6
        )


def test_tokens_are_scored_with_the_mask_of_documents(shards, tmp_path):
    run = train(shards, tmp_path, "order=words", "document_mask=true", "optim.lr=0.01")
    evaluate_tokens.main(compose_config("evaluate_tokens", f"run={run}"))
    file = TokenLosses.open(run / "token_losses.parquet")
    rows = file.read(["nats", "context"])
    assert rows["nats"].mean(dtype=np.float64) == pytest.approx(records(run)[-1]["eval/loss_nats"], rel=1e-6)
    assert (rows["context"] == 0).sum() > 67, "each document begins anew, not only each window"
