"""Runs of a study as tasks that hydra starts: `run_study.py -m task=0,1`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.processes import ROOT
from helpers.training_runs import TINY
from omegaconf import OmegaConf

from hindsight.config.listing import ListConfig
from hindsight.studies.listing import list_runs


@pytest.fixture
def study(tmp_path: Path, corpus: Path) -> list[str]:
    """Arguments of a study of a run in each direction."""
    content = {
        "question": "Do tasks make the runs of a study?",
        "corpora": {"words": {"corpus": str(corpus)}},
        "tokenizers": {"own": {"vocab_size": 300}},
        "convert": {"block_length": 64, "val_share": 0.2},
        "settings": OmegaConf.to_container(OmegaConf.from_dotlist([*TINY, "max_duration=3ba"])),
        "axes": {"order": ["forward", "backward"], "seed": [0]},
        "evaluation": None,
        "report": ["gap"],
    }
    (tmp_path / "words.yaml").write_text(OmegaConf.to_yaml(content))
    return ["study=words.yaml", "scale=tiny"]


def run_study(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "run_study.py"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200, check=False)


def states(folder: Path) -> dict[str, str]:
    return {row.name: row.state.name for row in list_runs(ListConfig(runs_dir=str(folder / "runs" / "words-tiny")))}


@pytest.mark.slow
@pytest.mark.dist
def test_tasks_train_the_runs_and_one_that_fails_keeps_no_other(study, tmp_path):
    taken = tmp_path / "runs" / "words-tiny" / "forward-seed0"
    taken.mkdir(parents=True)
    (taken / "notes").touch()
    done = run_study(tmp_path, "-m", *study, "task=0,1")
    assert done.returncode == 2, done.stderr
    assert "task=0 has failed" in done.stderr
    assert "Traceback" not in done.stderr
    assert states(tmp_path) == {"backward-seed0": "done"}
    (taken / "notes").unlink()
    before = os.stat(tmp_path / "runs" / "words-tiny" / "backward-seed0" / "metrics.jsonl")
    again = run_study(tmp_path, "-m", *study, "task=range(0,2)")
    assert again.returncode == 0, again.stderr
    assert states(tmp_path) == {"backward-seed0": "done", "forward-seed0": "done"}
    assert os.stat(tmp_path / "runs" / "words-tiny" / "backward-seed0" / "metrics.jsonl") == before
    reported = run_study(tmp_path, *study, "only=report")
    assert reported.returncode == 0, reported.stderr
    found = json.loads((tmp_path / "results" / "words" / "tiny" / "study.json").read_text())
    python = f'python() {{ "{sys.executable}" "$@"; }}'
    repeat = ["bash", "-c", f"{python}; . {tmp_path}/results/words/tiny/commands.sh"]
    repeated = subprocess.run(repeat, cwd="/", capture_output=True, text=True, timeout=200, check=False)
    assert repeated.returncode == 0, repeated.stderr
    assert repeated.stdout.count("nothing to do") == 4  # tokenizer, shards and two runs
    assert {run["name"]: run["state"] for run in found["runs"]} == {"forward-seed0": "done", "backward-seed0": "done"}


def test_a_task_that_the_table_has_not_is_refused_before_anything_is_made(study, tmp_path):
    done = run_study(tmp_path, *study, "task=2")
    assert done.returncode == 2
    assert "task=2: study=words scale=tiny has 2 runs; give at most 1." in done.stderr
    assert not (tmp_path / "data").exists()
