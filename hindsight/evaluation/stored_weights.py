"""Which checkpoint of a run is evaluated, here or on S3, and its weights. Nothing in the run's folder is changed.

Where a run goes on, damaged checkpoints are renamed (training/checkpoint_files.py); here they are only passed over.
"""

import hashlib
import logging
import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hindsight import runs
from hindsight.config.evaluation import BACKUP, NEWEST
from hindsight.errors import InputError
from hindsight.evaluation.trained_run import TrainedRun
from hindsight.ranks import on_rank_0, send_weights
from hindsight.training.checkpoint_content import plain_name
from hindsight.training.checkpoint_files import (
    checkpoints_in,
    read_checkpoint,
    remote_name,
    step_of,
)
from hindsight.training.checkpoint_pickle import DamagedError
from hindsight.training.setup import local_folder

log = logging.getLogger("hindsight")

LISTED_STEPS = 20
"""Most steps that a message lists."""


@dataclass(frozen=True, order=True)
class Candidate:
    """A checkpoint that may be evaluated; of the same step, what is here before what is on S3, backups last."""

    step: int
    is_here: bool
    is_newest_kept: bool
    path: Path


@dataclass(frozen=True)
class StoredWeights:
    """A checkpoint that was read and is intact.

    Args:
        path: its file on the machine of rank 0.
        step: optimizer steps that its run had made.
        fingerprint: hash of what it holds.
        state: the weights by name, mapped into memory on rank 0: the file may be deleted by a run that goes on.
    """

    path: Path
    step: int
    fingerprint: str
    state: dict[str, torch.Tensor] | None = None

    def load(self, model: nn.Module) -> None:
        """Give a model these weights, on all ranks; InputError if they are those of another."""
        on_rank_0(lambda: self._load(model))
        send_weights(model)

    def _load(self, model: nn.Module) -> None:
        assert self.state is not None
        try:
            model.load_state_dict({plain_name(name): weight for name, weight in self.state.items()})
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"{self.path} does not hold the weights of the model in {runs.CONFIG} ({reason})."
            ) from None


@contextmanager
def chosen_weights(run: TrainedRun, wanted: str) -> Iterator[StoredWeights]:
    """Choose a checkpoint; one that is only on S3 is kept here while it is used.

    Args:
        run: the run.
        wanted: newest, backup, or a step.

    Raises:
        InputError: the run has no such checkpoint, or none that is intact.
    """
    states: list[dict[str, torch.Tensor]] = []

    def choose() -> StoredWeights:
        found = _choose(run, wanted, Path(folder))
        states.append(torch.load(found.path, map_location="cpu", weights_only=True, mmap=True)["state"]["model"])
        return found

    with tempfile.TemporaryDirectory() as folder:
        found = on_rank_0(choose)
        yield replace(found, state=states[0]) if states else found


def _choose(run: TrainedRun, wanted: str, folder: Path) -> StoredWeights:
    found = sorted(_candidates(run), reverse=True)
    kept = [each for each in found if wanted != BACKUP or not each.is_newest_kept]
    chosen = [each for each in kept if wanted in (NEWEST, BACKUP) or each.step == int(wanted)]
    if not chosen:
        steps = ", ".join(map(str, dict.fromkeys(each.step for each in found[:LISTED_STEPS])))
        if not found:
            raise InputError(f"{run.where} has no checkpoint to evaluate; train it first.")
        if wanted == BACKUP:
            raise InputError(f"checkpoint=backup: {run.where} has no backup, but checkpoints of the steps {steps}.")
        raise InputError(f"checkpoint={wanted}: {run.where} has no such step, but {steps}; choose one of them.")
    for candidate in chosen:
        try:
            return _read(run, candidate, folder)
        except DamagedError as error:
            log.warning("%s cannot be used (%s).", candidate.path, error)
    raise InputError(f"checkpoint={wanted}: none of {run.where} that this means is intact; choose another.")


def _candidates(run: TrainedRun) -> Iterator[Candidate]:
    place = local_folder(run.config, run.folder) if run.folder is not None else Path()
    for folder in (place, place / runs.BACKUPS) if run.folder is not None else ():
        for path in checkpoints_in(folder):
            yield Candidate(step_of(path.name), True, folder == place, path)
    for name in run.remote.sizes() if run.remote is not None else ():
        folder, _, file = name.rpartition("/")
        if runs.CHECKPOINT_NAME.fullmatch(file) and folder in ("", runs.BACKUPS):
            yield Candidate(step_of(file), False, folder == "", Path(folder, file))


def _read(run: TrainedRun, candidate: Candidate, folder: Path) -> StoredWeights:
    """Read a checkpoint as a whole; DamagedError if it is not what its checksums say."""
    path = candidate.path
    if not candidate.is_here:
        assert run.remote is not None
        path = folder / candidate.path.name
        run.remote.download(remote_name(candidate.path), path)

    def check(content: Any, settings: dict[str, Any] | None) -> None:
        if content["state"]["timestamp"]["Timestamp"]["batch"] != candidate.step:
            raise DamagedError("its name says another step than its content")

    read_checkpoint(path, check)
    with zipfile.ZipFile(path) as archive:
        sums = repr([(os.path.basename(entry.filename), entry.CRC, entry.file_size) for entry in archive.infolist()])
    return StoredWeights(path, candidate.step, hashlib.blake2b(sums.encode(), digest_size=16).hexdigest())
