"""A study as its file says it: conf/study/NAME.yaml, or a user's own, with its bases and one of its scales.

docs/studies.md says what stands in a file. All of it is checked here, before anything is made: keys that nothing has,
values of axes, and names that one part of the file uses and another defines.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import chain
from pathlib import Path
from typing import Any, cast

from hindsight.config.keys import flatten
from hindsight.config.schemas import CONF_DIR, names_in
from hindsight.config.study import Scale
from hindsight.errors import InputError
from hindsight.studies.composed import evaluate_config
from hindsight.studies.study_axes import (
    LrSweep,
    axes_of_all,
    check_published,
    read_axes,
    read_condition,
    read_lr_sweep,
    read_where,
)
from hindsight.studies.study_bases import layers_of
from hindsight.studies.study_checks import (
    BYTES,
    ORDER,
    SECTIONS,
    SEED,
    check_convert,
    check_corpora,
    check_keys,
    check_orders,
    check_setting,
    check_tokenizers,
    entries_of,
    keys_of,
    list_of,
    mapping_of,
    part_of,
)

OF_EVALUATION = ("run", "out", "data", "corpus", "checkpoint", "split", "work_dir")
"""Keys of evaluate_tokens.py that no study may set: a run is evaluated at its end, on its own validation set."""


@dataclass(frozen=True)
class Study:
    """A study with its scale merged.

    Args:
        name: its name.
        scale: tiny, cpu or gpu.
        content: all that stands in the file, merged.
        corpora: keys of each corpus.
        tokenizers: keys of each tokenizer.
        convert: keys of convert_to_mds.py.
        settings: keys of train_composer.py, in full.
        axes: values of each axis, by its key.
        named: axes whose values are in the names of runs: those with several, and always that of seeds, so that a run
            keeps its name where seeds= asks for more of them.
        where: settings of runs with certain values on axes.
        without: combinations of values that are left out.
        lr_sweep: how learning rates are tried; None if they are not.
        evaluation: keys of evaluate_tokens.py; None for no evaluation by token.
    """

    name: str
    scale: Scale
    content: dict[str, Any]
    corpora: dict[str, dict[str, Any]]
    tokenizers: dict[str, dict[str, Any]]
    convert: dict[str, Any]
    settings: dict[str, Any]
    axes: dict[str, list[Any]]
    named: tuple[str, ...]
    where: list[tuple[dict[str, Any], dict[str, Any]]]
    without: list[dict[str, Any]]
    lr_sweep: LrSweep | None
    evaluation: dict[str, Any] | None

    @property
    def question(self) -> str:
        """What the study asks."""
        return str(self.content.get("question", ""))

    @property
    def sections(self) -> list[str]:
        """The sections of its report."""
        return [str(each) for each in self.content.get("report", [SECTIONS[0]])]

    @property
    def may_have_few_documents(self) -> bool:
        """Whether it may validate on few documents."""
        return bool(self.content.get("few_documents", False))


def read_study(name: str, scale: Scale, seeds: int | None = None) -> Study:
    """Read a study and check it.

    Args:
        name: of a file in conf/study/, or a path to one.
        scale: which of its scales is merged over the rest.
        seeds: number of seeds; None for those of the file.

    Raises:
        InputError: there is no such study, or something in it cannot be; names the key.
    """
    path = path_of(name)
    where = f"study={name}"
    at_every_scale, of_scales = layers_of(path, where)
    at_every_scale = [_flat(each, where) for each in at_every_scale]
    of_scales = {name: [_flat(each, where) for each in layers] for name, layers in of_scales.items()}
    layers = [*at_every_scale, *of_scales[scale.name]]
    merged = reduce(lambda below, over: _merged(below, over, is_kept=False), layers)
    try:
        known = axes_of_all([*at_every_scale, *chain.from_iterable(of_scales.values())])
        return _checked(path.stem, scale, merged, known, seeds)
    except InputError as error:
        raise InputError(f"{where} scale={scale.name}: {error}") from None


def path_of(name: str) -> Path:
    """Find the file of a study; InputError with what there is."""
    given, shipped = Path(name).expanduser(), CONF_DIR / "study" / f"{name}.yaml"
    if re.fullmatch(r"[\w-]+", name) and shipped.is_file():
        return shipped
    if given.suffix in (".yaml", ".yml") and given.is_file():
        return given
    if given.is_dir():
        raise InputError(f"study={name} is a folder; give the path of a file, NAME.yaml.")
    names = names_in("study")
    if given.suffix in (".yaml", ".yml"):
        raise InputError(f"study={name} does not exist; give the path of a file, or one of {', '.join(names)}.")
    near = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean study={near[0]}? " if near else ""
    raise InputError(f"study={name} is not known; {hint}Choose one of {', '.join(names)}, or give a path, NAME.yaml.")


def _flat(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Give settings of commands their keys in full, so that optim.lr and optim: {lr: ...} are the same."""
    found = dict(content)
    for key in ("settings", "convert", "axes"):
        if found.get(key) is not None:
            found[key] = flatten(mapping_of(found[key], where, key))
    sweep = found.get("lr_sweep")
    if isinstance(sweep, dict) and isinstance(sweep.get("settings"), dict):
        found["lr_sweep"] = sweep | {"settings": flatten(sweep["settings"])}
    if isinstance(found.get("axes"), dict) and "direction" in found["axes"]:
        if ORDER in found["axes"]:
            raise InputError(f"{where}: axes has order and direction, which are the same; leave one out.")
        found["axes"] = {ORDER if key == "direction" else key: value for key, value in found["axes"].items()}
    return found


