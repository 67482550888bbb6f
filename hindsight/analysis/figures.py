"""The figures of a comparison: of a group of runs, and of all groups together.

Each is drawn once, as a matplotlib Figure, and stored by `figure_style` in every format. Matplotlib is imported only
where something is drawn. A `group` is one of comparison.json.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from hindsight.analysis.figure_style import (
    GAP,
    GAP_LABEL,
    INK,
    MUTED,
    ORDER,
    REFERENCE,
    Drawing,
    lay_out,
    new_figure,
    styled,
)
from hindsight.runs import EVAL_LOSS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Group = Mapping[str, Any]
Runs = Mapping[tuple[str, str], Mapping[str, Any]]
"""The runs of comparison.json by folder and order: one of both orders is there twice."""
MOST_POINTS = 200
"""Evaluations of a curve that are drawn."""


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
    steps = [steps[i] for i in np.unique(np.linspace(0, len(steps) - 1, MOST_POINTS).astype(int))]
    # Short windows come at other steps with another seed: of the same step, the tokens differ by a few.
    first = runs_of(group, group["reference"], runs)[0]["evaluations"]
    tokens_of = {line["step"]: line["tokens"] for line in first}
    x = [tokens_of[step] for step in steps]
    figure = new_figure(4.2)
    losses, gaps = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    loss_of = {order: np.array([[curve[step] for step in steps] for curve in of]) for order, of in curves.items()}
    for order, color, dashes in ((group["reference"], REFERENCE, "-"), (group["order"], ORDER, "--")):
        _banded(losses, x, loss_of[order], color, dashes, order)
    of_order, of_reference = (_compared(group, each, loss_of[each]) for each in (group["order"], group["reference"]))
    # Runs that are not paired have no gap each, and so no band.
    gaps_SX = of_order - of_reference if group["is_paired"] else [of_order.mean(0) - of_reference.mean(0)]
    _banded(gaps, x, np.array(gaps_SX), GAP, "-", "")
    gaps.axhline(0, color=INK, linewidth=0.8)
    _scale_to_the_end(losses, np.concatenate([*loss_of.values()]))
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


def _banded(axes: "Axes", x: Sequence[float], values_SX: Any, color: str, dashes: str, label: str) -> None:
    mean_X = values_SX.mean(0)
    axes.plot(x, mean_X, dashes, color=color, label=label, marker="o" if len(x) == 1 else None)
    if len(values_SX) > 1:
        std_X = values_SX.std(0, ddof=1)
        axes.fill_between(x, mean_X - std_X, mean_X + std_X, color=color, alpha=0.25, linewidth=0)


def _scale_to_the_end(axes: "Axes", values: Any) -> None:
    """Let the first evaluations leave the axes where they would hide what comes later."""
    low, late = float(np.nanmin(values)), float(np.nanmax(values[:, values.shape[1] // 10 :]))
    if late > low:
        axes.set_ylim(low - 0.06 * (late - low), late + 0.06 * (late - low))


def _against(groups: Sequence[Group], values: Sequence[Any], name: str, label: str, what: str) -> Drawing:
    """Draw the relative gap of each group against what the groups differ in, and the null below it."""
    from matplotlib.ticker import EngFormatter

    figure = new_figure(2.8)
    axes = figure.subplots()
    points = sorted(((v, g) for v, g in zip(values, groups, strict=True) if v is not None), key=lambda point: point[0])
    x = [value for value, _ in points]
    percent = np.array([group["gap"]["relative_percent"] for _, group in points])
    intervals = [
        group["gap"]["relative_interval_percent"] or [p, p] for p, (_, group) in zip(percent, points, strict=True)
    ]
    errors = np.abs(np.array(intervals).T - percent)
    axes.errorbar(x, percent, errors, fmt="o", color=GAP, elinewidth=1.6, label="gap, 95% interval over seeds")
    nulls = [(value, group["null"]["mean_absolute_percent"]) for value, group in points if group["null"]]
    if nulls:
        axes.plot(
            *zip(*nulls, strict=True), "_", color=MUTED, markersize=14, markeredgewidth=2, label="null: other seeds"
        )
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_xscale("log")
    axes.set(xlabel=label, ylabel="gap (%)")
    axes.set_xticks(sorted({*x}), minor=False)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.minorticks_off()
    axes.margins(x=0.12)
    axes.legend()
    return Drawing(f"gap_against_{name}", f"The gap of each group against {what}.", figure)
