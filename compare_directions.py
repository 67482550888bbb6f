"""Compare runs that differ only in direction: how much harder is it to predict text backward than forward?

FW and BW are the validation losses (nats/token) of a pair of runs at their last evaluation. The gap between them is

    BW/FW - 1                    the percentage difference of arXiv:2401.17505
    (BW - FW) / ((FW + BW)/2)    the same over the mean of the two, so that neither direction is the reference

in %, and greater than 0 where backward is harder. A pair has opposite directions, and agrees in all keys of config.yaml
but those listed below, in the fingerprints of data and tokenizer, in the unigram entropy of the validation tokens, and
in the step of the last evaluation. Any other run is refused, and the difference named.
"""

import csv
import io
import json
import logging
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from hindsight.analysis.plots import draw, text
from hindsight.command_line import run_script
from hindsight.config.comparison import CompareConfig
from hindsight.config.direction import Direction
from hindsight.config.keys import flatten
from hindsight.errors import InputError
from hindsight.files import write_atomically

# A pair may differ in these keys, and in those below them; they cannot change a loss ...
FREE_KEYS = ("run_name", "runs_dir", "checkpoint", "wandb", "tensorboard", "samples", "progress_bar", "log_interval")
FREE_KEYS += ("metrics", "data.num_workers")
# ... or are compared by the fingerprints in metadata.json, because the same files may lie elsewhere.
FREE_KEYS += ("data.path", "data.val_path", "data.tokenizer")
# In these, of config.yaml and metadata.json, too, with a warning: they should change no more than the rounding of sums.
WARNED_KEYS = ("microbatch_size", "compile", "activation_checkpointing", "git_commit", "world_size", "versions")
ABOUT = ("val_unigram_entropy_nats", "n_parameters", "data_fingerprint", "tokenizer_fingerprint", "git_commit")
METRICS = ("loss_nats", "bits_per_byte", "perplexity", "accuracy")

log = logging.getLogger("hindsight")


@dataclass
class Run:
    """What a run folder holds."""

    folder: Path
    direction: Direction
    config: dict[str, Any]
    """config.yaml, its keys in full: optim.lr and so on."""
    metadata: dict[str, Any]
    evaluations: list[dict[str, Any]]
    """The lines of metrics.jsonl with a validation loss, at least one."""
    tokens_per_second: float | None
    """Median over the run; None where none was logged."""
    sample: dict[str, Any] | None
    """The last line of samples.jsonl."""

    @property
    def settings(self) -> dict[str, Any]:
        """All that a pair must agree in."""
        free = _below(self.config, ("direction", *FREE_KEYS, *WARNED_KEYS))
        settings = {key: value for key, value in self.config.items() if key not in free}
        settings |= {key: self.metadata[key] for key in ("data_fingerprint", "tokenizer_fingerprint")}
        # Rounded, because another machine may add up the same counts in another order.
        return settings | {"val_unigram_entropy_nats": round(self.metadata["val_unigram_entropy_nats"], 9)}


@dataclass
class Pair:
    """A forward run and its backward twin."""

    label: str
    runs: tuple[Run, Run]
    """Forward, backward."""

    def rows(self) -> list[dict[str, Any]]:
        """The runs as two lines of comparison.csv."""
        rows: list[dict[str, Any]] = []
        for run in self.runs:
            last = run.evaluations[-1]
            row = {"pair": self.label, "direction": run.direction.name, "folder": str(run.folder)}
            row |= {"model": run.config["model.name"], "seed": run.config["seed"]}
            row |= {"step": last["step"], "tokens": last["tokens"]} | {name: last[f"eval/{name}"] for name in METRICS}
            rows.append(row | {"tokens_per_second": run.tokens_per_second} | {k: run.metadata.get(k) for k in ABOUT})
        return rows

    def gaps(self) -> dict[str, float]:
        """Backward minus forward at the last evaluation, by every definition."""
        forward, backward = (run.evaluations[-1] for run in self.runs)
        fw, bw = forward["eval/loss_nats"], backward["eval/loss_nats"]
        return {
            "gap_nats": bw - fw,
            "gap_bits_per_byte": backward["eval/bits_per_byte"] - forward["eval/bits_per_byte"],
            "gap_over_forward_percent": 100 * (bw / fw - 1),
            "gap_over_mean_percent": 100 * (bw - fw) / ((bw + fw) / 2),
        }

    def warnings(self) -> list[str]:
        """Differences that are allowed but may matter, and a run that has not reached its end."""
        forward, backward = self.runs
        found = differences(*(_below(run.config | run.metadata, WARNED_KEYS) for run in self.runs))
        lines = [f"{forward.folder} and {backward.folder} have {difference}" for difference in found]
        for run in self.runs:
            step, total = run.evaluations[-1]["step"], run.metadata.get("total_steps")
            if total is not None and step < total:
                lines.append(f"{run.folder} was last evaluated at step {step} of {total}")
        return lines


