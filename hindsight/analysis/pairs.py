"""Find the pairs among runs: two runs that differ in direction and in nothing else that may change a loss.

The runs of a pair have opposite directions, and agree in the last evaluation's step, in the fingerprints of data and
tokenizer, in the unigram entropy of the validation tokens, in where a change of length changed the learning rate, and
in all keys of config.yaml for which hindsight/config/key_roles.py asks that.
"""

import json
import math
import statistics
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hindsight import runs
from hindsight.analysis.lr_changes import lr_changes
from hindsight.analysis.names import names_of, paths_of
from hindsight.config import key_roles
from hindsight.config.defaults import with_defaults
from hindsight.config.direction import Direction
from hindsight.errors import InputError
from hindsight.json_lines import read_backward, read_records, step_of

MOST_DIFFERENCES = 6
"""Most differences of two runs that a message names."""
WARNED_METADATA = ("git_commit", "world_size", "versions")
"""Keys of metadata.json (and those below them) in which a pair may differ with a warning: they may change rounding."""


@dataclass
class RecordedRun:
    """A run, as its folder records it."""

    folder: Path
    direction: Direction
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

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that the runs of a pair must agree in."""
        settings = self._config_of(key_roles.PairRole.equal) | {key: self.metadata[key] for key in runs.FINGERPRINTS}
        settings[runs.LR_PLAN] = lr_changes(self.config, self.metadata.get(runs.LR_PLAN), self.evaluations[-1]["step"])
        # Rounded, because another machine may add up the same counts in another order.
        return settings | {"val_unigram_entropy_nats": round(self.metadata["val_unigram_entropy_nats"], 9)}

    @property
    def conditions(self) -> dict[str, Any]:
        """Everything in which the runs of a pair may differ with a warning, because it may change the rounding."""
        metadata = {key: value for key, value in self.metadata.items() if key.split(".")[0] in WARNED_METADATA}
        return self._config_of(key_roles.PairRole.warned) | metadata

    def _config_of(self, role: key_roles.PairRole) -> dict[str, Any]:
        return {key: value for key, value in self.config.items() if key_roles.roles_of(key).pair is role}


@dataclass
class Pair:
    """A forward run and its backward twin."""

    data: str
    """Name of the data that tells it from that of other pairs."""
    model: str
    """Name of the model, and what else tells this pair from others of the same data and seed."""
    runs: tuple[RecordedRun, RecordedRun]
    """Forward, backward."""

    @property
    def seed(self) -> int:
        """Seed of both runs."""
        return self.runs[0].config["seed"]

    @property
    def label(self) -> str:
        """Data, model and seed."""
        return f"{self.data} {self.model} seed {self.seed}"

    def gaps(self) -> dict[str, float]:
        """Gaps, backward minus forward; each name gives the unit, or what the percentage is relative to."""
        forward, backward = (run.evaluations[-1] for run in self.runs)
        fw, bw = forward[runs.EVAL_LOSS], backward[runs.EVAL_LOSS]
        return {
            "gap_nats": bw - fw,
            "gap_bits_per_byte": backward["eval/bits_per_byte"] - forward["eval/bits_per_byte"],
            "gap_over_forward_percent": 100 * (bw / fw - 1),
            "gap_over_mean_percent": 100 * (bw - fw) / ((bw + fw) / 2),
        }

    def warnings(self) -> list[str]:
        """Differences that may change the rounding, runs before their end, and what the runs noted of themselves."""
        forward, backward = self.runs
        found = differences(forward.conditions, backward.conditions)
        lines = [f"{forward.folder} and {backward.folder} have {difference}" for difference in found]
        for run in self.runs:
            step, total = run.evaluations[-1]["step"], run.metadata.get("total_steps")
            if total is not None and step < total:
                lines.append(f"{run.folder} was last evaluated at step {step} of {total}")
        noted = [(run, note) for run in self.runs for note in run.metadata.get("notes") or []]
        for note in dict.fromkeys(note for _, note in noted):
            lines.append(f"{' and '.join(str(run.folder) for run, other in noted if other == note)}: {note}")
        return lines


def read_run(folder: Path) -> RecordedRun:
    """Read a run's folder; InputError if the run has no usable evaluation."""
    if not folder.is_dir():
        raise InputError(f"runs: {folder} does not exist; name folders such as runs/<run_name>.")
    metadata, config = runs.read_metadata(folder), runs.read_config(folder)
    runs.require_keys(metadata, folder / runs.METADATA, *runs.FINGERPRINTS, "val_unigram_entropy_nats")
    runs.require_keys(config, folder / runs.CONFIG, "direction", "model.name", "seed")
    if config["direction"] not in Direction.__members__:
        raise InputError(f"{folder / runs.CONFIG} has direction={config['direction']}, not forward or backward.")
    evaluations, speeds = _measured(folder)
    return RecordedRun(
        folder=folder,
        direction=Direction[config["direction"]],
        config=with_defaults(config),
        metadata=metadata,
        evaluations=evaluations,
        tokens_per_second=statistics.median(speeds) if speeds else None,
        sample=next(read_backward(folder / runs.SAMPLES), None),
    )


