"""The report of a comparison: as data (comparison.json, comparison.csv), and as text for the screen."""

import csv
import io
import textwrap
from collections.abc import Sequence
from typing import Any

from hindsight.analysis.pairs import Pair
from hindsight.analysis.statistics import over_seeds
from hindsight.runs import EVAL, METRIC_NAMES
from hindsight.shown_text import visible

ABOUT = ("val_unigram_entropy_nats", "n_parameters", "data_fingerprint", "tokenizer_fingerprint", "git_commit")
"""Keys of metadata.json that comparison.csv repeats for each run."""


WIDTH = 80
"""Columns of the usual terminal."""
LONGEST_NAME = 27
"""Longest name of a pair, in characters, that leaves room for its gaps in the same line."""


def make_report(pairs: Sequence[Pair], left_out: Sequence[str] = ()) -> dict[str, Any]:
    """Collect everything that is known about the pairs: the content of comparison.json.

    Args:
        pairs: what is compared.
        left_out: why other runs are not.
    """
    return {
        "runs": [
            row | {name: getattr(run, name) for name in ("config", "metadata", "evaluations", "sample")}
            for pair in pairs
            for row, run in zip(rows_of(pair), pair.runs, strict=True)
        ],
        "pairs": [
            {"pair": pair.label, "data": pair.data, "model": pair.model, "seed": pair.seed}
            | {"forward": str(pair.runs[0].folder), "backward": str(pair.runs[1].folder)}
            | pair.gaps()
            | {"warnings": pair.warnings()}
            for pair in pairs
        ],
        "over_seeds": over_seeds(pairs),
        "left_out": [*left_out],
    }


def rows_of(pair: Pair) -> list[dict[str, Any]]:
    """Make the two lines of a pair in comparison.csv, one a run."""
    rows: list[dict[str, Any]] = []
    for run in pair.runs:
        last = run.evaluations[-1]
        row = {"pair": pair.label, "data": pair.data, "direction": run.direction.name}
        row |= {"model": run.config["model.name"], "seed": pair.seed, "folder": str(run.folder)}
        row |= {"step": last["step"], "tokens": last["tokens"]} | {name: last[EVAL + name] for name in METRIC_NAMES}
        rows.append(row | {"tokens_per_second": run.tokens_per_second} | {k: run.metadata.get(k) for k in ABOUT})
    return rows


def csv_text(pairs: Sequence[Pair]) -> str:
    """Write comparison.csv: a line for each run, numbers with all their digits."""
    rows, table = [row for pair in pairs for row in rows_of(pair)], io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return table.getvalue()


def _cell(value: Any) -> Any:
    """A cell that a spreadsheet does not compute: a folder may be called =1+1."""
    if not isinstance(value, str):
        return value
    return f"'{visible(value)}" if value.startswith(("=", "+", "-", "@", "\t")) else visible(value)


# ------------------------------------------------------------------------------------------------ text for the screen


def screen_text(report: dict[str, Any]) -> str:
    """Write what is left out, the warnings, the tables of runs and gaps, and a sample of each model, in 80 columns.

    Args:
        report: the content of comparison.json.
    """
    parts = [_wrapped(f"Left out: {reason}") for reason in report["left_out"]]
    parts += [_wrapped(f"Warning: {warning}.") for pair in report["pairs"] for warning in pair["warnings"]]
    return "\n\n".join([*parts, _run_table(report), _gap_table(report), *map(_sample, report["runs"])])


def _run_table(report: dict[str, Any]) -> str:
    rows = [["validation", "step", "loss", "bits/", "perplexity", "accuracy", "tokens/s"]]
    rows.append(["", "", "nats/token", "byte", "", "", ""])
    for run in report["runs"]:
        if run["direction"] == "forward":
            rows.append([_wrapped(f"{run['pair']}: unigram entropy {run['val_unigram_entropy_nats']:.4f} nats/token")])
        speed = "-" if run["tokens_per_second"] is None else f"{run['tokens_per_second']:,.0f}"
        cells = [f"{run['loss_nats']:.4f}", f"{run['bits_per_byte']:.4f}", f"{run['perplexity']:.2f}"]
        cells += [f"{100 * run['accuracy']:.2f} %", speed]
        rows.append([f"  {run['direction']}", str(run["step"]), *cells])
    return _aligned(rows)


def _gap_table(report: dict[str, Any]) -> str:
    rows = [["gap: backward minus forward", "nats/token", "bits/byte", "BW/FW - 1", "(BW - FW)/mean"]]
    for pair in report["pairs"]:
        rows += _named(pair["pair"], _gap_cells(pair, "+"))
    for group in report["over_seeds"]:
        name = f"{group['data']} {group['model']}: mean of {len(group['seeds'])} seeds"
        rows += _named(name, _gap_cells(group["mean"], "+"))
        rows.append(["  ± standard deviation", *_gap_cells(group["std"], "")])
    return _aligned(rows)


def _gap_cells(gap: dict[str, float], sign: str) -> list[str]:
    cells = [f"{gap[key]:{sign}.4f}" for key in ("gap_nats", "gap_bits_per_byte")]
    return cells + [f"{gap[key]:{sign}.3f} %" for key in ("gap_over_forward_percent", "gap_over_mean_percent")]


def _named(name: str, cells: list[str]) -> list[list[str]]:
    """A row with its name, or the name in a line of its own where it is long."""
    return [[name, *cells]] if len(name) <= LONGEST_NAME else [[_wrapped(name)], ["", *cells]]


def _sample(run: dict[str, Any]) -> str:
    how = f"{run['direction']}, written here in reading order" if run["direction"] == "backward" else run["direction"]
    if run["sample"] is None:
        return _wrapped(f"Sample of {run['pair']}, {how}: none was written.")
    where = f"step {run['sample'].get('step')}, prompt {run['sample'].get('prompt')!r}"
    lines = str(run["sample"].get("text")).strip().split("\n")
    text = [textwrap.fill(line, WIDTH, initial_indent="    ", subsequent_indent="    ") for line in lines]
    return "\n".join([_wrapped(f"Sample of {run['pair']}, {how} ({where})"), *text])


def _wrapped(text: str) -> str:
    """Break a text into lines of 80 columns, the paths in it left whole."""
    return textwrap.fill(text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Pad the cells of a table: the first column to the left, the others to the right; one cell alone is a line."""
    cells = [row for row in rows if len(row) > 1]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = iter("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells)
    return "\n".join(row[0] if len(row) == 1 else next(lines).rstrip() for row in rows)
