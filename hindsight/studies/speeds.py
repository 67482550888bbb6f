"""How fast the runs of a study are going to be: as earlier runs with the same settings were, or as a few steps are."""

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from hindsight.config.keys import flatten
from hindsight.studies.commands import Command, arguments_of
from hindsight.studies.known_runs import DONE, RunState
from hindsight.studies.planned_runs import PlannedRun
from hindsight.studies.processes import Processes
from hindsight.studies.sweep import folders_by_age, median_speed, speed_settings, was_as_fast

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


def speeds_of(
    planned: Sequence[PlannedRun],
    states: Sequence[RunState],
    processes: Processes,
    out: Path,
    tried_steps: int,
    workers: int,
) -> dict[str, float]:
    """Find the speed of runs, in tokens per second.

    Args:
        planned: the runs.
        states: how far each is.
        processes: starts what is tried.
        out: folder of the study.
        tried_steps: steps that are tried where no earlier run tells; 0 for none.
        workers: runs at once: so many are tried at once, too, for they slow each other down.

    Returns:
        The speed by the name of the run, where it is known.
    """
    alike: dict[str, list[int]] = {}
    for number, (run, state) in enumerate(zip(planned, states, strict=True)):
        settings = speed_settings(flatten(asdict(run.config))) | {"vocab_size": state.setup.vocab_size}
        alike.setdefault(json.dumps(settings, sort_keys=True, default=str), []).append(number)
    speeds: dict[str, float] = {}
    untold: list[tuple[PlannedRun, list[int]]] = []
    places = _places(planned[0])
    for numbers in alike.values():
        run, vocab_size = planned[numbers[0]], states[numbers[0]].setup.vocab_size
        told = (median_speed(folder) for folder in places if was_as_fast(folder, run.config, vocab_size))
        speed = next((each for each in told if each is not None), None)
        if speed is not None:
            speeds |= {planned[number].name: speed for number in numbers}
        elif any(states[number].state != DONE for number in numbers):
            untold.append((run, numbers))
    if untold and tried_steps:
        log.info("Trying %d steps of %d models ...", tried_steps, len(untold))
        for (_, numbers), speed in zip(untold, _tried(untold, processes, out, tried_steps, workers), strict=True):
            if speed is not None:
                speeds |= {planned[number].name: speed for number in numbers}
    return speeds


def _places(run: PlannedRun) -> list[Path]:
    """Folders of earlier runs, of this study and of others beside it, the newest first."""
    own = Path(run.config.runs_dir)
    return folders_by_age([own, *(each for each in sorted(own.parent.glob("*")) if each.is_dir() and each != own)])


def _tried(
    untold: Sequence[tuple[PlannedRun, list[int]]], processes: Processes, out: Path, steps: int, workers: int
) -> list[float | None]:
    folder = out / TRIES
    shutil.rmtree(folder, ignore_errors=True)
    waiting = [*range(len(untold))]
    while waiting or processes.running:
        while waiting and len(processes.running) < workers:
            number = waiting.pop(0)
            run = untold[number][0]
            changed = ONLY_TRIED | {"max_duration": f"{steps}ba", "run_name": str(number), "runs_dir": str(folder)}
            kept = [each for each in run.command.arguments if each.partition("=")[0] not in changed]
            arguments = (*kept, *arguments_of(changed))
            processes.start(f"try-{run.name}", Command("train_composer", arguments, run.command.devices))
        processes.wait()
    found = [median_speed(path) if (path := folder / str(number)).is_dir() else None for number in range(len(untold))]
    shutil.rmtree(folder, ignore_errors=True)
    return found
