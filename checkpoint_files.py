"""Checkpoints as files, here and on S3: which there are, whether one can be read, which one a run goes on from.

They are read with PyTorch's unpickler for weights, which runs nothing that a file holds: importing this module sets
TORCH_FORCE_WEIGHTS_ONLY_LOAD for the whole process, because Composer 0.32.1 loads with weights_only=False
(https://github.com/mosaicml/composer, composer/utils/checkpoint.py; its commit 640518880 closes that). Delete with a
Composer that has it.
"""

import json
import logging
import os
import re
import zipfile
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from composer.core import Timestamp
from composer.utils import dist
from numpy._core.multiarray import _reconstruct  # pyright: ignore[reportAttributeAccessIssue]
from torch.torch_version import TorchVersion

from config import InputError, TrainConfig
from object_store import Folder

log = logging.getLogger("hindsight")

os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
NUMPY_DTYPES = {type(np.dtype(kind)) for kind in np.typecodes["All"]}
torch.serialization.add_safe_globals([timedelta, TorchVersion, np.ndarray, np.dtype, _reconstruct, *NUMPY_DTYPES])

NAME = re.compile(r"ep\d+-ba(\d+)-rank0\.pt")
"""Name of a checkpoint: epochs and optimizer steps made."""
SAVING = ".saving-"
"""Begins the name of one that is being written or fetched."""
DAMAGED = ".damaged"
"""Ends the name of one that was set aside."""
BACKUPS = "backups"
"""Folder of those that stay, in that of the others."""
NEWEST_NAME = "newest_checkpoint.json"
"""Says in a run's folder which was saved last: a run that has one never begins at step 0 again."""
RECORDS = ("config.yaml", "metadata.json")
"""What a run's folder holds from its first start on."""
WITH_CHECKPOINTS = (*RECORDS, "more.json", "metrics.jsonl", "samples.jsonl")
"""What goes to S3 with each checkpoint, so that a run goes on where its folder is missing."""
MOST_WAITING = 2
"""Checkpoints that may wait for their upload before training waits for them."""


def checkpoints_in(folder: Path) -> list[Path]:
    """Complete checkpoints of a folder, the newest first."""
    return [folder / name for name in newest_first(path.name for path in folder.glob("*.pt"))]


def newest_first(names: Iterable[str]) -> list[str]:
    """Pick the names of checkpoints, and sort them by their step."""
    return sorted((name for name in names if NAME.fullmatch(name)), key=step_of, reverse=True)


def step_of(name: str) -> int:
    """Step of a checkpoint, by its name."""
    match = NAME.fullmatch(name)
    assert match is not None
    return int(match[1])


def outdated(names: Iterable[str], newest: str, keep: int) -> list[str]:
    """Names of the checkpoints to delete when one has been saved: all but the newest `keep`; -1 keeps all.

    One of a later step, which could not be read when the run went on, is not counted, and stays.
    """
    return [name for name in newest_first(names) if step_of(name) <= step_of(newest)][keep:] if keep > 0 else []


def read_timestamp(path: Path) -> Timestamp:
    """Check a checkpoint by its checksums, and read how far it is, without running what else it may hold.

    Raises:
        ValueError: it is cut, damaged, or holds more than numbers and tensors.
        OSError: it cannot be read now.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if (bad := archive.testzip()) is not None:
                raise ValueError(f"{bad} does not have its checksum")
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        timestamp = Timestamp()
        timestamp.load_state_dict(content["state"]["timestamp"]["Timestamp"])
        if not content["rng"]:
            raise ValueError("it has no random state")
    except OSError:
        raise
    except Exception as error:  # whatever a damaged file makes of zipfile, pickle and torch
        raise ValueError(str(error).strip().split("\n")[0] or type(error).__name__) from error
    return timestamp


def choose_checkpoint(config: TrainConfig, run_folder: Path) -> tuple[Path, Timestamp] | None:
    """Give the newest checkpoint that can be read, and how far it is; None for a run that has never saved one.

    Those that are damaged are set aside under another name. All processes get the same answer; where a node does not
    share the folder of rank 0, the file is fetched to it from S3.

    Raises:
        InputError: the run has saved checkpoints, and none can be read.
    """
    answer: list[Any] = [None, None]
    if dist.get_global_rank() == 0:
        try:
            answer[0] = _choose(config, run_folder)
        except (InputError, OSError) as error:
            answer[1] = str(error)
    dist.broadcast_object_list(answer)
    if answer[1] is not None:
        raise InputError(answer[1])
    if answer[0] is not None and dist.get_local_rank() == 0 and not answer[0][0].exists():
        remote = remote_folder(config)
        if remote is None:
            raise InputError(
                f"checkpoint.folder: {answer[0][0]} is not seen from here; give a folder that all nodes share."
            )
        fetch(remote, answer[0][0].name, answer[0][0])
    dist.barrier()
    return answer[0]


def _choose(config: TrainConfig, run_folder: Path) -> tuple[Path, Timestamp] | None:
    folder, remote = local_folder(config, run_folder), remote_folder(config)
    for path in folder.rglob(SAVING + "*"):  # of a process that was killed
        path.unlink()
    local = {path.name: path for path in [*checkpoints_in(folder / BACKUPS), *checkpoints_in(folder)]}
    stored = newest_first(remote.sizes()) if remote is not None else []
    names = newest_first({*local, *stored})
    for name in names:
        if name in local:
            try:
                return local[name], read_timestamp(local[name])
            except ValueError as error:
                set_aside(local[name], error)
        if remote is not None and name in stored:
            fetch(remote, name, folder / name)
            try:
                return folder / name, read_timestamp(folder / name)
            except ValueError as error:
                (folder / name).unlink()
                log.warning("%s/%s cannot be used (%s); the one before is taken.", remote.url, name, error)
    newest = run_folder / NEWEST_NAME
    if names or newest.exists():
        place = remote.url if remote is not None else folder
        told = f" {newest.name} knows of {json.loads(newest.read_text())['path']}." if newest.exists() else ""
        raise InputError(
            f"run_name={config.run_name} has saved checkpoints, and none in {place} can be read.{told} Put one back, "
            f"give the checkpoint.folder they are in, or begin anew by deleting {run_folder} or with another run_name."
        )
    return None


def set_aside(path: Path, reason: Exception) -> None:
    """Keep a damaged checkpoint under another name."""
    kept = path.with_name(path.name + DAMAGED)
    path.replace(kept)
    log.warning("%s cannot be used (%s); it is kept as %s, and the one before is taken.", path, reason, kept.name)


def fetch(remote: Folder, name: str, path: Path) -> None:
    """Download a checkpoint, so that it appears as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(SAVING + path.name)
    remote.download(name, hidden)
    hidden.replace(path)


