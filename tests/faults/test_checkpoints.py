"""Checkpoints that are cut, damaged, gone or hostile; runs that go on with more steps, or on more processes."""

import json
import os
import random
import shutil
import signal
import socket
import zipfile
from pathlib import Path

import pytest
import torch
from helpers.killed_runs import RUN, STEPS, kill_group
from helpers.training_runs import lines, losses

from hindsight.training.checkpoint_files import DamagedError, checkpoints_in, load_weights_only, read_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.dist]


@pytest.fixture(autouse=True)
def _only_weights_are_loaded(monkeypatch):
    """As in every process that trains, whichever test this process ran before."""
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
    load_weights_only()


@pytest.fixture(scope="module")
def half(fork_server, shards, tmp_path_factory) -> Path:
    """The folder of runs with one, named run, that was made up to a half."""
    runs = tmp_path_factory.mktemp("half")
    assert fork_server.run([*RUN, f"data.path={shards}", f"runs_dir={runs}", "run_name=run", "max_duration=24ba"]) == [
        0
    ]
    return runs


@pytest.fixture
def runs(half, tmp_path) -> Path:
    """A copy of it, to spoil."""
    return shutil.copytree(half, tmp_path / "runs")


def arguments(shards: Path, runs: Path, *changes: str) -> list[str]:
    return [*RUN, f"data.path={shards}", f"runs_dir={runs}", "run_name=run", *changes]


def newest(runs: Path) -> Path:
    return checkpoints_in(runs / "run" / "checkpoints")[0]


def test_a_checkpoint_that_is_cut_at_any_byte_or_has_a_flipped_bit_is_recognized(half, tmp_path):
    data = newest(half).read_bytes()
    rng = random.Random(7)
    path = tmp_path / "ep0-ba1-rank0.pt"
    for cut in [0, 1, len(data) // 2, len(data) - 1, *(rng.randrange(len(data)) for _ in range(40))]:
        path.write_bytes(data[:cut])
        with pytest.raises(DamagedError):
            read_checkpoint(path)
    with zipfile.ZipFile(newest(half)) as archive:
        entries = [entry for entry in archive.infolist() if entry.file_size > 100]
    for entry in rng.sample(entries, 20):
        # The content of an entry lies behind its header of 30 bytes, its name, and an extra field that aligns it.
        name, extra = (int.from_bytes(data[entry.header_offset + i :][:2], "little") for i in (26, 28))
        place = entry.header_offset + 30 + name + extra + rng.randrange(entry.file_size)
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :])
        with pytest.raises(DamagedError, match=r"checksum|Bad CRC"):
            read_checkpoint(path)
    path.write_bytes(data)
    assert read_checkpoint(path).timestamp.batch == 24


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_cut_newest_checkpoint_is_named_and_set_aside_and_the_one_before_is_taken(
    fork_server, whole, shards, runs, share
):
    path = newest(runs)
    os.truncate(path, int(path.stat().st_size * share))
    assert fork_server.run(arguments(shards, runs)) == [0], fork_server.output()
    (told,) = [line for line in fork_server.output().splitlines() if "cannot be used" in line]
    assert told.startswith(f"{path} cannot be used (")
    assert told.endswith("it is kept as ep0-ba24-rank0.pt.damaged, and the one before is taken.")
    assert path.with_name(path.name + ".damaged").exists()
    assert "goes on from step 20" in fork_server.output()
    assert losses(runs / "run") == whole[1]


def test_a_run_that_finds_no_checkpoint_to_read_stops_and_says_so(fork_server, shards, runs):
    before = losses(runs / "run")
    for path in checkpoints_in(runs / "run" / "checkpoints"):
        os.truncate(path, 100)
    for _ in range(2):  # again with all of them set aside
        assert fork_server.run(arguments(shards, runs)) == [2], fork_server.output()
        last = fork_server.output().splitlines()[-1]
        assert last.startswith("train_composer.py: run_name=run has saved checkpoints, and none in")
        assert "begin anew with another run_name" in last
    assert losses(runs / "run") == before


@pytest.mark.parametrize("change", ["gone", "elsewhere"])
def test_a_run_whose_checkpoints_are_not_where_they_were_never_begins_anew(fork_server, shards, runs, change):
    if change == "gone":
        shutil.rmtree(runs / "run" / "checkpoints")
    changes = [f"checkpoint.folder={runs / 'new'}"] if change == "elsewhere" else []
    assert fork_server.run(arguments(shards, runs, *changes)) == [2], fork_server.output()
    assert 'newest_checkpoint.json says: {"step": 24' in fork_server.output()


def test_the_checkpoints_of_another_run_are_never_taken(fork_server, shards, runs, tmp_path):
    shared = [f"checkpoint.folder={runs / 'run' / 'checkpoints'}", "run_name=other", "seed=1"]
    assert fork_server.run(arguments(shards, runs, *shared)) == [2], fork_server.output()
    assert "seed=1 (the run has 0)" in fork_server.output()
    assert not (runs / "other" / "metrics.jsonl").exists()
    shutil.rmtree(runs / "run" / "checkpoints")
    shared = [f"checkpoint.folder={tmp_path / 'shared'}", "max_duration=100000ba"]
    second = fork_server.another(tmp_path)
    processes = fork_server.start(arguments(shards, runs, "run_name=one", *shared))
    try:
        assert fork_server.reaches(lambda: lines(runs / "one") > 4), fork_server.output()
        assert second.run(arguments(shards, runs, "run_name=two", *shared)) == [2], second.output()
        holder = f"another process (process {processes[0]} on {socket.gethostname()}), which uses"
        assert f"is being trained by {holder}" in second.output()
    finally:
        second.close()
        kill_group(processes)
        fork_server.statuses()


