"""What makes resuming exact: when and how checkpoints are saved, the random state, and leaving on request."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from composer import Trainer
from composer.callbacks import CheckpointSaver
from composer.core import Callback, Event, State
from composer.loggers import Logger
from composer.utils import create_interval_scheduler, dist, reproducibility

from hindsight import interrupts, runs
from hindsight.config.training import CheckpointConfig, TrainConfig
from hindsight.durations import parse_seconds, plain_duration
from hindsight.errors import DISK_FULL, InputError
from hindsight.files import sync, write_atomically
from hindsight.interrupts import Interrupted
from hindsight.training.callback_order import Phase
from hindsight.training.checkpoint_files import SAVING, outdated, remote_folder
from hindsight.training.console import progress_log
from hindsight.training.lr_plan import Plan, as_records
from hindsight.training.setup import local_folder
from hindsight.training.uploads import Uploads

FILENAME = "ep{epoch}-ba{batch}-rank{rank}.pt"
"""Name of a checkpoint: epochs and optimizer steps made."""


class RestoreRandomState(Callback):
    """Restore the random state of a checkpoint saved in the middle of an epoch.

    Composer 0.32.1 does so while it skips the batches already seen, which is not done where the dataset skips them
    itself (https://github.com/mosaicml/composer, trainer.py, `_train_loop`); then dropout differs from the first
    resumed step. Reads the private `Trainer._rng_state`. Delete with a Composer that restores it there.
    """

    phase = Phase.restore

    def __init__(self) -> None:
        self.trainer: Trainer | None = None

    def fit_start(self, state: State, logger: Logger) -> None:
        """Restore it before the first step."""
        if self.trainer is not None and self.trainer._rng_state is not None:
            reproducibility.load_rng_state(self.trainer._rng_state)
            self.trainer._rng_state = None


class AtomicSaver(CheckpointSaver):
    """Save checkpoints atomically, so that no reader ever sees half of one, and delete all but the newest.

    Composer's own saver writes in place, and its num_checkpoints_to_keep forgets, at a resume, those saved before.

    Args:
        folder: folder of the checkpoints.
        interval: steps, tokens or epochs between two.
        keep: number of newest ones that stay; -1 for all.
        uploads: copies them to S3; None for none.
        at_end: whether the last step is saved, too.
    """

    phase = Phase.save

    def __init__(self, folder: Path, interval: str, keep: int, uploads: Uploads | None, at_end: bool = False) -> None:
        self.keep, self.uploads = keep, uploads
        self.is_due = create_interval_scheduler(plain_duration(interval), include_end_of_training=at_end)
        super().__init__(
            str(folder),
            SAVING + FILENAME,
            remote_file_name=None,
            latest_filename=None,
            latest_remote_file_name=None,
            save_interval=self.is_wanted,
            overwrite=True,
        )

    def is_wanted(self, state: State, event: Event) -> bool:
        """Tell Composer's saver whether to save at this event."""
        return self.is_due(state, event)

    def after_load(self, state: State, logger: Logger) -> None:
        """Do not save again what was loaded."""
        self.last_checkpoint_batch = state.timestamp.batch

    def batch_checkpoint(self, state: State, logger: Logger) -> None:
        """Save after a step."""
        with self._atomically(state):
            super().batch_checkpoint(state, logger)

    def epoch_checkpoint(self, state: State, logger: Logger) -> None:
        """Save at the end of an epoch."""
        with self._atomically(state):
            super().epoch_checkpoint(state, logger)

    def eval_before_all(self, state: State, logger: Logger) -> None:
        """Save before an evaluation what is due at its step: it takes long, and whatever ends it costs nothing."""
        self.batch_checkpoint(state, logger)

    def state_dict(self) -> dict[str, Any]:
        """Keep nothing: Composer's list of all that were ever saved grows for ever."""
        return {}

    def close(self, state: State, logger: Logger) -> None:
        """Wait for the uploads."""
        if self.uploads is not None:
            self.uploads.close()

    @contextmanager
    def _atomically(self, state: State) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:
            for path in Path(self.folder).glob(SAVING + "*"):
                path.unlink()
            if not is_disk_full(error):
                raise
            raise InputError(
                f"checkpoint.folder={self.folder}: step {int(state.timestamp.batch)} cannot be saved, the disk is "
                "full; make room, or move the checkpoints and give their new checkpoint.folder. The same command goes "
                "on from the one before."
            ) from error
        if self.saved_checkpoints:  # on rank 0, if one was due
            self._publish(Path(self.saved_checkpoints.pop()), int(state.timestamp.batch))

    def _publish(self, hidden: Path, step: int) -> None:
        path = hidden.with_name(hidden.name.removeprefix(SAVING))
        sync(hidden)
        hidden.replace(path)
        sync(path.parent)
        self.note(path, step)
        for name in outdated((file.name for file in path.parent.glob("*.pt") if file.is_file()), path.name, self.keep):
            path.with_name(name).unlink()
        if self.uploads is not None:
            self.uploads.add(path, self.keep)

    def note(self, path: Path, step: int) -> None:
        """Say, on rank 0, that a checkpoint is complete."""
        progress_log.info("step %d · checkpoint %s", step, path)


class ResumeSaver(AtomicSaver):
    """Save what a run goes on from: at an interval, at the end, before each evaluation, and when the run is to stop.

    Args:
        folder: folder of the checkpoints.
        config: interval, and how many stay.
        uploads: copies them to S3; None for none.
        stop: StopOnRequest; when its `agreed` is true, a last checkpoint is saved.
        run_folder: the run's folder, which gets runs.NEWEST_CHECKPOINT.
        settings: what must not change when the run goes on; see run_settings.py.
        plan: its learning rate; see lr_plan.py.
    """

    def __init__(
        self,
        folder: Path,
        config: CheckpointConfig,
        uploads: Uploads | None,
        stop: "StopOnRequest",
        run_folder: Path,
        settings: dict[str, Any],
        plan: Plan,
    ) -> None:
        super().__init__(folder, config.interval, config.keep, uploads, at_end=True)
        self.stop, self.run_folder, self.settings, self.plan = stop, run_folder, settings, plan
        self.before_evaluation = False
        self.evaluation_is_owed = False

    def is_wanted(self, state: State, event: Event) -> bool:
        """Save at the interval, before an evaluation, and when all ranks have agreed to leave."""
        return super().is_wanted(state, event) or self.before_evaluation or self.stop.agreed or self.stop.save_is_due

    def eval_before_all(self, state: State, logger: Logger) -> None:
        """Save before every evaluation."""
        self.before_evaluation = True
        super().eval_before_all(state, logger)
        self.before_evaluation = False

    def save_last_step(self, state: State, logger: Logger, reason: str) -> None:
        """Save between two steps, where a request to stop has ended the wait for the next batch; on one device only."""
        self.stop.reason = reason
        self.batch_checkpoint(state, logger)

    def note(self, path: Path, step: int) -> None:
        """Record which checkpoint is the newest."""
        super().note(path, step)
        self.stop.saved_s = time.monotonic()
        write_atomically(self.run_folder / runs.NEWEST_CHECKPOINT, json.dumps({"step": step, "path": str(path)}) + "\n")

    def state_dict(self) -> dict[str, Any]:
        """Keep whether an evaluation comes next, the settings of the run, and its learning rate."""
        kept = {"before_evaluation": self.before_evaluation, "settings": self.settings}
        return kept | {"plan": as_records(self.plan)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over that an evaluation comes next, unless metrics.jsonl has it already."""
        self.evaluation_is_owed = state["before_evaluation"]


def is_disk_full(error: BaseException | None) -> bool:
    """Tell whether a full disk, or quota, is at the root of an error."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


class StopOnRequest(Callback):
    """Leave after the current step, all ranks together: on a signal to any of them, by the file STOP, or by max_time.

    The same exchange between the ranks, once a step, says whether a checkpoint is due by checkpoint.minutes.

    The saver, whose phase is before this one's, has saved the step when this raises Interrupted.

    Args:
        folder: the run's folder.
        config: the run's config.
    """

    phase = Phase.leave

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        self.stop_file = folder / runs.STOP
        self.reason: str | None = None
        self.max_time, self.minutes = config.max_time, config.checkpoint.minutes
        self.began_s = self.saved_s = time.monotonic()
        self.save_is_due = False

    @property
    def agreed(self) -> bool:
        """Whether all ranks have agreed to leave."""
        return self.reason is not None

    def batch_end(self, state: State, logger: Logger) -> None:
        """Agree with the other ranks, once a step, whether to leave."""
        self._agree()

    def eval_batch_end(self, state: State, logger: Logger) -> None:
        """Agree, and leave at once: the evaluation is made when the run goes on."""
        self._agree()
        self._leave()

    def eval_before_all(self, state: State, logger: Logger) -> None:
        """Leave before an evaluation."""
        self._leave()

    def batch_checkpoint(self, state: State, logger: Logger) -> None:
        """Leave, unless the run is at its end."""
        if state.max_duration is None or state.timestamp < state.max_duration:
            self._leave()

    def _agree(self) -> None:
        reason = interrupts.received_signal()
        self.save_is_due = False
        if dist.get_global_rank() == 0:  # whose clock counts
            reason = reason or self._own_reason()
            self.save_is_due = self.minutes is not None and time.monotonic() - self.saved_s >= 60 * self.minutes
        if dist.get_world_size() > 1:
            wishes = [int(reason is not None), int(self.save_is_due)]
            asked = torch.tensor(wishes, device="cuda" if torch.cuda.is_available() else "cpu")
            dist.all_reduce(asked, reduce_operation="MAX")
            must_leave, self.save_is_due = map(bool, asked.tolist())
            reason = reason or ("a request to another rank" if must_leave else None)
        self.reason = self.reason or reason

    def _own_reason(self) -> str | None:
        if self.stop_file.exists():
            return self.stop_file.name
        if self.max_time is not None and time.monotonic() - self.began_s >= parse_seconds(self.max_time):
            return f"max_time={self.max_time}"
        return None

    def _leave(self) -> None:
        if self.reason is not None:
            if dist.get_global_rank() == 0:
                self.stop_file.unlink(missing_ok=True)
            raise Interrupted(self.reason)


def build_savers(
    config: TrainConfig,
    run_folder: Path,
    stop: StopOnRequest,
    settings: dict[str, Any],
    plan: Plan,
    found: Path | None,
) -> tuple[list[Callback], ResumeSaver]:
    """Build the savers of backups, which are kept for ever, and of the checkpoints to resume from.

    Args:
        config: the run's config.
        run_folder: the run's folder.
        stop: asks for a last checkpoint.
        settings: what must not change when the run goes on.
        plan: the run's learning rate.
        found: the checkpoint that the run goes on from, which S3 may not have yet.
    """
    folder, checkpoint, remote = local_folder(config, run_folder), config.checkpoint, remote_folder(config)
    uploads = Uploads(remote, run_folder) if remote is not None and dist.get_global_rank() == 0 else None
    if uploads is not None and found is not None:
        uploads.add(found, checkpoint.keep)
    backups: list[Callback] = []
    if checkpoint.backup_interval is not None:
        backups.append(AtomicSaver(folder / runs.BACKUPS, checkpoint.backup_interval, keep=-1, uploads=uploads))
    return backups, ResumeSaver(folder, checkpoint, uploads, stop, run_folder, settings, plan)
