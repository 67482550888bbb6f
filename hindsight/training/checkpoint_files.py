"""Checkpoints as files, here and on S3: which there are, whether one can be read, which one a run goes on from.

A file is checked before anything loads it (checkpoint_content.py), and loaded with PyTorch's unpickler for weights,
which runs nothing that a file holds; `load_weights_only` sets that for the process.
"""

import errno
import logging
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import torch
from composer.core import Timestamp
from torch import nn
from torch.torch_version import TorchVersion

from hindsight import runs
from hindsight.config.training import TrainConfig
from hindsight.errors import InputError
from hindsight.files import open_regular
from hindsight.ranks import on_each_node, on_rank_0
from hindsight.s3 import S3Folder
from hindsight.training.checkpoint_content import check_for_run, check_state, read_content
from hindsight.training.checkpoint_pickle import STAND_INS, DamagedError, ForeignError
from hindsight.training.lr_plan import Plan
from hindsight.training.run_settings import check_same
from hindsight.training.setup import RunSetup, local_folder

log = logging.getLogger("hindsight")

SAVING = ".saving-"
"""Prefix of a checkpoint that is being written or downloaded."""
DAMAGED = ".damaged"
"""Suffix of a checkpoint that was set aside."""
BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, RuntimeError, LookupError)
"""Raised by zipfile for a damaged file."""
NO_FILE = (errno.EINVAL, errno.ENXIO, errno.ELOOP, errno.ENOENT, errno.ENOTDIR, errno.ENODEV)
"""Raised for a seek to before the begin of a file, and for what is none: a pipe, a folder, a link to nowhere."""
OF_THE_MACHINE = ("unable to open file", "unable to mmap", "[enforce fail at alloc_cpu")
"""How RuntimeErrors of torch.load begin where files cannot be opened or mapped, or memory runs out (torch 2.7)."""
UPLOADING = ".uploading-"
"""Prefix of a link to a checkpoint that is being uploaded."""


def load_weights_only() -> None:
    """Let torch.load of this process refuse code, and read what Composer's checkpoints hold beside tensors.

    NumPy's random state is read by stand-ins: NumPy's own functions take bytes for pointers where a file says so.

    Composer 0.32.1 loads with weights_only=False (https://github.com/mosaicml/composer, composer/utils/checkpoint.py;
    its commit 640518880 closes that, and allows NumPy's functions). Delete with one that allows none of them.
    """
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    stand_ins = [(stand_in, name) for name, stand_in in STAND_INS.items()]
    torch.serialization.add_safe_globals([timedelta, TorchVersion, *stand_ins])


def checkpoints_in(folder: Path) -> list[Path]:
    """Complete checkpoints of a folder, the newest first."""
    return [folder / name for name in newest_first(path.name for path in folder.glob("*.pt"))]


def newest_first(names: Iterable[str]) -> list[str]:
    """Select the names of checkpoints, and sort them by their step."""
    return sorted((name for name in names if runs.CHECKPOINT_NAME.fullmatch(name)), key=step_of, reverse=True)


def step_of(name: str) -> int:
    """Step of a checkpoint, by its name."""
    match = runs.CHECKPOINT_NAME.fullmatch(name)
    assert match is not None
    return int(match[1])


def outdated(names: Iterable[str], newest: str, keep: int) -> list[str]:
    """Names of the checkpoints to delete when one has been saved: all but the newest `keep`; -1 keeps all.

    A checkpoint of a later step, which could not be read when the run went on, is not counted, and stays.
    """
    return [name for name in newest_first(names) if step_of(name) <= step_of(newest)][keep:] if keep > 0 else []


