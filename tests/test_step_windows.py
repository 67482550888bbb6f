"""The windows of a step are those that a run's model got in it; runs here are real ones, whose batches are kept."""

import json
import logging
import shutil

import h5py
import numpy as np
import pytest
import torch
from helpers import recording_run
from helpers.recording_run import train_recorded
from helpers.s3_server import remove, store
from helpers.small_data import convert_config, make_text
from helpers.training_runs import by_step, compose_config, settings

import convert_to_mds
import inspect_mds
from hindsight.config.conversion import InspectConfig
from hindsight.conversion.token_sources import ConvertedTokens
from hindsight.errors import InputError
from hindsight.evaluation.seen_step import open_step
from hindsight.shards.manifest import Manifest
from hindsight.tokenization.tokenizer import Tokenizer

FEW = ["eval_batches=1", "eval_interval=1000ba", "checkpoint.interval=1000ba", "model.n_layers=1"]


def look(folder, step, **given):
    return open_step(InspectConfig(run=str(folder), step=step, **given))


def run_and_keep(shards, runs, *changes):
    config = compose_config("train_composer", *settings(shards, runs, *FEW, *changes))
    return runs / config.name_of_run(), train_recorded(config)


def require_same(examples, batch):
    assert examples.keys() == batch.keys()
    for name, values in batch.items():
        assert torch.equal(examples[name], values), name


@pytest.fixture(scope="session")
def other_data(tokenizer_dir, tmp_path_factory):
    """Other documents with the same tokenizer."""
    folder = tmp_path_factory.mktemp("other")
    (folder / "other.txt").write_text(make_text(n_documents=60, seed=9), encoding="utf-8")
    convert_to_mds.main(convert_config(folder / "other.txt", tokenizer_dir, folder / "data"))
    return folder / "data"


