"""The table of a study's runs, runs.csv, and how all of it was made, so that a stranger can repeat it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from hindsight.analysis.page import Block, Bullets, Code, Table, Text
from hindsight.analysis.tables import MISSING, csv_of, shown
from hindsight.runs import METRIC_NAMES
from hindsight.studies.report_groups import ORDER_AXES
from hindsight.studies.results import DONE, FAILED, RunResult, StudyResult

COLUMNS = {
    "name": "run",
    "part": "part",
    "state": "state",
    "step": "step",
    "tokens": "tokens",
    "loss_nats": "loss (nats/token)",
    "bits_per_byte": "bits/byte",
}
TEXT = {
    "name": "wide",
    "part": "",
    "state": "",
    "key": "",
    "value": "wide",
    "folder": "wide",
    "what": "",
    "corpus": "",
    "tokenizer": "",
}
NAMES_RUN = ("run_name", "runs_dir", "seed", *ORDER_AXES)
"""Settings that only name a run, or that the axes of every study have."""
MOST_OPEN = 40
"""Rows of a table that is not folded."""


def runs_section(result: StudyResult) -> list[Block]:
    """List all runs with their state, step and losses; name those that failed or are not done."""
    has_sweep = any(run.is_sweep for run in result.runs)
    columns = {key: heading for key, heading in COLUMNS.items() if has_sweep or key != "part"}
    title = None if len(result.runs) <= MOST_OPEN else f"Table: all {len(result.runs)} runs"
    table = Table(columns, [_row(run) for run in result.runs], TEXT, title)
    failed = [
        Text(f"{run.name} failed: {run.error or 'see its log'}", "warning")
        for run in result.runs
        if run.state == FAILED
    ]
    unfinished: dict[str, list[str]] = {}
    for run in result.runs:
        if run.state != DONE:
            unfinished.setdefault(run.state, []).append(run.name)
    named = [Bullets([(state, ", ".join(names)) for state, names in unfinished.items()])] if unfinished else []
    return [*failed, *named, table]


def _row(run: RunResult) -> dict[str, Any]:
    last: Mapping[str, Any] = run.evaluations[-1] if run.evaluations else {}
    step, total = last.get("step"), run.metadata.get("total_steps")
    return {
        "name": run.name,
        "part": "sweep of rates" if run.is_sweep else "study",
        "state": run.state,
        "step": None if step is None else f"{shown(int(step))} of {shown(total)}" if total else shown(int(step)),
        "tokens": None if last.get("tokens") is None else int(last["tokens"]),
        "loss_nats": last.get("loss_nats"),
        "bits_per_byte": last.get("bits_per_byte"),
    }


def told_of_state(result: StudyResult) -> list[Block]:
    """Say whether this is a report of a part of the runs."""
    unfinished = [run for run in result.runs if run.state != DONE]
    if not unfinished:
        return []
    counts = Counter(run.state for run in unfinished)
    states = ", ".join(f"{n} {state}" for state, n in counts.items())
    n_done = len(result.runs) - len(unfinished)
    said = f"This is a report of a part of the study: {n_done} of {len(result.runs)} runs are done ({states})."
    return [Text(said, "warning")]


def runs_csv(result: StudyResult) -> str:
    """Write runs.csv: a line for each run, numbers with all their digits."""
    axes = [*dict.fromkeys(key for run in result.runs for key in run.axes)]
    rows: list[dict[str, Any]] = []
    for run in result.runs:
        last: Mapping[str, Any] = run.evaluations[-1] if run.evaluations else {}
        row: dict[str, Any] = {"run": run.name} | {key: run.axes.get(key) for key in axes}
        row |= {"is_sweep": run.is_sweep, "state": run.state, "error": run.error}
        row |= {key: last.get(key) for key in ("step", "tokens", *METRIC_NAMES)}
        row |= {"tokens_planned": run.tokens_planned, "git_commit": run.metadata.get("git_commit")}
        rows.append(row | {"folder": run.folder, "commands": " && ".join(run.commands)})
    return csv_of(rows) if rows else "run\n"


def made_section(result: StudyResult) -> list[Block]:
    """Say how data and runs were made: commands, settings, commits and versions."""
    blocks: list[Block] = [
        Text(
            "These commands make everything again, at the commit below (each run at its own, in runs.csv, where there "
            "are several), from the folder in which they were run; commands.sh goes there by itself. What runs differ "
            "in beside order and seed stands in a table."
        ),
        Table({"key": "what", "value": "value"}, _conditions(result), TEXT),
    ]
    if result.data:
        blocks.append(Table(*_data_table(result.data), TEXT))
        lines = [*dict.fromkeys(line for of in result.data.values() for line in of.get("commands") or [])]
        if lines:
            blocks.append(Code(lines, "Commands: corpora, tokenizers and data"))
    lines = [*dict.fromkeys(line for run in result.runs for line in run.commands)]
    if lines:
        blocks.append(Code(lines, "Commands: every run"))
    started = [run for run in result.runs if run.settings]
    if started:
        differing, same = _settings(started)
        if differing:
            rows = [{"name": run.name, **{key: shown(run.settings.get(key)) for key in differing}} for run in started]
            columns = {"name": "run"} | {key: key for key in differing}
            blocks.append(Table(columns, rows, TEXT, "Table: settings in which runs differ"))
        blocks.append(Table({"key": "setting", "value": "value"}, same, TEXT, "Table: settings that all runs share"))
    return blocks


def _conditions(result: StudyResult) -> list[dict[str, str]]:
    """Commits and versions of all runs, with the number of runs of each where there are several."""
    started = [run for run in result.runs if run.metadata]
    keys = ["git_commit", *dict.fromkeys(key for run in started for key in run.metadata if key.startswith("versions."))]
    rows: list[dict[str, str]] = []
    for key in keys:
        counts = Counter(shown(run.metadata.get(key)) for run in started)
        several = len(counts) > 1
        value = "; ".join(f"{text} ({n} runs)" if several else text for text, n in counts.items())
        rows.append({"key": "commit" if key == "git_commit" else key.split(".", 1)[-1], "value": value or MISSING})
    rows.append({"key": "study", "value": f"{result.name}, scale={result.scale}"})
    return rows


def _data_table(data: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Give what is known of each dataset but its commands, as a table."""
    flat = [{"folder": folder, **_flat(of)} for folder, of in data.items()]
    keys = dict.fromkeys(key for row in flat for key in row)
    return {key: key.replace("_", " ") for key in keys}, [{key: row.get(key) for key in keys} for row in flat]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if key == "commands":
            continue
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key} ")
        else:
            found[f"{prefix}{key}"] = str(value)[:12] if key == "fingerprint" else value
    return found


def _settings(runs: Sequence[RunResult]) -> tuple[list[str], list[dict[str, str]]]:
    """Divide settings into those in which runs differ, and those that they share."""
    keys = [*dict.fromkeys(key for run in runs for key in run.settings if key not in NAMES_RUN)]
    values = {key: {shown(run.settings.get(key)) for run in runs} for key in keys}
    differing = [key for key in keys if len(values[key]) > 1]
    same = [{"key": key, "value": next(iter(values[key]))} for key in keys if len(values[key]) == 1]
    return differing, same


def provenance_lines(result: StudyResult) -> list[str]:
    """Say when and where the study was run, and how long it took: all that differs where it is run again."""
    told = {
        key: ", ".join(f"{of} {shown(each)}" for of, each in value.items())
        if isinstance(value, Mapping)
        else shown(value)
        for key, value in result.provenance.items()
    }
    lines = [f"{key.replace('_', ' ')}: {value}" for key, value in told.items()]
    hours = [
        run.evaluations[-1]["tokens"] / run.tokens_per_second / 3600
        for run in result.runs
        if run.evaluations and run.tokens_per_second
    ]
    if hours:
        lines.append(f"training took about {shown(sum(hours))} hours of runs, by their tokens/s")
    return lines
