"""How figures look, and how one is stored: as PNG and PDF, and as SVG inside a page that may be light or dark.

A figure is drawn once. In the page, what is drawn in INK takes the colour of the text around it; the other colours have
a contrast of at least 3 to 1 (WCAG 2.2, success criterion 1.4.11) both on white and on near black.
"""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from hindsight.files import write_atomically
from hindsight.shown_numbers import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"
"""Near black, as no other thing is, so that it is found and replaced."""
REFERENCE, ORDER, GAP, MUTED = "#2e7fd0", "#d2601a", "#8c62d0", "#808080"
"""Colours of the order that is compared with, of the other one, of their gap, and of the null."""
PALETTE = (REFERENCE, ORDER, "#1f9160", GAP, "#c2499b", "#8f7a12", "#0f8a96", "#c9453f")
"""Colours of lines where there are more than two; of more than these, markers and dashes tell them apart."""
MARKERS, DASHES = "osD^vP*X", ("-", "--", "-.", ":")
MOST_POINTS = 200
"""Evaluations of a curve that are drawn."""
WIDTH_INCHES = 4.6
"""On a phone of 390 pixels a point of the figure then is about a pixel of the page."""
WIDE_INCHES = 9.2
"""Of many panels: as wide as a page, which a phone scrolls."""
FONT_POINTS = 10
LEGEND_PER_INCH, LEGEND_LINE, LEGEND_INCHES = 14, 7, 0.18
"""Characters of a legend in an inch, those that a line in it takes, and the height of one of its rows."""
MOST_TIMES = 30
"""So many times the median a value may be on a linear axis."""
GAP_LABEL = "gap (nats/token)"
STYLE = {
    "font.size": FONT_POINTS,
    "axes.labelsize": FONT_POINTS,
    "axes.titlesize": FONT_POINTS,
    "xtick.labelsize": FONT_POINTS - 1,
    "ytick.labelsize": FONT_POINTS - 1,
    "legend.fontsize": FONT_POINTS - 1,
    "legend.frameon": False,
    "legend.handlelength": 1.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": MUTED,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "errorbar.capsize": 2,
    "text.parse_math": False,  # a folder's name may have a $
    "axes.unicode_minus": True,
    "axes.formatter.useoffset": False,
    "figure.constrained_layout.use": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "hindsight",
    "pdf.fonttype": 42,
    "savefig.dpi": 200,
}
NAMESPACES = {"": "http://www.w3.org/2000/svg", "xlink": "http://www.w3.org/1999/xlink"}
"""Of SVG; an empty prefix makes its names those that HTML reads."""
NOT_DRAWN = ("metadata", "style")
"""Elements of matplotlib's SVG that would act on the whole page, or say when it was made."""


@dataclass(frozen=True)
class Drawing:
    """A figure, the name of its files, and what stands below it."""

    name: str
    caption: str
    figure: "Figure"

    @property
    def is_wide(self) -> bool:
        """Whether it is as wide as a page."""
        return self.figure.get_figwidth() > WIDTH_INCHES


@contextmanager
def styled() -> Iterator[None]:
    """Draw in our style, on any machine and with any matplotlibrc the same."""
    from matplotlib import rc_context, rcParams, rcParamsDefault

    with rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        changes: dict[Any, Any] = {**rcParamsDefault, "backend": "agg", **STYLE}
        rcParams.update(changes)
        yield


