"""Processes that take turns: what is measured in one has the memory, the threads and the compiled code for itself."""

from collections.abc import Callable
from multiprocessing import get_context
from typing import Any


class Worker:
    """A process that computes when it is asked, and waits in between; close() ends it.

    Args:
        name: what it measures.
        serve: what runs in it: it answers what comes through a pipe, its last argument, until EOFError.
        arguments: those before the pipe.
    """

    def __init__(self, name: str, serve: Callable[..., None], *arguments: object) -> None:
        self.name = name
        context = get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=serve, args=(*arguments, other))
        self.process.start()
        other.close()

    def ask(self, request: object = None) -> Any:
        """Send a request to the process, and wait for its answer; RuntimeError if it fails."""
        try:
            self.pipe.send(request)
            return self.pipe.recv()
        except (EOFError, ConnectionError):
            raise RuntimeError(f"The {self.name} failed; its own error stands above.") from None

    def close(self) -> None:
        """Close the pipe, at which the process ends, and wait for it."""
        self.pipe.close()
        self.process.join()
