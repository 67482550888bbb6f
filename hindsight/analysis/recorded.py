"""A run as its folder records it: what it was trained with, and what its evaluations gave.

A run of order=both is one model that was evaluated in either direction: it is read as two, forward and backward, that
are a pair of their own, and are compared with no run of one order.
"""

import math
import statistics
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hindsight import runs
from hindsight.analysis.lr_changes import lr_changes
from hindsight.config import key_roles
from hindsight.config.defaults import with_defaults
from hindsight.config.order import DIRECTIONS
from hindsight.errors import InputError
from hindsight.json_lines import read_backward, read_records, step_of

WARNED_METADATA = ("git_commit", "world_size", "versions")
"""Keys of metadata.json (and those below them) in which a pair may differ with a warning: they may change rounding."""
BOTH = "both"
"""The order of a run that reads every window in either direction."""


@dataclass
class RecordedRun:
    """A run, as its folder records it."""

    folder: Path
    order: str
    """In which it read, or, of a run of both, in which it was evaluated here."""
    config: dict[str, Any]
    """config.yaml by full keys, such as optim.lr, with the defaults of keys that are younger than the run."""
    metadata: dict[str, Any]
    """metadata.json by full keys."""
    evaluations: list[dict[str, Any]]
    """The lines of metrics.jsonl with a validation loss, at least one, without their train/... values."""
    tokens_per_second: float | None
    """Median over the run; None if none was logged."""
    sample: dict[str, Any] | None
    """The last line of samples.jsonl; None if there is none."""
    is_both: bool = False
    """Whether this is one of the two evaluations of a run of both orders."""
    skipped_steps: int = 0
    """Steps that optim.skip_spikes had left out by the last evaluation."""

    @property
    def loss_nats(self) -> float:
        """Validation loss at the last evaluation, per token."""
        return self.evaluations[-1][runs.EVAL_LOSS]

    @property
    def step(self) -> int:
        """Step of the last evaluation."""
        return self.evaluations[-1]["step"]

    @property
    def token_losses(self) -> Path:
        """Where evaluate_tokens.py writes the losses by token that belong to these evaluations."""
        path = self.folder / runs.TOKEN_LOSSES
        return path.with_name(f"{path.stem}-{self.order}{path.suffix}") if self.is_both else path

    @property
    def setting_of_order(self) -> str:
        """The order as a setting, by the key that people gave."""
        return f"{'direction' if self.order in DIRECTIONS else 'order'}={self.order}"

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that the runs of a pair must agree in."""
        settings = self._config_of(key_roles.PairRole.equal) | {key: self.metadata[key] for key in runs.FINGERPRINTS}
        settings[runs.LR_PLAN] = lr_changes(self.config, self.metadata.get(runs.LR_PLAN), self.step)
        if (weights := self.metadata.get(f"{runs.INITIAL_WEIGHTS}.fingerprint")) is not None:
            settings[runs.INITIAL_WEIGHTS] = weights
        if self.is_both:
            settings["order"] = BOTH
        # Rounded, because another machine may add up the same counts in another order.
        return settings | {"val_unigram_entropy_nats": round(self.metadata["val_unigram_entropy_nats"], 9)}

    @property
    def conditions(self) -> dict[str, Any]:
        """All in which runs of a pair may differ with a warning: what changes the rounding, and steps left out."""
        metadata = {key: value for key, value in self.metadata.items() if key.split(".")[0] in WARNED_METADATA}
        return self._config_of(key_roles.PairRole.warned) | metadata | {runs.SKIPPED_STEPS: self.skipped_steps}

    def _config_of(self, role: key_roles.PairRole) -> dict[str, Any]:
        return {key: value for key, value in self.config.items() if key_roles.roles_of(key).pair is role}


def read_run(folder: Path) -> RecordedRun:
    """Read a run's folder; InputError if the run has no usable evaluation."""
    if not folder.is_dir():
        raise InputError(f"runs: {folder} does not exist; name folders such as runs/<run_name>.")
    metadata, config = runs.read_metadata(folder), runs.read_config(folder)
    runs.require_keys(metadata, folder / runs.METADATA, *runs.FINGERPRINTS, "val_unigram_entropy_nats")
    order = config.get("order")
    runs.require_keys(config, folder / runs.CONFIG, *(() if order else ("direction",)), "model.name", "seed")
    if not order and config["direction"] not in DIRECTIONS:
        raise InputError(f"{folder / runs.CONFIG} has direction={config['direction']}, not forward or backward.")
    evaluations, speeds, skipped_steps = _measured(folder)
    return RecordedRun(
        folder=folder,
        order=str(order or config["direction"]),
        config=with_defaults(config),
        metadata=metadata,
        evaluations=evaluations,
        tokens_per_second=statistics.median(speeds) if speeds else None,
        sample=next(read_backward(folder / runs.SAMPLES), None),
        skipped_steps=skipped_steps,
    )


