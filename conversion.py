"""Bring a corpus into a folder of tokens: what all converters share.

A source (`token_sources.py`) gives tokens in order, each stretch with its split; a sink, one a format, stores them.
"""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from config import ConvertConfig, InputError
from manifest import (
    MANIFEST_NAME,
    SPLITS,
    Manifest,
    SplitCounts,
    entropy_nats,
    token_dtype,
)
from output_files import is_free, local_path, new_folder
from token_sources import BUFFER_TOKENS, Source, Stretch, check_ids, open_source
from tokenizer import Tokenizer

log = logging.getLogger("hindsight")

TOKENIZER_FOLDER = "tokenizer"
TOKENIZER_FILES = ("tokenizer*.json", "*_tokens*.json", "vocab.json", "merges.txt", "hindsight.json")


class Sink(Protocol):
    """Where tokens go."""

    def write(self, split: str, tokens: NDArray) -> None:
        """Store whole blocks of a split; only at its end a number that is no multiple of the block length."""
        ...

    def finish(self) -> None:
        """Complete the files."""
        ...

    def abandon(self) -> None:
        """Let go of the files after an error; they are removed afterwards."""
        ...


OpenSink = Callable[[Path, Manifest, int], Sink]


def convert(
    config: ConvertConfig, format_name: str, storage: dict[str, str | list[str] | None], sink: OpenSink
) -> None:
    """Convert a corpus, unless the same result is there.

    Args:
        config: the script's configuration.
        format_name: mds or h5.
        storage: the settings of the format that the stored files depend on.
        sink: opens the sink in a folder, for a conversion with that plan, with the id that fills up blocks.
    """
    if config.workers is not None:
        os.environ["RAYON_NUM_THREADS"] = str(config.workers)  # read when tokenizers starts its threads
    out = local_path("out", config.out)
    tokenizer = Tokenizer.load(config.tokenizer)
    source = open_source(config, tokenizer)
    dtype = token_dtype(tokenizer.vocab_size)
    plan = Manifest(
        format=format_name,
        tokenizer_fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        corpus_fingerprint="",
        block_length=config.block_length,
        blocks_per_shard=max(1, config.shard_bytes // (config.block_length * np.dtype(dtype).itemsize)),
        dtype=dtype,
        seed=source.seed,
        val_share=source.val_share,
        settings={**source.origin, **storage},
    )
    check_out(out, plan, ignored=("corpus_fingerprint",))
    plan.corpus_fingerprint = source.scan()
    check_out(out, plan)
    if not is_free(out):
        log.info("out=%s: already there, nothing to do.", out)
        return
    with new_folder(out) as folder:
        copy_tokenizer(Path(config.tokenizer).expanduser(), folder / TOKENIZER_FOLDER)
        plan.splits = store(source, sink(folder, plan, tokenizer.pad_id or 0), plan)
        plan.save(folder)
    log_summary(out, plan)


def check_out(out: Path, plan: Manifest, ignored: tuple[str, ...] = ()) -> None:
    """Raise InputError if `out` holds something else than what this plan would make."""
    if is_free(out):
        return
    if not (out / MANIFEST_NAME).is_file():
        raise InputError(f"out={out} holds something else; choose another out, or remove it.")
    difference = Manifest.load(out, key="out").difference(plan, ignored)
    if difference is not None:
        raise InputError(f"out={out} holds a conversion with {difference}; choose another out, or remove it.")


def copy_tokenizer(folder: Path, copy: Path) -> None:
    """Copy a tokenizer folder, without models that may lie in it."""
    copy.mkdir()
    for path in sorted({path for pattern in TOKENIZER_FILES for path in folder.glob(pattern)}):
        shutil.copyfile(path, copy / path.name)


def store(source: Source, sink: Sink, plan: Manifest) -> dict[str, SplitCounts]:
    """Bring all tokens from a source to a sink, and count them."""
    try:
        streams = {name: SplitStream(name, sink, plan) for name in SPLITS}
        for stretch in source.stretches():
            streams[stretch.split].append(stretch)
        for stream in streams.values():
            stream.flush(last=True)
        sink.finish()
    except BaseException:
        sink.abandon()
        raise
    return {name: stream.counts() for name, stream in streams.items()}


def log_summary(out: Path, manifest: Manifest) -> None:
    """Tell the user what was made."""
    for name, counts in manifest.splits.items():
        documents = "" if counts.documents is None else f"{counts.documents:,} documents, "
        log.info(
            f"out={out}: {name}: {documents}{counts.tokens:,} tokens in {counts.blocks:,} blocks, "
            f"{counts.bytes / counts.tokens:.2f} bytes/token, unigram entropy {counts.unigram_entropy_nats:.3f} nats."
        )


class SplitStream:
    """The tokens of a split on their way to the sink: counted, and handed on in whole blocks.

    Args:
        name: train or val.
        sink: where they go.
        plan: the conversion.
    """

    def __init__(self, name: str, sink: Sink, plan: Manifest) -> None:
        self.name = name
        self.sink = sink
        self.plan = plan
        self.documents: int | None = 0
        self.bytes = 0
        self.tokens = 0
        self.token_counts = np.zeros(plan.vocab_size, np.int64)
        self._buffer: list[NDArray] = []
        self._n_buffered = 0

    def append(self, stretch: Stretch) -> None:
        """Take the next tokens."""
        known = self.documents is not None and stretch.documents is not None
        self.documents = (self.documents or 0) + (stretch.documents or 0) if known else None
        self.bytes += stretch.bytes
        self._buffer.append(stretch.tokens)
        self._n_buffered += len(stretch.tokens)
        if self._n_buffered >= max(BUFFER_TOKENS, self.plan.block_length):
            self.flush()

    def flush(self, last: bool = False) -> None:
        """Hand on the whole blocks, and at the end the rest."""
        tokens = np.concatenate([np.empty(0, np.int64), *self._buffer])
        n_written = len(tokens) if last else len(tokens) // self.plan.block_length * self.plan.block_length
        self._buffer, self._n_buffered = [tokens[n_written:]], len(tokens) - n_written
        tokens = tokens[:n_written]
        if n_written:
            check_ids(tokens, self.plan.vocab_size)
            self.token_counts += np.bincount(tokens, minlength=self.plan.vocab_size)
            self.tokens += n_written
            self.sink.write(self.name, tokens.astype(self.plan.dtype))

    def counts(self) -> SplitCounts:
        """What went through."""
        blocks = -(-self.tokens // self.plan.block_length)
        return SplitCounts(self.documents, self.tokens, self.bytes, blocks, entropy_nats(self.token_counts))
