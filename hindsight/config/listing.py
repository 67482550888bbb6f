"""Keys of list_runs.py."""

from dataclasses import dataclass
from enum import Enum

from hindsight.config.checks import require, require_local, require_positive, require_text


class State(Enum):
    """What a run's folder says of the run."""

    training = "training"
    interrupted = "interrupted"
    begun = "begun"
    done = "done"
    damaged = "damaged"


COLUMNS = ("run", "state", "model", "data", "order", "seed", "step", "train", "loss", "size", "age")
"""Columns of the table of runs, in their order."""


@dataclass
class ListConfig:
    """List all runs below a folder: what each is, how far it is, its last losses, its state, and what it takes on disk.

    Nothing is written, and no run is disturbed. States: training (a process has it now), interrupted (the same command
    goes on), begun (it has no checkpoint yet), done, damaged (what is, stands below the table).
    """

    runs_dir: str = "runs"
    """Folder of runs; also those in folders inside it are found, where studies keep theirs, but for hidden ones.
    `python list_runs.py runs/NAME` means the same."""
    sort: str = "run"
    """Column that rows are sorted by: run, state, model, data, order, seed, step (as a share of the whole), train,
    loss, size or age; with - in front, such as -loss, from the largest down. What has no value comes last."""
    state: State | None = None
    """Only runs in this state; null for all."""
    name: str | None = None
    """Only runs whose name matches this pattern, such as '*-backward-*'; null for all."""
    json: bool = False
    """Whether to print a JSON object for each run, with all digits, in a list; `--json` means the same."""
    watch: float | None = None
    """Seconds after which runs are looked at again, until Ctrl-C; in a terminal the new table takes the place of the
    old. null: once."""

    def __post_init__(self) -> None:
        require_text("", self, "runs_dir", "name")
        require_local("", self, "runs_dir")
        require_positive("", self, "watch")
        require(
            self.sort.removeprefix("-") in COLUMNS,
            f"sort={self.sort} is no column; choose one of {', '.join(COLUMNS)}, with - in front for largest first.",
        )
