"""A run's folder when the run begins or goes on: who may train it, from which checkpoint, and how far."""

import fcntl
import json
import logging
import os
import shutil
import socket
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from composer.core import Callback, Timestamp
from composer.utils import dist
from omegaconf import OmegaConf
from torch import nn

from hindsight import runs
from hindsight.config.training import TrainConfig
from hindsight.durations import parse_duration
from hindsight.errors import InputError
from hindsight.files import LOCKED, say_unlocked, write_atomically
from hindsight.json_lines import keep_copy
from hindsight.provenance import version_changes, versions
from hindsight.ranks import on_rank_0
from hindsight.s3 import S3Folder
from hindsight.training import lr_plan
from hindsight.training.callback_order import Phase
from hindsight.training.checkpoint_files import (
    Checkpoint,
    choose_checkpoint,
    fetch_metrics,
    has_saved,
    local_folder,
    newest_first,
    remote_folder,
)
from hindsight.training.disk_check import require_room
from hindsight.training.initial_weights import begin_with
from hindsight.training.run_settings import check_records, fixed_settings
from hindsight.training.setup import RunSetup, metadata_of

log = logging.getLogger("hindsight")


class RunLock(Callback):
    """Keep other processes out of a run's folders until training ends; that of a killed process is released."""

    phase = Phase.hold

    def __init__(self) -> None:
        self.descriptors: list[int] = []

    def acquire(self, folder: Path, run_name: str) -> None:
        """Lock a folder; InputError if another process has."""
        descriptor = os.open(folder / runs.LOCK, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock's, not inherited by forked workers
        except OSError as error:
            if error.errno not in LOCKED:
                say_unlocked(folder, error)
                self.descriptors.append(descriptor)
                return
            holder = os.pread(descriptor, 1000, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise InputError(
                f"run_name={run_name} is being trained by another process ({holder or 'an unknown one'}), which uses "
                f"{folder}; wait for it, end it, or choose another run_name and checkpoint.folder."
            ) from None
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        self.descriptors.append(descriptor)

    def post_close(self) -> None:
        """Release the folders."""
        while self.descriptors:
            os.close(self.descriptors.pop())


@dataclass(frozen=True)
class OpenRun:
    """A run whose folder is there and locked.

    Args:
        setup: the run; config.max_duration already includes train.more.
        settings: what must not change while it goes on.
        metadata: content of metadata.json.
        plan: its learning rate.
        lr_change: what becomes of it, in a line, if this start changes the run's length; None if not.
        checkpoint: what it goes on from; None for a new run.
        lock: keeps other processes out of its folders.
    """

    setup: RunSetup
    settings: dict[str, Any]
    metadata: dict[str, Any]
    plan: lr_plan.Plan
    lr_change: str | None
    checkpoint: Checkpoint | None
    lock: RunLock


def open_run(setup: RunSetup, model: nn.Module) -> OpenRun:
    """Make the run's folder or go on in it: lock it, choose the checkpoint, and write config.yaml and metadata.json.

    Args:
        setup: the run.
        model: its model, into which the checkpoint must fit; that of a new run gets the weights of model.init_from.

    Raises:
        InputError: the folder belongs to something else, another process trains the run, it was begun with other
            settings, none of its checkpoints can be read, the weights to begin with do not fit, or there is no room
            for its checkpoints.
    """
    settings, lock = fixed_settings(setup), RunLock()
    on_rank_0(lambda: _open_folder(setup, lock))
    checkpoint = choose_checkpoint(setup, model)
    if setup.config.evaluate and checkpoint is None:
        raise InputError(f"evaluate=true: run_name={setup.run_name} has no checkpoint to evaluate; train it first.")
    if checkpoint is not None:
        if checkpoint.was_fetched:
            on_rank_0(lambda: fetch_metrics(setup.config, setup.folder))
        on_rank_0(lambda: _warn_of_other_versions(setup))
    reached = checkpoint.timestamp if checkpoint is not None else None
    until = replace(setup, config=_with_more(setup.config, setup.folder, reached))
    plan, lr_change = on_rank_0(lambda: _planned(until, checkpoint))
    initial = begin_with(setup, model) if checkpoint is None else on_rank_0(lambda: _initial_weights(setup.folder))
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    metadata = metadata_of(until, n_parameters, dist.get_world_size())
    n_trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    metadata["n_trainable_parameters"] = n_trained
    if initial:
        metadata[runs.INITIAL_WEIGHTS] = initial
    if len(plan) > 1:
        metadata[runs.LR_PLAN] = lr_plan.as_records(plan)
    if setup.config.evaluate:
        step = int(reached.batch) if reached is not None else 0
        on_rank_0(lambda: [keep_copy(setup.folder / name, step) for name in (runs.METRICS, runs.SAMPLES)])
    else:
        try:
            on_rank_0(lambda: require_room(until, model, reached))
        except InputError:
            lock.post_close()
            raise
        _write_records(until.config, metadata, setup.folder)
    return OpenRun(until, settings, metadata, plan, lr_change, checkpoint, lock)


def _initial_weights(folder: Path) -> dict[str, Any]:
    """Read what the run's first start recorded of the weights that it began with; empty if they were drawn."""
    prefix = f"{runs.INITIAL_WEIGHTS}."
    metadata = runs.read_metadata(folder) if (folder / runs.METADATA).exists() else {}
    return {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}


def _planned(setup: RunSetup, checkpoint: Checkpoint | None) -> tuple[lr_plan.Plan, str | None]:
    """Plan the learning rate from where the run stands to its end, and say what changes."""
    if checkpoint is None:
        return lr_plan.whole(setup.total_steps), None
    config, before = setup.config, checkpoint.plan
    records = runs.read_metadata(setup.folder) if (setup.folder / runs.METADATA).exists() else {}
    recorded = lr_plan.from_records(records.get(runs.LR_PLAN))
    if before is None:  # a checkpoint of an older version: what the run's last start recorded, if that is still there
        length = records.get("total_steps")
        if not isinstance(length, int) or not 0 < length < 1 << 62:
            length = setup.total_steps
        before = recorded or lr_plan.whole(length)
    step = int(checkpoint.timestamp.batch)
    if recorded is not None and lr_plan.is_ahead(recorded, before, step, setup.total_steps):
        return recorded, lr_plan.change_line(before, recorded, config.optim)
    plan = lr_plan.extend(before, step, setup.total_steps, config.train.more_lr, config.optim)
    return plan, lr_plan.change_line(before, plan, config.optim)


def _warn_of_other_versions(setup: RunSetup) -> None:
    """Log which packages have other versions than when the run was last started; on rank 0."""
    if not (setup.folder / runs.METADATA).is_file():
        return
    prefix = "versions."
    metadata = runs.read_metadata(setup.folder)
    before = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
    if (changes := version_changes(before, versions())) is not None:
        log.warning("%s: %s", setup.run_name, changes)


def _open_folder(setup: RunSetup, lock: RunLock) -> None:
    """Make the folder and lock it, or check that the run in it is the one asked for.

    Where it is missing, and the run's checkpoints are on S3, what goes with them is fetched first. A run that has never
    saved a checkpoint does not keep others from beginning anew in its folder.
    """
    config, folder, remote = setup.config, setup.folder, remote_folder(setup.config)
    if config.evaluate and remote is None and not (folder / runs.CONFIG).exists():
        raise InputError(f"evaluate=true: there is no run in {folder}; give the run_name of one, or train it first.")
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")} if folder.exists() else set()
    # One record alone is what a start left that was killed at once.
    others = {name for name in names if not name.startswith(runs.EARLIER)} - {*runs.RECORDS, runs.STOP, runs.MORE}
    if not set(runs.RECORDS) <= names and others:
        raise InputError(f"run_name={setup.run_name}: {folder} holds something that is no run; choose another name.")
    if remote is not None and not set(runs.RECORDS) <= names:
        _fetch_records(remote, setup)
    given = [local_folder(config, folder)] if config.checkpoint.folder is not None and remote is None else []
    for place in [folder, *given]:
        place.mkdir(parents=True, exist_ok=True)
        lock.acquire(place, setup.run_name)
    try:
        if all(os.path.lexists(folder / name) for name in runs.RECORDS):
            _check_or_set_aside(setup)
    except InputError:
        lock.post_close()
        raise
    for path in folder.glob(runs.ERROR_OF_RANK + "*"):  # of a start that failed
        path.unlink()


def _check_or_set_aside(setup: RunSetup) -> None:
    """Compare the run in the folder with the one asked for; if it differs and has never saved, set its records aside.

    Raises:
        InputError: it differs, and has saved checkpoints.
    """
    folder = setup.folder
    try:
        check_records(setup, folder)
    except InputError:
        if has_saved(setup.config, folder):
            raise
        numbered = (folder / f"{runs.EARLIER}{number}" for number in count(1))
        kept = next(place for place in numbered if not os.path.lexists(place))
        kept.mkdir()
        for name in (*runs.UPLOADED[::-1], runs.TENSORBOARD, runs.WANDB):
            if os.path.lexists(folder / name):
                (folder / name).rename(kept / name)
        log.warning(
            "%s: begins anew, with other settings than a run that was begun here and never saved a checkpoint; its "
            "records are kept in %s.",
            *(setup.run_name, kept),
        )


def _fetch_records(remote: S3Folder, setup: RunSetup) -> None:
    """Download what a run's folder held when its newest checkpoint was uploaded, if there is one.

    The first record comes last: a folder without it is fetched again.
    """
    stored = remote.sizes()
    if not newest_first(stored):
        return
    folder, fetching = setup.folder, setup.folder / runs.FETCHING
    shutil.rmtree(fetching, ignore_errors=True)
    fetching.mkdir(parents=True)
    names = [name for name in runs.UPLOADED if name in stored]
    try:
        for name in names:
            remote.download(name, fetching / name)
        if set(runs.RECORDS) <= set(names):
            check_records(setup, fetching)
        for name in sorted(names, key=lambda name: name == runs.RECORDS[0]):
            (fetching / name).replace(folder / name)
    finally:
        shutil.rmtree(fetching)
        if not any(folder.iterdir()):
            folder.rmdir()


def _write_records(config: TrainConfig, metadata: dict[str, Any], folder: Path) -> None:
    if dist.get_global_rank() == 0:
        write_atomically(folder / runs.CONFIG, OmegaConf.to_yaml(OmegaConf.structured(config)))
        write_atomically(folder / runs.METADATA, json.dumps(metadata, indent=2) + "\n")
    dist.barrier()


def _with_more(config: TrainConfig, folder: Path, reached: Timestamp | None) -> TrainConfig:
    """Set max_duration as far beyond where the run stands as train.more says.

    The same train.more again, before that end is reached, is the start after an interruption, and keeps the end.
    """
    more = config.train.more
    if more is None:
        return config
    number, unit = parse_duration(more)

    def decide() -> str:
        path = folder / runs.MORE
        asked = _read_more(path) if path.exists() else {}
        if asked.get("more") != more or asked["reached"]:
            stands = int(reached.get(unit)) if reached is not None else 0
            asked = {"more": more, "until": f"{stands + number}{unit}", "reached": False}
            write_atomically(path, json.dumps(asked) + "\n")
        return asked["until"]

    return replace(config, max_duration=on_rank_0(decide))


def write_more_reached(folder: Path) -> None:
    """Record, on rank 0, that what train.more asked for is reached."""
    path = folder / runs.MORE
    if dist.get_global_rank() == 0 and path.exists():
        write_atomically(path, json.dumps(_read_more(path) | {"reached": True}) + "\n")


def _read_more(path: Path) -> dict[str, Any]:
    """Read what train.more asked for; InputError if the file is damaged, because only it says where the end is."""
    asked = runs.read_object(path)
    try:
        parse_duration(asked["more"])
        parse_duration(asked["until"])
        if type(asked["reached"]) is bool:
            return asked
    except (KeyError, TypeError, InputError):
        pass
    raise InputError(f"{path} is damaged; remove it, and train.more counts from where the run stands.")


def write_finished(folder: Path, step: int) -> None:
    """Record, on rank 0, that the run has come to its end at a step, with all that belongs to it."""
    if dist.get_global_rank() == 0:
        write_atomically(folder / runs.FINISHED, json.dumps({"step": step}) + "\n")


def remove_finished(folder: Path) -> None:
    """Forget, on rank 0, an earlier end of a run that is going to be trained further."""
    if dist.get_global_rank() == 0:
        (folder / runs.FINISHED).unlink(missing_ok=True)
