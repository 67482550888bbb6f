"""Imports that take seconds, without garbage collection, which is a third of the time of Composer's.

What a module defines stays. The collector goes through all of it again and again while thousands of modules are
imported, and finds nothing to free.
"""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import what stands below without garbage collection, and exclude it from later ones."""
    if not gc.isenabled():  # another import further out does it
        yield
        return
    n_modules = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > n_modules:  # else all that is new are objects of a caller, which may be freed
            freeze_imports()
        gc.enable()


def freeze_imports() -> None:
    """Exclude imports from garbage collection, which copies their pages after a fork and takes 0.07 s at exit.

    From triton 3.9 on, nanobind reports at exit everything that is frozen as leaked, in pages. Thawing it, which costs
    a second, avoids that: https://nanobind.readthedocs.io/en/latest/refleaks.html.
    """
    gc.freeze()
    triton = sys.modules.get("triton")
    if triton is not None and tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 9):
        atexit.unregister(gc.unfreeze)
        atexit.register(gc.unfreeze)
