"""Keys of run_study.py."""

from dataclasses import dataclass
from enum import Enum

from omegaconf import MISSING

from hindsight.config.checks import (
    require,
    require_local,
    require_no_credentials,
    require_positive,
    require_text,
    require_utf8,
)


class Scale(Enum):
    """How large a study is: for a test, for a processor, or as in the paper."""

    tiny = "tiny"
    cpu = "cpu"
    gpu = "gpu"


class Only(Enum):
    """The part of a study that is done."""

    data = "data"
    table = "table"
    report = "report"


@dataclass
class StudyConfig:
    """Run a study: corpora, tokenizers, shards, runs, evaluations, comparison and report, as far as they are missing.

    Start an interrupted study again with the same arguments, and it goes on where it was.
    """

    study: str = MISSING
    """Name of a study in conf/study/, or a path to a file of the same form, NAME.yaml."""
    scale: Scale = Scale.cpu
    """tiny: seconds, to see that it works; cpu: at most 90 minutes on two cores; gpu: mostly
    models and data of the paper (docs/studies.md)."""
    out: str | None = None
    """Folder for study.json, runs.csv, commands.sh, report and comparison; null for results/STUDY/SCALE."""
    runs_dir: str = "runs"
    """Folder in which the runs have theirs: runs_dir/STUDY-SCALE/NAME."""
    data_dir: str = "data"
    """Folder for corpora that are made, tokenizers and shards, which studies share."""
    corpus_dir: str = "."
    """Folder in which corpora are looked for whose path in the study is relative."""
    seeds: int | None = None
    """Number of seeds, the first of the study's axis, then the next numbers; null for those of the axis."""
    workers: int | None = None
    """Runs at once, among which the cores are divided (OMP_NUM_THREADS, unless it is set); null for one a core, or one
    for each devices= GPUs, as far as there are runs; with task=, 1."""
    devices: int = 1
    """Devices of each run: with more than 1 it is started by `composer -n DEVICES`."""
    only: Only | None = None
    """data: make the data only; table: show the runs, and spend nothing; report: only compare and report what is
    there; null for all."""
    task: int | None = None
    """Train and evaluate only this run of the table, the first is 0: for arrays of jobs, and for hydra's launchers
    (-m 'task=range(0,12)'); null for all, with comparison and report."""
    try_steps: int | None = None
    """Steps that are tried of each model whose speed no earlier run tells, for the hours in the table; 0 for none; null
    for 8, and for none with scale=tiny."""

    comparison_report: bool = True
    """Whether compare_directions.py writes a report of its own, with figures and tables of every group: megabytes, and
    with many groups tens of them. Never with scale=tiny."""

    def __post_init__(self) -> None:
        require_no_credentials("", self)
        require_text("", self, "study", "out", "runs_dir", "data_dir", "corpus_dir")
        require_utf8("", self, "out", "runs_dir", "data_dir")
        require_local("", self, "study", "out", "runs_dir", "data_dir", "corpus_dir")
        require_positive("", self, "seeds", "workers", "devices")
        for name in ("task", "try_steps"):
            value = getattr(self, name)
            require(value is None or value >= 0, f"{name}={value} must be at least 0.")
        require(
            self.task is None or self.only is None,
            f"task={self.task} is one run, and only={self.only.name if self.only else ''} trains none; leave one out.",
        )

    @property
    def tried_steps(self) -> int:
        """try_steps, or what it is by default."""
        if self.try_steps is not None:
            return self.try_steps
        return 0 if self.scale is Scale.tiny else 8
