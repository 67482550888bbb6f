"""Plots of a comparison; matplotlib is imported only where something is drawn."""

import io
from typing import TYPE_CHECKING, Any

from hindsight.runs import EVAL_LOSS
from hindsight.shown_text import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DISTINCT_COLORS = 10
"""Colors of matplotlib's cycle."""


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
    losses.set(title="Predicting text forward and backward", ylabel="validation loss (nats/token)")
    gaps.set(xlabel="training tokens", ylabel="gap: BW/FW - 1 (%)")
    gaps.xaxis.set_major_formatter(EngFormatter(sep=""))
    for axes in (losses, gaps):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    png = io.BytesIO()
    canvas.print_figure(png, format="png", dpi=150)
    return png.getvalue()


def _draw_pairs(report: dict[str, Any], losses: "Axes", gaps: "Axes") -> None:
    """Draw the two loss curves and the gap of each pair in one color, with a legend."""
    from matplotlib import colormaps
    from matplotlib.lines import Line2D

    runs = {run["folder"]: run for run in report["runs"]}
    handles: list[Line2D] = []
    for i, pair in enumerate(report["pairs"]):
        n_pairs = len(report["pairs"])
        style = {
            "color": f"C{i}" if n_pairs <= DISTINCT_COLORS else colormaps["turbo"](i / (n_pairs - 1)),
            "marker": "o",
            "markersize": 3,
            "linewidth": 1.6,
        }
        forward, backward = _loss_curve(runs[pair["forward"]]), _loss_curve(runs[pair["backward"]])
        both = sorted(forward.keys() & backward.keys())
        losses.plot(list(forward), list(forward.values()), "-", **style)
        losses.plot(list(backward), list(backward.values()), "--", **style)
        gaps.plot(both, [100 * (backward[tokens] / forward[tokens] - 1) for tokens in both], "-", **style)
        label = f" {visible(pair['pair'])}: gap {pair['gap_over_forward_percent']:+.2f} %"
        handles.append(Line2D([], [], color=style["color"], label=label))
    handles.append(Line2D([], [], color="black", linestyle="-", label="forward"))
    handles.append(Line2D([], [], color="black", linestyle="--", label="backward"))
    legend = losses.legend(handles=handles, frameon=False, fontsize=9 if len(handles) <= DISTINCT_COLORS else 6)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a folder's name may have a $


def _loss_curve(run: dict[str, Any]) -> dict[int, float]:
    """Map training tokens to the validation loss (nats per token)."""
    return {line["tokens"]: line[EVAL_LOSS] for line in run["evaluations"]}
