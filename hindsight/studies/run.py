"""A study from its file to its report: data, table, runs, evaluations, comparison; what is there is not made again.

Everything is done by the project's commands (processes.py), and all that is known of a study can be found again in the
folders of its data and its runs: that is why a study that was killed goes on, and ends in the same report.
"""

import json
import logging
import math
import os
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

from hindsight import interrupts, output
from hindsight.config.study import Only, Scale, StudyConfig
from hindsight.conversion.workers import available_cores
from hindsight.errors import InputError
from hindsight.files import locked
from hindsight.shards.manifest import FEW_DOCUMENTS
from hindsight.studies.ahead import check_ahead
from hindsight.studies.commands import Command, arguments_of
from hindsight.studies.known_runs import DONE, RunState, check_runs, state_ahead, state_of
from hindsight.studies.made_data import Data
from hindsight.studies.making import check_steps, make_data
from hindsight.studies.plan_table import require_room, rows_of, table_of
from hindsight.studies.planned_runs import PlannedRun, best_rates, plan_runs
from hindsight.studies.processes import Processes, how_it_ended, last_line, require_uninterrupted
from hindsight.studies.results import COMPARISON, REPORT_HTML, STUDY_JSON, StudyResult
from hindsight.studies.speeds import speeds_of, try_speeds
from hindsight.studies.study_checks import ORDER
from hindsight.studies.study_file import Study, read_study
from hindsight.studies.study_records import forget_records, is_written, result_of_study, write_records
from hindsight.studies.study_report import remove_comparison, write_study_report
from hindsight.studies.training import LOGS, Outcome, evaluated, gpus, has_diverged, train_all

log = logging.getLogger("hindsight")

LOCK = ".study"
"""Folder of the lock in those of the study and of its runs, which only one process works on, or several tasks."""
NO_RATE = "no learning rate of the sweep has led every order to a finite loss; give lower ones in lr_sweep.rates"
GOES_ON = "what is done stays, and the same command goes on."


