"""Machines that lack what others have: a home, an entry in passwd, a network, locks, UTF-8, descriptors."""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.processes import ROOT, skip
from helpers.training_runs import last_of_each, records, settings

import convert_to_mds
import train_composer
from hindsight import files, machine
from hindsight.command_line import configuration_of, run_script
from hindsight.config.tokenizer import TokenizerConfig
from hindsight.config.training import TrainConfig
from hindsight.errors import InputError
from hindsight.training.run_folder import RunLock

VARIABLES = (*machine.SINGLE, *machine.MASTER)
WHOLE = {
    "RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "a",
    "MASTER_PORT": "9",
}
NAME = os.fsdecode(b"caf\xe9")
"""A name in Latin-1."""


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"WORLD_SIZE": "4"}, ["WORLD_SIZE=4", "no RANK"]),
        ({"RANK": "1"}, ["RANK=1", "no WORLD_SIZE"]),
        ({"LOCAL_RANK": "2"}, ["LOCAL_RANK=2", "no RANK"]),
        ({**WHOLE, "MASTER_ADDR": ""}, ["RANK=1", "no MASTER_ADDR"]),
        ({**WHOLE, "MASTER_PORT": ""}, ["no MASTER_PORT"]),
        ({**WHOLE, "MASTER_PORT": "http"}, ["MASTER_PORT=http", "no port"]),
        ({**WHOLE, "RANK": "4"}, ["RANK=4", "WORLD_SIZE=4"]),
        ({**WHOLE, "LOCAL_RANK": "5"}, ["LOCAL_RANK=5", "LOCAL_WORLD_SIZE=4"]),
        ({**WHOLE, "WORLD_SIZE": "2"}, ["LOCAL_WORLD_SIZE=4", "WORLD_SIZE=2"]),
        ({"WORLD_SIZE": "four"}, ["WORLD_SIZE=four"]),
        ({"WORLD_SIZE": "0"}, ["WORLD_SIZE=0"]),
        ({"RANK": "-1"}, ["RANK=-1"]),
        ({"RANK": "1.5"}, ["RANK=1.5"]),
        ({"NODE_RANK": "²"}, ["NODE_RANK=²"]),
    ],
)
def test_what_a_launcher_left_over_is_one_line_at_once(given, words, monkeypatch, capsys):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["train_composer.py", "direction=forward"])
    monkeypatch.setattr("hindsight.command_line.RANK_0_FIRST_S", 0.0)
    with pytest.raises(SystemExit) as ended:
        run_script("train_composer", lambda _: pytest.fail("main was called"))
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.count("\n") == 1
    assert "composer -n N train_composer.py" in said
    assert "unset RANK WORLD_SIZE" in said
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "gone"},
        {"WORLD_SIZE": ""},
        WHOLE,
        {**WHOLE, "NODE_RANK": "0"},
    ],
)
def test_a_whole_launch_and_none_are_accepted(given, monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    machine.check_launch()


def test_only_a_rank_beside_others_waits_for_the_first_to_report(monkeypatch):
    for rank, size, is_first in (("0", "4", True), ("1", "4", False), ("1", "1", True)):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", size)
        assert machine.is_first_rank() is is_first


def test_a_file_system_without_locks_is_said_and_worked_on_and_a_lock_of_another_is_no_such_thing(
    tmp_path, monkeypatch, caplog
):
    def refuse(number):
        def lockf(*_):
            raise OSError(number, os.strerror(number))

        return lockf

    monkeypatch.setattr(fcntl, "lockf", refuse(errno.ENOLCK))
    with files.locked(tmp_path / "a", "busy"):
        assert f"{tmp_path / 'a'}: no locks on this file system (No locks available)" in caplog.text
    caplog.clear()
    lock = RunLock()
    lock.acquire(tmp_path, "run")
    lock.post_close()
    assert "no locks on this file system" in caplog.text
    for number in (errno.EAGAIN, errno.EACCES):
        monkeypatch.setattr(fcntl, "lockf", refuse(number))
        with pytest.raises(InputError, match="being trained by another process"):
            lock.acquire(tmp_path, "run")
        with pytest.raises(InputError, match="busy"), files.locked(tmp_path / "a", "busy"):
            pass


def test_names_that_are_no_utf_8_are_read_and_recorded(corpus, tokenizer_dir, shards, tmp_path):
    there = tmp_path / NAME
    there.mkdir()
    shutil.copy(corpus, there / NAME)
    shutil.copytree(tokenizer_dir, there / "tokenizer")
    convert = [f"corpus={there / NAME}", f"tokenizer={there}/tokenizer", f"out={tmp_path}/mds", "block_length=64"]
    convert_to_mds.main(configuration_of("convert_to_mds", [*convert, "val_share=0.2", "workers=1"]))
    shutil.move(tmp_path / "mds", there / "mds")
    arguments = last_of_each([*settings(shards, tmp_path / "runs", "run_name=a"), f"data.path={there}/mds"])
    for end in ("max_duration=2ba", "max_duration=3ba"):
        train_composer.main(configuration_of("train_composer", last_of_each([*arguments, end])))
    assert records(tmp_path / "runs" / "a")[-1]["step"] == 3


@pytest.mark.parametrize(
    ("script", "key", "rest"),
    [
        ("train_tokenizer", "out", ["corpus=a"]),
        ("convert_to_mds", "out", ["corpus=a", "tokenizer=b"]),
        ("train_composer", "runs_dir", ["direction=forward"]),
        ("train_composer", "checkpoint.folder", ["direction=forward"]),
        ("train_composer", "data.cache_dir", ["direction=forward"]),
        ("compare_directions", "out", ["runs=a"]),
    ],
)
def test_names_that_are_no_utf_8_are_refused_where_they_cannot_be_written_to(script, key, rest, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [f"{script}.py", *rest, f"{key}={NAME}/x"])
    with pytest.raises(SystemExit):
        run_script(script, lambda _: pytest.fail("main was called"))
    assert f"{key}=caf\\xe9/x: a name on the way to it is not in UTF-8" in capsys.readouterr().err


def test_a_folder_to_work_in_that_is_no_utf_8_is_refused_too(tmp_path, monkeypatch):
    (tmp_path / NAME).mkdir()
    monkeypatch.chdir(tmp_path / NAME)
    with pytest.raises(InputError, match="not in UTF-8"):
        TokenizerConfig(corpus="a", out="b")
    assert TrainConfig.__dataclass_fields__["runs_dir"].default == "runs"


def without_home(*command: str) -> list[str]:
    """A command as a user without an entry in passwd and without HOME runs it."""
    become = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]
    if shutil.which("unshare") is None or subprocess.run([*become, "true"], capture_output=True).returncode:
        skip("unshare cannot make a user here")
    return [*become, "env", "-u", "HOME", "-u", "USER", "-u", "LOGNAME", *command]


