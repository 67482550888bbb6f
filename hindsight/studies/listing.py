"""The runs that are listed: found below a folder, filtered and sorted, and looked at again and again."""

import fnmatch
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hindsight import output, runs
from hindsight.config.listing import ListConfig, State
from hindsight.errors import InputError
from hindsight.studies.run_list import RunRow, describe_run, table_of_rows
from hindsight.studies.run_state import is_empty

SIGNS = (runs.CONFIG, runs.METADATA, runs.METRICS, runs.NEWEST_CHECKPOINT, runs.FINISHED, runs.LOCK)
"""Files of which a run's folder has two at least, however damaged it is; other folders are no runs."""


def find_runs(runs_dir: Path) -> Iterator[tuple[Path, str]]:
    """Find the runs in a folder, and in the folders in it, but for hidden ones: (folder, name), sorted by name.

    The folder may itself be that of a run. What is no run is skipped.

    Raises:
        InputError: there is no such folder.
    """
    if not runs_dir.is_dir():
        raise InputError(f"runs_dir={runs_dir} is no folder; give the runs_dir= of train_composer.py.")
    if is_run(runs_dir):
        yield runs_dir, runs_dir.resolve().name
        return
    for folder in _folders(runs_dir):
        if is_run(folder):
            yield folder, folder.name
        else:
            yield from ((below, f"{folder.name}/{below.name}") for below in _folders(folder) if is_run(below))


def is_run(folder: Path) -> bool:
    """Tell whether a folder is that of a run, whole or damaged; a folder that may not be read is none."""
    try:
        with os.scandir(folder) as entries:
            names = {entry.name for entry in entries}
    except OSError:
        return False
    signs = names & set(SIGNS)
    return len(signs) > 1 or (runs.LOCK in signs and is_empty(names))


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    except OSError:  # it may not be read, or is gone
        return []
    return [folder / name for name in sorted(names, key=natural)]


def list_runs(config: ListConfig) -> list[RunRow]:
    """Describe the runs that are asked for, sorted; InputError if there is no such folder."""
    found = find_runs(Path(config.runs_dir).expanduser())
    pattern = config.name
    rows = [describe_run(path, name) for path, name in found if pattern is None or fnmatch.fnmatch(name, pattern)]
    return sorted_rows([row for row in rows if config.state in (None, row.state)], config.sort)


def natural(text: str) -> list[tuple[int, int, str]]:
    """Key that sorts numbers in names as numbers: seed9 before seed10."""
    parts = re.findall(r"[0-9]+|[^0-9]+", text)
    return [(0, int(part), "") if part.isdecimal() and len(part) < 100 else (1, 0, part) for part in parts]


def _share(row: RunRow) -> float | None:
    return row.step / row.total_steps if row.step is not None and row.total_steps else None


VALUES: dict[str, Callable[[RunRow], Any]] = {
    "run": lambda row: natural(row.name),
    "state": lambda row: list(State).index(row.state),
    "model": lambda row: natural(row.model) if row.model is not None else None,
    "data": lambda row: natural(row.data) if row.data is not None else None,
    "order": lambda row: row.order,
    "seed": lambda row: row.seed,
    "step": _share,
    "train": lambda row: row.train_loss_nats,
    "loss": lambda row: row.val_loss_nats,
    "size": lambda row: row.size_bytes,
    "age": lambda row: row.age_s,
}
"""What a column is sorted by."""


def sorted_rows(rows: Sequence[RunRow], by: str) -> list[RunRow]:
    """Sort rows by a column, with - in front from the largest down; rows without a value come last in either case."""
    value, is_down = VALUES[by.removeprefix("-")], by.startswith("-")
    named = sorted(rows, key=VALUES["run"])
    is_known = [(found := value(row)) is not None and found == found for row in named]  # NaN is not equal to itself
    known = [row for row, is_there in zip(named, is_known, strict=True) if is_there]
    unknown = [row for row, is_there in zip(named, is_known, strict=True) if not is_there]
    return sorted(known, key=value, reverse=is_down) + unknown


def show(config: ListConfig) -> None:
    """Print the runs that are asked for, as a table or as JSON; again and again with watch=, until Ctrl-C."""
    if config.watch is None:
        rows = list_runs(config)
        output.say(as_json(rows, indent=2) if config.json else table_of_rows(rows, _columns()))
        return
    try:
        _watch(config, config.watch)
    except KeyboardInterrupt:
        output.say("")


def as_json(rows: Sequence[RunRow], indent: int | None) -> str:
    """Write rows as a list of JSON objects."""
    return json.dumps([row.as_json() for row in rows], indent=indent)


def _columns() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _watch(config: ListConfig, interval_s: float) -> None:
    """Show the runs every so many seconds: in a terminal in one place, in a log as table after table, JSON by line."""
    lines_above, size_before = 0, None
    while True:
        rows = list_runs(config)
        if config.json:
            output.say(as_json(rows, indent=None))
        elif not sys.stdout.isatty():
            output.say(f"{time.strftime('%Y-%m-%d %H:%M:%S')}\n{table_of_rows(rows)}\n")
        else:
            terminal = shutil.get_terminal_size()
            is_same = terminal == size_before  # else its lines may have been wrapped anew, and stand elsewhere
            table = table_of_rows(rows, terminal.columns, terminal.lines - 1)
            output.redraw(table, lines_above if is_same else 0)
            lines_above, size_before = table.count("\n") + 1, terminal
        time.sleep(interval_s)
