"""The figures of a comparison: of a group of runs, and of all groups together.

Each is drawn once, as a matplotlib Figure, and stored by `figure_style` in every format. Matplotlib is imported only
where something is drawn. A `group` is one of comparison.json.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from hindsight.analysis.figure_style import (
    GAP,
    GAP_LABEL,
    INK,
    ORDER,
    REFERENCE,
    Drawing,
    banded,
    lay_out,
    new_figure,
    scale_to_the_end,
    styled,
    thinned,
)
from hindsight.analysis.gap_figures import GapPoint, draw_against, null_of
from hindsight.runs import EVAL_LOSS

Group = Mapping[str, Any]
Runs = Mapping[tuple[str, str], Mapping[str, Any]]
"""The runs of comparison.json by folder and order: one of both orders is there twice."""


def draw_group(group: Group, runs: Runs) -> list[Drawing]:
    """Draw the gaps over seeds beside the null, and over training.

    Args:
        group: one of comparison.json.
        runs: all runs, by folder and order.
    """
    with styled():
        drawings = [drawing for drawing in (_seeds(group), _curves(group, runs)) if drawing is not None]
        lay_out(drawings)
    return drawings


def draw_across(groups: Sequence[Group], runs: Runs) -> list[Drawing]:
    """Draw gaps against the size of the model and its context, as far as groups differ in these.

    The groups are those that compare the same two orders as the first, by a vocabulary of the same size.
    """

    def kind_of(group: Group) -> list[Any]:
        first = runs_of(group, group["reference"], runs)[0]
        return [group["reference"], group["order"], group["is_both"], first["metadata"].get("vocab_size")]

    groups = [group for group in groups if kind_of(group) == kind_of(groups[0])]
    axes_of_groups = [
        ("size", "parameters", "the size of the model", lambda run: run["metadata"].get("n_parameters")),
        (
            "context_length",
            "context (tokens)",
            "the length of the context",
            lambda run: run["config"].get("data.context_length"),
        ),
    ]
    drawings: list[Drawing] = []
    with styled():
        for name, label, what, value_of in axes_of_groups:
            values = [value_of(next(iter(runs_of(group, group["reference"], runs)))) for group in groups]
            if len({*values} - {None}) > 1:
                drawings.append(_against(groups, values, name, label, what))
        lay_out(drawings)
    return drawings


def runs_of(group: Group, order: str, runs: Runs) -> list[Mapping[str, Any]]:
    """Give the runs of one order of a group, by their seeds."""
    return [runs[folder, order] for folder in group["runs"][order].values()]


def _seeds(group: Group) -> Drawing:
    """Draw the gap of each seed beside the differences between seeds of one order: the null."""
    figure = new_figure(2.4)
    axes = figure.subplots()
    rows: list[str] = []
    for order, color in ((group["order"], ORDER), (group["reference"], REFERENCE)):
        losses = [*group["losses_nats"][order].values()]
        differences = [sign * (a - b) for a, b in combinations(losses, 2) for sign in (1, -1)]
        axes.plot(differences, [len(rows)] * len(differences), "|", color=color, markersize=12, markeredgewidth=1.6)
        rows.append(f"{order}, seed\nagainst seed")
    gap = group["gap"]
    gaps = gap["per_seed_nats"]
    axes.plot(gaps, [len(rows)] * len(gaps), "o", color=GAP, alpha=0.85)
    interval = gap["paired_interval_nats"] or gap["welch_interval_nats"]
    y = len(rows) + 0.32
    if interval is not None:
        axes.plot(interval, [y, y], "-", color=GAP, linewidth=2.4)
    axes.plot(gap["mean_nats"], y, "D", color=GAP, markersize=6)
    rows.append(f"{group['order']} \u2212\n{group['reference']}")
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set(yticks=range(len(rows)), yticklabels=rows, ylim=(-0.5, len(rows) - 0.3), xlabel="difference (nats/token)")
    axes.grid(visible=False, axis="y")
    axes.locator_params(axis="x", nbins=6)
    shown = "a point for each seed, and their mean with its 95% interval"
    shown = shown if interval is not None else "a point for each seed, and their mean"
    caption = f"The gap: {shown}. Below it the null: how far runs lie apart that differ in nothing but the seed."
    return Drawing("seeds", caption, figure)


def _curves(group: Group, runs: Runs) -> Drawing | None:
    """Draw validation losses over training, and the gap, each with a band over seeds."""
    from matplotlib.ticker import EngFormatter

    curves = {order: [*map(_loss_curve, runs_of(group, order, runs))] for order in group["runs"]}
    steps = sorted(set.intersection(*({*curve} for of in curves.values() for curve in of)))
    if not steps:
        return None
    steps = thinned(steps)
    # Short windows come at other steps with another seed: of the same step, the tokens differ by a few.
    first = runs_of(group, group["reference"], runs)[0]["evaluations"]
    tokens_of = {line["step"]: line["tokens"] for line in first}
    x = [tokens_of[step] for step in steps]
    figure = new_figure(4.2)
    losses, gaps = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    loss_of = {order: np.array([[curve[step] for step in steps] for curve in of]) for order, of in curves.items()}
    for order, color, dashes in ((group["reference"], REFERENCE, "-"), (group["order"], ORDER, "--")):
        banded(losses, x, loss_of[order], color, dashes, order)
    of_order, of_reference = (_compared(group, each, loss_of[each]) for each in (group["order"], group["reference"]))
    # Runs that are not paired have no gap each, and so no band.
    gaps_SX = of_order - of_reference if group["is_paired"] else [of_order.mean(0) - of_reference.mean(0)]
    banded(gaps, x, np.array(gaps_SX), GAP, "-", "")
    gaps.axhline(0, color=INK, linewidth=0.8)
    scale_to_the_end(losses, np.concatenate([*loss_of.values()]))
    losses.set(ylabel="loss (nats/token)")
    losses.legend()
    gaps.set(xlabel="training tokens", ylabel=GAP_LABEL)
    gaps.xaxis.set_major_formatter(EngFormatter(sep=""))
    band = " Bands: \u00b1 one standard deviation over seeds." if max(map(len, loss_of.values())) > 1 else ""
    return Drawing("curves", f"Validation loss over training, and the gap between the orders.{band}", figure)


def _compared(group: Group, order: str, values_SX: Any) -> Any:
    """Of the curves of an order, give those that the gap is computed from: of pairs, those of the shared seeds."""
    if not group["is_paired"]:
        return values_SX
    return values_SX[[[*group["runs"][order]].index(str(seed)) for seed in group["seeds"]]]


def _loss_curve(run: Mapping[str, Any]) -> dict[int, float]:
    """Map steps to validation loss."""
    return {line["step"]: line[EVAL_LOSS] for line in run["evaluations"] if line.get(EVAL_LOSS) is not None}


def _against(groups: Sequence[Group], values: Sequence[Any], name: str, label: str, what: str) -> Drawing:
    """Draw the relative gap of each group against what the groups differ in, and the null around 0."""
    points = [
        GapPoint(value, group["gap"]["relative_percent"], group["gap"]["relative_interval_percent"], null_of(group))
        for value, group in zip(values, groups, strict=True)
        if value is not None
    ]
    return draw_against({"": points}, f"gap_against_{name}", label, f"The gap of each group against {what}.")
