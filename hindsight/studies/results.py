"""What a study has found so far, as data: what the report is made of, and study.json for programs of others."""

from dataclasses import asdict, dataclass, field
from typing import Any

from hindsight.config.listing import State

STUDY_JSON = "study.json"
RUNS_CSV = "runs.csv"
REPORT_HTML, REPORT_MD = "report.html", "report.md"
DONE = State.done.value
MISSING, FAILED = "missing", "failed"
"""States of runs of a study beside those of list_runs.py: before the first start, and where that ended so."""
COMPARISON = "comparison"
"""Folder, in that of a study, with what compare_directions.py wrote of its runs."""


@dataclass
class RunResult:
    """A run of a study: what it is, how it was made, and how far it is."""

    name: str
    """Name of its folder."""
    axes: dict[str, Any]
    """Its value on every axis of the study, by the axis: corpus, tokenizer, order, seed, optim.lr, ..."""
    folder: str
    commands: list[str]
    """The commands that make it from its data, as they are typed."""
    state: str
    """State of its folder, as list_runs.py names it; `missing` before its first start, `failed` where it ended so."""
    error: str | None = None
    """Why it failed, in a line."""
    is_sweep: bool = False
    """Whether it belongs to the sweep of learning rates, and not to what is compared."""
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    """config.yaml of the run, by full keys; empty before its first start."""
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    """metadata.json of the run, by full keys: commit, versions, fingerprints."""
    evaluations: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    """Its evaluations in training: step, tokens, and the metrics of `runs.METRIC_NAMES` (loss_nats, ...)."""
    tokens_planned: int | None = None
    """Tokens that it trains on in all."""
    tokens_per_second: float | None = None

    @property
    def loss_nats(self) -> float | None:
        """Validation loss at the end, nats per token; None where the run has none."""
        return self.evaluations[-1]["loss_nats"] if self.evaluations and self.state == DONE else None


@dataclass
class StudyResult:
    """All that a report is made of, beside the folder of the comparison."""

    name: str
    scale: str
    question: str
    study: dict[str, Any]
    """The study as it was run: its file with its scale merged, as conf/study/ explains."""
    runs: list[RunResult]
    floors: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """Of each synthetic corpus, by its name in the study, what `floor.json` says; see hindsight/synthetic/floors.py."""
    data: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """Of each dataset, by its folder: corpus, tokenizer, the commands that made it, documents and tokens by split."""
    rates: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """Of each sweep of learning rates: `axes` (all but order and seed), `best` {order: rate}, `same` rate."""
    comparison_error: str | None = None
    """Why its runs could not be compared; None where they were, or there is nothing to compare."""
    provenance: dict[str, Any] = field(default_factory=dict[str, Any])
    """Command line, date, commit, versions and machine of the newest start."""

    def as_json(self) -> dict[str, Any]:
        """All of it as data."""
        return asdict(self)
