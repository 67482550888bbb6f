"""Tokenize a corpus, or take over tokens, and write MDS shards: out/train, out/val, out/tokenizer, out/manifest.json.

A sample is a block of `block_length` tokens. The last block of a split is filled up; the manifest tells how many tokens
the split has. Every shard of a split but the last holds `blocks_per_shard` blocks.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hindsight.command_line import run_script
from hindsight.config.conversion import ConvertConfig
from hindsight.conversion.convert import convert
from hindsight.conversion.outputs import Output
from hindsight.errors import InputError
from hindsight.files import write_atomically
from hindsight.shards.manifest import SPLITS, Manifest
from hindsight.shards.mds import OFFSET_BYTES, index_of, write_shard

DEFAULT_HASHES = {"xxh64"}
HEADER_BYTES = 1 << 12
"""More than the head of a shard takes."""


def main(config: ConvertConfig) -> None:
    """Convert, unless the same result is there."""
    check_storage(config)
    storage = {"compression": config.compression, "hashes": sorted(set(config.hashes))}
    convert(config, "mds", storage, MdsSink)


def check_storage(config: ConvertConfig) -> None:
    """Raise InputError for what Streaming cannot read."""
    if config.compression is not None:
        from streaming.base.compression import get_compressions

        if config.compression not in get_compressions():
            names = ", ".join(sorted({name.split(":")[0] for name in get_compressions()}))
            raise InputError(
                f"compression={config.compression} is not known; choose one of {names}, with a level as in zstd:7, "
                "or null."
            )
    if not set(config.hashes) <= DEFAULT_HASHES:
        from streaming.base.hashing import get_hashes

        unknown = sorted(set(config.hashes) - get_hashes())
        if unknown:
            raise InputError(f"hashes={unknown} are not known; choose from {', '.join(sorted(get_hashes()))}.")
    for itemsize in (2, 4):
        block_bytes = config.block_length * itemsize
        n_blocks = max(1, config.shard_bytes // block_bytes)
        if n_blocks * (block_bytes + OFFSET_BYTES) + HEADER_BYTES >= 1 << 32:
            raise InputError(
                f"shard_bytes={config.shard_bytes} with block_length={config.block_length} makes shards of more "
                "than the 4 GiB that MDS can hold; choose less, e.g. shard_bytes=67108864."
            )


class MdsSink:
    """Writes the shards of both splits.

    Args:
        folder: where train/ and val/ are made.
        plan: the conversion.
        fill_id: id that fills up the last block of a split.
        out: what takes complete shards.
    """

    def __init__(self, folder: Path, plan: Manifest, fill_id: int, out: Output) -> None:
        self.folder = folder
        self.plan = plan
        self.fill_id = fill_id
        self.out = out

    def write(self, split: str, number: int, blocks: NDArray) -> dict[str, Any]:
        """Write a shard."""
        (self.folder / split).mkdir(parents=True, exist_ok=True)
        entry = write_shard(self.folder / split, number, blocks, self.plan)
        self.out.stored(self.folder, f"{split}/{(entry['zip_data'] or entry['raw_data'])['basename']}")
        return entry

    def finish(self, shards: dict[str, list[dict[str, Any]]], waiting: dict[str, Path]) -> dict[str, Any]:
        """Write the last shards, filled up to whole blocks, and the indices."""
        self._check(shards)
        for split in SPLITS:
            n_tokens = waiting[split].stat().st_size // np.dtype(self.plan.dtype).itemsize
            if n_tokens:
                with waiting[split].open("ab") as file:  # what is behind the tokens is cut off if this is done again
                    np.full(-n_tokens % self.plan.block_length, self.fill_id, self.plan.dtype).tofile(file)
                blocks = np.memmap(waiting[split], self.plan.dtype, "r").reshape(-1, self.plan.block_length)
                shards[split].append(self.write(split, len(shards[split]), blocks))
            write_atomically(self.folder / split / "index.json", index_of(shards[split]))
        return {}

    def _check(self, shards: dict[str, list[dict[str, Any]]]) -> None:
        """Raise InputError if a shard that was stored before is no longer there."""
        infos = ((split, entry["zip_data"] or entry["raw_data"]) for split in SPLITS for entry in shards[split])
        missing = self.out.missing(self.folder, {f"{split}/{info['basename']}": info["bytes"] for split, info in infos})
        if missing:
            raise InputError(f"{missing[0]} is gone or damaged; remove {self.out.work} and start again.")


if __name__ == "__main__":
    run_script("convert_to_mds", main)
