"""Section of a study's report: the learning rate of each order, and the gap at the same rate and best against best."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hindsight.analysis.figure_style import lay_out, styled
from hindsight.analysis.inference import FEWEST_SEEDS
from hindsight.analysis.page import Block, Figures, Table, Text
from hindsight.analysis.verdict import SIGNIFICANT_P, short_tally, sign_of, tally
from hindsight.runs import is_number
from hindsight.studies.report_figures import draw_panels, draw_rates, looks_of
from hindsight.studies.report_groups import FORWARD, NOT_FAMILY, Family, StudyGroups, names_of, order_of
from hindsight.studies.report_parts import FEW, Part, capitalized, compared, corrected, estimate, percents, said_of_gap
from hindsight.studies.results import RunResult
from hindsight.studies.study_checks import BEST, SAME

RATE = "optim.lr"
BEST_AGAINST_BEST = "best against best"
AS_SWEPT = "as the sweep chose"
COLUMNS = {
    "name": "group",
    "which": "gap",
    "reference_rate": "rate of the reference",
    "order_rate": "rate of the order",
    "seeds": "seeds",
    "nats": "gap (nats/token), 95% interval",
    "percent": "gap (%), 95% interval",
    "p_holm": "p (Holm)",
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
AT_SAME = "at the same learning rate"
HOLM = (
    "p (Holm): corrected for as many tests as this table has of different runs. Where orders have different rates, "
    "they are compared here alone, not in the section of gaps."
)
ByRate = dict[float, dict[int, float]]
"""Losses of an order by rate and seed."""
RateAndLosses = tuple[float | None, dict[int, float]]
"""A rate, and losses by seed."""


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
    _correct(rows)
    part.headline, counts = _counted(rows, short_tally), _counted(rows, tally)
    part.answers = [(row["answers"], _said(row)) for row in rows if row["answers"]]
    at_best = [answer for answer in part.answers if answer[0].endswith(AT_BEST)]
    if len(at_best) == 1:  # one group: its own sentence, rather than a count of groups
        part.headline = f"{capitalized(AT_BEST)}, {at_best[0][1]}"
        part.answers.remove(at_best[0])
    elif counts:
        part.counts = [("", counts)]
    if rows:
        part.blocks += [
            Text("The gap where both orders have the same learning rate, and where each has its own best."),
            Table(COLUMNS, [row | {"p_holm": _shown_p(row)} for row in rows], TEXT),
            Text(HOLM, "note"),
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
            rows += _row(name, BEST_AGAINST_BEST, reference, order, best[0], best[1], answers=AT_BEST)
    return rows


def _rows_of_words(groups: StudyGroups, part: Part) -> list[dict[str, Any]]:
    """Rows of runs whose rates are the same, or the best of each order, as the sweep found them.

    Where another rate is better at full length than the one that the sweep chose, best against best is of that one.
    """
    rows: list[dict[str, Any]] = []
    others = names_of([{key: value for key, value in each.axes.items() if key != RATE} for each in groups.families])
    for family, name in zip(groups.families, others, strict=True):
        reference = FORWARD if FORWARD in family.runs else next(iter(family.runs))
        for order in family.runs:
            if order == reference:
                continue
            chosen = [(_rate_in(family, each), family.losses(each)) for each in (reference, order)]
            if str(family.axes.get(RATE)) != BEST:
                rows += _row(name, "same rate", reference, order, chosen[0], chosen[1], answers=AT_SAME)
                continue
            best = [
                _best_at_full_length(groups, family, each) or of
                for each, of in zip((reference, order), chosen, strict=True)
            ]
            if best != chosen:
                part.blocks += [
                    Text(_not_best(name, each, of, better), "warning")
                    for each, of, better in zip((reference, order), chosen, best, strict=True)
                    if of != better
                ]
                rows += _row(name, AS_SWEPT, reference, order, chosen[0], chosen[1])
            rows += _row(name, BEST_AGAINST_BEST, reference, order, best[0], best[1], answers=AT_BEST)
    return rows


def _best_at_full_length(groups: StudyGroups, family: Family, order: str) -> RateAndLosses | None:
    """Give the rate of an order at which the study's own runs, of the same seeds, end lowest; None without runs."""
    seeds = {*family.losses(order)}

    def others(axes: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in axes.items() if key != RATE}

    alike = [each for each in groups.families if others(each.axes) == others(family.axes)]
    of = next(iter(_by_rate([run for each in alike for run in each.runs.get(order, {}).values()]).values()), {})
    losses = of.get(order, {}).items()
    tried = {rate: {seed: by[seed] for seed in sorted(seeds)} for rate, by in losses if seeds <= {*by}}
    if not seeds or not tried:
        return None
    rate = _best_of(tried)
    return rate, tried[rate]


def _not_best(name: str, order: str, chosen: RateAndLosses, better: RateAndLosses) -> str:
    at, better_at = (f"{rate:g} ({np.mean([*losses.values()]):.4f})" for rate, losses in (chosen, better))
    return (
        f"{name}: at full length {order} ends lower at {better_at} than at {at}, which the sweep chose (mean over the "
        "same seeds, nats/token). Best against best is of the former; a longer sweep chooses better."
    )


def _rate_in(family: Family, order: str) -> float | None:
    return next((rate for run in family.runs.get(order, {}).values() if (rate := _rate_of(run)) is not None), None)


def _row(
    name: str,
    which: str,
    reference: str,
    order: str,
    of_reference: RateAndLosses,
    of_order: RateAndLosses,
    answers: str = "",
) -> list[dict[str, Any]]:
    """A row of the table of gaps, with what is said of it; none where no seed has both orders.

    Args:
        name: of the group.
        which: kind of gap.
        reference: the order that is compared with.
        order: the order that is compared.
        of_reference: rate and losses by seed.
        of_order: the same.
        answers: of what the row is an answer of the report; empty if of nothing.
    """
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
            "answers": f"{name}, {answers}" if answers else "",
            "runs": (name, order, *rates),
        }
    ]


def _correct(rows: Sequence[dict[str, Any]]) -> None:
    """Add p values, corrected by Holm for all rows; rows of the same runs are one test."""
    tests = {row["runs"]: row for row in rows}
    p_holm = corrected([row["p"] for row in tests.values()], [sign_of(row["interval"]) for row in tests.values()])
    by_runs = dict(zip(tests, p_holm, strict=True))
    for row in rows:
        row["p_holm"], row["tests"] = by_runs[row["runs"]], len(tests)


def _shown_p(row: Mapping[str, Any]) -> str | None:
    return None if row["p_holm"] is None else f"{row['p_holm']:.2g}"


def _said(row: Mapping[str, Any]) -> str:
    """What is said of a gap, with what Holm's correction leaves of it."""
    is_lost = sign_of(row["interval"]) and row["p_holm"] is not None and row["p_holm"] >= SIGNIFICANT_P
    lost = f", though not after Holm's correction for {row['tests']} tests." if is_lost else "."
    return row["said"].removesuffix(".") + lost


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
    said = count([row["order"] for row in best], signs, [row["p_holm"] for row in best])
    return f"{capitalized(AT_BEST)}, {said}"
