"""Figures of gaps beside their nulls: against a number, a line for each setting, or a row for each.

To be called while the style is on, inside `figure_style.styled()`.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hindsight.analysis.figure_style import (
    DASHES,
    GAP,
    INK,
    MARKERS,
    MUTED,
    PALETTE,
    Drawing,
    new_figure,
    spread_out,
    ticks_at,
)

Interval = Sequence[float]
NULL_SHOWN = (
    "The grey band is the null: how far runs of one order lie apart that differ in the seed alone, in the mean."
)
MOST_TICKS = 8
"""Values below a linear axis that are all named."""
LABEL_WIDTH = 26
"""Characters of a line beside a row."""


@dataclass(frozen=True)
class GapPoint:
    """A gap at a place of the axis; in %, as its interval and its null are."""

    x: float
    value: float
    interval: Interval | None = None
    null: float | None = None


@dataclass(frozen=True)
class GapRow:
    """A gap as a row; all in the same unit."""

    name: str
    value: float
    interval: Interval | None = None
    null: float | None = None
    published: Sequence[float] = ()
    """Values of others, held beside it."""


@dataclass(frozen=True)
class Published:
    """Values of others, held beside a line."""

    label: str
    line: str
    """Name of the line, whose marks they have."""
    points: Sequence[tuple[float, float]]
    """Place on the axis, and %."""


def null_of(group: Mapping[str, Any]) -> float | None:
    """Give the null of a group of comparison.json in %."""
    return group["null"]["mean_absolute_percent"] if group["null"] else None


def draw_against(
    lines: Mapping[str, Sequence[GapPoint]],
    name: str,
    label: str,
    caption: str,
    published: Sequence["Published"] = (),
) -> Drawing:
    """Draw relative gaps against a number.

    Args:
        lines: points by the name of their line; one without a name has no legend, and its points are not connected.
        name: of the figure.
        label: what stands below the axis.
        caption: what the figure is; what its bands and bars are is said behind it.
        published: values of others, drawn in grey.
    """
    figure = new_figure(2.8 + 0.19 * ((len(lines) + len(published)) // 2 if any(lines) else 0))
    axes = figure.subplots()
    places = [point.x for of in lines.values() for point in of] + [x for of in published for x, _ in of.points]
    is_log = min(places) > 0 and max(places) / min(places) >= 4
    caption += _draw_nulls(axes, lines)
    for number, (line, points) in enumerate(lines.items()):
        _draw_line(axes, line, sorted(points, key=lambda point: point.x), number, len(lines), is_log)
    for of in published:
        x, y = zip(*sorted(of.points), strict=True)
        marker = MARKERS[[*lines, of.line].index(of.line) % len(MARKERS)]
        axes.plot(
            x, y, ":", marker=marker, color=MUTED, markerfacecolor="none", linewidth=1, label=of.label, zorder=1.5
        )
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set(xlabel=label, ylabel="gap (%)")
    if is_log:
        axes.set_xscale("log")
        ticks_at(axes, places)
    elif len({*places}) <= MOST_TICKS:
        axes.set_xticks(sorted({*places}), [f"{place:g}" for place in sorted({*places})])
    axes.margins(x=0.08)
    if any(lines) or published:
        figure.legend(loc="outside lower center", ncols=2, fontsize=8.5)
    if any(point.interval for of in lines.values() for point in of):
        caption += " Bars: 95% intervals over seeds."
    return Drawing(name, caption + (" Grey marks: published values." if published else ""), figure)


def _draw_line(axes: Any, line: str, points: Sequence[GapPoint], number: int, n_lines: int, is_log: bool) -> None:
    """Draw one line, a little beside the others, so that their intervals do not hide each other."""
    aside = 0.035 * (number - (n_lines - 1) / 2)
    span = max((point.x for point in points), default=0)
    x = [point.x * (1 + aside) if is_log else point.x + aside * span / 2 for point in points]
    y = np.array([point.value for point in points])
    errors = np.abs(np.array([point.interval or [point.value] * 2 for point in points]).T - y)
    dashes = DASHES[number // len(PALETTE) % len(DASHES)] if line else ""
    look = {"color": PALETTE[number % len(PALETTE)] if line else GAP, "marker": MARKERS[number % len(MARKERS)]}
    axes.errorbar(x, y, errors, linestyle=dashes or "none", elinewidth=1.2, label=line or None, **look)


def _draw_nulls(axes: Any, lines: Mapping[str, Sequence[GapPoint]]) -> str:
    """Draw the null around 0, at each place the mean over lines; give what the caption says of it."""
    found: dict[float, list[float]] = {}
    for point in (point for of in lines.values() for point in of if point.null is not None):
        found.setdefault(point.x, []).append(point.null or 0.0)
    if not found:
        return ""
    x = sorted(found)
    null = np.array([np.mean(found[each]) for each in x])
    if len(x) == 1:
        axes.axhspan(-null[0], null[0], color=MUTED, alpha=0.2, linewidth=0)
    else:
        axes.fill_between(x, -null, null, color=MUTED, alpha=0.2, linewidth=0)
    return f" {NULL_SHOWN}"


def draw_rows(rows: Sequence[GapRow], name: str, label: str, caption: str) -> Drawing:
    """Draw gaps below each other, each with its interval, its null and what others published.

    Args:
        rows: from the top to the bottom.
        name: of the figure.
        label: what stands below the axis, with its unit.
        caption: what the figure is; what its bands and bars are is said behind it.
    """
    names = [textwrap.fill(row.name, LABEL_WIDTH) for row in rows]
    heights = [0.1 + 0.17 * (name.count("\n") + 1) for name in names]  # inches, as the axis is
    places = [sum(heights[:i]) + height / 2 for i, height in enumerate(heights)]
    figure = new_figure(0.7 + sum(heights))
    axes = figure.subplots()
    for row, y, height in zip(rows, places, heights, strict=True):
        if row.null is not None:
            axes.barh(y, 2 * row.null, left=-row.null, height=0.7 * height, color=MUTED, alpha=0.25, linewidth=0)
        if row.interval is not None:
            axes.plot(row.interval, [y, y], "-", color=GAP, linewidth=2.2)
        axes.plot(row.value, y, "o", color=GAP, markersize=5)
        axes.plot(row.published, [y] * len(row.published), "D", color=MUTED, markerfacecolor="none", markersize=5)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set(yticks=places, yticklabels=names, ylim=(sum(heights), 0), xlabel=label)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.use_sticky_edges = False
    axes.margins(x=0.05)
    beyond = spread_out(axes, [max(map(abs, (row.value, *(row.interval or ())))) for row in rows])
    if not beyond:
        axes.locator_params(axis="x", nbins=6)
    if any(row.interval is not None for row in rows):
        caption += " Bars: 95% intervals over seeds."
    if any(row.null is not None for row in rows):
        caption += f" {NULL_SHOWN}"
    if any(row.published for row in rows):
        caption += " Grey diamonds: published values."
    return Drawing(name, caption + beyond, figure)
