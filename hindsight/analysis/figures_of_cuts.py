"""The figures of where a gap lives, one for each cut of the losses by token. `cuts` is what `cuts_of` gives."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hindsight.analysis.cuts import BOUNDARIES, NEAR
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

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Cuts = Mapping[str, Any]
LEFT_OUT_STYLES = ((-0.16, REFERENCE, "s"), (0, ORDER, "D"), (0.16, GAP, "^"))
"""How far the points of each kind are shifted beside those of the others, their colour and marker."""
SHORT_BOUNDARIES = {
    "near_document_start": "first k of a document",
    "near_document_edge": "first and last k, EOS",
    "little_context": "with less context than k",
}


def draw_cuts(cuts: Cuts) -> list[Drawing]:
    """Draw every cut that has more than one bin."""
    draws = (_context, _window_place, _document_place, _classes, _frequency, _left_out, _documents)
    with styled():
        drawings = [drawing for drawing in (draw(cuts) for draw in draws) if drawing is not None]
        lay_out(drawings)
    return drawings


def _rows(cuts: Cuts, name: str) -> list[dict[str, Any]]:
    return [row for row in cuts["cuts"][name] if row["gap_nats"] is not None]


def _column(rows: Sequence[Mapping[str, Any]], key: str) -> Any:
    return np.array([np.nan if row[key] is None else row[key] for row in rows], float)


def _colors(gaps: Any) -> list[str]:
    return [ORDER if gap > 0 else REFERENCE for gap in gaps]


def _context(cuts: Cuts) -> Drawing | None:
    """Draw the losses of both orders against the context that each had, and the gap at equal context."""
    rows = _rows(cuts, "context")
    if len(rows) < 2:
        return None
    figure = new_figure(3.9)
    losses, gaps = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    x = range(len(rows))
    for key, color, dashes in (("reference", REFERENCE, "o-"), ("order", ORDER, "s--")):
        losses.plot(x, _column(rows, f"{key}_nats"), dashes, color=color, label=cuts[key])
    gaps.errorbar(x, _column(rows, "gap_nats"), _column(rows, "gap_std_nats"), fmt="o-", color=GAP)
    gaps.axhline(0, color=INK, linewidth=0.8)
    losses.set(ylabel="loss (nats/token)")
    losses.legend()
    gaps.set(xlabel="tokens of context that the model had", ylabel=GAP_LABEL)
    _label(gaps, rows)
    caption = (
        "Each order at its own context, and the gap at equal context. Bars: \u00b1 one standard deviation over seeds."
    )
    return Drawing("context", caption, figure)


def _label(axes: "Axes", rows: Sequence[Mapping[str, Any]], most: int = 8) -> None:
    """Name bins by where they begin, as many as there is room for."""
    every = -(-len(rows) // most)
    starts = [row["label"].split(" to ")[0] for row in rows]
    axes.set_xticks(range(0, len(rows), every), starts[::every])


def _window_place(cuts: Cuts) -> Drawing | None:
    caption = (
        "The gap by position in the window, in reading order. Where one order had more context than the other, "
        "this is the gap of context too; the figure before is without that. "
        "Bars: \u00b1 one standard deviation over seeds."
    )
    return _bars(cuts, "window_place", "position in the window (from)", caption)


def _document_place(cuts: Cuts) -> Drawing | None:
    caption = "The gap by position in the document. Bars: \u00b1 one standard deviation over seeds."
    return _bars(cuts, "document_place", "position in the document (tokens, from)", caption)


def _bars(cuts: Cuts, name: str, label: str, caption: str) -> Drawing | None:
    rows = _rows(cuts, name)
    if len(rows) < 2:
        return None
    figure = new_figure(2.5)
    axes = figure.subplots()
    gaps = _column(rows, "gap_nats")
    axes.bar(range(len(rows)), gaps, color=_colors(gaps), width=0.75)
    axes.errorbar(range(len(rows)), gaps, _column(rows, "gap_std_nats"), fmt="none", ecolor=INK, elinewidth=1)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set(xlabel=label, ylabel=GAP_LABEL)
    axes.grid(visible=False, axis="x")
    _label(axes, rows)
    return Drawing(name, caption, figure)


def _classes(cuts: Cuts) -> Drawing | None:
    caption = "The gap by kind of token: for each of its tokens, and what that adds to the gap of the whole."
    return _sideways(cuts, "class", caption)


def _frequency(cuts: Cuts) -> Drawing | None:
    caption = "The gap by how frequent a token is, in tenths of all tokens, from the most frequent ones to the rarest."
    return _sideways(cuts, "frequency", caption)


def _sideways(cuts: Cuts, name: str, caption: str) -> Drawing | None:
    """Draw two columns of horizontal bars: the gap in each bin, and what it adds to the whole."""
    rows = _rows(cuts, name)[::-1]
    if len(rows) < 2:
        return None
    figure = new_figure(1.1 + 0.24 * len(rows))
    columns: Sequence[Axes] = figure.subplots(1, 2, sharey=True)
    spread = _column(rows, "gap_std_nats")
    share = _column(rows, "n_tokens") / cuts["n_tokens"]
    labels = ("gap (nats/token)", "contribution (nats)")
    for axes, key, std, label in zip(
        columns, ("gap_nats", "contribution_nats"), (spread, spread * share), labels, strict=True
    ):
        values = _column(rows, key)
        axes.barh(range(len(rows)), values, color=_colors(values), height=0.7)
        axes.errorbar(values, range(len(rows)), xerr=std, fmt="none", ecolor=INK, elinewidth=1)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set(xlabel=label, yticks=range(len(rows)), yticklabels=[row["label"] for row in rows])
        axes.grid(visible=False, axis="y")
        axes.locator_params(axis="x", nbins=3)
    return Drawing(name, f"{caption} Bars: \u00b1 one standard deviation over seeds.", figure)


def _left_out(cuts: Cuts) -> Drawing | None:
    """Draw what is left of the gap where the k tokens next to boundaries are left out, or every EOS, or nothing."""
    if not cuts["left_out"]:
        return None
    figure = new_figure(3.1)
    axes = figure.subplots()
    whole = {"kind": "all", "k": None, "rest": cuts["whole"]}
    names = ["nothing", "EOS", *map(str, NEAR)]
    series = {"all": (0, INK, "o"), "eos": (1, INK, "o"), **dict(zip(BOUNDARIES, LEFT_OUT_STYLES, strict=True))}
    for kind, (shift, color, marker) in series.items():
        splits = [split for split in (whole, *cuts["left_out"]) if split["kind"] == kind]
        x = [shift + (names.index(str(split["k"])) if split["k"] else 0) for split in splits]
        rests = [split["rest"] for split in splits]
        errors = _column(rests, "gap_std_nats")
        label = SHORT_BOUNDARIES.get(kind)
        axes.errorbar(x, _column(rests, "gap_nats"), errors, fmt=marker, color=color, label=label, elinewidth=1.2)
    axes.axhline(cuts["whole"]["gap_nats"], color=MUTED, linewidth=1, linestyle="--")
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_xticks(range(len(names)), names)
    axes.set(xlabel="left out: nothing, every EOS, or k tokens", ylabel="gap of the rest (nats/token)")
    figure.legend(loc="outside upper center", ncols=2, columnspacing=1)
    caption = "The gap of the rest, where tokens next to boundaries are left out. Dashed: that of all tokens."
    return Drawing("left_out", caption, figure)


def _documents(cuts: Cuts) -> Drawing | None:
    """Draw the gap of every document, in order of its size."""
    rows = sorted(_rows(cuts, "document"), key=lambda row: row["gap_nats"])
    if len(rows) < 2:
        return None
    figure = new_figure(2.5)
    axes = figure.subplots()
    gaps = _column(rows, "gap_nats")
    axes.errorbar(
        range(1, len(rows) + 1), gaps, _column(rows, "gap_std_nats"), fmt="none", ecolor=MUTED, elinewidth=0.8
    )
    axes.scatter(range(1, len(rows) + 1), gaps, c=_colors(gaps), s=10, zorder=3)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.axhline(cuts["whole"]["gap_nats"], color=MUTED, linewidth=1, linestyle="--")
    axes.set(xlabel="documents, in order of their gap", ylabel=GAP_LABEL)
    caption = "The gap in every document (\u00b1 one standard deviation over seeds). Dashed: that of all tokens."
    return Drawing("documents", caption, figure)
