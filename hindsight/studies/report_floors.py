"""Section of a study's report: synthetic languages, whose loss can be no lower than a floor that is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hindsight.analysis import inference
from hindsight.analysis.figure_style import lay_out, styled
from hindsight.analysis.inference import TTest
from hindsight.analysis.page import Block, Bullets, Figures, Table, Text
from hindsight.analysis.verdict import sign_of
from hindsight.studies.report_figures import draw_above, draw_panels, looks_of
from hindsight.studies.report_groups import BACKWARD, FORWARD, Family, Gap, StudyGroups
from hindsight.studies.report_nearness import NEAR, Arrivals, Race, arrivals_of, races
from hindsight.studies.report_parts import FEW, Part, capitalized, estimate, mean
from hindsight.studies.report_sample import SAMPLE_WORDS, Sample, sample_of, warning_below

CALIBRATED_PERCENT = 2.0
"""A model is calibrated whose loss is no further from the floor."""
COLUMNS = {
    "name": "group",
    "order": "order",
    "seeds": "seeds",
    "loss": "loss (nats/token)",
    "floor": "floor (nats/token)",
    "percent": "above the floor (%), 95% interval",
    "sample": "sample error (%)",
    "documents": "held-out documents",
}
NULL_COLUMNS = {
    "name": "null",
    "contains": "95% interval contains 0",
    "interval": "gap of backward (nats/token)",
    "seeds": "seeds",
}
CALIBRATION_COLUMNS = {
    "name": "calibration",
    "within": "within 2% in every order",
    "furthest": "furthest from the floor (%)",
    "order": "in order",
}
NEAR_COLUMNS = {
    "near": "tokens to within {:.0%}",
    "n_near": "seeds within {:.0%}",
    "sooner": "sooner within {:.0%}, by seed",
}
POSITIVE_COLUMNS = {"name": "positive", "order": "order"}
POSITIVE_COLUMNS |= {f"{key}{share}": heading.format(share) for share in NEAR for key, heading in NEAR_COLUMNS.items()}
TEXT = {"name": "wide", "order": "", **{f"sooner{share}": "" for share in NEAR}}
NULL, CALIBRATION, POSITIVE = "null", "calibration", "positive"


@dataclass(frozen=True)
class Measured:
    """What runs of one language and order have reached."""

    family: Family
    order: str
    floor: float
    losses: dict[int, float]
    """By seed, nats per token."""
    above: TTest | None
    """(loss - floor) / floor over seeds."""
    arrivals: dict[float, Arrivals]
    """When its runs came near the floor, by each share of NEAR."""
    sample: Sample
    """What it is evaluated on."""

    @property
    def is_calibrated(self) -> bool | None:
        """Whether the mean is within CALIBRATED_PERCENT; None without a run that is done."""
        return None if self.above is None else abs(100 * self.above.mean) <= CALIBRATED_PERCENT

    @property
    def warning(self) -> str | None:
        """Warning of losses below the floor: of the interval over seeds, or of all runs where there is none."""
        if self.above is None:
            return None
        is_interval = self.above.interval is not None
        highest = self.above.interval[1] if self.above.interval else max(self.losses.values()) / self.floor - 1
        what = "the whole interval over seeds" if is_interval else "the loss of every run"
        return warning_below(f"{self.family.name}, {self.order}", 100 * highest, what, self.sample)


def floors_section(groups: StudyGroups) -> Part:
    """Hold losses beside the floors of their languages."""
    families = [each for each in groups.families if floor_of(groups, each) and each.axes["corpus"] not in groups.turned]
    measured = {family.name: _measured(groups, family) for family in families}
    if not any(measured.values()):
        return Part([Text("No run of a language whose floor is known has been evaluated yet.")])
    part = Part([Text(_intro())])
    shown_families = [family for family in families if measured[family.name]]
    looks = looks_of(groups.orders)
    caption = (
        "How far the validation loss is above the floor, in % of it, over training; a line for each seed. The dashed "
        f"grey lines are {' and '.join(f'{share:.0%}' for share in NEAR)} above."
    )
    with styled():
        drawings = draw_panels(
            shown_families,
            lambda axes, family: draw_above(axes, family, looks, floor_of(groups, family) or 1.0, NEAR),
            "floors",
            caption,
            "training tokens",
            "loss above the floor (%)",
            is_y_shared=True,
        )
        lay_out(drawings)
    rows = [_row(each) for family in shown_families for each in measured[family.name]]
    warnings = [each.warning for family in shown_families for each in measured[family.name]]
    part.blocks += [Text(warning, "warning") for warning in warnings if warning]
    part.blocks += [Figures(drawings), Table(COLUMNS, rows, TEXT), Text(SAMPLE_WORDS, "note")]
    if any(each.above and not each.above.interval for of in measured.values() for each in of):
        part.blocks.append(Text(FEW))
    part.headline, part.counts = _counted(groups, measured, shown_families)
    part.tables = _tables(groups, measured, shown_families)
    languages = dict.fromkeys(str(family.axes.get("corpus")) for family in shown_families)
    part.blocks.append(Text("How each floor is derived:"))
    part.blocks.append(Bullets([(name, str(groups.result.floors[name].get("derivation") or "")) for name in languages]))
    return part


def floor_of(groups: StudyGroups, family: Family) -> float | None:
    """Give the floor of a family's language in nats per token; None where it is none, or 0."""
    return groups.result.floors.get(str(family.axes.get("corpus")), {}).get("nats_per_token") or None


