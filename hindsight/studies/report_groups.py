"""The runs of a study by what they have in common, and the gaps of comparison.json by the axes of the study."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hindsight.config.corpus import TextOrder
from hindsight.config.order import DIRECTIONS
from hindsight.runs import is_number
from hindsight.shown_text import one_line, visible
from hindsight.studies.results import RunResult, StudyResult

FORWARD, BACKWARD = DIRECTIONS
ORDER_AXES = ("order", "direction")
NOT_FAMILY = (*ORDER_AXES, "seed")
"""Axes in which the runs of a family differ."""
SAID_ALONE = ("corpus", "tokenizer", "model")
"""Axes whose values say what they are."""
WORDS = {"data.context_length": "context", "optim.lr": "learning rate", "batch_size": "batch"}
LABELS = {"data.context_length": "context (tokens)", "optim.lr": "learning rate", "batch_size": "batch (windows)"}
"""What stands below the axis of a figure; others are named by the last part of their key."""
BY_CHARACTERS = "characters forward against backward"
"""What backward against forward is on text that was reversed."""
NOT_LANGUAGE = ("seed", "documents", "out")
"""Settings of a synthetic language that say nothing of the language."""
Json = Mapping[str, Any]


@dataclass
class Family:
    """Runs that differ in nothing but order and seed, as far as the axes of the study tell."""

    axes: dict[str, Any]
    """Values of all other axes."""
    name: str = ""
    """The values of those axes that tell families apart."""
    runs: dict[str, dict[int, RunResult]] = field(default_factory=dict[str, dict[int, RunResult]])
    """By order and seed."""

    def losses(self, order: str) -> dict[int, float]:
        """Losses at the end by seed, of the runs of an order that are done; nats per token."""
        found = {seed: run.loss_nats for seed, run in sorted(self.runs.get(order, {}).items())}
        return {seed: loss for seed, loss in found.items() if loss is not None}

    @property
    def first(self) -> RunResult | None:
        """A run that was started, for what all have in common."""
        return next((run for of in self.runs.values() for run in of.values() if run.metadata), None)


@dataclass(frozen=True)
class Gap:
    """A group of comparison.json, and the family of its runs."""

    family: Family
    name: str
    found: Json

    @property
    def order(self) -> str:
        """The order that is compared with the reference."""
        return self.found["order"]

    @property
    def is_of_reversed_text(self) -> bool:
        """Whether it is of backward against forward on text that was reversed before it was tokenized.

        There order=backward reads the characters forward, so that the arrow of time has the other sign.
        """
        first = self.family.first
        return first is not None and reads_characters_the_other_way(
            first.metadata.get("text_order"), self.found["reference"], self.order
        )

    @property
    def percent(self) -> float:
        """The gap, relative to the loss of the reference."""
        return self.found["gap"]["relative_percent"]

    @property
    def interval_percent(self) -> tuple[float, float] | None:
        """95% interval of it; None with fewer than 3 seeds."""
        found = self.found["gap"]["relative_interval_percent"]
        return tuple(found) if found else None

    @property
    def interval_nats(self) -> tuple[float, float] | None:
        """95% interval of the gap in nats per token; Welch's where runs are not paired."""
        gap = self.found["gap"]
        found = gap["paired_interval_nats"] if self.found["is_paired"] else gap["welch_interval_nats"]
        return tuple(found) if found else None

    @property
    def null_percent(self) -> float | None:
        """How far runs of one order and other seeds lie apart, in the mean."""
        return self.found["null"]["mean_absolute_percent"] if self.found["null"] else None


@dataclass(frozen=True)
class NumberAxis:
    """What families differ in that is a number."""

    name: str
    label: str
    what: str
    values: Mapping[str, float]
    """Of families, by their names."""
    key: str
    """Axis of the study that it comes from."""
    others: Mapping[str, str] = field(default_factory=dict[str, str])
    """What else that axis says of families, by their names: it tells lines apart."""


