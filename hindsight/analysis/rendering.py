"""What the pages of reports share: templates in which text is escaped, and figures stored beside a page and in it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hindsight.analysis.figure_style import Drawing, save, svg_of
from hindsight.analysis.tables import shown

FIGURES = "figures"
"""Folder beside a page."""
TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **values: Any) -> str:
    """Fill in a template; text is escaped, the style sheet is `css`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["shown"] = shown
    css = Markup(template_text("report.css"))  # noqa: S704 - a file of ours
    return environment.get_template(template).render(css=css, **values)


def template_text(name: str) -> str:
    """Read a file of the templates."""
    return (TEMPLATES / name).read_text("utf-8").strip()


def stored(drawings: Sequence[Drawing], out: Path, prefix: str, written: list[Path]) -> list[dict[str, Any]]:
    """Write figures, and give them as a page shows them.

    Args:
        drawings: the figures.
        out: folder of the page.
        prefix: of the names of their files; empty for none.
        written: gets the files.
    """
    from markupsafe import Markup

    shown_figures = []
    for drawing in drawings:
        name = f"{prefix}-{drawing.name}" if prefix else drawing.name
        written += save(drawing.figure, out / FIGURES / name)
        svg = Markup(svg_of(drawing.figure, name, drawing.caption))  # noqa: S704 - matplotlib escapes text in SVG
        shown_figures.append(
            {"svg": svg, "caption": drawing.caption, "path": f"{FIGURES}/{name}", "is_wide": drawing.is_wide}
        )
    return shown_figures
