"""Bytes that a run writes: its checkpoints, as PyTorch stores them, its weights, and a line a step.

A checkpoint holds the weights and the two running means of AdamW for each that is trained, or the one of Muon, in
float32, all in a zip archive, and beside them what is small: names, settings, random states. Two tensors that are one,
as of a tied head, are stored once.
"""

import os
from pathlib import Path
from typing import NamedTuple

from hindsight.config.training import TrainConfig
from hindsight.training.course import Course

FLOAT_BYTES = 4
ADAMW_MEANS = 2
"""Numbers that AdamW keeps for each parameter."""
ADAMW_ENTRIES = ADAMW_MEANS + 1
"""Tensors of a checkpoint for each that is trained, beside itself: its means, and the number of its updates."""
MUON_MEANS = MUON_ENTRIES = 1
"""The same of what Muon updates."""
ENTRY_BYTES = 313
"""Of the archive, for each tensor: its name, place and checksum, and the zeros that align it."""
BASE_BYTES = 14_000
"""Of a checkpoint, beside its tensors."""
LINE_BYTES = 400
"""Of a line of metrics.jsonl."""


def weights_bytes(n_parameters: int) -> int:
    """Bytes of all weights, as in model.safetensors."""
    return FLOAT_BYTES * n_parameters


def state_bytes(n_parameters: int, n_trained: int, n_by_muon: int = 0) -> int:
    """Bytes of the tensors of a checkpoint; no checkpoint is smaller.

    Args:
        n_parameters: all of the model.
        n_trained: those of them that are trained.
        n_by_muon: those of them that Muon updates; the others are AdamW's.
    """
    return FLOAT_BYTES * (n_parameters + ADAMW_MEANS * (n_trained - n_by_muon) + MUON_MEANS * n_by_muon)


def checkpoint_bytes(whole: tuple[int, int], trained: tuple[int, int], by_muon: tuple[int, int] = (0, 0)) -> int:
    """Bytes of a checkpoint, to a few thousand.

    Args:
        whole: parameters of the model, and the tensors that they are.
        trained: those of them that are trained.
        by_muon: those of them that Muon updates; the others are AdamW's.
    """
    n_parameters, n_trained, n_by_muon = (numbers for numbers, _ in (whole, trained, by_muon))
    n_tensors, n_trained_tensors, n_matrices = (tensors for _, tensors in (whole, trained, by_muon))
    entries = n_tensors + ADAMW_ENTRIES * (n_trained_tensors - n_matrices) + MUON_ENTRIES * n_matrices
    return state_bytes(n_parameters, n_trained, n_by_muon) + entries * ENTRY_BYTES + BASE_BYTES


class Added(NamedTuple):
    """Checkpoints that a run adds to those that are there.

    Args:
        most: most of them that lie there at once; an older one is deleted only when the new one is complete.
        at_end: those that are left at the end.
        backups: those that are kept for ever, beside them.
    """

    most: int
    at_end: int
    backups: int


def added(config: TrainConfig, course: Course, step: int = 0, existing: int = 0) -> Added:
    """Count the checkpoints that a run adds until its end; one is also saved before every evaluation.

    Args:
        config: the run.
        course: how long it is.
        step: where it goes on; 0 for a new run.
        existing: checkpoints that are there, without backups.
    """
    keep, backup_interval = config.checkpoint.keep, config.checkpoint.backup_interval
    saves = len(course.steps_at(config.checkpoint.interval, config.eval_interval, with_last=True, after=step))
    backups = len(course.steps_at(backup_interval, after=step)) if backup_interval is not None else 0
    if keep == -1:
        return Added(saves, saves, backups)
    most = min(existing + saves, max(keep, existing) + 1)
    return Added(most - existing, min(existing + saves, keep) - existing, backups)


def free_bytes(folder: Path, with_reserved: bool = False) -> int | None:
    """Bytes that can be written into a folder, which may not be there yet; None where that is not known.

    Args:
        folder: the folder.
        with_reserved: whether those count that a file system reserves for root.
    """
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    try:
        found = os.statvfs(there)
    except OSError:
        return None
    blocks = found.f_bfree if with_reserved else found.f_bavail
    return blocks * found.f_frsize if found.f_blocks else None  # some file systems know no size
