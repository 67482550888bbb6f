"""A study as its file says it: conf/study/NAME.yaml, or a user's own, with its bases and one of its scales.

docs/studies.md says what stands in a file. All of it is checked here, before anything is made: keys that nothing has,
values of axes, and names that one part of the file uses and another defines.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, cast

from hindsight.config.keys import flatten
from hindsight.config.schemas import CONF_DIR, names_in
from hindsight.config.study import Scale
from hindsight.durations import parse_duration
from hindsight.errors import InputError
from hindsight.studies.composed import evaluate_config
from hindsight.studies.study_bases import layers_of
from hindsight.studies.study_checks import (
    BEST,
    BYTES,
    CORPUS,
    GROUPS,
    LR,
    ORDER,
    SAME,
    SECTIONS,
    SEED,
    TOKENIZER,
    check_convert,
    check_corpora,
    check_keys,
    check_names,
    check_orders,
    check_setting,
    check_tokenizers,
    entries_of,
    keys_of,
    list_of,
    mapping_of,
    number_of,
    part_of,
)

OF_EVALUATION = ("run", "out", "data", "corpus", "checkpoint", "split", "work_dir")
"""Keys of evaluate_tokens.py that no study may set: a run is evaluated at its end, on its own validation set."""


@dataclass(frozen=True)
class LrSweep:
    """How learning rates are tried.

    Args:
        rates: the rates.
        max_duration: length of a run of the sweep; None for that of the study.
        seed: its seed.
        settings: keys of train_composer.py of its runs, over those of the study, such as a shorter warm-up.
    """

    rates: list[float]
    max_duration: str | None
    seed: int
    settings: dict[str, Any]


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
        named: axes whose values are in the names of runs.
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
    layers = (_flat(each, where) for each in layers_of(path, scale, where))
    merged = reduce(lambda below, over: _merged(below, over, is_kept=False), layers)
    try:
        return _checked(path.stem, scale, merged, seeds)
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


def _checked(name: str, scale: Scale, content: dict[str, Any], seeds: int | None) -> Study:
    if isinstance(sections := content.get("report"), list):  # null without quotes is the name of a section here
        content = content | {"report": ["null" if each is None else each for each in cast("list[Any]", sections)]}
    corpora = entries_of(content.get("corpora"), "corpora")
    tokenizers = entries_of(content.get("tokenizers"), "tokenizers")
    tokenizers.setdefault(BYTES, {"vocab_size": BYTES})
    settings, convert = part_of(content, "settings"), part_of(content, "convert")
    axes = _axes(part_of(content, "axes"), seeds)
    if not isinstance(content.get("few_documents", False), bool):
        raise InputError(f"few_documents: {content['few_documents']} must be true or false.")
    if not isinstance(content.get("question", ""), str):
        raise InputError(f"question: {content['question']} must be a text.")
    named = tuple(key for key, values in _axes(part_of(content, "axes"), seeds=None).items() if len(values) > 1)
    named = tuple(key for key in axes if key in named or len(axes[key]) > 1)
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
    where = [_where(each, axes, number) for number, each in enumerate(list_of(content, "where"))]
    without = [_condition(each, axes, f"without[{number}]") for number, each in enumerate(list_of(content, "without"))]
    for number, each in enumerate(list_of(content, "published")):
        entry = mapping_of(each, "", f"published[{number}]")
        check_names(entry, ("label", "percent", "nats", "if", "source"), f"published[{number}]")
        values = [entry[key] for key in ("percent", "nats") if entry.get(key) is not None]
        if not values or not all(type(value) in (int, float) for value in values) or not entry.get("label"):
            raise InputError(f"published[{number}] needs a label, and a number as percent or nats.")
        _condition(entry.get("if"), axes, f"published[{number}].if", may_be_elsewhere=True)
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
        lr_sweep=_lr_sweep(content, axes),
        evaluation=evaluation,
    )


def _axes(given: Mapping[str, Any], seeds: int | None) -> dict[str, list[Any]]:
    axes: dict[str, list[Any]] = {}
    for key, value in given.items():
        if key not in (CORPUS, TOKENIZER):
            check_setting(key, "axes")
        values: list[Any] = list(cast("list[Any]", value)) if isinstance(value, list) else [value]
        values = [number_of(each) if key not in (CORPUS, TOKENIZER, ORDER) else each for each in values]
        if not values or any(isinstance(each, list | dict) for each in values):
            raise InputError(f"axes.{key} must be a list of values, such as [a, b].")
        if any(values.count(each) > 1 for each in values):
            raise InputError(f"axes.{key} has a value twice: {values}.")
        axes[key] = values
    axes.setdefault(SEED, [0])
    if not all(type(seed) is int and seed >= 0 for seed in axes[SEED]):
        raise InputError(f"axes.seed={axes[SEED]} must be whole numbers, none less than 0.")
    if seeds is not None:
        further = (seed for seed in range(len(axes[SEED]) + seeds) if seed not in axes[SEED])
        axes[SEED] = [*axes[SEED], *further][:seeds]
    return axes


def _where(given: Any, axes: Mapping[str, list[Any]], number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    part = f"where[{number}]"
    entry = mapping_of(given, "", part)
    check_names(entry, ("if", "settings"), part)
    settings = flatten(mapping_of(entry.get("settings"), "", f"{part}.settings"))
    for key in settings:
        check_setting(key, f"{part}.settings")
    return _condition(entry.get("if"), axes, f"{part}.if", may_be_elsewhere=True), settings


def _condition(given: Any, axes: Mapping[str, list[Any]], part: str, may_be_elsewhere: bool = False) -> dict[str, Any]:
    """Read values on axes, by axis; with `may_be_elsewhere` also such as this scale does not have."""
    condition = flatten(mapping_of(given, "", part))
    condition = {ORDER if key == "direction" else key: number_of(value) for key, value in condition.items()}
    for key, value in condition.items():
        if key not in axes:
            if may_be_elsewhere and (key in GROUPS or key in keys_of("train_composer")):
                continue
            raise InputError(f"{part}: {key} is no axis; the axes are {', '.join(axes)}.")
        values: list[Any] = list(cast("list[Any]", value)) if isinstance(value, list) else [value]
        if not may_be_elsewhere and any(each not in axes[key] for each in values):
            raise InputError(f"{part}: {key}={value} is not on its axis, {axes[key]}.")
    return condition


def fits(values: Mapping[str, Any], condition: Mapping[str, Any]) -> bool:
    """Whether a run with these values on the axes fulfils a condition; a list names several."""
    return all(
        key in values and (values[key] in wanted if isinstance(wanted, list) else values[key] == wanted)
        for key, wanted in condition.items()
    )


def _lr_sweep(content: Mapping[str, Any], axes: Mapping[str, list[Any]]) -> LrSweep | None:
    words = [value for value in axes.get(LR, []) if isinstance(value, str)]
    if any(word not in (SAME, BEST) for word in words):
        raise InputError(f"axes.{LR}: {axes[LR]} must be numbers, or {SAME} and {BEST}.")
    if content.get("lr_sweep") is None:
        if words:
            raise InputError(f"axes.{LR}: {' and '.join(words)} needs lr_sweep: {{rates: [...]}}, which finds it.")
        return None
    entry = mapping_of(content["lr_sweep"], "", "lr_sweep")
    check_names(entry, ("rates", "max_duration", "seed", "settings"), "lr_sweep")
    rates = [number_of(each) for each in list_of(entry, "rates")]
    if len(rates) < 2 or not all(isinstance(rate, int | float) and rate > 0 for rate in rates):
        raise InputError(f"lr_sweep.rates={rates} must be two or more learning rates.")
    duration, seed = entry.get("max_duration"), entry.get("seed", 100)
    if duration is not None and parse_duration(str(duration))[0] == 0:
        raise InputError(f"lr_sweep.max_duration={duration} must be greater than 0.")
    if type(seed) is not int or seed < 0:
        raise InputError(f"lr_sweep.seed={seed} must be a whole number.")
    if seed in axes[SEED]:
        raise InputError(
            f"lr_sweep.seed={seed} is one of the seeds of the runs that are compared, whose luck would choose their "
            "rates; give another."
        )
    settings = mapping_of(entry.get("settings"), "", "lr_sweep.settings")
    for key in settings:
        check_setting(key, "lr_sweep.settings")
        if key in (*axes, LR, "max_duration"):
            raise InputError(f"lr_sweep.settings: {key} is an axis, or a key of lr_sweep itself; leave it out.")
    return LrSweep([float(rate) for rate in rates], None if duration is None else str(duration), seed, settings)