# ------------------------------------------------------------------------------------------------------------ reading


def read_run(folder: Path) -> Run:
    """Read a run folder; refuse one that cannot be compared with anything."""
    if not folder.is_dir():
        raise InputError(f"runs: {folder} does not exist; name folders such as runs/<run_name>.")
    metadata = _mapping(folder / "metadata.json", "data_fingerprint tokenizer_fingerprint val_unigram_entropy_nats")
    config = _mapping(folder / "config.yaml", "direction model.name seed")
    if config["direction"] not in Direction.__members__:
        raise InputError(f"{folder / 'config.yaml'} has direction={config['direction']}, not forward or backward.")
    metrics, samples = read_lines(folder / "metrics.jsonl"), folder / "samples.jsonl"
    steps = [line.get("step") for line in metrics]
    if any(not isinstance(step, int) for step in steps) or len(set(steps)) < len(steps):
        raise InputError(f"{folder / 'metrics.jsonl'} must have a step in every line, each once; train the run anew.")
    evaluations = [line for line in metrics if "eval/loss_nats" in line]
    if not evaluations:
        raise InputError(f"{folder} has no evaluation yet (eval/loss_nats in metrics.jsonl); train it further.")
    for key in ("tokens", *(f"eval/{name}" for name in METRICS)):
        value, step = evaluations[-1].get(key), evaluations[-1]["step"]
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(f"{folder} has {key}={value} at step {step}, its last evaluation: nothing to compare.")
    speeds = [line["train/tokens_per_second"] for line in metrics if "train/tokens_per_second" in line]
    return Run(
        folder=folder,
        direction=Direction[config["direction"]],
        config=config,
        metadata=metadata,
        evaluations=[{k: v for k, v in line.items() if not k.startswith("train/")} for line in evaluations],
        tokens_per_second=statistics.median(speeds) if speeds else None,
        sample=(read_lines(samples) or [None])[-1] if samples.exists() else None,
    )


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a JSON object a line. A kill may have cut the last line; every other one must be whole."""
    lines: list[dict[str, Any]] = []
    *whole, last = _read(path).split(b"\n")
    for number, line in enumerate([*whole, last], start=1):
        try:
            lines.append(dict(json.loads(line)))
        except (ValueError, TypeError):
            if number <= len(whole):
                raise InputError(f"{path}, line {number} is no JSON object; the file is damaged.") from None
    return lines


def _mapping(path: Path, keys: str) -> dict[str, Any]:
    """Read a JSON or YAML file, which must have these keys; nested keys are given in full: optim.lr."""
    content = _read(path)
    try:
        tree = OmegaConf.to_container(OmegaConf.create(content.decode()))  # JSON is YAML
    except (ValueError, YAMLError, OmegaConfBaseException) as error:
        raise InputError(f"{path} is damaged: {error}") from None
    values = flatten(tree) if isinstance(tree, dict) else {}
    missing = [key for key in keys.split() if values.get(key) is None]
    if missing:
        raise InputError(f"{path} has no {missing[0]}; was it written by train_composer.py?")
    return values


def _below(values: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if f"{key}.".startswith(tuple(f"{k}." for k in keys))}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); train_composer.py writes it.") from None


# ------------------------------------------------------------------------------------------------------------ pairing


def pair_runs(runs: Sequence[Run]) -> list[Pair]:
    """Find the backward twin of every forward run; refuse a run that has none, or two."""
    groups: dict[str, dict[Direction, Run]] = {}
    for run in runs:
        group = groups.setdefault(json.dumps(run.settings, sort_keys=True), {})
        if run.direction in group:
            both = f"{group[run.direction].folder} and {run.folder} are the same run twice"
            raise InputError(f"{both}: direction={run.direction.name} and no difference that counts; drop one of them.")
        group[run.direction] = run
    pairs: list[Pair] = []
    for group in groups.values():
        if len(group) == 1:
            raise InputError(_why_unpaired(next(iter(group.values())), runs))
        forward, backward = group[Direction.forward], group[Direction.backward]
        steps = forward.evaluations[-1]["step"], backward.evaluations[-1]["step"]
        if steps[0] != steps[1]:
            both = f"{forward.folder} was last evaluated at step {steps[0]}, {backward.folder} at step {steps[1]}"
            raise InputError(f"{both}; train the shorter one further.")
        pairs.append(Pair(f"{forward.config['model.name']} seed {forward.config['seed']}", (forward, backward)))
    labels = [pair.label for pair in pairs]
    for pair in pairs:
        pair.label += f" ({pair.runs[0].folder.name})" if labels.count(pair.label) > 1 else ""
    return pairs


def differences(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
    """Every key in which two mappings differ, with both values."""
    values = {key: (left.get(key, "absent"), right.get(key, "absent")) for key in left | right}
    return [f"{key}={a} against {b}" for key, (a, b) in values.items() if a != b]


def _why_unpaired(run: Run, runs: Sequence[Run]) -> str:
    others = [other for other in runs if other is not run]
    closest = min(others, key=lambda o: (o.direction is run.direction, len(differences(run.settings, o.settings))))
    found = differences(run.settings, closest.settings)
    if closest.direction is run.direction:
        found.insert(0, f"direction={run.direction.name} too")
    lonely = f"{run.folder} (direction={run.direction.name}) has no twin of the other direction among runs="
    return f"{lonely}. The closest run is {closest.folder}, with {', '.join(found)}; a pair differs in direction only."


def over_seeds(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Mean and standard deviation (over n - 1) of the gaps of pairs that differ in nothing but their seed."""
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(json.dumps(pair.runs[0].settings | {"seed": None}, sort_keys=True), []).append(pair)
    summaries: list[dict[str, Any]] = []
    for group in (group for group in groups.values() if len(group) > 1):
        configs = [pair.runs[0].config for pair in group]
        gaps = {key: [pair.gaps()[key] for pair in group] for key in group[0].gaps()}
        summary = {"model": configs[0]["model.name"], "seeds": [config["seed"] for config in configs]}
        summary |= {"mean": {key: statistics.mean(values) for key, values in gaps.items()}}
        summaries.append(summary | {"std": {key: statistics.stdev(values) for key, values in gaps.items()}})
    return summaries


