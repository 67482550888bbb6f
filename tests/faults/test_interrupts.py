"""Signals and the file STOP: the step is finished and saved, all leave with status 75, and the run goes on exactly."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.killed_runs import RUN, kill_group
from helpers.processes import ROOT, wait_until
from helpers.training_runs import last_of_each, lines, losses

from hindsight.training.checkpoint_files import checkpoints_in

pytestmark = [pytest.mark.slow, pytest.mark.dist]


def last_saved(folder: Path) -> int:
    return int(checkpoints_in(folder / "checkpoints")[0].name.split("-ba")[1].split("-")[0])


def stop_and_go_on(fork_server, arguments, folder, whole, interrupt, ranks=1, after=6):
    processes = fork_server.start(arguments, ranks)
    assert fork_server.reaches(lambda: lines(folder) >= after), fork_server.output()
    interrupt(processes)
    assert fork_server.statuses() == [75] * ranks, fork_server.output()
    assert "the last step is saved, and the same command goes on." in fork_server.output()
    assert last_saved(folder) == losses(folder)[-1][0] < 48
    assert fork_server.run(arguments, ranks) == [0] * ranks, fork_server.output()
    assert losses(folder) == whole[ranks]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP])
def test_a_signal_to_all_processes_of_a_job(fork_server, whole, shards, tmp_path, number):
    arguments = [*RUN, f"data.path={shards}", f"runs_dir={tmp_path}", "run_name=a", "data.num_workers=2"]
    stop_and_go_on(fork_server, arguments, tmp_path / "a", whole, lambda processes: kill_group(processes, number))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_of_two_processes(fork_server, whole, shards, tmp_path, rank):
    arguments = [*RUN, f"data.path={shards}", f"runs_dir={tmp_path}", "run_name=a"]

    def interrupt(processes):
        os.kill(processes[rank], signal.SIGUSR1)

    stop_and_go_on(fork_server, arguments, tmp_path / "a", whole, interrupt, ranks=2)


def test_the_file_stop(fork_server, whole, shards, tmp_path):
    arguments = [*RUN, f"data.path={shards}", f"runs_dir={tmp_path}", "run_name=a"]
    stop_and_go_on(fork_server, arguments, tmp_path / "a", whole, lambda _: (tmp_path / "a" / "STOP").touch())
    assert not (tmp_path / "a" / "STOP").exists()


def test_a_signal_in_an_evaluation_leaves_at_its_next_batch_and_the_evaluation_is_made_later(
    fork_server, shards, tmp_path
):
    arguments = [*RUN, f"data.path={shards}", f"runs_dir={tmp_path}", "eval_batches=null", "max_duration=12ba"]
    arguments += ["model.d_model=192", "model.n_layers=6", "batch_size=2", "data.context_length=64"]
    assert fork_server.run([*arguments, "run_name=whole"]) == [0], fork_server.output()
    processes = fork_server.start([*arguments, "run_name=a"])
    saved = tmp_path / "a" / "checkpoints" / "ep0-ba10-rank0.pt"
    assert fork_server.reaches(saved.exists), fork_server.output()
    kill_group(processes, signal.SIGTERM)
    assert fork_server.statuses() == [75], fork_server.output()
    assert losses(tmp_path / "a")[-1][0] == 10
    assert losses(tmp_path / "a")[-1][2] is None, "the evaluation was over before the signal"
    assert fork_server.run([*arguments, "run_name=a"]) == [0], fork_server.output()
    assert losses(tmp_path / "a") == losses(tmp_path / "whole")


def listens(process: int) -> bool:
    """Whether a process has handlers for all signals; that of SIGUSR2 is the last it gets."""
    (caught,) = re.findall(r"^SigCgt:\s*(\w+)", Path(f"/proc/{process}/status").read_text(), flags=re.MULTILINE)
    return bool(int(caught, 16) >> signal.SIGUSR2 - 1 & 1)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_signal_before_the_first_step_ends_the_run_at_once(fork_server, whole, shards, tmp_path, ranks):
    arguments = [*RUN, f"data.path={shards}", f"runs_dir={tmp_path}", "run_name=a"]
    processes = fork_server.start(arguments, ranks)
    assert fork_server.reaches(lambda: all(listens(process) for process in processes)), fork_server.output()
    kill_group(processes, signal.SIGTERM)
    assert fork_server.statuses() == [75] * ranks, fork_server.output()
    assert "before the first step: the same command goes on" in fork_server.output()
    assert "Traceback" not in fork_server.output()
    assert not losses(tmp_path / "a")
    assert fork_server.run(arguments, ranks) == [0] * ranks, fork_server.output()
    assert losses(tmp_path / "a") == whole[ranks]


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_stops_when_its_time_is_up_and_goes_on_with_the_same_losses(fork_server, shards, tmp_path, ranks):
    common = [*RUN, f"data.path={shards}", f"runs_dir={tmp_path}", "run_name=a", "max_duration=100000ba"]
    assert fork_server.run([*common, "max_time=2s"], ranks) == [75] * ranks, fork_server.output()
    assert "Interrupted by max_time=2s: the last step is saved" in fork_server.output()
    first = losses(tmp_path / "a")
    assert len(first) > 1
    assert fork_server.run([*common, "max_time=2s"], ranks) == [75] * ranks, fork_server.output()
    again = losses(tmp_path / "a")
    assert len(again) > len(first)
    assert [line[:2] for line in again[: len(first)]] == [line[:2] for line in first]
    assert [line.step for line in again] == [*range(1, len(again) + 1)]


def test_a_second_sigint_leaves_at_once(fork_server, shards, tmp_path):
    arguments = [*RUN, f"data.path={shards}", f"runs_dir={tmp_path}", "run_name=a", "max_duration=4ba"]
    arguments += ["model.d_model=512", "model.n_layers=8", "batch_size=400", "microbatch_size=1"]  # a minute a step
    processes = fork_server.start(arguments)
    assert fork_server.reaches((tmp_path / "a" / "config.yaml").exists), fork_server.output()
    time.sleep(1)
    began = time.monotonic()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):  # whatever comes between the two
        os.kill(processes[0], number)
        time.sleep(0.2)
    assert fork_server.statuses() == [130], fork_server.output()
    assert time.monotonic() - began < 10
    assert not lines(tmp_path / "a")


def test_composers_launcher_passes_a_signal_on_and_where_it_is_killed_its_processes_save_and_leave(
    whole, shards, tmp_path
):
    composer = str(Path(sys.executable).with_name("composer"))
    arguments = last_of_each([*RUN, f"data.path={shards}", f"runs_dir={tmp_path}", "run_name=a"])
    command, folder = [composer, "-n", "2", "train_composer.py", *arguments], tmp_path / "a"

    def start_and_send(number: int, step: int) -> subprocess.Popen:
        with (tmp_path / "log").open("w") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        has_trained = wait_until(
            "the step", lambda: lines(folder) >= step, 120, 0.01, is_over=lambda: process.poll() is not None
        )
        assert has_trained, (tmp_path / "log").read_text()
        process.send_signal(number)
        return process

    assert start_and_send(signal.SIGTERM, 6).wait(60) == 75, (tmp_path / "log").read_text()
    launcher = start_and_send(signal.SIGKILL, 20)
    launcher.wait()
    wait_until("the end of its processes", lambda: not members_of(launcher.pid), 30)
    assert last_saved(folder) == losses(folder)[-1][0] < 48
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert losses(folder) == whole[2]


def members_of(session: int) -> list[int]:
    """Processes of a session that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (path / "stat").read_text().rsplit(")", 1)[1].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(path.name))
    return found


LATE_READER = """
import multiprocessing, os, signal, sys, time
from hindsight import interrupts

def read_ahead():
    parent = os.getppid()
    os.kill(parent, signal.SIGKILL)
    while os.getppid() == parent:
        time.sleep(0.01)
    interrupts.leave_with_parent(0)
    print("it reads ahead for nobody")

process = multiprocessing.get_context("fork").Process(target=read_ahead)
process.start()
process.join()
"""


def test_a_reader_whose_training_process_was_killed_before_it_began_leaves():
    done = subprocess.run([sys.executable, "-c", LATE_READER], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert (done.stdout, done.stderr) == ("", "")


HANGUP = """
import os, signal
from hindsight import interrupts

interrupts.handle_signals()
os.kill(os.getpid(), signal.SIGHUP)
print(interrupts.received_signal())
"""


@pytest.mark.parametrize(("before", "heard"), [("", "SIGHUP"), ("trap '' HUP;", "None")])
def test_a_lost_terminal_asks_to_stop_unless_nohup_says_not_to(before, heard):
    shell = ["env", "--default-signal=HUP", "sh", "-c", f'{before} exec "{sys.executable}" -c "$0"']
    done = subprocess.run([*shell, HANGUP], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == f"{heard}\n", done.stderr
