"""The workers that make the tokens of parts, and the loop that gives them parts and assembles what they made.

`forked` opens processes of this machine; dask_workers.py opens those of Dask.
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

PARTS_PER_WORKER = 2
"""Parts that are handed out at a time for each worker: one to work on, and one that is next."""
WORKER_LOST = (
    "A worker was ended from outside, perhaps because memory ran out; try fewer workers=, or a smaller "
    "max_document_bytes=."
)
SAVE_INTERVAL_S = 1.0
"""Least time between two saves of the state: after a kill, parts taken since then are taken again, not made again."""
QUICK_SAVE_S = 0.05
"""Longest save for which that interval is meant: the state names every shard, and one of 16,000 takes a second."""

FORKED = "forked"
_sources: dict[str, Source | InputError] = {}
"""In a worker: the sources by name, or why it cannot work on one."""


class Workers:
    """Workers for a source. This class works in the calling process, at once; its subclasses use other processes.

    Args:
        source: the source.
        name: its name in other processes.
    """

    def __init__(self, source: Source, name: str = "") -> None:
        self.source = source
        self.name = name
        self.pending: set[Any] = set()

    def count(self) -> int:
        """Give the number of workers."""
        return 1

    def start(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Start work(source, *arguments); give its future."""
        done: Future[Any] = Future()
        done.set_result(work(self.source, *arguments))
        return done

    def wait(self) -> set[Any]:
        """Wait until a future is done; give all that are."""
        return wait(self.pending, return_when=FIRST_COMPLETED).done

    def submit(self, work: Callable[..., Any], *arguments: Any) -> None:
        """Start work(source, *arguments), the result of which `results` yields."""
        self.pending.add(self.start(work, *arguments))

    def results(self, ahead: int) -> Iterator[Any]:
        """Yield results until fewer than `ahead` pieces of work per worker are pending; for 0, until none is."""
        finished = {future for future in self.pending if future.done()}
        while True:
            self.pending -= finished
            for future in finished:
                yield future.result()
            if not self.pending or len(self.pending) < ahead * self.count():
                return
            finished = self.wait()