KINDS = {
    "backward, microbatches": ["direction=backward", "microbatch_size=5", "batch_size=24"],
    "both": ["order=both", "batch_size=24", "model.vocab_size=302"],
    "overlapping": ["direction=forward", "data.stride=20", "batch_size=30", "seed=3"],
    "documents by themselves": ["order=words", "document_mask=true"],
    "not shuffled": ["order=even_odd", "data.shuffle=false", "batch_size=24", "data.num_workers=1"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_windows_of_every_step_of_several_epochs_are_those_that_the_model_got(kind, shards, tmp_path):
    folder, batches = run_and_keep(shards, tmp_path, "batch_size=24", "max_duration=3ep", *KINDS[kind])
    n_steps = json.loads((folder / "metadata.json").read_text())["total_steps"]
    assert [*batches] == [*range(1, n_steps + 1)]
    first = look(folder, 1)
    assert n_steps == 3 * first.windows.n_batches
    assert first.windows.n_padded > first.windows.n_windows * first.windows.passes  # a last batch with empty windows
    for step, batch in batches.items():
        require_same(look(folder, step, verify=False).examples(), batch)
    assert not torch.equal(batches[1]["targets"], batches[1 + first.windows.n_batches]["targets"]) or "not" in kind


def test_a_run_on_h5_saw_the_windows_of_mds(h5_data, shards, tmp_path):
    folder, batches = run_and_keep(h5_data, tmp_path, "max_duration=5ba")
    for step, batch in batches.items():
        require_same(look(folder, step).examples(), batch)
        require_same(look(folder, step, path=str(shards)).examples(), batch)


def test_a_run_that_went_on_and_then_further_with_other_validation_data(shards, other_data, tmp_path):
    given = ["batch_size=40", "run_name=a", f"data.val_path={other_data}"]
    folder, before = run_and_keep(shards, tmp_path, *given, "max_duration=2ba")
    _, after = run_and_keep(shards, tmp_path, *given, "max_duration=4ba")
    _, more = run_and_keep(shards, tmp_path, *given, "max_duration=4ba", "train.more=5ba")
    batches = before | after | more
    assert [len(each) for each in (before, after, more)] == [2, 2, 5]
    assert [*batches] == [*range(1, 10)]
    assert look(folder, 1).windows.n_batches < 9
    for step, batch in batches.items():
        require_same(look(folder, step).examples(), batch)
    with pytest.raises(InputError, match=r"step=10: run=.* has 9 steps"):
        look(folder, 10)


@pytest.mark.dist
def test_two_processes_go_on_with_a_run_of_one_and_each_got_its_rows(shards, tmp_path, fork_server):
    given = ["batch_size=24", "order=both", "model.vocab_size=302", "run_name=a", "microbatch_size=5"]
    folder, before = run_and_keep(shards, tmp_path, *given, "max_duration=3ba")
    arguments = settings(shards, tmp_path, *FEW, *given, "max_duration=2ep")
    kept = {recording_run.FOLDER: str(tmp_path)}
    assert fork_server.run(arguments, 2, kept, "recording_run") == [0, 0], fork_server.output()
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    n_batches = look(folder, 1).windows.n_batches
    assert [*ranks[0]] == [*ranks[1]] == [*range(4, 2 * n_batches + 1)]
    for step, batch in before.items():
        require_same(look(folder, step).examples(), batch)
    for step in ranks[0]:
        whole, rows = look(folder, step, verify=False), []
        for rank, batches in enumerate(ranks):
            seen = look(folder, step, rank=rank, verify=False)
            require_same(seen.examples(), batches[step])
            rows += seen.rows.tolist()
        assert sorted(rows) == whole.rows.tolist()


@pytest.fixture(scope="module")
def trained_run(shards, tmp_path_factory):
    """A run of two epochs, and what its model got."""
    return run_and_keep(shards, tmp_path_factory.mktemp("runs"), "batch_size=24", "max_duration=2ep", "seed=1")


def test_places_and_documents_are_those_of_the_stored_tokens(trained_run, shards, h5_data):
    folder, batches = trained_run
    manifest, tokenizer = Manifest.load(shards), Tokenizer.load(shards / "tokenizer")
    source = ConvertedTokens(shards, manifest, tokenizer)
    stream = np.concatenate([source.read(part).tokens for part in source.parts() if part.split == "train"])
    ends = np.flatnonzero(stream == tokenizer.eos_id)
    assert len(ends) == manifest.splits["train"].documents
    documents = np.split(stream, ends + 1)
    seen_starts = []
    for step in [*batches][: look(folder, 1).windows.n_batches]:
        for path in (shards, h5_data):
            seen = look(folder, step, path=str(path))
            for stored in seen.stored:
                tokens = stored.tokens
                assert np.array_equal(stream[stored.start : stored.start + 32], tokens)
                if len(tokens):
                    assert stored.document is not None
                    assert stored.offset is not None
                    from_there = np.concatenate(documents[stored.document :])[stored.offset :]
                    assert np.array_equal(from_there[: len(tokens)], tokens)
                    assert stored.offset < len(documents[stored.document])
                    seen_starts += [stored.start]
    assert sorted(seen_starts) == sorted(2 * [*range(0, len(stream), 32)])


def test_what_is_shown_of_a_step(trained_run, shards, tmp_path, caplog):
    caplog.set_level(logging.INFO, "hindsight")
    folder, batches = trained_run
    n_batches = look(folder, 1).windows.n_batches
    inspect_mds.main(InspectConfig(run=str(folder), step=n_batches + 2))
    lines = [record.message for record in caplog.records]
    assert lines[0] == (
        f"{folder.name}, step {n_batches + 2}: epoch 2, batch 2 of {n_batches} in it; 24 windows of 32 tokens, "
        "forward, shuffled by seed=1"
    )
    assert lines[1] == f"train/loss_nats: {by_step(folder)[n_batches + 2]:.4f} nats, before the step"
    assert lines[2].startswith("documents of train are counted from 0, in the order of the corpus (")
    tokenizer = Tokenizer.load(shards / "tokenizer")
    for row, targets in enumerate(batches[n_batches + 2]["targets"].tolist()):
        place, text = lines[3 + 2 * row : 5 + 2 * row]
        assert place.startswith(f"row {row}: window ")
        shown = "".join("⏎EOS⏎" if i == tokenizer.eos_id else tokenizer.detokenize([i]) for i in targets)
        if "�" not in shown:
            assert text == f"    forward: {shown!r}"
    assert len(lines) == 3 + 2 * 24
    seen = look(folder, n_batches)
    caplog.clear()
    inspect_mds.main(InspectConfig(run=str(folder), step=n_batches, windows=1))
    padded = seen.windows.n_padded - seen.windows.n_windows
    assert caplog.records[-2].message == f"{padded} empty windows pad the last batch of the epoch."
    assert caplog.records[-1].message == f"{24 - padded - 1} more windows are not shown (windows=)."
    caplog.clear()
    inspect_mds.main(InspectConfig(run=str(folder), step=1, verify=False, rank=0))
    assert len(caplog.records) == 2 + 2 * 24
    assert "document" not in caplog.records[2].message


def test_a_step_whose_loss_was_not_recorded_is_shown_without(trained_run, tmp_path, caplog):
    caplog.set_level(logging.INFO, "hindsight")
    copy = shutil.copytree(trained_run[0], tmp_path / "copy")
    lines = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copy / "metrics.jsonl").write_text("".join(lines[:1] + lines[2:3]))
    for step in (2, 4):
        caplog.clear()
        inspect_mds.main(InspectConfig(run=str(copy), step=step, windows=0))
        assert caplog.records[1].message == "train/loss_nats: not in metrics.jsonl"


def test_other_data_and_damaged_data_are_refused(trained_run, shards, h5_data, other_data, tmp_path):
    folder, _ = trained_run
    with pytest.raises(InputError, match=r"path=.* is not the data that run=.* was trained on"):
        look(folder, 1, path=str(other_data))
    copy = shutil.copytree(shards, tmp_path / "copy")
    for path in (copy / "train").glob("*.mds"):
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match=r"path=.*: train is damaged"):
        look(folder, 1, path=str(copy))
    copy = shutil.copytree(h5_data, tmp_path / "h5")
    with h5py.File(copy / "tokens.h5", "r+") as file:
        file["tokens"][100:110] = file["tokens"][100:110][::-1]  # pyright: ignore[reportIndexIssue]
    with pytest.raises(InputError, match=r"path=.*tokens.h5"):
        look(folder, 1, path=str(copy))
    moved = shutil.copytree(folder, tmp_path / "moved")
    text = (moved / "config.yaml").read_text()
    (moved / "config.yaml").write_text(text.replace(str(shards), str(tmp_path / "gone")))
    with pytest.raises(InputError, match=r"data.path=.* has no manifest.json.* Or say by path="):
        look(moved, 1)


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*boto3.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # in Streaming
def test_data_and_run_on_s3_tell_the_same(bucket, shards, tmp_path):
    store(shards, f"{bucket}/data")
    given = [f"data.cache_dir={tmp_path}", f"checkpoint.folder={bucket}/run", "order=both", "model.vocab_size=302"]
    given += ["data.download_retry=1"]
    folder, batches = run_and_keep(f"{bucket}/data", tmp_path, *given, "max_duration=3ba")
    before = sorted(tmp_path.iterdir())
    seen = look(folder, 3)
    require_same(seen.examples(), batches[3])
    require_same(look(f"{bucket}/run", 2, path=str(shards)).examples(), batches[2])
    assert all(stored.document is None for stored in seen.stored)
    assert sorted(tmp_path.iterdir()) == before  # nothing that was fetched stays
    shard = seen.stored[0].start // (64 * 5)
    remove(f"{bucket}/data/train/shard.{shard:05}.mds")
    with pytest.raises(InputError, match=r"data.path=s3://.* cannot be fetched"):
        look(folder, 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"step": 1}, "step=1 needs run="),
        ({"run": "a"}, "run=a needs step="),
        ({"run": "gs://b/c", "step": 1}, "run=gs://b/c must be here, or s3://BUCKET/FOLDER"),
        ({"run": "a", "step": 0}, "step=0 must be greater than 0"),
        ({"run": "a", "step": 1, "split": "val"}, "leave out split=val"),
        ({"run": "a", "step": 1, "order": "words"}, "leave out direction= and order="),
        ({"run": "a", "step": 1, "rank": -1}, "rank=-1 must be at least 0"),
        ({"run": "a", "step": 1, "nodes": 0}, "nodes=0 must be greater than 0"),
        ({"run": "a", "step": 1, "nodes": 2}, "nodes=2 is for rank=; leave it out"),
        ({"path": "a", "nodes": 2}, "nodes=2 is for rank=; leave it out"),
        (
            {"run": "a", "step": 1, "context_length": 32},
            "run=a says its own context_length; leave out context",
        ),
        ({"run": "a", "step": 1, "seed": 3}, "run=a says its own seed; leave out seed=3"),
        ({"path": "a", "rank": 0}, "rank=0 is for step= and run="),
        ({}, "path= is required"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        InspectConfig(**given)


def test_devices_that_the_run_did_not_have_are_refused(trained_run):
    with pytest.raises(InputError, match=r"rank=1: run=.* had 1 devices, counted from 0"):
        look(trained_run[0], 1, rank=1)
    with pytest.raises(InputError, match="nodes=2 does not divide the 1 devices"):
        look(trained_run[0], 1, rank=0, nodes=2)


def test_a_run_that_was_made_shorter_still_shows_the_steps_that_it_made(trained_run, tmp_path):
    copy = shutil.copytree(trained_run[0], tmp_path / "copy")
    metadata = json.loads((copy / "metadata.json").read_text())
    steps = metadata["total_steps"]
    (copy / "metadata.json").write_text(json.dumps(metadata | {"total_steps": 1}))
    require_same(look(copy, steps).examples(), trained_run[1][steps])
