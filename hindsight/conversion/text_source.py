"""Text as a source of a conversion: documents -> tokens.

Documents are split before anything is cut into blocks, by a hash of what they say: equal documents are on the same
side, whatever line ends their format keeps around them.
"""

import hashlib
import itertools
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hindsight.config.conversion import ConvertConfig
from hindsight.conversion.source import Source, draws_of
from hindsight.conversion.token_part import TokenPart
from hindsight.errors import InputError
from hindsight.shards.manifest import LOSSY, token_dtype
from hindsight.text.digest import HASH_BYTES, Digest, content_of, hash_document
from hindsight.text.documents import CHECKED_FILES, Corpus, Document
from hindsight.text.finding import EMPTY
from hindsight.text.formats import describe_marks
from hindsight.text.parts import Part
from hindsight.text.problems import ReadingReport
from hindsight.tokenization.fast_encoding import choose_encoder
from hindsight.tokenization.hf_folder import text_order_of
from hindsight.tokenization.round_trip import require_round_trip
from hindsight.tokenization.tokenizer import Tokenizer

log = logging.getLogger("hindsight")

SAMPLE_BYTES = 1 << 18
"""Bytes of the corpus on which an encoder is checked."""
DOCUMENTS_AT_ONCE = 1 << 10
"""Documents whose tokens are arrays of their own for a while: an array takes far more than a short document."""
SPLIT_BY = "content"
"""The rule of the split, in the manifest."""
SPLIT_CONTENTS: dict[str, Callable[[bytes], bytes]] = {SPLIT_BY: content_of, "text": bytes}
"""What of a document is hashed, for each rule; `text` of earlier versions, whose conversions go on by it, told a text
with a line feed at its end from one without, as JSON has it."""
SAMPLE_PARTS = 8
"""Parts that they are from, if the corpus allows random access."""


