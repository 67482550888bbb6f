"""Making the data of a study: the commands whose results are missing, those that need nothing of each other at once."""

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hindsight.errors import InputError
from hindsight.files import LOCKED, say_unlocked
from hindsight.studies.composed import composed
from hindsight.studies.made_data import Data, Step
from hindsight.studies.processes import Processes, how_it_ended, last_line, require_uninterrupted

log = logging.getLogger("hindsight")

PARTS = {
    "make_corpus": "corpora: {make: ...}",
    "train_tokenizer": "tokenizers",
    "convert_to_mds": "convert",
}
"""Parts of a study from which the values of these commands are."""
WAIT_S = 0.5
"""Seconds between two looks at whether another study has made its data."""


def make_data(data: Data, processes: Processes, data_dir: Path, workers: int) -> None:
    """Make what is missing of the data; a study that uses the same waits meanwhile.

    Args:
        data: the data.
        processes: starts the commands.
        data_dir: folder of the data.
        workers: commands at once.

    Raises:
        InputError: a command failed.
    """
    if any(dataset.missing for dataset in data.datasets):
        with _alone(data_dir):
            _make([*dict.fromkeys(step for each in data.datasets for step in each.missing)], processes, workers)
    with suppress(OSError):  # data of somebody else, which is there
        data.remember()


def check_steps(data: Data) -> None:
    """Compose all commands that are going to make data.

    Raises:
        InputError: one has a value that cannot be; names the key.
    """
    for dataset in data.datasets:
        for step in dataset.missing:
            if step.command.script in PARTS:
                composed(step.command.script, step.command.arguments, PARTS[step.command.script])


def _make(waiting: list[Step], processes: Processes, workers: int) -> None:
    running, failed = dict[str, Step](), list[str]()
    while waiting or running:
        for step in [each for each in waiting if not {*each.after} & {*waiting, *running.values()}]:
            if len(running) < workers:
                waiting.remove(step)
                name = f"{step.command.script.rpartition('.')[2]}-{step.makes[0].parent.name}-{step.makes[0].name}"
                running[name] = step
                log.info("%s", step.command.typed)
                processes.start(name, step.command)
        assert running, "a step needs itself"
        for ended in processes.wait():
            step, path = running.pop(ended.name), processes.log_of(ended.name)
            require_uninterrupted(ended.status)
            if ended.status != 0 or not step.is_done:
                failed.append(f"`{step.command.typed}` {how_it_ended(ended.status)}: {last_line(path)} (log: {path})")
                waiting.clear()  # what runs ends first, and is not made again
    if failed:
        raise InputError(f"the data cannot be made: {'; '.join(failed)}")


@contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """Wait until no other study makes data here."""
    data_dir.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(data_dir / ".making", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
    try:
        is_told = False
        while True:
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in LOCKED:
                    say_unlocked(data_dir, error)
                    break
            if not is_told:
                log.info("data_dir=%s: another study makes data there, and this one waits for it.", data_dir)
                is_told = True
            time.sleep(WAIT_S)
        yield
    finally:
        os.close(descriptor)
