"""Training and evaluating the runs of a study, several at once; one that fails does not keep the others."""

import json
import logging
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hindsight import runs
from hindsight.errors import InputError
from hindsight.files import write_atomically
from hindsight.studies.commands import Command, arguments_of
from hindsight.studies.known_runs import DONE, RunState, is_evaluated, last_record, order_of_run
from hindsight.studies.planned_runs import PlannedRun
from hindsight.studies.processes import Ended, Processes, how_it_ended, last_line, was_interrupted
from hindsight.studies.progress import Progress
from hindsight.studies.run_lengths import loss_at_end
from hindsight.studies.study_file import Study

log = logging.getLogger("hindsight")

NEEDED = (runs.FINISHED, runs.METADATA, runs.METRICS)
"""Files of a run that is done, by which its loss is known."""
FAILED = ".failed.json"
"""What is behind the name of a run in that of the file, among the logs, that says why it failed."""
DIVERGED = "FloatingPointError: "
"""With what the last line of a training begins that has ended at a loss that is not finite."""
LOGS = "logs"
"""Folder of what commands say, in that of a study."""
LOOK_S = 0.5
"""Seconds between two looks at how far the runs are."""


@dataclass
class Outcome:
    """What became of runs.

    Args:
        failed: why, by their names.
        interrupted: names of those that left before their end without having failed.
    """

    failed: dict[str, str] = field(default_factory=dict[str, str])
    interrupted: list[str] = field(default_factory=list[str])

    def add(self, other: "Outcome") -> None:
        """Add that of other runs."""
        self.failed |= other.failed
        self.interrupted += other.interrupted


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; found without PyTorch."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [each for each in given.split(",") if each.strip() not in ("", "-1", "NoDevFiles")]
    return [str(number) for number, _ in enumerate(sorted(Path("/proc/driver/nvidia/gpus").glob("*")))]


def evaluation_of(run: PlannedRun, study: Study) -> Command | None:
    """The command that evaluates a run by token; None for a run of the sweep, and if the study has none."""
    if study.evaluation is None or run.is_sweep:
        return None
    given = {"run": run.typed_folder, **study.evaluation}
    return Command("evaluate_tokens", tuple(arguments_of(given)), run.command.devices)


def missing_evaluation(run: PlannedRun, study: Study) -> Command | None:
    """The command that evaluates a run that is done; None if it was evaluated, or is not to be."""
    command = evaluation_of(run, study)
    is_there = command is None or is_evaluated(run.folder, order_of_run(run), study.evaluation or {})
    return None if is_there else command


def evaluated(run: PlannedRun) -> float | None:
    """Validation loss of a run at its end, nats per token; None if it has not come to its planned end."""
    return loss_at_end(run.folder) if all((run.folder / name).exists() for name in NEEDED) else None


def failed_file(run: PlannedRun, logs: Path) -> Path:
    """Name the file, among the logs, that says why a run has failed."""
    return logs / f"{run.config.run_name}{FAILED}"


def has_diverged(run: PlannedRun, logs: Path) -> bool:
    """Tell whether a run of the sweep, by the same command, has ended at a loss that is not finite.

    Args:
        run: the run.
        logs: folder of the logs of the study.
    """
    path = failed_file(run, logs)
    try:
        return run.is_sweep and path.exists() and runs.read_object(path).get("diverged") == run.command.typed
    except InputError:  # damaged: the run is tried again
        return False


def train_all(
    planned: Sequence[PlannedRun],
    states: Sequence[RunState],
    study: Study,
    processes: Processes,
    workers: int,
    devices: int,
) -> Outcome:
    """Train and evaluate what is missing of runs.

    Args:
        planned: the runs; those that have one folder are one.
        states: how far each is.
        study: the study.
        processes: starts their commands.
        workers: runs at once.
        devices: devices of each.

    Returns:
        What became of those that have not come to their end.
    """
    first = {run.folder: (run, state) for run, state in reversed([*zip(planned, states, strict=True)])}
    return _Training([first[run.folder] for run in planned if first[run.folder][0] is run], study, processes).all(
        workers, devices
    )


