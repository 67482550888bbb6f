"""How far the runs of a study are, by what is in their folders."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from hindsight import runs
from hindsight.analysis.token_losses import TokenLosses
from hindsight.config.listing import State
from hindsight.config.order import BOTH, order_of
from hindsight.errors import InputError
from hindsight.evaluation.output import Output
from hindsight.evaluation.trained_run import read_run
from hindsight.json_lines import read_backward, read_records
from hindsight.studies.ahead import Ahead, ahead_of
from hindsight.studies.composed import evaluate_config
from hindsight.studies.planned_runs import PlannedRun
from hindsight.studies.results import DONE, FAILED, MISSING, RunResult
from hindsight.studies.run_lengths import loss_at_end, require_same_evaluation, require_same_length
from hindsight.studies.run_list import describe_run
from hindsight.studies.sweep import check_paths, median_speed
from hindsight.training.run_settings import is_finished
from hindsight.training.setup import RunSetup, check_setup, locate_data

INTERRUPTED = State.interrupted.name


@dataclass(frozen=True)
class RunState:
    """How far a run is.

    Args:
        setup: the run, checked against its data, or what its settings alone tell.
        state: missing, or as list_runs.py names it; done only if it is as long as the study has it, and damaged where
            its records cannot be read.
        step: its last step that is logged.
        tokens: tokens that it has made.
    """

    setup: RunSetup | Ahead
    state: str
    step: int
    tokens: int


def check_runs(planned: Sequence[PlannedRun]) -> list[RunSetup]:
    """Check all runs against their data, and against what was begun in their folders; nothing is written.

    A run whose records are damaged is not compared with them: it fails by itself, and keeps no other.

    Raises:
        InputError: something does not fit.
    """
    setups: dict[tuple[Any, ...], RunSetup] = {}
    found: list[RunSetup] = []
    for run in planned:
        plain = replace(run.config, seed=0, run_name="any")
        key = run.dataset.folder, json.dumps(asdict(plain), sort_keys=True, default=str)
        is_new, is_damaged = key not in setups, damage_of(run.folder) is not None
        if is_new:
            setups[key] = check_setup(plain, locate_data(plain))
        if is_new or (run.folder / runs.CONFIG).exists():
            try:
                check_paths(plain if is_damaged else run.config)
            except InputError as error:
                way_out = " A study that was changed begins anew with another runs_dir=." if not is_new else ""
                raise InputError(f"{error}{way_out}") from None
        of = setups[key]
        config = replace(run.config, data=replace(run.config.data, context_length=of.config.data.context_length))
        setup = replace(of, config=config, run_name=config.name_of_run(), folder=run.folder)
        if has_records(run.folder) and not is_damaged:
            require_same_length(setup)
            require_same_evaluation(setup)
        found.append(setup)
    return found


def has_records(folder: Path) -> bool:
    """Whether a folder has the records of a run that was begun."""
    return all((folder / name).is_file() for name in runs.RECORDS)


def damage_of(folder: Path) -> str | None:
    """Why the records of a run that was begun cannot be read; None where they can, or it was not begun."""
    try:
        if has_records(folder):
            runs.read_config(folder)
            runs.read_metadata(folder)
    except InputError as error:
        return str(error)
    return None


def state_of(setup: RunSetup) -> RunState:
    """Look at the folder of a run; InputError if it was begun with other settings."""
    if not has_records(setup.folder):
        return RunState(setup, MISSING, 0, 0)
    if damage_of(setup.folder) is not None:
        return RunState(setup, State.damaged.name, 0, 0)
    last = last_record(setup.folder)
    step, tokens = int(last.get("step", 0)), int(last.get("tokens", 0))
    if is_finished(setup):
        return RunState(setup, DONE, step, tokens)
    state = describe_run(setup.folder).state.name
    return RunState(setup, INTERRUPTED if state == DONE else state, step, tokens)


def state_ahead(run: PlannedRun) -> RunState | None:
    """Say how far a run is whose data is not here; None where the data alone tells how long it is."""
    if (ahead := ahead_of(run)) is None:
        return None
    state = state_without_data(run.folder)
    last = last_record(run.folder) if state not in (MISSING, State.damaged.name) else {}
    return RunState(ahead, state, int(last.get("step", 0)), int(last.get("tokens", 0)))


def state_without_data(folder: Path) -> str:
    """State of a run whose data is not here, by its folder alone; done only at its own planned step."""
    if not has_records(folder):
        return MISSING
    state = describe_run(folder).state.name
    return INTERRUPTED if state == DONE and loss_at_end(folder) is None else state


def last_record(folder: Path) -> dict[str, Any]:
    """The last whole line of metrics.jsonl; empty if there is none."""
    return next(iter(islice(read_backward(folder / runs.METRICS), 1)), {}) if (folder / runs.METRICS).exists() else {}


def is_evaluated(folder: Path, order: str, given: dict[str, Any]) -> bool:
    """Whether the losses of all tokens, at the last step of a run that is done, are there.

    Args:
        folder: the run's folder.
        order: its order.
        given: keys of evaluate_tokens.py.
    """
    step = runs.finished_step(folder)
    if step is None:
        return False
    config = evaluate_config(str(folder), given)
    passes = ("forward", "backward") if order == BOTH else ("",)
    try:
        output = Output.of(read_run(str(folder)), config, step)
        files = [Path(output.of_pass(name).name) for name in passes]
        return all(file.is_file() and TokenLosses.open(file).metadata.get("step") == step for file in files)
    except InputError:  # something is damaged, or in the way: evaluate_tokens.py says so
        return False


def result_of(
    planned: PlannedRun, commands: list[str], state: str, error: str | None, setup: RunSetup | None = None
) -> RunResult:
    """Say all that is known of a run.

    Args:
        planned: the run.
        commands: what makes it from its data, as typed.
        state: missing, or as list_runs.py names it.
        error: why it failed, if it did.
        setup: the run, checked against its data; None where that is not here.

    Returns:
        What is known; of a run whose files are damaged, that and why, if nothing else is said to be its error.
    """
    folder, metrics = planned.folder, planned.folder / runs.METRICS
    evaluations: list[dict[str, float]] = []
    settings, metadata, speed = dict[str, Any](), dict[str, Any](), None
    try:
        if state != MISSING:
            settings, metadata = runs.read_config(folder), runs.read_metadata(folder)
            evaluations = evaluations_in(metrics) if metrics.exists() else []
        speed = median_speed(folder) if metrics.exists() else None
    except InputError as damage:
        error = error or str(damage)
    return RunResult(
        name=planned.name,
        axes=planned.axes,
        folder=planned.typed_folder,
        commands=commands,
        state=FAILED if error is not None else state,
        error=error,
        is_sweep=planned.is_sweep,
        settings=settings,
        metadata=metadata,
        evaluations=evaluations,
        tokens_planned=None if setup is None else setup.course.tokens,
        tokens_per_second=speed,
    )


def evaluations_in(metrics: Path) -> list[dict[str, float]]:
    """Evaluations in training, as a result has them; InputError if the file is damaged."""
    found: list[dict[str, float]] = []
    for line in read_records(metrics):
        if runs.EVAL_LOSS in line:
            values = {name: line[runs.EVAL + name] for name in runs.METRIC_NAMES if runs.EVAL + name in line}
            found.append({"step": line["step"], "tokens": line["tokens"]} | values)
    return found


def order_of_run(run: PlannedRun) -> str:
    """Name of the order of a run."""
    return order_of(run.config)
