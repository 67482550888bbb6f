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
OWN_FILTERS = {1, 2, 3, 4, 5, 6, 32000}
"""Filters that HDF5 and h5py bring along: deflate, shuffle, fletcher32, szip, nbit, scaleoffset, and h5py's lzf."""
MAX_CHUNK_BYTES = 1 << 28
"""A chunk is in memory as a whole, whatever part of it is read, and may take next to nothing in the file."""
BUFFER_TOKENS = 1 << 20
"""Tokens that are copied at once."""


def open_tokens(path: Path) -> "h5py.Dataset":
    """Open the dataset of tokens; the caller closes its file.

    Raises:
        OSError: the file is missing, or no h5 file.
        ValueError: its tokens are no plain dataset of integers. Links, other files and filters that would be loaded
            from elsewhere are not followed, because an h5 file from somebody else could name any file.
    """
    import h5py

    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file")
    file = h5py.File(path, "r")
    try:
        fault = _find_link(file) or _find_odd_storage(file)
    except (KeyError, RuntimeError, TypeError) as error:  # h5py's for a file that is damaged inside
        fault = f"its {H5_DATASET} cannot be read: {error}"
    except OSError:
        file.close()
        raise
    if fault is not None:
        file.close()
        raise ValueError(fault)
    return cast("h5py.Dataset", file[H5_DATASET])


def _find_link(file: "h5py.File") -> str | None:
    """Say what `tokens` is, if it is not in the file itself; looked up without following it."""
    import h5py

    link = file.get(H5_DATASET, getlink=True)
    if isinstance(link, h5py.ExternalLink | h5py.SoftLink):
        return f"its {H5_DATASET} are not in the file itself, but a link"
    tokens = file[H5_DATASET] if link is not None else None
    if not isinstance(tokens, h5py.Dataset) or tokens.ndim != 1:
        return f"it has no one-dimensional dataset `{H5_DATASET}` of integers"
    if tokens.external or tokens.is_virtual:
        return f"its {H5_DATASET} are not in the file itself, but in other files"
    return None


def _find_odd_storage(file: "h5py.File") -> str | None:
    """Say why `tokens` are not plain integers that the library itself can read; None if they are."""
    import h5py

    tokens = cast("h5py.Dataset", file[H5_DATASET])
    number, settings = tokens.id.get_type(), tokens.id.get_create_plist()
    if not isinstance(number, h5py.h5t.TypeIntegerID):
        return f"it has no one-dimensional dataset `{H5_DATASET}` of integers"
    if number.get_precision() != 8 * number.get_size() or number.get_offset() or number.get_size() > 8:
        return f"its {H5_DATASET} have unused bits"
    filters = {settings.get_filter(i)[0] for i in range(settings.get_nfilters())}
    if not filters <= OWN_FILTERS:
        return f"its {H5_DATASET} need the filter {min(filters - OWN_FILTERS)}, a program from elsewhere"
    if tokens.chunks and tokens.chunks[0] * number.get_size() > MAX_CHUNK_BYTES:
        return f"its {H5_DATASET} are in chunks of more than {MAX_CHUNK_BYTES >> 20} MiB"
    return None


def find_missing(tokens: "h5py.Dataset") -> str | None:
    """Say how many tokens were never written, which HDF5 reads as zeros; None if all were."""
    if tokens.chunks:
        n_chunks = -(-len(tokens) // tokens.chunks[0])
        is_whole = tokens.id.get_num_chunks() == n_chunks
    else:
        is_whole = tokens.id.get_storage_size() == tokens.nbytes
    return None if is_whole else f"some of its {len(tokens):,} {H5_DATASET} were never written"


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
        if (fault := find_missing(tokens)) is not None:
            raise ValueError(fault)
        for at in range(start, end, BUFFER_TOKENS):
            yield tokens[at : min(at + BUFFER_TOKENS, end)]
