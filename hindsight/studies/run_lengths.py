"""How long the runs of a study were trained, and how they were evaluated: others are not the runs that were planned.

A run that was made longer is not one that was planned so long, nor are losses over a part of the validation set those
over all of it.
"""

import math
from dataclasses import asdict
from pathlib import Path

from hindsight import runs
from hindsight.config.defaults import with_defaults
from hindsight.config.key_roles import PairRole, ResumeRole, roles_of
from hindsight.config.keys import flatten
from hindsight.errors import InputError
from hindsight.json_lines import read_backward, step_of
from hindsight.studies.commands import as_written
from hindsight.training.setup import RunSetup


def require_same_length(setup: RunSetup) -> None:
    """Refuse a run that was begun with another length, or made longer: its learning rate fell to its end before.

    Args:
        setup: the run as it is planned; its folder has its records.

    Raises:
        InputError: the lengths differ; names the run, both, and the way out.
    """
    records = runs.read_metadata(setup.folder)
    plan, total, planned = records.get(runs.LR_PLAN), records.get("total_steps"), setup.total_steps
    stretches: list[int] = [each["until"] for each in plan] if isinstance(plan, list) else []
    if type(total) is not int or (total == planned and len(stretches) < 2):
        return
    was = f"was made longer, from {stretches[0]:,} steps to {total:,}" if len(stretches) > 1 else f"has {total:,} steps"
    raise InputError(
        f"run_name={setup.run_name} in {setup.folder} {was}, and max_duration={setup.config.max_duration} is "
        f"{planned:,} steps from the beginning; runs of different lengths are not compared. Give the old max_duration, "
        "or another runs_dir=; or remove the folder, and it is trained anew."
    )


def require_same_evaluation(setup: RunSetup) -> None:
    """Refuse a run that was begun with other settings that may change at a resume, but also change recorded losses.

    Args:
        setup: the run as it is planned; its folder has its records.

    Raises:
        InputError: one differs; names the run, the key, both values, and the way out.
    """
    was, planned = with_defaults(runs.read_config(setup.folder)), flatten(asdict(setup.config))
    for key, value in planned.items():
        roles = roles_of(key)
        if key == "max_duration" or (roles.resume, roles.pair) != (ResumeRole.may_change, PairRole.equal):
            continue  # lengths are compared in steps, and fixed settings are when a run goes on
        if was.get(key) != value:
            raise InputError(
                f"run_name={setup.run_name} in {setup.folder} has {key}={as_written(was.get(key))}, and the study has "
                f"{key}={as_written(value)}; runs that were evaluated otherwise are not compared. Give the old value, "
                "or another runs_dir=; or remove the folder, and it is trained anew."
            )


def loss_at_end(folder: Path) -> float | None:
    """Validation loss of a run at its end, nats per token; None if it is not done at exactly its planned step.

    One that is not finite is given as infinity.

    Args:
        folder: folder of the run.
    """
    step = runs.finished_step(folder)
    try:
        if step is None or step != runs.read_metadata(folder).get("total_steps", step):
            return None
    except InputError:  # damaged: it is not known to be done
        return None
    for record in read_backward(folder / runs.METRICS):
        if (found := step_of(record)) is not None and found <= step:
            loss = record.get(runs.EVAL_LOSS)
            if found != step or not runs.is_number(loss):
                return None
            return loss if math.isfinite(loss) else math.inf
    return None
