"""run_study.py: a study runs whole, and its parts do what is said of them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.processes import ROOT, run_command
from helpers.small_study_file import write_study
from helpers.study_pages import read_result
from helpers.whole_study import NAMES, WAIT_S, command, lasting, make, opened

from hindsight import runs
from hindsight.config.study import Only
from hindsight.errors import InputError
from hindsight.files import partial_of
from hindsight.studies.study_records import write_records

pytestmark = pytest.mark.usefixtures("study_servers")


def test_a_study_makes_its_data_trains_evaluates_compares_and_says_what_was_done(whole_study: Path):
    out = whole_study / "out"
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


def test_the_commits_of_runs_are_said_where_they_differ_from_that_of_the_study(whole_study: Path, tmp_path: Path):
    result = read_result(whole_study / "out")
    result.provenance["git_commit"] = "b2"
    for run, commit in zip(result.runs, ["a1", "a1", "b2", "a1"], strict=True):
        run.metadata["git_commit"] = commit
    write_records(tmp_path, result, None, {})
    assert "# Runs were trained by commit a1 (3 runs), b2 (1 run)." in (tmp_path / "commands.sh").read_text()
    for run in result.runs:
        run.metadata["git_commit"] = "b2"
    write_records(tmp_path, result, None, {})
    assert "trained by" not in (tmp_path / "commands.sh").read_text()


def test_its_commands_are_what_a_person_types_and_find_all_done(whole_study: Path):
    (_, run, *_) = read_result(whole_study / "out").runs
    for typed in run.commands:
        done = subprocess.run(
            ["bash", "-c", f'python() {{ "{sys.executable}" "$@"; }}; {typed}'],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "nothing to do" in done.stdout or "already there" in done.stdout
    script = f"python() {{ pwd; }}; . {whole_study}/out/commands.sh"
    places = subprocess.run(["bash", "-c", script], cwd="/", capture_output=True, text=True, check=True).stdout
    assert {*places.splitlines()} == {str(ROOT)}


def test_a_study_that_is_done_trains_nothing_and_finds_the_same(whole_study: Path, capsys: pytest.CaptureFixture[str]):
    result = read_result(whole_study / "out")
    before, report = lasting(result), (whole_study / "out" / "report.html").stat().st_mtime_ns
    logs = {path.name: path.stat().st_size for path in (whole_study / "out" / "logs").glob("*seed*.log")}
    assert opened(whole_study, whole_study / "small.yaml").run() == 0
    assert {path.name: path.stat().st_size for path in (whole_study / "out" / "logs").glob("*seed*.log")} == logs
    assert read_result(whole_study / "out") == result
    assert (whole_study / "out" / "report.html").stat().st_mtime_ns == report  # nor was it written again
    (whole_study / "out" / "commands.sh").unlink()  # as a study leaves it that is killed before it has all of a report
    for only in (None, Only.report):
        assert opened(whole_study, whole_study / "small.yaml", only=only).run() == 0
        assert (whole_study / "out" / "commands.sh").exists()
        assert (whole_study / "out" / "report.html").stat().st_mtime_ns > report
        report = (whole_study / "out" / "report.html").stat().st_mtime_ns
    assert lasting(read_result(whole_study / "out")) == before
    assert capsys.readouterr().out.count("done") == 8


def test_only_a_part_is_done(whole_study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
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
    whole_study: Path, copied_study: Path, capsys: pytest.CaptureFixture[str]
):
    (moved,) = [path for path in (copied_study / "data").iterdir() if (path / "manifest.json").exists()]
    shutil.copytree(moved, copied_study / "elsewhere")
    shutil.copytree(whole_study / "runs", copied_study / "runs")
    for path in (copied_study / "runs").rglob(runs.CONFIG):
        path.write_text(path.read_text().replace(str(whole_study / "data"), str(copied_study / "elsewhere")))
    assert opened(copied_study, copied_study / "small.yaml", only=Only.table).run() == 0
    assert capsys.readouterr().out.count("done") == 4


def test_a_run_that_fails_is_told_at_the_end_and_keeps_no_other(copied_study: Path, caplog: pytest.LogCaptureFixture):
    in_the_way = copied_study / "runs" / "small-tiny" / "forward-seed1"
    in_the_way.mkdir(parents=True)
    (in_the_way / "notes.txt").write_text("no run")
    study = copied_study / "small.yaml"
    assert opened(copied_study, study).run() == 1
    states = {run.name: (run.state, run.error) for run in read_result(copied_study / "out").runs}
    assert [states[name][0] for name in NAMES] == ["done", "failed", "done", "done"]
    error = states["forward-seed1"][1]
    assert error is not None
    assert "exit status 2: train_composer.py: run_name=forward-seed1:" in error
    assert str(copied_study / "out" / "logs" / "forward-seed1.log") in error
    assert caplog.messages[-1] == f"forward-seed1 failed, {error}"
    assert opened(copied_study, study, only=Only.report).run() == 0
    assert read_result(copied_study / "out").runs[1].state == "failed"  # as another process has found
    shutil.rmtree(in_the_way)
    assert opened(copied_study, study).run() == 0
    assert [(run.state, run.error) for run in read_result(copied_study / "out").runs] == 4 * [("done", None)]


@pytest.mark.parametrize("name", [runs.METADATA, runs.METRICS])
def test_a_run_that_is_damaged_fails_and_keeps_no_other(whole_study: Path, copied_study: Path, name: str):
    shutil.copytree(whole_study / "runs", copied_study / "runs")
    folder = copied_study / "runs" / "small-tiny"
    shutil.rmtree(folder / NAMES[2])
    damaged = folder / NAMES[0] / name
    damaged.write_text(damaged.read_text()[: damaged.stat().st_size // 2] + "\n{}\n")
    is_mended = name == runs.METRICS  # from the checkpoint, as the run goes on
    for only, status in ((Only.report, 1), (None, int(not is_mended))):
        assert opened(copied_study, copied_study / "small.yaml", only=only).run() == status
        first, *others = read_result(copied_study / "out").runs
        states = ["done", "missing" if only else "done", "done"]
        assert [run.state for run in others] == states
        assert (first.state, str(damaged) in (first.error or "")) == (("failed", True) if status else ("done", False))
        assert (name in (copied_study / "out" / "report.md").read_text()) == bool(status)
        compared = json.loads((copied_study / "out" / "comparison" / "comparison.json").read_text())
        assert [pair["seed"] for pair in compared["pairs"]] == ([1] if status else [0, 1])


def test_texts_and_what_shards_were_made_of_may_be_gone(
    whole_study: Path, copied_study: Path, capsys: pytest.CaptureFixture[str]
):
    study = copied_study / "small.yaml"
    assert opened(copied_study, study, only=Only.data).run() == 0
    (copied_study / "corpus.txt").unlink()
    shutil.rmtree(copied_study / "data" / "tokenizers")
    shutil.copytree(whole_study / "runs", copied_study / "runs")
    assert opened(copied_study, study).run() == 0
    assert capsys.readouterr().out.count("  done\n") == 4
    assert not (copied_study / "data" / "tokenizers").exists()
    shutil.rmtree(next(path.parent for path in (copied_study / "data").glob("*/manifest.json")))
    with pytest.raises(InputError, match=r"corpora.words is not at .*give corpus_dir="):
        opened(copied_study, study)


def test_an_evaluation_that_failed_is_a_failure_until_it_is_made(whole_study: Path, copied_study: Path):
    study = copied_study / "small.yaml"
    shutil.copytree(whole_study / "runs", copied_study / "runs")
    folder = copied_study / "runs" / "small-tiny" / NAMES[1]
    (folder / runs.TOKEN_LOSSES).unlink()
    in_the_way = partial_of(folder / runs.TOKEN_LOSSES)
    in_the_way.touch()
    for only, status in ((None, 1), (Only.report, 0)):
        assert opened(copied_study, study, only=only).run() == status
        failed = read_result(copied_study / "out").runs[1]
        assert (failed.state, "evaluate_tokens.py: " in (failed.error or "")) == ("failed", True)
        assert (
            NAMES[1] not in (copied_study / "out" / "comparison" / "comparison.csv").read_text()
        )  # as in other sections
    in_the_way.unlink()
    shutil.copy(whole_study / "runs" / "small-tiny" / NAMES[1] / runs.TOKEN_LOSSES, folder)
    assert opened(copied_study, study, only=Only.report).run() == 0
    assert (read_result(copied_study / "out").runs[1].state, read_result(copied_study / "out").runs[1].error) == (
        "done",
        None,
    )
    assert [*(copied_study / "out" / "logs").glob("*.failed.json")]
    assert opened(copied_study, study).run() == 0
    assert not [*(copied_study / "out" / "logs").glob("*.failed.json")]


def test_runs_whose_data_is_gone_have_the_state_of_their_own_folder(
    whole_study: Path, copied_study: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(whole_study / "runs", copied_study / "runs")
    shutil.rmtree(copied_study / "data")
    (copied_study / "runs" / "small-tiny" / NAMES[3] / runs.FINISHED).unlink()
    assert opened(copied_study, copied_study / "small.yaml", only=Only.table).run() == 0
    assert capsys.readouterr().out.count("  done\n") == 3
    assert opened(copied_study, copied_study / "small.yaml", only=Only.report).run() == 0
    result = read_result(copied_study / "out")
    assert [run.state == "done" for run in result.runs] == [True, True, True, False]
    assert [run.loss_nats for run in result.runs[:3]] == [
        run.loss_nats for run in read_result(whole_study / "out").runs[:3]
    ]
    assert "3 of 4 runs are done" in (copied_study / "out" / "report.md").read_text()


def test_no_earlier_comparison_is_taken_for_that_of_runs_that_cannot_be_compared_now(
    whole_study: Path, copied_study: Path
):
    study = copied_study / "small.yaml"
    shutil.copytree(whole_study / "runs", copied_study / "runs")
    assert opened(copied_study, study, only=Only.report).run() == 0
    comparison = copied_study / "out" / "comparison"
    assert (comparison / "comparison.json").exists()
    comparison.rename(copied_study / "kept")
    comparison.write_text("no folder")  # so that the command fails
    assert opened(copied_study, study, only=Only.report).run() == 1
    assert "The runs could not be compared: exit status 2" in (copied_study / "out" / "report.md").read_text()
    comparison.unlink()
    (copied_study / "kept").rename(comparison)
    (comparison / "notes.txt").write_text("somebody's")
    for seed in (0, 1):
        shutil.rmtree(copied_study / "runs" / "small-tiny" / f"backward-seed{seed}")
    assert opened(copied_study, study, only=Only.report).run() == 0
    assert [path.name for path in comparison.iterdir()] == ["notes.txt"]
    assert "There is no answer yet" in (copied_study / "out" / "report.md").read_text()


def test_tasks_are_runs_of_the_table_also_by_hydras_launchers(copied_study: Path):
    study = copied_study / "small.yaml"
    done = run_command("python", "run_study.py", "-m", *command(copied_study, study, task="2,0")[1:], timeout_s=WAIT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    there = {path.parent.name for path in (copied_study / "runs" / "small-tiny").glob(f"*/{runs.TOKEN_LOSSES}")}
    assert there == {"backward-seed0", "forward-seed0"}
    assert not (copied_study / "out" / "study.json").exists()
    with pytest.raises(InputError, match="task=4: study=small scale=tiny has 4 runs; give at most 3"):
        opened(copied_study, study, task=4)


@pytest.mark.slow
def test_a_run_on_two_devices_is_trained_by_the_launcher(copied_study: Path):
    study = write_study(copied_study, evaluation=None)
    assert opened(copied_study, study, task=0, devices=2).run() == 0
    assert opened(copied_study, study, only=Only.report, devices=2).run() == 0
    (run, *_) = read_result(copied_study / "out").runs
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
    copied_study: Path, is_every_rate: bool, caplog: pytest.LogCaptureFixture
):
    study = write_study(
        copied_study,
        lr_sweep={"rates": [1e30 if is_every_rate else 1e-3, 1e32], "max_duration": "3ba"},
        axes={"optim.lr": ["same"], "seed": [0]},
        settings={"optim.grad_clip": None, "optim.warmup_steps": 0},
        evaluation=None,
        report=["gap"],
    )
    for _ in range(2):
        assert opened(copied_study, study).run() == int(is_every_rate)
        result = read_result(copied_study / "out")
        diverged = [run for run in result.runs if run.is_sweep and "FloatingPointError" in (run.error or "")]
        assert len(diverged) == 2 * (1 + is_every_rate)
        assert {run.state for run in result.runs if not run.is_sweep} == {"failed" if is_every_rate else "done"}
    assert [rates["same"] for rates in result.rates] == ([] if is_every_rate else [1e-3])
    assert caplog.text.count("its loss is not finite") == len(diverged)  # and is not tried again
    assert ("give lower ones in lr_sweep.rates" in (copied_study / "out" / "report.md").read_text()) == is_every_rate
