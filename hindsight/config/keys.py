"""Keys of a configuration in full, such as optim.lr."""

import dataclasses
from collections.abc import Mapping
from enum import Enum
from typing import Any, cast

import omegaconf


def flatten(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """All values of nested mappings by their full key, such as optim.lr; an enum by its name, as YAML holds it."""
    values: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            values |= flatten(cast("Mapping[Any, Any]", value), f"{prefix}{name}.")
        else:
            values[f"{prefix}{name}"] = value.name if isinstance(value, Enum) else value
    return values


def defaults_of(config: Any, prefix: str = "") -> dict[str, Any]:
    """Defaults of all keys of a config, as `flatten` gives values; required keys have none."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            values |= defaults_of(value, f"{prefix}{field.name}.")
        elif field.default_factory is not dataclasses.MISSING:
            values[prefix + field.name] = field.default_factory()
        elif field.default not in (dataclasses.MISSING, omegaconf.MISSING):
            values[prefix + field.name] = field.default
    return flatten(values)
