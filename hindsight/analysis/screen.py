"""A comparison as text for the screen, in 80 columns: what is meant to be read first comes first."""

import textwrap
from typing import Any

from hindsight.analysis.inference_text import across_text, inference_text, verdict_text
from hindsight.analysis.layout import WIDTH, aligned, wrapped

LONGEST_NAME = 27
"""Longest name of a pair, in characters, that leaves room for its gaps in the same line."""


def screen_text(report: dict[str, Any]) -> str:
    """Write the verdict, what is left out, warnings, the tables of runs and gaps, the inference, and samples.

    Args:
        report: the content of comparison.json.
    """
    parts = [verdict_text(report), *(wrapped(f"Left out: {reason}") for reason in report["left_out"])]
    warnings = [warning for each in (*report["pairs"], *report["groups"]) for warning in each["warnings"]]
    parts += [wrapped(f"Warning: {warning}.") for warning in dict.fromkeys(warnings)]
    parts += [_run_table(report), *([_gap_table(report)] if report["pairs"] else [])]
    parts += [*map(inference_text, report["groups"]), *map(across_text, report["across_tokenizers"])]
    return "\n\n".join([*filter(None, parts), *map(_sample, report["runs"])])


def _run_table(report: dict[str, Any]) -> str:
    rows = [["validation", "step", "loss", "bits/", "perplexity", "accuracy", "tokens/s"]]
    rows.append(["", "", "nats/token", "byte", "", "", ""])
    label = None
    for run in report["runs"]:
        if run["pair"] != label:
            label = run["pair"]
            rows.append([wrapped(f"{run['pair']}: unigram entropy {run['val_unigram_entropy_nats']:.4f} nats/token")])
        speed = "-" if run["tokens_per_second"] is None else f"{run['tokens_per_second']:,.0f}"
        cells = [f"{run['loss_nats']:.4f}", f"{run['bits_per_byte']:.4f}", f"{run['perplexity']:.2f}"]
        cells += [f"{100 * run['accuracy']:.2f} %", speed]
        rows.append([f"  {run['direction']}", str(run["step"]), *cells])
    return aligned(rows)


def _gap_table(report: dict[str, Any]) -> str:
    """Gaps of the pairs; those of other orders than forward and backward with their names."""
    if all(_is_usual(pair) for pair in report["pairs"]):
        rows = [["gap: backward minus forward", "nats/token", "bits/byte", "BW/FW - 1", "(BW - FW)/mean"]]
    else:
        rows = [["gap: order minus reference", "nats/token", "bits/byte", "ratio - 1", "gap/mean"]]
    for pair in report["pairs"]:
        name = pair["pair"] if _is_usual(pair) else f"{pair['pair']}, {pair['order']} against {pair['reference']}"
        rows += _named(name, _gap_cells(pair, "+"))
    for group in report["over_seeds"]:
        orders = "" if _is_usual(group) else f", {group['order']} against {group['reference']}"
        name = f"{group['data']} {group['model']}{orders}: mean of {len(group['seeds'])} seeds"
        rows += _named(name, _gap_cells(group["mean"], "+"))
        rows.append(["  ± standard deviation", *_gap_cells(group["std"], "")])
    return aligned(rows)


def _is_usual(compared: dict[str, Any]) -> bool:
    return (compared["reference"], compared["order"]) == ("forward", "backward")


def _gap_cells(gap: dict[str, float], sign: str) -> list[str]:
    cells = [f"{gap[key]:{sign}.4f}" for key in ("gap_nats", "gap_bits_per_byte")]
    return cells + [f"{gap[key]:{sign}.3f} %" for key in ("gap_over_forward_percent", "gap_over_mean_percent")]


def _named(name: str, cells: list[str]) -> list[list[str]]:
    """A row with its name, or the name in a line of its own where it is long."""
    return [[name, *cells]] if len(name) <= LONGEST_NAME else [[wrapped(name)], ["", *cells]]


def _sample(run: dict[str, Any]) -> str:
    order = run["direction"]
    how = order if order == "forward" else f"{order}, written here in reading order"
    if run["sample"] is None:
        return wrapped(f"Sample of {run['pair']}, {how}: none was written.")
    where = f"step {run['sample'].get('step')}, prompt {run['sample'].get('prompt')!r}"
    lines = str(run["sample"].get("text")).strip().split("\n")
    text = [textwrap.fill(line, WIDTH, initial_indent="    ", subsequent_indent="    ") for line in lines]
    return "\n".join([wrapped(f"Sample of {run['pair']}, {how} ({where})"), *text])
