"""Runs as rows of a table: what each is, how far it is, its last losses, its state, its size on disk, its age.

`describe_run` makes the row of a run from its folder, `table_of_rows` the table. Nothing here imports torch, and a
thousand runs take about a second: metrics are read from their end, and weights are not.
"""

import math
import os
import time
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from hindsight import runs
from hindsight.config.listing import COLUMNS, State
from hindsight.errors import InputError
from hindsight.shown_numbers import size
from hindsight.shown_text import one_line, visible
from hindsight.studies.quick_config import shown_config
from hindsight.studies.run_state import (
    Content,
    add_files,
    content_of,
    is_damaged,
    is_empty,
    judge,
    last_number,
    relative,
    tail_of_metrics,
)

KEPT = 10_000
"""Runs whose records are kept while they are watched."""
RIGHT = ("seed", "step", "train", "loss", "size", "age")
"""Columns of numbers, which are aligned to the right."""
DROPPED = ("age", "size", "train", "model", "data", "order", "seed", "loss", "state", "step")
"""Columns that are left out, in this order, where the terminal has no room for all."""
NARROWEST = 12
"""Characters to which names are shortened before a column is left out."""
GAP = "  "


@dataclass
class RunRow:
    """A run, as its folder tells; what it does not tell is None."""

    name: str
    """Name of its folder, from the folder that was listed on."""
    folder: str
    """Its folder."""
    state: State = State.damaged
    """Its state."""
    problem: str | None = None
    """What is damaged, in a line."""
    holder: str | None = None
    """The process that trains it now, such as `process 17 on node3`."""
    model: str | None = None
    """Name of its model."""
    data: str | None = None
    """Its data.path."""
    order: str | None = None
    """The order in which it reads: forward, backward, ..."""
    seed: int | None = None
    """Its seed."""
    step: int | None = None
    """Last optimizer step of which metrics.jsonl tells."""
    total_steps: int | None = None
    """Optimizer steps of the whole run."""
    train_loss_nats: float | None = None
    """Loss of the last step that was logged, nats per token."""
    val_loss_nats: float | None = None
    """Loss of the last evaluation, nats per token."""
    size_bytes: int = 0
    """Bytes of all files in its folder, and of checkpoints that are elsewhere on this machine."""
    age_s: float = 0.0
    """Seconds since the newest of them was written."""

    def as_json(self) -> dict[str, Any]:
        """The row as JSON has it: a loss that is not finite is null."""
        values = asdict(self) | {"state": self.state.name}
        lost = (key for key, value in values.items() if isinstance(value, float) and not math.isfinite(value))
        return values | dict.fromkeys(lost)


def describe_run(folder: Path, name: str | None = None) -> RunRow:
    """Describe the run in a folder; whatever is wrong with it is in `problem`, and raises nothing.

    Args:
        folder: its folder, as `find_runs` of listing.py finds them.
        name: how the table names it; None for the name of the folder.
    """
    row = RunRow(name or folder.name, str(folder))
    try:
        content = content_of(folder)
    except OSError as error:
        row.problem = f"it cannot be read ({error.strerror})"
        return row
    config, metadata, problem = _records(folder, content)
    _add_records(row, config, metadata)
    elsewhere = config.get("checkpoint.folder")
    if isinstance(elsewhere, str) and "://" not in elsewhere and not Path(elsewhere).is_relative_to(folder):
        add_files(content, elsewhere)
    try:
        _add_metrics(row, folder)
    except InputError as error:
        problem = problem or relative(error, folder)
    known = {"total_steps": row.total_steps, "checkpoint.folder": elsewhere} if config and metadata else {}
    judged = judge(folder, content, known, problem, row.step)
    row.state, row.problem, row.holder = judged.state, judged.problem, judged.holder
    row.size_bytes, row.age_s = content.size_bytes, max(time.time() - content.last_write_s, 0.0)
    return row


def _records(folder: Path, content: Content) -> tuple[dict[str, Any], dict[str, Any], str | None]:
    """Read config and metadata of a run, each empty if it cannot be read; and what is wrong with them."""
    found: list[dict[str, Any]] = []
    problem = None
    for name, read in ((runs.CONFIG, _config), (runs.METADATA, _metadata)):
        values: dict[str, Any] = {}
        try:
            if name in content.names:
                stamp = os.stat(folder / name)
                values = read(folder, stamp.st_mtime_ns, stamp.st_size)
            elif not is_empty(content.names):
                problem = problem or f"{name} is missing"
        except InputError as error:
            problem = problem or relative(error, folder)
        except OSError as error:
            problem = problem or f"{name} cannot be read ({error.strerror})"
        found.append(values)
    return found[0], found[1], problem


@lru_cache(KEPT)
def _config(folder: Path, written: int, n_bytes: int) -> dict[str, Any]:
    """Read config.yaml, of which what it holds stays known until it is written again."""
    return shown_config(folder)


@lru_cache(KEPT)
def _metadata(folder: Path, written: int, n_bytes: int) -> dict[str, Any]:
    values = runs.read_metadata(folder)
    return {"total_steps": values.get("total_steps")}


