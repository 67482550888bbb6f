"""What tells pairs apart in a table: the data, the model, what else differs, and the seed.

Data is named by its folder, and by as many of the folders above it as tell it from other data. What is the same data is
known by its fingerprint, wherever it lies; so is data that was made anew at the same place.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hindsight import runs

Settings = Mapping[str, Any]
"""What the runs of a pair agree in, by full keys; see `RecordedRun.settings`."""


def paths_of(config: Settings) -> str:
    """Where a run's data was, as its config says."""
    path, val_path = (str(config.get(key) or "").rstrip("/") for key in ("data.path", "data.val_path"))
    return path if val_path in ("", path) else f"{path} + {val_path}"


def name_data(paths: Mapping[str, str]) -> dict[str, str]:
    """Name data by the ends of their paths, as short as tells them apart.

    Args:
        paths: where data is, by its fingerprint.
    """
    return {fingerprint: _shortest(fingerprint, paths) for fingerprint in paths}


def _shortest(fingerprint: str, paths: Mapping[str, str]) -> str:
    path = paths[fingerprint]
    others = [other for key, other in paths.items() if key != fingerprint]
    if path in others:  # made anew: what it is made of is all that tells it apart
        return f"{_end(path, 1)} ({fingerprint[:8]})"
    for n_folders in range(1, path.count("/") + 2):
        name = _end(path, n_folders)
        if all(_end(other, n_folders) != name for other in others):
            return name
    return path


def _end(path: str, n_folders: int) -> str:
    return " + ".join("/".join(part.split("/")[-n_folders:]) for part in path.split(" + "))


def names_of(given: Sequence[tuple[Settings, Settings]]) -> list[tuple[str, str]]:
    """Name pairs.

    Args:
        given: for each pair, what its runs agree in, and the config of the forward run.

    Returns:
        For each pair the name of its data, and that of its model with all keys in which it differs from other pairs of
        the same data and model, the seed aside.
    """
    data = [settings[runs.FINGERPRINTS[0]] for settings, _ in given]
    paths: dict[str, str] = {}
    for fingerprint, (_, config) in zip(data, given, strict=True):
        paths.setdefault(fingerprint, paths_of(config))
    names = name_data(paths)
    models = [settings["model.name"] for settings, _ in given]
    named: list[tuple[str, str]] = []
    for place, (settings, _) in enumerate(given):
        alike = [each for i, (each, _) in enumerate(given) if (data[i], models[i]) == (data[place], models[place])]
        extra = [f"{key}={settings[key]}" for key in _differing(alike) if key in settings]
        named.append((names[data[place]], " ".join([models[place], *extra])))
    return named


def _differing(settings: Sequence[Settings]) -> list[str]:
    keys = dict.fromkeys(key for each in settings for key in each if key not in ("seed", "val_unigram_entropy_nats"))
    return [key for key in keys if any(each.get(key) != settings[0].get(key) for each in settings)]