def _merged(base: Mapping[str, Any], over: Mapping[str, Any], is_kept: bool) -> dict[str, Any]:
    """Merge a layer over those below it: mappings key by key; anything else replaces, and null removes.

    Args:
        base: what is below.
        over: the layer, such as a scale.
        is_kept: whether null is a value, as it is of a setting.
    """
    found = dict(base)
    for key, value in over.items():
        below = found.get(key)
        if isinstance(value, Mapping):
            is_value = key in ("settings", "convert", "evaluation")
            inner = cast("Mapping[str, Any]", below) if isinstance(below, Mapping) else {}
            found[key] = _merged(inner, cast("Mapping[str, Any]", value), is_value)
        elif value is None and not is_kept and key != "evaluation":
            found.pop(key, None)
        else:
            found[key] = value
    return found


def _checked(
    name: str, scale: Scale, content: dict[str, Any], known: Mapping[str, list[Any]], seeds: int | None
) -> Study:
    corpora = entries_of(content.get("corpora"), "corpora")
    tokenizers = entries_of(content.get("tokenizers"), "tokenizers")
    tokenizers.setdefault(BYTES, {"vocab_size": BYTES})
    settings, convert = part_of(content, "settings"), part_of(content, "convert")
    axes = read_axes(part_of(content, "axes"), seeds)
    if not isinstance(content.get("few_documents", False), bool):
        raise InputError(f"few_documents: {content['few_documents']} must be true or false.")
    if not isinstance(content.get("question", ""), str):
        raise InputError(f"question: {content['question']} must be a text.")
    named = tuple(key for key, values in axes.items() if len(values) > 1 or key == SEED)
    for key in settings:
        check_setting(key, "settings")
    check_convert(convert, "convert")
    evaluation = content.get("evaluation", {})
    if evaluation is not None:
        evaluation = mapping_of(evaluation, "", "evaluation")
        check_keys(evaluation, keys_of("evaluate_tokens"), "evaluation", OF_EVALUATION)
        evaluate_config(name, evaluation)
    check_orders(axes, content)
    check_corpora(corpora, tokenizers, axes)
    check_tokenizers(corpora, tokenizers, axes)
    if content.get("few_documents") and scale is not Scale.tiny:
        raise InputError("few_documents: true is for scale=tiny; hold out more documents (convert: {val_share: ...}).")
    where = [read_where(each, known, number) for number, each in enumerate(list_of(content, "where"))]
    left_out = enumerate(list_of(content, "without"))
    without = [read_condition(each, known, f"without[{number}]") for number, each in left_out]
    for number, each in enumerate(list_of(content, "published")):
        check_published(each, known, number)
    return Study(
        name=name,
        scale=scale,
        content=content | {"axes": axes},
        corpora=corpora,
        tokenizers=tokenizers,
        convert=convert,
        settings=settings,
        axes=axes,
        named=named,
        where=where,
        without=without,
        lr_sweep=read_lr_sweep(content, axes),
        evaluation=evaluation,
    )
