"""Text and tables in the width of a usual terminal."""

import textwrap
from collections.abc import Sequence

WIDTH = 80
"""Columns of the usual terminal."""


LABEL = 20
"""Columns of a label and the indentation before it."""


def counted(n: int, noun: str) -> str:
    """Write a number of things."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def labelled(label: str, text: str) -> str:
    """Write a text behind its label, the lines of it below each other."""
    indent = " " * LABEL
    lines = textwrap.fill(text, WIDTH - LABEL, break_long_words=False, break_on_hyphens=False).splitlines()
    return "\n".join([f"  {label}".ljust(LABEL) + lines[0], *(indent + line for line in lines[1:])])


def wrapped(text: str) -> str:
    """Break a text into lines of 80 columns, the paths in it left whole."""
    return textwrap.fill(text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Pad the cells of a table: the first column to the left, the others to the right; one cell alone is a line."""
    cells = [row for row in rows if len(row) > 1]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = iter("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells)
    return "\n".join(row[0] if len(row) == 1 else next(lines).rstrip() for row in rows)
