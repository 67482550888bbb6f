"""The report of a study."""

from pathlib import Path

from hindsight.files import write_atomically
from hindsight.studies.results import REPORT_MD, StudyResult


def write_study_report(out: Path, result: StudyResult) -> list[Path]:
    """Write the report of a study into its folder; the files that were written."""
    lines = [
        f"# {result.name}, scale={result.scale}",
        "",
        result.question,
        "",
        "| run | state | loss |",
        "|---|---|---|",
    ]
    for run in result.runs:
        loss = "" if run.loss_nats is None else f"{run.loss_nats:.4f}"
        lines.append(f"| {run.name} | {run.state} | {loss} |")
    write_atomically(out / REPORT_MD, "\n".join(lines) + "\n")
    return [out / REPORT_MD]