def _intro() -> str:
    return (
        "The text of each of these languages has a floor, its entropy in nats per token, below which no loss can lie "
        "in the long run. By the chain rule it is the same in every order: what may differ is what a model has learned "
        f"within its budget. Calibration: the loss at the end is within {CALIBRATED_PERCENT:g}% of the floor. Null: "
        "neither direction is harder, which says nothing of other orders. Tokens to within 5% or 25% are those at the "
        "first evaluation that near, the mean over seeds; there is none where a run never came near. Which order is "
        "sooner is counted seed by seed: a run that never came near is later than one that did."
    )


def _measured(groups: StudyGroups, family: Family) -> list[Measured]:
    floor = floor_of(groups, family) or 1.0
    sample = sample_of(family, groups.result.floors[str(family.axes["corpus"])])
    found: list[Measured] = []
    for order in groups.orders:
        runs = {seed: run for seed, run in sorted(family.runs.get(order, {}).items()) if run.evaluations}
        losses = family.losses(order)
        above = inference.paired_t(np.array([*losses.values()]) / floor - 1) if losses else None
        arrivals = {share: arrivals_of(order, runs, (1 + share) * floor) for share in NEAR}
        if runs:
            found.append(Measured(family, order, floor, losses, above, arrivals, sample))
    return found


def _row(each: Measured) -> dict[str, Any]:
    above = each.above
    interval = [100 * end for end in above.interval] if above and above.interval else None
    return {
        "name": each.family.name,
        "order": each.order,
        "seeds": len(each.losses),
        "loss": mean([*each.losses.values()]),
        "floor": each.floor,
        "percent": None if above is None else estimate(100 * above.mean, interval),
        "sample": None if each.sample.percent is None else f"{each.sample.percent:.2g}",
        "documents": each.sample.documents,
    }


def _tables(groups: StudyGroups, measured: Mapping[str, list[Measured]], families: list[Family]) -> list[Block]:
    """Give a table for each thing that languages are asked for: nulls, calibrations, positives."""
    nulls = [
        _null_row(gap)
        for family in families
        if _is(groups, family, NULL)
        for gap in _gaps_of_directions(groups, family)
    ]
    calibrations = [_calibration_row(measured[each.name]) for each in families if _is(groups, each, CALIBRATION)]
    positives = [row for each in _positives(groups, measured, families) for row in _positive_rows(each)]
    tables = ((NULL_COLUMNS, nulls), (CALIBRATION_COLUMNS, calibrations), (POSITIVE_COLUMNS, positives))
    return [Table(columns, rows, TEXT) for columns, rows in tables if rows]


def _null_row(gap: Gap) -> dict[str, Any]:
    interval = gap.interval_nats
    return {
        "name": gap.family.name,
        "seeds": len(gap.found["seeds"]),
        "interval": estimate(gap.found["gap"]["mean_nats"], interval, least=4),
        "contains": "too few seeds" if interval is None else interval[0] <= 0 <= interval[1],
    }


def _calibration_row(measured: list[Measured]) -> dict[str, Any]:
    row = {"name": measured[0].family.name, "furthest": None, "order": None, "within": _is_within(measured)}
    known = [(100 * each.above.mean, each.order) for each in measured if each.above is not None]
    if known:
        furthest, order = max(known, key=lambda of: abs(of[0]))
        row |= {"furthest": f"{furthest:+.2f}".replace("-", "\u2212"), "order": order}
    return row


