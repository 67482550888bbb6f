"""What a study writes down beside its report: study.json, and the commands by which a stranger repeats it."""

import json
import os
import platform
import shlex
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hindsight import runs
from hindsight.errors import InputError
from hindsight.files import write_atomically
from hindsight.provenance import git_commit, versions
from hindsight.shards.manifest import Manifest
from hindsight.studies.commands import ROOT, Command, is_in_project
from hindsight.studies.known_runs import DONE, MISSING, check_runs, result_of, state_of, state_without_data
from hindsight.studies.made_data import Data
from hindsight.studies.planned_runs import PlannedRun
from hindsight.studies.results import COMPARISON, REPORT_HTML, REPORT_MD, RUNS_CSV, STUDY_JSON, RunResult, StudyResult
from hindsight.studies.study_file import Study
from hindsight.studies.study_report import COMPARISON_JSON
from hindsight.studies.training import FAILED, LOGS, Outcome, evaluation_of, missing_evaluation

COMMANDS = "commands.sh"
"""All commands of a study, in order."""


def result_of_study(
    study: Study,
    out: Path,
    planned: Sequence[PlannedRun],
    data: Data,
    rates: list[dict[str, Any]],
    outcome: Outcome,
) -> StudyResult:
    """Put together all that is known of a study.

    Args:
        study: the study.
        out: its folder.
        planned: its runs.
        data: its data.
        rates: what its sweep of learning rates has found.
        outcome: what became of the runs of this start; those that turn out to be damaged are added.
    """
    found: list[RunResult] = []
    there = [run for run in planned if run.dataset.is_there]
    setups = dict(zip([run.name for run in there], check_runs(there), strict=True))
    for run in planned:
        evaluation = evaluation_of(run, study)
        commands = [run.command.typed, *([evaluation.typed] if evaluation is not None else [])]
        setup = setups.get(run.name)
        state = state_without_data(run.folder) if setup is None else state_of(setup).state
        is_complete = state == DONE and missing_evaluation(run, study) is None
        error = outcome.failed.get(run.name) or (None if is_complete else _earlier_error(out, run))
        if not run.waits:
            found.append(result_of(run, commands, state, error, setup))
            if error is None and (damage := found[-1].error) is not None:
                outcome.failed[run.name] = damage
            continue
        waiting = result_of(run, [], MISSING, outcome.failed.get(run.name))
        waiting.error = waiting.error or "its learning rate is not known: a run of the sweep is missing"
        found.append(waiting)
    corpora = {dataset.corpus: dataset.floor for dataset in data.datasets if dataset.floor is not None}
    floors = {name: runs.read_object(path) for name, path in corpora.items() if path.exists()}
    return StudyResult(
        name=study.name,
        scale=study.scale.name,
        question=study.question,
        study=study.content,
        runs=found,
        floors=floors,
        data={dataset.folder: _data_of(dataset) for dataset in data.datasets},
        rates=rates,
        comparison_error=outcome.failed.get(COMPARISON),
        provenance={
            "command": shlex.join(["python", *sys.argv]),
            "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
            "git_commit": git_commit(),
            "versions": versions(),
            "machine": f"{platform.machine()}, {platform.system()} {platform.release()}",
        },
    )


def _earlier_error(out: Path, run: PlannedRun) -> str | None:
    path = out / LOGS / f"{run.config.run_name}{FAILED}"
    try:
        return str(runs.read_object(path)["error"]) if path.exists() else None
    except (InputError, KeyError):
        return None


def _data_of(dataset: Any) -> dict[str, Any]:
    commands = [step.command.typed for step in dataset.steps]
    told: dict[str, Any] = {"corpus": dataset.corpus, "tokenizer": dataset.tokenizer, "commands": commands}
    if dataset.is_there:
        manifest = Manifest.load(dataset.folder)
        told |= {"fingerprint": manifest.fingerprint}
        told |= {
            split: {"documents": counts.documents, "tokens": counts.tokens, "bytes": counts.bytes}
            for split, counts in manifest.splits.items()
        }
    return told


def write_records(out: Path, result: StudyResult, comparing: Command | None, environment: Mapping[str, str]) -> None:
    """Write study.json and commands.sh into the folder of a study.

    Args:
        out: the folder.
        result: what is known.
        comparing: the command that compares its runs; None if there is nothing to compare.
        environment: what its commands have in their environment beside that of the study.
    """
    write_atomically(out / STUDY_JSON, json.dumps(result.as_json(), indent=1, default=str) + "\n")
    write_atomically(out / COMMANDS, _script(out, result, comparing, environment))  # last: `forget_records`


def forget_records(out: Path) -> None:
    """Let `is_written` say no until records are written again: a study may be killed before it has all of a report."""
    (out / COMMANDS).unlink(missing_ok=True)


def is_written(out: Path, result: StudyResult, comparing: Command | None) -> bool:
    """Tell whether the report of exactly this is there, by the same commit and versions.

    Args:
        out: the folder of the study.
        result: what is known.
        comparing: the command that compares its runs; None if there is nothing to compare.
    """
    files = [REPORT_HTML, REPORT_MD, RUNS_CSV, COMMANDS, *([f"{COMPARISON}/{COMPARISON_JSON}"] if comparing else [])]
    try:
        before = json.loads((out / STUDY_JSON).read_text("utf-8"))
        now = json.loads(json.dumps(result.as_json(), default=str))
        for values in (before, now):
            del values["provenance"]["date"], values["provenance"]["command"]
    except (OSError, ValueError, KeyError, TypeError):  # none, or damaged: it is written anew
        return False
    is_same = json.dumps(before) == json.dumps(now)  # as text, for NaN is not equal to itself
    return is_same and all((out / name).is_file() for name in files)


def _script(out: Path, result: StudyResult, comparing: Command | None, environment: Mapping[str, str]) -> str:
    """Write all commands of a study as a script, each once; it goes to where they were run."""
    made = [command for each in result.data.values() for command in each["commands"]]
    trained = [command for run in result.runs for command in run.commands]
    compared = [comparing.typed] if comparing is not None else []
    commit = result.provenance.get("git_commit") or "unknown"
    of_runs = Counter(str(run.metadata.get("git_commit") or "unknown") for run in result.runs if run.metadata)
    trained_by = ", ".join(f"{each} ({n} run{'s' if n > 1 else ''})" for each, n in of_runs.items())
    here = shlex.quote(os.path.relpath(Path.cwd(), out))
    lines = [
        f"# Study {result.name}, scale={result.scale}: what run_study.py has run.",
        f"# Commit {commit}. Each command does nothing where its result is there.",
        *([f"# Runs were trained by commit {trained_by}."] if {*of_runs} - {commit} else []),
        "set -e",
        f'CDPATH= cd -- "$(dirname -- "${{BASH_SOURCE:-$0}}")"/{here}',
        *([] if is_in_project() else [f"export PYTHONPATH={shlex.quote(str(ROOT))}"]),
        *(f"export {name}={shlex.quote(value)}" for name, value in environment.items()),
        *dict.fromkeys([*made, *trained, *compared]),
    ]
    return "\n".join(lines) + "\n"
