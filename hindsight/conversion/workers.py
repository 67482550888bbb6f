"""What makes the tokens of parts, and the loop that hands parts out and takes the results in order.

`forked` opens processes of this machine; cluster.py opens those of Dask.
"""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hindsight.conversion.assembly import Assembly
from hindsight.conversion.source import Source
from hindsight.errors import InputError
from hindsight.text.digest import Digest

PARTS_A_WORKER = 2
"""Parts that are handed out at a time for each process: one to work on, one to go on with."""
WORKER_LOST = (
    "A worker was ended from outside, perhaps because memory ran out; try fewer workers=, or a smaller "
    "max_document_bytes=."
)
SAVE_INTERVAL_S = 1.0
"""Least time between two saves of the state, in seconds: what is lost with it is only put together again."""

FORKED = "forked"
_sources: dict[str, Source | InputError] = {}  # what a process of a pool works on, or why it cannot


class Workers:
    """Work on a source, here and at once; other kinds hand it to other processes.

    Args:
        source: what the work is on; other processes know it by `name`.
        name: its name there.
    """

    def __init__(self, source: Source, name: str = "") -> None:
        self.source = source
        self.name = name
        self.pending: set[Any] = set()

    def count(self) -> int:
        """How many pieces of work run at once."""
        return 1

    def begin(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Begin work(source, *arguments); its future."""
        done: Future[Any] = Future()
        done.set_result(work(self.source, *arguments))
        return done

    def wait(self) -> set[Any]:
        """Give the futures that are done, at least one."""
        return wait(self.pending, return_when=FIRST_COMPLETED).done

    def submit(self, work: Callable[..., Any], *arguments: Any) -> None:
        """Hand out work(source, *arguments)."""
        self.pending.add(self.begin(work, *arguments))

    def results(self, ahead: int) -> Iterator[Any]:
        """Yield what is done, until less than `ahead` pieces of work are left for each; for 0, until all is done."""
        finished = {future for future in self.pending if future.done()}
        while True:
            self.pending -= finished
            for future in finished:
                yield future.result()
            if not self.pending or len(self.pending) < ahead * self.count():
                return
            finished = self.wait()


class Forked(Workers):
    """Processes of this machine that inherited the source."""

    def __init__(self, source: Source, n_workers: int, pool: ProcessPoolExecutor) -> None:
        super().__init__(source, FORKED)
        self.n_workers = n_workers
        self.pool = pool

    def count(self) -> int:
        """How many processes there are."""
        return self.n_workers

    def begin(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Begin work in a process."""
        return self.pool.submit(work_on, self.name, work, *arguments)


OpenWorkers = Callable[[Source], AbstractContextManager[Workers]]


def run(source: Source, assembly: Assembly, open_workers: OpenWorkers) -> None:
    """Bring all parts of a source into an assembly, those that are missing.

    Raises:
        InputError: what was taken before is not of this corpus, or some text cannot be used.
    """
    with _bar(source, source.doing) as bar, (open_workers if source.costly else here)(source) as workers:
        saved = time.monotonic()
        rate = Rate(bar)
        number = -1
        for number, part in enumerate(source.parts()):
            if number < assembly.taken:
                signature, digest = assembly.files.logged(number)
                if signature != part.signature:
                    workers.submit(_verify, part, digest)
                _skip(bar, part.stored_bytes)
            elif assembly.waits(number, part.signature):
                _skip(bar, part.stored_bytes)
            elif source.costly:
                workers.submit(_make, part, assembly.files.part_path(number))
            else:
                assembly.put(number, tokens := source.read(part))
                rate.add(part.stored_bytes, 0, len(tokens.tokens))
            for result in workers.results(PARTS_A_WORKER):
                rate.add(*result)
            if assembly.take(number + 1) and time.monotonic() - saved > SAVE_INTERVAL_S:
                assembly.save()
                saved = time.monotonic()
        for result in workers.results(0):
            rate.add(*result)
        if number + 1 < assembly.taken:
            raise _other_corpus()
        assembly.wait_for_files(number + 1)
        assembly.take(number + 1)
        assembly.settle(source.where)
        assembly.take(number + 1)
        assembly.save()
        assert assembly.taken == number + 1


def available_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fingerprint_of(source: Source, open_workers: OpenWorkers) -> Digest:
    """Read all of a source, without making tokens."""
    digests: dict[int, Digest] = {}
    with _bar(source, "reading") as bar, open_workers(source) as workers:
        for number, part in enumerate(source.parts()):
            workers.submit(_digest, number, part)
            for done, digest in workers.results(PARTS_A_WORKER):
                digests[done] = digest
            bar.update(part.stored_bytes)
        digests |= dict(workers.results(0))
    total = Digest()
    for _, digest in sorted(digests.items()):
        total = total.then(digest)
    return total


def _skip(bar: "tqdm[Any]", n: int) -> None:
    """Count what was done before, without taking it for speed."""
    if not bar.disable:
        bar.initial += n
        bar.update(n)


class Rate:
    """Shows how fast text and tokens come, beside the bar."""

    def __init__(self, bar: "tqdm[Any]") -> None:
        self.bar = bar
        self.begin = time.monotonic()
        self.n_bytes = self.n_tokens = 0

    def add(self, stored_bytes: int, n_bytes: int, n_tokens: int) -> None:
        """Count what is done."""
        self.n_bytes += n_bytes
        self.n_tokens += n_tokens
        seconds = max(time.monotonic() - self.begin, 1e-3)
        self.bar.set_postfix_str(
            f"{self.n_bytes / 1e6 / seconds:.1f} MB/s text, {self.n_tokens / 1e6 / seconds:.2f}M tokens/s",
            refresh=False,
        )
        self.bar.update(stored_bytes)


@contextmanager
def _bar(source: Source, doing: str) -> Iterator["tqdm[Any]"]:
    with tqdm(total=source.total, desc=doing, unit=source.unit, unit_scale=True, disable=None) as bar:
        yield bar


@contextmanager
def here(source: Source) -> Iterator[Workers]:
    """Work in this process."""
    yield Workers(source)


@contextmanager
def forked(source: Source, n_workers: int) -> Iterator[Workers]:
    """Open processes that inherit the source; at once, before this one has threads of its own.

    After an error they finish the part that each is at.
    """
    know(FORKED, source)
    pool = ProcessPoolExecutor(n_workers, multiprocessing.get_context("fork"), _begin_worker)
    try:
        with warnings.catch_warnings():  # Python 3.12 warns of any thread, such as numpy's, which sleep
            warnings.simplefilter("ignore", DeprecationWarning)
            pool.submit(os.getpid).result()
        yield Forked(source, n_workers, pool)
    except BrokenProcessPool as error:
        raise InputError(WORKER_LOST) from error
    finally:
        forget(FORKED)
        pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    """Leave Ctrl-C to the parent, and end when it does, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def know(name: str, source: Source | InputError) -> None:
    """Tell this process what a name stands for, or why it cannot work on that."""
    _sources[name] = source


def forget(name: str) -> None:
    """End what `know` began."""
    _sources.pop(name, None)


def work_on(name: str, work: Callable[..., Any], *arguments: Any) -> Any:
    """Do work(source, *arguments) in a process that knows the source."""
    source = _sources[name]
    if isinstance(source, InputError):
        raise source
    return work(source, *arguments)


def _make(source: Source, part: Any, path: Path) -> tuple[int, int, int]:
    tokens = source.read(part)
    tokens.save(path)
    return part.stored_bytes, int(tokens.bytes.sum()), len(tokens.tokens)


def _verify(source: Source, part: Any, digest: Digest) -> tuple[int, int, int]:
    if source.digest(part) != digest:
        raise _other_corpus()
    return 0, 0, 0


def _digest(source: Source, number: int, part: Any) -> tuple[int, Digest]:
    return number, source.digest(part)


def _other_corpus() -> InputError:
    return InputError(
        "corpus= is not, or no longer, the one with which this conversion began; start again with that one, or choose "
        "another out."
    )
