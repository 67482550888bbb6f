"""The runs of a study: every combination of its axes, as a command of train_composer.py, composed and checked.

The sweep of learning rates, if there is one, comes first; rates that it is to find are given once it has.
"""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from hindsight.command_line import configuration_of, explain
from hindsight.config.study import StudyConfig
from hindsight.config.training import TrainConfig
from hindsight.durations import parse_duration
from hindsight.errors import InputError
from hindsight.studies.commands import Command, arguments_of, as_written
from hindsight.studies.composed import check_evaluation
from hindsight.studies.made_data import Data, Dataset
from hindsight.studies.study_axes import fits
from hindsight.studies.study_checks import CORPUS, LR, ORDER, SEED, TOKENIZER
from hindsight.studies.study_file import Study
from hindsight.training.setup import context_length_of, folder_of

BY_VALUE = (CORPUS, TOKENIZER, "model", ORDER)
"""Axes whose values need no key in the name of a run."""
SWEEP = "sweep-"
"""What the name of a run of the sweep of learning rates begins with."""
Combination = tuple[tuple[str, Any], ...]
"""Values on all axes but those of seed and learning rate."""


@dataclass(frozen=True)
class PlannedRun:
    """A run of a study.

    Args:
        name: by its values on the axes.
        axes: its value on every axis.
        dataset: what it is trained on.
        command: what trains it.
        config: its settings; where the sweep has not found its learning rate yet, with another.
        is_sweep: whether it belongs to the sweep.
        waits: whether its learning rate is still to be found.
    """

    name: str
    axes: dict[str, Any]
    dataset: Dataset
    command: Command
    config: TrainConfig
    is_sweep: bool
    waits: bool

    @property
    def folder(self) -> Path:
        """Its folder; several runs of a study may be one, where the sweep finds one rate twice."""
        return folder_of(self.config)

    @property
    def typed_folder(self) -> str:
        """Its folder as it is typed."""
        return f"{self.config.runs_dir}/{self.config.run_name}"

    @property
    def combination(self) -> Combination:
        """Its values on the axes but for seed and learning rate."""
        return combination_of(self.axes)

    @property
    def but_order(self) -> Combination:
        """Its values on the axes but for order, seed and learning rate: what it shares with all runs of its sweep."""
        return tuple((key, value) for key, value in self.combination if key != ORDER)


def combination_of(axes: Mapping[str, Any]) -> Combination:
    """Leave seed and learning rate out of values on axes."""
    return tuple((key, value) for key, value in axes.items() if key not in (SEED, LR))


def plan_runs(
    study: Study, config: StudyConfig, data: Data, rates: Mapping[tuple[Combination, str], float] | None = None
) -> list[PlannedRun]:
    """Plan all runs, those of the sweep first.

    Args:
        study: the study.
        config: where its runs lie, and on how many devices they are trained.
        data: its data.
        rates: what the sweep has found, by combination and word (same or best); None before it has.

    Raises:
        InputError: settings cannot be, or the study has no run.
    """
    composer = _Composer(study, config, data)
    runs = [*_sweep_runs(study, composer)]
    for axes in combinations(study, data):
        word = axes.get(LR)
        rate = (rates or {}).get((combination_of(axes), word)) if isinstance(word, str) else word
        name = name_of(study, axes)
        runs.append(composer.compose(axes, name, name_of(study, axes | {LR: rate}) if rate else name, rate))
    if all(run.is_sweep for run in runs):
        raise InputError(f"study={study.name} has no runs: without: leaves out every combination.")
    orders = {run.axes[ORDER] for run in runs if not run.is_sweep}
    if "forward" not in orders:
        raise InputError(f"study={study.name}: without: leaves out every run forward, with which others are compared.")
    if study.evaluation is not None:
        kinds = [(str(run.axes[ORDER]), context_length_of(run.config)) for run in runs if not run.is_sweep]
        try:
            check_evaluation(study.evaluation, kinds)
        except InputError as error:
            raise InputError(f"study={study.name}: {error}") from None
    names = [run.name for run in runs]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"study={study.name}: {names.count(name)} runs have the name {name}; change a value.")
    return runs


def combinations(study: Study, data: Data) -> Iterator[dict[str, Any]]:
    """Give the values of each run on the axes; a corpus with a tokenizer of its own has that one only."""
    seen: list[dict[str, Any]] = []
    for values in itertools.product(*study.axes.values()):
        axes = dict(zip(study.axes, values, strict=True))
        axes[TOKENIZER] = data.tokenizer_of(axes[CORPUS], axes[TOKENIZER])
        if axes not in seen and not any(fits(axes, each) for each in study.without):
            seen.append(axes)
            yield axes


def name_of(study: Study, axes: Mapping[str, Any]) -> str:
    """Name a run by its seed, and its values on the axes that have several; a run of the sweep has no seed there."""
    return "-".join(_part(key, axes[key]) for key in study.named if key in axes)


def _part(key: str, value: Any) -> str:
    text = re.sub(r"[^\w.+=-]+", "", as_written(value))
    return text if key in BY_VALUE else f"{key.rpartition('.')[2]}{text}"


