"""Workers of Dask: on this machine, in jobs of Slurm or Grid Engine, or those of a scheduler that runs already.

Work on a part writes the part's tokens into the work folder. It is atomic and idempotent, so that Dask may give the
work of a lost worker to another one.
"""

import logging
import os
import pickle
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import resource_tracker
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast
from uuid import uuid4

import dask.config
from distributed import CancelledError, Client, KilledWorker, LocalCluster, WorkerPlugin, wait
from distributed.comm.core import CommClosedError
from distributed.deploy.spec import SpecCluster
from distributed.security import Security

from hindsight.config.conversion import ConvertConfig, Engine
from hindsight.conversion.source import Source
from hindsight.conversion.workers import (
    WORKER_LOST,
    Workers,
    available_cores,
    register_source,
    run_on_source,
    unregister_source,
)
from hindsight.errors import InputError

log = logging.getLogger("hindsight")

ROOT = Path(__file__).resolve().parents[2]
SAME_VERSIONS: tuple[str, ...] = ("tokenizers", "tiktoken", "numpy")
"""Packages that the ids of a text depend on."""
SCHEDULER_LOST = "The scheduler of Dask was lost; see what ended it, and start again."
CONNECT_TIMEOUT_S = 10
"""Seconds that a scheduler may take to answer."""
COUNT_INTERVAL_S = 1.0
"""Seconds for which the number of workers is cached."""
NO_WORKER_LOG_INTERVAL_S = 60
"""Seconds between two log lines that there is no worker."""
RESUBMIT_INTERVAL_S = 30
"""Seconds after which jobs that have ended are submitted again."""
JOB_MEMORY = "2GB"
"""Memory of a job, unless Dask's configuration sets it."""
DASHBOARD_ADDRESS = "127.0.0.1:0"
"""Dask's dashboard has no password: it listens on this machine only, at any port."""
TLS_ROLES = ("scheduler", "worker", "client")
TLS_KEYS = ("tls_ca_file", *(f"tls_{role}_cert" for role in TLS_ROLES), *(f"tls_{role}_key" for role in TLS_ROLES))


@contextmanager
def on_dask(source: Source, config: ConvertConfig, work: Path) -> Iterator[Workers]:
    """Open workers of Dask; at the end, close those that were started here.

    Args:
        source: the source that they work on.
        config: engine, workers and dask_scheduler.
        work: folder for the tokens of parts, which all workers must see.

    Raises:
        InputError: workers cannot be started, do not see the files, or are lost repeatedly.
    """
    logging.getLogger("distributed").setLevel(logging.ERROR)  # it logs every connection
    name = f"hindsight-{uuid4().hex}"
    # Where the result exists and is only compared, there is no work folder, and nothing to write.
    folder = work if work.is_dir() else work.parent
    with _cluster(config, folder) as cluster, _client(config, cluster) as client:
        try:
            for run in (client.run_on_scheduler, client.run):
                run(exec, f"import {__name__}")  # objects that are sent refer to this module
        except ImportError as error:
            raise InputError(
                f"dask_scheduler={config.dask_scheduler}: it or a worker lacks this project ({error}); start them with "
                f"PYTHONPATH={ROOT}."
            ) from error
        client.register_plugin(SourcePlugin(name, source, [str(folder), *source.paths()]))
        try:
            yield DaskWorkers(source, name, client)
        except KilledWorker as error:
            raise InputError(WORKER_LOST) from error
        except (CancelledError, CommClosedError) as error:
            raise InputError(SCHEDULER_LOST) from error
        finally:
            if config.dask_scheduler is not None and client.status == "running":
                with suppress(KeyError, OSError, ValueError):  # workers that do not have it yet, or no longer
                    client.unregister_worker_plugin(name)


