"""The file of a study, and its bases: files in conf/study/base/ that have what several studies have in common."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import yaml

from hindsight.config.schemas import CONF_DIR, names_in
from hindsight.config.study import Scale
from hindsight.errors import InputError
from hindsight.studies.study_checks import OF_A_SCALE, check_names, mapping_of, require_named
from hindsight.yaml_files import parse_yaml

FOLDER = "study/base"
"""Where bases are, below conf/."""


def layers_of(path: Path, scale: Scale, where: str) -> list[dict[str, Any]]:
    """Read a study and its bases.

    Args:
        path: the file of the study.
        scale: the scale that is wanted.
        where: how messages name the study.

    Returns:
        What is merged, each over those before it: what holds at every scale, of each base in the order in which they
        are named and of the study; then what they have at this scale, in the same order.

    Raises:
        InputError: a file cannot be read, or has a key that it cannot have; there is no such base.
    """
    study, scales = _read(path, scale, where, (*OF_A_SCALE, "bases", "scales"))
    layers: list[tuple[dict[str, Any], dict[str, Any]]] = []
    if not isinstance(bases := study.pop("bases", None) or [], list):
        raise InputError(f"{where}: bases must be a list, in [ ].")
    for name in cast("list[Any]", bases):
        require_named(name, dict.fromkeys(names_in(FOLDER)), f"{where}: bases", f"conf/{FOLDER}")
        file = CONF_DIR / FOLDER / f"{name}.yaml"
        layers.append(_read(file, scale, f"{where}: base {name}", (*OF_A_SCALE, "scales")))
    layers.append((study, scales))
    return [rest for rest, _ in layers] + [of_scale for _, of_scale in layers]


def _read(path: Path, scale: Scale, where: str, keys: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what a file has at every scale, and what at one."""
    try:
        given: Any = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{where}: {path} cannot be read ({error.strerror}).") from None
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(f"{where}: {path} is no study: {' '.join(str(error).split())}") from None
    if given is None:
        raise InputError(f"{where}: {path} is empty; docs/studies.md says what stands in a study.")
    content = mapping_of(given, where, "the file")
    check_names(content, keys, where)
    scales = mapping_of(content.pop("scales", None), where, "scales")
    check_names(scales, [each.name for each in Scale], f"{where}: scales")
    of_scale = mapping_of(scales.get(scale.name), where, f"scales.{scale.name}")
    check_names(of_scale, OF_A_SCALE, f"{where}: {scale.name}")
    return content, of_scale
