"""Workers of Dask: on this machine, in jobs of Slurm or Grid Engine, or those of a scheduler that runs already.

A piece of work is a part of the corpus: it puts the part's tokens into the work folder, whole or not at all, and does
the same when it is done twice. Dask gives the work of a worker that is lost to another.
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
from hindsight.conversion.workers import WORKER_LOST, Workers, available_cores, forget, know, work_on
from hindsight.errors import InputError

log = logging.getLogger("hindsight")

ROOT = Path(__file__).resolve().parents[2]
SAME_VERSIONS: tuple[str, ...] = ("tokenizers", "tiktoken", "numpy")
"""Packages that the ids of a text depend on."""
LOST = "The scheduler of Dask was lost; see what ended it, and start again."
CONNECT_S = 10
"""How long a scheduler may take to answer."""
COUNT_S = 1.0
"""How long the number of workers is not asked for again."""
TELL_S = 60
"""How often it is told that there are no workers."""
RENEW_S = 30
"""How often jobs that have ended are submitted again."""
MEMORY = "2GB"
"""Of a job, unless Dask's configuration says something else."""
HERE = "127.0.0.1:0"
"""Dask's pages, which need no password, are for this machine alone; any port."""
ROLES = ("scheduler", "worker", "client")
KEYS = ("tls_ca_file", *(f"tls_{role}_cert" for role in ROLES), *(f"tls_{role}_key" for role in ROLES))


@contextmanager
def on_dask(source: Source, config: ConvertConfig, work: Path) -> Iterator[Workers]:
    """Open workers of Dask, and close what was opened here.

    Args:
        source: what they work on.
        config: engine, workers and dask_scheduler.
        work: folder for the tokens of parts, which all must see.

    Raises:
        InputError: they cannot be had, do not see the files, or are lost again and again.
    """
    logging.getLogger("distributed").setLevel(logging.ERROR)  # it tells of every connection
    name = f"hindsight-{uuid4().hex}"
    folder = work if work.is_dir() else work.parent  # nothing is written where the result is there and only compared
    with _cluster(config, folder) as cluster, _client(config, cluster) as client:
        try:
            for run in (client.run_on_scheduler, client.run):
                run(exec, f"import {__name__}")  # what comes from here names its parts
        except ImportError as error:
            raise InputError(
                f"dask_scheduler={config.dask_scheduler}: it or a worker lacks this project ({error}); start them with "
                f"PYTHONPATH={ROOT}."
            ) from error
        client.register_plugin(Knows(name, source, [str(folder), *source.paths()]))
        try:
            yield DaskWorkers(source, name, client)
        except KilledWorker as error:
            raise InputError(WORKER_LOST) from error
        except (CancelledError, CommClosedError) as error:
            raise InputError(LOST) from error
        finally:
            if config.dask_scheduler is not None and client.status == "running":
                with suppress(KeyError, OSError, ValueError):  # workers that have not, or no longer, known it
                    client.unregister_worker_plugin(name)


class DaskWorkers(Workers):
    """Workers of Dask, of which some may come later and go earlier."""

    def __init__(self, source: Source, name: str, client: Client) -> None:
        super().__init__(source, name)
        self.client = client
        self.counted, self.counted_at = 1, -COUNT_S

    def count(self) -> int:
        """How many threads they have, at least 1; the scheduler is asked now and then."""
        if self.client.status == "running" and time.monotonic() - self.counted_at > COUNT_S:
            try:
                threads = cast(dict[str, int], self.client.nthreads())
            except OSError as error:
                raise InputError(LOST) from error
            self.counted, self.counted_at = max(1, sum(threads.values())), time.monotonic()
        return self.counted

    def begin(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Begin work on one of them."""
        if self.client.status != "running":
            raise InputError(LOST)
        return self.client.submit(work_on, self.name, work, *arguments, pure=False)

    def wait(self) -> set[Any]:
        """Wait, as long as it takes jobs to begin, but not in silence."""
        while True:
            try:
                return cast(Any, wait(self.pending, timeout=TELL_S, return_when="FIRST_COMPLETED")).done
            except TimeoutError:
                if self.client.status == "running" and not self.client.nthreads():
                    log.info("There is no worker of Dask yet, or none is left; see the queue, and logs/.")


class Knows(WorkerPlugin):
    """Lets every worker, also one that comes later, know the source, once it has seen that it can work on it.

    Args:
        name: the source's.
        source: what to work on.
        paths: files and folders that it must see.
    """

    def __init__(self, name: str, source: Source, paths: list[str]) -> None:
        self.name = name
        self.source = pickle.dumps(source)
        self.paths = paths
        self.versions = versions()

    def setup(self, worker: Any) -> None:
        """Check a worker; it must not fail here, or it would be of no use to others."""
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
                know(self.name, pickle.loads(self.source))  # noqa: S301 - from whom this object was unpickled, too
                return
            except Exception as error:  # whatever another environment lacks
                problem = f"A worker on {host} cannot do this work ({error!r}); start it in the same environment."
        know(self.name, InputError(problem))

    def teardown(self, worker: Any) -> None:
        """Forget the source."""
        forget(self.name)


def versions() -> dict[str, str]:
    """Versions of the packages on which ids depend."""
    found: dict[str, str] = dict.fromkeys(SAME_VERSIONS, "missing")
    for package in SAME_VERSIONS:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


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
            n_workers=n_workers, threads_per_worker=1, dashboard_address=HERE, protocol="tls://", security=True
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _client(config: ConvertConfig, cluster: Any) -> Client:
    """Connect."""
    try:
        return Client(cluster, timeout=CONNECT_S)
    except (OSError, ValueError, TypeError) as error:  # TypeError: tls:// without keys in Dask's configuration
        raise InputError(f"dask_scheduler={config.dask_scheduler}: {error}; see whether it runs there.") from error


@contextmanager
def _jobs(config: ConvertConfig, folder: Path) -> Iterator[SpecCluster]:
    """Submit jobs of one process each; those that end too early are submitted again.

    That works with one process a job only: of others, dask-jobqueue 0.9.0 does not notice the end.
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
        for key in KEYS:
            Path(private, key).write_text(getattr(keys, key))
        cluster = kind(
            job_name=f"convert-{Path(config.out).name}",
            cores=1,
            processes=1,
            memory=setting("memory") or MEMORY,
            job_script_prologue=[*(setting("job-script-prologue") or []), prepare],
            worker_extra_args=[*(setting("worker-extra-args") or []), "--no-dashboard"],
            scheduler_options={"dashboard_address": HERE, **(setting("scheduler-options") or {})},
            log_directory=setting("log-directory") or "logs",
            security=Security(require_encryption=True, **{key: str(Path(private, key)) for key in KEYS}),
        )
        with cluster:
            answer = subprocess.run(try_out, input=cluster.job_script(), capture_output=True, text=True, check=False)
            if answer.returncode:  # Dask itself would try again for ever
                said = " ".join((answer.stderr + answer.stdout).split())
                raise InputError(f"engine={name}: no such job can be submitted ({said}); see docs/clusters.md.")
            cluster.scale(jobs=config.workers)
            cluster.adapt(minimum_jobs=config.workers, maximum_jobs=config.workers, interval=RENEW_S)
            log.info("engine=%s: %d jobs are submitted, and work begins with the first.", name, config.workers)
            yield cluster
