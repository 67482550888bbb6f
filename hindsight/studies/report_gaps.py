"""Sections of a study's report: gaps beside their nulls, curves, and the null by itself."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hindsight.analysis import inference
from hindsight.analysis.figure_style import Drawing, lay_out, styled
from hindsight.analysis.gap_figures import GapPoint, GapRow, Published, draw_against, draw_rows
from hindsight.analysis.page import Figures, Table, Text
from hindsight.analysis.verdict import short_tally, sign_of_gap, tally
from hindsight.config.order import DIRECTIONS
from hindsight.studies.report_figures import draw_curves, draw_null, draw_panels, looks_of
from hindsight.studies.report_groups import ORDER_AXES, Gap, NumberAxis, StudyGroups, drawable, line_of, number_axes
from hindsight.studies.report_parts import (
    FEW,
    REVERSED,
    Part,
    by_characters,
    capitalized,
    estimate,
    mean,
    with_half,
    with_minus,
)
from hindsight.studies.report_unlearned import said_of_unlearned, short_of_unlearned, unlearned_gaps
from hindsight.studies.report_warnings import pair_warnings

GAP_COLUMNS = {
    "name": "group",
    "result": "the order is",
    "seeds": "seeds",
    "percent": "gap (%), 95% interval",
    "null": "null (%)",
    "p": "p",
    "nats": "gap (nats/token), 95% interval",
    "of_reference": "reference (nats/token)",
    "of_order": "order (nats/token)",
}
"""What tells most stands first: on a narrow screen the rest is reached by scrolling."""
NULL_COLUMNS = {
    "name": "group",
    "order": "order",
    "seeds": "seeds",
    "loss": "loss (nats/token)",
    "apart": "null (nats/token)",
    "std": "std over pairs",
    "percent": "null (%)",
    "largest": "largest (%)",
}
PUBLISHED_COLUMNS = {
    "label": "published",
    "percent": "published gap (%)",
    "name": "held beside",
    "ours": "our gap (%), 95% interval",
}
RESULTS = {1: "harder", -1: "easier", 0: "not told apart", None: "too few seeds"}
"""By the sign of a gap."""
TEXT = {"name": "wide", "order": "", "result": "", "label": "wide"}
ROLES = {"null": "Nulls", "calibration": "Calibrations", "positive": "Positives"}
"""Synthetic languages, by the role that floor.json names."""
MOST_IN_HEADLINE = 2
"""Gaps that the headline names each."""
MOST_NULLS = 16
"""Groups in the figure of the null."""
NULL_WORDS = (
    "A gap is the loss of an order minus that of its reference, above 0 where the order is harder. The null is how far "
    "runs of one order lie apart that differ in the seed alone, in the mean over pairs of seeds."
)
NO_CURVE = "Every run was evaluated once, at its end: eval_interval= is as long as they are. There is no curve to show."
NO_COMPARISON = "There is no comparison of these runs yet: no two orders of a group have runs that are done."


def gap_section(groups: StudyGroups) -> Part:
    """Show every gap with its interval beside its null; against an axis of numbers where there is one.

    Corpora that are others turned are left out: the section "exact" is of them.
    """
    groups = replace(groups, gaps=[gap for gap in groups.gaps if gap.family.axes.get("corpus") not in groups.turned])
    if not groups.gaps:
        return Part([Text(NO_COMPARISON)])
    published = groups.result.study.get("published") or []
    with styled():
        axes = number_axes(groups)
        drawings = [_against(groups, axis, published) for axis in axes]
        drawings = [drawing for drawing in drawings if drawing is not None]
        if len(drawings) != 1 or len(groups.gaps) <= 12 or any(axis.key == "model" for axis in axes):
            drawings.append(_gap_rows(groups, published))
        lay_out(drawings)
    orders = {(gap.found["reference"], gap.order) for gap in groups.gaps}
    columns = dict(GAP_COLUMNS)
    if len(orders) == 1:
        reference, order = next(iter(orders))
        columns |= {"of_reference": f"{reference} (nats/token)", "of_order": f"{order} (nats/token)"}
    holm = {row["name"]: row["p_holm"] for row in (groups.comparison or {})["table"]["holm"]}
    if len(groups.gaps) > 1:
        columns["p"] = "p (Holm)"
    rows = [_gap_row(gap, holm) for gap in groups.gaps]
    part = Part([Text(NULL_WORDS), Figures(drawings), Table(columns, rows, TEXT)])
    part.headline = with_minus(groups.gaps[0].found["verdict"])
    if len(groups.gaps) > 1:
        part.headline, part.counts = _counted(groups, holm)
        part.answers = [(gap.name, with_minus(gap.found["verdict"])) for gap in groups.gaps]
    if any(gap.is_of_reversed_text for gap in groups.gaps):
        part.blocks.append(Text(REVERSED))
    if any(gap.interval_nats is None for gap in groups.gaps):
        part.blocks.append(Text(FEW))
    if len(groups.gaps) > 1:
        part.blocks.append(Text("p (Holm): corrected for as many tests as there are groups in the comparison.", "note"))
    if published:
        part.blocks += _published_blocks(groups, published)
    unlearned = unlearned_gaps(groups)
    if unlearned:
        part.headline += short_of_unlearned(len(unlearned), len(groups.gaps))
        part.blocks.append(Text(said_of_unlearned(unlearned), "warning"))
    part.blocks += [
        Text(f"{gap.name}: {with_minus(warning)}", "warning")
        for gap in groups.gaps
        for warning in gap.found["warnings"]
    ]
    of_pairs = pair_warnings((groups.comparison or {})["pairs"], groups.gaps)
    part.blocks += [Text(with_minus(warning), "warning") for warning in of_pairs]
    return part


def _counted(groups: StudyGroups, holm: Mapping[str, float]) -> tuple[str, list[tuple[str, str]]]:
    """Count the groups in which the order is harder; synthetic languages apart by what they are for.

    A kind all of whose groups have too few seeds, as calibrations may have, is left out beside others that have enough.

    Returns:
        A headline, and the counts.
    """
    kinds: dict[str, list[Gap]] = {}
    for gap in groups.gaps:
        floor = groups.result.floors.get(str(gap.family.axes.get("corpus")), {})
        is_of_directions = (gap.found["reference"], gap.order) == DIRECTIONS
        role = ROLES.get(str(floor.get("role")), "") if is_of_directions else "Other orders"
        kinds.setdefault(role if floor else "", []).append(gap)
    signs = {kind: _signs_of(gaps, holm) for kind, gaps in kinds.items()}
    with_verdict = {kind: of for kind, of in signs.items() if any(sign is not None for sign in of[1])}
    counts = [(kind, tally(*of) if kind else capitalized(tally(*of))) for kind, of in (with_verdict or signs).items()]
    headline = capitalized(short_tally(*_signs_of(groups.gaps, holm)))
    each = [f"{gap.name} {with_half(gap.percent, gap.interval_percent)}" for gap in groups.gaps if gap.interval_percent]
    if len(groups.gaps) <= MOST_IN_HEADLINE and len(each) == len(groups.gaps):
        headline = f"{headline.removesuffix('.')}: {', '.join(each)}."
    return headline, counts


def _signs_of(gaps: Sequence[Gap], holm: Mapping[str, float]) -> tuple[list[str], list[int | None], list[float | None]]:
    """Give orders, signs and corrected p values of gaps, of reversed text by how characters are read."""
    signs = [sign_of_gap(gap.found["gap"]) for gap in gaps]
    read = by_characters([gap.order for gap in gaps], signs, [gap.is_of_reversed_text for gap in gaps])
    return *read, [holm.get(gap.found["name"]) for gap in gaps]


def _gap_row(gap: Gap, holm: Mapping[str, float]) -> dict[str, Any]:
    found = gap.found["gap"]
    losses = {order: _compared_losses(gap, order) for order in (gap.found["reference"], gap.order)}
    seeds = len(gap.found["seeds"]) if gap.found["is_paired"] else " and ".join(str(len(of)) for of in losses.values())
    return {
        "name": gap.name,
        "seeds": seeds,
        "of_reference": mean(losses[gap.found["reference"]]),
        "of_order": mean(losses[gap.order]),
        "nats": estimate(found["mean_nats"], gap.interval_nats, least=4),
        "percent": estimate(gap.percent, gap.interval_percent),
        "result": RESULTS[sign_of_gap(found)],
        "null": None if gap.null_percent is None else f"{gap.null_percent:.2g}",
        "p": f"{holm[gap.found['name']]:.2g}"
        if gap.interval_nats and holm.get(gap.found["name"]) is not None
        else None,
    }


def _compared_losses(gap: Gap, order: str) -> list[float]:
    losses = gap.found["losses_nats"][order]
    return [losses[str(seed)] for seed in gap.found["seeds"]] if gap.found["is_paired"] else [*losses.values()]


def _against(groups: StudyGroups, axis: NumberAxis, published: list[dict[str, Any]]) -> Drawing | None:
    """Draw gaps against an axis of numbers, a line for each setting of the others."""
    lines: dict[str, list[GapPoint]] = {}
    for gap in groups.gaps:
        if gap.family.name in axis.values:
            point = GapPoint(axis.values[gap.family.name], gap.percent, gap.interval_percent, gap.null_percent)
            lines.setdefault(line_of(gap, axis, groups), []).append(point)
    if len({point.x for of in lines.values() for point in of}) < 2:
        return None
    beside: list[Published] = []
    for label, of in _published_series(published, axis.key).items():
        placed = [(_place_of(each["if"][axis.key], axis, groups), float(each["percent"])) for each in of]
        points = [(x, percent) for x, percent in placed if x is not None]
        alike = [gap for gap in groups.gaps if _is_beside(of[0], gap, axis.key)]
        alike.sort(key=lambda gap, each=of[0]: not _is_beside(each, gap))  # a model's own line before another kind's
        line = line_of(alike[0], axis, groups) if alike else ""
        beside += [Published(label, line, points)] if points else []
    caption = f"The gap against {axis.what}."
    return draw_against(lines, f"gap_against_{axis.name}", axis.label, caption, beside)


def _place_of(value: Any, axis: NumberAxis, groups: StudyGroups) -> float | None:
    """Where on the axis a published value stands; None where its place is not known, as of a model that is not ours."""
    if value is None:
        return None
    alike = [family.name for family in groups.families if str(family.axes.get(axis.key)) == str(value)]
    known = next((axis.values[name] for name in alike if name in axis.values), None)
    return float(value) if known is None and isinstance(value, int | float) else known


def _published_series(published: list[dict[str, Any]], key: str) -> dict[str, list[dict[str, Any]]]:
    """Group published values that differ in one key, by what their labels have in common."""
    alike: dict[str, list[dict[str, Any]]] = {}
    for each in published:
        rest = {of: value for of, value in (each.get("if") or {}).items() if of != key}
        if key in (each.get("if") or {}):
            alike.setdefault(repr(sorted(rest.items())), []).append(each)
    return {_common_label([each["label"] for each in of]): of for of in alike.values()}


def _common_label(labels: list[str]) -> str:
    """Give the parts, by commas, that labels have in common."""
    parts = [label.split(", ") for label in labels]
    common = [part for part in parts[0] if all(part in other for other in parts)]
    return drawable(", ".join(common) or labels[0])


def _is_beside(each: Mapping[str, Any], gap: Gap, but: str = "") -> bool:
    """Whether a published value is held beside a gap: it has what the value asks for on all axes but one.

    A value that names no order is of backward against forward, on text that was tokenized in reading order.
    """
    has = gap.family.axes | {"order": gap.order, "direction": gap.order}
    asked = {key: value if isinstance(value, list) else [value] for key, value in (each.get("if") or {}).items()}
    if not {*ORDER_AXES} & {*asked} and ((gap.found["reference"], gap.order) != DIRECTIONS or gap.is_of_reversed_text):
        return False
    return all(str(has.get(key)) in map(str, values) for key, values in asked.items() if key != but)


def _gap_rows(groups: StudyGroups, published: list[dict[str, Any]]) -> Drawing:
    references = {gap.found["reference"] for gap in groups.gaps}
    against = f" against {references.pop()}" if len(references) == 1 else ""
    rows = [
        GapRow(
            gap.name.removesuffix(against),
            gap.percent,
            gap.interval_percent,
            gap.null_percent,
            [float(each["percent"]) for each in published if _is_beside(each, gap)],
        )
        for gap in groups.gaps
    ]
    return draw_rows(rows, "gap", f"gap{against} (%)", "The gap of each group.")


def _published_blocks(groups: StudyGroups, published: list[dict[str, Any]]) -> list[Table | Text]:
    rows: list[dict[str, Any]] = []
    for each in published:
        beside = [gap for gap in groups.gaps if _is_beside(each, gap)] or [None]
        rows += [
            {
                "label": each["label"],
                "percent": f"{float(each['percent']):+g}".replace("-", "\u2212"),
                "name": gap.name if gap else None,
            }
            | {"ours": estimate(gap.percent, gap.interval_percent) if gap else None}
            for gap in beside
        ]
    text = "Values that others published stand beside ours. Their models, data and budgets are other ones."
    return [Text(text), Table(PUBLISHED_COLUMNS, rows, TEXT)]


def curves_section(groups: StudyGroups) -> Part:
    """Show validation losses over training."""
    most = {
        family.name: max((len(run.evaluations) for of in family.runs.values() for run in of.values()), default=0)
        for family in groups.families
    }
    families = [family for family in groups.families if most[family.name] > 1]
    if not families:
        return Part([Text(NO_CURVE if any(most.values()) else "No run has been evaluated yet.")])
    looks = looks_of(groups.orders)
    floors = {name: of.get("nats_per_token") for name, of in groups.result.floors.items()}
    caption = "Validation loss over training, the mean over seeds. Bands: ± one standard deviation over seeds."
    with styled():
        drawings = draw_panels(
            families,
            lambda axes, family: draw_curves(axes, family, looks, floors.get(family.axes.get("corpus", ""))),
            "curves",
            caption,
            "training tokens",
            "loss (nats/token)",
        )
        lay_out(drawings)
    return Part([Figures(drawings)])


def null_section(groups: StudyGroups) -> Part:
    """Show how far runs of one order lie apart that differ in the seed alone, beside the gap."""
    rows: list[dict[str, Any]] = []
    nulls: list[tuple[str, float]] = []
    for family in groups.families:
        losses = {order: np.array([*family.losses(order).values()]) for order in groups.orders}
        found, whole = inference.null_of(losses)
        level = mean([float(of.mean()) for of in losses.values() if len(of)])
        if whole is not None and level:
            nulls.append((family.name, 100 * whole / level))
        for order, null in found.items():
            of, loss = losses[order], float(losses[order].mean())
            largest = max(abs(float(a - b)) for a, b in itertools.combinations(of, 2))
            row = {"name": family.name, "order": order, "seeds": len(of), "loss": loss, "apart": null.mean_absolute}
            row |= {"std": null.std, "percent": 100 * null.mean_absolute / loss, "largest": 100 * largest / loss}
            rows.append(row)
    if not rows:
        return Part([Text("No order of a group has two runs that are done, and so the null is not known.")])
    with styled():
        known = {row["name"] for row in rows}
        families = [family for family in groups.families if family.name in known]
        drawings = [draw_null(families[:MOST_NULLS], groups.gaps, looks_of(groups.orders))]
        lay_out(drawings)
    text = "Each line is of runs that differ in nothing but their seeds: what they differ by is chance."
    part = Part([Text(text), Figures(drawings), Table(NULL_COLUMNS, rows, TEXT)])
    if len(families) > MOST_NULLS:
        part.blocks.append(Text(f"The figure shows the first {MOST_NULLS} groups.", "note"))
    apart = [
        (name, f"runs of one order with other seeds lie {percent:.2g}% apart in the mean.") for name, percent in nulls
    ]
    if not groups.gaps:  # where there are any, each verdict names its null
        part.answers = apart if len(apart) > 1 else []
    low, high = (f"{of(percent for _, percent in nulls):.2g}" for of in (min, max))
    span = f"{low}%" if low == high else f"{low} to {high}%"
    part.headline = f"Runs of one order that differ in the seed alone lie {span} apart in the mean."
    return part