def _measured(folder: Path) -> tuple[list[dict[str, Any]], array, int]:
    """Read the lines with a validation loss, tokens/s, and how many steps had been left out by the last of those lines.

    InputError if there is no loss, or the last is not finite. Of a million lines, no more is kept in memory.
    """
    path, before = folder / runs.METRICS, -1
    evaluations: list[dict[str, Any]] = []
    speeds, skipped, skipped_before_evaluation = array("d"), 0, 0
    for line in read_records(path):
        step = step_of(line)
        if step is None or step <= before:
            raise InputError(f"{path} must have a step in every line, each once, in order; train the run anew.")
        before = step
        if runs.is_number(speed := line.get(runs.TOKENS_PER_SECOND)):
            speeds.append(speed)
        if isinstance(count := line.get(runs.SKIPPED_STEPS), int):
            skipped = count
        if runs.EVAL_LOSS in line:
            evaluations.append({key: value for key, value in line.items() if not key.startswith(runs.TRAIN)})
            skipped_before_evaluation = skipped
    if not evaluations:
        raise InputError(f"{folder} has no evaluation yet ({runs.EVAL_LOSS} in {runs.METRICS}); train it further.")
    for line in evaluations:
        if not runs.is_number(line[runs.EVAL_LOSS]) or not runs.is_number(line.get("tokens")):
            raise InputError(f"{path}: step {line['step']} has no number as its {runs.EVAL_LOSS}, or its tokens.")
    last = evaluations[-1]
    for key in ("tokens", *(runs.EVAL + name for name in runs.METRIC_NAMES)):
        value = last.get(key)
        if not runs.is_number(value) or not math.isfinite(value):
            raise InputError(
                f"{folder} has {key}={value} at step {last['step']}, its last evaluation: nothing to compare."
            )
    return evaluations, speeds, skipped_before_evaluation


def evaluations_of(run: RecordedRun) -> list[RecordedRun]:
    """Give a run; for one of both orders, give what was measured in each, as two runs.

    Its metrics.jsonl has eval/forward/loss_nats and eval/backward/loss_nats beside their mean, and so on.
    """
    if run.order != BOTH:
        return [run]
    found: list[RecordedRun] = []
    for order in DIRECTIONS:
        lines = [line | _values_of(line, order) for line in run.evaluations]
        for name in runs.METRIC_NAMES:
            value = run.evaluations[-1].get(f"{runs.EVAL}{order}/{name}")
            if not runs.is_number(value) or not math.isfinite(value):
                what = f"{runs.EVAL}{order}/{name}={value} at step {run.step}"
                raise InputError(f"{run.folder} has {what}, its last evaluation: nothing to compare.")
        samples = read_backward(run.folder / runs.SAMPLES)
        sample = next((each for each in samples if each.get("direction") == order), None)
        found.append(replace(run, order=order, evaluations=lines, sample=sample, is_both=True))
    return found


def _values_of(line: dict[str, Any], order: str) -> dict[str, Any]:
    """What a line of metrics.jsonl says of one of both orders, by the names that a run of that order alone has."""
    prefix = f"{runs.EVAL}{order}/"
    return {runs.EVAL + key.removeprefix(prefix): value for key, value in line.items() if key.startswith(prefix)}


def read_runs(folders: Sequence[Path]) -> tuple[list[RecordedRun], list[str]]:
    """Read runs.

    Returns:
        The runs, each of both orders as two, and why others cannot be compared, such as one that has no evaluation yet.
    """
    found: list[RecordedRun] = []
    left_out: list[str] = []
    for folder in folders:
        try:
            found += evaluations_of(read_run(folder))
        except InputError as error:
            left_out.append(str(error))
    return found, left_out
