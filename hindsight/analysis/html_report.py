"""report.html, and the figures and tables beside it.

The page is one file that loads nothing: figures are inside it, its one script moves a tooltip, and its policy (CSP)
allows no other. All text of corpora, runs and folders is escaped by jinja2.
"""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hindsight.analysis import report_views as views
from hindsight.analysis.figures import Runs, draw_across, draw_group, runs_of
from hindsight.analysis.figures_of_cuts import draw_cuts
from hindsight.analysis.rendering import FIGURES, render, stored, template_text
from hindsight.analysis.report_tables import TOKENIZER_COLUMNS, TOKENIZER_GAP_COLUMNS, tables_of
from hindsight.analysis.tables import shown, write_tables
from hindsight.analysis.verdict import ONE_PAIR, summary_of
from hindsight.files import write_atomically
from hindsight.provenance import VERSION, git_commit
from hindsight.shown_text import visible

REPORT = "report.html"
TABLES = "tables"
"""Folder beside the page, as that of the figures is."""
OURS = {
    FIGURES: re.compile(
        r"(all|gap|group\d+)-(seeds|curves|gap_against_(size|context_length)|context|window_place|document_place|class|"
        r"frequency|left_out|documents)\.(png|pdf)"
    ),
    TABLES: re.compile(
        r"(groups|runs|tokenizers|tokenizer_gaps|cut_(context|window_place|document_place|class|frequency|document|left_out|tokens|"
        r"passages))\.(csv|json|tex)"
    ),
}
"""Names that files of a report have, by their folder: of no others is anything removed."""
MAX_BYTES = 5_000_000
"""Largest page; of many groups, the last ones then have their cuts in the tables and figures beside it alone."""
RUN_COLUMNS = {
    "folder": "run",
    "order": "order",
    "seed": "seed",
    "model": "model",
    "n_parameters": "parameters",
    "tokens": "training tokens",
    "loss_nats": "loss (nats/token)",
    "perplexity": "perplexity",
    "accuracy": "accuracy",
    "bits_per_byte": "bits/byte",
    "tokens_per_second": "tokens/s",
}
LEFT_ALIGNED = {
    **dict.fromkeys(("folder", "order", "model", "data", "text_order", "label", "key", "what", "commit"), ""),
    "value": "wide",
    "name": "wide",
    "spaced": "token",
}
"""Columns of text, and how their cells look."""
WITHOUT_CUTS = "This needs the loss of every token, and at least one run has no file of them. These commands make them:"
WITHOUT_PAIRS = "This needs runs of both orders with the same seed, and there are none."
Json = Mapping[str, Any]


def write_report(out: Path, report: Json, cuts: Mapping[int, Json] | None = None) -> list[Path]:
    """Write report.html, figures and tables into a folder that exists, and remove those of an earlier comparison.

    Args:
        out: the folder.
        report: the content of comparison.json.
        cuts: what `cuts_of` says of groups, by their numbers; groups without are reported without.

    Returns:
        The files, the page first.
    """
    cuts = cuts or {}
    runs = {(run["folder"], run["direction"]): run for run in report["runs"]}
    tables, columns = tables_of(report, cuts)
    written = write_tables(out / TABLES, tables, columns)
    (out / FIGURES).mkdir(exist_ok=True)
    across = stored(draw_across(report["groups"], runs), out, "all", written)
    groups = []
    for number, (group, row) in enumerate(zip(report["groups"], tables["groups"], strict=True)):
        prefix = f"group{number}" if len(report["groups"]) > 1 else "gap"
        of_group = cuts.get(number)
        view = _group_view(report, group, row, runs) | {"id": f"group{number}", "row": row, "cuts": None}
        view["figures"] = stored(draw_group(group, runs), out, prefix, written)
        if of_group is not None:
            view |= _cuts_view(of_group)
            view["cut_figures"] = stored(draw_cuts(of_group), out, prefix, written)
        groups.append(view)
    n_whole = len(groups)
    while len((page := _page(report, tables, groups, across, n_whole)).encode()) > MAX_BYTES and n_whole:
        n_whole //= 2
    write_atomically(out / REPORT, page)
    remove_report(out, but=[out / REPORT, *written])
    return [out / REPORT, *written]


