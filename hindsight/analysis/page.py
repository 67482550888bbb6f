"""A page as data, written twice: as one HTML file that loads nothing, and as Markdown with the same content.

Who makes a page writes no markup. Text may hold anything, such as the name of a folder: it is escaped here.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hindsight.analysis.figure_style import Drawing
from hindsight.analysis.rendering import FIGURES, render, stored
from hindsight.analysis.tables import shown
from hindsight.files import write_atomically
from hindsight.shown_text import one_line, visible, without_credentials

FOOTER = "---"
"""Line of the Markdown behind which its footer stands."""
LIVE = re.compile(r"([\\`*\[\]|~$])|((?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
"""Characters that Markdown would obey within a line."""
AT_START = re.compile(r"^(\s*\d*)([#+=.)-])(?=[\s#=-]|$)")
"""What it would obey at the beginning of a line."""


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    style: str = ""
    """`note` for what is small, `warning` for what a reader must know; a class of report.css."""


@dataclass(frozen=True)
class Bullets:
    """A list; each of its items has a lead, such as the name of a group, which may be empty."""

    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """Rows of numbers and texts."""

    columns: Mapping[str, str]
    """Headings, by keys of the rows."""
    rows: Sequence[Mapping[str, Any]]
    texts: Mapping[str, str]
    """Columns of text, and how their cells look: a class of report.css."""
    title: str | None = None
    """Of a table that HTML shows when its title is clicked; None for one that is open."""


@dataclass(frozen=True)
class Figures:
    """Figures side by side."""

    drawings: Sequence[Drawing]


@dataclass(frozen=True)
class Code:
    """Lines to be typed."""

    lines: Sequence[str]
    title: str | None = None
    """As that of a table."""


@dataclass(frozen=True)
class Links:
    """Files beside the page."""

    links: Sequence[tuple[str, str]]
    """What each is, and its path from the page."""


Block = Text | Bullets | Table | Figures | Code | Links


@dataclass
class Section:
    """A part of a page under a heading."""

    id: str
    title: str
    blocks: list[Block] = field(default_factory=list[Block])


@dataclass
class Page:
    """A page."""

    title: str
    verdict: str
    """The answer, first and large."""
    head: list[Block]
    """What stands before the first heading."""
    sections: list[Section]
    footer: list[str]
    """Lines at the end: all that may differ where the same is reported twice, such as a date."""


def write_page(out: Path, page: Page, html: str, markdown: str) -> list[Path]:
    """Write a page and its figures into a folder that exists.

    Args:
        out: the folder.
        page: what is written.
        html: name of the HTML file.
        markdown: name of the Markdown file.

    Returns:
        The files, the page first.
    """
    (out / FIGURES).mkdir(exist_ok=True)
    written: list[Path] = []
    parts = [(None, page.head), *((section, section.blocks) for section in page.sections)]
    views = [(section, [_view(block, out, written) for block in blocks]) for section, blocks in parts]
    values = {"title": _said(page.title), "verdict": _said(page.verdict), "footer": [*map(_said, page.footer)]}
    sections = [
        {"id": section.id, "title": _said(section.title), "blocks": of} for section, of in views if section is not None
    ]
    write_atomically(out / html, render("page.html.jinja", **values, head_blocks=views[0][1], sections=sections))
    write_atomically(out / markdown, _markdown(page))
    return [out / html, out / markdown, *written]


def _said(text: str) -> str:
    """Make a text fit to be read: in one line, without control characters and credentials."""
    return visible(one_line(without_credentials(text)))


def _view(block: Block, out: Path, written: list[Path]) -> dict[str, Any]:
    """Give a block as the template takes it; figures are written."""
    match block:
        case Text():
            return {"kind": "text", "text": _said(block.text), "style": block.style}
        case Bullets():
            return {"kind": "bullets", "items": [(_said(lead), _said(text)) for lead, text in block.items]}
        case Table():
            columns = {key: _said(heading) for key, heading in block.columns.items()}
            rows = [{key: _said(shown(row[key])) for key in columns} for row in block.rows]
            return {"kind": "table", "columns": columns, "rows": rows, "texts": block.texts, "title": block.title}
        case Figures():
            return {"kind": "figures", "figures": stored(block.drawings, out, "", written)}
        case Code():
            return {"kind": "code", "lines": [*map(_said, block.lines)], "title": block.title}
        case Links():
            return {"kind": "links", "links": [(_said(text), path) for text, path in block.links]}


def _markdown(page: Page) -> str:
    parts = [f"# {escaped(page.title)}", f"**{escaped(page.verdict)}**", *map(_block_in_markdown, page.head)]
    for section in page.sections:
        parts += [f"## {escaped(section.title)}", *map(_block_in_markdown, section.blocks)]
    return "\n\n".join([*parts, FOOTER, *map(escaped, page.footer)]) + "\n"


def _block_in_markdown(block: Block) -> str:
    match block:
        case Text():
            return f"> **Note:** {escaped(block.text)}" if block.style == "warning" else escaped(block.text)
        case Bullets():
            return "\n".join(
                f"- **{escaped(lead)}**: {escaped(text)}" if lead else f"- {escaped(text)}"
                for lead, text in block.items
            )
        case Table():
            lines = [block.columns, {key: ":--" if key in block.texts else "--:" for key in block.columns}]
            head = " | ".join(escaped(heading) for heading in lines[0].values())
            rows = [" | ".join(escaped(shown(row[key])) for key in block.columns) for row in block.rows]
            table = "\n".join(f"| {line} |" for line in [head, " | ".join(lines[1].values()), *rows])
            return f"{escaped(block.title)}:\n\n{table}" if block.title else table
        case Figures():
            return "\n\n".join(
                f"![{escaped(each.caption)}]({FIGURES}/{each.name}.png)\n\n*{escaped(each.caption)}*"
                for each in block.drawings
            )
        case Code():
            text = "\n".join(map(_said, block.lines))
            fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
            code = f"{fence}\n{text}\n{fence}"
            return f"{escaped(block.title)}:\n\n{code}" if block.title else code
        case Links():
            return " · ".join(f"[{escaped(text)}]({path})" for text, path in block.links)


def escaped(text: str) -> str:
    """Write a text in Markdown so that it is shown as it is."""
    text = _said(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return AT_START.sub(r"\1\\\2", LIVE.sub(r"\\\g<0>", text))
