"""Processes that make the tokens of parts, and the loop that hands parts to them and takes the results in order."""

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
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from config import InputError
from conversion.assembly import Assembly
from conversion.sources import Source
from corpus.digest import Digest

PARTS_A_WORKER = 2
"""Parts that are handed out at a time for each process: one to work on, one to go on with."""
SAVE_INTERVAL_S = 1.0
"""Least time between two saves of the state, in seconds: what is lost with it is only put together again."""

_source: Source | None = None  # what the forked processes work on


def run(source: Source, assembly: Assembly, n_workers: int) -> None:
    """Bring all parts of a source into an assembly, those that are missing.

    Raises:
        InputError: what was taken before is not of this corpus, or some text cannot be used.
    """
    with _bar(source, source.doing) as bar, Workers(source, n_workers if source.costly else 1) as workers:
        saved = time.monotonic()
        rate = Rate(bar)
        number = -1
        for number, part in enumerate(source.parts()):
            if number < assembly.taken:
                signature, digest = assembly.logged(number)
                if signature != part.signature:
                    workers.submit(_verify, part, digest)
                _skip(bar, part.stored_bytes)
            elif assembly.waits(number, part.signature):
                _skip(bar, part.stored_bytes)
            elif source.costly:
                workers.submit(_make, part, assembly.part_path(number))
            else:
                assembly.put(number, tokens := source.read(part))
                rate.add(part.stored_bytes, 0, len(tokens.tokens))
            for result in workers.results(PARTS_A_WORKER * n_workers):
                rate.add(*result)
            if assembly.take(number + 1) and time.monotonic() - saved > SAVE_INTERVAL_S:
                assembly.save()
                saved = time.monotonic()
        for result in workers.results(1):
            rate.add(*result)
        if number + 1 < assembly.taken:
            raise _other_corpus()
        assembly.take(number + 1)
        assembly.settle(source.where)
        assembly.take(number + 1)
        assembly.save()
        assert assembly.taken == number + 1


def available_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fingerprint_of(source: Source, n_workers: int) -> Digest:
    """Read all of a source, without making tokens."""
    digests: dict[int, Digest] = {}
    with _bar(source, "reading") as bar, Workers(source, n_workers) as workers:
        for number, part in enumerate(source.parts()):
            workers.submit(_digest, number, part)
            for done, digest in workers.results(PARTS_A_WORKER * n_workers):
                digests[done] = digest
            bar.update(part.stored_bytes)
        digests |= dict(workers.results(1))
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


class Workers:
    """Forked processes that work on a source; with one worker, this process.

    Args:
        source: what they inherit.
        n_workers: how many.
    """

    def __init__(self, source: Source, n_workers: int) -> None:
        self.n_workers = n_workers
        self.pending: set[Future[Any]] = set()
        self.done: list[Any] = []
        self.pool: ProcessPoolExecutor | None = None
        global _source
        _source = source

    def __enter__(self) -> "Workers":
        """Start the processes at once, before this one has threads of its own."""
        if self.n_workers > 1:
            context = multiprocessing.get_context("fork")
            self.pool = ProcessPoolExecutor(self.n_workers, context, _begin_worker)
            with warnings.catch_warnings():  # Python 3.12 warns of any thread, such as numpy's, which sleep
                warnings.simplefilter("ignore", DeprecationWarning)
                self.pool.submit(os.getpid).result()
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        """End the processes; after an error too, they finish the part that each is at."""
        global _source
        _source = None
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def submit(self, work: Callable[..., Any], *arguments: Any) -> None:
        """Hand out work."""
        if self.pool is None:
            self.done.append(work(*arguments))
            return
        with _worker_errors():
            self.pending.add(self.pool.submit(work, *arguments))

    def results(self, limit: int) -> Iterator[Any]:
        """Yield what is done, until less than `limit` is left."""
        yield from self.done
        self.done = []
        finished = {future for future in self.pending if future.done()}
        while True:
            self.pending -= finished
            for future in finished:
                with _worker_errors():
                    result = future.result()
                yield result
            if len(self.pending) < limit:
                return
            finished = wait(self.pending, return_when=FIRST_COMPLETED).done


@contextmanager
def _worker_errors() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise InputError(
            "A worker was ended from outside, perhaps because memory ran out; try fewer workers=, or a smaller "
            "max_document_bytes=."
        ) from error


def _begin_worker() -> None:
    """Leave Ctrl-C to the parent, and end when it does, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _make(part: Any, path: Path) -> tuple[int, int, int]:
    assert _source is not None
    tokens = _source.read(part)
    tokens.save(path)
    return part.stored_bytes, int(tokens.bytes.sum()), len(tokens.tokens)


def _verify(part: Any, digest: Digest) -> tuple[int, int, int]:
    assert _source is not None
    if _source.digest(part) != digest:
        raise _other_corpus()
    return 0, 0, 0


def _digest(number: int, part: Any) -> tuple[int, Digest]:
    assert _source is not None
    return number, _source.digest(part)


def _other_corpus() -> InputError:
    return InputError(
        "corpus= is not, or no longer, the one with which this conversion began; start again with that one, or choose "
        "another out."
    )
