"""Conversions by workers of Dask: the bytes of any other engine, whoever is lost on the way."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import pytest
from distributed import Client
from helpers.conversion_runs import contents, parts_done, run_to_the_end, start
from helpers.processes import ROOT, wait_until
from helpers.small_data import convert_config

import convert_to_mds
from hindsight.config.conversion import Engine
from hindsight.conversion.dask_workers import SourcePlugin, on_dask
from hindsight.conversion.text_source import TextSource
from hindsight.conversion.workers import _sources, fingerprint_of
from hindsight.errors import InputError
from hindsight.tokenization.tokenizer import Tokenizer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.dist,
    pytest.mark.filterwarnings("ignore:Creating scratch directories:UserWarning"),  # Dask's, where a disk is slow
]


@pytest.fixture(scope="module")
def expected(large_corpus, tokenizer_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("expected") / "out"
    run_to_the_end(start("convert_to_mds", large_corpus, tokenizer_dir, out), out)
    return contents(out)


def workers_of(process):
    """The processes that make tokens, which a conversion starts, and starts again."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
        with suppress(psutil.NoSuchProcess):
            if "spawn_main" in str(child.cmdline()):
                found.append(child)
    return found


@pytest.mark.parametrize("script", ["convert_to_mds", "convert_to_h5"])
@pytest.mark.parametrize("workers", [1, 3])
def test_the_result_is_that_of_processes_here(tmp_path, large_corpus, tokenizer_dir, script, workers):
    for engine, out in (("local", tmp_path / "local"), ("dask", tmp_path / "dask")):
        run_to_the_end(start(script, large_corpus, tokenizer_dir, out, workers, engine), out)
    assert contents(tmp_path / "dask") == contents(tmp_path / "local")


def test_what_a_lost_worker_was_at_is_done_again(tmp_path, large_corpus, tokenizer_dir, expected):
    out, work = tmp_path / "out", tmp_path / ".out.partial"
    process = start("convert_to_mds", large_corpus, tokenizer_dir, out, engine="dask")
    for done in (1, 30):
        wait_until("a part", lambda done=done: parts_done(work) >= done or process.poll() is not None, 60, 0.005)
        killed = workers_of(process)
        assert killed, out.with_name("out.log").read_text()
        killed[-1].kill()
    run_to_the_end(process, out)
    assert contents(out) == expected


def test_the_end_of_the_conversion_ends_its_workers_and_it_goes_on(tmp_path, large_corpus, tokenizer_dir, expected):
    out, work = tmp_path / "out", tmp_path / ".out.partial"
    for number, status in ((signal.SIGKILL, -9), (signal.SIGINT, 130)):
        before = parts_done(work)
        process = start("convert_to_mds", large_corpus, tokenizer_dir, out, engine="dask")
        wait_until("five parts", lambda before=before: parts_done(work) >= before + 5, 60, 0.005)
        workers = workers_of(process)
        assert len(workers) == 2
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.kill()
        assert process.wait(60) == status, out.with_name("out.log").read_text()
        psutil.wait_procs(workers, 30)
        assert not any(worker.is_running() for worker in workers)
    assert "Traceback" not in out.with_name("out.log").read_text()
    assert parts_done(work) >= 10
    run_to_the_end(start("convert_to_mds", large_corpus, tokenizer_dir, out, engine="local"), out)
    assert contents(out) == expected


@contextmanager
def scheduler(tmp_path, modules=ROOT):
    """A scheduler of the user's own with one worker; its address."""
    environment = {**os.environ, "PYTHONPATH": str(modules), "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "error"}
    file, log = tmp_path / "scheduler.json", (tmp_path / "scheduler.log").open("w")
    run = [sys.executable, "-m"]
    options = ["--scheduler-file", str(file)]
    commands = [
        [*run, "distributed.cli.dask_scheduler", *options, "--port", "0", "--no-dashboard", "--host", "127.0.0.1"],
        [*run, "distributed.cli.dask_worker", *options, "--nthreads", "1", "--no-dashboard"],
    ]
    processes = []
    try:
        for command in commands:
            processes.append(subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log))
            wait_until("the scheduler", lambda: file.exists() and file.read_text().endswith("}"), 60)
        yield json.loads(file.read_text())["address"]
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(30)
        log.close()


def test_a_scheduler_that_runs_already_is_left_as_it_was(tmp_path, corpus, tokenizer_dir, shards):
    with scheduler(tmp_path) as address:
        for out in ("a", "b"):
            config = convert_config(corpus, tokenizer_dir, tmp_path / out, engine=Engine.dask, dask_scheduler=address)
            convert_to_mds.main(config)
            assert contents(tmp_path / out) == contents(shards)
        convert_to_mds.main(config)  # it is there
        with Client(address) as client:
            counted: Any = client.run(eval, "len(__import__('sys').modules['hindsight.conversion.workers']._sources)")
            assert [*counted.values()] == [0]


