"""Files and folders that scripts write: whole or not at all, and never over something else.

Each is made beside its place under a hidden name and renamed when it is complete.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from config import InputError


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file, text as UTF-8, so that no reader ever sees half of it."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(partial, path)


def local_path(key: str, path: str) -> Path:
    """Give a path as absolute; InputError for an address such as s3://, which would become a folder of that name."""
    if "://" in path:
        raise InputError(f"{key}={path} is not on this machine; give a local path, and copy the result to the remote.")
    return Path(os.path.abspath(os.path.expanduser(path)))


def is_free(out: Path) -> bool:
    """Whether a folder can be made at this place: nothing is there, or an empty folder."""
    return not out.exists() or (out.is_dir() and not any(out.iterdir()))


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give a hidden folder beside `out` to write into; rename it to `out` at the end, remove it on any error.

    What a killed process left of an earlier attempt is removed first.
    """
    partial = out.parent / f".{out.name}.partial"
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
        if out.exists():
            out.rmdir()  # only if it is empty
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
