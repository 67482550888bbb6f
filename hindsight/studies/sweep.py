"""What a sweep is going to run: `train_composer.py -m direction=forward,backward seed=1,2` prints this table first."""

import itertools
import json
import os
import statistics
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from hindsight.command_line import CONF_DIR, one_line_errors, register_schemas, to_dataclass
from hindsight.config.keys import flatten
from hindsight.config.training import TrainConfig
from hindsight.durations import parse_duration
from hindsight.errors import InputError
from hindsight.shards.manifest import Manifest

SAME_SPEED = ("model", "data.context_length", "batch_size", "microbatch_size", "precision", "compile", "metrics")
SAME_SPEED += ("activation_checkpointing",)
"""Keys, or groups of keys, that two runs of one speed have in common."""


def runs_of(arguments: list[str]) -> list[TrainConfig]:
    """Compose and check the config of every run of a sweep, in the order in which they are started."""
    given = [argument for argument in arguments if not argument.startswith(("-", "hydra"))]
    choices = [
        [f"{each.get_key_element()}={value}" for value in each.sweep_string_iterator()]
        if each.is_sweep_override()
        else [str(each.input_line)]
        for each in OverridesParser.create().parse_overrides(given)
    ]
    register_schemas("train_composer")
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        runs = [to_dataclass(compose("train_composer", list(chosen))) for chosen in itertools.product(*choices)]
    names = [run.name_of_run() for run in runs]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"run_name={name} is that of {names.count(name)} runs of the sweep; name them by what they differ in, "
                "such as 'run_name=lr${optim.lr}-${direction}'."
            )
    return runs


def tokens_of(run: TrainConfig) -> int | None:
    """Tokens that a run is trained on; None where only data that is elsewhere tells."""
    number, unit = parse_duration(run.max_duration)
    if unit == "tok":
        return number
    if unit == "ba":
        return number * run.batch_size * (run.data.context_length or run.model.context_length)
    if "://" in run.data.path:
        return None
    return number * Manifest.load(run.data.path, "data.path").splits["train"].tokens


def speed_of(run: TrainConfig) -> float | None:
    """Tokens/s of the newest run in runs_dir with the same settings, in either direction; None if there is none."""
    wanted = _speed_settings(flatten(asdict(run)))
    records = sorted(Path(run.runs_dir).glob("*/metrics.jsonl"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in records:
        config = path.with_name("config.yaml")
        if config.exists() and _speed_settings(flatten(yaml.safe_load(config.read_text(encoding="utf-8")))) == wanted:
            lines = path.read_text(encoding="utf-8").splitlines()
            steps = [json.loads(line) for line in lines if line.endswith("}")]
            speeds = [step["train/tokens_per_second"] for step in steps if "train/tokens_per_second" in step]
            if speeds:
                return statistics.median(speeds)
    return None


def _speed_settings(values: dict[str, Any]) -> dict[str, Any]:
    settings = {key: value for key, value in values.items() if key in SAME_SPEED or key.split(".")[0] in SAME_SPEED}
    settings["data.context_length"] = settings["data.context_length"] or settings["model.context_length"]
    return settings


def table_of(runs: list[TrainConfig]) -> str:
    """Name, tokens and hours of each run, and their sums, where they are known."""
    rows: list[tuple[str, float | None, float | None]] = []
    for run in runs:
        tokens, speed = tokens_of(run), speed_of(run)
        hours = tokens / speed / 3600 if tokens is not None and speed is not None else None
        rows.append((run.name_of_run(), tokens, hours))
    rows.append((f"{len(runs)} runs", _sum([row[1] for row in rows]), _sum([row[2] for row in rows])))
    width = max(len(row[0]) for row in rows)
    lines = [f"{'run':<{width}}  {'tokens':>18}  {'hours':>9}"]
    for name, tokens, hours in rows:
        shown = (
            f"{tokens:,}" if tokens is not None else "unknown",
            f"{hours:,.2f}" if hours is not None else "unknown",
        )
        lines.append(f"{name:<{width}}  {shown[0]:>18}  {shown[1]:>9}")
    lines.append("Hours are those at the speed of the newest run in runs_dir with the same model, batch and precision.")
    return "\n".join(lines) + "\n"


def _sum(values: list[Any]) -> Any:
    return sum(values) if None not in values else None


def announce(arguments: list[str]) -> None:
    """If arguments of train_composer.py ask for several runs, check them all and print the table."""
    if not {"-m", "--multirun"} & set(arguments):
        return
    with one_line_errors("train_composer"):
        table = table_of(runs_of(arguments))
    if os.environ.get("RANK", "0") == "0":
        sys.stdout.write(table)
        sys.stdout.flush()
