"""Section of a study's report: gaps in tokens of each kind, in units that do not depend on the tokenizer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hindsight.analysis.across_tokenizers import gap_name
from hindsight.analysis.figure_style import Drawing, lay_out, styled
from hindsight.analysis.gap_figures import GapRow, draw_rows
from hindsight.analysis.page import Figures, Table, Text
from hindsight.analysis.report_tables import TOKENIZER_COLUMNS
from hindsight.analysis.verdict import short_tally, sign_of, tally
from hindsight.studies.report_groups import BY_CHARACTERS, StudyGroups, drawable, reads_characters_the_other_way
from hindsight.studies.report_parts import FEW, REVERSED, Part, by_characters, corrected, estimate

UNITS = {"nats_per_document": 1, "bits_per_byte": 4}
"""Units that do not depend on the tokenizer, with digits after the point."""
GAP_COLUMNS = {
    "name": "gap",
    "seeds": "seeds",
    "nats_per_document": "nats/document, 95% interval",
    "bits_per_byte": "bits/byte, 95% interval",
}
KINDS = "kinds of tokens"
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
        of_gaps = [
            {"name": name, "seeds": len(gap["seeds"]) or "not paired"}
            | {unit: estimate(gap[unit], gap[f"{unit}_interval"], digits) for unit, digits in UNITS.items()}
            for name, gap in named
        ]
        of_orders = [(name, gap) for name, gap in named if gap["reads"] is None]
        if of_orders:
            part.blocks.append(Figures([_drawn(of_orders)]))
        part.blocks.append(Table(GAP_COLUMNS, of_gaps, TEXT))
        if of_orders:
            counted = _signs_of([gap for _, gap in of_orders])
            part.headline, counts = (f"In bits a byte, {of(*counted, KINDS)}" for of in (short_tally, tally))
            part.counts = [("", counts)]
        if any(map(_is_the_other_way, gaps)):
            part.blocks.append(Text(REVERSED))
        if any(gap["bits_per_byte_interval"] is None for gap in gaps):
            part.blocks.append(Text(FEW))
    part.blocks.append(Table(TOKENIZER_COLUMNS, rows, TEXT))
    return part


def _is_the_other_way(gap: Mapping[str, Any]) -> bool:
    return gap["reads"] is None and reads_characters_the_other_way(
        gap["text_order"], gap["against"]["order"], gap["order"]
    )


def _drawn(named: Sequence[tuple[str, Mapping[str, Any]]]) -> Drawing:
    """Draw the gaps of orders; those between two kinds of tokens are in the table alone."""
    rows = [GapRow(name, gap["bits_per_byte"], gap["bits_per_byte_interval"]) for name, gap in named]
    with styled():
        drawing = draw_rows(rows, "tokenizers", "gap (bits/byte)", "The gap in tokens of each kind.")
        lay_out([drawing])
    return drawing


def _signs_of(gaps: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[int | None], list[float | None]]:
    """Give orders, signs and corrected p values of gaps, by how characters are read."""
    signs = [sign_of(gap["bits_per_byte_interval"]) for gap in gaps]
    p_holm = corrected([gap["bits_per_byte_p"] for gap in gaps], signs)
    return *by_characters([gap["order"] for gap in gaps], signs, [*map(_is_the_other_way, gaps)]), p_holm


def _name_of_kind(groups: StudyGroups, texts: Sequence[Mapping[str, Any]], gap: Mapping[str, Any]) -> str:
    """Name a gap by the axes of the study; as the comparison does where its runs are not of the study."""
    family = _family_of(groups, texts, gap)
    if family is None:
        return drawable(gap_name(gap))
    if gap["reads"] is None:
        characters = f", {BY_CHARACTERS}" if _is_the_other_way(gap) else ""
        return f"{family}: {gap['order']} against {gap['against']['order']}{characters}"
    against = _family_of(groups, texts, gap["against"]) or drawable(f"{gap['against']['data']}")
    return f"{family}: {gap['order']}, which reads {gap['reads']}, against {gap['against']['order']} of {against}"


def _family_of(groups: StudyGroups, texts: Sequence[Mapping[str, Any]], of: Mapping[str, Any]) -> str | None:
    """Name the family of the runs of one side of a gap."""
    keys = [key for key in ("data", "model", "order", "vocab_size", "text_order", "is_both") if key in of]
    alike = [row for text in texts for row in text["rows"] if all(row[key] == of[key] for key in keys)]
    names = {Path(folder).name for row in alike for folder in row["runs"].values()}
    for family in groups.families:
        if names & {Path(run.folder).name for of_order in family.runs.values() for run in of_order.values()}:
            return family.name
    return None