def test_a_scheduler_that_is_lost_ends_the_conversion_which_goes_on(tmp_path, large_corpus, tokenizer_dir, expected):
    out, work = tmp_path / "out", tmp_path / ".out.partial"
    with scheduler(tmp_path) as address:
        process = start("convert_to_mds", large_corpus, tokenizer_dir, out, engine="dask", dask_scheduler=address)
        wait_until("five parts", lambda: parts_done(work) >= 5, 60, 0.005)
    assert process.wait(60) == 2
    said = out.with_name("out.log").read_text()
    assert f"The scheduler of Dask was lost; see what ended it, and start again. What is done stays in {work}." in said
    run_to_the_end(start("convert_to_mds", large_corpus, tokenizer_dir, out), out)
    assert contents(out) == expected


def test_a_worker_that_lacks_the_project_is_told_what_to_do(tmp_path, corpus, tokenizer_dir):
    with scheduler(tmp_path, modules=tmp_path) as address:
        config = convert_config(corpus, tokenizer_dir, tmp_path / "out", engine=Engine.dask, dask_scheduler=address)
        with pytest.raises(
            InputError,
            match=rf"dask_scheduler={address}: it or a worker lacks this project .*; start them with PYTHONPATH={ROOT}",
        ):
            convert_to_mds.main(config)


@pytest.mark.parametrize(("protocol", "words"), [("tcp", "Timed out"), ("tls", "TLS configuration")])
def test_a_scheduler_that_does_not_answer_is_named(tmp_path, corpus, tokenizer_dir, protocol, words, monkeypatch):
    monkeypatch.setattr("hindsight.conversion.dask_workers.CONNECT_TIMEOUT_S", 1)
    settings = {"engine": Engine.dask, "dask_scheduler": f"{protocol}://127.0.0.1:9"}
    with pytest.raises(InputError, match=rf"dask_scheduler={protocol}://127.0.0.1:9: .*{words}"):
        convert_to_mds.main(convert_config(corpus, tokenizer_dir, tmp_path / "out", **settings))


def test_jobs_need_the_program_that_submits_them(tmp_path, corpus, tokenizer_dir, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # as on a machine without Grid Engine
    with pytest.raises(InputError, match="engine=sge needs qsub, which is not found here"):
        convert_to_mds.main(convert_config(corpus, tokenizer_dir, tmp_path / "out", engine=Engine.sge))


def test_text_that_cannot_be_used_is_told_as_everywhere(tmp_path, corpus, tokenizer_dir):
    (tmp_path / "a.txt").write_bytes(b"ab\n\n\xff\n")
    config = convert_config(tmp_path / "a.txt", tokenizer_dir, tmp_path / "out", engine=Engine.dask)
    source = TextSource(config, Tokenizer.load(tokenizer_dir))
    with pytest.raises(InputError, match=r"a.txt is not UTF-8 at byte 4"):
        fingerprint_of(source, lambda source: on_dask(source, config, tmp_path))


class Deadly(TextSource):
    """Text that ends whoever reads it."""

    def digest(self, part):
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def test_a_part_that_ends_every_worker_ends_the_conversion(tmp_path, corpus, tokenizer_dir):
    config = convert_config(corpus, tokenizer_dir, tmp_path / "out", engine=Engine.dask)
    source = Deadly(config, Tokenizer.load(tokenizer_dir))
    with pytest.raises(InputError, match="A worker was ended from outside"):
        fingerprint_of(source, lambda source: on_dask(source, config, tmp_path))


def test_a_worker_on_which_ids_could_differ_or_files_are_missing_makes_nothing(tmp_path, corpus, tokenizer_dir):
    source = TextSource(convert_config(corpus, tokenizer_dir, tmp_path / "out"), Tokenizer.load(tokenizer_dir))
    (part,) = source.parts()
    knows = SourcePlugin("test", source, [str(tmp_path)])
    knows.setup(None)
    known: Any = _sources["test"]
    assert known.digest(part) == source.digest(part)
    knows.versions["tokenizers"] = "0.0"
    knows.setup(None)
    assert "tokenizers" in str(_sources["test"])
    assert "not 0.0 as here; start it in the same environment." in str(_sources["test"])
    SourcePlugin("test", source, [str(tmp_path / "none")]).setup(None)
    assert f"{tmp_path / 'none'} is not there for a worker on" in str(_sources["test"])
    knows.teardown(None)
    assert "test" not in _sources
