"""run_study.py: a study runs whole, goes on after whatever ended it, and refuses what cannot be before it begins."""

import csv
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.processes import ROOT, is_alive, run_command, wait_until
from helpers.small_data import make_text
from helpers.small_study_file import write_study
from helpers.study_pages import read_result

from hindsight import interrupts, runs
from hindsight.config.study import Only, Scale, StudyConfig
from hindsight.errors import InputError
from hindsight.files import partial_of
from hindsight.studies.processes import end_servers
from hindsight.studies.results import StudyResult
from hindsight.studies.run import StudyWork
from hindsight.studies.run_lengths import loss_at_end
from hindsight.studies.study_records import write_records

NAMES = ["forward-seed0", "forward-seed1", "backward-seed0", "backward-seed1"]
WAIT_S = 300.0


@pytest.fixture(scope="module", autouse=True)
def processes() -> Iterator[None]:
    """Ends the processes from which the studies of this file start their commands."""
    yield
    end_servers()


def keys_of(folder: Path, study: Path | str, **changes: Any) -> dict[str, str]:
    places = {"out": "out", "runs_dir": "runs", "data_dir": "data", "corpus_dir": "."}
    given = {"study": str(study), "scale": "tiny"} | {key: str(folder / name) for key, name in places.items()}
    return given | {key: str(value) for key, value in changes.items()}


def command(folder: Path, study: Path | str, **changes: Any) -> list[str]:
    return ["run_study.py", *(f"{key}={value}" for key, value in keys_of(folder, study, **changes).items())]


def opened(folder: Path, study: Path, **changes: Any) -> StudyWork:
    given: dict[str, Any] = keys_of(folder, study) | {"scale": Scale.tiny}
    return StudyWork(StudyConfig(**given | changes))


def make(folder: Path, n_documents: int = 120, **changes: Any) -> Path:
    """Write a study and its corpus."""
    study = write_study(folder, **changes)
    (folder / "corpus.txt").write_text(make_text(n_documents, seed=1), encoding="utf-8")
    return study


def lasting(result: StudyResult) -> Any:
    """What a study has found, without what differs from start to start: when it was, by which commit, and how fast."""
    values = result.as_json()
    del values["provenance"]
    for run in values["runs"]:
        del run["tokens_per_second"]
        del run["metadata"]["git_commit"]
    return json.loads(json.dumps(values))


