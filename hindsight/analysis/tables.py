"""Tables as CSV for spreadsheets, JSON for programs, and LaTeX for papers; and numbers as people read them.

CSV and JSON have every digit and every column; LaTeX has four significant digits, and the columns that fit a page.
"""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hindsight.files import write_atomically
from hindsight.shown_text import visible

Row = Mapping[str, Any]
DIGITS = 4
"""Significant digits of numbers that are shown."""
MISSING = "\u2013"
TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\u2212": "$-$",
    "\n": " ",
    "\t": " ",
}
"""Characters that LaTeX would obey, or its usual fonts lack."""


def shown(value: Any, sign: str = "") -> str:
    """Write a value for people: numbers with four significant digits, whole ones with all.

    Args:
        value: a number, a text, or None.
        sign: "+" to show that of positive numbers.
    """
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:{sign},}".replace("-", "\u2212")
    if not isinstance(value, float):
        return visible(str(value))
    if not math.isfinite(value):
        return MISSING
    rounded = float(f"{value:.{DIGITS - 1}e}")
    exponent = math.floor(math.log10(abs(rounded))) if rounded else 0
    text = f"{rounded:{sign},.{max(0, DIGITS - 1 - exponent)}f}" if exponent > -5 else f"{rounded:{sign}.{DIGITS - 1}e}"
    return text.replace("-", "\u2212")


def cell(value: Any) -> Any:
    """Make a value a cell that a spreadsheet does not compute: a folder may be called =1+1."""
    if not isinstance(value, str):
        return value
    return f"'{visible(value)}" if value.startswith(("=", "+", "-", "@", "\t")) else visible(value)


def csv_of(rows: Sequence[Row]) -> str:
    """Write rows as CSV, with the columns of the first."""
    table = io.StringIO()
    writer = csv.DictWriter(table, [cell(key) for key in rows[0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows({cell(key): cell(value) for key, value in row.items()} for row in rows)
    return table.getvalue()


def tex_of(rows: Sequence[Row], columns: Mapping[str, str]) -> str:
    """Write rows as a LaTeX table.

    Args:
        rows: what is written.
        columns: headings by the keys of the columns.
    """
    is_number = [all(isinstance(row[key], int | float | None) for row in rows) for key in columns]
    lines = [
        "% \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{{''.join('r' if number else 'l' for number in is_number)}}}",
        "\\toprule",
        " & ".join(map(_tex, columns.values())) + r" \\",
        "\\midrule",
        *(" & ".join(_tex(shown(row[key])) for key in columns) + r" \\" for row in rows),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def write_tables(
    folder: Path, tables: Mapping[str, Sequence[Row]], columns: Mapping[str, Mapping[str, str]]
) -> list[Path]:
    """Write tables that have rows, each in three formats.

    Args:
        folder: where to.
        tables: rows by the name of the table; all rows of a table have the same keys.
        columns: for each table the columns of its LaTeX, with their headings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for name, rows in tables.items():
        if rows:
            texts = {"csv": csv_of(rows), "json": json.dumps([*rows], indent=1), "tex": tex_of(rows, columns[name])}
            for ending, text in texts.items():
                written.append(folder / f"{name}.{ending}")
                write_atomically(written[-1], text)
    return written


def _tex(text: str) -> str:
    return "".join(TEX.get(character, character) for character in text)
