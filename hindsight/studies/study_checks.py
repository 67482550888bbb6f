"""What may stand in the file of a study: its keys, and the names that one part of it uses and another defines."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, cast

from hindsight.config.order import split_order
from hindsight.config.schemas import SCHEMAS, describe
from hindsight.config.suggestions import suggest
from hindsight.errors import InputError

CORPUS, TOKENIZER, ORDER, SEED, LR = "corpus", "tokenizer", "order", "seed", "optim.lr"
"""Axes of which more is known than that they are keys of train_composer.py."""
SAME, BEST = "same", "best"
"""Values of the axis optim.lr that the sweep of learning rates finds: one for all orders, and one for each."""
BYTES = "bytes"
"""The tokenizer of bytes, which needs no entry in tokenizers:."""
SECTIONS = ("gap", "curves", "floors", "learning_rate", "tokenizers", "null", "exact")
"""Sections of a report."""
OF_A_SCALE = (
    *("question", "corpora", "tokenizers", "convert", "settings", "axes", "where", "without", "lr_sweep"),
    *("evaluation", "report", "published", "few_documents"),
)
"""Keys that each scale may have, and what holds at every scale."""
GROUPS = ("model", "experiment")
"""Keys of train_composer.py that take the name of a file in conf/."""
OF_THE_STUDY = {
    "run_name": "runs are named by their values on the axes",
    "runs_dir": "give runs_dir= to run_study.py",
    "data.path": "name a corpus in corpora:",
    "data.val_path": "name a corpus in corpora:",
    "data.tokenizer": "name a tokenizer in tokenizers:",
    "direction": "write order, which is the same",
    "checkpoint.folder": "checkpoints of each run lie in its folder",
    "evaluate": "every run is evaluated",
    "sanity_check": "runs are to be trained",
    "train.more": "give max_duration",
}
"""Keys of train_composer.py that no study may set, and what stands for them."""


@cache
def keys_of(script: str) -> tuple[str, ...]:
    """All keys of a command, in full."""
    return tuple(row[0] for row in describe(SCHEMAS[script]))


def check_setting(key: str, part: str) -> None:
    """Raise InputError unless a key is one of train_composer.py that a study may set."""
    if part != "axes" and key in (ORDER, SEED):
        raise InputError(f"{part}: {key} is given by axes; write axes: {{{key}: [...]}}.")
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


def check_convert(given: Any, part: str) -> None:
    """Raise InputError for a key that convert_to_mds.py does not have, or that the study gives itself."""
    check_keys(mapping_of(given, "", part), keys_of("convert_to_mds"), part, ("corpus", "tokenizer", "out"))


def check_names(given: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Raise InputError for a key that is none of those that are known."""
    known = [*known]
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(known)}."
            raise InputError(f"{where}: there is no key {key}; {hint}")


def check_orders(axes: Mapping[str, list[Any]], content: Mapping[str, Any]) -> None:
    """Check that a study has runs forward, and two orders where it reports a gap."""
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
        check_names({str(section): None}, SECTIONS, "report")
    if "gap" in sections and len(orders) < 2:
        raise InputError(f"report: gap needs two orders, and axes.order is {orders}.")


def check_corpora(
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
            check_keys(mapping_of(entry["make"], "", f"{part}.make"), keys_of("make_corpus"), f"{part}.make", ("out",))
        check_convert(entry.get("convert"), f"{part}.convert")
        if "tokenizer" in entry:
            require_named(entry["tokenizer"], tokenizers, f"{part}.tokenizer", "tokenizers")
        if "turned" in entry:
            require_named(entry["turned"], corpora, f"{part}.turned", "corpora")
            if "turned" in corpora[entry["turned"]]:
                raise InputError(f"{part}: {entry['turned']} is turned itself; name the corpus that it is made of.")
    if CORPUS not in axes:
        if len(corpora) != 1:
            raise InputError("axes.corpus is missing: name one or more of corpora:.")
        axes[CORPUS] = [*corpora]
    for name in axes[CORPUS]:
        require_named(name, corpora, "axes.corpus", "corpora")


def check_tokenizers(
    corpora: Mapping[str, Any], tokenizers: Mapping[str, dict[str, Any]], axes: dict[str, list[Any]]
) -> None:
    """Check the entries of all tokenizers, and that the axis names them."""
    for name, entry in tokenizers.items():
        part = f"tokenizers.{name}"
        check_keys(entry, (*keys_of("train_tokenizer"), "corpora", "convert"), part, ("corpus", "out"))
        check_convert(entry.get("convert"), f"{part}.convert")
        for each in list_of(entry, "corpora"):
            require_named(each, corpora, f"{part}.corpora", "corpora")
    axes.setdefault(TOKENIZER, [next(iter(tokenizers))])
    for name in axes[TOKENIZER]:
        require_named(name, tokenizers, "axes.tokenizer", "tokenizers")


def require_named(name: Any, known: Mapping[str, Any], where: str, part: str) -> None:
    """Raise InputError for the name of an entry that is not there."""
    if name not in [*known]:  # which may be no text, and have no hash
        near = difflib.get_close_matches(str(name), [*known], 1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known) or 'none'}."
        raise InputError(f"{where}: {name} is not in {part}; {hint}")


def entries_of(given: Any, part: str) -> dict[str, dict[str, Any]]:
    """Read the corpora or tokenizers of a study, by their names."""
    entries = mapping_of(given, "", part)
    for name in entries:
        if re.fullmatch(r"[A-Za-z0-9_]+", name) is None:
            raise InputError(f"{part}: {name} names folders; use letters, digits and _ only.")
    return {name: mapping_of(entry, "", f"{part}.{name}") for name, entry in entries.items()}


def part_of(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Read a part of the file that is keys and values; empty if it is missing."""
    return mapping_of(content.get(key), "", key)


def list_of(content: Mapping[str, Any], key: str) -> list[Any]:
    """Read a part of the file that is a list; empty if it is missing."""
    value = content.get(key)
    if value is not None and not isinstance(value, list):
        raise InputError(f"{key} must be a list, in [ ].")
    return cast("list[Any]", value or [])


def mapping_of(value: Any, where: str, part: str) -> dict[str, Any]:
    """Take a mapping, or nothing for an empty one; InputError for anything else."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{where}: {part} must be keys and values".removeprefix(": ") + ", such as {key: value}.")
    return {str(key): each for key, each in cast("dict[Any, Any]", value).items()}


def number_of(value: Any) -> Any:
    """Read 1e-3 as a number, which YAML 1.1 takes for a text."""
    is_number = isinstance(value, str) and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+", value)
    return float(value) if is_number else value
