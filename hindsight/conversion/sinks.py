"""Where the tokens of a conversion go: a sink stores them in one of the formats of hindsight.shards."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hindsight.config.conversion import ConvertConfig
from hindsight.conversion.outputs import Output
from hindsight.errors import InputError
from hindsight.files import write_atomically
from hindsight.shards.h5 import H5_NAME, HASH_KEY, write_tokens
from hindsight.shards.manifest import H5, MDS, SPLITS, Manifest
from hindsight.shards.mds import INDEX_NAME, check_storage, index_of, stored_file, write_shard


class Sink(ABC):
    """Stores the tokens of both splits.

    Args:
        folder: where the result is made.
        manifest: the conversion.
        pad_id: id of the padding in the last block of a split.
        out: receives complete files.
    """

    format: ClassVar[str]
    """The format's name in the manifest."""

    def __init__(self, folder: Path, manifest: Manifest, pad_id: int, out: Output) -> None:
        self.folder = folder
        self.manifest = manifest
        self.pad_id = pad_id
        self.out = out

    @classmethod
    @abstractmethod
    def settings(cls, config: ConvertConfig) -> dict[str, Any]:
        """Give the manifest's settings for this format; InputError for what it cannot store."""

    @abstractmethod
    def finish(self, shards: dict[str, list[dict[str, Any]]], waiting: dict[str, Path]) -> dict[str, Any]:
        """Complete the result.

        Args:
            shards: for each split, the index entries of its stored shards.
            waiting: for each split, a file of the tokens behind them.

        Returns:
            Entries for the manifest's summary.
        """


class ShardSink(Sink):
    """A sink that stores the tokens of a split in shards, each as soon as it can be filled."""

    @abstractmethod
    def write_shard(self, split: str, number: int, blocks: NDArray) -> dict[str, Any]:
        """Store (blocks, block_length) token ids as a shard of a split; give its entry in the index."""


class MdsSink(ShardSink):
    """Writes MDS shards into a folder for each split."""

    format = MDS

    @classmethod
    def settings(cls, config: ConvertConfig) -> dict[str, Any]:
        """Give compression and hashes; InputError for those that Streaming does not know, and for too large shards."""
        check_storage(config.compression, config.hashes, config.block_length, config.shard_bytes)
        return {"compression": config.compression, "hashes": sorted(set(config.hashes))}

    def write_shard(self, split: str, number: int, blocks: NDArray) -> dict[str, Any]:
        """Write a shard, and pass it to the output."""
        (self.folder / split).mkdir(parents=True, exist_ok=True)
        entry = write_shard(self.folder / split, number, blocks, self.manifest)
        self.out.stored(self.folder, f"{split}/{stored_file(entry)['basename']}")
        return entry

    def finish(self, shards: dict[str, list[dict[str, Any]]], waiting: dict[str, Path]) -> dict[str, Any]:
        """Write the last shards, padded to full blocks, and the indices."""
        self._check(shards)
        dtype, block_length = self.manifest.dtype, self.manifest.block_length
        for split in SPLITS:
            n_tokens = waiting[split].stat().st_size // np.dtype(dtype).itemsize
            if n_tokens:
                # Should this process be killed, the next one truncates the file again.
                with waiting[split].open("ab") as file:
                    np.full(-n_tokens % block_length, self.pad_id, dtype).tofile(file)
                blocks = np.memmap(waiting[split], dtype, "r").reshape(-1, block_length)
                shards[split].append(self.write_shard(split, len(shards[split]), blocks))
            write_atomically(self.folder / split / INDEX_NAME, index_of(shards[split]))
        return {}

    def _check(self, shards: dict[str, list[dict[str, Any]]]) -> None:
        """Raise InputError if a shard that was stored earlier is missing."""
        infos = ((split, stored_file(entry)) for split in SPLITS for entry in shards[split])
        missing = self.out.missing(self.folder, {f"{split}/{info['basename']}": info["bytes"] for split, info in infos})
        if missing:
            raise InputError(f"{missing[0]} is gone or damaged; remove {self.out.work} and start again.")


class H5Sink(Sink):
    """Writes one h5 file at the end, when its length is known."""

    format = H5

    @classmethod
    def settings(cls, config: ConvertConfig) -> dict[str, Any]:
        """Give no settings; InputError for those of MDS, and for an address."""
        if "://" in config.out:
            raise InputError(f"out={config.out}: one file is not made to be streamed; give a local folder, or use MDS.")
        for key, default in (("compression", None), ("hashes", ["xxh64"])):
            if getattr(config, key) != default:
                raise InputError(f"{key}={getattr(config, key)} is for MDS; leave it out.")
        return {}

    def finish(self, shards: dict[str, list[dict[str, Any]]], waiting: dict[str, Path]) -> dict[str, Any]:
        """Join the files of both splits; the summary gets a hash of each."""
        self.folder.mkdir(exist_ok=True)
        hashes = write_tokens(self.folder / H5_NAME, self.manifest.dtype, [waiting[split] for split in SPLITS])
        return {HASH_KEY: dict(zip(SPLITS, hashes, strict=True))}