def lasting_text(out: Path) -> str:
    """The report as text, without lines that differ from start to start."""
    differing = ("date:", "git commit:", "Made by", "training took")
    lines = (out / "report.md").read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.startswith(differing))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that has run, by the command."""
    folder = tmp_path_factory.mktemp("whole")
    done = run_command("python", *command(folder, make(folder)), timeout_s=WAIT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    table = "4 runs, "  # before data is made, and again with what the data tells
    assert done.stdout.index(table) < done.stdout.index("convert_to_mds.py ") < done.stdout.rindex(table)
    assert done.stdout.rindex(table) < done.stdout.index("is trained")
    return folder


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, the data only."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("corpus.txt", "small.yaml"):
        shutil.copy(whole / name, folder)
    shutil.copytree(whole / "data", folder / "data")
    return folder


def test_a_study_makes_its_data_trains_evaluates_compares_and_says_what_was_done(whole: Path):
    out = whole / "out"
    result = read_result(out)
    assert [(run.name, run.state, run.error) for run in result.runs] == [(name, "done", None) for name in NAMES]
    for run in result.runs:
        assert run.loss_nats == run.evaluations[-1]["loss_nats"] < 6
        assert run.settings["seed"] == run.axes["seed"]
        assert run.metadata["git_commit"] == result.provenance["git_commit"]
        assert (Path(run.folder) / runs.TOKEN_LOSSES).is_file()
        assert [each.split()[1] for each in run.commands] == ["train_composer.py", "evaluate_tokens.py"]
    (data,) = result.data.values()
    assert (data["corpus"], data["tokenizer"]) == ("words", "own")
    assert data["train"]["documents"] + data["val"]["documents"] == 120
    compared = json.loads((out / "comparison" / "comparison.json").read_text())
    assert len(compared["pairs"]) == 2
    assert (out / "runs.csv").read_text().count("\n") == 5
    script = (out / "commands.sh").read_text()
    assert script.index("train_tokenizer.py") < script.index("convert_to_mds.py") < script.index("train_composer.py")
    assert all(run.commands[0] in script for run in result.runs)
    assert "export OMP_NUM_THREADS=" in script
    assert (out / "report.md").is_file()


def test_the_commits_of_runs_are_said_where_they_differ_from_that_of_the_study(whole: Path, tmp_path: Path):
    result = read_result(whole / "out")
    result.provenance["git_commit"] = "b2"
    for run, commit in zip(result.runs, ["a1", "a1", "b2", "a1"], strict=True):
        run.metadata["git_commit"] = commit
    write_records(tmp_path, result, None, {})
    assert "# Runs were trained by commit a1 (3 runs), b2 (1 run)." in (tmp_path / "commands.sh").read_text()
    for run in result.runs:
        run.metadata["git_commit"] = "b2"
    write_records(tmp_path, result, None, {})
    assert "trained by" not in (tmp_path / "commands.sh").read_text()


def test_its_commands_are_what_a_person_types_and_find_all_done(whole: Path):
    (_, run, *_) = read_result(whole / "out").runs
    for typed in run.commands:
        done = subprocess.run(
            ["bash", "-c", f'python() {{ "{sys.executable}" "$@"; }}; {typed}'],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "nothing to do" in done.stdout or "already there" in done.stdout
    script = f"python() {{ pwd; }}; . {whole}/out/commands.sh"
    places = subprocess.run(["bash", "-c", script], cwd="/", capture_output=True, text=True, check=True).stdout
    assert {*places.splitlines()} == {str(ROOT)}


def test_a_study_that_is_done_trains_nothing_and_finds_the_same(whole: Path, capsys: pytest.CaptureFixture[str]):
    result = read_result(whole / "out")
    before, report = lasting(result), (whole / "out" / "report.html").stat().st_mtime_ns
    logs = {path.name: path.stat().st_size for path in (whole / "out" / "logs").glob("*seed*.log")}
    assert opened(whole, whole / "small.yaml").run() == 0
    assert {path.name: path.stat().st_size for path in (whole / "out" / "logs").glob("*seed*.log")} == logs
    assert read_result(whole / "out") == result
    assert (whole / "out" / "report.html").stat().st_mtime_ns == report  # nor was it written again
    (whole / "out" / "commands.sh").unlink()  # as a study leaves it that is killed before it has all of a report
    for only in (None, Only.report):
        assert opened(whole, whole / "small.yaml", only=only).run() == 0
        assert (whole / "out" / "commands.sh").exists()
        assert (whole / "out" / "report.html").stat().st_mtime_ns > report
        report = (whole / "out" / "report.html").stat().st_mtime_ns
    assert lasting(read_result(whole / "out")) == before
    assert capsys.readouterr().out.count("done") == 8


def test_only_a_part_is_done(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    study = make(tmp_path)
    assert opened(tmp_path, study, only=Only.table).run() == 0
    assert capsys.readouterr().out.count("no data yet") == 4
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "out").exists()
    assert opened(tmp_path, study, only=Only.data).run() == 0
    assert not (tmp_path / "runs").exists()
    assert opened(tmp_path, study, only=Only.report).run() == 0
    assert {run.state for run in read_result(tmp_path / "out").runs} == {"missing"}


def test_a_run_that_was_trained_by_hand_on_the_same_data_elsewhere_is_taken_as_it_is(
    whole: Path, copied: Path, capsys: pytest.CaptureFixture[str]
):
    (moved,) = [path for path in (copied / "data").iterdir() if (path / "manifest.json").exists()]
    shutil.copytree(moved, copied / "elsewhere")
    shutil.copytree(whole / "runs", copied / "runs")
    for path in (copied / "runs").rglob(runs.CONFIG):
        path.write_text(path.read_text().replace(str(whole / "data"), str(copied / "elsewhere")))
    assert opened(copied, copied / "small.yaml", only=Only.table).run() == 0
    assert capsys.readouterr().out.count("done") == 4


def test_a_run_that_fails_is_told_at_the_end_and_keeps_no_other(copied: Path, caplog: pytest.LogCaptureFixture):
    in_the_way = copied / "runs" / "small-tiny" / "forward-seed1"
    in_the_way.mkdir(parents=True)
    (in_the_way / "notes.txt").write_text("no run")
    study = copied / "small.yaml"
    assert opened(copied, study).run() == 1
    states = {run.name: (run.state, run.error) for run in read_result(copied / "out").runs}
    assert [states[name][0] for name in NAMES] == ["done", "failed", "done", "done"]
    error = states["forward-seed1"][1]
    assert error is not None
    assert "exit status 2: train_composer.py: run_name=forward-seed1:" in error
    assert str(copied / "out" / "logs" / "forward-seed1.log") in error
    assert caplog.messages[-1] == f"forward-seed1 failed, {error}"
    assert opened(copied, study, only=Only.report).run() == 0
    assert read_result(copied / "out").runs[1].state == "failed"  # as another process has found
    shutil.rmtree(in_the_way)
    assert opened(copied, study).run() == 0
    assert [(run.state, run.error) for run in read_result(copied / "out").runs] == 4 * [("done", None)]


@pytest.mark.parametrize("name", [runs.METADATA, runs.METRICS])
def test_a_run_that_is_damaged_fails_and_keeps_no_other(whole: Path, copied: Path, name: str):
    shutil.copytree(whole / "runs", copied / "runs")
    folder = copied / "runs" / "small-tiny"
    shutil.rmtree(folder / NAMES[2])
    damaged = folder / NAMES[0] / name
    damaged.write_text(damaged.read_text()[: damaged.stat().st_size // 2] + "\n{}\n")
    is_mended = name == runs.METRICS  # from the checkpoint, as the run goes on
    for only, status in ((Only.report, 1), (None, int(not is_mended))):
        assert opened(copied, copied / "small.yaml", only=only).run() == status
        first, *others = read_result(copied / "out").runs
        states = ["done", "missing" if only else "done", "done"]
        assert [run.state for run in others] == states
        assert (first.state, str(damaged) in (first.error or "")) == (("failed", True) if status else ("done", False))
        assert (name in (copied / "out" / "report.md").read_text()) == bool(status)
        compared = json.loads((copied / "out" / "comparison" / "comparison.json").read_text())
        assert [pair["seed"] for pair in compared["pairs"]] == ([1] if status else [0, 1])


def test_texts_and_what_shards_were_made_of_may_be_gone(whole: Path, copied: Path, capsys: pytest.CaptureFixture[str]):
    study = copied / "small.yaml"
    assert opened(copied, study, only=Only.data).run() == 0
    (copied / "corpus.txt").unlink()
    shutil.rmtree(copied / "data" / "tokenizers")
    shutil.copytree(whole / "runs", copied / "runs")
    assert opened(copied, study).run() == 0
    assert capsys.readouterr().out.count("  done\n") == 4
    assert not (copied / "data" / "tokenizers").exists()
    shutil.rmtree(next(path.parent for path in (copied / "data").glob("*/manifest.json")))
    with pytest.raises(InputError, match=r"corpora.words is not at .*give corpus_dir="):
        opened(copied, study)


def test_an_evaluation_that_failed_is_a_failure_until_it_is_made(whole: Path, copied: Path):
    study = copied / "small.yaml"
    shutil.copytree(whole / "runs", copied / "runs")
    folder = copied / "runs" / "small-tiny" / NAMES[1]
    (folder / runs.TOKEN_LOSSES).unlink()
    in_the_way = partial_of(folder / runs.TOKEN_LOSSES)
    in_the_way.touch()
    for only, status in ((None, 1), (Only.report, 0)):
        assert opened(copied, study, only=only).run() == status
        failed = read_result(copied / "out").runs[1]
        assert (failed.state, "evaluate_tokens.py: " in (failed.error or "")) == ("failed", True)
        assert NAMES[1] not in (copied / "out" / "comparison" / "comparison.csv").read_text()  # as in other sections
    in_the_way.unlink()
    shutil.copy(whole / "runs" / "small-tiny" / NAMES[1] / runs.TOKEN_LOSSES, folder)
    assert opened(copied, study, only=Only.report).run() == 0
    assert (read_result(copied / "out").runs[1].state, read_result(copied / "out").runs[1].error) == ("done", None)
    assert [*(copied / "out" / "logs").glob("*.failed.json")]
    assert opened(copied, study).run() == 0
    assert not [*(copied / "out" / "logs").glob("*.failed.json")]


def test_runs_whose_data_is_gone_have_the_state_of_their_own_folder(
    whole: Path, copied: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(whole / "runs", copied / "runs")
    shutil.rmtree(copied / "data")
    (copied / "runs" / "small-tiny" / NAMES[3] / runs.FINISHED).unlink()
    assert opened(copied, copied / "small.yaml", only=Only.table).run() == 0
    assert capsys.readouterr().out.count("  done\n") == 3
    assert opened(copied, copied / "small.yaml", only=Only.report).run() == 0
    result = read_result(copied / "out")
    assert [run.state == "done" for run in result.runs] == [True, True, True, False]
    assert [run.loss_nats for run in result.runs[:3]] == [run.loss_nats for run in read_result(whole / "out").runs[:3]]
    assert "3 of 4 runs are done" in (copied / "out" / "report.md").read_text()


def test_no_earlier_comparison_is_taken_for_that_of_runs_that_cannot_be_compared_now(whole: Path, copied: Path):
    study = copied / "small.yaml"
    shutil.copytree(whole / "runs", copied / "runs")
    assert opened(copied, study, only=Only.report).run() == 0
    comparison = copied / "out" / "comparison"
    assert (comparison / "comparison.json").exists()
    comparison.rename(copied / "kept")
    comparison.write_text("no folder")  # so that the command fails
    assert opened(copied, study, only=Only.report).run() == 1
    assert "The runs could not be compared: exit status 2" in (copied / "out" / "report.md").read_text()
    comparison.unlink()
    (copied / "kept").rename(comparison)
    (comparison / "notes.txt").write_text("somebody's")
    for seed in (0, 1):
        shutil.rmtree(copied / "runs" / "small-tiny" / f"backward-seed{seed}")
    assert opened(copied, study, only=Only.report).run() == 0
    assert [path.name for path in comparison.iterdir()] == ["notes.txt"]
    assert "There is no answer yet" in (copied / "out" / "report.md").read_text()


def test_tasks_are_runs_of_the_table_also_by_hydras_launchers(copied: Path):
    study = copied / "small.yaml"
    done = run_command("python", "run_study.py", "-m", *command(copied, study, task="2,0")[1:], timeout_s=WAIT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    there = {path.parent.name for path in (copied / "runs" / "small-tiny").glob(f"*/{runs.TOKEN_LOSSES}")}
    assert there == {"backward-seed0", "forward-seed0"}
    assert not (copied / "out" / "study.json").exists()
    with pytest.raises(InputError, match="task=4: study=small scale=tiny has 4 runs; give at most 3"):
        opened(copied, study, task=4)


@pytest.mark.slow
def test_a_run_on_two_devices_is_trained_by_the_launcher(copied: Path):
    study = write_study(copied, evaluation=None)
    assert opened(copied, study, task=0, devices=2).run() == 0
    assert opened(copied, study, only=Only.report, devices=2).run() == 0
    (run, *_) = read_result(copied / "out").runs
    assert (run.state, run.metadata["world_size"]) == ("done", 2)
    assert run.commands[0].startswith("composer -n 2 train_composer.py ")


def test_the_sweep_finds_rates_and_orders_with_one_rate_are_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    changes: dict[str, Any] = {
        "lr_sweep": {"rates": ["1e-4", 1e-2], "max_duration": "3ba"},
        "axes": {"optim.lr": ["same", "best"], "seed": [0]},
        "report": ["learning_rate", "gap"],
    }
    study = make(tmp_path, **changes)
    with pytest.raises(InputError, match=r"task=5: the learning rate of .* runs 0 to 3 of the table"):
        opened(tmp_path, study, task=5).run()
    capsys.readouterr()
    assert opened(tmp_path, study, try_steps=2).run() == 0
    table = capsys.readouterr().out.splitlines()[1:10]
    assert table[0].split() == ["task", "run", "tokens", "disk", "hours", "state"]
    assert not any("unknown" in line for line in table)  # by the steps that were tried
    result = read_result(tmp_path / "out")
    assert [(run.is_sweep, run.state) for run in result.runs] == 4 * [(True, "done")] + 4 * [(False, "done")]
    (rates,) = result.rates
    for run in result.runs[4:]:
        rate = rates["same"] if run.axes["optim.lr"] == "same" else rates["best"][run.axes["order"]]
        assert run.settings["optim.lr"] == rate
        assert run.folder.endswith(f"-lr{rate}")
        assert (Path(run.folder) / runs.TOKEN_LOSSES).exists()
    assert not any((Path(run.folder) / runs.TOKEN_LOSSES).exists() for run in result.runs if run.is_sweep)
    losses = {run.name: run.loss_nats for run in result.runs if run.is_sweep}
    best = min((0.0001, 0.01), key=lambda rate: losses[f"sweep-forward-lr{rate}"] or 0)
    assert rates["best"]["forward"] == best


@pytest.mark.parametrize("is_every_rate", [False, True], ids=["one rate", "every rate"])
def test_a_rate_that_diverges_is_not_taken_and_ends_the_study_only_where_there_is_no_other(
    copied: Path, is_every_rate: bool, caplog: pytest.LogCaptureFixture
):
    study = write_study(
        copied,
        lr_sweep={"rates": [1e30 if is_every_rate else 1e-3, 1e32], "max_duration": "3ba"},
        axes={"optim.lr": ["same"], "seed": [0]},
        settings={"optim.grad_clip": None, "optim.warmup_steps": 0},
        evaluation=None,
        report=["gap"],
    )
    for _ in range(2):
        assert opened(copied, study).run() == int(is_every_rate)
        result = read_result(copied / "out")
        diverged = [run for run in result.runs if run.is_sweep and "FloatingPointError" in (run.error or "")]
        assert len(diverged) == 2 * (1 + is_every_rate)
        assert {run.state for run in result.runs if not run.is_sweep} == {"failed" if is_every_rate else "done"}
    assert [rates["same"] for rates in result.rates] == ([] if is_every_rate else [1e-3])
    assert caplog.text.count("its loss is not finite") == len(diverged)  # and is not tried again
    assert ("give lower ones in lr_sweep.rates" in (copied / "out" / "report.md").read_text()) == is_every_rate


BAD: list[tuple[dict[str, Any], str]] = [
    ({"settings": {"model.d_model": 1 << 17, "model.n_layers": 64}}, "of the 4 runs that are missing need"),
    ({"settings": {"data.context_length": 24}}, "data.context_length=24 does not divide block_length=32"),
    ({"settings": {"batch_size": 100_000}}, "batch_size=100000 is more than an epoch"),
]


@pytest.mark.parametrize(("changes", "words"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_what_does_not_fit_the_data_or_the_disk_is_said_before_the_first_run(
    copied: Path, changes: dict[str, Any], words: str
):
    study = write_study(copied, **changes)
    with pytest.raises(InputError, match=words):
        opened(copied, study).run()
    assert not (copied / "runs").exists()


AHEAD: list[tuple[dict[str, Any], str]] = [
    BAD[0],
    ({"settings": BAD[0][0]["settings"] | {"max_duration": "1000tok"}}, BAD[0][1]),
    ({"settings": {"data.context_length": 24}}, r"study=small: .*24 does not divide block_length=32 of .*words-own-"),
    ({"settings": {"data.context_length": 64}, "convert": {"block_length": 64}}, "exceeds model.context_length=32"),
    ({"settings": {"data.stride": 64}}, "data.stride=64 would leave out tokens"),
    (
        {"axes": {"order": ["forward", "quarter_end_in_concat"]}, "settings": {"data.context_length": 2}},
        "order=quarter_end_in_concat needs",
    ),
]


@pytest.mark.parametrize(("changes", "words"), AHEAD, ids=lambda value: value if isinstance(value, str) else "")
def test_what_the_settings_alone_tell_is_said_before_data_is_made(tmp_path: Path, changes: dict[str, Any], words: str):
    study = make(tmp_path, **changes)
    with pytest.raises(InputError, match=words):
        opened(tmp_path, study).run()
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("duration", ["4ba", "500tok", "1ep"])
def test_the_table_before_data_has_what_the_settings_alone_tell(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], duration: str
):
    def rows(folder: Path) -> list[list[str]]:
        study = write_study(folder, settings={"max_duration": duration})
        assert opened(folder, study, only=Only.table, runs_dir=str(tmp_path / "runs")).run() == 0
        return [line.split()[2:5] for line in capsys.readouterr().out.splitlines()[2:6]]

    (tmp_path / "there").mkdir()
    shutil.copy(whole / "corpus.txt", tmp_path / "there")
    before = rows(tmp_path / "there")
    shutil.copytree(whole / "data", tmp_path / "there" / "data")
    if duration == "1ep":
        assert before == 4 * [3 * ["unknown"]] != rows(tmp_path / "there")
    else:
        assert before == rows(tmp_path / "there")
        assert before[0][0] == "512"


def test_a_run_that_was_begun_with_other_settings_is_refused(whole: Path, copied: Path):
    shutil.copytree(whole / "runs", copied / "runs")
    study = write_study(copied, settings={"optim.lr": 0.1})
    with pytest.raises(InputError, match=r"run_name=forward-seed0 cannot go on .*optim.lr=0.1 \(the run has 0.003\)"):
        opened(copied, study).run()


def test_a_run_of_another_length_is_refused_and_so_is_one_that_was_made_longer(whole: Path, copied: Path):
    shutil.copytree(whole / "runs", copied / "runs")
    study = write_study(copied, settings={"max_duration": "6ba"})
    with pytest.raises(InputError, match=r"forward-seed0 .* has 4 steps, and max_duration=6ba is 6 steps.*runs_dir="):
        opened(copied, study).run()
    for path in (copied / "runs").rglob(runs.METADATA):
        records = json.loads(path.read_text())
        plan = [{"after": after, "until": until, "how": "continue", "lr": 0.0} for after, until in ((0, 4), (4, 6))]
        path.write_text(json.dumps(records | {"total_steps": 6, runs.LR_PLAN: plan}))
    with pytest.raises(InputError, match=r"was made longer, from 4 steps to 6, and max_duration=6ba"):
        opened(copied, study).run()
    assert not (copied / "out").exists()


@pytest.mark.parametrize(("key", "value"), [("eval_batches", 1), ("eval_interval", "2ba")])
def test_a_run_that_was_evaluated_otherwise_is_refused(whole: Path, copied: Path, key: str, value: Any):
    shutil.copytree(whole / "runs", copied / "runs")
    of_study = "null" if key == "eval_batches" else "100ba"
    study = write_study(copied, settings={key: value})
    words = rf"run_name=forward-seed0 in .* has {key}={of_study}, and the study has {key}={value}; .*runs_dir="
    with pytest.raises(InputError, match=words):
        opened(copied, study).run()
    assert not (copied / "out").exists()


@pytest.mark.parametrize("total", [3, 5], ids=["beyond its end", "before its end"])
def test_the_loss_of_a_run_is_that_of_its_planned_step(whole: Path, copied: Path, total: int):
    folder = copied / "run"
    shutil.copytree(whole / "runs" / "small-tiny" / "forward-seed0", folder)
    assert loss_at_end(folder) == runs.last_value(folder / runs.METRICS, runs.EVAL_LOSS)
    records = json.loads((folder / runs.METADATA).read_text())
    (folder / runs.METADATA).write_text(json.dumps(records | {"total_steps": total}))
    assert loss_at_end(folder) is None


def test_few_documents_to_validate_on_are_refused_unless_the_study_takes_them(tmp_path: Path):
    study = make(tmp_path, n_documents=30)
    with pytest.raises(InputError, match=r"few documents to validate on .*a study asks for 20"):
        opened(tmp_path, study).run()
    study = write_study(tmp_path, few_documents=True)
    assert opened(tmp_path, study, only=Only.table).run() == 0


def test_two_studies_into_one_folder_are_refused_and_tasks_are_not(whole: Path):
    holding = "from hindsight.files import locked; from pathlib import Path; import sys\n"
    holding += (
        "with locked(Path(sys.argv[1]), '', sys.argv[2] == 'shared'): print('held', flush=True); sys.stdin.read()"
    )
    places = ["out", "runs/small-tiny"]  # of one start that has another out=
    for kind, place in itertools.product(("alone", "shared"), places):
        arguments = [sys.executable, "-c", holding, str(whole / place / ".study"), kind]
        with subprocess.Popen(arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == b"held\n"
            with pytest.raises(InputError, match=rf"study=small: another process works on it in .*{place} \(process "):
                opened(whole, whole / "small.yaml").run()
            if place != "out":  # what is there may be reported
                assert opened(whole, whole / "small.yaml", only=Only.report).run() == 0
            if kind == "shared":
                assert opened(whole, whole / "small.yaml", task=1).run() == 0
            assert other.stdin is not None
            other.stdin.close()


class Started:
    """The command, in a process group of its own."""

    def __init__(self, folder: Path, study: Path | str) -> None:
        self.log = folder / "said.txt"
        with self.log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, *command(folder, study)],
                cwd=ROOT,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def descendants(self) -> set[int]:
        """It and all that was started by it, by itself or through others."""
        parents: dict[int, int] = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                parents[int(path.parent.name)] = int(path.read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
        found = {self.process.pid}
        while more := {child for child, parent in parents.items() if parent in found} - found:
            found |= more
        return found


@pytest.mark.parametrize("to_all", [False, True], ids=["to it alone", "to all its processes"])
def test_an_interrupted_study_saves_what_runs_and_leaves_nothing_behind(copied: Path, to_all: bool):
    study = write_study(copied, settings={"max_duration": "2000ba", "checkpoint.interval": "1000ba"})
    started = Started(copied, study)
    folder = copied / "runs" / "small-tiny"
    wait_until("training", lambda: [*folder.glob(f"*/{runs.METRICS}")], timeout_s=WAIT_S)
    processes = started.descendants()
    for process in sorted(processes, reverse=True) if to_all else [started.process.pid]:
        os.kill(process, signal.SIGTERM)
    assert started.process.wait(WAIT_S) == interrupts.EXIT_INTERRUPTED
    assert "Interrupted by SIGTERM: what is done stays, and the same command goes on." in started.log.read_text()
    wait_until("the end of all processes", lambda: not any(map(is_alive, processes)))
    assert [*folder.glob("*/checkpoints/*.pt")]
    assert not [*(copied / "out" / "logs").glob("*.failed.json")]


def kill_at_random_moments(folder: Path, study: str, n_kills: int, whole_s: float) -> None:
    """Start a study again and again, and kill it: it alone, or with its process group.

    Args:
        folder: where its data, runs and results are.
        study: the study.
        n_kills: how often it is killed.
        whole_s: seconds that it takes.
    """
    rng = random.Random(n_kills)
    for number in range(n_kills):
        started = Started(folder, study)
        try:
            started.process.wait(rng.uniform(0.05, 0.7) * whole_s)
            shutil.rmtree(folder / "runs")  # it was done before: the next ones begin with its runs
            shutil.rmtree(folder / "out")
        except subprocess.TimeoutExpired:
            processes = started.descendants()
            if number % 2:
                os.killpg(started.process.pid, signal.SIGKILL)
            else:
                started.process.kill()
            started.process.wait()
            # Called at once, before the loop goes on.
            wait_until("the end of all processes", lambda: not any(map(is_alive, processes)), timeout_s=20)  # noqa: B023


DIFFERING = ("seconds", "tokens_per_second", "git_commit")
"""Keys of a comparison, and columns of runs.csv, that differ from start to start."""


def lasting_values(value: Any) -> Any:
    """Leave such keys out of what a file has, at every depth."""
    if isinstance(value, dict):
        return {key: lasting_values(each) for key, each in value.items() if key not in DIFFERING}
    return [lasting_values(each) for each in value] if isinstance(value, list) else value


def found_in(folder: Path) -> dict[str, Any]:
    """All that a study has found, by the file that says it, as if it were in another folder."""
    out = folder / "out"
    with (out / "runs.csv").open(newline="", encoding="utf-8") as file:
        rows = [*csv.DictReader(file)]
    found = {
        "study.json": lasting(read_result(out)),
        "comparison.json": lasting_values(json.loads((out / "comparison" / "comparison.json").read_text("utf-8"))),
        "runs.csv": lasting_values(rows),
        "report.md": lasting_text(out),
    }
    return json.loads(json.dumps(found).replace(str(folder), "FOLDER"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_shipped_study_killed_at_ten_random_moments_ends_in_the_same_report(tmp_path: Path):
    began_s = time.monotonic()
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        if name == "killed":
            kill_at_random_moments(tmp_path / name, "null", 10, time.monotonic() - began_s)
        done = run_command("python", *command(tmp_path / name, "null"), timeout_s=WAIT_S)
        assert done.returncode == 0, done.stdout + done.stderr
    expected, found = (found_in(tmp_path / name) for name in ("whole", "killed"))
    assert len(expected["runs.csv"]) == len(expected["comparison.json"]["runs"]) == 4
    for name, of in expected.items():
        assert found[name] == of, name
