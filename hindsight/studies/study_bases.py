"""The file of a study, and its bases: files in conf/study/base/ that have what several studies have in common."""

import re
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
NAMES = re.compile(
    r"(?:scales\.\w+\.)?(?:report|question|(?:axes|without|where\.if|published\.if)\.(?:corpus|tokenizer)|"
    r"corpora\.[^.]+\.(?:corpus|make\.corpus|turned|tokenizer)|tokenizers\.[^.]+\.corpora)"
)
"""Keys of names and texts, which are what is written there: no, 2021, null."""


def layers_of(path: Path, where: str) -> tuple[list[dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """Read a study and its bases.

    Args:
        path: the file of the study.
        where: how messages name the study.

    Returns:
        What is merged, each over those before it: what holds at every scale, of each base in the order in which they
        are named and of the study; then, by the name of the scale, what they have at this scale, in the same order.

    Raises:
        InputError: a file cannot be read, or has a key that it cannot have; there is no such base.
    """
    study, of_scales = _read(path, where, (*OF_A_SCALE, "bases", "scales"))
    layers: list[tuple[dict[str, Any], dict[str, dict[str, Any]]]] = []
    if not isinstance(bases := study.pop("bases", None) or [], list):
        raise InputError(f"{where}: bases must be a list, in [ ].")
    for name in cast("list[Any]", bases):
        require_named(name, dict.fromkeys(names_in(FOLDER)), f"{where}: bases", f"conf/{FOLDER}")
        layers.append(_read(CONF_DIR / FOLDER / f"{name}.yaml", f"{where}: base {name}", (*OF_A_SCALE, "scales")))
    layers.append((study, of_scales))
    at_every_scale = [rest for rest, _ in layers]
    return at_every_scale, {scale.name: [of_scales[scale.name] for _, of_scales in layers] for scale in Scale}


def _read(path: Path, where: str, keys: Sequence[str]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Read what a file has at every scale, and what at each."""
    try:
        given: Any = parse_yaml(path.read_text(encoding="utf-8"), lambda key: NAMES.fullmatch(key) is not None)
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
    of_scales = {scale.name: mapping_of(scales.get(scale.name), where, f"scales.{scale.name}") for scale in Scale}
    for name, of_scale in of_scales.items():
        check_names(of_scale, OF_A_SCALE, f"{where}: {name}")
    return content, of_scales
