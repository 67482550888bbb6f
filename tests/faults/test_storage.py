"""Data and checkpoints on an S3 server, over HTTP: whole runs, and what may go wrong with server, objects and disk."""

import itertools
import json
import os
import shutil
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.killed_runs import RUN, kill_group
from helpers.processes import is_alive
from helpers.s3_server import Server, names, put, remove, store
from helpers.training_runs import lines, losses

from hindsight.s3 import S3Folder
from hindsight.training.checkpoint_files import UPLOADING
from hindsight.training.uploads import Uploads

pytestmark = [pytest.mark.slow, pytest.mark.dist]
KEYS = ("S3_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "NO_PROXY")


class Line:
    """A connection to a server that can be cut, and mended."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self.connections: list[socket.socket] = []
        self.mend()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def mend(self) -> None:
        self.hold()
        self.go_on()

    def hold(self) -> None:
        """Let whoever connects wait."""
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self.listener.getsockname()[1]

    def go_on(self) -> None:
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def cut(self) -> None:
        """Refuse connections, and break those that there are."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.connections:
            end(connection)
        self.connections.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            self.connections += [connection, server]
            for source, sink in ((connection, server), (server, connection)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        end(source)
        end(sink)


def end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@pytest.fixture
def place(bucket, shards) -> str:
    """The shards, on S3."""
    store(shards, f"{bucket}/data/novels")
    return f"{bucket}/data/novels"


@pytest.fixture
def environment(bucket) -> dict[str, str]:
    return {key: os.environ[key] for key in KEYS}


def arguments(place: str, tmp_path, *changes: str) -> list[str]:
    common = [f"data.path={place}", f"runs_dir={tmp_path}", "run_name=a", f"data.cache_dir={tmp_path / 'cache'}"]
    return [*RUN, *common, "data.download_retry=2", "data.download_timeout_s=5", *changes]


# ------------------------------------------------------------------------------------------------------- whole runs


@pytest.mark.parametrize(("ranks", "num_workers"), [(1, 0), (1, 2), (2, 2)])
def test_data_on_s3_has_the_losses_of_local_data(fork_server, whole, place, environment, tmp_path, ranks, num_workers):
    run = arguments(place, tmp_path, f"data.num_workers={num_workers}")
    assert fork_server.run(run, ranks, environment) == [0] * ranks, fork_server.output()
    assert losses(tmp_path / "a") == whole[ranks]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_cache_far_smaller_than_the_data_is_enough(
    fork_server, whole, shards, place, environment, tmp_path, num_workers
):
    sizes = [path.stat().st_size for path in (shards / "train").glob("*.mds")]
    limit = (shards / "train" / "index.json").stat().st_size + 8 * max(sizes)
    cache = tmp_path / "cache"
    run = arguments(place, tmp_path, f"data.cache_limit={limit}b", f"data.num_workers={num_workers}")
    held, mapped, training = [], [0], fork_server.start(run, environment=environment)
    while any(is_alive(process) for process in training):
        held.append(sum(_size(path) for path in cache.glob("*/train/*.mds")))
        mapped += deleted_maps(training[0])
        time.sleep(0.002)
    assert fork_server.statuses() == [0], fork_server.output()
    assert 0 < max(held) <= (8 + num_workers + 1) * max(sizes) < sum(sizes) / 2  # and those that are just arriving
    assert max(mapped) == 0, "files that are evicted, but mapped, hold their place on the disk"
    assert losses(tmp_path / "a") == whole[1]


def deleted_maps(group: int) -> list[int]:
    """Shards that are deleted and still mapped, by each process of a group."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            if os.getpgid(int(process.name)) == group:
                maps = (process / "maps").read_text().splitlines()
                found.append(sum(line.endswith(".mds (deleted)") for line in maps))
    return found


def _size(path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def test_a_run_with_checkpoints_on_s3_goes_on_where_its_folder_is_missing(
    fork_server, whole, shards, bucket, environment, tmp_path
):
    run = arguments(str(shards), tmp_path, f"checkpoint.folder={bucket}/runs/a", "checkpoint.backup_interval=16ba")
    assert fork_server.run([*run, "max_duration=24ba"], environment=environment) == [0], fork_server.output()
    saved = [name for name in names(f"{bucket}/runs/a") if name.endswith(".pt")]
    assert saved == ["backups/ep0-ba16-rank0.pt", "ep0-ba20-rank0.pt", "ep0-ba24-rank0.pt"]
    shutil.rmtree(tmp_path / "a")
    assert fork_server.run(run, environment=environment) == [0], fork_server.output()
    assert "goes on from step 24" in fork_server.output()
    assert [line[:2] for line in losses(tmp_path / "a")] == [line[:2] for line in whole[1]]
    refused = fork_server.run([*run, "seed=5"], environment=environment)
    assert refused == [2]
    assert "seed=5 (the run has 0)" in fork_server.output()


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_killed_run_with_checkpoints_on_s3_goes_on_exactly_on_another_machine(
    fork_server, whole, shards, bucket, environment, tmp_path, ranks
):
    run = arguments(str(shards), tmp_path, f"checkpoint.folder={bucket}/runs/a")
    for step in (13, 29):
        processes = fork_server.start(run, ranks, environment)
        assert fork_server.reaches(lambda at=step: lines(tmp_path / "a") >= at), fork_server.output()
        kill_group(processes)
        fork_server.statuses()
        shutil.rmtree(tmp_path / "a")
        assert not any(name.startswith(".") for name in names(f"{bucket}/runs/a"))
    assert fork_server.run(run, ranks, environment) == [0] * ranks, fork_server.output()
    assert "goes on from step" in fork_server.output()
    assert losses(tmp_path / "a") == whole[ranks]
    assert not (tmp_path / "s3:").exists()


def test_records_that_change_while_they_are_uploaded_can_be_fetched(bucket, tmp_path):
    path, is_over = tmp_path / "metrics.jsonl", threading.Event()
    path.write_text("")
    remote = S3Folder(f"{bucket}/runs/a", "checkpoint.folder")

    def write():
        with path.open("r+") as file:
            for number in itertools.count():
                file.seek(0)
                file.write(f"{number % 10}" * 1000)
                file.flush()
                if is_over.is_set():
                    return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(10):
            Uploads(remote, tmp_path).close()
            remote.download(path.name, tmp_path / "fetched")
    finally:
        is_over.set()
        writer.join()


def test_uploads_that_are_slow_leave_out_what_is_outdated_and_no_backup(server, bucket, tmp_path, monkeypatch):
    line = Line(server.port)
    line.cut()
    line.hold()
    monkeypatch.setenv("S3_ENDPOINT_URL", line.url)  # the way to the server leads through a line that can be slow
    uploads = Uploads(S3Folder(f"{bucket}/runs/a", "checkpoint.folder"), tmp_path)
    (tmp_path / "backups").mkdir()
    for step in (4, 8, 12, 16, 20, 24):
        for path, keep in ((tmp_path / "backups", -1), (tmp_path, 2)):
            checkpoint = path / f"ep0-ba{step}-rank0.pt"
            checkpoint.write_bytes(b"checkpoint")
            if keep > 0 or step == 12:
                uploads.add(checkpoint, keep)
    line.go_on()
    uploads.close()
    uploads.check()
    monkeypatch.setenv("S3_ENDPOINT_URL", server.url)  # past the line, to see what has arrived
    assert names(f"{bucket}/runs/a") == ["backups/ep0-ba12-rank0.pt", "ep0-ba20-rank0.pt", "ep0-ba24-rank0.pt"]
    assert not [*tmp_path.rglob(f"{UPLOADING}*")]


def test_a_machine_whose_files_are_behind_those_on_s3_takes_them_over(
    fork_server, whole, shards, bucket, environment, tmp_path
):
    run = arguments(str(shards), tmp_path, f"checkpoint.folder={bucket}/runs/a")
    assert fork_server.run([*run, "max_duration=12ba"], environment=environment) == [0], fork_server.output()
    shutil.copytree(tmp_path / "a", tmp_path / "elsewhere" / "a")
    there = [*run, f"runs_dir={tmp_path / 'elsewhere'}", "max_duration=24ba"]
    assert fork_server.run(there, environment=environment) == [0], fork_server.output()
    assert fork_server.run(run, environment=environment) == [0], fork_server.output()
    assert "goes on from step 24" in fork_server.output()
    assert [line[:2] for line in losses(tmp_path / "a")] == [line[:2] for line in whole[1]]


def test_a_damaged_checkpoint_on_s3_is_named_and_the_one_before_is_taken(
    fork_server, whole, shards, bucket, environment, tmp_path
):
    run = arguments(str(shards), tmp_path, f"checkpoint.folder={bucket}/runs/a")
    assert fork_server.run([*run, "max_duration=24ba"], environment=environment) == [0], fork_server.output()
    shutil.rmtree(tmp_path / "a")
    put(f"{bucket}/runs/a/ep0-ba24-rank0.pt", b"cut")
    assert fork_server.run(run, environment=environment) == [0], fork_server.output()
    assert f"{bucket}/runs/a/ep0-ba24-rank0.pt cannot be used" in fork_server.output()
    assert "goes on from step 20" in fork_server.output()
    assert losses(tmp_path / "a")[-1] == whole[1][-1]


# ------------------------------------------------------------------------------------------------------------ faults


def refused(fork_server, run, environment, ranks=1, within_s=60) -> str:
    """The one line with which a run ends."""
    began = time.monotonic()
    statuses = fork_server.run(run, ranks, environment)
    assert time.monotonic() - began < within_s
    assert statuses[0] == 2, fork_server.output()
    (line,) = {line for line in fork_server.output().splitlines() if line.startswith("train_composer.py: ")}
    assert "Traceback" not in line
    return line


@pytest.mark.parametrize(
    ("fault", "ranks", "num_workers"),
    [
        ("missing", 1, 0),
        ("missing", 1, 1),
        ("missing", 1, 2),
        ("missing", 2, 2),
        ("corrupt", 1, 0),
        ("corrupt", 1, 2),
        ("corrupt", 2, 0),
    ],
)
def test_a_bad_shard_ends_the_run_in_one_line_and_never_enters_it(
    fork_server, whole, shards, place, environment, tmp_path, fault, ranks, num_workers
):
    shard = sorted(path.name for path in (shards / "train").glob("*.mds"))[7]
    data = (shards / "train" / shard).read_bytes()
    if fault == "missing":
        remove(f"{place}/train/{shard}")
    else:
        put(f"{place}/train/{shard}", data[:-1] + bytes([data[-1] ^ 1]))
    run = arguments(place, tmp_path, f"data.num_workers={num_workers}", "data.download_retry=1")
    for _ in range(2):  # the second start finds nothing of it in the cache
        line = refused(fork_server, run, environment, ranks)
        assert f"data.path={place}: train/{shard} cannot be fetched, or is not what it was" in line
        assert not list((tmp_path / "cache").glob(f"*/train/{shard}*"))
    put(f"{place}/train/{shard}", data)
    assert fork_server.run(run, ranks, environment) == [0] * ranks, fork_server.output()
    assert losses(tmp_path / "a") == whole[ranks]


def test_a_shard_that_was_damaged_in_the_cache_is_fetched_anew(fork_server, whole, place, environment, tmp_path):
    assert fork_server.run(arguments(place, tmp_path, "max_duration=20ba"), environment=environment) == [0]
    cached = sorted((tmp_path / "cache").glob("*/train/*.mds"))
    assert len(cached) > 10
    for path in cached[::2]:
        path.write_bytes(path.read_bytes()[:-2] + b"xx")
    for path in cached[1::2]:
        os.truncate(path, 300)
    assert fork_server.run(arguments(place, tmp_path), environment=environment) == [0], fork_server.output()
    assert [line[:2] for line in losses(tmp_path / "a")] == [line[:2] for line in whole[1]]


@pytest.mark.parametrize("name", ["manifest.json", "train/index.json", "tokenizer/tokenizer.json"])
def test_a_missing_file_of_the_description_is_named(fork_server, place, environment, tmp_path, name):
    remove(f"{place}/{name}")
    line = refused(fork_server, arguments(place, tmp_path, "data.download_retry=1"), environment, ranks=2)
    assert f"data.path={place}: {name} cannot be fetched" in line
    assert not (tmp_path / "a").exists()


def test_a_missing_bucket_is_named(fork_server, shards, environment, tmp_path):
    run = arguments("s3://no-such-bucket/x", tmp_path, "data.download_retry=1")
    assert "data.path=s3://no-such-bucket/x: manifest.json cannot be fetched" in refused(fork_server, run, environment)
    run = arguments(str(shards), tmp_path, "checkpoint.folder=s3://no-such-bucket/x")
    assert "checkpoint.folder=s3://no-such-bucket/x cannot be reached" in refused(fork_server, run, environment)


def test_wrong_keys_are_named(fork_server, shards, environment, tmp_path, monkeypatch):
    monkeypatch.setenv("INITIAL_NO_AUTH_ACTION_COUNT", "0")
    strict = Server()
    try:
        wrong = environment | {"S3_ENDPOINT_URL": strict.url, "AWS_SECRET_ACCESS_KEY": "planted-wrong-secret"}
        run = arguments("s3://bucket/x", tmp_path, "data.download_retry=1")
        line = refused(fork_server, run, wrong)
        assert "data.path=s3://bucket/x: manifest.json cannot be fetched" in line
        assert "check the address, S3_ENDPOINT_URL and the keys" in line
        run = arguments(str(shards), tmp_path, "checkpoint.folder=s3://bucket/x")
        assert "checkpoint.folder=s3://bucket/x cannot be reached" in refused(fork_server, run, wrong)
        assert "planted" not in fork_server.output()
    finally:
        strict.close()


def test_a_server_that_is_gone_for_five_seconds_costs_five_seconds(
    fork_server, whole, server, place, bucket, environment, tmp_path
):
    line = Line(server.port)
    through = environment | {"S3_ENDPOINT_URL": line.url}
    run = arguments(place, tmp_path, "data.download_retry=6", "data.num_workers=2", "data.cache_limit=10kb")
    run.append(f"checkpoint.folder={bucket}/runs/a")
    fork_server.start(run, environment=through)
    assert fork_server.reaches(lambda: lines(tmp_path / "a") >= 4), fork_server.output()
    line.cut()
    time.sleep(5)
    assert lines(tmp_path / "a") < 48
    line.mend()
    assert fork_server.statuses() == [0], fork_server.output()
    assert losses(tmp_path / "a") == whole[1]
    assert any("-ba48-" in name for name in names(f"{bucket}/runs/a"))
    line.cut()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_server_that_is_gone_for_good_ends_the_run_and_the_same_command_goes_on(
    fork_server, whole, server, place, environment, tmp_path, num_workers
):
    line = Line(server.port)
    run = arguments(place, tmp_path, f"data.num_workers={num_workers}", "data.cache_limit=10kb")
    fork_server.start(run, environment=environment | {"S3_ENDPOINT_URL": line.url})
    assert fork_server.reaches(lambda: lines(tmp_path / "a") >= 4), fork_server.output()
    line.cut()
    assert fork_server.statuses() == [2], fork_server.output()
    (told,) = [text for text in fork_server.output().splitlines() if text.startswith("train_composer.py: ")]
    assert f"data.path={place}: train/shard." in told
    assert "The same command goes on." in told
    assert fork_server.run(run, environment=environment) == [0], fork_server.output()
    assert losses(tmp_path / "a") == whole[1]


def test_checkpoints_that_cannot_be_uploaded_are_here_and_the_same_command_uploads_them(
    fork_server, whole, server, shards, bucket, environment, tmp_path
):
    line = Line(server.port)
    run = arguments(str(shards), tmp_path, f"checkpoint.folder={bucket}/runs/a")
    through = environment | {"S3_ENDPOINT_URL": line.url, "AWS_MAX_ATTEMPTS": "2"}
    fork_server.start(run, environment=through)
    assert fork_server.reaches(lambda: lines(tmp_path / "a") >= 9), fork_server.output()
    line.cut()
    assert fork_server.statuses() == [2], fork_server.output()
    assert "training goes on." in fork_server.output()
    assert "the newest checkpoint could not be uploaded" in fork_server.output().splitlines()[-1]
    assert losses(tmp_path / "a") == whole[1]
    assert fork_server.run(run, environment=environment) == [0], fork_server.output()
    assert "nothing to do" in fork_server.output()
    assert any("-ba48-" in name for name in names(f"{bucket}/runs/a"))


def test_a_full_disk_while_shards_are_fetched_is_told_with_the_key_to_change(
    fork_server, whole, place, environment, tmp_path, disk
):
    run = arguments(place, tmp_path, f"data.cache_dir={disk}", "data.download_retry=1")
    (disk / "ballast").write_bytes(bytes((4 << 20) - (100 << 10)))
    line = refused(fork_server, run, environment)
    assert "data.cache_dir: the disk of" in line
    assert "bound what is kept with data.cache_limit." in line
    (disk / "ballast").unlink()
    assert fork_server.run(run, environment=environment) == [0], fork_server.output()
    assert losses(tmp_path / "a") == whole[1]


# ------------------------------------------------------------------------------------------------------------ secrets


def test_keys_are_nowhere_in_what_a_run_writes_and_says(fork_server, place, bucket, environment, tmp_path):
    planted = {"AWS_SECRET_ACCESS_KEY": "planted-aws", "WANDB_API_KEY": "planted-wandb-" + "0" * 26}
    planted |= {"HF_TOKEN": "planted-hf", "OPENAI_API_KEY": "planted-other"}
    run = arguments(place, tmp_path, "wandb.mode=offline", "tensorboard=true", f"checkpoint.folder={bucket}/runs/a")
    assert fork_server.run([*run, "max_duration=4ba"], environment=environment | planted) == [0], fork_server.output()
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"metadata.json", "ep0-ba4-rank0.pt"} <= {path.name for path in written}
    assert any(path.suffix == ".wandb" for path in written)
    for path in written:
        assert b"planted" not in path.read_bytes(), path
    assert "planted" not in fork_server.output()
    for key in ("data.path", "checkpoint.folder"):
        assert fork_server.run([*run, f"{key}=s3://planted-id:planted-key@bucket/x"], environment=environment) == [2]
        assert f"{key}: an address must not hold keys" in fork_server.output()
        assert "planted" not in fork_server.output()
    assert "planted" not in json.dumps(names(f"{bucket}/runs/a"))
