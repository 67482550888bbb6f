"""Section of a study's report: gaps in tokens of each kind, in units that do not depend on the tokenizer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hindsight.analysis.across_tokenizers import gap_name
from hindsight.analysis.figure_style import lay_out, styled
from hindsight.analysis.gap_figures import GapRow, draw_rows
from hindsight.analysis.page import Figures, Table, Text
from hindsight.analysis.report_tables import TOKENIZER_COLUMNS
from hindsight.analysis.verdict import sign_of, tally
from hindsight.studies.report_groups import StudyGroups, drawable
from hindsight.studies.report_parts import FEW, Part, estimate

UNITS = {"nats_per_document": 1, "bits_per_byte": 4}
"""Units that do not depend on the tokenizer, with digits after the point."""
GAP_COLUMNS = {
    "name": "gap",
    "seeds": "seeds",
    "nats_per_document": "nats/document, 95% interval",
    "bits_per_byte": "bits/byte, 95% interval",
}
TEXT = {"name": "wide", **dict.fromkeys(("data", "model", "order", "text_order"), "")}


def tokenizers_section(groups: StudyGroups) -> Part:
    """Show the gap in tokens of each kind, in units that do not depend on the tokenizer."""
    texts = (groups.comparison or {}).get("across_tokenizers") or []
    if not texts:
        return Part([Text("No documents were compared in tokens of more than one kind.")])
    rows = [row | {"seeds": len(row["seeds"])} for text in texts for row in text["rows"]]
    gaps = [gap for text in texts for gap in text["gaps"]]
    text = (
        "The same documents in tokens of several kinds. Nats per token cannot be compared between these; nats per "
        "document and bits per byte can. If the tokens made the gap, it would change with them."
    )
    part = Part([Text(text)])
    if gaps:
        named = [(_name_of_kind(groups, texts, gap), gap) for gap in gaps]
        found = [GapRow(name, gap["bits_per_byte"], gap["bits_per_byte_interval"]) for name, gap in named]
        with styled():
            drawings = [draw_rows(found, "tokenizers", "gap (bits/byte)", "The gap in tokens of each kind.")]
            lay_out(drawings)
        of_gaps = [
            {"name": name, "seeds": len(gap["seeds"]) or "not paired"}
            | {unit: estimate(gap[unit], gap[f"{unit}_interval"], digits) for unit, digits in UNITS.items()}
            for name, gap in named
        ]
        part.blocks += [Figures(drawings), Table(GAP_COLUMNS, of_gaps, TEXT)]
        of_orders = [gap for gap in gaps if gap["reads"] is None]
        signs = [sign_of(gap["bits_per_byte_interval"]) for gap in of_orders]
        said = tally([gap["order"] for gap in of_orders], signs, "kinds of tokens")
        part.headline = f"In bits a byte, {said}" if of_orders else ""
        if any(gap["bits_per_byte_interval"] is None for gap in gaps):
            part.blocks.append(Text(FEW))
    part.blocks.append(Table(TOKENIZER_COLUMNS, rows, TEXT))
    return part


def _name_of_kind(groups: StudyGroups, texts: Sequence[Mapping[str, Any]], gap: Mapping[str, Any]) -> str:
    """Name a gap by the axes of the study; one between two kinds of tokens as the comparison does."""
    if gap["reads"] is not None:
        return drawable(gap_name(gap))
    keys = ("data", "model", "order", "vocab_size", "text_order", "is_both")
    alike = [row for text in texts for row in text["rows"] if all(row[key] == gap[key] for key in keys)]
    names = {Path(folder).name for row in alike for folder in row["runs"].values()}
    family = next(
        (
            each
            for each in groups.families
            if names & {Path(run.folder).name for of in each.runs.values() for run in of.values()}
        ),
        None,
    )
    return (
        drawable(gap_name(gap))
        if family is None
        else f"{family.name}: {gap['order']} against {gap['against']['order']}"
    )
