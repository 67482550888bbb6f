"""Figures of a study: small panels, one for each family of runs, with a line for each order.

To be called while the style is on, inside `figure_style.styled()`.
"""

import itertools
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hindsight.analysis.figure_style import (
    DASHES,
    GAP,
    INK,
    MARKERS,
    MUTED,
    PALETTE,
    WIDE_INCHES,
    WIDTH_INCHES,
    Drawing,
    banded,
    legend_above,
    new_figure,
    scale_to_the_end,
    spread_out,
    thinned,
    ticks_at,
)
from hindsight.analysis.gap_figures import LABEL_WIDTH
from hindsight.studies.report_groups import Family, Gap
from hindsight.studies.results import RunResult

PANELS = 12
"""Of one figure."""
TITLE_WIDTH = 30
LINEAR_PERCENT = 1.0
"""To so far above and below the floor the axis is linear, and logarithmic beyond."""
Look = tuple[str, str, str]
"""Colour, dashes and marker of a line."""


def looks_of(orders: Sequence[str]) -> dict[str, Look]:
    """Give each order a look of its own, the same in all figures."""
    return {
        order: (
            PALETTE[i % len(PALETTE)],
            DASHES[(i + i // len(PALETTE)) % len(DASHES)],
            MARKERS[i % len(MARKERS)],
        )
        for i, order in enumerate(orders)
    }


def draw_panels(
    families: Sequence[Family],
    draw: Callable[[Any, Family], None],
    name: str,
    caption: str,
    x_label: str,
    y_label: str,
    is_y_shared: bool = False,
) -> list[Drawing]:
    """Draw a panel for each family, PANELS of them to a figure.

    Args:
        families: what is shown.
        draw: draws one of them.
        name: of the figures; of several, with a number behind it.
        caption: what they show.
        x_label: what stands below the axes.
        y_label: what stands beside them.
        is_y_shared: whether all panels of a figure have one scale.
    """
    parts = [families[i : i + PANELS] for i in range(0, len(families), PANELS)]
    drawings: list[Drawing] = []
    for number, part in enumerate(parts):
        columns = min(2, len(part)) if len(part) <= 4 else 3 if len(part) in (5, 6, 9) else 4
        rows = -(-len(part) // columns)
        height = 3.2 if columns == 1 else 0.9 + 2.1 * rows
        figure = new_figure(height, WIDE_INCHES if columns > 2 else WIDTH_INCHES)
        panels = [*figure.subplots(rows, columns, squeeze=False, sharey=is_y_shared).flat]
        for axes, family in zip(panels, part, strict=False):
            draw(axes, family)
            if len(families) > 1:
                axes.set_title(textwrap.fill(family.name, TITLE_WIDTH), fontsize=9)
            if axes.get_xscale() == "linear":
                axes.locator_params(axis="x", nbins=4)
        for axes in panels[len(part) :]:
            axes.set_axis_off()
        figure.supxlabel(x_label, fontsize=10)
        figure.supylabel(y_label, fontsize=10)
        legend_above(figure)
        of = f" ({number + 1} of {len(parts)})" if len(parts) > 1 else ""
        drawings.append(Drawing(f"{name}{number + 1 if len(parts) > 1 else ''}", f"{caption}{of}", figure))
    return drawings


def curve_of(run: RunResult) -> dict[int, float]:
    """Map steps to validation losses of a run."""
    return {int(line["step"]): line["loss_nats"] for line in run.evaluations if line.get("loss_nats") is not None}


def draw_curves(axes: Any, family: Family, looks: Mapping[str, Look], floor: float | None = None) -> None:
    """Draw validation losses by tokens, the mean over seeds with a band of one standard deviation.

    Args:
        axes: where to.
        family: whose curves.
        looks: of the orders.
        floor: drawn as a line; None where none is known.
    """
    found = [_draw_curves_of(axes, family, order, look) for order, look in looks.items()]
    values = [each for each in found if each is not None]
    if floor is not None:
        axes.axhline(floor, color=INK, linewidth=0.9, linestyle=(0, (2, 2)), label="floor")
    if values:
        ends = np.concatenate([each.reshape(-1) for each in values])[None]
        every = np.concatenate(values) if len({each.shape[1] for each in values}) == 1 else ends
        scale_to_the_end(axes, every)
        if floor is not None:
            low, high = axes.get_ylim()
            axes.set_ylim(min(low, floor - 0.04 * (high - floor)), high)
    in_units(axes)


def in_units(axes: Any) -> None:
    """Name numbers of tokens with their powers of 1000."""
    from matplotlib.ticker import EngFormatter

    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _draw_curves_of(axes: Any, family: Family, order: str, look: Look) -> Any:
    runs = [run for _, run in sorted(family.runs.get(order, {}).items()) if len(run.evaluations) > 0]
    curves = [curve_of(run) for run in runs]
    steps = sorted(set.intersection(*({*curve} for curve in curves))) if curves else []
    if not steps:
        return None
    # Of one step, the tokens of seeds differ by a few: a short window comes at another step.
    tokens = {int(line["step"]): line["tokens"] for line in runs[0].evaluations}
    steps = thinned(steps)
    values_SX = np.array([[curve[step] for step in steps] for curve in curves])
    banded(axes, [tokens[step] for step in steps], values_SX, look[0], look[1], order)
    return values_SX


def draw_above(axes: Any, family: Family, looks: Mapping[str, Look], floor: float, near: Sequence[float]) -> None:
    """Draw by how much the loss of each order is above the floor, in % of it.

    Args:
        axes: where to.
        family: whose curves.
        looks: of the orders.
        floor: nats per token.
        near: shares of the floor that are called near.
    """
    floor_look = {"color": INK, "linewidth": 0.9, "linestyle": (0, (2, 2))}
    for order, look in looks.items():
        for number, run in enumerate(run for _, run in sorted(family.runs.get(order, {}).items()) if run.evaluations):
            x = np.array([line["tokens"] for line in run.evaluations])
            y = np.array([100 * (line["loss_nats"] / floor - 1) for line in run.evaluations])
            line = {"color": look[0], "linewidth": 1.1, "alpha": 0.9, "marker": look[2] if len(x) == 1 else None}
            axes.plot(x, y, look[1], label=order if number == 0 else None, **line)
    axes.axhline(0, label="floor", **floor_look)
    for share in near:
        axes.axhline(100 * share, **floor_look | {"color": MUTED})
    axes.set_yscale("symlog", linthresh=LINEAR_PERCENT, linscale=0.6)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "\u2212"))
    in_units(axes)


def draw_rates(
    axes: Any,
    losses: Mapping[str, Mapping[float, Sequence[float]]],
    best: Mapping[str, float],
    looks: Mapping[str, Look],
) -> None:
    """Draw the loss at the end by learning rate, the best of each order marked.

    Args:
        axes: where to.
        losses: of each order and rate, those of the seeds.
        best: rate of each order.
        looks: of the orders.
    """
    for order, by_rate in losses.items():
        color, dashes, marker = looks[order]
        rates = sorted(by_rate)
        means = [float(np.mean(by_rate[rate])) for rate in rates]
        axes.plot(rates, means, dashes, marker=marker, color=color, label=order)
        for rate in rates:
            axes.plot([rate] * len(by_rate[rate]), by_rate[rate], ".", color=color, alpha=0.4, markersize=4)
        if best.get(order) in by_rate:
            mean = float(np.mean(by_rate[best[order]]))
            axes.plot(best[order], mean, "o", color=color, markerfacecolor="none", markersize=11, markeredgewidth=1.4)
    axes.set_xscale("log")
    ticks_at(axes, [rate for by_rate in losses.values() for rate in by_rate])
    axes.margins(x=0.1)


def draw_null(families: Sequence[Family], gaps: Sequence[Gap], looks: Mapping[str, Look]) -> Drawing:
    """Draw how far the seeds of each order lie apart, beside the gaps of the same families; all in %.

    Args:
        families: a row each.
        gaps: those of these families are drawn.
        looks: of the orders.
    """
    names = [textwrap.fill(family.name, LABEL_WIDTH) for family in families]
    figure = new_figure(1.1 + max(0.5, 0.13 * len(looks)) * len(families))
    axes = figure.subplots()
    compared = [*dict.fromkeys(gap.order for gap in gaps)]  # of `both` it is that of a pass: no order of the study
    sizes: list[float] = []
    step = 0.7 / (len(looks) + max(len(compared), 1))
    for y, family in enumerate(families):
        for place, (order, look) in enumerate(looks.items()):
            losses = [*family.losses(order).values()]
            level = float(np.mean(losses)) if losses else 1.0
            apart = [100 * sign * (a - b) / level for a, b in itertools.combinations(losses, 2) for sign in (1, -1)]
            at = y + (place + max(len(compared), 1)) * step - 0.35 + step / 2
            label = f"{order}, seeds" if apart else None
            sizes += apart
            axes.plot(apart, [at] * len(apart), "|", color=look[0], markersize=8, markeredgewidth=1.3, label=label)
    for y, family in enumerate(families):
        for gap in (gap for gap in gaps if gap.family is family):
            at = y + compared.index(gap.order) * step - 0.35 + step / 2
            color = GAP if len(compared) == 1 or gap.order not in looks else looks[gap.order][0]
            label = "gap between orders" if len(compared) == 1 else f"gap of {gap.order}"
            if gap.interval_percent is not None:
                axes.plot(gap.interval_percent, [at] * 2, "-", color=color, linewidth=2.2)
            sizes.append(max(map(abs, (gap.percent, *(gap.interval_percent or ())))))
            axes.plot(gap.percent, at, "o", color=color, label=label)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set(yticks=range(len(families)), yticklabels=names, ylim=(len(families) - 0.4, -0.6), xlabel="difference (%)")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.05)
    beyond = spread_out(axes, [*map(abs, sizes)])
    if not beyond:
        axes.locator_params(axis="x", nbins=6)
    legend_above(figure)
    caption = "Differences between all pairs of seeds of one order, each in both signs: the null."
    if gaps:
        caption += " Beside it the gap between the orders, with its 95% interval over seeds."
    return Drawing("null", caption + beyond, figure)
