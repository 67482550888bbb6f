"""Samples of a corpus: documents drawn from all of it, by a seed."""

import hashlib
import logging
from collections import deque
from collections.abc import Iterator

from tqdm import tqdm

from hindsight.errors import InputError
from hindsight.text.digest import Digest, hash_document
from hindsight.text.documents import Corpus, Document
from hindsight.text.files import PARQUET
from hindsight.text.formats import describe_marks
from hindsight.text.parts import PART_BYTES
from hindsight.text.problems import ReadingReport

log = logging.getLogger("hindsight")

LEAST_PART_BYTES = 1 << 12
SAMPLE_PARTS = 256
"""Parts, at least, over which a sample is spread."""
MOST_PARTS = 100_000
"""Parts, at most, that are listed for the draw, unless parts of PART_BYTES are more."""


def documents_of(
    corpus: Corpus, sample_bytes: int | None, seed: int, reading: ReadingReport | None = None
) -> Iterator[Document]:
    """Yield the documents of a sample, in the order of the draw or of the corpus; all documents if no size is given.

    A sample consists of parts, drawn with equal probability until their documents reach the size. Only the drawn parts
    are read where the files allow random access; otherwise the corpus is read twice.

    Args:
        corpus: the corpus; its part_bytes is set to a size that suits the sample.
        sample_bytes: size to reach, in bytes of text.
        seed: seed of the draw.
        reading: records text that cannot be used.
    """
    reading = reading or ReadingReport()
    if sample_bytes is None:
        yield from corpus.documents(reading)
        return
    least = max(LEAST_PART_BYTES, (corpus.stored_bytes or 0) // MOST_PARTS)
    corpus.part_bytes = min(max(sample_bytes // SAMPLE_PARTS, least), PART_BYTES)
    if any(file.is_stream for file in corpus.files):
        raise InputError(
            f"sample_bytes= needs to read corpus={corpus.config.corpus} twice; give a file, or leave sample_bytes out."
        )
    left = sample_bytes
    if corpus.random_access:
        parts = list(corpus.parts())
        for number in _drawn_order(len(parts), seed):
            for document in corpus.read(parts[number], reading):
                left -= len(document.raw)
                yield document
            if left <= 0:
                return
        return
    unsigned = corpus.parts(signed=False)
    sizes = [sum(len(document.raw) for document in corpus.read(part, ReadingReport())) for part in unsigned]
    drawn = set[int]()
    for number in _drawn_order(len(sizes), seed):
        if left > 0:
            drawn.add(number)
            left -= sizes[number]
    for number, part in enumerate(corpus.parts(signed=False)):
        if number in drawn:
            yield from corpus.read(part, reading)


def _drawn_order(n_parts: int, seed: int) -> list[int]:
    def draw(number: int) -> bytes:
        return hashlib.blake2b(f"{seed} {number}".encode(), person=b"sample").digest()

    return sorted(range(n_parts), key=draw)


class Sample:
    """Documents of a sample, which are counted and hashed while they are read.

    Args:
        corpus: the corpus.
        sample_bytes: size to reach; None for the complete corpus.
        seed: seed of the draw.
    """

    def __init__(self, corpus: Corpus, sample_bytes: int | None, seed: int) -> None:
        self.corpus = corpus
        self.sample_bytes = sample_bytes
        self.seed = seed
        self.bytes = 0
        self._digest = Digest()
        self._reading = ReadingReport()

    @property
    def fingerprint(self) -> str:
        """Hash of the documents that were read."""
        return self._digest.fingerprint

    def texts(self) -> Iterator[str]:
        """Yield the documents, with a progress bar; InputError if there is none."""
        files = self.corpus.files
        plain = all(file.compression is None and file.kind != PARQUET for file in files)
        total = self.sample_bytes or (sum(file.size for file in files) or None if plain else None)
        with tqdm(total=total, desc="reading", unit="B", unit_scale=True, disable=None) as bar:
            for document in documents_of(self.corpus, self.sample_bytes, self.seed, self._reading):
                self.bytes += len(document.raw)
                self._digest = self._digest.then(Digest.of([hash_document(document.raw)]))
                bar.update(len(document.raw))
                yield document.text
        for problem in self._reading.problems:
            log.warning("%s", problem.message)
        if self._reading.marks:
            log.warning("corpus= has %s", describe_marks(self._reading.marks, self.corpus.config.separator))
        if not self.bytes:
            raise InputError(f"corpus={self.corpus.config.corpus} is empty: it holds no document; give one with text.")

    def read(self) -> "Sample":
        """Read all documents only to count and hash them."""
        deque(self.texts(), maxlen=0)
        return self