def new_figure(height_inches: float, width_inches: float = WIDTH_INCHES) -> "Figure":
    """Make an empty figure, which belongs to no window."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_inches, height_inches))


def lay_out(drawings: Sequence[Drawing]) -> None:
    """Find the place of everything once, rather than in every format anew."""
    for drawing in drawings:
        drawing.figure.draw_without_rendering()
        drawing.figure.set_layout_engine("none")


def save(figure: "Figure", path: Path) -> list[Path]:
    """Write a figure as PNG and PDF beside each other; `path` has no ending."""
    written: list[Path] = []
    for kind, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
        content = io.BytesIO()
        with styled():
            figure.savefig(content, format=kind, metadata=metadata, facecolor="white")
        written.append(path.with_name(f"{path.name}.{kind}"))
        write_atomically(written[-1], content.getvalue())
    return written


def svg_of(figure: "Figure", name: str, label: str) -> str:
    """Give a figure as an element of a page.

    Args:
        figure: what is shown.
        name: prefix of its ids, by which they differ from those of other figures.
        label: what is read aloud in its place.
    """
    content = io.BytesIO()
    with styled():
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    for prefix, address in NAMESPACES.items():
        ElementTree.register_namespace(prefix, address)
    root = ElementTree.fromstring(content.getvalue())  # noqa: S314 - written above
    for parent in [*root.iter()]:
        for child in [child for child in parent if _tag(child) in NOT_DRAWN]:
            parent.remove(child)
        for key, value in [*parent.attrib.items()]:
            parent.attrib[key] = _attribute(key, value, name)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib |= {"class": "figure", "role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode")


def _tag(element: Any) -> str:
    return str(element.tag).rsplit("}", 1)[-1]


def _attribute(key: str, value: str, name: str) -> str:
    """Prefix ids and references to them, and leave font and ink to the page."""
    if key == "id":
        return f"{name}-{value}"
    if key.endswith("href"):
        return value.replace("#", f"#{name}-", 1)
    value = re.sub(r"url\(#", f"url(#{name}-", value).replace(INK, "currentColor")
    # The page's own font, which no other than the size matters for: labels are anchored where they belong.
    value = re.sub(r"font: [^;]*?([\d.]+px)[^;]*", r"font-size: \1", value)
    return re.sub(r"font-family: [^;]*;? ?", "", value)


def banded(axes: "Axes", x: Sequence[float], values_SX: Any, color: str, dashes: str, label: str) -> None:
    """Draw the mean of curves, and a band of one standard deviation on either side.

    Args:
        axes: where to.
        x: places of the values.
        values_SX: curves of S seeds.
        color: of the line and its band.
        dashes: style of the line.
        label: what the legend says of it.
    """
    mean_X = values_SX.mean(0)
    axes.plot(x, mean_X, dashes, color=color, label=label, marker="o" if len(x) == 1 else None)
    if len(values_SX) > 1:
        std_X = values_SX.std(0, ddof=1)
        axes.fill_between(x, mean_X - std_X, mean_X + std_X, color=color, alpha=0.25, linewidth=0)


def scale_to_the_end(axes: "Axes", values: Any) -> None:
    """Let the first evaluations leave the axes where they would hide what comes later.

    Args:
        axes: where the curves are.
        values: (S, X) of all of them.
    """
    low, late = float(np.nanmin(values)), float(np.nanmax(values[:, values.shape[1] // 10 :]))
    if late > low:
        axes.set_ylim(low - 0.06 * (late - low), late + 0.06 * (late - low))


def thinned(steps: Sequence[int]) -> list[int]:
    """Leave out steps of a curve evenly, down to MOST_POINTS of them."""
    return [steps[i] for i in np.unique(np.linspace(0, len(steps) - 1, MOST_POINTS).astype(int))]


def legend_above(figure: "Figure") -> None:
    """Name all lines of a figure above it, each label once, in as many rows as they need.

    Args:
        figure: has a legend afterwards, and the room for it; one that has a single label is left as it is.
    """
    labels: dict[str, Any] = {}
    for axes in figure.axes:
        labels |= {label: line for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if len(labels) > 1:
        width = LEGEND_PER_INCH * figure.get_figwidth() // (max(map(len, labels)) + LEGEND_LINE)
        beside = max(1, min(len(labels), int(width)))
        figure.set_figheight(figure.get_figheight() + LEGEND_INCHES * (-(-len(labels) // beside) - 1))
        figure.legend(labels.values(), labels.keys(), loc="outside upper center", ncols=beside)


def spread_out(axes: "Axes", sizes: Sequence[float]) -> str:
    """Let one value that is far larger than most leave room for the others on the axis below.

    Args:
        axes: its x axis has 0 in it.
        sizes: how far from 0 each value reaches.

    Returns:
        What a caption says of that axis; empty where it stays linear.
    """
    typical = float(np.median([*sizes])) if sizes else 0.0
    if typical == 0 or max(sizes) <= MOST_TIMES * typical:
        return ""
    linear = 10.0 ** np.ceil(np.log10(typical))
    axes.set_xscale("symlog", linthresh=linear)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "\u2212"))
    return f" The axis is linear to {linear:g} on either side of 0, and logarithmic beyond."


def ticks_at(axes: "Axes", values: Sequence[float]) -> None:
    """Name values below a logarithmic axis, but those that stand too close to the one before."""
    kept: list[float] = []
    span = np.log(max(values) / min(values)) or 1
    for value in sorted({*values}):
        if not kept or np.log(value / kept[-1]) > 0.07 * span:
            kept.append(value)
    axes.set_xticks(kept, [short(value) if value >= 1 else f"{value:g}" for value in kept], minor=False)
    axes.minorticks_off()
