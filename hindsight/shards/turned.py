"""A dataset with every window turned: what a forward model reads of it is what a backward model reads of the original.

So a forward run on it must equal, bit for bit, a backward run on the original: the strictest control of a comparison.

    python -m hindsight.shards.turned FOLDER OUT CONTEXT_LENGTH
"""

import hashlib
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hindsight.errors import InputError
from hindsight.files import new_folder, write_atomically
from hindsight.shards.manifest import MDS, TOKENIZER_FOLDER, Manifest
from hindsight.shards.mds import INDEX_NAME, index_of, read_index, read_shard, write_shard


def write_turned(folder: Path, out: Path, context_length: int) -> None:
    """Write a converted corpus again, each window's tokens from the last to the first.

    Args:
        folder: the corpus, as convert_to_mds.py writes it.
        out: folder for the result; it must not hold anything. It has a fingerprint of its own.
        context_length: tokens in a window; must divide the block length. The last window of a split may be shorter.

    Raises:
        InputError: there is no such corpus, or no such windows in it; or another process writes the same folder.
    """
    manifest = Manifest.load(folder, "corpus")
    if manifest.format != MDS:
        raise InputError(f"corpus={folder} is {manifest.format}; windows are turned of what convert_to_mds.py writes.")
    if context_length < 1 or manifest.block_length % context_length:
        raise InputError(f"context_length={context_length} does not divide block_length={manifest.block_length}.")
    turned = f"{manifest.corpus_fingerprint} turned by {context_length}"
    manifest = replace(
        manifest,
        corpus_fingerprint=hashlib.sha256(turned.encode()).hexdigest(),
        settings=manifest.settings | {"turned": context_length},
    )
    with new_folder(out) as result:
        for split, counts in manifest.splits.items():
            (result / split).mkdir()
            entries, left = [], counts.tokens
            for number, entry in enumerate(read_index(folder / split)):
                tokens = read_shard(folder / split, entry, manifest.dtype, manifest.block_length).copy()
                _turn(tokens[:left], context_length)
                left -= len(tokens)
                blocks = tokens.reshape(-1, manifest.block_length)
                entries.append(write_shard(result / split, number, blocks, manifest))
            write_atomically(result / split / INDEX_NAME, index_of(entries))
        shutil.copytree(folder / TOKENIZER_FOLDER, result / TOKENIZER_FOLDER)
        manifest.save(result)


def _turn(tokens: NDArray[np.integer], context_length: int) -> None:
    """Turn the windows of a stream in place; the last one may be shorter."""
    whole = len(tokens) // context_length * context_length
    windows = tokens[:whole].reshape(-1, context_length)
    windows[:] = windows[:, ::-1].copy()
    tokens[whole:] = tokens[whole:][::-1].copy()


if __name__ == "__main__":
    write_turned(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
