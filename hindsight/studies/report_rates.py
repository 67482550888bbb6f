"""Section of a study's report: the learning rate of each order, and the gap at the same rate and best against best."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hindsight.analysis.figure_style import lay_out, styled
from hindsight.analysis.inference import FEWEST_SEEDS
from hindsight.analysis.page import Block, Figures, Table, Text
from hindsight.analysis.verdict import short_tally, sign_of, tally
from hindsight.runs import is_number
from hindsight.studies.report_figures import draw_panels, draw_rates, looks_of
from hindsight.studies.report_groups import FORWARD, NOT_FAMILY, Family, StudyGroups, names_of, order_of
from hindsight.studies.report_parts import FEW, Part, capitalized, compared, corrected, estimate, percents, said_of_gap
from hindsight.studies.results import RunResult
from hindsight.studies.study_checks import BEST, SAME

RATE = "optim.lr"
BEST_AGAINST_BEST = "best against best"
COLUMNS = {
    "name": "group",
    "which": "gap",
    "reference_rate": "rate of the reference",
    "order_rate": "rate of the order",
    "seeds": "seeds",
    "nats": "gap (nats/token), 95% interval",
    "percent": "gap (%), 95% interval",
}
RATE_COLUMNS = {
    "name": "group",
    "order": "order",
    "rate": "learning rate",
    "seeds": "seeds",
    "loss": "loss (nats/token)",
}
RATE_COLUMNS |= {"is_best": "best"}
TEXT = {"name": "wide", "which": "", "order": ""}
CHOSEN_HERE = "The best rates were chosen by the losses shown here, those of the same seeds and of either order alike."
AT_THE_END = "at the end of those that were tried; a better one may lie beyond."
AT_BEST = "each at its best learning rate"
ByRate = dict[float, dict[int, float]]
"""Losses of an order by rate and seed."""


def learning_rate_section(groups: StudyGroups) -> Part:
    """Show losses by rate and order, and what becomes of the gap if each order has its best rate."""
    sweep = _by_rate([run for run in groups.result.runs if run.is_sweep])
    full = _by_rate([run for run in groups.result.runs if not run.is_sweep])
    blocks: list[Block] = []
    drawn = [(name, of) for name, of in (sweep or full).items() if max(map(len, of.values())) > 1]
    if drawn:
        blocks += _shown(groups, drawn, is_sweep=bool(sweep))
    if groups.result.rates:
        blocks += [
            Text("What the sweep has chosen, by losses on the validation text on which runs are compared:"),
            _chosen(groups),
        ]
    part = Part(blocks)
    rows = _gap_rows(groups, full, part)
    part.headline, counts = _counted(rows, short_tally), _counted(rows, tally)
    at_best = [answer for answer in part.answers if answer[0].endswith(AT_BEST)]
    if len(at_best) == 1:  # one group: its own sentence, rather than a count of groups
        part.headline = f"{capitalized(AT_BEST)}, {at_best[0][1]}"
        part.answers.remove(at_best[0])
    elif counts:
        part.counts = [("", counts)]
    if rows:
        part.blocks += [
            Text("The gap where both orders have the same learning rate, and where each has its own best."),
            Table(COLUMNS, rows, TEXT),
        ]
        if min(row["seeds"] for row in rows) < FEWEST_SEEDS:
            part.blocks.append(Text(FEW))
        if not sweep and drawn:
            part.blocks.append(Text(CHOSEN_HERE, "note"))
    if not part.blocks:
        part.blocks.append(Text("No order has runs that are done at two learning rates."))
    return part


def _rate_of(run: RunResult) -> float | None:
    """The rate that a run was trained at."""
    for value in (run.settings.get(RATE), run.axes.get(RATE)):
        if is_number(value):
            return float(value)
    return None


def _by_rate(runs: Sequence[RunResult]) -> dict[str, dict[str, ByRate]]:
    """Losses of runs that are done, by their other axes, order, rate and seed."""
    done = [(run, rate) for run in runs if (rate := _rate_of(run)) is not None and run.loss_nats is not None]
    others = [{k: v for k, v in run.axes.items() if k not in (RATE, *NOT_FAMILY)} for run, _ in done]
    found: dict[str, dict[str, ByRate]] = {}
    for (run, rate), name in zip(done, names_of(others), strict=True):
        by_seed = found.setdefault(name, {}).setdefault(order_of(run), {}).setdefault(rate, {})
        by_seed[run.axes.get("seed", 0)] = run.loss_nats or 0.0
    return found


def _shown(groups: StudyGroups, drawn: Sequence[tuple[str, dict[str, ByRate]]], is_sweep: bool) -> list[Block]:
    """Draw losses by rate, and list them."""
    best = {name: {order: _best_of(by_rate) for order, by_rate in of.items()} for name, of in drawn}
    panels = {
        name: {order: {rate: [*by.values()] for rate, by in r.items()} for order, r in of.items()} for name, of in drawn
    }
    looks = looks_of([*dict.fromkeys([*groups.orders, *(order for _, of in drawn for order in of)])])
    runs = "runs of the sweep, on its short budget" if is_sweep else "runs at the end"
    caption = (
        f"Validation loss of the {runs} by learning rate: seeds, and their mean. A ring marks the best of each order."
    )
    with styled():
        drawings = draw_panels(
            [Family({}, name) for name, _ in drawn],
            lambda axes, family: draw_rates(axes, panels[family.name], best[family.name], looks),
            "learning_rate",
            caption,
            "learning rate",
            "loss (nats/token)",
        )
        lay_out(drawings)
    rows = [
        {"name": name, "order": order, "rate": f"{rate:g}", "seeds": len(by_seed)}
        | {"loss": float(np.mean([*by_seed.values()])), "is_best": rate == best[name][order]}
        for name, of in drawn
        for order, by_rate in of.items()
        for rate, by_seed in sorted(by_rate.items())
    ]
    edges = [
        Text(f"{name}: the best rate of {order} is {rate:g}, {AT_THE_END}", "warning")
        for name, of in best.items()
        for order, rate in of.items()
        if rate in (min(panels[name][order]), max(panels[name][order])) and len(panels[name][order]) > 1
    ]
    return [Figures(drawings), *edges, Table(RATE_COLUMNS, rows, TEXT, "Table: the loss at each rate")]


def _chosen(groups: StudyGroups) -> Table:
    """Give the rates that the sweep has chosen: the best of each order, and the one for all."""
    orders = [*dict.fromkeys(order for of in groups.result.rates for order in of["best"])]
    columns = {"name": "group"} | {order: f"best of {order}" for order in orders} | {SAME: "same for all"}
    rows = [
        {"name": name, SAME: f"{of[SAME]:g}"}
        | {order: f"{of['best'][order]:g}" if order in of["best"] else None for order in orders}
        for name, of in zip(names_of([of["axes"] for of in groups.result.rates]), groups.result.rates, strict=True)
    ]
    return Table(columns, rows, {"name": "wide"})


def _best_of(by_rate: ByRate) -> float:
    """The rate with the lowest mean loss; of equal ones the lower."""
    return min(sorted(by_rate), key=lambda rate: float(np.mean([*by_rate[rate].values()])))


def _gap_rows(groups: StudyGroups, full: Mapping[str, Mapping[str, ByRate]], part: Part) -> list[dict[str, Any]]:
    words = {str(run.axes.get(RATE)) for run in groups.result.runs if not run.is_sweep} & {SAME, BEST}
    if words:
        return _rows_of_words(groups, part)
    rows: list[dict[str, Any]] = []
    for name, of in full.items():
        reference = FORWARD if FORWARD in of else next(iter(of))
        for order in of:
            rates = sorted({*of[reference]} & {*of[order]})
            if order == reference or len({*of[reference], *of[order]}) < 2:
                continue
            for rate in rates:
                rows += _row(name, "same rate", reference, order, (rate, of[reference][rate]), (rate, of[order][rate]))
            best = [(rate, of[each][rate]) for each in (reference, order) for rate in [_best_of(of[each])]]
            at_best = _row(name, BEST_AGAINST_BEST, reference, order, *best)
            rows += at_best
            part.answers += [(f"{name}, {AT_BEST}", row["said"]) for row in at_best]
    return rows


def _rows_of_words(groups: StudyGroups, part: Part) -> list[dict[str, Any]]:
    """Rows of runs whose rates are the same, or the best of each order, as the sweep found them."""
    rows: list[dict[str, Any]] = []
    others = names_of([{key: value for key, value in each.axes.items() if key != RATE} for each in groups.families])
    for family, name in zip(groups.families, others, strict=True):
        which = str(family.axes.get(RATE))
        reference = FORWARD if FORWARD in family.runs else next(iter(family.runs))
        for order in family.runs:
            if order != reference:
                both = [(_rate_in(family, each), family.losses(each)) for each in (reference, order)]
                said = BEST_AGAINST_BEST if which == BEST else "same rate"
                row = _row(name, said, reference, order, *both)
                rows += row
                at = AT_BEST if which == BEST else "at the same learning rate"
                part.answers += [(f"{name}, {at}", each["said"]) for each in row]
    return rows


def _rate_in(family: Family, order: str) -> float | None:
    return next((rate for run in family.runs[order].values() if (rate := _rate_of(run)) is not None), None)


RateAndLosses = tuple[float | None, dict[int, float]]


def _row(
    name: str, which: str, reference: str, order: str, of_reference: RateAndLosses, of_order: RateAndLosses
) -> list[dict[str, Any]]:
    """A row of the table of gaps, with what is said of it; none where no seed has both orders."""
    tests = compared(of_reference[1], of_order[1])
    if tests is None:
        return []
    value, interval = percents(tests[1])
    rates = [None if rate is None else f"{rate:g}" for rate in (of_reference[0], of_order[0])]
    n_seeds = len({*of_reference[1]} & {*of_order[1]})
    return [
        {
            "name": name,
            "which": f"{order} against {reference}, {which}",
            "reference_rate": rates[0],
            "order_rate": rates[1],
            "seeds": n_seeds,
            "nats": estimate(tests[0].mean, tests[0].interval, least=4),
            "percent": estimate(value, interval),
            "order": order,
            "interval": interval,
            "p": tests[1].p,
            "said": said_of_gap(order, reference, tests[1], n_seeds),
        }
    ]


def _counted(rows: Sequence[Mapping[str, Any]], count: Callable[..., str]) -> str:
    """Count the groups in which an order is harder where each has its best rate, by the intervals over seeds.

    Args:
        rows: of the table of gaps.
        count: how, as `tally` or `short_tally`.
    """
    best = [row for row in rows if row["which"].endswith(BEST_AGAINST_BEST)]
    if not best:
        return ""
    signs = [sign_of(row["interval"]) for row in best]
    said = count([row["order"] for row in best], signs, corrected([row["p"] for row in best], signs))
    return f"{capitalized(AT_BEST)}, {said}"
