"""How fast the runs of a study are going to be: as earlier runs with the same settings were, or as a few steps are."""

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hindsight.config.keys import flatten
from hindsight.studies.commands import Command, arguments_of
from hindsight.studies.known_runs import DONE, RunState
from hindsight.studies.planned_runs import PlannedRun
from hindsight.studies.processes import Processes
from hindsight.studies.sweep import EarlierRuns, median_speed, speed_settings

log = logging.getLogger("hindsight")

TRIES = "tries"
"""Folder of the runs of a few steps, in that of the study, until their speed is known."""
ONLY_TRIED = {
    "eval_batches": 1,
    "device_eval_batch_size": None,
    "samples.interval": None,
    "wandb.mode": "disabled",
    "checkpoint.folder": None,
    "energy": False,
}


@dataclass
class Speeds:
    """How fast runs are.

    Args:
        known: tokens per second, by the name of the run.
        unknown: runs of which no earlier one tells, those that are alike together.
    """

    known: dict[str, float]
    unknown: list[list[PlannedRun]]


def speeds_of(planned: Sequence[PlannedRun], states: Sequence[RunState]) -> Speeds:
    """Find the speed of runs by earlier ones with the same settings.

    Args:
        planned: the runs.
        states: how far each is.
    """
    alike: dict[str, list[int]] = {}
    for number, (run, state) in enumerate(zip(planned, states, strict=True)):
        settings = speed_settings(flatten(asdict(run.config))) | {"vocab_size": state.setup.vocab_size}
        alike.setdefault(json.dumps(settings, sort_keys=True, default=str), []).append(number)
    found = Speeds({}, [])
    earlier = EarlierRuns(_places(planned[0]) if planned else [])
    for numbers in alike.values():
        run, vocab_size = planned[numbers[0]], states[numbers[0]].setup.vocab_size
        speed = earlier.speed_of(run.config, vocab_size)
        if speed is not None:
            found.known |= {planned[number].name: speed for number in numbers}
        elif any(states[number].state != DONE for number in numbers):
            found.unknown.append([planned[number] for number in numbers])
    return found


def try_speeds(speeds: Speeds, processes: Processes, out: Path, steps: int, workers: int) -> dict[str, float]:
    """Train a few steps of each run that is unlike the others, where no earlier one tells how fast it is.

    Args:
        speeds: what earlier runs tell.
        processes: starts what is tried.
        out: folder of the study.
        steps: steps that are tried; 0 for none.
        workers: runs at once: so many are tried at once, too, for they slow each other down.

    Returns:
        Tokens per second by the name of the run, where it is known now.
    """
    known = dict(speeds.known)
    if speeds.unknown and steps:
        n = len(speeds.unknown)
        log.info("Trying %d steps of %s ...", steps, "one model" if n == 1 else f"each of {n} models")
        tried = _tried([alike[0] for alike in speeds.unknown], processes, out, steps, workers)
        for alike, speed in zip(speeds.unknown, tried, strict=True):
            known |= {run.name: speed for run in alike} if speed is not None else {}
    return known


def _places(run: PlannedRun) -> list[Path]:
    """Folders of runs: of this study, and of others beside it."""
    own = Path(run.config.runs_dir)
    return [own, *(each for each in own.parent.glob("*") if each.is_dir() and each != own)]


def _tried(
    untold: Sequence[PlannedRun], processes: Processes, out: Path, steps: int, workers: int
) -> list[float | None]:
    folder = out / TRIES
    shutil.rmtree(folder, ignore_errors=True)
    waiting = [*range(len(untold))]
    while waiting or processes.running:
        while waiting and len(processes.running) < workers:
            number = waiting.pop(0)
            run = untold[number]
            changed = ONLY_TRIED | {"max_duration": f"{steps}ba", "run_name": str(number), "runs_dir": str(folder)}
            kept = [each for each in run.command.arguments if each.partition("=")[0] not in changed]
            arguments = (*kept, *arguments_of(changed))
            processes.start(f"try-{run.name}", Command("train_composer", arguments, run.command.devices))
        processes.wait()
    found = [median_speed(path) if (path := folder / str(number)).is_dir() else None for number in range(len(untold))]
    shutil.rmtree(folder, ignore_errors=True)
    return found
