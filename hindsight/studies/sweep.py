"""What a sweep is going to run: `train_composer.py -m direction=forward,backward seed=1,2` prints this table first."""

import itertools
import os
import statistics
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from hindsight import output, runs
from hindsight.command_line import configuration_of, keys_of_texts, one_line_errors
from hindsight.config.defaults import with_defaults
from hindsight.config.key_roles import SpeedRole, roles_of
from hindsight.config.keys import flatten
from hindsight.config.order import BOTH
from hindsight.config.training import TrainConfig
from hindsight.config.typed_text import as_typed
from hindsight.durations import parse_duration, tokens_in
from hindsight.errors import InputError
from hindsight.json_lines import read_backward
from hindsight.loading.windows import SplitWindows
from hindsight.shards.manifest import Manifest
from hindsight.training.init_source import check_early
from hindsight.training.run_settings import check_records
from hindsight.training.setup import check_setup, context_length_of, locate_data

MEDIAN_OF = 1000
"""Last lines of a run that say how fast it was."""


def runs_of(arguments: list[str]) -> list[TrainConfig]:
    """Compose and check the config of every run of a sweep, in the order in which they are started."""
    typed = as_typed(arguments, keys_of_texts("train_composer"), is_sweep=True)
    given = [argument for argument in typed if not argument.startswith(("-", "hydra"))]
    choices = [
        [f"{each.get_key_element()}={value}" for value in each.sweep_string_iterator()]
        if each.is_sweep_override()
        else [str(each.input_line)]
        for each in OverridesParser.create().parse_overrides(given)
    ]
    configs = [configuration_of("train_composer", chosen) for chosen in itertools.product(*choices)]
    names = [config.name_of_run() for config in configs]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"run_name={name} is that of {names.count(name)} runs of the sweep; name them by what they differ in, "
                "such as 'run_name=lr${optim.lr}-${direction}'."
            )
    return configs


def tokens_of(run: TrainConfig) -> int | None:
    """Tokens that a run is trained on; None if max_duration is in epochs and the data is on object storage."""
    needs_data = parse_duration(run.max_duration)[1] == "ep" and "://" not in run.data.path
    manifest = Manifest.load(run.data.path, "data.path") if needs_data else None
    context_length, epoch_tokens = context_length_of(run), None
    if manifest is not None:
        epoch_tokens = manifest.splits["train"].tokens
        if run.data.stride is not None:
            place = run.data.path, "train", manifest
            epoch_tokens = SplitWindows.of(*place, context_length, run.batch_size, run.data.stride).epoch_tokens
        epoch_tokens *= 2 if run.order == BOTH else 1
    return tokens_in(run.max_duration, run.batch_size * context_length, epoch_tokens)


class EarlierRuns:
    """Runs that were trained before, by the settings that change the speed of training; their folders are read once.

    Args:
        places: folders of runs.
    """

    def __init__(self, places: Iterable[Path]) -> None:
        folders = [path.parent for place in places for path in place.glob(f"*/{runs.METRICS}")]
        self.found: list[tuple[dict[str, Any], int | None, Path]] = []
        for folder in sorted(folders, key=lambda folder: (folder / runs.METRICS).stat().st_mtime, reverse=True):
            with suppress(InputError):  # one that is damaged, or was killed before it had written its config
                settings = speed_settings(with_defaults(runs.read_config(folder)))
                n_ids = runs.read_metadata(folder).get("vocab_size") if (folder / runs.METADATA).exists() else None
                self.found.append((settings, n_ids, folder))

    def speed_of(self, run: TrainConfig, vocab_size: int | None = None) -> float | None:
        """Tokens/s of the newest one with the same settings, in either direction; None if there is none.

        Args:
            run: the run.
            vocab_size: its number of token ids, which must be equal too; None where it is not known.
        """
        wanted = speed_settings(flatten(asdict(run)))
        alike = (folder for settings, n, folder in self.found if settings == wanted and vocab_size in (None, n))
        return next((speed for speed in map(median_speed, alike) if speed is not None), None)


def median_speed(folder: Path) -> float | None:
    """Median of the tokens/s that a run has logged, of its last lines; None if it has logged none."""
    lines = islice(read_backward(folder / runs.METRICS), MEDIAN_OF)
    values = (line.get(runs.TOKENS_PER_SECOND) for line in lines)
    speeds = [value for value in values if runs.is_number(value)]
    return statistics.median(speeds) if speeds else None


def speed_settings(values: dict[str, Any]) -> dict[str, Any]:
    """Keep, of settings by their full keys, those that change the speed of training."""
    settings = {key: value for key, value in values.items() if roles_of(key).speed is SpeedRole.changes}
    settings["data.context_length"] = settings.get("data.context_length") or settings.get("model.context_length")
    return settings


def table_of(runs: list[TrainConfig]) -> str:
    """Name, tokens and hours of each run, and their sums, where they are known."""
    rows: list[tuple[str, float | None, float | None]] = []
    earlier = {place: EarlierRuns([Path(place)]) for place in {run.runs_dir for run in runs}}
    for run in runs:
        tokens, speed = tokens_of(run), earlier[run.runs_dir].speed_of(run)
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
    return "\n".join(lines)


def _sum(values: list[Any]) -> Any:
    return sum(values) if None not in values else None


def check_paths(config: TrainConfig) -> None:
    """Look at all that a run of a sweep is going to need, before the first run is trained.

    Raises:
        InputError: data or tokenizer on this machine are missing or do not fit, the run was begun with other settings,
            or a folder cannot be made.
    """
    locations = locate_data(config)
    if all(place.remote is None for place in locations.values()):
        setup = check_setup(config, locations)
        check_early(setup)
        if all((setup.folder / name).is_file() for name in runs.RECORDS):
            check_records(setup, setup.folder)
    for key, path in (
        ("runs_dir", config.runs_dir),
        ("checkpoint.folder", config.checkpoint.folder),
        ("data.cache_dir", config.data.cache_dir),
    ):
        if path is not None and "://" not in path:
            _require_place(key, Path(path).absolute())


def _require_place(key: str, path: Path) -> None:
    there = next(each for each in (path, *path.parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{key}={path} cannot be made a folder: {there} is no folder that can be written to.")


def announce(arguments: list[str]) -> None:
    """If arguments of train_composer.py ask for several runs, check them all and print the table."""
    if not {"-m", "--multirun"} & set(arguments):
        return
    with one_line_errors("train_composer"):
        configs = runs_of(arguments)
        for config in configs:
            check_paths(config)
        table = table_of(configs)
    if os.environ.get("RANK", "0") == "0":
        output.say(table)
