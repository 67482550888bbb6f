"""Signals and the file STOP: the step is finished and saved, all leave with status 75, and the run goes on exactly."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from helpers.killed_runs import RUN, kill_group, lines, losses, segments, wait_until

from hindsight.training.checkpoint_files import checkpoints_in

pytestmark = [pytest.mark.slow, pytest.mark.dist]


def last_saved(folder: Path) -> int:
    return int(checkpoints_in(folder / "checkpoints")[0].name.split("-ba")[1].split("-")[0])


def stop_and_go_on(nursery, arguments, folder, whole, interrupt, ranks=1, after=6):
    before = segments()
    processes = nursery.start(arguments, ranks)
    assert wait_until(lambda: lines(folder) >= after, processes), nursery.output()
    interrupt(processes)
    assert nursery.statuses() == [75] * ranks, nursery.output()
    assert "the last step is saved, and the same command goes on." in nursery.output()
    assert last_saved(folder) == losses(folder)[-1][0] < 48
    assert segments() <= before
    assert nursery.run(arguments, ranks) == [0] * ranks, nursery.output()
    assert losses(folder) == whole[ranks]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_to_all_processes_of_a_job(nursery, whole, shards, tmp_path, number):
    arguments = [*RUN, f"data.path={shards}", f"runs_dir={tmp_path}", "run_name=a", "data.num_workers=2"]
    stop_and_go_on(nursery, arguments, tmp_path / "a", whole, lambda processes: kill_group(processes, number))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_of_two_processes(nursery, whole, shards, tmp_path, rank):
    arguments = [*RUN, f"data.path={shards}", f"runs_dir={tmp_path}", "run_name=a"]

    def interrupt(processes):
        os.kill(processes[rank], signal.SIGUSR1)

    stop_and_go_on(nursery, arguments, tmp_path / "a", whole, interrupt, ranks=2)


def test_the_file_stop(nursery, whole, shards, tmp_path):
    arguments = [*RUN, f"data.path={shards}", f"runs_dir={tmp_path}", "run_name=a"]
    stop_and_go_on(nursery, arguments, tmp_path / "a", whole, lambda _: (tmp_path / "a" / "STOP").touch())
    assert not (tmp_path / "a" / "STOP").exists()


def test_a_signal_in_an_evaluation_leaves_at_its_next_batch_and_the_evaluation_is_made_later(nursery, shards, tmp_path):
    arguments = [*RUN, f"data.path={shards}", f"runs_dir={tmp_path}", "eval_batches=null", "max_duration=12ba"]
    arguments += ["model.d_model=192", "model.n_layers=6", "batch_size=2", "data.context_length=64"]
    assert nursery.run([*arguments, "run_name=whole"]) == [0], nursery.output()
    processes = nursery.start([*arguments, "run_name=a"])
    saved = tmp_path / "a" / "checkpoints" / "ep0-ba10-rank0.pt"
    assert wait_until(saved.exists, processes), nursery.output()
    kill_group(processes, signal.SIGTERM)
    assert nursery.statuses() == [75], nursery.output()
    assert losses(tmp_path / "a")[-1][0] == 10
    assert losses(tmp_path / "a")[-1][2] is None, "the evaluation was over before the signal"
    assert nursery.run([*arguments, "run_name=a"]) == [0], nursery.output()
    assert losses(tmp_path / "a") == losses(tmp_path / "whole")


def listens(process: int) -> bool:
    """Whether a process has handlers for all signals; that of SIGUSR2 is the last it gets."""
    (caught,) = re.findall(r"^SigCgt:\s*(\w+)", Path(f"/proc/{process}/status").read_text(), flags=re.MULTILINE)
    return bool(int(caught, 16) >> signal.SIGUSR2 - 1 & 1)


def test_a_signal_that_comes_before_the_first_step(nursery, whole, shards, tmp_path):
    arguments = [*RUN, f"data.path={shards}", f"runs_dir={tmp_path}", "run_name=a"]
    processes = nursery.start(arguments)
    assert wait_until(lambda: listens(processes[0]), processes), nursery.output()
    kill_group(processes, signal.SIGTERM)
    assert nursery.statuses() == [75], nursery.output()
    assert losses(tmp_path / "a") == whole[1][:1]
    assert nursery.run(arguments) == [0], nursery.output()
    assert losses(tmp_path / "a") == whole[1]


def test_a_second_sigint_leaves_at_once(nursery, shards, tmp_path):
    arguments = [*RUN, f"data.path={shards}", f"runs_dir={tmp_path}", "run_name=a", "max_duration=4ba"]
    arguments += ["model.d_model=512", "model.n_layers=8", "batch_size=400", "microbatch_size=1"]  # a minute a step
    before = segments()
    processes = nursery.start(arguments)
    assert wait_until((tmp_path / "a" / "config.yaml").exists, processes), nursery.output()
    time.sleep(1)
    began = time.monotonic()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):  # whatever comes between the two
        os.kill(processes[0], number)
        time.sleep(0.2)
    assert nursery.statuses() == [130], nursery.output()
    assert time.monotonic() - began < 10
    assert not lines(tmp_path / "a")
    assert segments() <= before


def test_composers_launcher_passes_a_signal_on_and_its_status_says_so(whole, shards, tmp_path):
    composer = str(Path(sys.executable).with_name("composer"))
    command = [composer, "-n", "2", "train_composer.py", *RUN, f"data.path={shards}", f"runs_dir={tmp_path}"]
    command.append("run_name=a")
    last = {argument.split("=", 1)[0]: argument for argument in command[4:]}
    command = [*command[:4], *last.values()]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
    assert wait_until(lambda: lines(tmp_path / "a") >= 6, [process.pid], timeout_s=120), (tmp_path / "log").read_text()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 75, (tmp_path / "log").read_text()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "a") == whole[2]


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