class Forked(Workers):
    """Processes of this machine, which inherited the source by a fork."""

    def __init__(self, source: Source, n_workers: int, pool: ProcessPoolExecutor) -> None:
        super().__init__(source, FORKED)
        self.n_workers = n_workers
        self.pool = pool

    def count(self) -> int:
        """Give the number of processes."""
        return self.n_workers

    def start(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Start work in one of the processes."""
        return self.pool.submit(run_on_source, self.name, work, *arguments)


class SeldomSaves:
    """Saves now and then: each SAVE_INTERVAL_S, or less often where a save takes longer than QUICK_SAVE_S."""

    def __init__(self, save: Callable[[], None]) -> None:
        self._save, self._next_s = save, time.monotonic() + SAVE_INTERVAL_S

    def save_if_due(self) -> None:
        """Save, if the last time was long enough ago."""
        began = time.monotonic()
        if began >= self._next_s:
            self._save()
            ended = time.monotonic()
            self._next_s = ended + SAVE_INTERVAL_S * max(1.0, (ended - began) / QUICK_SAVE_S)


OpenWorkers = Callable[[Source], AbstractContextManager[Workers]]


def run(source: Source, assembly: Assembly, open_workers: OpenWorkers) -> None:
    """Make the parts of a source that an assembly lacks, and have it take all parts in order.

    Raises:
        InputError: parts that were taken before are not of this corpus, or some text cannot be used.
    """
    with _bar(source, source.action) as bar, (open_workers if source.costly else in_this_process)(source) as workers:
        saves = SeldomSaves(assembly.save)
        rate = Rate(bar)
        number = -1
        for number, part in enumerate(source.parts()):
            if number < assembly.taken:
                signature, digest = assembly.files.logged(number)
                if signature != part.signature:
                    workers.submit(_verify, part, digest)
                _skip(bar, part.stored_bytes)
            elif assembly.is_waiting(number, part.signature):
                _skip(bar, part.stored_bytes)
            elif source.costly:
                workers.submit(_make, part, assembly.files.part_path(number))
            else:
                assembly.add(number, tokens := source.read(part))
                rate.add(part.stored_bytes, 0, len(tokens.tokens))
            for result in workers.results(PARTS_PER_WORKER):
                rate.add(*result)
            if assembly.take(number + 1):
                saves.save_if_due()
        for result in workers.results(0):
            rate.add(*result)
        if number + 1 < assembly.taken:
            raise _other_corpus()
        assembly.wait_for_files(number + 1)
        assembly.take(number + 1)
        assembly.settle_split(source.where)
        assembly.take(number + 1)
        assembly.save()
        assert assembly.taken == number + 1


def available_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fingerprint_of(source: Source, open_workers: OpenWorkers) -> Digest:
    """Compute the digest of a source without making tokens."""
    digests: dict[int, Digest] = {}
    with _bar(source, "reading") as bar, open_workers(source) as workers:
        for number, part in enumerate(source.parts()):
            workers.submit(_digest, number, part)
            for done, digest in workers.results(PARTS_PER_WORKER):
                digests[done] = digest
            bar.update(part.stored_bytes)
        digests |= dict(workers.results(0))
    total = Digest()
    for _, digest in sorted(digests.items()):
        total = total.then(digest)
    return total


def _skip(bar: "tqdm[Any]", n: int) -> None:
    """Advance a bar by what was done earlier, which does not count for its speed."""
    if not bar.disable:
        bar.initial += n
        bar.update(n)


class Rate:
    """Advances a bar, and shows text and tokens per second beside it."""

    def __init__(self, bar: "tqdm[Any]") -> None:
        self.bar = bar
        self.started = time.monotonic()
        self.n_bytes = self.n_tokens = 0

    def add(self, stored_bytes: int, n_bytes: int, n_tokens: int) -> None:
        """Add what a worker has done."""
        self.n_bytes += n_bytes
        self.n_tokens += n_tokens
        seconds = max(time.monotonic() - self.started, 1e-3)
        self.bar.set_postfix_str(
            f"{self.n_bytes / 1e6 / seconds:.1f} MB/s text, {self.n_tokens / 1e6 / seconds:.2f}M tokens/s",
            refresh=False,
        )
        self.bar.update(stored_bytes)


@contextmanager
def _bar(source: Source, action: str) -> Iterator["tqdm[Any]"]:
    with tqdm(total=source.total, desc=action, unit=source.unit, unit_scale=True, disable=None) as bar:
        yield bar


@contextmanager
def in_this_process(source: Source) -> Iterator[Workers]:
    """Open no other process: work is done in this one, when it is submitted."""
    yield Workers(source)


@contextmanager
def forked(source: Source, n_workers: int) -> Iterator[Workers]:
    """Open processes that inherit the source, immediately: later, this process may have threads, and forking is unsafe.

    After an error each process finishes its current part.
    """
    register_source(FORKED, source)
    pool = ProcessPoolExecutor(n_workers, multiprocessing.get_context("fork"), _start_worker)
    try:
        with warnings.catch_warnings():  # Python 3.12 warns of any thread, such as numpy's, which are idle
            warnings.simplefilter("ignore", DeprecationWarning)
            pool.submit(os.getpid).result()
        yield Forked(source, n_workers, pool)
    except BrokenProcessPool as error:
        raise InputError(WORKER_LOST) from error
    finally:
        unregister_source(FORKED)
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Ignore SIGINT, which the parent handles, and exit as soon as the parent does, even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def register_source(name: str, source: Source | InputError) -> None:
    """Make a source known in this process by name, or why this process cannot work on it."""
    _sources[name] = source


def unregister_source(name: str) -> None:
    """Forget a source."""
    _sources.pop(name, None)


def run_on_source(name: str, work: Callable[..., Any], *arguments: Any) -> Any:
    """Call work(source, *arguments) in a worker; InputError if it cannot work on the source."""
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
