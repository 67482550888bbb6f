"""The report of a comparison: as data (comparison.json, comparison.csv), and as text for the screen."""

import csv
import io
import textwrap
from collections.abc import Sequence
from typing import Any

from hindsight.analysis.pairs import Pair
from hindsight.analysis.statistics import over_seeds
from hindsight.runs import EVAL, METRIC_NAMES

ABOUT = ("val_unigram_entropy_nats", "n_parameters", "data_fingerprint", "tokenizer_fingerprint", "git_commit")
"""Keys of metadata.json that comparison.csv repeats for each run."""


def make_report(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Collect everything that is known about the pairs: the content of comparison.json."""
    return {
        "runs": [
            row | {name: getattr(run, name) for name in ("config", "metadata", "evaluations", "sample")}
            for pair in pairs
            for row, run in zip(rows_of(pair), pair.runs, strict=True)
        ],
        "pairs": [
            {"pair": pair.label, "forward": str(pair.runs[0].folder), "backward": str(pair.runs[1].folder)}
            | pair.gaps()
            | {"warnings": pair.warnings()}
            for pair in pairs
        ],
        "over_seeds": over_seeds(pairs),
    }


def rows_of(pair: Pair) -> list[dict[str, Any]]:
    """Make the two lines of a pair in comparison.csv, one a run."""
    rows: list[dict[str, Any]] = []
    for run in pair.runs:
        last = run.evaluations[-1]
        row = {"pair": pair.label, "direction": run.direction.name, "folder": str(run.folder)}
        row |= {"model": run.config["model.name"], "seed": run.config["seed"]}
        row |= {"step": last["step"], "tokens": last["tokens"]} | {name: last[EVAL + name] for name in METRIC_NAMES}
        rows.append(row | {"tokens_per_second": run.tokens_per_second} | {k: run.metadata.get(k) for k in ABOUT})
    return rows


def csv_text(pairs: Sequence[Pair]) -> str:
    """Write comparison.csv: a line for each run, numbers with all their digits."""
    rows, table = [row for pair in pairs for row in rows_of(pair)], io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


# ------------------------------------------------------------------------------------------------ text for the screen


def screen_text(report: dict[str, Any]) -> str:
    """Write the warnings, the table of the runs, the table of the gaps, and a sample of each model.

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
    """Pad the cells of a table: the first column is left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return "\n".join(line.rstrip() for line in lines)
