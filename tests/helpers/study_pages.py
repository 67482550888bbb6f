"""A report of a study as its reader sees it: text, tables, and the numbers in their cells."""

import html
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from helpers.training_runs import by_step
from hindsight.analysis.page import Figures
from hindsight.studies.report_parts import Part
from hindsight.studies.results import STUDY_JSON, RunResult, StudyResult
from hindsight.studies.study_report import write_study_report


def read_result(folder: Path) -> StudyResult:
    """What study.json of a study's folder says."""
    values = json.loads((folder / STUDY_JSON).read_text())
    values["runs"] = [RunResult(**run) for run in values["runs"]]
    return StudyResult(**values)


class Study:
    """A study in its folder, and its report."""

    def __init__(self, out: Path, result: StudyResult) -> None:
        self.out, self.result = out, result
        self.written = write_study_report(out, result)
        self.html = (out / "report.html").read_text()
        self.markdown = (out / "report.md").read_text()

    @property
    def text(self) -> str:
        return text_of(self.html)

    def table(self, heading: str) -> list[dict[str, str]]:
        """The rows of the only table that has a heading, by headings."""
        [found] = [table for table in tables_of(self.html) if heading in table[0]]
        return [dict(zip(found[0], row, strict=True)) for row in found[1:]]


class Tables(HTMLParser):
    """Reads the cells of all tables."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.cell: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.cell = []

    def handle_data(self, data: str) -> None:
        if self.cell is not None:
            self.cell.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.tables[-1][-1].append("".join(self.cell or []))
            self.cell = None


def tables_of(page: str) -> list[list[list[str]]]:
    reader = Tables()
    reader.feed(page)
    return reader.tables


def text_of(page: str) -> str:
    """The text of a page that is read, figures left out."""
    body = re.sub(r"<svg.*?</svg>", "", page.split("</head>")[1], flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def markdown_tables(text: str) -> list[list[list[str]]]:
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    rows = [[re.split(r" \| ", line[2:-2]) for line in block.splitlines()] for block in blocks]
    return [[[plain(cell) for cell in row] for row in (of[0], *of[2:])] for of in rows]


def plain(text: str) -> str:
    """What Markdown shows of a text."""
    return html.unescape(re.sub(r"\\(.)", r"\1", text))


def last_losses(results: list[RunResult], **axes: Any) -> np.ndarray:
    """Last validation losses, by seed, as metrics.jsonl has them."""
    found = [run for run in results if axes.items() <= run.axes.items() and not run.is_sweep]
    found.sort(key=lambda run: run.axes["seed"])
    return np.array([[*by_step(Path(run.folder), "eval/loss_nats").values()][-1] for run in found])


def half_of(values: np.ndarray) -> float:
    """Half of the 95% interval of a mean."""
    return float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))


def numbers(cell: str) -> list[float]:
    return [float(text.replace("\u2212", "-").replace(",", "")) for text in re.findall(r"[+\u2212-]?[\d.,]*\d", cell)]


def assert_shown(cell: str, *expected: float) -> None:
    """Whether a cell has these numbers, each to the digits that are shown."""
    found = numbers(cell)
    assert len(found) == len(expected), cell
    digits = [len(text.partition(".")[2]) for text in re.findall(r"[\d,]*\.?\d+", cell)]
    for one, other, n in zip(found, expected, digits, strict=True):
        assert one == pytest.approx(other, abs=0.51 * 10**-n), cell


def figures_of(section: Part) -> list[Figures]:
    """The blocks of a section that hold figures."""
    return [block for block in section.blocks if isinstance(block, Figures)]
