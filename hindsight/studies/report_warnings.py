"""What the comparison warns of about single pairs of runs, said once for all pairs of a study that it is true of."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hindsight.studies.report_groups import Gap

MOST_DIFFERENCES = 4
"""Differences of two runs that are shown with their values."""
COMMIT = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{28}\b")
"""A commit, and the digits that tell it from others."""
HAVE = " have "
Json = Mapping[str, Any]


@dataclass
class _Said:
    """What is said of pairs alike.

    Args:
        texts: the words, each once: they may differ in values.
        pairs: labels of the pairs, by the name of the gap that they are of.
    """

    texts: dict[str, None] = field(default_factory=dict[str, None])
    pairs: dict[str, list[str]] = field(default_factory=dict[str, list[str]])


def pair_warnings(pairs: Sequence[Json], gaps: Sequence[Gap]) -> list[str]:
    """Sum up the warnings of pairs: a line for each kind, with the groups and the number of pairs concerned.

    Args:
        pairs: `pairs` of comparison.json.
        gaps: the gaps that are shown.
    """
    found: dict[str, _Said] = {}
    n_pairs: dict[str, int] = {}
    for gap in gaps:
        folders = {folder for order in gap.found["runs"].values() for folder in order.values()}
        alike = [pair for pair in pairs if {pair[pair["reference"]], pair[pair["order"]]} <= folders]
        n_pairs[gap.name] = len(alike)
        for pair in alike:
            for kind, text in _warnings_of(pair).items():
                said = found.setdefault(kind, _Said())
                said.texts[text] = None
                said.pairs.setdefault(gap.name, []).append(pair["pair"])
    return [_line(said, n_pairs) for said in found.values()]


def _line(said: _Said, n_pairs: Mapping[str, int]) -> str:
    first, *others = said.pairs
    groups = first if not others else f"{first} and {len(others)} more group{'s' if len(others) > 1 else ''}"
    if others and len(said.pairs) == len(n_pairs):
        groups = "All groups"
    concerned, total = sum(map(len, said.pairs.values())), sum(n_pairs[name] for name in said.pairs)
    text = next(iter(said.texts))
    such = f"; others have other values ({len(said.texts)} in all)" if len(said.texts) > 1 else ""
    return f"{groups}: {text}{such} ({concerned} of {total} pair{'s' if total > 1 else ''})"


def _warnings_of(pair: Json) -> dict[str, str]:
    """Give the warnings of a pair without the folders of its runs, by what they have in common with those of others.

    All keys in which its runs differ are one warning; pairs whose runs differ in the same keys are alike.
    """
    orders = pair["reference"], pair["order"]
    folders = [pair[order] for order in orders]
    both = " and ".join(folders)
    found: dict[str, str] = {}
    differences: list[str] = []
    for warning in map(str, pair["warnings"]):
        if warning.startswith(both + HAVE):
            differences.append(COMMIT.sub(r"\1", warning.removeprefix(both + HAVE)))
            continue
        text = warning.removeprefix(f"{both}: ")
        for order, folder in zip(orders, folders, strict=True):
            if len({*folders}) == 1:  # a run of both orders
                text = text.removeprefix(f"{folder}: ")
            for end in (": ", " was "):
                text = order + text.removeprefix(folder) if text.startswith(folder + end) else text
        found[text] = text
    if differences:
        kind = " ".join([*orders, *(each.partition("=")[0] for each in differences)])
        more = len(differences) - MOST_DIFFERENCES
        shown = ", ".join([*differences[:MOST_DIFFERENCES], *([f"{more} more"] if more > 0 else [])])
        found[kind] = f"{orders[0]} and {orders[1]} have {shown}"
    return found