def remove_report(out: Path, but: Sequence[Path] = ()) -> None:
    """Remove what an earlier comparison left: it is of other runs than what stands beside it now.

    Args:
        out: the folder of the page.
        but: files that stay, because they are of this comparison.
    """
    kept = {*but}
    found = [out / REPORT]
    for name, ours in OURS.items():
        folder = out / name
        found += [path for path in folder.iterdir() if ours.fullmatch(path.name)] if folder.is_dir() else []
    for path in found:
        if path not in kept:
            path.unlink(missing_ok=True)


def _group_view(report: Json, group: Json, row: Json, runs: Runs) -> dict[str, Any]:
    of_group = [run for order in group["runs"] for run in runs_of(group, order, runs)]
    return {
        "name": visible(group["name"]),
        "order": group["order"],
        "verdict": visible(group["verdict"]),
        "warnings": [*map(visible, views.warnings(group, report))],
        "facts": views.facts(group, row),
        "method": [*map(visible, views.method(group))],
        "settings": views.settings(of_group),
        "power": views.power_rows(group),
        "samples": views.samples(group, runs),
        "without_cuts": WITHOUT_CUTS if group["seeds"] else WITHOUT_PAIRS,
        "notes": [*map(visible, group["notes"])],
        "commands": views.commands(group) if group["seeds"] else [],
    }


def _cuts_view(cuts: Json) -> dict[str, Any]:
    return {
        "cuts": cuts,
        "cut_tables": views.cut_tables(cuts),
        "shown": views.tokens(cuts["passages"]["shown"]["tokens"], cuts),
        "passages": views.passages(cuts),
    }


def _page(report: Json, tables: Json, groups: Sequence[Json], across: Sequence[Json], n_whole: int) -> str:
    """Render the page, with the cuts of the first groups."""
    from markupsafe import Markup

    script = template_text("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    orders = {(group["order"], group["reference"]) for group in report["groups"]}
    differing = _differing(report)
    run_table = [
        {**row, "commit": (row["git_commit"] or "")[:10], **{key: of[number] for key, of in differing.items()}}
        for number, row in enumerate(tables["runs"])
    ]
    return render(
        "report.html.jinja",
        title="How much harder is it to predict text in another order?"
        if len(orders) != 1
        else "How much harder is it to predict text {} than {}?".format(*next(iter(orders))),
        summary=summary_of(report["groups"], report["table"]["holm"]),
        groups=[*groups[:n_whole], *map(_without_cuts, groups[n_whole:])],
        across=across,
        random_effects=[{**m, "model": visible(m["model"])} for m in report["table"]["random_effects"]],
        tokenizers=tables.get("tokenizers"),
        tokenizer_columns=TOKENIZER_COLUMNS,
        tokenizer_gaps=tables.get("tokenizer_gaps"),
        tokenizer_gap_columns=TOKENIZER_GAP_COLUMNS,
        one_pair=ONE_PAIR,
        runs=run_table,
        run_columns=RUN_COLUMNS | {key: key for key in differing} | {"commit": "commit"},
        left_out=[*map(visible, report["left_out"])],
        text_columns=LEFT_ALIGNED,
        script=Markup(script),  # noqa: S704 - a file of ours
        script_hash=f"sha256-{digest}",
        version=VERSION,
        commit=git_commit(),
    )


def _without_cuts(group: Json) -> dict[str, Any]:
    """Leave out of a group what is large."""
    full = f"This page is full: where the gap of this group lives is in {FIGURES}/ and {TABLES}/ beside it."
    return {**group, "cuts": None} | ({"without_cuts": full, "commands": []} if group["cuts"] else {})


def _differing(report: Json) -> dict[str, list[str]]:
    """Give the settings in which the runs of all groups differ, by key, as they stand in the table of runs."""
    all_runs = report["runs"]
    keys = dict.fromkeys(key for run in all_runs for key in run["config"] if key not in views.NOT_SETTINGS)
    values = {key: [shown(run["config"].get(key)) for run in all_runs] for key in keys}
    return {key: of for key, of in values.items() if len({*of}) > 1 and key != "model.name"}
