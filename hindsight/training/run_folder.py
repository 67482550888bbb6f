"""A run's folder: whose it is, what it was begun with, who trains it, and how far it is to go."""

import fcntl
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from composer.core import Callback, Timestamp
from composer.utils import dist
from omegaconf import OmegaConf

from hindsight.config.keys import flatten
from hindsight.config.training import TrainConfig
from hindsight.durations import parse_duration
from hindsight.errors import InputError
from hindsight.files import write_atomically
from hindsight.interrupts import STOP_NAME
from hindsight.ranks import TOLD, on_rank_0
from hindsight.s3 import Folder
from hindsight.training.checkpoint_files import RECORDS, WITH_CHECKPOINTS, local_folder, newest_first, remote_folder

MAY_CHANGE = (
    "max_duration",
    "eval_interval",
    "eval_batches",
    "log_interval",
    "runs_dir",
    "data.path",  # the fingerprints of the data and of the tokenizer are compared instead
    "data.val_path",
    "data.tokenizer",
    "data.num_workers",
    "data.cache_dir",
    "data.cache_limit",
    "data.download_retry",
    "data.download_timeout_s",
    "microbatch_size",
    "compile",
    "activation_checkpointing",
    "metrics",
    "checkpoint",
    "wandb",
    "tensorboard",
    "samples",
    "progress_bar",
    "sanity_check",
    "train",
)
"""Keys, or groups of keys, that may differ when a run goes on; a resume that changes any other is refused."""


FINGERPRINTS = ("data_fingerprint", "tokenizer_fingerprint")
"""Of metadata.json, what must not change."""
FETCHING = ".fetching"
"""Folder in a run's folder for the records that are being fetched."""
MORE_NAME = "more.json"
"""Says in a run's folder what train.more asked for, up to where, and whether that was reached."""


def guarded(config: dict[str, Any], metadata: dict[str, Any]) -> dict[str, Any]:
    """Pick what must not change while a run goes on, by its full key."""
    kept = {k: v for k, v in flatten(config).items() if k not in MAY_CHANGE and k.split(".")[0] not in MAY_CHANGE}
    return kept | {key: metadata.get(key) for key in FINGERPRINTS}


