"""The verdict about an order, in one sentence."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hindsight.analysis.inference import LEVEL
from hindsight.config.evaluation import WINDOWS
from hindsight.config.order import DIRECTIONS

ONE_PAIR = "one pair says nothing about direction"


SAME = 1e-6
"""Share of the loss by which a gap may differ that is measured twice."""


SIGNIFICANT_P = 1 - LEVEL
"""Below it a p value is significant, as an interval is that leaves out 0."""


def text_note(group: Mapping[str, Any]) -> str | None:
    """Say of what gap the bootstrap, the components and the cuts are; None where it is the gap that stands above.

    Args:
        group: an entry of `groups` in comparison.json.
    """
    text = group["text"]
    if text is None or text["whole_nats"] is None:
        return None
    loss = max(loss for of in group["losses_nats"].values() for loss in of.values())
    if text["context"] == WINDOWS and abs(text["whole_nats"] - group["gap"]["mean_nats"]) <= SAME * loss:
        return None
    seeds = "" if group["is_paired"] else f", seeds {', '.join(map(str, text['seeds']))}"
    return f"of context={text['context']}{seeds}, all tokens: whole gap {text['whole_nats']:+.4f}"


def verdict_of(group: dict[str, Any]) -> str:
    """Say what was found, beside the null.

    Args:
        group: an entry of `groups` in comparison.json, without its verdict.
    """
    gap = group["gap"]
    interval, relative = gap["relative_interval_percent"], gap["relative_percent"]
    if interval is None:
        return _no_verdict(group)
    half = (interval[1] - interval[0]) / 2
    digits = digits_of(half)
    measured, seeds = f"{abs(relative):.{digits}f}% ± {half:.{digits}f}", _seeds(group)
    order = _subject(group)
    within = _within(gap)
    if gap["is_significant"]:
        how = "harder" if gap["mean_nats"] > 0 else "easier"
        but = f", which is within the margin of {gap['equivalence']['margin_nats']:g} nats" if within else ""
        return f"{order} is {how}{_than(group)} by {measured} ({seeds}){but}; {_null(group, digits)}."
    measured = f"{relative:+.{digits}f}% ± {half:.{digits}f}"
    against = f"{group['order']} against {group['reference']}"
    if within:
        what = f"No difference beyond {gap['equivalence']['margin_nats']:g} nats"
        return f"{what}: {against} is {measured} ({seeds}), equivalent within the margin; {_null(group, digits)}."
    return f"No difference was found: {against} is {measured} ({seeds}); {_null(group, digits)}."


def summary_of(groups: Sequence[Mapping[str, Any]], holm: Sequence[Mapping[str, Any]]) -> str:
    """Say of several groups of comparison.json in how many of them the order is harder.

    Args:
        groups: entries of `groups`.
        holm: p values of all groups, corrected together: `table.holm`.
    """
    p_holm = {row["name"]: row["p_holm"] for row in holm}
    signs = [sign_of_gap(group["gap"]) for group in groups]
    said = tally([group["order"] for group in groups], signs, [p_holm.get(group["name"]) for group in groups])
    return said[:1].upper() + said[1:]


def sign_of_gap(gap: Mapping[str, Any]) -> int | None:
    """Give the sign of the gap of a group, as its verdict does: 0 if it is not told apart, None with too few seeds."""
    if gap["paired_interval_nats"] is None and gap["welch_interval_nats"] is None:
        return None
    return 0 if not gap["is_significant"] else 1 if gap["mean_nats"] > 0 else -1


def sign_of(interval: Sequence[float] | None) -> int | None:
    """Give the sign of a gap by its interval: 0 if that contains 0, None without one."""
    return None if interval is None else int(interval[0] > 0) - int(interval[1] < 0)


def tally(
    orders: Sequence[str], signs: Sequence[int | None], p_holm: Sequence[float | None], what: str = "groups"
) -> str:
    """Say in how many of several gaps the order is harder, each by its own interval, and after Holm's correction.

    Args:
        orders: of each gap, what is compared with the reference.
        signs: of each gap: 1 where the order is harder, -1 easier, 0 not told apart, None with too few seeds.
        p_holm: of each gap, its p value corrected for all that were tested; None where seeds differ by nothing.
        what: the things that have these gaps.
    """
    n, few = len(signs), signs.count(None)
    if few == n:
        return f"no verdict: there are too few seeds{f' in all {n} {what}' if n > 1 else ''}."
    said = f"{_order_of(orders)} is harder in {signs.count(1)} of {n} {what}, easier in {signs.count(-1)}"
    said += f", not told apart in {signs.count(0)}" if 0 in signs else ""
    if n - few > 1:
        corrected = _corrected(signs, p_holm)
        said += f", by their own intervals; after Holm's correction harder in {corrected.count(1)}"
        said += f", easier in {corrected.count(-1)}"
    return f"{said}; too few seeds in {few}." if few else f"{said}."


def short_tally(
    orders: Sequence[str], signs: Sequence[int | None], p_holm: Sequence[float | None], what: str = "groups"
) -> str:
    """Say what is left of a tally after Holm's correction, in a sentence short enough for the head of a page.

    Args:
        orders: as those of `tally`, as is all else.
        signs: of each gap.
        p_holm: of each gap.
        what: the things that have these gaps.
    """
    n, few = len(signs), signs.count(None)
    if n - few < 2:
        return tally(orders, signs, p_holm, what)
    corrected = _corrected(signs, p_holm)
    harder, easier = corrected.count(1), corrected.count(-1)
    said = f"{_order_of(orders)} is harder in {harder} of {n} {what}{f' and easier in {easier}' if easier else ''}"
    return f"{said}, after Holm's correction{f'; too few seeds in {few}' if few else ''}."


def _order_of(orders: Sequence[str]) -> str:
    return orders[0] if len({*orders}) == 1 else "the other order"


def _corrected(signs: Sequence[int | None], p_holm: Sequence[float | None]) -> list[int | None]:
    """Signs that are left after Holm's correction."""
    return [sign if p is None or p < SIGNIFICANT_P else 0 for sign, p in zip(signs, p_holm, strict=True)]


