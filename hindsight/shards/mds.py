"""The MDS format: shards of blocks of tokens, byte for byte what Streaming's MDSWriter writes, and how they are read.

MDSWriter accepts one sample at a time and cannot continue the work of another process; here a shard is written at once,
from an array. `import streaming` takes four seconds, and is only needed for compression and for hashes beyond xxh64.

Format: https://docs.mosaicml.com/projects/streaming (Dataset Format); a test compares with MDSWriter.
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hindsight.errors import InputError
from hindsight.files import open_regular, read_json, write_atomically
from hindsight.shards.integrity import QUICK_HASHES, hash_of
from hindsight.shards.manifest import Manifest, check_names

INDEX_NAME = "index.json"
MAX_INDEX_BYTES = 1 << 28
"""Size of an index, at most: it takes 500 bytes a shard."""
COLUMN = "tokens"
VERSION = 2
OFFSET_BYTES = 4
"""Bytes that a shard stores for every sample, in addition to the sample."""
HEAD_BYTES = 1 << 9
"""An upper bound for the head of a shard, also with all hashes that Streaming knows."""
STORAGE_SETTINGS = ("compression", "hashes")
"""The settings of a conversion that say how the tokens are stored, not which they are."""


def check_storage(compression: str | None, hashes: list[str], block_length: int, shard_bytes: int) -> None:
    """Raise InputError for settings with which Streaming could not read the shards."""
    if compression is not None:
        from streaming.base.compression import get_compressions

        if compression not in get_compressions():
            names = ", ".join(sorted({name.split(":")[0] for name in get_compressions()}))
            raise InputError(
                f"compression={compression} is not known; choose one of {names}, with a level as in zstd:7, or null."
            )
    if not set(hashes) <= QUICK_HASHES:
        from streaming.base.hashing import get_hashes

        unknown = sorted(set(hashes) - get_hashes())
        if unknown:
            raise InputError(f"hashes={unknown} are not known; choose from {', '.join(sorted(get_hashes()))}.")
    for itemsize in (2, 4):
        n_blocks = blocks_in(shard_bytes, block_length, itemsize)
        if n_blocks * (block_length * itemsize + OFFSET_BYTES) + HEAD_BYTES >= 1 << 32:
            raise InputError(
                f"shard_bytes={shard_bytes} with block_length={block_length} makes shards of more than the 4 GiB that "
                "MDS can hold; choose less, e.g. shard_bytes=67108864."
            )


def blocks_in(shard_bytes: int, block_length: int, itemsize: int) -> int:
    """Give the number of blocks in a shard of at most so many bytes, whatever its compression and hashes."""
    return max(1, (shard_bytes - HEAD_BYTES) // (block_length * itemsize + OFFSET_BYTES))


def write_shard(folder: Path, number: int, blocks: NDArray, manifest: Manifest) -> dict[str, Any]:
    """Write a shard; give its entry in the index.

    Args:
        folder: folder of the split.
        number: the shard's place in the split.
        blocks: (blocks, block_length) token ids.
        manifest: the conversion.
    """
    encoding = f"ndarray:{manifest.dtype}:{manifest.block_length}"
    compression, hashes = manifest.settings["compression"], manifest.settings["hashes"]
    sample_bytes = manifest.block_length * np.dtype(manifest.dtype).itemsize
    config: dict[str, Any] = {
        "column_encodings": [encoding],
        "column_names": [COLUMN],
        "column_sizes": [sample_bytes],
        "compression": compression,
        "format": "mds",
        "hashes": hashes,
        "version": VERSION,
    }
    # size_limit = bytes of a full shard, with the header's length computed while size_limit is still null.
    full = manifest.blocks_per_shard * (sample_bytes + OFFSET_BYTES)
    config["size_limit"] = None
    head = json.dumps(config, sort_keys=True).encode()
    entry = config | {"size_limit": 4 + 4 + len(head) + full}
    n_blocks = len(blocks)
    begin = 4 + OFFSET_BYTES * (n_blocks + 1) + len(head)
    offsets = (np.arange(n_blocks + 1, dtype=np.int64) * sample_bytes + begin).astype("<u4")
    body = np.ascontiguousarray(blocks, manifest.dtype).reshape(-1).view(np.uint8).data
    pieces = [np.uint32(n_blocks).tobytes(), offsets.tobytes(), head, body]
    name = f"shard.{number:05}.mds"
    entry |= {"samples": n_blocks, "raw_data": _file(name, pieces, hashes), "zip_data": None}
    if compression is not None:
        from streaming.base.compression import compress, get_compression_extension

        pieces = [compress(compression, b"".join(pieces))]
        name = f"{name}.{get_compression_extension(compression)}"
        entry["zip_data"] = _file(name, pieces, hashes)
    write_atomically(folder / name, *pieces)
    return entry


def read_shard(folder: Path, entry: dict[str, Any], dtype: str, block_length: int) -> NDArray[np.integer]:
    """Read the tokens of a shard, (blocks * block_length,); errors as for `read_shard_bytes`."""
    data = read_shard_bytes(folder, entry)
    # A shard consists of its number of samples, their offsets (uint32), its settings, and the blocks.
    offset = int(np.frombuffer(data, "<u4", count=1, offset=4)[0])
    return np.frombuffer(data, dtype, entry["samples"] * block_length, offset)


def read_shard_bytes(folder: Path, entry: dict[str, Any]) -> bytes:
    """Read a shard, decompressed.

    Raises:
        OSError: the file is missing.
        ValueError: size or hash are not those of the index. Decompressors may raise errors of their own.
    """
    info = stored_file(entry)
    with open_regular(folder / info["basename"]) as file:
        data = file.read()
    if len(data) != info["bytes"] or any(hash_of(name, [data]) != value for name, value in info["hashes"].items()):
        raise ValueError(f"{info['basename']} is not what the index says")
    if entry["zip_data"]:
        from streaming.base.compression import decompress

        data = decompress(entry["compression"], data)
    return data


def stored_file(entry: dict[str, Any]) -> dict[str, Any]:
    """Give name, size and hashes of the file that is stored for a shard: the compressed one, if there is one."""
    return entry["zip_data"] or entry["raw_data"]


def read_index(folder: Path) -> list[dict[str, Any]]:
    """Read the index of a folder, once for all shards: an entry for each; OSError or ValueError if it is not intact."""
    path = folder / INDEX_NAME
    return _parse_index(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _parse_index(path: Path, modified_ns: int) -> list[dict[str, Any]]:
    try:
        shards = read_json(path, MAX_INDEX_BYTES)["shards"]
        for number, shard in enumerate(shards):
            files = [shard["raw_data"], *([shard["zip_data"]] if shard["zip_data"] else [])]
            check_names(file["basename"] for file in files)
            for count in (shard["samples"], *(file["bytes"] for file in files)):
                if type(count) is not int or not 0 <= count < 1 << 32:  # offsets have 32 bits
                    raise ValueError(f"shard {number} has {str(count)[:40]} samples or bytes")
            hashes = [value for file in files for value in file["hashes"].values()]
            if not all(isinstance(text, str) for text in (*hashes, *shard["column_names"], *shard["column_encodings"])):
                raise ValueError(f"shard {number} has hashes or columns that are no text")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(repr(error)) from error
    return shards


def find_mismatch(folder: Path, n_tokens: int, block_length: int, blocks_per_shard: int) -> str | None:
    """Say where an index disagrees with the manifest; None if both tell of the same shards. Errors as `read_index`."""
    shards, blocks = read_index(folder), -(-n_tokens // block_length)
    n_shards = -(-blocks // blocks_per_shard)
    if len(shards) != n_shards or sum(shard["samples"] for shard in shards) != blocks:
        return "lists other shards than manifest.json"
    itemsizes = {f"ndarray:{dtype}:{block_length}": np.dtype(dtype).itemsize for dtype in ("uint16", "uint32")}
    for number, shard in enumerate(shards):
        n_blocks = min(blocks_per_shard, blocks - number * blocks_per_shard)
        itemsize = itemsizes.get("".join(shard["column_encodings"]))
        if shard["samples"] != n_blocks or itemsize is None:
            return f"has other samples than manifest.json in shard {number}"
        if shard["raw_data"]["bytes"] < n_blocks * block_length * itemsize:
            return f"has a size for shard {number} that its samples do not fit in"
    return None


def index_of(shards: list[dict[str, Any]]) -> str:
    """Write the content of index.json."""
    return json.dumps({"version": VERSION, "shards": shards}, sort_keys=True)


def _file(name: str, pieces: list[Any], hashes: list[str]) -> dict[str, Any]:
    n_bytes = sum(len(piece) for piece in pieces)
    return {"basename": name, "bytes": n_bytes, "hashes": {key: hash_of(key, pieces) for key in hashes}}
