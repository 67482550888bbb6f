"""Section of a study's report: pairs of runs that must be equal bit for bit.

A run that reads forward what was turned beforehand sees what a run that reads the original backward sees, and the other
way round. On a CPU all their losses are the same numbers.
"""

from pathlib import Path
from typing import Any

from hindsight import runs
from hindsight.analysis.page import Table, Text
from hindsight.errors import InputError
from hindsight.json_lines import read_records, step_of
from hindsight.studies.report_groups import BACKWARD, FORWARD, ORDER_AXES, StudyGroups, order_of
from hindsight.studies.report_parts import Part
from hindsight.studies.results import DONE, RunResult

COLUMNS = {
    "one": "run",
    "other": "must equal",
    "values": "losses compared",
    "equal": "equal",
    "step": "first step that differs",
    "difference": "difference there (nats)",
}
TEXT = {"one": "wide", "other": "wide"}
OTHER = {FORWARD: BACKWARD, BACKWARD: FORWARD}
Losses = dict[tuple[int, str], float]
"""By step and key."""


def exact_pairs(groups: StudyGroups) -> list[tuple[RunResult, RunResult]]:
    """Pair every run of a turned corpus with the run of the original in the other direction."""
    turned = {name: of["turned"] for name, of in (groups.result.study.get("corpora") or {}).items() if of.get("turned")}
    compared = [run for run in groups.result.runs if not run.is_sweep]
    found: list[tuple[RunResult, RunResult]] = []
    for run in compared:
        original = turned.get(str(run.axes.get("corpus")))
        wanted = {**_others(run), "corpus": original}
        twins = [each for each in compared if _others(each) == wanted and order_of(each) == OTHER.get(order_of(run))]
        if original is not None:
            found += [(run, twin) for twin in twins]
    return found


def _others(run: RunResult) -> dict[str, Any]:
    return {key: value for key, value in run.axes.items() if key not in ORDER_AXES}


def exact_section(groups: StudyGroups) -> Part:
    """Show of each pair whether all losses are equal."""
    pairs = exact_pairs(groups)
    if not pairs:
        return Part([Text("No corpus of this study is another one turned, in both directions.")])
    rows: list[dict[str, Any]] = []
    for one, other in pairs:
        rows.append({"one": one.name, "other": other.name} | compare_losses(one, other))
    known = [row for row in rows if row["equal"] is not None]
    n_equal = sum(row["equal"] for row in known)
    n = f"{len(known)} pair" if len(known) == 1 else f"{len(known)} pairs"
    said = f"{n_equal} of {n} of runs that must be equal bit for bit are so."
    if not known:
        said = "No pair of runs that must be equal bit for bit has losses to compare yet."
    elif n_equal == len(known):
        said = f"All losses of {n} of runs that must be equal bit for bit are the same numbers."
    text = (
        "A run that reads turned windows forward sees what a run that reads the original windows backward sees. Every "
        "loss that was logged, of training and of validation, must be the same number."
    )
    return Part([Text(text), Table(COLUMNS, rows, TEXT)], headline=said)


def compare_losses(one: RunResult, other: RunResult) -> dict[str, Any]:
    """Compare all losses of two runs: how many, whether they are equal (None before both are done), and where not."""
    (first, is_whole), (second, is_other_whole) = losses_of(one), losses_of(other)
    # Where one folder is not here, the losses of its training are not known.
    keys = sorted({*first} | {*second} if is_whole == is_other_whole else {*first} & {*second})
    if {one.state, other.state} != {DONE} or not keys:
        return {"values": 0, "equal": None, "step": None, "difference": None}
    differs = next((key for key in keys if first.get(key) != second.get(key)), None)
    found: dict[str, Any] = {"values": len(keys), "equal": differs is None, "step": None, "difference": None}
    if differs is not None:
        has_both = differs in first and differs in second
        found |= {"step": differs[0], "difference": first[differs] - second[differs] if has_both else None}
    return found


def losses_of(run: RunResult) -> tuple[Losses, bool]:
    """Read all losses of metrics.jsonl, or where that is not here those of the evaluations that are known.

    Returns:
        The losses, and whether they are of metrics.jsonl.
    """
    try:
        lines = [*read_records(Path(run.folder) / runs.METRICS)]
    except (InputError, OSError):
        return {(int(line["step"]), runs.EVAL_LOSS): line["loss_nats"] for line in run.evaluations}, False
    return {
        (step, key): line[key]
        for line in lines
        if (step := step_of(line)) is not None
        for key in (runs.TRAIN_LOSS, runs.EVAL_LOSS)
        if key in line
    }, True
