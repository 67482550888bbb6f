"""Workers of Dask: on this machine, in jobs of Slurm or Grid Engine, or those of a scheduler that runs already.

A piece of work is a part of the corpus: it puts the part's tokens into the work folder, whole or not at all, and does
the same when it is done twice. Dask gives the work of a worker that is lost to another.
"""

import logging
import os
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from importlib.metadata import version
from multiprocessing import resource_tracker
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, cast
from uuid import uuid4

import dask.config
from distributed import CancelledError, Client, KilledWorker, LocalCluster, WorkerPlugin, wait
from distributed.comm.core import CommClosedError
from distributed.deploy.spec import SpecCluster

from config import ConvertConfig, Engine, InputError
from conversion.sources import Source
from conversion.workers import WORKER_LOST, Workers, available_cores, forget, know

log = logging.getLogger("hindsight")

ROOT = Path(__file__).resolve().parent.parent
CONNECT_S = 10
"""How long a scheduler may take to answer."""
RENEW_S = 30
"""How often jobs that have ended are submitted again."""
MEMORY_GB = 2
"""For each process of a job, unless Dask's configuration says something else."""
SAME_VERSIONS = ("tokenizers", "tiktoken", "numpy")
"""Packages that the ids of a text depend on."""


@contextmanager
def on_dask(source: Source, config: ConvertConfig, work: Path) -> Iterator[Workers]:
    """Open workers of Dask, and close what was opened here.

    Args:
        source: what they work on.
        config: engine, workers, jobs and dask_scheduler.
        work: folder for the tokens of parts, which all must see.

    Raises:
        InputError: they cannot be had, do not see the files, or are lost again and again.
    """
    logging.getLogger("distributed").setLevel(logging.ERROR)  # it tells of every connection
    name = f"hindsight-{uuid4().hex}"
    folder = work if work.is_dir() else work.parent  # nothing is written where the result is there and only compared
    with _cluster(config, folder) as cluster, _client(config, cluster) as client:
        client.register_plugin(Knows(name, source, [str(folder), *source.paths()]))
        try:
            yield Workers(
                name,
                count=lambda: max(1, len(cast(dict[str, int], client.nthreads()))),
                submit=partial(client.submit, pure=False),
                wait=lambda pending: cast(Any, wait(pending, return_when="FIRST_COMPLETED")).done,
            )
        except KilledWorker as error:
            raise InputError(WORKER_LOST) from error
        except (CancelledError, CommClosedError) as error:
            raise InputError("The scheduler of Dask was lost; see what ended it, and start again.") from error
        finally:
            if config.dask_scheduler is not None:
                with suppress(KeyError, OSError):  # workers that have not, or no longer, known it
                    client.unregister_worker_plugin(name)


class Knows(WorkerPlugin):
    """Lets every worker, also one that comes later, know the source, once it has seen that it can work on it.

    Args:
        name: the source's.
        source: what to work on.
        paths: files and folders that it must see.
    """

    def __init__(self, name: str, source: Source, paths: list[str]) -> None:
        self.name = name
        self.source = source
        self.paths = paths
        self.versions = {package: version(package) for package in SAME_VERSIONS}

    def setup(self, worker: Any) -> None:
        """Check a worker."""
        host = socket.gethostname()
        unseen = next((path for path in self.paths if not os.path.exists(path)), None)
        other = next((package for package in SAME_VERSIONS if version(package) != self.versions[package]), None)
        if unseen is not None:
            know(self.name, InputError(f"{unseen} is not there for a worker on {host}; put it where all see it."))
        elif other is not None:
            difference = f"{other} {version(other)}, not {self.versions[other]} as here"
            know(self.name, InputError(f"A worker on {host} has {difference}; start it in the same environment."))
        else:
            know(self.name, self.source)

    def teardown(self, worker: Any) -> None:
        """Forget the source."""
        forget(self.name)


def _cluster(config: ConvertConfig, folder: Path) -> AbstractContextManager[Any]:
    """Start a cluster, whose processes trust each other only (TLS), or give the address of one that runs already."""
    if config.dask_scheduler is not None:
        return nullcontext(config.dask_scheduler)
    if config.engine is not Engine.dask:
        return _jobs(config, folder)
    n_workers = config.workers or available_cores()
    # Ctrl-C is for this process: those that it starts inherit what is blocked (which starting the tracker would undo).
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return LocalCluster(
            n_workers=n_workers, threads_per_worker=1, dashboard_address=":0", protocol="tls://", security=True
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _client(config: ConvertConfig, cluster: Any) -> Client:
    """Connect."""
    try:
        return Client(cluster, timeout=CONNECT_S)
    except (OSError, ValueError) as error:
        raise InputError(f"dask_scheduler={config.dask_scheduler}: {error}; see whether it runs there.") from error


def _setting(kind: str, key: str) -> Any:
    """What a user's configuration of dask-jobqueue says."""
    return dask.config.get(f"jobqueue.{kind}.{key}")


def _jobs(config: ConvertConfig, folder: Path) -> SpecCluster:
    """Submit jobs, each of `workers` processes; those that end too early are submitted again."""
    from dask_jobqueue.sge import SGECluster
    from dask_jobqueue.slurm import SLURMCluster

    name = config.engine.name
    kind = {"slurm": SLURMCluster, "sge": SGECluster}[name]
    try_out = {"slurm": ["sbatch", "--test-only"], "sge": ["qsub", "-w", "v"]}[name]
    if shutil.which(try_out[0]) is None:
        raise InputError(f"engine={name} needs {try_out[0]}, which is not found here; start where jobs are submitted.")
    setting = partial(_setting, name)
    n_workers = config.workers or setting("cores") or 1
    directives = setting("job-extra-directives") or []
    if name == "sge" and n_workers > 1 and not any(line.startswith("-pe ") for line in directives):
        raise InputError(
            f"workers={n_workers} a job: Grid Engine has to be asked for as many slots, which only your site can name; "
            "take workers=1 and more jobs=, or set Dask's jobqueue.sge.job-extra-directives, as docs/clusters.md shows."
        )
    find_modules = f"export PYTHONPATH={shlex.quote(str(ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}"
    cluster = kind(
        job_name=f"convert-{Path(config.out).name}",
        cores=n_workers,
        processes=n_workers,
        memory=setting("memory") or f"{n_workers * MEMORY_GB}GB",
        job_script_prologue=[*(setting("job-script-prologue") or []), find_modules],
        scheduler_options={"dashboard_address": ":0"},
        log_directory=setting("log-directory") or str(folder),
        security=True,
        shared_temp_directory=str(folder),
    )

    with NamedTemporaryFile("w", prefix="convert-", suffix=".sh", dir=folder) as script:
        script.write(cluster.job_script())
        script.flush()
        answer = subprocess.run([*try_out, script.name], capture_output=True, text=True, check=False)
    if answer.returncode:  # Dask itself would try again for ever
        cluster.close()
        said = " ".join((answer.stderr + answer.stdout).split())
        raise InputError(f"engine={name}: no such job can be submitted ({said}); see docs/clusters.md.")
    cluster.scale(jobs=config.jobs)
    cluster.adapt(minimum_jobs=config.jobs, maximum_jobs=config.jobs, interval=RENEW_S)
    log.info("engine=%s: jobs=%d with workers=%d are submitted, and work begins.", name, config.jobs, n_workers)
    return cluster
