"""Keys of compare_directions.py."""

from dataclasses import dataclass

from omegaconf import MISSING

from hindsight.config.checks import require, require_no_credentials, require_positive, require_utf8


@dataclass
class CompareConfig:
    """Compare runs that differ only in order and seed; print and write how much harder backward is than forward."""

    runs: list[str] = MISSING
    """Runs: their folders, e.g. [runs/a,runs/b], a folder of runs, or a pattern such as runs/*; each forward run needs
    its twin of another order, and at least 3 seeds of each say something. `python compare_directions.py runs/a runs/b`
    means the same."""
    out: str = "comparison"
    """Folder for comparison.csv, comparison.json, comparison.png, report.html, figures/ and tables/; files of an
    earlier comparison are replaced, and those that this one does not write are removed. Other files stay."""
    margin_nats: float | None = None
    """Largest gap, in nats per token, that counts as none: whether the gap is within it is tested; null: no test."""
    reference: str | None = None
    """Order that the others are compared with; null: forward, or the first by name where no run is forward."""
    report: bool = True
    """Whether to write report.html with its figures and tables too, and to cut the gap by what losses of tokens say;
    with false, those of an earlier comparison are removed from out=."""

    def __post_init__(self) -> None:
        require_no_credentials("", self)
        require_utf8("", self, "out")
        require_positive("", self, "margin_nats")
        require(len(self.runs) > 0, "runs=[] must name at least a forward run and its backward twin.")
