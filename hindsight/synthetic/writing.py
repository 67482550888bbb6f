"""A corpus into a file, and the floor of a synthetic one beside it."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hindsight.config.made_corpus import CorpusKind, Setting
from hindsight.errors import InputError
from hindsight.files import write_atomically, written_atomically
from hindsight.synthetic.floors import floor_of, floor_path
from hindsight.synthetic.language import OPENING, Language, document_generator

log = logging.getLogger("hindsight")

DOCUMENTS_AT_ONCE = 4096
SEEN_SHARE = 0.05
"""Share of the law that the drawn documents may cover before a warning says so."""


def write_corpus(out: Path, pieces: Iterator[bytes]) -> bool:
    """Write a corpus from its pieces, unless it is there.

    Returns:
        Whether it was written.

    Raises:
        InputError: `out` holds something else.
    """
    if out.exists():
        if out.is_file() and _holds(out, pieces):
            log.info("%s: already there, nothing to do.", out)
            return False
        raise InputError(f"out={out} holds something else; choose another out, or remove it.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with written_atomically(out) as file:
        file.writelines(pieces)
    return True


def _holds(path: Path, pieces: Iterator[bytes]) -> bool:
    """Whether a file consists of these pieces."""
    with path.open("rb") as file:
        return all(file.read(len(piece)) == piece for piece in pieces) and not file.read(1)


def write_language(out: Path, kind: CorpusKind, settings: dict[str, Setting], language: Language) -> None:
    """Write documents of a language, and its floor to OUT.floor.json."""
    documents = int(settings["documents"])
    is_new = write_corpus(out, texts(language, documents, int(settings["seed"])))
    floor = floor_of(kind, settings, language)
    write_atomically(floor_path(out), json.dumps(floor, indent=2) + "\n")
    if is_new:
        log.info(
            "%s: %d documents of %d tokens; floor %.6f nats a token (%s).",
            out,
            documents,
            language.tokens,
            floor["nats_per_token"],
            floor_path(out).name,
        )
    if floor["seen_share"] > SEEN_SHARE:
        log.warning(
            "%s: %d documents are about %.0f%% of all that there are, and a held-out document is none of those that "
            "are trained on, which the floor does not take into account; take fewer, or longer ones.",
            out,
            documents,
            100 * floor["seen_share"],
        )


def texts(language: Language, documents: int, seed: int) -> Iterator[bytes]:
    """Yield the text of a corpus, many documents at a time; fewer documents are the beginning of more."""
    generator = document_generator(seed)
    opening = np.frombuffer(OPENING, np.uint8)
    for start in range(0, documents, DOCUMENTS_AT_ONCE):
        drawn = language.draw(DOCUMENTS_AT_ONCE, generator)[: documents - start]
        lines = np.full((len(drawn), len(opening) + language.characters + 2), ord("\n"), np.uint8)
        lines[:, : len(opening)] = opening
        lines[:, len(opening) : -2] = drawn
        is_last = start + DOCUMENTS_AT_ONCE >= documents
        yield lines.tobytes()[: -1 if is_last else None]