# ------------------------------------------------------------------------------------------------------------- output


def report(pairs: Sequence[Pair]) -> dict[str, Any]:
    """All that is known, as comparison.json holds it."""
    return {
        "runs": [
            row | {name: getattr(run, name) for name in ("config", "metadata", "evaluations", "sample")}
            for pair in pairs
            for row, run in zip(pair.rows(), pair.runs, strict=True)
        ],
        "pairs": [
            {"pair": pair.label, "forward": str(pair.runs[0].folder), "backward": str(pair.runs[1].folder)}
            | pair.gaps()
            | {"warnings": pair.warnings()}
            for pair in pairs
        ],
        "over_seeds": over_seeds(pairs),
    }


def main(config: CompareConfig) -> None:
    """Read, pair, write the files, then show what is in them."""
    pairs = pair_runs([read_run(Path(folder)) for folder in config.runs])
    out = Path(config.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"out={out} cannot be made a folder ({error.strerror}); choose another.") from None
    table, full = io.StringIO(), report(pairs)
    writer = csv.DictWriter(table, list(pairs[0].rows()[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row for pair in pairs for row in pair.rows())
    write_atomically(out / "comparison.csv", table.getvalue())
    write_atomically(out / "comparison.json", json.dumps(full, indent=2))
    write_atomically(out / "comparison.png", draw(full))
    log.info("%s\n", text(full))
    log.info("Plot:    %s", out / "comparison.png")
    log.info("Numbers: %s, %s", out / "comparison.csv", out / "comparison.json")
    log.info("Runs:    %s", ", ".join(config.runs))


if __name__ == "__main__":
    run_script("compare_directions", main)
