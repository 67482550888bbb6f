"""What a table of runs shows of config.yaml, without parsing YAML, which takes half of the time of a thousand runs."""

import re
from pathlib import Path
from typing import Any

from hindsight import runs
from hindsight.files import open_regular

VALUE = r"[\w./+=~,-][\w./+=~,: -]*"
"""A value that YAML needs no quotes for."""
PLAIN = re.compile(rf"(?: *(?:\w+:(?: (?:{VALUE}|''|\[\]))?|- (?:{VALUE}|''))\n)+", re.ASCII)
"""A file of nothing but such values, empty ones, keys and lists, as runs write it; others are parsed."""
NEEDED = {
    "model.name": re.compile(rf"^model:\n(?:  .*\n)*?  name: ({VALUE})$", re.M),
    "data.path": re.compile(rf"^data:\n(?:  .*\n)*?  path: ({VALUE})$", re.M),
    "seed": re.compile(r"^seed: ([0-9]{1,10})$", re.M),
    "checkpoint.folder": re.compile(rf"^checkpoint:\n(?:  .*\n)*?  folder: ({VALUE})$", re.M),
}
"""How the values that must be there are written, those of a group indented by two spaces."""
ORDER = {key: re.compile(rf"^{key}: ({VALUE})$", re.M) for key in ("direction", "order")}
"""How the order is written; runs of older versions have no `order`."""
SHOWN = {*NEEDED, *ORDER}
"""The keys that are shown."""


def shown_config(folder: Path) -> dict[str, Any]:
    """Read what the table shows of a run's config.yaml, by full keys.

    Raises:
        InputError: it is missing or damaged, or not that of a run.
    """
    path = folder / runs.CONFIG
    values = plain_values(path)
    if values is None:
        values = runs.read_config(folder)
        runs.require_keys(values, path, "model.name", "data.path")
    return values


def plain_values(path: Path) -> dict[str, Any] | None:
    """Find the values by their lines; None if the file has to be parsed, or what is wrong with it has to be said."""
    try:
        with open_regular(path) as file:
            text = file.read(runs.MAX_RECORD_BYTES).decode("ascii")
    except (OSError, UnicodeDecodeError):
        return None
    if PLAIN.fullmatch(text) is None:
        return None
    found = {key: pattern.search(text) for key, pattern in NEEDED.items()}
    if None in found.values():
        return None
    matches = found | {key: pattern.search(text) for key, pattern in ORDER.items()}
    values = {key: match[1] for key, match in matches.items() if match is not None and match[1] != "null"}
    return values | {"seed": int(values["seed"])}
