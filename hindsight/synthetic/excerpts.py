"""The beginning of every document of a corpus: many authors, and few bytes of each."""

from collections.abc import Iterator

from hindsight.config.corpus import CorpusConfig
from hindsight.text.documents import Corpus


def excerpts(corpus: str, document_bytes: int) -> Iterator[bytes]:
    """Yield the text of a corpus in the format cc100 whose documents are shortened.

    Args:
        corpus: corpus= of the text, as for a conversion.
        document_bytes: whole lines are taken while they do not exceed it, line feeds counted; the first one always.
    """
    separator = b""
    for document in Corpus(CorpusConfig(corpus=corpus)).documents():
        taken = 0
        for line in document.raw.split(b"\n"):
            if not line:
                continue
            if taken and taken + len(line) + 1 > document_bytes:
                break
            taken += len(line) + 1
            yield (b"" if taken > len(line) + 1 else separator) + line + b"\n"
        separator = b"\n"
