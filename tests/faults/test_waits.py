"""Whatever a run waits for, a request to stop ends the wait, and a data worker that has died ends it in one line."""

import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.killed_runs import RUN, kill_group
from helpers.processes import is_alive, wait_until
from helpers.s3_server import names, store
from helpers.training_runs import lines, losses

pytestmark = [pytest.mark.slow, pytest.mark.dist]
KEYS = ("S3_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "NO_PROXY")
SOON_S = 12


def stop(fork_server, processes, ranks=1, within_s=SOON_S) -> None:
    """Ask a run to stop, which must end it soon."""
    began = time.monotonic()
    kill_group(processes, signal.SIGTERM)
    assert fork_server.statuses() == [75] * ranks, fork_server.output()
    assert time.monotonic() - began < within_s
    assert "the same command goes on" in fork_server.output()
    assert "Traceback" not in fork_server.output()


@pytest.mark.parametrize(("ranks", "num_workers"), [(1, 0), (2, 1)])
def test_a_request_ends_the_wait_for_data_and_the_run_goes_on_exactly(
    fork_server, whole, server, shards, bucket, tmp_path, ranks, num_workers
):
    store(shards, f"{bucket}/data")
    environment = {key: os.environ[key] for key in KEYS}
    run = [*RUN, f"data.path={bucket}/data", f"runs_dir={tmp_path}", "run_name=a", f"data.num_workers={num_workers}"]
    run += [f"data.cache_dir={tmp_path / 'cache'}", "checkpoint.interval=1000ba"]
    processes = fork_server.start(run, ranks, environment)
    assert fork_server.reaches(lambda: lines(tmp_path / "a") >= 2), fork_server.output()
    server.process.send_signal(signal.SIGSTOP)
    try:
        made = [-1, 0]
        while made[-1] != made[-2]:
            time.sleep(0.5)
            made.append(lines(tmp_path / "a"))
        assert 2 <= made[-1] < 48
        stop(fork_server, processes, ranks)
    finally:
        server.process.send_signal(signal.SIGCONT)
    if ranks == 1:
        assert list((tmp_path / "a" / "checkpoints").glob(f"*-ba{made[-1]}-*")), "the last step is not saved"
    assert fork_server.run(run, ranks, environment) == [0] * ranks, fork_server.output()
    assert losses(tmp_path / "a") == whole[ranks]


def test_a_request_ends_the_wait_for_an_upload_and_the_same_command_uploads(
    fork_server, whole, server, shards, bucket, tmp_path
):
    environment = {key: os.environ[key] for key in KEYS}
    run = [*RUN, f"data.path={shards}", f"runs_dir={tmp_path}", "run_name=a", f"checkpoint.folder={bucket}/a"]
    processes = fork_server.start(run, environment=environment)
    assert fork_server.reaches(lambda: lines(tmp_path / "a") >= 5), fork_server.output()
    server.process.send_signal(signal.SIGSTOP)
    try:
        stop(fork_server, processes, within_s=35)
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert "while the last checkpoint, which is here, was uploaded" in fork_server.output()
    assert fork_server.run(run, environment=environment) == [0], fork_server.output()
    assert losses(tmp_path / "a") == whole[1]
    assert any("-ba48-" in name for name in names(f"{bucket}/a"))


def test_a_request_ends_a_start_that_waits_for_a_server(fork_server, shards, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = {"S3_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}", "NO_PROXY": "127.0.0.1"}
        environment |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "a"}
        run = [*RUN, "data.path=s3://bucket/data", f"runs_dir={tmp_path}", f"data.cache_dir={tmp_path / 'cache'}"]
        processes = fork_server.start(run, environment=environment)
        silent.settimeout(60)
        connection = silent.accept()[0]
        stop(fork_server, processes)
        connection.close()


def test_a_request_ends_the_wait_for_another_process(fork_server, shards, tmp_path):
    processes = fork_server.start([*RUN, f"data.path={shards}", f"runs_dir={tmp_path}", "run_name=a"], ranks=2)
    os.kill(processes[0], signal.SIGSTOP)
    time.sleep(1)
    began = time.monotonic()
    os.kill(processes[1], signal.SIGTERM)
    wait_until("the end of the process that waits", lambda: not is_alive(processes[1]), SOON_S)
    os.kill(processes[0], signal.SIGKILL)
    assert time.monotonic() - began < SOON_S
    assert fork_server.statuses() == [-signal.SIGKILL, 75], fork_server.output()
    assert "before the first step" in fork_server.output()


def children(process: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int((path / "stat").read_text().rsplit(")", 1)[1].split()[1]) == process:
                found.append(int(path.name))
    return found


def test_a_data_worker_that_is_killed_ends_the_run_in_one_line_and_the_run_goes_on_exactly(
    fork_server, whole, shards, tmp_path
):
    run = [*RUN, f"data.path={shards}", f"runs_dir={tmp_path}", "run_name=a", "data.num_workers=2"]
    (process,) = fork_server.start(run)
    assert fork_server.reaches(lambda: lines(tmp_path / "a") >= 5 and children(process)), fork_server.output()
    os.kill(children(process)[0], signal.SIGKILL)
    assert fork_server.statuses() == [2], fork_server.output()
    (told,) = [line for line in fork_server.output().splitlines() if line.startswith("train_composer.py: ")]
    assert "data.num_workers=2: DataLoader worker" in told
    assert "try fewer. The same command goes on from the last checkpoint." in told
    assert "Traceback" not in fork_server.output()
    assert fork_server.run(run) == [0], fork_server.output()
    assert losses(tmp_path / "a") == whole[1]


def test_workers_send_batches_where_tmpdir_is_too_long_for_a_socket(fork_server, whole, shards, tmp_path):
    long = tmp_path / ("a" * 100)
    long.mkdir()
    run = [*RUN, f"data.path={shards}", f"runs_dir={tmp_path}", "run_name=a", "data.num_workers=1"]
    assert fork_server.run(run, environment={"TMPDIR": str(long)}) == [0], fork_server.output()
    assert losses(tmp_path / "a") == whole[1]