def check_resume(run_name: str | None, new: dict[str, Any], old: dict[str, Any], where: str) -> None:
    """Refuse to go on with a run whose model, data, tokenizer, optimizer or seed are not the ones asked for.

    Args:
        run_name: the run, for the message.
        new: what is asked for, as `guarded` gives it.
        old: what the run was begun with.
        where: what holds it, for the message.
    """
    differing = [
        f"{key}={new.get(key)} (the run has {old.get(key)})"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    if differing:
        raise InputError(
            f"run_name={run_name} cannot go on from {where} with other settings: {'; '.join(differing)}. Give the old "
            "values, or another run_name and checkpoint.folder."
        )


def check_records(config: TrainConfig, settings: dict[str, Any], folder: Path) -> None:
    """Compare a run with the config.yaml and the metadata.json in a folder; InputError if they are damaged."""
    try:
        # By yaml alone: OmegaConf would put variables of the environment in, where the file asks for them.
        old_config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        old = guarded(old_config, json.loads((folder / "metadata.json").read_text(encoding="utf-8")))
    except (ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise InputError(
            f"run_name={config.run_name}: config.yaml or metadata.json in {folder} is damaged ({error}); mend it, or "
            "choose another run_name."
        ) from error
    check_resume(config.run_name, settings, old, str(folder))


class RunLock(Callback):
    """Keep other processes out of a run's folders until training ends; a killed process lets go by itself."""

    def __init__(self) -> None:
        self.descriptors: list[int] = []

    def take(self, folder: Path, run_name: str | None) -> None:
        """Lock a folder; InputError if another process has."""
        descriptor = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock's, not inherited by forked readers
        except OSError:
            os.close(descriptor)
            raise InputError(
                f"run_name={run_name} is being trained by another process, which uses {folder}; wait for it, or choose "
                "another run_name and checkpoint.folder."
            ) from None
        self.descriptors.append(descriptor)

    def post_close(self) -> None:
        """Let go."""
        while self.descriptors:
            os.close(self.descriptors.pop())


def open_run_folder(config: TrainConfig, folder: Path, settings: dict[str, Any]) -> RunLock:
    """Make the run's folder, or check that the run in it is the one asked for, and lock it.

    Where it is missing, and the run's checkpoints are on S3, what goes with them is fetched first.
    """
    lock, remote = RunLock(), remote_folder(config)

    def open_it() -> None:
        names = {path.name for path in folder.iterdir() if not path.name.startswith(".")} if folder.exists() else set()
        # One record alone is what a start left that was killed at once.
        if not set(RECORDS) <= names and names - {*RECORDS, STOP_NAME, MORE_NAME}:
            raise InputError(
                f"run_name={config.run_name}: {folder} holds something that is no run; choose another name."
            )
        if remote is not None and not set(RECORDS) <= names:
            fetch_records(remote, folder, config, settings)
        if all((folder / name).exists() for name in RECORDS):
            check_records(config, settings, folder)
        given = [local_folder(config, folder)] if config.checkpoint.folder is not None and remote is None else []
        for place in [folder, *given]:
            place.mkdir(parents=True, exist_ok=True)
            lock.take(place, config.run_name)
        for path in folder.glob(TOLD + "*"):  # of a start that failed
            path.unlink()

    on_rank_0(open_it)
    return lock


def fetch_records(remote: Folder, folder: Path, config: TrainConfig, settings: dict[str, Any]) -> None:
    """Bring back what a run's folder held when its newest checkpoint was uploaded, if there is one.

    The first record comes last: a folder without it is fetched again.
    """
    stored = remote.sizes()
    if not newest_first(stored):
        return
    fetching = folder / FETCHING
    shutil.rmtree(fetching, ignore_errors=True)
    fetching.mkdir(parents=True)
    names = [name for name in WITH_CHECKPOINTS if name in stored]
    try:
        for name in names:
            remote.download(name, fetching / name)
        if set(RECORDS) <= set(names):
            check_records(config, settings, fetching)
        for name in sorted(names, key=lambda name: name == RECORDS[0]):
            (fetching / name).replace(folder / name)
    finally:
        shutil.rmtree(fetching)
        if not any(folder.iterdir()):
            folder.rmdir()


def write_records(config: TrainConfig, metadata: dict[str, Any], folder: Path) -> None:
    """Write config.yaml and metadata.json into the run's folder."""
    if dist.get_global_rank() == 0:
        texts = OmegaConf.to_yaml(OmegaConf.structured(config)), json.dumps(metadata, indent=2) + "\n"
        for name, text in zip(RECORDS, texts, strict=True):
            write_atomically(folder / name, text)
    dist.barrier()


def with_more(config: TrainConfig, folder: Path, reached: Timestamp | None) -> TrainConfig:
    """Set max_duration as far beyond where the run stands as train.more says.

    The same train.more again, before that end is reached, is the start after an interruption, and keeps the end.
    """
    more = config.train.more
    if more is None:
        return config
    number, unit = parse_duration(more)

    def decide() -> str:
        path = folder / MORE_NAME
        asked = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if asked.get("more") != more or asked["reached"]:
            stands = int(reached.get(unit)) if reached is not None else 0
            asked = {"more": more, "until": f"{stands + number}{unit}", "reached": False}
            write_atomically(path, json.dumps(asked) + "\n")
        return asked["until"]

    return replace(config, max_duration=on_rank_0(decide))


def note_end(folder: Path) -> None:
    """Note that what train.more asked for is reached, with all that belongs to it."""
    path = folder / MORE_NAME
    if dist.get_global_rank() == 0 and path.exists():
        asked = json.loads(path.read_text(encoding="utf-8"))
        write_atomically(path, json.dumps(asked | {"reached": True}) + "\n")
