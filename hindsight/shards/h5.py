"""The h5 format: one file of tokens, in the layout of the published code (arXiv:2401.17505).

The file holds one dataset with one dimension: in files of our converter the training stream followed by the validation
stream, stored contiguously. The manifest says where the first one ends.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import xxhash
from numpy.typing import NDArray

from hindsight.errors import InputError
from hindsight.shards.integrity import check_once, find_fault
from hindsight.shards.manifest import SPLITS, Manifest

if TYPE_CHECKING:
    import h5py  # imported late below: only this format needs it

H5_NAME = "tokens.h5"
"""Name of the file in a converted folder."""
H5_DATASET = "tokens"
"""Name of its dataset."""
H5_SUFFIXES = (".h5", ".hdf5")
HASH_KEY = "xxh64"
"""Key in the manifest's summary for the hash of each split's tokens."""
BUFFER_TOKENS = 1 << 20
"""Tokens that are copied at once."""


def open_tokens(path: Path) -> "h5py.Dataset":
    """Open the dataset of tokens; the caller closes its file.

    Raises:
        OSError: the file is missing, or no h5 file.
        ValueError: it has no one-dimensional dataset of integers, or refers to other files for it. Those are not read,
            because an h5 file from somebody else could name any file.
    """
    import h5py

    file = h5py.File(path, "r")
    tokens = file.get(H5_DATASET)
    fault = None
    if not isinstance(tokens, h5py.Dataset) or tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        fault = f"it has no one-dimensional dataset `{H5_DATASET}` of integers"
    elif tokens.external or tokens.is_virtual:
        fault = f"its {H5_DATASET} are not in the file itself, but in other files"
    if fault is not None:
        file.close()
        raise ValueError(fault)
    return cast("h5py.Dataset", tokens)


def write_tokens(path: Path, dtype: str, streams: list[Path]) -> list[str]:
    """Write an h5 file with the tokens of plain files, one after the other.

    A dataset that is stored contiguously needs its length beforehand; hence the plain files.

    Returns:
        The xxh64 of each stream.
    """
    import h5py

    n_tokens = sum(stream.stat().st_size for stream in streams) // np.dtype(dtype).itemsize
    hashes = []
    with h5py.File(path, "w") as file:
        stored = file.create_dataset(H5_DATASET, shape=(n_tokens,), dtype=dtype)
        start = 0
        for stream in streams:
            digest = xxhash.xxh64()
            with stream.open("rb") as tokens_file:
                while len(tokens := np.fromfile(tokens_file, dtype, BUFFER_TOKENS)):
                    stored[start : start + len(tokens)] = tokens
                    digest.update(tokens.data)
                    start += len(tokens)
            hashes.append(digest.hexdigest())
    return hashes


def check_tokens(folder: Path, manifest: Manifest, key: str) -> None:
    """Check both splits of an h5 file by their hashes, once for each state of the file, and their ids.

    Raises:
        InputError: one is not what it was when it was written.
    """
    hashes, start = manifest.summary.get(HASH_KEY, {}), 0
    for split in SPLITS:
        n_tokens = manifest.splits[split].tokens
        expected = {HASH_KEY: hashes[split]} if split in hashes else {}

        def find(start: int = start, n_tokens: int = n_tokens, expected: dict[str, str] = expected) -> str | None:
            tokens = read_in_pieces(folder / H5_NAME, start, start + n_tokens)
            return find_fault(b"", tokens, expected, manifest.vocab_size)

        try:
            fault = check_once(folder, folder / H5_NAME, f"{start} {n_tokens} {expected} {manifest.vocab_size}", find)
        except (OSError, ValueError) as error:
            fault = str(error)
        if fault is not None:
            raise InputError(
                f"{key}={folder}: {H5_NAME} is missing or damaged ({split}: {fault}); convert or copy the data again."
            )
        start += n_tokens


def read_in_pieces(path: Path, start: int, end: int) -> Iterator[NDArray]:
    """Read tokens of an h5 file; errors as for `open_tokens`, and ValueError if there are fewer."""
    tokens = open_tokens(path)
    with tokens.file:
        if len(tokens) < end:
            raise ValueError(f"it holds {len(tokens)} tokens, and manifest.json says {end}")
        for at in range(start, end, BUFFER_TOKENS):
            yield tokens[at : min(at + BUFFER_TOKENS, end)]
