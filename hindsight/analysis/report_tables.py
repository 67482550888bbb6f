"""The tables of a comparison: its groups, its runs, and each cut, as rows with units in the names of their columns."""

from collections.abc import Mapping, Sequence
from typing import Any

from hindsight.analysis.across_tokenizers import gap_name
from hindsight.runs import METRIC_NAMES

Rows = list[dict[str, Any]]
Json = Mapping[str, Any]
GROUP_COLUMNS = {
    "name": "group",
    "order": "order",
    "n_seeds": "seeds",
    "gap_nats": "gap (nats/token)",
    "interval_low_nats": "from",
    "interval_high_nats": "to",
    "relative_percent": "gap (%)",
    "null_nats": "null (nats/token)",
    "p": "p",
}
RUN_COLUMNS = {
    "model": "model",
    "order": "order",
    "seed": "seed",
    "n_parameters": "parameters",
    "tokens": "training tokens",
    "loss_nats": "loss (nats/token)",
    "bits_per_byte": "bits/byte",
}
TOKENIZER_COLUMNS = {
    "data": "data",
    "model": "model",
    "order": "order",
    "text_order": "text",
    "vocab_size": "vocabulary",
    "seeds": "seeds",
    "nats_per_document": "nats/document",
    "nats_per_document_std": "std",
    "bits_per_byte": "bits/byte",
    "bits_per_byte_std": "std",
}
TOKENIZER_GAP_COLUMNS = {
    "name": "gap",
    "n_seeds": "seeds",
    "nats_per_document": "nats/document",
    "nats_per_document_low": "from",
    "nats_per_document_high": "to",
    "bits_per_byte": "bits/byte",
    "bits_per_byte_low": "from",
    "bits_per_byte_high": "to",
}
BIN_COLUMNS = {
    "label": "tokens",
    "n_tokens": "number",
    "reference_nats": "reference (nats/token)",
    "order_nats": "order (nats/token)",
    "gap_nats": "gap (nats/token)",
    "gap_std_nats": "std over seeds",
    "contribution_nats": "contribution (nats)",
}
TOKEN_LISTS = {
    "contribution_harder": "that add most to the gap",
    "contribution_easier": "that take most from the gap",
    "mean_harder": "on which ORDER is harder by most",
    "mean_easier": "on which ORDER is easier by most",
}
PASSAGE_COLUMNS = {"text": "passage", "document": "document", "gap_nats": "gap (nats/token)"}


def tables_of(report: Json, cuts: Mapping[int, Json]) -> tuple[dict[str, Rows], dict[str, Mapping[str, str]]]:
    """Collect all tables.

    Args:
        report: the content of comparison.json.
        cuts: what `cuts_of` says of groups, by their numbers.

    Returns:
        Rows by the name of the table, and the columns that its LaTeX has.
    """
    holm = {row["name"]: row.get("p_holm") for row in (report.get("table") or {}).get("holm") or []}
    tables: dict[str, Rows] = {"groups": [group_row(group, holm.get(group["name"])) for group in report["groups"]]}
    tables["runs"] = run_rows(report)
    columns: dict[str, Mapping[str, str]] = {"groups": GROUP_COLUMNS, "runs": RUN_COLUMNS}
    if report["across_tokenizers"]:
        tables["tokenizers"] = [
            {"documents": text["documents"], "bytes": text["bytes"]}
            | {key: value for key, value in row.items() if key != "runs"}
            | {"seeds": len(row["seeds"])}
            for text in report["across_tokenizers"]
            for row in text["rows"]
        ]
        tables["tokenizer_gaps"] = [
            tokenizer_gap_row(gap) for text in report["across_tokenizers"] for gap in text["gaps"]
        ]
        columns |= {"tokenizers": TOKENIZER_COLUMNS, "tokenizer_gaps": TOKENIZER_GAP_COLUMNS}
    for number, of_group in cuts.items():
        group = report["groups"][number]["name"]
        for name, rows in cut_rows(of_group).items():
            table = f"cut_{name}"
            tables.setdefault(table, []).extend({"group": group, **row} for row in rows)
            columns[table] = PASSAGE_COLUMNS if name == "passages" else BIN_COLUMNS
    if len(cuts) > 1:
        columns = {name: {"group": "group", **of} if name.startswith("cut_") else of for name, of in columns.items()}
    return tables, columns