class TextSource(Source):
    """Documents; EOS follows each."""

    action = "tokenizing"
    unit = "B"
    costly = True

    def __init__(self, config: ConvertConfig, tokenizer: Tokenizer, split_by: str = SPLIT_BY) -> None:
        self.config = config
        self.seed = config.seed
        self.val_share = config.val_share
        self.origin = {**config.reading(), "split_by": split_by, **({LOSSY: True} if config.lossy_tokenizer else {})}
        self.content_of = SPLIT_CONTENTS[split_by]
        self.where = f"corpus={config.corpus}, with corpus_format={config.corpus_format.value},"
        self.corpus = Corpus(config)
        self.total = self.corpus.stored_bytes
        self.stamp = self.corpus.stamp
        self.files = len(self.corpus.files) - self.corpus.not_taken.get(EMPTY, 0)
        self.not_taken = self.corpus.not_taken
        self.summary = {}
        self.tokenizer = tokenizer
        self.dtype = token_dtype(tokenizer.vocab_size)
        self.key = f"{tokenizer.fingerprint} {self.seed} {self.origin}"
        """What the tokens of a part depend on, besides its text; it enters the signatures of parts."""
        self._parts = self.corpus.parts()

    def prepare(self) -> None:
        """Choose the encoder, by a check on a sample of the corpus."""
        if self.corpus.random_access:
            parts = list(self.corpus.parts())
            chosen = parts[:: max(1, len(parts) // SAMPLE_PARTS)]
        else:
            chosen = list(itertools.islice(self._parts, 1))
            self._parts = itertools.chain(chosen, self._parts)
        reading = ReadingReport()
        texts = [text for part in chosen for text in self._first_texts(part, SAMPLE_BYTES // len(chosen), reading)]
        self.encoder = choose_encoder(self.tokenizer, self.config.encoder, texts)
        if reading.marks:
            log.warning("corpus= has %s", describe_marks(reading.marks, self.config.separator))
        where = f"tokenizer={self.config.tokenizer}"
        if self.tokenizer.dropout:
            log.info("%s leaves out merges at random (dropout=%g): here it does not.", where, self.tokenizer.dropout)
        trained_on = text_order_of(Path(self.config.tokenizer).expanduser())
        if trained_on not in (None, self.config.text_order):
            log.warning(
                "%s was trained on text_order=%s, and this is text_order=%s: its tokens fit less well.",
                where,
                trained_on.value,
                self.config.text_order.value,
            )
        require_round_trip(self.tokenizer, self.encoder, texts, self.config.lossy_tokenizer, where)

    def paths(self) -> list[str]:
        """Name some of the files, if parts are read from them."""
        files = self.corpus.files[:CHECKED_FILES] if self.corpus.random_access else []
        return [file.path for file in files if os.path.isfile(file.path)]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_parts": iter(())}  # only the process that hands out parts divides the corpus

    def _first_texts(self, part: Part, n_bytes: int, reading: ReadingReport) -> Iterator[str]:
        for document in self.corpus.read(part, reading):
            yield document.text[:n_bytes]
            n_bytes -= len(document.raw)
            if n_bytes <= 0:
                return

    def parts(self) -> Iterator[Part]:
        """Divide the corpus; the signatures cover the settings too."""
        for part in self._parts:
            yield part._replace(signature=hashlib.blake2b(f"{self.key} {part.signature}".encode()).hexdigest()[:32])
        self._parts = self.corpus.parts()

    def read(self, part: Part) -> TokenPart:
        """Encode the documents of a part."""
        reading, digest = ReadingReport(), Digest()
        ids: list[NDArray] = [np.empty(0, self.dtype)]
        lengths: list[NDArray] = [np.empty(0, np.int64)]
        n_bytes: list[NDArray] = [np.empty(0, np.int64)]
        split_hashes: list[bytes] = []
        end = np.array([self.tokenizer.eos_id], self.dtype)
        documents = self.corpus.read(part, reading)
        while few := list(itertools.islice(documents, DOCUMENTS_AT_ONCE)):
            encoded = [self.encoder.encode(document.text).astype(self.dtype) for document in few]
            ids.append(np.concatenate([each for tokens in encoded for each in (tokens, end)]))
            lengths.append(np.array([len(tokens) + 1 for tokens in encoded], np.int64))
            n_bytes.append(np.array([int(self.tokenizer.bytes_per_token[tokens].sum()) for tokens in encoded]))
            for document, size in zip(few, n_bytes[-1].tolist(), strict=True):
                self._require_whole(document, size)
            hashes = [hash_document(document.raw) for document in few]
            digest = digest.then(Digest.of(hashes))
            split_hashes.append(b"".join(map(self._split_hash, few, hashes)))
        numbers = np.frombuffer(b"".join(split_hashes), "<u8")[:: HASH_BYTES // 8]
        return TokenPart(
            part.signature,
            digest,
            np.concatenate(ids),
            np.concatenate(lengths),
            draws_of(numbers, self.seed),
            np.ones(len(numbers), np.int64),
            np.concatenate(n_bytes),
            numbers,
            [problem.message for problem in reading.problems],
            reading.empty,
            dict(reading.marks),
            reading.n_problems,
        )

    def _split_hash(self, document: Document, hashed: bytes) -> bytes:
        """Hash what the rule of the split looks at: mostly the document itself, which is hashed already."""
        content = self.content_of(document.raw)
        return hashed if content == document.raw else hash_document(content)

    def _require_whole(self, document: Document, n_bytes: int) -> None:
        """Raise InputError if the tokens of a document stand for another number of bytes, unless that is wanted."""
        if n_bytes != len(document.raw) and not self.config.lossy_tokenizer:
            start = document.raw.decode()[:40]
            raise InputError(
                f"tokenizer={self.config.tokenizer} does not give the text back: its tokens stand for {n_bytes} bytes "
                f"of the {len(document.raw)} of the document that begins with {start!r}; choose another "
                "tokenizer, or convert what its tokens stand for with lossy_tokenizer=true."
            )

    def digest(self, part: Part) -> Digest:
        """Hash the documents of a part."""
        return Digest.of([hash_document(document.raw) for document in self.corpus.read(part, ReadingReport())])
