"""The axes of a study, conditions on their values, and the sweep that finds learning rates."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from hindsight.config.keys import flatten
from hindsight.durations import parse_duration
from hindsight.errors import InputError
from hindsight.studies.study_checks import (
    BEST,
    BYTES,
    CORPUS,
    LR,
    ORDER,
    SAME,
    SEED,
    TOKENIZER,
    check_names,
    check_setting,
    list_of,
    mapping_of,
    number_of,
    part_of,
)


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


def read_axes(given: Mapping[str, Any], seeds: int | None) -> dict[str, list[Any]]:
    """Read the values of each axis.

    Args:
        given: the part axes: of the file, by full keys.
        seeds: number of seeds; None for those of the file.

    Raises:
        InputError: something in it cannot be; names the key.
    """
    axes: dict[str, list[Any]] = {}
    for key, value in given.items():
        if key not in (CORPUS, TOKENIZER):
            check_setting(key, "axes")
        values = values_of(key, value)
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


def values_of(key: str, given: Any) -> list[Any]:
    """Read one or more values on an axis."""
    values: list[Any] = list(cast("list[Any]", given)) if isinstance(given, list) else [given]
    return values if key in (CORPUS, TOKENIZER, ORDER) else [number_of(each) for each in values]


def axes_of_all(parts: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Give all values that an axis has at any scale, on which a condition may be.

    Args:
        parts: the file without its scales, and each of its scales; with full keys.
    """
    found: dict[str, list[Any]] = {SEED: [], TOKENIZER: [BYTES], CORPUS: []}
    for part in parts:
        for key, given in part_of(part, "axes").items():
            if given is not None:  # by which a scale removes an axis
                found.setdefault(key, []).extend(values_of(key, given))
        found[TOKENIZER] += part_of(part, "tokenizers")  # a corpus may have one of its own
        found[CORPUS] += part_of(part, "corpora")  # where there is no axis, the one corpus is on it
    return found


def read_where(given: Any, known: Mapping[str, list[Any]], number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read settings of runs with certain values: the condition, and the settings."""
    part = f"where[{number}]"
    entry = mapping_of(given, "", part)
    check_names(entry, ("if", "settings"), part)
    settings = flatten(mapping_of(entry.get("settings"), "", f"{part}.settings"))
    for key in settings:
        check_setting(key, f"{part}.settings")
    return read_condition(entry.get("if"), known, f"{part}.if"), settings


def check_published(given: Any, known: Mapping[str, list[Any]], number: int) -> None:
    """Check a value that others published."""
    part = f"published[{number}]"
    entry = mapping_of(given, "", part)
    check_names(entry, ("label", "percent", "if", "source"), part)
    label = entry.get("label")
    if type(entry.get("percent")) not in (int, float) or not isinstance(label, str) or not label:
        raise InputError(f"{part} needs a label, a text, and percent, a number.")
    read_condition(entry.get("if"), known, f"{part}.if")


def read_condition(given: Any, known: Mapping[str, list[Any]], part: str) -> dict[str, Any]:
    """Read values on axes, by axis.

    Args:
        given: the condition as the file has it.
        known: values of each axis at any scale: what holds at one of them is no mistake at another.
        part: where it stands in the file.

    Raises:
        InputError: a key is no axis, or a value on none.
    """
    condition: dict[str, Any] = {}
    for name, value in flatten(mapping_of(given, "", part)).items():
        key = ORDER if name == "direction" else name
        if key not in known:
            raise InputError(f"{part}: {key} is no axis; {_nearest(key, [*known])}")
        values = values_of(key, value)
        for each in values:
            is_further_seed = key == SEED and type(each) is int and each >= 0  # for which seeds= may ask
            if each not in known[key] and not is_further_seed:
                raise InputError(f"{part}: {key}={each} is not on its axis, at any scale; {_nearest(each, known[key])}")
        condition[key] = values if isinstance(value, list) else values[0]
    return condition


def _nearest(name: Any, known: Sequence[Any]) -> str:
    shown = [*dict.fromkeys(map(str, known))]
    near = difflib.get_close_matches(str(name), shown, 1)
    return f"did you mean {near[0]}?" if near else f"choose from {', '.join(shown)}."


def fits(values: Mapping[str, Any], condition: Mapping[str, Any]) -> bool:
    """Whether a run with these values on the axes fulfils a condition; a list names several."""
    return all(
        key in values and (values[key] in wanted if isinstance(wanted, list) else values[key] == wanted)
        for key, wanted in condition.items()
    )


def read_lr_sweep(content: Mapping[str, Any], axes: Mapping[str, list[Any]]) -> LrSweep | None:
    """Read how learning rates are tried; InputError if something in it cannot be.

    Args:
        content: the file with its scale merged.
        axes: values of each axis.
    """
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
