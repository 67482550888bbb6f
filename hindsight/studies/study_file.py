"""A study as its file says it: conf/study/NAME.yaml, or a user's own, with one of its scales merged over the rest.

docs/studies.md says what stands in a file. All of it is checked here, before anything is made: keys that nothing has,
values of axes, and names that one part of the file uses and another defines.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import yaml

from hindsight.config.keys import flatten
from hindsight.config.order import split_order
from hindsight.config.schemas import CONF_DIR, SCHEMAS, describe, names_in
from hindsight.config.study import Scale
from hindsight.config.suggestions import suggest
from hindsight.durations import parse_duration
from hindsight.errors import InputError
from hindsight.yaml_files import parse_yaml

CORPUS, TOKENIZER, ORDER, SEED, LR = "corpus", "tokenizer", "order", "seed", "optim.lr"
"""Axes of which more is known than that they are keys of train_composer.py."""
SAME, BEST = "same", "best"
"""Values of the axis optim.lr that the sweep of learning rates finds: one for all orders, and one for each."""
BYTES = "bytes"
"""The tokenizer of bytes, which needs no entry in tokenizers:."""
SECTIONS = ("gap", "curves", "floors", "learning_rate", "tokenizers", "null", "exact")
"""Sections of a report."""
KEYS = (
    *("question", "corpora", "tokenizers", "convert", "settings", "axes", "where", "without", "lr_sweep"),
    *("evaluation", "report", "published", "few_documents", "scales"),
)
GROUPS = ("model", "experiment")
"""Keys of train_composer.py that take the name of a file in conf/."""
OF_THE_STUDY = {
    "run_name": "runs are named by their values on the axes",
    "runs_dir": "give runs_dir= to run_study.py",
    "data.path": "name a corpus in corpora:",
    "data.val_path": "name a corpus in corpora:",
    "data.tokenizer": "name a tokenizer in tokenizers:",
    "direction": "write order, which is the same",
    "evaluate": "every run is evaluated",
    "sanity_check": "runs are to be trained",
    "train.more": "give max_duration",
}
"""Keys of train_composer.py that no study may set, and what stands for them."""


@dataclass(frozen=True)
class LrSweep:
    """How learning rates are tried.

    Args:
        rates: the rates.
        max_duration: length of a run of the sweep; None for that of the study.
        seed: its seed.
    """

    rates: list[float]
    max_duration: str | None
    seed: int


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
    try:
        content: Any = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{where}: {path} cannot be read ({error.strerror}).") from None
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(f"{where}: {path} is no study: {' '.join(str(error).split())}") from None
    content = _mapping(content, where, "the file")
    _check_names(content, KEYS, where)
    scales = _mapping(content.get("scales"), where, "scales")
    _check_names(scales, [each.name for each in Scale], f"{where}: scales")
    _check_names(_mapping(scales.get(scale.name), where, f"scales.{scale.name}"), KEYS[:-1], f"{where}: {scale.name}")
    base = {key: value for key, value in content.items() if key != "scales"}
    merged = _merged(_flat(base, where), _flat(scales.get(scale.name) or {}, where), is_kept=False)
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
    names = names_in("study")
    if given.suffix in (".yaml", ".yml"):
        raise InputError(f"study={name} does not exist; give the path of a file, or one of {', '.join(names)}.")
    near = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean study={near[0]}? " if near else ""
    raise InputError(f"study={name} is not known; {hint}Choose one of {', '.join(names)}, or give a path, NAME.yaml.")


@cache
def keys_of(script: str) -> tuple[str, ...]:
    """All keys of a command, in full."""
    return tuple(row[0] for row in describe(SCHEMAS[script]))


def _flat(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Give settings of commands their keys in full, so that optim.lr and optim: {lr: ...} are the same."""
    found = dict(content)
    for key in ("settings", "convert", "axes"):
        if found.get(key) is not None:
            found[key] = flatten(_mapping(found[key], where, key))
    if isinstance(found.get("axes"), dict) and "direction" in found["axes"]:
        found["axes"] = {ORDER if key == "direction" else key: value for key, value in found["axes"].items()}
    return found


