"""Show a comparison, as comparison.json holds it: a plot, and text for the screen."""

import io
import textwrap
from collections.abc import Sequence
from typing import Any


def draw(report: dict[str, Any]) -> bytes:
    """Draw the validation losses of all pairs, and below them the gaps, against training tokens.

    Args:
        report: the content of comparison.json.

    Returns:
        A PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(8, 7), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    losses, gaps = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.4))
    runs = {run["folder"]: run for run in report["runs"]}
    handles: list[Line2D] = []
    for i, pair in enumerate(report["pairs"]):
        style = {"color": f"C{i % 10}", "marker": "o", "markersize": 3, "linewidth": 1.6}
        forward, backward = _curve(runs[pair["forward"]]), _curve(runs[pair["backward"]])
        both = sorted(forward.keys() & backward.keys())
        losses.plot(list(forward), list(forward.values()), "-", **style)
        losses.plot(list(backward), list(backward.values()), "--", **style)
        gaps.plot(both, [100 * (backward[tokens] / forward[tokens] - 1) for tokens in both], "-", **style)
        label = f"{pair['pair']}: gap {pair['gap_over_forward_percent']:+.2f} %"
        handles.append(Line2D([], [], color=style["color"], label=label))
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
    handles.append(Line2D([], [], color="black", linestyle="-", label="forward"))
    handles.append(Line2D([], [], color="black", linestyle="--", label="backward"))
    losses.legend(handles=handles, frameon=False)
    losses.set(title="Predicting text forward and backward", ylabel="validation loss (nats/token)")
    gaps.set(xlabel="training tokens", ylabel="gap: BW/FW - 1 (%)")
    gaps.xaxis.set_major_formatter(EngFormatter(sep=""))
    for axes in (losses, gaps):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    png = io.BytesIO()
    canvas.print_figure(png, format="png", dpi=150)
    return png.getvalue()


def _curve(run: dict[str, Any]) -> dict[int, float]:
    return {line["tokens"]: line["eval/loss_nats"] for line in run["evaluations"]}


def text(report: dict[str, Any]) -> str:
    """Write out the warnings, the table of the runs, the gaps, and a sample of each model.

    Args:
        report: the content of comparison.json.
    """
    parts = [f"Warning: {warning}." for pair in report["pairs"] for warning in pair["warnings"]]
    return "\n\n".join([*parts, _run_table(report), _gap_table(report), *map(_sample, report["runs"])])


def _run_table(report: dict[str, Any]) -> str:
    rows = [
        ["validation", "direction", "step", "loss", "bits/", "perplexity", "accuracy", "tokens/s", "unigram entropy"]
    ]
    rows.append(["", "", "", "nats/token", "byte", "", "", "", "nats/token"])
    for run in report["runs"]:
        speed = "-" if run["tokens_per_second"] is None else f"{run['tokens_per_second']:,.0f}"
        cells = [f"{run['loss_nats']:.4f}", f"{run['bits_per_byte']:.4f}", f"{run['perplexity']:.2f}"]
        cells += [f"{100 * run['accuracy']:.2f} %", speed, f"{run['val_unigram_entropy_nats']:.4f}"]
        rows.append([run["pair"], run["direction"], str(run["step"]), *cells])
    return _aligned(rows)


def _gap_table(report: dict[str, Any]) -> str:
    rows = [["gap: backward minus forward", "nats/token", "bits/byte", "BW/FW - 1", "(BW - FW)/mean"]]
    rows += [[pair["pair"], *_gap_cells(pair, "+")] for pair in report["pairs"]]
    for group in report["over_seeds"]:
        rows.append([f"{group['model']}: mean of {len(group['seeds'])} seeds", *_gap_cells(group["mean"], "+")])
        rows.append(["  ± standard deviation", *_gap_cells(group["std"], "")])
    return _aligned(rows)


def _gap_cells(gap: dict[str, float], sign: str) -> list[str]:
    cells = [f"{gap[key]:{sign}.4f}" for key in ("gap_nats", "gap_bits_per_byte")]
    return cells + [f"{gap[key]:{sign}.3f} %" for key in ("gap_over_forward_percent", "gap_over_mean_percent")]


def _sample(run: dict[str, Any]) -> str:
    how = f"{run['direction']}, written here in reading order" if run["direction"] == "backward" else run["direction"]
    if run["sample"] is None:
        return f"Sample of {run['pair']}, {how}: none was written."
    heading = (
        f"Sample of {run['pair']}, {how} (step {run['sample'].get('step')}, prompt {run['sample'].get('prompt')!r})"
    )
    return f"{heading}\n{textwrap.indent(str(run['sample'].get('text')).strip(), '    ')}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return "\n".join(line.rstrip() for line in lines)
