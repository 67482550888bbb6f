"""Plots of a comparison; matplotlib is imported only where something is drawn."""

import io
from typing import TYPE_CHECKING, Any

from hindsight.runs import EVAL_LOSS
from hindsight.shown_text import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DISTINCT_COLORS = 10
"""Colors of matplotlib's cycle."""
LINES: tuple[Any, ...] = ("--", ":", "-.", (0, (5, 1)), (0, (1, 3)))
"""Of the orders that are compared with the reference, whose line is solid."""


def draw_comparison(report: dict[str, Any]) -> bytes:
    """Draw the validation losses of all pairs, and below them the gaps, against training tokens.

    Args:
        report: the content of comparison.json.

    Returns:
        A PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(8, 7), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    losses, gaps = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.4))
    _draw_pairs(report, losses, gaps)
    for entropy in sorted({round(run["val_unigram_entropy_nats"], 9) for run in report["runs"]}):
        losses.axhline(entropy, color="gray", linewidth=1, linestyle=(0, (6, 4)))
        losses.annotate(
            f"unigram entropy of the validation tokens: {entropy:.3f}",
            xy=(1, entropy),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 4),
            textcoords="offset points",
            ha="right",
            fontsize=9,
            color="dimgray",
        )
    gaps.axhline(0, color="gray", linewidth=1)
    is_usual = {(pair["reference"], pair["order"]) for pair in report["pairs"]} <= {("forward", "backward")}
    orders = "forward and backward" if is_usual else "in several orders"
    losses.set(title=f"Predicting text {orders}", ylabel="validation loss (nats/token)")
    gaps.set(xlabel="training tokens", ylabel=f"gap: {'BW/FW' if is_usual else 'order/reference'} - 1 (%)")
    gaps.xaxis.set_major_formatter(EngFormatter(sep=""))
    for axes in (losses, gaps):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    png = io.BytesIO()
    canvas.print_figure(png, format="png", dpi=150)
    return png.getvalue()


def _draw_pairs(report: dict[str, Any], losses: "Axes", gaps: "Axes") -> None:
    """Draw the two loss curves and the gap of each pair in one color, with a legend."""
    orders = [*dict.fromkeys(pair["order"] for pair in report["pairs"])]
    lines = {order: LINES[number % len(LINES)] for number, order in enumerate(orders)}
    from matplotlib import colormaps
    from matplotlib.lines import Line2D

    runs = {(run["folder"], run["direction"]): run for run in report["runs"]}
    handles: list[Line2D] = []
    for i, pair in enumerate(report["pairs"]):
        n_pairs = len(report["pairs"])
        style = {
            "color": f"C{i}" if n_pairs <= DISTINCT_COLORS else colormaps["turbo"](i / (n_pairs - 1)),
            "marker": "o",
            "markersize": 3,
            "linewidth": 1.6,
        }
        reference, other = (_loss_curve(runs[pair[o], o]) for o in (pair["reference"], pair["order"]))
        both = sorted(reference.keys() & other.keys())
        line = lines[pair["order"]]
        losses.plot(list(reference), list(reference.values()), linestyle="-", **style)
        losses.plot(list(other), list(other.values()), linestyle=line, **style)
        shown = "-" if len(orders) == 1 else line
        gaps.plot(both, [100 * (other[tokens] / reference[tokens] - 1) for tokens in both], linestyle=shown, **style)
        label = f" {visible(pair['pair'])}: gap {pair['gap_over_forward_percent']:+.2f} %"
        handles.append(Line2D([], [], color=style["color"], label=label))
    for reference in dict.fromkeys(pair["reference"] for pair in report["pairs"]):
        handles.append(Line2D([], [], color="black", linestyle="-", label=visible(reference)))
    handles += [Line2D([], [], color="black", linestyle=line, label=visible(order)) for order, line in lines.items()]
    legend = losses.legend(handles=handles, frameon=False, fontsize=9 if len(handles) <= DISTINCT_COLORS else 6)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a folder's name may have a $


def _loss_curve(run: dict[str, Any]) -> dict[int, float]:
    """Map training tokens to the validation loss (nats per token)."""
    return {line["tokens"]: line[EVAL_LOSS] for line in run["evaluations"]}