def remote_name(path: Path) -> str:
    """Name on S3 of a checkpoint here."""
    return f"{runs.BACKUPS}/{path.name}" if path.parent.name == runs.BACKUPS else path.name


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read.

    Args:
        path: its file on this machine.
        timestamp: epochs, steps and tokens that its run had made.
        settings: what must not change when its run goes on; None if it is of an older version.
        plan: its learning rate; None if it is of an older version.
        size: its size in bytes.
        was_fetched: whether it was downloaded from S3.
    """

    path: Path
    timestamp: Timestamp
    settings: dict[str, Any] | None
    plan: Plan | None
    size: int
    was_fetched: bool = False


def read_checkpoint(path: Path, check: Callable[[Any, dict[str, Any] | None], None] | None = None) -> Checkpoint:
    """Verify the checksums of a checkpoint, and what it holds, without loading it.

    Args:
        path: the file.
        check: is given the content and its settings, and raises an error unless they are those of the run.

    Raises:
        DamagedError: it is no file, truncated, damaged, or holds what cannot be.
        InputError: it is intact, but holds something else than the state of a run, or cannot be read now.
    """
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            size = os.fstat(file.fileno()).st_size
            content = read_content(archive, size)
            saved = check_state(content.tree)
        _try_to_load(path)
        if check is not None:
            check(content.tree, saved.settings)
    except (DamagedError, InputError):
        raise
    except ForeignError as error:
        raise InputError(
            f"checkpoint.folder: {path} is intact, but holds what is not read ({error}): it is of another version, or "
            "malicious. Move it away to go on from the one before."
        ) from error
    except BROKEN_ZIP as error:
        raise DamagedError(str(error) or type(error).__name__) from error
    except OSError as error:
        if error.errno in NO_FILE:
            raise DamagedError(f"it cannot be read: {error.strerror}") from error
        raise InputError(f"checkpoint.folder: {path} cannot be read now ({error.strerror}).") from error
    timestamp = Timestamp()
    timestamp.load_state_dict(saved.time)
    return Checkpoint(path, timestamp, saved.settings, saved.plan, size)


def _try_to_load(path: Path) -> None:
    """Let PyTorch map the file, whose content was checked, into memory: it may ask for more than was looked at.

    Raises:
        DamagedError: it does not load the file.
        InputError: this machine cannot, as where memory or descriptors run out: the file is not at fault.
    """
    load_weights_only()
    try:
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # PyTorch's reader, its unpickler and the stand-ins raise errors of many kinds
        if isinstance(error, MemoryError | OSError) or str(error).startswith(OF_THE_MACHINE):
            raise InputError(f"checkpoint.folder: {path} cannot be read now ({one_line_of(error)}).") from error
        raise DamagedError(f"PyTorch does not load it: {type(error).__name__}") from error


def one_line_of(error: Exception) -> str:
    """Give the first line of an error, or its kind if it says nothing."""
    return str(error).partition("\n")[0] or type(error).__name__


def choose_checkpoint(setup: RunSetup, model: nn.Module) -> Checkpoint | None:
    """Find the newest checkpoint that can be read; None for a run that has never saved one.

    Damaged ones are renamed. All ranks get the same answer; to a node that does not share the folder of rank 0, the
    file is downloaded from S3.

    Args:
        setup: the run.
        model: its model, into which the checkpoint must fit.

    Raises:
        InputError: the run has saved checkpoints, and none can be read, or the newest is not one of ours.
    """
    found = on_rank_0(lambda: _choose(setup, model))
    if found is not None:
        on_each_node(lambda: _download_to_this_node(found, setup.config))
    return found


def _download_to_this_node(found: Checkpoint, config: TrainConfig) -> None:
    """Download a checkpoint that was chosen on another node, unless it is here too."""
    if found.path.exists() and found.path.stat().st_size == found.size:
        return
    remote = remote_folder(config)
    if remote is None:
        raise InputError(f"checkpoint.folder: {found.path} is not on all nodes; give a folder that they share, or S3.")
    fetch(remote, found.path)


def _choose(setup: RunSetup, model: nn.Module) -> Checkpoint | None:
    config, run_folder = setup.config, setup.folder
    folder, remote = local_folder(config, run_folder), remote_folder(config)
    for place in (folder, folder / runs.BACKUPS):
        for path in [*place.glob(SAVING + "*"), *place.glob(UPLOADING + "*")]:  # of a process that was killed
            with suppress(IsADirectoryError):  # which is not ours
                path.unlink()

    def read(path: Path) -> Checkpoint:
        def check(content: Any, settings: dict[str, Any] | None) -> None:
            if settings is not None:
                check_same(setup, settings, str(path))
            check_for_run(content, step_of(path.name), setup, model)

        return read_checkpoint(path, check)

    stored = remote.sizes() if remote is not None else {}
    local = [path for place in (folder, folder / runs.BACKUPS) for path in checkpoints_in(place)]
    # The newest first; of those of a step, what is here before what is on S3, backups last.
    here = [(step_of(path.name), 1, path.parent == folder, path) for path in local]
    there = [
        (step_of(name), 0, place == folder, place / name)
        for place, prefix in ((folder, ""), (folder / runs.BACKUPS, f"{runs.BACKUPS}/"))
        for name in newest_first(name.removeprefix(prefix) for name in stored if name.startswith(prefix))
    ]
    for _, is_here, _, path in sorted(here + there, reverse=True):
        try:
            if is_here:
                return read(path)
            if remote is not None and (found := _fetched(remote, path, read)) is not None:
                return found
        except DamagedError as error:
            set_aside(path, error)
    newest = run_folder / runs.NEWEST_CHECKPOINT
    if here or there or has_saved(config, run_folder):
        place = remote.url if remote is not None else folder
        noted = f" {newest.name} says: {runs.first_line(newest)}." if newest.exists() else ""
        raise InputError(
            f"run_name={config.run_name} has saved checkpoints, and none in {place} can be read.{noted} Put one back, "
            "give the checkpoint.folder they are in, or begin anew with another run_name and checkpoint.folder."
        )
    return None


def has_saved(config: TrainConfig, run_folder: Path) -> bool:
    """Tell whether a run has ever saved a checkpoint, also where it is gone now: such a run never begins anew."""
    folder, remote = local_folder(config, run_folder), remote_folder(config)
    names = [path.name for place in (folder, folder / runs.BACKUPS) for path in place.glob("ep*")]
    names += [name.rpartition("/")[2] for name in remote.sizes()] if remote is not None else []
    is_any = any(runs.CHECKPOINT_NAME.match(name) for name in names)
    signs = (runs.NEWEST_CHECKPOINT, runs.FINISHED, runs.WEIGHTS)
    return is_any or any(os.path.lexists(run_folder / sign) for sign in signs)


def _fetched(remote: S3Folder, path: Path, read: Callable[[Path], Checkpoint]) -> Checkpoint | None:
    """Download a checkpoint and read it; None, and nothing of it stays here, if it is damaged on S3."""
    fetch(remote, path)
    try:
        return replace(read(path), was_fetched=True)
    except DamagedError as error:
        path.unlink()
        log.warning("%s/%s cannot be used (%s); the one before is taken.", remote.url, remote_name(path), error)
        return None


def set_aside(path: Path, reason: Exception) -> None:
    """Rename a damaged checkpoint, so that it is no longer found."""
    names = (f"{path.name}{DAMAGED}{f'-{number}' if number else ''}" for number in count())
    kept = next(path.with_name(name) for name in names if not os.path.lexists(path.with_name(name)))
    path.rename(kept)
    log.warning("%s cannot be used (%s); it is kept as %s, and the one before is taken.", path, reason, kept.name)


def fetch(remote: S3Folder, path: Path) -> None:
    """Download a checkpoint; it appears atomically under its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(SAVING + path.name)
    remote.download(remote_name(path), hidden)
    hidden.replace(path)


def remote_folder(config: TrainConfig) -> S3Folder | None:
    """Folder of the checkpoints on S3; None if they are kept here only."""
    given = config.checkpoint.folder
    return S3Folder(given, "checkpoint.folder") if given is not None and "://" in given else None


def fetch_metrics(config: TrainConfig, run_folder: Path) -> None:
    """Download what was measured up to a checkpoint that came from S3: this machine's files may end earlier."""
    remote = remote_folder(config)
    assert remote is not None
    stored = remote.sizes()
    for name in set(runs.UPLOADED) - set(runs.RECORDS):
        if name in stored:
            remote.download(name, run_folder / name)