class DaskWorkers(Workers):
    """Workers of Dask, the number of which may change."""

    def __init__(self, source: Source, name: str, client: Client) -> None:
        super().__init__(source, name)
        self.client = client
        self.counted, self.counted_at = 1, -COUNT_INTERVAL_S

    def count(self) -> int:
        """Count their threads, at least 1; the scheduler is asked every COUNT_INTERVAL_S."""
        if self.client.status == "running" and time.monotonic() - self.counted_at > COUNT_INTERVAL_S:
            try:
                threads = cast(dict[str, int], self.client.nthreads())
            except OSError as error:
                raise InputError(SCHEDULER_LOST) from error
            self.counted, self.counted_at = max(1, sum(threads.values())), time.monotonic()
        return self.counted

    def start(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Start work on one of the workers."""
        if self.client.status != "running":
            raise InputError(SCHEDULER_LOST)
        return self.client.submit(run_on_source, self.name, work, *arguments, pure=False)

    def wait(self) -> set[Any]:
        """Wait until a future is done, as long as jobs are queued; the log says so meanwhile."""
        while True:
            try:
                return cast(
                    Any, wait(self.pending, timeout=NO_WORKER_LOG_INTERVAL_S, return_when="FIRST_COMPLETED")
                ).done
            except TimeoutError:
                if self.client.status == "running" and not self.client.nthreads():
                    log.info("There is no worker of Dask yet, or none is left; see the queue, and logs/.")


class SourcePlugin(WorkerPlugin):
    """Registers a source on every worker, also on later ones, after a check that the worker can work on it.

    Args:
        name: name of the source.
        source: the source.
        paths: files and folders that a worker must see.
    """

    def __init__(self, name: str, source: Source, paths: list[str]) -> None:
        self.name = name
        self.source = pickle.dumps(source)
        self.paths = paths
        self.versions = versions()

    def setup(self, worker: Any) -> None:
        """Check a worker, and register the source, or why not; an exception would spoil the worker for others too."""
        host = socket.gethostname()
        unseen = next((path for path in self.paths if not os.path.exists(path)), None)
        here = versions()
        other = next((package for package in SAME_VERSIONS if here[package] != self.versions[package]), None)
        if unseen is not None:
            problem = f"{unseen} is not there for a worker on {host}; put it where all see it."
        elif other is not None:
            difference = f"{other} {here[other]}, not {self.versions[other]} as here"
            problem = f"A worker on {host} has {difference}; start it in the same environment."
        else:
            try:
                source = pickle.loads(self.source)  # noqa: S301 - it came with this object
                register_source(self.name, source)
                return
            except Exception as error:  # another environment may lack anything
                problem = f"A worker on {host} cannot do this work ({error!r}); start it in the same environment."
        register_source(self.name, InputError(problem))

    def teardown(self, worker: Any) -> None:
        """Unregister the source."""
        unregister_source(self.name)


def versions() -> dict[str, str]:
    """Look up the versions of SAME_VERSIONS here."""
    found: dict[str, str] = dict.fromkeys(SAME_VERSIONS, "missing")
    for package in SAME_VERSIONS:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _cluster(config: ConvertConfig, folder: Path) -> AbstractContextManager[Any]:
    """Start a cluster whose processes authenticate each other by TLS, or give the address of one that runs already."""
    if config.dask_scheduler is not None:
        return nullcontext(config.dask_scheduler)
    if config.engine is not Engine.dask:
        return _jobs(config, folder)
    n_workers = config.workers or available_cores()
    # SIGINT is for this process only: its children inherit the mask. Starting the tracker later would unblock it.
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            dashboard_address=DASHBOARD_ADDRESS,
            protocol="tls://",
            security=True,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _client(config: ConvertConfig, cluster: Any) -> Client:
    """Connect to a cluster; InputError if it does not answer."""
    try:
        return Client(cluster, timeout=CONNECT_TIMEOUT_S)
    except (OSError, ValueError, TypeError) as error:  # TypeError: tls:// without keys in Dask's configuration
        raise InputError(f"dask_scheduler={config.dask_scheduler}: {error}; see whether it runs there.") from error


@contextmanager
def _jobs(config: ConvertConfig, folder: Path) -> Iterator[SpecCluster]:
    """Submit jobs of one process each; those that end too early are submitted again.

    A job has one process only, because dask-jobqueue 0.9.0 does not notice the end of jobs with several.
    """
    from dask_jobqueue.sge import SGECluster
    from dask_jobqueue.slurm import SLURMCluster

    name = config.engine.name
    kind = {"slurm": SLURMCluster, "sge": SGECluster}[name]
    try_out = {"slurm": ["sbatch", "--test-only"], "sge": ["qsub", "-w", "v"]}[name]
    if shutil.which(try_out[0]) is None:
        raise InputError(f"engine={name} needs {try_out[0]}, which is not found here; start where jobs are submitted.")
    if (spaced := next((str(path) for path in (ROOT, folder) if len(str(path).split()) > 1), None)) is not None:
        raise InputError(f"engine={name}: {spaced} has a space, which breaks the jobs of Dask; choose another.")

    def setting(key: str) -> Any:
        return dask.config.get(f"jobqueue.{name}.{key}")

    prepare = f"export TOKENIZERS_PARALLELISM=false PYTHONPATH={shlex.quote(str(ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}"
    with TemporaryDirectory(prefix=".dask-", dir=folder) as private:
        keys = Security.temporary()
        for key in TLS_KEYS:
            Path(private, key).write_text(getattr(keys, key))
        cluster = kind(
            job_name=f"convert-{Path(config.out).name}",
            cores=1,
            processes=1,
            memory=setting("memory") or JOB_MEMORY,
            job_script_prologue=[*(setting("job-script-prologue") or []), prepare],
            worker_extra_args=[*(setting("worker-extra-args") or []), "--no-dashboard"],
            scheduler_options={"dashboard_address": DASHBOARD_ADDRESS, **(setting("scheduler-options") or {})},
            log_directory=setting("log-directory") or "logs",
            security=Security(require_encryption=True, **{key: str(Path(private, key)) for key in TLS_KEYS}),
        )
        with cluster:
            answer = subprocess.run(try_out, input=cluster.job_script(), capture_output=True, text=True, check=False)
            if answer.returncode:  # Dask itself would retry forever
                said = " ".join((answer.stderr + answer.stdout).split())
                raise InputError(f"engine={name}: no such job can be submitted ({said}); see docs/clusters.md.")
            cluster.scale(jobs=config.workers)
            cluster.adapt(minimum_jobs=config.workers, maximum_jobs=config.workers, interval=RESUBMIT_INTERVAL_S)
            log.info("engine=%s: %d jobs are submitted, and work begins with the first.", name, config.workers)
            yield cluster
