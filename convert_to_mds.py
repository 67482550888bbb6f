"""Tokenize a corpus, or take over tokens, and write MDS shards: out/train, out/val, out/tokenizer, out/manifest.json.

A sample is a block of `block_length` tokens. The last block of a split is filled up; the manifest tells how many tokens
the split has. Every shard of a split but the last holds `blocks_per_shard` blocks.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from config import ConvertConfig, InputError, run_script
from conversion import convert
from manifest import SPLITS, Manifest

if TYPE_CHECKING:
    from streaming import MDSWriter  # elsewhere where it is needed: importing it takes seconds, and checks shall not

COLUMN = "tokens"
DEFAULT_HASHES = {"xxh64"}
OFFSET_BYTES = 4
"""What MDS stores for every sample beside it."""
HEADER_BYTES = 1 << 12
"""More than the head of a shard takes."""


def main(config: ConvertConfig) -> None:
    """Convert, unless the same result is there."""
    check_storage(config)
    storage = {"compression": config.compression, "hashes": sorted(set(config.hashes))}
    convert(config, "mds", storage, MdsSink)


def check_storage(config: ConvertConfig) -> None:
    """Raise InputError for what Streaming cannot write."""
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
    """

    def __init__(self, folder: Path, plan: Manifest, fill_id: int) -> None:
        self.plan = plan
        self.fill_id = fill_id
        self.writers = {split: self._open(folder / split) for split in SPLITS}

    def _open(self, folder: Path) -> "MDSWriter":
        from streaming import MDSWriter

        writer = MDSWriter(
            columns={COLUMN: f"ndarray:{self.plan.dtype}:{self.plan.block_length}"},
            out=str(folder),
            compression=self.plan.settings["compression"],
            hashes=self.plan.settings["hashes"],
            size_limit=None,
        )
        # A limit that exactly `blocks_per_shard` blocks reach. Only the writer knows how long its head is.
        sample_bytes = self.plan.block_length * np.dtype(self.plan.dtype).itemsize + OFFSET_BYTES
        writer.size_limit = writer.extra_bytes_per_shard + self.plan.blocks_per_shard * sample_bytes
        return writer

    def write(self, split: str, tokens: NDArray) -> None:
        """Write blocks, and fill up the last one if need be."""
        missing = -len(tokens) % self.plan.block_length
        filled = np.concatenate([tokens, np.full(missing, self.fill_id, tokens.dtype)])
        for block in filled.reshape(-1, self.plan.block_length):
            self.writers[split].write({COLUMN: block})

    def finish(self) -> None:
        """Write the last shards and the indices."""
        for writer in self.writers.values():
            writer.finish()
            n_blocks = [shard["samples"] for shard in writer.shards]
            assert all(n == self.plan.blocks_per_shard for n in n_blocks[:-1]), n_blocks

    def abandon(self) -> None:
        """End the writers' threads."""
        for writer in self.writers.values():
            writer.cancel_future_jobs()


if __name__ == "__main__":
    run_script("convert_to_mds", main)
