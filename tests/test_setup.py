import json
import logging
import shutil

import pytest
from helpers.small_data import convert_config, make_text
from helpers.training_runs import compose_config, settings, train

import convert_to_mds
from compare_directions import main as compare
from hindsight.config.comparison import CompareConfig
from hindsight.errors import InputError
from hindsight.training.setup import RunSetup, check_setup, locate_data, metadata_of


def setup_of(shards, runs, *changes: str) -> RunSetup:
    config = compose_config("train_composer", *settings(shards, runs, *changes))
    return check_setup(config, locate_data(config))


@pytest.mark.parametrize("batch_size", [467, 1000, 100_000, 2**31])
def test_a_batch_that_would_be_mostly_padding_is_refused_before_anything_is_made(shards, tmp_path, batch_size):
    with pytest.raises(InputError) as refused:
        setup_of(shards, tmp_path / "runs", f"batch_size={batch_size}")
    said = str(refused.value)
    assert f"batch_size={batch_size} is more than an epoch" in said
    assert "has 233 windows of 32 tokens" in said
    assert "at most batch_size=233" in said
    assert not (tmp_path / "runs").exists()


def test_the_batch_that_the_message_names_divides_among_the_devices(shards, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(InputError, match="at most batch_size=232,"):
        setup_of(shards, tmp_path, "batch_size=1000")


def test_documents_are_not_masked_where_the_data_does_not_know_them(shards, tmp_path):
    copy = shutil.copytree(shards, tmp_path / "shards")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["splits"]["val"]["documents"] = None
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"document_mask=true: data.path=.* does not say where its documents end"):
        setup_of(copy, tmp_path / "runs", "document_mask=true")
    setup_of(copy, tmp_path / "runs")


def test_a_run_that_was_begun_with_such_a_batch_goes_on(shards, tmp_path):
    changes = ["batch_size=1000", "run_name=a"]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.yaml").touch()
    assert setup_of(shards, tmp_path, *changes).config.batch_size == 1000


def test_a_run_records_the_text_that_it_is_validated_on_whatever_the_tokenizer(shards, tmp_path):
    metadata = metadata_of(setup_of(shards, tmp_path), n_parameters=1, world_size=1)
    manifest = json.loads((shards / "manifest.json").read_text())
    val = manifest["splits"]["val"]
    assert {name: metadata[f"val_{name}"] for name in ("documents", "tokens", "bytes")} == {
        name: val[name] for name in ("documents", "tokens", "bytes")
    }
    assert metadata["corpus_fingerprint"] == manifest["corpus_fingerprint"]
    assert (metadata["vocab_size"], metadata["text_order"]) == (manifest["vocab_size"], None)


def test_settings_that_fit_the_data_are_not_noted(shards, tmp_path):
    assert setup_of(shards, tmp_path).notes == []


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        (["batch_size=400"], "batch_size=400 is more than an epoch: each step is made of its 233 windows"),
        (["optim.warmup_steps=6"], "optim.warmup_steps=6 is as long as the 6 steps of the run, or longer"),
        (["optim.warmup_steps=70", "max_duration=2ep"], "optim.warmup_steps=70 is as long as the 60 steps of the run"),
        (["eval_batches=2"], "eval_batches=2 covers 16 of the 67 windows of the validation set"),
        (["optim.schedule=cosine_restarts", "optim.period_steps=9"], "optim.period_steps=9 is longer than the run"),
    ],
)
def test_what_the_settings_make_of_this_data_is_noted(shards, tmp_path, changes, note):
    (found,) = setup_of(shards, tmp_path, *changes).notes
    assert found.startswith(note)


@pytest.mark.parametrize("changes", [["optim.warmup_steps=5"], ["eval_batches=9"], ["eval_batches=100"]])
def test_settings_at_the_limit_are_not_noted(shards, tmp_path, changes):
    assert setup_of(shards, tmp_path, *changes).notes == []


def test_a_note_is_said_at_the_start_kept_with_the_run_and_said_in_the_comparison(tokenizer_dir, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="hindsight")
    (tmp_path / "corpus.txt").write_text(make_text(n_documents=30, seed=1), encoding="utf-8")
    data = tmp_path / "data"
    convert_to_mds.main(convert_config(tmp_path / "corpus.txt", tokenizer_dir, data, val_share=0.05))
    documents = json.loads((data / "manifest.json").read_text())["splits"]["val"]["documents"]
    assert 0 < documents < 10
    note = f"the validation set has {documents} document{'s' if documents > 1 else ''}"
    changes = ["max_duration=1ba", "optim.warmup_steps=0"]
    pair = [train(data, tmp_path, *changes, f"direction={direction}") for direction in ("forward", "backward")]
    assert f"note     {note}" in caplog.text
    assert json.loads((pair[0] / "metadata.json").read_text())["notes"][0].startswith(note)
    caplog.clear()
    compare(CompareConfig(runs=[str(run) for run in pair], out=str(tmp_path / "out"), report=False))
    assert f"Warning: {pair[0]} and {pair[1]}: {note}" in " ".join(caplog.messages[0].split())
