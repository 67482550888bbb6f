"""What a run says: one bar in a terminal, plain lines in a log."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from helpers.processes import ROOT, run_command
from helpers.training_runs import settings, train
from hypothesis import given
from hypothesis import strategies as st
from tqdm import tqdm

from hindsight.shown_numbers import short
from hindsight.training import console
from hindsight.training.speed import Speed

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def output_in_a_terminal(command: list[str], timeout_s: float = 120) -> str:
    """What a command writes to a terminal of 80 columns."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(command, cwd=ROOT, stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    written, deadline = b"", time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if not select.select([leader], [], [], 1)[0]:
            continue
        try:
            written += os.read(leader, 1 << 16)
        except OSError:  # the other end is closed
            break
    os.close(leader)
    assert process.wait(timeout=10) == 0, written.decode(errors="replace")
    return written.decode()


@pytest.mark.slow
@pytest.mark.dist
def test_a_terminal_shows_one_bar_that_fits_80_columns_also_under_composer(shards, tmp_path):
    composer = str(Path(sys.executable).with_name("composer"))
    changes = ["progress_bar=true", "max_duration=6ba", "eval_interval=3ba", "checkpoint.interval=2ba"]
    command = [
        sys.executable,
        composer,
        "-n",
        "2",
        "train_composer.py",
        *settings(shards, tmp_path, "run_name=a", *changes),
    ]
    shown = output_in_a_terminal(command)
    bars = [line for line in re.split(r"[\r\n]", shown) if re.search(r"step \d+/6 · ", line) and "%" not in line]
    assert bars
    assert all(len(line.rstrip()) <= 80 for line in bars)
    last = bars[-1]
    assert re.search(r"step 6/6 · loss \d\.\d\d · eval \d\.\d\d · [\d.]+k? tok/s · 00:00 left", last), last
    assert "checkpoint /" not in shown
    assert "composer_commit_hash" not in shown
    assert "NODENAME" not in shown
    assert shown.count("\n") < 30, "the bar is redrawn in its line"


def test_a_log_gets_plain_lines_for_steps_evaluations_checkpoints_and_resumes(shards, tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO", logger="hindsight")
    monkeypatch.setattr(console, "LINE_INTERVAL_S", 0.0)
    changes = [
        "progress_bar=true",
        "max_duration=4ba",
        "eval_interval=2ba",
        "checkpoint.interval=2ba",
        "log_interval=2",
    ]
    train(shards, tmp_path, "run_name=a", *changes, "max_duration=4ba")
    lines = [line for record in caplog.records for line in record.getMessage().splitlines()]
    assert lines[0] == "run      a, forward"
    assert [line.split("·")[0] for line in lines if re.match(r"step \d/4 · loss", line)] == ["step 2/4 ", "step 4/4 "]
    assert len([line for line in lines if re.match(r"step \d/4 · eval \d\.\d{4} nats/token", line)]) == 2
    assert len([line for line in lines if re.match(r"step \d · checkpoint .*/ep0-ba\d-rank0\.pt", line)]) == 2
    assert "unigram entropy" in lines[-3]
    assert "direction=backward" in lines[-1]
    caplog.clear()
    train(shards, tmp_path, "run_name=a", *changes, "max_duration=6ba")
    assert "a: goes on from step 4." in caplog.text


def test_lines_about_steps_come_at_most_every_ten_seconds(shards, tmp_path, caplog):
    caplog.set_level("INFO", logger="hindsight")
    began = time.monotonic()
    train(shards, tmp_path, "run_name=a", "max_duration=20ba")
    shown = [record for record in caplog.records if re.match(r"step \d+/20 · loss", record.getMessage())]
    assert 1 <= len(shown) <= 1 + (time.monotonic() - began) // console.LINE_INTERVAL_S


@pytest.mark.slow
def test_a_redirected_run_writes_no_control_codes_and_a_finished_one_answers_without_training(shards, tmp_path):
    command = ["train_composer.py", *settings(shards, tmp_path, "run_name=a", "progress_bar=true", "max_duration=3ba")]
    done = run_command("python", *command)
    assert done.returncode == 0, done.stderr
    assert not CONTROL.search(done.stdout + done.stderr)
    assert len(done.stdout.splitlines()) < 20
    code = "import sys, runpy; sys.path.insert(0, '.'); sys.argv = sys.argv[1:]\n"
    code += "try: runpy.run_path('train_composer.py', run_name='__main__')\n"
    code += "finally: print(sorted({'torch', 'composer', 'streaming'} & sys.modules.keys()))"
    again = run_command("python", "-c", code, *command)
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[0] == "a: nothing to do, it is at step 3 of 3ba."
    assert again.stdout.splitlines()[-1] == "[]"
    wrong = run_command("python", "-c", code, "train_composer.py", "direction=forward", "data.path=nowhere")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("train_composer.py: data.path=nowhere has no manifest.json")
    assert wrong.stdout.splitlines() == ["[]"]


WITHOUT = """
import runpy, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("wandb", "boto3", "botocore"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
sys.path.insert(0, ".")
sys.argv = sys.argv[1:]
runpy.run_path("train_composer.py", run_name="__main__")
"""


@pytest.mark.slow
def test_a_machine_without_wandb_and_boto3_trains(shards, tmp_path):
    done = run_command(
        "python", "-c", WITHOUT, "train_composer.py", *settings(shards, tmp_path, "run_name=a", "max_duration=2ba")
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a" / "model.safetensors").is_file()


def test_the_speed_is_zero_before_two_steps_are_marked():
    speed = Speed()
    assert (speed.tokens_per_second, speed.seconds_for(10)) == (0.0, 0.0)


def test_the_longest_text_of_the_bar_fits_its_columns():
    text = "step 399999/400000 · loss 10.51 · eval 10.60 · 523k tok/s · 125:01:12 left"
    line = tqdm.format_meter(399999, 400000, 1, ncols=console.BAR_COLUMNS, prefix=text, bar_format=console.BAR_FORMAT)
    assert text in line
    assert len(line) <= console.BAR_COLUMNS


@given(st.floats(min_value=0, max_value=1e15, allow_nan=False))
def test_numbers_are_written_with_three_digits(number):
    digits = short(number).rstrip("kMGTPEZ")
    assert len(digits.replace(".", "")) <= 4