def group_row(group: Json, p_holm: float | None) -> dict[str, Any]:
    """Make the row of a group."""
    gap, null, bootstrap = group["gap"], group.get("null") or {}, group.get("bootstrap") or {}
    row = {key: group[key] for key in ("name", "data", "model", "reference", "order")} | {
        "n_seeds": len(group["seeds"])
    }
    row |= {"gap_nats": gap["mean_nats"], "std_nats": gap.get("std_nats")}
    row |= {"is_paired": group["is_paired"]}
    row |= _interval("interval", "nats", gap["paired_interval_nats"] or gap["welch_interval_nats"])
    row |= _interval("welch", "nats", gap["welch_interval_nats"])
    row |= {key: gap.get(key) for key in ("t", "degrees_of_freedom", "p", "p_welch")} | {"p_holm": p_holm}
    row |= {key: gap.get(key) for key in ("sign_flip_p", "sign_flip_smallest_p", "cohens_d", "relative_percent")}
    row |= _interval("relative", "percent", gap.get("relative_interval_percent"))
    for key in ("nats_per_document", "bits_per_byte"):
        row |= {key: gap.get(key)} | _interval(key, "", gap.get(f"{key}_interval"))
    row |= {"null_nats": null.get("mean_absolute_nats"), "null_percent": null.get("mean_absolute_percent")}
    row |= {"gap_over_null": null.get("ratio")} | _interval("bootstrap", "nats", bootstrap.get("interval_nats"))
    return row | {"bootstrap_coverage": bootstrap.get("coverage"), "verdict": group["verdict"]}


def tokenizer_gap_row(gap: Json) -> dict[str, Any]:
    """Make the row of a gap in tokens of one kind, or between two kinds."""
    row: dict[str, Any] = {"name": gap_name(gap), "n_seeds": len(gap["seeds"]), "reads": gap["reads"]}
    for unit in ("nats_per_document", "bits_per_byte"):
        row |= {unit: gap[unit]} | _interval(unit, "", gap[f"{unit}_interval"])
    return row


def _interval(name: str, unit: str, interval: Sequence[float] | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    ends = {"low": low, "high": high}
    return {f"{name}_{end}{unit and '_'}{unit}": value for end, value in ends.items()}


def run_rows(report: Json) -> Rows:
    """Make the row of each run; one of both orders has two."""
    rows: Rows = []
    for run in report["runs"]:
        row = {"folder": run["folder"], "order": run["direction"]}
        row |= {key: run.get(key) for key in ("seed", "data", "model", "n_parameters", "step", "tokens", *METRIC_NAMES)}
        row |= {key: run.get(key) for key in ("tokens_per_second", "git_commit")}
        rows.append(row | {key: run["metadata"].get(key) for key in ("data_fingerprint", "tokenizer_fingerprint")})
    return rows


def cut_rows(cuts: Json) -> dict[str, Rows]:
    """Make the rows of each cut of a group, and of what is listed of tokens and passages."""
    rows: dict[str, Rows] = {name: [*bins] for name, bins in cuts["cuts"].items()}
    rows["left_out"] = [
        {**split[part], "label": f"{split['label']}: {what}"}
        for split in cuts["left_out"]
        for part, what in (("rest", "the rest"), ("left_out", "left out"))
    ]
    rows["tokens"] = [{"list": key, **row} for key in TOKEN_LISTS for row in cuts["tokens"][key]]
    passages = cuts["passages"]
    rows["passages"] = [
        {
            "which": which,
            **{key: each[key] for key in ("document", "document_place", "row", "gap_nats", "gap_sum_nats")},
            **{key: each[key] for key in ("before", "text", "after")},
        }
        for key, which in (("order_harder", "harder by most"), ("order_easier", "easier by most"))
        for each in passages[key]
    ]
    return rows