@dataclass
class StudyGroups:
    """A study as its report sees it."""

    result: StudyResult
    comparison: Json | None
    families: list[Family]
    gaps: list[Gap]
    orders: list[str]
    """Of all runs, forward first."""

    @property
    def turned(self) -> set[str]:
        """Corpora that are others turned: what is found there is what is found in the original."""
        return {name for name, of in (self.result.study.get("corpora") or {}).items() if of.get("turned")}


def reads_characters_the_other_way(text_order: str | None, reference: str, order: str) -> bool:
    """Whether backward against forward is forward against backward by how characters are read."""
    is_reversed = text_order not in (None, TextOrder.reading.value)
    return is_reversed and (reference, order) == (FORWARD, BACKWARD)


def group_study(result: StudyResult, comparison: Json | None) -> StudyGroups:
    """Group the runs of a study, those of its sweep of learning rates left out."""
    compared = [run for run in result.runs if not run.is_sweep]
    families = families_of(compared)
    orders = [*dict.fromkeys(order_of(run) for run in compared)]
    orders.sort(key=lambda order: (order != FORWARD, order != BACKWARD))
    return StudyGroups(result, comparison, families, _gaps_of(families, comparison), orders)


def families_of(runs: Sequence[RunResult]) -> list[Family]:
    """Put runs together that differ in order and seed alone, in the order in which they come."""
    found: dict[str, Family] = {}
    for run in runs:
        axes = {key: value for key, value in run.axes.items() if key not in NOT_FAMILY}
        family = found.setdefault(repr(axes), Family(axes))
        family.runs.setdefault(order_of(run), {})[run.axes.get("seed", 0)] = run
    families = [*found.values()]
    for family, name in zip(families, names_of([family.axes for family in families]), strict=True):
        family.name = name
    return families


