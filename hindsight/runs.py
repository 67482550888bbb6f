"""A run's folder, runs/<run_name>/: the names of its files, the names of its metrics, and the one reader of them.

config.yaml (complete), metadata.json (commit, fingerprints, versions), metrics.jsonl (an object a step) and
samples.jsonl are records for people and programs. Nothing here imports torch or OmegaConf's resolvers: a record may
come from somebody else, and is data.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from hindsight.config.keys import flatten
from hindsight.errors import InputError
from hindsight.files import open_regular
from hindsight.json_lines import read_backward, step_of
from hindsight.yaml_files import parse_yaml

CONFIG = "config.yaml"
METADATA = "metadata.json"
METRICS = "metrics.jsonl"
SAMPLES = "samples.jsonl"
CHECKPOINTS = "checkpoints"
CHECKPOINT_NAME = re.compile(r"ep\d+-ba(\d+)-rank0\.pt")
"""Name of a checkpoint: epochs and optimizer steps made."""
BACKUPS = "backups"
"""Folder, inside that of the checkpoints, of those that are kept for ever."""
WEIGHTS = "model.safetensors"
TOKEN_LOSSES = "token_losses.parquet"  # noqa: S105 - not a secret
"""Losses of every token that is validated on, by evaluate_tokens.py; the names of others say of what they are."""
TENSORBOARD, WANDB = "tensorboard", "wandb"
NEWEST_CHECKPOINT = "newest_checkpoint.json"
"""Which checkpoint was saved last: a run that has one never begins at step 0 again."""
MORE = "more.json"
"""What train.more asked for, up to where, and whether that was reached."""
ENERGY = "energy.json"
"""What each start of a run has spent, with energy=true."""
FINISHED = "finished.json"
"""The step at which the run ended with all that belongs to its end: evaluation, checkpoint and weights."""
STOP = "STOP"
"""A file of this name interrupts the run."""
LOCK = ".lock"
EARLIER = "earlier-"
"""Prefix of a folder with the records of a run that was begun under this name before, and never saved a checkpoint."""
FETCHING = ".fetching"
"""Folder for records that are being downloaded."""
ERROR_OF_RANK = ".error-of-rank-"
"""Prefix of the file in which a rank leaves its error for rank 0."""

RECORDS = (CONFIG, METADATA)
"""What a run's folder holds from its first start on."""
UPLOADED = (*RECORDS, MORE, ENERGY, METRICS, SAMPLES)
"""What is uploaded with each checkpoint, so that a run goes on where its folder is missing."""

MAX_RECORD_BYTES = 1 << 20
"""Largest config.yaml or metadata.json that is read; ours have a few thousand."""

FINGERPRINTS = ("data_fingerprint", "tokenizer_fingerprint")
"""Keys of metadata.json that say which data and tokenizer a run was trained on, wherever these are."""

LR_PLAN = "lr_plan"
"""Key of metadata.json: where the length of the run was changed, and what became of the learning rate."""

INITIAL_WEIGHTS = "initial_weights"
"""Key of metadata.json: the weights that the run began with where they were not drawn, by `from`, `fingerprint`, ..."""

TRAIN, EVAL = "train/", "eval/"
"""Prefixes of metric names: of an optimizer step, and of an evaluation."""
METRIC_NAMES = ("loss_nats", "perplexity", "accuracy", "bits_per_byte")
"""Nats per target, exp of it, share of targets predicted, bits per UTF-8 byte of the targets."""
TRAIN_LOSS, EVAL_LOSS = f"{TRAIN}loss_nats", f"{EVAL}loss_nats"
TOKENS_PER_SECOND = f"{TRAIN}tokens_per_second"
SKIPPED_STEPS = f"{TRAIN}skipped_steps"
"""Steps that optim.skip_spikes has left out so far, all starts together."""


def last_value(path: Path, key: str) -> float | None:
    """Last number that was logged under a key; None if none was."""
    values = (record.get(key) for record in read_backward(path, f'"{key}"'.encode()))
    return next((value for value in values if is_number(value)), None)


def is_number(value: Any) -> TypeGuard[int | float]:
    """Tell whether a value of a record is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.yaml as {full key: value}, such as optim.lr; InputError if it is missing or damaged."""
    # Not by OmegaConf: it would resolve references to the environment, which a file of somebody else may hold.
    return _read_mapping(folder / CONFIG, parse_yaml)


def read_metadata(folder: Path) -> dict[str, Any]:
    """Read metadata.json, its keys in full as those of the config; InputError if it is missing or damaged."""
    return _read_mapping(folder / METADATA, json.loads)


def require_keys(values: dict[str, Any], path: Path, *keys: str) -> None:
    """Raise InputError unless a record that was read from a file has these keys."""
    missing = [key for key in keys if values.get(key) is None]
    if missing:
        raise InputError(f"{path} has no {missing[0]}; was it written by train_composer.py?")


def is_evaluated(folder: Path, step: int) -> bool:
    """Tell whether metrics.jsonl has the evaluation of a step."""
    for record in read_backward(folder / METRICS):
        found = step_of(record)
        if found is not None and found <= step:
            return found == step and is_number(record.get(EVAL_LOSS))
    return False


def finished_step(folder: Path) -> int | None:
    """Step at which the run has ended with all that belongs to its end; None if it has not."""
    try:
        step = read_object(folder / FINISHED).get("step") if (folder / FINISHED).exists() else None
    except InputError:  # the run is looked at anew
        return None
    return step if type(step) is int and step >= 0 else None


def read_energy(folder: Path) -> list[dict[str, Any]]:
    """Read what each start of a run has spent, with energy=true; InputError if the file is damaged."""
    path = folder / ENERGY
    if not path.exists():
        return []
    starts = read_object(path).get("starts")
    if not isinstance(starts, list) or not all(_is_energy(each) for each in starts):
        raise InputError(f"{path} is damaged; remove it, and energy is counted from this start on.")
    return starts


def energy_of(starts: list[dict[str, Any]]) -> dict[str, Any]:
    """Sum of what starts have spent: kWh, and kg of CO2e."""
    return {key: float(sum(each[key] for each in starts)) for key in ("kwh", "co2e_kg")}


def _is_energy(start: Any) -> bool:
    return isinstance(start, dict) and all(is_number(start.get(key)) for key in ("kwh", "co2e_kg"))


def read_object(path: Path) -> dict[str, Any]:
    """Read an object of JSON; InputError if it is missing or damaged."""
    return _parse(path, json.loads)


def first_line(path: Path) -> str:
    """Give the beginning of a small file for a message, with what is not printed as escapes."""
    try:
        text = _read(path).decode(errors="replace").strip()
    except InputError as error:
        return str(error)
    return ascii(text[:200])[1:-1]


def _read_mapping(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    return _parse(path, parse, flatten)


def _parse(
    path: Path, parse: Callable[[str], Any], shape: Callable[[dict[str, Any]], dict[str, Any]] = dict
) -> dict[str, Any]:
    try:
        tree = parse(_read(path).decode())
        if not isinstance(tree, dict):
            raise ValueError("it holds no keys")
        return shape(tree)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        if isinstance(error, InputError):
            raise
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} is damaged: {ascii(what[:200])[1:-1]}") from None


def _read(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            data = file.read(MAX_RECORD_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); train_composer.py writes it.") from None
    if len(data) > MAX_RECORD_BYTES:
        raise InputError(f"{path} is damaged: it has more than {MAX_RECORD_BYTES:,} bytes.")
    return data
