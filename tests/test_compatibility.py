"""What the code of commit 07aa182, before the package hindsight/, has left with users goes on.

tests/fixtures/made_by_07aa182.tar.xz holds, made from the corpus of conftest.py: a run with dropout that stands at step
13 of its 40 (run/), the losses of the same run made at one go (losses.json), a conversion that was interrupted after
six parts (conversion/work), a manifest, and the SHA-256 of all shards and files of the tokenizer.
"""

import hashlib
import json
import logging
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.small_data import convert_config
from helpers.training_runs import compose_config, losses

import convert_to_mds
import train_composer
from hindsight.shards.integrity import RECORD_NAME
from hindsight.shards.manifest import Manifest

ARCHIVE = Path(__file__).with_name("fixtures") / "made_by_07aa182.tar.xz"
RUN = [
    "direction=backward",
    "model=gpt_nano",
    "model.n_layers=1",
    "model.d_model=4",
    "model.n_heads=1",
    "model.tied_head=true",
    "model.context_length=32",
    "model.dropout=0.2",
    "data.context_length=32",
    "batch_size=8",
    "optim.lr=1e-2",
    "optim.warmup_steps=2",
    "optim.schedule=constant",
    "optim.cooldown_share=0",
    "checkpoint.interval=100ba",
    "eval_interval=10ba",
    "eval_batches=2",
    "wandb.mode=disabled",
    "progress_bar=false",
    "samples.interval=10ba",
    "samples.length=4",
    "samples.prompts=[sea]",
    "run_name=resumed",
    "max_duration=40ba",
]


@pytest.fixture(scope="module")
def made_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made_before")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_a_run_goes_on_from_its_checkpoint_with_the_same_losses(made_before, shards, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="hindsight")
    (made_before / "run").rename(tmp_path / "resumed")
    train_composer.main(compose_config("train_composer", *RUN, f"data.path={shards}", f"runs_dir={tmp_path}"))
    assert "goes on from step 13" in caplog.text
    resumed = [[*line] for line in losses(tmp_path / "resumed")]
    # The run that was made at one go was not evaluated at step 13, where the other ended for a while.
    expected = json.loads((made_before / "losses.json").read_text())
    # Processors round differently: on another kind than that of the fixture, losses differ in their seventh digit.
    assert [line[0] for line in resumed] == [line[0] for line in expected]
    assert [line[1] for line in resumed[:13]] == [line[1] for line in expected[:13]]
    for line, other in zip(resumed, expected, strict=True):
        compared = [value for value, known in zip(line, other, strict=True) if known is not None]
        assert compared == pytest.approx([value for value in other if value is not None], rel=1e-5)


def test_an_interrupted_conversion_goes_on_and_ends_in_the_same_bytes(
    made_before, corpus, tokenizer_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr("hindsight.text.documents.PART_BYTES", 2000)
    work = tmp_path / ".out.partial"
    (made_before / "conversion" / "work").rename(work)
    with np.load(work / "state.npz") as stored:
        content: dict[str, Any] = dict(stored)
    state = json.loads(content["state"].tobytes()) | {"out": str(tmp_path / "out")}
    np.savez(work / "state.npz", **content | {"state": np.frombuffer(json.dumps(state).encode(), np.uint8)})
    assert state["taken"] == 6
    convert_to_mds.main(convert_config(corpus, tokenizer_dir, tmp_path / "out"))
    assert not work.exists()
    assert sums(tmp_path / "out", "shards") == expected_sums(made_before, "shards/")


def test_shards_and_tokenizer_are_byte_for_byte_those_of_before(made_before, shards, tokenizer_dir):
    assert sums(shards, "shards") == expected_sums(made_before, "shards/")
    assert sums(tokenizer_dir, "tokenizer") == expected_sums(made_before, "tokenizer/")


def test_a_manifest_is_read_and_has_the_same_fingerprint(made_before, shards):
    assert Manifest.load(made_before).fingerprint == Manifest.load(shards).fingerprint


def sums(folder: Path, name: str) -> dict[str, str]:
    """SHA-256 of every file, but for those that name the corpus and its time, or files that were found intact."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    # Since then the settings for transformers are others, and what was checked is recorded.
    others = ("manifest.json", "hindsight.json", "tokenizer_config.json", RECORD_NAME)
    paths = [path for path in paths if path.name not in others]
    return {f"{name}/{path.relative_to(folder)}": hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def expected_sums(made_before: Path, prefix: str) -> dict[str, str]:
    stored = json.loads((made_before / "sha256.json").read_text())
    names = [name for name in stored if name.startswith(prefix) and not name.endswith("tokenizer_config.json")]
    return {name: stored[name] for name in names}
