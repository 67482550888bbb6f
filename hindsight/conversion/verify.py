"""Checks that a converted corpus is intact: every file against its index, all tokens against the manifest."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray
from tqdm import tqdm

from hindsight.conversion.corpus_statistics import add_counts
from hindsight.conversion.token_sources import ConvertedTokens, TokenRange
from hindsight.errors import InputError
from hindsight.shards.h5 import HASH_KEY
from hindsight.shards.manifest import LOSSY, MANIFEST_NAME, MDS, SPLITS, Manifest, entropy_nats
from hindsight.shards.mds import INDEX_NAME, read_index, read_shard_bytes, stored_file
from hindsight.tokenization.round_trip import loses_text
from hindsight.tokenization.tokenizer import Tokenizer


def verify_tokens(source: ConvertedTokens, tokenizer: Tokenizer) -> Iterator[str]:
    """Read everything, and yield a line for each deviation from the index or the manifest."""
    manifest = source.manifest
    try:
        fault = source.find_mismatch()
    except InputError as error:
        fault = str(error)
    if fault is not None:
        yield fault
        return
    token_counts: dict[str, NDArray[np.int64]] = {split: np.zeros(manifest.vocab_size, np.int64) for split in SPLITS}
    is_readable: dict[str, bool] = dict.fromkeys(SPLITS, True)
    digests = {split: xxhash.xxh64() for split in SPLITS}
    with tqdm(total=source.total, desc="checking", unit="tok", unit_scale=True, disable=None) as bar:
        for part in source.parts():
            try:
                tokens = source.read(part).tokens
                add_counts(token_counts[part.split], tokens)
                digests[part.split].update(tokens.tobytes())
            except (InputError, OSError) as error:
                is_readable[part.split] = False
                yield _where(part, error)
            bar.update(part.stored_bytes)
    for split in SPLITS:
        if is_readable[split]:
            yield from verify_counts(split, manifest, token_counts[split], tokenizer)
            if HASH_KEY in manifest.summary and manifest.summary[HASH_KEY][split] != digests[split].hexdigest():
                yield f"{split} has other tokens than when it was written, by their hash"
        if manifest.format == MDS:
            listed = {stored_file(shard)["basename"] for shard in open_index(source.folder / split)}
            for path in sorted((source.folder / split).iterdir()):
                if path.name not in listed | {INDEX_NAME}:
                    yield f"{split}/{path.name} is not in the index"


def verify_counts(
    split: str, manifest: Manifest, token_counts: NDArray[np.int64], tokenizer: Tokenizer
) -> Iterator[str]:
    """Yield a line for each count of the manifest that is not that of the tokens."""
    counts = manifest.splits[split]
    if counts.documents is not None and counts.documents != token_counts[tokenizer.eos_id]:
        yield f"{split} has {token_counts[tokenizer.eos_id]} documents, {MANIFEST_NAME} says {counts.documents}"
    n_bytes = int((token_counts * tokenizer.bytes_per_token).sum())
    # Older corpora count the bytes of the text, also where their tokenizer loses some.
    if n_bytes != counts.bytes and (manifest.settings.get(LOSSY) or not loses_text(tokenizer)):
        yield f"{split} stands for {n_bytes} bytes of text, {MANIFEST_NAME} says {counts.bytes}"
    if not np.isclose(entropy_nats(token_counts), counts.unigram_entropy_nats, rtol=1e-12):
        yield f"{split} has other tokens than {MANIFEST_NAME} says, by their entropy"


def verify_shards(folder: Path) -> Iterator[str]:
    """Read the shards of any MDS folder, and yield a line for each that is not what the index says."""
    for shard in open_index(folder):
        try:
            read_shard_bytes(folder, shard)
        except Exception as error:  # every decompressor raises errors of its own
            name = stored_file(shard)["basename"]
            yield str(error) if name in str(error) else f"{name} is damaged ({error})"


def open_index(folder: Path) -> list[dict[str, Any]]:
    """Read the entries of the shards in index.json; InputError if it is missing or damaged."""
    try:
        return read_index(folder)
    except (OSError, ValueError) as error:
        raise InputError(
            f"path={folder}: {INDEX_NAME} is missing or damaged ({error}); convert the corpus again."
        ) from error


def _where(part: TokenRange, error: Exception) -> str:
    return f"{part.split}, tokens {part.start} to {part.end}: {error}"