def local_folder(config: TrainConfig, run_folder: Path) -> Path:
    """Folder of the checkpoints on this machine; with those on S3, of the newest ones."""
    given = config.checkpoint.folder
    return run_folder / "checkpoints" if given is None or "://" in given else Path(given)


def remote_folder(config: TrainConfig) -> Folder | None:
    """Place of the checkpoints on S3; None if they are here."""
    given = config.checkpoint.folder
    return Folder(given, "checkpoint.folder") if given is not None and "://" in given else None


def fetch_records(remote: Folder, run_folder: Path) -> None:
    """Bring back, on rank 0, what a run's folder held when its newest checkpoint was uploaded, if there is one."""
    if dist.get_global_rank() == 0:
        stored = remote.sizes()
        if newest_first(stored):
            run_folder.mkdir(parents=True, exist_ok=True)
            for name in WITH_CHECKPOINTS:
                if name in stored:
                    remote.download(name, run_folder / name)
    dist.barrier()


class Uploads:
    """Copies checkpoints to S3 beside training, each with the run's records, and deletes old ones there.

    A failed upload does not end the run: the file is here, and the next attempt is made with the next checkpoint.

    Args:
        remote: where to.
        run_folder: the run's folder.
    """

    def __init__(self, remote: Folder, run_folder: Path) -> None:
        self.remote, self.run_folder = remote, run_folder
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="uploads")
        self.waiting: list[Future[None]] = []
        self.failed: Exception | None = None
        self.closed = False

    def add(self, path: Path, keep: int) -> None:
        """Upload a checkpoint, after those that wait.

        Args:
            path: the file.
            keep: number of newest ones that stay beside it; -1 for all.
        """
        self.waiting = [future for future in self.waiting if not future.done()]
        if len(self.waiting) >= MOST_WAITING:
            self.waiting.pop(0).result()
        self.waiting.append(self.pool.submit(self._upload, path, keep))

    def close(self) -> None:
        """Wait for all of them, and for the records as they are now."""
        if not self.closed:
            self.closed = True
            self.pool.submit(self._upload, None, -1)
            self.pool.shutdown()

    def check(self) -> None:
        """Raise InputError if the newest could not be uploaded."""
        if self.failed is not None:
            raise InputError(
                f"{self.remote.key}={self.remote.url}: the newest checkpoint could not be uploaded ({self.failed}); it "
                f"is in {self.run_folder}, and the same command uploads it."
            )

    def _upload(self, path: Path | None, keep: int) -> None:
        try:
            for record in WITH_CHECKPOINTS:
                if (self.run_folder / record).exists():
                    self.remote.upload(self.run_folder / record, record)
            if path is None:
                return
            self.remote.upload(path, f"{BACKUPS}/{path.name}" if path.parent.name == BACKUPS else path.name)
            for old in outdated(self.remote.sizes(), path.name, keep):
                self.remote.delete(old)
            self.failed = None
        except FileNotFoundError:  # deleted meanwhile, because newer ones are here
            return
        except Exception as error:  # botocore's errors have no common ancestor
            self.failed = error
            log.warning("Upload to %s failed (%s); training goes on.", self.remote.url, error)