def _sweep_runs(study: Study, composer: "_Composer") -> Iterator[PlannedRun]:
    sweep = study.lr_sweep
    if sweep is None:
        return
    seen: list[Combination] = []
    for axes in combinations(study, composer.data):
        if (combination := combination_of(axes)) in seen:
            continue
        seen.append(combination)
        for rate in sweep.rates:
            values = dict(combination) | {LR: rate, SEED: sweep.seed}
            named = name_of(study, dict(combination))
            name = f"{SWEEP}{named}-lr{rate}"
            yield composer.compose(values, name, name, rate, is_sweep=True)


class _Composer:
    """Composes the settings of runs; those that differ in order and seed only, once."""

    def __init__(self, study: Study, config: StudyConfig, data: Data) -> None:
        self.study, self.config, self.data = study, config, data
        self.runs_dir = f"{config.runs_dir}/{study.name}-{study.scale.name}"
        self.composed: dict[tuple[str, ...], TrainConfig] = {}

    def compose(
        self, axes: dict[str, Any], name: str, run_name: str, rate: float | None, is_sweep: bool = False
    ) -> PlannedRun:
        settings = self.settings_of(axes)
        waits = rate is None and isinstance(axes.get(LR), str)
        if waits:
            assert self.study.lr_sweep is not None
            rate = self.study.lr_sweep.rates[0]
        if rate is not None:
            settings[LR] = rate
        if is_sweep and self.study.lr_sweep is not None:
            settings |= self.study.lr_sweep.settings
            if self.study.lr_sweep.max_duration is not None:
                settings["max_duration"] = self.study.lr_sweep.max_duration
        settings["runs_dir"] = self.runs_dir
        plain = self._config(tuple(arguments_of(settings)))
        context_length = context_length_of(plain)
        dataset = self.data.dataset(axes[CORPUS], axes[TOKENIZER], context_length)
        data_config = replace(plain.data, path=dataset.folder)
        order, seed = str(axes[ORDER]), axes[SEED]
        config = replace(plain, data=data_config, direction=None, order=order, seed=seed, run_name=run_name)
        require_a_step(config, self.study.name)
        first = {ORDER: order, SEED: seed, "data.path": dataset.folder, "run_name": run_name}
        arguments = tuple(arguments_of(first | settings))
        command = Command("train_composer", arguments, self.config.devices)
        return PlannedRun(name, axes, dataset, command, config, is_sweep, waits)

    def settings_of(self, axes: Mapping[str, Any]) -> dict[str, Any]:
        """Settings of a run with these values on the axes, without those that the study itself gives."""
        settings = dict(self.study.settings)
        for condition, given in self.study.where:
            if fits(axes, condition):
                settings |= given
        special = (CORPUS, TOKENIZER, ORDER, SEED, LR)
        settings |= {key: value for key, value in axes.items() if key not in special}
        return {key: value for key, value in settings.items() if key not in (ORDER, SEED)}

    def _config(self, arguments: tuple[str, ...]) -> TrainConfig:
        if arguments not in self.composed:
            try:
                self.composed[arguments] = configuration_of("train_composer", [*arguments, "order=forward"])
            except (HydraException, OmegaConfBaseException, InputError) as error:
                raise InputError(f"study={self.study.name}: {explain(error, TrainConfig)}") from None
        return self.composed[arguments]


def require_a_step(config: TrainConfig, study: str) -> None:
    """Raise InputError for a budget of less than an optimizer step."""
    number, unit = parse_duration(config.max_duration)
    batch_tokens = config.batch_size * context_length_of(config)
    if unit == "tok" and number < batch_tokens:
        raise InputError(
            f"study={study}: max_duration={config.max_duration} is no step: one has batch_size={config.batch_size} "
            f"windows of {context_length_of(config)} tokens, {batch_tokens:,} in all; give more."
        )


def best_rates(
    runs: Sequence[PlannedRun], losses: Mapping[str, float | None]
) -> tuple[dict[tuple[Combination, str], float], list[dict[str, Any]]]:
    """Find the learning rates of each order, and of all orders together, from the runs of the sweep.

    Args:
        runs: all runs of the study.
        losses: validation loss of each run at its end, nats per token, by its name; None where it has none, and
            infinity where it was not finite.

    Returns:
        The rates by combination and word, without those whose runs are not complete, or where no rate has led every
        order to a finite loss; and what study.json says.
    """
    groups: dict[Combination, dict[str, dict[float, float | None]]] = {}
    for run in runs:
        if run.is_sweep:
            of_order = groups.setdefault(run.but_order, {}).setdefault(run.axes[ORDER], {})
            of_order[run.axes[LR]] = losses.get(run.name)
    found: dict[tuple[Combination, str], float] = {}
    told: list[dict[str, Any]] = []
    for others, orders in groups.items():
        if any(loss is None for of_rate in orders.values() for loss in of_rate.values()):
            continue
        means = {
            rate: sum(of_rate[rate] or 0.0 for of_rate in orders.values()) / len(orders)
            for rate in next(iter(orders.values()))
        }
        same = min(means, key=lambda rate: means[rate])
        if means[same] == math.inf:
            continue
        best = {order: min(of_rate, key=lambda rate: of_rate[rate] or 0.0) for order, of_rate in orders.items()}
        told.append({"axes": dict(others), "best": best, "same": same})
        for run in runs:
            combination = run.combination
            if run.is_sweep or run.but_order != others:
                continue
            found[combination, "same"] = same
            found[combination, "best"] = best[run.axes[ORDER]]
    return found, told
