"""MDS shards of blocks of tokens, byte for byte what Streaming's MDSWriter writes.

MDSWriter takes a sample at a time and cannot go on where another process was; here a shard is written at once, from an
array. `import streaming` takes four seconds, and is only needed for compression and for hashes beyond xxh64.

Format: https://docs.mosaicml.com/projects/streaming (Dataset Format); a test compares with MDSWriter.
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from hindsight.files import write_atomically
from hindsight.shards.manifest import Manifest, check_names

COLUMN = "tokens"
OFFSET_BYTES = 4
"""What MDS stores for every sample beside it."""
VERSION = 2


def write_shard(folder: Path, number: int, blocks: NDArray, plan: Manifest) -> dict[str, Any]:
    """Write a shard, and give its entry in the index.

    Args:
        folder: folder of the split.
        number: the shard's place in the split.
        blocks: (blocks, block_length) token ids.
        plan: the conversion.
    """
    encoding = f"ndarray:{plan.dtype}:{plan.block_length}"
    compression, hashes = plan.settings["compression"], plan.settings["hashes"]
    sample_bytes = plan.block_length * np.dtype(plan.dtype).itemsize
    config: dict[str, Any] = {
        "column_encodings": [encoding],
        "column_names": [COLUMN],
        "column_sizes": [sample_bytes],
        "compression": compression,
        "format": "mds",
        "hashes": hashes,
        "version": VERSION,
    }
    # The index tells a limit that exactly `blocks_per_shard` blocks reach; the head, whose length counts, tells none.
    full = plan.blocks_per_shard * (sample_bytes + OFFSET_BYTES)
    config["size_limit"] = None
    head = json.dumps(config, sort_keys=True).encode()
    entry = config | {"size_limit": 4 + 4 + len(head) + full}
    n_blocks = len(blocks)
    begin = 4 + OFFSET_BYTES * (n_blocks + 1) + len(head)
    offsets = (np.arange(n_blocks + 1, dtype=np.int64) * sample_bytes + begin).astype("<u4")
    body = np.ascontiguousarray(blocks, plan.dtype).reshape(-1).view(np.uint8).data
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


def read_shard_bytes(folder: Path, entry: dict[str, Any]) -> bytes:
    """Read a shard, decompressed; OSError or ValueError if it is not what its entry in the index says."""
    info = entry["zip_data"] or entry["raw_data"]
    data = (folder / info["basename"]).read_bytes()
    if len(data) != info["bytes"] or any(hash_of(name, [data]) != value for name, value in info["hashes"].items()):
        raise ValueError(f"{info['basename']} is not what the index says")
    if entry["zip_data"]:
        from streaming.base.compression import decompress

        data = decompress(entry["compression"], data)
    return data


@lru_cache(maxsize=2)
def _parsed(path: Path, modified_ns: int) -> list[dict[str, Any]]:
    shards = json.loads(path.read_text(encoding="utf-8"))["shards"]
    check_names(info["basename"] for shard in shards for info in (shard["raw_data"], shard["zip_data"]) if info)
    return shards


def read_index(folder: Path) -> list[dict[str, Any]]:
    """Read the entries of a split's shards, once for all shards; OSError, ValueError, KeyError or TypeError if none."""
    path = folder / "index.json"
    return _parsed(path, path.stat().st_mtime_ns)


def index_of(shards: list[dict[str, Any]]) -> str:
    """Write the content of index.json."""
    return json.dumps({"version": VERSION, "shards": shards}, sort_keys=True)


def hash_of(algorithm: str, pieces: list[Any]) -> str:
    """Hash the pieces of a file as Streaming does."""
    if algorithm == "xxh64":
        digest = xxhash.xxh64()
        for piece in pieces:
            digest.update(piece)
        return digest.hexdigest()
    from streaming.base.hashing import get_hash

    return get_hash(algorithm, b"".join(pieces))


def _file(name: str, pieces: list[Any], hashes: list[str]) -> dict[str, Any]:
    n_bytes = sum(len(piece) for piece in pieces)
    return {"basename": name, "bytes": n_bytes, "hashes": {key: hash_of(key, pieces) for key in hashes}}