def _merged(base: Mapping[str, Any], over: Mapping[str, Any], is_kept: bool) -> dict[str, Any]:
    """Merge a scale over the rest: mappings key by key; anything else replaces, and null removes.

    Args:
        base: the rest.
        over: the scale.
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
    corpora = _entries(content.get("corpora"), "corpora")
    tokenizers = _entries(content.get("tokenizers"), "tokenizers")
    tokenizers.setdefault(BYTES, {"vocab_size": BYTES})
    settings, convert = _part(content, "settings"), _part(content, "convert")
    axes = _axes(_part(content, "axes"), seeds)
    named = tuple(key for key, values in _axes(_part(content, "axes"), seeds=None).items() if len(values) > 1)
    named = tuple(key for key in axes if key in named or len(axes[key]) > 1)
    for key in settings:
        check_setting(key, "settings")
    check_keys(convert, keys_of("convert_to_mds"), "convert", ("corpus", "tokenizer", "out"))
    evaluation = content.get("evaluation", {})
    if evaluation is not None:
        evaluation = _mapping(evaluation, "", "evaluation")
        check_keys(evaluation, keys_of("evaluate_tokens"), "evaluation", ("run", "out", "data", "corpus"))
    _check_orders(axes, content)
    _check_corpora(corpora, tokenizers, axes)
    _check_tokenizers(corpora, tokenizers, axes)
    if content.get("few_documents") and scale is not Scale.tiny:
        raise InputError("few_documents: true is for scale=tiny; hold out more documents (convert: {val_share: ...}).")
    where = [_where(each, axes, number) for number, each in enumerate(_list(content, "where"))]
    without = [_condition(each, axes, f"without[{number}]") for number, each in enumerate(_list(content, "without"))]
    for number, each in enumerate(_list(content, "published")):
        entry = _mapping(each, "", f"published[{number}]")
        _check_names(entry, ("label", "percent", "nats", "if", "source"), f"published[{number}]")
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
        values = [_number(each) if key not in (CORPUS, TOKENIZER, ORDER) else each for each in values]
        if not values or any(isinstance(each, list | dict) for each in values):
            raise InputError(f"axes.{key} must be a list of values, such as [a, b].")
        if any(values.count(each) > 1 for each in values):
            raise InputError(f"axes.{key} has a value twice: {values}.")
        axes[key] = values
    axes.setdefault(SEED, [0])
    if not all(type(seed) is int for seed in axes[SEED]):
        raise InputError(f"axes.seed={axes[SEED]} must be whole numbers.")
    if seeds is not None:
        further = (seed for seed in range(len(axes[SEED]) + seeds) if seed not in axes[SEED])
        axes[SEED] = [*axes[SEED], *further][:seeds]
    return axes


def _number(value: Any) -> Any:
    """Read 1e-3 as a number, which YAML 1.1 takes for a text."""
    is_number = isinstance(value, str) and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+", value)
    return float(value) if is_number else value


def check_setting(key: str, part: str) -> None:
    """Raise InputError unless a key is one of train_composer.py that a study may set."""
    if key in OF_THE_STUDY:
        raise InputError(f"{part}: {key} is the study's own; {OF_THE_STUDY[key]}.")
    known = keys_of("train_composer")
    if key not in known and key not in GROUPS:
        special = difflib.get_close_matches(key, [CORPUS, TOKENIZER], 1) if part == "axes" else []
        meant = special[0] if special else (suggest(key, known) or "").rstrip("=")
        hint = f"; did you mean {meant}?" if meant else "; `python train_composer.py --help` shows all."
        what = "no axis: neither corpus nor tokenizer, nor a key" if part == "axes" else "no key"
        raise InputError(f"{part}: {key} is {what} of train_composer.py{hint}")


def check_keys(given: Mapping[str, Any], known: Sequence[str], part: str, taken: Sequence[str] = ()) -> None:
    """Raise InputError for a key that a command does not have, or that the study gives itself."""
    for key in given:
        if key in taken:
            raise InputError(f"{part}: {key} is the study's own; leave it out.")
        if key not in known:
            meant = (suggest(key, known) or "").rstrip("=")
            raise InputError(f"{part}: there is no key {key}" + (f"; did you mean {meant}?" if meant else "."))


def _check_names(given: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    known = [*known]
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(known)}."
            raise InputError(f"{where}: there is no key {key}; {hint}")


def _check_orders(axes: Mapping[str, list[Any]], content: Mapping[str, Any]) -> None:
    orders = axes.get(ORDER, [])
    for order in orders:
        split_order(str(order))
    if "forward" not in orders:
        raise InputError(
            f"a study without forward: axes.order is {orders or 'missing'}, and every other order is compared with it; "
            "write such as order: [forward, backward]."
        )
    sections = content.get("report", ["gap"])
    if not isinstance(sections, list):
        raise InputError(f"report must be a list of sections, from {', '.join(SECTIONS)}.")
    for section in cast("list[Any]", sections):
        _check_names({str(section): None}, SECTIONS, "report")
    if "gap" in sections and len(orders) < 2:
        raise InputError(f"report: gap needs two orders, and axes.order is {orders}.")


def _check_corpora(
    corpora: Mapping[str, dict[str, Any]], tokenizers: Mapping[str, Any], axes: dict[str, list[Any]]
) -> None:
    """Check the entries of all corpora, and that the axis names them."""
    reading = tuple(key for key in keys_of("convert_to_mds") if key in keys_of("train_tokenizer") and key != "out")
    for name, entry in corpora.items():
        part = f"corpora.{name}"
        check_keys(entry, (*reading, "make", "turned", "convert", "tokenizer", "source"), part)
        kinds = [key for key in ("corpus", "make", "turned") if key in entry]
        if len(kinds) != 1:
            raise InputError(f"{part} needs one of corpus, make and turned; it has {' and '.join(kinds) or 'none'}.")
        if "make" in entry:
            check_keys(_mapping(entry["make"], "", f"{part}.make"), keys_of("make_corpus"), f"{part}.make", ("out",))
        convert = _mapping(entry.get("convert"), "", f"{part}.convert")
        check_keys(convert, keys_of("convert_to_mds"), f"{part}.convert", ("corpus", "tokenizer", "out"))
        if "tokenizer" in entry:
            _require_named(entry["tokenizer"], tokenizers, f"{part}.tokenizer", "tokenizers")
        if "turned" in entry:
            _require_named(entry["turned"], corpora, f"{part}.turned", "corpora")
            if "turned" in corpora[entry["turned"]]:
                raise InputError(f"{part}: {entry['turned']} is turned itself; name the corpus that it is made of.")
    if CORPUS not in axes:
        if len(corpora) != 1:
            raise InputError("axes.corpus is missing: name one or more of corpora:.")
        axes[CORPUS] = [*corpora]
    for name in axes[CORPUS]:
        _require_named(name, corpora, "axes.corpus", "corpora")


def _check_tokenizers(
    corpora: Mapping[str, Any], tokenizers: Mapping[str, dict[str, Any]], axes: dict[str, list[Any]]
) -> None:
    for name, entry in tokenizers.items():
        part = f"tokenizers.{name}"
        check_keys(entry, (*keys_of("train_tokenizer"), "corpora"), part, ("corpus", "out"))
        for each in _list(entry, "corpora"):
            _require_named(each, corpora, f"{part}.corpora", "corpora")
    axes.setdefault(TOKENIZER, [next(iter(tokenizers))])
    for name in axes[TOKENIZER]:
        _require_named(name, tokenizers, "axes.tokenizer", "tokenizers")


def _require_named(name: Any, known: Mapping[str, Any], where: str, part: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(str(name), [*known], 1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known) or 'none'}."
        raise InputError(f"{where}: {name} is not in {part}; {hint}")


def _where(given: Any, axes: Mapping[str, list[Any]], number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    part = f"where[{number}]"
    entry = _mapping(given, "", part)
    _check_names(entry, ("if", "settings"), part)
    settings = flatten(_mapping(entry.get("settings"), "", f"{part}.settings"))
    for key in settings:
        check_setting(key, f"{part}.settings")
    return _condition(entry.get("if"), axes, f"{part}.if", may_be_elsewhere=True), settings


def _condition(given: Any, axes: Mapping[str, list[Any]], part: str, may_be_elsewhere: bool = False) -> dict[str, Any]:
    """Read values on axes, by axis; with `may_be_elsewhere` also such as this scale does not have."""
    condition = flatten(_mapping(given, "", part))
    condition = {ORDER if key == "direction" else key: _number(value) for key, value in condition.items()}
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
    entry = _mapping(content["lr_sweep"], "", "lr_sweep")
    _check_names(entry, ("rates", "max_duration", "seed"), "lr_sweep")
    rates = [_number(each) for each in _list(entry, "rates")]
    if len(rates) < 2 or not all(isinstance(rate, int | float) and rate > 0 for rate in rates):
        raise InputError(f"lr_sweep.rates={rates} must be two or more learning rates.")
    duration, seed = entry.get("max_duration"), entry.get("seed", 100)
    if duration is not None and parse_duration(str(duration))[0] == 0:
        raise InputError(f"lr_sweep.max_duration={duration} must be greater than 0.")
    if type(seed) is not int or seed < 0:
        raise InputError(f"lr_sweep.seed={seed} must be a whole number.")
    return LrSweep([float(rate) for rate in rates], None if duration is None else str(duration), seed)


def _entries(given: Any, part: str) -> dict[str, dict[str, Any]]:
    entries = _mapping(given, "", part)
    for name in entries:
        if re.fullmatch(r"[A-Za-z0-9_]+", name) is None:
            raise InputError(f"{part}: {name} names folders; use letters, digits and _ only.")
    return {name: _mapping(entry, "", f"{part}.{name}") for name, entry in entries.items()}


def _part(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    return _mapping(content.get(key), "", key)


def _list(content: Mapping[str, Any], key: str) -> list[Any]:
    value = content.get(key)
    if value is not None and not isinstance(value, list):
        raise InputError(f"{key} must be a list, in [ ].")
    return cast("list[Any]", value or [])


def _mapping(value: Any, where: str, part: str) -> dict[str, Any]:
    """Take a mapping, or nothing for an empty one; InputError for anything else."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{where}: {part} must be keys and values".removeprefix(": ") + ", such as {key: value}.")
    return {str(key): each for key, each in cast("dict[Any, Any]", value).items()}
