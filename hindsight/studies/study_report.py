"""The report of a study: a page, the same as Markdown, its figures, and the table of its runs.

Everything is computed from the result of the study and from comparison.json, so that the same results give the same
files, byte for byte, but for the footer of the page, which says when and where the study was run.
"""

import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hindsight.analysis.html_report import remove_report
from hindsight.analysis.page import Block, Bullets, Figures, Links, Page, Section, Text, write_page
from hindsight.analysis.rendering import FIGURES
from hindsight.errors import InputError
from hindsight.files import write_atomically
from hindsight.provenance import VERSION, git_commit
from hindsight.studies.report_exact import exact_section
from hindsight.studies.report_floors import floors_section
from hindsight.studies.report_gaps import curves_section, gap_section, null_section
from hindsight.studies.report_groups import StudyGroups, group_study
from hindsight.studies.report_parts import Part
from hindsight.studies.report_rates import learning_rate_section
from hindsight.studies.report_runs import made_section, provenance_lines, runs_csv, runs_section, told_of_state
from hindsight.studies.report_tokenizers import tokenizers_section
from hindsight.studies.results import COMPARISON, REPORT_HTML, REPORT_MD, RUNS_CSV, StudyResult

COMPARISON_JSON = "comparison.json"
SECTIONS: dict[str, tuple[str, Callable[[StudyGroups], Part]]] = {
    "gap": ("The gap beside its null", gap_section),
    "curves": ("Losses over training", curves_section),
    "floors": ("Losses beside their floors", floors_section),
    "learning_rate": ("Is it the learning rate?", learning_rate_section),
    "tokenizers": ("Is it the tokenizer?", tokenizers_section),
    "null": ("The null: the same order, other seeds", null_section),
    "exact": ("What must be equal bit for bit", exact_section),
}
"""Sections that a study may ask for, by the words of its `report:`."""
NO_ANSWER = "There is no answer yet: no two runs that can be compared are done."
MOST_SAID = 4
"""Groups of which each has a sentence at the head of the page; more are in the tables alone."""
OURS = re.compile(r"(gap(_against_\w+)?|curves\d*|floors\d*|learning_rate\d*|tokenizers|null)\.(png|pdf)")
"""Names of our figures: of no others is any removed."""


def write_study_report(out: Path, result: StudyResult) -> list[Path]:
    """Write report.html, report.md, figures/ and runs.csv of a study into its folder, which is made if it is missing.

    Args:
        out: the folder; of comparison/ in it, comparison.json is read if it is of these runs at these steps.
        result: what the study has found; of runs that are missing or failed, the report says so.

    Returns:
        The files, the page first.

    Raises:
        InputError: comparison.json is damaged, or `report:` asks for a section that there is none of.
    """
    out.mkdir(parents=True, exist_ok=True)
    groups = group_study(result, _comparison(out, result))
    written = write_page(out, _page(out, groups), REPORT_HTML, REPORT_MD)
    write_atomically(out / RUNS_CSV, runs_csv(result))
    for path in (out / FIGURES).iterdir():
        if OURS.fullmatch(path.name) and path not in written:
            path.unlink()
    return [*written, out / RUNS_CSV]


def _comparison(out: Path, result: StudyResult) -> dict[str, Any] | None:
    """Read comparison.json; None where there is none, or it is of other runs or of other steps than the result."""
    path = out / COMPARISON / COMPARISON_JSON
    if result.comparison_error is not None or not path.exists():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); remove it, and the study compares its runs anew.") from None
    steps = {run.folder: run.evaluations[-1]["step"] for run in result.runs if run.evaluations}
    is_of_these = all(steps.get(run["folder"]) == run["step"] for run in found["runs"])
    return found if is_of_these else None


def remove_comparison(folder: Path) -> None:
    """Remove what compare_directions.py has written into the folder of a comparison, and nothing else there."""
    with suppress(NotADirectoryError):
        for name in (COMPARISON_JSON, "comparison.csv", "comparison.png"):
            (folder / name).unlink(missing_ok=True)
        remove_report(folder)


def _page(out: Path, groups: StudyGroups) -> Page:
    result = groups.result
    asked = [str(name) for name in result.study.get("report") or ["gap", "curves"]]
    unknown = [name for name in asked if name not in SECTIONS]
    if unknown:
        raise InputError(f"report: {unknown[0]} is no section; choose from {', '.join(SECTIONS)}.")
    parts = {name: SECTIONS[name][1](groups) for name in asked}
    verdict = next((part.headline for part in parts.values() if part.headline), NO_ANSWER)
    answers = [each for each in _answers([*parts.values()]) if each != ("", verdict)]
    failed = result.comparison_error
    not_compared: list[Block] = [Text(f"The runs could not be compared: {failed}", "warning")] if failed else []
    head: list[Block] = [
        *told_of_state(result),
        *not_compared,
        *_main_figure(parts),
        *([Bullets(answers)] if answers else []),
        *(block for part in parts.values() for block in part.tables),
    ]
    sections = [Section("runs", "Runs", [*runs_section(result), _links(out)])]
    sections += [Section(name.replace("_", "-"), SECTIONS[name][0], part.blocks) for name, part in parts.items()]
    sections.append(Section("made", "How it was made", made_section(result)))
    return Page(result.question, verdict, head, sections, _footer(result))


def _answers(parts: Sequence[Part]) -> list[tuple[str, str]]:
    """Give what all sections have found, each in its counts, or in its headline where that says all."""
    answers: list[tuple[str, str]] = []
    for part in parts:
        answers += part.counts or ([("", part.headline)] if part.headline else [])
        answers += part.answers if len(part.answers) <= MOST_SAID else []
    return answers


def _main_figure(parts: dict[str, Part]) -> list[Block]:
    """Take the first figure from its section: it stands at the head of the page."""
    for part in parts.values():
        for place, block in enumerate(part.blocks):
            if isinstance(block, Figures) and block.drawings:
                part.blocks[place] = Figures(block.drawings[1:])
                if len(block.drawings) == 1:
                    part.blocks[place] = Text("The figure is at the top of the page.", "note")
                return [Figures(block.drawings[:1])]
    return []


def _links(out: Path) -> Links:
    found = [("runs.csv: all runs with all digits and commands", RUNS_CSV)]
    page = f"{COMPARISON}/report.html"
    return Links([*found, *([("comparison of all groups", page)] if (out / page).exists() else [])])


def _footer(result: StudyResult) -> list[str]:
    commit = git_commit()
    of_commit = f", commit {commit}" if commit else ""
    made = f"Made by run_study.py {VERSION}{of_commit}: study={result.name} scale={result.scale}."
    units = "Losses are nats per token; 1 nat is 1.443 bits. Gaps are the order minus its reference."
    return [f"{made} {units}", *provenance_lines(result)]