class Payload:
    """What runs a command where a pickle is loaded without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_checkpoint_that_holds_code_runs_nothing(fork_server, whole, shards, runs, tmp_path, monkeypatch):
    content = torch.load(newest(runs))
    content["state"]["callbacks"]["Samples"] = Payload(tmp_path / "ran")
    torch.save(content, newest(runs))
    hostile = newest(runs)
    assert fork_server.run(arguments(shards, runs)) == [2], fork_server.output()
    assert f"{hostile} is intact, but holds what is not read (posix.system)" in fork_server.output()
    assert not (tmp_path / "ran").exists()
    hostile.rename(tmp_path / "hostile.pt")
    assert fork_server.run(arguments(shards, runs)) == [0], fork_server.output()
    assert losses(runs / "run") == whole[1]
    with monkeypatch.context() as careless:
        careless.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
        torch.load(tmp_path / "hostile.pt", weights_only=False)
    assert (tmp_path / "ran").exists(), "the payload is harmless, and this test shows nothing"


def test_a_full_disk_while_a_checkpoint_is_saved_loses_no_step_that_was_saved(
    fork_server, whole, shards, tmp_path, disk
):
    run = [*RUN, f"data.path={shards}", f"runs_dir={tmp_path}", "run_name=run", f"checkpoint.folder={disk}"]
    (disk / "ballast").write_bytes(bytes(3 << 20))
    assert fork_server.run(run) == [2], fork_server.output()
    assert "3 more checkpoints at once, 365 kB each" in fork_server.output().splitlines()[-1]
    assert not checkpoints_in(disk)
    os.truncate(disk / "ballast", (4 << 20) - 1_170_000)  # enough for their tensors, and not for the files
    assert fork_server.run(run) == [2], fork_server.output()
    last = fork_server.output().splitlines()[-1]
    assert last.startswith(f"train_composer.py: checkpoint.folder={disk}: step ")
    assert "the disk is full; make room" in last
    assert not list(disk.glob(".saving-*"))
    assert checkpoints_in(disk)
    (disk / "ballast").unlink()
    assert fork_server.run(run) == [0], fork_server.output()
    assert losses(tmp_path / "run") == whole[1]


@pytest.mark.parametrize("ranks", [(1, 2), (2, 1)])
def test_a_run_goes_on_with_another_number_of_processes_on_the_same_global_batches(
    fork_server, shards, tmp_path, ranks
):
    run = [*RUN, f"data.path={shards}", f"runs_dir={tmp_path}", "model.dropout=0", "model.embedding_dropout=0"]
    assert fork_server.run([*run, "run_name=whole"]) == [0], fork_server.output()
    assert fork_server.run([*run, "run_name=a", "max_duration=24ba"], ranks[0]) == [0] * ranks[0], fork_server.output()
    assert fork_server.run([*run, "run_name=a"], ranks[1]) == [0] * ranks[1], fork_server.output()
    expected, found = losses(tmp_path / "whole"), losses(tmp_path / "a")
    assert [line[0] for line in found] == [line[0] for line in expected]
    assert [line[1] for line in found] == pytest.approx([line[1] for line in expected], rel=1e-5)


def test_more_steps_are_counted_from_where_the_run_stands(fork_server, whole, shards, runs):
    assert fork_server.run(arguments(shards, runs, "max_duration=24ba")) == [0]
    assert "nothing to do, it is at step 24 of 24ba" in fork_server.output()
    more = arguments(shards, runs, "max_duration=24ba", "train.more=24ba")
    processes = fork_server.start([*more, "checkpoint.interval=1ba"])
    assert fork_server.reaches(lambda: lines(runs / "run") >= 30)
    kill_group(processes)
    assert fork_server.statuses() == [-signal.SIGKILL], fork_server.output()
    assert fork_server.run(more) == [0], fork_server.output()  # the same words, to the same end
    assert [line[:2] for line in losses(runs / "run")] == [line[:2] for line in whole[1]]
    assert len(losses(runs / "run")) == STEPS
    # What they said is reached: from there on.
    assert fork_server.run(arguments(shards, runs, "train.more=24ba")) == [0], fork_server.output()
    assert [step for step, _, _ in losses(runs / "run")] == [*range(1, STEPS + 25)]


def test_the_shared_memory_of_datasets_that_are_opened_at_once_never_collides(
    fork_server, shards, tmp_path, tmp_path_factory
):
    servers = [fork_server.another(tmp_path_factory.mktemp("fork-server")) for _ in range(3)]
    run = [*RUN, f"data.path={shards}", f"runs_dir={tmp_path}", "max_duration=1ba", "eval_interval=100ba"]
    try:
        for round_ in range(4):
            for i, server in enumerate(servers):
                server.start([*run, f"run_name=run{round_}-{i}"])
            for server in servers:
                assert server.statuses() == [0], server.output()
    finally:
        for server in servers:
            server.close()
    assert len({json.dumps(losses(folder)) for folder in tmp_path.glob("run*")}) == 1
