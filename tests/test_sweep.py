import json
import shutil
from pathlib import Path

import pytest
from helpers.processes import run_command
from helpers.training_runs import TINY, compose_config, last_of_each, settings
from omegaconf import OmegaConf

from hindsight.errors import InputError
from hindsight.studies import sweep


def test_a_sweep_is_the_product_of_its_lists_with_every_run_checked():
    runs = sweep.runs_of(["-m", "direction=forward,backward", "model=gpt_nano,gru_small", "seed=1,2,3"])
    assert len(runs) == 12
    assert len({run.name_of_run() for run in runs}) == 12
    assert [run.name_of_run() for run in runs[:2]] == ["gpt_nano-bible-forward-seed1", "gpt_nano-bible-forward-seed2"]
    with pytest.raises(InputError, match="batch_size=-1"):
        sweep.runs_of(["-m", "direction=forward", "batch_size=1,-1", "run_name=a${batch_size}"])


def test_runs_that_would_be_one_are_refused_until_they_are_named_apart():
    changes = ["-m", "direction=forward", "optim.lr=1e-3,1e-4"]
    with pytest.raises(InputError, match="is that of 2 runs"):
        sweep.runs_of(changes)
    named = sweep.runs_of([*changes, "run_name=lr${optim.lr}"])
    assert [run.run_name for run in named] == ["lr0.001", "lr0.0001"]


@pytest.mark.parametrize(("duration", "tokens"), [("10ba", 10 * 8 * 32), ("5_000tok", 5000)])
def test_tokens_are_those_of_the_duration(duration: str, tokens: int):
    run = compose_config("train_composer", "direction=forward", *TINY, f"max_duration={duration}")
    assert sweep.tokens_of(run) == tokens


def test_tokens_of_epochs_are_those_of_the_data_and_unknown_where_it_is_elsewhere(shards: Path):
    here, there = (
        compose_config("train_composer", "direction=forward", f"data.path={path}", "max_duration=3ep")
        for path in (shards, "s3://bucket/data")
    )
    manifest = json.loads((shards / "manifest.json").read_text())
    assert sweep.tokens_of(here) == 3 * manifest["splits"]["train"]["tokens"]
    assert sweep.tokens_of(there) is None
    assert "unknown" in sweep.table_of([there])


def test_hours_come_from_a_run_that_was_as_fast_and_from_nothing_else(tmp_path: Path):
    settings = [*TINY, f"runs_dir={tmp_path}", "max_duration=7200tok"]
    forward = compose_config("train_composer", "direction=forward", *settings)
    assert sweep.EarlierRuns([tmp_path]).speed_of(forward) is None
    earlier = tmp_path / "earlier"
    earlier.mkdir()
    backward = compose_config("train_composer", "direction=backward", "seed=7", *settings)
    OmegaConf.save(OmegaConf.structured(backward), earlier / "config.yaml")
    speeds = [{"step": step, "train/tokens_per_second": speed} for step, speed in enumerate((1.0, 2.0, 30.0))]
    (earlier / "metrics.jsonl").write_text("\n".join(map(json.dumps, speeds)) + '\n{"step": 4, "train/tok')
    assert sweep.EarlierRuns([tmp_path]).speed_of(forward) == 2.0
    assert sweep.table_of([forward, forward]).splitlines()[3].split() == ["2", "runs", "14,400", "2.00"]
    larger = compose_config("train_composer", "direction=forward", *settings, "model.n_layers=3")
    assert sweep.EarlierRuns([tmp_path]).speed_of(larger) is None
    config = (earlier / "config.yaml").read_text()
    (earlier / "config.yaml").write_text(config.replace("  tied_head: false\n", ""))  # begun before that key existed
    assert sweep.EarlierRuns([tmp_path]).speed_of(forward) == 2.0
    assert sweep.table_of([forward, larger]).splitlines()[3].split() == ["2", "runs", "14,400", "unknown"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["data.path={shards},nowhere"], "data.path=nowhere has no manifest.json"),
        (["data.val_path=nowhere"], "data.val_path=nowhere has no manifest.json"),
        (["data.tokenizer=nowhere"], "data.tokenizer=nowhere"),
        (["data.context_length=32,48", "run_name=${{direction}}${{data.context_length}}"], "48"),
        (["checkpoint.folder={shards}/manifest.json/x"], "/x cannot be made a folder"),
        (["runs_dir={shards}/manifest.json"], "cannot be made a folder"),
        (["direction=forward", "run_name=begun,other"], "run_name=begun cannot go on"),
    ],
    ids=str,
)
def test_a_sweep_checks_all_its_paths_before_its_first_run(changes, words, shards, tmp_path, monkeypatch, capsys):
    runs = tmp_path / "runs"
    begun = compose_config("train_composer", *settings(shards, runs, "run_name=begun", "optim.lr=0.5"))
    (runs / "begun").mkdir(parents=True)
    OmegaConf.save(OmegaConf.structured(begun), runs / "begun" / "config.yaml")
    (runs / "begun" / "metadata.json").write_text("{}")
    given = [f"runs_dir={runs}", "direction=forward,backward", f"data.path={shards}", *changes]
    given = [each.format(shards=shards, runs=runs) for each in given]
    with pytest.raises(SystemExit) as ended:
        sweep.announce(["-m", *last_of_each([*settings(shards, runs), *given])])
    captured = capsys.readouterr()
    assert ended.value.code == 2
    assert words in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert [path.name for path in runs.iterdir()] == ["begun"]


def test_a_sweep_whose_paths_are_there_is_announced(shards, tmp_path, capsys):
    sweep.announce(["-m", *last_of_each([*settings(shards, tmp_path / "runs"), "direction=forward,backward"])])
    assert "2 runs" in capsys.readouterr().out


@pytest.mark.slow
def test_a_sweep_prints_its_table_and_trains_all_its_runs_in_one_process(shards: Path, tmp_path: Path):
    arguments = [*TINY, f"data.path={shards}", f"runs_dir={tmp_path}/runs", "max_duration=2ba"]
    done = run_command("python", "train_composer.py", "-m", "direction=forward,backward", "seed=1,2", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("run ")
    for direction in ("forward", "backward"):
        for seed in (1, 2):
            run = tmp_path / "runs" / f"gpt_nano-l2-d24-ctx64-h2-t32-shards-{direction}-seed{seed}"
            assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 2
            assert f"{run.name} " in done.stdout
    assert not Path("multirun").exists()


@pytest.mark.slow
def test_a_run_that_fails_does_not_keep_the_others_of_a_sweep_and_fails_it(shards: Path, tmp_path: Path):
    shutil.copytree(shards, tmp_path / "damaged")
    next((tmp_path / "damaged" / "train").glob("shard.00000.mds")).unlink()
    paths = f"{tmp_path}/damaged,{shards}"
    arguments = [*TINY, f"data.path={paths}", f"runs_dir={tmp_path}/runs", "max_duration=2ba"]
    done = run_command("python", "train_composer.py", "-m", "direction=forward", *arguments)
    assert done.returncode == 2, done.stderr
    assert "shard.00000.mds is missing" in done.stderr.splitlines()[-1]
    assert (tmp_path / "runs" / "gpt_nano-l2-d24-ctx64-h2-t32-shards-forward-seed0" / "metrics.jsonl").exists()