def _measured(folder: Path) -> tuple[list[dict[str, Any]], array]:
    """Read the lines with a validation loss, and tokens/s; InputError if there is no loss, or the last is not finite.

    Of a million lines, no more is kept in memory.
    """
    path, before = folder / runs.METRICS, -1
    evaluations: list[dict[str, Any]] = []
    speeds = array("d")
    for line in read_records(path):
        step = step_of(line)
        if step is None or step <= before:
            raise InputError(f"{path} must have a step in every line, each once, in order; train the run anew.")
        before = step
        if runs.is_number(speed := line.get(runs.TOKENS_PER_SECOND)):
            speeds.append(speed)
        if runs.EVAL_LOSS in line:
            evaluations.append({key: value for key, value in line.items() if not key.startswith(runs.TRAIN)})
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
    return evaluations, speeds


def read_runs(folders: Sequence[Path]) -> tuple[list[RecordedRun], list[str]]:
    """Read runs.

    Returns:
        The runs, and why others cannot be compared, such as one that has no evaluation yet.
    """
    found: list[RecordedRun] = []
    left_out: list[str] = []
    for folder in folders:
        try:
            found.append(read_run(folder))
        except InputError as error:
            left_out.append(str(error))
    return found, left_out


def pair_runs(given: Sequence[RecordedRun]) -> tuple[list[Pair], list[str]]:
    """Find the backward twin of every forward run.

    Returns:
        The pairs, and for each run that is in none, why. Of runs that differ in nothing that
        counts, the first is taken.
    """
    groups: dict[str, dict[Direction, RecordedRun]] = {}
    kept: list[RecordedRun] = []
    left_out: list[str] = []
    for run in given:
        group = groups.setdefault(json.dumps(run.settings, sort_keys=True), {})
        if run.direction in group:
            both = f"{group[run.direction].folder} and {run.folder} are the same run twice"
            left_out.append(
                f"{both}: direction={run.direction.name} and no difference that counts; the first is taken."
            )
            continue
        group[run.direction] = run
        kept.append(run)
    pairs: list[Pair] = []
    for group in groups.values():
        if len(group) == 1:
            left_out.append(_why_unpaired(next(iter(group.values())), kept))
            continue
        forward, backward = group[Direction.forward], group[Direction.backward]
        steps = forward.evaluations[-1]["step"], backward.evaluations[-1]["step"]
        if steps[0] != steps[1]:
            both = f"{forward.folder} was last evaluated at step {steps[0]}, {backward.folder} at step {steps[1]}"
            left_out.append(f"{both}; train the shorter one further.")
            continue
        pairs.append(Pair("", "", (forward, backward)))
    for pair, (data, model) in zip(
        pairs, names_of([(p.runs[0].settings, p.runs[0].config) for p in pairs]), strict=True
    ):
        pair.data, pair.model = data, model
    return pairs, left_out


def differences(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
    """List the keys in which two mappings differ, with both values."""
    values = {key: (left.get(key, "absent"), right.get(key, "absent")) for key in left | right}
    return [f"{key}={a} against {b}" for key, (a, b) in values.items() if a != b]


def _why_unpaired(run: RecordedRun, given: Sequence[RecordedRun]) -> str:
    """Name the run that comes closest to being this one's twin, and what they differ in."""
    unpaired = f"{run.folder} (direction={run.direction.name}) has no twin of the other direction among runs="
    others = [other for other in given if other is not run]
    if not others:
        return f"{unpaired}; train one, with the same settings but its direction."
    closest = min(others, key=lambda o: (o.direction is run.direction, len(differences(run.settings, o.settings))))
    found = _explained(run, closest)
    if closest.direction is run.direction:
        found.insert(0, f"direction={run.direction.name} too")
    more = [f"{len(found) - MOST_DIFFERENCES} more"] if len(found) > MOST_DIFFERENCES else []
    shown = ", ".join([*found[:MOST_DIFFERENCES], *more])
    return f"{unpaired}. The closest run is {closest.folder}, with {shown}; a pair differs in direction only."


def _explained(left: RecordedRun, right: RecordedRun) -> list[str]:
    """What two runs differ in that those of a pair must agree in, by keys that people know: no fingerprints."""
    found: list[str] = []
    hidden = {*runs.FINGERPRINTS}
    places = [(paths_of(run.config), run.config.get("data.tokenizer")) for run in (left, right)]
    is_other_data, is_other_tokenizer = (left.settings[key] != right.settings[key] for key in runs.FINGERPRINTS)
    if is_other_data and places[0][0] != places[1][0]:
        found.append(f"data.path={places[0][0]} against {places[1][0]}")
        hidden.add("val_unigram_entropy_nats")
    elif is_other_data:
        found.append(f"other tokens in data.path={places[0][0]}, which was made anew between them")
    if is_other_tokenizer and (not is_other_data or places[0][1] != places[1][1]):
        tokenizers = [tokenizer or f"{path}/tokenizer" for path, tokenizer in places]
        differ = f"{tokenizers[0]} against {tokenizers[1]}" if tokenizers[0] != tokenizers[1] else tokenizers[0]
        found.append(f"another tokenizer, data.tokenizer={differ}")
    settings = [{key: value for key, value in run.settings.items() if key not in hidden} for run in (left, right)]
    return found + differences(settings[0], settings[1])