def _is_within(measured: Sequence[Measured]) -> bool | None:
    """Whether all orders of a language are calibrated; None if those with runs that are done are, and one has none."""
    each_order = [each.is_calibrated for each in measured]
    return False if False in each_order else None if None in each_order else True


def _positives(
    groups: StudyGroups, measured: Mapping[str, list[Measured]], families: list[Family]
) -> list[list[Measured]]:
    return [measured[family.name] for family in families if _is(groups, family, POSITIVE)]


def _positive_rows(measured: list[Measured]) -> list[dict[str, Any]]:
    """Say after how many tokens each order came near the floor, and beside it whether forward was sooner."""
    found = {share: {race.other: race for race in _races([measured], share)} for share in NEAR}
    rows: list[dict[str, Any]] = []
    for each in measured:
        row: dict[str, Any] = {"name": each.family.name, "order": each.order}
        for share, of in each.arrivals.items():
            row[f"near{share}"] = None if of.mean is None else round(of.mean)
            row[f"n_near{share}"] = f"{len(of.near)} of {len(of.tokens)}"
            row[f"sooner{share}"] = found[share][each.order].short if each.order in found[share] else None
        rows.append(row)
    return rows


def _races(found: Sequence[Sequence[Measured]], share: float) -> list[Race]:
    return races([[each.arrivals[share] for each in of] for of in found])


def _counted(
    groups: StudyGroups, measured: Mapping[str, list[Measured]], families: list[Family]
) -> tuple[str, list[tuple[str, str]]]:
    """Count calibrations at their floor, nulls without a gap and positives with one, and which order is sooner.

    Returns:
        A headline, and the counts.
    """
    short: list[str] = []
    counts: list[str] = []
    within = [_is_within(measured[family.name]) for family in families if _is(groups, family, CALIBRATION)]
    if within:
        n = f"{within.count(True)} of {len(within)}"
        short.append(f"{n} calibrations reach their floors")
        counts.append(f"Within {CALIBRATED_PERCENT:g}% of the floor in every order, where that is asked for: {n}.")
    if signs := _signs(groups, families, NULL):
        n, too_few = f"{signs.count(0)} of {len(signs)}", _too_few(signs)
        short.append(f"{n} nulls{too_few} show no gap")
        counts.append(f"Nulls whose 95% interval of the gap contains 0: {n}{too_few}.")
    if signs := _signs(groups, families, POSITIVE):
        n, too_few = f"{signs.count(1)} of {len(signs)}", _too_few(signs)
        short.append(f"{BACKWARD} is harder in {n} positives{too_few}")
        counts.append(f"Positives in which {BACKWARD} is harder, by the 95% interval of the gap: {n}{too_few}.")
    positives = _positives(groups, measured, families)
    what = "seeds" if len(positives) == 1 else "pairs of runs"
    for share in NEAR:
        if said := "; ".join(each.said(what) for each in _races(positives, share)):
            counts.append(f"To within {share:.0%} of the floor: {said}.")
    headline = " and ".join([", ".join(short[:-1]), short[-1]] if len(short) > 1 else short)
    return f"{capitalized(headline)}." if headline else "", [("", said) for said in counts]


def _signs(groups: StudyGroups, families: Sequence[Family], role: str) -> list[int | None]:
    """Give the sign of each gap between the directions of languages of a role; None with too few seeds."""
    of_role = [family for family in families if _is(groups, family, role)]
    return [sign_of(gap.interval_nats) for family in of_role for gap in _gaps_of_directions(groups, family)]


def _too_few(signs: Sequence[int | None]) -> str:
    return f" (too few seeds in {signs.count(None)})" if None in signs else ""


def _is(groups: StudyGroups, family: Family, role: str) -> bool:
    """Whether a language has a role; one may have several."""
    about = groups.result.floors[str(family.axes.get("corpus"))]
    return about.get("role") == role or bool(about.get(f"is_{role}"))


def _gaps_of_directions(groups: StudyGroups, family: Family) -> list[Gap]:
    """The gaps of backward against forward: that a text and its reverse are alike says nothing of other orders."""
    return [
        gap
        for gap in groups.gaps
        if gap.family is family and (gap.found["reference"], gap.order) == (FORWARD, BACKWARD)
    ]
