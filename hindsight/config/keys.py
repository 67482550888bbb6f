"""Keys of a configuration in full, such as optim.lr."""

from collections.abc import Mapping
from enum import Enum
from typing import Any, cast


def flatten(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """All values of nested mappings by their full key, such as optim.lr; an enum by its name, as YAML holds it."""
    values: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            values |= flatten(cast("Mapping[Any, Any]", value), f"{prefix}{name}.")
        else:
            values[f"{prefix}{name}"] = value.name if isinstance(value, Enum) else value
    return values