class StudyWork:
    """A study that is worked on.

    Args:
        config: the keys of the command.
    """

    def __init__(self, config: StudyConfig) -> None:
        self.config = config
        self.study: Study = read_study(config.study, config.scale, config.seeds)
        self.out = Path(config.out or f"results/{self.study.name}/{config.scale.name}")
        there = next(each for each in (self.out.absolute(), *self.out.absolute().parents) if each.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK) or there.is_relative_to("/proc"):
            raise InputError(f"out={self.out} cannot be made a folder: {there} is none that can be written to.")
        theirs = ours = f"study={self.study.name} scale={config.scale.name}"
        with suppress(OSError, ValueError, KeyError, TypeError):  # none, or damaged: it is written anew
            found = json.loads((self.out / STUDY_JSON).read_text("utf-8"))
            theirs = f"study={found['name']} scale={found['scale']}"
        if theirs != ours:
            raise InputError(f"out={self.out} has {theirs}; give another folder.")
        self.data = Data(self.study, config)
        self.planned = plan_runs(self.study, config, self.data)
        self._check_steps()
        self.rates: list[dict[str, Any]] = []
        self.outcome = Outcome()
        at_once = 1 if config.task is not None else len({run.name for run in self.planned})
        self.workers = config.workers or max(min((len(gpus()) or available_cores()) // config.devices, at_once), 1)
        if config.task is not None and config.task >= len(self.planned):
            raise InputError(
                f"task={config.task}: study={self.study.name} scale={config.scale.name} has {len(self.planned)} runs; "
                f"give at most {len(self.planned) - 1}."
            )

    def _check_steps(self) -> None:
        try:
            check_steps(self.data)
            for run in self.planned:
                if not run.dataset.is_there:
                    check_ahead(run)
        except InputError as error:
            raise InputError(f"study={self.study.name}: {error}") from None

    def run(self) -> int:
        """Do what is asked for; the exit status.

        Raises:
            InputError: something cannot be, or another process works on the study.
        """
        # What is there already is checked before anything is made.
        there = [run for run in self.planned if run.dataset.is_there]
        self._require_documents(there)
        states = dict(zip([run.name for run in there], self._states(there), strict=True))
        ahead = {run.name: state_ahead(run) for run in self.planned if not run.dataset.is_there}
        known = states | {name: state for name, state in ahead.items() if state is not None}
        if self.config.only is None:
            self._require_room([*known.values()])
        if self.config.only is Only.table or (self.config.only is None and ahead):
            found = [run for run in self.planned if run.name in known]
            speeds = speeds_of(found, [known[run.name] for run in found])
            self._show_table([known.get(run.name) for run in self.planned], speeds.known)
        if self.config.only is Only.table:
            return output.exit_status()
        with ExitStack() as stack:
            for folder in (self.out, *([self.runs_folder] if self.config.only is None else [])):
                doing = f"study={self.study.name}: another process works on it in {folder}"
                stack.enter_context(locked(folder / LOCK, doing, is_shared=self.config.task is not None))
            processes = stack.enter_context(closing(self._processes(states)))
            try:
                with interrupts.giving_up_after(0):
                    return self._work_or_leave(processes)
            except interrupts.GaveUp as reason:
                log.info("Interrupted by %s: runs save their last step ...", reason)
                processes.stop()
                log.info("Interrupted by %s: %s", reason, GOES_ON)
                interrupts.ignore_signals()
                return interrupts.EXIT_INTERRUPTED

    def _work_or_leave(self, processes: Processes) -> int:
        try:
            return self._work(processes)
        except InputError:
            if (name := interrupts.received_signal()) is not None:  # what failed was asked to stop, too
                raise interrupts.GaveUp(name) from None
            raise

    def _work(self, processes: Processes) -> int:
        if self.config.only is not Only.report:
            make_data(self.data, processes, Path(self.config.data_dir), self.workers)
            self._require_documents(self.planned)
            if self.config.only is Only.data:
                return output.exit_status()
            if (status := self._train(processes)) is not None:
                return status
        self._find_rates()
        is_asked = self.config.only is Only.report or processes.has_started
        result = result_of_study(self.study, self.out, self.planned, self.data, self.rates, self.outcome)
        comparing = self._comparing(result)
        if not is_asked and is_written(self.out, result, comparing):
            log.info("Nothing has changed since %s was written; only=report writes it again.", self.out / REPORT_HTML)
            return self._tell()
        forget_records(self.out)  # what is written from here on may be of other runs
        self._compare(processes, comparing)
        result.comparison_error = self.outcome.failed.get(COMPARISON)
        report = write_study_report(self.out, result)
        write_records(self.out, result, comparing, self.environment)
        for path in report[:2]:
            log.info("Report: %s", path)
        return self._tell()

    def _train(self, processes: Processes) -> int | None:
        """Train and evaluate what is missing; the exit status where that was all."""
        states = self._states(self.planned)
        self._require_room(states)
        tries = self.config.tried_steps if self.config.task is None else 0
        speeds = try_speeds(speeds_of(self.planned, states), processes, self.out, tries, self.workers)
        self._show_table(states, speeds)
        if (task := self.config.task) is not None:
            return self._train_task(task, processes)
        known = [run for run in self.planned if not run.waits]
        self.outcome.add(
            train_all(known, self._states(known), self.study, processes, self.workers, self.config.devices)
        )
        self._find_rates()
        later = [run for run in self.planned if run not in known and not run.waits]
        if later:
            states = self._states(later)
            self._require_room(states)
            self.outcome.add(train_all(later, states, self.study, processes, self.workers, self.config.devices))
        return None

    def _train_task(self, task: int, processes: Processes) -> int:
        self._find_rates()
        run = self.planned[task]
        if run.waits:
            n_sweep = sum(each.is_sweep for each in self.planned)
            raise InputError(
                f"task={task}: the learning rate of {run.name} is not found yet; runs 0 to {n_sweep - 1} of the table "
                "are the sweep that finds it, and come first."
            )
        if any(each.folder == run.folder for each in self.planned[:task]):
            log.info("%s is the same run as one before it in the table; nothing to do.", run.name)
            return output.exit_status()
        self.outcome.add(train_all([run], self._states([run]), self.study, processes, 1, self.config.devices))
        return self._tell()

    def _states(self, planned: Sequence[PlannedRun]) -> list[RunState]:
        return [state_of(setup) for setup in check_runs(planned)]

    def _require_room(self, states: Sequence[RunState]) -> None:
        require_room([*{state.setup.folder: state for state in states}.values()], self.workers)

    def _require_documents(self, planned: Sequence[PlannedRun]) -> None:
        """Refuse a study on text that validates on few documents: what is special about one of them moves a gap."""
        if self.study.may_have_few_documents:
            return
        for dataset in {run.dataset.folder: run.dataset for run in planned}.values():
            n_documents = dataset.val_documents
            if dataset.floor is None and n_documents is not None and n_documents < FEW_DOCUMENTS:
                raise InputError(
                    f"study={self.study.name}: {dataset.folder} has few documents to validate on ({n_documents}); a "
                    f"study asks for {FEW_DOCUMENTS}. Hold out more (convert: {{val_share: ...}}), or take a corpus "
                    "with more documents; at scale=tiny, few_documents: true takes them."
                )

    def _processes(self, states: dict[str, RunState]) -> Processes:
        is_all_done = len(states) == len(self.planned) and all(state.state == DONE for state in states.values())
        with_training = self.config.only is None and not is_all_done
        return Processes(self.out / LOGS, self.environment, with_training)

    @property
    def runs_folder(self) -> Path:
        """Folder of its runs."""
        return Path(self.planned[0].config.runs_dir)

    @property
    def environment(self) -> dict[str, str]:
        """What commands have in their environment beside that of the study."""
        threads = max(1, available_cores() // (self.workers * self.config.devices))
        # Threads that wait in a busy loop take the core of another run.
        given = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
        if gpus():  # looking for GPUs by CUDA, as imports may do, would keep forked processes from using them
            given["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
        return {name: os.environ.get(name, value) for name, value in given.items()}

    def _show_table(self, states: Sequence[RunState | None], speeds: dict[str, float]) -> None:
        n_tasks = f" ({len(self.planned)} tasks)" if self.config.task is not None else ""
        output.say(f"study={self.study.name} scale={self.study.scale.name}{n_tasks}: {self.study.question}")
        output.say(table_of(rows_of(self.planned, states, speeds), self.workers))

    def _find_rates(self) -> None:
        """Take the learning rates that the sweep has found, as far as its runs are done."""
        if self.study.lr_sweep is None or self.rates:
            return
        logs, sweep = self.out / LOGS, [run for run in self.planned if run.is_sweep]
        losses = {run.name: math.inf if has_diverged(run, logs) else evaluated(run) for run in sweep}
        rates, self.rates = best_rates(self.planned, losses)
        if rates:
            self.planned = plan_runs(self.study, self.config, self.data, rates)
            for each in self.rates:
                best = ", ".join(f"{order} {rate:g}" for order, rate in each["best"].items())
                where = ", ".join(f"{value}" for value in each["axes"].values())
                log.info("Learning rates of %s: %s; the same for all: %g.", where, best, each["same"])
        for run in self.planned:
            of_run = [losses[each.name] for each in sweep if each.but_order == run.but_order]
            if run.waits and None not in of_run:
                self.outcome.failed[run.name] = NO_RATE

    def _comparing(self, result: StudyResult) -> Command | None:
        found = zip(self.planned, result.runs, strict=True)
        done = [run for run, of in found if not run.is_sweep and of.loss_nats is not None]
        folders = [*dict.fromkeys(run.typed_folder for run in done)]
        if len({run.axes[ORDER] for run in done}) < 2:
            return None
        # Figures, and cuts by what losses of tokens say, take longer than the tiny runs themselves.
        has_report = self.config.comparison_report and self.study.scale is not Scale.tiny
        given = {"out": str(self.out / COMPARISON), **({} if has_report else {"report": False})}
        return Command("compare_directions", (*folders, *arguments_of(given)))

    def _compare(self, processes: Processes, command: Command | None) -> None:
        remove_comparison(self.out / COMPARISON)  # it may be of other runs, or of fewer steps
        if command is None:
            return
        log.info("Comparing %d runs.", sum("=" not in each for each in command.arguments))
        status = processes.run(COMPARISON, command)
        require_uninterrupted(status)
        if status != 0:
            path = processes.log_of(COMPARISON)
            self.outcome.failed[COMPARISON] = f"{how_it_ended(status)}: {last_line(path)} (log: {path})"

    def _tell(self) -> int:
        """Say what has failed; the exit status."""
        for name, error in self.outcome.failed.items():
            log.error("%s failed, %s", name, error)
        for name in self.outcome.interrupted:
            log.warning("%s was interrupted; the same command goes on.", name)
        if self.outcome.failed:
            return 1
        return interrupts.EXIT_INTERRUPTED if self.outcome.interrupted else output.exit_status()