def _add_records(row: RunRow, config: dict[str, Any], metadata: dict[str, Any]) -> None:
    texts = {"model": "model.name", "data": "data.path"}
    for name, key in texts.items():
        setattr(row, name, str(config[key]) if config.get(key) is not None else None)
    order = config.get("order") or config.get("direction")
    row.order = str(order) if order is not None else None
    seed, total = config.get("seed"), metadata.get("total_steps")
    row.seed = seed if type(seed) is int else None
    row.total_steps = total if type(total) is int and total >= 0 else None
    row.step = 0 if config else None


def _add_metrics(row: RunRow, folder: Path) -> None:
    """Add the last step and losses; InputError if metrics cannot be read, or their last line."""
    path, tail = folder / runs.METRICS, tail_of_metrics(folder)
    if not tail:
        return
    step = last_number(tail, path, "step")
    row.step = step if isinstance(step, int) and step >= 0 else row.step
    row.train_loss_nats = last_number(tail, path, runs.TRAIN_LOSS)
    row.val_loss_nats = last_number(tail, path, runs.EVAL_LOSS)
    if is_damaged(tail):
        raise InputError(f"the last line of {path.name} cannot be read")


def table_of_rows(rows: Sequence[RunRow], columns: int | None = None, lines: int | None = None) -> str:
    """Write rows as a table, with the number of runs in each state, and what is damaged, below it.

    Args:
        rows: the runs, in their order.
        columns: width of the terminal, to which names are shortened and columns left out; None for any width.
        lines: height of the terminal, beyond which rows are left out; None for any height.
    """
    below = _summary(rows)
    below += [f"{row.name}: {row.problem}" for row in rows if row.problem is not None]
    if lines is not None:
        below = below[: max(lines // 3, 1)]
        n_shown = max(lines - len(below) - 1, 1)
        if len(rows) > n_shown:
            below.insert(0, f"({len(rows) - n_shown + 1} more runs; name=, state= and sort= choose what is shown)")
            rows = rows[: n_shown - 1]
    cells = [dict(zip(COLUMNS, _cells(row), strict=True)) for row in rows]
    table = [dict(zip(COLUMNS, COLUMNS, strict=True)), *cells] if rows else []
    widths = {name: max(map(width, (row[name] for row in table)), default=0) for name in COLUMNS}
    if columns is not None:
        widths = _narrowed(widths, columns)
    shown = [GAP.join(_padded(row[name], n, name in RIGHT) for name, n in widths.items()).rstrip() for row in table]
    text = [visible(one_line(line)) for line in below]
    return "\n".join(shown + [_padded(line, columns, False).rstrip() if columns else line for line in text])


def _summary(rows: Sequence[RunRow]) -> list[str]:
    states = Counter(row.state for row in rows)
    told = ", ".join(f"{states[state]} {state.name}" for state in State if states[state])
    runs_of = "1 run" if len(rows) == 1 else f"{len(rows):,} runs"
    return [f"{runs_of}{': ' if told else ''}{told}; {size(sum(row.size_bytes for row in rows))}"]


def _cells(row: RunRow) -> list[str]:
    step = "" if row.step is None else f"{row.step:,}"
    losses = ["" if loss is None else f"{loss:.4f}" for loss in (row.train_loss_nats, row.val_loss_nats)]
    data = (row.data or "").rstrip("/").rpartition("/")[2]
    return [
        *(visible(one_line(text or "")) for text in (row.name, row.state.name, row.model, data, row.order)),
        "" if row.seed is None else str(row.seed),
        step + (f"/{row.total_steps:,}" if row.total_steps is not None else ""),
        *losses,
        size(row.size_bytes),
        age(row.age_s),
    ]


def age(seconds: float) -> str:
    """Write a time as people say it."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 100 * 3600 else f"{seconds / 86400:.0f} days"


def width(text: str) -> int:
    """Columns of a terminal that a text takes."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(each) in "WF" for each in text)
    return len(text) + wide - sum(unicodedata.combining(each) != 0 for each in text)


def _narrowed(widths: dict[str, int], columns: int) -> dict[str, int]:
    """Shorten the widest columns of names, then leave columns out, until all have room."""
    widths = dict(widths)

    def excess() -> int:
        return sum(widths.values()) + len(GAP) * (len(widths) - 1) - columns

    for dropped in DROPPED:
        while excess() > 0:
            names = [name for name in widths if name not in RIGHT and name != "state" and widths[name] > NARROWEST]
            if not names:
                break
            widths[max(names, key=lambda name: widths[name])] -= 1
        if excess() > 0:
            del widths[dropped]
    return widths | {"run": max(min(widths["run"], widths["run"] - excess()), 1)}


def _padded(text: str, columns: int, is_right: bool) -> str:
    """Fill a text up to a width, or cut out its middle: names differ at their ends."""
    if width(text) > columns:
        while text and width(text) > columns - 2:
            middle = len(text) // 2
            text = text[:middle] + text[middle + 1 :]
        middle = len(text) // 2
        text = f"{text[:middle]}..{text[middle:]}"[: max(columns, 0)]
    space = " " * (columns - width(text))
    return space + text if is_right else text + space
