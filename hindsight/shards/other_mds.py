"""MDS folders of other programs, such as llm-foundry's: samples of tokens of any length, without a manifest.

Format: https://docs.mosaicml.com/projects/streaming (Dataset Format). A sample consists of the sizes of its columns of
variable size, and of the columns; `import streaming`, which reads it too, takes four seconds.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hindsight.shards.mds import COLUMN, read_shard_bytes

BYTES_DTYPE = np.dtype("<i8")
"""Number format of tokens that are stored as plain bytes, in llm-foundry's first versions."""
DTYPES = {8: "u1", 9: "i1", 16: "u2", 17: "i2", 32: "u4", 33: "i4", 64: "u8", 65: "i8"}
"""Number formats of MDS for integers, by the byte that stands for each where a column's may differ by sample."""
NAMES = {np.dtype(short).name: np.dtype(short) for short in DTYPES.values()}


def check_columns(entry: dict[str, Any]) -> None:
    """Raise ValueError unless a shard has a column of tokens that can be read."""
    names, encodings = entry["column_names"], entry["column_encodings"]
    if COLUMN not in names:
        raise ValueError(f"it has the columns {', '.join(names)}, and no `{COLUMN}`")
    encoding = encodings[names.index(COLUMN)]
    kind, *dtype = encoding.split(":")
    if kind not in ("ndarray", "bytes") or (dtype and dtype[0] not in NAMES):
        raise ValueError(f"its `{COLUMN}` are {encoding}, not integers (ndarray:int32, bytes of int64)")


def read_tokens(folder: Path, entry: dict[str, Any]) -> NDArray[np.int64]:
    """Read the tokens of all samples of a shard, one after the other.

    Raises:
        OSError: the file is missing.
        ValueError: it is not what the index says. Decompressors may raise errors of their own.
    """
    check_columns(entry)
    data = read_shard_bytes(folder, entry)
    n_samples = entry["samples"]
    offsets = np.frombuffer(data, "<u4", n_samples + 1, 4).astype(np.int64)
    if int.from_bytes(data[:4], "little") != n_samples or (np.diff(offsets) < 0).any() or offsets[-1] > len(data):
        raise ValueError(f"{entry['raw_data']['basename']} is not what the index says")
    at = entry["column_names"].index(COLUMN)
    sizes: list[int | None] = entry["column_sizes"]
    n_variable, before = sum(size is None for size in sizes), sum(size is None for size in sizes[:at])
    encoding = entry["column_encodings"][at]
    samples = []
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        lengths = np.frombuffer(data, "<u4", n_variable, start).tolist()
        variable = iter(lengths)
        begin = start + 4 * n_variable + sum(next(variable) if size is None else size for size in sizes[:at])
        size = sizes[at]
        length = lengths[before] if size is None else size
        if begin + length > end:
            raise ValueError(f"{entry['raw_data']['basename']} is damaged: a sample is longer than its place")
        samples.append(_decode(encoding, data[begin : begin + length]))
    return np.concatenate(samples) if samples else np.empty(0, np.int64)


def _decode(encoding: str, content: bytes) -> NDArray[np.int64]:
    """Give the numbers of a column, whatever its shape."""
    kind, *form = encoding.split(":")
    if kind == "bytes":
        return np.frombuffer(content, BYTES_DTYPE)
    at = 0
    if form:
        dtype = NAMES[form[0]]
    else:
        if content[0] not in DTYPES:
            raise ValueError(f"a sample's `{COLUMN}` are no integers")
        dtype, at = np.dtype(DTYPES[content[0]]), 1
    if len(form) < 2:  # number of dimensions, width of their sizes, and the sizes
        at += 1 + (content[at] >> 2) * (1 << (content[at] & 3))
    return np.frombuffer(content[at:], dtype).astype(np.int64)