class _Training:
    def __init__(self, given: Sequence[tuple[PlannedRun, RunState]], study: Study, processes: Processes) -> None:
        self.study, self.processes, self.outcome = study, processes, Outcome()
        self.waiting = deque[tuple[PlannedRun, RunState]]()
        for run, state in given:
            if has_diverged(run, processes.folder):
                continue
            if state.state == DONE and missing_evaluation(run, study) is None:
                self._failed_file(run).unlink(missing_ok=True)  # somebody has mended it
            else:
                self.waiting.append((run, state))
        self.running: dict[str, tuple[PlannedRun, RunState, str]] = {}
        self.progress = Progress([state for _, state in self.waiting])

    def all(self, workers: int, devices: int) -> Outcome:
        """Start what waits, and take what ends, until nothing is left."""
        found = gpus()
        sets = [",".join(found[start : start + devices]) for start in range(0, len(found) - devices + 1, devices)]
        self.free = deque(sets[slot % len(sets)] if sets else "" for slot in range(workers))
        with self.progress:
            while self.waiting or self.running:
                while self.waiting and self.free:
                    run, state = self.waiting.popleft()
                    slot = self.free.popleft()
                    if state.state == DONE:
                        self._evaluate(run, state, slot)
                    else:
                        self._start(run, state, slot, run.command)
                        log.info("%s: %s.", run.name, "goes on" if state.step else "is trained")
                for ended in self.processes.wait(LOOK_S):
                    self._take(ended)
                self.progress.show(len(self.running), self._tokens_of_running())
        return self.outcome

    def _start(self, run: PlannedRun, state: RunState, slot: str, command: Command) -> None:
        name = str(run.config.run_name)
        self.running[name] = run, state, slot
        self.processes.start(name, command, {"CUDA_VISIBLE_DEVICES": slot} if slot else {})

    def _evaluate(self, run: PlannedRun, state: RunState, slot: str) -> None:
        command = missing_evaluation(run, self.study)
        if command is None:
            self._end(run, state, slot)
        else:
            self._start(run, state, slot, command)

    def _take(self, ended: Ended) -> None:
        if ended.name not in self.running:
            return
        run, state, slot = self.running.pop(ended.name)
        if ended.status != 0:
            self.free.append(slot)
            self.progress.done(state)
            self._fail(run, ended.status)
        elif state.state == DONE:
            self._end(run, state, slot)
        else:
            self.progress.trained(state)
            self._evaluate(run, RunState(state.setup, DONE, state.setup.total_steps, state.setup.course.tokens), slot)

    def _end(self, run: PlannedRun, state: RunState, slot: str) -> None:
        self.free.append(slot)
        self.progress.done(state)
        self._failed_file(run).unlink(missing_ok=True)
        loss = evaluated(run)
        log.info("%s: done%s.", run.name, "" if loss is None else f", validation loss {loss:.4f} nats/token")

    def _fail(self, run: PlannedRun, status: int) -> None:
        if was_interrupted(status):
            self.outcome.interrupted.append(run.name)
            log.warning("%s: interrupted.", run.name)
            return
        path = self.processes.log_of(str(run.config.run_name))
        last = last_line(path)
        error = f"{how_it_ended(status)}: {last} (log: {path})"
        told = {"error": error}
        if run.is_sweep and last.startswith(DIVERGED):  # which is an answer, too: the rate is too high
            write_atomically(self._failed_file(run), json.dumps(told | {"diverged": run.command.typed}) + "\n")
            log.warning("%s: its loss is not finite; another rate will be taken.", run.name)
            return
        self.outcome.failed[run.name] = error
        write_atomically(self._failed_file(run), json.dumps(told) + "\n")
        log.error("%s: failed, %s", run.name, error)

    def _failed_file(self, run: PlannedRun) -> Path:
        return failed_file(run, self.processes.folder)

    def _tokens_of_running(self) -> int:
        if not self.progress.is_due:
            return 0
        running = [(run, state) for run, state, _ in self.running.values() if state.state != DONE]
        return sum(max(int(last_record(run.folder).get("tokens", 0)) - state.tokens, 0) for run, state in running)
