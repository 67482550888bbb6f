"""Read the files of a run's folder: config.yaml and metadata.json, and the JSON lines of metrics and samples."""

import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from hindsight.config.keys import flatten
from hindsight.errors import InputError


def read_mapping(path: Path, required_keys: str) -> dict[str, Any]:
    """Read a JSON or YAML file as one mapping with full keys, such as optim.lr.

    Args:
        path: the file.
        required_keys: full keys, separated by spaces; InputError names the first that is missing or null.
    """
    content = _read(path)
    try:
        tree = OmegaConf.to_container(OmegaConf.create(content.decode()))  # JSON is YAML
    except (ValueError, YAMLError, OmegaConfBaseException) as error:
        raise InputError(f"{path} is damaged: {error}") from None
    values = flatten(tree) if isinstance(tree, dict) else {}
    missing = [key for key in required_keys.split() if values.get(key) is None]
    if missing:
        raise InputError(f"{path} has no {missing[0]}; was it written by train_composer.py?")
    return values


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON objects, one a line; InputError for a damaged line, except a last one that a kill has cut."""
    lines: list[dict[str, Any]] = []
    *complete, last = _read(path).split(b"\n")
    for number, line in enumerate([*complete, last], start=1):
        try:
            lines.append(dict(json.loads(line)))
        except (ValueError, TypeError):
            if number <= len(complete):
                raise InputError(f"{path}, line {number} is no JSON object; the file is damaged.") from None
    return lines


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); train_composer.py writes it.") from None
