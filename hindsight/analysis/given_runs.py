"""Which folders runs= means: those of runs, folders of such, and patterns such as runs/*."""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from hindsight import runs
from hindsight.errors import InputError

MAX_DEPTH = 4
"""How far below a folder runs are looked for."""


def find_runs(given: Sequence[str]) -> list[Path]:
    """Find the folders of the runs that are meant, each once, in sorted order below each that was given.

    Raises:
        InputError: a folder or pattern names no run.
    """
    found: dict[Path, Path] = {}
    for text in given:
        name = os.path.expanduser(text)
        places = [name] if os.path.lexists(name) else sorted(glob.glob(name))
        if not places:
            raise InputError(f"runs: {text} does not exist; name folders such as runs/<run_name>, or 'runs=runs/*'.")
        below = [folder for place in places for folder in _runs_below(Path(place))]
        if not below:
            raise InputError(
                f"runs: {text} is no run and holds none: no folder in it has {' and '.join(runs.RECORDS)}."
            )
        for folder in below:
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def _runs_below(folder: Path, depth: int = MAX_DEPTH) -> Iterator[Path]:
    """Give a folder that has any record of a run; else those below it that have all."""
    if any((folder / name).exists() for name in (*runs.RECORDS, runs.METRICS)):
        is_given = depth == MAX_DEPTH
        if is_given or all((folder / name).exists() for name in runs.RECORDS):
            yield folder
    elif depth > 0 and folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.is_dir() and not path.name.startswith("."):
                yield from _runs_below(path, depth - 1)
