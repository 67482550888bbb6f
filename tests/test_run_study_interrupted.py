"""run_study.py goes on after whatever ended it: a signal, or a kill at any moment."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.processes import ROOT, is_alive, run_command, wait_until
from helpers.small_study_file import write_study
from helpers.study_pages import read_result
from helpers.whole_study import WAIT_S, command, lasting, lasting_text

from hindsight import interrupts, runs

pytestmark = pytest.mark.usefixtures("study_servers")


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
def test_an_interrupted_study_saves_what_runs_and_leaves_nothing_behind(copied_study: Path, to_all: bool):
    study = write_study(copied_study, settings={"max_duration": "2000ba", "checkpoint.interval": "1000ba"})
    started = Started(copied_study, study)
    folder = copied_study / "runs" / "small-tiny"
    wait_until("training", lambda: [*folder.glob(f"*/{runs.METRICS}")], timeout_s=WAIT_S)
    processes = started.descendants()
    for process in sorted(processes, reverse=True) if to_all else [started.process.pid]:
        os.kill(process, signal.SIGTERM)
    assert started.process.wait(WAIT_S) == interrupts.EXIT_INTERRUPTED
    assert "Interrupted by SIGTERM: what is done stays, and the same command goes on." in started.log.read_text()
    wait_until("the end of all processes", lambda: not any(map(is_alive, processes)))
    assert [*folder.glob("*/checkpoints/*.pt")]
    assert not [*(copied_study / "out" / "logs").glob("*.failed.json")]


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
