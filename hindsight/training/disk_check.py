"""Whether there is room for what a run is going to write, before its first step.

What is asked for is never more than the run needs: its tensors, without what is beside them in a file. A run for which
there is room is not refused; one that is not refused may still fill the disk, because others write there too.
"""

import os
from pathlib import Path

from composer.core import Timestamp
from torch import nn

from hindsight.config.optim import OptimizerName
from hindsight.config.training import TrainConfig
from hindsight.errors import InputError
from hindsight.shown_numbers import size
from hindsight.training.checkpoint_files import checkpoints_in
from hindsight.training.disk import added, free_bytes, state_bytes, weights_bytes
from hindsight.training.muon import matrices_of
from hindsight.training.setup import RunSetup, local_folder

LEAST_LINE_BYTES = 100
"""Of a line of metrics.jsonl, at least."""


def require_room(setup: RunSetup, model: nn.Module, reached: Timestamp | None) -> None:
    """Raise InputError unless the folders of a run have room for what is still to be written to them.

    Args:
        setup: the run, whose folders are there; its max_duration includes train.more.
        model: its model.
        reached: how far it is; None for a new run.
    """
    config, folder = setup.config, setup.folder
    course = setup.course
    step = int(reached.batch) if reached is not None else 0
    if step >= course.steps:
        return
    n_parameters = sum(weight.numel() for weight in model.parameters())
    n_trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    is_muon = config.optim.name is OptimizerName.muon
    n_by_muon = sum(weight.numel() for weight in matrices_of(model)) if is_muon else 0
    each, weights = state_bytes(n_parameters, n_trained, n_by_muon), weights_bytes(n_parameters)
    place = local_folder(config, folder)
    if config.max_time is not None:  # this start may end before; it saves one checkpoint, whenever it does
        most, at_end, backups, lines, weights = 1, 1, 0, 0, 0
    else:
        most, at_end, backups = added(config, course, step, len(checkpoints_in(place)))
        lines = LEAST_LINE_BYTES * ((course.steps - step) // config.log_interval)
    what = f"{most} more checkpoint{'s' * (most > 1)} at once"
    what += f" and {backups} backup{'s' * (backups > 1)}" if backups else ""
    what += f", {size(each)} each"
    if folder.stat().st_dev == place.stat().st_dev if place.exists() else place.is_relative_to(folder):
        needed = max((most + backups) * each, (at_end + backups) * each + weights) + lines
        _require(_key_of(config), place, needed, what, config)
    else:
        _require(_key_of(config), place, (most + backups) * each, what, config)
        _require(f"runs_dir={config.runs_dir}", folder, weights + lines, "weights and metrics", config)


def _key_of(config: TrainConfig) -> str:
    given = config.checkpoint.folder
    return f"checkpoint.folder={given}" if given is not None and "://" not in given else f"runs_dir={config.runs_dir}"


def _require(key: str, folder: Path, needed: int, what: str, config: TrainConfig) -> None:
    free = free_bytes(folder, with_reserved=os.geteuid() == 0)
    if free is None or free >= needed:
        return
    fewer = [f"checkpoint.keep={config.checkpoint.keep}"] if config.checkpoint.keep != 1 else []
    if config.checkpoint.backup_interval is not None:
        fewer.append(f"checkpoint.backup_interval={config.checkpoint.backup_interval}")
    less = f", or save less ({', '.join(fewer)})" if fewer and what != "weights and metrics" else ""
    raise InputError(
        f"{key}: {folder} has {size(free)} free, and the run needs {size(needed)} more, at least ({what}); make room, "
        f"give another {key.partition('=')[0]}{less}."
    )