def test_a_user_without_home_and_passwd_gets_both(tmp_path):
    (tmp_path / "tmp").mkdir()
    code = "from hindsight.machine import give_home; give_home(); import getpass, pathlib\n"
    code += "print(pathlib.Path('~/x').expanduser(), getpass.getuser())"
    done = subprocess.run(
        without_home(sys.executable, "-c", code),
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [str(tmp_path / "tmp" / "hindsight-54321" / "home" / "x"), "54321"], done.stderr
    refused = subprocess.run(
        without_home(sys.executable, "convert_to_mds.py", "corpus=~/x", f"tokenizer={tmp_path}", "out=/nowhere/x"),
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1


def test_a_home_stays_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    machine.give_home()
    assert os.environ["HOME"] == str(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "nonexistent"))
    machine.give_home()
    assert Path.home().is_dir()


def test_a_home_that_cannot_be_written_to_keeps_its_keys_and_caches_go_elsewhere(tmp_path):
    home, given = tmp_path / "home", tmp_path / "given"
    (home / ".cache" / "huggingface").mkdir(parents=True)
    (home / ".cache" / "huggingface" / "token").write_text("planted")
    home.chmod(0o555)
    (tmp_path / "tmp").mkdir()
    code = "from hindsight.machine import give_home; give_home(); import os, huggingface_hub.constants as hub\n"
    names = ["HOME", "XDG_CACHE_HOME", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "MPLCONFIGDIR"]
    code += f"print(open(hub.HF_TOKEN_PATH).read(), hub.HF_HOME, *map(os.environ.get, {names}))"

    def said(**variables: str) -> list[str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "WANDB_", "XDG_", "MPL"))}
        done = subprocess.run(
            without_home("env", f"HOME={home}", sys.executable, "-c", code),
            cwd=ROOT,
            env={**kept, "TMPDIR": str(tmp_path / "tmp"), **variables},
            capture_output=True,
            text=True,
        )
        assert done.stderr == ""
        return done.stdout.split()

    caches = tmp_path / "tmp" / "hindsight-54321" / "cache"
    folders = [str(caches / name) for name in ("wandb", "wandb-data", "matplotlib")]
    assert said() == ["planted", str(caches / "huggingface"), str(home), str(caches), *folders]
    shutil.copytree(home / ".cache" / "huggingface", given)
    there = str(given)
    assert said(HF_HOME=there, WANDB_CACHE_DIR=there)[:5] == ["planted", there, str(home), str(caches), there]


@pytest.mark.slow
def test_a_small_machine_trains(shards, tmp_path):
    there = shutil.copytree(shards, tmp_path / NAME)
    arguments = [*settings(there, tmp_path / "runs", "run_name=a", "max_duration=2ba"), "wandb.mode=offline"]
    program = ["bash", "-c", 'ulimit -n 64; "$@" | head -1; exit ${PIPESTATUS[0]}', "bash"]
    command = [*program, sys.executable, "train_composer.py", *last_of_each(arguments)]
    done = subprocess.run(
        without_home(*command), cwd=ROOT, env={**os.environ, "LC_ALL": "C"}, capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.count(b"\n") == 1
    assert b"Traceback" not in done.stderr
    assert records(tmp_path / "runs" / "a")[-1]["step"] == 2


@pytest.mark.slow
def test_a_process_that_is_alone_needs_no_network_interface(shards, tmp_path):
    alone = ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True).returncode:
        skip("unshare cannot take the network away here")
    command = [sys.executable, "train_composer.py", *settings(shards, tmp_path, "run_name=a")]
    done = subprocess.run([*alone, *command], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert records(tmp_path / "a")[-1]["step"] == 6
