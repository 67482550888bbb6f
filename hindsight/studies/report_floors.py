"""Section of a study's report: synthetic languages, whose loss can be no lower than a floor that is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hindsight.analysis import inference
from hindsight.analysis.figure_style import lay_out, styled
from hindsight.analysis.inference import TTest
from hindsight.analysis.page import Bullets, Figures, Table, Text
from hindsight.studies.report_figures import draw_above, draw_panels, looks_of
from hindsight.studies.report_groups import BACKWARD, FORWARD, Family, Gap, StudyGroups
from hindsight.studies.report_nearness import NEAR, Arrivals, arrivals_of, races
from hindsight.studies.report_parts import FEW, Part, estimate, mean, percent
from hindsight.studies.report_sample import SAMPLE_WORDS, Sample, sample_of, warning_below

CALIBRATED_PERCENT = 2.0
"""A model is calibrated whose loss is no further from the floor."""
COLUMNS = {
    "name": "group",
    "role": "role",
    "order": "order",
    "seeds": "seeds",
    "loss": "loss (nats/token)",
    "floor": "floor (nats/token)",
    "percent": "above the floor (%), 95% interval",
    "sample": "sample error (%)",
    "documents": "held-out documents",
    "within": "within 2%",
}
COLUMNS |= {f"near{share}": f"tokens to within {share:.0%}" for share in NEAR}
COLUMNS |= {f"n_near{share}": f"seeds within {share:.0%}" for share in NEAR}
TEXT = {"name": "wide", "role": "", "order": ""}
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
    rows = [_row(groups, each) for family in shown_families for each in measured[family.name]]
    warnings = [each.warning for family in shown_families for each in measured[family.name]]
    part.blocks += [Text(warning, "warning") for warning in warnings if warning]
    part.blocks += [Figures(drawings), Table(COLUMNS, rows, TEXT), Text(SAMPLE_WORDS, "note")]
    if any(each.above and not each.above.interval for of in measured.values() for each in of):
        part.blocks.append(Text(FEW))
    part.answers = _answers(groups, measured, shown_families)
    part.headline = _headline(groups, measured, shown_families)
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


def _role(groups: StudyGroups, family: Family) -> str:
    return str(groups.result.floors[str(family.axes.get("corpus"))].get("role") or "")


def _row(groups: StudyGroups, each: Measured) -> dict[str, Any]:
    above = each.above
    interval = [100 * end for end in above.interval] if above and above.interval else None
    row = {
        "name": each.family.name,
        "role": _role(groups, each.family),
        "order": each.order,
        "seeds": len(each.losses),
        "loss": mean([*each.losses.values()]),
        "floor": each.floor,
        "percent": None if above is None else estimate(100 * above.mean, interval),
        "sample": None if each.sample.percent is None else f"{each.sample.percent:.2g}",
        "documents": each.sample.documents,
        "within": each.is_calibrated if _is(groups, each.family, CALIBRATION) else None,
    }
    for share, of in each.arrivals.items():
        row[f"near{share}"] = None if of.mean is None else round(of.mean)
        row[f"n_near{share}"] = f"{len(of.near)} of {len(of.tokens)}"
    return row


def _answers(
    groups: StudyGroups, measured: Mapping[str, list[Measured]], families: list[Family]
) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for family in families:
        if _is(groups, family, CALIBRATION):
            found.append((f"{family.name} ({CALIBRATION})", _calibration(measured[family.name])))
        if _is(groups, family, NULL):
            found.append((f"{family.name} ({NULL})", _null(groups, family)))
        if _role(groups, family) == POSITIVE:
            found.append((f"{family.name} ({POSITIVE})", _speed(measured[family.name])))
    return found


def _headline(groups: StudyGroups, measured: Mapping[str, list[Measured]], families: list[Family]) -> str:
    """Count the languages that are calibrated, and the nulls whose interval contains 0."""
    said: list[str] = []
    calibrated = [
        all(each.is_calibrated for each in measured[family.name])
        for family in families
        if _is(groups, family, CALIBRATION)
    ]
    if calibrated:
        n = f"{sum(calibrated)} of {len(calibrated)}"
        said.append(f"Within {CALIBRATED_PERCENT:g}% of the floor in every order, where that is asked for: {n}.")
    gaps = [gap for family in families if _is(groups, family, NULL) for gap in _gaps_of_directions(groups, family)]
    if gaps:
        intervals = [gap.interval_nats for gap in gaps]
        known = [interval for interval in intervals if interval is not None]
        n, few = sum(low <= 0 <= high for low, high in known), len(intervals) - len(known)
        too_few = f" (too few seeds in {few})" if few else ""
        said.append(f"Nulls whose 95% interval of the gap contains 0: {n} of {len(gaps)}{too_few}.")
    positives = [of for family in families if (of := measured[family.name]) and _role(groups, family) == POSITIVE]
    return " ".join([*said, *_sooner(positives)])


def _sooner(found: Sequence[Sequence[Measured]]) -> list[str]:
    """Say for each share that is near in how many runs forward is sooner there than each other order."""
    what = "seeds" if len(found) == 1 else "pairs of runs"
    said = {
        share: [each.said(what) for each in races([[m.arrivals[share] for m in of] for of in found])] for share in NEAR
    }
    return [f"To within {share:.0%} of the floor: {'; '.join(of)}." for share, of in said.items() if of]


def _is(groups: StudyGroups, family: Family, role: str) -> bool:
    """Whether a language has a role; one may have several."""
    about = groups.result.floors[str(family.axes.get("corpus"))]
    return about.get("role") == role or bool(about.get(f"is_{role}"))


def _calibration(measured: list[Measured]) -> str:
    known = [each for each in measured if each.above is not None]
    if not known:
        return "No run is done."
    beyond = [
        f"{each.order} {percent(100 * (each.above.mean if each.above else 0))}"
        for each in known
        if not each.is_calibrated
    ]
    if beyond:
        return f"The loss is not within {CALIBRATED_PERCENT:g}% of the floor in every order: {', '.join(beyond)}."
    largest = max((100 * each.above.mean for each in known if each.above), key=abs)
    return (
        f"In every order the loss is within {CALIBRATED_PERCENT:g}% of the floor; the furthest is {percent(largest)}."
    )


def _gaps_of_directions(groups: StudyGroups, family: Family) -> list[Gap]:
    """The gaps of backward against forward: that a text and its reverse are alike says nothing of other orders."""
    return [
        gap
        for gap in groups.gaps
        if gap.family is family and (gap.found["reference"], gap.order) == (FORWARD, BACKWARD)
    ]


def _null(groups: StudyGroups, family: Family) -> str:
    """Say whether the interval of the gap between the directions contains 0."""
    gaps = _gaps_of_directions(groups, family)
    said: list[str] = []
    for gap in gaps:
        what = f"{gap.order} against {gap.found['reference']}"
        if gap.interval_nats is None:
            said.append(f"Whether the gap is 0 cannot be told of {what}: there are fewer than 3 seeds.")
            continue
        low, high = gap.interval_nats
        contains = "contains 0" if low <= 0 <= high else "does not contain 0"
        gap_nats = estimate(gap.found["gap"]["mean_nats"], gap.interval_nats, least=4)
        said.append(f"The 95% interval of the gap ({what}) {contains}: {gap_nats} nats/token.")
    return " ".join(said) or "The two directions have no runs to compare."


def _speed(measured: list[Measured]) -> str:
    """Say after how many tokens each order came near the floor, and which was sooner, seed by seed."""
    said: list[str] = []
    for share in NEAR:
        found = [each.arrivals[share] for each in measured]
        told = [", ".join(each.said for each in found), *(each.said() for each in races([found]))]
        said.append(f"Within {share:.0%} of the floor: {'; '.join(told)}.")
    return " ".join(said)
