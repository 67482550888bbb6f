"""Made-up corpora in the format of convert_to_mds.py: random tokens, and sparse files of any size."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hindsight.shards.manifest import SPLITS, Manifest, SplitCounts
from hindsight.shards.mds import COLUMN, OFFSET_BYTES, index_of, write_shard

BLOCK_LENGTH = 2048
SHARD_BYTES = 1 << 26
DTYPE = "uint16"
SEED = 0


def make_manifest(n_tokens: dict[str, int]) -> Manifest:
    """Describe a corpus of random tokens, as convert_to_mds.py would."""
    splits = {
        name: SplitCounts(None, tokens, tokens, -(-tokens // BLOCK_LENGTH), unigram_entropy_nats=1.0)
        for name, tokens in n_tokens.items()
    }
    return Manifest(
        format="mds",
        tokenizer_fingerprint="none",
        vocab_size=1 << 16,
        corpus_fingerprint="none",
        block_length=BLOCK_LENGTH,
        blocks_per_shard=SHARD_BYTES // (BLOCK_LENGTH * np.dtype(DTYPE).itemsize),
        dtype=DTYPE,
        seed=SEED,
        val_share=0.01,
        settings={"compression": None, "hashes": []},
        splits=splits,
    )


def write_corpus(folder: Path, n_tokens: int) -> NDArray[np.uint16]:
    """Write random tokens as the converter does, and once more into one file.

    Returns:
        The training tokens, mapped from the one file, which nanoGPT's get_batch reads.
    """
    folder.mkdir()
    manifest = make_manifest({"train": n_tokens, "val": BLOCK_LENGTH})
    tokens = np.random.default_rng(SEED).integers(1 << 16, size=n_tokens, dtype=np.uint16)
    for split, stream in (("train", tokens), ("val", tokens[:BLOCK_LENGTH])):
        (folder / split).mkdir()
        padded = np.concatenate([stream, np.zeros(-len(stream) % BLOCK_LENGTH, np.uint16)])
        blocks, at_once = padded.reshape(-1, BLOCK_LENGTH), manifest.blocks_per_shard
        starts = range(0, len(blocks), at_once)
        shards = [write_shard(folder / split, n, blocks[i : i + at_once], manifest) for n, i in enumerate(starts)]
        (folder / split / "index.json").write_text(index_of(shards), encoding="utf-8")
    manifest.save(folder)
    tokens.tofile(folder / "tokens.bin")
    return np.memmap(folder / "tokens.bin", np.uint16, "r")


def write_sparse_corpus(folder: Path, n_blocks: int) -> None:
    """Write shards whose tokens are holes in sparse files: full size, but next to no disk space."""
    manifest = make_manifest({"train": n_blocks * BLOCK_LENGTH, "val": BLOCK_LENGTH})
    block_bytes = BLOCK_LENGTH * np.dtype(DTYPE).itemsize
    for name in SPLITS:
        (folder / name).mkdir(parents=True)
        n_left, shards = manifest.splits[name].blocks, []
        while n_left:
            n = min(n_left, manifest.blocks_per_shard)
            begin = OFFSET_BYTES * (n + 2)
            path = folder / name / f"shard.{len(shards):05}.mds"
            with path.open("wb") as file:
                file.write(np.uint32(n).tobytes())
                file.write((begin + np.arange(n + 1) * block_bytes).astype(np.uint32).tobytes())
                file.truncate(begin + n * block_bytes)
            shards.append(_shard_entry(path.name, n, begin + n * block_bytes))
            n_left -= n
        (folder / name / "index.json").write_text(json.dumps({"version": 2, "shards": shards}))
    manifest.save(folder)


def _shard_entry(basename: str, n_blocks: int, n_bytes: int) -> dict[str, Any]:
    """Describe a shard as index.json does."""
    return {
        "column_encodings": [f"ndarray:{DTYPE}:{BLOCK_LENGTH}"],
        "column_names": [COLUMN],
        "column_sizes": [BLOCK_LENGTH * np.dtype(DTYPE).itemsize],
        "compression": None,
        "format": "mds",
        "hashes": [],
        "raw_data": {"basename": basename, "bytes": n_bytes, "hashes": {}},
        "samples": n_blocks,
        "size_limit": None,
        "version": 2,
        "zip_data": None,
    }