def _no_verdict(group: dict[str, Any]) -> str:
    relative, n = group["gap"]["relative_percent"], len(group["seeds"])
    measured = f"{group['order']} against {group['reference']} is {relative:+.2f}%"
    if n == 1:
        return f"No verdict: {ONE_PAIR} ({measured}); train at least 3 seeds of each."
    few = "two say hardly more" if n == 2 else "so few runs without pairs say no more"
    return f"No verdict: {ONE_PAIR}, and {few} ({measured} on average); train at least 3 seeds of each."


def _within(gap: dict[str, Any]) -> bool:
    return gap["equivalence"] is not None and gap["equivalence"]["is_equivalent"]


def _seeds(group: dict[str, Any]) -> str:
    if group["is_paired"]:
        return f"{len(group['seeds'])} seeds"
    n, m = (len(group["runs"][order]) for order in (group["reference"], group["order"]))
    return f"{n} and {m} runs, not paired"


def _subject(group: dict[str, Any]) -> str:
    name = group["order"]
    if group["is_both"]:
        return f"In one model of both, {name}"
    return name.capitalize() if name in DIRECTIONS else f"Order {name}"


def _than(group: dict[str, Any]) -> str:
    """Than what; backward is compared with forward wherever nothing is said."""
    return "" if (group["reference"], group["order"]) == ("forward", "backward") else f" than {group['reference']}"


def _null(group: dict[str, Any], digits: int) -> str:
    if group["null"] is None:
        return "the null is not known"
    null, gap = group["null"]["mean_absolute_percent"], group["gap"]
    is_larger = gap["is_significant"] and null > abs(gap["relative_percent"])
    return f"the null is {null:.{digits}f}%" + (", larger than the gap" if is_larger else "")


def digits_of(half: float, least: int = 2) -> int:
    """Digits after the point: at least so many, and as many as half of an interval needs to show two of its own."""
    return least if half <= 0 else min(max(least, 1 - math.floor(math.log10(half))), 8)
