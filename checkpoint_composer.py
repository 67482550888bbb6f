"""What makes resuming exact and safe: the guard on a run's settings, the random state, the number of checkpoints."""

import fcntl
import json
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from composer import Trainer
from composer.callbacks import CheckpointSaver
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import create_interval_scheduler, dist, reproducibility
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from config import CheckpointConfig, InputError, TrainConfig, flatten, plain_duration

FILENAME = "ep{epoch}-ba{batch}-rank{rank}.pt"
"""Name of a checkpoint: epochs and optimizer steps made."""

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
)
"""Keys, or groups of keys, that may differ when a run goes on; a resume that changes any other is refused."""


def check_resume(config: TrainConfig, metadata: dict[str, Any], folder: Path) -> None:
    """Refuse to go on with a run whose model, data, tokenizer, optimizer or seed are not the ones asked for.

    Args:
        config: the config asked for, complete.
        metadata: data_fingerprint and tokenizer_fingerprint, as metadata.json will hold them.
        folder: the run's folder, with the config.yaml and the metadata.json that it was begun with.
    """
    try:
        old = flatten(dict(OmegaConf.load(folder / "config.yaml")))
        old_metadata = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    except (ValueError, YAMLError, OmegaConfBaseException) as error:
        raise InputError(
            f"run_name={config.run_name}: config.yaml or metadata.json in {folder} is damaged ({error}); mend it, or "
            "choose another run_name."
        ) from error
    new = flatten(asdict(config))
    differing = [
        f"{key}={new.get(key)} (the run has {old.get(key)})"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and key not in MAY_CHANGE and key.split(".")[0] not in MAY_CHANGE
    ]
    differing += [
        f"{key}={metadata[key]} (the run has {old_metadata.get(key)})"
        for key in ("data_fingerprint", "tokenizer_fingerprint")
        if metadata[key] != old_metadata.get(key)
    ]
    if differing:
        raise InputError(
            f"run_name={config.run_name} cannot go on with other settings: {'; '.join(differing)}. "
            f"Give the old values, or another run_name, or delete {folder}."
        )


class RunLock(Callback):
    """Keep other processes out of a run's folder until training ends; a killed process lets go by itself.

    Args:
        folder: the run's folder.
        run_name: its name, for the message. InputError if another process trains it.
    """

    def __init__(self, folder: Path, run_name: str) -> None:
        self.descriptor: int | None = None
        if dist.get_global_rank() != 0:
            return
        descriptor = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise InputError(
                f"run_name={run_name} is being trained by another process; wait for it, or choose another run_name."
            ) from None
        self.descriptor = descriptor

    def post_close(self) -> None:
        """Let go."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


class RestoreRandomState(Callback):
    """Restore the random state of a checkpoint saved in the middle of an epoch.

    Composer 0.32.1 does so while it skips the batches already seen, which is not done where the dataset skips them
    itself (https://github.com/mosaicml/composer, trainer.py, `_train_loop`); then dropout differs from the first
    resumed step. Reads the private `Trainer._rng_state`. Delete with a Composer that restores it there.
    """

    def __init__(self) -> None:
        self.trainer: Trainer | None = None

    def fit_start(self, state: State, logger: Logger) -> None:
        """Restore it before the first step."""
        if self.trainer is not None and self.trainer._rng_state is not None:
            reproducibility.load_rng_state(self.trainer._rng_state)
            self.trainer._rng_state = None


class KeepNewest(Callback):
    """Delete all but the newest checkpoints after each one that is saved.

    Composer's own num_checkpoints_to_keep forgets, at a resume, those saved before.

    Args:
        saver: what saves them; it must come before this among the callbacks.
        keep: number of checkpoints that stay; -1 for all.
    """

    def __init__(self, saver: CheckpointSaver, keep: int) -> None:
        self.saver = saver
        self.keep = keep
        self.saved_at = saver.last_checkpoint_batch

    def batch_checkpoint(self, state: State, logger: Logger) -> None:
        """Delete after a save at a step."""
        self._prune()

    def epoch_checkpoint(self, state: State, logger: Logger) -> None:
        """Delete after a save at the end of an epoch."""
        self._prune()

    def _prune(self) -> None:
        if self.saver.last_checkpoint_batch != self.saved_at and dist.get_global_rank() == 0:
            self.saved_at = self.saver.last_checkpoint_batch
            prune_checkpoints(Path(self.saver.folder), self.keep)


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints of a folder; -1 keeps all."""
    saved = [(int(match[1]), path) for path in folder.glob("*.pt") if (match := re.search(r"-ba(\d+)-", path.name))]
    newest_last = [path for _, path in sorted(saved)]
    for path in newest_last[:-keep] if keep > 0 else []:
        path.unlink()


def build_savers(config: CheckpointConfig) -> list[Callback]:
    """Make what saves the checkpoints to resume from, deletes old ones, and saves backups, which stay."""
    folder = str(config.folder)
    saver = CheckpointSaver(
        folder, FILENAME, save_interval=plain_duration(config.interval), overwrite=True, num_checkpoints_to_keep=-1
    )
    savers: list[Callback] = [saver, KeepNewest(saver, config.keep)]
    if config.backup_interval is not None:
        is_due = create_interval_scheduler(plain_duration(config.backup_interval), include_end_of_training=False)
        backups = str(Path(folder, "backups"))
        savers.append(CheckpointSaver(backups, FILENAME, latest_filename=None, save_interval=is_due, overwrite=True))
    return savers
