"""Keys of compare_directions.py."""

from dataclasses import dataclass

from omegaconf import MISSING

from hindsight.config.checks import require, require_no_credentials, require_utf8


@dataclass
class CompareConfig:
    """Pair runs that differ only in direction; print and write how much harder backward is than forward."""

    runs: list[str] = MISSING
    """Runs: their folders, e.g. [runs/a,runs/b], a folder of runs, or a pattern such as runs/*; each forward run needs
    its backward twin. `python compare_directions.py runs/a runs/b` means the same."""
    out: str = "comparison"
    """Folder for comparison.csv, comparison.json and comparison.png; files of an earlier comparison are replaced."""

    def __post_init__(self) -> None:
        require_no_credentials("", self)
        require_utf8("", self, "out")
        require(len(self.runs) > 0, "runs=[] must name at least a forward run and its backward twin.")
