"""The table that heads a study: what its runs take, in tokens, disk and hours, and whether there is room for them."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hindsight import runs
from hindsight.config.optim import OptimizerName
from hindsight.errors import InputError
from hindsight.planning.parameters import n_by_muon, n_parameters, n_trained
from hindsight.shown_numbers import short, size
from hindsight.studies.known_runs import DONE, MISSING, RunState, state_without_data
from hindsight.studies.planned_runs import PlannedRun
from hindsight.training.disk import LINE_BYTES, added, free_bytes, state_bytes, weights_bytes
from hindsight.training.setup import local_folder

HOUR_S = 3600
COLUMNS = ("task", "run", "tokens", "disk", "hours", "state")


@dataclass(frozen=True)
class Row:
    """What a run takes from where it stands.

    Args:
        run: the run.
        state: how far it is; None where its data is not made yet, and alone tells how long it is.
        tokens: tokens that it has still to make; None where that is not known.
        disk: bytes that it is going to add.
        hours: hours at the speed that was measured; None where none was.
    """

    run: PlannedRun
    state: RunState | None
    tokens: int | None
    disk: int | None
    hours: float | None


def rows_of(planned: Sequence[PlannedRun], states: Sequence[RunState | None], speeds: Mapping[str, float]) -> list[Row]:
    """Say of each run what it takes.

    Args:
        planned: the runs.
        states: how far each is; None where its data is not made yet, and alone tells how long it is.
        speeds: tokens per second, by the run's name.
    """
    rows: list[Row] = []
    for run, state in zip(planned, states, strict=True):
        if state is None:
            rows.append(Row(run, None, None, None, None))
            continue
        is_done = state.state == DONE
        tokens = 0 if is_done else max(state.setup.course.tokens - state.tokens, 0)
        speed = speeds.get(run.name)
        hours = 0.0 if is_done else tokens / speed / HOUR_S if speed else None
        rows.append(Row(run, state, tokens, sum(needed_bytes(state)[:2]), hours))
    return rows


def table_of(rows: Sequence[Row], workers: int) -> str:
    """Write the table; its last line sums it up.

    Args:
        rows: a row for each run.
        workers: runs at once, by which hours are divided.
    """
    cells: list[list[str]] = [[*COLUMNS]]
    for number, row in enumerate(rows):
        state = row.state.state if row.state is not None else state_without_data(row.run.folder)
        if state == MISSING and not row.run.dataset.is_there:
            state = "no data yet"
        if row.run.waits:
            state = "waits for the sweep"
        cells.append([str(number), row.run.name, _tokens(row.tokens), _disk(row.disk), _hours(row.hours), state])
    different = [*{row.run.folder: row for row in rows}.values()]
    tokens, disk = (_sum([getattr(row, name) for row in different]) for name in ("tokens", "disk"))
    hours = _sum([row.hours for row in different])
    together = None if hours is None else hours / workers
    cells.append(["", f"{len(rows)} runs, {workers} at once", _tokens(tokens), _disk(disk), _hours(together), ""])
    widths = [max(len(line[column]) for line in cells) for column in range(len(COLUMNS))]
    left = ("run", "state")
    lines = [
        "  ".join(
            cell.ljust(width) if name in left else cell.rjust(width)
            for name, cell, width in zip(COLUMNS, line, widths, strict=True)
        ).rstrip()
        for line in cells
    ]
    return "\n".join(lines)


def _sum(values: Sequence[float | None]) -> float | None:
    """The sum, if all of them are known."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _tokens(tokens: float | None) -> str:
    return "unknown" if tokens is None else short(tokens)


def _disk(n_bytes: float | None) -> str:
    return "unknown" if n_bytes is None else size(n_bytes)


def _hours(hours: float | None) -> str:
    return "unknown" if hours is None else f"{hours:.2f}"


def needed_bytes(state: RunState) -> tuple[int, int, int]:
    """Bytes that a run adds until its end: checkpoints that stay, other files, and what a save takes in passing.

    As when a run begins (training/disk_check.py), no less than these are needed: tensors are counted, and nothing else.
    """
    if state.state == DONE:
        return 0, 0, 0
    setup = state.setup
    config, n_ids = setup.config, setup.vocab_size
    model, is_muon = config.model, config.optim.name is OptimizerName.muon
    vocab_size = max(model.vocab_size or n_ids, n_ids)
    parameters = n_parameters(model, vocab_size)
    by_muon = n_by_muon(model, vocab_size) if is_muon else 0
    each = state_bytes(parameters, n_trained(model, vocab_size), by_muon)
    place = local_folder(config, setup.folder)
    existing = len([*place.glob("ep*-rank0.pt")]) if place.is_dir() else 0
    most, at_end, backups = added(config, setup.course, min(state.step, setup.course.steps), existing)
    weights = 0 if (setup.folder / runs.WEIGHTS).exists() else weights_bytes(parameters)
    lines = LINE_BYTES * max(setup.course.steps - state.step, 0) // config.log_interval
    return max(at_end + backups, 0) * each, weights + lines, max(most - at_end, 0) * each


def require_room(states: Sequence[RunState], workers: int) -> None:
    """Raise InputError unless the disks have room for all that the runs are going to write.

    Args:
        states: the runs, each folder once.
        workers: runs at once, which save at the same time.
    """
    needed: dict[int, int] = {}
    passing: dict[int, list[int]] = {}
    places: dict[int, Path] = {}
    counts: dict[int, int] = {}
    for state in states:
        stays, others, in_passing = needed_bytes(state)
        if not stays + others:
            continue
        for place, n_bytes in (
            (local_folder(state.setup.config, state.setup.folder), stays),
            (state.setup.folder, others),
        ):
            there = next(each for each in (place.absolute(), *place.absolute().parents) if each.exists())
            device = there.stat().st_dev
            places.setdefault(device, there)
            needed[device] = needed.get(device, 0) + n_bytes
            if n_bytes == stays:
                passing.setdefault(device, []).append(in_passing)
                counts[device] = counts.get(device, 0) + 1
    for device, n_bytes in needed.items():
        at_once = sum(sorted(passing.get(device, []))[-workers:])
        free = free_bytes(places[device], with_reserved=os.geteuid() == 0)
        if free is not None and free < n_bytes + at_once:
            raise InputError(
                f"runs_dir: {places[device]} has {size(free)} free, and the checkpoints of the {counts.get(device, 0)} "
                f"runs that are missing need {size(n_bytes + at_once)}, at least; make room, give another runs_dir=, "
                "or save less (settings: {checkpoint.keep: 1})."
            )