def names_of(given: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name settings by the values of those axes that tell them apart."""
    keys = dict.fromkeys(key for axes in given for key in axes)
    telling = [key for key in keys if len({repr(axes.get(key)) for axes in given}) > 1]
    return [words_of(axes, telling) or words_of(axes, SAID_ALONE[:1]) or "all runs" for axes in given]


def _axes_of(families: Sequence[Family]) -> list[str]:
    return [*dict.fromkeys(key for family in families for key in family.axes)]


def order_of(run: RunResult) -> str:
    """Give the order in which a run reads."""
    return str(next((run.axes[key] for key in ORDER_AXES if run.axes.get(key) is not None), FORWARD))


def words_of(axes: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Say the values of axes in words: english, context 64."""
    return drawable(", ".join(_words(key, axes[key]) for key in keys if axes.get(key) is not None))


def drawable(text: str) -> str:
    """Make a text fit for a figure: in one line, without what would turn or hide it."""
    return visible(one_line(text))


def _words(key: str, value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if key in SAID_ALONE else f"{WORDS.get(key, short_key(key))} {text}"


def short_key(key: str) -> str:
    """Give the last part of a key in words: `warmup steps` of optim.warmup_steps."""
    return key.rsplit(".", 1)[-1].replace("_", " ")


def _gaps_of(families: Sequence[Family], comparison: Json | None) -> list[Gap]:
    """Find the family of each group of comparison.json, by the names of the folders of its runs."""
    groups = comparison["groups"] if comparison else []
    of_folder: dict[str, Family] = {}
    for family in families:  # runs that are the same, of two words for one rate, have one folder: of the first family
        for run in (run for of in family.runs.values() for run in of.values()):
            of_folder.setdefault(Path(run.folder).name, family)
    is_usual = {(group["reference"], group["order"]) for group in groups} <= {(FORWARD, BACKWARD)}
    gaps: list[Gap] = []
    for group in groups:
        names = [Path(folder).name for of in group["runs"].values() for folder in of.values()]
        family = next((of_folder[name] for name in names if name in of_folder), None)
        if family is not None:
            orders = "" if is_usual else f"{group['order']} against {group['reference']}"
            both = "one model of both" if group["is_both"] else ""
            gap = Gap(family, "", group)
            characters = BY_CHARACTERS if gap.is_of_reversed_text else ""
            parts = [family.name if len(families) > 1 or not orders else "", orders, both, characters]
            gaps.append(replace(gap, name=", ".join(part for part in parts if part)))
    places = {id(family): place for place, family in enumerate(families)}
    return sorted(gaps, key=lambda gap: places[id(gap.family)])


def number_axes(groups: StudyGroups) -> list[NumberAxis]:
    """Find what families differ in that is a number: values of axes, parameters of models, settings of languages."""
    found: list[NumberAxis] = []
    for key in _axes_of(groups.families):
        values = {family.name: family.axes.get(key) for family in groups.families}
        if key == "model":
            sizes = {
                family.name: family.first.metadata.get("n_parameters") for family in groups.families if family.first
            }
            kinds = {family.name: kind_of_model(family) for family in groups.families if family.first}
            axes = _number_axis("size", "parameters", "the size of the model", sizes, key)
            found += [replace(axis, others=kinds if len({*kinds.values()}) > 1 else {}) for axis in axes]
        elif key == "corpus":
            found += _language_axes(groups)
        else:
            label = LABELS.get(key, short_key(key))
            found += _number_axis(key, label, WORDS.get(key, short_key(key)), values, key)
    return found


def kind_of_model(family: Family) -> str:
    """Name what kind of model a family has: GRU, LSTM, GPT, or modern, a GPT of other blocks."""
    settings = family.first.settings if family.first else {}
    if settings.get("model.cell"):
        return str(settings["model.cell"]).upper()
    block = str(settings.get("model.block") or "gpt2")
    return "GPT" if block == "gpt2" else block


def _number_axis(name: str, label: str, what: str, values: Mapping[str, Any], key: str) -> list[NumberAxis]:
    numbers = {family: value for family, value in values.items() if is_number(value)}
    if len({*numbers.values()}) < 2:
        return []
    return [NumberAxis(re.sub(r"\W+", "_", name), label, what, numbers, key)]


def _language_axes(groups: StudyGroups) -> list[NumberAxis]:
    """Give the number in which synthetic languages of one kind and role differ, where they differ in nothing else."""
    kinds: dict[tuple[str, str], dict[str, Json]] = {}
    for name, of in groups.result.floors.items():
        settings = {key: value for key, value in (of.get("settings") or {}).items() if key not in NOT_LANGUAGE}
        kinds.setdefault((str(of.get("kind")), str(of.get("role"))), {})[name] = settings
    found: list[NumberAxis] = []
    for (kind, _), alike in kinds.items():
        keys = dict.fromkeys(key for settings in alike.values() for key in settings)
        differing = [key for key in keys if len({repr(settings.get(key)) for settings in alike.values()}) > 1]
        if len(differing) == 1:
            [key] = differing
            of_family = {family.name: alike.get(str(family.axes.get("corpus")), {}) for family in groups.families}
            values = {name: settings.get(key) for name, settings in of_family.items()}
            label = short_key(key)
            found += _number_axis(f"{kind}_{key}", drawable(label), f"{label} of {kind}", values, "corpus")
    return found


def line_of(gap: Gap, axis: NumberAxis, groups: StudyGroups) -> str:
    """Name the line of a figure on which a gap lies: by all but the axis below it."""
    keys = [key for key in _axes_of(groups.families) if key != axis.key]
    telling = [key for key in keys if len({repr(family.axes.get(key)) for family in groups.families}) > 1]
    orders = "" if len({each.order for each in groups.gaps}) < 2 else gap.order
    return ", ".join(
        part for part in (axis.others.get(gap.family.name, ""), words_of(gap.family.axes, telling), orders) if part
    )
